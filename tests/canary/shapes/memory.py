"""Attacks on memory: it is announced, half used, or filled with messages that nobody reads."""

from __future__ import annotations

import time

from conformance import methods
from conformance.client import BODY, HEADER, frame, method_frame
from conformance.fields import Properties, content_header, header_properties, pack
from tests.canary.packing import channel_open, confirm_select, consume, get, nack, publish, queue_declare
from tests.canary.peer import Peer
from tests.canary.shape import World, shape
from tests.canary.shapes.common import declare, fill

MIB = 1 << 20
CLAIMED = 128 * MIB


def begin_body(channel: int, size: int, queue: str = "target") -> bytes:
    """Pack a publish with the header of a body of this size, and nothing of the body."""
    return method_frame(channel, *methods.BASIC_PUBLISH, pack("2sso", 0, "", queue, 0)) + frame(
        HEADER, channel, content_header(size))


def claim_in_octets(world: World, user: str) -> None:
    """On three channels, send a claimed body in frames of one octet until the time is up."""
    with world.peer(user=user, reads=False) as peer:
        peer.send(b"".join(channel_open(number) for number in (2, 3)))
        peer.send(b"".join(begin_body(number, CLAIMED - 1) for number in (1, 2, 3)))
        octets = [frame(BODY, number, b"x") * 5_000 for number in (1, 2, 3)]
        is_on, count = world.until_time_is_up(), 0
        try:
            while is_on():
                for one in octets:
                    peer.send(one)
                    count += 5_000
        except OSError:
            world.note("was cut")       # whoever has no right may be
        world.note(f"{count} octets of bodies sent")


@shape("claimed-bodies-in-octets", "C9", memory_mib=64)
def claimed_bodies(world: World) -> None:
    """128 MiB claimed, and sent in frames of one octet."""
    with world.peer() as peer:
        declare(peer, "target")
    claim_in_octets(world, world.address.user)


@shape("claimed-bodies-without-a-right", "C9", memory_mib=64)
def claimed_without_right(world: World) -> None:
    """The same, as a user who may do nothing."""
    claim_in_octets(world, "nobody")


@shape("claimed-and-nothing-sent", "C9", memory_mib=64)
def claimed_alone(world: World) -> None:
    """128 MiB claimed on each of many channels, and nothing sent."""
    with world.peer() as peer:
        declare(peer, "target")
        for channel in range(2, world.of(20, 400)):
            peer.send(channel_open(channel) + begin_body(channel, CLAIMED) + frame(BODY, channel, b"x"))
        time.sleep(world.seconds / 2)


@shape("connections-cut-inside-a-body", "C10", in_ci=False, memory_mib=400)
def cut_inside(world: World) -> None:
    """Connections that end inside a body: what they held is freed."""
    before = world.resident_mib()
    with world.peer() as peer:
        declare(peer, "target")
    sent = 40 * MIB
    is_on = world.until_time_is_up()
    count = 0
    while is_on() or count < 10:
        with world.peer() as peer:
            peer.send(begin_body(1, CLAIMED))
            peer.send(frame(BODY, 1, b"x" * 131_064) * (sent // 131_064))
        count += 1
    time.sleep(0.5)
    if before:
        grown = world.resident_mib() - before
        world.note(f"{count} connections, {grown:.0f} MiB held after")
        assert grown < 200, f"{grown:.0f} MiB are held with no client"


@shape("got-and-put-back-unread", "C11", memory_mib=64)
def got_unread(world: World) -> None:
    """(get, nack) x 2,000 of one message of 1 MiB, of which nothing is read."""
    with world.peer() as peer:
        declare(peer, "large")
        fill(peer, "large", 1, b"x" * MIB)
        write_unread(world, b"".join(get("large") + nack(number, requeue=True) for number in range(1, 2_001)))


@shape("returns-unread", "C11", memory_mib=64)
def returns_unread(world: World) -> None:
    """Mandatory messages of 1 MiB that are returned, and not read."""
    write_unread(world, publish("", "nowhere", b"x" * MIB, mandatory=True), world.of(300, 3_000))


@shape("small-returns-unread", "C11", memory_mib=64)
def small_returns_unread(world: World) -> None:
    """Mandatory messages of nothing that are returned, and not read."""
    write_unread(world, publish("", "nowhere", b"", mandatory=True) * 1_000, world.of(500, 3_000))


@shape("declares-unread", "C11", memory_mib=64)
def declares_unread(world: World) -> None:
    """Passive declares whose answers nobody reads."""
    with world.peer() as peer:
        declare(peer, "n" * 200)
        write_unread(world, queue_declare("n" * 200, passive=True) * 500, world.of(600, 3_000))


@shape("replies-unread", "C11", memory_mib=64)
def replies_unread(world: World) -> None:
    """Direct replies of 1 MiB to a client that does not read."""
    with world.peer(reads=False, receive_buffer=4_096) as deaf, world.peer() as replier:
        declare(replier, "questions")
        deaf.send(consume("amq.rabbitmq.reply-to", "r", no_ack=True)
                  + publish("", "questions", b"?", Properties(reply_to="amq.rabbitmq.reply-to")))
        question = header_properties(replier.capture_get("questions"))
        reply = publish("", str(question.reply_to), b"x" * MIB)
        is_on, count = world.until_time_is_up(), 0
        while count < world.of(300, 2_000) and is_on():
            replier.send(reply)
            count += 1
        replier.sync()
        world.note(f"{count} replies")


@shape("deliveries-unread", "C11", memory_mib=64)
def deliveries_unread(world: World) -> None:
    """A consumer that does not read, before a queue of large messages that are put back over and over."""
    with world.peer() as peer:
        declare(peer, "large")
        fill(peer, "large", 20, b"x" * MIB)
        for _ in range(10):
            deaf = world.peer(reads=False, receive_buffer=4_096)
            deaf.send(consume("large", no_ack=False))
        time.sleep(world.seconds)


@shape("confirms-unread", "sibling", memory_mib=64)
def confirms_unread(world: World) -> None:
    """Confirms that nobody reads."""
    with world.peer() as peer:
        declare(peer, "target", arguments={"x-max-length": 10})
    write_unread(world, publish("", "target", b"") * 1_000, world.of(500, 3_000), first=confirm_select())


def write_unread(world: World, octets: bytes, times: int = 1, first: bytes = b"") -> None:
    """Write without ever reading, as long as the broker takes it and the time is not up."""
    deaf = world.peer(reads=False, receive_buffer=4_096)
    sent = send_as_long_as_taken(world, deaf, first, octets, times)
    world.note(f"{sent / MIB:.0f} MiB sent of {len(octets) * times / MIB:.0f}")
    time.sleep(0.3)
    deaf.drop()


def send_as_long_as_taken(world: World, deaf: Peer, first: bytes, octets: bytes, times: int) -> int:
    """Send in pieces until the broker takes no more for a second; how many octets it took."""
    is_on, sent = world.until_time_is_up(), 0
    deaf.send(first)
    deaf.socket.settimeout(1.0)
    for _ in range(times):
        for at in range(0, len(octets), 65_536):
            if not is_on():
                return sent
            try:
                deaf.socket.sendall(octets[at:at + 65_536])
            except TimeoutError:
                return sent             # it waits for us, as it should
            sent += len(octets[at:at + 65_536])
    return sent
