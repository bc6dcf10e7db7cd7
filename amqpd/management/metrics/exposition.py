"""The three texts: totals, a series for each object, and only those groups that are asked for.

The texts are made in parts, each in a turn of the event loop: queues, channels and connections are looked at in
slices first, and then each family is written from what was seen. So a family is one block, as Prometheus wants it, and
an object that is deleted meanwhile does no harm.

RabbitMQ docs/prometheus.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from amqpd.broker.arguments import QUORUM
from amqpd.broker.broker import Broker
from amqpd.broker.queue.queue import Queue
from amqpd.management.metrics import node_metrics
from amqpd.management.metrics.families import CLUSTER_GROUPS, GROUPS, TOTALS, Family
from amqpd.management.metrics.node_metrics import NodeFacts
from amqpd.management.metrics.text import Number, column, head, labelled, several, single

SLICE = 500         # objects that are looked at in a turn
WRITTEN = 4_000     # samples that are written in a turn
Row = tuple[Number, ...]

QUEUE_GROUPS = ("queue_coarse_metrics", "queue_metrics", "queue_consumer_count", "channel_queue_exchange_metrics")
NODE_GROUPS = ("connection_churn_metrics", "node_coarse_metrics", "node_metrics", "node_persister_metrics")
CONNECTION_GROUPS = ("connection_coarse_metrics", "connection_metrics")
CHANNEL_GROUPS = ("channel_metrics", "channel_exchange_metrics", "channel_queue_metrics")
RAFT = "ra_metrics"
OWN = ("channel_queue_exchange_metrics",)       # their labels begin with `queue_vhost`


class Table:
    """What was seen of one kind of object: for each the labels, and the values of all families in order."""

    def __init__(self, families: Sequence[Family], written: int) -> None:
        self.families = families
        self.written = written
        self.labels: list[str] = []
        self.rows: list[Row] = []

    def add(self, labels: str, row: Row) -> None:
        """Add an object."""
        self.labels.append(labels)
        self.rows.append(row)

    def each(self, prefix: str) -> Iterator[str]:
        """Yield each family with a series for each object, in parts."""
        columns = list(zip(*self.rows)) or [()] * len(self.families)
        yield ""
        for family, values in zip(self.families, columns):
            yield head(prefix, family)
            name = prefix + family.name
            for start in range(0, len(values), self.written):
                end = start + self.written
                yield column(name, self.labels[start:end], values[start:end])

    def sums(self, prefix: str) -> Iterator[str]:
        """Yield each family with the sum over all objects."""
        columns = list(zip(*self.rows)) or [()] * len(self.families)
        yield ""
        for family, values in zip(self.families, columns):
            yield single(prefix, family, sum(values))


class Exposition:
    """The metrics of one broker. `facts` looks at the node, and `begin` is called before each slice.

    A part looks at `slice_size` queues at most, or writes `written` samples.
    """

    def __init__(
        self, broker: Broker, facts: Callable[[], NodeFacts], begin: Callable[[], None], *, slice_size: int = SLICE,
        written: int = WRITTEN,
    ) -> None:
        self._broker = broker
        self._facts = facts
        self._begin = begin
        self._slice_size = slice_size
        self._written = written

    def aggregated(self) -> Iterator[str]:
        """Yield `/metrics`: sums over all queues, channels and connections."""
        return self._whole(Table.sums, "aggregated")

    def per_object(self) -> Iterator[str]:
        """Yield `/metrics/per-object`: a series for each queue, channel and connection."""
        return self._whole(Table.each, "per-object")

    def detailed(self, groups: Collection[str], vhosts: Collection[str] | None = None) -> Iterator[str]:
        """Yield `/metrics/detailed`: these groups, by RabbitMQ's names; of objects in vhosts, only in these."""
        facts, prefix = self._facts(), "rabbitmq_detailed_"
        for group, row in node_metrics.node_groups(facts, self._broker.churn.values()).items():
            if group in groups:
                yield _of_one(prefix, GROUPS[group], row)
        if "auth_attempt_metrics" in groups:
            yield node_metrics.logins(prefix, facts)
        latency = node_metrics.commit_latency(facts.measures)
        wanted = [group for group in QUEUE_GROUPS if group in groups]
        if "queue_metrics" in wanted and "queue_consumer_count" in wanted:
            wanted.remove("queue_consumer_count")       # it is in the other one
        if wanted or RAFT in groups:
            queues, published, raft = yield from self._see_queues(wanted, vhosts, latency)
            for table in (queues, published, *((raft,) if RAFT in groups else ())):
                yield from table.each(prefix)
        for kinds, see in ((CHANNEL_GROUPS, self._see_channels), (CONNECTION_GROUPS, self._see_connections)):
            chosen = [group for group in kinds if group in groups]
            if chosen:
                table = yield from see(chosen, vhosts)
                yield from table.each(prefix)
        yield from self._cluster(groups, vhosts)
        yield node_metrics.about(facts, "detailed")

    def _whole(self, show: Callable[[Table, str], Iterator[str]], endpoint: str) -> Iterator[str]:
        facts, prefix, broker = self._facts(), "rabbitmq_", self._broker
        yield node_metrics.alarms(facts)
        for group, row in node_metrics.node_groups(facts, broker.churn.values()).items():
            yield _of_one(prefix, GROUPS[group], row)
        yield node_metrics.logins(prefix, facts)
        latency = node_metrics.commit_latency(facts.measures)
        groups = [group for group in QUEUE_GROUPS if group != "queue_consumer_count"]
        queues, published, raft = yield from self._see_queues(groups, None, latency)
        channels = yield from self._see_channels(CHANNEL_GROUPS, None)
        connections = yield from self._see_connections(CONNECTION_GROUPS, None)
        for table in (queues, published, raft, channels, connections):
            yield from show(table, prefix)
        consumers = set_aside = queue_count = 0
        for _, some in self._queues(None):
            queue_count += len(some)
            consumers += sum([len(queue.consumers) for queue in some])
            set_aside += sum([len(queue.dead_letters.aside) for queue in some])
            yield ""
        totals = (len(broker.connections), broker.channel_count, consumers, queue_count)
        yield _of_one(prefix, TOTALS, totals)
        yield node_metrics.about(facts, endpoint)
        yield from node_metrics.global_metrics(facts, broker, consumers)
        yield from node_metrics.own_metrics(facts, broker, set_aside)

    # Looking at objects

    def _table(self, groups: Sequence[str]) -> Table:
        return Table([family for group in groups for family in GROUPS[group]], self._written)

    def _queues(self, vhosts: Collection[str] | None) -> Iterator[tuple[str, list[Queue]]]:
        """Yield the queues in slices, each with the name of its vhost."""
        for vhost in [*self._broker.vhosts.values()]:
            if vhosts is None or vhost.name in vhosts:
                queues = [*vhost.queues.values()]
                for start in range(0, len(queues), self._slice_size):
                    self._begin()
                    some = queues[start:start + self._slice_size]
                    yield vhost.name, [queue for queue in some if not queue.deleted]

    def _see_queues(
        self, groups: Sequence[str], vhosts: Collection[str] | None, latency: float
    ) -> Any:
        """Look at the queues; return a table of them, one of publishes to them, and one of quorum queues."""
        plain = [group for group in groups if group not in OWN]
        rows = [_QUEUE_ROWS[group] for group in plain]
        queues = self._table(plain)
        published = self._table([group for group in groups if group in OWN])
        raft = self._table([RAFT])
        for vhost, some in self._queues(vhosts):
            for queue in some:
                labels = labelled({"vhost": vhost, "queue": queue.name})
                if rows:
                    queues.add(labels, rows[0](queue) if len(rows) == 1 else sum([row(queue) for row in rows], ()))
                if published.families:
                    published.add(f"{{queue_{labels[1:]}", (queue.records.counts.published,))
                if queue.records.queue_type == QUORUM:
                    raft.add(labels, _raft(queue, latency))
            yield ""
        return queues, published, raft

    def _see_channels(self, groups: Sequence[str], vhosts: Collection[str] | None) -> Any:
        table = self._table(groups)
        for connection in self._connections(vhosts):
            counted = connection.channel_counts()
            for channel in connection.channel_statistics():
                counts = counted.get(channel.number)
                if counts is None:
                    continue
                published, confirmed, returned, dropped = counts.published_values()[:4]
                deliver, no_ack, get, get_no_ack, get_empty, redeliver, ack = counts.delivered_values()
                rows = {
                    "channel_metrics": (
                        channel.consumers, channel.unacked, channel.unconfirmed, channel.uncommitted,
                        channel.uncommitted_acks, channel.prefetch, channel.shared_prefetch),
                    "channel_exchange_metrics": (published, confirmed, returned, dropped),
                    "channel_queue_metrics": (get, get_no_ack, deliver, no_ack, redeliver, ack, get_empty)}
                table.add(labelled({"channel": channel.name}), sum([rows[group] for group in groups], ()))
            yield ""
        return table

    def _see_connections(self, groups: Sequence[str], vhosts: Collection[str] | None) -> Any:
        table = self._table(groups)
        for number, connection in enumerate(self._connections(vhosts)):
            seen = connection.statistics()
            rows = {
                "connection_coarse_metrics": (seen.received_bytes, seen.sent_bytes),
                "connection_metrics": (seen.received_count, seen.sent_count, int(seen.unsent_bytes > 0), seen.channels)}
            table.add(labelled({"channel": seen.name}), sum([rows[group] for group in groups], ()))
            if number % 50 == 0:
                yield ""
        return table

    def _connections(self, vhosts: Collection[str] | None) -> Iterator[Any]:
        for connection in [*self._broker.connections.values()]:
            if vhosts is None or connection.vhost_name in vhosts:
                yield connection

    def _cluster(self, groups: Collection[str], vhosts: Collection[str] | None) -> Iterator[str]:
        """Yield what RabbitMQ has of the cluster: vhosts, exchanges, and numbers of bindings."""
        seen = [vhost for vhost in self._broker.vhosts.values() if vhosts is None or vhost.name in vhosts]
        prefix = "rabbitmq_cluster_"
        if "vhost_status" in groups:
            yield several(prefix, CLUSTER_GROUPS["vhost_status"], [({"vhost": vhost.name}, 1) for vhost in seen])
        chosen = [group for group in ("exchange_names", "exchange_bindings") if group in groups]
        if not chosen:
            return
        exchanges = [(vhost.name, one) for vhost in seen for one in vhost.exchanges.values() if one.name]
        for group in chosen:
            yield head(prefix, CLUSTER_GROUPS[group])
            name = prefix + CLUSTER_GROUPS[group].name
            for start in range(0, len(exchanges), SLICE):
                some = exchanges[start:start + SLICE]
                yield column(name, [labelled({
                    "vhost": vhost, "exchange": one.name, "type": one.definition.type}) for vhost, one in some],
                    [1 if group == "exchange_names" else len(one.bindings) for _, one in some])


def _of_one(prefix: str, families: Sequence[Family], row: Row) -> str:
    return "".join([single(prefix, family, value) for family, value in zip(families, row)])


def _coarse(queue: Queue) -> Row:
    ready, unacked = len(queue.ready), queue.records.unacked
    return ready, unacked, ready + unacked


def _queue(queue: Queue) -> Row:
    ready, unacked, consumers = len(queue.ready), queue.records.unacked, len(queue.consumers)
    paged, paged_bytes = queue.ready.on_disk_only if ready else (0, 0)
    capacity, size = int(consumers > 0), queue.ready.body_bytes
    return (
        consumers, capacity, capacity, ready - paged + unacked, ready - paged, queue.records.kept_on_disk, size, size,
        paged, paged_bytes)


_QUEUE_ROWS: dict[str, Callable[[Queue], Row]] = {
    "queue_coarse_metrics": _coarse, "queue_metrics": _queue,
    "queue_consumer_count": lambda queue: (len(queue.consumers),)}


def _raft(queue: Queue, latency: float) -> Row:
    """Return the Raft numbers of a queue. It has no Raft log: each publish and settle counts as a committed entry."""
    entries = queue.records.counts.published + queue.records.counts.settled
    return 1, entries, entries, entries, entries, latency
