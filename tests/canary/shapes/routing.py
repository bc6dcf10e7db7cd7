"""Attacks with publishes that cost the broker much more than the client: many routes, patterns and keys."""

from __future__ import annotations

from itertools import product

from conformance.fields import Properties
from tests.canary.packing import exchange_bind, exchange_declare, publish, queue_bind, queue_declare
from tests.canary.peer import Peer, batches
from tests.canary.shape import World, shape
from tests.canary.shapes.common import declare


def send_publishes(world: World, peer: Peer, message: bytes, count: int) -> None:
    """Send so many of them, and again until the time is up, and wait until all are worked off."""
    is_on = world.until_time_is_up()
    while True:
        for octets in batches(lambda _: message, count, 100):
            peer.send(octets)
            if not is_on():
                return peer.drop()
        peer.sync()


@shape("mesh-of-exchanges", "B6")
def mesh(world: World) -> None:
    """150 exchanges, each bound to each."""
    with world.peer() as peer:
        peer.send(b"".join(exchange_declare(f"m{number}") for number in range(150)))
        for octets in batches(lambda at: exchange_bind(f"m{at // 150}", f"m{at % 150}"), 150 * 150):
            peer.send(octets)
        peer.sync()
        send_publishes(world, peer, publish("m0", "", b"x"), 2_000)


@shape("topic-patterns-of-stars", "B6")
def topic_patterns(world: World) -> None:
    """2,048 patterns of `a` and `*` that all match."""
    with world.peer() as peer:
        declare(peer, "target", arguments={"x-max-length": 10})
        peer.send(exchange_declare("topics", "topic"))
        for words in product("a*", repeat=11):
            peer.send(queue_bind("target", "topics", ".".join(words)))
        peer.sync()
        send_publishes(world, peer, publish("topics", ".".join("a" * 11), b"x"), 100)


@shape("topic-patterns-of-hashes", "sibling")
def topic_hashes(world: World) -> None:
    """Patterns of `#` and `*`, and keys of very many words, a new one each time."""
    with world.peer() as peer:
        declare(peer, "target", arguments={"x-max-length": 10})
        peer.send(exchange_declare("topics", "topic"))
        for words in product("#*", repeat=9):
            peer.send(queue_bind("target", "topics", ".".join(words)))
        peer.sync()
        is_on, number = world.until_time_is_up(), 0
        while is_on():
            number += 1
            peer.send(publish("topics", ".".join("a" * 120) + f".{number}", b"x"))
            peer.sync()


@shape("chain-of-exchanges", "B6")
def chain(world: World) -> None:
    """A chain of 1,000 exchanges."""
    with world.peer() as peer:
        peer.send(b"".join(exchange_declare(f"c{number}") for number in range(1_000)))
        peer.send(b"".join(exchange_bind(f"c{number + 1}", f"c{number}") for number in range(999)))
        peer.sync()
        send_publishes(world, peer, publish("c0", "", b"x"), 2_000)


@shape("headers-bindings", "B6")
def headers_bindings(world: World) -> None:
    """10,000 bindings to a headers exchange, all of which are looked at for each message."""
    with world.peer() as peer:
        declare(peer, "target", arguments={"x-max-length": 10})
        peer.send(exchange_declare("headers", "headers"))
        for octets in batches(lambda at: queue_bind(
                "target", "headers", "", {"x-match": "all", "a": 1, "b": at}), 10_000):
            peer.send(octets)
        peer.sync()
        send_publishes(world, peer, publish("headers", "", b"x", Properties(headers={"a": 1, "b": -1})), 200)


@shape("cc-keys", "B6")
def cc_keys(world: World) -> None:
    """3,000 CC keys a message."""
    with world.peer() as peer:
        declare(peer, "target", arguments={"x-max-length": 10})
        keys = Properties(headers={"CC": [f"k{number}" for number in range(3_000)]})
        send_publishes(world, peer, publish("", "target", b"x", keys), 30)


@shape("cc-keys-that-route", "sibling", in_ci=False)
def cc_keys_that_route(world: World) -> None:
    """1,000 CC keys a message, with a queue for each, over a topic exchange."""
    with world.peer() as peer:
        for octets in batches(lambda at: queue_bind_and_declare(f"k{at}"), 1_000, 100):
            peer.send(octets)
        peer.sync()
        keys = Properties(headers={"CC": [f"k{number}" for number in range(1_000)]})
        send_publishes(world, peer, publish("amq.topic", "k0", b"x", keys), 30)


def queue_bind_and_declare(name: str) -> bytes:
    """Pack the declaration of a short queue, and its binding to the topic exchange."""
    return queue_declare(name, {"x-max-length": 3}, nowait=True) + queue_bind(name, "amq.topic", name)


@shape("fanout-to-10000-queues", "sibling")
def wide_fanout(world: World) -> None:
    """Each message goes into 10,000 queues."""
    with world.peer() as peer:
        peer.send(exchange_declare("wide"))
        for octets in batches(lambda at: queue_declare(f"w{at}", {"x-max-length": 2}, nowait=True)
                              + queue_bind(f"w{at}", "wide"), world.of(4_000, 10_000)):
            peer.send(octets)
        peer.sync()
        send_publishes(world, peer, publish("wide", "", b"x"), 20)


@shape("alternate-exchanges", "sibling")
def alternates(world: World) -> None:
    """A chain of 1,000 alternate exchanges, of which none knows where to."""
    with world.peer() as peer:
        peer.send(b"".join(exchange_declare(
            f"a{number}", "direct", {"alternate-exchange": f"a{number + 1}"}) for number in range(1_000)))
        peer.sync()
        send_publishes(world, peer, publish("a0", "nowhere", b"x", mandatory=True), 2_000)
