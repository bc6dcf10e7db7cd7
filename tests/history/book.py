"""A history in order: runs of the broker, channels, consumers, publishes, and the deliveries of each copy.

Nothing is checked here. What is not known exactly is kept as bounds: a delivery was sent after `sent_after` and before
its `time`; its holder gave it up not before `ended`, and the broker knew by `back_by`. All times are in µs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.history.events import Event, Rules, in_order

NEVER = math.inf
ACK_GRACE_US = 2_000_000        # an ack that old is on disk, also where it takes long to be read and written


@dataclass(slots=True, eq=False)
class Life:
    """One run of the broker."""

    number: int
    asked: float = 0
    ready: float = 0
    ended: float = NEVER        # it was alive until then at least
    is_clean: bool = False
    shift_us: int = 0
    last_sure: float = 0        # what the broker had read by then is on disk


@dataclass(slots=True, eq=False)
class Commit:
    """A transaction's end, asked for."""

    life: Life
    asked: float
    publishes: list[Publish]
    deliveries: list[Delivery]
    done: float = NEVER


@dataclass(slots=True, eq=False)
class Publish:
    """One message, as it was sent."""

    event: Event
    channel: Channel
    seq: int
    settles_before: int
    answer: str = ""            # "ok" or "fail", as the confirm's event
    answered: float = NEVER
    returned: float = NEVER
    commit: Commit | None = None

    @property
    def source(self) -> tuple[str, int]:
        """The channel it came from."""
        return self.channel.key


@dataclass(slots=True, eq=False)
class Delivery:
    """One copy of a message with one client."""

    event: Event
    channel: Channel
    consumer: Consumer | None   # None for a get
    sent_after: float
    outcome: str = ""           # ack, nack, reject, requeue, auto; "" if its channel ended first, or it is held still
    ended: float = NEVER
    received: float = NEVER     # when the client knew that the broker had read the answer
    back_by: float = NEVER
    is_sure: bool = False       # the answer is on disk
    commit: Commit | None = None

    @property
    def time(self) -> int:
        """When it was read."""
        return self.event.time

    @property
    def life(self) -> Life:
        """The broker's life in which it was sent."""
        return self.channel.life

    @property
    def is_late(self) -> bool:
        """Whether it was read after the client had given up its channel: then nobody knows when it was sent."""
        return self.time > self.channel.ended


@dataclass(slots=True, eq=False)
class Consumer:
    """A subscription, or one that was asked for."""

    channel: Channel
    event: Event
    ready: float = NEVER
    cancelled: float = NEVER    # the client asked
    gone: float = NEVER         # the broker knows
    deliveries: list[Delivery] = field(default_factory=list)
    settles: list[float] = field(default_factory=list)

    @property
    def ended(self) -> float:
        """It was there until then, at least."""
        return min(self.cancelled, self.channel.ended)

    @property
    def gone_by(self) -> float:
        """It is not there any more from then on."""
        return min(self.gone, self.channel.gone)


@dataclass(slots=True, eq=False)
class Channel:
    """A channel from its opening to its end."""

    key: tuple[str, int]
    life: Life
    open: Event                                 # the connection's opening
    opened: float
    asked_to_close: float = NEVER
    failed: float = NEVER
    ended: float = NEVER                        # the client had it until then, at least
    gone: float = NEVER                         # the broker has not got it any more from then on
    confirms: list[Event] = field(default_factory=list)
    is_confirming: bool = False
    publishes: dict[int, Publish] = field(default_factory=dict)
    unconfirmed: dict[int, Publish] = field(default_factory=dict)
    consumers: dict[str, Consumer] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    outstanding: dict[int, Delivery] = field(default_factory=dict)
    settled: list[Delivery] = field(default_factory=list)       # answered, in order
    pending: tuple[list[Publish], list[Delivery]] = field(default_factory=lambda: ([], []))
    commit: Commit | None = None
    got: float = 0                              # when the last get was asked for
    asked_after: int = 0                        # answers given before the last request
    received_count: int = 0                     # of `settled`, those the broker has read for sure


@dataclass(slots=True, eq=False)
class Queue:
    """What is known of a queue."""

    name: str
    rules: Rules = Rules()
    dead_to: tuple[str, ...] = ()
    losses: list[list[float]] = field(default_factory=list)     # deletions and purges: asked, answered
    consumers: list[Consumer] = field(default_factory=list)


CopyKey = tuple[str, str, int]                  # message, queue, how often it had died


class Book:
    """All of it. `events` are in order."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.events = in_order(events)
        self.lives = [Life(0)]
        self.channels: dict[tuple[str, int], Channel] = {}
        self.queues: dict[str, Queue] = {}
        self.publishes: dict[str, Publish] = {}
        self.copies: dict[CopyKey, list[Delivery]] = defaultdict(list)
        self.by_message: dict[str, set[CopyKey]] = defaultdict(set)
        self.commits: list[Commit] = []
        self.strays: list[Delivery] = []        # of messages that nobody published
        self.faults: dict[str, list[float]] = defaultdict(list)
        self.faults_over = 0.0
        self._connections: dict[str, list[Channel]] = defaultdict(list)
        self._opened: dict[str, Event] = {}
        acts = {name.removeprefix("_on_"): getattr(self, name) for name in dir(self) if name.startswith("_on_")}
        for event in self.events:
            act: Callable[[Event], None] | None = acts.get(event.act)
            if act:
                act(event)
        self.end = float(self.events[-1].time) if self.events else 0.0
        self._conclude()

    @property
    def life(self) -> Life:
        """The present one, while the events are read."""
        return self.lives[-1]

    def queue(self, name: str) -> Queue:
        """What is known of a queue, if only its name."""
        if name not in self.queues:
            self.queues[name] = Queue(name)
        return self.queues[name]

    def is_durable(self, publish: Publish) -> bool:
        """Whether it is for queues that keep it on disk."""
        return publish.event.persistent and bool(self._keepers(publish))

    def _keepers(self, publish: Publish) -> list[str]:
        return [name for name in publish.event.to if self.queue(name).rules.durable]

    def _was_taken_over(self, publish: Publish) -> bool:
        """Whether all who keep it had it acked, so that its confirm, if that comes now, says nothing of the disk."""
        return all(
            any(delivery.outcome == "ack" and delivery.commit is None
                for delivery in self.copies.get((publish.event.id, name, 0), ()))
            for name in self._keepers(publish))

    def over(self, life: Life) -> float:
        """When a life was over for sure; of the last one, when the history ends."""
        later = self.lives[life.number + 1:]
        return later[0].asked if later else self.end

    # Lives

    def _on_start(self, event: Event) -> None:
        if event.type == "invoke":
            self.lives.append(Life(len(self.lives), event.time, NEVER, shift_us=event.shift_ms * 1000))
        else:
            self.life.ready = event.time
            self.faults_over = event.time

    def _on_kill(self, event: Event) -> None:
        self.life.ended = min(self.life.ended, event.time)

    def _on_stop(self, event: Event) -> None:
        self.life.ended = min(self.life.ended, event.time)
        self.life.is_clean = event.type == "ok" and event.code == 0

    def _on_fault(self, event: Event) -> None:
        if event.type == "invoke":
            self.faults[event.connection].append(event.time)
            self.faults_over = NEVER
        else:
            self.faults_over = event.time

    def _on_silence(self, event: Event) -> None:
        self.faults[event.connection].append(event.time)

    def _on_gone(self, event: Event) -> None:
        for channel in self._connections[event.connection]:
            channel.gone = min(channel.gone, event.time)

    # Connections and channels

    def _on_connection(self, event: Event) -> None:
        if event.type == "ok" and event.connection not in self._opened:
            self._opened[event.connection] = event
        for channel in self._connections[event.connection]:
            self._end(channel, event)

    def _on_channel(self, event: Event) -> None:
        key = event.connection, event.channel
        if key not in self.channels:
            opened = self._opened.get(event.connection, event)
            self.channels[key] = channel = Channel(key, self.life, opened, event.time)
            self._connections[event.connection].append(channel)
        else:
            self._end(self.channels[key], event)

    def _end(self, channel: Channel, event: Event) -> None:
        if event.type == "invoke":
            channel.asked_to_close = min(channel.asked_to_close, event.time)
            channel.asked_after = len(channel.settled)
        elif event.type == "fail":
            channel.failed = min(channel.failed, event.time)
        elif channel.asked_to_close < NEVER:
            channel.gone = min(channel.gone, event.time)
            self._answered(channel, event.time)

    def _channel(self, event: Event) -> Channel:
        return self.channels[event.connection, event.channel]

    def _asked(self, event: Event) -> Channel:
        """A request went out, or its answer came: then the broker has read what was answered before the request."""
        channel = self._channel(event)
        if event.type == "invoke":
            channel.asked_after = len(channel.settled)
        else:
            self._answered(channel, event.time)
        return channel

    def _answered(self, channel: Channel, time: float) -> None:
        self._read(channel, channel.asked_after, time)

    def _read(self, channel: Channel, count: int, time: float) -> None:
        for delivery in channel.settled[channel.received_count:count]:
            delivery.received = time
        channel.received_count = max(channel.received_count, count)

    # Publishing

    def _on_select(self, event: Event) -> None:
        self._channel(event).is_confirming |= event.type == "ok" and event.kind == "confirm"

    def _on_publish(self, event: Event) -> None:
        channel = self._channel(event)
        if event.type != "invoke":
            channel.confirms.append(event)
            return self._confirm(channel, event)
        seq = int(event.id.rpartition("/")[2])
        publish = Publish(event, channel, seq, len(channel.settled))
        channel.publishes[seq] = channel.unconfirmed[seq] = self.publishes[event.id] = publish
        if event.in_tx:
            channel.pending[0].append(publish)

    def _confirm(self, channel: Channel, event: Event) -> None:
        first = min(next(iter(channel.unconfirmed), event.tag), event.tag) if event.multiple else event.tag
        for seq in range(first, event.tag + 1):
            publish = channel.unconfirmed.pop(seq, None)
            if publish is None:
                continue
            publish.answer, publish.answered = event.type, event.time
            if event.type == "ok" and self.is_durable(publish) and not self._was_taken_over(publish):
                self._is_on_disk(channel, publish.settles_before, publish.event.time)
            self._read(channel, publish.settles_before, event.time)

    def _is_on_disk(self, channel: Channel, settles: int, time: float) -> None:
        """What the broker had read by this time, and these answers, are on disk."""
        channel.life.last_sure = max(channel.life.last_sure, time)
        for delivery in channel.settled[channel.received_count:settles]:
            delivery.is_sure = True

    def _on_return(self, event: Event) -> None:
        publish = self.publishes.get(event.id)
        if publish:
            publish.returned = event.time

    # Consuming

    def _on_consume(self, event: Event) -> None:
        channel = self._asked(event)
        if event.type == "invoke":
            channel.consumers[event.consumer] = consumer = Consumer(channel, event)
            self.queue(event.queue).consumers.append(consumer)
        elif event.type == "ok":
            channel.consumers[event.consumer].ready = event.time

    def _on_cancel(self, event: Event) -> None:
        consumer = self._asked(event).consumers[event.consumer]
        if event.type == "invoke":
            consumer.cancelled = event.time
        else:
            consumer.gone = event.time

    def _on_get(self, event: Event) -> None:
        channel = self._asked(event)
        if event.type == "invoke":
            channel.got = event.time
        elif event.type == "ok":
            self._deliver(Delivery(event, channel, None, channel.got))

    def _on_deliver(self, event: Event) -> None:
        channel = self._channel(event)
        consumer = channel.consumers[event.consumer]
        delivery = Delivery(event, channel, consumer, self._sent_after(consumer))
        consumer.deliveries.append(delivery)
        self._deliver(delivery)

    def _sent_after(self, consumer: Consumer) -> float:
        """The broker had read the consume, and as many answers as make room for one more delivery."""
        answered = len(consumer.deliveries) - consumer.event.prefetch
        if consumer.event.no_ack or not consumer.event.prefetch or not 0 <= answered < len(consumer.settles):
            return consumer.event.time
        return max(consumer.event.time, consumer.settles[answered])

    def _deliver(self, delivery: Delivery) -> None:
        event, channel = delivery.event, delivery.channel
        channel.deliveries.append(delivery)
        if event.no_ack:
            delivery.outcome, delivery.ended, delivery.received = "auto", event.time, event.time
        else:
            channel.outstanding[event.tag] = delivery
        publish = self.publishes.get(event.id)
        if publish is None:
            self.strays.append(delivery)
            return
        delivery.sent_after = max(delivery.sent_after, publish.event.time)
        key = event.id, event.queue, sum(death.count for death in event.deaths)
        self.copies[key].append(delivery)
        self.by_message[event.id].add(key)

    def _on_ack(self, event: Event) -> None:
        self._answer(event, event.act)

    def _on_nack(self, event: Event) -> None:
        self._answer(event, "requeue" if event.requeue else "nack")

    _on_reject = _on_nack

    def _answer(self, event: Event, outcome: str) -> None:
        channel = self._channel(event)
        tags = [event.tag] if not event.multiple else [
            tag for tag in channel.outstanding if tag <= event.tag or not event.tag]
        for delivery in [channel.outstanding[tag] for tag in tags if tag in channel.outstanding]:
            if event.in_tx:
                channel.pending[1].append(delivery)
            else:
                self._settle(channel, delivery, outcome, event.time)

    def _settle(self, channel: Channel, delivery: Delivery, outcome: str, time: float) -> None:
        channel.outstanding.pop(delivery.event.tag, None)
        channel.settled.append(delivery)
        delivery.outcome, delivery.ended = outcome, time
        if delivery.consumer:
            delivery.consumer.settles.append(time)

    def _on_recover(self, event: Event) -> None:
        channel = self._asked(event)
        for delivery in list(channel.outstanding.values()):
            self._settle(channel, delivery, "requeue", event.time)

    # Transactions

    def _on_commit(self, event: Event) -> None:
        channel = self._asked(event)
        if event.type == "invoke":
            publishes, deliveries = channel.pending
            channel.pending = [], []
            channel.commit = commit = Commit(channel.life, event.time, publishes, deliveries)
            self.commits.append(commit)
            for publish in publishes:
                publish.commit = commit
            for delivery in deliveries:
                delivery.commit = commit
                self._settle(channel, delivery, "ack", event.time)
        elif event.type == "ok" and channel.commit:
            channel.commit.done = event.time
            channel.life.last_sure = max(channel.life.last_sure, channel.commit.asked)
            for delivery in channel.commit.deliveries:
                delivery.received, delivery.is_sure = event.time, True

    def _on_rollback(self, event: Event) -> None:
        channel = self._asked(event)
        if event.type == "invoke":
            channel.pending[1].clear()
            channel.pending[0].clear()

    # What there is

    def _on_declare(self, event: Event) -> None:
        self._asks(event)
        if event.kind == "queue" and event.rules:
            queue = self.queue(event.name)
            queue.rules, queue.dead_to = event.rules, event.dead_to

    def _on_delete(self, event: Event) -> None:
        self._asks(event)
        if event.kind != "queue":
            return
        losses = self.queue(event.name).losses
        if event.type == "invoke":
            losses.append([event.time, NEVER])
        elif event.type == "ok" and losses:
            losses[-1][1] = event.time

    _on_purge = _on_delete

    def _asks(self, event: Event) -> None:
        if (event.connection, event.channel) in self.channels:
            self._asked(event)

    _on_bind = _on_unbind = _on_see = _on_count = _on_ask = _asks

    # The end

    def _conclude(self) -> None:
        for channel in self.channels.values():
            self._conclude_channel(channel)
        for channel in self.channels.values():
            for delivery in channel.deliveries:
                self._conclude_delivery(delivery)
        for deliveries in self.copies.values():
            deliveries.sort(key=lambda delivery: (delivery.life.number, delivery.time))

    def _conclude_channel(self, channel: Channel) -> None:
        life = channel.life
        if life is not self.life:
            channel.gone = min(channel.gone, self.over(life))
        fault = min(self.faults[channel.key[0]] + self.faults[""], default=NEVER)
        channel.ended = min(channel.asked_to_close, life.ended, fault)
        if channel.failed < channel.ended:
            channel.ended = channel.opened      # nobody knows why, so nobody knows since when

    def _conclude_delivery(self, delivery: Delivery) -> None:
        channel, life = delivery.channel, delivery.life
        delivery.ended = max(delivery.time, min(delivery.ended, channel.ended))
        delivery.back_by = min(delivery.received, channel.gone)
        if delivery.received < NEVER:
            delivery.is_sure |= (
                delivery.received < life.last_sure or delivery.received + ACK_GRACE_US < life.ended
                or (life.is_clean and delivery.received <= life.ended))
