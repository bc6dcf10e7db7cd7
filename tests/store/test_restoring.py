"""What cannot be restored is named in messages to users."""

from __future__ import annotations

import pytest

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
from amqpd.store.restoring import describe_definition


@pytest.mark.parametrize("definition, described", [
    (VhostDefinition("v"), "vhost 'v'"),
    (UserDefinition("ada"), "user 'ada'"),
    (PermissionDefinition("ada", "v", "", "", ""), "permissions of user 'ada' in vhost 'v'"),
    (TopicPermissionDefinition("ada", "v", "x", "", ""),
     "topic permissions of user 'ada' on exchange 'x' in vhost 'v'"),
    (ParameterDefinition("v", "shovel", "s", "{}"), "parameter 's' of component 'shovel' in vhost 'v'"),
    (GlobalParameterDefinition("g", "{}"), "global parameter 'g'"),
    (PolicyDefinition("v", "p", "", {}, 0), "policy 'p' in vhost 'v'"),
    (PolicyDefinition("v", "p", "", {}, 0, is_operator=True), "operator policy 'p' in vhost 'v'"),
    (ExchangeDefinition("v", "x", "direct"), "exchange 'x' in vhost 'v'"),
    (QueueDefinition(1, "v", "q"), "queue 'q' in vhost 'v'"),
    (BindingDefinition("v", "x", "queue", "q", "k"), "binding of queue 'q' to exchange 'x' in vhost 'v'"),
], ids=lambda value: type(value).__name__ if not isinstance(value, str) else "")
def test_a_definition_is_described(definition: Definition, described: str) -> None:
    assert describe_definition(definition) == described
