"""Attacks with dead letters that have difficult headers, and with dead-lettering in cycles."""

from __future__ import annotations

import time

from conformance import methods
from conformance.fields import Properties
from tests.canary.packing import PERSISTENT, consume, exchange_declare, nack, publish, queue_bind, queue_declare, reject
from tests.canary.peer import batches
from tests.canary.shape import World, shape
from tests.canary.shapes.common import await_depth, dead_letter_to, declare, fill

GOOD = 100


def forged(queue: str) -> Properties:
    """A message whose headers count 2^63 - 1 deaths."""
    return Properties(delivery_mode=2, headers={"x-death": [
        {"count": 2 ** 63 - 1, "reason": "expired", "queue": queue, "exchange": "", "routing-keys": [queue]}]})


def large_header() -> Properties:
    """A header that fits its frame now, and will not with x-death."""
    return Properties(delivery_mode=2, headers={"filler": "x" * (131_072 - 8 - 12 - 2 - 1 - 4 - 7 - 5 - 50)})


@shape("forged-x-death-expires", "A1")
def forged_expires(world: World) -> None:
    """A forged x-death among good messages, all of which expire."""
    with world.peer() as peer:
        declare(peer, "dead", durable=True)
        declare(peer, "source", durable=True, arguments=dead_letter_to("dead", **{"x-message-ttl": 400}))
        fill(peer, "source", GOOD // 2, b"good", PERSISTENT)
        peer.send(publish("", "source", b"forged", forged("source")))
        fill(peer, "source", GOOD // 2, b"good", PERSISTENT)
        await_depth(peer, "dead", GOOD + 1, 20)


@shape("forged-x-death-rejected", "A1")
def forged_rejected(world: World) -> None:
    """A forged x-death in the run of messages that an innocent worker rejects in one go."""
    with world.peer() as peer, world.peer() as worker:
        declare(peer, "dead", durable=True)
        declare(peer, "source", durable=True, arguments=dead_letter_to("dead"))
        for name in ("rejected", "expired", "maxlen", "delivery_limit"):
            message = Properties(delivery_mode=2, headers={"x-death": [
                {"count": 2 ** 63 - 1, "reason": name, "queue": "source"}]})
            peer.send(publish("", "source", b"forged", message))
        fill(peer, "source", GOOD, b"good", PERSISTENT)
        worker.send(consume("source"))
        worker.await_count("basic.deliver", GOOD + 4)
        worker.send(nack(GOOD, multiple=True)).send(reject(GOOD + 1)).send(nack(GOOD + 4, multiple=True))
        worker.hear(methods.BASIC_CONSUME_OK)
        worker.sync()
        await_depth(peer, "dead", GOOD + 4, 20)


@shape("header-of-4090-fields", "A1")
def many_fields(world: World) -> None:
    """Tables with nearly as many fields, and arrays with more elements, than a table may have."""
    with world.peer() as peer:
        declare(peer, "dead", durable=True)
        declare(peer, "source", durable=True, arguments=dead_letter_to("dead", **{"x-message-ttl": 300}))
        fields = Properties(delivery_mode=2, headers={f"f{number}": 1 for number in range(4_090)})
        array = Properties(delivery_mode=2, headers={"array": [1] * 4_090})
        large_array = Properties(delivery_mode=2, headers={"array": [True] * 20_000})
        for properties in (fields, array, large_array):
            fill(peer, "source", 20, b"x", properties)
        await_depth(peer, "dead", 60, 20)


@shape("header-that-outgrows-its-frame", "A2")
def outgrows_frame(world: World) -> None:
    """A header that no longer fits its frame once it is dead-lettered."""
    with world.peer() as peer, world.peer() as reader:
        declare(peer, "dead", durable=True)
        declare(peer, "source", durable=True, arguments=dead_letter_to("dead", **{"x-message-ttl": 300}))
        fill(peer, "source", 20, b"x", large_header())
        await_depth(peer, "dead", 20, 20)
        reader.send(consume("dead"))
        reader.await_count("basic.deliver", 20, 10)


def circle_of_fanout(world: World, queues: int) -> None:
    """One message, and n queues without any time to live that dead-letter into a fanout bound to all of them."""
    with world.peer() as peer:
        peer.send(exchange_declare("circle"))
        for number in range(queues):
            declare(peer, f"q{number}", arguments={"x-message-ttl": 0, "x-dead-letter-exchange": "circle"})
            peer.send(queue_bind(f"q{number}", "circle"))
        peer.sync()
        peer.send(publish("", "q0", b"x"))
        peer.sync()
        is_on = world.until_time_is_up()
        while is_on():
            time.sleep(0.05)
            peer.sync()


@shape("fanout-circle-of-9", "B5", memory_mib=200, in_ci=False)
def circle_of_9(world: World) -> None:
    """9 queues: about a million moves."""
    circle_of_fanout(world, 9)


@shape("fanout-circle-of-12", "B5", memory_mib=400, in_ci=False)
def circle_of_12(world: World) -> None:
    """12 queues: more than a thousand million moves."""
    circle_of_fanout(world, 12)


@shape("ring-of-queues", "B5", memory_mib=600, in_ci=False)
def ring(world: World) -> None:
    """A ring of queues without any time to live, through which 300 messages go until the cycle is seen."""
    queues = world.of(300, 1_000)
    with world.peer() as peer:
        for number in range(queues):
            peer.send(queue_declare(f"r{number}", dead_letter_to(
                f"r{(number + 1) % queues}", **{"x-message-ttl": 0}), nowait=True))
        peer.sync()
        fill(peer, "r0", world.of(100, 300))
        is_on = world.until_time_is_up()
        while is_on():
            time.sleep(0.05)
            peer.sync()


@shape("dead-letters-that-are-refused", "sibling", memory_mib=160)
def refused(world: World) -> None:
    """Many queues, each with a dead letter that a full queue refuses; and one that has very many of them."""
    sure = dead_letter_to("full", **{
        "x-queue-type": "quorum", "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish",
        "x-message-ttl": 1})
    queues, count = world.of(1_000, 2_000), world.of(1_000, 8_000)
    with world.peer() as peer:
        declare(peer, "full", durable=True, arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
        for octets in batches(lambda number: (
                queue_declare(f"r{number}", sure, durable=True, nowait=True)
                + publish("", f"r{number}", b"x", PERSISTENT)), queues, 50):
            peer.send(octets)
        peer.sync()
        declare(peer, "refused", durable=True, arguments=sure)
        for _ in range(count // 50):
            peer.send(publish("", "refused", bytes(20_000), PERSISTENT) * 50).sync()
        is_on = world.until_time_is_up()
        while is_on():
            time.sleep(0.05)
            peer.sync()


@shape("x-death-of-thousands", "sibling", in_ci=False)
def thousands_of_deaths(world: World) -> None:
    """Messages whose headers have deaths in 4,000 queues, without counts, expire through a chain of queues."""
    queues = world.of(10, 40)
    deaths = [{"queue": f"{number:04x}"} for number in range(4_000)]
    with world.peer() as peer:
        for number in range(queues):
            declare(peer, f"d{number}", arguments=dead_letter_to(f"d{number + 1}", **{"x-message-ttl": 50}))
        declare(peer, f"d{queues}")
        peer.send(publish("", "d0", b"x", Properties(headers={"x-death": deaths})) * 10).sync()
        await_depth(peer, f"d{queues}", 10)
