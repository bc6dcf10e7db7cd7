"""Attacks with very many bindings of an exchange: create them, route with always new keys, delete them."""

from __future__ import annotations

from conformance import methods
from tests.canary.packing import exchange_declare, exchange_delete, publish, queue_bind, queue_delete, queue_unbind
from tests.canary.peer import Peer, batches
from tests.canary.shape import World, shape
from tests.canary.shapes.common import declare

BINDINGS = 10_000


def bind_many(peer: Peer, kind: str, count: int = BINDINGS) -> None:
    """Bind one queue with so many keys."""
    declare(peer, "target", arguments={"x-max-length": 10})
    peer.send(exchange_declare("many", kind))
    for octets in batches(lambda at: queue_bind("target", "many", f"key.{at}"), count):
        peer.send(octets)
    peer.sync()


def use_all_keys(world: World, kind: str) -> None:
    """Publish with each key in turn, until the time is up."""
    with world.peer() as peer:
        bind_many(peer, kind)
        is_on = world.until_time_is_up()
        while is_on():
            for octets in batches(lambda at: publish("many", f"key.{at}", b"x"), BINDINGS, 250):
                peer.send(octets)
                if not is_on():
                    break
            peer.sync()


@shape("direct-keys-in-turn", "B7", in_ci=False)
def direct_keys(world: World) -> None:
    """10,000 bindings of a direct exchange, and as many keys in turn."""
    use_all_keys(world, "direct")


@shape("topic-keys-in-turn", "B7")
def topic_keys(world: World) -> None:
    """10,000 bindings of a topic exchange, and as many keys in turn."""
    use_all_keys(world, "topic")


@shape("bind-and-unbind", "sibling")
def bind_and_unbind(world: World) -> None:
    """10,000 bindings are made, and taken away one by one."""
    with world.peer() as peer:
        for kind in ("topic", "direct"):
            bind_many(peer, kind)
            for octets in batches(lambda at: queue_unbind("target", "many", f"key.{at}"), BINDINGS):
                peer.send(octets)
            peer.await_count("queue.unbind-ok", BINDINGS)
            for _ in range(BINDINGS):
                peer.hear(methods.QUEUE_UNBIND_OK)
            peer.counts.clear()
            peer.send(exchange_delete("many")).sync()


@shape("delete-exchange-with-bindings", "sibling")
def delete_exchange(world: World) -> None:
    """An exchange with 10,000 bindings is deleted, then a queue with as many."""
    with world.peer() as peer:
        for kind in ("topic", "direct", "headers", "fanout"):
            bind_many(peer, kind)
            peer.send(exchange_delete("many")).sync()
            bind_many(peer, kind)
            peer.call(queue_delete("target"), methods.QUEUE_DELETE_OK)
            peer.send(exchange_delete("many")).sync()
