"""PostgreSQL servers for tests: on loopback, in a folder of their own, ended by process id.

    python -m tests.postgres.server

runs one until it is ended, and prints the URL of a database.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

import psycopg

SETTINGS = {
    "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "on", "max_connections": "100",
    "shared_buffers": "64MB", "log_min_messages": "warning", "wal_init_zero": "off", "wal_recycle": "off",
    "max_wal_senders": "10", "wal_level": "replica", "hot_standby": "on", "timezone": "UTC", "log_timezone": "UTC"}
WITHIN_S = 30


def programs() -> Path:
    """Return the folder of PostgreSQL's programs, the newest that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    if not found:
        raise RuntimeError("PostgreSQL is not installed: apt-get install postgresql")
    return found[-1]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Server:
    """One server. PostgreSQL does not run as root, so then it runs as the user that its package has made."""

    def __init__(self, **settings: str) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="amqpd-postgres-"))
        self.data = self.directory / "data"
        self.settings = {**SETTINGS, "port": str(self.port), **settings}
        self._log: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._user: dict[str, object] = {}
        if not os.geteuid():
            owner = pwd.getpwnam("postgres")
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
            self._user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}

    def __enter__(self) -> Self:
        self._run("initdb", "-D", str(self.data), "-U", "amqpd", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [programs() / program, *arguments], capture_output=True, cwd=self.directory, **self._user)  # type: ignore
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        """Start it, and wait until it can be asked."""
        options = [option for name, value in self.settings.items() for option in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [programs() / "postgres", "-D", self.data, *options], stderr=subprocess.PIPE, cwd=self.directory,
            **self._user)       # type: ignore
        is_ready = threading.Event()
        threading.Thread(target=self._read_log, args=(self._process.stderr, is_ready), daemon=True).start()
        assert is_ready.wait(WITHIN_S), self.log()

    def _read_log(self, log: IO[bytes], is_ready: threading.Event) -> None:
        with log:
            for line in log:
                self._log.append(line.decode(errors="replace"))
                if b"ready to accept" in line:      # connections, or read-only ones
                    is_ready.set()
        is_ready.set()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT ends sessions, SIGQUIT is a crash, SIGKILL too, without the server's own cleaning up."""
        if self._process is not None:
            if how == signal.SIGKILL:
                for child in _children(self._process.pid):
                    os.kill(child, how)
            self._process.send_signal(how)
            self._process.wait(WITHIN_S)
            self._process = None

    def log(self) -> str:
        """Return what the server has logged."""
        return "".join(self._log)

    def url(self, database: str) -> str:
        return f"postgresql://amqpd@127.0.0.1:{self.port}/{database}"

    def new_database(self, name: str) -> str:
        """Make a database; return its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')     # type: ignore
        return self.url(name)


def _children(parent: int) -> list[int]:
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(number) for number in found.split()]


def main() -> None:
    """Run a server with an empty database until SIGTERM or Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Server() as server, suppress(KeyboardInterrupt):
        print(server.new_database("amqpd"), flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
