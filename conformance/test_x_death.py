"""§21 Headers of dead letters: x-death, with an entry for each queue and reason, and the first and last death.

RabbitMQ 3.10 puts the entry of the latest death first and reverses the others, so that the order of more than two is
not reliable. In amqpd the latest is first, as in the documentation. RabbitMQ has `x-last-death-…` since 3.13; amqpd has
it too.
"""
from __future__ import annotations

import time
from typing import Any, Callable

import pytest

from conformance.channel import Channel, Delivery
from conformance.conftest import Broker, Names
from conformance.fields import Array, Double, Long, LongString, Properties, Table, Timestamp, Void
from conformance.letters import Letters, counts, deaths, typed_headers
from conformance.queues import declare, drained, fill, get, of_each_type, publish_confirmed
from conformance.waiting import wait_until

pytestmark = pytest.mark.needs("dead-letters", "message-ttl", "publisher_confirms")

SHORT_MS = 50


def rejected(ch: Channel, names: Names, arguments: dict[str, Any]) -> str:
    """Declare a queue with these arguments, and reject a message in it; return the name of the queue."""
    queue = declare(ch, names, arguments)
    fill(ch, queue, "0")
    ch.reject(get(ch, queue)[0].tag, requeue=False)
    return queue


def expired(ch: Channel, names: Names, arguments: dict[str, Any]) -> str:
    """As above."""
    queue = declare(ch, names, {"x-message-ttl": 0, **arguments})
    fill(ch, queue, "0")
    return queue


def dropped(ch: Channel, names: Names, arguments: dict[str, Any]) -> str:
    """As above."""
    queue = declare(ch, names, {"x-max-length": 0, **arguments})
    fill(ch, queue, "0")
    return queue


def refused(ch: Channel, names: Names, arguments: dict[str, Any]) -> str:
    """As above."""
    queue = declare(ch, names, {"x-max-length": 0, "x-overflow": "reject-publish-dlx", **arguments})
    assert publish_confirmed(ch, queue, "0") == [False]
    return queue


def delivered_too_often(ch: Channel, names: Names, arguments: dict[str, Any]) -> str:
    """As above."""
    queue = declare(ch, names, {"x-delivery-limit": 0, **arguments}, "quorum")
    fill(ch, queue, "0")
    ch.nack(get(ch, queue)[0].tag)
    return queue


REASONS = {
    rejected: "rejected", expired: "expired", dropped: "maxlen", refused: "maxlen",
    delivered_too_often: "delivery_limit"}
each_reason = pytest.mark.parametrize(
    "die, reason", REASONS.items(), ids=[die.__name__ for die in REASONS])
Die = Callable[[Channel, Names, dict[str, Any]], str]


def entry(queue: str, reason: str, count: int = 1) -> dict[str, Any]:
    """An entry of x-death as a client may send it, with a time and an exchange of its own."""
    return {"count": Long(count), "reason": reason, "queue": queue, "time": Timestamp(5), "exchange": "elsewhere",
            "routing-keys": ["key"]}


def published_with(ch: Channel, queue: str, headers: dict[str, Any]) -> None:
    """A message with these headers is published to the queue and rejected."""
    fill(ch, queue, "0", headers=headers)
    ch.reject(get(ch, queue)[0].tag, requeue=False)


# One death


@each_reason
def test_an_entry_tells_queue_reason_time_exchange_and_keys(
        ch: Channel, names: Names, letters: Letters, die: Die, reason: str) -> None:
    before = int(time.time())
    queue = die(ch, names, letters.arguments)
    dead, = letters.take(1)
    death, = deaths(dead)
    assert before - 1 <= death.pop("time") <= time.time() + 1
    assert death == {"count": 1, "reason": reason, "queue": queue, "exchange": "", "routing-keys": [queue]}


@each_reason
def test_an_entry_has_these_types(ch: Channel, names: Names, letters: Letters, die: Die, reason: str) -> None:
    die(ch, names, letters.arguments)
    headers = typed_headers(letters.take(1)[0])
    assert isinstance(headers["x-death"], Array)
    table, = headers["x-death"].value
    assert isinstance(table, Table)
    types = {key: type(value) for key, value in table.value}
    assert types == {"count": Long, "reason": LongString, "queue": LongString, "time": Timestamp,
                     "exchange": LongString, "routing-keys": Array}
    keys = dict(table.value)["routing-keys"]
    assert [type(key) for key in keys.value] == [LongString]


@each_reason
def test_the_first_death_is_told_apart(ch: Channel, names: Names, letters: Letters, die: Die, reason: str) -> None:
    queue = die(ch, names, letters.arguments)
    headers = typed_headers(letters.take(1)[0])
    assert headers["x-first-death-queue"] == LongString(queue)
    assert headers["x-first-death-reason"] == LongString(reason)
    assert headers["x-first-death-exchange"] == LongString("")


@pytest.mark.needs("no-last-death")
def test_there_are_no_other_headers(ch: Channel, names: Names, letters: Letters) -> None:
    rejected(ch, names, letters.arguments)
    assert set(typed_headers(letters.take(1)[0])) == {
        "x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"}


@pytest.mark.needs("last-death")
@each_reason
def test_the_last_death_is_told_apart_too(
        ch: Channel, names: Names, letters: Letters, die: Die, reason: str) -> None:
    queue = die(ch, names, letters.arguments)
    headers = typed_headers(letters.take(1)[0])
    assert headers["x-last-death-queue"] == LongString(queue)
    assert headers["x-last-death-reason"] == LongString(reason)
    assert headers["x-last-death-exchange"] == LongString("")


def test_an_entry_tells_the_exchange_and_all_keys_of_the_publish(
        ch: Channel, names: Names, letters: Letters, exchange_name: str) -> None:
    """CC's, not BCC's."""
    ch.declare_exchange(exchange_name, "topic")
    queue = declare(ch, names, letters.arguments)
    ch.bind_queue(queue, exchange_name, "a.*")
    headers = {"CC": ["c.1", "a.2"], "BCC": ["b.1"]}
    ch.publish(exchange_name, "a.1", b"0", properties=Properties(headers=headers))
    ch.reject(get(ch, queue)[0].tag, requeue=False)
    dead, = letters.take(1)
    death, = deaths(dead)
    assert (death["exchange"], death["routing-keys"]) == (exchange_name, ["a.1", "c.1", "a.2"])
    assert dead.properties.headers["x-first-death-exchange"] == exchange_name


@pytest.mark.parametrize("die", [rejected, expired, dropped], ids=["rejected", "expired", "dropped"])
def test_an_entry_tells_the_expiration_that_was_removed(
        ch: Channel, names: Names, letters: Letters, die: Die) -> None:
    """Of whatever reason the message died."""
    queue = declare(ch, names, {"x-max-length": 1, **letters.arguments})
    expiration = "50" if die is expired else "60000"
    fill(ch, queue, "0", expiration=expiration)
    if die is rejected:
        ch.reject(get(ch, queue)[0].tag, requeue=False)
    if die is dropped:
        fill(ch, queue, "1")
    dead, = letters.take(1)
    table, = typed_headers(dead)["x-death"].value
    assert dict(table.value)["original-expiration"] == LongString(expiration)
    assert dead.properties.expiration is None


def test_a_queues_ttl_is_no_expiration(ch: Channel, names: Names, letters: Letters) -> None:
    expired(ch, names, letters.arguments)
    assert "original-expiration" not in deaths(letters.take(1)[0])[0]


def test_other_headers_stay_with_their_types(ch: Channel, names: Names, letters: Letters) -> None:
    headers = {"z": Long(1), "a": Double(0.5), "": LongString("empty"), "t": Timestamp(7), "n": Void(),
               "l": Array([LongString("x"), Table([("y", Long(2))])])}
    published_with(ch, declare(ch, names, letters.arguments), headers)
    dead = typed_headers(letters.take(1)[0])
    assert {key: dead[key] for key in headers} == headers


@of_each_type
def test_a_message_got_before_its_death_has_no_such_headers(ch: Channel, names: Names, type: str) -> None:
    queue = declare(ch, names, type=type)
    fill(ch, queue, "0")
    assert not {"x-death", "x-first-death-queue"} & set(get(ch, queue)[0].properties.headers or {})


# More deaths


def test_each_queue_has_its_entry_the_latest_first(ch: Channel, names: Names, letters: Letters) -> None:
    second = declare(ch, names, {"x-message-ttl": SHORT_MS, **letters.arguments})
    first = rejected(ch, names, {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": second})
    dead, = letters.take(1)
    assert counts(dead) == [(second, "expired", 1), (first, "rejected", 1)]
    assert [death["routing-keys"] for death in deaths(dead)] == [[second], [first]]


def test_each_entry_tells_where_the_message_was_published_before_that_death(
        ch: Channel, names: Names, letters: Letters) -> None:
    exchanges = [names.exchange() for _ in range(2)]
    for exchange in exchanges:
        ch.declare_exchange(exchange, "fanout")
    second = declare(ch, names, {"x-dead-letter-exchange": exchanges[1]})
    first = declare(ch, names, {"x-dead-letter-exchange": exchanges[0], "x-dead-letter-routing-key": "dead"})
    ch.bind_queue(second, exchanges[0])
    ch.bind_queue(letters.queue, exchanges[1])
    fill(ch, first, "0")
    for queue in (first, second):
        ch.reject(get(ch, queue)[0].tag, requeue=False)
    dead, = letters.take(1)
    assert [(death["exchange"], death["routing-keys"]) for death in deaths(dead)] == [
        (exchanges[0], ["dead"]), ("", [first])]
    assert (dead.exchange, dead.routing_key) == (exchanges[1], "dead")


def test_the_first_death_stays_the_first(ch: Channel, names: Names, letters: Letters) -> None:
    second = declare(ch, names, {"x-message-ttl": SHORT_MS, **letters.arguments})
    first = rejected(ch, names, {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": second})
    headers = letters.take(1)[0].properties.headers
    assert (headers["x-first-death-queue"], headers["x-first-death-reason"]) == (first, "rejected")
    assert headers["x-first-death-exchange"] == ""


@pytest.mark.needs("last-death")
def test_the_last_death_is_always_the_latest(ch: Channel, names: Names, letters: Letters, exchange_name: str) -> None:
    ch.declare_exchange(exchange_name, "fanout")
    second = declare(ch, names, {"x-message-ttl": SHORT_MS, **letters.arguments})
    ch.bind_queue(second, exchange_name)
    rejected(ch, names, {"x-dead-letter-exchange": exchange_name})
    headers = letters.take(1)[0].properties.headers
    assert (headers["x-last-death-queue"], headers["x-last-death-reason"]) == (second, "expired")
    assert headers["x-last-death-exchange"] == exchange_name


def test_the_same_queue_and_reason_are_counted(ch: Channel, names: Names) -> None:
    """In one entry, whose other values stay."""
    queue = declare(ch, names, {"x-dead-letter-exchange": ""})
    fill(ch, queue, "0", expiration="60000")
    seen = []
    for _ in range(4):
        got, = get(ch, queue)
        seen.append(deaths(got) if got.properties.headers else [])
        ch.reject(got.tag, requeue=False)
    first = seen[1][0]
    assert first["original-expiration"] == "60000"
    assert seen == [[], [first], [{**first, "count": 2}], [{**first, "count": 3}]]


def test_the_same_queue_has_an_entry_for_each_reason(ch: Channel, names: Names, letters: Letters) -> None:
    """Rejected, sent back by hand with its headers as applications do, then expired."""
    queue = declare(ch, names, letters.arguments)
    fill(ch, queue, "0")
    ch.reject(get(ch, queue)[0].tag, requeue=False)
    dead, = letters.take(1)
    fill(ch, queue, "0", headers=dict(typed_headers(dead)), expiration="0")
    assert counts(letters.take(1)[0]) == [(queue, "expired", 1), (queue, "rejected", 1)]


def test_a_repeated_death_moves_its_entry_to_the_front(ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, letters.arguments)
    published_with(ch, queue, {"x-death": [entry("other", "expired"), entry(queue, "rejected", 4)]})
    assert counts(letters.take(1)[0]) == [(queue, "rejected", 5), ("other", "expired", 1)]


def three_deaths(ch: Channel, names: Names, letters: Letters) -> tuple[list[str], Delivery]:
    """Return the queues in which a message died, in order, and the dead letter."""
    queues: list[str] = []
    arguments = letters.arguments
    for _ in range(3):
        queues.insert(0, declare(ch, names, arguments))
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queues[0]}
    fill(ch, queues[0], "0")
    for queue in queues:
        ch.reject(get(ch, queue)[0].tag, requeue=False)
    return queues, letters.take(1)[0]


@pytest.mark.needs("x-death-newest-first")
def test_three_entries_are_in_the_order_of_the_deaths(ch: Channel, names: Names, letters: Letters) -> None:
    (first, second, third), dead = three_deaths(ch, names, letters)
    assert counts(dead) == [(third, "rejected", 1), (second, "rejected", 1), (first, "rejected", 1)]


@pytest.mark.needs("x-death-turned-round")
def test_of_three_entries_the_latest_is_first_and_the_others_are_turned_round(
        ch: Channel, names: Names, letters: Letters) -> None:
    (first, second, third), dead = three_deaths(ch, names, letters)
    assert counts(dead) == [(third, "rejected", 1), (first, "rejected", 1), (second, "rejected", 1)]


# What clients send


def test_an_x_death_from_a_client_is_counted_on(ch: Channel, names: Names, letters: Letters) -> None:
    """With the time of the first such death."""
    queue = declare(ch, names, letters.arguments)
    published_with(ch, queue, {"x-death": [entry(queue, "rejected", 7)]})
    death, = deaths(letters.take(1)[0])
    assert death == {"count": 8, "reason": "rejected", "queue": queue, "time": 5, "exchange": "elsewhere",
                     "routing-keys": ["key"]}


def test_an_entry_without_a_count_counts_as_one(ch: Channel, names: Names, letters: Letters) -> None:
    """Brokers before 3.5 sent none."""
    queue = declare(ch, names, letters.arguments)
    published_with(ch, queue, {"x-death": [{"queue": queue, "reason": "rejected"}]})
    assert counts(letters.take(1)[0])[0][:2] == (queue, "rejected")


def test_with_an_x_death_from_a_client_no_first_death_is_told(ch: Channel, names: Names, letters: Letters) -> None:
    published_with(ch, declare(ch, names, letters.arguments), {"x-death": [entry("other", "rejected")]})
    assert "x-first-death-queue" not in letters.take(1)[0].properties.headers


def test_a_first_death_from_a_client_is_replaced(ch: Channel, names: Names, letters: Letters) -> None:
    """Where there is no x-death with it."""
    queue = declare(ch, names, letters.arguments)
    published_with(ch, queue, {"x-first-death-queue": "made up", "x-first-death-reason": 5})
    headers = letters.take(1)[0].properties.headers
    assert (headers["x-first-death-queue"], headers["x-first-death-reason"]) == (queue, "rejected")


@pytest.mark.parametrize("made_up", ["text", 5, None, {"count": 1}, True], ids=str)
def test_an_x_death_that_is_no_array_is_replaced(
        ch: Channel, names: Names, letters: Letters, made_up: Any) -> None:
    queue = declare(ch, names, letters.arguments)
    published_with(ch, queue, {"x-death": made_up})
    assert counts(letters.take(1)[0]) == [(queue, "rejected", 1)]


@pytest.mark.needs("x-death-of-anything")
@pytest.mark.parametrize("made_up", [
    [5, "text"], [{"queue": 5, "reason": []}], [{"count": "many", "queue": "q", "reason": "rejected"}]], ids=str)
def test_an_x_death_of_anything_does_no_harm(ch: Channel, names: Names, letters: Letters, made_up: list) -> None:
    queue = declare(ch, names, letters.arguments)
    published_with(ch, queue, {"x-death": made_up})
    death = deaths(letters.take(1)[0])[0]
    assert (death["queue"], death["reason"], death["count"]) == (queue, "rejected", 1)
    fill(ch, queue, "1")
    assert drained(ch, queue) == ["1"]


@pytest.mark.parametrize("reason, comes_back", [("expired", False), ("rejected", True)])
def test_a_history_from_a_client_counts_when_circles_are_looked_for(
        ch: Channel, names: Names, reason: str, comes_back: bool) -> None:
    """It says that the message has been in the queue that it is dead-lettered to."""
    target = declare(ch, names)
    queue = declare(ch, names, {
        "x-message-ttl": 0, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": target})
    fill(ch, queue, "0", headers={"x-death": [entry(target, reason)]})
    fill(ch, queue, "1")
    wait_until(lambda: ch.get(queue) is None)
    assert drained(ch, target) == (["0", "1"] if comes_back else ["1"])


@pytest.mark.parametrize("others, count", [(0, 2), (1, 3), (2, 4)])
def test_entries_without_a_count_are_counted(
        ch: Channel, names: Names, letters: Letters, others: int, count: int) -> None:
    """By queue and reason, as brokers before 3.5 sent them; and this death is added."""
    queue = declare(ch, names, letters.arguments)
    mine, other = {"queue": queue, "reason": "rejected"}, {"queue": "other", "reason": "expired"}
    published_with(ch, queue, {"x-death": [other, *[mine] * (1 + others), other]})
    assert counts(letters.take(1)[0]) == [(queue, "rejected", count), ("other", "expired", 2)]


def test_of_entries_with_a_count_the_first_holds(ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, letters.arguments)
    published_with(ch, queue, {"x-death": [entry(queue, "rejected", 5), entry(queue, "rejected", 3)]})
    assert counts(letters.take(1)[0]) == [(queue, "rejected", 6)]


def test_an_entry_of_no_queue_stays(ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, letters.arguments)
    published_with(ch, queue, {"x-death": [{"note": "mine"}]})
    death, other = deaths(letters.take(1)[0])
    assert (death["queue"], other) == (queue, {"note": "mine"})


@pytest.mark.parametrize("made_up", [[], "text"], ids=str)
def test_with_any_x_death_from_a_client_no_first_death_is_told(
        ch: Channel, names: Names, letters: Letters, made_up: Any) -> None:
    published_with(ch, declare(ch, names, letters.arguments), {"x-death": made_up})
    assert "x-first-death-queue" not in letters.take(1)[0].properties.headers


@each_reason
def test_the_first_death_is_told_in_the_order_of_the_names(
        ch: Channel, names: Names, letters: Letters, die: Die, reason: str) -> None:
    die(ch, names, letters.arguments)
    names_in_order = [*typed_headers(letters.take(1)[0])]
    assert names_in_order[:4] == ["x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"]


@pytest.mark.parametrize("count, told", [(-5, -4), (0, 1), (2 ** 31, 2 ** 31 + 1)])
def test_any_count_from_a_client_is_counted_on(
        ch: Channel, names: Names, letters: Letters, count: int, told: int) -> None:
    queue = declare(ch, names, letters.arguments)
    published_with(ch, queue, {"x-death": [entry(queue, "rejected", count)]})
    assert counts(letters.take(1)[0]) == [(queue, "rejected", told)]


@pytest.mark.needs("death-counts-stay")
def test_the_highest_count_stays(ch: Channel, names: Names, letters: Letters) -> None:
    queue = declare(ch, names, letters.arguments)
    published_with(ch, queue, {"x-death": [entry(queue, "rejected", 2 ** 63 - 1)]})
    assert counts(letters.take(1)[0]) == [(queue, "rejected", 2 ** 63 - 1)]


@pytest.mark.parametrize("headers", [
    {f"{number:05}": True for number in range(4_090)}, {f"{number:05}": True for number in range(16_000)},
    {"a": list(range(20_000))}], ids=["4,090 fields", "16,000 fields", "20,000 elements"])
def test_a_large_table_dies_as_any_other(
        ch: Channel, names: Names, letters: Letters, headers: dict[str, Any]) -> None:
    """Though it is larger than a frame then, which only the largest of them is."""
    queue = expired(ch, names, letters.arguments)
    letters.take(1)
    fill(ch, queue, "1", headers=headers)
    dead, = letters.take(1)
    assert counts(dead) == [(queue, "expired", 1)]
    assert {key: dead.properties.headers[key] for key in headers} == headers


@of_each_type
def test_a_dead_letter_whose_header_is_larger_than_a_frame_is_delivered_all_the_same(
        ch: Channel, broker: Broker, names: Names, letters: Letters, type: str) -> None:
    """In one frame, for a content has but one header; and a large header is, to a client of small frames."""
    queue = declare(ch, names, letters.arguments, type=type)
    fill(ch, queue, "0", headers={"a": "x" * 131_000})
    ch.reject(get(ch, queue)[0].tag, requeue=False)
    dead, = letters.take(1)
    assert counts(dead) == [(queue, "rejected", 1)]
    assert len(dead.header) > 131_072
    small = broker.channel(frame_max=4_096)
    fill(ch, queue, "0", headers={"a": "x" * 131_000})
    assert len(get(small, queue)[0].header) > 131_000
