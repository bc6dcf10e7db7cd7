"""§12 Routing: direct and fanout exchanges, and several bindings at once."""
from __future__ import annotations

import pytest

from conformance.channel import Channel
from conformance.conftest import Names
from conformance.routes import Routes

KEYS = ["", "a", "a.b", "#", "*", "A", " ", "key with spaces", "ключ", "k" * 255, "\x00"]


@pytest.fixture
def direct(ch: Channel, exchange_name: str) -> str:
    """A direct exchange."""
    ch.declare_exchange(exchange_name, "direct")
    return exchange_name


@pytest.fixture
def fanout(ch: Channel, exchange_name: str) -> str:
    """A fanout exchange."""
    ch.declare_exchange(exchange_name, "fanout")
    return exchange_name


@pytest.mark.standard
@pytest.mark.parametrize("key", KEYS)
def test_direct_routes_the_key_it_was_bound_with(routes: Routes, direct: str, key: str) -> None:
    queue = routes.queue(direct, key)
    assert routes.reached(direct, key) == {queue}


@pytest.mark.standard
@pytest.mark.parametrize("binding_key, key", [
    ("a", "b"), ("a", "A"), ("a", "a "), ("a", ""), ("", "a"), ("a", "a.b"), ("#", "a"), ("*", "a"), ("a", "#"),
    ("\u00e9", "e\u0301"), ("a", "a\x00")])
def test_direct_does_not_route_another_key(routes: Routes, direct: str, binding_key: str, key: str) -> None:
    routes.queue(direct, binding_key)
    assert routes.reached(direct, key) == set()


@pytest.mark.standard
def test_direct_routes_to_every_queue_bound_with_the_key(routes: Routes, direct: str) -> None:
    both = {routes.queue(direct, "a"), routes.queue(direct, "a", "b")}
    routes.queue(direct, "b")
    assert routes.reached(direct, "a") == both


def test_direct_ignores_headers_and_arguments(routes: Routes, direct: str) -> None:
    queue = routes.queue(direct, "a", arguments={"x-match": "all", "colour": "red"})
    assert routes.reached(direct, "a", {"colour": "blue"}) == {queue}


@pytest.mark.standard
@pytest.mark.parametrize("key", KEYS)
def test_fanout_routes_every_key(routes: Routes, fanout: str, key: str) -> None:
    queues = {routes.queue(fanout, ""), routes.queue(fanout, "a"), routes.queue(fanout, "#")}
    assert routes.reached(fanout, key) == queues


@pytest.mark.standard
def test_a_fanout_without_bindings_routes_nothing(routes: Routes, fanout: str) -> None:
    assert routes.reached(fanout, "a") == set()


@pytest.mark.standard
def test_a_queue_gets_one_copy_however_many_bindings_match(routes: Routes, fanout: str) -> None:
    queue = routes.queue(fanout, "a", "b", "c")
    assert routes.reached(fanout) == {queue}


@pytest.mark.standard
def test_a_queue_is_reached_until_its_last_binding_goes(ch: Channel, routes: Routes, fanout: str) -> None:
    queue = routes.queue(fanout, "a", "b")
    ch.unbind_queue(queue, fanout, "a")
    assert routes.reached(fanout) == {queue}
    ch.unbind_queue(queue, fanout, "b")
    assert routes.reached(fanout) == set()


def test_a_binding_made_twice_is_removed_once(ch: Channel, routes: Routes, direct: str) -> None:
    queue = routes.queue(direct, "a", "a")
    assert routes.reached(direct, "a") == {queue}
    ch.unbind_queue(queue, direct, "a")
    assert routes.reached(direct, "a") == set()


@pytest.mark.standard
def test_a_deleted_queues_bindings_go_with_it(ch: Channel, routes: Routes, fanout: str, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.bind_queue(queue_name, fanout)
    ch.delete_queue(queue_name)
    ch.declare_queue(queue_name)
    assert routes.reached(fanout) == set()


@pytest.mark.standard
def test_each_queue_gets_the_message_unaltered(ch: Channel, fanout: str, names: Names) -> None:
    queues = [names.queue() for _ in range(3)]
    for queue in queues:
        ch.declare_queue(queue)
        ch.bind_queue(queue, fanout)
    ch.publish(fanout, "key", b"body")
    for queue in queues:
        got = ch.get(queue, no_ack=True)
        assert (got.exchange, got.routing_key, got.body, got.redelivered) == (fanout, "key", b"body", False)


def test_many_bindings_are_told_apart(routes: Routes, ch: Channel, direct: str) -> None:
    queue = routes.queue(direct, *(f"key.{number}" for number in range(300)))
    assert routes.reached(direct, "key.0") == routes.reached(direct, "key.299") == {queue}
    assert routes.reached(direct, "key.300") == set()
