"""§30 Policies of queues: each key applies at once to existing queues, and is combined with arguments.

Needs `--ctl COMMAND`.
"""
from __future__ import annotations

from typing import Any

import pytest

from conformance.channel import Channel
from conformance.conftest import Names
from conformance.letters import Letters, counts, deaths
from conformance.methods import QUEUE_DECLARE
from conformance.policies import Policies
from conformance.queues import (
    Stopwatch, becomes_empty, declare, drained, fill, get, is_gone, let_pass, publish_confirmed, ready, shown)
from conformance.texts import Texts
from conformance.waiting import wait_until

pytestmark = pytest.mark.needs("ctl", "publisher_confirms")

SHORT_MS = 100
LONG_MS = 60_000


def declare_each_type(ch: Channel, names: Names, arguments: dict[str, Any] | None = None) -> list[str]:
    """A classic queue and a quorum queue with these arguments."""
    return [declare(ch, names, arguments, type) for type in ("classic", "quorum")]


def dead_letters_to(letters: Letters) -> dict[str, str]:
    """The definition that sends dead letters there."""
    return {"dead-letter-exchange": "", "dead-letter-routing-key": letters.queue}


def reject_one(ch: Channel, queue: str) -> None:
    """Publish one message, get and reject it."""
    fill(ch, queue, "0")
    ch.reject(get(ch, queue)[0].tag, requeue=False)


# Time


def test_message_ttl_holds_for_what_is_published_from_now_on(
        ch: Channel, names: Names, letters: Letters, policies: Policies) -> None:
    queues = declare_each_type(ch, names, letters.arguments)
    policies.set({"message-ttl": SHORT_MS})
    for queue in queues:
        watch = Stopwatch()
        fill(ch, queue, "0")
        assert counts(letters.take(1)[0]) == [(queue, "expired", 1)]
        assert watch.ms >= SHORT_MS
    policies.clear()
    for queue in queues:
        fill(ch, queue, "1")
    let_pass(2 * SHORT_MS)
    assert [ready(ch, queue) for queue in queues] == [1, 1]


def test_of_all_times_to_live_the_smallest_counts(ch: Channel, names: Names, policies: Policies) -> None:
    short, long = (declare(ch, names, {"x-message-ttl": ttl}) for ttl in (SHORT_MS, LONG_MS))
    policies.set({"message-ttl": LONG_MS})
    fill(ch, short, "0", expiration=str(LONG_MS))
    fill(ch, long, "0", expiration=str(SHORT_MS))
    for queue in (short, long):
        becomes_empty(ch, queue)
    policies.set({"message-ttl": SHORT_MS})
    fill(ch, long, "0", expiration=str(LONG_MS))
    becomes_empty(ch, long)


def test_expires_holds_from_now_on(ch: Channel, names: Names, policies: Policies) -> None:
    """A queue with a consumer stays, and goes once that has gone."""
    unused, used = declare(ch, names), declare(ch, names)
    ch.consume(used, "tag")
    policies.set({"expires": SHORT_MS})
    wait_until(lambda: is_gone(ch, unused))
    let_pass(2 * SHORT_MS)
    assert not is_gone(ch, used)
    ch.cancel("tag")
    wait_until(lambda: is_gone(ch, used))


def test_of_both_expiries_the_smaller_counts(ch: Channel, names: Names, policies: Policies) -> None:
    policies.set({"expires": LONG_MS})
    short, long = (declare(ch, names, {"x-expires": ms}) for ms in (SHORT_MS, LONG_MS))
    wait_until(lambda: is_gone(ch, short))
    policies.set({"expires": SHORT_MS})
    wait_until(lambda: is_gone(ch, long))


def test_without_its_policy_a_queue_expires_no_longer(ch: Channel, names: Names, policies: Policies) -> None:
    """A consumer holds it until the policy is cleared."""
    queue = declare(ch, names)
    ch.consume(queue, "tag")
    policies.set({"expires": SHORT_MS})
    policies.clear()
    ch.cancel("tag")
    let_pass(3 * SHORT_MS)
    assert not is_gone(ch, queue)


# Length


def test_max_length_trims_at_once(ch: Channel, names: Names, letters: Letters, policies: Policies) -> None:
    queues = declare_each_type(ch, names, letters.arguments)
    for queue in queues:
        fill(ch, queue, *"01234")
    policies.set({"max-length": 2})
    dead = letters.take(6)
    assert sorted(shown(dead)) == ["0", "0", "1", "1", "2", "2"]
    assert {deaths(letter)[0]["reason"] for letter in dead} == {"maxlen"}
    assert [drained(ch, queue) for queue in queues] == 2 * [["3", "4"]]


def test_a_trimmed_queues_letters_come_in_their_order(
        ch: Channel, names: Names, letters: Letters, policies: Policies) -> None:
    queue = declare(ch, names, letters.arguments)
    fill(ch, queue, *"0123456789")
    policies.set({"max-length": 1})
    assert shown(letters.take(9)) == list("012345678")


def test_max_length_bytes_trims_at_once(ch: Channel, names: Names, policies: Policies) -> None:
    queues = declare_each_type(ch, names)
    for queue in queues:
        fill(ch, queue, "aaaa", "bbbb", "cccc")
    policies.set({"max-length-bytes": 9})
    for queue in queues:
        wait_until(lambda: ready(ch, queue) == 2)
        assert drained(ch, queue) == ["bbbb", "cccc"]


def test_of_both_limits_the_smaller_counts(ch: Channel, names: Names, policies: Policies) -> None:
    policies.set({"max-length": 3, "max-length-bytes": 6})
    for arguments, left in {
            ("x-max-length", 2): ["3", "4"], ("x-max-length", 9): ["2", "3", "4"],
            ("x-max-length-bytes", 1): ["4"], ("x-max-length-bytes", 100): ["2", "3", "4"]}.items():
        queue = declare(ch, names, dict([arguments]))
        fill(ch, queue, *"01234")
        assert drained(ch, queue) == left, arguments
    queue = declare(ch, names, {"x-max-length-bytes": 100})
    fill(ch, queue, "aaa", "bbb", "ccc")
    assert drained(ch, queue) == ["bbb", "ccc"]


def test_unacked_messages_are_not_trimmed(
        ch: Channel, names: Names, letters: Letters, policies: Policies) -> None:
    queue = declare(ch, names, letters.arguments)
    fill(ch, queue, *"012")
    get(ch, queue, 2)
    policies.set({"max-length": 0})
    assert shown(letters.take(1)) == ["2"]
    ch.nack(2, multiple=True)
    assert shown(letters.take(2)) == ["0", "1"]


def test_where_publishes_are_rejected_nothing_is_trimmed(ch: Channel, names: Names, policies: Policies) -> None:
    queue = declare(ch, names, {"x-overflow": "reject-publish"})
    fill(ch, queue, *"01234")
    policies.set({"max-length": 2})
    assert publish_confirmed(ch, queue, "5") == [False]
    assert drained(ch, queue) == list("01234")


def test_overflow_holds_from_now_on(ch: Channel, names: Names, letters: Letters, policies: Policies) -> None:
    queue = declare(ch, names, {"x-max-length": 1, **letters.arguments})
    fill(ch, queue, "0", "1")
    assert shown(letters.take(1)) == ["0"]
    policies.set({"overflow": "reject-publish"})
    assert publish_confirmed(ch, queue, "2") == [False]
    assert letters.come() == []
    policies.set({"overflow": "reject-publish-dlx"})
    assert publish_confirmed(ch, queue, "3") == [False]
    assert shown(letters.take(1)) == ["3"]
    policies.clear()
    assert publish_confirmed(ch, queue, "4") == [True]
    assert shown(letters.take(1)) == ["1"]


def test_overflow_by_argument_wins(ch: Channel, names: Names, policies: Policies) -> None:
    queue = declare(ch, names, {"x-max-length": 1, "x-overflow": "drop-head"})
    policies.set({"overflow": "reject-publish"})
    assert publish_confirmed(ch, queue, "0", "1") == [True, True]
    assert drained(ch, queue) == ["1"]


# Dead letters


def test_a_dead_letter_exchange_holds_from_now_on(
        ch: Channel, names: Names, letters: Letters, policies: Policies) -> None:
    """For what was published before too."""
    queues = declare_each_type(ch, names)
    for queue in queues:
        fill(ch, queue, "0")
    policies.set(dead_letters_to(letters))
    for queue in queues:
        ch.reject(get(ch, queue)[0].tag, requeue=False)
    assert shown(letters.take(2)) == ["0", "0"]
    policies.clear()
    for queue in queues:
        reject_one(ch, queue)
        assert ch.get(queue) is None
    assert letters.come() == []


def test_an_exchange_by_policy_may_go_without_a_key(
        ch: Channel, names: Names, letters: Letters, policies: Policies, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "fanout")
    ch.bind_queue(letters.queue, exchange_name)
    queue = declare(ch, names)
    policies.set({"dead-letter-exchange": exchange_name})
    reject_one(ch, queue)
    dead, = letters.take(1)
    assert (dead.exchange, dead.routing_key) == (exchange_name, queue)


def test_exchange_and_key_by_argument_win(
        ch: Channel, names: Names, letters: Letters, policies: Policies) -> None:
    queue = declare(ch, names, letters.arguments)
    policies.set({"dead-letter-exchange": "nonesuch", "dead-letter-routing-key": "nowhere"})
    reject_one(ch, queue)
    assert letters.take(1)[0].routing_key == letters.queue


def test_an_exchange_by_argument_goes_with_a_key_by_policy(
        ch: Channel, names: Names, letters: Letters, policies: Policies) -> None:
    queue = declare(ch, names, {"x-dead-letter-exchange": ""})
    policies.set({"dead-letter-routing-key": letters.queue})
    reject_one(ch, queue)
    assert shown(letters.take(1)) == ["0"]


def test_a_key_by_policy_without_any_exchange_means_nothing(
        ch: Channel, names: Names, letters: Letters, policies: Policies) -> None:
    queue = declare(ch, names)
    policies.set({"dead-letter-routing-key": letters.queue})
    reject_one(ch, queue)
    assert ch.get(queue) is None
    assert letters.come() == []


def test_a_key_by_argument_is_refused_though_a_policy_has_the_exchange(
        ch: Channel, texts: Texts, queue_name: str, policies: Policies) -> None:
    policies.set({"dead-letter-exchange": ""})
    ch.send_declare_queue(queue_name, arguments={"x-dead-letter-routing-key": "key"})
    detail = "routing_key_but_no_dlx_defined"
    ch.fails(406, texts.invalid_argument("x-dead-letter-routing-key", queue_name, detail), *QUEUE_DECLARE)


# Deliveries


@pytest.mark.parametrize("type", [
    "quorum", pytest.param("classic", marks=pytest.mark.needs("delivery-limit-on-classic"))])
def test_of_both_delivery_limits_the_smaller_counts(
        ch: Channel, names: Names, letters: Letters, policies: Policies, type: str) -> None:
    policies.set({"delivery-limit": 1})
    for arguments, returns in (({}, 2), ({"x-delivery-limit": 0}, 1), ({"x-delivery-limit": 5}, 2)):
        queue = declare(ch, names, {**arguments, **letters.arguments}, type)
        fill(ch, queue, "0")
        for _ in range(returns):
            ch.nack(get(ch, queue)[0].tag)
        assert counts(letters.take(1)[0]) == [(queue, "delivery_limit", 1)]


@pytest.mark.parametrize("type", [
    "quorum", pytest.param("classic", marks=pytest.mark.needs("delivery-limit-on-classic"))])
def test_a_delivery_limit_holds_from_now_on(
        ch: Channel, names: Names, letters: Letters, policies: Policies, type: str) -> None:
    """For what came back before too."""
    queue = declare(ch, names, letters.arguments, type)
    fill(ch, queue, "0")
    for _ in range(2):
        ch.nack(get(ch, queue)[0].tag)
    policies.set({"delivery-limit": 2})
    ch.nack(get(ch, queue)[0].tag)
    assert counts(letters.take(1)[0]) == [(queue, "delivery_limit", 1)]


@pytest.mark.needs("policy-keys-by-queue-type")
@pytest.mark.parametrize("type, foreign", [("classic", {"delivery-limit": 5}), ("quorum", {"queue-mode": "lazy"})])
def test_a_policy_with_a_key_for_other_types_does_not_hold_at_all(
        ch: Channel, names: Names, policies: Policies, type: str, foreign: dict[str, Any]) -> None:
    queue = declare(ch, names, type=type)
    policies.set({"max-length": 1, **foreign})
    fill(ch, queue, *"012")
    assert drained(ch, queue) == ["0", "1", "2"]


# Together


def test_all_keys_of_a_policy_hold_together(
        ch: Channel, names: Names, letters: Letters, policies: Policies) -> None:
    queue = declare(ch, names)
    policies.set({**dead_letters_to(letters), "max-length": 2, "message-ttl": SHORT_MS, "queue-mode": "lazy"})
    fill(ch, queue, "0", "1", "2")
    dead = letters.take(3)
    assert [(letter.body, deaths(letter)[0]["reason"]) for letter in dead] == [
        (b"0", "maxlen"), (b"1", "expired"), (b"2", "expired")]


def test_a_queue_with_priorities_obeys_policies_too(
        ch: Channel, names: Names, letters: Letters, policies: Policies) -> None:
    queue = declare(ch, names, {"x-max-priority": 5})
    for priority in (1, 5, 3):
        fill(ch, queue, str(priority), priority=priority)
    policies.set({**dead_letters_to(letters), "max-length": 1})
    assert shown(letters.take(2)) == ["5", "3"]
    assert drained(ch, queue) == ["1"]
