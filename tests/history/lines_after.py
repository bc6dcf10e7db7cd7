"""Lines about how soon everything works again after the last fault."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from tests.history.book import NEVER, Book, Consumer
from tests.history.events import US
from tests.history.lines import line

ANSWERED_WITHIN_US = 5 * US
MET_WITHIN_US = 1 * US
UNBLOCKED_WITHIN_US = 2 * US
HEARTBEATS = 2.5


@line(27, "each publish answered ≤ 5 s")
def each_publish_answered(book: Book) -> Iterator[str]:
    """On a confirm channel that lives so long."""
    for publish in book.publishes.values():
        asked, channel = publish.event.time, publish.channel
        if channel.is_confirming and asked >= book.faults_over and publish.answered > asked + ANSWERED_WITHIN_US:
            if min(channel.asked_to_close, channel.failed, channel.life.ended, book.end) > asked + ANSWERED_WITHIN_US:
                yield f"{publish.event.id} had no answer for {ANSWERED_WITHIN_US // US} s"


@line(28, "ready and credit meet ≤ 1 s")
def ready_and_credit_meet(book: Book) -> Iterator[str]:
    """A message never sent yet does not wait beside a consumer that could take it and is given nothing."""
    for (id, name, deaths), deliveries in book.copies.items():
        publish, first = book.publishes[id], deliveries[0]
        ready = max(publish.answered, book.faults_over)
        if deaths or first.event.redelivered or first.time <= ready + MET_WITHIN_US:
            continue
        if first.life is not publish.channel.life or book.queue(name).rules.single_active:
            continue
        for consumer in book.queue(name).consumers:
            if any(until - since > MET_WITHIN_US for since, until in idle(consumer, ready, first.time)):
                yield f"{id} waits in queue {name!r} beside {consumer.channel.key[0]}"
                break


def idle(consumer: Consumer, since: float, until: float) -> Iterator[tuple[float, float]]:
    """When, between these times, a consumer had credit and was given nothing."""
    since, until = max(since, consumer.ready), min(until, consumer.ended)
    times = [delivery.time for delivery in consumer.deliveries]
    bounds = [since, *(time for time in times if since < time < until), until]
    prefetch = consumer.event.prefetch
    for start, end in zip(bounds, bounds[1:], strict=False):
        if prefetch and not consumer.event.no_ack:
            needed = bisect_right(times, start) - prefetch + 1      # answers that make room
            if needed > len(consumer.settles):
                continue
            if needed > 0:
                start = max(start, consumer.settles[needed - 1])
        yield start, end


@line(29, "the drain ends")
def the_drain_ends(book: Book) -> Iterator[str]:
    """Every queue that was to be emptied was found empty."""
    left = set[str]()
    for event in book.events:
        if event.act == "drain":
            (left.add if event.type == "invoke" else left.discard)(event.queue)
    yield from (f"queue {name!r} was never empty" for name in sorted(left))


@line(30, "unblocked ≤ 2 s")
def unblocked(book: Book) -> Iterator[str]:
    """After the last alarm has ended, of those that are still there."""
    alarms = 0
    since = NEVER
    blocked: set[str] = set()
    overdue: list[tuple[str, float]] = []
    for event in book.events:
        if since + UNBLOCKED_WITHIN_US < event.time:
            overdue += [(name, since) for name in sorted(blocked)]
            blocked.clear()
        if event.act == "alarm":
            alarms += 1 if event.type == "invoke" else -1
            since = NEVER if alarms else event.time
        elif event.act == "blocked":
            blocked.add(event.connection)
        elif event.act == "unblocked" or (event.act == "connection" and event.type != "ok"):
            blocked.discard(event.connection)
        elif event.act in ("kill", "stop"):
            blocked.clear()
    yield from (f"{name} is still blocked long after {since / US:.1f} s" for name, since in overdue)


@line(31, "dead connections gone ≤ 2.5 heartbeats")
def dead_connections_gone(book: Book) -> Iterator[str]:
    """Counted from when the peer was not heard any more."""
    beats = {event.connection: event.heartbeat_s for event in book.events if event.heartbeat_s}
    gone = {event.connection: event.time for event in book.events if event.act == "gone"}
    for event in book.events:
        beat = beats.get(event.connection)
        if event.act == "silence" and beat:
            limit = event.time + HEARTBEATS * beat * US
            if gone.get(event.connection, NEVER) > limit and book.end > limit:
                yield f"{event.connection} is there {HEARTBEATS} × {beat} s after it fell silent"
