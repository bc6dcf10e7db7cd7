"""Who holds which messages of a queue, and since when: the deliveries that no client has settled yet.

Every delivery of the queue's vhost has to be visited, one channel at a time, and only up to `MOST_VISITED`: beyond
that, the answer says that it is not complete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from amqpd.broker.broker import Broker, Connection
from amqpd.broker.queue.queue import Queue
from amqpd.broker.statistics import UnackedDelivery
from amqpd.exit_codes import EXIT_DATA
from amqpd.management import listings
from amqpd.management.refusal import Refusal, queue_of

MOST_VISITED = 200_000      # deliveries; a channel is always visited as a whole
MOST_AT_ONCE = 10_000       # deliveries in an answer

UNACKED_COLUMNS = (
    "position", "id", "consumer_tag", "channel_pid", "connection", "user", "delivery_tag", "unacked_for_ms",
    "delivery_count", "redelivered", "payload_bytes")


class UnackedCommands:
    """The command on unacked messages of one broker. `begin` is called before each slice."""

    def __init__(self, broker: Broker, begin: Callable[[], None], *, most_visited: int = MOST_VISITED) -> None:
        self._broker = broker
        self._begin = begin
        self._most_visited = most_visited

    async def list_unacked(
        self, vhost: str, queue: str, columns: list[str] | None = None, offset: int = 0, count: int = 100
    ) -> dict[str, Any]:
        """List the unacked messages of a queue from the one at `offset`, in the order of the queue.

        `total` is how many there are, `is_complete` whether all deliveries could be visited.
        """
        if not (0 <= offset and 0 <= count <= MOST_AT_ONCE):
            raise Refusal(f"an offset is not negative, and a count is at most {MOST_AT_ONCE}", EXIT_DATA)
        wanted = columns or [*UNACKED_COLUMNS]
        if unknown := [column for column in wanted if column not in UNACKED_COLUMNS]:
            raise Refusal(f"Info key(s) {','.join(unknown)} are not supported", EXIT_DATA)
        home, found = queue_of(self._broker, vhost, queue)
        held: list[tuple[UnackedDelivery, int, Connection]] = []
        visited = 0
        for number, connection in [*self._broker.connections.items()]:
            if connection.vhost_name != home.name or visited >= self._most_visited:
                continue
            visited += connection.unacked_count
            for deliveries in connection.unacked_of(found):
                held += [(delivery, number, connection) for delivery in deliveries]
                await asyncio.sleep(0)
            self._begin()
        held.sort(key=lambda one: one[0].number)
        rows = [self._record(found, offset + place, *one) for place, one in enumerate(held[offset : offset + count])]
        return {
            "columns": wanted, "rows": [[record[column] for column in wanted] for record in rows],
            "total": len(held), "is_complete": len(held) >= found.unacked or visited < self._most_visited}

    def _record(
        self, queue: Queue, place: int, delivery: UnackedDelivery, number: int, connection: Connection
    ) -> listings.Record:
        since = delivery.delivered_ms
        return {
            "position": place,
            "id": delivery.number,
            "consumer_tag": delivery.consumer_tag,
            "channel_pid": listings.pid(number, delivery.channel),
            "connection": connection.statistics().name,
            "user": connection.user_name,
            "delivery_tag": delivery.delivery_tag,
            "unacked_for_ms": None if since is None else max(0, self._broker.clock.now_ms - since),
            "delivery_count": queue.redelivery.deliveries.get(delivery.number, 0),
            "redelivered": queue.redelivery.is_redelivered(delivery),
            "payload_bytes": delivery.body_bytes,
        }
