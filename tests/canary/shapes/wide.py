"""Attacks with one command that puts messages into thousands of durable queues."""

from __future__ import annotations

from conformance import methods
from tests.canary.packing import PERSISTENT, exchange_declare, publish, queue_bind, queue_declare, tx_commit, tx_select
from tests.canary.peer import Peer, batches
from tests.canary.shape import World, shape
from tests.canary.shapes.common import await_depth, declare, fill


def bind_many(peer: Peer, queues: int) -> None:
    """Declare so many durable queues that keep two messages each, and bind them to one fanout exchange."""
    peer.send(exchange_declare("wide", "fanout"))
    for octets in batches(lambda at: queue_declare(
            f"q{at}", {"x-max-length": 2}, durable=True, nowait=True) + queue_bind(f"q{at}", "wide"), queues, 50):
        peer.send(octets).sync()


@shape("commits-to-thousands-of-queues", "sibling", memory_mib=200)
def commits(world: World) -> None:
    """Transactions of a few persistent messages, each to thousands of durable queues."""
    with world.peer() as peer:
        bind_many(peer, world.of(2_000, 5_000))
        peer.call(tx_select(), methods.TX_SELECT_OK)
        is_on, count = world.until_time_is_up(), 0
        while is_on():
            for messages in (1, 3):
                peer.send(publish("wide", "", b"x", PERSISTENT) * messages).call(tx_commit(), methods.TX_COMMIT_OK)
                count += 1
        world.note(f"{count} commits")


@shape("dead-letters-to-thousands-of-queues", "sibling", memory_mib=200, in_ci=False)
def dead_letters(world: World) -> None:
    """Messages that expire, and each of which is dead-lettered to thousands of durable queues."""
    count = 10
    with world.peer() as peer:
        bind_many(peer, world.of(2_000, 5_000))
        declare(peer, "source", durable=True, arguments={"x-dead-letter-exchange": "wide", "x-message-ttl": 300})
        fill(peer, "source", count, b"x", PERSISTENT)
        await_depth(peer, "source", 0)
