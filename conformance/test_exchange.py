"""§8 Exchange class: declare, delete and bind exchanges; what is refused, and the order of the checks."""
from __future__ import annotations

from typing import Any

import pytest

from conformance.channel import Channel
from conformance.client import Client
from conformance.conftest import Broker, Names
from conformance.fields import (
    Array, Boolean, ByteArray, Decimal, Double, Float, Long, SignedByte, SignedInt, SignedShort, Table, Timestamp,
    Typed, UnsignedByte, UnsignedInt, UnsignedShort, UpperLong, Void)
from conformance.methods import (
    BASIC_PUBLISH, CHANNEL_CLOSE, CHANNEL_CLOSE_OK, CONNECTION_CLOSE, EXCHANGE_BIND, EXCHANGE_DECLARE,
    EXCHANGE_DECLARE_OK, EXCHANGE_DELETE, QUEUE_BIND)
from conformance.routes import Routes
from conformance.texts import ON_DEFAULT_EXCHANGE, Texts

TYPES = ["direct", "fanout", "topic", "headers"]


def exists(ch: Channel, exchange: str) -> bool:
    """Whether a passive declare finds it; the channel is opened again if not."""
    ch.send_declare_exchange(exchange, passive=True)
    answer = ch.client.await_method(ch.number, [EXCHANGE_DECLARE_OK, CHANNEL_CLOSE])
    if answer.ids == EXCHANGE_DECLARE_OK:
        return True
    assert answer.decode("2s22")[0] == 404
    ch.send(CHANNEL_CLOSE_OK)
    ch.open()
    return False


# Declaring


@pytest.mark.standard
@pytest.mark.parametrize("type", TYPES)
def test_an_exchange_is_declared_and_declared_again(ch: Channel, exchange_name: str, type: str) -> None:
    ch.declare_exchange(exchange_name, type)
    ch.declare_exchange(exchange_name, type)


@pytest.mark.parametrize("durable", [False, True], ids=["transient", "durable"])
@pytest.mark.parametrize("auto_delete", [False, True], ids=["kept", "auto-delete"])
@pytest.mark.parametrize("internal", [False, True], ids=["public", "internal"])
def test_any_flags_go_together(
        ch: Channel, exchange_name: str, durable: bool, auto_delete: bool, internal: bool) -> None:
    for _ in range(2):
        ch.declare_exchange(exchange_name, "direct", durable=durable, auto_delete=auto_delete, internal=internal)


@pytest.mark.standard
def test_an_exchange_is_seen_by_other_connections(ch: Channel, broker: Broker, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "direct")
    assert exists(broker.channel(), exchange_name)


@pytest.mark.standard
def test_an_exchange_outlives_its_connection(
        client: Client, ch: Channel, broker: Broker, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "direct")
    client.close()
    assert exists(broker.channel(), exchange_name)


@pytest.mark.parametrize("name", ["", "some.exchange", "amq.direct", "amq.nonesuch"])
@pytest.mark.parametrize("type, fault", [
    ("x-nope", "unknown"), ("Direct", "unknown"), ("topic ", "unknown"), ("classic", "invalid"), ("", "invalid")])
def test_a_type_that_is_none_is_refused_before_anything_else(
        client: Client, ch: Channel, name: str, type: str, fault: str) -> None:
    """3.10 closes the connection with 503, 4.x the channel with 406 and the same words. Both are right."""
    ch.send_declare_exchange(name, type)
    close = client.read()
    text = f"{fault} exchange type '{type}'"
    if close.ids == CONNECTION_CLOSE:
        assert close.decode("2s22") == (503, f"COMMAND_INVALID - {text}", *EXCHANGE_DECLARE)
    else:
        assert close.ids == CHANNEL_CLOSE
        assert close.decode("2s22") == (406, f"PRECONDITION_FAILED - {text}", *EXCHANGE_DECLARE)


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("name", ["", "\r\n"], ids=["empty", "only line ends"])
def test_the_default_exchange_cannot_be_declared(ch: Channel, name: str, type: str) -> None:
    ch.send_declare_exchange(name, type, durable=True)
    ch.fails(403, ON_DEFAULT_EXCHANGE, *EXCHANGE_DECLARE)


DECLARED = {"type": "direct", "durable": False, "auto_delete": False, "internal": False}
INEQUIVALENT = {
    "type": ({"type": "fanout"}, "'type' {}: received 'fanout' but current is 'direct'"),
    "durable": ({"durable": True}, "'durable' {}: received 'true' but current is 'false'"),
    "auto-delete": ({"auto_delete": True}, "'auto_delete' {}: received 'true' but current is 'false'"),
    "internal": ({"internal": True}, "'internal' {}: received 'true' but current is 'false'"),
    "type before durable": (
        {"type": "topic", "durable": True}, "'type' {}: received 'topic' but current is 'direct'"),
    "durable before auto-delete": (
        {"durable": True, "auto_delete": True}, "'durable' {}: received 'true' but current is 'false'"),
    "auto-delete before internal": (
        {"auto_delete": True, "internal": True}, "'auto_delete' {}: received 'true' but current is 'false'"),
    "internal before arguments": (
        {"internal": True, "arguments": {"alternate-exchange": "a"}},
        "'internal' {}: received 'true' but current is 'false'"),
}


@pytest.mark.standard
@pytest.mark.parametrize("changed, text", INEQUIVALENT.values(), ids=INEQUIVALENT)
def test_an_exchange_declared_otherwise_is_refused(
        ch: Channel, vhost: str, exchange_name: str, changed: dict[str, Any], text: str) -> None:
    ch.declare_exchange(exchange_name, **DECLARED)
    ch.send_declare_exchange(exchange_name, **{**DECLARED, **changed})
    where = f"for exchange '{exchange_name}' in vhost '{vhost}'"
    ch.fails(406, f"PRECONDITION_FAILED - inequivalent arg {text.format(where)}", *EXCHANGE_DECLARE)


ALTERNATES = {
    "another": ("a", "b", "'b' but current is 'a'"),
    "none any more": ("a", None, "none but current is the value 'a' of type 'longstr'"),
    "one where none was": (None, "a", "the value 'a' of type 'longstr' but current is none"),
    "a number where none was": (None, 5, "the value '5' of type 'signedint' but current is none"),
}


@pytest.mark.parametrize("first, second, text", ALTERNATES.values(), ids=ALTERNATES)
def test_an_exchange_declared_with_another_alternate_is_refused(
        ch: Channel, vhost: str, exchange_name: str, first: Any, second: Any, text: str) -> None:
    ch.declare_exchange(exchange_name, "direct", arguments=alternate(first))
    ch.send_declare_exchange(exchange_name, "direct", arguments=alternate(second))
    ch.fails(406, f"PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange '{exchange_name}' "
             f"in vhost '{vhost}': received {text}", *EXCHANGE_DECLARE)


def alternate(name: Any) -> dict[str, Any]:
    """Arguments with this alternate exchange, or without one."""
    return {} if name is None else {"alternate-exchange": name}


@pytest.mark.parametrize("first, second", [
    ({}, {"key": 1}), ({"key": 1}, {}), ({"key": 1}, {"key": "one"}),
    ({"alternate-exchange": "a", "key": 1}, {"alternate-exchange": "a"}),
], ids=["new", "gone", "other", "beside an alternate"])
def test_other_arguments_do_not_matter(
        ch: Channel, exchange_name: str, first: dict[str, Any], second: dict[str, Any]) -> None:
    ch.declare_exchange(exchange_name, "direct", arguments=first)
    ch.declare_exchange(exchange_name, "direct", arguments=second)


NOT_STRINGS: dict[str, Typed] = {
    "bool": Boolean(True), "byte": SignedByte(1), "unsignedbyte": UnsignedByte(1), "short": SignedShort(1),
    "unsignedshort": UnsignedShort(1), "signedint": SignedInt(1), "unsignedint": UnsignedInt(1), "long": Long(1),
    "float": Float(1), "double": Double(1), "decimal": Decimal(1), "timestamp": Timestamp(1), "table": Table({}),
    "array": Array([]), "binary": ByteArray(b"x"), "void": Void()}


@pytest.mark.parametrize("name, value", NOT_STRINGS.items(), ids=NOT_STRINGS)
def test_an_alternate_that_is_no_string_is_refused_by_the_name_of_its_type(
        ch: Channel, vhost: str, exchange_name: str, name: str, value: Typed) -> None:
    ch.send_declare_exchange(exchange_name, "direct", arguments={"alternate-exchange": value})
    ch.fails(406, f"PRECONDITION_FAILED - invalid type '{name}' for arg 'alternate-exchange' "
             f"in exchange '{exchange_name}' in vhost '{vhost}'", *EXCHANGE_DECLARE)


def test_an_upper_case_long_is_called_long(ch: Channel, vhost: str, exchange_name: str) -> None:
    ch.send_declare_exchange(exchange_name, "direct", arguments={"alternate-exchange": UpperLong(1)})
    ch.fails(406, f"PRECONDITION_FAILED - invalid type 'long' for arg 'alternate-exchange' "
             f"in exchange '{exchange_name}' in vhost '{vhost}'", *EXCHANGE_DECLARE)


def test_a_refused_declare_makes_nothing(ch: Channel, exchange_name: str) -> None:
    ch.send_declare_exchange(exchange_name, "direct", arguments={"alternate-exchange": 1})
    ch.client.await_method(1, [CHANNEL_CLOSE])
    ch.send(CHANNEL_CLOSE_OK)
    assert not exists(ch.open(), exchange_name)


# Declaring passively, and without an answer


@pytest.mark.standard
@pytest.mark.parametrize("flags", [
    {"type": "direct"}, {"type": "fanout"}, {"type": ""}, {"type": "direct", "durable": True},
    {"type": "direct", "auto_delete": True}, {"type": "direct", "internal": True},
    {"type": "direct", "arguments": {"alternate-exchange": "a"}},
], ids=str)
def test_a_passive_declare_asks_only_for_existence(ch: Channel, exchange_name: str, flags: dict[str, Any]) -> None:
    ch.declare_exchange(exchange_name, "direct")
    ch.declare_exchange(exchange_name, passive=True, **flags)


def test_a_passive_declare_does_not_ask_whether_the_type_exists(ch: Channel, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "direct")
    ch.declare_exchange(exchange_name, "x-nope", passive=True)


@pytest.mark.standard
@pytest.mark.parametrize("nowait", [False, True], ids=["awaited", "nowait"])
def test_a_passive_declare_of_nothing_is_not_found(ch: Channel, texts: Texts, nowait: bool) -> None:
    ch.send_declare_exchange("nonesuch", passive=True, nowait=nowait)
    ch.fails(404, texts.no_exchange("nonesuch"), *EXCHANGE_DECLARE)


def test_the_default_exchange_cannot_be_declared_passively(ch: Channel) -> None:
    ch.send_declare_exchange("", passive=True)
    ch.fails(403, ON_DEFAULT_EXCHANGE, *EXCHANGE_DECLARE)


def test_nowait_declares_binds_and_deletes_without_an_answer(ch: Channel, names: Names) -> None:
    source, destination = names.exchange(), names.exchange()
    ch.declare_exchange(source, "fanout", nowait=True)
    ch.declare_exchange(destination, "fanout", nowait=True)
    ch.bind_exchange(destination, source, nowait=True)
    queue, _, _ = ch.declare_queue(exclusive=True)
    ch.bind_queue(queue, destination, nowait=True)
    ch.publish(source, "", b"through")
    assert ch.get(queue).body == b"through"
    ch.unbind_exchange(destination, source, nowait=True)
    ch.delete_exchange(destination, nowait=True)
    assert ch.sync() == []
    assert exists(ch, source) and not exists(ch, destination)


def test_nowait_does_not_silence_errors(ch: Channel, vhost: str, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "direct")
    ch.send_declare_exchange(exchange_name, "fanout", nowait=True)
    ch.fails(406, f"PRECONDITION_FAILED - inequivalent arg 'type' for exchange '{exchange_name}' in vhost '{vhost}': "
             "received 'fanout' but current is 'direct'", *EXCHANGE_DECLARE)


# Deleting


@pytest.mark.standard
def test_a_deleted_exchange_is_gone(ch: Channel, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "direct")
    ch.delete_exchange(exchange_name)
    assert not exists(ch, exchange_name)


@pytest.mark.parametrize("if_unused", [False, True])
def test_deleting_what_is_not_there_is_fine(ch: Channel, if_unused: bool) -> None:
    ch.delete_exchange("nonesuch", if_unused)


def test_deleting_the_default_exchange_is_refused(ch: Channel) -> None:
    ch.send_delete_exchange("")
    ch.fails(403, ON_DEFAULT_EXCHANGE, *EXCHANGE_DELETE)


@pytest.mark.standard
def test_a_name_declared_again_has_no_bindings(ch: Channel, routes: Routes, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "fanout")
    routes.queue(exchange_name, "")
    ch.delete_exchange(exchange_name)
    ch.declare_exchange(exchange_name, "direct")
    assert routes.reached(exchange_name) == set()


def in_use(exchange: str, vhost: str) -> str:
    """The refusal of delete with if-unused."""
    return f"PRECONDITION_FAILED - exchange '{exchange}' in vhost '{vhost}' in use"


def test_if_unused_refuses_the_source_of_a_queue(
        ch: Channel, routes: Routes, vhost: str, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "fanout")
    routes.queue(exchange_name, "")
    ch.send_delete_exchange(exchange_name, if_unused=True)
    ch.fails(406, in_use(exchange_name, vhost), *EXCHANGE_DELETE)
    assert exists(ch.open(), exchange_name)


def test_if_unused_refuses_the_source_of_an_exchange(ch: Channel, vhost: str, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "fanout")
    ch.bind_exchange("amq.fanout", exchange_name)
    ch.send_delete_exchange(exchange_name, if_unused=True)
    ch.fails(406, in_use(exchange_name, vhost), *EXCHANGE_DELETE)


def test_if_unused_deletes_a_destination(ch: Channel, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "fanout")
    ch.bind_exchange(exchange_name, "amq.direct", "nobody publishes this")
    ch.delete_exchange(exchange_name, if_unused=True)
    assert not exists(ch, exchange_name)


def test_if_unused_deletes_once_the_last_binding_is_gone(ch: Channel, routes: Routes, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "fanout")
    queue = routes.queue(exchange_name, "a", "b")
    ch.unbind_queue(queue, exchange_name, "a")
    ch.unbind_queue(queue, exchange_name, "b")
    ch.delete_exchange(exchange_name, if_unused=True)


# Auto-delete


@pytest.fixture
def fleeting(ch: Channel, exchange_name: str) -> str:
    """An auto-delete exchange."""
    ch.declare_exchange(exchange_name, "direct", auto_delete=True)
    return exchange_name


def test_an_auto_delete_exchange_never_bound_stays(client: Client, ch: Channel, fleeting: str, broker: Broker) -> None:
    ch.publish(fleeting, "key")
    ch.unbind_queue("nonesuch", fleeting, "key")
    client.close()
    assert exists(broker.channel(), fleeting)


def test_an_auto_delete_exchange_goes_when_its_queue_is_unbound(ch: Channel, routes: Routes, fleeting: str) -> None:
    queue = routes.queue(fleeting, "key")
    ch.unbind_queue(queue, fleeting, "key")
    assert not exists(ch, fleeting)


def test_an_auto_delete_exchange_goes_when_its_queue_is_deleted(ch: Channel, routes: Routes, fleeting: str) -> None:
    ch.delete_queue(routes.queue(fleeting, "key", "another"))
    assert not exists(ch, fleeting)


def test_an_auto_delete_exchange_goes_with_an_exclusive_queues_connection(
        ch: Channel, fleeting: str, broker: Broker) -> None:
    owner = broker.client()
    channel = owner.channel()
    queue, _, _ = channel.declare_queue(exclusive=True)
    channel.bind_queue(queue, fleeting, "key")
    owner.close()
    assert not exists(ch, fleeting)


def test_an_auto_delete_exchange_goes_with_an_auto_delete_queues_consumer(
        ch: Channel, fleeting: str, queue_name: str) -> None:
    ch.declare_queue(queue_name, auto_delete=True)
    ch.bind_queue(queue_name, fleeting, "key")
    ch.cancel(ch.consume(queue_name))
    assert not exists(ch, fleeting)


def test_an_auto_delete_exchange_goes_when_its_exchange_is_unbound(ch: Channel, fleeting: str) -> None:
    ch.bind_exchange("amq.fanout", fleeting, "key")
    ch.unbind_exchange("amq.fanout", fleeting, "key")
    assert not exists(ch, fleeting)


def test_an_auto_delete_exchange_goes_when_its_exchange_is_deleted(ch: Channel, fleeting: str, names: Names) -> None:
    destination = names.exchange()
    ch.declare_exchange(destination, "fanout")
    ch.bind_exchange(destination, fleeting, "key")
    ch.delete_exchange(destination)
    assert not exists(ch, fleeting)


def test_a_chain_of_auto_delete_exchanges_goes_from_its_end(
        ch: Channel, routes: Routes, fleeting: str, names: Names) -> None:
    middle = names.exchange()
    ch.declare_exchange(middle, "fanout", auto_delete=True)
    ch.bind_exchange(middle, fleeting, "key")
    ch.delete_queue(routes.queue(middle, ""))
    assert not exists(ch, middle)
    assert not exists(ch, fleeting)


def test_an_auto_delete_exchange_stays_until_its_last_binding_goes(
        ch: Channel, routes: Routes, fleeting: str) -> None:
    one, other = routes.queue(fleeting, "a", "b"), routes.queue(fleeting, "a")
    ch.unbind_queue(one, fleeting, "a")
    ch.delete_queue(other)
    assert exists(ch, fleeting)
    ch.unbind_queue(one, fleeting, "b")
    assert not exists(ch, fleeting)


def test_an_auto_delete_exchange_stays_when_it_is_no_longer_a_destination(ch: Channel, fleeting: str) -> None:
    ch.bind_exchange(fleeting, "amq.direct", "nobody publishes this")
    ch.unbind_exchange(fleeting, "amq.direct", "nobody publishes this")
    assert exists(ch, fleeting)


def test_an_exchange_that_is_not_auto_delete_stays(ch: Channel, routes: Routes, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "direct")
    ch.delete_queue(routes.queue(exchange_name, "key"))
    assert exists(ch, exchange_name)


# Internal


@pytest.mark.parametrize("mandatory", [False, True])
def test_nobody_may_publish_to_an_internal_exchange(
        ch: Channel, texts: Texts, exchange_name: str, mandatory: bool) -> None:
    ch.declare_exchange(exchange_name, "fanout", internal=True)
    ch.publish(exchange_name, "", mandatory=mandatory)
    ch.fails(403, texts.internal(exchange_name), *BASIC_PUBLISH)


def test_an_internal_exchange_routes_what_another_sends_it(ch: Channel, routes: Routes, names: Names) -> None:
    public, internal = names.exchange(), names.exchange()
    ch.declare_exchange(public, "fanout")
    ch.declare_exchange(internal, "fanout", internal=True)
    ch.bind_exchange(internal, public)
    queue = routes.queue(internal, "")
    assert routes.reached(public) == {queue}


def test_an_internal_exchange_may_be_an_alternate(ch: Channel, routes: Routes, names: Names) -> None:
    public, internal = names.exchange(), names.exchange()
    ch.declare_exchange(public, "direct", arguments={"alternate-exchange": internal})
    ch.declare_exchange(internal, "fanout", internal=True)
    queue = routes.queue(internal, "")
    assert routes.reached(public) == {queue}


# Binding


@pytest.mark.parametrize("destination, source, missing", [
    ("nonesuch", "amq.direct", "nonesuch"), ("amq.direct", "nonesuch", "nonesuch"), ("first", "second", "second")])
def test_binding_exchanges_that_are_not_there_is_refused_the_source_first(
        ch: Channel, texts: Texts, destination: str, source: str, missing: str) -> None:
    ch.send_bind_exchange(destination, source)
    ch.fails(404, texts.no_exchange(missing), *EXCHANGE_BIND)


def test_binding_a_queue_to_an_exchange_that_is_not_there_is_refused(ch: Channel, texts: Texts) -> None:
    queue, _, _ = ch.declare_queue(exclusive=True)
    ch.send_bind_queue(queue, "nonesuch")
    ch.fails(404, texts.no_exchange("nonesuch"), *QUEUE_BIND)


@pytest.mark.parametrize("destination, source", [
    ("nonesuch", "amq.direct"), ("amq.direct", "nonesuch"), ("first", "second"), ("amq.topic", "amq.direct")])
def test_unbinding_exchanges_that_are_not_bound_is_fine(ch: Channel, destination: str, source: str) -> None:
    ch.unbind_exchange(destination, source, "never bound")


def test_binding_twice_is_binding_once(ch: Channel, routes: Routes, names: Names) -> None:
    source, destination = names.exchange(), names.exchange()
    ch.declare_exchange(source, "fanout")
    ch.declare_exchange(destination, "fanout")
    ch.bind_exchange(destination, source, "key")
    ch.bind_exchange(destination, source, "key")
    queue = routes.queue(destination, "")
    assert routes.reached(source) == {queue}
    ch.unbind_exchange(destination, source, "key")
    assert routes.reached(source) == set()


def test_a_binding_is_found_by_its_key_and_arguments(ch: Channel, routes: Routes, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "fanout")
    queue = routes.queue(exchange_name, "key", arguments={"a": 1})
    ch.unbind_queue(queue, exchange_name, "other", {"a": 1})
    ch.unbind_queue(queue, exchange_name, "key", {"a": 2})
    ch.unbind_queue(queue, exchange_name, "key", {})
    assert routes.reached(exchange_name) == {queue}
    ch.unbind_queue(queue, exchange_name, "key", {"a": 1})
    assert routes.reached(exchange_name) == set()


def test_the_order_of_a_bindings_arguments_does_not_matter(
        ch: Channel, routes: Routes, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "fanout")
    queue = routes.queue(exchange_name, "", arguments=[("a", 1), ("b", 2)])
    ch.unbind_queue(queue, exchange_name, "", [("b", 2), ("a", 1)])
    assert routes.reached(exchange_name) == set()
