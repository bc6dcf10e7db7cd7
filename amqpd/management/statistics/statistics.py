"""The statistics of a broker, as RabbitMQ's management API shows them: values, rates and samples.

Values are those of this moment; rates and samples are those of the last sampling. Each method returns a dict for JSON,
which a route adds to the other keys of its object. As on RabbitMQ, `message_stats` has the numbers of publishes once
there was a publish, and those of deliveries once there was a delivery; there is none before that, except in `overview`.

RabbitMQ docs/management.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence

from amqpd.broker.broker import Broker
from amqpd.broker.counts import DELIVERED, PUBLISHED, ChannelCounts, Churn, Totals
from amqpd.broker.exchange import Exchange
from amqpd.broker.measures import Measures
from amqpd.broker.queue.queue import Queue
from amqpd.broker.vhost import Vhost
from amqpd.management.statistics.forms import Field, Kind, Moment, Record, View, constant, sum_of
from amqpd.management.statistics.history import TICK_S, History, Numbers
from amqpd.management.statistics.node import AVERAGES, NODE_FIELDS, NodeNumbers, node_numbers
from amqpd.management.statistics.ranges import NO_RANGES, Range, Ranges
from amqpd.management.statistics.sampling import (
    BYTES,
    LENGTHS,
    OF_CHANNEL,
    OF_EXCHANGE,
    OF_QUEUE,
    OF_TOTALS,
    SUMS,
    Histories,
    Sampling,
    channel_numbers,
    queue_numbers,
    totals_numbers,
)

log = logging.getLogger("amqpd")

NO_NODE = (0,) * len(NODE_FIELDS)
TICK_MS = 1000 * TICK_S
MOST_AT_ONCE = 2_000        # queues and channels, up to which totals are brought up to date when they are asked for


QUEUES = Kind(OF_QUEUE, SUMS)
EXCHANGES = Kind(OF_EXCHANGE)
CHANNELS = Kind(OF_CHANNEL, {"deliver_get": SUMS["deliver_get"]})
CONNECTIONS = Kind(BYTES)
TOTALS = Kind(OF_TOTALS, SUMS)
CHURNS = Kind(Churn.__slots__)
NODES = Kind(NODE_FIELDS)

_PUBLISH_NAMES = PUBLISHED[:4]
_DELIVER_NAMES = (*DELIVERED, "deliver_get")
_LENGTH_NAMES = ("messages", *LENGTHS)
QUEUE_PUBLISHES = QUEUES.fields("publish")
QUEUE_DELIVERIES = QUEUES.fields(*_DELIVER_NAMES)
QUEUE_LENGTHS = QUEUES.fields(*_LENGTH_NAMES)
EXCHANGE_PUBLISHES = EXCHANGES.fields(*OF_EXCHANGE)
CHANNEL_PUBLISHES = CHANNELS.fields(*_PUBLISH_NAMES)
CHANNEL_DELIVERIES = CHANNELS.fields(*_DELIVER_NAMES)
TOTAL_PUBLISHES = TOTALS.fields(*_PUBLISH_NAMES)
TOTAL_DELIVERIES = TOTALS.fields(*_DELIVER_NAMES)
TOTAL_BYTES = TOTALS.fields(*BYTES)
TOTAL_LENGTHS = TOTALS.fields(*_LENGTH_NAMES)
CONNECTION_BYTES = CONNECTIONS.fields(*BYTES)
CHURN = CHURNS.fields(*Churn.__slots__)
NODE = NODES.fields(*NODE_FIELDS)
# Messages read from the store, and publishes and settles written to it.
DISK = tuple([
    field._replace(name=name, details=f"{name}_details") for name, field in zip(
        ("disk_reads", "disk_writes"), NODES.fields("msg_store_read_count", "msg_store_write_count"))])


class Statistics:
    """The statistics of one broker. `now_ms` is the monotonic clock that the broker uses.

    `measure` returns numbers of the process, see `node.py`; `measures` are histograms, for Prometheus. Without
    `keeps_samples` there are the numbers of this moment, and no rates.
    """

    def __init__(
        self, broker: Broker, now_ms: Callable[[], int], measure: Callable[[], NodeNumbers] = dict,
        measures: Measures | None = None, *, keeps_samples: bool = True,
    ) -> None:
        self.measures = measures or Measures()
        self._broker = broker
        self._now_ms = now_ms
        self._measure = measure
        self._measured: NodeNumbers = {}        # the last time
        self._sampling = Sampling(broker, keeps_samples=keeps_samples)
        self._moment = Moment(0, 1, 0)
        # Ticks are multiples of 5 s of the wall clock as it was at start.
        self._ahead_ms = broker.clock.to_wall(0)
        self._begun_tick = (now_ms() + self._ahead_ms) // TICK_MS

    # Sampling

    async def sample_forever(self) -> None:
        """Sample at each tick, in slices between which the loop goes on."""
        while True:
            try:
                for _ in self._sample():
                    await asyncio.sleep(0)
            except Exception:       # the broker goes on without these samples
                log.exception("internal error while statistics were sampled")
            await asyncio.sleep((TICK_MS - (self._now_ms() + self._ahead_ms) % TICK_MS) / 1000)

    def sample(self) -> None:
        """Sample now, at once: for tests."""
        for _ in self._sample():
            pass

    def _sample(self) -> Iterator[None]:
        tick = (self._now_ms() + self._ahead_ms) // TICK_MS
        if tick > self._sampling.tick:
            yield from self._sampling.sample(tick, self._node_numbers())
            shift_ms = round((self._broker.clock.to_wall(0) - self._ahead_ms) / TICK_MS) * TICK_MS
            self._moment = Moment(tick, self._sampling.ticks, shift_ms)

    def _node_numbers(self) -> Numbers:
        churn = self._broker.churn
        with contextlib.suppress(OSError):      # no descriptor is left, for example
            self._measured = self._measure()
        return node_numbers({**self._measured, **dict(zip(Churn.__slots__, churn.values()))})

    def _refresh(self, vhost: Vhost | None = None) -> None:
        """Bring the totals of one vhost, or of all, up to date, if that takes no longer than a slice."""
        if self._broker.channel_count + self._broker.quota.count <= MOST_AT_ONCE:
            self._sampling.tell_totals(vhost)

    def _view(self, kind: Kind, numbers: Numbers, history: History | None) -> View:
        return View(kind, numbers, history, self._moment)

    # What routes ask for

    def queue(self, queue: Queue, ranges: Ranges = NO_RANGES) -> Record:
        """Return `messages…` and `reductions` with their details, and `message_stats`."""
        view = self._view(QUEUES, queue_numbers(queue), self._sampling.queues.get(queue.records.counts))
        record = view.render(QUEUE_LENGTHS, ranges.lengths) | self._reductions(ranges.msg_rates)
        return record | _stats(view, QUEUE_PUBLISHES, QUEUE_DELIVERIES, ranges)

    def queue_rate(self, queue: Queue, field: Field) -> float:
        """Return one rate of a queue, of `QUEUE_PUBLISHES` or `QUEUE_DELIVERIES`, without a record of all of them."""
        history = self._sampling.queues.get(queue.records.counts)
        if history is None or history.tick < self._moment.tick:
            return 0.0
        last, previous = history.last, history.previous
        return sum([last[part] - previous[part] for part in QUEUES.parts(field.place)]) / (TICK_S * self._moment.ticks)

    def idle_since_ms(self, queue: Queue) -> int:
        """Return when the numbers of a queue changed last, in ms since 1970, by the samplings; at most a day ago."""
        history = self._sampling.queues.get(queue.records.counts)
        tick = self._begun_tick if history is None else history.tick
        return tick * TICK_MS + self._moment.shift_ms

    def exchange(self, exchange: Exchange, ranges: Ranges = NO_RANGES) -> Record:
        """Return `message_stats` of an exchange that was published to."""
        view = self._view(EXCHANGES, exchange.counts.values(), self._sampling.exchanges.get(exchange.counts))
        return _stats(view, EXCHANGE_PUBLISHES, (), ranges)

    def channel(self, connection: int, channel: int, ranges: Ranges = NO_RANGES) -> Record:
        """Return `message_stats` and `reductions` of a channel, by the numbers of its connection and its own."""
        found = self._broker.connections.get(connection)
        counts = found.counts_of(channel) if found is not None else None
        return self._channel(counts, ranges) if counts is not None else {}

    def channels(self, connection: int, ranges: Ranges = NO_RANGES) -> dict[int, Record]:
        """Return `channel` for each channel of a connection, by channel number."""
        found = self._broker.connections.get(connection)
        if found is None:
            return {}
        return {number: self._channel(counts, ranges) for number, counts in found.channel_counts().items()}

    def _channel(self, counts: ChannelCounts, ranges: Ranges) -> Record:
        view = self._view(CHANNELS, channel_numbers(counts), self._sampling.channels.get(counts))
        return self._reductions(ranges.msg_rates) | _stats(view, CHANNEL_PUBLISHES, CHANNEL_DELIVERIES, ranges)

    def connection(self, connection: int, ranges: Ranges = NO_RANGES) -> Record:
        """Return `recv_oct`, `send_oct` and `reductions` with their details, and `message_stats` of its open channels.
        """
        found = self._broker.connections.get(connection)
        if found is None:
            return {}
        traffic = found.traffic
        view = self._view(
            CONNECTIONS, (traffic.received_bytes, traffic.sent_bytes), self._sampling.connections.get(traffic))
        record = view.render(CONNECTION_BYTES, ranges.data_rates) | self._reductions(ranges.data_rates)
        stats: Record = {}
        for channel in self.channels(connection, ranges).values():
            stats = sum_of(stats, channel.get("message_stats", {}))
        return record | {"message_stats": stats} if stats else record

    def vhost(self, vhost: Vhost, ranges: Ranges = NO_RANGES) -> Record:
        """Return `messages…`, `recv_oct` and `send_oct` with their details, and `message_stats`."""
        self._refresh(vhost)
        view = self._totals(vhost.totals, self._sampling.vhosts)
        return (
            view.render(TOTAL_LENGTHS, ranges.lengths) | view.render(TOTAL_BYTES, ranges.data_rates)
            | _stats(view, TOTAL_PUBLISHES, TOTAL_DELIVERIES, ranges))

    def overview(self, ranges: Ranges = NO_RANGES) -> Record:
        """Return `message_stats`, `queue_totals` and `churn_rates`, each with all keys."""
        self._refresh()
        churn, others = self._broker.churn, self._sampling.others
        view = self._totals(self._broker.totals, others)
        node = others.get(self._sampling)
        disk = self._view(NODES, node.last if node is not None else NO_NODE, node)
        churns = self._view(CHURNS, churn.values(), others.get(churn))
        return {
            "message_stats": view.render((*TOTAL_PUBLISHES, *TOTAL_DELIVERIES), ranges.msg_rates)
            | disk.render(DISK, ranges.msg_rates),
            "queue_totals": view.render(TOTAL_LENGTHS, ranges.lengths),
            "churn_rates": churns.render(CHURN, ranges.msg_rates),
        }

    def _totals(self, totals: Totals, histories: Histories) -> View:
        numbers = totals_numbers(totals, self._sampling.lengths.get(totals, (0, 0)))
        return self._view(TOTALS, numbers, histories.get(totals))

    def node(self, ranges: Ranges = NO_RANGES) -> Record:
        """Return the numbers of the process with their details; see `node.py`."""
        view = self._view(NODES, self._node_numbers(), self._sampling.others.get(self._sampling))
        record = view.render(NODE, ranges.node_stats)
        for name, parts in AVERAGES.items():
            if parts is None:
                record |= {name: 0, f"{name}_details": constant(ranges.node_stats, self._moment)}
            else:
                time_us, count = NODES.fields(*parts)
                record |= view.render_average(name, time_us, count, ranges.node_stats)
        return record

    @property
    def totals(self) -> Totals:
        """The totals of the broker, up to date unless there are very many queues and channels: then at most 5 s old."""
        self._refresh()
        return self._broker.totals

    @property
    def publishers(self) -> int:
        """The number of open channels that have published, at the last sampling."""
        return self._sampling.publishers

    def _reductions(self, range_: Range | None) -> Record:
        """Return the work of an Erlang process, which is 0."""
        return {"reductions": 0, "reductions_details": constant(range_, self._moment)}


def _stats(view: View, publishes: Sequence[Field], deliveries: Sequence[Field], ranges: Ranges) -> Record:
    """Return `message_stats` with the groups of numbers that are not all 0, if there is one."""
    fields = (*(publishes if view.has_any(publishes) else ()), *(deliveries if view.has_any(deliveries) else ()))
    return {"message_stats": view.render(fields, ranges.msg_rates)} if fields else {}
