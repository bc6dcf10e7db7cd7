"""Caches stay within the limit of each connection and the limit of all together."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp.commands import Basic, Queue

from amqpd.broker import remembered
from amqpd.broker.effort import Effort
from amqpd.broker.remembered import CommonMemory, Memory, Remembered
from tests.support.talk import Stage, Talk

LIMIT = 40_000


@pytest.fixture
def common() -> CommonMemory:
    """A connection may remember little, and all of them not much more."""
    return CommonMemory(Effort.without_end(), most=LIMIT, most_of_all=2 * LIMIT)


def checked(common: CommonMemory, *memories: Memory) -> None:
    assert common.granted == sum(memory.granted for memory in memories) <= common.most_of_all
    assert all(memory.used <= memory.granted for memory in memories)
    assert {*common.memories} == {memory for memory in memories if memory.granted}


def test_a_connection_that_comes_to_its_limit_begins_anew(common: CommonMemory) -> None:
    memory = Memory(common)
    first, second = Remembered[int, str](memory), Remembered[int, str](memory)
    for number in range(9):
        (first if number % 2 else second).keep(number, "", LIMIT // 10)
        checked(common, memory)
    assert len(first.known) + len(second.known) == 9
    first.keep(9, "", LIMIT // 5)
    assert [*first.known, *second.known] == [9]
    assert memory.used == LIMIT // 5 and common.effort.total > 0
    checked(common, memory)


def test_where_all_come_to_their_limit_those_that_began_first_forget(common: CommonMemory) -> None:
    memories = [Memory(common) for _ in range(5)]
    places = [Remembered[int, str](memory) for memory in memories]
    for place in places:
        for number in range(4):
            place.keep(number, "", LIMIT // 8)
            checked(common, *memories)
    assert [len(place.known) for place in places] == [0, 0, 4, 4, 4]


def test_who_came_first_forgets_its_own_where_there_is_nobody_else() -> None:
    common = CommonMemory(Effort.without_end(), most=8 * LIMIT, most_of_all=2 * LIMIT)
    memory = Memory(common)
    place = Remembered[int, str](memory)
    most = 0
    for number in range(50):
        place.keep(number, "", LIMIT // 8)
        checked(common, memory)
        most = max(most, memory.used)
        assert memory.granted - memory.used < remembered.GRANT
    assert LIMIT < most <= 2 * LIMIT and 0 < len(place.known) < 50


def test_what_is_forgotten_counts_no_more(common: CommonMemory) -> None:
    memory = Memory(common)
    first, second = Remembered[int, str](memory), Remembered[int, str](memory)
    first.keep(1, "", 100)
    second.keep(2, "", 50)
    first.clear()
    assert memory.used == 50 and memory.places == {second}
    memory.clear()
    assert memory.used == memory.granted == common.granted == 0 and not second.known


def test_what_is_too_large_is_not_remembered(common: CommonMemory) -> None:
    memory = Memory(common)
    place = Remembered[int, str](memory)
    place.keep(1, "", remembered.LARGEST + 1)
    assert not place.known and not memory.used


def test_consumers_and_publishers_of_a_connection_share_its_limit(common: CommonMemory, stage: Stage) -> None:
    stage.broker.memory = common
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    for number in range(20):
        talk.client(Basic.Consume(queue="q", consumer_tag=f"c{number}", no_ack=True, nowait=True))
    talk.client(Queue.Bind(queue="q", exchange="amq.fanout", nowait=True))
    memory = talk.session.state.memory
    most = 0
    for round_ in range(200):
        talk.publish("q", b"x", properties=Basic.Properties(message_id=f"{round_}"))
        talk.publish(f"{round_}", b"x", exchange="amq.fanout").hear_all()
        checked(stage.broker.memory, memory)
        most = max(most, memory.used)
    assert most > LIMIT // 2
    channel = talk.session.channels[1]
    places: list[Remembered[Any, Any]] = [
        channel.publishing.targets.by_properties, channel.publishing.targets.by_arguments]
    places += [heads.by_route for heads in channel.consuming.writer.heads.values()]
    assert sum(len(place.known) for place in places) <= LIMIT // 350
    talk.lose()
    checked(stage.broker.memory)


def test_heads_of_consumers_that_are_cancelled_count_no_more(stage: Stage) -> None:
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    _publish_to(talk, "c")
    talk.client(Basic.Cancel("c")).hear(Basic.CancelOk)
    used = talk.session.state.memory.used
    _publish_to(talk, "d")
    talk.client(Basic.Cancel("d")).hear(Basic.CancelOk)
    assert talk.session.state.memory.used == used


def _publish_to(talk: Talk, tag: str) -> None:
    talk.client(Basic.Consume(queue="q", consumer_tag=tag, no_ack=True, nowait=True)).publish("q", b"x")
    talk.hear(Basic.Deliver)
    assert len(talk.session.channels[1].consuming.writer.heads[tag].by_route.known) == 1
