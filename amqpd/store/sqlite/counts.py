"""Keep the numbers of messages in a store up to date: each batch tells how many it adds and removes."""

from __future__ import annotations

import sqlite3

from amqpd.store.sqlite.statements import COUNT_MESSAGES


class MessageCounts:
    """`messages` wait in queues; `damaged` ones were set aside."""

    def __init__(self) -> None:
        self.messages = self.damaged = 0

    def count(self, connection: sqlite3.Connection) -> None:
        """Count all rows, at start, and after messages were set aside. Raises sqlite3.Error."""
        self.messages, = connection.execute(COUNT_MESSAGES).fetchone()
        self.damaged, = connection.execute("SELECT count(*) FROM damaged").fetchone()
