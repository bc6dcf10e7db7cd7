"""The line about the time to live of messages."""

from __future__ import annotations

from collections.abc import Iterator

from tests.history.book import Book
from tests.history.fates import ends, is_safe, may_have_ended, ttl_us
from tests.history.lines import line
from tests.history.lines_messages import told

TOLERANCE_US = 20_000           # clocks are compared in whole milliseconds, twice


@line(16, "never late, never early")
def never_late_never_early(book: Book) -> Iterator[str]:
    """No delivery is sent after the end, and nothing expires before it."""
    for (id, name, deaths), deliveries in book.copies.items():
        publish = book.publishes[id]
        for delivery in deliveries:
            expired = delivery.event.deaths and delivery.event.deaths[0].reason == "expired"
            source = delivery.event.deaths[0].queue if expired else name
            ttl = ttl_us(publish, book.queue(source))
            if ttl is None or deaths > 1 or (deaths and not expired):
                continue
            first, last = ends(book, publish, ttl, delivery.life)
            if expired and not may_have_ended(book, publish, ttl, delivery.life, delivery.time + TOLERANCE_US):
                yield f"{told(delivery)} expired {(first - delivery.time) / 1000:.0f} ms early"
            elif not expired and delivery.sent_after > last + TOLERANCE_US:
                yield f"{told(delivery)} comes {(delivery.sent_after - last) / 1000:.0f} ms late"
    yield from missing_early(book)


def missing_early(book: Book) -> Iterator[str]:
    """What should still have been there when its queue was found empty."""
    empty = {event.queue: event.time for event in book.events if event.act == "drain" and event.type == "ok"}
    for publish in book.publishes.values():
        for name in publish.event.to:
            queue, drained = book.queue(name), empty.get(name, 0)
            ttl = ttl_us(publish, queue)
            if ttl is None or queue.rules.max_length is not None or queue.losses or not is_safe(book, publish):
                continue
            outlives = publish.event.persistent and queue.rules.durable
            if book.by_message.get(publish.event.id) or not (outlives or publish.channel.life is book.life):
                continue
            was_due = may_have_ended(book, publish, ttl, book.life, drained + TOLERANCE_US)
            if publish.answered <= drained and not was_due:
                yield f"{publish.event.id} is not in queue {name!r} any more, before its end"
