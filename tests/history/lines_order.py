"""Lines about order: which message comes first, how many at once, and to which consumer."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator

from tests.history.book import NEVER, Book, Channel, Delivery, Publish
from tests.history.lines import line
from tests.history.lines_messages import told

Group = tuple[str, tuple[str, int], int]        # queue, source, priority


def priority_of(book: Book, publish: Publish, queue: str) -> int:
    """The level it has in a queue."""
    return min(publish.event.priority, book.queue(queue).rules.max_priority)


def originals(book: Book, channel: Channel) -> Iterator[tuple[Delivery, Publish]]:
    """What a channel was sent, in its order, dead letters left out."""
    for delivery in channel.deliveries:
        publish = book.publishes.get(delivery.event.id)
        if publish and not delivery.event.deaths:
            yield delivery, publish


def overtaken(book: Book) -> Iterator[tuple[Delivery, Delivery]]:
    """A delivery, and one before it on the same channel that was published after it by the same publisher."""
    for channel in book.channels.values():
        furthest: dict[Group, tuple[int, Delivery]] = {}
        for delivery, publish in originals(book, channel):
            queue = delivery.event.queue
            group = queue, publish.source, priority_of(book, publish, queue)
            seq, other = furthest.get(group, (0, delivery))
            if publish.seq < seq:
                yield delivery, other
            elif publish.seq > seq:
                furthest[group] = publish.seq, delivery


def was_back(book: Book, delivery: Delivery, moment: float) -> bool:
    """Whether a message that may have been with somebody was ready at this moment for sure, and until it was sent.

    Who else consumes there may have held it without having read it.
    """
    event, life = delivery.event, delivery.life
    if not event.redelivered:
        return True
    deliveries = book.copies[event.id, event.queue, 0]
    if any(one.back_by > moment for one in deliveries[:deliveries.index(delivery)]):
        return False
    return not any(
        consumer.channel is not delivery.channel and consumer.channel.life is life
        and consumer.event.time < delivery.time and consumer.channel.gone > moment
        for consumer in book.queue(event.queue).consumers)


@line(9, "FIFO per publisher channel, queue, priority")
def fifo(book: Book) -> Iterator[str]:
    """What was never sent before was ready, so nothing may go before it that came after it."""
    for delivery, other in overtaken(book):
        if not delivery.event.redelivered:
            yield f"{told(delivery)} comes after {other.event.id}"


@line(10, "requeue to the old place")
def requeue_to_the_old_place(book: Book) -> Iterator[str]:
    """What had come back before a later one was sent goes before it."""
    for delivery, other in overtaken(book):
        if delivery.event.redelivered and was_back(book, delivery, other.sent_after):
            yield f"{told(delivery)} was back, and comes after {other.event.id}"


@line(11, "no lower priority first")
def no_lower_priority_first(book: Book) -> Iterator[str]:
    """While a more urgent one was ready for sure."""
    for channel in book.channels.values():
        sent: dict[str, dict[int, Delivery]] = defaultdict(dict)    # queue and level, the one with the latest bound
        for delivery, publish in originals(book, channel):
            queue = delivery.event.queue
            if not book.queue(queue).rules.max_priority:
                continue
            level = priority_of(book, publish, queue)
            for other_level, other in sent[queue].items():
                if other_level < level and was_ready(book, delivery, publish, other.sent_after):
                    yield f"{told(delivery)} has priority {level}, and comes after {other.event.id} with {other_level}"
            latest = sent[queue].get(level)
            if latest is None or latest.sent_after < delivery.sent_after:
                sent[queue][level] = delivery


def was_ready(book: Book, delivery: Delivery, publish: Publish, moment: float) -> bool:
    """Return whether it was in the queue by this moment, and not delivered."""
    taken = publish.answered if publish.commit is None else publish.commit.done
    if publish.channel.life is not delivery.life:
        taken = delivery.life.ready
    return taken <= moment and was_back(book, delivery, moment)


@line(14, "delivery tags 1, 2, 3 …")
def delivery_tags(book: Book) -> Iterator[str]:
    """On each channel."""
    for channel in book.channels.values():
        for expected, delivery in enumerate(channel.deliveries, 1):
            if delivery.event.tag != expected:
                yield f"{told(delivery)} should be delivery {expected}"
                break


@line(15, "unacked ≤ prefetch")
def unacked_within_prefetch(book: Book) -> Iterator[str]:
    """Counted when a delivery is read: what has been answered by then makes room."""
    for channel in book.channels.values():
        for consumer in channel.consumers.values():
            prefetch = consumer.event.prefetch
            if not prefetch or consumer.event.no_ack:
                continue
            for count, delivery in enumerate(consumer.deliveries, 1):
                unacked = count - bisect_right(consumer.settles, delivery.time)
                if unacked > prefetch:
                    yield f"{told(delivery)} makes {unacked} unacked of {prefetch}"


@line(22, "one active consumer")
def one_active_consumer(book: Book) -> Iterator[str]:
    """Who has had a delivery is the active one until it leaves."""
    for queue in book.queues.values():
        if not queue.rules.single_active:
            continue
        active = [consumer for consumer in queue.consumers if consumer.deliveries]
        for consumer in active:
            for other in active:
                since, until = other.deliveries[0].time, other.ended
                if other is consumer or other.channel.life is not consumer.channel.life:
                    continue
                late = min(consumer.ended, NEVER)
                for delivery in consumer.deliveries:
                    if since < delivery.time < min(until, late):
                        yield f"{told(delivery)} while {other.channel.key[0]} is active"
                        break
