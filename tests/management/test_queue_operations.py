"""Pause and resume, cancel one consumer, change its prefetch, and who holds which messages: on real sessions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pamqp.commands import Basic, Queue, Tx

from tests.management.desk import SessionDesk
from tests.support.journals import RecordingJournal
from tests.support.talk import Stage, Talk

CHANNEL = "<amqpd@localhost.1.1.1>"


@pytest.fixture
def desk() -> Iterator[SessionDesk]:
    """A broker to command, whose clients have heard all that they should at the end."""
    desk = SessionDesk()
    yield desk
    desk.stage.assert_silent()


@pytest.fixture
def talk(desk: SessionDesk) -> Talk:
    """A client with the durable queue `q`, in which no message is."""
    return desk.stage.client().open_channel().client(Queue.Declare(queue="q", durable=True)).broker(
        Queue.DeclareOk("q", 0, 0))


def consume(talk: Talk, tag: str = "c", *, prefetch: int = 0, queue: str = "q", no_ack: bool = False) -> Talk:
    talk.client(Basic.Qos(prefetch_count=prefetch)).broker(Basic.QosOk())
    return talk.client(Basic.Consume(queue=queue, consumer_tag=tag, no_ack=no_ack)).broker(Basic.ConsumeOk(tag))


def deliver(talk: Talk, body: bytes, tag: int, consumer: str = "c") -> Talk:
    return talk.broker(Basic.Deliver(consumer, tag, False, "", "q"), content=body)


# Pause

def test_a_paused_queue_delivers_nothing_until_it_is_resumed(desk: SessionDesk, talk: Talk) -> None:
    consume(talk, prefetch=5)
    desk.ask("pause_queue", queue="q")
    talk.publish("q", b"1", b"2").nothing()
    assert desk.ask("list_queues", columns=["name", "state", "messages_ready"])["rows"] == [["q", "paused", 2]]
    desk.ask("resume_queue", queue="q")
    deliver(deliver(talk, b"1", 1), b"2", 2)
    assert desk.ask("list_queues", columns=["state"])["rows"] == [["running"]]


def test_a_paused_queue_is_empty_to_basic_get(desk: SessionDesk, talk: Talk) -> None:
    talk.publish("q", b"1")
    desk.ask("pause_queue", queue="q")
    talk.client(Basic.Get(queue="q")).broker(Basic.GetEmpty())
    desk.ask("resume_queue", queue="q")
    talk.client(Basic.Get(queue="q")).broker(Basic.GetOk(1, False, "", "q", 0), content=b"1")


def test_answers_to_a_paused_queue_go_on(desk: SessionDesk, talk: Talk) -> None:
    consume(talk.publish("q", b"1", b"2"), prefetch=1)
    deliver(talk, b"1", 1)
    desk.ask("pause_queue", queue="q")
    talk.client(Basic.Nack(1, False, True)).nothing()
    assert (len(desk.queue("q").ready), desk.queue("q").unacked) == (2, 0)
    desk.ask("resume_queue", queue="q")
    talk.broker(Basic.Deliver("c", 2, True, "", "q"), content=b"1")
    talk.client(Basic.Ack(2))
    deliver(talk, b"2", 3)


def test_a_queue_is_still_paused_after_a_restart(desk: SessionDesk, talk: Talk) -> None:
    talk.publish("q", b"1", properties=Basic.Properties(delivery_mode=2))
    desk.ask("pause_queue", queue="q")
    reborn = SessionDesk(Stage(journal=RecordingJournal(desk.stage.journal.safe.copy()), first_number=1 << 40))
    again = consume(reborn.stage.client().open_channel()).nothing()
    reborn.ask("resume_queue", queue="q")
    again.broker(Basic.Deliver("c", 1, False, "", "q"), content=b"1", properties=Basic.Properties(delivery_mode=2))


def test_to_pause_twice_is_recorded_once(desk: SessionDesk, talk: Talk) -> None:
    before = len(desk.stage.journal.changes)
    desk.ask("pause_queue", queue="q")
    desk.ask("pause_queue", queue="q")
    assert len(desk.stage.journal.changes) == before + 1
    # One who declares it does not see, and does not change, that it is paused.
    talk.client(Queue.Declare(queue="q", durable=True)).broker(Queue.DeclareOk("q", 0, 0))
    assert desk.queue("q").definition.is_paused


def test_messages_of_a_paused_queue_expire(desk: SessionDesk, talk: Talk) -> None:
    desk.ask("pause_queue", queue="q")
    talk.publish("q", b"1", properties=Basic.Properties(expiration="500"))
    desk.stage.pass_time(1)
    assert not desk.queue("q").ready


# Consumers

def test_a_cancelled_consumer_is_told_and_keeps_what_it_has(desk: SessionDesk, talk: Talk) -> None:
    consume(talk, prefetch=1)
    deliver(talk.publish("q", b"1", b"2"), b"1", 1)
    desk.ask("cancel_consumer", queue="q", consumer_tag="c")
    talk.broker(Basic.Cancel("c", True)).nothing()
    assert not desk.queue("q").consumers and desk.queue("q").unacked == 1
    talk.client(Basic.Ack(1)).nothing()
    deliver(consume(talk), b"2", 2)


def test_the_next_consumer_gets_what_a_cancelled_one_would_have_got(desk: SessionDesk, talk: Talk) -> None:
    consume(talk, "first", prefetch=1)
    talk.publish("q", b"1", b"2")
    deliver(talk, b"1", 1, "first")
    other = consume(desk.stage.client().open_channel(), "second", prefetch=1)
    deliver(other, b"2", 1, "second")
    talk.publish("q", b"3")
    desk.ask("cancel_consumer", queue="q", consumer_tag="second")
    other.broker(Basic.Cancel("second", True))
    talk.client(Basic.Ack(1))
    deliver(talk, b"3", 2, "first")


def test_an_auto_delete_queue_goes_with_its_last_consumer(desk: SessionDesk, talk: Talk) -> None:
    talk.client(Queue.Declare(queue="gone", auto_delete=True)).broker(Queue.DeclareOk("gone", 0, 0))
    consume(talk, queue="gone")
    desk.ask("cancel_consumer", queue="gone", consumer_tag="c")
    talk.broker(Basic.Cancel("c", True))
    assert "gone" not in desk.broker.vhosts["/"].queues


def test_a_tag_of_several_consumers_needs_their_channel(desk: SessionDesk, talk: Talk) -> None:
    consume(talk)
    other = consume(desk.stage.client().open_channel())
    text, code = desk.refusal("cancel_consumer", queue="q", consumer_tag="c")
    assert text == "several consumers have the tag 'c': name one of their channels, " \
        "<amqpd@localhost.1.1.1>, <amqpd@localhost.1.2.1>" and code == 64
    desk.ask("cancel_consumer", queue="q", consumer_tag="c", channel="<amqpd@localhost.1.2.1>")
    other.broker(Basic.Cancel("c", True))
    assert desk.refusal("cancel_consumer", queue="q", consumer_tag="x") == ("queue 'q' has no consumer 'x'", 69)


def test_a_prefetch_is_raised_and_lowered_while_the_consumer_works(desk: SessionDesk, talk: Talk) -> None:
    consume(talk, prefetch=1)
    deliver(talk.publish("q", b"1", b"2", b"3", b"4", b"5"), b"1", 1)
    desk.ask("set_consumer_prefetch", queue="q", consumer_tag="c", prefetch=3)
    deliver(deliver(talk, b"2", 2), b"3", 3)
    desk.ask("set_consumer_prefetch", queue="q", consumer_tag="c", prefetch=1)
    talk.client(Basic.Ack(2, True)).nothing()
    talk.client(Basic.Ack(3))
    deliver(talk, b"4", 4)
    desk.ask("set_consumer_prefetch", queue="q", consumer_tag="c", prefetch=0)
    deliver(talk, b"5", 5)
    assert desk.ask("list_consumers", columns=["prefetch_count"])["rows"] == [[0]]


def test_a_prefetch_that_makes_no_sense_is_refused(desk: SessionDesk, talk: Talk) -> None:
    consume(talk, no_ack=True)
    assert desk.refusal("set_consumer_prefetch", queue="q", consumer_tag="c", prefetch=5) == (
        "consumer 'c' acknowledges nothing: a prefetch has no effect", 64)
    consume(talk, "d")
    for prefetch in (-1, 65_536):
        assert desk.refusal("set_consumer_prefetch", queue="q", consumer_tag="d", prefetch=prefetch) == (
            "a prefetch is a number from 0 to 65535", 65)


# Who holds what

def test_unacked_messages_are_listed_with_who_has_them_and_since_when(desk: SessionDesk, talk: Talk) -> None:
    consume(talk, prefetch=2)
    talk.publish("q", b"1", b"22", b"333", b"4")
    deliver(deliver(talk, b"1", 1), b"22", 2)
    desk.stage.pass_time(90)
    bob = desk.stage.client("bob").open_channel()
    bob.client(Basic.Get(queue="q")).broker(Basic.GetOk(1, False, "", "q", 1), content=b"333")
    desk.stage.pass_time(10)
    found = desk.ask("list_unacked", queue="q", columns=[
        "position", "consumer_tag", "channel_pid", "user", "delivery_tag", "unacked_for_ms", "payload_bytes"])
    assert found["rows"] == [
        [0, "c", CHANNEL, "guest", 1, 100_000, 1], [1, "c", CHANNEL, "guest", 2, 100_000, 2],
        [2, "", "<amqpd@localhost.1.2.1>", "bob", 1, 10_000, 3]]
    assert (found["total"], found["is_complete"]) == (3, True)
    assert desk.ask("list_unacked", queue="q", columns=["position"], offset=1, count=1)["rows"] == [[1]]


def test_an_answer_in_an_open_transaction_is_still_held(desk: SessionDesk, talk: Talk) -> None:
    talk.client(Tx.Select()).broker(Tx.SelectOk())
    consume(talk)
    desk.stage.client().open_channel().publish("q", b"1")
    talk.broker(Basic.Deliver("c", 1, False, "", "q"), content=b"1").client(Basic.Ack(1)).nothing()
    rows = desk.ask("list_unacked", queue="q", columns=["delivery_tag", "unacked_for_ms", "consumer_tag"])["rows"]
    assert rows == [[0, None, "c"]]


def test_a_redelivery_tells_how_often_it_has_failed(desk: SessionDesk, talk: Talk) -> None:
    consume(talk.publish("q", b"1"))
    deliver(talk, b"1", 1)
    talk.client(Basic.Nack(1)).broker(Basic.Deliver("c", 2, True, "", "q"), content=b"1")
    assert desk.ask("list_unacked", queue="q", columns=["delivery_count", "redelivered"])["rows"] == [[1, True]]


def test_a_list_of_unacked_is_bounded_and_says_so(desk: SessionDesk, talk: Talk) -> None:
    consume(talk.publish("q", b"1", b"2"), prefetch=1)
    deliver(talk, b"1", 1)
    deliver(consume(desk.stage.client().open_channel(), prefetch=1), b"2", 1)
    desk.control._commands.lookups["list_unacked"].__self__._most_visited = 1
    found = desk.ask("list_unacked", queue="q", columns=["position"])
    assert (found["rows"], found["is_complete"]) == ([[0]], False)
    assert desk.refusal("list_unacked", queue="q", count=10_001)[1] == 65
    assert desk.refusal("list_unacked", queue="q", columns=["colour"])[0] == "Info key(s) colour are not supported"
    assert desk.refusal("list_unacked", queue="x")[0] == "not_found: no queue 'x' in vhost '/'"
