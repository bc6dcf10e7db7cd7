"""§10 queue.delete and queue.purge: their counts, the conditions of a delete, and what is removed with the queue."""
from __future__ import annotations

import pytest

from conformance.channel import Channel
from conformance.conftest import Broker, Names
from conformance.methods import BASIC_CANCEL, QUEUE_DELETE, QUEUE_PURGE
from conformance.texts import Texts


@pytest.fixture
def filled(ch: Channel, queue_name: str) -> str:
    """A queue with three messages."""
    ch.declare_queue(queue_name)
    for body in (b"0", b"1", b"2"):
        ch.publish("", queue_name, body)
    return queue_name


# delete


@pytest.mark.standard
def test_deleting_returns_how_many_messages_were_ready(ch: Channel, filled: str) -> None:
    assert ch.delete_queue(filled) == 3


def test_deleting_does_not_count_unacked_messages(ch: Channel, filled: str) -> None:
    ch.get(filled)
    assert ch.delete_queue(filled) == 2


@pytest.mark.standard
def test_a_deleted_queue_is_gone(ch: Channel, broker: Broker, filled: str) -> None:
    ch.delete_queue(filled)
    assert not broker.has_queue(filled)


@pytest.mark.standard
def test_a_queue_declared_again_is_empty_and_unbound(ch: Channel, filled: str) -> None:
    ch.bind_queue(filled, "amq.direct", filled)
    ch.delete_queue(filled)
    assert ch.declare_queue(filled, durable=True) == (filled, 0, 0)
    ch.publish("amq.direct", filled, mandatory=True)
    assert ch.returns(1)[0].routing_key == filled


@pytest.mark.parametrize("if_unused", [False, True])
@pytest.mark.parametrize("if_empty", [False, True])
def test_deleting_what_is_not_there_is_fine(ch: Channel, if_unused: bool, if_empty: bool) -> None:
    assert ch.delete_queue("nonesuch", if_unused, if_empty) == 0


@pytest.mark.standard
@pytest.mark.parametrize("if_unused", [False, True])
@pytest.mark.parametrize("if_empty", [False, True])
def test_an_empty_unused_queue_is_deleted(ch: Channel, queue_name: str, if_unused: bool, if_empty: bool) -> None:
    ch.declare_queue(queue_name)
    assert ch.delete_queue(queue_name, if_unused, if_empty) == 0


@pytest.mark.standard
def test_deleting_without_waiting_is_not_answered(ch: Channel, broker: Broker, filled: str) -> None:
    ch.delete_queue(filled, nowait=True)
    assert ch.sync() == []
    assert not broker.has_queue(filled)


@pytest.mark.standard
def test_a_queue_with_consumers_is_in_use(ch: Channel, broker: Broker, texts: Texts, filled: str) -> None:
    broker.channel().consume(filled)
    ch.send_delete_queue(filled, if_unused=True)
    ch.fails(406, texts.in_use(filled), *QUEUE_DELETE)


@pytest.mark.standard
def test_a_queue_whose_consumers_have_gone_is_unused(ch: Channel, filled: str) -> None:
    ch.consume(filled, "tag", no_ack=True)
    ch.deliveries(3)
    ch.cancel("tag")
    assert ch.delete_queue(filled, if_unused=True) == 0


@pytest.mark.standard
def test_a_queue_with_ready_messages_is_not_empty(ch: Channel, texts: Texts, filled: str) -> None:
    ch.send_delete_queue(filled, if_empty=True)
    ch.fails(406, texts.not_empty(filled), *QUEUE_DELETE)


def test_a_queue_with_unacked_messages_alone_is_empty(ch: Channel, filled: str) -> None:
    for _ in range(3):
        ch.get(filled)
    assert ch.delete_queue(filled, if_empty=True) == 0


def test_a_queue_in_use_and_not_empty_is_said_to_be_not_empty(
        ch: Channel, broker: Broker, texts: Texts, filled: str) -> None:
    consumer = broker.channel()
    consumer.qos(1)
    consumer.consume(filled)
    ch.send_delete_queue(filled, if_unused=True, if_empty=True)
    ch.fails(406, texts.not_empty(filled), *QUEUE_DELETE)


def test_without_waiting_a_delete_is_refused_too(ch: Channel, texts: Texts, filled: str) -> None:
    ch.send_delete_queue(filled, if_empty=True, nowait=True)
    ch.fails(406, texts.not_empty(filled), *QUEUE_DELETE)


@pytest.mark.standard
def test_a_refused_delete_changes_nothing(ch: Channel, texts: Texts, filled: str) -> None:
    ch.send_delete_queue(filled, if_empty=True)
    ch.fails(406, texts.not_empty(filled))
    assert ch.open().declare_queue(filled, passive=True) == (filled, 3, 0)


@pytest.mark.parametrize("settle", ["ack", "nack", "reject"])
def test_a_delivery_of_a_deleted_queue_may_still_be_settled(ch: Channel, filled: str, settle: str) -> None:
    """Nothing comes of it: the message went with its queue."""
    got = ch.get(filled)
    ch.delete_queue(filled)
    getattr(ch, settle)(got.tag)
    assert ch.sync() == []


def test_messages_of_a_deleted_queue_do_not_come_back_in_its_successor(ch: Channel, filled: str) -> None:
    got = ch.get(filled)
    ch.delete_queue(filled)
    ch.declare_queue(filled)
    ch.nack(got.tag)
    assert ch.declare_queue(filled, passive=True) == (filled, 0, 0)


def test_messages_of_a_deleted_queue_are_not_dead_lettered(ch: Channel, names: Names) -> None:
    source, target = names.queue(), names.queue()
    ch.declare_queue(target)
    ch.declare_queue(source, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": target})
    ch.publish("", source)
    assert ch.delete_queue(source) == 1
    assert ch.get(target) is None


def test_publishes_to_a_deleted_queue_are_confirmed(ch: Channel, queue_name: str) -> None:
    ch.confirm_select()
    ch.declare_queue(queue_name, durable=True)
    for _ in range(20):
        ch.publish("", queue_name)
    ch.delete_queue(queue_name)
    assert all(confirm.acked for confirm in ch.confirms(20))


# What consumers hear of a delete


@pytest.mark.needs("consumer_cancel_notify")
def test_consumers_are_told_that_their_queue_is_deleted(ch: Channel, broker: Broker, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    consumer = broker.channel()
    consumer.consume(queue_name, "first")
    consumer.consume(queue_name, "second")
    ch.delete_queue(queue_name)
    assert sorted(consumer.cancels(2)) == ["first", "second"]


@pytest.mark.needs("consumer_cancel_notify")
def test_a_cancel_from_the_broker_wants_no_answer(ch: Channel, broker: Broker, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    consumer = broker.channel()
    consumer.consume(queue_name, "tag")
    ch.delete_queue(queue_name)
    assert consumer.answer(BASIC_CANCEL, "so") == ("tag", 1)


@pytest.mark.needs("consumer_cancel_notify")
def test_consumers_on_the_deleting_channel_are_told_too(ch: Channel, queue_name: str) -> None:
    """Before or after delete-ok."""
    ch.declare_queue(queue_name)
    ch.consume(queue_name, "tag")
    ch.delete_queue(queue_name)
    assert ch.cancels(1) == ["tag"]


@pytest.mark.parametrize("capabilities", [
    {}, {"consumer_cancel_notify": False}, {"consumer_cancel_notify": "yes"}], ids=str)
def test_consumers_that_would_not_understand_are_not_told(
        ch: Channel, broker: Broker, queue_name: str, capabilities: dict) -> None:
    ch.declare_queue(queue_name)
    consumer = broker.channel(capabilities=capabilities)
    consumer.consume(queue_name, "tag")
    ch.delete_queue(queue_name)
    ch.declare_queue(queue_name)
    assert consumer.delivered(queue_name) == [] and consumer.sync() == []


def test_a_consumers_tag_is_free_once_its_queue_is_deleted(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.consume(queue_name, "tag")
    ch.delete_queue(queue_name)
    ch.cancels(1)
    ch.declare_queue(queue_name)
    ch.publish("", queue_name, b"new")
    assert ch.consume(queue_name, "tag") == "tag"
    assert ch.deliveries(1)[0].body == b"new"


# purge


@pytest.mark.standard
def test_purging_returns_how_many_messages_were_ready(ch: Channel, filled: str) -> None:
    assert ch.purge(filled) == 3
    assert ch.get(filled) is None


@pytest.mark.standard
def test_purging_an_empty_queue_returns_0(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    assert ch.purge(queue_name) == 0


def test_purging_leaves_unacked_messages(ch: Channel, filled: str) -> None:
    got = ch.get(filled)
    assert ch.purge(filled) == 2
    ch.nack(got.tag)
    assert ch.get(filled).body == b"0"


def test_purging_removes_requeued_messages(ch: Channel, filled: str) -> None:
    ch.nack(ch.get(filled).tag)
    assert ch.purge(filled) == 3


@pytest.mark.standard
def test_purging_leaves_bindings_and_consumers(ch: Channel, filled: str) -> None:
    ch.bind_queue(filled, "amq.direct", filled)
    ch.purge(filled)
    ch.consume(filled)
    ch.purge(filled)
    ch.publish("amq.direct", filled, b"new")
    assert ch.deliveries(1)[0].body == b"new"


@pytest.mark.standard
def test_purging_without_waiting_is_not_answered(ch: Channel, filled: str) -> None:
    ch.purge(filled, nowait=True)
    assert ch.sync() == []
    assert ch.declare_queue(filled, passive=True) == (filled, 0, 0)


def test_messages_purged_are_not_dead_lettered(ch: Channel, names: Names) -> None:
    source, target = names.queue(), names.queue()
    ch.declare_queue(target)
    ch.declare_queue(source, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": target})
    ch.publish("", source)
    assert ch.purge(source) == 1
    assert ch.get(target) is None


@pytest.mark.standard
@pytest.mark.parametrize("nowait", [False, True])
def test_purging_what_is_not_there_is_not_found(ch: Channel, texts: Texts, nowait: bool) -> None:
    ch.send_purge("nonesuch", nowait=nowait)
    ch.fails(404, texts.no_queue("nonesuch"), *QUEUE_PURGE)


def test_a_queue_may_be_purged_by_any_connection(ch: Channel, broker: Broker, filled: str) -> None:
    ch.sync()
    assert broker.channel().purge(filled) == 3
