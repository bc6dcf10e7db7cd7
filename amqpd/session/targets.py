"""The targets of publishes of one channel, cached by the encoded arguments.

A target is cached by the bytes of the publish's arguments, and the message properties by their bytes: publishers repeat
themselves, and permission, exchange, routing and decoding are then one look-up. Any change of topology or permissions
in the vhost clears the targets.

Always true between calls: cached targets are valid for the vhost's current version, once `refresh` was called.

Spec: basic.publish; RabbitMQ docs/access-control, docs/sender-selected.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import Any, NamedTuple

from amqpd import fields
from amqpd.broker.counts import ExchangeCounts
from amqpd.broker.exchange import Exchange
from amqpd.broker.ports import ReplySubscriber
from amqpd.broker.queue.queue import Queue
from amqpd.broker.remembered import Remembered
from amqpd.broker.routing import Walk
from amqpd.errors import ConnectionException, ReplyCode
from amqpd.message import MessageProperties, Route
from amqpd.properties import read_properties
from amqpd.session.channel_state import ChannelState
from amqpd.session.uncommitted import Uncommitted
from amqpd.wire.publish import PublishArguments, read_publish

# The memory of a target and of message properties, about, besides their bytes, and of each name among them.
TARGET_BYTES, FACTS_BYTES, NAME_BYTES = 800, 400, 64
# The cost of finding a target without the walk, and of reading properties, in steps of broker/effort.py.
RESOLVE_STEPS, READ_STEPS, BYTES_A_STEP = 4, 2, 32
WIDE_HEADERS = 1_024    # bytes of a header table, from which on its route is cached
DECODED = 10            # bytes of a header table that are decoded in a step


class WalkUnfinished(Exception):
    """The slice is used up before it is known where a publish goes."""


class Target(NamedTuple):
    """The destinations of publishes with these arguments."""

    route: Route
    exchange: Exchange
    queues: list[Queue]
    mandatory: bool
    by_headers: bool                        # the queues depend on each message's headers
    replies_to: ReplySubscriber | None      # a direct reply, not a queue
    exchanges: Collection[Exchange] | None = None       # that are passed, if somebody may watch; see broker/taps.py


# The cached parts of a target: its route, its queue if there is exactly one, the rest, and what counts its exchange;
# that is None in a transaction, which counts at its commit.
Resolved = tuple[Route, "Queue | None", Target, ExchangeCounts | None]


class Targets:
    """The caches of one channel. The publishing part looks into `by_arguments` and `by_properties` itself."""

    def __init__(self, channel: ChannelState, uncommitted: Uncommitted) -> None:
        memory = channel.owner.memory
        self.by_arguments: Remembered[bytes, Resolved] = Remembered(memory)
        # with whether they need more than a queue
        self.by_properties: Remembered[bytes, tuple[MessageProperties, bool]] = Remembered(memory)
        self._channel = channel
        self._taps = channel.vhost.taps
        self._uncommitted = uncommitted
        self._version = -1
        # by the bytes of exchange and key, and of wide headers
        self._matched: Remembered[tuple[bytes, bytes], list[Queue]] = Remembered(memory)
        self.passed: Collection[Exchange] = ()          # the exchanges of the last `queues_by_content`
        self._cut_off: dict[Hashable, Walk] = {}        # walks for which a slice was too short; see `_finish`

    def refresh(self) -> None:
        """Clear the targets if topology or permissions have changed."""
        version = self._channel.vhost.routing.version
        if self._version != version:
            self.by_arguments.clear()
            self._matched.clear()
            self._version = version

    def clear(self) -> None:
        """Clear all caches: the channel is ending."""
        self.by_arguments.clear()
        self.by_properties.clear()
        self._matched.clear()
        self._cut_off.clear()

    # By arguments

    def authorize(self, arguments: bytes) -> tuple[PublishArguments, Exchange]:
        """Decode the arguments and check whether this may be published, in RabbitMQ's order.

        Raises ChannelException, ConnectionException.
        """
        channel = self._channel
        asked = read_publish(arguments)
        if asked.immediate:
            raise ConnectionException(ReplyCode.NOT_IMPLEMENTED, "immediate=true", method=(60, 40))
        return asked, channel.vhost.exchange_for_publish(channel.user, asked.exchange, asked.routing_key)

    def resolve(self, arguments: bytes) -> Resolved:
        """Find the target of such a publish, and check permissions. Raises as `authorize` does, and WalkUnfinished."""
        channel = self._channel
        vhost = channel.vhost
        asked, exchange = self.authorize(arguments)
        key = asked.routing_key
        queues, by_headers, is_lasting = vhost.routing.at_once(exchange, key), False, True
        walk = None
        if queues is None:
            walk = self._finish(arguments, lambda: vhost.routing.find(exchange, (key,)))
            queues, by_headers, is_lasting = walk.queues, walk.needs_headers, walk.is_current
        route = Route(asked.exchange, key, asked.names, channel.number, channel.frame_max)
        replies_to = None if asked.exchange else vhost.reply_subscribers.get(key)
        exchanges = self._watched(exchange, queues, walk) if self._taps.is_on else None
        target = Target(
            route, exchange, queues, asked.mandatory, by_headers, replies_to, exchanges)
        is_plain = len(queues) == 1 and exchanges is None and replies_to is None and not self._uncommitted.is_active
        only_queue = queues[0] if is_plain else None
        known = (route, only_queue, target, None if self._uncommitted.is_active else exchange.counts)
        channel.effort.total += RESOLVE_STEPS
        if is_lasting:      # else bindings have changed on the way: the target is valid for this publish only
            self.by_arguments.keep(arguments, known, TARGET_BYTES + 4 * len(arguments) + 8 * len(queues))
        return known

    def _watched(self, exchange: Exchange, queues: list[Queue], walk: Walk | None) -> Collection[Exchange] | None:
        """Return the exchanges that such publishes pass, if somebody may watch them; see `broker/taps.py`."""
        exchanges = (exchange,) if walk is None else walk.exchanges
        is_open = walk is not None and walk.needs_headers       # where they go is not known yet
        return exchanges if is_open or self._taps.is_watched(exchanges, queues) else None

    # By properties

    def read(self, properties: bytes) -> tuple[MessageProperties, bool]:
        """Read the properties that the broker needs; return also whether they need more than a queue."""
        facts = read_properties(properties)
        self._channel.effort.total += READ_STEPS + len(properties) // BYTES_A_STEP
        known = facts, facts.is_special
        self.by_properties.keep(
            properties, known, FACTS_BYTES + 2 * len(properties) + NAME_BYTES * len(facts.extra_keys))
        return known

    def queues_by_content(self, target: Target, facts: MessageProperties) -> list[Queue]:
        """Return the queues of publishes that are routed by headers, or by CC and BCC. Raises WalkUnfinished.

        The exchanges that they pass are in `passed` afterwards.
        """
        if self._taps.is_on:
            self.passed = target.exchanges or (target.exchange,)
        if target.replies_to is not None:
            return []
        if not target.by_headers and not facts.extra_keys:
            return target.queues
        routing = self._channel.vhost.routing
        keys = dict.fromkeys((target.route.routing_key, *facts.extra_keys))
        asked = target.route.packed_names, facts.headers
        queues = self._matched.known.get(asked)
        if queues is None:
            walk = self._finish(asked, lambda: routing.walk(
                target.exchange, keys, lambda: self._decode(facts.headers)))
            queues = walk.queues
            if self._taps.is_on:
                self.passed = walk.exchanges
            elif len(facts.headers) >= WIDE_HEADERS and walk.is_current:
                self._matched.keep(asked, queues, TARGET_BYTES + len(facts.headers) + 8 * len(queues))
        return queues

    def _decode(self, headers: bytes) -> dict[str, Any]:
        self._channel.effort.total += len(headers) // DECODED
        return fields.decode_table(headers)

    def _finish(self, asked: Hashable, begin: Callable[[], Walk]) -> Walk:
        """Return a finished walk: a new one, or the one that was interrupted at the end of a slice.

        Raises WalkUnfinished if this slice is too short as well.
        """
        walk = self._cut_off.pop(asked, None) or begin()
        if not walk.step(self._channel.effort):
            self._cut_off[asked] = walk
            raise WalkUnfinished
        self._cut_off.clear()
        return walk
