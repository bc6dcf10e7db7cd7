"""Policies: RabbitMQ's errors for invalid ones, and which one applies to a queue or an exchange."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from amqpd.broker.definitions import PolicyDefinition, QueueDefinition
from amqpd.broker.policy import Applied, InvalidPolicy, Policies, check_policy


def policy(
    name: str = "p", pattern: str = "", priority: int = 0, apply_to: str = "all", *, is_operator: bool = False,
    **definition: Any,
) -> PolicyDefinition:
    """Keys are written with _ for the hyphens."""
    said = {key.replace("_", "-"): value for key, value in definition.items()} or {"max-length": 5}
    return PolicyDefinition("/", name, pattern, said, priority, apply_to, is_operator)


def faults(checked: PolicyDefinition) -> list[str]:
    with pytest.raises(InvalidPolicy) as refused:
        check_policy(checked)
    return refused.value.faults


# What may be said

@pytest.mark.parametrize("definition", [
    {"max_length": 0, "max_length_bytes": 0, "message_ttl": 0, "expires": 1}, {"delivery_limit": 5},
    {"delivery_limit": -1}, {"overflow": "reject-publish-dlx"}, {"dead_letter_exchange": "", "overflow": "drop-head"},
    {"dead_letter_routing_key": "k", "dead_letter_strategy": "at-least-once"}, {"alternate_exchange": "e"},
    {"consumer_timeout": 1_000}, {"max_in_memory_length": 1, "max_in_memory_bytes": 1}, {"queue_mode": "lazy"},
    {"queue_version": 2}, {"max_age": "1D", "initial_cluster_size": 3, "stream_max_segment_size_bytes": 1},
    {"queue_leader_locator": "balanced"}, {"queue_master_locator": "min-masters"},
    {"ha_mode": "all", "ha_sync_mode": "automatic", "ha_sync_batch_size": 1, "ha_promote_on_shutdown": "always"},
    {"ha_mode": "exactly", "ha_params": 2, "ha_promote_on_failure": "when-synced"},
    {"ha_mode": "nodes", "ha_params": ["rabbit@a"]},
])
def test_rabbitmqs_keys_are_taken(definition: dict[str, Any]) -> None:
    check_policy(policy(**definition))


@pytest.mark.parametrize("definition, fault", [
    ({"max_length": "x"}, '<<"x">> is not a valid maximum length'),
    ({"max_length": -1}, "-1 is not a valid maximum length"),
    ({"max_length": 5.0}, "5.0 is not a valid maximum length"),
    ({"max_length": True}, "true is not a valid maximum length"),
    ({"max_length": None}, "null is not a valid maximum length"),
    ({"max_length": [1, "x", None]}, '[1,<<"x">>,null] is not a valid maximum length'),
    ({"max_length": {"a": 1.5}}, '#{<<"a">> => 1.5} is not a valid maximum length'),
    ({"max_length": (1 << 53) + 1}, "9007199254740993 is not a valid maximum length"),
    ({"max_length_bytes": -1}, "-1 is not a valid maximum length in bytes"),
    ({"max_in_memory_length": -1}, "-1 is not a valid maximum memory in bytes"),
    ({"max_in_memory_bytes": -1}, "-1 is not a valid maximum memory in bytes"),
    ({"message_ttl": -1}, "-1 is not a valid message TTL"),
    ({"expires": 0}, "0 is not a valid queue expiry"),
    ({"overflow": "x"}, '<<"x">> is not a valid overflow value'),
    ({"delivery_limit": "x"}, '<<"x">> is not a valid delivery limit'),
    ({"dead_letter_exchange": 1}, "1 is not a valid dead letter exchange name"),
    ({"dead_letter_exchange": "é" * 128}, f'<<"{"é" * 128}">> is not a valid dead letter exchange name'),
    ({"dead_letter_routing_key": 1}, "1 is not a valid dead letter routing key"),
    ({"dead_letter_strategy": "x"}, '<<"x">> is not a valid dead letter strategy'),
    ({"alternate_exchange": 1}, "1 is not a valid alternate exchange name"),
    ({"consumer_timeout": -1}, "-1 is not a valid consumer timeout"),
    ({"queue_mode": "x"}, '<<"x">> is not a valid queue-mode value'),
    ({"queue_version": 3}, "3 is not a valid queue-version value"),
    ({"queue_leader_locator": "x"}, '<<"x">> is not a valid queue leader locator value'),
    ({"queue_master_locator": "x"}, '<<"x">> invalid queue-master-locator value'),
    ({"max_age": "5X"}, '<<"5X">> is not a valid max age'),
    ({"max_age": "0D"}, '<<"0D">> is not a valid max age'),
    ({"stream_max_segment_size_bytes": -1}, "-1 is not a valid segment size"),
    ({"initial_cluster_size": -1}, "-1 is not a valid cluster size"),
    ({"ha_mode": "x"}, '<<"x">> is not a valid ha-mode value'),
    ({"ha_params": 5}, "ha-mode must be specified to specify ha-params, ha-sync-mode or ha-promote-on-shutdown"),
    ({"ha_mode": "all", "ha_params": 5}, 'ha-mode="all" does not take parameters'),
    ({"ha_mode": "exactly"}, 'ha-mode="exactly" takes an integer, none given'),
    ({"ha_mode": "exactly", "ha_params": "x"}, 'ha-mode="exactly" takes an integer, <<"x">> given'),
    ({"ha_mode": "nodes", "ha_params": "x"}, 'ha-mode="nodes" takes a list, <<"x">> given'),
    ({"ha_mode": "nodes", "ha_params": []}, 'ha-mode="nodes" list must be non-empty'),
    ({"ha_mode": "all", "ha_sync_mode": "x"}, 'ha-sync-mode must be "manual" or "automatic", got <<"x">>'),
    ({"ha_mode": "all", "ha_sync_batch_size": 0}, "ha-sync-batch-size takes an integer greater than 0, 0 given"),
    ({"ha_mode": "all", "ha_promote_on_shutdown": "x"},
     'ha-promote-on-shutdown must be "always" or "when-synced", got <<"x">>'),
    ({"ha_mode": "all", "ha_promote_on_failure": "x"},
     'ha-promote-on-failure must be "always" or "when-synced", got <<"x">>'),
    ({"nope": 50}, '[{<<"nope">>,50}] are not recognised policy settings'),
    ({"max_priority": 1, "b": [{"c": None}]},
     '[{<<"b">>,[#{<<"c">> => null}]},{<<"max-priority">>,1}] are not recognised policy settings'),
    ({"since": datetime.date(2022, 9, 6)}, '[{<<"since">>,2022-09-06}] are not recognised policy settings'),
])
def test_a_wrong_definition_has_rabbitmqs_text(definition: dict[str, Any], fault: str) -> None:
    assert faults(policy(**definition)) == [fault]


def test_a_wrong_value_is_told_before_unknown_keys_and_alone() -> None:
    assert faults(policy(max_length="x", message_ttl=-1, nope=1)) == ['<<"x">> is not a valid maximum length']


def test_a_policy_says_something() -> None:
    assert faults(PolicyDefinition("/", "p", "", {})) == ["no policy provided"]


@pytest.mark.parametrize("key", ["max_length", "max_length_bytes", "message_ttl", "expires", "delivery_limit"])
def test_the_operators_policies_tighten(key: str) -> None:
    definition: dict[str, Any] = {key: 1}
    check_policy(policy(is_operator=True, **definition))


@pytest.mark.parametrize("key, value", [
    ("dead_letter_exchange", "e"), ("alternate_exchange", "e"), ("ha_mode", "all"), ("consumer_timeout", 1),
])
def test_the_operators_policies_say_nothing_else(key: str, value: Any) -> None:
    told, = faults(policy(is_operator=True, **{key: value}))
    assert told.endswith("are not recognised policy settings")


def test_all_that_is_wrong_is_told_in_rabbitmqs_order() -> None:
    assert faults(policy("n" * 256, "(", 1 << 60, "nope", max_length="x")) == [
        '<<"x">> is not a valid maximum length',
        "apply-to 'nope' unrecognised; should be 'all', 'queues', 'exchanges', 'classic_queues', 'quorum_queues' or "
        "'streams'",
        "pattern should be regular expression but is invalid: missing ) at position 1",
        "priority should be number, actually was 1152921504606846976",
        "name should have at most 255 bytes",
    ]


def test_a_pattern_that_would_be_compiled_for_ever_is_refused() -> None:
    told, = faults(policy(pattern="(((a{999}){999}){999}){999}"))
    assert told == (
        "pattern should be regular expression but is invalid: its repetitions make more than 10,000 copies")


def test_a_stored_policy_whose_pattern_cannot_be_used_applies_to_nothing(caplog: pytest.LogCaptureFixture) -> None:
    policies = Policies()
    policies.set(policy("p", "("))
    assert policies.of_queue(QueueDefinition(1, "/", "(")).policy is None
    assert caplog.messages == [
        "the pattern '(' of policy 'p' in vhost '/' matches nothing, as it cannot be used: missing ) at position 1; "
        "set another one"]


def test_the_text_of_a_refusal_is_one_line() -> None:
    with pytest.raises(InvalidPolicy, match="^PRECONDITION_FAILED - 1 is not .* name; apply-to 'x' unrecognised"):
        check_policy(policy(apply_to="x", alternate_exchange=1))


# Which one holds

CLASSIC, QUORUM, EXCHANGE = "classic", "quorum", "exchange"


def holds(policies: list[PolicyDefinition], name: str = "orders", kind: str = CLASSIC) -> str | None:
    """The name of the user's policy that holds for a queue or exchange."""
    applied = of(policies, name, kind)
    return applied.policy.name if applied.policy else None


def of(policies: list[PolicyDefinition], name: str, kind: str) -> Applied:
    all_of_them = Policies()
    for one in policies:
        all_of_them.set(one)
    if kind == EXCHANGE:
        return all_of_them.of_exchange(name)
    return all_of_them.of_queue(QueueDefinition(1, "/", name, durable=True, arguments={"x-queue-type": kind}))


@pytest.mark.parametrize("pattern, name, matches", [
    ("", "orders", True), ("der", "orders", True), ("^der", "orders", False), ("^orders$", "orders.eu", False),
])
def test_a_pattern_is_searched_in_the_name(pattern: str, name: str, matches: bool) -> None:
    assert (holds([policy(pattern=pattern)], name) is not None) is matches


def test_the_highest_priority_holds_alone() -> None:
    low, high = policy("low", priority=-1, expires=5), policy("high", priority=3, max_length=1)
    assert of([low, high], "q", CLASSIC) == of([high, low], "q", CLASSIC) == Applied(high)


def test_of_the_same_priority_the_first_by_name_holds() -> None:
    assert holds([policy("b"), policy("a"), policy("c")]) == "a"


@pytest.mark.parametrize("apply_to, kinds", [
    ("all", [CLASSIC, QUORUM, EXCHANGE]), ("queues", [CLASSIC, QUORUM]), ("exchanges", [EXCHANGE]),
    ("classic_queues", [CLASSIC]), ("quorum_queues", [QUORUM]),
])
def test_a_policy_is_for_the_things_it_applies_to(apply_to: str, kinds: list[str]) -> None:
    matched = [kind for kind in (CLASSIC, QUORUM, EXCHANGE) if holds([policy(apply_to=apply_to)], kind=kind)]
    assert matched == kinds


@pytest.mark.parametrize("key, value, kinds", [
    ("delivery_limit", 5, [CLASSIC, QUORUM, EXCHANGE]), ("dead_letter_strategy", "at-least-once", [QUORUM, EXCHANGE]),
    ("queue_leader_locator", "balanced", [QUORUM, EXCHANGE]), ("queue_mode", "lazy", [CLASSIC, EXCHANGE]),
    ("ha_mode", "all", [CLASSIC, EXCHANGE]), ("max_age", "1D", [EXCHANGE]),
    ("max_length", 5, [CLASSIC, QUORUM, EXCHANGE]), ("alternate_exchange", "e", [CLASSIC, QUORUM, EXCHANGE]),
])
def test_a_key_that_a_type_of_queue_cannot_use_takes_the_policy_away_from_it(
    key: str, value: Any, kinds: list[str]
) -> None:
    useful, other = policy("useful", priority=1, **{key: value}), policy("other")
    matched = [kind for kind in (CLASSIC, QUORUM, EXCHANGE) if holds([useful, other], kind=kind) == "useful"]
    assert matched == kinds


def test_the_operators_policy_is_matched_apart() -> None:
    users, operators = policy(priority=9, max_length=5), policy(is_operator=True, max_length=3, expires=7)
    applied = of([users, operators], "q", CLASSIC)
    assert applied == Applied(users, operators)
    assert applied.effective == {"expires": 7, "max-length": 3}


def test_what_nothing_matches_has_no_policy() -> None:
    assert of([policy(pattern="x"), policy(pattern="x", is_operator=True)], "q", CLASSIC) == Applied()
    assert Applied().effective == {}


# Keeping them

def test_a_policy_replaces_one_of_its_sort_and_name() -> None:
    policies = Policies()
    for one in (policy("a", priority=1), policy("b"), policy("a", is_operator=True), policy("a", priority=-1)):
        policies.set(one)
    assert list(policies.listed(is_operator=False)) == [policy("a", priority=-1), policy("b")]
    assert list(policies.listed(is_operator=True)) == [policy("a", is_operator=True)]


def test_clearing_gives_back_what_was_there() -> None:
    policies = Policies()
    policies.set(policy("a"))
    assert policies.clear("a", is_operator=True) is None
    assert policies.clear("a", is_operator=False) == policy("a")
    assert policies.clear("a", is_operator=False) is None
