"""§30, §28 Policies are kept by a restart.

Needs `--restart COMMAND` and `--ctl COMMAND`.
"""
from __future__ import annotations

import pytest

from conformance.channel import Channel
from conformance.conftest import Broker, Names
from conformance.policies import Policies
from conformance.queues import drained, fill, let_pass
from conformance.restarting import restart

pytestmark = pytest.mark.needs("ctl", "restart")


def test_policies_are_kept(ch: Channel, broker: Broker, names: Names, policies: Policies,
                           request: pytest.FixtureRequest) -> None:
    """Of both kinds, with their priorities; they hold for old and new queues, and can still be cleared."""
    queue = names.queue()
    ch.declare_queue(queue, durable=True)
    policies.set({"max-length": 4}, "low", priority=1, apply_to="queues")
    policies.set({"max-length": 3}, "high", priority=2)
    policies.set({"max-length-bytes": 20}, kind="operator_policy")
    restart(request.config.getoption("--restart"), [ch.client])
    after = broker.channel()
    after.declare_queue(names.queue(), durable=True)
    for kept in names.queues:
        fill(after, kept, *"01234", "a" * 21, *"567", "b" * 18)
        assert drained(after, kept) == ["6", "7", "b" * 18]
    policies.clear("high")
    fill(after, queue, *"01234")
    assert drained(after, queue) == ["1", "2", "3", "4"]


def test_what_came_before_a_time_to_live_does_not_end(
        ch: Channel, broker: Broker, names: Names, policies: Policies, request: pytest.FixtureRequest) -> None:
    """Nor after a restart; what comes later does."""
    queue = names.queue()
    ch.declare_queue(queue, durable=True)
    fill(ch, queue, "before", delivery_mode=2)
    policies.set({"message-ttl": 100})
    restart(request.config.getoption("--restart"), [ch.client])
    after = broker.channel()
    let_pass(300)
    assert drained(after, queue) == ["before"]
    fill(after, queue, "later", delivery_mode=2)
    let_pass(300)
    assert drained(after, queue) == []
