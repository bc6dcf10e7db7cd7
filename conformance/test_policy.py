"""§30 Policies: which policy applies to a queue or exchange, from when to when, and which are refused.

Needs `--ctl COMMAND`. The tests observe a policy by the length of a queue, or by the unroutable messages of an
exchange; `test_policy_queues` tests all other keys.
"""
from __future__ import annotations

import json
from typing import Any

import pytest

from conformance.channel import Channel
from conformance.client import Client
from conformance.conftest import Broker, Names
from conformance.policies import Policies
from conformance.queues import declare, drained, fill, ready
from conformance.routes import Routes

pytestmark = pytest.mark.needs("ctl")

BODIES = [str(number) for number in range(9)]


def length(ch: Channel, queue: str) -> int:
    """How many of nine messages the queue keeps."""
    ch.purge(queue)
    fill(ch, queue, *BODIES)
    return len(drained(ch, queue))


# From when until when


def test_a_policy_holds_for_queues_that_are_there(ch: Channel, names: Names, policies: Policies) -> None:
    queue = declare(ch, names)
    assert length(ch, queue) == 9
    policies.set({"max-length": 2})
    assert length(ch, queue) == 2


def test_a_policy_holds_for_queues_declared_later(ch: Channel, names: Names, policies: Policies) -> None:
    policies.set({"max-length": 2})
    assert length(ch, declare(ch, names)) == 2


FLAGS: list[dict[str, Any]] = [
    {"durable": True}, {"exclusive": True}, {"auto_delete": True}, {"arguments": {"x-queue-type": "classic"}},
    {"durable": True, "arguments": {"x-queue-type": "quorum"}}]


def test_a_policy_holds_for_queues_of_any_flags(ch: Channel, names: Names, policies: Policies) -> None:
    policies.set({"max-length": 2})
    for flags in FLAGS:
        queue = names.queue()
        ch.declare_queue(queue, **flags)
        assert length(ch, queue) == 2, flags


def test_a_policy_set_again_holds_as_it_is_now(ch: Channel, names: Names, policies: Policies) -> None:
    """Nothing of its former definition is left."""
    queue = declare(ch, names)
    policies.set({"max-length": 2})
    policies.set({"max-length": 5})
    assert length(ch, queue) == 5
    policies.set({"max-length-bytes": 3})
    assert length(ch, queue) == 3


def test_a_policy_cleared_holds_no_longer(ch: Channel, names: Names, policies: Policies) -> None:
    queue = declare(ch, names)
    policies.set({"max-length": 2})
    assert length(ch, queue) == 2
    policies.clear()
    assert length(ch, queue) == 9


def test_a_policy_does_not_count_when_arguments_are_compared(ch: Channel, names: Names, policies: Policies) -> None:
    policies.set({"max-length": 2})
    queue = declare(ch, names, {"x-max-length": 5})
    assert ch.declare_queue(queue, arguments={"x-max-length": 5}) == (queue, 0, 0)


# Which one


def test_of_several_the_one_with_the_highest_priority_holds_alone(
        ch: Channel, names: Names, policies: Policies) -> None:
    """They are not merged, and it does not matter which came first."""
    queue = declare(ch, names)
    policies.set({"max-length": 2}, "low", priority=1)
    policies.set({"max-length-bytes": 5}, "high", priority=7)
    policies.set({"max-length": 3}, "middle", priority=3)
    assert length(ch, queue) == 5


def test_when_it_is_cleared_the_next_one_holds(ch: Channel, names: Names, policies: Policies) -> None:
    queue = declare(ch, names)
    policies.set({"max-length": 5}, "high", priority=7)
    policies.set({"max-length": 2}, "low", priority=-1)
    assert length(ch, queue) == 5
    policies.clear("high")
    assert length(ch, queue) == 2


def test_a_priority_that_changes_decides_anew(ch: Channel, names: Names, policies: Policies) -> None:
    queue = declare(ch, names)
    policies.set({"max-length": 5}, "one", priority=2)
    policies.set({"max-length": 2}, "other", priority=1)
    assert length(ch, queue) == 5
    policies.set({"max-length": 5}, "one", priority=0)
    assert length(ch, queue) == 2


def test_without_a_priority_it_is_0(ch: Channel, names: Names, policies: Policies) -> None:
    queue = declare(ch, names)
    policies.set({"max-length": 5})
    policies.set({"max-length": 4}, "low", priority=-1)
    assert length(ch, queue) == 5
    policies.set({"max-length": 2}, "high", priority=1)
    assert length(ch, queue) == 2


def test_a_pattern_is_searched_for_anywhere_in_the_name(ch: Channel, names: Names, policies: Policies) -> None:
    """Unless it says itself that it means the whole name."""
    middle = names.prefix.rpartition(".")[2]
    queues = [names.queue(name) for name in (middle, f"{middle}-after", f"before-{middle}", f"before-{middle}-after")]
    for queue in queues:
        ch.declare_queue(queue)
    for pattern, expected in {
            middle: [2, 2, 2, 2], f"^{middle}": [2, 2, 9, 9], f"{middle}$": [2, 9, 2, 9], f"^{middle}$": [2, 9, 9, 9],
            f"^(before|nonesuch)-{middle}-[a-z]+$": [9, 9, 9, 2]}.items():
        policies.set({"max-length": 2}, pattern=pattern)
        assert [length(ch, queue) for queue in queues] == expected, pattern


@pytest.mark.parametrize("apply_to, matches", [("queues", True), ("all", True), ("exchanges", False)])
def test_it_says_whether_it_is_for_queues(
        ch: Channel, names: Names, policies: Policies, apply_to: str, matches: bool) -> None:
    queue = declare(ch, names)
    policies.set({"max-length": 2}, apply_to=apply_to)
    assert length(ch, queue) == (2 if matches else 9)


def test_one_that_is_for_exchanges_stands_in_no_queues_way(ch: Channel, names: Names, policies: Policies) -> None:
    queue = declare(ch, names)
    policies.set({"max-length": 2}, "queues", priority=1, apply_to="queues")
    policies.set({"max-length": 5}, "exchanges", priority=9, apply_to="exchanges")
    assert length(ch, queue) == 2


def test_one_of_another_vhost_does_not_hold(ch: Channel, names: Names, policies: Policies) -> None:
    vhost = f"{names.prefix}.vhost"
    assert policies.run("add_vhost", vhost).returncode == 0
    try:
        queue = declare(ch, names)
        done = policies.run("set_policy", "-p", vhost, "policy", ".*", json.dumps({"max-length": 2}))
        assert done.returncode == 0
        assert length(ch, queue) == 9
    finally:
        policies.run("delete_vhost", vhost)


# Exchanges


@pytest.fixture
def alternate(ch: Channel, names: Names) -> str:
    """An exchange for what others cannot route."""
    alternate = names.exchange()
    ch.declare_exchange(alternate, "fanout")
    return alternate


def declare_exchange(ch: Channel, names: Names, arguments: dict[str, Any] | None = None) -> str:
    """An exchange that routes nothing by itself."""
    exchange = names.exchange()
    ch.declare_exchange(exchange, arguments=arguments or {})
    return exchange


def test_an_exchange_gets_its_alternate_by_policy(
        ch: Channel, names: Names, routes: Routes, policies: Policies, alternate: str) -> None:
    """Be it there already or declared later, until the policy is cleared."""
    queue = routes.queue(alternate, "")
    earlier = declare_exchange(ch, names)
    assert routes.reached(earlier, "key") == set()
    policies.set({"alternate-exchange": alternate})
    assert routes.reached(earlier, "key") == {queue}
    later = declare_exchange(ch, names)
    assert routes.reached(later, "key") == {queue}
    policies.clear()
    assert routes.reached(earlier, "key") == routes.reached(later, "key") == set()


def test_an_empty_alternate_by_policy_is_none(
        ch: Channel, names: Names, policies: Policies, queue_name: str) -> None:
    exchange = names.exchange()
    ch.declare_exchange(exchange)
    ch.declare_queue(queue_name)
    policies.set({"alternate-exchange": ""})
    ch.publish(exchange, queue_name, b"0", mandatory=True)
    assert ch.returns(1)[0].body == b"0"


def test_an_alternate_by_argument_wins(
        ch: Channel, names: Names, routes: Routes, policies: Policies, alternate: str) -> None:
    by_argument = names.exchange()
    ch.declare_exchange(by_argument, "fanout")
    queue = routes.queue(by_argument, "")
    routes.queue(alternate, "")
    exchange = declare_exchange(ch, names, {"alternate-exchange": by_argument})
    policies.set({"alternate-exchange": alternate})
    assert routes.reached(exchange, "key") == {queue}


def test_an_alternate_by_policy_is_not_asked_for_what_is_routed(
        ch: Channel, names: Names, routes: Routes, policies: Policies, alternate: str) -> None:
    routes.queue(alternate, "")
    exchange = declare_exchange(ch, names)
    queue = routes.queue(exchange, "key")
    policies.set({"alternate-exchange": alternate})
    assert routes.reached(exchange, "key") == {queue}


def test_a_circle_of_alternates_by_policy_ends(
        ch: Channel, names: Names, routes: Routes, policies: Policies, alternate: str) -> None:
    """The alternate matches the policy too, and is its own alternate."""
    exchange = declare_exchange(ch, names)
    policies.set({"alternate-exchange": alternate})
    assert routes.reached(exchange, "key") == set()


@pytest.mark.parametrize("apply_to, matches", [("exchanges", True), ("all", True), ("queues", False)])
def test_it_says_whether_it_is_for_exchanges(
        ch: Channel, names: Names, routes: Routes, policies: Policies, alternate: str, apply_to: str,
        matches: bool) -> None:
    queue = routes.queue(alternate, "")
    exchange = declare_exchange(ch, names)
    policies.set({"alternate-exchange": alternate}, apply_to=apply_to)
    assert routes.reached(exchange, "key") == ({queue} if matches else set())


def test_one_policy_may_be_for_queues_and_exchanges(
        ch: Channel, names: Names, routes: Routes, policies: Policies, alternate: str) -> None:
    copies, queue = routes.queue(alternate, ""), declare(ch, names)
    exchange = declare_exchange(ch, names)
    policies.set({"alternate-exchange": alternate, "max-length": 2}, apply_to="all")
    assert length(ch, queue) == 2
    assert routes.reached(exchange, "key") == {copies}


# Operator policies


def test_the_smallest_of_argument_policy_and_operator_policy_counts(
        ch: Channel, names: Names, policies: Policies) -> None:
    arguments: list[dict[str, int]] = [{}, {"x-max-length": 8}, {"x-max-length": 4}, {"x-max-length": 1}]
    queues = [declare(ch, names, argument) for argument in arguments]
    policies.set({"max-length": 3}, kind="operator_policy")
    assert [length(ch, queue) for queue in queues] == [3, 3, 3, 1]
    policies.set({"max-length": 5})
    assert [length(ch, queue) for queue in queues] == [3, 3, 3, 1]
    policies.set({"max-length": 2})
    assert [length(ch, queue) for queue in queues] == [2, 2, 2, 1]
    policies.clear(kind="operator_policy")
    policies.set({"max-length": 5})
    assert [length(ch, queue) for queue in queues] == [5, 5, 4, 1]


def test_keys_of_a_policy_and_an_operator_policy_hold_together(
        ch: Channel, names: Names, policies: Policies) -> None:
    """Unlike those of two policies."""
    queue = declare(ch, names)
    policies.set({"overflow": "reject-publish"})
    policies.set({"max-length": 2}, kind="operator_policy")
    ch.confirm_select()
    for body in (b"0", b"1", b"2"):
        ch.publish("", queue, body)
    assert sorted(ch.confirms(3)) == [(1, True), (2, True), (3, False)]


def test_the_operator_policy_of_the_highest_priority_holds_whatever_the_policies(
        ch: Channel, names: Names, policies: Policies) -> None:
    queue = declare(ch, names)
    policies.set({"message-ttl": 60_000}, priority=9)
    policies.set({"max-length": 2}, "low", kind="operator_policy", priority=1)
    policies.set({"max-length": 4}, "high", kind="operator_policy", priority=2)
    assert length(ch, queue) == 4


def test_an_operator_policy_cleared_holds_no_longer(ch: Channel, names: Names, policies: Policies) -> None:
    queue = declare(ch, names)
    policies.set({"max-length": 5})
    policies.set({"max-length": 2}, kind="operator_policy")
    assert length(ch, queue) == 2
    policies.clear(kind="operator_policy")
    assert length(ch, queue) == 5


# Refusals


def refused(policies: Policies, definition: Any, text: str, **options: Any) -> None:
    """Expect that the command fails with this text about the definition; the name is not compared."""
    done = policies.try_set(definition, **options)
    assert done.returncode != 0
    assert text in done.stdout + done.stderr


@pytest.mark.parametrize("definition, text", [
    ({"nope": 50}, '[{<<"nope">>,50}] are not recognised policy settings'),
    ({"max-priority": 5}, '[{<<"max-priority">>,5}] are not recognised policy settings'),
    ({"single-active-consumer": True}, '[{<<"single-active-consumer">>,true}] are not recognised policy settings'),
    ({}, "no policy provided"),
    ({"max-length": "x"}, '<<"x">> is not a valid maximum length'),
    ({"max-length-bytes": -1}, "-1 is not a valid maximum length in bytes"),
    ({"message-ttl": -1}, "-1 is not a valid message TTL"),
    ({"expires": 0}, "0 is not a valid queue expiry"),
    ({"overflow": "nonesuch"}, '<<"nonesuch">> is not a valid overflow value'),
    ({"dead-letter-exchange": 5}, "5 is not a valid dead letter exchange name"),
    ({"alternate-exchange": 5}, "5 is not a valid alternate exchange name"),
], ids=str)
def test_a_definition_may_not_be(policies: Policies, definition: dict[str, Any], text: str) -> None:
    refused(policies, definition, text)


def test_a_definition_is_json(policies: Policies) -> None:
    refused(policies, "{nonesuch", "JSON decoding error")


def test_a_pattern_is_a_regular_expression(policies: Policies) -> None:
    refused(policies, {"max-length": 1}, "pattern should be regular expression but is invalid", pattern="(")


def test_it_is_for_nothing_else(policies: Policies) -> None:
    """The words that follow are those that the broker takes: later versions of RabbitMQ take more."""
    text = "apply-to 'nonesuch' unrecognised; should be '"
    refused(policies, {"max-length": 1}, text, apply_to="nonesuch")


@pytest.mark.parametrize("definition, text", [
    ({"dead-letter-exchange": ""}, '[{<<"dead-letter-exchange">>,<<>>}] are not recognised policy settings'),
    ({"max-length": -1}, "-1 is not a valid maximum length"),
], ids=str)
def test_an_operator_policy_may_not_be(policies: Policies, definition: dict[str, Any], text: str) -> None:
    refused(policies, definition, text, kind="operator_policy")


@pytest.mark.parametrize("kind", ["policy", "operator_policy"])
def test_a_refused_policy_leaves_its_predecessor(
        ch: Channel, names: Names, policies: Policies, kind: str) -> None:
    queue = declare(ch, names)
    policies.set({"max-length": 2}, kind=kind)
    refused(policies, {"max-length": 5, "nope": 1}, "not recognised", kind=kind)
    assert length(ch, queue) == 2


@pytest.mark.parametrize("kind", ["policy", "operator_policy"])
def test_a_policy_that_is_not_there_cannot_be_cleared(policies: Policies, kind: str) -> None:
    done = policies.run(f"clear_{kind}", "nonesuch")
    assert done.returncode != 0
    assert "Parameter does not exist" in done.stdout + done.stderr


# Meanwhile


def test_connections_go_on_while_policies_change(
        client: Client, ch: Channel, broker: Broker, names: Names, policies: Policies) -> None:
    queue = declare(ch, names)
    consumer = broker.channel()
    consumer.consume(queue)
    policies.set({"max-length": 1})
    fill(ch, queue, *BODIES)
    assert [int(delivery.body) for delivery in consumer.deliveries(9)] == list(range(9))
    policies.clear()
    assert ready(ch, queue) == 0
    assert consumer.sync() == ch.sync() == []
