"""Attacks in which very many messages leave a queue at one moment: expired, rejected, or dropped by a policy."""

from __future__ import annotations

import time

from conformance import methods
from conformance.fields import Properties
from tests.canary.packing import HEARTBEAT, PERSISTENT, consume, nack, queue_purge
from tests.canary.shape import World, shape
from tests.canary.shapes.common import await_depth, dead_letter_to, declare, depth, fill, fill_to_expire


@shape("transient-expire-at-once", "B6")
def transient_expire(world: World) -> None:
    """Transient messages that expire at one moment into a dead-letter exchange."""
    count = world.of(100_000, 300_000)
    with world.peer() as peer:
        declare(peer, "dead")
        declare(peer, "source", arguments=dead_letter_to("dead"))
        fill_to_expire(peer, "source", count)
        await_depth(peer, "dead", count + 2_000)


@shape("persistent-expire-at-once", "B6", in_ci=False)
def persistent_expire(world: World) -> None:
    """Persistent messages that expire at one moment, and a client with heartbeat 4 that must hear of it in time."""
    count = world.of(50_000, 150_000)
    with world.peer() as peer, world.peer(heartbeat=4) as listener:
        declare(peer, "dead", durable=True)
        declare(peer, "source", durable=True, arguments=dead_letter_to("dead"))
        fill_to_expire(peer, "source", count, b"x" * 20, 2)
        listener.send(HEARTBEAT)
        while depth(peer, "dead") != count + 2_000:
            listener.send(HEARTBEAT)
            time.sleep(0.1)
        listener.sync()
        world.note(f"heartbeat 4: longest silence {listener.longest_silence:.1f} s")
        assert listener.longest_silence < 4, f"heartbeat 4: nothing for {listener.longest_silence:.1f} s"


@shape("nack-of-50000", "B6")
def rejected_by_one_nack(world: World) -> None:
    """A consumer that rejects 50,000 messages by one nack, into a dead-letter exchange."""
    count = world.of(40_000, 50_000)
    with world.peer() as peer:
        declare(peer, "dead", durable=True)
        declare(peer, "source", durable=True, arguments=dead_letter_to("dead"))
        fill(peer, "source", count, b"x", PERSISTENT)
        peer.call(consume("source"), methods.BASIC_CONSUME_OK)
        peer.await_count("basic.deliver", count)
        peer.send(nack(0, multiple=True)).sync()
        await_depth(peer, "dead", count)


def fail_until_the_limit(world: World, count: int, limit: int, arguments: dict[str, object]) -> None:
    """Put so many messages back by one nack, as often as it takes until all have reached their delivery limit."""
    with world.peer() as peer:
        declare(peer, "source", durable=True, arguments=arguments | {"x-delivery-limit": limit})
        fill(peer, "source", count, b"x", PERSISTENT)
        peer.call(consume("source"), methods.BASIC_CONSUME_OK)
        for delivery in range(1, limit + 2):
            peer.await_count("basic.deliver", count * delivery)
            peer.send(nack(0, multiple=True, requeue=True)).sync()
        await_depth(peer, "source", 0)


@shape("delivery-limit-of-50000", "B6")
def delivery_limit(world: World) -> None:
    """Messages that all reach their delivery limit at one moment, into a dead-letter exchange."""
    count = world.of(20_000, 50_000)
    with world.peer() as peer:
        declare(peer, "dead", durable=True)
        fail_until_the_limit(world, count, 1, dead_letter_to("dead"))
        await_depth(peer, "dead", count)


@shape("delivery-limit-without-dead-letters", "B6", in_ci=False)
def delivery_limit_to_nothing(world: World) -> None:
    """The same, and they go nowhere."""
    fail_until_the_limit(world, 50_000, 1, {})


@shape("policy-shortens-queue", "B6")
def policy_shortens(world: World) -> None:
    """A policy that shortens a queue by 100,000 messages, into a dead-letter exchange."""
    count = world.of(60_000, 100_000)
    with world.peer() as peer:
        declare(peer, "dead")
        declare(peer, "source", durable=True, arguments=dead_letter_to("dead"))
        fill(peer, "source", count, b"x", PERSISTENT)
        world.policy("short", "^source$", '{"max-length": 0}')
        await_depth(peer, "dead", count)


@shape("expire-without-dead-letters", "sibling", in_ci=False)
def expire_to_nothing(world: World) -> None:
    """Persistent messages that expire at one moment and go nowhere."""
    with world.peer() as peer:
        declare(peer, "source", durable=True)
        fill_to_expire(peer, "source", world.of(80_000, 300_000), b"x", 2)
        await_depth(peer, "source", 0)


@shape("purge-of-deadlines", "sibling", memory_mib=400, in_ci=False)
def purge_of_deadlines(world: World) -> None:
    """Very many messages with an hour to live, of which a sooner one makes a heap; the queue is purged."""
    with world.peer() as peer:
        declare(peer, "source")
        fill(peer, "source", world.of(100_000, 500_000), b"", Properties(expiration="3600000"))
        fill(peer, "source", 1, b"", Properties(expiration="1"))
        is_on = world.until_time_is_up()
        while is_on():
            time.sleep(0.05)
            peer.sync()
        peer.call(queue_purge("source"), methods.QUEUE_PURGE_OK)
