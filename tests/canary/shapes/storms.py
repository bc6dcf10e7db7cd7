"""Attacks with many small commands: consume and cancel, qos, open and close of channels and connections."""

from __future__ import annotations

from conformance import methods
from tests.canary.packing import (
    cancel, channel_close, channel_open, confirm_select, consume, publish, qos, queue_declare)
from tests.canary.shape import World, shape
from tests.canary.shapes.common import declare, fill


@shape("consume-and-cancel", "sibling")
def consume_and_cancel(world: World) -> None:
    """Consume and cancel, on a queue with 10,000 messages that are delivered and requeued each time."""
    with world.peer() as peer:
        declare(peer, "full")
        fill(peer, "full", 10_000)
        peer.call(qos(50), methods.BASIC_QOS_OK)
        storm = b"".join(consume("full", f"c{at}", nowait=True) + cancel(f"c{at}") for at in range(50))
        is_on = world.until_time_is_up()
        while is_on():
            with world.peer() as other:
                other.call(qos(50), methods.BASIC_QOS_OK)
                other.send(storm)
                other.sync()


@shape("consume-and-cancel-empty", "sibling")
def consume_and_cancel_empty(world: World) -> None:
    """Consume and cancel, on an empty queue."""
    with world.peer() as peer:
        declare(peer, "empty")
        storm = b"".join(consume("empty", f"c{at}", nowait=True) + cancel(f"c{at}") for at in range(500))
        is_on = world.until_time_is_up()
        while is_on():
            peer.send(storm)
            peer.sync()


@shape("qos-storm", "sibling")
def qos_storm(world: World) -> None:
    """basic.qos in a loop, with 2,000 consumers on the channel."""
    with world.peer() as peer:
        declare(peer, "empty")
        peer.send(b"".join(consume("empty", f"c{at}", nowait=True) for at in range(2_000))).sync()
        storm = b"".join(qos(count, is_global=True) for count in range(1, 501))
        is_on = world.until_time_is_up()
        while is_on():
            before = peer.counts["basic.qos-ok"]
            peer.send(storm)
            peer.await_count("basic.qos-ok", before + 500)
            for _ in range(500):
                peer.hear(methods.BASIC_QOS_OK)


@shape("channel-storm", "sibling")
def channel_storm(world: World) -> None:
    """Channels are opened and closed."""
    with world.peer() as peer:
        storm = b"".join(channel_open(number) + channel_close(number) for number in range(2, 502))
        is_on = world.until_time_is_up()
        while is_on():
            before = peer.counts["channel.close-ok"]
            peer.send(storm)
            peer.await_count("channel.close-ok", before + 500)


@shape("connection-storm", "sibling")
def connection_storm(world: World) -> None:
    """Connections are opened and dropped, one after the other."""
    is_on, count = world.until_time_is_up(), 0
    while is_on():
        world.peer(reads=False).drop()
        count += 1
    world.note(f"{count} connections")


@shape("all-channels-open", "sibling", in_ci=False)
def all_channels(world: World) -> None:
    """2,047 channels are opened, in confirm mode with a consumer each, and end with their connection."""
    is_on = world.until_time_is_up()
    while is_on():
        with world.peer() as peer:
            declare(peer, "target", arguments={"x-max-length": 5})
            for channel in range(2, 2_048):
                peer.send(channel_open(channel) + confirm_select(channel)
                          + consume("target", nowait=True, channel=channel)
                          + publish("", "target", b"x", channel=channel))
            peer.await_count("basic.ack", 2_000)


@shape("errors-in-a-row", "sibling")
def errors(world: World) -> None:
    """Channels that are closed for an error, and opened again."""
    with world.peer() as peer:
        is_on = world.until_time_is_up()
        while is_on():
            peer.call(queue_declare("missing", passive=True), methods.CHANNEL_CLOSE)
            peer.send(b"\x01\x00\x01\x00\x00\x00\x04\x00\x14\x00\x29\xce")      # channel.close-ok
            peer.call(channel_open(1), methods.CHANNEL_OPEN_OK)


@shape("frame-errors-in-a-row", "sibling")
def frame_errors(world: World) -> None:
    """Connections that end for a frame that is none."""
    is_on = world.until_time_is_up()
    while is_on():
        with world.peer() as peer:
            peer.call(b"\x07" * 100, methods.CONNECTION_CLOSE)
