"""Filters on what takes long to read: crowded headers, long bodies, JSON of very many values."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pamqp.commands import Basic, Queue

from amqpd.management import message_filter
from amqpd.management.message_filter import MOST_JSON_VALUES, PIECE
from amqpd.management.node_commands import MessageLimits
from amqpd.properties import all_properties
from tests.management.desk import SessionDesk
from tests.support.talk import Stage, Talk

CROWDED = {f"header-{number:04}": number for number in range(800)}


@pytest.fixture
def desk() -> Iterator[SessionDesk]:
    desk = SessionDesk(Stage(), MessageLimits(slice=100))
    yield desk
    desk.stage.assert_silent()


@pytest.fixture
def talk(desk: SessionDesk) -> Talk:
    """A client with the queues `q` and `other`."""
    talk = desk.stage.client().open_channel()
    for name in ("q", "other"):
        talk.client(Queue.Declare(queue=name)).broker(Queue.DeclareOk(name, 0, 0))
    return talk


@pytest.fixture
def decoded_by(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads that have decoded properties for a filter, once for each time."""
    threads = list[int]()

    def decode(properties: bytes) -> dict[str, Any]:
        threads.append(threading.get_ident())
        return all_properties(properties)

    monkeypatch.setattr(message_filter, "all_properties", decode)
    return threads


def found(desk: SessionDesk, **filter: Any) -> list[int]:
    """The positions of the messages that match."""
    told = desk.ask("peek", queue="q", count=1_000, truncate=0, filter=filter)
    return [one["offset"] for one in told["messages"]]


def put(talk: Talk, *bodies: bytes, **headers: Any) -> None:
    talk.publish("q", *bodies, properties=Basic.Properties(headers=headers))


def test_long_headers_and_bodies_match_as_short_ones_do(desk: SessionDesk, talk: Talk) -> None:
    for _ in range(3):
        put(talk, b"short", wanted=1)
        put(talk, b"x" * 100_000 + b"needle", wanted=1, **CROWDED)
        put(talk, b"x" * 100_000, other=1, **CROWDED)
    assert found(desk, header=["wanted=1"]) == [0, 1, 3, 4, 6, 7]
    assert found(desk, header=["wanted", "header-0799=799"], text="needle") == [1, 4, 7]
    told = desk.ask("move", queue="q", to_queue="other", filter={"header": ["wanted=1"]})
    assert (told["matched"], told["moved"], told["stopped"]) == (6, 6, None)
    assert found(desk) == [0, 1, 2]
    assert [one["payload_bytes"] for one in desk.ask("peek", queue="other")["messages"]] == [5, 100_006] * 3


def test_ids_and_a_filter_on_long_headers_are_checked_together(desk: SessionDesk, talk: Talk) -> None:
    put(talk, *[b"a"] * 4, **CROWDED)
    numbers = [one["id"] for one in desk.ask("peek", queue="q")["messages"]]
    told = desk.ask("delete_messages", queue="q", ids=numbers[1:3], filter={"header": ["header-0001=1"]})
    assert (told["deleted"], told["gone"]) == (2, [])
    assert [one["id"] for one in desk.ask("peek", queue="q")["messages"]] == [numbers[0], numbers[3]]


def test_headers_are_decoded_once_for_all_conditions(
    desk: SessionDesk, talk: Talk, decoded_by: list[int]
) -> None:
    put(talk, *[b"a"] * 5, name=1)
    assert len(found(desk, header=["name"] * 49)) == len(decoded_by) == 5


def test_long_headers_are_decoded_in_a_thread(desk: SessionDesk, talk: Talk, decoded_by: list[int]) -> None:
    put(talk, *[b"a"] * 5, **CROWDED)
    assert len(found(desk, header=["header-0000"])) == len(decoded_by) == 5
    assert threading.get_ident() not in decoded_by


def test_many_messages_with_headers_are_checked_in_many_turns(desk: SessionDesk, talk: Talk) -> None:
    put(talk, *[b"a"] * 100, name="x" * 2_000)
    before = desk.turns
    desk.ask("delete_messages", queue="q", filter={"header": ["nowhere"]})
    assert desk.turns - before >= 5         # two kilobytes of headers take as long as 64 of text


@pytest.mark.parametrize("at", [0, PIECE - 3, PIECE, 2 * PIECE - 1, 3 * PIECE + 7])
def test_a_text_is_found_wherever_it_is(desk: SessionDesk, talk: Talk, at: int) -> None:
    put(talk, b"-" * at + b"needle" + b"-" * 100, b"-" * (4 * PIECE))
    assert found(desk, text="needle") == [0]


def test_json_of_too_many_values_matches_no_path(desk: SessionDesk, talk: Talk) -> None:
    put(talk, *[b'{"a":1,"b":[%s0]}' % (b"0," * count) for count in (10, MOST_JSON_VALUES - 10, MOST_JSON_VALUES)])
    assert found(desk, json=["$.a=1"]) == [0, 1]
