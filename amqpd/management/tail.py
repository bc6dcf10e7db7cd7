"""Follow the messages that come to an exchange or to a queue, as records, without changing what happens to them.

    async with Tail(vhost, exchange="events", key="order.#") as tail:
        async for record in tail: ...

The feed is bounded; publishers never wait for a reader. See `management/streams.py`, `broker/taps.py`.
"""

from __future__ import annotations

from amqpd.broker.feed import Feed
from amqpd.broker.key_patterns import key_matcher
from amqpd.broker.taps import Seen, Tap
from amqpd.broker.vhost import Vhost
from amqpd.management.message_records import payload_record, properties_record
from amqpd.management.streams import Record, Stream

MOST_PAYLOAD = 50_000       # bytes of a body that are shown


class Tail(Stream[Seen]):
    """The messages that come to one exchange, or to one queue, whose routing key or CC matches the pattern `key`.

    Messages come to an exchange from clients, through bindings, as an alternate exchange, or as dead letters. Of a
    body, `most_payload` bytes are shown.
    """

    def __init__(
        self, vhost: Vhost, *, exchange: str | None = None, queue: str | None = None, key: str = "#",
        most_payload: int = MOST_PAYLOAD, feed: Feed[Seen] | None = None,
    ) -> None:
        self._vhost = vhost
        self._most_payload = most_payload
        self._tap = Tap(feed or Feed(), exchange=exchange, queue=queue, wants_key=key_matcher([key]))
        super().__init__(self._tap.feed, self._record, self._leave_tap)
        self._tap.on_end = self.close
        vhost.taps.begin(self._tap)

    def _leave_tap(self, feed: Feed[Seen]) -> None:
        self._vhost.taps.leave(self._tap)

    def _record(self, seen: Seen) -> Record:
        message, client = seen.message, seen.client
        return {
            "timestamp_in_ms": seen.at_ms,
            "vhost": self._vhost.name,
            "exchange": message.route.exchange,
            "routing_key": message.route.routing_key,
            "routing_keys": list(seen.keys),
            "routed_queues": list(seen.queues),
            "connection": client.connection if client else "",
            "channel": client.channel if client else 0,
            "user": client.user if client else "",
            "is_dead_letter": client is None,
            "properties": properties_record(message),
            **payload_record(message, self._most_payload),
        }
