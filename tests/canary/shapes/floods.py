"""Attacks by publishers, getters and consumers at full speed."""

from __future__ import annotations

import threading
import time

from conformance import methods
from conformance.client import BODY, HEADER, frame, method_frame
from conformance.fields import content_header, pack
from tests.canary.packing import PERSISTENT, consume, exchange_declare, get, publish, queue_bind
from tests.canary.peer import Peer
from tests.canary.shape import World, shape
from tests.canary.shapes.common import await_depth, declare, fill


def publish_at_full_speed(world: World, vhost: str = "", body: bytes = b"x" * 100, **properties: object) -> None:
    """Four publishers, each into a queue of its own that keeps the last 1,000."""
    peers = [world.peer(vhost) for _ in range(4)]
    is_on = world.until_time_is_up()

    def flood(peer: Peer, queue: str) -> None:
        octets = publish("", queue, body, **properties) * max(1, 65_536 // len(body))     # type: ignore[arg-type]
        while is_on():
            peer.send(octets)

    threads = []
    for number, peer in enumerate(peers):
        declare(peer, f"f{number}", durable=True, arguments={"x-max-length": 1_000})
        threads.append(threading.Thread(target=flood, args=(peer, f"f{number}")))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for peer in peers:
        peer.drop()


@shape("four-publishers", "B8")
def four_publishers(world: World) -> None:
    """Four publishers of transient messages."""
    publish_at_full_speed(world)


@shape("four-publishers-in-another-vhost", "B8")
def four_elsewhere(world: World) -> None:
    """The same, in another vhost."""
    publish_at_full_speed(world, world.other_vhost)


@shape("four-persistent-publishers", "B8", in_ci=False)
def four_persistent(world: World) -> None:
    """Four publishers of persistent messages."""
    publish_at_full_speed(world, properties=PERSISTENT)


@shape("four-publishers-of-nothing", "sibling")
def four_of_nothing(world: World) -> None:
    """Four publishers of empty messages."""
    publish_at_full_speed(world, body=b"xxxx")


@shape("four-publishers-of-1-mib", "sibling", memory_mib=600)
def four_large(world: World) -> None:
    """Four publishers of large messages."""
    peers = [world.peer() for _ in range(4)]
    for number, peer in enumerate(peers):
        declare(peer, f"l{number}", arguments={"x-max-length": 10})
    message = [publish("", f"l{number}", b"x" * (1 << 20)) for number in range(4)]
    is_on = world.until_time_is_up()
    while is_on():
        for peer, octets in zip(peers, message, strict=True):
            peer.send(octets)


@shape("four-persistent-publishers-of-16-mib", "sibling", memory_mib=900, in_ci=False)
def four_persistent_large(world: World) -> None:
    """Four publishers of large persistent messages, each into a queue of its own that keeps the last two."""
    peers = [world.peer() for _ in range(4)]
    for number, peer in enumerate(peers):
        declare(peer, f"p{number}", durable=True, arguments={"x-max-length": 2})
    message = [publish("", f"p{number}", b"x" * (16 << 20), PERSISTENT) for number in range(4)]
    is_on = world.until_time_is_up()
    while is_on():
        for peer, octets in zip(peers, message, strict=True):
            peer.send(octets)
    for peer in peers:
        peer.sync()


@shape("100-mib-into-five-queues", "sibling", memory_mib=900)
def huge_into_five(world: World) -> None:
    """One persistent message of 100 MiB, 24 in the short form, that goes into five queues, and is consumed from two."""
    queues, body = [f"huge{number}" for number in range(5)], b"x" * (world.of(24, 100) << 20)
    with world.peer() as peer, world.peer() as reader:
        peer.send(exchange_declare("huge"))
        for name in queues:
            declare(peer, name, durable=True)
            peer.send(queue_bind(name, "huge"))
        peer.sync()
        peer.send(publish("huge", "", body, PERSISTENT))
        for name in queues:
            await_depth(peer, name, 1)
        for name in queues[:2]:
            reader.send(consume(name, no_ack=True, nowait=True))
        reader.await_count("basic.deliver", 2, 20)
        reader.sync()


@shape("get-on-an-empty-queue", "sibling")
def get_empty(world: World) -> None:
    """basic.get of an empty queue, in a loop."""
    with world.peer() as peer:
        declare(peer, "empty")
        is_on, flood = world.until_time_is_up(), get("empty") * 2_000
        while is_on():
            peer.send(flood)
            peer.sync()


@shape("one-octet-writes", "sibling")
def one_octet_writes(world: World) -> None:
    """Publishes in writes of one octet each, on 20 connections."""
    peers = [world.peer() for _ in range(20)]
    declare(peers[0], "slow", arguments={"x-max-length": 10})
    octets = publish("", "slow", b"x" * 50)
    is_on = world.until_time_is_up()
    while is_on():
        for at in range(len(octets)):
            for peer in peers:
                peer.send(octets[at:at + 1])
    for peer in peers:
        peer.sync()


@shape("one-octet-frames", "sibling")
def one_octet_frames(world: World) -> None:
    """Bodies of 100,000 octets in frames of one octet each."""
    with world.peer() as peer:
        declare(peer, "slow", arguments={"x-max-length": 10})
        octets = method_frame(1, *methods.BASIC_PUBLISH, pack("2sso", 0, "", "slow", 0)) + frame(
            HEADER, 1, content_header(100_000)) + frame(BODY, 1, b"x") * 100_000
        is_on = world.until_time_is_up()
        while is_on():
            peer.send(octets)
            peer.sync()


@shape("consumer-at-full-speed", "sibling")
def consume_fast(world: World) -> None:
    """A publisher and 20 consumers that each get a copy."""
    with world.peer() as peer:
        peer.send(exchange_declare("all"))
        readers = [world.peer() for _ in range(20)]
        for number, reader in enumerate(readers):
            declare(reader, f"copy{number}", exclusive=True)
            reader.send(queue_bind(f"copy{number}", "all") + consume(f"copy{number}", no_ack=True, nowait=True)).sync()
        is_on, flood = world.until_time_is_up(), publish("all", "", b"x" * 100) * 200
        while is_on():
            peer.send(flood)
            peer.sync()


@shape("backlog-drained", "sibling", in_ci=False)
def backlog_drained(world: World) -> None:
    """A backlog of persistent messages that is drained at full speed."""
    count = world.of(60_000, 300_000)
    with world.peer() as peer:
        declare(peer, "backlog", durable=True)
        begun = time.monotonic()
        fill(peer, "backlog", count, b"x" * 1_000, PERSISTENT)
        filled = time.monotonic()
        peer.send(consume("backlog", no_ack=True, nowait=True))
        peer.await_count("basic.deliver", count)
    world.note(f"filled in {filled - begun:.1f} s, drained in {time.monotonic() - filled:.1f} s")
