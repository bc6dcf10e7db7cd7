"""Who watches the messages of one vhost: the firehose, and tails, which follow an exchange or a queue.

Watching changes nothing of what happens to a message: no binding is added, so a message without a route stays one. A
publisher asks once for each target whether it is watched (`session/targets.py`), and `Routing.version` rises when that
may have changed: without a watcher, the way of a message is the same as if there were no taps.

Always true between calls: a tail's feed is bounded, and what does not fit is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec

from amqpd.broker.clock import Clock
from amqpd.broker.exchange import Exchange
from amqpd.broker.feed import Feed
from amqpd.broker.firehose import TRACE_EXCHANGE, Client, Firehose
from amqpd.broker.queue.queue import Queue
from amqpd.broker.routing import Routing
from amqpd.broker.worklist import Worklist, nothing
from amqpd.message import Message

TAIL_STEPS = 2      # the cost of a message that a tail takes; see broker/effort.py


class Seen(msgspec.Struct, frozen=True):
    """A message that a tail has seen. `client` is None for a dead letter, which the broker publishes itself."""

    at_ms: int      # since 1970
    message: Message
    keys: Sequence[str]
    queues: Sequence[str]
    client: Client | None


class Tap:
    """One tail: of the messages that come to an exchange, or to a queue, with a key that is wanted.

    `feed` has what was seen and not read yet. `on_end` is called if the vhost is deleted.
    """

    def __init__(
        self, feed: Feed[Seen], *, exchange: str | None = None, queue: str | None = None,
        wants_key: Callable[[str], bool] = lambda key: True,
    ) -> None:
        self.feed = feed
        self.on_end: Callable[[], None] = nothing
        self._exchange = exchange
        self._queue = queue
        self._wants_key = wants_key

    def is_reached(self, exchanges: Collection[Exchange], queues: Collection[Queue]) -> bool:
        """Return whether messages that go this way come to what it follows."""
        if self._exchange is not None:
            return any([exchange.name == self._exchange for exchange in exchanges])
        return any([queue.name == self._queue for queue in queues])

    def see(self, at_ms: int, messages: Sequence[Message], keys: Sequence[str], queues: Sequence[str],
            client: Client | None) -> None:
        """Take messages for which `is_reached` is true, if one of their keys is wanted."""
        if any(map(self._wants_key, keys)):
            for message in messages:
                if self.feed.has_room(len(message.content)):
                    self.feed.put(Seen(at_ms, message, keys, queues, client), len(message.content))


class Taps:
    """The watchers of one vhost. `next_number` returns numbers of messages."""

    def __init__(
        self, vhost: str, exchanges: dict[str, Exchange], routing: Routing, worklist: Worklist, clock: Clock,
        next_number: Callable[[], int],
    ) -> None:
        self.is_on = False      # whether anybody watches
        self.firehose: Firehose | None = None
        self.tails: dict[Tap, None] = {}
        self._vhost = vhost
        self._exchanges = exchanges
        self._routing = routing
        self._worklist = worklist
        self._clock = clock
        self._next_number = next_number

    def is_watched(self, exchanges: Collection[Exchange], queues: Collection[Queue]) -> bool:
        """Return whether anybody watches messages that go through these exchanges to these queues."""
        return self.firehose is not None or any([tap.is_reached(exchanges, queues) for tap in self.tails])

    # The firehose

    def trace(self, *, is_on: bool) -> None:
        """Turn the firehose on or off. Copies that wait when it is turned off are still published."""
        if is_on != (self.firehose is not None):
            self.firehose = Firehose(
                self._vhost, self._exchanges[TRACE_EXCHANGE], self._routing, self._worklist, self._next_number
            ) if is_on else None
            self._changed()

    # Tails

    def begin(self, tap: Tap) -> None:
        """Let a tail see messages from now on."""
        self.tails[tap] = None
        self._changed()

    def leave(self, tap: Tap) -> None:
        """Show nothing more to a tail."""
        if self.tails.pop(tap, self) is None:
            self._changed()

    def _changed(self) -> None:
        self.is_on = self.firehose is not None or bool(self.tails)
        self._routing.version += 1

    # What is seen

    def published(
        self, client: Client, exchange: str, exchanges: Collection[Exchange], keys: Sequence[str],
        queues: Collection[Queue], names: Sequence[str], messages: Sequence[Message],
    ) -> None:
        """Show messages with equal properties that a client has published to an exchange with these keys.

        They go through `exchanges` to `queues`; `names` are those of the queues that RabbitMQ would name.
        """
        if self.firehose is not None:
            self.firehose.published(client, exchange, keys, names, messages)
        self._show(exchanges, keys, queues, messages, client)

    def dead_lettered(
        self, exchange: Exchange, keys: Sequence[str], queues: Collection[Queue], message: Message
    ) -> None:
        """Show a dead letter that is published to this exchange to the tails; RabbitMQ's firehose has none."""
        self._show((exchange,), keys, queues, (message,), None)

    def _show(
        self, exchanges: Collection[Exchange], keys: Sequence[str], queues: Collection[Queue],
        messages: Sequence[Message], client: Client | None,
    ) -> None:
        for tap in self.tails:
            if tap.is_reached(exchanges, queues):
                self._worklist.effort.total += TAIL_STEPS * len(messages)
                tap.see(self._clock.wall_ms, messages, keys, [queue.name for queue in queues], client)

    # The end

    def end(self) -> None:
        """End all: the vhost is deleted."""
        if self.firehose is not None:
            self.firehose.end()
        self.firehose = None
        tails, self.tails = self.tails, {}
        self._changed()
        for tap in tails:
            tap.on_end()
