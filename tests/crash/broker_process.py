"""Start a broker as a separate process, as a user does, and end it in every possible way.

Owns the process, its port and its log. The data directory belongs to the caller and is kept.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "amqpd")
SABOTAGED = (sys.executable, str(Path(__file__).with_name("sabotaged.py")))
START_LIMIT_S = 20.0
STOP_LIMIT_S = 15.0
_READY = re.compile(
    r"amqpd \S+ ready amqp=127\.0\.0\.1:(\d+)(?: amqps=127\.0\.0\.1:(\d+))?"
    r"(?: http=\S+?(?::(\d+))?)?(?: metrics=\S+)? data=")


class BrokerProcess:
    """One run of a broker on a directory, with these environment variables. Its log is appended to `log_path`.

    With `output`, a descriptor, all output goes there instead, and `wait_until_ready` cannot be used.
    """

    def __init__(
        self, data_dir: Path, log_path: Path, *, command: tuple[str, ...] = COMMAND, listen: str = "127.0.0.1:0",
        variables: Mapping[str, str] | None = None, level: str = "warning", output: int | None = None,
    ) -> None:
        self.port = int(listen.rpartition(":")[2])
        self.tls_port = self.http_port = 0
        self.start_s = 0.0
        self.log_path = log_path
        self._started_at = time.monotonic()
        settings = {name: value for name, value in os.environ.items() if not name.startswith("AMQPD_")}
        ours = {"PYTHONPATH": str(ROOT), "AMQPD_MANAGEMENT_LISTENERS": "none",
                "AMQPD_MANAGEMENT_METRICS_LISTENERS": "none"}
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "serve", "--listen", listen, "--data-dir", str(data_dir), "--log-level", level],
                cwd=ROOT, env={**settings, **ours, **(variables or {})}, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if output is None else output, stderr=log if output is None else output,
                text=True)

    def __enter__(self) -> BrokerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def wait_until_ready(self) -> BrokerProcess:
        """Wait for the ready line, and read the port from it. Raises AssertionError for another line."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            assert selector.select(START_LIMIT_S), f"the broker was not ready within {START_LIMIT_S} s"
        line = self._process.stdout.readline()
        ready = _READY.match(line)
        assert ready, f"the broker said {line!r} instead of being ready"
        self.port, self.tls_port, self.http_port = (int(port or 0) for port in ready.groups())
        self.start_s = time.monotonic() - self._started_at
        return self

    def wait_for_line(self, *texts: str) -> None:
        """Wait until the log has a line with all of these texts; AssertionError if that takes too long."""
        deadline = time.monotonic() + START_LIMIT_S
        while not any(all(text in line for text in texts) for line in self.log_path.read_text().splitlines()):
            assert time.monotonic() < deadline, f"the log never said {texts!r}"
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def kill(self) -> None:
        """Kill the process with SIGKILL; do nothing if it has ended."""
        self._process.kill()
        self.wait()

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Ask it to stop and return its exit code."""
        self.signal(signum)
        return self.wait()

    def signal(self, signum: int) -> None:
        """Send a signal and do not wait."""
        self._process.send_signal(signum)

    def wait(self, limit_s: float = STOP_LIMIT_S) -> int:
        """The exit code. Raises subprocess.TimeoutExpired."""
        code = self._process.wait(limit_s)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    def has_ended_within(self, seconds: float) -> bool:
        """Whether it ends by itself within this time."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True
