"""The parameters of vhosts and of the broker: JSON values by name, which are stored and which components read.

Owns the parameters. Those of components that this broker does not have, such as shovels, are kept, so that an export of
definitions has them again. Limits of vhosts are parameters too: component "vhost-limits", name "limits".

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


class Parameters:
    """All parameters. `find_vhost` raises NoSuchThing."""

    def __init__(self, changes: Changes, find_vhost: Callable[[str], Vhost]) -> None:
        self._changes = changes
        self._vhost = find_vhost
        self._by_vhost: dict[str, dict[tuple[str, str], ParameterDefinition]] = {}
        self._global: dict[str, GlobalParameterDefinition] = {}

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

    def clear(self, vhost: str, component: str, name: str) -> None:
        """Remove a parameter of a vhost. Raises NoSuchThing."""
        home = self._vhost(vhost)
        definition = self._by_vhost.get(vhost, {}).get((component, name))
        if definition is None:
            raise NoSuchThing(f"no parameter '{name}' of component '{component}' in vhost '{vhost}'")
        with self._changes:
            del self._by_vhost[vhost][component, name]
            if (component, name) == (VHOST_LIMITS, LIMITS):
                home.limits = UNLIMITED
            self._changes.record(Deleted(definition))

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

    def clear_global(self, name: str) -> None:
        """Remove a global parameter. Raises NoSuchThing."""
        definition = self._global.get(name)
        if definition is None:
            raise NoSuchThing(f"no global parameter '{name}'")
        with self._changes:
            del self._global[name]
            self._changes.record(Deleted(definition))

    # Restoring at start

    def restore(self, definition: ParameterDefinition | GlobalParameterDefinition) -> None:
        """Set a stored parameter, without recording it again."""
        if isinstance(definition, ParameterDefinition):
            self._by_vhost.setdefault(definition.vhost, {})[definition.component, definition.name] = definition
            if (definition.component, definition.name) == (VHOST_LIMITS, LIMITS):
                self._vhost(definition.vhost).limits = usable_limits(definition.value, LIMITS_OF_VHOSTS)
        else:
            self._global[definition.name] = definition
