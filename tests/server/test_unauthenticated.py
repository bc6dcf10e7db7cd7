"""Clients that have not logged in: how they are counted, and which one is disconnected for a new one."""

from __future__ import annotations

import random

import pytest

from amqpd.server.unauthenticated import LONG_PATIENCE_MS, PATIENCE_MS, Unauthenticated

START_MS = 100_000


@pytest.fixture
def clients() -> Unauthenticated[str]:
    """Return a limit of four clients, two of them from one address."""
    return Unauthenticated(4, 2)


def come(clients: Unauthenticated[str], client: str, address: str, now_ms: int = START_MS) -> None:
    clients.add(client, address)
    clients.expect_progress(client, now_ms)


def test_clients_are_counted_for_their_address(clients: Unauthenticated[str]) -> None:
    come(clients, "a", "10.0.0.1")
    assert clients.has_room("10.0.0.1") and len(clients) == 1
    come(clients, "b", "10.0.0.1")
    assert not clients.has_room("10.0.0.1") and clients.has_room("10.0.0.2")
    clients.remove("a")
    clients.remove("a")
    assert clients.has_room("10.0.0.1") and len(clients) == 1


def test_nobody_goes_who_has_just_come(clients: Unauthenticated[str]) -> None:
    come(clients, "a", "10.0.0.1")
    assert clients.longest_silent(START_MS + PATIENCE_MS - 1) is None
    assert clients.longest_silent(START_MS + PATIENCE_MS) == "a"


def test_who_made_no_progress_for_longest_goes_first(clients: Unauthenticated[str]) -> None:
    for client, address in (("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.1")):
        come(clients, client, address)
    clients.note_step("a", START_MS + 1)
    clients.expect_progress("a", START_MS + 1)
    late = START_MS + LONG_PATIENCE_MS + 1
    assert [clients.longest_silent(late, address) for address in (None, "10.0.0.1", "10.0.0.2", "10.0.0.3")] == [
        "b", "c", "b", None]


def test_who_waits_for_us_does_not_go(clients: Unauthenticated[str]) -> None:
    come(clients, "a", "10.0.0.1")
    clients.note_step("a", START_MS)
    assert clients.longest_silent(START_MS + 60_000) is None


def test_where_others_make_progress_there_is_more_patience(clients: Unauthenticated[str]) -> None:
    come(clients, "slow", "10.0.0.1")
    come(clients, "quick", "10.0.0.1")
    clients.note_step("quick", START_MS + PATIENCE_MS)
    assert clients.longest_silent(START_MS + PATIENCE_MS, "10.0.0.1") is None
    assert clients.longest_silent(START_MS + LONG_PATIENCE_MS, "10.0.0.1") == "slow"
    come(clients, "other", "10.0.0.2")
    assert clients.longest_silent(START_MS + PATIENCE_MS, "10.0.0.2") == "other"


def test_time_in_which_nobody_could_be_heard_does_not_count(clients: Unauthenticated[str]) -> None:
    come(clients, "a", "10.0.0.1")
    clients.excuse(40_000, START_MS + 40_000)
    assert clients.longest_silent(START_MS + 40_000 + PATIENCE_MS - 1) is None
    assert clients.longest_silent(START_MS + 40_000 + PATIENCE_MS) == "a"


def test_nothing_is_left_of_those_that_have_gone(clients: Unauthenticated[str]) -> None:
    pick = random.Random(5)
    there: set[str] = set()
    for number in range(2_000):
        client = str(number)
        come(clients, client, f"10.0.0.{pick.randrange(9)}", number)
        there.add(client)
        for other in pick.sample(sorted(there), min(2, len(there))):
            pick.choice([clients.expect_nothing, clients.remove, clients.remove])(other)
            there = {client for client in there if client in clients._addresses}
    for client in there:
        clients.remove(client)
    assert len(clients) == 0 and clients.longest_silent(1 << 40) is None
    assert not (clients._counts or clients._silent or clients._silent_of or clients._addresses)
    assert clients._stepped_ms.keys() <= {None}
