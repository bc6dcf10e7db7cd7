"""Commands on policies and operator policies."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from amqpd.broker.broker import Broker
from amqpd.broker.definitions import PolicyDefinition
from amqpd.broker.policy import InvalidPolicy, NoSuchPolicy
from amqpd.broker.vhost import Vhost
from amqpd.exit_codes import EXIT_UNAVAILABLE
from amqpd.management.json_values import parsed
from amqpd.management.refusal import Refusal, vhost_of
from amqpd.management.waiting import until_called


class PolicyCommands:
    """The commands on the policies and operator policies of one broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def set_policy(
        self, vhost: str, name: str, pattern: str, definition: str, priority: int = 0, apply_to: str = "all"
    ) -> Awaitable[None]:
        """Set a policy; `definition` is JSON. It is in force for all queues and exchanges when this is answered."""
        said = _parse_definition(definition)
        return self.put(PolicyDefinition(vhost, name, pattern, said, priority, apply_to))

    def set_operator_policy(
        self, vhost: str, name: str, pattern: str, definition: str, priority: int = 0, apply_to: str = "all"
    ) -> Awaitable[None]:
        """Set an operator policy, as `set_policy` does."""
        said = _parse_definition(definition)
        return self.put(PolicyDefinition(vhost, name, pattern, said, priority, apply_to, is_operator=True))

    async def put(self, policy: PolicyDefinition) -> None:
        """Set a policy or an operator policy. Raises Refusal."""
        vhost = vhost_of(self._broker, policy.vhost)
        try:
            vhost.followers.set_policy(policy)
        except InvalidPolicy as error:
            faults = "\n".join(error.faults)
            raise Refusal(f"Validation failed\n\n{faults}\n", EXIT_UNAVAILABLE) from None
        await _followed(vhost)

    def clear_policy(self, vhost: str, name: str) -> Awaitable[None]:
        """Delete a policy."""
        return self._clear_policy(vhost, name, is_operator=False)

    def clear_operator_policy(self, vhost: str, name: str) -> Awaitable[None]:
        """Delete an operator policy."""
        return self._clear_policy(vhost, name, is_operator=True)

    async def _clear_policy(self, name: str, policy: str, *, is_operator: bool) -> None:
        vhost = vhost_of(self._broker, name)
        try:
            vhost.followers.clear_policy(policy, is_operator=is_operator)
        except NoSuchPolicy:
            raise Refusal("Parameter does not exist", EXIT_UNAVAILABLE) from None
        await _followed(vhost)


async def _followed(vhost: Vhost) -> None:
    """Return once the policies are in force for all exchanges and queues."""
    if vhost.followers.has_work:
        await until_called(vhost.followers.call)


def _parse_definition(text: str) -> dict[str, Any]:
    definition = parsed(text)
    if not isinstance(definition, dict):
        raise Refusal("Validation failed\n\ndefinition must be a dictionary\n", EXIT_UNAVAILABLE)
    return definition
