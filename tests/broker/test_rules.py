"""Arguments and policies are combined to rules: which value applies."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd.broker.rules import QueueRules, alternate_exchange, merge_policies, queue_rules

QUORUM = {"x-queue-type": "quorum"}
FIELDS = {
    "message-ttl": "message_ttl_ms", "expires": "expires_ms", "max-length": "max_length",
    "max-length-bytes": "max_length_bytes", "consumer-timeout": "consumer_timeout_ms",
    "delivery-limit": "delivery_limit",
}


def test_without_arguments_and_policies_a_queue_has_no_limits() -> None:
    assert queue_rules({}) == QueueRules()


def test_arguments_make_rules() -> None:
    assert queue_rules({
        "x-message-ttl": 1, "x-expires": 2, "x-max-length": 3, "x-max-length-bytes": 4, "x-overflow": "reject-publish",
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "k", "x-max-priority": 5,
        "x-single-active-consumer": True, "x-delivery-limit": 6, "x-consumer-timeout": 7,
    }) == QueueRules(
        message_ttl_ms=1, expires_ms=2, max_length=3, max_length_bytes=4, overflow="reject-publish",
        dead_letter_exchange="", dead_letter_routing_key="k", max_priority=5, single_active_consumer=True,
        delivery_limit=6, consumer_timeout_ms=7)


@pytest.mark.parametrize("key", FIELDS)
def test_arguments_without_their_prefix_are_no_rules(key: str) -> None:
    assert queue_rules({key: "nonsense"}, {key: 5}) == queue_rules({}, {key: 5})


@pytest.mark.parametrize("key, field", FIELDS.items())
@pytest.mark.parametrize("argument, policy, operator_policy, effective", [
    (None, 5, None, 5), (None, None, 5, 5), (4, 5, None, 4), (6, 5, None, 5), (6, 5, 4, 4), (3, 5, 4, 3),
    (6, None, 4, 4),
])
def test_of_numbers_the_smallest_holds(
    key: str, field: str, argument: int | None, policy: int | None, operator_policy: int | None, effective: int
) -> None:
    arguments = {} if argument is None else {f"x-{key}": argument}
    said = [None if number is None else {key: number} for number in (policy, operator_policy)]
    assert getattr(queue_rules(arguments, *said), field) == effective


@pytest.mark.parametrize("argument, policy, operator_policy, effective", [
    (-1, None, None, None), (-1, 5, None, 5), (5, -1, None, 5), (None, -1, 7, 7), (None, -1, -2, None), (0, -1, 3, 0),
])
def test_a_negative_delivery_limit_is_none(
    argument: int | None, policy: int | None, operator_policy: int | None, effective: int | None
) -> None:
    arguments = QUORUM | ({} if argument is None else {"x-delivery-limit": argument})
    said = [None if number is None else {"delivery-limit": number} for number in (policy, operator_policy)]
    assert queue_rules(arguments, *said).delivery_limit == effective


@pytest.mark.parametrize("key, field, argument, policy", [
    ("dead-letter-exchange", "dead_letter_exchange", "", "dlx"),
    ("dead-letter-routing-key", "dead_letter_routing_key", "", "k"),
    ("overflow", "overflow", "drop-head", "reject-publish"),
])
def test_the_argument_goes_before_the_policy(key: str, field: str, argument: str, policy: str) -> None:
    assert getattr(queue_rules({}, {key: policy}), field) == policy
    assert getattr(queue_rules({f"x-{key}": argument}, {key: policy}), field) == argument


def test_exchange_and_key_of_dead_letters_may_come_from_different_places() -> None:
    rules = queue_rules({"x-dead-letter-exchange": "dlx"}, {"dead-letter-routing-key": "k"})
    assert (rules.dead_letter_exchange, rules.dead_letter_routing_key) == ("dlx", "k")


def test_the_operators_overflow_goes_before_the_policys() -> None:
    assert queue_rules({}, {"overflow": "drop-head"}, {"overflow": "reject-publish"}).overflow == "reject-publish"


@pytest.mark.parametrize("key", ["max-priority", "single-active-consumer", "queue-type"])
def test_priorities_the_active_consumer_and_the_type_are_not_for_policies(key: str) -> None:
    assert queue_rules({}, {key: 1}) == QueueRules()


# Quorum queues

def test_of_a_quorum_queue_overflow_and_expiry_are_the_policys_first() -> None:
    """As RabbitMQ 3.10.8 does, whatever its documentation says."""
    arguments = QUORUM | {"x-overflow": "drop-head", "x-expires": 5}
    rules = queue_rules(arguments, {"overflow": "reject-publish", "expires": 7})
    assert (rules.overflow, rules.expires_ms) == ("reject-publish", 7)


@pytest.mark.parametrize("arguments, policy", [
    ({"x-overflow": "reject-publish-dlx"}, {}), ({}, {"overflow": "reject-publish-dlx"}),
    ({"x-overflow": "reject-publish"}, {"overflow": "reject-publish-dlx"}),
])
def test_a_quorum_queue_does_not_know_reject_publish_dlx(arguments: dict[str, Any], policy: dict[str, Any]) -> None:
    assert queue_rules(QUORUM | arguments, policy).overflow == "drop-head"


SURE = {"dead-letter-strategy": "at-least-once", "overflow": "reject-publish", "dead-letter-exchange": "dlx"}


def test_dead_letters_of_a_quorum_queue_can_be_sure() -> None:
    assert queue_rules(QUORUM, SURE) == QueueRules(
        overflow="reject-publish", dead_letter_exchange="dlx", is_at_least_once=True, is_quorum=True)
    assert queue_rules(QUORUM | {f"x-{key}": value for key, value in SURE.items()}).is_at_least_once


@pytest.mark.parametrize("without", SURE)
def test_dead_letters_are_not_sure_unless_all_is_said(without: str) -> None:
    assert not queue_rules(QUORUM, {key: value for key, value in SURE.items() if key != without}).is_at_least_once


def test_dead_letters_of_a_classic_queue_are_never_sure() -> None:
    assert not queue_rules({}, SURE).is_at_least_once


# Exchanges, and policies alone

@pytest.mark.parametrize("arguments, policy, expected", [
    ({}, None, None), ({}, {"max-length": 5}, None), ({}, {"alternate-exchange": "p"}, "p"),
    ({"alternate-exchange": "a"}, None, "a"), ({"alternate-exchange": ""}, {"alternate-exchange": "p"}, None),
])
def test_the_alternate_exchange_is_the_arguments_first(
    arguments: dict[str, Any], policy: dict[str, Any] | None, expected: str | None
) -> None:
    assert alternate_exchange(arguments, policy) == expected


def test_policies_are_merged_in_the_order_of_their_keys() -> None:
    merged = merge_policies({"overflow": "drop-head", "max-length": 5}, {"expires": 9, "max-length": 4})
    assert list(merged.items()) == [("expires", 9), ("max-length", 4), ("overflow", "drop-head")]
    assert merge_policies(None, None) == {}


numbers = st.fixed_dictionaries({}, optional={key: st.integers(0, 9) for key in FIELDS})


@given(numbers, numbers, numbers)
def test_a_policy_and_an_operators_can_only_tighten(
    arguments: dict[str, int], policy: dict[str, int], operator_policy: dict[str, int]
) -> None:
    rules = queue_rules({f"x-{key}": value for key, value in arguments.items()}, policy, operator_policy)
    for key, field in FIELDS.items():
        said = [source[key] for source in (arguments, policy, operator_policy) if key in source]
        assert getattr(rules, field) == min(said, default=None)
