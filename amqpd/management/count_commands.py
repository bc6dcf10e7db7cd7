"""Counts of all queues, or of all connections, for a table that is drawn again and again: few columns, in slices.

The lists of `list_commands` have all columns, and are made in one go.
"""

from __future__ import annotations

import asyncio
from typing import Any

from amqpd.broker.broker import Broker
from amqpd.management.refusal import vhost_of

AT_ONCE = 200               # queues or connections

Counts = dict[str, Any]
QUEUE_COLUMNS = ("name", "ready", "unacked", "consumers", "published", "delivered", "acked")
CONNECTION_COLUMNS = (
    "name", "user", "vhost", "state", "channels", "received_bytes", "sent_bytes", "unsent_bytes", "number")


class CountCommands:
    """The counts of one broker. `now_ms` in an answer is the broker's clock, to tell the time between two answers."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def count_queues(self, vhost: str) -> Counts:
        """Return what came to each queue of a vhost and left it since the start; `delivered` includes basic.get."""
        rows = []
        for at, queue in enumerate([*vhost_of(self._broker, vhost).queues.values()], 1):
            one = queue.statistics()
            rows.append([queue.name, one.ready, one.unacked, one.consumers, one.published, one.delivered + one.got,
                         one.acked])
            if at % AT_ONCE == 0:
                await asyncio.sleep(0)
        return {"columns": QUEUE_COLUMNS, "rows": rows, "now_ms": self._broker.clock.now_ms}

    async def count_connections(self) -> Counts:
        """Return the bytes that each connection has received and sent."""
        rows = []
        for at, (number, connection) in enumerate([*self._broker.connections.items()], 1):
            one = connection.statistics()
            rows.append([one.name, one.user, one.vhost, one.state, one.channels, one.received_bytes, one.sent_bytes,
                         one.unsent_bytes, number])
            if at % AT_ONCE == 0:
                await asyncio.sleep(0)
        return {"columns": CONNECTION_COLUMNS, "rows": rows, "now_ms": self._broker.clock.now_ms}
