"""Commands that show what happens as it happens, and the firehose.

Those that follow something answer with a stream of records; see `management/streams.py`.
"""

from __future__ import annotations

from amqpd.broker.broker import Broker
from amqpd.broker.events import Event
from amqpd.broker.feed import Feed
from amqpd.broker.key_patterns import key_matcher
from amqpd.exit_codes import EXIT_DATA, EXIT_TEMPORARY
from amqpd.management.event_records import event_record
from amqpd.management.refusal import Refusal, exchange_of, queue_of, vhost_of
from amqpd.management.streams import Stream
from amqpd.management.tail import MOST_PAYLOAD, Tail

MOST_PATTERNS, LONGEST_PATTERN = 50, 255
MOST_STREAMS = 32       # of all clients


class ObservingCommands:
    """The commands that follow what happens in one broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def events(self, patterns: list[str] | None = None) -> Stream[Event]:
        """Follow the events whose names match one of these patterns, such as "queue.*"; without patterns, all."""
        wanted = patterns or ["#"]
        if len(wanted) > MOST_PATTERNS or any(len(pattern) > LONGEST_PATTERN for pattern in wanted):
            raise Refusal(
                f"at most {MOST_PATTERNS} patterns of {LONGEST_PATTERN} characters can be followed", EXIT_DATA)
        self._check_room()
        feed: Feed[Event] = Feed()
        stream = Stream(feed, event_record, self._broker.events.leave)
        self._broker.events.listen(feed, key_matcher(wanted))
        return stream

    def tail(
        self, vhost: str, exchange: str | None = None, queue: str | None = None, key: str = "#",
        most_payload: int = MOST_PAYLOAD,
    ) -> Tail:
        """Follow the messages that come to an exchange or to a queue; `key` is a pattern of routing keys."""
        home = vhost_of(self._broker, vhost)
        if (exchange is None) == (queue is None):
            raise Refusal("either an exchange or a queue can be followed", EXIT_DATA)
        if exchange is not None:
            exchange_of(home, exchange)
        if queue is not None:
            queue_of(self._broker, vhost, queue)
        if len(key) > LONGEST_PATTERN:
            raise Refusal(f"a pattern may have at most {LONGEST_PATTERN} characters", EXIT_DATA)
        self._check_room()
        return Tail(home, exchange=exchange, queue=queue, key=key, most_payload=max(0, most_payload))

    def _check_room(self) -> None:
        tails = sum([len(vhost.taps.tails) for vhost in self._broker.vhosts.values()])
        if len(self._broker.events.listeners) + tails >= MOST_STREAMS:
            raise Refusal(f"{MOST_STREAMS} clients follow what happens already", EXIT_TEMPORARY)

    # The firehose, until the next start

    def trace_on(self, vhost: str) -> None:
        """Turn the firehose of a vhost on."""
        vhost_of(self._broker, vhost).taps.trace(is_on=True)

    def trace_off(self, vhost: str) -> None:
        """Turn the firehose of a vhost off."""
        vhost_of(self._broker, vhost).taps.trace(is_on=False)
