"""Lines about each message: it is delivered, unchanged, once, and not again after it was acked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from tests.history.book import NEVER, Book, CopyKey, Delivery, Publish
from tests.history.events import Event
from tests.history.fates import Fate, deliveries_of, fate, is_safe, may_die, outlived
from tests.history.lines import line


def told(delivery: Delivery) -> str:
    """A delivery in words."""
    event = delivery.event
    return (f"{event.id} from queue {event.queue!r} as delivery {event.tag} of {delivery.channel.key[0]}"
            f" in life {delivery.life.number}")


def lost_in(book: Book, publish: Publish) -> Iterator[str]:
    """The queues where a message has to have come out and has not."""
    for name in publish.event.to:
        if fate(book, publish, name) is Fate.LOST:
            seen = len(book.copies.get((publish.event.id, name, 0), ()))
            yield f"{publish.event.id} is lost from queue {name!r} after {seen} deliveries"


@line(1, "confirmed is delivered, per queue of its route")
def confirmed_is_delivered(book: Book) -> Iterator[str]:
    """Also what was seen after a restart, as that has been on disk."""
    for publish in book.publishes.values():
        if not publish.event.in_tx and is_safe(book, publish):
            yield from lost_in(book, publish)
    yield from missing_at_rest(book)


def missing_at_rest(book: Book) -> Iterator[str]:
    """What was not there when somebody took all there was, and came later."""
    published: dict[str, list[Publish]] = defaultdict(list)
    for publish in book.publishes.values():
        for name in publish.event.to:
            published[name].append(publish)
    for event in book.events:
        if event.act != "count" or not event.is_at_rest:
            continue
        channel = book.channels[event.connection, event.channel]
        taken = {delivery.event.id for delivery in channel.deliveries if delivery.time > event.time}
        for publish in published[event.queue]:
            if publish.answered < event.time and publish.answer == "ok" and publish.event.id not in taken:
                if has_come_back(book, publish, event):
                    yield f"{publish.event.id} is missing from queue {event.queue!r} in life {channel.life.number}"


def has_come_back(book: Book, publish: Publish, event: Event) -> bool:
    """Whether a message that was not there had no reason to be gone, and comes later."""
    if may_die(book, publish, book.queue(event.queue)):
        return False
    deliveries = book.copies.get((publish.event.id, event.queue, 0), ())
    before = [delivery.outcome for delivery in deliveries if delivery.time < event.time]
    return len(before) < len(deliveries) and not {"ack", "auto", "nack"} & set(before)


@line(2, "delivered was published, unaltered")
def delivered_was_published(book: Book) -> Iterator[str]:
    """And to the queue it comes from."""
    for stray in book.strays:
        yield f"{told(stray)} was never published"
    for (id, queue, deaths), deliveries in book.copies.items():
        event = book.publishes[id].event
        heads = {event.head, event.bare or event.head} if deaths else {event.head}
        for delivery in deliveries:
            if delivery.event.sha != event.sha or delivery.event.head not in heads:
                yield f"{told(delivery)} is not what was published"
            if not deaths and queue not in event.to:
                yield f"{told(delivery)} was not published to that queue"


@line(3, "nacked stays out")
def nacked_stays_out(book: Book) -> Iterator[str]:
    """Of several queues one may refuse and others take it: then it is not out."""
    for publish in book.publishes.values():
        if publish.answer == "fail" and len(publish.event.to) == 1:
            for delivery in book.copies.get((publish.event.id, publish.event.to[0], 0), ()):
                yield f"{told(delivery)} was nacked"


def overlapping(book: Book) -> Iterator[tuple[Delivery, Delivery]]:
    """Two deliveries of one copy, the second sent while the first was held for sure."""
    for deliveries in book.copies.values():
        held: Delivery | None = None
        for delivery in deliveries:
            if delivery.is_late:
                continue
            if held and delivery.time < held.ended and delivery.life is held.life:
                yield held, delivery
            if held is None or delivery.ended > held.ended or delivery.life is not held.life:
                held = delivery


@line(4, "one copy per queue")
def one_copy_per_queue(book: Book) -> Iterator[str]:
    """Two at once with one client."""
    for first, second in overlapping(book):
        if first.channel is second.channel:
            yield f"{told(second)} is there as delivery {first.event.tag} already"


@line(5, "one holder")
def one_holder(book: Book) -> Iterator[str]:
    """Not two clients at once."""
    for first, second in overlapping(book):
        if first.channel is not second.channel:
            yield f"{told(second)} is with {first.channel.key[0]} as well"


@line(6, "redelivered false once, and first")
def redelivered_false_once_and_first(book: Book) -> Iterator[str]:
    """A death may be undone by a crash: then the next dead letter is a new one."""
    for key, deliveries in book.copies.items():
        for at, delivery in enumerate(deliveries):
            if not delivery.event.redelivered:
                before = [one for one in deliveries[:at] if precedes(key, one, delivery)]
                if before:
                    yield f"{told(delivery)} was delivered before and says it was not"


def precedes(key: CopyKey, one: Delivery, delivery: Delivery) -> bool:
    """Whether one was sent before the other, of the same copy."""
    if one.life is not delivery.life:
        return not key[2] or one.time < one.life.last_sure
    return not delivery.is_late or not one.event.redelivered


def done_before(book: Book, outcomes: tuple[str, ...]) -> Iterator[tuple[Delivery, Delivery]]:
    """A delivery that was answered like this for good, and the one that came nevertheless."""
    for deliveries in book.copies.values():
        for first, second in pairwise(delivery for delivery in deliveries if not delivery.is_late):
            if first.outcome not in outcomes or first.commit:
                continue
            if first.life is not second.life:
                holds = first.is_sure
            else:
                holds = first.received < NEVER or second.time < first.channel.ended
            if holds:
                yield first, second


@line(7, "a second delivery has a cause")
def a_second_delivery_has_a_cause(book: Book) -> Iterator[str]:
    """What was rejected is not there any more, nor what was sent to one who does not answer."""
    for first, second in done_before(book, ("nack", "auto")):
        yield f"{told(second)} was done with by delivery {first.event.tag} of {first.channel.key[0]}"


@line(8, "acks hold")
def acks_hold(book: Book) -> Iterator[str]:
    """Those that the last moments before a crash may have undone are excused."""
    for first, second in done_before(book, ("ack",)):
        yield f"{told(second)} was acked as delivery {first.event.tag} of {first.channel.key[0]}"


@line(20, "transient is gone")
def transient_is_gone(book: Book) -> Iterator[str]:
    """Messages and queues, after any restart."""
    for publish in book.publishes.values():
        if not publish.event.persistent:
            for delivery in deliveries_of(book, publish):
                if delivery.life is not publish.channel.life:
                    yield f"{told(delivery)} is transient and of life {publish.channel.life.number}"
    lives: dict[str, int] = {}
    life = 0
    for event in book.events:
        if event.act == "start" and event.type == "invoke":
            life += 1
        elif event.act == "declare" and event.rules and (event.rules.exclusive or not event.rules.durable):
            lives[event.name] = life
        elif event.act == "see" and event.type == "ok" and lives.get(event.name, life) < life:
            yield f"queue {event.name!r} of life {lives[event.name]} is there in life {life}"


@line(21, "transactions whole")
def transactions_whole(book: Book) -> Iterator[str]:
    """All of it or nothing, publishes and acks."""
    for publish in book.publishes.values():
        if publish.event.in_tx and publish.commit is None and deliveries_of(book, publish):
            yield f"{publish.event.id} was never committed and is there"
    for commit in book.commits:
        if commit.done < NEVER or any(outlived(book, publish) for publish in commit.publishes):
            for delivery in commit.deliveries:
                yield from (f"{told(again)} was acked in a transaction" for again in after(book, delivery))
            for publish in commit.publishes:
                yield from (f"{text}, of a transaction" for text in lost_in(book, publish))


def after(book: Book, delivery: Delivery) -> list[Delivery]:
    """The deliveries of the same copy that came later."""
    event = delivery.event
    if event.id not in book.publishes:
        return []
    deliveries = book.copies[event.id, event.queue, sum(death.count for death in event.deaths)]
    return deliveries[deliveries.index(delivery) + 1:]
