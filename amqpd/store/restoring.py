"""Build the definitions of a store in a broker: the same code for a start, `check-config`, `check` and `salvage`.

A definition that cannot be built is reported by name. A start is refused then, since without it messages might be
routed elsewhere; `check` lists it; `salvage` leaves it out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from amqpd.broker.arguments import describe_exchange, describe_queue
from amqpd.broker.broker import Broker
from amqpd.broker.definitions import (
    BindingDefinition,
    Definition,
    ExchangeDefinition,
    GlobalParameterDefinition,
    ParameterDefinition,
    PermissionDefinition,
    PolicyDefinition,
    QueueDefinition,
    TopicPermissionDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.broker.vhost import RESERVED_PREFIX

_End = tuple[str, str, str]     # vhost, "queue" or "exchange", and name


class Unrestored(NamedTuple):
    """A definition that cannot be built in a broker, and why."""

    definition: Definition
    reason: str

    def __str__(self) -> str:
        return f"{describe_definition(self.definition)} cannot be restored: {self.reason}"


def describe_definition(definition: Definition) -> str:
    """Return what a definition is of, for a message to users."""
    match definition:
        case VhostDefinition(name=name):
            return f"vhost '{name}'"
        case UserDefinition(name=name):
            return f"user '{name}'"
        case PermissionDefinition(user=user, vhost=vhost):
            return f"permissions of user '{user}' in vhost '{vhost}'"
        case TopicPermissionDefinition(user=user, vhost=vhost, exchange=exchange):
            return f"topic permissions of user '{user}' on {describe_exchange(exchange, vhost)}"
        case ParameterDefinition(name=name, component=component, vhost=vhost):
            return f"parameter '{name}' of component '{component}' in vhost '{vhost}'"
        case GlobalParameterDefinition(name=name):
            return f"global parameter '{name}'"
        case PolicyDefinition(name=name, vhost=vhost, is_operator=is_operator):
            return f"{'operator policy' if is_operator else 'policy'} '{name}' in vhost '{vhost}'"
        case ExchangeDefinition(name=name, vhost=vhost):
            return describe_exchange(name, vhost)
        case QueueDefinition(name=name, vhost=vhost):
            return describe_queue(name, vhost)
        case BindingDefinition(source=source, destination_type=kind, destination=name, vhost=vhost):
            return f"binding of {kind} '{name}' to {describe_exchange(source, vhost)}"


def split_leftovers(definitions: list[Definition]) -> tuple[list[Definition], list[Definition]]:
    """Split definitions into those that hold and what unfinished deletions have left of others.

    That is bindings that have lost an end, and auto-delete exchanges that have lost their last binding by this, with
    the bindings that lead to them. Bindings in a vhost that is not there either are left by no deletion.
    """
    there: dict[_End, ExchangeDefinition | QueueDefinition] = {}
    vhosts: set[str] = set()
    bindings: list[BindingDefinition] = []
    for definition in definitions:
        if isinstance(definition, VhostDefinition):
            vhosts.add(definition.name)
        elif isinstance(definition, (ExchangeDefinition, QueueDefinition)):
            kind = "queue" if isinstance(definition, QueueDefinition) else "exchange"
            there[definition.vhost, kind, definition.name] = definition
        elif isinstance(definition, BindingDefinition):
            bindings.append(definition)

    def has_both_ends(binding: BindingDefinition) -> bool:
        return all(
            end in there or end[1] == "exchange" and end[2].startswith(RESERVED_PREFIX)     # every vhost has these
            for end in (_source(binding), _destination(binding)))

    leaving = Counter(map(_source, bindings))
    leading_to: dict[_End, list[BindingDefinition]] = {}
    for binding in bindings:
        leading_to.setdefault(_destination(binding), []).append(binding)
    lost = [binding for binding in bindings if binding.vhost in vhosts and not has_both_ends(binding)]
    gone: dict[int, Definition] = {id(binding): binding for binding in lost}
    while lost:
        source = _source(lost.pop())
        leaving[source] -= 1
        exchange = there.get(source)
        if exchange is not None and exchange.auto_delete and not leaving[source]:
            gone[id(exchange)] = exchange
            more = [binding for binding in leading_to.get(source, ()) if id(binding) not in gone]
            gone.update([(id(binding), binding) for binding in more])
            lost += more
    return [definition for definition in definitions if id(definition) not in gone], [*gone.values()]


def _source(binding: BindingDefinition) -> _End:
    return binding.vhost, "exchange", binding.source


def _destination(binding: BindingDefinition) -> _End:
    return binding.vhost, binding.destination_type, binding.destination


def restore(broker: Broker, definitions: Iterable[Definition]) -> list[Unrestored]:
    """Build these definitions in a broker; returns those that cannot be built."""
    failed = []
    for definition in definitions:
        try:
            broker.restore([definition])
        except Exception as error:
            failed.append(Unrestored(definition, f"{type(error).__name__}: {error}"))
    return failed
