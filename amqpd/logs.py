"""What a log line looks like: RabbitMQ's text layout, or one JSON object a line; and how it is written.

Owns the two formatters, and the thread that writes. Whoever logs says where it belongs by the logger,
`amqpd.connection` being the domain `amqpd.connection`, and which connection it is about by `extra={"connection": 7}`:
shown as `<0.7.0>`, which is how RabbitMQ's logs tell connections apart. Without it, it is the broker that speaks:
`<0.0.0>`.

Always true: one event is one line, whatever a client's names hold, a traceback included. To log never waits for the
reader of the log: what does not fit into a bounded backlog is dropped, and a line tells how much that was.

RabbitMQ docs/logging.
"""

from __future__ import annotations

import io
import json
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Literal, TextIO

MOST_OCTETS_WAITING = 4 * 1024 * 1024   # of lines that wait to be written
FLUSH_LIMIT_S = 1.0                     # at the end of the process, for what still waits


def configure(level: str, style: Literal["text", "json"], stream: TextIO | None = None) -> None:
    """Send all that is logged, at this level or above it, to the stream, which is stderr unless named."""
    handler = BacklogHandler(LineWriter(sink_of(stream or sys.stderr), "amqpd-log"))
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)


def flush(within_s: float = FLUSH_LIMIT_S) -> None:
    """Wait until all that has been logged is written, but not for a reader that has stopped to read."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, BacklogHandler):
            handler.writer.flush(within_s)


def complain(line: str) -> None:
    """Write a line to stderr as it is, after all that has been logged before, without waiting for its reader."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, BacklogHandler):
            handler.writer.put(line)
            return
    print(line, file=sys.stderr, flush=True)


class LineWriter:
    """Write lines in a thread of its own, in order. `sink` may block, but whoever calls `put` never waits.

    `describe_dropped` makes a line from the number of lines that did not fit into the backlog.
    """

    def __init__(
        self, sink: Callable[[bytes], None], name: str, most_octets: int = MOST_OCTETS_WAITING,
        describe_dropped: Callable[[int], str] = "{} lines dropped".format,
    ) -> None:
        self.describe_dropped = describe_dropped
        self._sink = sink
        self._most_octets = most_octets
        self._lines: list[bytes] = []
        self._octets = 0            # of the lines that wait
        self._dropped = 0
        self._is_writing = False
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write_forever, name=name, daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Write this line when its turn comes, or drop and count it where too much waits."""
        octets = line.encode(errors="backslashreplace") + b"\n"
        with self._changed:
            if self._octets + len(octets) > self._most_octets:
                self._dropped += 1
            else:
                self._lines.append(octets)
                self._octets += len(octets)
            self._changed.notify_all()

    def flush(self, within_s: float) -> bool:
        """Wait until all is written, or the time is over; return whether all is."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._lines or self._dropped or self._is_writing), within_s)

    def close(self) -> None:
        """Let the thread end once it has written what waits."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _write_forever(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while octets := self._take():
            self._sink(octets)

    def _take(self) -> bytes:
        """Return all that waits, as soon as something does; nothing once the writer is closed."""
        with self._changed:
            self._is_writing = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._lines or self._dropped or self._is_closed)
            lines, self._lines, self._octets = self._lines, [], 0
            if self._dropped:
                lines.append(self.describe_dropped(self._dropped).encode() + b"\n")
                self._dropped = 0
            self._is_writing = bool(lines)
            return b"".join(lines)


class BacklogHandler(logging.Handler):
    """Hand lines to a `LineWriter`."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self.writer = writer
        writer.describe_dropped = self._describe_dropped

    def emit(self, record: logging.LogRecord) -> None:
        """Format the record now, as what it names may change, and write it later."""
        self.writer.put(self.format(record))

    def flush(self) -> None:
        """Wait a while until all is written."""
        self.writer.flush(FLUSH_LIMIT_S)

    def close(self) -> None:
        """Let the thread write what waits, and end."""
        self.writer.close()
        super().close()

    def _describe_dropped(self, count: int) -> str:
        return self.format(logging.LogRecord(
            "amqpd", logging.WARNING, "", 0, "%d log messages dropped: the log was not read as fast as it was written",
            (count,), None))


def sink_of(stream: TextIO) -> Callable[[bytes], None]:
    """Return what writes bytes to a stream: to its descriptor, past its buffer, where it has one.

    A buffer has a lock that the end of the interpreter would wait for, however long the reader does not read.
    """
    try:
        descriptor = stream.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return lambda octets: _write_text(stream, octets)
    return lambda octets: _write_all(descriptor, octets)


def _write_text(stream: TextIO, octets: bytes) -> None:
    stream.write(octets.decode())
    stream.flush()


def _write_all(descriptor: int, octets: bytes) -> None:
    """Write all of it, however often it takes. Where nobody can read it any more, or the disk is full, it is lost."""
    left = memoryview(octets)
    while left:
        try:
            left = left[os.write(descriptor, left):]
        except BlockingIOError:
            select.select([], [descriptor], [])
        except OSError:
            return


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
