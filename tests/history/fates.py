"""Compute what happened to each copy of a message, and when it may or must have left; several lines need this."""

from __future__ import annotations

from enum import Enum, auto

from tests.history.book import NEVER, Book, Delivery, Life, Publish, Queue

MS = 1000


class Fate(Enum):
    """How a copy has left its queue at the end of the history."""

    SETTLED = auto()        # by a client's answer
    EXCUSED = auto()        # deleted, purged, transient over a restart, or still with a client
    DEAD = auto()           # rejected, or maybe expired, dropped or given back too often
    LOST = auto()


def is_safe(book: Book, publish: Publish) -> bool:
    """Whether the broker took responsibility: by an answer, or by showing the message after a restart."""
    if publish.event.in_tx:
        return publish.commit is not None and (publish.commit.done < NEVER or outlived(book, publish))
    return publish.answer == "ok" or (publish.answer != "fail" and outlived(book, publish))


def outlived(book: Book, publish: Publish) -> bool:
    """Whether it was seen in a later life than the one it was published in."""
    return any(delivery.life is not publish.channel.life for delivery in deliveries_of(book, publish))


def deliveries_of(book: Book, publish: Publish) -> list[Delivery]:
    """Every delivery of any copy."""
    return [delivery for key in book.by_message.get(publish.event.id, ()) for delivery in book.copies[key]]


def fate(book: Book, publish: Publish, name: str, deaths: int = 0) -> Fate:
    """What became of the copy in one queue."""
    queue, deliveries = book.queue(name), book.copies.get((publish.event.id, name, deaths), ())
    outlives = publish.event.persistent and queue.rules.durable
    if not outlives and publish.channel.life is not book.life:
        return Fate.EXCUSED
    if any(asked > publish.event.time for asked, _ in queue.losses):
        return Fate.EXCUSED
    kept = [delivery for delivery in deliveries if delivery.outcome or not delivery.is_late]    # others are back
    if kept:
        last = kept[-1]
        if last.outcome in ("ack", "auto"):
            return Fate.SETTLED
        if last.outcome == "nack":
            return Fate.DEAD
        if not last.outcome and last.channel.ended == NEVER and last.life.ended == NEVER:
            return Fate.EXCUSED
    has_died = any(
        key[2] == deaths + 1 and book.copies[key][0].event.deaths[0].queue == name
        for key in book.by_message.get(publish.event.id, ()))
    return Fate.DEAD if has_died or may_die(book, publish, queue, deaths) else Fate.LOST


def may_die(book: Book, publish: Publish, queue: Queue, deaths: int = 0) -> bool:
    """Whether the queue itself may have let it go."""
    if queue.rules.max_length is not None and queue.rules.overflow == "drop-head":
        return True
    if queue.rules.delivery_limit is not None:
        return True
    ttl = ttl_us(publish, queue, deaths)
    if ttl is None:
        return False
    return deaths > 0 or may_have_ended(book, publish, ttl, book.life, book.end)


def ttl_us(publish: Publish, queue: Queue, deaths: int = 0) -> int | None:
    """How long it may wait there; a dead letter has no expiration of its own."""
    own = None if deaths else publish.event.ttl_ms
    given = [ttl for ttl in (own, queue.rules.ttl_ms) if ttl is not None]
    return min(given) * MS if given else None


def ends(book: Book, publish: Publish, ttl: int, life: Life) -> tuple[float, float]:
    """Between when and when it ends in this life of the broker.

    Within a life time is monotonic. A restart goes by the wall clock, and never gives more than the whole time again.
    """
    born = publish.channel.life
    taken = publish.answered if publish.commit is None else publish.commit.done
    first, last = publish.event.time + ttl, taken + ttl
    wall = first + born.shift_us, last + born.shift_us
    if life is born:
        return first, last
    return (_after_restart(life.asked, wall[0] - life.shift_us, ttl),
            _after_restart(life.ready, wall[1] - life.shift_us, ttl))


def may_have_ended(book: Book, publish: Publish, ttl: int, life: Life, time: float) -> bool:
    """Whether it may have ended by this time of this life, or in one before."""
    lives = book.lives[publish.channel.life.number:life.number + 1]
    return any(ends(book, publish, ttl, one)[0] <= (time if one is life else book.over(one)) for one in lives)


def _after_restart(now: float, end: float, ttl: int) -> float:
    return now + min(ttl, max(0, end - now))
