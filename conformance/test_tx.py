"""§15 The tx class: what takes effect at the commit only, and what a rollback and a close undo.

A commit that fails because a message was refused is tested with length limits.
"""
from __future__ import annotations

from typing import Callable

import pytest

from conformance.channel import Channel
from conformance.client import Client, method_frame
from conformance.conftest import Broker, Names
from conformance.fields import Properties
from conformance.methods import (
    BASIC_ACK, BASIC_NACK, BASIC_PUBLISH, BASIC_REJECT, BASIC_RETURN, QUEUE_PURGE_OK, TX_COMMIT, TX_COMMIT_OK,
    TX_ROLLBACK)
from conformance.texts import Texts

pytestmark = pytest.mark.needs("transactions")

NOWHERE = "nobody.declares.this"
NOT_TRANSACTIONAL = "PRECONDITION_FAILED - channel is not transactional"


@pytest.fixture
def tx(ch: Channel) -> Channel:
    """A transactional channel."""
    ch.tx_select()
    return ch


@pytest.fixture
def other(broker: Broker) -> Channel:
    """A channel elsewhere, not transactional."""
    return broker.channel()


@pytest.fixture
def queue(tx: Channel, queue_name: str) -> str:
    """An empty queue."""
    tx.declare_queue(queue_name)
    return queue_name


@pytest.fixture
def filled(queue: str, other: Channel) -> str:
    """A queue with three messages."""
    for body in (b"0", b"1", b"2"):
        other.publish("", queue, body)
    other.sync()
    return queue


def ready(channel: Channel, queue: str) -> int:
    """How many messages are ready."""
    return channel.declare_queue(queue, passive=True)[1]


# The methods


def test_selecting_again_is_fine(tx: Channel) -> None:
    tx.tx_select()


def test_selecting_again_keeps_what_is_held(tx: Channel, queue: str) -> None:
    tx.publish("", queue)
    tx.tx_select()
    assert ready(tx, queue) == 0
    tx.tx_commit()
    assert ready(tx, queue) == 1


@pytest.mark.standard
def test_committing_without_select_fails(ch: Channel) -> None:
    ch.send_tx_commit()
    ch.fails(406, NOT_TRANSACTIONAL, *TX_COMMIT)


@pytest.mark.standard
def test_rolling_back_without_select_fails(ch: Channel) -> None:
    ch.send_tx_rollback()
    ch.fails(406, NOT_TRANSACTIONAL, *TX_ROLLBACK)


def test_a_confirming_channel_is_not_transactional(ch: Channel) -> None:
    ch.confirm_select()
    ch.send_tx_commit()
    ch.fails(406, NOT_TRANSACTIONAL, *TX_COMMIT)


@pytest.mark.standard
def test_nothing_may_be_committed_and_rolled_back(tx: Channel) -> None:
    for _ in range(3):
        tx.tx_commit()
        tx.tx_rollback()


def test_a_channel_opened_again_is_not_transactional(tx: Channel) -> None:
    tx.close()
    tx.open()
    tx.send_tx_commit()
    tx.fails(406, NOT_TRANSACTIONAL, *TX_COMMIT)


# Publishes


@pytest.mark.standard
def test_a_publish_is_held_until_commit(tx: Channel, other: Channel, queue: str) -> None:
    tx.publish("", queue, b"held")
    tx.sync()
    assert other.get(queue) is None
    tx.tx_commit()
    assert other.get(queue).body == b"held"


@pytest.mark.standard
def test_a_publish_is_held_from_consumers_too(tx: Channel, other: Channel, queue: str) -> None:
    other.consume(queue)
    tx.publish("", queue)
    tx.sync()
    assert other.delivered(queue) == []
    tx.tx_commit()
    assert len(other.deliveries(1)) == 1


@pytest.mark.standard
def test_all_publishes_of_a_transaction_are_there_at_commit_ok(tx: Channel, other: Channel, names: Names) -> None:
    queues = [names.queue() for _ in range(3)]
    for queue in queues:
        tx.declare_queue(queue, durable=True)
    for number in range(30):
        tx.publish("", queues[number % 3], b"%d" % number, properties=Properties(delivery_mode=2))
    tx.tx_commit()
    assert [ready(other, queue) for queue in queues] == [10, 10, 10]


@pytest.mark.standard
def test_messages_of_a_transaction_keep_their_order(tx: Channel, queue: str) -> None:
    for number in range(50):
        tx.publish("", queue, b"%d" % number)
    tx.tx_commit()
    assert [int(tx.get(queue, no_ack=True).body) for _ in range(50)] == list(range(50))


@pytest.mark.standard
def test_a_rolled_back_publish_never_happened(tx: Channel, queue: str) -> None:
    tx.publish("", queue)
    tx.tx_rollback()
    tx.tx_commit()
    assert ready(tx, queue) == 0


@pytest.mark.standard
@pytest.mark.parametrize("end", [Channel.tx_commit, Channel.tx_rollback], ids=["commit", "rollback"])
def test_the_next_transaction_begins_by_itself(tx: Channel, queue: str, end: Callable[[Channel], None]) -> None:
    end(tx)
    tx.publish("", queue)
    assert ready(tx, queue) == 0
    tx.tx_commit()
    assert ready(tx, queue) == 1


@pytest.mark.standard
def test_a_committed_publish_is_not_committed_again(tx: Channel, queue: str) -> None:
    tx.publish("", queue)
    tx.tx_commit()
    tx.tx_commit()
    assert ready(tx, queue) == 1


def test_a_publish_is_routed_when_it_is_sent_not_when_it_is_committed(tx: Channel, queue: str) -> None:
    tx.publish("amq.direct", queue, b"too early")
    tx.bind_queue(queue, "amq.direct", queue)
    tx.publish("amq.direct", queue, b"bound")
    tx.unbind_queue(queue, "amq.direct", queue)
    tx.publish("amq.direct", queue, b"too late")
    tx.tx_commit()
    assert tx.get(queue).body == b"bound"
    assert tx.get(queue) is None


def test_a_publish_to_a_queue_deleted_before_commit_is_lost(tx: Channel, queue: str) -> None:
    tx.publish("", queue)
    tx.delete_queue(queue)
    tx.tx_commit()
    tx.declare_queue(queue)
    assert ready(tx, queue) == 0


def test_a_return_comes_during_commit(client: Client, tx: Channel) -> None:
    tx.publish("", NOWHERE, b"body", mandatory=True)
    assert tx.sync() == []
    tx.send_tx_commit()
    client.expect(1, *BASIC_RETURN)
    client.expect(1, *TX_COMMIT_OK)


def test_a_rolled_back_publish_does_not_come_back(tx: Channel) -> None:
    tx.publish("", NOWHERE, mandatory=True)
    tx.tx_rollback()
    tx.tx_commit()
    assert tx.sync() == []


def test_a_bad_publish_fails_at_once(tx: Channel, texts: Texts) -> None:
    tx.publish("nonesuch", NOWHERE)
    tx.fails(404, texts.no_exchange("nonesuch"), *BASIC_PUBLISH)


def test_a_publish_to_an_internal_exchange_fails_at_once(tx: Channel, texts: Texts) -> None:
    tx.publish("amq.rabbitmq.trace", NOWHERE)
    tx.fails(403, texts.internal("amq.rabbitmq.trace"), *BASIC_PUBLISH)


def test_a_bad_expiration_fails_at_once(tx: Channel) -> None:
    tx.publish("", NOWHERE, properties=Properties(expiration="abc"))
    tx.fails(406, "PRECONDITION_FAILED - invalid expiration 'abc': no_integer", *BASIC_PUBLISH)


def test_a_failure_rolls_back(tx: Channel, texts: Texts, filled: str) -> None:
    tx.publish("", filled, b"lost")
    tx.ack(tx.get(filled).tag)
    tx.publish("nonesuch", NOWHERE)
    tx.fails(404, texts.no_exchange("nonesuch"), *BASIC_PUBLISH)
    assert ready(tx.open(), filled) == 3


# Queues that come and go before the commit


def test_a_queue_that_is_declared_before_the_commit_gets_the_message(tx: Channel, other: Channel, names: Names) -> None:
    """Of the default exchange, for which a key is a queue's name whether there is one or not."""
    late = names.queue()
    tx.publish("", late, b"0", mandatory=True)
    other.declare_queue(late)
    tx.tx_commit()
    assert tx.sync() == []
    assert other.get(late).body == b"0"


def test_each_key_is_a_queue_that_may_be_declared_later(tx: Channel, queue: str, names: Names) -> None:
    late = [names.queue() for _ in range(2)]
    tx.publish("", queue, b"0", properties=Properties(headers={"CC": [late[0]], "BCC": [late[1], "never"]}))
    for name in late:
        tx.declare_queue(name)
    tx.tx_commit()
    assert [tx.get(name).body for name in (queue, *late)] == [b"0"] * 3


@pytest.mark.parametrize("exchange", ["", "amq.direct"])
def test_a_queue_that_was_declared_anew_gets_what_was_routed_to_its_name(
        tx: Channel, other: Channel, queue: str, exchange: str) -> None:
    """Bindings are those of the publish: the new queue has none."""
    if exchange:
        tx.bind_queue(queue, exchange, queue)
    tx.publish(exchange, queue, b"0", mandatory=True)
    other.delete_queue(queue)
    other.declare_queue(queue)
    tx.tx_commit()
    assert tx.sync() == []
    assert other.get(queue).body == b"0"


@pytest.mark.parametrize("exchange", ["", "amq.direct"])
def test_a_mandatory_publish_whose_queue_is_gone_comes_back_at_the_commit(
        tx: Channel, other: Channel, queue: str, names: Names, exchange: str) -> None:
    """In the order of the publishes, and before commit-ok."""
    stays = names.queue()
    tx.declare_queue(stays)
    for name in (queue, stays) if exchange else ():
        tx.bind_queue(name, exchange, name)
    for number, (key, mandatory) in enumerate([
            (queue, True), (NOWHERE, True), (stays, True), (queue, False), (queue, True)]):
        tx.publish(exchange, key, b"%d" % number, mandatory=mandatory)
    other.delete_queue(queue)
    assert tx.sync() == []
    tx.send_tx_commit()
    come = [tx.client.read() for _ in range(4)]
    assert [method.ids for method in come] == [BASIC_RETURN] * 3 + [TX_COMMIT_OK]
    assert [method.body for method in come[:3]] == [b"0", b"1", b"4"]
    assert other.get(stays).body == b"2"


def test_a_mandatory_publish_comes_not_back_while_one_of_its_queues_is_left(
        tx: Channel, other: Channel, queue: str, names: Names) -> None:
    gone = names.queue()
    for name in (queue, gone):
        tx.declare_queue(name)
        tx.bind_queue(name, "amq.direct", queue)
    tx.publish("amq.direct", queue, b"0", mandatory=True)
    other.delete_queue(gone)
    tx.tx_commit()
    assert tx.sync() == []
    assert other.get(queue).body == b"0"


def test_messages_to_queues_that_come_and_go_keep_their_order(
        tx: Channel, other: Channel, queue: str, names: Names) -> None:
    late = names.queue()
    for number in range(6):
        tx.publish("", queue, b"%d" % number, properties=Properties(headers={"CC": [late]} if number % 2 else None))
    other.delete_queue(queue)
    for name in (queue, late):
        other.declare_queue(name)
    tx.tx_commit()
    assert [other.get(queue, no_ack=True).body for _ in range(6)] == [b"%d" % number for number in range(6)]
    assert [other.get(late, no_ack=True).body for _ in range(3)] == [b"1", b"3", b"5"]


# Acks


@pytest.mark.standard
def test_an_ack_is_held_until_commit(tx: Channel, broker: Broker, filled: str) -> None:
    tx.ack(tx.get(filled).tag)
    tx.tx_commit()
    tx.ack(tx.get(filled).tag)
    tx.close()
    assert ready(broker.channel(), filled) == 2


def test_a_held_ack_gives_no_credit(tx: Channel, filled: str) -> None:
    tx.qos(1)
    tx.consume(filled)
    tx.ack(tx.deliveries(1)[0].tag)
    assert tx.delivered(filled) == []
    tx.tx_commit()
    assert tx.deliveries(1)[0].body == b"1"


@pytest.mark.parametrize("refuse", [Channel.nack, Channel.reject], ids=["nack", "reject"])
def test_a_requeue_is_held_until_commit(
        tx: Channel, other: Channel, filled: str, refuse: Callable[..., None]) -> None:
    refuse(tx, tx.get(filled).tag, requeue=True)
    assert ready(tx, filled) == 2
    tx.tx_commit()
    assert ready(other, filled) == 3


@pytest.mark.parametrize("refuse", [Channel.nack, Channel.reject], ids=["nack", "reject"])
def test_a_drop_is_held_until_commit(
        tx: Channel, other: Channel, filled: str, refuse: Callable[..., None]) -> None:
    refuse(tx, tx.get(filled).tag, requeue=False)
    tx.close()
    assert ready(other, filled) == 3


def test_a_rolled_back_ack_leaves_the_message_unacked(tx: Channel, other: Channel, filled: str) -> None:
    """It is neither ready nor delivered again, and may be acked anew."""
    got = tx.get(filled)
    tx.ack(got.tag)
    tx.tx_rollback()
    assert ready(other, filled) == 2
    tx.ack(got.tag)
    tx.tx_commit()
    tx.close()
    assert ready(other, filled) == 2


def test_a_rolled_back_requeue_leaves_the_message_unacked(tx: Channel, other: Channel, filled: str) -> None:
    got = tx.get(filled)
    tx.nack(got.tag)
    tx.tx_rollback()
    assert ready(other, filled) == 2
    tx.nack(got.tag)
    tx.tx_commit()
    assert ready(other, filled) == 3


def test_a_rolled_back_ack_of_several_leaves_them_unacked(tx: Channel, other: Channel, filled: str) -> None:
    for _ in range(3):
        tx.get(filled)
    tx.ack(2, multiple=True)
    tx.tx_rollback()
    tx.ack(3, multiple=True)
    tx.tx_commit()
    tx.close()
    assert ready(other, filled) == 0


def test_a_tag_acked_in_the_transaction_is_no_longer_known(tx: Channel, filled: str) -> None:
    tx.ack(tx.get(filled).tag)
    tx.ack(1)
    tx.fails(406, "PRECONDITION_FAILED - unknown delivery tag 1", *BASIC_ACK)


@pytest.mark.parametrize("settle, ids", [
    (Channel.ack, BASIC_ACK), (Channel.nack, BASIC_NACK), (Channel.reject, BASIC_REJECT)],
    ids=["ack", "nack", "reject"])
def test_an_unknown_tag_fails_at_once(
        tx: Channel, settle: Callable[[Channel, int], None], ids: tuple[int, int]) -> None:
    settle(tx, 42)
    tx.fails(406, "PRECONDITION_FAILED - unknown delivery tag 42", *ids)


@pytest.mark.standard
def test_publishes_and_acks_are_committed_together(tx: Channel, other: Channel, filled: str, names: Names) -> None:
    target = names.queue()
    tx.declare_queue(target)
    for _ in range(3):
        got = tx.get(filled)
        tx.publish("", target, got.body)
        tx.ack(got.tag)
    assert ready(other, target) == 0
    tx.tx_commit()
    tx.close()
    assert (ready(other, filled), ready(other, target)) == (0, 3)


# While the disk works: a publish to a durable queue, its commit, and more in the same write


def commit_and_go_on(tx: Channel, queue: str) -> None:
    """Commit a persistent message, and commit once more without waiting for the answer."""
    tx.publish("", queue, properties=Properties(delivery_mode=2))
    tx.client.send(method_frame(tx.number, *TX_COMMIT) + method_frame(tx.number, *TX_COMMIT))


@pytest.mark.needs("no-commands-during-commit")
def test_a_command_while_a_commit_is_processed_ends_the_connection(client: Client, tx: Channel, names: Names) -> None:
    queue = names.queue()
    tx.declare_queue(queue, durable=True)
    commit_and_go_on(tx, queue)
    text = "CHANNEL_ERROR - unexpected command while processing 'tx.commit'"
    client.expect_connection_close(504, text, *TX_COMMIT)


@pytest.mark.needs("commands-wait-for-commit")
def test_a_command_while_a_commit_is_processed_waits_for_its_turn(tx: Channel, names: Names) -> None:
    queue = names.queue()
    tx.declare_queue(queue, durable=True)
    commit_and_go_on(tx, queue)
    tx.send_purge(queue)
    tx.answer(TX_COMMIT_OK)
    tx.answer(TX_COMMIT_OK)
    assert tx.answer(QUEUE_PURGE_OK, "4") == (1,)


# Not held


def test_declares_and_binds_are_not_held(tx: Channel, broker: Broker, queue: str) -> None:
    tx.bind_queue(queue, "amq.direct", queue)
    tx.tx_rollback()
    tx.publish("amq.direct", queue)
    tx.tx_commit()
    assert ready(broker.channel(), queue) == 1


def test_getting_is_not_held(tx: Channel, other: Channel, filled: str) -> None:
    assert tx.get(filled).body == b"0"
    tx.tx_rollback()
    assert ready(other, filled) == 2


def test_getting_without_ack_is_not_held(tx: Channel, other: Channel, filled: str) -> None:
    assert tx.get(filled, no_ack=True).body == b"0"
    tx.tx_rollback()
    tx.close()
    assert ready(other, filled) == 2


def test_consuming_is_not_held(tx: Channel, filled: str) -> None:
    tx.consume(filled)
    assert [delivery.body for delivery in tx.deliveries(3)] == [b"0", b"1", b"2"]


def test_a_purge_is_not_held(tx: Channel, filled: str) -> None:
    assert tx.purge(filled) == 3
    tx.tx_rollback()
    assert ready(tx, filled) == 0


# A channel's end


def test_closing_the_channel_rolls_back_and_requeues(tx: Channel, other: Channel, filled: str) -> None:
    tx.ack(tx.get(filled).tag)
    tx.publish("", filled, b"lost")
    tx.close()
    assert [(got.body, got.redelivered) for got in (other.get(filled) for _ in range(3))] == [
        (b"0", True), (b"1", False), (b"2", False)]
    assert other.get(filled) is None


def test_closing_the_connection_rolls_back_and_requeues(
        client: Client, tx: Channel, other: Channel, filled: str) -> None:
    tx.ack(tx.get(filled).tag)
    tx.publish("", filled, b"lost")
    client.close()
    assert ready(other, filled) == 3


@pytest.mark.standard
def test_other_channels_are_not_transactional(client: Client, tx: Channel, queue: str) -> None:
    client.channel().publish("", queue, b"plain")
    tx.publish("", queue, b"held")
    client.channel(7).delivered(queue)
    assert tx.get(queue).body == b"plain"
