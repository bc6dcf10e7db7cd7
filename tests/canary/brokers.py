"""The broker that is attacked: an amqpd that is started for one attack, or any broker that runs already."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.canary.peer import Address
from tests.canary.shape import Shape
from tests.crash.broker_process import BrokerProcess

PASSWORD = "canary"
VHOSTS = ("canary", "attack", "other")
AMQPCTL = str(Path(sys.executable).with_name("amqpctl"))
FAULTS = ("[error]", "Traceback", "INTERNAL_ERROR")
CONFIGURATION = """\
[limits]
message_memory = 67_108_864
""" + "".join(f'[[vhosts]]\nname = "{vhost}"\n' for vhost in VHOSTS) + "".join(
    f'[[users]]\nname = "{user}"\npassword = "{PASSWORD}"\ntags = ["monitoring"]\n' + "".join(
        f'[[users.permissions]]\nvhost = "{vhost}"\nconfigure = ".*"\nwrite = ".*"\nread = ".*"\n' for vhost in vhosts)
    for user, vhosts in (("canary", VHOSTS[:1]), ("attack", VHOSTS[1:]))) + (
    f'[[users]]\nname = "nobody"\npassword = "{PASSWORD}"\n'
    '[[users.permissions]]\nvhost = "attack"\nconfigure = "^$"\nwrite = "^$"\nread = "^$"\n')


class Broker(NamedTuple):
    """Where it listens, its process, what its operator calls, and where it logs."""

    host: str
    port: int
    pid: int
    ctl: list[str]
    log: Path | None = None
    http_port: int = 0

    def address(self, user: str, vhost: str) -> Address:
        """The address for one of our users."""
        return Address(self.host, self.port, user, PASSWORD, vhost)

    def faults(self) -> list[str]:
        """Return the lines of the log that report a bug."""
        if self.log is None:
            return []
        return [shortened(line) for line in self.log.read_text(errors="replace").splitlines()
                if any(fault in line for fault in FAULTS)]


def shortened(line: str) -> str:
    """A line's beginning and end, which are what matters of a traceback."""
    return line if len(line) < 400 else f"{line[:150]} ... {line[-200:]}"


def unread_pipe(path: Path) -> int:
    """Make a pipe of this name that can be written to, and is never read; its reading end."""
    os.mkfifo(path)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


@contextmanager
def own_broker(shape: Shape) -> Iterator[Broker]:
    """An amqpd of its own, with empty data."""
    with tempfile.TemporaryDirectory(prefix="canary-") as folder:
        directory = Path(folder)
        (directory / "amqpd.toml").write_text(CONFIGURATION)
        (directory / "data").mkdir(mode=0o700)
        log = directory / "log"
        unread = None if shape.log_is_read else unread_pipe(log)
        variables = {"AMQPD_CONFIG_FILE": str(directory / "amqpd.toml"), **dict(shape.variables)}
        if shape.has_http:
            variables["AMQPD_MANAGEMENT_LISTENERS"] = "127.0.0.1:0"
        with BrokerProcess(directory / "data", log, variables=variables) as process:
            process.wait_until_ready()
            ctl = [AMQPCTL, "--quiet", "--data-dir", str(directory / "data")]
            yield Broker("127.0.0.1", process.port, process.pid, ctl, log if shape.log_is_read else None,
                         process.http_port)
        if unread is not None:
            os.close(unread)


@contextmanager
def given_broker(host: str, port: int, pid: int, ctl: list[str], http_port: int = 0) -> Iterator[Broker]:
    """A broker that runs, furnished for one shape and cleared afterwards."""
    broker = Broker(host, port, pid, ctl, http_port=http_port)
    for user in ("canary", "attack", "nobody"):
        _tell(broker, "add_user", user, PASSWORD, may_fail=True)
    _tell(broker, "set_user_tags", "attack", "monitoring")
    for vhost in VHOSTS:
        _tell(broker, "add_vhost", vhost)
    _tell(broker, "set_permissions", "-p", "canary", "canary", ".*", ".*", ".*")
    _tell(broker, "set_permissions", "-p", "attack", "attack", ".*", ".*", ".*")
    _tell(broker, "set_permissions", "-p", "other", "attack", ".*", ".*", ".*")
    _tell(broker, "set_permissions", "-p", "attack", "nobody", "^$", "^$", "^$")
    try:
        yield broker
    finally:
        for vhost in VHOSTS:
            _tell(broker, "delete_vhost", vhost, may_fail=True)


def _tell(broker: Broker, *words: str, may_fail: bool = False) -> None:
    done = subprocess.run([*broker.ctl, *words], capture_output=True, text=True)
    assert may_fail or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
