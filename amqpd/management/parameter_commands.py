"""Commands on the parameters of vhosts and of the broker. RabbitMQ docs/parameters.

Components that amqpd does not have are kept for an export; the answer says that they have no effect. As on RabbitMQ,
operator policies are parameters too, and policies are not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from typing import Any

from amqpd.broker.broker import Broker
from amqpd.broker.definitions import GlobalParameterDefinition, ParameterDefinition, PolicyDefinition
from amqpd.broker.parameters import BEGUN_IMPORT, LIMITS, VHOST_LIMITS
from amqpd.erlang import json_term
from amqpd.errors import NoSuchThing
from amqpd.exit_codes import EXIT_DATA, EXIT_UNAVAILABLE
from amqpd.management.json_values import parsed, shown
from amqpd.management.policy_commands import PolicyCommands
from amqpd.management.quota_commands import checked_vhost_limits
from amqpd.management.refusal import Refusal, check_name, vhost_of

Table = dict[str, Any]

POLICY, OPERATOR_POLICY = POLICIES = ("policy", "operator_policy")
OF_POLICY = ("apply-to", "definition", "pattern", "priority")
# The components of RabbitMQ's plugins, which amqpd does not have.
OF_PLUGINS = ("federation", "federation-upstream", "federation-upstream-set", "shovel")
NO_PARAMETER = "Parameter does not exist"


class ParameterCommands:
    """The commands on the parameters of one broker. `policies` are the commands that set operator policies."""

    def __init__(self, broker: Broker, policies: PolicyCommands) -> None:
        self._broker = broker
        self._policies = policies

    # Of vhosts

    def set_parameter(self, vhost: str, component: str, name: str, value: str) -> str | Awaitable[str]:
        """Set a parameter of a vhost; `value` is JSON. Return what the operator should know, or ""."""
        checked = parsed(value)
        check_name("parameter name", name)
        if component == POLICY:
            raise Refusal("policies may not be set using this method; use 'amqpctl set_policy'", EXIT_UNAVAILABLE)
        if component == OPERATOR_POLICY:
            return self._set_operator_policy(vhost, name, checked)
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

    async def _set_operator_policy(self, vhost: str, name: str, value: Any) -> str:
        vhost_of(self._broker, vhost)
        if not isinstance(value, dict):
            raise Refusal(f"Validation failed\n\n{name} not a list {json_term(value)}\n", EXIT_UNAVAILABLE)
        if faults := list(_form_faults(name, value)):
            raise Refusal("\n".join(["Validation failed\n", *faults, ""]), EXIT_UNAVAILABLE)
        policy = PolicyDefinition(
            vhost, name, value["pattern"], value["definition"], value["priority"], value.get("apply-to", "all"),
            is_operator=True)
        await self._policies.put(policy)
        return ""

    def clear_parameter(self, vhost: str, component: str, name: str) -> None | Awaitable[None]:
        """Remove a parameter of a vhost, or an operator policy."""
        if component == OPERATOR_POLICY:
            return self._policies.clear_operator_policy(vhost, name)
        try:
            self._broker.parameters.clear(vhost, component, name)
        except NoSuchThing:
            raise Refusal(NO_PARAMETER, EXIT_UNAVAILABLE) from None
        return None

    def list_parameters(self, vhost: str) -> Table:
        """List the parameters of a vhost, its operator policies among them."""
        found = vhost_of(self._broker, vhost)
        rows = [[one.component, one.name, shown(one.value)] for one in self._broker.parameters.of_vhost(vhost)]
        rows += [[OPERATOR_POLICY, one.name, shown({
            "apply-to": one.apply_to, "definition": one.definition, "pattern": one.pattern, "priority": one.priority})]
            for one in found.policies.listed(is_operator=True)]
        return {"columns": ["component", "name", "value"], "rows": rows}

    # Of the broker

    def set_global_parameter(self, name: str, value: str) -> None:
        """Set a parameter of the whole broker; `value` is JSON."""
        checked = parsed(value)
        check_name("parameter name", name)
        if name == BEGUN_IMPORT:
            raise Refusal(f"the name {BEGUN_IMPORT} is reserved", EXIT_DATA)
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


def _form_faults(name: str, value: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the parameter of an operator policy, apart from the policy itself."""
    unknown = [f"{{{json_term(key)},{json_term(of)}}}" for key, of in value.items() if key not in OF_POLICY]
    if unknown:
        yield f"Unrecognised terms [{','.join(unknown)}] in {name}"
    for key in OF_POLICY[1:]:
        if key not in value:
            yield f'Key "{key}" not found in {name}'
    if not isinstance(value.get("definition", {}), dict):
        yield f"definition must be a dictionary: {json_term(value['definition'])}"
    for key in ("apply-to", "pattern"):
        if not isinstance(value.get(key, ""), str):
            yield f"{key} should be a binary but was {json_term(value[key])}"
