"""RabbitMQ's firehose: a copy of each message that is published to a vhost, or delivered in it, for its operators.

The copies go to the exchange `amq.rabbitmq.trace`, with the routing keys `publish.EXCHANGE` and `deliver.QUEUE`. Their
headers say what RabbitMQ's say, and their body is the message's. They are published by a job of the worklist, in the
order of what they tell of: nothing that a client waits for becomes longer, and no queue is called by another one.

While many copies are waiting, publishes and basic.get of the vhost wait too. Deliveries do not: if so many copies are
waiting that memory is at stake, copies of deliveries are left out, which is logged.

A copy is never copied again, not even once it is dead-lettered: a firehose cannot feed itself.

RabbitMQ docs/firehose; rabbit_trace.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import msgspec

from amqpd.broker.exchange import Exchange
from amqpd.broker.queue.queue import Queue
from amqpd.broker.routing import Routing
from amqpd.broker.worklist import PIECE, Waiters, Worklist
from amqpd.fields import TableLimitError, Value, check_table, decode_checked_table, encode_table, find
from amqpd.identity import NODE_NAME
from amqpd.message import Message, MessageProperties, Route, named_like
from amqpd.properties import only_headers, properties_table, read_own_properties

TRACE_EXCHANGE = "amq.rabbitmq.trace"
COPY_STEPS, COPIED = 25, 1_024      # the cost of a copy, and bytes of content that are copied in a step
WAIT_MESSAGES, WAIT_BYTES = 2_000, 8 << 20          # waiting copies, from which on publishes wait
MOST_MESSAGES, MOST_BYTES = 50_000, 64 << 20        # and from which on copies of deliveries are left out

log = logging.getLogger("amqpd")


class Client(msgspec.Struct, frozen=True):
    """The client whose channel published messages, or got them."""

    connection: str
    channel: int
    user: str


class _Run(msgspec.Struct):
    """Messages to be copied with one routing key. `facts` are the headers besides those of the message.

    `keys` are the routing keys of all of them; empty for those of each. `again` has the numbers of redelivered ones.
    """

    key: str
    messages: Sequence[Message]
    facts: Mapping[str, Value]
    keys: Sequence[str] = ()
    again: frozenset[int] | None = None
    at: int = 0


class Firehose:
    """The firehose of one vhost, whose exchange for it is `exchange`. `next_number` returns numbers of messages.

    `is_behind` says that publishes should wait, until `call` calls back.
    """

    def __init__(
        self, vhost: str, exchange: Exchange, routing: Routing, worklist: Worklist, next_number: Callable[[], int], *,
        wait_messages: int = WAIT_MESSAGES, most_messages: int = MOST_MESSAGES,
    ) -> None:
        self.is_behind = False
        self._vhost = vhost
        self._exchange = exchange
        self._routing = routing
        self._worklist = worklist
        self._next_number = next_number
        self._wait_messages = wait_messages
        self._most_messages = most_messages
        self._runs: deque[_Run] = deque()
        self._count = self._bytes = 0       # of messages in these runs, with those that are done of the first
        self._left_out = 0
        self._waiters = Waiters(worklist)
        self.call = self._waiters.call

    # What is copied

    def published(
        self, client: Client, exchange: str, keys: Sequence[str], queues: Sequence[str], messages: Sequence[Message],
    ) -> None:
        """Copy messages with equal properties that a client has published to this exchange with these keys."""
        if self._is_heard:
            facts: dict[str, Value] = {**self._facts_of(client), "routed_queues": list(queues)}
            self._add(_Run(f"publish.{exchange}", [*messages], facts, keys))

    def delivered(self, client: Client, queue: Queue, run: Sequence[Message]) -> None:
        """Copy messages that are being delivered from this queue to a client."""
        if not self._is_heard:
            return
        messages = [message for message in run if not is_copy(message)]
        if not messages:
            return
        if self._count >= self._most_messages or self._bytes >= MOST_BYTES:
            if not self._left_out:
                log.warning("vhost '%s': the firehose is too slow, and leaves out copies of deliveries", self._vhost)
            self._left_out += len(messages)
            return
        again = frozenset([one.number for one in messages if queue.redelivery.is_redelivered(one)])
        self._add(_Run(f"deliver.{queue.name}", messages, self._facts_of(client), again=again))

    @property
    def _is_heard(self) -> bool:
        """Return whether a copy could go anywhere."""
        return bool(self._exchange.bindings) or self._exchange.alternate is not None

    def _facts_of(self, client: Client) -> dict[str, Value]:
        return {
            "vhost": self._vhost, "connection": client.connection, "channel": client.channel, "user": client.user}

    def _add(self, run: _Run) -> None:
        self._runs.append(run)
        self._count += len(run.messages)
        self._bytes += sum([len(message.content) for message in run.messages])
        self.is_behind = self.is_behind or self._count >= self._wait_messages or self._bytes >= WAIT_BYTES
        self._worklist.add(self)

    # The job

    @property
    def has_work(self) -> bool:
        """See `broker/worklist.py`."""
        return bool(self._runs)

    def work(self) -> None:
        """Publish the next copies; see `broker/worklist.py`."""
        effort = self._worklist.effort
        stop = effort.total + PIECE
        arriving: dict[Queue, list[Message]] = {}
        try:
            while self._runs and effort.total < stop:
                self._copy_some(self._runs[0], arriving)
        finally:
            if not self._runs and self.is_behind:
                self.is_behind = False
                self._waiters.release()
            for queue, copies in arriving.items():
                queue.publish(copies)

    def _copy_some(self, run: _Run, arriving: dict[Queue, list[Message]]) -> None:
        """Copy messages of the first run that have equal headers, and add the copies to those of their queues."""
        messages, at = run.messages, run.at
        first = messages[at]
        properties, again = first.properties, self._is_again(run, first)
        effort = self._worklist.effort
        stop = effort.total + PIECE
        alike: list[Message] = []
        for message in islice(messages, at, None):
            if alike and (effort.total >= stop or message.route is not first.route
                          or message.properties != properties or self._is_again(run, message) is not again):
                break
            alike.append(message)
            effort.total += COPY_STEPS + len(message.content) // COPIED
        run.at += len(alike)        # first: what cannot be copied is not tried again
        self._count -= len(alike)
        self._bytes -= sum([len(message.content) for message in alike])
        if run.at == len(messages):
            self._runs.popleft()
        headers = self._headers(run, first, properties, again)
        route, copied = named_like(first.route, TRACE_EXCHANGE, run.key), only_headers(headers)
        queues = self._routing.route(self._exchange, (route.routing_key,), lambda: decode_checked_table(headers))
        effort.total += len(queues) * len(alike)
        if queues:
            facts = read_own_properties(copied)
            copies = [self._copy(message, route, facts, copied) for message in alike]
            for queue in queues:
                arriving.setdefault(queue, []).extend(copies)

    def _is_again(self, run: _Run, message: Message) -> bool | None:
        return None if run.again is None else message.number in run.again

    def _headers(self, run: _Run, message: Message, properties: bytes, again: bool | None) -> bytes:
        """Return the headers of a copy, as an encoded table. Headers that are nested too deep for one are left out."""
        keys = run.keys or (message.route.routing_key, *message.facts.extra_keys)
        table: dict[str, Value] = {
            "exchange_name": message.route.exchange,
            "routing_keys": list(keys),
            "properties": properties_table(properties),
            "node": NODE_NAME,
            **({} if again is None else {"redelivered": int(again)}),
            **run.facts,
        }
        encoded = encode_table(table)
        try:
            check_table(encoded)
        except TableLimitError:
            encoded = encode_table({**table, "properties": properties_table(properties, with_headers=False)})
        return encoded

    def _copy(self, message: Message, route: Route, facts: MessageProperties, properties: bytes) -> Message:
        return message.copy_as(self._next_number(), route, facts, message.content_with(properties))

    # The end

    def end(self) -> None:
        """Drop what has not been copied: the vhost is deleted."""
        self._runs.clear()
        self._count = self._bytes = 0
        self.is_behind = False
        self._waiters.release()


def is_copy(message: Message) -> bool:
    """Return whether this is a copy that a firehose made, or one that was dead-lettered."""
    headers = message.facts.headers
    return message.route.exchange == TRACE_EXCHANGE or (
        TRACE_EXCHANGE.encode() in headers and find(headers, "x-first-death-exchange") == TRACE_EXCHANGE)
