"""Attacks with one command that moves very many messages: purge, delete, recover, requeue, commit, close."""

from __future__ import annotations

from conformance import methods
from tests.canary.packing import (
    PERSISTENT, ack, channel_close, consume, nack, publish, queue_delete, queue_purge, recover, tx_commit, tx_rollback,
    tx_select)
from tests.canary.peer import Peer, batches
from tests.canary.shape import World, shape
from tests.canary.shapes.common import await_depth, declare, fill


def consume_all(peer: Peer, queue: str, count: int) -> None:
    """Hold so many deliveries without an answer. A consumer may hold 50,000."""
    consumers = -(-count // 50_000)
    for number in range(consumers):
        peer.call(consume(queue, f"c{number}"), methods.BASIC_CONSUME_OK)
    peer.await_count("basic.deliver", count)


@shape("rollback-of-acks", "B7")
def rollback(world: World) -> None:
    """tx.rollback of 20,000 acks."""
    count = 20_000
    with world.peer() as peer:
        declare(peer, "source")
        fill(peer, "source", count)
        consume_all(peer, "source", count)
        peer.call(tx_select(), methods.TX_SELECT_OK)
        for octets in batches(lambda at: ack(at + 1), count):
            peer.send(octets)
        peer.call(tx_rollback(), methods.TX_ROLLBACK_OK)


@shape("rollback-of-acks-backwards", "sibling")
def rollback_backwards(world: World) -> None:
    """tx.rollback of 20,000 acks that were sent last first."""
    count = 20_000
    with world.peer() as peer:
        declare(peer, "source")
        fill(peer, "source", count)
        consume_all(peer, "source", count)
        peer.call(tx_select(), methods.TX_SELECT_OK)
        for octets in batches(lambda at: ack(count - at), count):
            peer.send(octets)
        peer.call(tx_rollback(), methods.TX_ROLLBACK_OK)


@shape("huge-commit", "sibling")
def huge_commit(world: World) -> None:
    """tx.commit of very many publishes and acks."""
    count = world.of(30_000, 90_000)
    with world.peer() as peer:
        declare(peer, "source", durable=True)
        peer.call(tx_select(), methods.TX_SELECT_OK)
        message = publish("", "source", b"x" * 50, PERSISTENT)
        for octets in batches(lambda _: message, count):
            peer.send(octets)
        peer.call(tx_commit(), methods.TX_COMMIT_OK)
        consume_all(peer, "source", min(count, 50_000))
        peer.send(ack(min(count, 50_000), multiple=True))
        peer.call(tx_commit(), methods.TX_COMMIT_OK)


@shape("purge-and-delete", "sibling", in_ci=False)
def purge_and_delete(world: World) -> None:
    """A queue with very many messages is purged, another deleted; transient, then persistent."""
    with world.peer() as peer:
        for properties, count in ((None, world.of(150_000, 1_000_000)), (PERSISTENT, world.of(60_000, 500_000))):
            for octets, answer in (
                    (queue_purge("full"), methods.QUEUE_PURGE_OK), (queue_delete("full"), methods.QUEUE_DELETE_OK)):
                declare(peer, "full", durable=True)
                fill(peer, "full", count, b"x", properties)
                peer.call(octets, answer)


def hold(world: World, count: int) -> Peer:
    """A peer that holds so many deliveries of queue `held`."""
    peer = world.peer()
    declare(peer, "held", durable=True)
    fill(peer, "held", count, b"x", PERSISTENT)
    consume_all(peer, "held", count)
    return peer


@shape("recover-of-unacked", "sibling")
def recover_all(world: World) -> None:
    """basic.recover of 100,000 unacked messages, which are all delivered again, and again."""
    count = world.of(40_000, 100_000)
    with hold(world, count) as peer:
        for again in range(2, 4):
            peer.call(recover(), methods.BASIC_RECOVER_OK)
            peer.await_count("basic.deliver", again * count)


@shape("requeue-by-nack", "sibling")
def requeue_all(world: World) -> None:
    """A nack that puts back very many, of which each is at once delivered again."""
    count = world.of(40_000, 100_000)
    with hold(world, count) as peer:
        for again in range(2, 4):
            peer.send(nack(0, multiple=True, requeue=True))
            peer.await_count("basic.deliver", again * count)


@shape("channel-closed-with-unacked", "sibling")
def close_channel(world: World) -> None:
    """A channel is closed that holds very many; they go back to their queue."""
    count = world.of(50_000, 100_000)
    with hold(world, count) as peer, world.peer() as other:
        peer.call(channel_close(1), methods.CHANNEL_CLOSE_OK)
        await_depth(other, "held", count)


@shape("connection-cut-with-unacked", "sibling")
def cut_connection(world: World) -> None:
    """TCP ends under a channel that holds very many; they go back to their queue."""
    count = world.of(50_000, 100_000)
    with hold(world, count) as peer, world.peer() as other:
        peer.drop()
        await_depth(other, "held", count)


@shape("acks-one-by-one-backwards", "sibling", in_ci=False)
def acks_backwards(world: World) -> None:
    """Very many messages are acked last first."""
    count = world.of(50_000, 100_000)
    with hold(world, count) as peer:
        for octets in batches(lambda at: ack(count - at), count):
            peer.send(octets)
        peer.sync()


@shape("ack-of-all", "sibling", in_ci=False)
def ack_of_all(world: World) -> None:
    """One ack answers very many."""
    with hold(world, world.of(50_000, 100_000)) as peer:
        peer.send(ack(0, multiple=True)).sync()
