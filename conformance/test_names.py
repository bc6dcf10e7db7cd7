"""§9 Names: which are valid, the default exchange, and the predeclared exchanges of every vhost."""
from __future__ import annotations

import re
from typing import Callable

import pytest

from conformance.channel import Channel
from conformance.client import Client
from conformance.conftest import Broker, Names
from conformance.methods import (
    BASIC_PUBLISH, EXCHANGE_BIND, EXCHANGE_DECLARE, EXCHANGE_DELETE, EXCHANGE_UNBIND, QUEUE_BIND, QUEUE_DECLARE,
    QUEUE_UNBIND)
from conformance.routes import Routes
from conformance.texts import ON_DEFAULT_EXCHANGE, Texts

PREDECLARED = {
    "amq.direct": "direct", "amq.fanout": "fanout", "amq.topic": "topic", "amq.headers": "headers",
    "amq.match": "headers", "amq.rabbitmq.trace": "topic"}
INTERNAL = {"amq.rabbitmq.trace"}
every_predeclared = pytest.mark.parametrize("name", PREDECLARED)

GENERATED = r"[A-Za-z0-9_-]{22}"


# Predeclared exchanges


@every_predeclared
def test_it_is_there(ch: Channel, name: str) -> None:
    ch.declare_exchange(name, passive=True)


@every_predeclared
def test_it_may_be_declared_as_it_is(ch: Channel, name: str) -> None:
    ch.declare_exchange(name, PREDECLARED[name], durable=True, internal=name in INTERNAL)


@every_predeclared
def test_it_is_durable(ch: Channel, vhost: str, name: str) -> None:
    ch.send_declare_exchange(name, PREDECLARED[name], durable=False, internal=name in INTERNAL)
    ch.fails(406, f"PRECONDITION_FAILED - inequivalent arg 'durable' for exchange '{name}' in vhost '{vhost}': "
             "received 'false' but current is 'true'", *EXCHANGE_DECLARE)


@every_predeclared
def test_it_has_its_type(ch: Channel, vhost: str, name: str) -> None:
    other = "direct" if PREDECLARED[name] == "fanout" else "fanout"
    ch.send_declare_exchange(name, other, durable=True)
    ch.fails(406, f"PRECONDITION_FAILED - inequivalent arg 'type' for exchange '{name}' in vhost '{vhost}': "
             f"received '{other}' but current is '{PREDECLARED[name]}'", *EXCHANGE_DECLARE)


@pytest.mark.parametrize("if_unused", [False, True])
@pytest.mark.parametrize("name", [*PREDECLARED, "amq.nonesuch"])
def test_it_cannot_be_deleted(ch: Channel, vhost: str, name: str, if_unused: bool) -> None:
    """The prefix decides, whether or not the exchange is there."""
    ch.send_delete_exchange(name, if_unused)
    text = f"ACCESS_REFUSED - deletion of system exchange '{name}' in vhost '{vhost}' not allowed"
    ch.fails(403, text, *EXCHANGE_DELETE)


@pytest.mark.parametrize("name", sorted(set(PREDECLARED) - INTERNAL))
def test_it_can_be_published_to(ch: Channel, name: str) -> None:
    ch.publish(name, "nobody.bound.this", mandatory=True)
    assert ch.returns(1)[0].exchange == name


def test_the_trace_exchange_is_internal(ch: Channel, texts: Texts) -> None:
    ch.publish("amq.rabbitmq.trace", "key")
    ch.fails(403, texts.internal("amq.rabbitmq.trace"), *BASIC_PUBLISH)


# The default exchange


@pytest.mark.standard
def test_a_queue_is_reached_by_its_name(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", queue_name, b"body")
    got = ch.get(queue_name)
    assert (got.exchange, got.routing_key, got.body) == ("", queue_name, b"body")


@pytest.mark.standard
def test_a_queue_deleted_is_reached_no_more(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.delete_queue(queue_name)
    ch.publish("", queue_name, mandatory=True)
    returned, = ch.returns(1)
    assert (returned.code, returned.exchange, returned.routing_key) == (312, "", queue_name)


@pytest.mark.standard
def test_the_whole_name_counts(ch: Channel, routes: Routes, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    for key in (queue_name[:-1], queue_name + "x", "#", "", queue_name.upper()):
        ch.publish("", key, mandatory=True)
        assert ch.returns(1)[0].routing_key == key
    assert ch.get(queue_name) is None


@pytest.mark.standard
def test_an_exchange_is_not_reached_by_its_name(ch: Channel, routes: Routes, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "fanout")
    routes.queue(exchange_name, "")
    assert routes.reached("", exchange_name) == set()


REFUSED: dict[str, tuple[Callable[[Channel], None], tuple[int, int]]] = {
    "declare": (lambda ch: ch.send_declare_exchange("", "direct", durable=True), EXCHANGE_DECLARE),
    "declare passively": (lambda ch: ch.send_declare_exchange("", passive=True), EXCHANGE_DECLARE),
    "delete": (lambda ch: ch.send_delete_exchange(""), EXCHANGE_DELETE),
    "bind as source": (lambda ch: ch.send_bind_exchange("amq.direct", "", "key"), EXCHANGE_BIND),
    "bind as destination": (lambda ch: ch.send_bind_exchange("", "amq.direct", "key"), EXCHANGE_BIND),
    "bind to itself": (lambda ch: ch.send_bind_exchange("", "", "key"), EXCHANGE_BIND),
    "unbind as source": (lambda ch: ch.send_unbind_exchange("amq.direct", "", "key"), EXCHANGE_UNBIND),
    "unbind as destination": (lambda ch: ch.send_unbind_exchange("", "amq.direct", "key"), EXCHANGE_UNBIND),
    "bind a queue": (lambda ch: ch.send_bind_queue("", "", "key"), QUEUE_BIND),
    "unbind a queue": (lambda ch: ch.send_unbind_queue("", "", "key"), QUEUE_UNBIND),
}


@pytest.mark.parametrize("send, ids", REFUSED.values(), ids=REFUSED)
def test_nobody_may(ch: Channel, send: Callable[[Channel], None], ids: tuple[int, int]) -> None:
    """What the default exchange refuses; the queue is the last one declared."""
    ch.declare_queue(exclusive=True)
    send(ch)
    ch.fails(403, ON_DEFAULT_EXCHANGE, *ids)


def test_its_implicit_binding_cannot_be_removed(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.send_unbind_queue(queue_name, "", queue_name)
    ch.fails(403, ON_DEFAULT_EXCHANGE, *QUEUE_UNBIND)
    ch.open()
    ch.publish("", queue_name, b"still bound")
    assert ch.get(queue_name).body == b"still bound"


# The reserved prefix


@pytest.mark.standard
@pytest.mark.parametrize("name", ["amq.", "amq.mine", "amq.gen-mine", "amq.direct.mine", "am\r\nq.mine"])
def test_an_exchange_cannot_be_created_under_the_prefix(ch: Channel, name: str) -> None:
    ch.send_declare_exchange(name, "direct")
    shown = name.replace("\r\n", "")
    ch.fails(403, f"ACCESS_REFUSED - exchange name '{shown}' contains reserved prefix 'amq.*'", *EXCHANGE_DECLARE)


def test_the_prefix_is_refused_before_bad_arguments(ch: Channel) -> None:
    ch.send_declare_exchange("amq.mine", "direct", arguments={"alternate-exchange": 1})
    ch.fails(403, "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'", *EXCHANGE_DECLARE)


@pytest.mark.standard
@pytest.mark.parametrize("name", ["amq.", "amq.mine", "amq.gen-mine"])
def test_a_queue_cannot_be_declared_under_the_prefix(ch: Channel, name: str) -> None:
    ch.send_declare_queue(name)
    ch.fails(403, f"ACCESS_REFUSED - queue name '{name}' contains reserved prefix 'amq.*'", *QUEUE_DECLARE)


def test_not_even_a_server_named_queue_may_be_declared_again(ch: Channel) -> None:
    name, _, _ = ch.declare_queue(exclusive=True)
    ch.send_declare_queue(name, exclusive=True)
    ch.fails(403, f"ACCESS_REFUSED - queue name '{name}' contains reserved prefix 'amq.*'", *QUEUE_DECLARE)


def test_a_server_named_queue_may_be_used_and_declared_passively(ch: Channel) -> None:
    name, _, _ = ch.declare_queue(exclusive=True)
    assert ch.declare_queue(name, passive=True) == (name, 0, 0)
    ch.bind_queue(name, "amq.direct", name)
    ch.publish("amq.direct", name, b"body")
    assert ch.get(name, no_ack=True).body == b"body"
    assert ch.delete_queue(name) == 0


@pytest.mark.standard
@pytest.mark.parametrize("prefix", ["amq", "AMQ.", "Amq.", "amq-", " amq."])
def test_other_prefixes_are_free(ch: Channel, names: Names, prefix: str) -> None:
    queue, exchange = names.queue(), names.exchange()
    names.queues[-1], names.exchanges[-1] = prefix + queue, prefix + exchange
    ch.declare_queue(prefix + queue)
    ch.declare_exchange(prefix + exchange, "direct")


# Names the broker makes


def test_a_queue_without_a_name_gets_one(ch: Channel) -> None:
    assert re.fullmatch(rf"amq\.gen-{GENERATED}", ch.declare_queue(exclusive=True)[0])


def test_a_consumer_without_a_tag_gets_one(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    assert re.fullmatch(rf"amq\.ctag-{GENERATED}", ch.consume(queue_name))


@pytest.mark.standard
def test_no_two_names_are_the_same(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    queues = {ch.declare_queue(exclusive=True)[0] for _ in range(50)}
    tags = {ch.consume(queue_name) for _ in range(50)}
    assert len(queues) == len(tags) == 50


# Names that look alike


@pytest.mark.standard
def test_names_differ_in_case(ch: Channel, names: Names) -> None:
    lower = names.queue()
    upper = names.queue(lower.upper())
    ch.declare_queue(lower)
    ch.declare_queue(upper)
    ch.publish("", upper, b"upper")
    assert ch.get(lower) is None
    assert ch.get(upper).body == b"upper"


@pytest.mark.standard
def test_exchanges_differ_in_case(ch: Channel, names: Names) -> None:
    lower = names.exchange()
    upper = names.exchange(lower.upper())
    ch.declare_exchange(lower, "direct")
    ch.declare_exchange(upper, "fanout")


@pytest.mark.standard
def test_a_queue_and_an_exchange_may_have_one_name(ch: Channel, names: Names) -> None:
    name = names.queue(names.exchange())
    ch.declare_exchange(name, "fanout")
    ch.declare_queue(name)
    ch.bind_queue(name, name)
    ch.publish(name, "", b"through")
    assert ch.get(name, no_ack=True).body == b"through"
    ch.delete_exchange(name)
    assert ch.declare_queue(name, passive=True)[0] == name


def test_letters_that_look_the_same_are_not(ch: Channel, names: Names) -> None:
    """Octets count: a composed and a decomposed letter make two names."""
    composed, decomposed = names.queue("conformance.\u00e9"), names.queue("conformance.e\u0301")
    ch.declare_queue(composed)
    ch.declare_queue(decomposed)
    ch.publish("", composed, b"composed")
    assert ch.get(decomposed) is None
    assert ch.get(composed, no_ack=True).body == b"composed"


@pytest.mark.parametrize("place", ["queue", "exchange"])
def test_bindings_take_line_breaks_out_of_names(ch: Channel, names: Names, place: str) -> None:
    """Of the exchange and of what is bound to it, as declarations do. Keys keep them."""
    exchange, queue, bound = names.exchange(), names.queue(), names.exchange()
    for name in (exchange, bound):
        ch.declare_exchange(name, "direct")
    ch.declare_queue(queue)
    broken = {name: f"{name[:3]}\r{name[3:]}\n" for name in (exchange, queue, bound)}
    if place == "queue":
        ch.bind_queue(broken[queue], broken[exchange], "k\r\n")
    else:
        ch.bind_exchange(broken[bound], broken[exchange], "k\r\n")
        ch.bind_queue(queue, bound, "k\r\n")
    ch.publish(exchange, "k\r\n", b"0", mandatory=True)
    ch.publish(exchange, "k", b"1", mandatory=True)
    assert ch.returns(1)[0].body == b"1"
    assert ch.get(queue, no_ack=True).body == b"0"
    if place == "queue":
        ch.unbind_queue(broken[queue], broken[exchange], "k\r\n")
    else:
        ch.unbind_exchange(broken[bound], broken[exchange], "k\r\n")
    ch.publish(exchange, "k\r\n", b"2", mandatory=True)
    assert ch.returns(1)[0].body == b"2"


def test_a_missing_exchange_is_told_without_line_breaks(ch: Channel, client: Client, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.send_bind_queue(queue_name, "none\r\nsuch")
    ch.fails(404, f"NOT_FOUND - no exchange 'nonesuch' in vhost '{client.url.vhost}'", *QUEUE_BIND)


def test_a_deletion_takes_line_breaks_out_of_the_name(ch: Channel, broker: Broker, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", queue_name)
    assert ch.delete_queue(f"{queue_name[:3]}\r\n{queue_name[3:]}") == 1
    assert not broker.has_queue(queue_name)


SURROGATE = b"a\xed\xa0\x80"


@pytest.mark.needs("names-are-utf-8")
@pytest.mark.parametrize("send", [
    lambda ch: ch.send_declare_queue(SURROGATE), lambda ch: ch.send_declare_exchange(SURROGATE),
    lambda ch: ch.publish("", SURROGATE), lambda ch: ch.publish("amq.direct", b"\xff")],
    ids=["queue", "exchange", "key", "key of odd octets"])
def test_a_name_that_is_not_utf_8_ends_the_connection(
        client: Client, ch: Channel, send: Callable[[Channel], None]) -> None:
    send(ch)
    client.expect_connection_close(501, "FRAME_ERROR - Malformed UTF-8 in shortstr")


@pytest.mark.needs("names-of-any-octets")
def test_lone_surrogates_are_taken_in_names_and_anything_in_keys(ch: Channel, names: Names) -> None:
    queue = names.queue() + SURROGATE.decode("utf-8", "surrogateescape")
    ch.declare_queue(queue)
    ch.publish("", queue, b"0")
    assert ch.get(queue, no_ack=True).body == b"0"
    ch.delete_queue(queue)
    ch.publish("", b"\xff", b"1", mandatory=True)
    assert ch.returns(1)[0].body == b"1"
