"""Find the queues of a vhost that stand still: two readings of their counts, with a pause between them.

Queues are visited in slices, and so are the deliveries of all channels, to tell who holds the oldest one of a queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import NamedTuple

import msgspec

from amqpd.broker.broker import Broker, Connection
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.queue import Queue
from amqpd.broker.vhost import Vhost
from amqpd.management.explaining.standstill import MOST_CONSUMERS, Explained, Holder, Seen, explain, moving

MOST_TOLD = 1_000               # queues in an answer
READ_AT_ONCE = 200              # queues
MOST_VISITED = 10_000           # deliveries of one channel

PUBLISHED = "published"
COUNTS = (PUBLISHED, "delivered", "fetched by basic.get", "acknowledged", "removed in all")


class _Reading(NamedTuple):
    """The counts of a queue, for which `COUNTS` has words."""

    published: int
    delivered: int
    got: int
    acked: int
    gone: int           # for any reason


class Survey(msgspec.Struct, kw_only=True):
    """The queues that were explained, and how many there are in all that stand still with messages, move, or are empty.

    `left_out` is the number of queues that would be explained too. `alarm` is why nobody may publish, or "";
    `blocked_connections` is the number of
    connections that have tried to publish.
    """

    queues: list[Explained] = []
    standing: int = 0
    moving: int = 0
    empty: int = 0
    left_out: int = 0
    alarm: str = ""
    blocked_connections: int = 0


class StandstillSurvey:
    """Looks at the queues of a vhost, for `watched_s` seconds."""

    def __init__(
        self, broker: Broker, vhost: Vhost, alarm: str, watched_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep, *, most_told: int = MOST_TOLD,
    ) -> None:
        self._most_told = most_told
        self._broker = broker
        self._vhost = vhost
        self._alarm = alarm
        self._watched_s = watched_s
        self._sleep = sleep
        self._oldest: dict[Queue, tuple[int | None, Holder]] = {}
        self._oldest_of_channel: dict[tuple[int, int], tuple[int | None, Holder]] = {}

    async def look(self, names: list[str] | None, *, is_all: bool) -> Survey:
        """Explain the queues that have messages and stand still; with `is_all`, all named ones, or all there are."""
        found = self._vhost.queues
        queues = [*found.values()] if names is None else [found[name] for name in names]
        first = await self._read(queues)
        await self._sleep(self._watched_s)
        second = await self._read(queues)
        await self._find_oldest()
        survey = Survey(alarm=self._alarm)
        for at, queue in enumerate(queues):
            if at % READ_AT_ONCE == READ_AT_ONCE - 1:
                await self._sleep(0)
            if not queue.deleted:
                self._explain(survey, queue, first[queue], second[queue], is_all=is_all)
        if self._alarm:
            states = [connection.statistics().state for connection in self._broker.connections.values()]
            survey.blocked_connections = states.count("blocked")
        return survey

    async def _read(self, queues: list[Queue]) -> dict[Queue, _Reading]:
        found: dict[Queue, _Reading] = {}
        for at, queue in enumerate(queues):
            statistics = queue.statistics()
            found[queue] = _Reading(
                statistics.published, statistics.delivered, statistics.got, statistics.acked, statistics.settled)
            if at % READ_AT_ONCE == READ_AT_ONCE - 1:
                await self._sleep(0)
        return found

    async def _find_oldest(self) -> None:
        """Find who holds the oldest delivery of each queue."""
        now = self._broker.clock.now_ms
        for connection in [*self._broker.connections.values()]:
            if connection.vhost_name != self._vhost.name:
                continue
            for held in connection.oldest_unacked(MOST_VISITED):
                for consumer, made_ms in held:
                    self._note(connection, consumer, None if made_ms is None else max(0, now - made_ms))
                await self._sleep(0)

    def _note(self, connection: Connection, consumer: Consumer[Queue], age_ms: int | None) -> None:
        """Note that the connection holds a delivery of this age, if it is the oldest of its queue or channel."""
        known = self._oldest.get(consumer.queue)
        address = consumer.subscriber.address
        of_channel = self._oldest_of_channel.get(address)
        is_oldest, is_oldest_there = [
            one is None or (age_ms or 0) > (one[0] or 0) for one in (known, of_channel)]
        if not (is_oldest or is_oldest_there):
            return
        statistics = connection.statistics()
        found = age_ms, Holder(
            connection=statistics.name, user=statistics.user, channel=address[1], consumer_tag=consumer.tag,
            connection_name=str(statistics.client_properties.get("connection_name", "")))
        if is_oldest:
            self._oldest[consumer.queue] = found
        if is_oldest_there:
            self._oldest_of_channel[address] = found

    def _held(self, queue: Queue) -> tuple[int | None, Holder | None]:
        """Return who holds the oldest delivery of this queue and since when, else of a channel that consumes from it.

        A prefetch that a channel shares may be used up by deliveries of other queues.
        """
        if queue in self._oldest:
            return self._oldest[queue]
        if queue.ready:
            for consumer in islice(queue.consumers, MOST_CONSUMERS):
                if found := self._oldest_of_channel.get(consumer.subscriber.address):
                    return found
        return None, None

    def _explain(
        self, survey: Survey, queue: Queue, first: _Reading, second: _Reading, *, is_all: bool
    ) -> None:
        held_ms, held_by = self._held(queue)
        bindings = self._vhost.topology.bindings
        seen = Seen(
            held_ms, held_by, self._alarm, self._broker.is_behind, bindings.count_to("queue", queue.name) > 0,
            self._watched_s)
        changes = [(name, after - before) for name, before, after in zip(COUNTS, first, second)]
        # Of a queue with messages it counts what leaves it, of an empty one also what comes.
        has_messages = bool(queue.ready or queue.unacked or queue.dead_letters.count)
        moves = any(count for name, count in changes if name != PUBLISHED or not has_messages)
        survey.moving += moves
        survey.standing += has_messages and not moves
        survey.empty += not has_messages and not moves
        if is_all or (has_messages and not moves):
            if len(survey.queues) >= self._most_told:
                survey.left_out += 1
            else:
                survey.queues.append(moving(queue, seen, changes) if moves else explain(queue, seen))
