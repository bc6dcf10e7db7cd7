"""Sample what queues, exchanges, channels, connections and vhosts have counted, every 5 s, in slices.

Owns the histories, by the counts of each object: so a history ends with the first sampling after its object was
deleted, and does not keep the object itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from amqpd.broker.broker import Broker
from amqpd.broker.counts import DELIVERED, PUBLISHED, ChannelCounts, Totals, Values
from amqpd.broker.queue.queue import Queue
from amqpd.broker.vhost import Vhost
from amqpd.management.statistics.history import History, Numbers

SLICE = 200         # objects that are sampled in a slice: a millisecond or two

# The numbers of each kind of object, in the order of its history.
LENGTHS = ("messages_ready", "messages_unacknowledged")
BYTES = ("recv_oct", "send_oct")
OF_QUEUE = ("publish", *DELIVERED, *LENGTHS)
OF_EXCHANGE = ("publish_in", "publish_out")
OF_CHANNEL = (*PUBLISHED[:4], *DELIVERED)
OF_TOTALS = (*OF_CHANNEL, *BYTES, *LENGTHS)
# By name, the first and the last number of a sum.
SUMS = {"deliver_get": ("deliver", "get_no_ack"), "messages": LENGTHS}


class Histories:
    """The histories of one kind of object, by the object that counts for it; none without `are_kept`."""

    def __init__(self, *, are_kept: bool = True) -> None:
        self._are_kept = are_kept
        self._known: dict[object, History] = {}
        self._seen: dict[object, History] = {}
        self._is_first = True

    def __len__(self) -> int:
        """Return for how many objects there is a history."""
        return len(self._known)

    def get(self, key: object) -> History | None:
        """Return the history of an object that was ever used."""
        return self._known.get(key)

    def see(self, key: object, numbers: Numbers, tick: int) -> None:
        """Note the numbers of an object at this tick."""
        history = self._known.get(key)
        if history is None:
            if not (self._are_kept and any(numbers)):
                return
            if self._is_first:      # what was there when the broker started is no change
                history = History(tick, numbers)
            else:
                history = History(tick - 1, (0,) * len(numbers))
            self._known[key] = history
        if numbers != history.last:
            history.add(tick, numbers)
        elif history.is_old(tick):
            history.forget()
        self._seen[key] = history

    def end(self) -> None:
        """Forget the objects that were not seen since the last call: they are deleted."""
        self._known, self._seen = self._seen, {}
        self._is_first = False


class Sampling:
    """The samplings of one broker. `tick` is that of the last one that is finished, `ticks` how many it covers.

    Without `keeps_samples` they bring totals up to date, and nothing else.
    """

    def __init__(self, broker: Broker, *, keeps_samples: bool = True) -> None:
        self.tick = 0
        self.ticks = 1
        self.queues, self.exchanges, self.channels, self.connections, self.vhosts = [
            Histories(are_kept=keeps_samples) for _ in range(5)]
        self.others = Histories(are_kept=keeps_samples)     # of the broker's totals, its churn, and the node
        self.publishers = 0     # channels that had published, when they were sampled
        self.lengths: dict[Totals, tuple[int, int]] = {}        # ready and unacked messages, when they were sampled
        self._broker = broker

    def sample(self, tick: int, node: Numbers) -> Iterator[None]:
        """Sample everything, in slices; `node` are numbers of the process."""
        broker = self._broker
        yield from self._sample_connections(tick)
        lengths: dict[Totals, tuple[int, int]] = {}
        total_ready = total_unacked = 0
        for vhost in [*broker.vhosts.values()]:
            ready = unacked = 0
            queues = [*vhost.queues.values()]
            for start in range(0, len(queues), SLICE):
                more_ready, more_unacked = self._sample_queues(queues[start : start + SLICE], tick)
                ready += more_ready
                unacked += more_unacked
                yield
            yield from self._sample_exchanges(vhost, tick)
            lengths[vhost.totals] = ready, unacked
            self.vhosts.see(vhost.totals, totals_numbers(vhost.totals, (ready, unacked)), tick)
            total_ready += ready
            total_unacked += unacked
        lengths[broker.totals] = total_ready, total_unacked
        self.others.see(broker.totals, totals_numbers(broker.totals, lengths[broker.totals]), tick)
        self.others.see(broker.churn, broker.churn.values(), tick)
        self.others.see(self, node, tick)
        for histories in (
                self.queues, self.exchanges, self.channels, self.connections, self.vhosts, self.others):
            histories.end()
        self.lengths = lengths
        self.ticks = tick - self.tick if self.tick else 1
        self.tick = tick

    def _sample_queues(self, queues: list[Queue], tick: int) -> tuple[int, int]:
        """Sample these queues; return the numbers of their ready and unacked messages."""
        all_ready = all_unacked = 0
        see = self.queues.see
        for queue in queues:
            if not queue.deleted:
                numbers = queue_numbers(queue)
                all_ready += numbers[-2]
                all_unacked += numbers[-1]
                see(queue.records.counts, numbers, tick)
        return all_ready, all_unacked

    def _sample_exchanges(self, vhost: Vhost, tick: int) -> Iterator[None]:
        exchanges = [*vhost.exchanges.values()]
        for start in range(0, len(exchanges), SLICE):
            for exchange in exchanges[start : start + SLICE]:
                self.exchanges.see(exchange.counts, exchange.counts.values(), tick)
            yield

    def _sample_connections(self, tick: int) -> Iterator[None]:
        """Sample connections and their channels, and tell the totals of their vhosts."""
        count = publishers = 0
        for connection in [*self._broker.connections.values()]:
            vhost = self._broker.vhosts.get(connection.vhost_name)
            if vhost is None:
                continue        # it is being deleted, and so is the connection
            self.connections.see(connection.traffic, connection.traffic.tell(vhost.totals), tick)
            for counts in connection.channel_counts().values():
                self.channels.see(counts, channel_numbers(counts), tick)
                publishers += counts.published > 0
                count += 1
            count += 1
            if count >= SLICE:
                count = 0
                yield
        self.publishers = publishers

    def tell_totals(self, only: Vhost | None = None) -> None:
        """Tell the totals of one vhost, or of all and of the broker, what was counted since the last sampling.

        This is done without a pause.
        """
        broker = self._broker
        for connection in broker.connections.values():
            if only is not None and connection.vhost_name != only.name:
                continue
            connection.channel_counts()
            if (vhost := broker.vhosts.get(connection.vhost_name)) is not None:
                connection.traffic.tell(vhost.totals)
        for vhost in broker.vhosts.values() if only is None else (only,):
            ready = unacked = 0
            for queue in vhost.queues.values():
                queue.records.tell_delivered()
                ready += len(queue.ready)
                unacked += queue.unacked
            self.lengths[vhost.totals] = ready, unacked
        if only is not None:
            return
        everything = [self.lengths[vhost.totals] for vhost in broker.vhosts.values()]
        self.lengths[broker.totals] = sum([ready for ready, _ in everything]), sum([held for _, held in everything])


def queue_numbers(queue: Queue) -> Numbers:
    """Return what `OF_QUEUE` names."""
    records = queue.records
    return (records.counts.published, *records.tell_delivered(), len(queue.ready), records.unacked)


def channel_numbers(counts: ChannelCounts) -> Numbers:
    """Return what `OF_CHANNEL` names."""
    return counts.published_values()[:4] + counts.delivered_values()


def totals_numbers(totals: Totals, lengths: Values) -> Numbers:
    """Return what `OF_TOTALS` names."""
    return (*totals.published[:4], *totals.all_delivered, totals.received_bytes, totals.sent_bytes, *lengths)
