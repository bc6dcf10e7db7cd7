"""What a client takes from queues on one channel: consumers, gets, and the answers to what it was given.

Owns delivery tags, the unacked deliveries and the channel's consumers. It is the `Subscriber` that queues
deliver to.

Always true between calls: tags rise from 1; each tag in `unacked` names one message and the consumer it was
given to; `unacked` is in the order of its tags.

Spec: basic.qos, basic.consume, basic.get, basic.ack; RabbitMQ docs/consumer-prefetch, docs/confirms,
docs/direct-reply-to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from heapq import merge
from itertools import chain, islice, repeat, takewhile
from typing import TYPE_CHECKING

from pamqp.commands import Basic

from amqpd.broker.arguments import check_consumer_arguments, type_of_queue
from amqpd.broker.departure import REMOVE_STEPS, Act
from amqpd.broker.queue.consumer import NO_LIMIT, Consumer
from amqpd.broker.queue.queue import Queue
from amqpd.broker.remembered import Memory, Remembered
from amqpd.broker.vhost import REPLY_TO, generated_name
from amqpd.broker.worklist import PIECE, nothing
from amqpd.errors import ChannelException, ConnectionException, ReplyCode
from amqpd.fields import Long
from amqpd.message import Message, Route, pack_short_string
from amqpd.properties import with_headers
from amqpd.session.blocked_consumers import BlockedConsumers
from amqpd.session.commit import Answered, Unacked, Verdict, by_consumer
from amqpd.session.consumer_timeouts import DeliveryTimes
from amqpd.session.contents import release_contents
from amqpd.session.deferred_input import Unfinished
from amqpd.session.reply_address import new_reply_address
from amqpd.session.table import Handlers
from amqpd.wire.methods import pack_cancel, pack_cancel_ok, pack_consume_ok
from amqpd.wire.writer import (
    SHARED,
    DeliveryHead,
    content_pieces,
    delivery_head,
    pack_get_ok,
    pack_tag,
)

if TYPE_CHECKING:
    from amqpd.session.channel import Channel
    from amqpd.session.transaction import Transaction

ANSWERS_AT_ONCE = 2_000         # deliveries that are answered in one turn
HEAD_OCTETS = 350       # what a delivery head takes in memory besides its names; an estimate
LEAVE_STEPS, GO_BACK_STEPS = 5, 10      # what it takes that a consumer leaves, that messages of a queue go back
HEAD_STEPS = 5          # what it takes to make a delivery head
RUN_STEPS = 5           # what a run of deliveries takes, beyond a step for each; see broker/effort.py
COUNTED_STEPS = 7       # what it takes to write a count of failures into a message, at least
ALIKE_FROM = 8          # deliveries in a run, from which it is faster to pack them all at once
JOINED = 2_048          # octets of content, on an average, up to which deliveries are joined when they are packed
REPORTED = 16 << 10     # octets to be answered, for which a channel reports to the broker
COPIED = 1_024          # octets of content that are copied in a step
LOOKED_AT_IN_A_STEP = 10       # consumers, or deliveries, of which it is asked whether they are overdue
REWRITTEN = 16          # octets of a header table that are read and written in a step

# The properties and the count of failures of a message that was delivered again, and what they became.
_Counted = tuple[tuple[bytes, int], bytes] | None


class _Heads:
    """The ready-made octets of one consumer's deliveries, by route."""

    __slots__ = ("tag", "by_route")

    def __init__(self, tag: str, memory: Memory) -> None:
        self.tag = pack_short_string(tag)
        self.by_route: Remembered[Route, DeliveryHead] = Remembered(memory)


class Consuming:
    """The consuming side of one channel."""

    def __init__(self, channel: Channel) -> None:
        self.consumers: dict[str, Consumer] = {}
        self.unacked: dict[int, Unacked] = {}
        self._coming_back: dict[int, Unacked] = {}      # what a rollback under way makes unacked again
        self.prefetch = 0
        self.shared_prefetch = 0
        self._shared_limit = NO_LIMIT       # what `shared_prefetch` stands for; less while a queue has its turn
        self.reply_tag: str | None = None
        self.dropped_replies = 0
        self.delivered_total = self.acknowledged_total = 0
        self._reply_token = ""
        self._channel = channel
        self._next_tag = 1
        self._until = 0             # the last tag of an answer that is not finished, or 0
        self._in_flight = 0         # deliveries to consumers, gets not among them, that are not answered
        self._heads: dict[str, _Heads] = {}
        self._awaiting_credit = BlockedConsumers()      # nobody, unless the limit is shared
        self._at_unacked_limit: set[str] = set()        # tags of consumers of which the log has been told
        self._is_stopped = False    # nothing more is delivered
        self._left: list[Consumer] = []     # consumers of a channel that is going
        self.times = DeliveryTimes()
        self._unreported = 0        # octets that were sent, and are to be answered, since the last report
        # Contents of tags below the first have been released; those below the second are with the next call.
        self._release_from, self._release_end = 0, 1

    def handlers(self) -> Handlers:
        """The methods this part of a channel answers."""
        return {
            Basic.Qos: self.on_qos,
            Basic.Consume: self.on_consume,
            Basic.Cancel: self.on_cancel,
            Basic.Get: self.on_get,
            Basic.Ack: self.on_ack,
            Basic.Nack: self.on_nack,
            Basic.Reject: self.on_reject,
            Basic.Recover: self.on_recover,
            Basic.RecoverAsync: self.on_recover_async,
        }

    # Subscriber

    @property
    def address(self) -> tuple[int, int]:
        """Connection and channel, by number; see broker/ports.py."""
        return self._channel.owner.number, self._channel.number

    @property
    def room(self) -> int:
        """Octets the connection still takes; see broker/ports.py."""
        return 0 if self._is_stopped else self._channel.room

    @property
    def _is_ending(self) -> bool:
        """Whether the channel is at its end, or the connection is."""
        return self._is_stopped or self._channel.owner.is_ending

    @property
    def credit(self) -> int:
        """What the limit shared by the channel's consumers leaves. RabbitMQ docs/consumer-prefetch."""
        return self._shared_limit - self._in_flight

    def deliver(self, consumer: Consumer, run: Sequence[Message]) -> None:
        """Send a run of messages to one consumer of this channel."""
        tags = range(self._next_tag, self._next_tag + len(run))
        self._next_tag += len(run)
        self.delivered_total += len(run)
        self._channel.broker.effort.total += RUN_STEPS + len(run)
        if not consumer.no_ack:
            self._note_time()
            self._in_flight += len(run)
            self.unacked.update(zip(tags, zip(run, repeat(consumer))))
        heads = self._heads[consumer.tag]
        pieces: list[bytes] = []
        if consumer.queue.redelivery.may_have_any(run):
            self._deliver_some_again(heads, consumer.queue, zip(tags, run), pieces)
        elif len(run) < ALIKE_FROM or not self._deliver_alike(heads, tags, run, pieces):
            known, route = heads.by_route.known, None
            for tag, message in zip(tags, run):
                if message.route is not route:
                    route = message.route
                    front, back, _, fits = known.get(route) or self._head(heads, route)
                if fits:
                    pieces += (front, pack_tag(tag), back, message.content)
                else:
                    pieces += (front, pack_tag(tag), back, *self._refit(message))
        size = sum(map(len, pieces))
        self._channel.outbox.extend(pieces, size)
        if not consumer.no_ack:
            self._unreported += size
            if self._unreported > REPORTED:
                self._report()

    def _deliver_alike(self, heads: _Heads, tags: range, run: Sequence[Message], pieces: list[bytes]) -> bool:
        """Pack a run that came by one route; return whether it did.

        The fast twin of `deliver`'s loop: no bytecode for each message. Small contents are joined here, so that the
        outbox counts and joins one piece for them all.
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

    def _report(self) -> None:
        """Tell the broker how much was sent that is to be answered."""
        self._channel.broker.unacked_contents.sent(self, self._unreported)
        self._unreported = 0

    @property
    def holds_contents(self) -> bool:
        """See broker/unacked_contents.py."""
        if self._is_ending:
            return False
        return next(reversed(self.unacked), -1) >= self._release_from or self._channel.transaction.holds_contents

    def release_contents(self) -> Iterator[None]:
        """Release contents of what is unacked since the last call, or answered in the transaction.

        See broker/unacked_contents.py. What is not committed yet is left for the next call.
        """
        if self._is_ending:
            return
        transaction, effort = self._channel.transaction, self._channel.broker.effort
        end, self._release_end = self._release_end, self._next_tag
        tag = max(self._release_from, next(iter(self.unacked), end))
        self._release_from = end
        while tag < end and not self._is_ending:
            piece = range(tag, min(end, tag + PIECE))
            effort.total += len(piece)
            self._release_from = min(self._release_from, release_contents(self.unacked, piece) or end)
            tag = piece.stop
            yield
        for count in transaction.release_contents():
            effort.total += count
            yield

    def _note_time(self) -> None:
        """Note when the newest deliveries were made."""
        self.times.delivered(self._next_tag, self._channel.broker.clock.now_ms)
        if self.times.next_look_ms is None:
            self._look_soon()

    def _look_soon(self) -> None:
        """Have the timeouts of this channel looked at with the next tick."""
        self.times.next_look_ms = now_ms = self._channel.broker.clock.now_ms
        self._channel.owner.looks.add(self._channel.number, now_ms)

    def _deliver_some_again(
        self, heads: _Heads, queue: Queue, run: Iterable[tuple[int, Message]], pieces: list[bytes]
    ) -> None:
        """The slow twin of `deliver`'s loop, for queues where some message has been handed out before."""
        counts = queue.redelivery.deliveries if queue.rules.shows_delivery_count else {}
        counted: _Counted = None
        for tag, message in run:
            route = message.route
            head = heads.by_route.known.get(route) or self._head(heads, route)
            again = queue.redelivery.is_redelivered(message)
            queue.records.counts.redelivered += again
            failures = counts.get(message.number)
            pieces += (head.front, pack_tag(tag), head.back_redelivered if again else head.back)
            if failures:
                counted = self._count(message, failures, counted)
                self._channel.broker.effort.total += COUNTED_STEPS
                pieces += self._refit(message, counted[1])
            elif head.content_fits:
                pieces.append(message.content)
            else:
                pieces += self._refit(message)

    def _count(self, message: Message, failures: int, last: _Counted) -> tuple[tuple[bytes, int], bytes]:
        """Return the properties with the count of failed deliveries, and what they were made of.

        Those of `last` serve again where they are the same. RabbitMQ docs/quorum-queues (poison messages).
        """
        origin = message.properties, failures
        if last is not None and last[0] == origin:
            return last
        self._channel.broker.effort.total += len(message.facts.headers) // REWRITTEN
        return origin, with_headers(origin[0], {"x-delivery-count": Long(failures)})

    def _head(self, heads: _Heads, route: Route) -> DeliveryHead:
        self._channel.broker.effort.total += HEAD_STEPS
        head = delivery_head(self._channel.number, self._channel.frame_max, heads.tag, route)
        # the names a third time, since the route is kept as well
        heads.by_route.keep(route, head, HEAD_OCTETS + len(heads.tag) + 3 * len(route.octets))
        return head

    def _refit(self, message: Message, properties: bytes | None = None) -> list[bytes]:
        """Return the content frames for this channel, and count what they cost: a single piece has been copied."""
        pieces = content_pieces(message, self._channel.number, self._channel.frame_max, properties)
        if len(pieces) > 1:
            self._channel.broker.effort.total += len(pieces)
        elif pieces[0] is not message.content:
            self._channel.broker.effort.total += len(pieces[0]) // COPIED
        return pieces

    def consumer_blocked(self, consumer: Consumer) -> None:
        """Keep a consumer that has to wait for credit or room; see broker/ports.py.

        One that waits for its own answers is unblocked with each of them.
        """
        if self._is_ending:
            return
        if self.credit <= 0:
            self._awaiting_credit.add(consumer)
        elif self.room <= 0:
            self._channel.owner.awaiting_room.add(consumer)
        elif consumer.is_at_unacked_limit and consumer.tag not in self._at_unacked_limit:
            self._at_unacked_limit.add(consumer.tag)
            self._channel.owner.log_unacked_limit(self._channel.number, consumer)

    def fail(self) -> None:
        """Close the connection in the next turn; see broker/ports.py."""
        self._channel.owner.fail_soon()

    def cancelled(self, consumer: Consumer) -> None:
        """The consumer's queue is gone. Only clients that asked to be told are told, after any delete-ok."""
        del self.consumers[consumer.tag]
        self._forget(consumer)
        if self._channel.client_can("consumer_cancel_notify") and not self._is_ending:
            self._channel.notify(pack_cancel(self._channel.number, consumer.tag, nowait=True))

    # Consumers

    def on_qos(self, method: Basic.Qos) -> Basic.QosOk:
        """A limit for consumers started from now on, or with `global` one for all of the channel together."""
        if method.prefetch_size:
            raise ConnectionException(ReplyCode.NOT_IMPLEMENTED, f"prefetch_size!=0 ({method.prefetch_size})")
        if method.global_:
            self.shared_prefetch = method.prefetch_count
            self._share_credit()
        else:
            self.prefetch = method.prefetch_count
        return Basic.QosOk()

    def on_consume(self, method: Basic.Consume) -> None:
        """Start a consumer; consume-ok goes out before its first delivery. Spec: basic.consume, §4.6."""
        channel = self._channel
        name = channel.queue_name(method.queue)
        tag = method.consumer_tag or generated_name("amq.ctag-")
        if name == REPLY_TO:
            self._consume_replies(tag, method)
            return
        self._check_tag(tag)
        channel.user.require(channel.vhost.name, "read", "queue", name)
        queue = channel.vhost.queue(name, channel.owner)
        check_consumer_arguments(
            name, channel.vhost.name, method.arguments, type_of_queue(queue.definition.arguments))
        consumer = Consumer(
            tag, queue, self, no_ack=method.no_ack,
            exclusive=method.exclusive and not queue.rules.is_quorum,      # RabbitMQ docs/quorum-queues
            prefetch=self.prefetch,
            unacked_limit=channel.unacked_limit, arguments=method.arguments)
        queue.subscribe(consumer)
        self.consumers[tag] = consumer
        self._heads[tag] = _Heads(tag, channel.owner.memory)
        if self.times.next_look_ms is not None and consumer.timeout_ms(None) is not None:
            self._look_soon()
        self._answer_consume(tag, method)
        queue.dispatch()

    def _check_tag(self, tag: str) -> None:
        if tag in self.consumers or tag == self.reply_tag:
            raise ConnectionException(ReplyCode.NOT_ALLOWED, f"attempt to reuse consumer tag '{tag}'")

    def _answer_consume(self, tag: str, method: Basic.Consume) -> None:
        if not method.nowait:
            self._channel.outbox.write(pack_consume_ok(self._channel.number, tag))

    def on_cancel(self, method: Basic.Cancel) -> bytes | None:
        """Stop a consumer; an unknown tag is fine. What it has not answered stays unacked."""
        tag = str(method.consumer_tag)
        consumer = self.consumers.pop(tag, None)
        if consumer is not None:
            self._forget(consumer)
            self._leave(consumer)
        elif tag == self.reply_tag:
            self._stop_replies()
        return None if method.nowait else pack_cancel_ok(self._channel.number, tag)

    def _forget(self, consumer: Consumer) -> None:
        """Drop what is kept of a consumer besides its unacked deliveries."""
        self._heads.pop(consumer.tag).by_route.clear()
        self._at_unacked_limit.discard(consumer.tag)
        self._awaiting_credit.remove(consumer)
        self._channel.owner.awaiting_room.remove(consumer)

    def _leave(self, consumer: Consumer) -> None:
        consumer.queue.unsubscribe(consumer)
        self._channel.vhost.consumer_left(consumer.queue)
        consumer.queue.dispatch()

    # Direct replies

    @property
    def reply_address(self) -> str:
        """What `amq.rabbitmq.reply-to` becomes in a request. Raises ChannelException without a reply consumer."""
        self.check_reply_consumer()
        return self._reply_token

    def check_reply_consumer(self) -> None:
        """Raises ChannelException: PRECONDITION_FAILED without a reply consumer."""
        if self.reply_tag is None:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, "fast reply consumer does not exist")

    def _consume_replies(self, tag: str, method: Basic.Consume) -> None:
        if self.reply_tag is not None:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, "reply consumer already set")
        self._check_tag(tag)
        if not method.no_ack:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, "reply consumer cannot acknowledge")
        self.reply_tag = tag
        self._reply_token = new_reply_address(*self.address)
        vhost = self._channel.vhost
        vhost.reply_subscribers[self._reply_token] = self
        vhost.version += 1
        self._answer_consume(tag, method)

    def _stop_replies(self) -> None:
        vhost = self._channel.vhost
        del vhost.reply_subscribers[self._reply_token]
        vhost.version += 1
        self.reply_tag = None

    def deliver_reply(self, message: Message) -> None:
        """Send a direct reply; see broker/ports.py."""
        assert self.reply_tag is not None
        channel = self._channel
        if self._is_ending:
            return
        if not channel.owner.takes_replies:
            self._drop_reply()
            return
        head = delivery_head(channel.number, channel.frame_max, pack_short_string(self.reply_tag), message.route)
        pieces = (head.front, pack_tag(self._next_tag), head.back, *self._refit(message))
        channel.outbox.extend(pieces, sum(map(len, pieces)))

    def _drop_reply(self) -> None:
        """Drop a reply to a client that does not read: its memory is not others' to fill."""
        if not self.dropped_replies:
            channel = self._channel
            channel.owner.log_channel(
                channel.number, "direct replies are dropped: the client does not read what it is sent")
        self.dropped_replies += 1

    # Getting

    def on_get(self, method: Basic.Get) -> bytes | None:
        """One message if there is one. Raises NotAtHand where it is still on disk. Spec: basic.get."""
        channel = self._channel
        name = channel.queue_name(method.queue)
        channel.user.require(channel.vhost.name, "read", "queue", name)
        queue = channel.vhost.queue(name, channel.owner)
        message = queue.get(no_ack=method.no_ack)
        if message is None:
            return GET_EMPTY % channel.number.to_bytes(2, "big")
        tag = self._next_tag
        self._next_tag += 1
        again = queue.redelivery.is_redelivered(message)
        queue.records.counts.redelivered += again
        failures = queue.redelivery.deliveries.get(message.number) if queue.rules.shows_delivery_count else None
        if method.no_ack:
            queue.forget(message)
        else:
            self.unacked[tag] = message, Consumer("", queue, self)
            self._note_time()
            self._unreported += len(message.content)
            if self._unreported > REPORTED:
                self._report()
        answer = pack_get_ok(
            channel.number, tag, redelivered=again, route=message.route, left=len(queue.ready))
        pieces = self._refit(message, self._count(message, failures, None)[1] if failures else None)
        if len(message.content) < SHARED:
            return answer + pieces[0]
        for piece in (answer, *pieces):
            channel.outbox.write(piece)
        return None

    # Answers

    def on_acks(self, tags: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Take a run of acks, and return those that wait for the next turn, since the others are enough for one.

        If one is refused, those before it hold. Spec: basic.ack.
        """
        if self._channel.transaction.active:
            return self._hold_acks(tags)
        rest: list[tuple[int, int]] = []
        if len(tags) > ANSWERS_AT_ONCE:
            tags, rest = tags[:ANSWERS_AT_ONCE], tags[ANSWERS_AT_ONCE:]
        self._channel.broker.effort.total += len(tags)
        answered: list[Unacked] = []
        unacked = self.unacked
        try:
            for place, (tag, multiple) in enumerate(tags):
                if multiple:
                    answered += self._take_piece(tag).values()
                    if self._until:
                        return tags[place:] + rest
                elif one := unacked.pop(tag, None):
                    answered.append(one)
                else:
                    raise unknown_tag(tag)
            return rest
        finally:
            taken = by_consumer(answered)
            self.settle(taken)
            self.dispatch_after(taken)

    def _hold_acks(self, tags: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Keep acks for the commit, as many as a turn allows, and return the others."""
        self._channel.broker.effort.total += min(len(tags), ANSWERS_AT_ONCE)
        for place, (tag, multiple) in enumerate(tags[:ANSWERS_AT_ONCE]):
            taken = self._take_piece(tag) if multiple else self._take(tag)
            self._channel.transaction.hold_answers(taken, Verdict.ACK)
            if self._until:
                return tags[place:]
        return tags[ANSWERS_AT_ONCE:]

    def on_ack(self, method: Basic.Ack) -> None:
        """One ack that did not come in a run."""
        self.on_acks([(int(method.delivery_tag or 0), bool(method.multiple))])

    def on_nack(self, method: Basic.Nack) -> None:
        """Give back or give up one or several. RabbitMQ docs/nack."""
        self._give_back(method.delivery_tag, multiple=method.multiple, requeue=method.requeue)

    def on_reject(self, method: Basic.Reject) -> None:
        """Give back or give up one. Spec: basic.reject."""
        self._give_back(int(method.delivery_tag or 0), multiple=False, requeue=method.requeue)

    def on_recover(self, method: Basic.Recover) -> None:
        """Requeue all that is unacked; recover-ok goes out before anything comes back. Spec: basic.recover."""
        if not method.requeue:
            raise ConnectionException(ReplyCode.NOT_IMPLEMENTED, "requeue=false")
        if not self._until:
            self._channel.reply(Basic.RecoverOk())
        self.on_recover_async(method)

    def on_recover_async(self, method: Basic.RecoverAsync | Basic.Recover) -> None:
        """The same without an answer."""
        if not method.requeue:
            raise ConnectionException(ReplyCode.NOT_IMPLEMENTED, "requeue=false")
        self.requeue(by_consumer(self._take_piece(0).values()))
        if self._until:
            raise Unfinished

    def _take_piece(self, tag: int) -> dict[int, Unacked]:
        """Take deliveries up to this tag, or all with tag 0, but no more than a turn allows.

        While `_until` is set there are more of them: the same answer is to be taken again. What is delivered meanwhile
        is not among them. Raises ChannelException where no such tag is outstanding. Spec: basic.ack.
        """
        unacked = self.unacked
        if not self._until:
            if tag not in unacked and tag:
                raise unknown_tag(tag)
            self._until = tag or next(reversed(unacked), 0)
        tags = list(islice(takewhile(self._until.__ge__, unacked), ANSWERS_AT_ONCE))
        self._channel.broker.effort.total += len(tags)
        taken = {tag: unacked.pop(tag) for tag in tags}
        if not (unacked and next(iter(unacked)) <= self._until):
            self._until = 0
        return taken

    def _take(self, tag: int) -> dict[int, Unacked]:
        """Take one delivery out of `unacked`. Raises ChannelException where no such tag is outstanding."""
        if tag not in self.unacked:
            raise unknown_tag(tag)
        return {tag: self.unacked.pop(tag)}

    def unanswer(self, answers: list[Answered]) -> Iterator[None]:
        """Undo these takes, in pieces, and empty the list: what was taken is unacked again, in the order of the tags.

        It is not until the end; what is delivered meanwhile is, and comes after it.
        """
        if not answers:
            return
        effort = self._channel.broker.effort
        back = self._coming_back = self.unacked
        self.unacked = {}
        count = 0
        while answers:
            answered, _ = answers.pop()
            back.update(answered)
            count += 1 + len(answered)
            if count >= ANSWERS_AT_ONCE:
                count = 0
                effort.total += PIECE
                yield
        tags, runs = [*back], []
        for start in range(0, len(tags), ANSWERS_AT_ONCE):
            runs.append(sorted(tags[start : start + ANSWERS_AT_ONCE]))
            if len(tags) > ANSWERS_AT_ONCE:
                effort.total += PIECE
                yield
        rising = merge(*runs) if len(runs) > 1 else chain(*runs)
        in_order: dict[int, Unacked] = {}
        while piece := {tag: back[tag] for tag in islice(rising, PIECE)}:
            in_order.update(piece)
            effort.total += len(piece)
            if len(in_order) < len(back):
                yield
        in_order.update(self.unacked)
        self.unacked, self._coming_back = in_order, {}
        self._release_from = 0      # the contents of what came back may be in memory
        self._report()

    def _give_back(self, tag: int, *, multiple: bool, requeue: bool) -> None:
        """Give back or give up. Raises Unfinished while there are more deliveries than one turn allows."""
        verdict = Verdict.REQUEUE if requeue else Verdict.REJECT
        transaction = self._channel.transaction
        taken = self._take_piece(tag) if multiple else self._take(tag)
        if transaction.active:
            transaction.hold_answers(taken, verdict)
        else:
            self.carry_out(verdict, by_consumer(taken.values()))
        if self._until:
            raise Unfinished

    def carry_out(self, verdict: Verdict, taken: dict[Consumer, list[Message]]) -> int:
        """Do with these deliveries as was said; returns the journal's batch that makes it so, or 0."""
        if verdict is Verdict.REQUEUE:
            self.requeue(taken)
            return 0
        batch = self.settle(taken, in_transaction=True) if verdict is Verdict.ACK else self._reject(taken)
        self.dispatch_after(taken)
        return batch

    def _reject(self, taken: dict[Consumer, list[Message]]) -> int:
        batch = 0
        for consumer, run in taken.items():
            self._answered(consumer, len(run))
            batch = max(batch, consumer.queue.reject(run))
        return batch

    def settle(self, taken: dict[Consumer, list[Message]], *, in_transaction: bool = False) -> int:
        """These deliveries are done with; the journal's batch that makes it so, or 0. The caller dispatches."""
        batch = 0
        for consumer, run in taken.items():
            self._answered(consumer, len(run))
            self.acknowledged_total += len(run)
            batch = max(batch, consumer.queue.settle(run, in_transaction=in_transaction))
        return batch

    def requeue(self, taken: dict[Consumer, list[Message]]) -> None:
        """These go back to where they were in their queues."""
        by_queue: dict[Queue, list[Message]] = {}
        for consumer, run in taken.items():
            self._answered(consumer, len(run))
            by_queue.setdefault(consumer.queue, []).extend(run)
        for queue, run in by_queue.items():
            queue.requeue(run)
        self.dispatch_after(taken)

    def _answered(self, consumer: Consumer, count: int) -> None:
        if consumer.tag:
            consumer.in_flight -= count
            self._in_flight -= count
            if consumer.is_blocked:
                consumer.queue.unblock(consumer)

    def dispatch_after(self, taken: Iterable[Consumer]) -> None:
        """Hand out again what answers made room for."""
        if self.shared_prefetch:
            self._share_credit()
        for queue in {consumer.queue: None for consumer in taken}:
            queue.dispatch()

    def _share_credit(self) -> None:
        """Hand out what the shared limit allows: each queue that waits for it has its share."""
        limit = self.shared_prefetch or NO_LIMIT

        def begin_turn(share: int) -> None:
            self._shared_limit = min(limit, self._in_flight + share)

        self._awaiting_credit.serve(lambda: limit - self._in_flight, begin_turn)
        self._shared_limit = limit

    @property
    def owed(self) -> list[Unacked]:
        """The deliveries that are not answered for good: what a transaction holds is among them."""
        return [*self.unacked.values(), *self._coming_back.values(), *self._channel.transaction.held_answers]

    @property
    def owed_count(self) -> int:
        """How many these are."""
        return len(self.unacked) + len(self._coming_back) + self._channel.transaction.held_count

    # Timeouts

    def overdue(self, now_ms: int, default_ms: int | None) -> int | None:
        """Return the timeout in ms that some delivery has been unacked for longer than, or None.

        RabbitMQ docs/consumers.
        """
        has_own_timeouts = self._has_own_timeouts
        looked_at = len(self.consumers) + (len(self.unacked) if has_own_timeouts else 0)
        self._channel.broker.effort.total += looked_at // LOOKED_AT_IN_A_STEP
        return self.times.overdue(
            now_ms, self.unacked, default_ms, has_own_timeouts=has_own_timeouts,
            keeps_all=self._channel.transaction.holds_answers)     # a rollback may bring deliveries back

    @property
    def _has_own_timeouts(self) -> bool:
        """Whether a later delivery may be due before the oldest one."""
        return any(
            consumer.queue.rules.consumer_timeout_ms is not None or "x-consumer-timeout" in consumer.arguments
            for consumer in self.consumers.values())

    # The end

    def stop(self) -> None:
        """Let nothing more come to this channel."""
        self._is_stopped = True
        if self.reply_tag is not None:
            self._stop_replies()

    def leave(self) -> Iterator[Act]:
        """Go through what makes the consumers leave their queues, after `stop`."""
        for consumer in [*self.consumers.values()]:
            yield LEAVE_STEPS, partial(self._leave_queue, consumer)

    def _leave_queue(self, consumer: Consumer) -> None:
        if consumer.tag in self.consumers:      # else its queue has been deleted meanwhile
            del self.consumers[consumer.tag]
            self._left.append(consumer)
            self._forget(consumer)
            consumer.queue.unsubscribe(consumer)

    def give_back_all(self, transaction: Transaction) -> Iterator[Act]:
        """Go through what gives back all that is unacked, after `leave`: of each queue at once. Spec: channel.close."""
        vhost = self._channel.vhost
        self._channel.broker.unacked_contents.forget(self)
        unanswered = [*transaction.end(), self._coming_back, self.unacked]
        self.unacked, self._coming_back = {}, {}
        self.shared_prefetch, self._shared_limit = 0, NO_LIMIT
        by_queue: dict[Queue, list[Message]] = {}
        while unanswered:
            deliveries = iter(unanswered.pop().values())
            while piece := [*islice(deliveries, PIECE)]:
                for message, consumer in piece:
                    by_queue.setdefault(consumer.queue, []).append(message)
                yield 1 + len(piece) // 4, nothing
        while by_queue:
            queue, run = by_queue.popitem()
            yield GO_BACK_STEPS + min(len(run), PIECE), partial(_go_back, queue, run)
        while self._left:
            queue = self._left.pop().queue
            steps = LEAVE_STEPS + (REMOVE_STEPS if queue.definition.auto_delete else 0)
            yield steps, partial(vhost.consumer_left, queue)
            yield 0, queue.dispatch

    def check(self) -> None:
        """Assert what must hold between calls."""
        assert list(self.unacked) == sorted(self.unacked), "unacked is out of order"
        owed = self.owed
        assert len(owed) == self.owed_count, "what is owed is counted wrongly"
        for tag, consumer in self.consumers.items():
            held = sum(owner is consumer for _, owner in owed)
            assert consumer.in_flight == held, f"in_flight of {tag} is off"


def _go_back(queue: Queue, run: list[Message]) -> None:
    queue.requeue(run)
    queue.dispatch()


GET_EMPTY = b"\x01%b\x00\x00\x00\x05\x00\x3c\x00\x48\x00\xce"


def unknown_tag(tag: int) -> ChannelException:
    """The refusal of an answer to a delivery that is not outstanding."""
    return ChannelException(ReplyCode.PRECONDITION_FAILED, f"unknown delivery tag {tag}")
