"""A queue in which addresses, and the users of each, take turns; and a limit of the rate for each name."""

from __future__ import annotations

from amqpd.server import fair_queue
from amqpd.server.fair_queue import FairQueue
from amqpd.server.pace import Pace


def drain(queue: FairQueue[str]) -> list[str]:
    items = []
    while (item := queue.take()) is not None:
        items.append(item)
    return items


def test_addresses_take_turns_and_within_them_users() -> None:
    queue: FairQueue[str] = FairQueue(lambda item: True)
    for number in range(4):
        queue.put("10.0.0.1", "guessed", f"guess {number}")
    queue.put("10.0.0.1", "honest", "honest")
    queue.put("10.0.0.2", "other", "other")
    assert len(queue) == 6
    assert drain(queue) == ["guess 0", "other", "honest", "guess 1", "guess 2", "guess 3"]
    assert len(queue) == 0


def test_what_is_not_wanted_any_more_is_not_given_out() -> None:
    wanted = {"b", "d"}
    queue: FairQueue[str] = FairQueue(lambda item: item in wanted)
    for item in "abcd":
        queue.put("10.0.0.1", "user", item)
    assert drain(queue) == ["b", "d"]


def test_what_is_not_wanted_any_more_is_not_kept_either() -> None:
    asked: list[str] = []

    def is_wanted(item: str) -> bool:
        asked.append(item)
        return item.startswith("wanted")

    queue: FairQueue[str] = FairQueue(is_wanted)
    for number in range(3):
        queue.put("10.0.0.1", "user", f"wanted {number}")
    for number in range(10_000):
        queue.put(f"10.0.0.{number % 5}", f"user {number % 7}", f"gone {number}")
        assert len(queue) <= fair_queue.FEWEST_SWEPT
    assert drain(queue) == ["wanted 0", "wanted 1", "wanted 2"]
    assert len(asked) < 12_000, "each item is looked at about once"


def test_so_many_come_at_once_and_then_one_in_an_interval() -> None:
    pace = Pace(3, 1_000, 10_000)
    assert [pace.delay_ms("a", 0) for _ in range(6)] == [0, 0, 0, 1_000, 2_000, 3_000]
    assert pace.delay_ms("b", 0) == 0
    assert pace.delay_ms("a", 6_000) == 0


def test_nothing_waits_longer_than_the_longest_delay_nor_is_that_held_against_anybody_for_ever() -> None:
    pace = Pace(1, 1_000, 5_000)
    assert max(pace.delay_ms("a", 0) for _ in range(1_000)) == 5_000
    assert pace.delay_ms("a", 6_000) == 0


def test_only_so_many_names_are_remembered() -> None:
    paces = Pace(1, 1_000, 10_000, most_names=10)
    for number in range(1_000):
        paces.delay_ms(f"name {number}", 0)
    assert len(paces._used_until) == 10
    assert paces.delay_ms("name 999", 0) == 1_000
