"""The parameters of vhosts and of the broker: JSON values by name, which are stored and which components read.

Owns the parameters. Those of components that this broker does not have, such as shovels, are kept, so that an export of
definitions has them again. Limits of vhosts are parameters too: component "vhost-limits", name "limits".

An import of definitions that has begun is a global parameter too, which is neither listed nor told of and has a name of
its own: a start finds it, and finishes the import.

Always true between calls: `Vhost.limits` has what the parameter of its limits says.

RabbitMQ docs/parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from amqpd.broker.changes import Changes
from amqpd.broker.definitions import Defined, Deleted, GlobalParameterDefinition, ParameterDefinition
from amqpd.broker.limits import LIMITS_OF_VHOSTS, UNLIMITED, usable_limits
from amqpd.broker.vhost import Vhost
from amqpd.errors import NoSuchThing

VHOST_LIMITS = "vhost-limits"
LIMITS = "limits"
BEGUN_IMPORT = "amqpd-begun-import"


class Parameters:
    """All parameters. `find_vhost` raises NoSuchThing."""

    def __init__(self, changes: Changes, find_vhost: Callable[[str], Vhost]) -> None:
        self._changes = changes
        self._vhost = find_vhost
        self._by_vhost: dict[str, dict[tuple[str, str], ParameterDefinition]] = {}
        self._global: dict[str, GlobalParameterDefinition] = {}
        self._begun_import: GlobalParameterDefinition | None = None

    # Of a vhost

    def of_vhost(self, vhost: str) -> Iterator[ParameterDefinition]:
        """Yield the parameters of a vhost."""
        yield from self._by_vhost.get(vhost, {}).values()

    def value(self, vhost: str, component: str, name: str) -> Any:
        """Return the value of a parameter, or None if it is not set."""
        definition = self._by_vhost.get(vhost, {}).get((component, name))
        return None if definition is None else definition.value

    def set(self, definition: ParameterDefinition) -> None:
        """Set a parameter of a vhost. Raises NoSuchThing if there is no such vhost."""
        self._vhost(definition.vhost)
        with self._changes:
            self.restore(definition)
            self._changes.record(Defined(definition))
        self._changes.tell("parameter.set", definition)
        if _is_limits(definition):
            self._changes.tell("vhost.limits.set", definition)

    def clear(self, vhost: str, component: str, name: str) -> None:
        """Remove a parameter of a vhost. Raises NoSuchThing."""
        home = self._vhost(vhost)
        definition = self._by_vhost.get(vhost, {}).get((component, name))
        if definition is None:
            raise NoSuchThing(f"no parameter '{name}' of component '{component}' in vhost '{vhost}'")
        with self._changes:
            del self._by_vhost[vhost][component, name]
            if _is_limits(definition):
                home.limits = UNLIMITED
            self._changes.record(Deleted(definition))
        self._changes.tell("parameter.cleared", definition)
        if _is_limits(definition):
            self._changes.tell("vhost.limits.cleared", definition)

    def forget_vhost(self, vhost: str) -> None:
        """Remove the parameters of a vhost that is being deleted; the record of the vhost deletes them on disk."""
        self._by_vhost.pop(vhost, None)

    # Of the broker

    @property
    def of_broker(self) -> Iterator[GlobalParameterDefinition]:
        """The global parameters."""
        yield from self._global.values()

    def global_value(self, name: str) -> Any:
        """Return the value of a global parameter, or None if it is not set."""
        definition = self._global.get(name)
        return None if definition is None else definition.value

    def set_global(self, definition: GlobalParameterDefinition) -> None:
        """Set a global parameter."""
        with self._changes:
            self.restore(definition)
            self._changes.record(Defined(definition))
        self._changes.tell("parameter.set", definition)

    def clear_global(self, name: str) -> None:
        """Remove a global parameter. Raises NoSuchThing."""
        definition = self._global.get(name)
        if definition is None:
            raise NoSuchThing(f"no global parameter '{name}'")
        with self._changes:
            del self._global[name]
            self._changes.record(Deleted(definition))
        self._changes.tell("parameter.cleared", definition)

    # An import of definitions, in several batches

    @property
    def begun_import(self) -> Any:
        """What `begin_import` was given, by this run or an earlier one, if the import has not ended; else None."""
        return None if self._begun_import is None else self._begun_import.value

    def begin_import(self, value: str) -> None:
        """Record what is going to be imported, before the first of it."""
        with self._changes:
            self._begun_import = GlobalParameterDefinition(BEGUN_IMPORT, value)
            self._changes.record(Defined(self._begun_import))

    def end_import(self) -> None:
        """Record that everything has been imported."""
        if self._begun_import is not None:
            with self._changes:
                self._changes.record(Deleted(self._begun_import))
                self._begun_import = None

    # Restoring at start

    def restore(self, definition: ParameterDefinition | GlobalParameterDefinition) -> None:
        """Set a stored parameter, without recording it again."""
        if isinstance(definition, ParameterDefinition):
            self._by_vhost.setdefault(definition.vhost, {})[definition.component, definition.name] = definition
            if _is_limits(definition):
                self._vhost(definition.vhost).limits = usable_limits(definition.value, LIMITS_OF_VHOSTS)
        elif definition.name == BEGUN_IMPORT:
            self._begun_import = definition
        else:
            self._global[definition.name] = definition


def _is_limits(definition: ParameterDefinition) -> bool:
    return (definition.component, definition.name) == (VHOST_LIMITS, LIMITS)
