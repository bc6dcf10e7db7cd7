"""A get whose message is on disk: it waits, and so does everything that the client sends afterwards."""

from __future__ import annotations

import pytest
from pamqp import frame
from pamqp.commands import Basic, Channel, Connection, Queue

from amqpd.broker.queue.page_limits import PAGE_MESSAGES
from tests.support.talk import Stage, Talk, content_frames

COUNT = 2 * PAGE_MESSAGES


@pytest.fixture
def getter(stage: Stage, talk: Talk) -> Talk:
    """A client with channels 1 and 2, and a queue whose first message is on disk; the page store is closed."""
    talk.open_channel(1).open_channel(2)
    talk.client(Queue.Declare(queue="q", durable=True)).broker(Queue.DeclareOk("q", 0, 0))
    queue = stage.broker.vhosts["/"].queues["q"]
    properties = Basic.Properties(delivery_mode=2)
    piece, stage.piece = stage.piece, 0         # octet by octet is for what comes later
    for start in range(0, COUNT, 64):
        bodies = [b"%d" % number for number in range(start, start + 64)]
        talk.publish("q", *bodies, properties=properties)
    stage.piece = piece
    stage.commit()
    queue.pager.page_out(1 << 30)
    assert queue.records.watermark is not None
    queue.records.watermark.ask(COUNT)
    stage.commit()
    for message in [queue.get(no_ack=True) for _ in range(PAGE_MESSAGES)]:
        assert message is not None
        queue.forget(message)
    stage.end_turn()
    stage.page_store.is_open = False
    return talk


def got(talk: Talk, tag: int, number: int, channel: int = 1) -> Talk:
    return talk.broker(
        Basic.GetOk(tag, False, "", "q", COUNT - number - 1), content=b"%d" % number,
        properties=Basic.Properties(delivery_mode=2), channel=channel)


def open_page_store(stage: Stage) -> None:
    stage.page_store.is_open = True
    stage.end_turn()


def test_a_get_is_answered_when_its_message_has_been_read(stage: Stage, getter: Talk) -> None:
    getter.client(Basic.Get(queue="q")).nothing()
    assert getter.session.receiver.is_deferred
    open_page_store(stage)
    got(getter, 1, PAGE_MESSAGES)
    assert not getter.session.receiver.is_deferred


def test_what_comes_after_a_get_is_answered_after_it(stage: Stage, getter: Talk) -> None:
    getter.client(Basic.Get(queue="q")).client(Basic.Get(queue="q"), channel=2)
    getter.client(Queue.Declare(queue="other")).client(Channel.Close(200, "", 0, 0), channel=2).nothing()
    open_page_store(stage)
    got(getter, 1, PAGE_MESSAGES)
    got(getter, 1, PAGE_MESSAGES + 1, channel=2)
    getter.broker(Queue.DeclareOk("other", 0, 0)).broker(Channel.CloseOk(), channel=2)


def test_publishes_after_a_get_are_not_lost_with_the_connection(stage: Stage, getter: Talk) -> None:
    getter.client(Queue.Declare(queue="r")).broker(Queue.DeclareOk("r", 0, 0))
    getter.client(Basic.Get(queue="q")).publish("r", b"late").client(Connection.Close(200, "", 0, 0), channel=0)
    assert not stage.broker.vhosts["/"].queues["r"].ready
    open_page_store(stage)
    got(getter, 1, PAGE_MESSAGES).broker(Connection.CloseOk(), channel=0)
    assert len(stage.broker.vhosts["/"].queues["r"].ready) == 1


def test_a_client_that_leaves_meanwhile_is_forgotten(stage: Stage, getter: Talk) -> None:
    getter.client(Basic.Get(queue="q")).nothing()
    getter.session.lost()
    open_page_store(stage)
    assert len(stage.broker.vhosts["/"].queues["q"].ready) == PAGE_MESSAGES


def test_a_queue_that_is_deleted_meanwhile_is_not_found(stage: Stage, getter: Talk) -> None:
    getter.client(Basic.Get(queue="q")).nothing()
    other = stage.client().open_channel()
    other.client(Queue.Delete(queue="q")).hear(Queue.DeleteOk)
    open_page_store(stage)
    getter.closed(404, "NOT_FOUND - no queue 'q' in vhost '/'", 60, 70)


# While an alarm is on

def test_a_publish_that_waits_behind_a_get_is_blocked_in_its_turn(stage: Stage, getter: Talk) -> None:
    getter.client(Queue.Declare(queue="r")).broker(Queue.DeclareOk("r", 0, 0))
    stage.set_alarm("low on disk")
    getter.client(Basic.Get(queue="q")).publish("r", b"late").client(Queue.Declare(queue="other")).nothing()
    open_page_store(stage)
    got(getter, 1, PAGE_MESSAGES).broker(Connection.Blocked("low on disk")).nothing()
    stage.set_alarm("")
    getter.broker(Connection.Unblocked(), Queue.DeclareOk("other", 0, 0))
    assert len(stage.broker.vhosts["/"].queues["r"].ready) == 1


def test_a_client_that_is_blocked_inside_a_content_meanwhile_is_told_once(stage: Stage, getter: Talk) -> None:
    getter.client(Queue.Declare(queue="r")).broker(Queue.DeclareOk("r", 0, 0))
    whole = frame.marshal(Basic.Publish(routing_key="r"), 1) + content_frames(1, b"whole")
    half = frame.marshal(Basic.Publish(routing_key="r"), 1) + content_frames(1, b"half")
    getter.client(Basic.Get(queue="q")).octets(whole)
    stage.set_alarm("low on disk")
    getter.octets(half[:-3]).nothing()
    open_page_store(stage)
    got(getter, 1, PAGE_MESSAGES).broker(Connection.Blocked("low on disk")).nothing()
    getter.octets(half[-3:]).nothing()
    stage.set_alarm("")
    getter.broker(Connection.Unblocked())
    assert [bytes(message.body) for message in stage.broker.vhosts["/"].queues["r"].ready] == [b"whole", b"half"]
