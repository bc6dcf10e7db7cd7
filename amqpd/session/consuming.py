"""What a client takes from queues on one channel: consumers and gets.

Owns the channel's consumers. It is the `Subscriber` that queues deliver to. Deliveries that are not answered are in
`unacked.py`, answers in `answers.py`, limits in `prefetch.py`, frames in `delivering.py`.

Always true between calls: what a consumer has in flight are its deliveries that are not answered for good.

Spec: basic.qos, basic.consume, basic.get; RabbitMQ docs/consumer-prefetch, docs/consumers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice, repeat
from typing import TYPE_CHECKING

from pamqp.commands import Basic

from amqpd.broker.arguments import check_consumer_arguments, type_of_queue
from amqpd.broker.departure import REMOVE_STEPS
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.queue import Queue
from amqpd.broker.step_job import Act
from amqpd.broker.vhost import REPLY_TO, generated_name
from amqpd.broker.worklist import PIECE, nothing
from amqpd.errors import ConnectionException, ReplyCode
from amqpd.message import Message
from amqpd.session.answers import Answers
from amqpd.session.channel_contents import ChannelContents
from amqpd.session.commit import Answered, Unacked
from amqpd.session.consumer_timeouts import DeliveryTimes
from amqpd.session.delivering import DeliveryWriter
from amqpd.session.direct_replies import DirectReplies
from amqpd.session.prefetch import Prefetch
from amqpd.session.table import Handlers
from amqpd.session.unacked import UnackedDeliveries
from amqpd.wire.methods import pack_cancel, pack_cancel_ok, pack_consume_ok
from amqpd.wire.writer import SHARED, pack_get_ok

if TYPE_CHECKING:
    from amqpd.session.channel import Channel
    from amqpd.session.transaction import Transaction

LEAVE_STEPS, GO_BACK_STEPS = 5, 10      # what it takes that a consumer leaves, that messages of a queue go back
RUN_STEPS = 5           # what a run of deliveries takes, beyond a step for each; see broker/effort.py
LOOKED_AT_IN_A_STEP = 10       # consumers, or deliveries, of which it is asked whether they are overdue
GET_EMPTY = b"\x01%b\x00\x00\x00\x05\x00\x3c\x00\x48\x00\xce"


class Consuming:
    """The consuming side of one channel."""

    def __init__(self, channel: Channel) -> None:
        self.consumers: dict[str, Consumer] = {}
        self.times = DeliveryTimes()
        self.prefetch = Prefetch()
        self.deliveries = UnackedDeliveries(channel.broker.effort)
        self.contents = ChannelContents(channel, self.deliveries)
        self.answers = Answers(channel, self.deliveries, self.prefetch)
        self.writer = DeliveryWriter(channel)
        self.replies = DirectReplies(channel, self.deliveries, self.writer)
        self._channel = channel
        self._effort = channel.broker.effort
        self._at_unacked_limit: set[str] = set()        # tags of consumers of which the log has been told
        self._left: list[Consumer] = []     # consumers of a channel that is going

    def handlers(self) -> Handlers:
        """The methods this part of a channel answers."""
        return {
            Basic.Qos: self.on_qos,
            Basic.Consume: self.on_consume,
            Basic.Cancel: self.on_cancel,
            Basic.Get: self.on_get,
            **self.answers.handlers(),
        }

    # Subscriber

    @property
    def address(self) -> tuple[int, int]:
        """Connection and channel, by number; see broker/ports.py."""
        return self._channel.owner.number, self._channel.number

    @property
    def room(self) -> int:
        """Bytes the connection still takes; see broker/ports.py."""
        return self._channel.room

    @property
    def credit(self) -> int:
        """What the limit shared by the channel's consumers leaves. RabbitMQ docs/consumer-prefetch."""
        return self.prefetch.credit

    def deliver(self, consumer: Consumer, run: Sequence[Message]) -> None:
        """Send a run of messages to one consumer of this channel."""
        deliveries, count = self.deliveries, len(run)
        tags = range(deliveries.next_tag, deliveries.next_tag + count)
        deliveries.next_tag += count
        self._effort.total += RUN_STEPS + count
        if consumer.no_ack:
            self.writer.write(consumer, tags, run)
        else:
            self._note_time()
            self.prefetch.in_flight += count
            deliveries.by_tag.update(zip(tags, zip(run, repeat(consumer))))
            self.contents.sent(self.writer.write(consumer, tags, run))

    def consumer_blocked(self, consumer: Consumer) -> None:
        """Keep a consumer that has to wait for credit or room; see broker/ports.py.

        One that waits for its own answers is unblocked with each of them.
        """
        channel = self._channel
        if channel.is_ending:
            return
        if self.credit <= 0:
            self.prefetch.block(consumer)
        elif self.room <= 0:
            channel.owner.awaiting_room.add(consumer)
        elif consumer.is_at_unacked_limit and consumer.tag not in self._at_unacked_limit:
            self._at_unacked_limit.add(consumer.tag)
            channel.owner.log_unacked_limit(channel.number, consumer)

    def fail(self) -> None:
        """Close the connection in the next turn; see broker/ports.py."""
        self._channel.owner.fail_soon()

    def cancelled(self, consumer: Consumer) -> None:
        """The consumer's queue is gone. Only clients that asked to be told are told, after any delete-ok."""
        channel = self._channel
        del self.consumers[consumer.tag]
        self._forget(consumer)
        if channel.client_can("consumer_cancel_notify") and not channel.is_ending:
            channel.notify(pack_cancel(channel.number, consumer.tag, nowait=True))

    # Consumers

    def on_qos(self, method: Basic.Qos) -> Basic.QosOk:
        """A limit for consumers started from now on, or with `global` one for all of the channel together."""
        if method.prefetch_size:
            raise ConnectionException(ReplyCode.NOT_IMPLEMENTED, f"prefetch_size!=0 ({method.prefetch_size})")
        if method.global_:
            self.prefetch.share(method.prefetch_count)
        else:
            self.prefetch.of_consumers = method.prefetch_count
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
            prefetch=self.prefetch.of_consumers,
            unacked_limit=channel.unacked_limit, arguments=method.arguments)
        queue.subscribe(consumer)
        self.consumers[tag] = consumer
        self.writer.begin(tag)
        if self.times.next_look_ms is not None and consumer.timeout_ms(None) is not None:
            self._look_soon()
        self._answer_consume(tag, method)
        queue.dispatch()

    def _consume_replies(self, tag: str, method: Basic.Consume) -> None:
        self.replies.check_no_consumer()
        self._check_tag(tag)
        self.replies.begin(tag, no_ack=method.no_ack)
        self._answer_consume(tag, method)

    def _check_tag(self, tag: str) -> None:
        if tag in self.consumers or tag == self.replies.tag:
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
        elif tag == self.replies.tag:
            self.replies.end()
        return None if method.nowait else pack_cancel_ok(self._channel.number, tag)

    def _forget(self, consumer: Consumer) -> None:
        """Drop what is kept of a consumer besides its unacked deliveries."""
        self.writer.forget(consumer.tag)
        self._at_unacked_limit.discard(consumer.tag)
        self.prefetch.forget(consumer)
        self._channel.owner.awaiting_room.remove(consumer)

    def _leave(self, consumer: Consumer) -> None:
        consumer.queue.unsubscribe(consumer)
        self._channel.vhost.topology.consumer_left(consumer.queue)
        consumer.queue.dispatch()

    # Getting

    def on_get(self, method: Basic.Get) -> bytes | None:
        """Send one message if there is one. Raises MessageNotLoaded where it is still on disk. Spec: basic.get."""
        channel = self._channel
        name = channel.queue_name(method.queue)
        channel.user.require(channel.vhost.name, "read", "queue", name)
        queue = channel.vhost.queue(name, channel.owner)
        message = queue.get(no_ack=method.no_ack)
        if message is None:
            return GET_EMPTY % channel.number.to_bytes(2, "big")
        tag = self.deliveries.next_tag
        self.deliveries.next_tag += 1
        again = queue.redelivery.is_redelivered(message)
        queue.records.counts.redelivered += again
        failures = queue.redelivery.deliveries.get(message.number) if queue.rules.shows_delivery_count else None
        if method.no_ack:
            queue.forget(message)
        else:
            self.deliveries.by_tag[tag] = message, Consumer("", queue, self)
            self._note_time()
            self.contents.sent(len(message.content))
        answer = pack_get_ok(
            channel.number, tag, redelivered=again, route=message.route, left=len(queue.ready))
        pieces = self.writer.counted_content(message, failures)
        if len(message.content) < SHARED:
            return answer + pieces[0]
        for piece in (answer, *pieces):
            channel.outbox.write(piece)
        return None

    # Unacked deliveries

    @property
    def unacked(self) -> dict[int, Unacked]:
        """Return the deliveries that are not answered, by tag."""
        return self.deliveries.by_tag

    def put_back(self, answers: list[Answered]) -> Iterator[None]:
        """Undo these answers, in pieces, and empty the list: a rollback."""
        if answers:
            yield from self.deliveries.put_back(answers)
            self.contents.report()

    @property
    def owed(self) -> list[Unacked]:
        """The deliveries that are not answered for good: what a transaction holds is among them."""
        return [*self.deliveries.deliveries, *self._channel.transaction.held_answers]

    @property
    def owed_count(self) -> int:
        """How many these are."""
        return self.deliveries.count + self._channel.transaction.held_count

    # Timeouts

    def _note_time(self) -> None:
        """Note when the newest deliveries were made."""
        self.times.delivered(self.deliveries.next_tag, self._channel.broker.clock.now_ms)
        if self.times.next_look_ms is None:
            self._look_soon()

    def _look_soon(self) -> None:
        """Have the timeouts of this channel looked at with the next tick."""
        self.times.next_look_ms = now_ms = self._channel.broker.clock.now_ms
        self._channel.owner.looks.add(self._channel.number, now_ms)

    def overdue(self, now_ms: int, default_ms: int | None) -> int | None:
        """Return the timeout in ms that some delivery has been unacked for longer than, or None.

        RabbitMQ docs/consumers.
        """
        has_own_timeouts = self._has_own_timeouts
        looked_at = len(self.consumers) + (len(self.unacked) if has_own_timeouts else 0)
        self._effort.total += looked_at // LOOKED_AT_IN_A_STEP
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

    def leave(self) -> Iterator[Act]:
        """Go through what makes the consumers leave their queues, once the channel has stopped."""
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
        self.contents.end()
        unanswered = [*transaction.end(), *self.deliveries.let_go()]
        self.prefetch.end()
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
            yield steps, partial(vhost.topology.consumer_left, queue)
            yield 0, queue.dispatch

    def check(self) -> None:
        """Assert what must hold between calls."""
        self.deliveries.check()
        owed = self.owed
        assert len(owed) == self.owed_count, "what is owed is counted wrongly"
        for tag, consumer in self.consumers.items():
            held = sum(owner is consumer for _, owner in owed)
            assert consumer.in_flight == held, f"in_flight of {tag} is off"


def _go_back(queue: Queue, run: list[Message]) -> None:
    queue.requeue(run)
    queue.dispatch()
