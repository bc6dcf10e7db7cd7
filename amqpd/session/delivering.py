"""Write deliveries: the frames of basic.deliver; bytes that do not change are cached for each consumer and route.

The content of a message is sent unchanged if it came by the same channel number and frame size; otherwise its frames
are made again. The headers of messages with failed deliveries get their count.

Spec: basic.deliver, §4.2; RabbitMQ docs/quorum-queues (poison messages).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.queue import Queue
from amqpd.broker.remembered import Memory, Remembered
from amqpd.fields import Long
from amqpd.message import Message, Route, pack_short_string
from amqpd.properties import with_headers
from amqpd.session.channel_state import ChannelState
from amqpd.wire.writer import DeliveryHead, content_pieces, delivery_head, pack_tag

HEAD_BYTES = 350       # the memory of a delivery head besides its names; an estimate
HEAD_STEPS = 5          # the cost of making a delivery head; see broker/effort.py
COUNTED_STEPS = 7       # the cost of writing a count of failures into a message, at least
ALIKE_FROM = 8          # deliveries in a run, from which on packing them all at once is faster
JOINED = 2_048          # bytes of content on average, up to which deliveries are joined when they are packed
COPIED = 1_024          # bytes of content that are copied in a step
REWRITTEN = 16          # bytes of a header table that are read and written in a step

# The properties and the count of failures of a redelivered message, and the result.
_Counted = tuple[tuple[bytes, int], bytes] | None


class Heads:
    """The cached bytes of one consumer's deliveries, by route."""

    __slots__ = ("tag", "by_route")

    def __init__(self, tag: str, memory: Memory) -> None:
        self.tag = pack_short_string(tag)
        self.by_route: Remembered[Route, DeliveryHead] = Remembered(memory)


class DeliveryWriter:
    """Writes the deliveries of one channel into the connection's outbox. `heads` are by consumer tag."""

    def __init__(self, channel: ChannelState) -> None:
        self.heads: dict[str, Heads] = {}
        self._channel = channel
        self._outbox = channel.outbox
        self._effort = channel.effort

    def begin(self, tag: str) -> None:
        """Deliver to a new consumer from now on."""
        self.heads[tag] = Heads(tag, self._channel.owner.memory)

    def forget(self, tag: str) -> None:
        """Forget a consumer."""
        self.heads.pop(tag).by_route.clear()

    def write(self, consumer: Consumer[Queue], tags: range, run: Sequence[Message]) -> int:
        """Send a run of messages with these tags to a consumer; return the number of bytes."""
        heads = self.heads[consumer.tag]
        pieces: list[bytes] = []
        if consumer.queue.redelivery.may_have_any(run):
            self._pack_some_again(heads, consumer.queue, zip(tags, run), pieces)
        elif len(run) < ALIKE_FROM or not self._pack_alike(heads, tags, run, pieces):
            known, route = heads.by_route.known, None
            for tag, message in zip(tags, run):
                if message.route is not route:
                    route = message.route
                    front, back, _, fits = known.get(route) or self._head(heads, route)
                if fits:
                    pieces += (front, pack_tag(tag), back, message.content)
                else:
                    pieces += (front, pack_tag(tag), back, *self.content(message))
        size = sum(map(len, pieces))
        self._outbox.extend(pieces, size)
        return size

    def _pack_alike(self, heads: Heads, tags: range, run: Sequence[Message], pieces: list[bytes]) -> bool:
        """Pack a run of messages with one route; return whether that was possible.

        The fast version of `write`'s loop: no bytecode for each message. Small contents are joined here, so that the
        outbox counts and joins a single piece.
        """
        count, route = len(run), run[0].route
        if [message.route for message in run].count(route) < count:
            return False
        front, back, _, fits = heads.by_route.known.get(route) or self._head(heads, route)
        if not fits:
            return False
        contents = [message.content for message in run]
        alike = [front, b"", back, b""] * count
        alike[1::4] = map(pack_tag, tags)
        alike[3::4] = contents
        if sum(map(len, contents)) <= count * JOINED:
            pieces.append(b"".join(alike))
        else:
            pieces += alike
        return True

    def _pack_some_again(
        self, heads: Heads, queue: Queue, run: Iterable[tuple[int, Message]], pieces: list[bytes]
    ) -> None:
        """Pack a run in the slow version of `write`'s loop, for queues where a message has been delivered before."""
        counts = queue.redelivery.deliveries if queue.rules.shows_delivery_count else {}
        counted: _Counted = None
        for tag, message in run:
            route = message.route
            head = heads.by_route.known.get(route) or self._head(heads, route)
            again = queue.redelivery.is_redelivered(message)
            queue.records.counts.redelivered += again
            self._channel.counts.redelivered += again
            failures = counts.get(message.number)
            pieces += (head.front, pack_tag(tag), head.back_redelivered if again else head.back)
            if failures:
                counted = self._count(message, failures, counted)
                self._effort.total += COUNTED_STEPS
                pieces += self.content(message, counted[1])
            elif head.content_fits:
                pieces.append(message.content)
            else:
                pieces += self.content(message)

    def _head(self, heads: Heads, route: Route) -> DeliveryHead:
        self._effort.total += HEAD_STEPS
        head = delivery_head(self._channel.number, self._channel.frame_max, heads.tag, route)
        # the names a third time, since the route is kept as well
        heads.by_route.keep(route, head, HEAD_BYTES + len(heads.tag) + 3 * len(route.packed_names))
        return head

    # Contents

    def _count(self, message: Message, failures: int, last: _Counted) -> tuple[tuple[bytes, int], bytes]:
        """Return the properties with the count of failed deliveries, and what they were made of.

        Those of `last` are used again if they are the same. RabbitMQ docs/quorum-queues (poison messages).
        """
        origin = message.properties, failures
        if last is not None and last[0] == origin:
            return last
        self._effort.total += len(message.facts.headers) // REWRITTEN
        return origin, with_headers(origin[0], {"x-delivery-count": Long(failures)})

    def counted_content(self, message: Message, failures: int | None) -> list[bytes]:
        """Return the content frames for this channel, with the count of failed deliveries if there is one."""
        return self.content(message, self._count(message, failures, None)[1] if failures else None)

    def content(self, message: Message, properties: bytes | None = None) -> list[bytes]:
        """Return the content frames for this channel, and count their cost: a single piece has been copied."""
        pieces = content_pieces(message, self._channel.number, self._channel.frame_max, properties)
        if len(pieces) > 1:
            self._effort.total += len(pieces)
        elif pieces[0] is not message.content:
            self._effort.total += len(pieces[0]) // COPIED
        return pieces
