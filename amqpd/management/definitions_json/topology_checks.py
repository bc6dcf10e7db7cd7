"""The checks of exchanges, queues and bindings. The rules are those of declarations by clients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from msgspec.structs import replace

from amqpd.broker.arguments import (
    CLASSIC,
    DEAD_LETTER_EXCHANGE,
    QUEUE_TYPE,
    InvalidArgument,
    check_binding_arguments,
    check_exchange_arguments,
    check_exchange_equivalence,
    check_queue_arguments,
    check_queue_equivalence,
)
from amqpd.broker.definitions import BindingDefinition, ExchangeDefinition, QueueDefinition
from amqpd.broker.exchange import Exchange
from amqpd.broker.limits import MAX_QUEUES
from amqpd.broker.vhost import PREDECLARED, RESERVED_PREFIX
from amqpd.errors import AmqpException, ChannelException
from amqpd.management.definitions_json.checks import Checks
from amqpd.management.definitions_json.entries import Entry

STREAM = "stream"
QUEUE_TYPES = (CLASSIC, "quorum", STREAM)
OTHER_EXCHANGES = "x-"      # exchange types of plugins begin with it

_QUEUE_KEYS = ("name", "vhost", "type", "durable", "auto_delete", "exclusive", "arguments")
_EXCHANGE_KEYS = ("name", "vhost", "type", "durable", "auto_delete", "internal", "arguments")
_BINDING_KEYS = ("source", "vhost", "destination", "destination_type", "routing_key", "arguments", "properties_key")


class TopologyChecks:
    """Checks exchanges and queues, then the bindings between them, then the limits of all of them."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._plan = checks.plan
        self._broker = checks.broker
        self._sources: dict[tuple[str, str], Exchange | None] = {}
        self._new_bindings: dict[tuple[str, str], set[Any]] = {}

    # Exchanges and queues

    def check_exchange(self, entry: Entry) -> None:
        """Check an exchange."""
        entry.warn_of_unknown(_EXCHANGE_KEYS)
        exchange = ExchangeDefinition(
            self._checks.vhost_of(entry), entry.name("name", may_be_empty=True), entry.text("type"),
            entry.flag("durable", True), entry.flag("auto_delete", False), entry.flag("internal", False),
            entry.table("arguments"))
        vhost, name = exchange.vhost, exchange.name
        if self._is_reserved(entry, name):
            return
        if exchange.type.startswith(OTHER_EXCHANGES):
            if self._checks.is_first(entry, "exchange", vhost, name):
                self._checks.keep(entry, "exchange", vhost, f"amqpd has no exchanges of type '{exchange.type}'")
            return
        if isinstance(entry.values.get("type"), str):       # otherwise that has been refused
            entry.checked("type", lambda: Exchange(exchange), AmqpException)
        entry.checked("arguments", lambda: check_exchange_arguments(exchange), AmqpException)
        if not self._checks.is_first(entry, "exchange", vhost, name):
            self._checks.note_faulty("exchange", vhost, name)
        elif (current := self._checks.exchanges(vhost).get(name)) is None:
            self._plan.exchanges[vhost, name] = exchange
        else:
            _compare(entry, check_exchange_equivalence, current.definition, exchange)

    def check_queue(self, entry: Entry) -> None:
        """Check a queue."""
        entry.warn_of_unknown(_QUEUE_KEYS)
        queue = QueueDefinition(
            0, self._checks.vhost_of(entry), entry.name("name", may_be_empty=True), entry.flag("durable", True), False,
            entry.flag("auto_delete", False), entry.table("arguments"))
        vhost, name = queue.vhost, queue.name
        if self._is_reserved(entry, name):
            return
        queue = self._typed(entry, queue)
        if queue.arguments.get(QUEUE_TYPE) == STREAM:
            if self._checks.is_first(entry, "queue", vhost, name):
                self._checks.keep(entry, "queue", vhost, "amqpd has no streams")
            return
        self._check_queue_arguments(entry, queue)
        current = self._checks.queues(vhost).get(name)
        if not self._checks.is_first(entry, "queue", vhost, name):
            self._checks.note_faulty("queue", vhost, name)
        elif current is None:
            self._plan.queues[vhost, name] = queue
        elif current.definition.exclusive:
            entry.warn(None, "left out: there is an exclusive queue of this name")
            self._checks.note_faulty("queue", vhost, name)
        else:
            _compare(entry, check_queue_equivalence, current.definition, queue)

    def _typed(self, entry: Entry, queue: QueueDefinition) -> QueueDefinition:
        """Return the queue with its type as an argument, unless that is classic.

        The type is in the arguments, else beside them, else it is the default of the vhost or of all vhosts, as
        on RabbitMQ 4.
        """
        written = entry.text("type", "")
        if written and written not in QUEUE_TYPES:
            entry.refuse("type", f"is '{written}', it has to be one of {', '.join(QUEUE_TYPES)}")
        kind = written or (self._default_type(queue.vhost) if queue.durable and not queue.auto_delete else "")
        if QUEUE_TYPE in queue.arguments or kind in ("", CLASSIC):
            return queue
        return replace(queue, arguments={**queue.arguments, QUEUE_TYPE: kind})

    def _default_type(self, vhost: str) -> str:
        found = self._checks.default_types.get(vhost)
        if found is None:
            known = self._broker.vhost_definitions.get(vhost)
            found = known.default_queue_type if known else ""
        return found or self._broker.vhost_defaults.queue_type

    def _check_queue_arguments(self, entry: Entry, queue: QueueDefinition) -> None:
        """Note each wrong argument under its path, and what is wrong with all of them together."""
        always = {key: queue.arguments[key] for key in (QUEUE_TYPE, DEAD_LETTER_EXCHANGE) if key in queue.arguments}
        arguments = Entry(queue.arguments, entry.at("arguments"), self._checks.report)
        told = set()
        for key, some in ((None, always), *[(key, {**always, key: queue.arguments[key]}) for key in queue.arguments]):
            try:
                check_queue_arguments(replace(queue, arguments=some))
            except ChannelException as error:
                if key is None and isinstance(error, InvalidArgument) or error.text in told:
                    continue        # the argument has its turn
                told.add(error.text)
                (entry if key is None else arguments).refuse(key, getattr(error, "plain", error.text))
        entry.is_valid &= arguments.is_valid

    def _is_reserved(self, entry: Entry, name: str) -> bool:
        """Leave out what clients cannot declare: the default exchange, and names that belong to the broker."""
        if name.startswith(RESERVED_PREFIX):
            entry.warn(None, f"left out: names that begin with '{RESERVED_PREFIX}' belong to the broker")
        elif entry.values.get("name") == "":
            entry.warn(None, "left out: it has no name")
        else:
            return False
        return True

    # Bindings

    def check_binding(self, entry: Entry) -> None:
        """Check a binding."""
        entry.warn_of_unknown(_BINDING_KEYS)
        kind = entry.text("destination_type", "queue")
        if kind not in ("queue", "exchange"):
            entry.refuse("destination_type", f"is '{kind}', it has to be queue or exchange")
        binding = BindingDefinition(
            self._checks.vhost_of(entry), entry.name("source", may_be_empty=True),
            "exchange" if kind == "exchange" else "queue", entry.name("destination"),
            entry.name("routing_key", "", may_be_empty=True), entry.table("arguments"))
        if not entry.is_valid:
            return
        if not binding.source:
            entry.warn(None, "left out: every queue is bound to the default exchange by its name")
            return
        vhost = binding.vhost
        ends = (("source", "exchange", binding.source), ("destination", kind, binding.destination))
        if any(self._checks.is_faulty(kind, vhost, name) for _, kind, name in ends):
            return
        if any(self._checks.is_kept(kind, vhost, name) for _, kind, name in ends):
            self._checks.keep(entry, "binding", vhost, "an end of it is kept, but does not exist in amqpd")
            return
        missing = [end for end in ends if not self._is_there(end[1], vhost, end[2])]
        if not missing:
            self._add_binding(entry, binding)
        elif self._checks.may_refer_elsewhere:
            return
        elif self._checks.is_export and any(kind == "queue" for _, kind, _ in missing):
            entry.warn(None, f"left out: the queue '{binding.destination}' is not in the file, as exclusive queues and "
                             "those named by the broker are not imported")
        elif self._checks.is_export:
            self._checks.keep(
                entry, "binding", vhost, f"the exchange '{missing[0][2]}' is not in the file, as internal ones are "
                "not in RabbitMQ's exports")
        else:
            for key, kind, name in missing:
                entry.refuse(
                    key, f"there is no {kind} '{name}' in vhost '{vhost}', neither in the file nor in the broker")

    def _is_there(self, kind: str, vhost: str, name: str) -> bool:
        if kind == "queue":
            current = self._checks.queues(vhost).get(name)
            return (vhost, name) in self._plan.queues or current is not None and not current.definition.exclusive
        return self._exchange(vhost, name) is not None

    def _exchange(self, vhost: str, name: str) -> Exchange | None:
        """Return an exchange as it is going to be, without bindings unless it exists."""
        key = vhost, name
        if key not in self._sources:
            found = self._checks.exchanges(vhost).get(name)
            if found is None and key in self._plan.exchanges:
                found = Exchange(self._plan.exchanges[key])
            elif found is None and name in PREDECLARED:
                found = Exchange(ExchangeDefinition(vhost, name, PREDECLARED[name], durable=True))
            self._sources[key] = found
        return self._sources[key]

    def _add_binding(self, entry: Entry, binding: BindingDefinition) -> None:
        source = self._exchange(binding.vhost, binding.source)
        assert source is not None       # checked before
        try:
            check_binding_arguments(binding)
            key = source.new_key(binding)
        except AmqpException as error:
            entry.refuse("arguments", error.text)
            return
        if key is not None:
            self._plan.bindings.append(binding)
            if binding.destination_type == "queue":
                self._new_bindings.setdefault((binding.vhost, binding.destination), set()).add((binding.source, key))

    # Limits

    def check_limits(self) -> None:
        """Refuse more queues than a vhost or the broker may have now, and more bindings than a queue may have."""
        report, quota = self._checks.report, self._broker.quota
        for vhost, added in Counter(vhost for vhost, _ in self._plan.queues).items():
            home = self._broker.vhosts.get(vhost)
            most, count = (home.limits.get(MAX_QUEUES, -1), len(home.queues)) if home else (-1, 0)
            if 0 <= most < count + added:
                report.refuse(
                    "$.queues", f"Adding {added} queue(s) to virtual host \"{vhost}\" would exceed the limit of {most} "
                    f"queue(s). This virtual host currently has {count} queue(s) defined.")
        added = len(self._plan.queues)
        if added and quota.limit is not None and quota.count + added > quota.limit:
            report.refuse("$.queues", f"with {added} more there would be {quota.count + added} queues, allowed are "
                                      f"{quota.limit} (limits.max_queues)")
        for (vhost, queue), keys in self._new_bindings.items():
            home = self._broker.vhosts.get(vhost)
            count = len(keys) + (home.topology.bindings.count_to("queue", queue) if home else 0)
            if count > self._broker.binding_limit:
                report.refuse(
                    "$.bindings", f"queue '{queue}' in vhost '{vhost}' would have {count} bindings, allowed are "
                    f"{self._broker.binding_limit} (limits.bindings_per_queue)")


_Definition = TypeVar("_Definition", ExchangeDefinition, QueueDefinition)


def _compare(
    entry: Entry, check_same: Callable[[_Definition, _Definition], None], current: _Definition, wanted: _Definition
) -> None:
    """Warn if an existing object differs, which is left alone."""
    try:
        check_same(current, wanted)
    except ChannelException as error:
        entry.warn(None, f"exists and stays as it is, although it differs: {error.text}")
