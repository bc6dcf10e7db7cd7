"""A virtual host: its names, and the rules by which they are declared, bound and deleted.

Owns exchanges, queues and what binds them (`broker/bindings.py`), and every rule of who may declare, bind, delete
what, in RabbitMQ's order of checks. Nothing here answers a client: a refusal is raised, anything else is done.
The walk from an exchange to queues is in `broker/routing.py`.

Always true between calls:
- both ends of a binding exist;
- what is durable, and a binding between durable ends, has been recorded in the journal;
- `version` has risen whenever an earlier answer of `route` might differ.

Spec: §3.1; RabbitMQ docs/queues, docs/exchanges, docs/e2e, docs/ae, docs/access-control.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from amqpd.broker.access import User
from amqpd.broker.arguments import (
    ALTERNATE_EXCHANGE,
    DEAD_LETTER_EXCHANGE,
    check_exchange_arguments,
    check_exchange_equivalence,
    check_queue_arguments,
    check_queue_equivalence,
    check_server_named,
    describe_exchange,
    describe_queue,
    named_exchange,
)
from amqpd.broker.atomic import NEVER, Atomic
from amqpd.broker.bindings import Bindings, steps_to_remove
from amqpd.broker.clock import Clock
from amqpd.broker.dead_letter_router import DeadLetterRouter
from amqpd.broker.definitions import (
    BindingDefinition,
    Change,
    Defined,
    Definition,
    Deleted,
    ExchangeDefinition,
    PolicyDefinition,
    QueueDefinition,
)
from amqpd.broker.departure import REMOVE_STEPS, Act, Departure
from amqpd.broker.exchange import BindingKey, DefaultExchange, Destination, Exchange, binding_key
from amqpd.broker.leaving import Leaving
from amqpd.broker.page_store import MemoryPageStore
from amqpd.broker.policy import NoSuchPolicy, Policies, check_policy
from amqpd.broker.policy_followers import PolicyFollowers
from amqpd.broker.ports import Journal, PageStore, ReplySubscriber
from amqpd.broker.queue.pager import MessageNotLoaded
from amqpd.broker.queue.purge import Purge
from amqpd.broker.queue.queue import Queue
from amqpd.broker.routing import Routing
from amqpd.broker.rules import QueueRules, queue_rules
from amqpd.broker.teardown import Teardown
from amqpd.broker.worklist import Worklist
from amqpd.errors import ChannelException, ReplyCode
from amqpd.message import Message

RESERVED_PREFIX = "amq."
REPLY_TO = "amq.rabbitmq.reply-to"
PREDECLARED = {
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.headers": "headers",
    "amq.match": "headers",
    "amq.topic": "topic",
}


def generated_name(prefix: str) -> str:
    """A name nobody can guess or has taken: the prefix and 22 URL-safe characters."""
    return prefix + base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()


class Vhost:
    """One virtual host. `next_queue_number` gives numbers that are never used twice, restarts included."""

    def __init__(
        self, name: str, journal: Journal, next_queue_number: Callable[[], int],
        next_message_number: Callable[[], int] | None = None, clock: Clock | None = None,
        page_store: PageStore | None = None, worklist: Worklist | None = None,
    ) -> None:
        self.name = name
        self.version = 0
        self.queues: dict[str, Queue] = {}
        self.exchanges: dict[str, Exchange] = {"": DefaultExchange(name, self.queues)}
        self.reply_subscribers: dict[str, ReplySubscriber] = {}
        self.policies = Policies()
        self.worklist = worklist or Worklist()
        self.followers = PolicyFollowers(
            self.exchanges, self.queues, self.worklist, self._apply_to_exchange, self._apply_to_queue)
        self.leaving = Leaving(self.worklist, self._note_unfinished)
        self.routing = Routing(self.exchanges, self.worklist.effort)
        self._bindings = Bindings()
        self._exclusive: dict[object, dict[Queue, None]] = {}     # exclusive queues by their owners
        self._journal = journal
        self._page_store = page_store
        self._batch = 0
        self._atomic = Atomic(journal, self._await_for_ever)
        self._next_queue_number = next_queue_number
        self._clock = clock or Clock()
        self.dead_letters = DeadLetterRouter(
            self.exchanges, self.routing, self.worklist, self._clock, next_message_number or next_queue_number,
            page_store or MemoryPageStore(), lambda: self.version)
        for exchange, kind in PREDECLARED.items():
            self.exchanges[exchange] = Exchange(ExchangeDefinition(name, exchange, kind, durable=True))
        trace = ExchangeDefinition(name, "amq.rabbitmq.trace", "topic", durable=True, internal=True)
        self.exchanges[trace.name] = Exchange(trace)

    # Looking up

    def exchange(self, name: str) -> Exchange:
        """Raises ChannelException: NOT_FOUND."""
        try:
            return self.exchanges[name]
        except KeyError:
            raise ChannelException(ReplyCode.NOT_FOUND, f"no {describe_exchange(name, self.name)}") from None

    def queue(self, name: str, owner: object | None) -> Queue:
        """A queue that this connection may use. Raises ChannelException: NOT_FOUND, RESOURCE_LOCKED."""
        queue = self.queues.get(name)
        if queue is None:
            raise ChannelException(ReplyCode.NOT_FOUND, f"no {describe_queue(name, self.name)}")
        self._check_owner(queue, owner, exclusive=queue.definition.exclusive)
        return queue

    def _check_owner(self, queue: Queue, owner: object | None, *, exclusive: bool) -> None:
        if (queue.owner is not None and queue.owner is not owner) or exclusive != queue.definition.exclusive:
            raise ChannelException(
                ReplyCode.RESOURCE_LOCKED,
                f"cannot obtain exclusive access to locked {describe_queue(queue.name, self.name)}. It could be "
                "originally declared on another connection or the exclusive property value does not match that of "
                "the original declaration.")

    def bindings(self) -> Iterator[BindingDefinition]:
        """Every binding but the default exchange's implicit ones."""
        yield from self._bindings

    # Exchanges

    def declare_exchange(self, user: User, definition: ExchangeDefinition) -> None:
        """Make the exchange, or find that the one that exists is equivalent. RabbitMQ docs/exchanges.

        Raises ConnectionException: COMMAND_INVALID for an unknown type. ChannelException: ACCESS_REFUSED for the
        default exchange, a reserved name or a missing permission; PRECONDITION_FAILED where it exists otherwise.
        MessageNotLoaded while one of this name still leaves.
        """
        name = definition.name
        exchange = Exchange(definition)
        self._refuse_default(name)
        user.require(self.name, "configure", "exchange", name)
        current = self.exchanges.get(name)
        if current is not None:
            check_exchange_equivalence(current.definition, definition)
            return
        if name.startswith(RESERVED_PREFIX):
            raise ChannelException(
                ReplyCode.ACCESS_REFUSED, f"exchange name '{name}' contains reserved prefix 'amq.*'")
        check_exchange_arguments(definition)
        alternate = definition.arguments.get(ALTERNATE_EXCHANGE)
        if alternate is not None:
            user.require(self.name, "read", "exchange", name)
            user.require(self.name, "write", "exchange", alternate)
        self._await_exchange(name)
        self._apply_to_exchange(exchange)
        with self._atomic:
            self._add_exchange(exchange)
            if definition.durable:
                self._record(Defined(definition))

    def find_exchange(self, name: str) -> Exchange:
        """What a passive declare asks. Raises ChannelException: NOT_FOUND, ACCESS_REFUSED for the default one."""
        self._refuse_default(name)
        return self.exchange(name)

    def delete_exchange(self, user: User, name: str, *, if_unused: bool = False) -> None:
        """Remove an exchange with its bindings; one that does not exist is fine.

        Raises ChannelException: ACCESS_REFUSED; PRECONDITION_FAILED if it is to be unused and has bindings.
        MessageNotLoaded while it leaves, which it does from now on.
        """
        self._refuse_default(name)
        user.require(self.name, "configure", "exchange", name)
        if name.startswith(RESERVED_PREFIX):
            raise ChannelException(
                ReplyCode.ACCESS_REFUSED, f"deletion of system {describe_exchange(name, self.name)} not allowed")
        self._await_exchange(name)
        exchange = self.exchanges.get(name)
        if exchange is None:
            return
        if if_unused and exchange.bindings:
            raise ChannelException(
                ReplyCode.PRECONDITION_FAILED, f"{describe_exchange(name, self.name)} in use")
        self._remove_exchange(exchange)
        self._await_exchange(name)

    def _await_exchange(self, name: str) -> None:
        if name in self.leaving.exchanges:
            raise MessageNotLoaded(self.leaving.call_after(self.leaving.exchanges[name]))

    def _refuse_default(self, name: str) -> None:
        if not name:
            raise ChannelException(ReplyCode.ACCESS_REFUSED, "operation not permitted on the default exchange")

    def _add_exchange(self, exchange: Exchange) -> None:
        self.exchanges[exchange.name] = exchange
        self.routing.exchanges_added += 1
        self.version += 1

    def _remove_exchange(self, exchange: Exchange) -> None:
        with self._atomic:
            del self.exchanges[exchange.name]
            exchange.leave()
            self.routing.gone(exchange)
            self.version += 1
            if exchange.definition.durable:
                self._record(Deleted(exchange.definition))
            self.leaving.exchange(exchange, self._take_apart_exchange(exchange))

    def _take_apart_exchange(self, exchange: Exchange) -> Iterator[int]:
        with self._atomic:
            outgoing = [*exchange.bindings][::-1]
            while outgoing:
                key = outgoing.pop()
                if key in exchange.bindings:        # else the queue that it led to has gone meanwhile
                    self._remove_binding(exchange, key)
                yield steps_to_remove(key)
            yield from self._remove_incoming("exchange", exchange.name)

    # Queues

    def declare_queue(self, user: User, definition: QueueDefinition, owner: object) -> Queue:
        """Make the queue, or find that the one that exists is equivalent; an empty name is given one.

        An exclusive queue is never durable: it ends with its connection. Raises ChannelException:
        ACCESS_REFUSED, RESOURCE_LOCKED, PRECONDITION_FAILED. MessageNotLoaded while one of this name still leaves.
        RabbitMQ docs/queues.
        """
        name = definition.name
        if not name:
            check_server_named(definition.arguments)
        if name.startswith(RESERVED_PREFIX):
            raise ChannelException(ReplyCode.ACCESS_REFUSED, f"queue name '{name}' contains reserved prefix 'amq.*'")
        name = name or generated_name("amq.gen-")
        user.require(self.name, "configure", "queue", name)
        current = self.queues.get(name)
        if current is not None:
            self._check_owner(current, owner, exclusive=definition.exclusive)
            check_queue_equivalence(current.definition, self._as_stored(definition, name))
            current.expiry.use()
            return current
        described = describe_queue(name, self.name)
        dead_letter_exchange = named_exchange(DEAD_LETTER_EXCHANGE, definition.arguments, described)
        if dead_letter_exchange is not None:
            user.require(self.name, "read", "queue", name)
            user.require(self.name, "write", "exchange", dead_letter_exchange)
        if name in self.leaving.queues:
            raise MessageNotLoaded(self.leaving.call_after(self.leaving.queues[name]))
        check_queue_arguments(definition if definition.name else msgspec.structs.replace(definition, name=name))
        created = self._as_stored(definition, name, number=self._next_queue_number())
        queue = self._new_queue(created, owner if created.exclusive else None)
        with self._atomic:
            self._add_queue(queue)
            if created.durable:
                self._record(Defined(created))
        return queue

    def _as_stored(self, definition: QueueDefinition, name: str, number: int = 0) -> QueueDefinition:
        return QueueDefinition(
            number=number, vhost=self.name, name=name, durable=definition.durable and not definition.exclusive,
            exclusive=definition.exclusive, auto_delete=definition.auto_delete, arguments=definition.arguments)

    def delete_queue(
        self, user: User, name: str, owner: object, *, if_unused: bool = False, if_empty: bool = False
    ) -> int:
        """Remove a queue with its bindings and messages; says how many were ready, 0 if there is no such queue.

        Raises ChannelException: ACCESS_REFUSED, RESOURCE_LOCKED; PRECONDITION_FAILED where it is in use or not
        empty and should be. Unacked messages do not count. Spec: queue.delete.
        """
        user.require(self.name, "configure", "queue", name)
        if name not in self.queues:
            return 0
        queue = self.queue(name, owner)
        if if_empty and queue.ready:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, f"{describe_queue(name, self.name)} not empty")
        if if_unused and queue.consumers:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, f"{describe_queue(name, self.name)} in use")
        count = len(queue.ready)
        self.remove_queue(queue)
        return count

    def purge_queue(self, user: User, name: str, owner: object) -> Purge:
        """Drop the ready messages, how many the purge says. Raises ChannelException: ACCESS_REFUSED, NOT_FOUND, …

        Raises MessageNotLoaded while the queue is busy: what is on its way back to it is to be purged too.
        """
        user.require(self.name, "read", "queue", name)
        queue = self.queue(name, owner)
        if queue.jobs.has_work:
            raise MessageNotLoaded(queue.jobs.call)
        return queue.purge()

    def note_batch(self, batch: int) -> None:
        """Let answers about this vhost wait for this batch of the journal too; 0 is none."""
        self._batch = max(batch, self._batch)

    def _new_queue(self, definition: QueueDefinition, owner: object | None) -> Queue:
        return Queue(
            definition, self._journal, owner=owner, rules=self._rules_of(definition), clock=self._clock, sink=self,
            page_store=self._page_store, worklist=self.worklist)

    def _add_queue(self, queue: Queue) -> None:
        self.queues[queue.name] = queue
        self.exchanges[""].changes += 1
        if queue.owner is not None:
            self._exclusive.setdefault(queue.owner, {})[queue] = None
        self.version += 1

    def remove_queue(self, queue: Queue) -> None:
        """Take a queue away with all that hangs on it, without asking anybody."""
        if queue.deleted:
            return
        with self._atomic:
            del self.queues[queue.name]
            if queue.owner is not None:
                self._forget_owner(queue)
            self.exchanges[""].changes += 1
            self.version += 1
            # So that nothing leads to it, before its bindings have gone.
            queue.delete(is_still_stored=queue.definition.durable and self.dead_letters.has_dead_letters_of(queue))
            if queue.definition.durable and not queue.is_still_stored:
                self._record(Deleted(queue.definition))
            self.leaving.queue(queue, self._take_apart_queue(queue))
        self.routing.gone(queue)
        if queue.name in self.leaving.queues:
            self.routing.forget()
        queue.end()

    def _take_apart_queue(self, queue: Queue) -> Iterator[int]:
        with self._atomic:
            if queue.is_still_stored:
                # What died before the deletion is moved before it is recorded: no crash loses what was confirmed.
                yield from self.dead_letters.move_those_of(queue)
                queue.records.close()
                self._record(Deleted(queue.definition))
            yield from self._remove_incoming("queue", queue.name)

    def _note_unfinished(self, is_unfinished: bool) -> None:
        self._batch = max(self._journal.unfinished(is_unfinished), self._batch)

    def _forget_owner(self, queue: Queue) -> None:
        owned = self._exclusive.get(queue.owner, {})
        owned.pop(queue, None)
        if not owned:
            self._exclusive.pop(queue.owner, None)

    def connection_ended(self, owner: object) -> Departure:
        """The exclusive queues of a connection end with it. Spec: queue.declare."""
        return Departure(self.leave(owner), self.worklist)

    def leave(self, owner: object) -> Iterator[Act]:
        """Go through what takes away the exclusive queues of a connection, one at a time."""
        for queue in [*self._exclusive.get(owner, ())]:
            yield REMOVE_STEPS, partial(self.remove_queue, queue)

    def consumer_left(self, queue: Queue) -> None:
        """An auto-delete queue goes with its last consumer. Spec: queue.declare."""
        if queue.definition.auto_delete and queue.is_unused:
            self.remove_queue(queue)

    # Bindings

    def bind(self, user: User, binding: BindingDefinition, owner: object) -> None:
        """Add a binding; the same one again is fine. RabbitMQ docs/e2e for exchanges bound to exchanges.

        Raises ChannelException: ACCESS_REFUSED, NOT_FOUND for a missing end, RESOURCE_LOCKED,
        PRECONDITION_FAILED for arguments the exchange type refuses.
        """
        self._check_binding_rights(user, binding)
        source = self.exchange(binding.source)
        destination = self._destination(binding, owner)
        key = source.new_key(binding)
        if key is None:
            return
        with self._atomic:
            self._bindings.add(source, key, binding, destination)
            self.version += 1
            if self._is_durable(source, destination):
                self._record(Defined(binding))

    def unbind(self, user: User, binding: BindingDefinition, owner: object) -> None:
        """Remove a binding; one that is not there is fine, also where an end of it is missing.

        Raises ChannelException: ACCESS_REFUSED, RESOURCE_LOCKED.
        """
        self._check_binding_rights(user, binding)
        source = self.exchanges.get(binding.source)
        key = binding_key(binding)
        if source is None or key not in source.bindings:
            return
        leaving = self.leaving.queues if binding.destination_type == "queue" else self.leaving.exchanges
        if binding.destination in leaving:
            return      # so does the binding
        self._destination(binding, owner)
        self._remove_binding(source, key)

    def _check_binding_rights(self, user: User, binding: BindingDefinition) -> None:
        self._refuse_default(binding.source)
        if binding.destination_type == "exchange":
            self._refuse_default(binding.destination)
        user.require(self.name, "write", binding.destination_type, binding.destination)
        user.require(self.name, "read", "exchange", binding.source)

    def _destination(self, binding: BindingDefinition, owner: object) -> Destination:
        if binding.destination_type == "queue":
            return self.queue(binding.destination, owner)
        return self.exchange(binding.destination)

    def _is_durable(self, source: Exchange, destination: Destination) -> bool:
        return source.definition.durable and destination.definition.durable

    def _remove_binding(self, source: Exchange, key: BindingKey) -> None:
        """Take one binding away, and an auto-delete source with its last one."""
        with self._atomic:
            binding, destination = self._bindings.remove(source, key)
            self.version += 1
            if self._is_durable(source, destination):
                self._record(Deleted(binding))
        if source.definition.auto_delete and not source.bindings and source.name in self.exchanges:
            self._remove_exchange(source)

    def _remove_incoming(self, kind: str, name: str) -> Iterator[int]:
        incoming = self._bindings.leading_to(kind, name)[::-1]
        while incoming:
            name_of_source, key = incoming.pop()
            source = self.exchanges.get(name_of_source) or self.leaving.exchanges.get(name_of_source)
            if source is not None and key in source.bindings:
                self._remove_binding(source, key)
            yield steps_to_remove(key)

    # Routing

    def route(self, exchange: Exchange, keys: Collection[str], headers: Mapping[str, Any]) -> list[Queue]:
        """Return the queues a message reaches from here, each once; see broker/routing.py."""
        return self.routing.route(exchange, keys, lambda: headers)

    # Policies

    def set_policy(self, policy: PolicyDefinition) -> None:
        """Set a policy, or an operator's, in place of one of this name; queues and exchanges follow, see `followers`.

        Raises InvalidPolicy. RabbitMQ docs/policies.
        """
        check_policy(policy)
        with self._atomic:
            self.policies.set(policy)
            self._record(Defined(policy))
        self.followers.follow(self.policies.count)

    def clear_policy(self, name: str, *, is_operator: bool = False) -> None:
        """Take a policy away, or an operator's; queues and exchanges follow. Raises NoSuchPolicy."""
        with self._atomic:
            policy = self.policies.clear(name, is_operator=is_operator)
            if policy is not None:
                self._record(Deleted(policy))
        if policy is None:
            raise NoSuchPolicy(name, self.name)
        self.followers.follow(self.policies.count)

    def _apply_to_exchange(self, exchange: Exchange) -> None:
        exchange.apply(self.policies.of_exchange(exchange.name).effective)
        self.version += 1

    def _apply_to_queue(self, queue: Queue) -> None:
        rules = self._rules_of(queue.definition)
        if rules != queue.rules:
            queue.apply(rules)

    def _rules_of(self, queue: QueueDefinition) -> QueueRules:
        return queue_rules(queue.arguments, *self.policies.of_queue(queue).definitions)

    def dead_letter(self, queue: Queue, run: Sequence[Message], reason: str, *, is_stored: bool = True) -> None:
        """See `broker/queue/queue.py`."""
        self.dead_letters.dead_letter(queue, run, reason, is_stored=is_stored)

    def is_behind(self, queue: Queue) -> bool:
        """See `broker/queue/queue.py`."""
        return self.dead_letters.is_behind(queue)

    def unused(self, queue: Queue) -> None:
        """A queue that nobody has used for as long as it may be. RabbitMQ docs/ttl (queue TTL)."""
        self.remove_queue(queue)

    # The end

    def end(self) -> None:
        """Let go of everything: the vhost has been deleted, and nobody finds it any more.

        From now on its queues take, hand out and record nothing; they end, and bindings go, in pieces.
        """
        for queue in self.queues.values():
            queue.delete()
        for queue in self.leaving.queues.values():
            queue.records.close()
        exchanges = [*self.exchanges.values(), *self.leaving.exchanges.values()]
        self.leaving.end()
        Teardown(self.worklist, exchanges, self._bindings, self.queues)

    # What the store kept

    def restore(self, definitions: Iterable[Definition]) -> None:
        """Build what was durable, at start; nothing is recorded again. Exchanges and queues before bindings."""
        for definition in definitions:
            if isinstance(definition, PolicyDefinition):
                self.policies.set(definition)
                self.followers.follow(self.policies.count)
                self.followers.finish()
            elif isinstance(definition, ExchangeDefinition):
                exchange = Exchange(definition)
                self._apply_to_exchange(exchange)
                self._add_exchange(exchange)
            elif isinstance(definition, QueueDefinition):
                self._add_queue(self._new_queue(definition, None))
            elif isinstance(definition, BindingDefinition):
                ends: Mapping[str, Destination] = (
                    self.queues if definition.destination_type == "queue" else self.exchanges)
                source = self.exchanges[definition.source]
                key = source.new_key(definition)
                if key is not None:
                    self._bindings.add(source, key, definition, ends[definition.destination])
                self.version += 1

    def _record(self, change: Change) -> None:
        self._batch = max(self._journal.changed(change), self._batch)

    def _await_for_ever(self) -> None:
        """Let nobody hear of this vhost what may not be true after the stop that follows."""
        self._batch = NEVER

    @property
    def awaited_batch(self) -> int:
        """The journal's batch that holds the newest change of a definition, and the newest purge; 0 if on disk.

        An answer waits for it whoever made the change: that something is there already, or gone already, is as
        much of a promise.
        """
        return self._batch

    def on_commit(self, batch: int) -> None:
        """This batch and all before it are on disk."""
        if batch >= self._batch:
            self._batch = 0

    def check(self) -> None:
        """Assert what must hold between calls."""
        if not self.leaving.has_work:
            self._bindings.check(self.exchanges, self.queues)
        owned = {queue for queues in self._exclusive.values() for queue in queues}
        assert owned == {queue for queue in self.queues.values() if queue.owner is not None} and all(
            self._exclusive.values()), "an exclusive queue outlives its connection"
        for queue in self.queues.values():
            assert not queue.deleted
            queue.check()
