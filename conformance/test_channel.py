"""§7 Channel class: open, flow, close, and reuse of a channel number after close."""
from __future__ import annotations

import pytest

from conformance.channel import Channel
from conformance.client import Client
from conformance.conftest import Broker
from conformance.fields import pack
from conformance.methods import (
    ACCESS_REQUEST, ACCESS_REQUEST_OK, BASIC_QOS_OK, CHANNEL_CLOSE, CHANNEL_CLOSE_OK, CHANNEL_FLOW, CHANNEL_OPEN,
    CHANNEL_OPEN_OK, QUEUE_DECLARE, QUEUE_DECLARE_OK, QUEUE_DELETE_OK)
from conformance.texts import NO_PREVIOUS_QUEUE, Texts

ACCESS_MASKS = [0b00000, 0b00010, 0b11111]


@pytest.mark.standard
@pytest.mark.parametrize("reserved", ["", "out of band", "x" * 255])
def test_open_ok_carries_an_empty_long_string(client: Client, reserved: str) -> None:
    client.send_method(1, *CHANNEL_OPEN, pack("s", reserved))
    assert client.expect(1, *CHANNEL_OPEN_OK).decode("L") == ("",)


@pytest.mark.standard
def test_open_is_answered_before_anything_else_on_the_channel(client: Client) -> None:
    channel = Channel(client, 1)
    channel.send(CHANNEL_OPEN, "s", "")
    channel.send_qos(1)
    client.expect(1, *CHANNEL_OPEN_OK)
    client.expect(1, *BASIC_QOS_OK)


@pytest.mark.standard
def test_channels_may_be_opened_in_any_order(client: Client) -> None:
    for number in (9, 3, 65535, 1):
        client.channel(number).sync()


@pytest.mark.standard
def test_flow_on_is_agreed_to(ch: Channel) -> None:
    assert ch.flow(True) is True


def test_flow_off_is_not_implemented(client: Client, ch: Channel) -> None:
    ch.send_flow(False)
    client.expect_connection_close(540, "NOT_IMPLEMENTED - active=false", *CHANNEL_FLOW)


@pytest.mark.parametrize("mask", ACCESS_MASKS, ids=bin)
@pytest.mark.parametrize("realm", ["", "/data", "nonesuch"])
def test_access_request_always_gets_ticket_1(ch: Channel, realm: str, mask: int) -> None:
    ch.send(ACCESS_REQUEST, "so", realm, mask)
    assert ch.answer(ACCESS_REQUEST_OK, "2") == (1,)


@pytest.mark.parametrize("ticket", [1, 65535])
def test_the_ticket_of_a_method_is_ignored(ch: Channel, queue_name: str, ticket: int) -> None:
    ch.send(QUEUE_DECLARE, "2soT", ticket, queue_name, 0, {})
    assert ch.answer(QUEUE_DECLARE_OK, "s44") == (queue_name, 0, 0)


@pytest.mark.standard
@pytest.mark.parametrize("code, text", [(0, ""), (200, "bye"), (404, "x" * 255)])
def test_a_client_may_close_a_channel_for_any_reason(client: Client, ch: Channel, code: int, text: str) -> None:
    ch.send(CHANNEL_CLOSE, "2s22", code, text, 50, 10)
    assert client.expect(1, *CHANNEL_CLOSE_OK).args == b""


@pytest.mark.standard
def test_unacked_messages_are_requeued_before_close_ok(ch: Channel, broker: Broker, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", queue_name)
    ch.get(queue_name)
    ch.close()
    assert broker.channel().get(queue_name).redelivered


@pytest.mark.standard
def test_consumers_are_gone_at_close_ok(ch: Channel, broker: Broker, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.consume(queue_name, no_ack=True)
    ch.close()
    other = broker.channel()
    other.publish("", queue_name, b"kept")
    assert other.get(queue_name).body == b"kept"


def test_an_auto_delete_queue_is_gone_at_close_ok(ch: Channel, broker: Broker, texts: Texts, queue_name: str) -> None:
    ch.declare_queue(queue_name, auto_delete=True)
    ch.consume(queue_name)
    ch.close()
    other = broker.channel()
    other.send_declare_queue(queue_name, passive=True)
    other.fails(404, texts.no_queue(queue_name), *QUEUE_DECLARE)


@pytest.mark.standard
def test_an_exclusive_queue_outlives_its_channel(client: Client, ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name, exclusive=True)
    ch.close()
    assert client.channel().declare_queue(queue_name, passive=True) == (queue_name, 0, 0)


@pytest.mark.standard
def test_what_was_sent_before_close_counts(ch: Channel, broker: Broker, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    for _ in range(100):
        ch.publish("", queue_name)
    ch.close()
    assert broker.channel().purge(queue_name) == 100


def test_a_number_opened_again_starts_afresh(ch: Channel, queue_name: str) -> None:
    """Delivery tags, confirms, transactions, prefetch and consumer tags belong to the channel that was closed."""
    ch.declare_queue(queue_name)
    ch.publish("", queue_name)
    ch.qos(1)
    ch.confirm_select()
    ch.consume(queue_name, "tag")
    assert ch.deliveries(1)[0].tag == 1
    ch.close()
    ch.open()
    ch.consume(queue_name, "tag")
    ch.publish("", queue_name)
    assert [delivery.tag for delivery in ch.deliveries(2)] == [1, 2]
    ch.tx_select()
    assert ch.sync() == []


def test_the_last_declared_queue_is_forgotten_with_the_channel(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.close()
    ch.open()
    ch.send_get("")
    ch.fails(404, NO_PREVIOUS_QUEUE, 60, 70)


@pytest.mark.standard
def test_methods_are_answered_in_order(client: Client, ch: Channel, queue_name: str) -> None:
    for _ in range(50):
        ch.send_declare_queue(queue_name)
        ch.publish("", queue_name)
        ch.send_qos(0)
        ch.send_delete_queue(queue_name)
    for _ in range(50):
        assert client.expect(1, *QUEUE_DECLARE_OK).decode("s44") == (queue_name, 0, 0)
        client.expect(1, *BASIC_QOS_OK)
        assert client.expect(1, *QUEUE_DELETE_OK).decode("4") == (1,)


def test_channels_do_not_share_their_state(client: Client, ch: Channel, queue_name: str) -> None:
    other = client.channel()
    ch.declare_queue(queue_name)
    ch.confirm_select()
    other.tx_select()
    ch.publish("", queue_name)
    assert ch.confirms(1) == [(1, True)]
    assert ch.get(queue_name).tag == 1
    ch.nack(1)
    assert other.get(queue_name).tag == 1
