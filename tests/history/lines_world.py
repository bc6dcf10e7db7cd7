"""Lines about dead letters, limits, definitions and counts."""

from __future__ import annotations

from collections.abc import Iterator

from tests.history.book import NEVER, Book, Channel, Delivery, Publish, Queue
from tests.history.events import Death, Event
from tests.history.fates import Fate, fate, is_safe, ttl_us
from tests.history.lines import line
from tests.history.lines_messages import told

Key = tuple[str, str]
ARROW = " -> "                  # in the name of a binding, between exchange and queue


@line(17, "dead letters move, x-death right")
def dead_letters_move(book: Book) -> Iterator[str]:
    """Never both, never neither, and with the true reason."""
    for publish in book.publishes.values():
        copies = sorted(book.by_message.get(publish.event.id, ()), key=lambda key: key[2])
        for key in copies:
            if key[2]:
                yield from wrong_deaths(book, publish, book.copies[key])
        if is_safe(book, publish):
            yield from vanished(book, publish, publish.event.to, 0)


def wrong_deaths(book: Book, publish: Publish, deliveries: list[Delivery]) -> Iterator[str]:
    """What is wrong with one dead letter."""
    for delivery in deliveries:
        last = delivery.event.deaths[0]
        source = book.queue(last.queue)
        before = sum(death.count for death in delivery.event.deaths) - 1
        if delivery.event.queue not in source.dead_to or (not before and last.queue not in publish.event.to):
            yield f"{told(delivery)} says it died in {last.queue!r}, which does not lead there"
        elif not has_reason(book, publish, source, last, before, delivery.time):
            yield f"{told(delivery)} says {last.reason!r}, which nothing in {last.queue!r} explains"
        for alive in book.copies.get((publish.event.id, last.queue, before), ()):
            if alive.life is delivery.life and alive.sent_after >= delivery.time:
                yield f"{told(alive)} is dead, and alive"
                return


def has_reason(book: Book, publish: Publish, source: Queue, death: Death, before: int, time: float) -> bool:
    """Return whether a queue may have dropped a message for the given reason."""
    if death.reason == "rejected":
        deliveries = book.copies.get((publish.event.id, source.name, before), ())
        return any(delivery.outcome == "nack" and delivery.ended <= time for delivery in deliveries)
    if death.reason == "expired":
        return ttl_us(publish, source, before) is not None
    if death.reason == "maxlen":
        return source.rules.max_length is not None
    return death.reason == "delivery_limit" and source.rules.delivery_limit is not None


def vanished(book: Book, publish: Publish, names: tuple[str, ...], deaths: int) -> Iterator[str]:
    """Where a message died, and is not where it should have gone."""
    for name in names:
        if fate(book, publish, name, deaths) is not Fate.DEAD:
            continue
        for target in book.queue(name).dead_to:
            if fate(book, publish, target, deaths + 1) is Fate.LOST:
                yield f"{publish.event.id} died in queue {name!r} and is lost from {target!r}"
        if deaths < len(book.queues):
            yield from vanished(book, publish, book.queue(name).dead_to, deaths + 1)


@line(18, "limits after every publish")
def limits_after_every_publish(book: Book) -> Iterator[str]:
    """What was given back may go beyond a limit, until the next publish."""
    for event in book.events:
        queue = book.queues.get(event.queue)
        if event.act != "count" or queue is None or queue.rules.max_length is None:
            continue
        if event.count > queue.rules.max_length and was_published_since(
                book, queue, last_return(book, queue, event), event.time):
            yield f"queue {queue.name!r} has {event.count} ready, and may have {queue.rules.max_length}"


def last_return(book: Book, queue: Queue, event: Event) -> float:
    """When something last came back to a queue before this; NEVER if it may be coming back right now."""
    life = book.channels[event.connection, event.channel].life
    latest = life.ready
    for consumer in queue.consumers:
        if consumer.channel.life is life and consumer.channel.ended < event.time:
            latest = max(latest, consumer.channel.gone)
    for (_, name, _), deliveries in book.copies.items():
        if name == queue.name:
            for delivery in deliveries:
                if delivery.life is life and delivery.outcome in ("", "requeue") and delivery.ended < event.time:
                    latest = max(latest, delivery.back_by)
    return latest


def was_published_since(book: Book, queue: Queue, since: float, time: float) -> bool:
    """Whether the queue has taken a message between these times."""
    return any(
        queue.name in publish.event.to and publish.answer == "ok" and since < publish.event.time
        and publish.answered <= time for publish in book.publishes.values())


@line(19, "definitions stay, deletions stay")
def definitions_stay(book: Book) -> Iterator[str]:
    """An answered definition is in force; an unanswered one may be, until a client checks it."""
    known: dict[Key, bool | None] = {}
    fleeting: set[Key] = set()
    for event in book.events:
        if event.act == "start":
            known = {key: there for key, there in known.items() if key not in fleeting}
        elif event.act == "see" and event.type != "invoke":
            there = event.type == "ok"
            before = known.get((event.kind, event.name), there)
            if before is not None and before is not there:
                yield f"{event.kind} {event.name!r} was {'declared and is gone' if before else 'deleted and is back'}"
            known[event.kind, event.name] = there
        elif event.act in ("declare", "delete", "bind", "unbind"):
            if event.rules and (event.rules.exclusive or not event.rules.durable):
                fleeting.add((event.kind, event.name))
            change(known, event)
    yield from back_from_deletion(book)


def change(known: dict[Key, bool | None], event: Event) -> None:
    """Note what is asked for and what is done."""
    there = event.act in ("declare", "bind")
    keys = {(event.kind, event.name)}
    if event.act == "delete":
        at = 0 if event.kind == "exchange" else 1
        keys |= {key for key in known if key[0] == "binding" and key[1].split(ARROW)[at] == event.name}
    for key in keys:
        if event.type == "ok":
            known[key] = there
        elif event.type == "invoke" and known.get(key) is not there:
            known[key] = None


def back_from_deletion(book: Book) -> Iterator[str]:
    """What was in a queue when it was deleted or emptied."""
    for (id, name, _), deliveries in book.copies.items():
        published = book.publishes[id].event.time
        for asked, answered in book.queue(name).losses:
            for delivery in deliveries:
                if published < asked and answered <= delivery.sent_after and not delivery.event.deaths:
                    if book.publishes[id].answered <= asked or delivery.life.asked > answered:
                        yield f"{told(delivery)} was in it when it was deleted"


@line(26, "counts agree at rest")
def counts_agree(book: Book) -> Iterator[str]:
    """Who counts, and then takes all there is, finds as many."""
    restless = restless_queues(book)
    for event in book.events:
        if event.act == "count" and event.is_at_rest and event.queue not in restless:
            channel = book.channels[event.connection, event.channel]
            found = taken_after(channel, event)
            if found != event.count and channel.failed == NEVER:
                yield f"queue {event.queue!r} says {event.count}, and gives {found} in life {channel.life.number}"


def restless_queues(book: Book) -> set[str]:
    """Those whose messages may end at any time, and those where these go."""
    restless = {name for publish in book.publishes.values() if publish.event.ttl_ms is not None
                for name in publish.event.to}
    restless |= {queue.name for queue in book.queues.values() if queue.rules.ttl_ms is not None}
    while more := {target for name in restless for target in book.queue(name).dead_to} - restless:
        restless |= more
    return restless


def taken_after(channel: Channel, event: Event) -> int:
    """How many a channel was given from a queue after it had counted."""
    return sum(delivery.event.queue == event.queue and delivery.time >= event.time for delivery in channel.deliveries)
