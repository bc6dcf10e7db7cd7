"""Nodes that share a store, as processes; they are ended by process id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Self

import pika

from tests.postgres.server import free_port

WITHIN_S = 30


class Node:
    """One node. Its ports are chosen before it starts, since it listens there again when it leads."""

    def __init__(self, directory: Path, name: str, url: str, *options: str, secret: str = "") -> None:
        self.name = name
        self.port, self.http_port, self.cluster_port = free_port(), free_port(), free_port()
        self.directory = directory / name
        self._command = [
            sys.executable, "-m", "amqpd", "--listen", f"127.0.0.1:{self.port}",
            "--management", f"127.0.0.1:{self.http_port}", "--metrics", "none", "--data-dir", str(self.directory),
            "--store", url, "--cluster-listen", f"127.0.0.1:{self.cluster_port}", "--node-name", name, *options]
        self._secret = secret
        self.log: list[str] = []
        self._news = threading.Condition()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGKILL)

    def start(self) -> None:
        """Start it, with an empty log, and wait until clients can connect."""
        self.log.clear()
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "AMQPD_CLUSTER_SECRET": self._secret})
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()
        self.wait_for(" ready ")

    def _read(self, lines: IO[bytes]) -> None:
        with lines:
            for line in lines:
                with self._news:
                    self.log.append(line.decode())
                    self._news.notify_all()
        with self._news:
            self.log.append("ended\n")
            self._news.notify_all()

    def wait_for(self, *texts: str, after: int = 0) -> str:
        """Wait until a line of the log, after so many lines, has one of these texts; return the line."""
        def find() -> str:
            return next((line for line in self.log[after:] if any(text in line for text in (*texts, "ended"))), "")

        with self._news:
            assert self._news.wait_for(find, WITHIN_S), "".join(self.log)
            found = find()
        assert any(text in found for text in texts), "".join(self.log)
        return found

    @property
    def leads(self) -> bool:
        """Whether it has come to lead."""
        return any("Server startup complete" in line for line in self.log)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it, and return its exit code."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(how)
        if how == signal.SIGKILL:
            process.send_signal(signal.SIGCONT)
        exit_code = process.wait(WITHIN_S)
        self._reader.join(WITHIN_S)
        return exit_code

    def connect(self) -> pika.BlockingConnection:
        """Connect a client to it."""
        return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", self.port, socket_timeout=5))


def leader_of(nodes: Sequence[Node]) -> Node:
    """Wait until one of these nodes leads, and return it."""
    while True:
        for one in nodes:
            if one.leads:
                return one
        one = nodes[0]
        one.wait_for("Server startup complete", "leads at")
