"""The log: RabbitMQ's text layout or one JSON object a line, and the thread that writes it.

The name of the logger is the domain: `amqpd.connection` is the domain `amqpd.connection`. `extra={"connection": 7}`
names the connection that a record is about. It is shown as `<0.7.0>`, as in RabbitMQ's logs. Without it the record is
about the broker itself: `<0.0.0>`.

Always true: one record is one line, whatever names it contains; a traceback becomes one line too. Logging never waits
for the reader of the log: lines that do not fit into a bounded backlog are dropped, and a line reports their number.

RabbitMQ docs/logging.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import select
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Literal, NamedTuple, TextIO

from amqpd.wording import escape

MOST_BYTES_WAITING = 4 * 1024 * 1024   # of lines that are not written yet
MOST_RECENT, LONGEST_RECENT = 1_000, 2_000      # lines that are kept for operators, and characters of each
FLUSH_LIMIT_S = 1.0                     # at the end of the process, for lines that are not written yet


def configure(level: str, style: Literal["text", "json"], stream: TextIO | None = None) -> None:
    """Send all records of this level or above to the stream, by default stderr."""
    handler = BacklogHandler(LineWriter(sink_of(stream or sys.stderr), "amqpd-log"))
    handler.setFormatter(_formatter(style))
    logging.basicConfig(level=level.upper(), handlers=[handler, RecentLines()], force=True)
    logging.captureWarnings(True)


def change(level: str, style: Literal["text", "json"]) -> None:
    """Use another level and format from now on."""
    logging.getLogger().setLevel(level.upper())
    for handler in logging.getLogger().handlers:
        if isinstance(handler, BacklogHandler):
            handler.setFormatter(_formatter(style))


def recent(*, most: int, least_level: str = "debug", text: str = "") -> list[RecentLine]:
    """Return the newest lines of the log, the newest last: of this level or above, and with this text in any case.

    There are none unless `configure` has been called. Raises ValueError for a level that does not exist.
    """
    level = logging.getLevelNamesMapping().get(least_level.upper())
    if level is None:
        raise ValueError(f"no level {least_level!r}")
    for handler in logging.getLogger().handlers:
        if isinstance(handler, RecentLines):
            return handler.newest(most, level, text)
    return []


def flush(within_s: float = FLUSH_LIMIT_S) -> None:
    """Wait until all records so far are written, but at most `within_s` if the reader is slow."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, BacklogHandler):
            handler.writer.flush(within_s)


def complain(line: str) -> None:
    """Write a line to stderr without a log layout, after all records so far, without waiting for the reader."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, BacklogHandler):
            handler.writer.put(line)
            return
    print(line, file=sys.stderr, flush=True)


class LineWriter:
    """Writes lines in order, in its own thread. `sink` may block; `put` never does.

    `describe_dropped` makes a line from the number of lines that did not fit into the backlog.
    """

    def __init__(
        self, sink: Callable[[bytes], None], name: str, most_bytes: int = MOST_BYTES_WAITING,
        describe_dropped: Callable[[int], str] = "{} lines dropped".format,
    ) -> None:
        self.describe_dropped = describe_dropped
        self._sink = sink
        self._most_bytes = most_bytes
        self._lines: list[bytes] = []
        self._bytes = 0            # of the lines that are not written yet
        self._dropped = 0
        self._is_writing = False
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write_forever, name=name, daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Add this line to the backlog, or drop and count it if the backlog is full."""
        encoded = line.encode(errors="backslashreplace") + b"\n"
        with self._changed:
            if self._bytes + len(encoded) > self._most_bytes:
                self._dropped += 1
            else:
                self._lines.append(encoded)
                self._bytes += len(encoded)
            self._changed.notify_all()

    def flush(self, within_s: float) -> bool:
        """Wait until all lines are written, or the time is over; return whether all are written."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._lines or self._dropped or self._is_writing), within_s)

    def close(self) -> None:
        """Let the thread end after it has written the backlog."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _write_forever(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while encoded := self._take():
            self._sink(encoded)

    def _take(self) -> bytes:
        """Wait for lines and return them all; return nothing once the writer is closed."""
        with self._changed:
            self._is_writing = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._lines or self._dropped or self._is_closed)
            lines, self._lines, self._bytes = self._lines, [], 0
            if self._dropped:
                lines.append(self.describe_dropped(self._dropped).encode() + b"\n")
                self._dropped = 0
            self._is_writing = bool(lines)
            return b"".join(lines)


class BacklogHandler(logging.Handler):
    """Passes formatted records to a `LineWriter`."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self.writer = writer
        writer.describe_dropped = self._describe_dropped

    def emit(self, record: logging.LogRecord) -> None:
        """Format the record now, since its arguments may change, and write it later."""
        self.writer.put(self.format(record))

    def flush(self) -> None:
        """Wait until all records are written, but not for long."""
        self.writer.flush(FLUSH_LIMIT_S)

    def close(self) -> None:
        """Let the thread write the backlog and end."""
        self.writer.close()
        super().close()

    def _describe_dropped(self, count: int) -> str:
        return self.format(logging.LogRecord(
            "amqpd", logging.WARNING, "", 0, "%d log messages dropped: the log was not read as fast as it was written",
            (count,), None))


class RecentLine(NamedTuple):
    """A line of the log as operators are shown it; `at_ms` is since 1970."""

    at_ms: int
    level: str
    domain: str
    pid: str
    msg: str


class RecentLines(logging.Handler):
    """Keeps the newest lines in memory: at most `most`, of each at most `longest` characters."""

    def __init__(self, most: int = MOST_RECENT, longest: int = LONGEST_RECENT) -> None:
        super().__init__()
        self._lines: deque[tuple[int, RecentLine]] = deque(maxlen=most)
        self._longest = longest

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record, formatted now, since its arguments may change."""
        text = escape(_message(record))
        if len(text) > self._longest:
            text = text[:self._longest] + "..."
        self._lines.append((record.levelno, RecentLine(
            int(record.created * 1000), _level(record), record.name, _pid(record), text)))

    def newest(self, most: int, least: int, text: str) -> list[RecentLine]:
        """Return at most so many of the newest lines of this level or above that contain a text, the newest last."""
        folded, found = text.casefold(), list[RecentLine]()
        with self._locked():
            lines = list(self._lines)
        for level, line in reversed(lines):
            if len(found) >= most:
                break
            if level >= least and (not folded or folded in f"{line.pid} {line.domain} {line.msg}".casefold()):
                found.append(line)
        return found[::-1]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.acquire()      # other threads log too
        try:
            yield
        finally:
            self.release()


def sink_of(stream: TextIO) -> Callable[[bytes], None]:
    """Return a function that writes bytes to a stream: if it has a descriptor, directly to it, past the buffer.

    The end of the interpreter waits for the lock of the buffer, as long as the reader of the stream does not read.
    """
    try:
        descriptor = stream.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return lambda encoded: _write_text(stream, encoded)
    return lambda encoded: _write_all(descriptor, encoded)


def _write_text(stream: TextIO, encoded: bytes) -> None:
    stream.write(encoded.decode())
    stream.flush()


def _write_all(descriptor: int, encoded: bytes) -> None:
    """Write all bytes, in several writes if needed. They are lost if the reader is gone or the disk is full."""
    left = memoryview(encoded)
    while left:
        try:
            left = left[os.write(descriptor, left):]
        except BlockingIOError:
            select.select([], [descriptor], [])
        except OSError:
            return


class TextFormatter(logging.Formatter):
    """Formats `2026-11-23 05:30:32.614635+00:00 [info] <0.7.0> accepting AMQP connection …`"""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line without its line end."""
        return f"{_time(record)} [{_level(record)}] {_pid(record)} {escape(_message(record))}"


class JsonFormatter(logging.Formatter):
    """Formats a JSON object with `time`, `level`, `msg`, `domain` and `pid`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line without its line end, in ASCII."""
        return json.dumps({
            "time": _time(record),
            "level": _level(record),
            "msg": _message(record),
            "domain": record.name,
            "pid": _pid(record),
        })


def _formatter(style: Literal["text", "json"]) -> logging.Formatter:
    return JsonFormatter() if style == "json" else TextFormatter()


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
