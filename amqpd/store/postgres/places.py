"""Describe in which queues messages of the store are, for logs of damage."""

from __future__ import annotations

from collections.abc import Sequence

from amqpd.broker.arguments import describe_queue
from amqpd.store.postgres.database import Database
from amqpd.store.postgres.texts import from_text, numbers

_QUEUES_OF = """
    SELECT vhost, name FROM queue_rows WHERE number IN (
        SELECT queue FROM message_rows WHERE number = ANY(%s::bigint[])
        UNION SELECT queue FROM entries WHERE number = ANY(%s::bigint[])
        UNION SELECT queue FROM message_blocks WHERE first = ANY(%s::bigint[]))
    ORDER BY vhost, name"""


def queues_of(database: Database, messages: Sequence[int], blocks: Sequence[int]) -> list[str]:
    """Describe the queues of these messages, and of blocks with these first numbers. Raises StoreError."""
    listed = numbers(messages)
    return [describe_queue(from_text(name), from_text(vhost))
            for vhost, name in database.read(_QUEUES_OF, (listed, listed, numbers(blocks)))]
