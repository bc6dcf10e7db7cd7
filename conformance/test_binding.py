"""§10 queue.bind and queue.unbind: which bindings are equal, what removes them, what is refused.

Matching is in §12.
"""
from __future__ import annotations

from typing import Any

import pytest

from conformance.channel import Channel
from conformance.conftest import Broker
from conformance.fields import Long, SignedInt
from conformance.methods import QUEUE_BIND, QUEUE_UNBIND
from conformance.routes import Routes
from conformance.texts import ON_DEFAULT_EXCHANGE, Texts


@pytest.fixture
def queue(ch: Channel, routes: Routes) -> str:
    """A queue on this connection, watched by `routes`, without bindings."""
    return routes.queue("")


@pytest.fixture
def direct(ch: Channel, exchange_name: str) -> str:
    """A direct exchange."""
    ch.declare_exchange(exchange_name, "direct")
    return exchange_name


# bind


@pytest.mark.parametrize("exchange", ["amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.rabbitmq.trace"])
def test_a_queue_may_be_bound_to(ch: Channel, queue: str, exchange: str) -> None:
    """Internal exchanges too."""
    ch.bind_queue(queue, exchange, "key")


@pytest.mark.standard
def test_a_bound_queue_gets_what_its_binding_matches(ch: Channel, routes: Routes, queue: str, direct: str) -> None:
    ch.bind_queue(queue, direct, "key")
    assert routes.reached(direct, "key") == {queue}
    assert routes.reached(direct, "other") == set()


@pytest.mark.standard
def test_a_binding_made_twice_is_one(ch: Channel, routes: Routes, queue: str, direct: str) -> None:
    ch.bind_queue(queue, direct, "key")
    ch.bind_queue(queue, direct, "key")
    assert routes.reached(direct, "key") == {queue}
    ch.unbind_queue(queue, direct, "key")
    assert routes.reached(direct, "key") == set()


@pytest.mark.standard
def test_bindings_that_all_match_bring_one_copy(ch: Channel, routes: Routes, queue: str) -> None:
    for key in ("a.b", "a.*", "#", "*.b"):
        ch.bind_queue(queue, "amq.topic", f"{queue}.{key}")
    assert routes.reached("amq.topic", f"{queue}.a.b") == {queue}


@pytest.mark.standard
@pytest.mark.parametrize("first, second", [
    ("key", "KEY"), ("key", ""), ("key", "key "), ("a.b", "a.*")])
def test_bindings_with_other_keys_are_others(
        ch: Channel, routes: Routes, queue: str, direct: str, first: str, second: str) -> None:
    ch.bind_queue(queue, direct, first)
    ch.bind_queue(queue, direct, second)
    ch.unbind_queue(queue, direct, second)
    assert routes.reached(direct, first) == {queue}
    assert routes.reached(direct, second) == set()


@pytest.mark.parametrize("first, second", [
    ({}, {"a": 1}), ({"a": 1}, {"a": 2}), ({"a": 1}, {"b": 1}), ({"a": 1}, {"a": 1, "b": 1}), ({"a": "1"}, {"a": 1}),
    ({"a": 1}, {"a": 1.0}), ({"a": 1}, {"a": True}), ({"a": None}, {}), ({"a": SignedInt(1)}, {"a": Long(1)}),
], ids=str)
def test_bindings_with_other_arguments_are_others(
        ch: Channel, routes: Routes, queue: str, direct: str, first: dict[str, Any], second: dict[str, Any]) -> None:
    """Values are the same when type and value are; even the width of an integer counts, unlike in a queue's."""
    ch.bind_queue(queue, direct, "key", first)
    ch.bind_queue(queue, direct, "key", second)
    ch.unbind_queue(queue, direct, "key", second)
    assert routes.reached(direct, "key") == {queue}
    ch.unbind_queue(queue, direct, "key", first)
    assert routes.reached(direct, "key") == set()


def test_arguments_in_another_order_make_the_same_binding(
        ch: Channel, routes: Routes, queue: str, direct: str) -> None:
    ch.bind_queue(queue, direct, "key", {"a": 1, "b": 2})
    ch.unbind_queue(queue, direct, "key", {"b": 2, "a": 1})
    assert routes.reached(direct, "key") == set()


@pytest.mark.parametrize("arguments", [{}, {"x-match": "nonesuch"}, {"x-whatever": [1, {"a": None}]}], ids=str)
def test_arguments_of_a_binding_may_be_anything_where_they_do_not_route(
        ch: Channel, routes: Routes, queue: str, direct: str, arguments: dict[str, Any]) -> None:
    ch.bind_queue(queue, direct, "key", arguments)
    assert routes.reached(direct, "key") == {queue}


@pytest.mark.standard
def test_binding_without_waiting_is_not_answered(ch: Channel, routes: Routes, queue: str, direct: str) -> None:
    ch.bind_queue(queue, direct, "key", nowait=True)
    assert ch.sync() == []
    assert routes.reached(direct, "key") == {queue}


@pytest.mark.standard
def test_a_queue_may_be_bound_by_any_connection(ch: Channel, broker: Broker, queue_name: str, direct: str) -> None:
    ch.declare_queue(queue_name)
    broker.channel().bind_queue(queue_name, direct, "key")
    ch.publish(direct, "key", b"routed")
    assert ch.get(queue_name).body == b"routed"


# The last declared queue


def test_without_queue_and_key_the_last_declared_queue_is_bound_by_its_name(
        ch: Channel, routes: Routes, queue: str, direct: str) -> None:
    ch.bind_queue("", direct, "")
    assert routes.reached(direct, queue) == {queue}
    assert routes.reached(direct, "") == set()


def test_without_queue_and_key_the_last_declared_queue_is_unbound_by_its_name(
        ch: Channel, routes: Routes, queue: str, direct: str) -> None:
    ch.bind_queue(queue, direct, queue)
    ch.bind_queue(queue, direct, "x")
    ch.unbind_queue("", direct, "")
    assert routes.reached(direct, queue) == set()


def test_without_queue_a_key_stays_as_it_is(ch: Channel, routes: Routes, queue: str, direct: str) -> None:
    ch.bind_queue("", direct, "key")
    assert routes.reached(direct, "key") == {queue}
    assert routes.reached(direct, queue) == set()


def test_with_a_queue_an_empty_key_stays_empty(ch: Channel, routes: Routes, queue: str, direct: str) -> None:
    ch.bind_queue(queue, direct, "")
    assert routes.reached(direct, "") == {queue}
    assert routes.reached(direct, queue) == set()


# What is refused


@pytest.mark.standard
@pytest.mark.parametrize("nowait", [False, True])
def test_binding_a_queue_that_is_not_there_is_not_found(ch: Channel, texts: Texts, nowait: bool) -> None:
    ch.send_bind_queue("nonesuch", "amq.direct", "key", nowait=nowait)
    ch.fails(404, texts.no_queue("nonesuch"), *QUEUE_BIND)


@pytest.mark.standard
@pytest.mark.parametrize("nowait", [False, True])
def test_binding_to_an_exchange_that_is_not_there_is_not_found(
        ch: Channel, texts: Texts, queue: str, nowait: bool) -> None:
    ch.send_bind_queue(queue, "nonesuch", "key", nowait=nowait)
    ch.fails(404, texts.no_exchange("nonesuch"), *QUEUE_BIND)


def test_where_neither_is_there_the_exchange_is_named(ch: Channel, texts: Texts) -> None:
    ch.send_bind_queue("nonesuch", "nonesuch", "key")
    ch.fails(404, texts.no_exchange("nonesuch"), *QUEUE_BIND)


@pytest.mark.parametrize("name", ["there", "nonesuch"])
def test_binding_to_the_default_exchange_is_refused_before_anything_else(ch: Channel, queue: str, name: str) -> None:
    ch.send_bind_queue(queue if name == "there" else name, "", "key")
    ch.fails(403, ON_DEFAULT_EXCHANGE, *QUEUE_BIND)


@pytest.mark.parametrize("name", ["there", "nonesuch"])
def test_unbinding_from_the_default_exchange_is_refused(ch: Channel, queue: str, name: str) -> None:
    ch.send_unbind_queue(queue if name == "there" else name, "", "key")
    ch.fails(403, ON_DEFAULT_EXCHANGE, *QUEUE_UNBIND)


@pytest.mark.parametrize("match, text", [
    ("nonesuch", 'Invalid x-match field value <<"nonesuch">>; expected all, any, all-with-x, or any-with-x'),
    ("", "Invalid x-match field value <<>>; expected all, any, all-with-x, or any-with-x"),
    (1, "Invalid x-match field type signedint (value 1); expected longstr"),
    (True, "Invalid x-match field type bool (value true); expected longstr"),
])
def test_a_headers_exchange_wants_to_know_how_to_match(ch: Channel, queue: str, match: Any, text: str) -> None:
    ch.send_bind_queue(queue, "amq.headers", "", {"x-match": match})
    ch.fails(406, f"PRECONDITION_FAILED - {text}", *QUEUE_BIND)


# unbind


@pytest.mark.standard
def test_unbinding_ends_what_the_binding_brought(ch: Channel, routes: Routes, queue: str, direct: str) -> None:
    ch.bind_queue(queue, direct, "key")
    ch.unbind_queue(queue, direct, "key")
    assert routes.reached(direct, "key") == set()


@pytest.mark.standard
def test_unbinding_leaves_the_messages_in_the_queue(ch: Channel, queue: str, direct: str) -> None:
    ch.bind_queue(queue, direct, "key")
    ch.publish(direct, "key", b"kept")
    ch.unbind_queue(queue, direct, "key")
    assert ch.get(queue).body == b"kept"


@pytest.mark.standard
def test_unbinding_leaves_other_queues_bound(ch: Channel, routes: Routes, direct: str) -> None:
    first, second = routes.queue(direct, "key"), routes.queue(direct, "key")
    ch.unbind_queue(first, direct, "key")
    assert routes.reached(direct, "key") == {second}


@pytest.mark.parametrize("queue, exchange", [
    ("there", "amq.direct"), ("nonesuch", "amq.direct"), ("there", "nonesuch"), ("nonesuch", "nonesuch")])
def test_unbinding_what_is_not_bound_is_fine(ch: Channel, queue_name: str, queue: str, exchange: str) -> None:
    """Also where the queue or the exchange is not there."""
    ch.declare_queue(queue_name)
    ch.unbind_queue(queue_name if queue == "there" else queue, exchange, "key")


def test_unbinding_wants_the_same_arguments(ch: Channel, routes: Routes, queue: str, direct: str) -> None:
    ch.bind_queue(queue, direct, "key", {"a": 1})
    for arguments in ({}, {"a": 2}, {"a": 1, "b": 1}):
        ch.unbind_queue(queue, direct, "key", arguments)
    assert routes.reached(direct, "key") == {queue}


# What ends with an end of the binding


@pytest.mark.standard
def test_bindings_go_with_their_queue(ch: Channel, broker: Broker, queue_name: str, direct: str) -> None:
    ch.declare_queue(queue_name)
    ch.bind_queue(queue_name, direct, "key")
    ch.delete_queue(queue_name)
    ch.declare_queue(queue_name)
    ch.publish(direct, "key", mandatory=True)
    assert ch.returns(1)[0].routing_key == "key"


@pytest.mark.standard
def test_bindings_go_with_their_exchange(ch: Channel, routes: Routes, queue: str, direct: str) -> None:
    ch.bind_queue(queue, direct, "key")
    ch.delete_exchange(direct)
    ch.declare_exchange(direct, "direct")
    assert routes.reached(direct, "key") == set()


@pytest.mark.standard
def test_a_queue_stays_when_its_exchange_is_deleted(ch: Channel, broker: Broker, queue_name: str, direct: str) -> None:
    ch.declare_queue(queue_name)
    ch.bind_queue(queue_name, direct, "key")
    ch.publish(direct, "key", b"kept")
    ch.delete_exchange(direct)
    assert ch.get(queue_name).body == b"kept"
