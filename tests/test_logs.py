"""Log lines: RabbitMQ's layout, one line for each event, and nothing waits for the reader of the log."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd import logs
from amqpd.wording import escape


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, afterwards as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def record(message: str, *arguments: object, connection: int | None = None) -> logging.LogRecord:
    made = logging.LogRecord("amqpd.connection", logging.WARNING, "x.py", 1, message, arguments, None)
    made.created = 1795411832.614635
    if connection is not None:
        made.connection = connection
    return made


def test_a_text_line_has_rabbitmqs_layout() -> None:
    line = logs.TextFormatter().format(record("accepting AMQP connection %s", "a -> b", connection=7))
    assert line == "2026-11-23 05:30:32.614635+00:00 [warning] <0.7.0> accepting AMQP connection a -> b"


def test_a_json_line_has_rabbitmqs_keys() -> None:
    assert json.loads(logs.JsonFormatter().format(record("hello"))) == {
        "time": "2026-11-23 05:30:32.614635+00:00",
        "level": "warning",
        "msg": "hello",
        "domain": "amqpd.connection",
        "pid": "<0.0.0>",
    }


def test_control_characters_are_escaped() -> None:
    assert escape("a\nb\tc\x1b[31m\u2028é名") == "a\\nb\\tc\\x1b[31m\\u2028é名"


@given(st.text(), st.sampled_from([logs.TextFormatter(), logs.JsonFormatter()]))
def test_one_event_is_one_line_whatever_a_name_holds(name: str, formatter: logging.Formatter) -> None:
    assert len(formatter.format(record("queue '%s'", name)).splitlines()) == 1


def test_a_traceback_is_on_the_line_of_its_event() -> None:
    made = record("internal error")
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        made.exc_info = (ValueError, error, error.__traceback__)
    line, = logs.TextFormatter().format(made).splitlines()
    assert " internal error | Traceback (most recent call last): | File " in line
    assert line.endswith(" | ValueError: two | lines")


def test_lower_levels_are_left_out(root: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure("warning", "text", stream)
    logging.getLogger("amqpd").info("unseen")
    logging.getLogger("amqpd").warning("seen")
    logs.flush()
    assert [line.split("> ")[1] for line in stream.getvalue().splitlines()] == ["seen"]


def test_to_configure_again_replaces_what_was(root: logging.Logger) -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure("info", "text", first)
    logs.configure("info", "json", second)
    logging.getLogger("amqpd").info("hello")
    logs.flush()
    assert not first.getvalue()
    assert json.loads(second.getvalue())["msg"] == "hello"


# A log that is not read

class Reader:
    """What a writer writes to. It takes nothing until the test says so."""

    def __init__(self) -> None:
        self.reads = threading.Event()
        self.is_asked = threading.Event()
        self.taken = b""

    def take(self, octets: bytes) -> None:
        self.is_asked.set()
        assert self.reads.wait(10), "the test never read"
        self.taken += octets


@pytest.fixture
def reader() -> Iterator[Reader]:
    """A reader that reads on at the end of the test at the latest."""
    reader = Reader()
    yield reader
    reader.reads.set()


def test_to_log_never_waits_and_what_does_not_fit_is_counted(reader: Reader, root: logging.Logger) -> None:
    handler = logs.BacklogHandler(logs.LineWriter(reader.take, "test", most_bytes=10 * 70))
    handler.setFormatter(logs.TextFormatter())
    root.handlers[:] = [handler]
    log = logging.getLogger("amqpd")
    log.warning("first")
    assert reader.is_asked.wait(10)
    for number in range(200):
        log.warning("%03d", number)
    assert not handler.writer.flush(0), "nothing has been read"
    reader.reads.set()
    assert handler.writer.flush(10)
    log.warning("last")
    assert handler.writer.flush(10)
    texts = [line.partition("> ")[2] for line in reader.taken.decode().splitlines()]
    kept = len(texts) - 3
    assert texts == ["first", *(f"{number:03d}" for number in range(kept)),
                     f"{200 - kept} log messages dropped: the log was not read as fast as it was written", "last"]
    assert 5 < kept < 20
    handler.close()


def test_a_line_larger_than_the_backlog_is_counted_too(reader: Reader) -> None:
    reader.reads.set()
    writer = logs.LineWriter(reader.take, "test", most_bytes=100)
    writer.put("x" * 101)
    assert writer.flush(10)
    writer.put("after")
    writer.close()
    assert writer.flush(10) and reader.taken == b"1 lines dropped\nafter\n"


def test_a_writer_that_is_closed_writes_what_waits(reader: Reader) -> None:
    writer = logs.LineWriter(reader.take, "test")
    writer.put("first")
    assert reader.is_asked.wait(10)
    writer.put("second")
    writer.close()
    reader.reads.set()
    assert writer.flush(10) and reader.taken == b"first\nsecond\n"


@pytest.mark.parametrize("is_blocking", [True, False])
def test_a_descriptor_is_written_to_whatever_it_takes_at_a_time(is_blocking: bool) -> None:
    inlet, outlet = os.pipe()
    os.set_blocking(outlet, is_blocking)
    with open(outlet, "w") as stream, open(inlet, "rb") as reading:
        write = logs.sink_of(stream)
        thread = threading.Thread(target=write, args=(bytes(300_000),))
        thread.start()
        assert len(reading.read(300_000)) == 300_000
        thread.join()


def test_a_reader_that_has_gone_ends_nothing() -> None:
    inlet, outlet = os.pipe()
    os.close(inlet)
    with open(outlet, "w") as stream:
        logs.sink_of(stream)(b"into the void")


def test_a_complaint_follows_what_was_logged_before(root: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure("info", "text", stream)
    logging.getLogger("amqpd").info("before")
    logs.complain("amqpd: cannot go on")
    logs.flush()
    assert [line.rpartition("> ")[2] for line in stream.getvalue().splitlines()] == ["before", "amqpd: cannot go on"]


def test_a_complaint_is_heard_without_a_log(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    root.handlers[:] = []
    logs.complain("amqpd: cannot go on")
    assert capsys.readouterr().err == "amqpd: cannot go on\n"


def test_the_newest_lines_are_kept_for_operators(root: logging.Logger) -> None:
    logs.configure("info", "text", io.StringIO())
    log = logging.getLogger("amqpd.connection")
    log.info("one\nline", extra={"connection": 7})
    log.warning("Two")
    log.debug("below the level")
    log.error("three")
    assert [line.msg for line in logs.recent(most=10)] == ["one\\nline", "Two", "three"]
    assert [line.msg for line in logs.recent(most=2)] == ["Two", "three"]
    assert [line.msg for line in logs.recent(most=10, least_level="WARNING")] == ["Two", "three"]
    assert [line.msg for line in logs.recent(most=10, text="tW")] == ["Two"]
    assert [line.msg for line in logs.recent(most=10, text="<0.7.0>")] == ["one\\nline"]
    first = logs.recent(most=10)[0]
    assert (first.level, first.domain, first.pid) == ("info", "amqpd.connection", "<0.7.0>")
    assert abs(first.at_ms - logging.LogRecord("", 0, "", 0, "", (), None).created * 1000) < 60_000
    with pytest.raises(ValueError, match="no level 'loud'"):
        logs.recent(most=1, least_level="loud")
    logs.flush()


def test_the_lines_that_are_kept_are_bounded() -> None:
    handler = logs.RecentLines(most=3, longest=5)
    for number in range(10):
        handler.emit(record("%s", str(number) * 10))
    assert [line.msg for line in handler.newest(10, 0, "")] == ["77777...", "88888...", "99999..."]


def test_there_are_no_lines_without_a_configured_log() -> None:
    assert logs.recent(most=10) == []
