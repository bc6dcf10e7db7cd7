"""Prefetch: a limit for each consumer, a limit for a channel, and both together. RabbitMQ docs/consumer-prefetch."""

from __future__ import annotations

import pytest
from pamqp.commands import Basic, Queue, Tx

from amqpd.broker.queue.queue import Queue as BrokerQueue
from amqpd.session.settings import SessionSettings
from tests.support.talk import Stage, Talk


@pytest.fixture
def ten(talk: Talk) -> Talk:
    """An open channel 1, and ten messages in the queue `q`."""
    talk.open_channel().client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    return talk.publish("q", *b"0 1 2 3 4 5 6 7 8 9".split())


def qos(talk: Talk, count: int, *, for_all: bool = False) -> Talk:
    return talk.client(Basic.Qos(prefetch_count=count, global_=for_all))


def consume(talk: Talk, tag: str, *, queue: str = "q", no_ack: bool = False) -> Talk:
    return talk.client(Basic.Consume(queue=queue, consumer_tag=tag, no_ack=no_ack))


def taken(talk: Talk) -> list[str]:
    """Who was delivered to, by consumer tags, since this was last asked; answers are passed over."""
    return [str(heard.said.consumer_tag) for heard in talk.hear_all() if isinstance(heard.said, Basic.Deliver)]


def test_a_consumer_has_no_more_unacked_than_its_prefetch(ten: Talk) -> None:
    consume(qos(ten, 3), "c")
    assert taken(ten) == ["c"] * 3
    ten.client(Basic.Ack(2))
    assert taken(ten) == ["c"]
    ten.client(Basic.Ack(4, True))
    assert taken(ten) == ["c"] * 3


def test_a_prefetch_of_zero_is_no_limit(ten: Talk) -> None:
    consume(qos(ten, 0), "c")
    assert len(taken(ten)) == 10


def test_the_prefetch_holds_for_consumers_that_start_afterwards(ten: Talk) -> None:
    consume(qos(ten, 2), "two")
    consume(qos(ten, 3), "three")
    consume(qos(ten, 1), "one")
    assert sorted(taken(ten)) == ["one"] + ["three"] * 3 + ["two"] * 2


def test_the_prefetch_of_one_channel_does_not_hold_for_another(ten: Talk) -> None:
    qos(ten, 1).broker(Basic.QosOk()).open_channel(2)
    ten.client(Basic.Consume(queue="q", consumer_tag="c"), channel=2).broker(Basic.ConsumeOk("c"), channel=2)
    assert len(taken(ten)) == 10


def test_a_prefetch_in_octets_is_not_implemented(ten: Talk) -> None:
    ten.client(Basic.Qos(prefetch_size=100)).hung_up(540, "NOT_IMPLEMENTED - prefetch_size!=0 (100)", 60, 10)


def test_consumers_without_acks_are_not_limited(ten: Talk) -> None:
    consume(qos(ten, 1), "c", no_ack=True)
    assert len(taken(ten)) == 10


def test_a_limit_for_the_channel_is_shared_by_its_consumers(ten: Talk) -> None:
    qos(ten, 3, for_all=True)
    consume(consume(ten, "a"), "b")
    assert len(taken(ten)) == 3
    ten.client(Basic.Ack(3, True))
    assert sorted(set(taken(ten))) == ["a", "b"]


def test_two_idle_consumers_do_not_take_one_each_of_a_limit_of_one(ten: Talk) -> None:
    ten.client(Queue.Purge(queue="q")).broker(Queue.PurgeOk(10))
    qos(ten, 1, for_all=True)
    consume(consume(ten, "a"), "b").publish("q", b"x", b"y", b"z")
    assert len(taken(ten)) == 1
    ten.client(Basic.Ack(1))
    assert len(taken(ten)) == 1


def test_a_limit_for_the_channel_is_shared_by_consumers_of_several_queues(ten: Talk) -> None:
    ten.client(Queue.Declare(queue="r")).broker(Queue.DeclareOk("r", 0, 0)).publish("r", b"x", b"y", b"z")
    qos(ten, 2, for_all=True)
    consume(consume(ten, "q"), "r", queue="r")
    assert taken(ten) == ["q", "q"]
    ten.client(Basic.Cancel("q")).broker(Basic.CancelOk("q")).client(Basic.Ack(2, True))
    assert taken(ten) == ["r", "r"]


def test_queues_whose_consumers_share_a_limit_are_served_in_turn(ten: Talk) -> None:
    qos(ten, 1, for_all=True).broker(Basic.QosOk())
    for queue in ("r", "s"):
        ten.client(Queue.Declare(queue=queue)).hear(Queue.DeclareOk)
        ten.publish(queue, *[b"x"] * 10)
    for queue in ("q", "r", "s"):
        consume(ten, queue, queue=queue)
    tags = taken(ten)
    for tag in range(1, 9):
        tags += taken(ten.client(Basic.Ack(tag)))
    assert tags[1:] == [*"qrsqrsqr"]


def test_a_limit_for_the_channel_holds_for_consumers_there_are(ten: Talk) -> None:
    consume(qos(ten, 2, for_all=True), "c")
    assert len(taken(ten)) == 2
    qos(ten, 5, for_all=True)
    assert len(taken(ten)) == 3


def test_a_limit_for_the_channel_that_is_taken_away_lets_everything_out(ten: Talk) -> None:
    consume(qos(ten, 2, for_all=True), "c")
    assert len(taken(ten)) == 2
    qos(ten, 0, for_all=True)
    assert len(taken(ten)) == 8


def test_a_limit_for_the_channel_below_what_is_unacked_waits(ten: Talk) -> None:
    consume(qos(ten, 4, for_all=True), "c")
    assert len(taken(ten)) == 4
    qos(ten, 2, for_all=True).client(Basic.Ack(2, True)).broker(Basic.QosOk()).nothing()
    ten.client(Basic.Ack(3))
    assert len(taken(ten)) == 1


def test_both_limits_must_allow_a_delivery(ten: Talk) -> None:
    qos(qos(ten, 3), 4, for_all=True)
    consume(consume(ten, "a"), "b")
    assert sorted(taken(ten)) == ["a", "a", "a", "b"]


def test_gets_do_not_count_against_any_limit(ten: Talk) -> None:
    qos(ten, 1, for_all=True).broker(Basic.QosOk())
    for left in (9, 8):
        assert ten.client(Basic.Get(queue="q")).hear(Basic.GetOk).message_count == left
    consume(ten, "c")
    assert taken(ten) == ["c"]
    ten.client(Basic.Get(queue="q")).hear(Basic.GetOk)


def test_answers_of_a_transaction_make_room_at_its_commit(ten: Talk) -> None:
    ten.client(Tx.Select()).broker(Tx.SelectOk())
    consume(qos(ten, 2, for_all=True), "c")
    assert len(taken(ten)) == 2
    ten.client(Basic.Ack(2, True)).publish("q", b"held").nothing()
    ten.client(Tx.Commit())
    assert len(taken(ten)) == 2


def test_what_is_requeued_makes_room_and_comes_back(ten: Talk) -> None:
    consume(qos(ten, 1), "c").broker(Basic.QosOk(), Basic.ConsumeOk("c"))
    ten.broker(Basic.Deliver("c", 1, False, "", "q"), content=b"0")
    ten.client(Basic.Reject(1, True))
    ten.broker(Basic.Deliver("c", 2, True, "", "q"), content=b"0")


def test_no_consumer_has_more_unacked_than_the_broker_s_own_limit(piece: int) -> None:
    stage = Stage(piece=piece, settings=SessionSettings(server_properties={}, unacked_limit=4))
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0)).publish("q", *[b"x"] * 10)
    consume(talk, "c")
    assert len(taken(talk)) == 4
    talk.client(Basic.Ack(4, True))
    assert len(taken(talk)) == 4


def test_the_log_says_once_that_a_consumer_waits_at_the_broker_s_own_limit(
    piece: int, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage(piece=piece, settings=SessionSettings(server_properties={}, unacked_limit=4))
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0)).publish("q", *[b"x"] * 20)
    consume(talk, "c")
    for tag in (4, 8):
        talk.client(Basic.Ack(tag, True))
    consume(qos(talk, 2), "limited")
    told = [record.getMessage() for record in caplog.records if "unacked_per_consumer" in record.getMessage()]
    assert len(told) == 1 and "consumer 'c' of queue 'q' waits: it has 4 unanswered deliveries" in told[0]
    talk.client(Basic.Cancel("c")).client(Basic.Ack(0, True))
    consume(qos(talk, 0), "c")
    talk.publish("q", *[b"x"] * 20)
    assert sum("unacked_per_consumer" in record.getMessage() for record in caplog.records) == 2


# A limit that queues share

def three_queues(talk: Talk) -> Talk:
    """Channel 1 with three queues of many messages."""
    talk.open_channel()
    for queue in "abc":
        talk.client(Queue.Declare(queue=queue)).broker(Queue.DeclareOk(queue, 0, 0))
        talk.publish(queue, *[b"0"] * 100)
    return talk


def test_queues_have_equal_shares_of_what_an_answer_makes_room_for(talk: Talk) -> None:
    qos(three_queues(talk), 9, for_all=True)
    for queue in "abc":
        consume(talk, queue, queue=queue)
    assert taken(talk) == ["a"] * 9
    talk.client(Basic.Ack(9, True))
    assert taken(talk) == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    talk.client(Basic.Ack(0, True))
    assert sorted(taken(talk)) == ["a"] * 3 + ["b"] * 3 + ["c"] * 3


def test_what_a_queue_leaves_of_its_share_is_for_the_others(talk: Talk) -> None:
    qos(three_queues(talk), 10, for_all=True)
    for queue in "abc":
        consume(talk, queue, queue=queue)
    talk.client(Queue.Purge(queue="b"))
    taken(talk)
    talk.client(Basic.Ack(10, True))
    shares = taken(talk)
    assert len(shares) == 10 and 4 <= shares.count("a") <= 6 and not shares.count("b")


def test_with_an_answer_each_queues_turn_comes(talk: Talk) -> None:
    qos(three_queues(talk), 1, for_all=True)
    for queue in "abc":
        consume(talk, queue, queue=queue)
    order = taken(talk)
    for tag in range(1, 10):
        talk.client(Basic.Ack(tag))
        order += taken(talk)
    assert order == ["a", "a", "b", "c", "a", "b", "c", "a", "b", "c"]


def test_queues_that_have_nothing_are_not_asked_with_each_answer(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_queues(talk)
    for n in range(60):
        talk.client(Queue.Declare(queue=f"idle{n}")).hear(Queue.DeclareOk)
    qos(talk, 1, for_all=True)
    for queue in ("a", *[f"idle{n}" for n in range(60)], "b"):
        consume(talk, queue, queue=queue)
    talk.client(Basic.Ack(1))
    taken(talk)
    asked: list[str] = []
    dispatch = BrokerQueue.dispatch
    monkeypatch.setattr(BrokerQueue, "dispatch", lambda queue: (asked.append(queue.name), dispatch(queue)))
    for tag in range(2, 12):
        talk.client(Basic.Ack(tag))
    assert set(taken(talk)) == {"a", "b"}
    assert len(asked) <= 30 and set(asked) == {"a", "b"}


def test_a_consumer_without_acks_waits_while_the_limit_of_its_channel_is_used_up(talk: Talk) -> None:
    qos(three_queues(talk), 2, for_all=True)
    consume(talk, "a", queue="a")
    consume(talk, "b", queue="b", no_ack=True)
    assert taken(talk) == ["a"] * 2
    talk.client(Basic.Ack(1)).client(Basic.Ack(2))
    assert sorted(taken(talk)) == ["a"] * 2 + ["b"] * 100
