"""Attacks with large persistent bodies on ways that could write each of them in one batch."""

from __future__ import annotations

from conformance import methods
from tests.canary.packing import (
    PERSISTENT, confirm_select, consume, exchange_declare, nack, publish, queue_bind, tx_commit, tx_select)
from tests.canary.peer import Peer
from tests.canary.shape import World, shape
from tests.canary.shapes.common import await_depth, dead_letter_to, declare, fill

MIB = 1 << 20


def publish_to_many(world: World, queues: int, body: bytes) -> None:
    """Publish the same body to so many durable queues, again when it is confirmed, until the time is up."""
    with world.peer() as peer:
        peer.send(exchange_declare("wide", "fanout"))
        for number in range(queues):
            declare(peer, f"q{number}", durable=True, arguments={"x-max-length": 2})
            peer.send(queue_bind(f"q{number}", "wide"))
        peer.call(confirm_select(), methods.CONFIRM_SELECT_OK)
        message = publish("wide", "", body, PERSISTENT)
        is_on, count = world.until_time_is_up(), 0
        while is_on():
            peer.send(message)
            count += 1
            peer.await_confirms(count)
        world.note(f"{count} messages to {queues} queues")


@shape("large-to-very-many-queues", "sibling", memory_mib=128)
def large_to_many(world: World) -> None:
    """A persistent message of 15 MiB to 300 durable queues, again and again."""
    publish_to_many(world, 300, bytes(15 * MIB))


@shape("large-to-thousands-of-queues", "sibling", memory_mib=200, in_ci=False)
def large_to_thousands(world: World) -> None:
    """A persistent message of 15 MiB to thousands of durable queues, again and again."""
    publish_to_many(world, world.of(2_000, 5_000), bytes(15 * MIB))


def reject_large(world: World, *, durable: bool) -> None:
    """Reject persistent messages of 15 MiB all at once: they move to a durable queue."""
    count = world.of(15, 30)
    with world.peer() as peer:
        declare(peer, "target", durable=True)
        declare(peer, "source", durable=durable, arguments=dead_letter_to("target"))
        fill(peer, "source", count, bytes(15 * MIB), PERSISTENT)
        peer.call(consume("source", "c"), methods.BASIC_CONSUME_OK)
        peer.await_count("basic.deliver", count)
        peer.send(nack(count, multiple=True))
        await_depth(peer, "target", count)


@shape("large-dead-letters", "sibling", memory_mib=300, in_ci=False)
def large_dead_letters(world: World) -> None:
    """Persistent messages of 15 MiB that are rejected all at once, and move to another durable queue."""
    reject_large(world, durable=True)


@shape("large-dead-letters-of-a-transient-queue", "sibling", memory_mib=700, in_ci=False)
def large_dead_letters_of_transient(world: World) -> None:
    """The same, from a queue that is not durable: the store has none of them before."""
    reject_large(world, durable=False)


def commit_large(peer: Peer, count: int, body: bytes) -> None:
    """Commit a transaction of so many messages with this body."""
    for _ in range(count):
        peer.send(publish("", "target", body, PERSISTENT))
    peer.call(tx_commit(), methods.TX_COMMIT_OK)


@shape("large-transactions", "sibling", memory_mib=200)
def large_transactions(world: World) -> None:
    """Transactions of few very large, and of many large, persistent messages, up to the limit of a transaction."""
    with world.peer() as peer:
        declare(peer, "target", durable=True, arguments={"x-max-length": 10})
        peer.call(tx_select(), methods.TX_SELECT_OK)
        is_on = world.until_time_is_up()
        while is_on():
            commit_large(peer, 4, bytes(15 * MIB))
            commit_large(peer, 60, bytes(MIB))
