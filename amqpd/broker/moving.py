"""Move ready messages of a queue at the request of an operator: to a queue, to an exchange, or back to where they died.

A slice is moved within one turn: the copies are published and the messages leave their queue in one batch of the
journal. So at every moment, also in a crash, a message is in its queue, or once in each target. A message that cannot
arrive stays where it is: a target is full and refuses publishes, no queue is bound, or its origin does not exist.

A moved message is a new one for its target: it has not been delivered, its delivery count is 0, and a time to live
begins anew.

RabbitMQ docs/shovel, docs/dlx.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from amqpd.broker.dead_letter import Origin, origin_of, own_keys
from amqpd.broker.exchange import Exchange
from amqpd.broker.queue.pages import numbers_of
from amqpd.broker.queue.queue import Queue, note_holders
from amqpd.broker.vhost import Vhost
from amqpd.fields import decode_table
from amqpd.message import Message, MessageProperties, Route, named_like
from amqpd.properties import read_own_properties, without_headers

DEATH_HEADERS = (
    "x-death", "x-first-death-queue", "x-first-death-exchange", "x-first-death-reason", "x-last-death-queue",
    "x-last-death-exchange", "x-last-death-reason")

log = logging.getLogger("amqpd")


class TargetGone(Exception):
    """The queue or the exchange to which messages are moved has been deleted meanwhile."""


class Moved(msgspec.Struct):
    """The result: how many messages were moved, and how many stayed, by cause.

    With `failed` ones there was an internal error, which is logged; some may be set aside.
    """

    moved: int = 0
    full: int = 0
    unroutable: int = 0
    no_origin: int = 0
    failed: int = 0

    def add(self, other: Moved) -> None:
        """Add the result of another slice."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def stayed(self) -> int:
        """How many messages are still in their queue."""
        return self.full + self.unroutable + self.no_origin


class Destination(Protocol):
    """Where messages go. `misses` is the cause for which messages without a target stay."""

    misses: str

    def check(self) -> None:
        """Raise TargetGone if it has been deleted."""

    def targets(self, message: Message) -> list[Queue]:
        """Return the queues to which a message goes."""

    def copy(self, message: Message, number: int) -> Message:
        """Return the message as it arrives, under this number."""


class ToQueue:
    """To one queue. Exchange and routing key of a message stay as they were."""

    misses = "unroutable"

    def __init__(self, vhost: Vhost, queue: Queue) -> None:
        self._vhost = vhost
        self._queue = queue

    def check(self) -> None:
        """See `Destination`."""
        if self._vhost.queues.get(self._queue.name) is not self._queue:
            raise TargetGone(f"queue '{self._queue.name}' has been deleted")

    def targets(self, message: Message) -> list[Queue]:
        """See `Destination`."""
        return [self._queue]

    def copy(self, message: Message, number: int) -> Message:
        """See `Destination`."""
        return message.renumbered(number)


class ToExchange:
    """To an exchange, as if published there: with this routing key, or with the keys of each message."""

    misses = "unroutable"

    def __init__(self, vhost: Vhost, exchange: Exchange, routing_key: str | None) -> None:
        self._vhost = vhost
        self._exchange = exchange
        self._key = routing_key
        self._routes: dict[Route, Route] = {}

    def check(self) -> None:
        """See `Destination`."""
        if self._vhost.exchanges.get(self._exchange.name) is not self._exchange:
            raise TargetGone(f"exchange '{self._exchange.name}' has been deleted")

    def targets(self, message: Message) -> list[Queue]:
        """See `Destination`."""
        keys = own_keys(message) if self._key is None else [self._key]
        return self._vhost.routing.route(self._exchange, keys, lambda: decode_table(message.facts.headers))

    def copy(self, message: Message, number: int) -> Message:
        """See `Destination`."""
        route = self._routes.get(message.route)
        if route is None:
            self._routes.clear()
            key = message.route.routing_key if self._key is None else self._key
            route = self._routes[message.route] = named_like(message.route, self._exchange.name, key)
        return message.copy_as(number, route, message.facts, message.content)


class ToOrigin:
    """Back to the queue where each message died first, or `last`, with the exchange and key it had come there with.

    The headers that record deaths stay, as RabbitMQ's shovel leaves them, unless `forgets_deaths`.
    """

    misses = "no_origin"

    def __init__(self, vhost: Vhost, *, last: bool = False, forgets_deaths: bool = False) -> None:
        self._vhost = vhost
        self._last = last
        self._forgets_deaths = forgets_deaths
        self._routes: dict[tuple[Route, str, str], Route] = {}
        self._known: tuple[Message, Origin | None] | None = None

    def check(self) -> None:
        """See `Destination`."""

    def _origin(self, message: Message) -> Origin | None:
        if self._known is None or self._known[0] is not message:
            self._known = message, origin_of(message, last=self._last)
        return self._known[1]

    def targets(self, message: Message) -> list[Queue]:
        """See `Destination`."""
        origin = self._origin(message)
        queue = None if origin is None else self._vhost.queues.get(origin.queue)
        return [] if queue is None else [queue]

    def copy(self, message: Message, number: int) -> Message:
        """See `Destination`."""
        origin = self._origin(message)
        assert origin is not None, "a message without an origin has no target"
        place = message.route, origin.exchange, origin.routing_key
        route = self._routes.get(place)
        if route is None:
            self._routes.clear()
            route = self._routes[place] = named_like(*place)
        facts: MessageProperties = message.facts
        content = message.content
        if self._forgets_deaths:
            properties = without_headers(message.properties, DEATH_HEADERS)
            facts, content = read_own_properties(properties), message.content_with(properties)
        return message.copy_as(number, route, facts, content)


class Mover:
    """Moves messages of one queue to one destination."""

    def __init__(self, source: Queue, destination: Destination, next_message_number: Callable[[], int]) -> None:
        self._source = source
        self._destination = destination
        self._next_message_number = next_message_number
        self._copies: dict[Message, Message] = {}       # the messages that are about to be moved, and their copies
        self._runs: dict[Queue, list[Message]] = {}
        self._is_disturbed = False      # whether messages of the current run may have left the queue

    def move(self, run: Sequence[Message]) -> Moved:
        """Move ready messages, in the order of their numbers, all within this turn. Raises TargetGone.

        A target that may refuse must see each message before the next one. A message that the queue delivers meanwhile
        is not moved.
        """
        self._destination.check()
        self._is_disturbed = False
        result = Moved()
        for message in run:
            try:
                self._take(message, result)
            except Exception:
                log.exception("queue '%s' in vhost '%s': message %d cannot be moved",
                              self._source.name, self._source.definition.vhost, message.number)
                result.failed += 1
        self._carry_out(result)
        return result

    def _take(self, message: Message, result: Moved) -> None:
        """Prepare the move of a message, or count why it stays."""
        if self._is_disturbed and not self._is_ready(message):
            return
        targets = self._destination.targets(message)
        if not targets:
            setattr(result, self._destination.misses, getattr(result, self._destination.misses) + 1)
            return
        refusing = any([target.limits.refuses for target in targets])
        if refusing:
            self._carry_out(result)
            if not all([target.limits.has_room_for(message.body_size) for target in targets]):
                result.full += 1
                return
        copy = self._destination.copy(message, self._next_message_number())
        note_holders(targets, [copy])
        self._copies[message] = copy
        for target in targets:
            self._runs.setdefault(target, []).append(copy)
        if refusing:
            self._carry_out(result)

    def _is_ready(self, message: Message) -> bool:
        """Return whether a message is still ready."""
        level = min(message.facts.priority or 0, self._source.rules.max_priority)
        found, _ = self._source.ready.after((level, message.number - 1), 1)
        return numbers_of(found) == [message.number]

    def _carry_out(self, result: Moved) -> None:
        """Move what has been prepared: publish the copies, then drop the originals."""
        copies, runs = self._copies, self._runs
        if not copies:
            return
        self._copies, self._runs = {}, {}
        source, failed = self._source, set[Message]()
        source.take_out([*copies])
        # What arrives in the queue itself may let it deliver other messages.
        self._is_disturbed = self._is_disturbed or source in runs
        for target, arriving in runs.items():
            try:
                target.publish(arriving, is_timed=any([copy.facts.expiration_ms is not None for copy in arriving]))
            except Exception:
                # It is not known how many were accepted.
                log.exception("queue '%s' in vhost '%s' could not take %d moved messages: they are set aside in '%s'",
                              target.name, target.definition.vhost, len(arriving), source.name)
                failed |= {*arriving}
        aside = [message for message, copy in copies.items() if copy in failed]
        source.dead_letters.set_aside(aside)
        source.drop_taken([message for message, copy in copies.items() if copy not in failed])
        result.failed += len(aside)
        result.moved += len(copies) - len(aside)
