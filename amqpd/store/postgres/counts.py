"""Keep the numbers of messages in a store up to date: each transaction tells how many it adds and removes."""

from __future__ import annotations

from amqpd.store.postgres.database import UNKNOWN, Database, Rows

_COUNT = """
    SELECT (SELECT count(*) FROM message_rows) + (
        SELECT coalesce(sum(CASE WHEN flags IS NULL THEN count
                            ELSE length(replace(encode(flags, 'escape'), '-', '')) END), 0)
        FROM message_blocks AS block LEFT JOIN block_flags AS flag ON flag.first = block.first)::bigint,
        (SELECT count(*) FROM damaged), EXISTS (SELECT FROM entries)"""


class MessageCounts:
    """`messages` wait in queues; `damaged` ones were set aside; `has_shared` if some may be in several queues.

    Changes within a transaction are staged until `keep`, or dropped by `forget`.
    """

    def __init__(self, database: Database) -> None:
        self.messages = self.damaged = 0
        self.has_shared = False
        self._database = database
        self._added = 0

    def count(self) -> None:
        """Count all rows, at start, and after messages were set aside. Raises StoreError."""
        self.messages, self.damaged, self.has_shared = self._database.read(_COUNT)[0]

    def add(self, count: int) -> None:
        """Stage that so many messages are added."""
        self._added += count

    def note_removed(self, count: int, rows: Rows) -> None:
        """Note that a statement removed so many messages, which is not known if the answer was lost."""
        if count == UNKNOWN:
            self.count()
        else:
            self._added -= count

    def keep(self) -> None:
        """Note that the changes are committed; counts of rows are noted after this."""

    def forget(self) -> None:
        """End the transaction."""
        self.messages += self._added
        self._added = 0
