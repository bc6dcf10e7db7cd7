"""The broker: its vhosts and connections, and the numbers it assigns.

Owns everything above a single vhost; `broker/users.py` has the users, `broker/parameters.py` the parameters. The
control socket and the config file change vhosts only through these methods, so that each rule is written once.

Always true between calls: every stored user, permission and vhost has been recorded in the journal; message and queue
numbers always rise and are used once.

RabbitMQ docs/access-control, docs/vhosts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Protocol

from amqpd.broker.access import Operator
from amqpd.broker.audit import AuditLog
from amqpd.broker.changes import Changes
from amqpd.broker.clock import Clock
from amqpd.broker.counts import Churn, ChannelCounts, Totals, Traffic
from amqpd.broker.definitions import (
    BindingDefinition,
    Defined,
    Definition,
    Deleted,
    ExchangeDefinition,
    GlobalParameterDefinition,
    ParameterDefinition,
    PermissionDefinition,
    QueueDefinition,
    TopicPermissionDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.broker.effort import Effort
from amqpd.broker.events import Events
from amqpd.broker.limits import QueueQuota
from amqpd.broker.page_store import MemoryPageStore
from amqpd.broker.parameters import LIMITS, VHOST_LIMITS, Parameters
from amqpd.broker.ports import Journal, PageStore
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.page_limits import FEWEST_BYTES
from amqpd.broker.queue.pages import StoredMessages
from amqpd.broker.queue.queue import Queue
from amqpd.broker.remembered import CommonMemory
from amqpd.broker.statistics import ChannelStatistics, ConnectionStatistics, UnackedDelivery
from amqpd.broker.step_job import Act, StepJob
from amqpd.broker.unacked_contents import UnackedContents
from amqpd.broker.users import Users
from amqpd.broker.vhost import BINDING_LIMIT, Vhost
from amqpd.broker.vhost_defaults import VhostDefaults
from amqpd.broker.worklist import Worklist
from amqpd.errors import AlreadyThere, NoSuchThing, ProtectedVhost
from amqpd.message import Message

OPERATOR = Operator()
CLOSE_STEPS = 150               # the cost of closing a connection, with its log lines; see effort.py
PAGED_OUT_A_TURN = 4 << 20      # bytes: takes a few milliseconds
LOOK_MS = 10                    # the period for which it is judged whether consumers keep up
UNACKED_ROUNDS = 4              # the memory for waiting messages, in rounds of unacked messages
MOST_PAGED_OUT = 256            # queues, in one turn
LOOKED_AT_IN_A_MS = 64          # queues with much in memory: the more there are, the less often they are checked

# The consumer of a delivery, with an empty tag for basic.get; and when it was made, in ms of the broker's clock.
OldestUnacked = tuple[Consumer[Queue], int | None]


class Connection(Protocol):
    """A client's connection, as the broker lists and closes it."""

    def force_close_soon(self, reason: str) -> None:
        """Let `close_forced` close it with 320 and this reason; until then it does nothing more."""

    def close_forced(self) -> None:
        """Close it, unless it has closed meanwhile."""

    @property
    def user_name(self) -> str:
        """The user that logged in."""

    @property
    def vhost_name(self) -> str:
        """The vhost that was opened."""

    @property
    def owner(self) -> object:
        """The object that owns its exclusive queues."""

    def force_close(self, reason: str) -> None:
        """Close it with 320 CONNECTION_FORCED and this reason."""

    def right_checks(self) -> Iterator[Act]:
        """Return the acts that check whether each consumer still has the right to read from its queue."""

    def statistics(self) -> ConnectionStatistics:
        """Return its statistics."""

    @property
    def unacked_count(self) -> int:
        """The number of messages that it was given and has not settled."""

    def unacked_runs(self) -> Iterable[tuple[Queue, list[Message]]]:
        """Return the messages that it was given and has not settled, in runs of one queue each."""

    def oldest_unacked(self, most: int) -> Iterator[list[OldestUnacked]]:
        """Return the oldest unanswered delivery of each consumer, channel by channel.

        Of each channel, at most the first `most` deliveries are visited.
        """

    def unacked_of(self, queue: Queue) -> Iterator[list[UnackedDelivery]]:
        """Return the messages of this queue that it was given and has not settled, channel by channel."""

    def channel_statistics(self) -> list[ChannelStatistics]:
        """Return the statistics of each of its channels."""

    @property
    def traffic(self) -> Traffic:
        """The bytes that it has received and sent."""

    def counts_of(self, channel: int) -> ChannelCounts | None:
        """Return what this channel has counted, and tell the totals of its vhost; None if it is not open."""

    def channel_counts(self) -> Mapping[int, ChannelCounts]:
        """Return what each of its channels has counted, by channel number, and tell the totals of its vhost."""


class Broker:
    """The state of the broker, without sockets, files or clocks. `first_number` starts the numbers of this run.

    `channel_count` is the number of channels that are not released yet, of all connections together; the sessions
    count. `binding_limit` is for each queue. `queue_limit` is for all vhosts together; None is no limit.
    `vhost_defaults` are for what is not said of a vhost.
    """

    def __init__(
        self, journal: Journal, *, first_number: int = 1, clock: Clock | None = None,
        page_store: PageStore | None = None, binding_limit: int = BINDING_LIMIT,
        queue_limit: int | None = None, vhost_defaults: VhostDefaults = VhostDefaults(),
    ) -> None:
        self.journal = journal
        self.page_store: PageStore = page_store or MemoryPageStore()
        self.vhosts: dict[str, Vhost] = {}
        self.connections: dict[int, Connection] = {}
        self.channel_count = 0
        self.totals = Totals()
        self.churn = Churn()
        self.clock = clock or Clock()
        self.effort = Effort()
        self.worklist = Worklist(self.effort)
        self.memory = CommonMemory(self.effort)
        self.page_store.budget.effort = self.effort
        self.unacked_contents = UnackedContents(self.worklist, self.page_store.budget.limit // UNACKED_ROUNDS)
        self.next_message_number = first_number
        self._next_queue_number = first_number
        self.vhost_defaults = vhost_defaults
        self.events = Events(self.clock)
        self._changes = Changes(journal, self.events)
        self.audit = AuditLog(journal, self.clock)
        self.binding_limit = binding_limit
        self.quota = QueueQuota(queue_limit)
        self.users = Users(self._changes, self.vhost, self._close_connections_of, self._check_consumers_of)
        self.parameters = Parameters(self._changes, self.vhost)
        self.is_behind = False      # whether publishers should wait until consumers have taken more
        self._looks_again_ms = 0
        self.vhost_definitions: dict[str, VhostDefinition] = {}

    # Vhosts

    def add_vhost(self, definition: VhostDefinition) -> None:
        """Add a vhost, with the limits that the configuration has for such names. Raises AlreadyThere."""
        if definition.name in self.vhosts:
            raise AlreadyThere(f"vhost '{definition.name}' already exists")
        with self._changes:
            self._build_vhost(definition)
            self._changes.record(Defined(definition))
        self._changes.tell("vhost.created", definition)
        if limits := self.vhost_defaults.limits_of(definition.name):
            self.parameters.set(ParameterDefinition(definition.name, VHOST_LIMITS, LIMITS, dict(limits)))

    def replace_vhost(self, definition: VhostDefinition) -> None:
        """Set what is said of an existing vhost: description, tags and so on. Raises NoSuchThing."""
        vhost = self.vhost(definition.name)
        if self.vhost_definitions[definition.name] != definition:
            with self._changes:
                vhost.default_queue_type = self._default_queue_type(definition)
                self.vhost_definitions[definition.name] = definition
                self._changes.record(Defined(definition))

    def delete_vhost(self, name: str) -> None:
        """Delete a vhost with everything in it, and close its connections. Raises NoSuchThing, ProtectedVhost.

        One record deletes everything on disk; what is in memory is freed in slices.
        """
        vhost = self.vhost(name)
        if self.vhost_definitions[name].protected_from_deletion:
            raise ProtectedVhost(name)
        self._close([one for one in self.connections.values() if one.vhost_name == name], f"vhost '{name}' is deleted")
        with self._changes:
            for user in self.users.values():
                user.forget_vhost(name)
            self.parameters.forget_vhost(name)
            del self.vhosts[name]
            vhost.topology.end()
            vhost.taps.end()
            definition = self.vhost_definitions.pop(name)
            self._changes.record(Deleted(definition))
        self._changes.tell("vhost.deleted", definition)

    def vhost(self, name: str) -> Vhost:
        """Return the vhost of this name. Raises NoSuchThing."""
        try:
            return self.vhosts[name]
        except KeyError:
            raise NoSuchThing(f"no vhost '{name}'") from None

    def _build_vhost(self, definition: VhostDefinition) -> None:
        self.vhosts[definition.name] = Vhost(
            definition.name, self.journal, self._take_queue_number, self.take_message_number, self.clock,
            self.page_store, self.worklist, self.binding_limit, self.quota, self.events, self.totals, self.churn)
        self.vhosts[definition.name].default_queue_type = self._default_queue_type(definition)
        self.vhost_definitions[definition.name] = definition

    def _default_queue_type(self, vhost: VhostDefinition) -> str:
        return vhost.default_queue_type or self.vhost_defaults.queue_type

    def page_out(self) -> None:
        """Page out the contents of some waiting messages if memory has no room for more.

        The queues with most in memory come first, and of these the messages that will be delivered last. A queue whose
        consumers nearly keep up is spared: letting its publishers wait a little costs less than writing messages that
        are needed again at once. `is_behind` says that they should wait.
        """
        budget = self.page_store.budget
        if budget.used <= budget.limit:
            self.is_behind = False
            return
        if self.clock.now_ms < self._looks_again_ms:
            return
        self._looks_again_ms = self.clock.now_ms + LOOK_MS + len(budget.large) // LOOKED_AT_IN_A_MS
        self.is_behind = False
        wanted = min(PAGED_OUT_A_TURN, budget.used - budget.limit * 3 // 4)
        for queue in budget.largest(FEWEST_BYTES, MOST_PAGED_OUT):
            if queue.is_spared:
                self.is_behind = True
                continue
            before = budget.used
            queue.page_out(wanted)
            wanted -= before - budget.used
            if wanted <= 0:
                return

    def take_message_number(self) -> int:
        """Return the number of a new message."""
        number = self.next_message_number
        self.next_message_number += 1
        return number

    def _take_queue_number(self) -> int:
        self._next_queue_number += 1
        return self._next_queue_number

    # Restoring at start

    def restore(self, definitions: Iterable[Definition]) -> None:
        """Create the stored objects: vhosts first, then users, permissions, and the contents of the vhosts."""
        for definition in definitions:
            if isinstance(definition, VhostDefinition):
                self._build_vhost(definition)
            elif isinstance(definition, (UserDefinition, PermissionDefinition, TopicPermissionDefinition)):
                self.users.restore(definition)
            elif isinstance(definition, (ParameterDefinition, GlobalParameterDefinition)):
                self.parameters.restore(definition)
            else:
                self.vhosts[definition.vhost].restore([definition])

    def restore_messages(
        self, messages: Mapping[int, StoredMessages], redelivered: Mapping[int, set[int]],
        redelivered_to: Mapping[int, int], deliveries: Mapping[int, Mapping[int, int]],
    ) -> None:
        """Put stored messages back into their queues, all by queue number; see `Queue.restore`."""
        for queue in self._durable_queues():
            number = queue.definition.number
            if number in messages:
                queue.restore(
                    messages[number], redelivered.get(number, set()), redelivered_to.get(number, 0),
                    deliveries.get(number, {}))

    def redelivered(self) -> dict[int, list[int]]:
        """Return the delivered messages of each durable queue, by queue number, to be stored at a clean stop.

        Those that are still unacked are not among them; see `redelivered_to`.
        """
        return {
            queue.definition.number: list(queue.redelivery.numbers) for queue in self._durable_queues()
            if queue.redelivery.numbers}

    def redelivered_to(self) -> dict[int, int]:
        """Return the number up to which messages count as delivered, by queue number, where only a bound is known.

        That is so after a stop that was not clean, for a queue with unacked messages, whose client has not ended in
        time, and for a deleted queue whose deletion is not recorded yet.
        """
        bounds = {
            queue.definition.number: self.next_message_number if queue.unacked else queue.redelivery.bound
            for queue in self._durable_queues() if queue.unacked or queue.redelivery.bound}
        for vhost in self.vhosts.values():
            for queue in vhost.leaving.queues.values():
                if queue.is_still_stored:
                    bounds[queue.definition.number] = self.next_message_number
        return bounds

    def _durable_queues(self) -> Iterator[Queue]:
        for vhost in self.vhosts.values():
            yield from [queue for queue in vhost.queues.values() if queue.definition.durable]

    def ensure(self, definition: ExchangeDefinition | QueueDefinition | BindingDefinition) -> None:
        """Declare an object for the config file; an equivalent one may exist. Raises as the vhost does."""
        vhost = self.vhost(definition.vhost)
        if isinstance(definition, ExchangeDefinition):
            vhost.declare_exchange(OPERATOR, definition)
        elif isinstance(definition, QueueDefinition):
            vhost.declare_queue(OPERATOR, definition, owner=OPERATOR)
        else:
            vhost.bind(OPERATOR, definition, owner=OPERATOR)

    def _close_connections_of(self, user: str) -> None:
        """Close the connections of a user that is being deleted."""
        self._close([one for one in self.connections.values() if one.user_name == user], f"user '{user}' is deleted")

    def _check_consumers_of(self, user: str, vhost: str) -> None:
        """Check whether the consumers of a user may go on, a few at a time."""
        connections = [
            one for one in self.connections.values() if one.user_name == user and one.vhost_name == vhost]
        if connections:
            StepJob(chain.from_iterable(one.right_checks() for one in connections), self.worklist)

    def _close(self, connections: list[Connection], reason: str) -> None:
        """Close connections by force, a few at a time, since there may be very many.

        From now on nothing is carried out for them or delivered to them, even before they are closed.
        """
        for connection in connections:
            connection.force_close_soon(reason)
        if connections:
            StepJob(_closes(connections[::-1]), self.worklist)


def _closes(connections: list[Connection]) -> Iterator[Act]:
    while connections:
        yield CLOSE_STEPS, connections.pop().close_forced
