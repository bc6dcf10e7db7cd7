"""Clients that do not ack: after a while, unacked messages are on disk only, and are restored unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pamqp.commands import Basic, Channel, Queue, Tx

from amqpd.broker.queue.page_limits import PageLimits
from amqpd.broker.queue.segment import MESSAGE_COST
from amqpd.broker.unacked_contents import UnackedContents
from amqpd.message import Message
from amqpd.session.contents import release_contents
from tests.support.talk import Stage, Talk

SIZE = 20_000
LIMIT = 5 * SIZE        # octets sent in a round
BOUND = 2 * LIMIT + 4 * SIZE        # what a round goes beyond its end, and what has not been reported
COUNT = 40


@pytest.fixture
def stage() -> Stage:
    """A broker whose rounds are short."""
    stage = Stage()
    stage.broker.unacked_contents = UnackedContents(stage.broker.worklist, LIMIT)
    return stage


@pytest.fixture
def talk(stage: Stage) -> Iterator[Talk]:
    """A client with channel 1, and the durable queue `q`."""
    talk = stage.client().open_channel()
    declare(talk, "q")
    yield talk
    stage.assert_silent()


def declare(talk: Talk, name: str, **arguments: Any) -> None:
    talk.client(Queue.Declare(queue=name, durable=True, arguments=arguments)).hear(Queue.DeclareOk)


def fill(talk: Talk, queue: str = "q", *, count: int = COUNT, persistent: bool = True) -> None:
    """Publish large messages; each body begins with its place, from 0."""
    talk.publish(queue, *[body(place) for place in range(count)], persistent=persistent)


def body(place: int) -> bytes:
    return b"%d " % place + bytes(SIZE)


def consume(talk: Talk, queue: str = "q", *, prefetch: int = 0) -> list[int]:
    """Consume, and return the places of what is delivered; two rounds later."""
    talk.client(Basic.Qos(prefetch_count=prefetch), Basic.Consume(queue=queue, consumer_tag="c"))
    end_rounds(talk.stage)
    return places(talk)


def end_rounds(stage: Stage) -> None:
    """Others are sent so much that two rounds end. They answer."""
    other = stage.client().open_channel()
    other.client(Queue.Declare(queue="busy", exclusive=True), Basic.Consume(queue="busy"))
    for tag in range(1, 4):
        other.publish("busy", bytes(LIMIT)).client(Basic.Ack(tag))
    other.hear_all()
    other.lose()


def places(talk: Talk) -> list[int]:
    """The places of what was delivered."""
    return [place for place, _ in heard(talk)]


def heard(talk: Talk) -> list[tuple[int, bool]]:
    """The places of what was delivered, each with whether that was said to be again."""
    return [
        (int((one.body or b"").split()[0]), one.said.redelivered) for one in talk.hear_all()
        if isinstance(one.said, (Basic.Deliver, Basic.GetOk))]


def queue_of(talk: Talk, name: str = "q") -> Any:
    return talk.stage.broker.vhosts["/"].queues[name]


def owed(talk: Talk, channel: int = 1) -> list[Message]:
    return [message for message, _ in talk.session.channels[channel].consuming.owed]


def octets_in_memory(talk: Talk) -> int:
    """Return the bytes of unacked contents that are in memory."""
    return sum(len(message.content) for number in talk.session.channels for message in owed(talk, number))


ALL = list(range(COUNT))


def test_what_is_not_answered_is_in_memory_for_two_rounds_at_most(talk: Talk) -> None:
    talk.client(Basic.Consume(queue="q"))
    for place in ALL:
        talk.publish("q", body(place), persistent=True)
        assert octets_in_memory(talk) <= BOUND
    assert places(talk) == ALL
    assert octets_in_memory(talk) > LIMIT
    released = [message for message in owed(talk) if not message.content]
    assert released == owed(talk)[: len(released)], "the oldest have gone first"
    assert queue_of(talk).unacked == COUNT


def test_rounds_are_those_of_all_channels_together(talk: Talk) -> None:
    fill(talk, count=4)
    assert consume(talk) == [0, 1, 2, 3]
    assert not octets_in_memory(talk), "it was sent nothing more, and is asked all the same"


def test_a_client_that_answers_soon_loses_nothing(talk: Talk) -> None:
    fill(talk)
    talk.client(Basic.Qos(prefetch_count=3), Basic.Consume(queue="q"))
    for tag in range(1, COUNT + 1):
        assert all(message.content for message in owed(talk))
        talk.client(Basic.Ack(tag))
    assert places(talk) == ALL
    assert not queue_of(talk).records.has_released


def test_an_ack_reads_nothing(talk: Talk) -> None:
    fill(talk)
    consume(talk)
    talk.client(Basic.Ack(COUNT, multiple=True))
    assert talk.stage.page_store.fetched == 0
    assert not talk.stage.journal.now.bodies("q") and not queue_of(talk).unacked


@pytest.mark.parametrize("persistent", [False, True])
def test_what_is_not_on_disk_stays(talk: Talk, persistent: bool) -> None:
    if persistent:
        talk.stage.commits_at_once = False
    fill(talk, persistent=persistent)
    talk.client(Basic.Consume(queue="q"))
    end_rounds(talk.stage)
    assert places(talk) == ALL
    assert octets_in_memory(talk) > COUNT * SIZE
    if persistent:
        talk.stage.commit()
        end_rounds(talk.stage)
        assert not octets_in_memory(talk), "it is on disk now"


def test_what_is_never_on_disk_is_not_waited_for(talk: Talk) -> None:
    fill(talk, count=2, persistent=False)
    fill(talk, count=2)
    consume(talk)
    talk.hear_all()
    deliveries = dict(talk.session.channels[1].consuming.deliveries.by_tag)
    assert release_contents(deliveries, [1, 2, 3, 4], 0) == 0
    assert [bool(message.content) for message, _ in deliveries.values()] == [True, True, False, False]


def test_small_contents_stay(talk: Talk) -> None:
    talk.publish("q", b"0 ", b"1 " + bytes(MESSAGE_COST), body(2), persistent=True)
    assert consume(talk) == [0, 1, 2]
    assert [bool(message.content) for message in owed(talk)] == [True, False, False]


def test_what_is_got_is_released_as_well(talk: Talk) -> None:
    fill(talk)
    for _ in ALL:
        talk.client(Basic.Get(queue="q"))
        assert octets_in_memory(talk) <= BOUND
    assert places(talk) == ALL


def test_headers_and_names_go_with_the_content(talk: Talk) -> None:
    properties = Basic.Properties(delivery_mode=2, headers={"h": "x" * SIZE})
    talk.client(*[Basic.Publish(routing_key="q")] * COUNT, content=b"0 ", properties=properties)
    consume(talk)
    assert not owed(talk)[0].facts.headers and not owed(talk)[0].route.routing_key


@pytest.mark.parametrize("closes", [True, False])
def test_a_channel_that_is_gone_is_not_kept(talk: Talk, closes: bool) -> None:
    rounds = talk.stage.broker.unacked_contents
    fill(talk)
    talk.client(Basic.Consume(queue="q"))
    assert places(talk) == ALL and rounds._holders
    if closes:
        talk.client(Channel.Close(200, "bye", 0, 0)).hear(Channel.CloseOk)
    else:
        talk.lose()
    assert not rounds._holders


# Back to the queue

def requeue_some(talk: Talk) -> list[int]:
    """Give back the first of what is unacked, and return the places."""
    talk.client(Basic.Nack(10, multiple=True, requeue=True))
    return ALL[:10]


def test_what_is_requeued_is_on_disk_and_comes_again_in_order(talk: Talk) -> None:
    fill(talk)
    consume(talk)
    talk.client(Basic.Cancel("c")).hear(Basic.CancelOk)
    released = [place for place, message in enumerate(owed(talk)) if not message.content]
    assert released == ALL
    talk.client(Basic.Nack(COUNT, multiple=True, requeue=True))
    queue = queue_of(talk)
    assert queue.ready.on_disk_only == (COUNT, sum(len(body(place)) for place in ALL))
    assert len(queue.ready) == COUNT and not queue.unacked
    assert talk.stage.page_store.fetched == 0, "it is read before its turn, and not sooner"
    talk.client(Basic.Consume(queue="q", consumer_tag="d"))
    assert heard(talk) == [(place, True) for place in ALL]
    assert talk.stage.page_store.fetched == COUNT


def test_it_comes_before_what_waits_in_memory(talk: Talk) -> None:
    fill(talk)
    consume(talk, prefetch=COUNT - 5)
    talk.client(Basic.Cancel("c")).hear(Basic.CancelOk)
    expected = requeue_some(talk) + ALL[-5:]
    talk.client(*[Basic.Get(queue="q")] * len(expected))
    assert heard(talk) == [(place, place < 10) for place in expected]


def test_it_comes_in_between_when_others_are_back_already(talk: Talk) -> None:
    fill(talk)
    consume(talk, prefetch=COUNT - 5)
    talk.client(Basic.Cancel("c")).hear(Basic.CancelOk)
    for tag in (20, 2, 1, 30, 3, 7, 29, 4):
        talk.client(Basic.Reject(tag, requeue=True))
    talk.client(*[Basic.Get(queue="q")] * 13)
    assert places(talk) == [0, 1, 2, 3, 6, 19, 28, 29, *ALL[-5:]]


@pytest.mark.parametrize("way", ["recover", "close the channel", "lose the connection"])
def test_every_way_back_leads_to_the_old_place(talk: Talk, way: str) -> None:
    fill(talk)
    consume(talk)
    client = talk
    if way == "recover":
        talk.client(Basic.Recover(requeue=True))
    elif way == "close the channel":
        talk.client(Channel.Close(200, "bye", 0, 0)).hear(Channel.CloseOk)
        talk.open_channel()
        talk.client(Basic.Consume(queue="q", consumer_tag="c"))
    else:
        talk.lose()
        client = talk.stage.client().open_channel()
        client.client(Basic.Consume(queue="q", consumer_tag="c"))
    assert heard(client) == [(place, True) for place in ALL]


def test_failures_are_counted_and_told(talk: Talk) -> None:
    declare(talk, "counted", **{"x-queue-type": "quorum"})
    fill(talk, "counted")
    consume(talk, "counted")
    for failures in (1, 2):
        talk.client(Basic.Recover(requeue=True))
        counts = {
            (one.properties.headers or {}).get("x-delivery-count") for one in talk.hear_all()
            if isinstance(one.said, Basic.Deliver) and one.properties is not None}
        assert counts == {failures}


def test_a_damaged_message_is_missing_and_no_other(talk: Talk) -> None:
    fill(talk)
    consume(talk)
    read = talk.stage.journal.read
    talk.stage.page_store._read = lambda numbers: [
        message for message in read(numbers) if not message.body.startswith(b"3 ")]
    talk.client(Basic.Recover(requeue=True))
    talk.stage.commit()
    assert places(talk) == [place for place in ALL if place != 3]
    assert len(talk.stage.journal.now.bodies("q")) == COUNT - 1


def test_a_page_store_that_is_closed_is_waited_for(talk: Talk) -> None:
    fill(talk)
    consume(talk)
    talk.stage.page_store.is_open = False
    talk.client(Basic.Recover(requeue=True))
    assert places(talk) == []
    talk.stage.page_store.is_open = True
    talk.stage.page_store.serve()
    talk.stage.end_turn()
    assert places(talk) == ALL


def test_priorities_stay(talk: Talk) -> None:
    declare(talk, "levels", **{"x-max-priority": 3})
    for place in ALL:
        talk.client(Basic.Publish(routing_key="levels"), content=body(place), properties=Basic.Properties(
            delivery_mode=2, priority=place % 3))
    expected = sorted(ALL, key=lambda place: (-(place % 3), place))
    assert consume(talk, "levels") == expected
    talk.client(Basic.Recover(requeue=True))
    assert places(talk) == expected


def test_times_to_live_stay(talk: Talk) -> None:
    declare(talk, "timed", **{"x-message-ttl": 5_000})
    fill(talk, "timed")
    talk.stage.pass_time(4)
    consume(talk, "timed")
    talk.client(Basic.Cancel("c")).hear(Basic.CancelOk)
    assert not owed(talk)[0].content
    talk.client(Basic.Nack(COUNT, multiple=True, requeue=True))
    talk.stage.pass_time(0.5)
    assert len(queue_of(talk, "timed").ready) == COUNT
    talk.stage.pass_time(1)
    assert not queue_of(talk, "timed").ready and talk.stage.page_store.fetched == 0


def test_what_has_an_end_is_held_by_nobody_else(talk: Talk) -> None:
    declare(talk, "timed", **{"x-message-ttl": 50_000})
    declare(talk, "soon", **{"x-message-ttl": 50_000})
    declare(talk, "later", **{"x-message-ttl": 50_000})
    consume(talk, "timed")
    fill(talk, "timed")
    fill(talk, "soon", count=COUNT // 2)
    fill(talk, "later", count=COUNT // 2)
    soon = queue_of(talk, "soon").records.deadlines
    soon._soonest_aside = 1     # as if one that ended soon had been among them, and had left
    assert soon.take_due(1) == [] and len(soon._waiting) == COUNT // 2
    for name in ("soon", "later"):
        talk.client(Basic.Consume(queue=name, consumer_tag=name))
    assert len(talk.hear_all()) == 2 * COUNT + 2
    end_rounds(talk.stage)
    for name in ("timed", "soon", "later"):
        deadlines = queue_of(talk, name).records.deadlines
        assert not deadlines._aside and not deadlines._arriving and not deadlines._in_heap
        deadlines.take_due(deadlines.next_ms or 0)
        assert deadlines.next_ms is None, "the queue is woken for what is not ready"


# Dead letters

@pytest.fixture
def dead(talk: Talk) -> str:
    """A queue of the name `mortal`, whose dead go to this one."""
    declare(talk, "dead")
    declare(talk, "mortal", **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    fill(talk, "mortal")
    assert consume(talk, "mortal") == ALL
    return "dead"


def dead_letters(talk: Talk) -> list[int]:
    talk.stage.end_turn()
    talk.client(*[Basic.Get(queue="dead", no_ack=True)] * (COUNT + 1))
    found = talk.hear_all()
    assert all(one.body[-SIZE:] == bytes(SIZE) for one in found if one.body is not None)
    return [int(one.body.split()[0]) for one in found if one.body is not None]


def test_what_is_rejected_is_read_and_dead_lettered_in_order(talk: Talk, dead: str) -> None:
    talk.client(Basic.Nack(COUNT, multiple=True, requeue=False))
    assert dead_letters(talk) == ALL
    assert not talk.stage.journal.now.bodies("mortal") and not queue_of(talk, "mortal").unacked


def test_what_is_in_memory_does_not_wait_for_what_has_to_be_loaded(talk: Talk, dead: str) -> None:
    """Its rejection is to be on disk with the batch that is being filled."""
    talk.stage.page_store.is_open = False
    fill(talk, "mortal", count=1)
    assert places(talk) == [0] and owed(talk)[-1].content
    talk.client(Basic.Reject(2, requeue=False), Basic.Reject(COUNT + 1, requeue=False))
    assert queue_of(talk, "mortal").dead_letters.to_be_loaded == 1
    assert len(talk.stage.journal.now.bodies("mortal")) == COUNT, "the other one is kept until it has been moved"
    talk.stage.page_store.is_open = True
    assert dead_letters(talk) == [0, 1]
    assert len(talk.stage.journal.now.bodies("mortal")) == COUNT - 1


def test_what_was_rejected_and_has_to_be_loaded_counts_as_delivered_after_a_stop(talk: Talk, dead: str) -> None:
    talk.stage.page_store.is_open = False
    talk.client(Basic.Nack(COUNT, multiple=True, requeue=False))
    queue = queue_of(talk, "mortal")
    assert queue.dead_letters.to_be_loaded == COUNT
    assert len(talk.stage.broker.redelivered()[queue.definition.number]) == COUNT


def test_a_piece_is_read_at_a_time(talk: Talk, dead: str) -> None:
    queue_of(talk, "mortal").dead_letters._page_limits = PageLimits(bytes=3 * SIZE)
    most: list[int] = []
    read = talk.stage.journal.read
    talk.stage.page_store._read = lambda numbers: (most.append(len(numbers)), read(numbers))[1]
    talk.client(Basic.Nack(COUNT, multiple=True, requeue=False))
    assert max(most) == 3
    assert dead_letters(talk) == ALL


def test_what_waits_to_be_read_for_its_death_ends_no_more(talk: Talk) -> None:
    declare(talk, "mortal", **{
        "x-message-ttl": 5_000, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    fill(talk, "mortal")
    consume(talk, "mortal")
    talk.stage.page_store.is_open = False
    talk.client(Basic.Nack(COUNT, multiple=True, requeue=False))
    queue = queue_of(talk, "mortal")
    assert queue.dead_letters.to_be_loaded == COUNT and not queue.records.deadlines


def test_the_delivery_limit_holds(talk: Talk) -> None:
    declare(talk, "dead")
    declare(talk, "poison", **{
        "x-delivery-limit": 1, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    fill(talk, "poison")
    consume(talk, "poison")
    talk.client(Basic.Recover(requeue=True))
    assert places(talk) == ALL
    end_rounds(talk.stage)
    assert not octets_in_memory(talk)
    talk.client(Basic.Recover(requeue=True))
    assert places(talk) == []
    assert dead_letters(talk) == ALL
    queue = queue_of(talk, "poison")
    assert not queue.redelivery.deliveries and not queue.redelivery.numbers and not queue.records.kept_on_disk


def test_without_an_exchange_nothing_is_read(talk: Talk) -> None:
    fill(talk)
    consume(talk)
    talk.client(Basic.Nack(COUNT, multiple=True, requeue=False))
    assert talk.stage.page_store.fetched == 0 and not talk.stage.journal.now.bodies("q")


# The end of queues

def test_a_purge_leaves_what_is_unacked(talk: Talk) -> None:
    fill(talk)
    consume(talk)
    talk.client(Queue.Purge(queue="q")).broker(Queue.PurgeOk(0))
    talk.client(Basic.Recover(requeue=True))
    assert places(talk) == ALL


def test_what_was_requeued_is_purged_unread(talk: Talk) -> None:
    fill(talk)
    consume(talk)
    talk.client(Basic.Cancel("c")).hear(Basic.CancelOk)
    talk.client(Basic.Nack(COUNT, multiple=True, requeue=True))
    talk.client(Queue.Purge(queue="q")).broker(Queue.PurgeOk(COUNT))
    assert talk.stage.page_store.fetched == 0 and not talk.stage.journal.now.bodies("q")
    assert talk.stage.page_store.budget.used == 0


@pytest.mark.parametrize("answer", [
    Basic.Ack(COUNT, multiple=True), Basic.Nack(COUNT, multiple=True, requeue=True),
    Basic.Nack(COUNT, multiple=True, requeue=False)])
def test_answers_to_what_a_deleted_queue_had_are_fine(talk: Talk, dead: str, answer: Basic.Ack | Basic.Nack) -> None:
    talk.client(Queue.Delete(queue="mortal"))
    talk.hear_all()
    talk.client(answer)
    assert dead_letters(talk) == [] and not owed(talk)


# Transactions

def test_what_a_transaction_has_answered_is_released(talk: Talk) -> None:
    talk.client(Tx.Select()).broker(Tx.SelectOk())
    publisher = talk.stage.client().open_channel()
    consume(talk)
    for place in ALL:
        publisher.publish("q", body(place), persistent=True)
        talk.client(Basic.Ack(place + 1))
        assert octets_in_memory(talk) <= BOUND
    assert places(talk) == ALL
    assert len(owed(talk)) == COUNT
    talk.client(Tx.Rollback()).broker(Tx.RollbackOk())
    talk.client(Basic.Recover(requeue=True))
    assert heard(talk) == [(place, True) for place in ALL]
    for place in ALL:
        talk.client(Basic.Ack(COUNT + place + 1))
    talk.client(Tx.Commit()).broker(Tx.CommitOk())
    assert not talk.stage.journal.now.bodies("q")


def test_what_a_rollback_brings_back_is_released_later(talk: Talk) -> None:
    talk.client(Tx.Select()).broker(Tx.SelectOk())
    fill(talk.stage.client().open_channel(), count=4)
    talk.client(Basic.Consume(queue="q"))
    assert places(talk) == [0, 1, 2, 3]
    talk.client(Basic.Ack(3, multiple=True))
    talk.session.channels[1].uncommitted._released = 1      # as if they had had to wait for their commit
    end_rounds(talk.stage)
    assert octets_in_memory(talk) > 3 * SIZE
    talk.client(Tx.Rollback()).broker(Tx.RollbackOk())
    end_rounds(talk.stage)
    assert not octets_in_memory(talk)


@pytest.mark.parametrize("requeue", [False, True])
def test_a_transaction_requeues_and_rejects_what_is_on_disk(talk: Talk, dead: str, requeue: bool) -> None:
    talk.client(Tx.Select()).broker(Tx.SelectOk())
    talk.client(Basic.Nack(COUNT, multiple=True, requeue=requeue), Tx.Commit())
    if requeue:
        assert heard(talk) == [(place, True) for place in ALL]
    else:
        talk.client(Basic.Cancel("c"))
        assert dead_letters(talk) == ALL


def test_the_commit_of_rejects_of_what_is_on_disk_is_answered_once_it_is_safe(talk: Talk, dead: str) -> None:
    talk.client(Tx.Select()).broker(Tx.SelectOk())
    talk.stage.commits_at_once = False
    talk.client(Basic.Nack(COUNT, multiple=True, requeue=False), Tx.Commit())
    talk.nothing()
    talk.stage.commit()
    talk.broker(Tx.CommitOk())


def test_what_a_transaction_has_answered_before_it_is_on_disk_is_released_later(talk: Talk) -> None:
    talk.client(Tx.Select()).broker(Tx.SelectOk())
    talk.stage.commits_at_once = False
    fill(talk.stage.client().open_channel(), count=3)
    talk.client(Basic.Consume(queue="q"))
    assert places(talk) == [0, 1, 2]
    talk.client(Basic.Ack(3, multiple=True))
    end_rounds(talk.stage)
    assert octets_in_memory(talk) > 3 * SIZE
    talk.stage.commit()
    end_rounds(talk.stage)
    assert len(owed(talk)) == 3 and not octets_in_memory(talk)


# A crash

@pytest.mark.parametrize("requeues", [False, True])
def test_after_a_crash_all_is_there(talk: Talk, requeues: bool) -> None:
    fill(talk)
    consume(talk)
    if requeues:
        talk.client(Basic.Cancel("c")).hear(Basic.CancelOk)
        talk.client(Basic.Nack(COUNT // 2, multiple=True, requeue=True))
    stage = Stage(journal=talk.stage.journal, first_number=talk.stage.broker.next_message_number)
    stage.page_store.safe_number = stage.broker.next_message_number - 1
    client = stage.client().open_channel()
    client.client(Basic.Consume(queue="q", consumer_tag="c"))
    assert heard(client) == [(place, True) for place in ALL]
