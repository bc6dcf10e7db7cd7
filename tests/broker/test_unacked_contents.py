"""When channels release the contents of unacked messages: after a whole round, and only channels that have some."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from amqpd.broker.effort import Effort
from amqpd.broker.unacked_contents import UnackedContents
from amqpd.broker.worklist import Worklist

LIMIT = 1_000


class Channel:
    """Counts how often it was asked; `pieces` is how many it takes each time."""

    def __init__(self, *, holds_contents: bool = False, pieces: int = 1) -> None:
        self.holds_contents = holds_contents
        self.asked = self.worked = 0
        self.is_broken = False
        self._pieces = pieces

    def release_contents(self) -> Iterator[None]:
        """See broker/unacked_contents.py."""
        self.asked += 1
        for _ in range(self._pieces):
            if self.is_broken:
                raise RuntimeError("a bug")
            self.worked += 1
            yield


@pytest.fixture
def worklist() -> Worklist:
    return Worklist(Effort.without_end())


@pytest.fixture
def rounds(worklist: Worklist) -> UnackedContents:
    return UnackedContents(worklist, LIMIT)


def test_a_round_ends_when_more_than_the_limit_was_sent_to_all_together(
    rounds: UnackedContents, worklist: Worklist
) -> None:
    one, other = Channel(), Channel()
    rounds.sent(one, LIMIT // 2)
    rounds.sent(other, LIMIT // 2)
    assert worklist.is_empty
    rounds.sent(one, 1)
    worklist.work_off()
    assert (one.asked, other.asked) == (1, 1)
    rounds.sent(one, LIMIT)
    assert worklist.is_empty, "a new round has begun"


def test_who_was_sent_nothing_is_not_asked_unless_it_has_contents_left(
    rounds: UnackedContents, worklist: Worklist
) -> None:
    busy, patient, quick = Channel(), Channel(holds_contents=True), Channel()
    for channel in (patient, quick):
        rounds.sent(channel, 1)
    for _ in range(3):
        rounds.sent(busy, LIMIT + 1)
        worklist.work_off()
    assert (busy.asked, patient.asked, quick.asked) == (3, 3, 1)
    patient.holds_contents = False
    for _ in range(3):
        rounds.sent(busy, LIMIT + 1)
        worklist.work_off()
    assert patient.asked == 4


def test_contents_are_released_in_pieces_and_the_next_round_waits_for_that(
    rounds: UnackedContents, worklist: Worklist
) -> None:
    channel = Channel(pieces=3)
    rounds.sent(channel, LIMIT + 1)
    worklist.work_on_new()
    assert channel.worked == 1
    rounds.sent(channel, LIMIT + 1)
    worklist.work_off()
    assert (channel.asked, channel.worked) == (1, 3)
    rounds.sent(channel, 1)
    worklist.work_off()
    assert channel.asked == 2


def test_a_channel_that_is_gone_is_not_asked_and_not_kept(rounds: UnackedContents, worklist: Worklist) -> None:
    early, late, stays = Channel(), Channel(), Channel()
    for channel in (early, late, stays):
        rounds.sent(channel, 1)
    rounds.forget(early)
    rounds.sent(stays, LIMIT)
    rounds.forget(late)
    rounds.forget(late)
    worklist.work_off()
    assert (early.asked, late.asked, stays.asked) == (0, 0, 1)


def test_an_error_ends_a_round_and_no_other(rounds: UnackedContents, worklist: Worklist) -> None:
    channel = Channel()
    channel.is_broken = True
    rounds.sent(channel, LIMIT + 1)
    worklist.work_off()
    channel.is_broken = False
    rounds.sent(channel, LIMIT + 1)
    worklist.work_off()
    assert channel.worked == 1
