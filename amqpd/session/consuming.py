"""The consuming side of one channel: consumers and basic.get.

Owns the channel's consumers. It is the `Subscriber` that queues deliver to. `unacked.py` has the unacked deliveries,
`answers.py` the answers, `prefetch.py` the limits, `delivering.py` the frames.

Always true between calls: `in_flight` of a consumer is the number of its deliveries that are not settled.

Spec: basic.qos, basic.consume, basic.get; RabbitMQ docs/consumer-prefetch, docs/consumers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice, repeat

from pamqp.commands import Basic

from amqpd.broker.arguments import check_consumer_arguments, type_of_queue
from amqpd.broker.broker import OldestUnacked
from amqpd.broker.departure import REMOVE_STEPS
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.pager import MessageNotLoaded
from amqpd.broker.queue.queue import Queue
from amqpd.broker.statistics import UnackedDelivery
from amqpd.broker.step_job import Act
from amqpd.broker.vhost import REPLY_TO, generated_name
from amqpd.broker.worklist import PIECE, nothing
from amqpd.errors import ChannelException, ConnectionException, ReplyCode
from amqpd.message import Message
from amqpd.session.answers import Answers
from amqpd.session.channel_contents import ChannelContents
from amqpd.session.channel_state import ChannelState
from amqpd.session.channel_timeouts import ChannelTimeouts
from amqpd.session.commit import Unacked
from amqpd.session.delivering import DeliveryWriter
from amqpd.session.direct_replies import DirectReplies
from amqpd.session.prefetch import Prefetch
from amqpd.session.table import Handlers
from amqpd.session.unacked import UnackedDeliveries
from amqpd.session.uncommitted import Uncommitted
from amqpd.wire.methods import pack_cancel, pack_cancel_ok, pack_consume_ok
from amqpd.wire.writer import SHARED, pack_get_ok

LEAVE_STEPS, GO_BACK_STEPS = 5, 10      # the cost of removing a consumer, and of requeueing messages of one queue
RUN_STEPS = 5           # the cost of a run of deliveries, besides a step for each; see broker/effort.py
GET_EMPTY = b"\x01%b\x00\x00\x00\x05\x00\x3c\x00\x48\x00\xce"


class Consuming:
    """The consuming side of one channel."""

    def __init__(self, channel: ChannelState, uncommitted: Uncommitted) -> None:
        self.consumers: dict[str, Consumer[Queue]] = {}
        self.prefetch = Prefetch()
        self.deliveries = UnackedDeliveries(channel.effort, channel.owner.settings.small_content)
        self.timeouts = ChannelTimeouts(channel, self.consumers, self.deliveries, uncommitted)
        self.contents = ChannelContents(channel, self.deliveries, uncommitted)
        self.answers = Answers(channel, self.deliveries, self.prefetch, uncommitted)
        self.writer = DeliveryWriter(channel)
        self.replies = DirectReplies(channel, self.deliveries, self.writer)
        self._channel = channel
        self._taps = channel.vhost.taps
        self._owner = channel.owner
        self._effort = channel.effort
        self._counts = channel.counts
        self._uncommitted = uncommitted
        self._at_unacked_limit: set[str] = set()        # tags of consumers for which this was logged
        self._left: list[Consumer[Queue]] = []     # consumers of a channel that is ending

    def handlers(self) -> Handlers:
        """Return the methods that this part of a channel handles."""
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
        """Connection and channel, by number; see broker/queue/consumer.py."""
        return self._owner.number, self._channel.number

    @property
    def room(self) -> int:
        """Bytes the connection still takes; see broker/queue/consumer.py."""
        return 0 if self._channel.is_stopped else self._owner.room

    @property
    def credit(self) -> int:
        """The credit that is left of the limit shared by the channel's consumers. RabbitMQ docs/consumer-prefetch."""
        return self.prefetch.credit

    def deliver(self, consumer: Consumer[Queue], run: Sequence[Message]) -> None:
        """Send a run of messages to one consumer of this channel."""
        deliveries, count = self.deliveries, len(run)
        tags = range(deliveries.next_tag, deliveries.next_tag + count)
        deliveries.next_tag += count
        self._effort.total += RUN_STEPS + count
        if (firehose := self._taps.firehose) is not None:
            firehose.delivered(self._channel.client, consumer.queue, run)
        if consumer.no_ack:
            self._counts.delivered_no_ack += count
            self.writer.write(consumer, tags, run)
        else:
            self.timeouts.delivered()
            self.prefetch.in_flight += count
            deliveries.by_tag.update(zip(tags, zip(run, repeat(consumer))))
            self.contents.sent(self.writer.write(consumer, tags, run))

    def consumer_blocked(self, consumer: Consumer[Queue]) -> None:
        """Keep a consumer that has to wait for credit or room; see broker/queue/consumer.py.

        A consumer that waits for its own acks is unblocked with each of them.
        """
        if self._channel.is_ending:
            return
        if self.credit <= 0:
            self.prefetch.block(consumer)
        elif self.room <= 0:
            self._owner.awaiting_room.add(consumer)
        elif consumer.is_at_unacked_limit and consumer.tag not in self._at_unacked_limit:
            self._at_unacked_limit.add(consumer.tag)
            self._owner.log_unacked_limit(self._channel.number, consumer)

    def fail(self) -> None:
        """Close the connection in the next turn; see broker/queue/consumer.py."""
        self._owner.fail_soon()

    def cancelled(self, consumer: Consumer[Queue]) -> None:
        """Remove a consumer that the broker cancels; tell clients that support it, after any delete-ok."""
        channel = self._channel
        del self.consumers[consumer.tag]
        self._forget(consumer)
        if self._owner.client_can("consumer_cancel_notify") and not channel.is_ending:
            channel.notify(pack_cancel(channel.number, consumer.tag, nowait=True))

    # Consumers

    def on_qos(self, method: Basic.Qos) -> Basic.QosOk:
        """Set a limit for consumers started from now on, or with `global` one for all of the channel together."""
        if method.prefetch_size:
            raise ConnectionException(ReplyCode.NOT_IMPLEMENTED, f"prefetch_size!=0 ({method.prefetch_size})")
        if method.global_:
            self.prefetch.share(method.prefetch_count)
        else:
            self.prefetch.of_consumers = method.prefetch_count
        return Basic.QosOk()

    def on_consume(self, method: Basic.Consume) -> None:
        """Start a consumer; consume-ok is sent before its first delivery. Spec: basic.consume, §4.6."""
        channel = self._channel
        name = channel.queue_name(method.queue)
        tag = method.consumer_tag or generated_name("amq.ctag-")
        if name == REPLY_TO:
            self._consume_replies(tag, method)
            return
        self._check_tag(tag)
        self._check_room()
        channel.user.require(channel.vhost.name, "read", "queue", name)
        queue = channel.vhost.queue(name, self._owner)
        check_consumer_arguments(
            name, channel.vhost.name, method.arguments, type_of_queue(queue.definition.arguments))
        consumer = Consumer(
            tag, queue, self, no_ack=method.no_ack,
            exclusive=method.exclusive and not queue.rules.is_quorum,      # RabbitMQ docs/quorum-queues
            prefetch=self.prefetch.of_consumers,
            unacked_limit=self._owner.settings.unacked_limit, arguments=method.arguments)
        queue.subscribe(consumer)
        self.consumers[tag] = consumer
        self.writer.begin(tag)
        self.timeouts.consumer_came(consumer)
        self._answer_consume(tag, method)
        channel.tell("consumer.created", consumer)
        queue.dispatch()

    def _consume_replies(self, tag: str, method: Basic.Consume) -> None:
        self.replies.check_no_consumer()
        self._check_tag(tag)
        self.replies.begin(tag, no_ack=method.no_ack)
        self._answer_consume(tag, method)

    def _check_tag(self, tag: str) -> None:
        if tag in self.consumers or tag == self.replies.tag:
            raise ConnectionException(ReplyCode.NOT_ALLOWED, f"attempt to reuse consumer tag '{tag}'")

    def _check_room(self) -> None:
        limit = self._owner.settings.consumer_limit
        if len(self.consumers) >= limit:
            raise ChannelException(
                ReplyCode.PRECONDITION_FAILED,
                f"reached maximum ({limit}) of consumers per channel, which limits.consumers_per_channel sets")

    def _answer_consume(self, tag: str, method: Basic.Consume) -> None:
        if not method.nowait:
            self._channel.outbox.write(pack_consume_ok(self._channel.number, tag))

    def on_cancel(self, method: Basic.Cancel) -> bytes | None:
        """Stop a consumer; an unknown tag is not an error. Its unacked deliveries stay unacked."""
        tag = str(method.consumer_tag)
        consumer = self.consumers.pop(tag, None)
        if consumer is not None:
            self._forget(consumer)
            self._leave(consumer)
        elif tag == self.replies.tag:
            self.replies.end()
        return None if method.nowait else pack_cancel_ok(self._channel.number, tag)

    def _forget(self, consumer: Consumer[Queue]) -> None:
        """Forget a consumer, but not its unacked deliveries."""
        self.writer.forget(consumer.tag)
        self._at_unacked_limit.discard(consumer.tag)
        self.prefetch.forget(consumer)
        self._owner.awaiting_room.remove(consumer)
        self._channel.tell("consumer.deleted", consumer)

    def _leave(self, consumer: Consumer[Queue]) -> None:
        consumer.queue.unsubscribe(consumer)
        self._channel.vhost.topology.consumer_left(consumer.queue)
        consumer.queue.dispatch()

    # basic.get

    def on_get(self, method: Basic.Get) -> bytes | None:
        """Send a message if there is one. Raises MessageNotLoaded while it is still on disk. Spec: basic.get."""
        channel = self._channel
        name = channel.queue_name(method.queue)
        channel.user.require(channel.vhost.name, "read", "queue", name)
        queue = channel.vhost.queue(name, self._owner)
        firehose = self._taps.firehose
        if firehose is not None and firehose.is_behind:
            raise MessageNotLoaded(firehose.call)
        message = queue.get(no_ack=method.no_ack)
        counts = self._counts
        if message is None:
            counts.got_empty += 1
            return GET_EMPTY % channel.number.to_bytes(2, "big")
        if firehose is not None:
            firehose.delivered(channel.client, queue, (message,))
        tag = self.deliveries.next_tag
        self.deliveries.next_tag += 1
        again = queue.redelivery.is_redelivered(message)
        queue.records.counts.redelivered += again
        counts.redelivered += again
        failures = queue.redelivery.deliveries.get(message.number) if queue.rules.shows_delivery_count else None
        if method.no_ack:
            counts.got_no_ack += 1
            queue.forget(message)
        else:
            counts.got += 1
            self.deliveries.by_tag[tag] = message, Consumer("", queue, self)
            self.timeouts.delivered()
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
        """The deliveries that are not answered, by tag."""
        return self.deliveries.by_tag

    @property
    def owed(self) -> list[Unacked]:
        """The deliveries that are not settled, including those answered in a transaction."""
        return [*self.deliveries.deliveries, *self._uncommitted.answered]

    @property
    def owed_count(self) -> int:
        """The number of these deliveries."""
        return self.deliveries.count + self._uncommitted.answered_count

    def oldest_unacked(self, most: int) -> Iterator[OldestUnacked]:
        """Yield, of the first `most` unanswered deliveries, the oldest of each consumer, and of basic.get."""
        seen: set[tuple[Queue, str]] = set()
        for tag, (_, consumer) in islice(self.deliveries.by_tag.items(), most):
            holder = consumer.queue, consumer.tag
            if holder not in seen:
                seen.add(holder)
                yield consumer, self.timeouts.times.made_ms(tag)

    def unacked_of(self, queue: Queue) -> Iterator[UnackedDelivery]:
        """Yield the deliveries of this queue that are not settled."""
        number, made_ms = self._channel.number, self.timeouts.times.made_ms
        for tag, (message, consumer) in self.deliveries.by_tag.items():
            if consumer.queue is queue:
                yield UnackedDelivery(message.number, message.body_size, number, consumer.tag, tag, made_ms(tag))
        for message, consumer in self._uncommitted.answered:
            if consumer.queue is queue:
                yield UnackedDelivery(message.number, message.body_size, number, consumer.tag, 0, None)

    # The end

    def leave(self) -> Iterator[Act]:
        """Yield the acts that remove the consumers from their queues, once the channel has stopped."""
        for consumer in [*self.consumers.values()]:
            yield LEAVE_STEPS, partial(self._leave_queue, consumer)

    def _leave_queue(self, consumer: Consumer[Queue]) -> None:
        if consumer.tag in self.consumers:      # else its queue has been deleted meanwhile
            del self.consumers[consumer.tag]
            self._left.append(consumer)
            self._forget(consumer)
            consumer.queue.unsubscribe(consumer)

    def give_back_all(self) -> Iterator[Act]:
        """Yield the acts that requeue all unacked messages, after `leave`: one for each queue. Spec: channel.close."""
        vhost = self._channel.vhost
        self.contents.end()
        unanswered = [*self._uncommitted.end(), *self.deliveries.let_go()]
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
