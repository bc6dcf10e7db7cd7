"""§16 basic.get: the fields of the answer, delivery tags, and the state of the queue afterwards."""
from __future__ import annotations

import pytest

from conformance.channel import Channel
from conformance.client import Client
from conformance.conftest import Broker
from conformance.methods import BASIC_GET, BASIC_GET_EMPTY, BASIC_GET_OK
from conformance.texts import Texts


@pytest.fixture
def filled(ch: Channel, queue_name: str) -> str:
    """A queue with three messages."""
    ch.declare_queue(queue_name)
    for body in (b"0", b"1", b"2"):
        ch.publish("", queue_name, body)
    return queue_name


@pytest.mark.standard
def test_an_empty_queue_says_so(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    assert ch.get(queue_name) is None


@pytest.mark.standard
def test_the_oldest_message_comes_first(ch: Channel, filled: str) -> None:
    assert [ch.get(filled).body for _ in range(3)] == [b"0", b"1", b"2"]


@pytest.mark.standard
def test_the_answer_says_where_the_message_was_published(ch: Channel, filled: str) -> None:
    got = ch.get(filled)
    assert (got.exchange, got.routing_key) == ("", filled)


@pytest.mark.standard
@pytest.mark.parametrize("no_ack", [False, True])
def test_the_answer_counts_the_ready_messages_left(ch: Channel, filled: str, no_ack: bool) -> None:
    assert [ch.get(filled, no_ack).messages for _ in range(3)] == [2, 1, 0]


@pytest.mark.parametrize("no_ack", [False, True])
def test_tags_rise_from_1(ch: Channel, filled: str, no_ack: bool) -> None:
    """Those that need no ack too."""
    assert [ch.get(filled, no_ack).tag for _ in range(3)] == [1, 2, 3]


def test_an_empty_answer_uses_up_no_tag(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.get(queue_name)
    ch.publish("", queue_name)
    assert ch.get(queue_name).tag == 1


@pytest.mark.standard
def test_gets_and_deliveries_share_their_tags(ch: Channel, filled: str) -> None:
    assert ch.get(filled).tag == 1
    ch.consume(filled, "tag", no_ack=True)
    assert [delivery.tag for delivery in ch.deliveries(2)] == [2, 3]
    ch.cancel("tag")
    ch.publish("", filled)
    assert ch.get(filled).tag == 4


@pytest.mark.standard
def test_every_channel_has_its_own_tags(client: Client, ch: Channel, filled: str) -> None:
    assert ch.get(filled).tag == 1
    assert client.channel().get(filled).tag == 1


@pytest.mark.standard
def test_a_first_get_is_not_redelivered(ch: Channel, filled: str) -> None:
    assert not ch.get(filled).redelivered


@pytest.mark.standard
def test_a_message_got_is_with_nobody_else(ch: Channel, broker: Broker, filled: str) -> None:
    ch.get(filled)
    assert broker.channel().get(filled).body == b"1"


@pytest.mark.standard
def test_a_message_got_without_ack_is_gone(ch: Channel, broker: Broker, filled: str) -> None:
    ch.get(filled, no_ack=True)
    ch.close()
    assert broker.channel().declare_queue(filled, passive=True) == (filled, 2, 0)


@pytest.mark.standard
def test_a_message_got_comes_back_when_its_channel_closes(ch: Channel, broker: Broker, filled: str) -> None:
    ch.get(filled)
    ch.close()
    got = broker.channel().get(filled)
    assert (got.body, got.redelivered) == (b"0", True)


def test_a_get_is_not_limited_by_prefetch(ch: Channel, filled: str) -> None:
    ch.qos(1)
    ch.qos(1, is_global=True)
    assert [ch.get(filled).body for _ in range(3)] == [b"0", b"1", b"2"]


def test_messages_got_do_not_count_for_prefetch(ch: Channel, filled: str) -> None:
    ch.qos(1)
    ch.get(filled)
    ch.get(filled)
    ch.consume(filled)
    assert ch.deliveries(1)[0].body == b"2"


def test_a_get_works_beside_consumers_that_are_full(ch: Channel, broker: Broker, filled: str) -> None:
    consumer = broker.channel()
    consumer.qos(1)
    consumer.consume(filled)
    consumer.deliveries(1)
    assert ch.get(filled).body == b"1"


def test_a_get_works_beside_an_exclusive_consumer(ch: Channel, broker: Broker, filled: str) -> None:
    consumer = broker.channel()
    consumer.qos(1)
    consumer.consume(filled, exclusive=True)
    consumer.deliveries(1)
    assert ch.get(filled).body == b"1"


@pytest.mark.standard
def test_a_queue_that_is_not_there_is_not_found(ch: Channel, texts: Texts) -> None:
    ch.send_get("nonesuch")
    ch.fails(404, texts.no_queue("nonesuch"), *BASIC_GET)


@pytest.mark.standard
def test_gets_sent_together_are_answered_in_order(client: Client, ch: Channel, filled: str) -> None:
    for _ in range(4):
        ch.send_get(filled, no_ack=True)
    assert [client.expect(1, *BASIC_GET_OK).body for _ in range(3)] == [b"0", b"1", b"2"]
    client.expect(1, *BASIC_GET_EMPTY)
