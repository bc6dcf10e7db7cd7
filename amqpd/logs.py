"""What a log line looks like: RabbitMQ's text layout, or one JSON object a line.

Owns the two formatters. Whoever logs says where it belongs by the logger, `amqpd.connection` being the domain
`amqpd.connection`, and which connection it is about by `extra={"connection": 7}`: shown as `<0.7.0>`, which is how
RabbitMQ's logs tell connections apart. Without it, it is the broker that speaks: `<0.0.0>`.

Always true: one event is one line, whatever a client's names hold, a traceback included.

RabbitMQ docs/logging.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Literal, TextIO


def configure(level: str, style: Literal["text", "json"], stream: TextIO | None = None) -> None:
    """Send all that is logged, at this level or above it, to the stream, which is stderr unless named."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)


class TextFormatter(logging.Formatter):
    """`2026-11-23 05:30:32.614635+00:00 [info] <0.7.0> accepting AMQP connection …`"""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line without its end."""
        return f"{_time(record)} [{_level(record)}] {_pid(record)} {escape(_message(record))}"


class JsonFormatter(logging.Formatter):
    """An object with `time`, `level`, `msg`, `domain` and `pid`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line without its end, in ASCII."""
        return json.dumps({
            "time": _time(record),
            "level": _level(record),
            "msg": _message(record),
            "domain": record.name,
            "pid": _pid(record),
        })


def escape(text: str) -> str:
    """The text with all that is not printable, line ends among it, written as Python would."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode() for c in text])


def _message(record: logging.LogRecord) -> str:
    message = record.getMessage()
    if record.exc_info:
        lines = logging.Formatter().formatException(record.exc_info).splitlines()
        return " | ".join([message, *(line.strip() for line in lines if line.strip(" ^~"))])
    return message


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, timezone.utc).isoformat(sep=" ", timespec="microseconds")


def _level(record: logging.LogRecord) -> str:
    return record.levelname.lower()


def _pid(record: logging.LogRecord) -> str:
    return f"<0.{getattr(record, 'connection', 0)}.0>"
