"""Direct reply-to: replies without a queue. RabbitMQ docs/direct-reply-to."""

from __future__ import annotations

import base64

import pytest
from pamqp.commands import Basic, Channel, Confirm, Queue

from amqpd.session.reply_address import new_reply_address
from amqpd.wire.methods import encode_method
from tests.support.talk import Stage, Talk

REPLY_TO = "amq.rabbitmq.reply-to"
NO_CONSUMER = "PRECONDITION_FAILED - fast reply consumer does not exist"


@pytest.fixture
def requester(stage: Stage) -> Talk:
    """A client that waits for replies on channel 1, and a queue `rpc`."""
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="rpc")).broker(Queue.DeclareOk("rpc", 0, 0))
    talk.client(Basic.Consume(queue=REPLY_TO, consumer_tag="replies", no_ack=True))
    return talk.broker(Basic.ConsumeOk("replies"))


@pytest.fixture
def responder(stage: Stage, requester: Talk) -> Talk:
    """Another client, that answers."""
    return stage.client().open_channel()


def ask(requester: Talk, responder: Talk, body: bytes = b"question") -> str:
    """Send a request, and return the address for its reply."""
    requester.client(Basic.Publish(routing_key="rpc"), content=body, properties=Basic.Properties(reply_to=REPLY_TO))
    heard = responder.client(Basic.Get(queue="rpc", no_ack=True)).hear_all()[0]
    assert heard.body == body and heard.properties is not None
    return str(heard.properties.reply_to)


def test_a_reply_comes_to_the_channel_that_asked(requester: Talk, responder: Talk) -> None:
    address = ask(requester, responder)
    assert address.startswith(REPLY_TO + ".") and len(address) > 40
    responder.publish(address, b"answer")
    requester.broker(Basic.Deliver("replies", 1, False, "", address), content=b"answer")


def test_an_address_has_the_numbers_of_connection_and_channel_where_rabbitmq_has_them() -> None:
    process = base64.b64decode(new_reply_address((1 << 32) + 0x01020304, 5).removeprefix(REPLY_TO + ".").split(".")[0])
    assert process == b"\x83Xv\0\x07reply@0" + bytes((1, 2, 3, 4, 0, 0, 0, 5, 0, 0, 0, 0))


def test_replies_do_not_count_delivery_tags(requester: Talk, responder: Talk) -> None:
    address = ask(requester, responder)
    for _ in range(2):
        responder.publish(address, b"answer")
        requester.broker(Basic.Deliver("replies", 1, False, "", address), content=b"answer")
    responder.publish("rpc", b"other")
    requester.client(Basic.Get(queue="rpc")).broker(Basic.GetOk(1, False, "", "rpc", 0), content=b"other")


def test_a_large_request_carries_its_address_too(requester: Talk, responder: Talk) -> None:
    assert ask(requester, responder, bytes(140_000)).startswith(REPLY_TO + ".")


def test_the_address_keeps_all_other_properties(requester: Talk, responder: Talk) -> None:
    properties = Basic.Properties(headers={"a": 1}, reply_to=REPLY_TO, correlation_id="c", delivery_mode=1)
    requester.client(Basic.Publish(routing_key="rpc"), content=b"x", properties=properties)
    got = responder.client(Basic.Get(queue="rpc", no_ack=True)).hear_all()[0].properties
    assert got is not None and (got.headers, got.correlation_id, got.delivery_mode) == ({"a": 1}, "c", 1)


def test_a_large_reply_is_fitted_to_the_requester_s_frames(stage: Stage, requester: Talk) -> None:
    small = stage.client(frame_max=4_096).open_channel(5)
    small.client(Basic.Consume(queue=REPLY_TO, consumer_tag="r", no_ack=True), channel=5)
    small.broker(Basic.ConsumeOk("r"), channel=5)
    small.client(
        Basic.Publish(routing_key="rpc"), content=b"?", channel=5, properties=Basic.Properties(reply_to=REPLY_TO))
    heard = requester.client(Basic.Get(queue="rpc", no_ack=True)).hear_all()[0]
    assert heard.properties is not None
    address = str(heard.properties.reply_to)
    requester.publish(address, bytes(10_000))
    small.broker(Basic.Deliver("r", 1, False, "", address), content=bytes(10_000), channel=5)


def test_a_request_without_a_reply_consumer_is_refused(talk: Talk) -> None:
    talk.open_channel().client(
        Basic.Publish(routing_key="rpc"), content=b"x", properties=Basic.Properties(reply_to=REPLY_TO))
    talk.closed(406, NO_CONSUMER, 60, 40)


def test_the_reply_consumer_of_another_channel_does_not_count(requester: Talk) -> None:
    requester.open_channel(2).client(
        Basic.Publish(routing_key="rpc"), content=b"x", properties=Basic.Properties(reply_to=REPLY_TO), channel=2)
    requester.closed(406, NO_CONSUMER, 60, 40, channel=2)


def test_a_reply_consumer_cannot_acknowledge(talk: Talk) -> None:
    talk.open_channel().client(Basic.Consume(queue=REPLY_TO))
    talk.closed(406, "PRECONDITION_FAILED - reply consumer cannot acknowledge", 60, 20)


def test_a_channel_has_one_reply_consumer(requester: Talk) -> None:
    requester.client(Basic.Consume(queue=REPLY_TO, no_ack=True))
    requester.closed(406, "PRECONDITION_FAILED - reply consumer already set", 60, 20)


def test_a_cancelled_reply_consumer_gets_nothing_more_and_may_start_again(requester: Talk, responder: Talk) -> None:
    address = ask(requester, responder)
    requester.client(Basic.Cancel("replies")).broker(Basic.CancelOk("replies"))
    responder.publish(address, b"late").publish(address, b"late", mandatory=True)
    responder.broker(Basic.Return(312, "NO_ROUTE", "", address), content=b"late")
    requester.client(Basic.Consume(queue=REPLY_TO, consumer_tag="again", no_ack=True))
    requester.broker(Basic.ConsumeOk("again"))
    assert ask(requester, responder) != address


def test_a_reply_to_somebody_who_is_gone_is_dropped(requester: Talk, responder: Talk) -> None:
    address = ask(requester, responder)
    requester.lose()
    responder.publish(address, b"late").publish(address, b"late", mandatory=True)
    responder.broker(Basic.Return(312, "NO_ROUTE", "", address), content=b"late")


def test_a_mandatory_reply_that_was_delivered_does_not_come_back(requester: Talk, responder: Talk) -> None:
    address = ask(requester, responder)
    responder.client(Confirm.Select()).broker(Confirm.SelectOk()).publish(address, b"answer", mandatory=True)
    responder.broker(Basic.Ack(1))
    requester.broker(Basic.Deliver("replies", 1, False, "", address), content=b"answer")


def declare(address: str) -> bytes:
    """The frame of a declaration of an address as a queue; pamqp writes no such name, nor reads one."""
    method = Queue.Declare()
    method.queue = address
    return encode_method(1, method)


def test_a_responder_may_ask_whether_somebody_still_waits(requester: Talk, responder: Talk) -> None:
    address = ask(requester, responder)
    responder.client(Queue.Declare(queue=REPLY_TO)).broker(Queue.DeclareOk(REPLY_TO, 0, 1))
    answer = responder.octets(declare(address)).hear(Queue.DeclareOk)
    assert (answer.queue, answer.message_count, answer.consumer_count) == (address, 0, 1)
    requester.client(Channel.Close(200, "bye", 0, 0)).broker(Channel.CloseOk())
    responder.octets(declare(address)).closed(404, f"NOT_FOUND - no queue '{address}' in vhost '/'", 50, 10)
