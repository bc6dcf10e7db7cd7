"""Attacks with very many consumers, queues, channels or connections."""

from __future__ import annotations

import time

from conformance import methods
from tests.canary.packing import (
    ack, cancel, channel_close, channel_open, consume, get, nack, publish, qos, queue_declare, queue_delete)
from tests.canary.peer import Peer, batches
from tests.canary.shape import World, shape
from tests.canary.shapes.common import declare, fill


def declare_many(peer: Peer, count: int, **options: bool) -> None:
    """Declare so many queues."""
    for octets in batches(lambda at: queue_declare(f"many.{at}", nowait=True, **options), count):
        peer.send(octets)
    peer.sync()


@shape("queue-with-30000-consumers", "B7")
def many_consumers(world: World) -> None:
    """A queue with 30,000 consumers, three channels full, and publishes to it."""
    consumers = 30_000
    with world.peer() as peer:
        declare(peer, "crowded")
        for channel in (2, 3, 4):
            peer.call(channel_open(channel), methods.CHANNEL_OPEN_OK)
            for octets in batches(lambda at: consume(
                    "crowded", f"{channel}.{at}", no_ack=True, nowait=True, channel=channel), consumers // 3):
                peer.send(octets)
        peer.sync()
        message = publish("", "crowded", b"x") * 50
        is_on = world.until_time_is_up()
        while is_on():
            peer.send(message)
            peer.sync()


@shape("consumers-that-are-full", "sibling")
def full_consumers(world: World) -> None:
    """10,000 consumers with a prefetch of 1 that hold their message, and publishes behind them."""
    with world.peer() as peer:
        declare(peer, "crowded")
        peer.call(qos(1), methods.BASIC_QOS_OK)
        for octets in batches(lambda at: consume("crowded", f"c{at}", nowait=True), 10_000):
            peer.send(octets)
        peer.send(publish("", "crowded", b"x") * 10_000)
        peer.await_count("basic.deliver", 10_000)
        is_on, tag = world.until_time_is_up(), 0
        while is_on():
            peer.send(publish("", "crowded", b"x") * 20 + b"".join(ack(tag + at) for at in range(1, 21)))
            tag += 20
            peer.sync()


@shape("connections-beside-100000-queues", "B7")
def connections_beside_queues(world: World) -> None:
    """Connections and channels are opened and closed beside 100,000 queues."""
    with world.peer() as peer:
        declare_many(peer, world.of(30_000, 100_000))
        is_on, count = world.until_time_is_up(), 0
        while is_on():
            with world.peer() as other:
                declare(other, "own", exclusive=True)
                other.call(channel_close(1), methods.CHANNEL_CLOSE_OK)
            count += 1
        world.note(f"{count} connections")


@shape("channels-with-consumers", "sibling")
def channels_with_consumers(world: World) -> None:
    """60 channels with a consumer each, and a flood to all of them."""
    with world.peer() as peer:
        for channel in range(2, 62):
            peer.send(channel_open(channel) + queue_declare(f"q{channel}", nowait=True, channel=channel)
                      + consume(f"q{channel}", no_ack=True, nowait=True, channel=channel))
        peer.sync_channels(60)
        flood = b"".join(publish("", f"q{channel}", b"x" * 50) for channel in range(2, 62)) * 20
        is_on = world.until_time_is_up()
        while is_on():
            peer.send(flood)
            peer.sync()


@shape("exclusive-queues-of-a-connection", "sibling")
def exclusive_queues(world: World) -> None:
    """A connection ends that has 10,000 exclusive queues, each bound to an exchange and with a message."""
    count = world.of(5_000, 10_000)
    for ends_politely in (True, False):
        with world.peer() as peer:
            declare_many(peer, count, exclusive=True)
            for octets in batches(lambda at: publish("", f"many.{at}", b"x"), count):
                peer.send(octets)
            peer.sync()
            if ends_politely:
                peer.close()
    with world.peer() as peer:
        peer.sync()


@shape("deaf-consumers-of-many-queues", "sibling", in_ci=False)
def many_queues_of_one_consumer(world: World) -> None:
    """One channel consumes 5,000 queues into which messages come one after the other."""
    count = 5_000
    with world.peer() as peer:
        declare_many(peer, count)
        for octets in batches(lambda at: consume(f"many.{at}", no_ack=True, nowait=True), count):
            peer.send(octets)
        peer.sync()
        is_on = world.until_time_is_up()
        while is_on():
            for octets in batches(lambda at: publish("", f"many.{at}", b"x"), count):
                peer.send(octets)
            peer.sync()


@shape("idle-connections", "sibling")
def idle_connections(world: World) -> None:
    """Connections come until there are 400, and all go at once."""
    peers = [world.peer(reads=False) for _ in range(world.of(300, 400))]
    for peer in peers:
        peer.drop()


@shape("deleted-queue-of-consumers", "sibling", in_ci=False)
def deleted_queue(world: World) -> None:
    """A queue with very many consumers is deleted."""
    with world.peer() as peer:
        declare(peer, "crowded")
        for channel in range(2, 2 + world.of(2, 6)):
            peer.call(channel_open(channel), methods.CHANNEL_OPEN_OK)
            for octets in batches(lambda at: consume("crowded", f"c{at}", nowait=True, channel=channel), 10_000):
                peer.send(octets)
        peer.sync()
        peer.call(queue_delete("crowded"), methods.QUEUE_DELETE_OK)
        peer.sync()


@shape("channels-dropped-at-once", "sibling", memory_mib=400, in_ci=False)
def channels_dropped(world: World) -> None:
    """Connections of 2,047 channels each end at one moment."""
    channels = 2_047
    peers = [world.peer() for _ in range(world.of(6, 20))]
    for peer in peers:
        peer.send(b"".join(channel_open(number) for number in range(2, channels + 1)))
        peer.sync_channels(channels - 1)
    for peer in peers:
        peer.drop()
    time.sleep(world.seconds)       # for the canary to sing on


@shape("channels-overdue-at-once", "sibling", memory_mib=200)
def channels_overdue(world: World) -> None:
    """All channels of some connections have a delivery that is overdue at one moment."""
    channels = 2_000
    peers = [world.peer() for _ in range(world.of(2, 5))]
    for at, peer in enumerate(peers):
        declare(peer, f"late.{at}")
        fill(peer, f"late.{at}", channels, b"")
        peer.send(b"".join(channel_open(number) for number in range(2, channels + 2)))
        peer.sync_channels(channels)
    for at, peer in enumerate(peers):
        peer.send(b"".join(
            qos(1, channel=number)
            + consume(f"late.{at}", "c", channel=number, nowait=True, arguments={"x-consumer-timeout": 1_500})
            for number in range(2, channels + 2)))
    for peer in peers:
        peer.await_count("channel.close", channels)


@shape("clients-wait-for-a-busy-queue", "sibling", memory_mib=300)
def busy_queue(world: World) -> None:
    """Many connections wait for a queue that takes 30,000 messages back, with publishes behind."""
    messages = 30_000
    with world.peer() as peer:
        declare(peer, "busy")
        declare(peer, "sink", arguments={"x-max-length": 10})
        fill(peer, "busy", messages, b"")
        peers = [world.peer() for _ in range(world.of(100, 400))]
        behind = publish("", "sink", b"") * world.of(1_000, 3_000)
        for _ in range(world.of(2, 5)):
            before = peer.counts["basic.deliver"]
            peer.send(consume("busy", "c", nowait=True))
            peer.await_count("basic.deliver", before + messages)
            peer.send(cancel("c")).sync()
            peer.send(nack(0, multiple=True, requeue=True))
            for each in peers:
                each.send(get("busy", no_ack=False) + nack(0, multiple=True, requeue=True) + behind + qos(0))
            for each in peers:
                each.hear(methods.BASIC_QOS_OK)
            peer.sync()
