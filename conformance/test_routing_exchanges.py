"""§12 Routing: bindings between exchanges; each exchange is visited once."""
from __future__ import annotations

import pytest

from conformance.channel import Channel
from conformance.conftest import Names
from conformance.routes import Routes

pytestmark = pytest.mark.needs("exchange_exchange_bindings")


def declare(ch: Channel, names: Names, type: str = "fanout") -> str:
    """An exchange of this type; returns its name."""
    name = names.exchange()
    ch.declare_exchange(name, type)
    return name


def test_a_destination_routes_what_its_source_sends(ch: Channel, routes: Routes, names: Names) -> None:
    source, destination = declare(ch, names), declare(ch, names)
    ch.bind_exchange(destination, source)
    queue = routes.queue(destination, "")
    assert routes.reached(source) == {queue}


def test_a_source_does_not_hear_its_destination(ch: Channel, routes: Routes, names: Names) -> None:
    source, destination = declare(ch, names), declare(ch, names)
    ch.bind_exchange(destination, source)
    routes.queue(source, "")
    assert routes.reached(destination) == set()


def test_the_message_keeps_its_exchange_and_routing_key(ch: Channel, names: Names, queue_name: str) -> None:
    source, destination = declare(ch, names), declare(ch, names)
    ch.bind_exchange(destination, source, "binding key")
    ch.declare_queue(queue_name)
    ch.bind_queue(queue_name, destination, "another")
    ch.publish(source, "key", b"body")
    got = ch.get(queue_name)
    assert (got.exchange, got.routing_key, got.body) == (source, "key", b"body")


@pytest.mark.parametrize("type, key, other", [
    ("direct", "a.b", "a"), ("topic", "a.*", "a"), ("topic", "#.b", "a"), ("topic", "a.#", "b")])
def test_the_source_decides_by_its_own_type(
        ch: Channel, routes: Routes, names: Names, type: str, key: str, other: str) -> None:
    source, destination = declare(ch, names, type), declare(ch, names)
    ch.bind_exchange(destination, source, key)
    queue = routes.queue(destination, "")
    assert routes.reached(source, "a.b") == {queue}
    assert routes.reached(source, other) == set()


def test_the_destination_decides_again(ch: Channel, routes: Routes, names: Names) -> None:
    source, destination = declare(ch, names), declare(ch, names, "topic")
    ch.bind_exchange(destination, source)
    queue = routes.queue(destination, "a.*")
    assert routes.reached(source, "a.b") == {queue}
    assert routes.reached(source, "b.a") == set()


def test_a_headers_exchange_may_be_a_source(ch: Channel, routes: Routes, names: Names) -> None:
    source, destination = declare(ch, names, "headers"), declare(ch, names)
    ch.bind_exchange(destination, source, "", {"x-match": "any", "a": 1, "b": 2})
    queue = routes.queue(destination, "")
    assert routes.reached(source, headers={"b": 2}) == {queue}
    assert routes.reached(source, headers={"b": 1}) == set()


def test_exchanges_and_queues_are_bound_side_by_side(ch: Channel, routes: Routes, names: Names) -> None:
    source, destination = declare(ch, names), declare(ch, names)
    ch.bind_exchange(destination, source)
    assert routes.reached(source) == set()
    queues = {routes.queue(source, ""), routes.queue(destination, "")}
    assert routes.reached(source) == queues


def test_a_queue_reached_on_two_ways_gets_one_copy(ch: Channel, routes: Routes, names: Names) -> None:
    source, left, right = (declare(ch, names) for _ in range(3))
    ch.bind_exchange(left, source)
    ch.bind_exchange(right, source)
    queue = routes.queue(left, "")
    for exchange in (source, right):
        ch.bind_queue(queue, exchange)
    assert routes.reached(source) == {queue}


@pytest.mark.parametrize("length", [1, 2, 3, 10])
def test_a_circle_of_exchanges_is_walked_once(ch: Channel, routes: Routes, names: Names, length: int) -> None:
    circle = [declare(ch, names) for _ in range(length)]
    for source, destination in zip(circle, circle[1:] + circle[:1]):
        ch.bind_exchange(destination, source)
    queues = {routes.queue(exchange, "") for exchange in circle}
    for exchange in circle:
        assert routes.reached(exchange) == queues


def test_an_exchange_may_be_bound_to_itself(ch: Channel, routes: Routes, names: Names) -> None:
    exchange = declare(ch, names)
    ch.bind_exchange(exchange, exchange)
    queue = routes.queue(exchange, "")
    assert routes.reached(exchange) == {queue}


def test_a_long_chain_is_followed_to_its_end(ch: Channel, routes: Routes, names: Names) -> None:
    chain = [declare(ch, names) for _ in range(30)]
    for source, destination in zip(chain, chain[1:]):
        ch.bind_exchange(destination, source)
    queue = routes.queue(chain[-1], "")
    assert routes.reached(chain[0]) == {queue}


def test_celerys_delayed_delivery_finds_its_way(ch: Channel, routes: Routes, names: Names) -> None:
    """§35: levels of topic exchanges, bound to each other by the digits of a routing key of 28 words."""
    levels = [declare(ch, names, "topic") for _ in range(3)]
    delays = [routes.queue(levels[0], "1.#"), routes.queue(levels[1], "*.1.#"), routes.queue(levels[2], "*.*.1.#")]
    ch.bind_exchange(levels[1], levels[0], "0.#")
    ch.bind_exchange(levels[2], levels[1], "*.0.#")
    arrived = declare(ch, names, "topic")
    ch.bind_exchange(arrived, levels[2], "*.*.0.#")
    done = routes.queue(arrived, "#.orders")
    for digits, queue in {"1.0.0": delays[0], "0.1.1": delays[1], "0.0.1": delays[2], "0.0.0": done}.items():
        assert routes.reached(levels[0], digits + ".0" * 25 + ".orders") == {queue}


def test_an_unbound_destination_is_reached_no_more(ch: Channel, routes: Routes, names: Names) -> None:
    source, destination = declare(ch, names), declare(ch, names)
    routes.queue(destination, "")
    ch.bind_exchange(destination, source, "key", {"a": 1})
    ch.unbind_exchange(destination, source, "key", {"a": 1})
    assert routes.reached(source, "key") == set()


def test_a_deleted_destination_is_reached_no_more(ch: Channel, routes: Routes, names: Names) -> None:
    source, destination = declare(ch, names), declare(ch, names)
    ch.bind_exchange(destination, source)
    ch.delete_exchange(destination)
    ch.declare_exchange(destination, "fanout")
    routes.queue(destination, "")
    assert routes.reached(source) == set()


def test_a_deleted_source_leaves_its_destination(ch: Channel, routes: Routes, names: Names) -> None:
    source, destination = declare(ch, names), declare(ch, names)
    ch.bind_exchange(destination, source)
    queue = routes.queue(destination, "")
    ch.delete_exchange(source)
    assert routes.reached(destination) == {queue}


def test_a_bound_destination_without_queues_is_unroutable(ch: Channel, routes: Routes, names: Names) -> None:
    source, destination = declare(ch, names), declare(ch, names)
    ch.bind_exchange(destination, source)
    assert routes.reached(source) == set()
