"""Which clients are read in a turn, and how much of each."""

from __future__ import annotations

import pytest

from amqpd.server.read_shares import MOST, SCRAP, TURN_STEPS, ReadShares


class FakeReader:
    """A client that sends messages of 100 octets, a step each, as fast as it is read."""

    def __init__(self, name: str, has: int) -> None:
        self.name = name
        self.has = has              # octets that have come
        self.expected_steps = 0
        self.has_rested = False
        self.is_paused = False

    def resume_reading(self) -> None:
        self.is_paused = False


class Loop:
    """Turns of an event loop over some clients; what each brought in a turn."""

    def __init__(self, *readers: FakeReader) -> None:
        self.readers = readers
        self.shares = ReadShares()

    def turn(self) -> dict[str, int]:
        brought = {}
        for reader in self.readers:
            if reader.is_paused or not reader.has:
                continue
            size = self.shares.size(reader)
            octets = brought[reader.name] = min(size, reader.has)
            reader.has -= octets
            if self.shares.has_read(reader, octets, size, octets // 100):
                reader.is_paused = True
                self.shares.rest(reader)
        self.shares.begin_turn()
        self.shares.resume(with_held=True)
        return brought


def test_a_client_that_is_alone_is_read_in_every_turn() -> None:
    loop = Loop(FakeReader("one", 10 * MOST))
    assert [loop.turn() for _ in range(3)] == 3 * [{"one": MOST}]
    assert not loop.shares.has_resting


def test_clients_that_send_much_take_turns() -> None:
    loop = Loop(*[FakeReader(name, 100 * MOST) for name in "abcd"])
    for _ in range(4):
        loop.turn()     # until it is known how much each sends
    turns = [loop.turn() for _ in range(40)]
    assert all(sum(turn.values()) <= 2 * MOST for turn in turns)
    totals = [sum(turn.get(name, 0) for turn in turns) for name in "abcd"]
    assert max(totals) - min(totals) <= MOST + SCRAP


def test_a_client_with_little_is_read_in_every_turn_whole() -> None:
    small = FakeReader("small", 0)
    loop = Loop(*[FakeReader(name, 100 * MOST) for name in "abcdefgh"], small)
    for _ in range(20):
        small.has = 100
        assert loop.turn()["small"] == 100
    assert not small.is_paused


def test_large_messages_make_little_work_so_that_more_are_read_in_a_turn() -> None:
    readers = [FakeReader(name, 100 * MOST) for name in "abcd"]
    shares = ReadShares()
    for reader in readers:
        assert shares.size(reader) == MOST
        shares.has_read(reader, MOST, MOST, MOST // 100_000)
        shares.rest(reader)
        reader.is_paused = True
    shares.begin_turn()
    shares.resume(with_held=False)
    assert not any(reader.is_paused for reader in readers)


@pytest.mark.parametrize("expected, resumed", [(0, 3), (TURN_STEPS // 2, 2), (TURN_STEPS, 1), (10 * TURN_STEPS, 1)])
def test_as_many_are_resumed_as_there_is_time_for(expected: int, resumed: int) -> None:
    shares = ReadShares()
    readers = [FakeReader(name, 0) for name in "abc"]
    for reader in readers:
        reader.expected_steps, reader.is_paused = expected, True
        shares.rest(reader)
    shares.resume(with_held=False)
    assert [reader.is_paused for reader in readers] == resumed * [False] + (3 - resumed) * [True]


def test_who_sends_little_is_resumed_before_those_who_send_much() -> None:
    shares, much, little = ReadShares(), FakeReader("much", 0), FakeReader("little", 0)
    other = FakeReader("other", 0)
    much.expected_steps = other.expected_steps = 10 * TURN_STEPS
    for reader in (much, other, little):
        reader.is_paused = True
        shares.rest(reader)
    shares.resume(with_held=False)
    assert (much.is_paused, other.is_paused, little.is_paused) == (False, True, False)
    assert shares.has_resting


def test_a_scrap_does_not_tell_how_much_a_client_sends() -> None:
    shares, reader = ReadShares(), FakeReader("one", 0)
    shares.has_read(reader, SCRAP, SCRAP, 1)
    assert reader.expected_steps >= TURN_STEPS // 4
    shares.has_read(reader, 10, MOST, 1)
    assert reader.expected_steps == 1


def test_who_is_held_is_resumed_once_more_can_be_taken() -> None:
    shares, reader = ReadShares(), FakeReader("one", 1)
    reader.is_paused = True
    shares.hold(reader)
    assert shares.has_waiting and not shares.has_resting
    shares.resume(with_held=False)
    assert reader.is_paused and shares.has_waiting
    shares.resume(with_held=True)
    assert not reader.is_paused and not shares.has_waiting
