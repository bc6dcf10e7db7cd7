"""The topology of a vhost: exchanges, queues, and the bindings between them.

Adds and removes them, in memory and in the journal. `broker/vhost.py` checks permissions and refuses. A removed object
cannot be found any more at once; its bindings are removed in slices, see `broker/leaving.py`.

Always true between calls:
- both ends of a binding exist, unless one of them is being removed;
- durable objects, and bindings between durable ends, have been recorded in the journal;
- `routing.version` has risen whenever the result of an earlier walk might differ.

Spec: §3.1; RabbitMQ docs/queues, docs/exchanges.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from amqpd.broker.bindings import Bindings, steps_to_remove
from amqpd.broker.changes import Changes
from amqpd.broker.counts import Churn
from amqpd.broker.dead_letter_router import DeadLetterRouter
from amqpd.broker.definitions import BindingDefinition, Defined, Deleted
from amqpd.broker.departure import REMOVE_STEPS
from amqpd.broker.exchange import BindingKey, Destination, Exchange
from amqpd.broker.leaving import Leaving
from amqpd.broker.limits import QueueQuota
from amqpd.broker.queue.queue import Queue
from amqpd.broker.routing import Routing
from amqpd.broker.step_job import Act, StepJob
from amqpd.broker.worklist import Worklist, nothing

END_STEPS = 25          # the cost of ending a queue, without its messages


class Topology:
    """The exchanges, queues and bindings of one vhost, by name."""

    def __init__(
        self, exchanges: dict[str, Exchange], queues: dict[str, Queue], routing: Routing,
        dead_letters: DeadLetterRouter, changes: Changes, worklist: Worklist, quota: QueueQuota,
        churn: Churn,
    ) -> None:
        self.bindings = Bindings()
        self.leaving = Leaving(worklist, changes.record_unfinished)
        self._exchanges = exchanges
        self._queues = queues
        self._routing = routing
        self._dead_letters = dead_letters
        self._changes = changes
        self._worklist = worklist
        self._quota = quota
        self._churn = churn
        self._exclusive: dict[object, dict[Queue, None]] = {}     # exclusive queues by their owners

    # Exchanges

    def add_exchange(self, exchange: Exchange) -> None:
        """Add an exchange, without recording it."""
        self._exchanges[exchange.name] = exchange
        self._routing.exchanges_added += 1
        self._routing.version += 1

    def remove_exchange(self, exchange: Exchange) -> None:
        """Remove an exchange with its bindings."""
        with self._changes:
            del self._exchanges[exchange.name]
            exchange.leave()
            self._routing.gone(exchange)
            self._routing.version += 1
            if exchange.definition.durable:
                self._changes.record(Deleted(exchange.definition))
            self.leaving.exchange(exchange, self._take_apart_exchange(exchange))
        self._changes.tell("exchange.deleted", exchange.definition)

    def _take_apart_exchange(self, exchange: Exchange) -> Iterator[int]:
        with self._changes:
            outgoing = [*exchange.bindings][::-1]
            while outgoing:
                key = outgoing.pop()
                if key in exchange.bindings:        # else the queue at the other end has been deleted meanwhile
                    self.remove_binding(exchange, key)
                yield steps_to_remove(key)
            yield from self._remove_incoming("exchange", exchange.name)

    # Queues

    def add_queue(self, queue: Queue) -> None:
        """Add a queue, without recording it."""
        self._queues[queue.name] = queue
        self._quota.count += 1
        self._exchanges[""].changes += 1
        if queue.owner is not None:
            self._exclusive.setdefault(queue.owner, {})[queue] = None
        self._routing.version += 1

    def remove_queue(self, queue: Queue) -> None:
        """Remove a queue with its bindings, its messages and its consumers."""
        if queue.deleted:
            return
        with self._changes:
            del self._queues[queue.name]
            self._quota.count -= 1
            self._churn.queue_deleted += 1
            if queue.owner is not None:
                self._forget_owner(queue)
            self._exchanges[""].changes += 1
            self._routing.version += 1
            is_durable = queue.definition.durable
            # So that nothing is routed to it before its bindings are removed.
            queue.delete(is_still_stored=is_durable and self._dead_letters.has_dead_letters_of(queue))
            if is_durable and not queue.is_still_stored:
                self._changes.record(Deleted(queue.definition))
            self.leaving.queue(queue, self._take_apart_queue(queue))
        self._changes.tell("queue.deleted", queue.definition)
        self._routing.gone(queue)
        if queue.name in self.leaving.queues:
            self._routing.forget()
        queue.end()

    def _take_apart_queue(self, queue: Queue) -> Iterator[int]:
        with self._changes:
            if queue.is_still_stored:
                # Messages that died before are moved before the deletion is recorded: a crash loses no confirmed
                # message.
                yield from self._dead_letters.move_those_of(queue)
                queue.records.close()
                self._changes.record(Deleted(queue.definition))
            yield from self._remove_incoming("queue", queue.name)

    def _forget_owner(self, queue: Queue) -> None:
        owned = self._exclusive.get(queue.owner, {})
        owned.pop(queue, None)
        if not owned:
            self._exclusive.pop(queue.owner, None)

    def leave(self, owner: object) -> Iterator[Act]:
        """Yield the acts that remove the exclusive queues of a connection, one at a time."""
        for queue in [*self._exclusive.get(owner, ())]:
            yield REMOVE_STEPS, partial(self.remove_queue, queue)

    def consumer_left(self, queue: Queue) -> None:
        """Remove an auto-delete queue with its last consumer. Spec: queue.declare."""
        if queue.definition.auto_delete and queue.is_unused:
            self.remove_queue(queue)

    # Bindings

    def add_binding(
        self, source: Exchange, key: BindingKey, binding: BindingDefinition, destination: Destination
    ) -> None:
        """Add a binding, without recording it."""
        self.bindings.add(source, key, binding, destination)
        self._routing.version += 1

    def bind(self, source: Exchange, key: BindingKey, binding: BindingDefinition, destination: Destination) -> None:
        """Add a binding, and record it if both ends are durable."""
        with self._changes:
            self.add_binding(source, key, binding, destination)
            if _is_durable(source, destination):
                self._changes.record(Defined(binding))
        self._changes.tell("binding.created", binding)

    def remove_binding(self, source: Exchange, key: BindingKey) -> None:
        """Remove an existing binding, and an auto-delete source with its last binding."""
        with self._changes:
            binding, destination = self.bindings.remove(source, key)
            self._routing.version += 1
            if _is_durable(source, destination):
                self._changes.record(Deleted(binding))
        self._changes.tell("binding.deleted", binding)
        if source.definition.auto_delete and not source.bindings and source.name in self._exchanges:
            self.remove_exchange(source)

    def _remove_incoming(self, kind: str, name: str) -> Iterator[int]:
        incoming = self.bindings.leading_to(kind, name)[::-1]
        while incoming:
            name_of_source, key = incoming.pop()
            source = self._exchanges.get(name_of_source) or self.leaving.exchanges.get(name_of_source)
            if source is not None and key in source.bindings:
                self.remove_binding(source, key)
            yield steps_to_remove(key)

    # The end

    def end(self) -> None:
        """Remove everything: the vhost is deleted, and cannot be found any more.

        From now on its queues accept, deliver and record nothing; queues and bindings are freed in slices.
        """
        self._quota.count -= len(self._queues)
        self._churn.queue_deleted += len(self._queues)
        for queue in self._queues.values():
            queue.delete()
        for queue in self.leaving.queues.values():
            queue.records.close()
        exchanges = [*self._exchanges.values(), *self.leaving.exchanges.values()]
        self.leaving.end()
        StepJob(self._tear_down(exchanges), self._worklist)

    def _tear_down(self, exchanges: list[Exchange]) -> Iterator[Act]:
        """Yield the acts that free the rest of a deleted vhost: bindings, then queues.

        A new vhost may have the same name: nothing is looked up by name, and nothing is recorded.
        """
        while exchanges:
            exchange = exchanges.pop()
            yield 1, nothing
            keys = [*exchange.bindings]
            while keys:
                key = keys.pop()
                yield steps_to_remove(key), partial(self.bindings.remove, exchange, key)
        while self._queues:
            _, queue = self._queues.popitem()   # closing sessions still have the vhost, but no longer its queues
            yield END_STEPS, queue.end

    def check(self) -> None:
        """Assert what must hold between calls."""
        if not self.leaving.has_work:
            self.bindings.check(self._exchanges, self._queues)
        owned = {queue for queues in self._exclusive.values() for queue in queues}
        assert owned == {queue for queue in self._queues.values() if queue.owner is not None} and all(
            self._exclusive.values()), "an exclusive queue outlives its connection"
        for queue in self._queues.values():
            assert not queue.deleted
            queue.check()


def _is_durable(source: Exchange, destination: Destination) -> bool:
    return source.definition.durable and destination.definition.durable
