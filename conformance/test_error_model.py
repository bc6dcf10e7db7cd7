"""§5 Error model: the content of a close, what is lost with it, and what continues; the connection errors of §6."""
from __future__ import annotations

from typing import Any, Callable

import pytest

from conformance import methods
from conformance.channel import Channel
from conformance.client import BODY, Client, frame
from conformance.conftest import Broker, Names
from conformance.fields import pack
from conformance.methods import (
    BASIC_ACK, BASIC_CONSUME, BASIC_CONSUME_OK, BASIC_GET, BASIC_GET_EMPTY, BASIC_GET_OK, BASIC_NACK, BASIC_PUBLISH,
    BASIC_QOS, BASIC_QOS_OK, BASIC_REJECT, CHANNEL_CLOSE, CHANNEL_CLOSE_OK, CHANNEL_FLOW, CHANNEL_FLOW_OK,
    CHANNEL_OPEN, CHANNEL_OPEN_OK, CONFIRM_SELECT_OK, CONNECTION_CLOSE, CONNECTION_CLOSE_OK, CONNECTION_OPEN,
    CONNECTION_SECURE_OK, CONNECTION_START, CONNECTION_START_OK, CONNECTION_TUNE, CONNECTION_TUNE_OK,
    EXCHANGE_BIND, EXCHANGE_DECLARE, EXCHANGE_DECLARE_OK, EXCHANGE_DELETE, QUEUE_BIND, QUEUE_DECLARE,
    QUEUE_DECLARE_OK, QUEUE_DELETE_OK, QUEUE_PURGE, TX_COMMIT, TX_COMMIT_OK, TX_ROLLBACK, TX_SELECT_OK)
from conformance.texts import Texts

CLOSE = pack("2s22", 200, "bye", 0, 0)
UNKNOWN_TAG = "PRECONDITION_FAILED - unknown delivery tag 42"
NOT_TRANSACTIONAL = "PRECONDITION_FAILED - channel is not transactional"


def fail(ch: Channel) -> None:
    """Do what closes a channel with 404."""
    ch.send_declare_queue("nonesuch", passive=True)


def expect_failure(ch: Channel, texts: Texts) -> None:
    """Read that close, without answering it."""
    close = ch.client.await_method(ch.number, [CHANNEL_CLOSE])
    assert close.decode("2s22") == (404, texts.no_queue("nonesuch"), *QUEUE_DECLARE)


# What a channel's close says

MISSING_QUEUE: dict[str, tuple[Callable[[Channel], None], tuple[int, int]]] = {
    "passive queue.declare": (lambda ch: ch.send_declare_queue("nonesuch", passive=True), QUEUE_DECLARE),
    "queue.purge": (lambda ch: ch.send_purge("nonesuch"), QUEUE_PURGE),
    "queue.bind": (lambda ch: ch.send_bind_queue("nonesuch", "amq.direct"), QUEUE_BIND),
    "basic.get": (lambda ch: ch.send_get("nonesuch"), BASIC_GET),
    "basic.consume": (lambda ch: ch.send_consume("nonesuch"), BASIC_CONSUME),
}
MISSING_EXCHANGE: dict[str, tuple[Callable[[Channel], None], tuple[int, int]]] = {
    "passive exchange.declare": (lambda ch: ch.send_declare_exchange("nonesuch", passive=True), EXCHANGE_DECLARE),
    "exchange.bind": (lambda ch: ch.send_bind_exchange("amq.topic", "nonesuch"), EXCHANGE_BIND),
    "basic.publish": (lambda ch: ch.publish("nonesuch", "key"), BASIC_PUBLISH),
}
OTHER_FAILURES: dict[str, tuple[Callable[[Channel], None], str, tuple[int, int]]] = {
    "basic.ack": (lambda ch: ch.ack(42), UNKNOWN_TAG, BASIC_ACK),
    "basic.nack": (lambda ch: ch.nack(42), UNKNOWN_TAG, BASIC_NACK),
    "basic.reject": (lambda ch: ch.reject(42), UNKNOWN_TAG, BASIC_REJECT),
    "tx.commit": (lambda ch: ch.send_tx_commit(), NOT_TRANSACTIONAL, TX_COMMIT),
    "tx.rollback": (lambda ch: ch.send_tx_rollback(), NOT_TRANSACTIONAL, TX_ROLLBACK),
}


@pytest.mark.parametrize("send, ids", MISSING_QUEUE.values(), ids=MISSING_QUEUE)
def test_a_missing_queue_closes_the_channel_in_the_name_of_the_method(
        ch: Channel, texts: Texts, send: Callable[[Channel], None], ids: tuple[int, int]) -> None:
    send(ch)
    ch.fails(404, texts.no_queue("nonesuch"), *ids)


@pytest.mark.parametrize("send, ids", MISSING_EXCHANGE.values(), ids=MISSING_EXCHANGE)
def test_a_missing_exchange_closes_the_channel_in_the_name_of_the_method(
        ch: Channel, texts: Texts, send: Callable[[Channel], None], ids: tuple[int, int]) -> None:
    send(ch)
    ch.fails(404, texts.no_exchange("nonesuch"), *ids)


@pytest.mark.parametrize("send, text, ids", OTHER_FAILURES.values(), ids=OTHER_FAILURES)
def test_a_failed_precondition_closes_the_channel_in_the_name_of_the_method(
        ch: Channel, send: Callable[[Channel], None], text: str, ids: tuple[int, int]) -> None:
    send(ch)
    ch.fails(406, text, *ids)


@pytest.mark.parametrize("length", [250, 255])
def test_a_text_over_255_octets_is_cut_to_252_and_three_dots(ch: Channel, texts: Texts, length: int) -> None:
    name = "n" * length
    ch.send_declare_queue(name, passive=True)
    ch.fails(404, texts.no_queue(name)[:252] + "...", *QUEUE_DECLARE)


def test_a_text_of_255_octets_is_not_cut(ch: Channel, texts: Texts) -> None:
    name = "n" * (255 - len(texts.no_exchange("")))
    ch.send_declare_exchange(name, passive=True)
    ch.fails(404, texts.no_exchange(name), *EXCHANGE_DECLARE)


# What a channel's close takes with it


@pytest.mark.standard
def test_everything_sent_after_the_failure_is_lost(ch: Channel, broker: Broker, texts: Texts, names: Names) -> None:
    queue, never = names.queue(), names.queue()
    ch.declare_queue(queue)
    fail(ch)
    ch.send_declare_queue(never)
    ch.publish("", queue, b"lost")
    ch.send_get(queue)
    ch.send_delete_queue(queue)
    ch.fails(404, texts.no_queue("nonesuch"), *QUEUE_DECLARE)
    other = broker.channel()
    assert other.get(queue) is None
    other.send_declare_queue(never, passive=True)
    other.fails(404, texts.no_queue(never), *QUEUE_DECLARE)


@pytest.mark.standard
def test_everything_sent_before_close_ok_is_lost(ch: Channel, broker: Broker, texts: Texts, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    fail(ch)
    expect_failure(ch, texts)
    ch.publish("", queue_name, b"lost")
    ch.send_get(queue_name)
    ch.send(CHANNEL_CLOSE_OK)
    assert ch.open().get(queue_name) is None


@pytest.mark.standard
def test_what_was_sent_before_the_failure_counts(ch: Channel, texts: Texts, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", queue_name, b"kept")
    fail(ch)
    ch.fails(404, texts.no_queue("nonesuch"))
    assert ch.open().get(queue_name).body == b"kept"


def test_a_second_failure_is_not_told(client: Client, ch: Channel, texts: Texts) -> None:
    for _ in range(10):
        fail(ch)
    ch.fails(404, texts.no_queue("nonesuch"))
    assert ch.open().sync() == []


def test_a_close_that_crosses_the_brokers_is_answered(ch: Channel, texts: Texts) -> None:
    fail(ch)
    expect_failure(ch, texts)
    ch.send_close()
    ch.answer(CHANNEL_CLOSE_OK)
    ch.send(CHANNEL_CLOSE_OK)
    assert ch.open().sync() == []


def test_messages_of_the_channels_consumers_are_requeued_before_the_close(
        ch: Channel, broker: Broker, texts: Texts, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", queue_name)
    ch.consume(queue_name)
    ch.deliveries(1)
    fail(ch)
    expect_failure(ch, texts)
    assert broker.channel().get(queue_name).redelivered


def test_messages_got_on_the_channel_are_requeued_by_its_close(
        ch: Channel, broker: Broker, texts: Texts, queue_name: str) -> None:
    """RabbitMQ requeues those of basic.get only at close-ok when the queue has no consumer on the channel."""
    ch.declare_queue(queue_name)
    ch.publish("", queue_name)
    ch.get(queue_name)
    fail(ch)
    ch.fails(404, texts.no_queue("nonesuch"), *QUEUE_DECLARE)
    other = broker.channel()
    other.consume(queue_name)
    assert other.deliveries(1)[0].redelivered


def test_consumers_are_removed_before_the_close(ch: Channel, broker: Broker, texts: Texts, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.consume(queue_name)
    fail(ch)
    expect_failure(ch, texts)
    assert broker.channel().declare_queue(queue_name, passive=True) == (queue_name, 0, 0)


@pytest.mark.standard
def test_other_channels_live_on(client: Client, ch: Channel, texts: Texts, queue_name: str) -> None:
    other = client.channel()
    other.declare_queue(queue_name)
    other.consume(queue_name)
    fail(ch)
    other.publish("", queue_name, b"alive")
    assert other.deliveries(1)[0].body == b"alive"
    expect_failure(ch, texts)


@pytest.mark.standard
def test_the_number_can_be_opened_again_and_again(ch: Channel, texts: Texts) -> None:
    for _ in range(20):
        fail(ch)
        ch.fails(404, texts.no_queue("nonesuch"))
        ch.open()


@pytest.mark.standard
def test_an_exclusive_queue_survives_the_close_of_its_channel(ch: Channel, texts: Texts, queue_name: str) -> None:
    ch.declare_queue(queue_name, exclusive=True)
    fail(ch)
    ch.fails(404, texts.no_queue("nonesuch"))
    assert ch.open().declare_queue(queue_name, passive=True) == (queue_name, 0, 0)


# Connection errors


SERVER_METHODS: dict[tuple[int, int], bytes] = {
    CONNECTION_START: pack("ooTLL", 0, 9, {}, "PLAIN", "en_US"),
    CONNECTION_TUNE: pack("242", 0, 0, 0),
    CHANNEL_OPEN_OK: pack("L", ""),
    CHANNEL_FLOW_OK: b"\x01",
    EXCHANGE_DECLARE_OK: b"",
    QUEUE_DECLARE_OK: pack("s44", "q", 0, 0),
    QUEUE_DELETE_OK: pack("4", 0),
    BASIC_QOS_OK: b"",
    BASIC_CONSUME_OK: pack("s", "tag"),
    BASIC_GET_EMPTY: pack("s", ""),
    CONFIRM_SELECT_OK: b"",
    TX_SELECT_OK: b"",
    TX_COMMIT_OK: b"",
}
CONNECTION_METHODS: dict[tuple[int, int], bytes] = {
    CONNECTION_START_OK: pack("TsLs", {}, "PLAIN", "", "en_US"),
    CONNECTION_SECURE_OK: pack("L", "secret"),
    CONNECTION_TUNE_OK: pack("242", 0, 0, 0),
    CONNECTION_OPEN: pack("sso", "/", "", 0),
    CONNECTION_CLOSE_OK: b"",
}
CHANNEL_METHODS: dict[tuple[int, int], bytes] = {
    CHANNEL_CLOSE: CLOSE,
    CHANNEL_CLOSE_OK: b"",
    CHANNEL_FLOW: b"\x01",
    EXCHANGE_DELETE: pack("2so", 0, "nonesuch", 0),
    QUEUE_DECLARE: pack("2soT", 0, "q", 0, {}),
    BASIC_QOS: pack("42o", 0, 0, 0),
    BASIC_ACK: pack("8o", 1, 0),
    TX_COMMIT: b"",
}


def by_name(value: Any) -> str | None:
    """A test id for method ids."""
    return methods.name(*value) if isinstance(value, tuple) else ""


@pytest.mark.parametrize("ids, args", {**SERVER_METHODS, CHANNEL_CLOSE_OK: b"", **CONNECTION_METHODS}.items(),
                         ids=by_name)
def test_a_method_that_no_client_sends_on_a_channel_is_unimplemented(
        client: Client, ch: Channel, ids: tuple[int, int], args: bytes) -> None:
    client.send_method(1, *ids, args)
    client.expect_connection_close(503, "COMMAND_INVALID - unimplemented method", *ids)


@pytest.mark.parametrize("ids, args", [
    (BASIC_GET_OK, pack("8oss4", 1, 0, "", "", 0)), (methods.BASIC_DELIVER, pack("s8oss", "t", 1, 0, "", ""))],
    ids=by_name)
def test_a_method_with_content_that_no_client_sends_is_unimplemented(
        client: Client, ch: Channel, ids: tuple[int, int], args: bytes) -> None:
    client.send_method(1, *ids, args)
    client.send_content(1, pack("228", 60, 0, 0) + b"\x00\x00", b"")
    client.expect_connection_close(503, "COMMAND_INVALID - unimplemented method", *ids)


@pytest.mark.parametrize("ids, args", {**CONNECTION_METHODS, **CHANNEL_METHODS, CHANNEL_OPEN: b"\x00",
                                       CONNECTION_START: SERVER_METHODS[CONNECTION_START]}.items(), ids=by_name)
def test_a_method_out_of_place_on_channel_0_is_unexpected(
        client: Client, ids: tuple[int, int], args: bytes) -> None:
    client.send_method(0, *ids, args)
    client.expect_connection_close(504, "CHANNEL_ERROR - unexpected method in connection state running", *ids)


@pytest.mark.standard
@pytest.mark.parametrize("number", [1, 2, 65535])
@pytest.mark.parametrize("ids, args", {**CHANNEL_METHODS, CHANNEL_OPEN_OK: pack("L", "")}.items(), ids=by_name)
def test_a_method_on_a_closed_channel_closes_the_connection(
        client: Client, ids: tuple[int, int], args: bytes, number: int) -> None:
    client.send_method(number, *ids, args)
    client.expect_connection_close(504, "CHANNEL_ERROR - expected 'channel.open'", *ids)


def test_a_publish_on_a_closed_channel_closes_the_connection(client: Client) -> None:
    Channel(client, 1).publish("", "nowhere", b"body")
    client.expect_connection_close(504, "CHANNEL_ERROR - expected 'channel.open'", *BASIC_PUBLISH)


def test_a_method_on_a_channel_closed_again_closes_the_connection(client: Client, ch: Channel) -> None:
    ch.close()
    ch.send_qos(1)
    client.expect_connection_close(504, "CHANNEL_ERROR - expected 'channel.open'", *BASIC_QOS)


@pytest.mark.standard
def test_opening_a_channel_twice_closes_the_connection(client: Client, ch: Channel) -> None:
    ch.send(CHANNEL_OPEN, "s", "")
    client.expect_connection_close(504, "CHANNEL_ERROR - second 'channel.open' seen", *CHANNEL_OPEN)


def test_opening_a_channel_that_awaits_close_ok_closes_the_connection(
        client: Client, ch: Channel, texts: Texts) -> None:
    fail(ch)
    expect_failure(ch, texts)
    ch.send(CHANNEL_OPEN, "s", "")
    client.expect_connection_close(504, "CHANNEL_ERROR - second 'channel.open' seen", *CHANNEL_OPEN)


def end_connection(client: Client) -> None:
    """Do what closes a connection with 504, and read that close."""
    client.send_method(0, *CONNECTION_OPEN, pack("sso", "/", "", 0))
    client.expect(0, *CONNECTION_CLOSE)


@pytest.mark.standard
def test_tcp_ends_once_the_brokers_close_is_answered(client: Client) -> None:
    end_connection(client)
    client.send_method(0, *CONNECTION_CLOSE_OK)
    client.expect_dropped()


def test_the_broker_waits_for_close_ok_as_long_as_a_heartbeat(broker: Broker) -> None:
    """Thirty seconds where heartbeats are off or longer than that."""
    client = broker.client(heartbeat=1)
    end_connection(client)
    client.expect_dropped()


def test_a_connection_close_that_crosses_the_brokers_is_answered(client: Client) -> None:
    end_connection(client)
    client.send_method(0, *CONNECTION_CLOSE, CLOSE)
    client.expect(0, *CONNECTION_CLOSE_OK)


def test_after_the_brokers_close_nothing_else_is_heard(
        client: Client, ch: Channel, broker: Broker, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    end_connection(client)
    ch.publish("", queue_name, b"lost")
    client.send(frame(BODY, 1, b"x") + frame(9, 0, b"x"))
    client.send_method(0, *CONNECTION_OPEN, pack("sso", "/", "", 0))
    client.send_method(0, *CONNECTION_CLOSE_OK)
    client.expect_dropped()
    assert broker.channel().get(queue_name) is None


@pytest.mark.standard
def test_one_connections_error_leaves_the_others(broker: Broker, client: Client, ch: Channel) -> None:
    other = broker.client()
    end_connection(other)
    assert ch.sync() == []


# The client closes


@pytest.mark.standard
def test_a_client_that_closes_gets_close_ok(client: Client) -> None:
    client.send_method(0, *CONNECTION_CLOSE, CLOSE)
    assert client.expect(0, *CONNECTION_CLOSE_OK).args == b""


def test_tcp_ends_after_the_clients_close_though_the_client_leaves_it_open(broker: Broker) -> None:
    client = broker.client(heartbeat=1)
    client.send_method(0, *CONNECTION_CLOSE, CLOSE)
    client.expect(0, *CONNECTION_CLOSE_OK)
    client.expect_dropped()


@pytest.mark.standard
def test_exclusive_queues_are_deleted_before_close_ok(
        client: Client, ch: Channel, broker: Broker, texts: Texts, queue_name: str) -> None:
    ch.declare_queue(queue_name, exclusive=True)
    client.close()
    other = broker.channel()
    other.send_declare_queue(queue_name, passive=True)
    other.fails(404, texts.no_queue(queue_name), *QUEUE_DECLARE)


def test_unacked_messages_are_requeued_before_close_ok(
        client: Client, ch: Channel, broker: Broker, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", queue_name)
    ch.get(queue_name)
    client.close()
    assert broker.channel().get(queue_name).redelivered


@pytest.mark.standard
def test_what_was_sent_before_close_counts(client: Client, ch: Channel, broker: Broker, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    for _ in range(100):
        ch.publish("", queue_name)
    client.close()
    assert broker.channel().purge(queue_name) == 100


@pytest.mark.standard
@pytest.mark.parametrize("code, text", [(0, ""), (200, "bye"), (320, "x" * 255), (65535, "ключ")])
def test_a_client_may_close_for_any_reason(client: Client, code: int, text: str) -> None:
    client.send_method(0, *CONNECTION_CLOSE, pack("2s22", code, text, 60, 40))
    client.expect(0, *CONNECTION_CLOSE_OK)
