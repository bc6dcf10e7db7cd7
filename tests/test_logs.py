"""Log lines: RabbitMQ's layout, and one event one line."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd import logs


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
    assert logs.escape("a\nb\tc\x1b[31m\u2028é名") == "a\\nb\\tc\\x1b[31m\\u2028é名"


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
    assert [line.split("> ")[1] for line in stream.getvalue().splitlines()] == ["seen"]


def test_to_configure_again_replaces_what_was(root: logging.Logger) -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure("info", "text", first)
    logs.configure("info", "json", second)
    logging.getLogger("amqpd").info("hello")
    assert not first.getvalue()
    assert json.loads(second.getvalue())["msg"] == "hello"
