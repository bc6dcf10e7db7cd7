"""amqpctl top: rates from two readings, the order of rows, and the table on a terminal."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click
import pytest

from amqpd import ctl
from amqpd.broker.broker import OPERATOR, Broker
from amqpd.broker.definitions import QueueDefinition
from amqpd.ctl import top as top_module
from amqpd.ctl.top import VIEWS, Terminal, draw_until_quit, rows_of, sorted_rows
from amqpd.management.count_commands import CountCommands
from tests.support.samples import messages
from tests.support.talk import Stage
from tests.test_ctl_definitions import broker

__all__ = ["broker"]        # a fixture

COLUMNS = ["name", "ready", "unacked", "consumers", "published", "delivered", "acked"]


def reading(now_ms: int, *rows: list[Any]) -> dict[str, Any]:
    """What the broker answers."""
    return {"columns": COLUMNS, "rows": [*rows], "now_ms": now_ms}


class FakeTerminal(Terminal):
    """A screen of 40 columns and 5 lines, on which q is pressed after the second page."""

    def __init__(self) -> None:
        self.pages: list[list[str]] = []
        self.waits: list[float] = []

    def write(self, text: str) -> None:
        self.pages.append(click.unstyle(text.replace("\x1b[H", "").replace("\x1b[J", "")).splitlines())

    @property
    def size(self) -> tuple[int, int]:
        return 40, 5

    def wait_for_key(self, seconds: float) -> str:
        self.waits.append(seconds)
        return "q" if len(self.pages) == 2 else ""


def test_rates_are_changes_in_a_second_and_not_known_without_two_readings() -> None:
    before = reading(1_000, ["a", 0, 0, 1, 100, 50, 7], ["again", 0, 0, 0, 90, 0, 0])
    now = reading(3_000, ["a", 40, 3, 1, 150, 53, 7], ["again", 1, 0, 0, 1, 0, 0], ["new", 1, 0, 0, 1, 0, 0])
    assert rows_of(VIEWS["queues"], before, now) == [
        ["a", 40, 3, 1, 25, 1.5, 0], ["again", 1, 0, 0, None, 0, 0], ["new", 1, 0, 0, None, None, None]]


def test_rows_are_sorted_from_the_highest_number_and_by_name() -> None:
    rows = [["b", 1, 0, 0, None, 0, 0], ["c", 5, 0, 0, 2, 0, 0], ["a", 1, 0, 0, 9, 0, 0]]
    assert [row[0] for row in sorted_rows(VIEWS["queues"], rows, "ready")] == ["c", "a", "b"]
    assert [row[0] for row in sorted_rows(VIEWS["queues"], rows, "in/s")] == ["a", "c", "b"]
    assert [row[0] for row in sorted_rows(VIEWS["queues"], rows, "name")] == ["a", "b", "c"]


def test_a_table_on_a_terminal_fits_and_is_drawn_until_q_is_pressed() -> None:
    long = "a.very.long.name.of.a.queue"
    rows = [[long, 9, 0, 0, 0, 0, 0], ["b", 1, 0, 2, 0, 0, 0], ["c", 0, 0, 0, 0, 0, 0]]
    readings = iter([reading(0, *rows), reading(2_000, [long, 9, 0, 0, 50, 0, 0], *rows[1:])])
    terminal = FakeTerminal()
    draw_until_quit(VIEWS["queues"], "ready", "the title", lambda: next(readings), terminal, 2.0, None)
    first, second = [[line.removesuffix("\x1b[K") for line in page] for page in terminal.pages]
    assert first[0] == "the title" and len(first) == len(second) == 5       # two rows of three: there is no more room
    assert second[2].split() == ["name", "ready", "unacked", "consumers", "in/s", "out/s", "ack/s"]
    assert second[3].split() == ["a.very.long…", "9", "0", "0", "25", "0", "0"]
    assert terminal.waits == [2.0, 2.0]


def test_without_a_terminal_one_table_is_printed(
    broker: Broker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = broker.vhosts["/"].declare_queue(OPERATOR, QueueDefinition(0, "/", "q"), OPERATOR)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        queue.publish(messages(1, 2))
        broker.clock.now_ms += 1_000

    monkeypatch.setattr(top_module.time, "sleep", sleep)
    assert ctl.main(["top"]) == 0
    assert capsys.readouterr().out == (
        "Top queues of vhost / ...\n"
        "name\tready\tunacked\tconsumers\tin/s\tout/s\tack/s\nq\t2\t0\t0\t2\t0\t0\n")
    assert ctl.main(["--formatter", "json", "top", "connections"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert ctl.main(["top", "--sort", "size"]) == 64
    assert "there is no column 'size', only name, ready" in capsys.readouterr().err


def test_connections_are_shown_with_the_bytes_of_a_second() -> None:
    stage = Stage()
    talk = stage.client().open_channel()
    before = asyncio.run(CountCommands(stage.broker).count_connections())
    talk.publish("q", b"x" * 2_000)
    stage.pass_time(2)
    now = asyncio.run(CountCommands(stage.broker).count_connections())
    (name, user, vhost, state, channels, received, sent, unsent), = rows_of(VIEWS["connections"], before, now)
    assert (name, user, vhost) == ("10.0.0.1:40000 -> 10.0.0.2:5672", "guest", "/")
    assert (state, channels, sent, unsent) == ("running", 1, 0, 0)
    assert 1_000 < received < 1_100
