"""§21 Dead-lettering: which messages, to which queues, with which keys and properties, and where cycles end.

The headers of dead letters are in `test_x_death`.
"""
from __future__ import annotations

from typing import Any, Callable

import pytest

from conformance.channel import Channel
from conformance.conftest import Names
from conformance.fields import Properties
from conformance.letters import Letters, counts
from conformance.queues import (
    Stopwatch, declare, drained, fill, get, let_pass, of_each_type, publish_confirmed, ready, shown)
from conformance.routes import Routes
from conformance.waiting import wait_until

pytestmark = pytest.mark.needs("dead-letters", "message-ttl", "length-limits", "publisher_confirms")

SHORT_MS = 50
REJECT: dict[str, Callable[[Channel, int], None]] = {
    "reject": lambda ch, tag: ch.reject(tag, requeue=False), "nack": lambda ch, tag: ch.nack(tag, requeue=False)}
rejecting = pytest.mark.parametrize("reject", REJECT.values(), ids=REJECT)


def dead_lettering_to(exchange: str, key: str | None = None) -> dict[str, str]:
    """Arguments of a queue with this dead-letter exchange, and this key where one is given."""
    keys = {} if key is None else {"x-dead-letter-routing-key": key}
    return {"x-dead-letter-exchange": exchange, **keys}


def kill(ch: Channel, queue: str, *bodies: str, **properties: Any) -> None:
    """Publish to a queue, get and reject."""
    fill(ch, queue, *bodies, **properties)
    for got in get(ch, queue, len(bodies)):
        ch.reject(got.tag, requeue=False)


# Which messages


@of_each_type
@rejecting
def test_what_is_rejected_is_dead_lettered(
        ch: Channel, names: Names, letters: Letters, type: str, reject: Callable[[Channel, int], None]) -> None:
    queue = declare(ch, names, letters.arguments, type)
    fill(ch, queue, "0", "1")
    reject(ch, get(ch, queue)[0].tag)
    assert shown(letters.take(1)) == ["0"]
    assert drained(ch, queue) == ["1"]


@rejecting
def test_a_consumers_delivery_may_be_rejected(
        ch: Channel, names: Names, letters: Letters, reject: Callable[[Channel, int], None]) -> None:
    """Which makes room for its next one."""
    queue = declare(ch, names, letters.arguments)
    ch.qos(1)
    ch.consume(queue)
    fill(ch, queue, "0", "1")
    reject(ch, ch.deliveries(1)[0].tag)
    assert shown(ch.deliveries(1)) == ["1"]
    assert shown(letters.take(1)) == ["0"]


def test_several_are_dead_lettered_by_one_nack_in_their_order(
        ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, letters.arguments)
    fill(ch, queue, *"012345")
    get(ch, queue, 6)
    ch.reject(4, requeue=False)
    ch.nack(5, multiple=True, requeue=False)
    assert shown(letters.take(5)) == ["3", "0", "1", "2", "4"]
    ch.nack(0, multiple=True, requeue=False)
    assert shown(letters.take(1)) == ["5"]


@pytest.mark.parametrize("settle", [
    lambda ch: ch.ack(1), lambda ch: ch.nack(1), lambda ch: ch.reject(1), lambda ch: ch.recover(),
    lambda ch: ch.close()], ids=["ack", "requeueing nack", "requeueing reject", "recover", "close"])
def test_what_is_acked_or_requeued_is_not_dead_lettered(
        ch: Channel, names: Names, letters: Letters, settle: Callable[[Channel], None]) -> None:
    queue = declare(ch, names, letters.arguments)
    taker = ch.client.channel()
    fill(ch, queue, "0")
    get(taker, queue)
    settle(taker)
    drained(ch, queue)
    assert letters.come() == []


def test_what_needs_no_ack_is_not_dead_lettered(ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, letters.arguments)
    fill(ch, queue, "0", "1")
    ch.get(queue, no_ack=True)
    ch.consume(queue, no_ack=True)
    ch.deliveries(1)
    assert letters.come() == []


def test_a_rejection_in_a_transaction_is_held_until_commit(ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, letters.arguments)
    fill(ch, queue, "0", "1")
    tx = ch.client.channel()
    tx.tx_select()
    get(tx, queue, 2)
    tx.nack(1, requeue=False)
    tx.sync()
    assert ch.get(queue) is None
    assert letters.come() == []
    tx.tx_commit()
    assert shown(letters.take(1)) == ["0"]
    tx.nack(2, requeue=False)
    tx.tx_rollback()
    assert ch.get(queue) is None
    assert letters.come() == []


@of_each_type
def test_without_a_dead_letter_exchange_what_is_rejected_is_dropped(ch: Channel, names: Names, type: str) -> None:
    queue = declare(ch, names, type=type)
    kill(ch, queue, "0", "1")
    assert ch.get(queue) is None


# Where to


@of_each_type
@pytest.mark.parametrize("exchange_type", ["direct", "fanout", "topic"])
def test_a_dead_letter_is_published_to_the_dead_letter_exchange(
        ch: Channel, names: Names, letters: Letters, exchange_name: str, type: str, exchange_type: str) -> None:
    """By the key it was published with, unless the queue has one for its dead letters."""
    ch.declare_exchange(exchange_name, exchange_type)
    queue = declare(ch, names, dead_lettering_to(exchange_name), type)
    ch.bind_queue(letters.queue, exchange_name, queue)
    kill(ch, queue, "0")
    dead, = letters.take(1)
    assert (dead.exchange, dead.routing_key, dead.redelivered) == (exchange_name, queue, False)


@of_each_type
@pytest.mark.parametrize("key", ["dead", ""])
def test_a_queue_may_have_a_key_for_its_dead_letters(
        ch: Channel, names: Names, letters: Letters, exchange_name: str, type: str, key: str) -> None:
    ch.declare_exchange(exchange_name, "direct")
    queue = declare(ch, names, dead_lettering_to(exchange_name, key), type)
    ch.bind_queue(letters.queue, exchange_name, key)
    kill(ch, queue, "0")
    dead, = letters.take(1)
    assert (dead.exchange, dead.routing_key) == (exchange_name, key)


def test_the_key_it_was_published_with_may_be_any(
        ch: Channel, names: Names, letters: Letters, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "topic")
    ch.bind_queue(letters.queue, exchange_name, "a.#")
    queue = declare(ch, names, dead_lettering_to(exchange_name))
    ch.bind_queue(queue, "amq.fanout")
    ch.publish("amq.fanout", "a.b.c", b"0")
    ch.reject(get(ch, queue)[0].tag, requeue=False)
    assert letters.take(1)[0].routing_key == "a.b.c"


def test_a_headers_exchange_may_route_by_the_reason(
        ch: Channel, names: Names, letters: Letters, exchange_name: str) -> None:
    """The headers are there when the dead letter is routed."""
    ch.declare_exchange(exchange_name, "headers")
    queue = declare(ch, names, dead_lettering_to(exchange_name))
    ch.bind_queue(letters.queue, exchange_name, "", {"x-match": "all-with-x", "x-first-death-reason": "rejected"})
    fill(ch, queue, "0", expiration=str(SHORT_MS))
    wait_until(lambda: ready(ch, queue) == 0)
    kill(ch, queue, "1")
    assert shown(letters.take(1)) == ["1"]


def test_every_queue_bound_to_it_gets_a_copy(ch: Channel, names: Names, routes: Routes, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "fanout")
    copies = [routes.queue(exchange_name, "") for _ in range(3)]
    kill(ch, declare(ch, names, dead_lettering_to(exchange_name)), "0", "1")
    assert [shown(get(ch, copy, 2)) for copy in copies] == 3 * [["0", "1"]]


def test_an_internal_exchange_takes_dead_letters(
        ch: Channel, names: Names, letters: Letters, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "fanout", internal=True)
    ch.bind_queue(letters.queue, exchange_name)
    kill(ch, declare(ch, names, dead_lettering_to(exchange_name)), "0")
    assert shown(letters.take(1)) == ["0"]


def test_bindings_between_exchanges_hold_for_dead_letters(ch: Channel, names: Names, letters: Letters) -> None:
    source, destination = names.exchange(), names.exchange()
    for exchange in (source, destination):
        ch.declare_exchange(exchange, "fanout")
    ch.bind_exchange(destination, source)
    ch.bind_queue(letters.queue, destination)
    kill(ch, declare(ch, names, dead_lettering_to(source)), "0")
    assert letters.take(1)[0].exchange == source


def test_the_alternate_of_the_dead_letter_exchange_gets_what_it_cannot_route(
        ch: Channel, names: Names, letters: Letters) -> None:
    alternate, exchange = names.exchange(), names.exchange()
    ch.declare_exchange(alternate, "fanout")
    ch.declare_exchange(exchange, "direct", arguments={"alternate-exchange": alternate})
    ch.bind_queue(letters.queue, alternate)
    kill(ch, declare(ch, names, dead_lettering_to(exchange)), "0")
    assert letters.take(1)[0].exchange == exchange


@of_each_type
def test_a_dead_letter_that_goes_nowhere_is_dropped(
        ch: Channel, names: Names, exchange_name: str, type: str) -> None:
    ch.declare_exchange(exchange_name, "direct")
    queue = declare(ch, names, dead_lettering_to(exchange_name), type)
    kill(ch, queue, "0")
    assert ch.get(queue) is None
    assert ch.sync() == []


@of_each_type
def test_where_the_dead_letter_exchange_is_missing_they_are_dropped(
        ch: Channel, names: Names, letters: Letters, exchange_name: str, type: str) -> None:
    """It may be declared and deleted at any time."""
    queue = declare(ch, names, dead_lettering_to(exchange_name), type)
    kill(ch, queue, "no exchange yet")
    assert ch.get(queue) is None
    ch.declare_exchange(exchange_name, "fanout")
    ch.bind_queue(letters.queue, exchange_name)
    kill(ch, queue, "exchange")
    assert shown(letters.take(1)) == ["exchange"]
    ch.delete_exchange(exchange_name)
    kill(ch, queue, "no exchange any more")
    assert ch.get(queue) is None
    assert letters.come() == []


def test_a_dead_letter_that_its_queue_refuses_is_dropped(ch: Channel, names: Names) -> None:
    full = declare(ch, names, {"x-max-length": 1, "x-overflow": "reject-publish"})
    queue = declare(ch, names, dead_lettering_to("", full))
    kill(ch, queue, "0", "1", "2")
    assert ch.get(queue) is None
    assert drained(ch, full) == ["0"]


def test_a_dead_letter_may_go_to_a_quorum_queue(ch: Channel, names: Names) -> None:
    quorum = declare(ch, names, type="quorum")
    kill(ch, declare(ch, names, dead_lettering_to("", quorum)), "0")
    assert shown(get(ch, quorum)) == ["0"]


def test_a_dead_letter_takes_its_priority_along(ch: Channel, names: Names) -> None:
    by_priority = declare(ch, names, {"x-max-priority": 5})
    queue = declare(ch, names, dead_lettering_to("", by_priority))
    for priority in (1, 5, 3):
        fill(ch, queue, str(priority), priority=priority)
    get(ch, queue, 3)
    ch.nack(0, multiple=True, requeue=False)
    wait_until(lambda: ready(ch, by_priority) == 3)
    assert drained(ch, by_priority) == ["5", "3", "1"]


# Further keys


def test_without_a_key_for_dead_letters_cc_is_routed_too_and_stays(
        ch: Channel, names: Names, letters: Letters, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "direct")
    queue, other = declare(ch, names, dead_lettering_to(exchange_name)), declare(ch, names)
    ch.bind_queue(letters.queue, exchange_name, queue)
    ch.bind_queue(other, exchange_name, "copy")
    kill(ch, queue, "0", headers={"CC": ["copy"]})
    for dead in letters.take(1) + get(ch, other):
        assert dead.routing_key == queue
        assert dead.properties.headers["CC"] == ["copy"]


def test_with_a_key_for_dead_letters_cc_is_removed(
        ch: Channel, names: Names, letters: Letters, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "direct")
    queue, other = declare(ch, names, dead_lettering_to(exchange_name, "dead")), declare(ch, names)
    ch.bind_queue(letters.queue, exchange_name, "dead")
    ch.bind_queue(other, exchange_name, "copy")
    kill(ch, queue, "0", headers={"CC": ["copy"], "a": 1})
    headers = letters.take(1)[0].properties.headers
    assert "CC" not in headers and headers["a"] == 1
    assert ch.get(other) is None


@pytest.mark.parametrize("key", [None, "dead"])
def test_bcc_has_been_removed_before(
        ch: Channel, names: Names, letters: Letters, exchange_name: str, key: str | None) -> None:
    ch.declare_exchange(exchange_name, "direct")
    queue = declare(ch, names, dead_lettering_to(exchange_name, key))
    ch.bind_queue(letters.queue, exchange_name, key or queue)
    kill(ch, queue, "0", headers={"BCC": ["copy"], "a": 1})
    headers = letters.take(1)[0].properties.headers
    assert "BCC" not in headers and headers["a"] == 1


@pytest.mark.needs("bcc-kept-for-dead-letters")
def test_without_a_key_for_dead_letters_those_of_bcc_are_routed_though_the_header_is_gone(
        ch: Channel, names: Names, letters: Letters, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "direct")
    queue = declare(ch, names, dead_lettering_to(exchange_name))
    ch.bind_queue(letters.queue, exchange_name, "copy")
    kill(ch, queue, "0", headers={"BCC": ["copy"]})
    assert shown(letters.take(1)) == ["0"]


# Properties


@of_each_type
def test_all_properties_stay_but_the_expiration(ch: Channel, names: Names, letters: Letters, type: str) -> None:
    properties = Properties(
        content_type="text/plain", content_encoding="utf-8", headers={"a": 1, "ü": ["ß", {"c": None}]},
        delivery_mode=2, priority=7, correlation_id="correlation", reply_to="reply", expiration="60000",
        message_id="id", timestamp=1_700_000_000, type="type", user_id="guest", app_id="app", cluster_id="cluster")
    queue = declare(ch, names, letters.arguments, type)
    kill(ch, queue, "0", **vars(properties))
    dead, = letters.take(1)
    expected = {**vars(properties), "expiration": None}
    ours = {**expected, "headers": {**dead.properties.headers, **properties.headers}}
    assert vars(dead.properties) == ours


def test_a_letter_without_expiration_does_not_expire_again(ch: Channel, names: Names) -> None:
    last = declare(ch, names)
    queue = declare(ch, names, dead_lettering_to("", last))
    fill(ch, queue, "0", expiration=str(SHORT_MS))
    wait_until(lambda: ready(ch, last) == 1)
    let_pass(2 * SHORT_MS)
    assert drained(ch, last) == ["0"]


def test_a_large_body_stays_whole(ch: Channel, names: Names, letters: Letters) -> None:
    body = bytes(range(256)) * 4096
    queue = declare(ch, names, letters.arguments)
    ch.publish("", queue, body)
    ch.reject(get(ch, queue)[0].tag, requeue=False)
    assert letters.take(1)[0].body == body


# Confirms


def test_a_publish_is_confirmed_once_whatever_becomes_of_the_message(
        ch: Channel, names: Names, letters: Letters) -> None:
    """Its dead letter is none of the publisher's publishes."""
    queue = declare(ch, names, {"x-max-length": 1, "x-message-ttl": SHORT_MS, **letters.arguments})
    ch.confirm_select()
    for number in range(20):
        ch.publish("", queue, b"%d" % number)
    assert sorted(ch.confirms(20)) == [(number, True) for number in range(1, 21)]
    letters.take(20)
    assert ch.sync() == []


def test_a_mandatory_message_does_not_come_back_when_its_dead_letter_goes_nowhere(
        ch: Channel, names: Names) -> None:
    queue = declare(ch, names, {"x-message-ttl": 0, **dead_lettering_to("", "nowhere")})
    ch.publish("", queue, b"0", mandatory=True)
    assert ch.get(queue) is None
    assert ch.sync() == []


# Chains


def test_dead_letters_may_die_again(ch: Channel, names: Names, letters: Letters) -> None:
    """Of their own queue's ttl, which begins anew."""
    chain = letters.arguments
    for _ in range(4):
        chain = dead_lettering_to("", declare(ch, names, {"x-message-ttl": SHORT_MS, **chain}))
    watch = Stopwatch()
    kill(ch, declare(ch, names, chain), "0", "1")
    assert shown(letters.take(2)) == ["0", "1"]
    assert watch.ms >= 4 * SHORT_MS


def test_a_message_may_be_retried_after_a_while_again_and_again(ch: Channel, names: Names) -> None:
    """Rejected into a queue that nobody consumes, from which it expires back."""
    work, wait = names.queue(), names.queue()
    ch.declare_queue(work, arguments=dead_lettering_to("", wait))
    ch.declare_queue(wait, arguments={"x-message-ttl": SHORT_MS, **dead_lettering_to("", work)})
    ch.consume(work)
    watch = Stopwatch()
    fill(ch, work, "0")
    for attempt in range(5):
        delivery, = ch.deliveries(1)
        assert watch.ms >= attempt * SHORT_MS
        seen = [(wait, "expired", attempt), (work, "rejected", attempt)] if attempt else []
        assert (counts(delivery) if attempt else []) == seen
        assert not delivery.redelivered
        ch.reject(delivery.tag, requeue=False)


# Circles


def test_a_rejected_message_may_come_back_to_its_own_queue(ch: Channel, names: Names) -> None:
    queue = declare(ch, names, dead_lettering_to(""))
    ch.consume(queue)
    fill(ch, queue, "0")
    for attempt in range(4):
        delivery, = ch.deliveries(1)
        assert (counts(delivery) if attempt else []) == ([(queue, "rejected", attempt)] if attempt else [])
        ch.reject(delivery.tag, requeue=False)
    ch.deliveries(1)


@pytest.mark.parametrize("arguments, published, left", [
    ({"x-message-ttl": SHORT_MS}, ["0"], []), ({"x-max-length": 1}, ["0", "1"], ["1"])], ids=["ttl", "maxlen"])
def test_a_message_that_would_come_back_to_its_own_queue_by_itself_is_dropped(
        ch: Channel, names: Names, arguments: dict[str, int], published: list[str], left: list[str]) -> None:
    queue = declare(ch, names, {**arguments, **dead_lettering_to("")})
    fill(ch, queue, *published)
    let_pass(2 * SHORT_MS)
    assert drained(ch, queue) == left


def test_a_message_refused_may_not_come_back_to_its_own_queue(ch: Channel, names: Names) -> None:
    queue = declare(ch, names, {
        "x-max-length": 1, "x-overflow": "reject-publish-dlx", **dead_lettering_to("")})
    assert publish_confirmed(ch, queue, "0", "1") == [True, False]
    assert drained(ch, queue) == ["0"]


@pytest.mark.parametrize("length", [2, 3])
def test_a_message_that_goes_in_a_circle_by_itself_is_dropped_on_its_return(
        ch: Channel, names: Names, letters: Letters, exchange_name: str, length: int) -> None:
    """It reaches every queue of the circle once. A copy of each letter is taken on the way, so that we see them all."""
    ch.declare_exchange(exchange_name, "topic")
    circle = [names.queue() for _ in range(length)]
    for queue, following in zip(circle, circle[1:] + circle[:1]):
        ch.declare_queue(queue, arguments={"x-message-ttl": SHORT_MS, **dead_lettering_to(exchange_name, following)})
        ch.bind_queue(queue, exchange_name, queue)
    ch.bind_queue(letters.queue, exchange_name, "#")
    fill(ch, circle[0], "0")
    passed = [letter.routing_key for letter in letters.take(length)]
    assert passed == circle[1:] + circle[:1]
    let_pass(3 * SHORT_MS)
    assert letters.come() == []
    assert [ready(ch, queue) for queue in circle] == length * [0]


def test_only_the_queue_it_would_come_back_to_is_passed_over(
        ch: Channel, names: Names, letters: Letters, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "fanout")
    queue = declare(ch, names, {"x-message-ttl": SHORT_MS, **dead_lettering_to(exchange_name)})
    for bound in (queue, letters.queue):
        ch.bind_queue(bound, exchange_name)
    fill(ch, queue, "0")
    assert shown(letters.take(1)) == ["0"]
    assert drained(ch, queue) == []


def test_a_rejection_on_the_way_lets_it_come_back(ch: Channel, names: Names) -> None:
    """From the first queue by ttl, from the second by a consumer."""
    first, second = names.queue(), names.queue()
    ch.declare_queue(first, arguments={"x-message-ttl": SHORT_MS, **dead_lettering_to("", second)})
    ch.declare_queue(second, arguments=dead_lettering_to("", first))
    ch.consume(second)
    fill(ch, first, "0")
    for attempt in range(1, 4):
        delivery, = ch.deliveries(1)
        assert counts(delivery)[0] == (first, "expired", attempt)
        ch.reject(delivery.tag, requeue=False)


@pytest.mark.needs("x-death-newest-first")
def test_a_rejection_before_the_circle_does_not_keep_it_going(
        ch: Channel, names: Names, letters: Letters, exchange_name: str) -> None:
    """Rejected once into two queues that dead-letter to each other by ttl."""
    ch.declare_exchange(exchange_name, "topic")
    first, second = names.queue(), names.queue()
    for queue, following in ((first, second), (second, first)):
        ch.declare_queue(queue, arguments={"x-message-ttl": SHORT_MS, **dead_lettering_to(exchange_name, following)})
        ch.bind_queue(queue, exchange_name, queue)
    ch.bind_queue(letters.queue, exchange_name, "#")
    kill(ch, declare(ch, names, dead_lettering_to(exchange_name, first)), "0")
    assert [letter.routing_key for letter in letters.take(3)] == [first, second, first]
    let_pass(3 * SHORT_MS)
    assert letters.come() == []
