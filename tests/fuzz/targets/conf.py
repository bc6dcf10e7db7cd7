"""Files of RabbitMQ's format: read, translated, checked, and converted to TOML that means the same."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from amqpd.config import ConfigError, examine
from amqpd.config.conversion import convert
from amqpd.config.rabbitmq_keys import KEYS
from tests.fuzz.targets.target import Target

_ELSEWHERE = re.compile(rb"include[^\n]*(?:/|\.\.)")    # files of this machine would be read


@cache
def folder() -> Path:
    """Return a directory of this process, with a file that can be included."""
    path = Path(tempfile.mkdtemp(prefix="amqpd-fuzz-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    (path / "other.conf").write_text("heartbeat = 7\ninclude r.conf\n")
    return path


def run(data: bytes) -> None:
    """Read a file."""
    if _ELSEWHERE.search(data):
        return
    path, toml = folder() / "r.conf", folder() / "amqpd.toml"
    path.write_bytes(data)
    try:
        found = examine(None, {}, rabbitmq_conf=[str(path)])
    except ConfigError as error:
        assert error.problems and all(map(str.strip, error.problems))
        return
    if found.problems or found.config is None:
        assert found.problems
        return
    toml.write_text(convert([str(path)], {}))
    again = examine(str(toml), {})
    assert not again.problems, again.problems
    assert without_places(again.config) == without_places(found.config)


def without_places(config: Any) -> str:
    """Return a configuration in words, without where its values are."""
    return re.sub(r"where='(?:[^'\\]|\\.)*'|where=\"(?:[^\"\\]|\\.)*\"", "", repr(config))


def seeds() -> list[bytes]:
    """Return lines for all keys, some at a time, and one of each form."""
    values = ("true", "5", "none", "127.0.0.1:5672", "info", "x", "0.4", "2GB")
    lines = [f"{row.name.replace('$name', 'n').replace('*', '1')} = {values[number % 8]}".encode()
             for number, row in enumerate(KEYS)]
    return [b"", b"# comment", b"a = 'quoted # text' # comment", b"a.b\\.c = $(d)\nd = 1\r\n", b"include other.conf",
            b"include *.conf", b"x", b"heartbeat = 5\nheartbeat = 6",
            *(b"\n".join(lines[start::24]) for start in range(24)),
            b"default_policies.operator.p.queue_pattern = ^q\ndefault_policies.operator.p.max_length = 5\n"
            b"default_policies.operator.p.apply_to = queues\ndefault_policies.operator.p.vhost_pattern = /"]


TARGET = Target(
    run, seeds, sorted({part.encode() for row in KEYS for part in row.name.split(".")}) + [
        b" = ", b"\n", b"#", b"'", b"\\.", b"$(", b")", b"true", b"false", b"none", b"include ", b"::", b"127.0.0.1:",
        b"[::1]:5672", b"encrypted:", b"GB", b"MiB", b"e9", b"-1", b"0.5", b"infinity"],
    longest=600, steps=6_000, memory=60_000, lengths=(), share=2)
