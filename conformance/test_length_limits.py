"""§20 Length limits: how many ready messages, or bytes of them, a queue holds, and what happens to the others.

Publishers get the result by confirms (§14) and commits (§15).
"""
from __future__ import annotations

from typing import Any

import pytest

from conformance.channel import Channel
from conformance.conftest import Broker, Names
from conformance.fields import Properties
from conformance.letters import Letters, deaths
from conformance.methods import TX_COMMIT
from conformance.queues import declare, drained, fill, get, of_each_type, publish_confirmed, ready, shown
from conformance.waiting import wait_until

pytestmark = pytest.mark.needs("length-limits", "publisher_confirms")

REJECTING = ["reject-publish", "reject-publish-dlx"]
rejecting = pytest.mark.parametrize("overflow", REJECTING)
any_overflow = pytest.mark.parametrize("overflow", ["drop-head", *REJECTING])


# drop-head


@of_each_type
@pytest.mark.parametrize("overflow", [{}, {"x-overflow": "drop-head"}], ids=["default", "drop-head"])
def test_the_oldest_are_dropped(
        ch: Channel, names: Names, letters: Letters, type: str, overflow: dict[str, str]) -> None:
    """And dead-lettered in their order; all publishes are acked."""
    queue = declare(ch, names, {"x-max-length": 3, **overflow, **letters.arguments}, type)
    fill(ch, queue, "0", "1", "2", "3", "4")
    assert shown(letters.take(2)) == ["0", "1"]
    assert drained(ch, queue) == ["2", "3", "4"]


@of_each_type
def test_the_reason_is_maxlen(ch: Channel, names: Names, letters: Letters, type: str) -> None:
    queue = declare(ch, names, {"x-max-length": 1, **letters.arguments}, type)
    fill(ch, queue, "0", "1")
    assert deaths(letters.take(1)[0])[0]["reason"] == "maxlen"


@of_each_type
def test_without_a_dead_letter_exchange_they_are_gone(ch: Channel, names: Names, type: str) -> None:
    queue = declare(ch, names, {"x-max-length": 2}, type)
    fill(ch, queue, "0", "1", "2", "3")
    assert drained(ch, queue) == ["2", "3"]


@pytest.mark.parametrize("length", [1, 10, 2 ** 40])
def test_a_queue_holds_as_many_as_it_may(ch: Channel, names: Names, length: int) -> None:
    queue = declare(ch, names, {"x-max-length": length})
    fill(ch, queue, *(str(number) for number in range(min(length, 20))))
    assert drained(ch, queue) == [str(number) for number in range(min(length, 20))]


def test_a_queue_far_over_its_limit_holds_the_latest(ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, {"x-max-length": 10, **letters.arguments})
    fill(ch, queue, *(str(number) for number in range(1000)))
    assert drained(ch, queue) == [str(number) for number in range(990, 1000)]
    assert shown(letters.take(990)) == [str(number) for number in range(990)]


@of_each_type
def test_octets_of_bodies_are_counted(ch: Channel, names: Names, letters: Letters, type: str) -> None:
    queue = declare(ch, names, {"x-max-length-bytes": 10, **letters.arguments}, type)
    fill(ch, queue, "01234", "56789")
    assert ready(ch, queue) == 2
    fill(ch, queue, "abc")
    assert shown(letters.take(1)) == ["01234"]
    assert drained(ch, queue) == ["56789", "abc"]


def test_octets_of_anything_else_are_not_counted(ch: Channel, names: Names) -> None:
    queue = declare(ch, names, {"x-max-length-bytes": 4})
    fill(ch, queue, "01", "23", headers={"long": "x" * 1000}, message_id="y" * 200)
    assert drained(ch, queue) == ["01", "23"]


def test_as_many_as_needed_are_dropped_for_a_large_body(ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, {"x-max-length-bytes": 10, **letters.arguments})
    fill(ch, queue, "012", "345", "678", "0123456")
    assert shown(letters.take(2)) == ["012", "345"]
    assert drained(ch, queue) == ["678", "0123456"]


@of_each_type
def test_a_body_larger_than_the_limit_drops_all_and_itself(
        ch: Channel, names: Names, letters: Letters, type: str) -> None:
    """And is acked. RabbitMQ's quorum queues dead-letter them in the reverse order."""
    queue = declare(ch, names, {"x-max-length-bytes": 10, **letters.arguments}, type)
    fill(ch, queue, "0", "1", "01234567890")
    dropped = shown(letters.take(3))
    assert dropped == ["0", "1", "01234567890"] or type == "quorum" and dropped == ["01234567890", "1", "0"]
    assert ch.get(queue) is None


@pytest.mark.parametrize("limits, left", [
    ({"x-max-length": 2, "x-max-length-bytes": 100}, ["bbb", "cccc"]),
    ({"x-max-length": 100, "x-max-length-bytes": 7}, ["bbb", "cccc"]),
    ({"x-max-length": 2, "x-max-length-bytes": 6}, ["cccc"])])
def test_both_limits_hold(ch: Channel, names: Names, limits: dict[str, int], left: list[str]) -> None:
    queue = declare(ch, names, limits)
    fill(ch, queue, "aa", "bbb", "cccc")
    assert drained(ch, queue) == left


def test_a_limit_of_no_octets_lets_empty_bodies_in(ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, {"x-max-length-bytes": 0, **letters.arguments})
    fill(ch, queue, "", "")
    assert ready(ch, queue) == 2
    fill(ch, queue, "x")
    assert shown(letters.take(3)) == ["", "", "x"]


# Ready messages alone


@pytest.mark.parametrize("type, overflow", [
    ("classic", "drop-head"), ("classic", "reject-publish"), ("classic", "reject-publish-dlx"),
    ("quorum", "drop-head"), ("quorum", "reject-publish")])
def test_unacked_messages_are_not_counted(ch: Channel, names: Names, type: str, overflow: str) -> None:
    queue = declare(ch, names, {"x-max-length": 2, "x-overflow": overflow}, type)
    fill(ch, queue, "0", "1")
    get(ch, queue, 2)
    fill(ch, queue, "2", "3")
    assert drained(ch, queue) == ["2", "3"]


def test_the_octets_of_unacked_messages_are_not_counted(ch: Channel, names: Names) -> None:
    queue = declare(ch, names, {"x-max-length-bytes": 4})
    fill(ch, queue, "0123")
    get(ch, queue)
    fill(ch, queue, "4567")
    assert drained(ch, queue) == ["4567"]


@any_overflow
def test_what_consumers_take_at_once_does_not_count(ch: Channel, names: Names, overflow: str) -> None:
    queue = declare(ch, names, {"x-max-length": 1, "x-overflow": overflow})
    ch.consume(queue)
    fill(ch, queue, "0", "1", "2", "3", "4")
    assert shown(ch.deliveries(5)) == ["0", "1", "2", "3", "4"]


def test_with_a_limit_of_0_a_message_needs_a_consumer_that_waits(
        ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, {"x-max-length": 0, **letters.arguments})
    fill(ch, queue, "0")
    assert shown(letters.take(1)) == ["0"]
    ch.qos(1)
    ch.consume(queue)
    fill(ch, queue, "1", "2")
    assert shown(ch.deliveries(1)) == ["1"]
    assert shown(letters.take(1)) == ["2"]


@rejecting
def test_with_a_limit_of_0_nothing_is_accepted_though_a_consumer_waits(
        ch: Channel, names: Names, overflow: str) -> None:
    queue = declare(ch, names, {"x-max-length": 0, "x-overflow": overflow})
    ch.consume(queue)
    assert publish_confirmed(ch, queue, "0", "1") == [False, False]
    assert ch.delivered(queue) == []


# Requeueing


@pytest.mark.parametrize("requeue", [
    lambda ch: ch.nack(0, multiple=True), lambda ch: ch.recover(), lambda ch: ch.close()],
    ids=["nack", "recover", "close"])
def test_requeued_messages_over_the_limit_are_dropped_from_the_head(
        ch: Channel, names: Names, letters: Letters, requeue: Any) -> None:
    """That is themselves, since their old place is before what came later."""
    queue = declare(ch, names, {"x-max-length": 3, **letters.arguments})
    taker = ch.client.channel()
    fill(ch, queue, "0", "1")
    get(taker, queue, 2)
    fill(ch, queue, "2", "3")
    requeue(taker)
    assert shown(letters.take(1)) == ["0"]
    assert drained(ch, queue) == ["1!", "2", "3"]


def test_a_letter_dropped_when_it_was_requeued_is_not_redelivered(
        ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, {"x-max-length": 1, **letters.arguments})
    fill(ch, queue, "0")
    got, = get(ch, queue)
    fill(ch, queue, "1")
    ch.nack(got.tag)
    dead, = letters.take(1)
    assert (dead.body, dead.redelivered) == (b"0", False)


@rejecting
def test_where_publishes_are_rejected_requeued_messages_may_exceed_the_limit(
        ch: Channel, names: Names, letters: Letters, overflow: str) -> None:
    queue = declare(ch, names, {"x-max-length": 2, "x-overflow": overflow, **letters.arguments})
    fill(ch, queue, "0", "1")
    get(ch, queue, 2)
    fill(ch, queue, "2", "3")
    ch.nack(0, multiple=True)
    wait_until(lambda: ready(ch, queue) == 4)
    assert publish_confirmed(ch, queue, "4") == [False]
    assert drained(ch, queue) == ["0!", "1!", "2", "3"]


# reject-publish


@rejecting
def test_the_latest_are_refused(ch: Channel, names: Names, overflow: str) -> None:
    queue = declare(ch, names, {"x-max-length": 2, "x-overflow": overflow})
    assert publish_confirmed(ch, queue, "0", "1", "2", "3") == [True, True, False, False]
    assert drained(ch, queue) == ["0", "1"]


@pytest.mark.needs("quorum-limits-exact")
@pytest.mark.parametrize("limits", [{"x-max-length": 5}, {"x-max-length-bytes": 5}], ids=str)
def test_a_quorum_queue_refuses_at_its_limit(ch: Channel, names: Names, limits: dict[str, int]) -> None:
    queue = declare(ch, names, {"x-overflow": "reject-publish", **limits}, "quorum")
    assert publish_confirmed(ch, queue, *"0123456") == [True] * 5 + [False] * 2
    ch.get(queue, no_ack=True)
    assert publish_confirmed(ch, queue, "7", "8") == [True, False]


@pytest.mark.needs("quorum-limits-late")
@pytest.mark.parametrize("limits", [{"x-max-length": 5}, {"x-max-length-bytes": 5}], ids=str)
def test_a_quorum_queue_takes_one_more_and_then_none_before_a_fifth_is_free(
        ch: Channel, names: Names, limits: dict[str, int]) -> None:
    """Or more than one: a channel learns of it a little later."""
    queue = declare(ch, names, {"x-overflow": "reject-publish", **limits}, "quorum")
    publisher = ch.client.channel()
    publisher.confirm_select()

    def is_taken() -> bool:
        publisher.publish("", queue, b"0")
        return publisher.confirms(1)[0].acked
    wait_until(lambda: not is_taken())
    assert ready(ch, queue) > 5
    while ready(ch, queue) > 5:
        ch.get(queue, no_ack=True)
    assert not is_taken()
    ch.get(queue, no_ack=True)
    wait_until(is_taken)


def test_a_quorum_queue_refuses_the_latest_too(ch: Channel, names: Names) -> None:
    """RabbitMQ's may accept some more than the limit."""
    queue = declare(ch, names, {"x-max-length": 2, "x-overflow": "reject-publish"}, "quorum")
    accepted: list[str] = []

    def refuses() -> bool:
        body = str(len(accepted))
        if publish_confirmed(ch, queue, body) == [False]:
            return True
        accepted.append(body)
        return False
    wait_until(refuses)
    assert len(accepted) >= 2
    assert drained(ch, queue) == accepted


def test_what_reject_publish_refuses_is_not_dead_lettered(ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, {"x-max-length": 1, "x-overflow": "reject-publish", **letters.arguments})
    assert publish_confirmed(ch, queue, "0", "1") == [True, False]
    assert letters.come() == []


def test_what_reject_publish_dlx_refuses_is_dead_lettered(ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, {"x-max-length": 1, "x-overflow": "reject-publish-dlx", **letters.arguments})
    assert publish_confirmed(ch, queue, "0", "1", "2") == [True, False, False]
    dead = letters.take(2)
    assert shown(dead) == ["1", "2"]
    assert {deaths(letter)[0]["reason"] for letter in dead} == {"maxlen"}


@rejecting
def test_octets_may_be_what_is_too_much(ch: Channel, names: Names, overflow: str) -> None:
    """A smaller message may fit where a larger one did not."""
    queue = declare(ch, names, {"x-max-length-bytes": 10, "x-overflow": overflow})
    bodies = ["4444", "4444", "333", "22", "1", ""]
    assert publish_confirmed(ch, queue, *bodies) == [True, True, False, True, False, True]
    assert drained(ch, queue) == ["4444", "4444", "22", ""]


@rejecting
@pytest.mark.parametrize("make_room", ["get", "purge", "consume"])
def test_publishes_are_accepted_again_once_there_is_room(
        ch: Channel, names: Names, overflow: str, make_room: str) -> None:
    queue = declare(ch, names, {"x-max-length": 1, "x-overflow": overflow})
    assert publish_confirmed(ch, queue, "0", "1") == [True, False]
    {"get": ch.get, "purge": ch.purge, "consume": ch.consume}[make_room](queue)
    if make_room == "consume":
        assert shown(ch.deliveries(1)) == ["0"]
    assert publish_confirmed(ch, queue, "2") == [True]


@rejecting
def test_without_confirms_a_refusal_is_silent(ch: Channel, names: Names, overflow: str) -> None:
    """A mandatory message does not come back either: it was routed."""
    queue = declare(ch, names, {"x-max-length": 1, "x-overflow": overflow})
    for body in (b"0", b"1"):
        ch.publish("", queue, body, mandatory=True)
    assert drained(ch, queue) == ["0"]
    assert ch.sync() == []


@rejecting
def test_one_refusal_among_several_queues_is_a_nack_though_the_others_accept(
        ch: Channel, names: Names, exchange_name: str, overflow: str) -> None:
    full = declare(ch, names, {"x-max-length": 0, "x-overflow": overflow})
    others = [declare(ch, names), declare(ch, names)]
    ch.declare_exchange(exchange_name, "fanout")
    for queue in [others[0], full, others[1]]:
        ch.bind_queue(queue, exchange_name)
    ch.confirm_select()
    ch.publish(exchange_name, "", b"0")
    assert ch.confirms(1) == [(1, False)]
    assert [drained(ch, queue) for queue in others] == [["0"], ["0"]]


def test_a_nack_answers_no_message_that_was_accepted(ch: Channel, names: Names) -> None:
    """Be they confirmed one by one or together: each publish is answered once, rightly."""
    queue = declare(ch, names, {"x-max-length": 14, "x-overflow": "reject-publish"})
    answers = publish_confirmed(ch, queue, *(str(number) for number in range(16)))
    assert answers == 14 * [True] + 2 * [False]


def test_accepted_and_refused_publishes_may_alternate(ch: Channel, names: Names) -> None:
    full, open = declare(ch, names, {"x-max-length": 0, "x-overflow": "reject-publish"}), declare(ch, names)
    ch.confirm_select()
    for number in range(40):
        ch.publish("", (full, open)[number % 2], b"%d" % number)
    assert sorted(ch.confirms(40)) == [(number + 1, bool(number % 2)) for number in range(40)]


@rejecting
def test_a_commit_that_is_refused_a_message_fails(ch: Channel, names: Names, overflow: str) -> None:
    queue = declare(ch, names, {"x-max-length": 1, "x-overflow": overflow})
    ch.tx_select()
    for body in (b"0", b"1"):
        ch.publish("", queue, body)
    ch.send_tx_commit()
    ch.fails(406, "PRECONDITION_FAILED - partial tx completion", *TX_COMMIT)


@pytest.mark.needs("tx-partial-commit")
def test_what_was_accepted_of_a_refused_transaction_stays(ch: Channel, names: Names, broker: Broker) -> None:
    full, open = declare(ch, names, {"x-max-length": 0, "x-overflow": "reject-publish"}), declare(ch, names)
    ch.tx_select()
    ch.publish("", open, b"0")
    ch.publish("", full, b"1")
    ch.send_tx_commit()
    ch.fails(406, "PRECONDITION_FAILED - partial tx completion", *TX_COMMIT)
    assert drained(broker.channel(), open) == ["0"]


# With priorities


@pytest.mark.parametrize("priorities, left", [
    ((0, 5, 3, 1), ["d", "a"]), ((5, 5, 5), ["b", "c"]), ((0, 0, 9), ["a", "b"])], ids=str)
def test_the_highest_priority_is_the_head_that_is_dropped(
        ch: Channel, names: Names, letters: Letters, priorities: tuple[int, ...], left: list[str]) -> None:
    """RabbitMQ's way, odd as it is."""
    queue = declare(ch, names, {"x-max-priority": 5, "x-max-length": 2, **letters.arguments})
    for body, priority in zip("abcd", priorities):
        fill(ch, queue, body, priority=priority)
    assert len(letters.take(len(priorities) - 2)) == len(priorities) - 2
    assert drained(ch, queue) == left


def test_priorities_do_not_matter_to_reject_publish(ch: Channel, names: Names) -> None:
    queue = declare(ch, names, {"x-max-priority": 5, "x-max-length": 2, "x-overflow": "reject-publish"})
    ch.confirm_select()
    for body, priority in ((b"0", 0), (b"1", 1), (b"5", 5)):
        ch.publish("", queue, body, properties=Properties(priority=priority))
    assert sorted(ch.confirms(3)) == [(1, True), (2, True), (3, False)]
    assert drained(ch, queue) == ["1", "0"]
