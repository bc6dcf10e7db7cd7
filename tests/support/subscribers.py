"""Subscribers for tests of queues: they keep what is delivered."""

from __future__ import annotations

from collections.abc import Sequence

from amqpd.broker.queue.consumer import NO_LIMIT, Consumer
from amqpd.broker.queue.queue import Queue
from amqpd.message import Message

PLENTY = 1 << 40


class SharedRoom:
    """The room for deliveries that the channels of a connection share."""

    def __init__(self, room: int = PLENTY) -> None:
        self.room = room
        self.blocked: list[Consumer] = []

    def unblock(self) -> None:
        """Let all consumers that were blocked be asked again, as a session does with each reason for it."""
        blocked, self.blocked = self.blocked, []
        for consumer in blocked:
            consumer.queue.unblock(consumer)


class ListSubscriber:
    """A channel that keeps its deliveries in a list, and never answers by itself."""

    def __init__(
        self, line: SharedRoom | None = None, shared_prefetch: int = 0, address: tuple[int, int] = (1, 1)
    ) -> None:
        self.line = line or SharedRoom()
        self.address = address
        self.shared_prefetch = shared_prefetch
        self.delivered: list[tuple[str, int]] = []
        self.runs: list[list[int]] = []
        self.cancelled_tags: list[str] = []
        self.outstanding = 0

    @property
    def room(self) -> int:
        """See broker/queue/consumer.py."""
        return self.line.room

    @property
    def credit(self) -> int:
        """See broker/queue/consumer.py."""
        return self.shared_prefetch - self.outstanding if self.shared_prefetch else NO_LIMIT

    def fail(self) -> None:
        """See broker/queue/consumer.py."""
        self.line.room = 0

    def deliver(self, consumer: Consumer, run: Sequence[Message]) -> None:
        """See broker/queue/consumer.py."""
        assert run, "a delivery of nothing"
        self.runs.append([message.number for message in run])
        self.delivered += [(consumer.tag, message.number) for message in run]
        self.line.room -= sum(len(message.content) + 60 for message in run)
        if not consumer.no_ack:
            self.outstanding += len(run)

    def consumer_blocked(self, consumer: Consumer) -> None:
        """See broker/queue/consumer.py."""
        self.line.blocked.append(consumer)

    def cancelled(self, consumer: Consumer) -> None:
        """See broker/queue/consumer.py."""
        self.cancelled_tags.append(consumer.tag)

    def numbers(self) -> list[int]:
        """The numbers of all that was delivered, in order."""
        return [number for _, number in self.delivered]


def subscribe(
    queue: Queue, subscriber: ListSubscriber, tag: str = "c", *, prefetch: int = 0, no_ack: bool = False,
    exclusive: bool = False, priority: int = 0,
) -> Consumer:
    """Subscribe a consumer and dispatch, as a session does once it has answered."""
    consumer = Consumer(
        tag, queue, subscriber, no_ack=no_ack, exclusive=exclusive, prefetch=prefetch,
        arguments={"x-priority": priority} if priority else {})
    queue.subscribe(consumer)
    queue.dispatch()
    return consumer


def answered(consumer: Consumer, count: int) -> None:
    """Count so many deliveries as answered: the consumer may have credit again. The caller dispatches."""
    consumer.in_flight -= count
    consumer.queue.unblock(consumer)


def settle(consumer: Consumer, *run: Message) -> int:
    """Answer deliveries for good and dispatch, as a session does."""
    _answer(consumer, len(run))
    batch = consumer.queue.settle(run)
    consumer.queue.dispatch()
    return batch


def requeue(consumer: Consumer, *run: Message) -> None:
    """Give deliveries back and dispatch, as a session does."""
    _answer(consumer, len(run))
    consumer.queue.requeue(run)
    consumer.queue.dispatch()


def _answer(consumer: Consumer, count: int) -> None:
    assert isinstance(consumer.subscriber, ListSubscriber)
    answered(consumer, count)
    consumer.subscriber.outstanding -= count
    consumer.subscriber.line.unblock()
