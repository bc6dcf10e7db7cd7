"""§28 Durability: what is kept by a clean restart, and what is not.

Needs `--restart COMMAND`. All preparations are made on connections of their own; then the broker is restarted once, and
the tests check what is left. A preparation returns only when the broker has answered all its requests: nothing else is
promised. Expiry while the broker is down belongs to TTL, and is not tested here.
"""
from __future__ import annotations

import uuid
from typing import Any, Callable, Iterator

import pytest

from conformance.channel import Channel
from conformance.client import Client, Method
from conformance.conftest import Broker, Names
from conformance.fields import Long, Properties, content_header
from conformance.methods import CHANNEL_CLOSE, EXCHANGE_DECLARE_OK
from conformance.restarting import restart

pytestmark = pytest.mark.needs("restart", "publisher_confirms")

PERSISTENT = Properties(delivery_mode=2)
TRANSIENT = Properties(delivery_mode=1)
EVERY_PROPERTY = Properties(
    content_type="text/plain", content_encoding="utf-8", headers={"a": Long(1), "b": [True, {"c": None}], "ü": "ß"},
    delivery_mode=2, priority=7, correlation_id="correlation", reply_to="reply", expiration="60000000",
    message_id="id", timestamp=1_700_000_000, type="type", app_id="app", cluster_id="cluster")
ARGUMENTS = {
    "x-message-ttl": 3_600_000, "x-expires": 3_600_000, "x-max-length": 1000, "x-max-length-bytes": 1_000_000,
    "x-overflow": "reject-publish", "x-dead-letter-exchange": "amq.direct", "x-dead-letter-routing-key": "dead",
    "x-max-priority": 5, "x-single-active-consumer": True, "x-whatever": [1, {"a": None}]}
LARGE = bytes(range(256)) * 8192
MANY = 2000

Name = Callable[[str], str]
Preparation = Callable[[Channel, Name], None]
PREPARATIONS: list[Preparation] = []


def before_the_restart(prepare: Preparation) -> Preparation:
    """Registers what is done before the broker is restarted, on a channel in confirm mode."""
    PREPARATIONS.append(prepare)
    return prepare


@pytest.fixture(scope="module")
def names(broker_url: str) -> Iterator[Names]:
    """The names of this module's queues and exchanges, for all its tests."""
    names = Names("durability")
    yield names
    names.delete(broker_url)


@pytest.fixture(scope="module")
def name(names: Names) -> Name:
    """Makes this run's name of a label; a queue and an exchange may share it."""
    prefix = f"durability.{uuid.uuid4().hex[:8]}"

    def full_name(label: str) -> str:
        full = f"{prefix}.{label}"
        if full not in names.queues:
            names.queue(full)
            names.exchange(full)
        return full
    return full_name


@pytest.fixture(scope="module")
def farewells(broker_url: str, name: Name, request: pytest.FixtureRequest) -> list[Method]:
    """Return what the connections of all preparations received during the restart."""
    clients = [Client(broker_url) for _ in PREPARATIONS]
    for client, prepare in zip(clients, PREPARATIONS):
        channel = client.channel()
        channel.confirm_select()
        prepare(channel, name)
    return restart(request.config.getoption("--restart"), clients)


@pytest.fixture
def after(farewells: list[Method], ch: Channel) -> Channel:
    """A channel on the restarted broker."""
    return ch


def publish(ch: Channel, queue: str, *bodies: bytes, properties: Properties = PERSISTENT) -> None:
    """Publish to a queue and await the confirms."""
    for body in bodies:
        ch.publish("", queue, body, properties=properties)
    assert all(confirm.acked for confirm in ch.confirms(len(bodies)))


def drained(ch: Channel, queue: str) -> list[str]:
    """All that is in the queue, redelivered messages with an exclamation mark."""
    _, count, _ = ch.declare_queue(queue, passive=True)
    got = [ch.get(queue, no_ack=True) for _ in range(count)]
    assert ch.get(queue) is None
    return [message.body.decode() + "!" * message.redelivered for message in got]


def exists(ch: Channel, exchange: str) -> bool:
    """Whether an exchange exists, asked on a channel of its own."""
    channel = ch.client.channel()
    channel.send_declare_exchange(exchange, passive=True)
    answer = ch.client.await_method(channel.number, [EXCHANGE_DECLARE_OK, CHANNEL_CLOSE])
    return answer.ids == EXCHANGE_DECLARE_OK


# Connections


def test_connections_are_closed_by_the_broker(farewells: list[Method]) -> None:
    text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"
    assert {farewell.decode("2s22") for farewell in farewells} == {(320, text, 0, 0)}


# Queues


@before_the_restart
def queues(ch: Channel, name: Name) -> None:
    ch.declare_queue(name("durable"), durable=True)
    ch.declare_queue(name("durable auto-delete"), durable=True, auto_delete=True)
    ch.declare_queue(name("durable with arguments"), durable=True, arguments=ARGUMENTS)
    ch.declare_queue(name("transient"))
    ch.declare_queue(name("transient auto-delete"), auto_delete=True)
    ch.declare_queue(name("exclusive"), exclusive=True)
    ch.declare_queue(name("durable exclusive"), exclusive=True, durable=True)
    ch.declare_queue(name("deleted"), durable=True)
    ch.delete_queue(name("deleted"))
    ch.declare_queue(name("deleted and declared"), durable=True, auto_delete=True)
    ch.delete_queue(name("deleted and declared"))
    ch.declare_queue(name("deleted and declared"), durable=True)


@pytest.mark.standard
@pytest.mark.parametrize("label, flags", [
    ("durable", {}),
    ("durable auto-delete", {"auto_delete": True}),
    ("durable with arguments", {"arguments": ARGUMENTS}),
    ("deleted and declared", {}),
])
def test_a_durable_queue_is_as_it_was(after: Channel, name: Name, label: str, flags: dict[str, Any]) -> None:
    assert after.declare_queue(name(label), passive=True) == (name(label), 0, 0)
    assert after.declare_queue(name(label), durable=True, **flags) == (name(label), 0, 0)


@pytest.mark.standard
@pytest.mark.parametrize("label", [
    "transient", "transient auto-delete", "exclusive", "durable exclusive", "deleted"])
def test_any_other_queue_is_gone(after: Channel, broker: Broker, name: Name, label: str) -> None:
    assert not broker.has_queue(name(label))


# Exchanges


@before_the_restart
def exchanges(ch: Channel, name: Name) -> None:
    for type in ("direct", "fanout", "topic", "headers"):
        ch.declare_exchange(name(type), type, durable=True)
    ch.declare_exchange(name("internal"), "topic", durable=True, internal=True)
    ch.declare_exchange(name("auto-delete"), "topic", durable=True, auto_delete=True)
    ch.declare_exchange(name("with alternate"), "topic", durable=True, arguments={"alternate-exchange": "amq.fanout"})
    ch.declare_exchange(name("transient"), "topic")
    ch.declare_exchange(name("deleted"), "topic", durable=True)
    ch.delete_exchange(name("deleted"))


@pytest.mark.standard
@pytest.mark.parametrize("type", ["direct", "fanout", "topic", "headers"])
def test_a_durable_exchange_is_as_it_was(after: Channel, name: Name, type: str) -> None:
    after.declare_exchange(name(type), passive=True)
    after.declare_exchange(name(type), type, durable=True)


@pytest.mark.parametrize("label, flags", [
    ("internal", {"internal": True}), ("auto-delete", {"auto_delete": True}),
    ("with alternate", {"arguments": {"alternate-exchange": "amq.fanout"}})])
def test_a_durable_exchange_has_its_flags(after: Channel, name: Name, label: str, flags: dict[str, Any]) -> None:
    after.declare_exchange(name(label), passive=True)
    after.declare_exchange(name(label), "topic", durable=True, **flags)


@pytest.mark.standard
@pytest.mark.parametrize("label", ["transient", "deleted"])
def test_any_other_exchange_is_gone(after: Channel, name: Name, label: str) -> None:
    assert not exists(after, name(label))


@pytest.mark.parametrize("exchange", ["amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match"])
def test_the_predeclared_exchanges_are_there(after: Channel, exchange: str) -> None:
    assert exists(after, exchange)


# Bindings


@before_the_restart
def bindings(ch: Channel, name: Name) -> None:
    ch.declare_queue(name("bound"), durable=True)
    for exchange in ("source", "destination"):
        ch.declare_exchange(name(exchange), "topic", durable=True)
    ch.bind_queue(name("bound"), "amq.direct", name("to amq.direct"))
    ch.bind_queue(name("bound"), name("source"), "by.*.key")
    ch.bind_queue(name("bound"), "amq.headers", "", {"x-match": "all", "run": name(""), "n": Long(1)})
    ch.bind_queue(name("bound"), name("source"), "unbound")
    ch.unbind_queue(name("bound"), name("source"), "unbound")
    ch.bind_exchange(name("destination"), name("source"), "through.#")
    ch.bind_queue(name("bound"), name("destination"), "#")
    ch.declare_exchange(name("fleeting"), "topic")
    ch.bind_queue(name("bound"), name("fleeting"), "#")
    ch.declare_queue(name("fleeting"))
    ch.bind_queue(name("fleeting"), name("source"), "#")


def is_routed(ch: Channel, queue: str, exchange: str, key: str, headers: dict[str, Any] | None = None) -> bool:
    """Whether a message gets from an exchange to this queue."""
    ch.publish(exchange, key, properties=Properties(headers=headers))
    return ch.purge(queue) == 1


def test_a_binding_to_a_predeclared_exchange_is_kept(after: Channel, name: Name) -> None:
    assert is_routed(after, name("bound"), "amq.direct", name("to amq.direct"))


@pytest.mark.standard
@pytest.mark.parametrize("key", ["by.any.key", "through", "through.another.exchange"])
def test_a_binding_between_durables_is_kept(after: Channel, name: Name, key: str) -> None:
    assert is_routed(after, name("bound"), name("source"), key)


@pytest.mark.standard
def test_a_binding_keeps_its_arguments(after: Channel, name: Name) -> None:
    assert is_routed(after, name("bound"), "amq.headers", "", {"run": name(""), "n": 1})
    assert not is_routed(after, name("bound"), "amq.headers", "", {"run": name(""), "n": 2})


@pytest.mark.standard
def test_a_binding_removed_stays_removed(after: Channel, name: Name) -> None:
    assert not is_routed(after, name("bound"), name("source"), "unbound")


def test_a_binding_of_a_transient_exchange_goes_with_it(after: Channel, name: Name) -> None:
    after.declare_exchange(name("fleeting"), "topic")
    assert not is_routed(after, name("bound"), name("fleeting"), "key")


def test_a_binding_of_a_transient_queue_goes_with_it(after: Channel, name: Name) -> None:
    after.declare_queue(name("fleeting"))
    assert not is_routed(after, name("fleeting"), name("source"), "key")


# Messages


@before_the_restart
def messages(ch: Channel, name: Name) -> None:
    for label in ("mixed", "many", "properties", "large", "empty body", "purged", "first copy", "second copy"):
        ch.declare_queue(name(label), durable=True)
    publish(ch, name("mixed"), b"0", b"1")
    publish(ch, name("mixed"), b"transient", properties=TRANSIENT)
    publish(ch, name("mixed"), b"no delivery mode", properties=Properties())
    publish(ch, name("mixed"), b"2")
    publish(ch, name("many"), *(b"%d" % number for number in range(MANY)))
    publish(ch, name("properties"), b"body", properties=EVERY_PROPERTY)
    publish(ch, name("large"), LARGE)
    publish(ch, name("empty body"), b"")
    publish(ch, name("purged"), b"0", b"1")
    ch.purge(name("purged"))
    publish(ch, name("purged"), b"2")
    ch.declare_exchange(name("copies"), "fanout", durable=True)
    for label in ("first copy", "second copy"):
        ch.bind_queue(name(label), name("copies"))
    ch.publish(name("copies"), "key", b"copied", properties=PERSISTENT)
    ch.confirms(1)


@pytest.mark.standard
def test_persistent_messages_are_kept_and_others_are_not(after: Channel, name: Name) -> None:
    """In their order, and not redelivered, since nobody has seen them."""
    assert drained(after, name("mixed")) == ["0", "1", "2"]


@pytest.mark.standard
def test_many_messages_keep_their_order(after: Channel, name: Name) -> None:
    assert after.declare_queue(name("many"), passive=True)[1] == MANY
    after.consume(name("many"), no_ack=True)
    assert [int(delivery.body) for delivery in after.deliveries(MANY)] == list(range(MANY))


@pytest.mark.standard
def test_a_message_is_kept_as_it_was(after: Channel, name: Name) -> None:
    """Its header octet for octet."""
    got = after.get(name("properties"), no_ack=True)
    assert (got.exchange, got.routing_key, got.body) == ("", name("properties"), b"body")
    assert got.header == content_header(4, EVERY_PROPERTY)


@pytest.mark.standard
def test_a_large_body_is_kept(after: Channel, name: Name) -> None:
    assert after.get(name("large"), no_ack=True).body == LARGE


def test_a_message_without_a_body_is_kept(after: Channel, name: Name) -> None:
    assert after.get(name("empty body"), no_ack=True).body == b""


@pytest.mark.standard
def test_purged_messages_stay_away(after: Channel, name: Name) -> None:
    assert drained(after, name("purged")) == ["2"]


@pytest.mark.standard
@pytest.mark.parametrize("label", ["first copy", "second copy"])
def test_every_queue_keeps_its_copy(after: Channel, name: Name, label: str) -> None:
    got = after.get(name(label), no_ack=True)
    assert (got.exchange, got.routing_key, got.body) == (name("copies"), "key", b"copied")


# Deliveries


@before_the_restart
def deliveries(ch: Channel, name: Name) -> None:
    for label in ("got", "acked", "requeued", "consumed", "without ack"):
        ch.declare_queue(name(label), durable=True)
        publish(ch, name(label), b"0", b"1", b"2")
    ch.get(name("got"))
    ch.ack(ch.get(name("acked")).tag)
    ch.nack(ch.get(name("requeued")).tag)
    ch.get(name("without ack"), no_ack=True)
    ch.qos(2)
    ch.consume(name("consumed"))
    ch.deliveries(2)
    ch.delivered(name("acked"))


def test_a_message_got_is_redelivered(after: Channel, name: Name) -> None:
    assert drained(after, name("got")) == ["0!", "1", "2"]


@pytest.mark.standard
def test_a_message_acked_is_gone(after: Channel, name: Name) -> None:
    assert drained(after, name("acked")) == ["1", "2"]


def test_a_message_requeued_is_redelivered(after: Channel, name: Name) -> None:
    assert drained(after, name("requeued")) == ["0!", "1", "2"]


def test_a_message_got_without_ack_is_gone(after: Channel, name: Name) -> None:
    assert drained(after, name("without ack")) == ["1", "2"]


def test_messages_a_consumer_had_are_redelivered(after: Channel, name: Name) -> None:
    assert drained(after, name("consumed")) == ["0!", "1!", "2"]


# Transactions


@before_the_restart
def transactions(ch: Channel, name: Name) -> None:
    ch.declare_queue(name("transaction"), durable=True)
    publish(ch, name("transaction"), b"0", b"1", b"2")
    tx = ch.client.channel()
    tx.tx_select()
    tx.ack(tx.get(name("transaction")).tag)
    tx.publish("", name("transaction"), b"committed", properties=PERSISTENT)
    tx.tx_commit()
    tx.ack(tx.get(name("transaction")).tag)
    tx.publish("", name("transaction"), b"not committed", properties=PERSISTENT)
    tx.sync()


def test_what_was_committed_holds_and_nothing_else(after: Channel, name: Name) -> None:
    assert drained(after, name("transaction")) == ["1!", "2", "committed"]


# A second restart


@before_the_restart
def for_the_second_restart(ch: Channel, name: Name) -> None:
    ch.declare_queue(name("twice"), durable=True)
    publish(ch, name("twice"), b"0", b"1", b"2")
    ch.get(name("twice"))


def test_a_second_restart_keeps_what_the_first_one_kept(
        after: Channel, broker: Broker, name: Name, request: pytest.FixtureRequest) -> None:
    """The last test, since it takes the connections of all others along."""
    after.confirm_select()
    after.get(name("twice"))
    after.ack(1)
    publish(after, name("twice"), b"3")
    restart(request.config.getoption("--restart"), [after.client])
    assert drained(broker.channel(), name("twice")) == ["1", "2", "3"]
