"""A virtual host: the rules for declaring, binding and deleting, in RabbitMQ's order of checks.

Nothing here answers a client: methods raise a refusal, or do what was asked. `broker/topology.py` has the objects of
the vhost, `broker/routing.py` the walk from an exchange to queues, `broker/policy_followers.py` the policies.

Spec: §3.1; RabbitMQ docs/queues, docs/exchanges, docs/e2e, docs/ae, docs/access-control.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from amqpd.broker.access import User
from amqpd.broker.arguments import (
    ALTERNATE_EXCHANGE,
    DEAD_LETTER_EXCHANGE,
    QUEUE_TYPE,
    check_binding_arguments,
    check_exchange_arguments,
    check_exchange_equivalence,
    check_queue_arguments,
    check_queue_equivalence,
    check_server_named,
    describe_exchange,
    describe_queue,
    named_exchange,
    steps_to_compare,
    with_default_type,
)
from amqpd.broker.changes import Changes
from amqpd.broker.clock import Clock
from amqpd.broker.counts import Churn, Totals
from amqpd.broker.dead_letter_router import DeadLetterRouter
from amqpd.broker.definitions import (
    BindingDefinition,
    Defined,
    Definition,
    ExchangeDefinition,
    PolicyDefinition,
    QueueDefinition,
)
from amqpd.broker.events import Events
from amqpd.broker.exchange import DefaultExchange, Destination, Exchange, binding_key
from amqpd.broker.firehose import TRACE_EXCHANGE
from amqpd.broker.limits import MAX_QUEUES, UNLIMITED, QueueQuota, reached_limit
from amqpd.broker.page_store import MemoryPageStore
from amqpd.broker.policy_followers import PolicyFollowers
from amqpd.broker.ports import Journal, PageStore, ReplySubscriber
from amqpd.broker.queue.pager import MessageNotLoaded
from amqpd.broker.queue.purge import Purge
from amqpd.broker.queue.queue import Queue
from amqpd.broker.routing import Routing
from amqpd.broker.taps import Taps
from amqpd.broker.topology import Topology
from amqpd.broker.worklist import Worklist
from amqpd.errors import ChannelException, ReplyCode

RESERVED_PREFIX = "amq."
REPLY_TO = "amq.rabbitmq.reply-to"
BINDING_LIMIT = 100_000
PREDECLARED = {
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.headers": "headers",
    "amq.match": "headers",
    "amq.topic": "topic",
}


def generated_name(prefix: str) -> str:
    """Return a name that is unused and cannot be guessed: the prefix and 22 URL-safe characters."""
    return prefix + base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()


class Vhost:
    """One virtual host. `next_queue_number` returns numbers that are never used again, also after a restart.

    `binding_limit` is the most bindings that a queue can be given; a stored queue may have more. `quota` counts the
    queues of all vhosts. `connection_count` is the number of open connections; the sessions count. `totals` are also
    added to those of the broker.
    """

    def __init__(
        self, name: str, journal: Journal, next_queue_number: Callable[[], int],
        next_message_number: Callable[[], int] | None = None, clock: Clock | None = None,
        page_store: PageStore | None = None, worklist: Worklist | None = None, binding_limit: int = BINDING_LIMIT,
        quota: QueueQuota | None = None, events: Events | None = None, broker_totals: Totals | None = None,
        churn: Churn | None = None,
    ) -> None:
        self.name = name
        self.limits = UNLIMITED
        self.default_queue_type = ""
        self.connection_count = 0
        self.totals = Totals(broker_totals)
        self.churn = churn = churn or Churn()
        self.queues: dict[str, Queue] = {}
        self.exchanges: dict[str, Exchange] = {"": DefaultExchange(name, self.queues)}
        self.reply_subscribers: dict[str, ReplySubscriber] = {}
        self.worklist = worklist = worklist or Worklist()
        self.changes = Changes(journal, events)
        self.routing = Routing(self.exchanges, worklist.effort)
        self._journal = journal
        self._page_store = page_store or MemoryPageStore()
        self._next_queue_number = next_queue_number
        self._binding_limit = binding_limit
        self._quota = quota = quota or QueueQuota()
        self._clock = clock or Clock()
        self.taps = Taps(
            name, self.exchanges, self.routing, worklist, self._clock, next_message_number or next_queue_number)
        self.dead_letters = DeadLetterRouter(
            self.exchanges, self.routing, worklist, self._clock, next_message_number or next_queue_number,
            self._page_store, journal.write_body, self.taps)
        self.topology = Topology(
            self.exchanges, self.queues, self.routing, self.dead_letters, self.changes, worklist, quota, churn)
        self.leaving = self.topology.leaving
        self.followers = PolicyFollowers(
            name, self.exchanges, self.queues, self.routing, self.changes, worklist)
        self.policies = self.followers.policies
        for exchange, kind in PREDECLARED.items():
            self.exchanges[exchange] = Exchange(ExchangeDefinition(name, exchange, kind, durable=True))
        trace = ExchangeDefinition(name, TRACE_EXCHANGE, "topic", durable=True, internal=True)
        self.exchanges[trace.name] = Exchange(trace)

    # Looking up

    def exchange(self, name: str) -> Exchange:
        """Return the exchange of this name. Raises ChannelException: NOT_FOUND."""
        try:
            return self.exchanges[name]
        except KeyError:
            raise ChannelException(ReplyCode.NOT_FOUND, f"no {describe_exchange(name, self.name)}") from None

    def queue(self, name: str, owner: object | None) -> Queue:
        """Return a queue that this connection may use. Raises ChannelException: NOT_FOUND, RESOURCE_LOCKED."""
        queue = self.queues.get(name)
        if queue is None:
            raise ChannelException(ReplyCode.NOT_FOUND, f"no {describe_queue(name, self.name)}")
        self._check_owner(queue, owner, exclusive=queue.definition.exclusive)
        return queue

    def exchange_for_publish(self, user: User, name: str, routing_key: str) -> Exchange:
        """Return the exchange to which the user may publish with this key; the checks are in RabbitMQ's order.

        Raises ChannelException: ACCESS_REFUSED, also for an internal exchange; NOT_FOUND.
        """
        user.require(self.name, "write", "exchange", name)
        exchange = self.exchange(name)
        if exchange.definition.internal:
            raise ChannelException(
                ReplyCode.ACCESS_REFUSED, f"cannot publish to internal exchange '{name}' in vhost '{self.name}'")
        self.require_key(user, "write", exchange, routing_key)
        return exchange

    def _check_owner(self, queue: Queue, owner: object | None, *, exclusive: bool) -> None:
        if (queue.owner is not None and queue.owner is not owner) or exclusive != queue.definition.exclusive:
            raise ChannelException(
                ReplyCode.RESOURCE_LOCKED,
                f"cannot obtain exclusive access to locked {describe_queue(queue.name, self.name)}. It could be "
                "originally declared on another connection or the exclusive property value does not match that of "
                "the original declaration.")

    def bindings(self) -> Iterator[BindingDefinition]:
        """Yield every binding except those of the default exchange."""
        yield from self.topology.bindings

    def bindings_to(self, kind: str, name: str) -> Iterator[BindingDefinition]:
        """Yield these bindings of a queue or an exchange, without a look at all others; `kind` says which it is."""
        yield from self.topology.bindings.definitions_to(kind, name)

    # Exchanges

    def declare_exchange(self, user: User, definition: ExchangeDefinition) -> None:
        """Create the exchange, or check that the existing one is equivalent. RabbitMQ docs/exchanges.

        Raises ConnectionException: COMMAND_INVALID for an unknown type. ChannelException: ACCESS_REFUSED for the
        default exchange, a reserved name or a missing permission; PRECONDITION_FAILED if the existing one differs.
        MessageNotLoaded while a deleted one of this name still has bindings.
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
        self.followers.apply_to_exchange(exchange)
        with self.changes:
            self.topology.add_exchange(exchange)
            if definition.durable:
                self.changes.record(Defined(definition))
        self.changes.tell("exchange.created", definition)

    def find_exchange(self, user: User, name: str) -> Exchange:
        """Find an exchange for a passive declare, which needs any right on the name.

        Raises ChannelException: NOT_FOUND; ACCESS_REFUSED, also for the default exchange.
        """
        self._refuse_default(name)
        user.require_any(self.name, "exchange", name)
        return self.exchange(name)

    def delete_exchange(self, user: User, name: str, *, if_unused: bool = False) -> None:
        """Delete an exchange with its bindings; a missing exchange is not an error.

        Raises ChannelException: ACCESS_REFUSED; PRECONDITION_FAILED with `if_unused` if it has bindings.
        MessageNotLoaded while its bindings are being removed, which begins with the first call.
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
        self.topology.remove_exchange(exchange)
        self._await_exchange(name)

    def _await_exchange(self, name: str) -> None:
        if name in self.leaving.exchanges:
            raise MessageNotLoaded(self.leaving.call_after(self.leaving.exchanges[name]))

    def _refuse_default(self, name: str) -> None:
        if not name:
            raise ChannelException(ReplyCode.ACCESS_REFUSED, "operation not permitted on the default exchange")

    # Queues

    def declare_queue(self, user: User, definition: QueueDefinition, owner: object) -> Queue:
        """Create the queue, or check that the existing one is equivalent; replace an empty name by a generated one.

        An exclusive queue is never durable: it ends with its connection. Raises ChannelException: ACCESS_REFUSED,
        RESOURCE_LOCKED, PRECONDITION_FAILED. MessageNotLoaded while a deleted one of this name still has bindings.
        RabbitMQ docs/queues.
        """
        name, declared = definition.name, definition
        definition = with_default_type(declared, self.default_queue_type)
        if not name:
            check_server_named(definition.arguments)
        if name.startswith(RESERVED_PREFIX):
            raise ChannelException(ReplyCode.ACCESS_REFUSED, f"queue name '{name}' contains reserved prefix 'amq.*'")
        name = name or generated_name("amq.gen-")
        user.require(self.name, "configure", "queue", name)
        current = self.queues.get(name)
        if current is not None:
            self._check_owner(current, owner, exclusive=definition.exclusive)
            self.worklist.effort.total += steps_to_compare(current.definition)
            # The queue may be older than the default type; its clients need not say a type that they never said.
            is_of_no_type = QUEUE_TYPE not in current.definition.arguments
            check_queue_equivalence(
                current.definition, self._as_stored(declared if is_of_no_type else definition, name))
            current.expiry.use()
            self.churn.queue_declared += 1
            return current
        self._check_room_for_queue(name)
        described = describe_queue(name, self.name)
        dead_letter_exchange = named_exchange(DEAD_LETTER_EXCHANGE, definition.arguments, described)
        if dead_letter_exchange is not None:
            user.require(self.name, "read", "queue", name)
            user.require(self.name, "write", "exchange", dead_letter_exchange)
        return self._create_queue(definition, name, owner)

    def import_queue(self, definition: QueueDefinition) -> None:
        """Create a queue exactly as it is defined in a file; a queue that exists already is left as it is.

        Raises ChannelException: PRECONDITION_FAILED. MessageNotLoaded as `declare_queue`.
        """
        if definition.name not in self.queues:
            self._create_queue(definition, definition.name, None)

    def _create_queue(self, definition: QueueDefinition, name: str, owner: object) -> Queue:
        if name in self.leaving.queues:
            raise MessageNotLoaded(self.leaving.call_after(self.leaving.queues[name]))
        check_queue_arguments(definition if definition.name else msgspec.structs.replace(definition, name=name))
        created = self._as_stored(definition, name, number=self._next_queue_number())
        queue = self._new_queue(created, owner if created.exclusive else None)
        with self.changes:
            self.topology.add_queue(queue)
            if created.durable:
                self.changes.record(Defined(created))
        self.changes.tell("queue.created", created, owner=queue.owner)
        self.churn.queue_created += 1
        self.churn.queue_declared += 1
        return queue

    def _as_stored(self, definition: QueueDefinition, name: str, number: int = 0) -> QueueDefinition:
        return QueueDefinition(
            number=number, vhost=self.name, name=name, durable=definition.durable and not definition.exclusive,
            exclusive=definition.exclusive, auto_delete=definition.auto_delete, arguments=definition.arguments)

    def _check_room_for_queue(self, name: str) -> None:
        limit = reached_limit(self.limits, MAX_QUEUES, len(self.queues))
        where = self._quota.reached if limit is None else f"vhost '{self.name}' ({limit}) is reached"
        if where:
            raise ChannelException(
                ReplyCode.PRECONDITION_FAILED, f"cannot declare queue '{name}': queue limit in {where}")

    def delete_queue(
        self, user: User, name: str, owner: object, *, if_unused: bool = False, if_empty: bool = False
    ) -> int:
        """Delete a queue with its bindings and messages; return how many were ready, 0 if there is no such queue.

        Raises ChannelException: ACCESS_REFUSED, RESOURCE_LOCKED; PRECONDITION_FAILED with `if_unused` or `if_empty` if
        that does not hold. Unacked messages do not count for `if_empty`. Spec: queue.delete.
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
        self.topology.remove_queue(queue)
        return count

    def purge_queue(self, user: User, name: str, owner: object) -> Purge:
        """Drop the ready messages; the purge has their number. Raises ChannelException: ACCESS_REFUSED, NOT_FOUND, …

        Raises MessageNotLoaded while the queue is busy, since messages that are being requeued must be purged too.
        """
        user.require(self.name, "read", "queue", name)
        queue = self.queue(name, owner)
        if queue.jobs.has_work:
            raise MessageNotLoaded(queue.jobs.call)
        return queue.purge()

    def _new_queue(self, definition: QueueDefinition, owner: object | None) -> Queue:
        return Queue(
            definition, self._journal, owner=owner, rules=self.followers.rules_of(definition), clock=self._clock,
            sink=self.dead_letters, unused=self.topology.remove_queue, page_store=self._page_store,
            worklist=self.worklist, totals=self.totals)

    # Bindings

    def bind(self, user: User, binding: BindingDefinition, owner: object) -> None:
        """Add a binding; an existing one is not an error. RabbitMQ docs/e2e for exchanges bound to exchanges.

        Raises ChannelException: ACCESS_REFUSED, NOT_FOUND for a missing end, RESOURCE_LOCKED,
        PRECONDITION_FAILED for too many arguments, for those the exchange type refuses, and beyond the limit of
        bindings of a queue, which RabbitMQ does not have.
        """
        self._check_binding_rights(user, binding)
        source = self.exchange(binding.source)
        destination = self._destination(binding, owner)
        check_binding_arguments(binding)
        key = source.new_key(binding)
        if key is not None:
            if binding.destination_type == "queue":
                self._check_room_for_binding(binding.destination)
            self.topology.bind(source, key, binding, destination)

    def _check_room_for_binding(self, queue: str) -> None:
        if self.topology.bindings.count_to("queue", queue) >= self._binding_limit:
            raise ChannelException(
                ReplyCode.PRECONDITION_FAILED, f"a queue cannot have more than {self._binding_limit} bindings "
                f"(limits.bindings_per_queue): {describe_queue(queue, self.name)} has as many")

    def unbind(self, user: User, binding: BindingDefinition, owner: object) -> None:
        """Remove a binding; a missing binding, or a missing end, is not an error.

        Raises ChannelException: ACCESS_REFUSED, RESOURCE_LOCKED.
        """
        self._check_binding_rights(user, binding)
        source = self.exchanges.get(binding.source)
        key = binding_key(binding)
        if source is None or key not in source.bindings:
            return
        leaving = self.leaving.queues if binding.destination_type == "queue" else self.leaving.exchanges
        if binding.destination in leaving:
            return      # and there is no binding either
        self._destination(binding, owner)
        self.topology.remove_binding(source, key)

    def find_queue(self, user: User, name: str, owner: object) -> Queue:
        """Find a queue for a passive declare, which needs any right on the name.

        Raises ChannelException: ACCESS_REFUSED, NOT_FOUND, RESOURCE_LOCKED.
        """
        user.require_any(self.name, "queue", name)
        queue = self.queue(name, owner)
        queue.expiry.use()
        return queue

    def _check_binding_rights(self, user: User, binding: BindingDefinition) -> None:
        self._refuse_default(binding.source)
        if binding.destination_type == "exchange":
            self._refuse_default(binding.destination)
        user.require(self.name, "write", binding.destination_type, binding.destination)
        user.require(self.name, "read", "exchange", binding.source)
        self.require_key(user, "read", self.exchanges.get(binding.source), binding.routing_key)

    def require_key(self, user: User, right: str, exchange: Exchange | None, routing_key: str) -> None:
        """Check a right on a routing key, if this is a topic exchange. Raises ChannelException: ACCESS_REFUSED."""
        if exchange is not None and exchange.definition.type == "topic":
            user.require_key(self.name, right, exchange.name, routing_key)

    def _destination(self, binding: BindingDefinition, owner: object) -> Destination:
        if binding.destination_type == "queue":
            return self.queue(binding.destination, owner)
        return self.exchange(binding.destination)

    # Restoring

    def restore(self, definitions: Iterable[Definition]) -> None:
        """Create the durable objects at start, without recording them again: exchanges and queues, then bindings."""
        for definition in definitions:
            if isinstance(definition, PolicyDefinition):
                self.followers.restore(definition)
            elif isinstance(definition, ExchangeDefinition):
                exchange = Exchange(definition)
                self.followers.apply_to_exchange(exchange)
                self.topology.add_exchange(exchange)
            elif isinstance(definition, QueueDefinition):
                self.topology.add_queue(self._new_queue(definition, None))
            elif isinstance(definition, BindingDefinition):
                ends: Mapping[str, Destination] = (
                    self.queues if definition.destination_type == "queue" else self.exchanges)
                source = self.exchanges[definition.source]
                key = source.new_key(definition)
                if key is not None:
                    self.topology.add_binding(source, key, definition, ends[definition.destination])

    def check(self) -> None:
        """Assert what must hold between calls."""
        self.topology.check()
