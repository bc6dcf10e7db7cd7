"""Where a message would go: through bindings, exchanges and alternate exchanges to queues, and on as a dead letter.

The way is found by the code that routes publishes and dead letters (`broker/traced_walk.py`, `broker/dead_letter.py`),
for a message with these headers that is made for it and never published. It is followed depth first, in slices, and up
to a number of steps: a queue's dead letters follow the queue. What was shown once is not shown again, so a cycle ends.

RabbitMQ docs/publishers, docs/ae, docs/e2e, docs/dlx.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from heapq import nsmallest
from typing import Any

import msgspec

from amqpd.broker.access import User
from amqpd.broker.broker import OPERATOR
from amqpd.broker.dead_letter import REJECTED, DeadCopies, DeadLetterRoute, cycling_queues, own_keys, routing_keys
from amqpd.broker.effort import Effort
from amqpd.broker.exchange import DefaultExchange, Destination, Exchange
from amqpd.broker.queue.queue import Queue
from amqpd.broker.traced_walk import TracedWalk
from amqpd.broker.vhost import Vhost
from amqpd.errors import ChannelException
from amqpd.fields import decode_table
from amqpd.management.explaining.route_steps import (
    DeadLetterStep,
    Reached,
    ReplyStep,
    Step,
    UsedBinding,
    Way,
    death_causes,
    exchange_step,
    queue_step,
)
from amqpd.management.json_values import plain
from amqpd.message import Message, Route, pack_content, pack_short_string
from amqpd.properties import read_own_properties, read_properties, with_headers, without_headers

MOST_STEPS = 500
MOST_BINDINGS = 5               # of one exchange to one destination, that are shown
MOST_COMPARED = 20_000          # bindings in all; more are not compared
COMPARED_AT_ONCE = 100
MOST_REACHED = 100_000          # queues and exchanges in all, beyond which no dead letters are followed
CHANNEL, FRAME_MAX = 1, 131_072


class Rights(msgspec.Struct, kw_only=True):
    """What a user may do here; the patterns are None where nothing is set: no right, but any routing key."""

    user: str
    may_enter: bool
    write_pattern: str | None
    may_write: bool
    topic_pattern: str | None
    may_use_key: bool


class ExplainedRoute(msgspec.Struct, kw_only=True):
    """The way of a message. `refused` has the broker's reply, if it would refuse the publish.

    `queues` are those that the publish reaches, without dead letters; `queue_count` is their number, of which at most
    the first `MOST_STEPS` are named. `is_cut` says that there would be more steps.
    """

    vhost: str
    exchange: str
    routing_keys: list[str]
    rights: Rights | None = None
    refused: str = ""
    queues: list[str] = []
    queue_count: int = 0
    steps: list[Step] = []
    is_cut: bool = False


class _Path:
    """The way of one message from one exchange; `been_in` are the queues in which it died before."""

    def __init__(self, walk: TracedWalk, message: Message, been_in: frozenset[str], ends_in: set[str]) -> None:
        self.walk = walk
        self.message = message
        self.been_in = been_in
        self.ends_in = ends_in          # queues to which it would return, and so does not go
        self.shown: set[Exchange] = set()


class RouteExplanation:
    """Explains the way of one message in a vhost."""

    def __init__(self, vhost: Vhost, most_steps: int = MOST_STEPS, *, most_reached: int = MOST_REACHED) -> None:
        self._most_reached = most_reached
        self._vhost = vhost
        self._most_steps = most_steps
        self._effort = Effort()
        self._compared = 0
        self._reached = 0
        self._is_cut = False
        self._steps: list[Step] = []
        self._shown: set[tuple[Queue, tuple[str, ...]]] = set()
        self._to_show: list[Callable[[], Awaitable[None] | None]] = []         # the last one is next

    async def explain(
        self, exchange: str, routing_key: str, headers: Mapping[str, Any], user: User | None
    ) -> ExplainedRoute:
        """Follow a message with these headers. Raises FieldError, ValueError for what cannot be published at all."""
        vhost = self._vhost
        properties = with_headers(b"\0\0", headers) if headers else b"\0\0"
        facts = read_properties(properties)
        keys = [*dict.fromkeys((routing_key, *facts.extra_keys))]
        names = pack_short_string(exchange) + pack_short_string(routing_key)
        answer = ExplainedRoute(vhost=vhost.name, exchange=exchange, routing_keys=keys)
        if user is not None:
            answer.rights = _rights(user, vhost, exchange, routing_key)
            if not user.may_enter(vhost.name):
                answer.refused = f"NOT_ALLOWED - access to vhost '{vhost.name}' refused for user '{user.name}'"
                return answer
        try:
            start = vhost.exchange_for_publish(user or OPERATOR, exchange, routing_key)
        except ChannelException as refusal:
            answer.refused = str(refusal)
            return answer
        if facts.flaw:
            answer.refused = f"PRECONDITION_FAILED - {facts.flaw}"
            return answer
        if not exchange and routing_key in vhost.reply_subscribers:
            answer.steps = [ReplyStep(depth=0, name=routing_key)]
            return answer
        if facts.has_bcc:       # it is used once, and is not kept
            properties = without_headers(properties, ("BCC",))
        message = Message(
            0, Route(exchange, routing_key, names, CHANNEL, FRAME_MAX), read_own_properties(properties),
            pack_content(CHANNEL, FRAME_MAX, properties, b""), 0)
        walk = await self._walk(start, keys, facts.headers)
        answer.queues = sorted([queue.name for queue in walk.queues])[:MOST_STEPS]
        answer.queue_count = len(walk.queues)
        self._show(start, 0, "publish", _Path(walk, message, frozenset(), set()))
        await self._show_all()
        answer.is_cut = self._is_cut
        answer.steps = self._steps
        return answer

    async def _walk(self, start: Exchange, keys: Sequence[str], headers: bytes) -> TracedWalk:
        walk = TracedWalk(self._vhost.routing, start, keys, partial(decode_table, headers))
        self._begin_slice()
        while not walk.step(self._effort):
            await self._pause()
        walk.let_go()
        self._reached += sum([len(hop.found) for hop in walk.hops.values()])
        return walk

    async def _pause(self) -> None:
        await asyncio.sleep(0)
        self._begin_slice()

    def _begin_slice(self) -> None:
        self._effort.begin_turn()
        self._effort.begin()

    async def _show_all(self) -> None:
        """Show what is left, up to the limit."""
        while self._to_show:
            if not self._has_room:
                self._is_cut = True
                return
            shown = self._to_show.pop()()
            if shown is not None:
                await shown
            await self._pause()

    @property
    def _has_room(self) -> bool:
        return len(self._steps) < self._most_steps

    # Exchanges

    def _show(self, exchange: Exchange, depth: int, by: Way, path: _Path) -> None:
        self._to_show.append(partial(self._show_exchange, exchange, Reached(depth=depth, by=by), path))

    def _show_exchange(self, exchange: Exchange, reached: Reached, path: _Path) -> None:
        hop = path.walk.hops.get(exchange)
        is_shown_above = exchange in path.shown
        path.shown.add(exchange)
        self._steps.append(exchange_step(
            self._vhost, exchange, reached, is_unrouted=hop is None or hop.is_unrouted, is_shown_above=is_shown_above))
        if hop is None or is_shown_above:
            return
        ways: Way = "alternate exchange" if hop.is_unrouted else "binding"
        if isinstance(exchange, DefaultExchange):
            ways = "queue name"
        # Queues come first, since what follows an exchange may be long. No more are taken than steps have room, but for
        # one more, which shows that there are others.
        room = self._most_steps - len(self._steps) + 1
        first = nsmallest(room, hop.found, key=lambda one: (isinstance(one, Exchange), one.name))
        hop.found.clear()
        for destination in reversed(first):
            self._to_show.append(partial(
                self._show_destination, exchange, destination, Reached(depth=reached.depth + 1, by=ways), path))

    async def _show_destination(
        self, source: Exchange, destination: Destination, reached: Reached, path: _Path
    ) -> None:
        if reached.by == "binding":
            await self._find_bindings(source, destination, reached, path.walk)
        if isinstance(destination, Exchange):
            self._show_exchange(destination, reached, path)
        elif not destination.deleted:
            await self._show_queue(destination, reached, path)

    async def _find_bindings(
        self, source: Exchange, destination: Destination, reached: Reached, walk: TracedWalk
    ) -> None:
        found: list[UsedBinding] = []
        for used in walk.bindings_used(self._vhost.topology.bindings, source, destination):
            self._compared += 1
            if self._compared % COMPARED_AT_ONCE == 0:
                await self._pause()
            if len(found) == MOST_BINDINGS or self._compared > MOST_COMPARED:
                reached.has_more_bindings = True
                break
            if used is not None:
                binding, matched = used
                found.append(UsedBinding(
                    routing_key=binding.routing_key, arguments=plain(binding.arguments), matched_keys=matched))
        reached.bindings = found

    # Queues and dead letters

    async def _show_queue(self, queue: Queue, reached: Reached, path: _Path) -> None:
        message = path.message
        way = queue, tuple(own_keys(message))
        is_shown_above = way in self._shown
        self._shown.add(way)
        has_been = queue.name in path.been_in
        ends = has_been and queue.name in path.ends_in
        self._steps.append(queue_step(
            self._vhost, queue, reached, cycle="ends" if ends else "goes on" if has_been else "",
            is_shown_above=is_shown_above))
        if not is_shown_above and not has_been and queue.rules.dead_letter_exchange is not None:
            await self._show_dead_letters(queue, queue.rules.dead_letter_exchange, reached.depth + 1, path)

    async def _show_dead_letters(self, queue: Queue, exchange_name: str, depth: int, path: _Path) -> None:
        rules, message = queue.rules, path.message
        causes = death_causes(rules, message)
        dead_route = DeadLetterRoute(
            queue.name, causes[0], exchange_name, rules.dead_letter_routing_key, rules.is_at_least_once)
        keys = routing_keys(message, dead_route)
        exchange = self._vhost.exchanges.get(exchange_name)
        if not self._has_room or self._reached > self._most_reached:
            self._is_cut = True
        if self._has_room:
            self._steps.append(DeadLetterStep(
                depth=depth, causes=causes, exchange=exchange_name, routing_keys=keys,
                is_own_key=rules.dead_letter_routing_key is None, exists=exchange is not None,
                is_at_least_once=rules.is_at_least_once))
        if exchange is None or self._is_cut:
            return
        copy = DeadCopies(dead_route, 0).copy(message, 0)
        walk = await self._walk(exchange, keys, copy.facts.headers)
        ends_in = set() if causes[0] == REJECTED else cycling_queues(copy, [one.name for one in walk.queues])
        walk.queues = []
        self._show(exchange, depth + 1, "dead letter", _Path(walk, copy, path.been_in | {queue.name}, ends_in))


def _rights(user: User, vhost: Vhost, exchange: str, routing_key: str) -> Rights:
    permission = user.permissions.get(vhost.name)
    found = vhost.exchanges.get(exchange)
    topics = None
    if found is not None and found.definition.type == "topic":
        topics = user.topic_permissions.get((vhost.name, exchange))
    return Rights(
        user=user.name, may_enter=user.may_enter(vhost.name), write_pattern=permission.write if permission else None,
        may_write=user.may(vhost.name, "write", exchange), topic_pattern=topics.write if topics else None,
        may_use_key=topics is None or user.may_use_key(vhost.name, "write", exchange, routing_key))
