"""Release contents that are on disk, of unacked messages and of those answered in a transaction.

RabbitMQ docs/persistence-conf.
"""

from __future__ import annotations

from collections.abc import Iterable

from amqpd.session.commit import Unacked


def release_contents(deliveries: dict[int, Unacked], tags: Iterable[int], small: int) -> int:
    """Replace those of these deliveries that are on disk, and larger than `small` bytes, by references.

    Return the first tag that has to wait for its commit, or 0.
    """
    first_waiting = 0
    for tag in tags:
        found = deliveries.get(tag)
        if found is None or len(found[0].content) <= small:
            continue
        message, consumer = found
        records = consumer.queue.records
        if not records.keeps(message):
            continue
        reference = records.release(message)
        if reference is not None:
            deliveries[tag] = reference, consumer
        elif not first_waiting:
            first_waiting = tag
    return first_waiting
