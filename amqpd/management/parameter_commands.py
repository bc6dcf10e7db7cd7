"""Commands on the parameters of vhosts and of the broker. RabbitMQ docs/parameters.

Components that amqpd does not have are kept for an export; the answer says that they have no effect.
"""

from __future__ import annotations

from typing import Any

from amqpd.broker.broker import Broker
from amqpd.broker.definitions import GlobalParameterDefinition, ParameterDefinition
from amqpd.broker.parameters import LIMITS, VHOST_LIMITS
from amqpd.errors import NoSuchThing
from amqpd.exit_codes import EXIT_UNAVAILABLE
from amqpd.management.json_values import parsed, shown
from amqpd.management.quota_commands import checked_vhost_limits
from amqpd.management.refusal import Refusal, check_name, vhost_of

Table = dict[str, Any]

POLICIES = ("policy", "operator_policy")
# The components of RabbitMQ's plugins, which amqpd does not have.
OF_PLUGINS = ("federation", "federation-upstream", "federation-upstream-set", "shovel")
NO_PARAMETER = "Parameter does not exist"


class ParameterCommands:
    """The commands on the parameters of one broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    # Of vhosts

    def set_parameter(self, vhost: str, component: str, name: str, value: str) -> str:
        """Set a parameter of a vhost; `value` is JSON. Return what the operator should know, or ""."""
        checked = parsed(value)
        check_name("parameter name", name)
        if component in POLICIES:
            raise Refusal(
                f"policies may not be set using this method; use 'amqpctl set_{component}'", EXIT_UNAVAILABLE)
        if component == VHOST_LIMITS:
            if name != LIMITS:
                raise Refusal(f"Validation failed\n\nthe name in component {VHOST_LIMITS} is {LIMITS}",
                              EXIT_UNAVAILABLE)
            checked = checked_vhost_limits(checked)
        elif component not in OF_PLUGINS:
            raise Refusal(f"Validation failed\n\ncomponent {component} not found\n", EXIT_UNAVAILABLE)
        vhost_of(self._broker, vhost)
        self._broker.parameters.set(ParameterDefinition(vhost, component, name, checked))
        return "" if component == VHOST_LIMITS else (
            f"amqpd has no component {component}: the parameter is kept and exported, and has no effect")

    def clear_parameter(self, vhost: str, component: str, name: str) -> None:
        """Remove a parameter of a vhost."""
        try:
            self._broker.parameters.clear(vhost, component, name)
        except NoSuchThing:
            raise Refusal(NO_PARAMETER, EXIT_UNAVAILABLE) from None

    def list_parameters(self, vhost: str) -> Table:
        """List the parameters of a vhost."""
        vhost_of(self._broker, vhost)
        return {"columns": ["component", "name", "value"], "rows": [
            [one.component, one.name, shown(one.value)] for one in self._broker.parameters.of_vhost(vhost)]}

    # Of the broker

    def set_global_parameter(self, name: str, value: str) -> None:
        """Set a parameter of the whole broker; `value` is JSON."""
        checked = parsed(value)
        check_name("parameter name", name)
        self._broker.parameters.set_global(GlobalParameterDefinition(name, checked))

    def clear_global_parameter(self, name: str) -> None:
        """Remove a parameter of the whole broker."""
        try:
            self._broker.parameters.clear_global(name)
        except NoSuchThing:
            raise Refusal(NO_PARAMETER, EXIT_UNAVAILABLE) from None

    def list_global_parameters(self) -> Table:
        """List the parameters of the whole broker."""
        return {"columns": ["name", "value"], "rows": [
            [one.name, shown(one.value)] for one in self._broker.parameters.of_broker]}
