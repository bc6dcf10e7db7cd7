"""Which channels have confirms to write, and which wait for a commit."""

from __future__ import annotations

from collections.abc import Callable

from amqpd.session.confirms import MOST_TOLD_AT_ONCE, Confirms


class FakePublishing:
    """Waits for one batch, or until consumers have acked one message."""

    def __init__(self, log: list[str], name: str, batch: int = 1) -> None:
        self.log = log
        self.name = name
        self.batch = batch
        self.awaits_commit = True

    def write_confirms(self) -> None:
        self.log.append(f"write {self.name}")

    def on_commit(self, batch: int) -> None:
        self.awaits_commit = batch < self.batch

    def on_answered(self, first_pending: Callable[[int], int]) -> None:
        self.log.append(f"answered {self.name}")
        self.awaits_commit = first_pending(self.batch) == self.batch


def new_confirms(log: list[str]) -> Confirms:
    return Confirms(lambda: log.append("output"), lambda: log.append("commit"))


def test_confirms_are_written_once_however_often_they_are_due() -> None:
    log: list[str] = []
    confirms = new_confirms(log)
    one, two = FakePublishing(log, "one"), FakePublishing(log, "two")
    for channel in (one, two, one):
        confirms.write_later(channel)
    confirms.write()
    confirms.write()
    assert log == ["output", "write one", "write two"]
    confirms.write_later(one)
    assert log[3:] == ["output"]


def test_the_commit_is_asked_for_whenever_the_first_channel_begins_to_wait() -> None:
    log: list[str] = []
    confirms = new_confirms(log)
    one, two = FakePublishing(log, "one"), FakePublishing(log, "two", 2)
    for channel in (one, two, one):
        confirms.await_commit(channel)
    assert log == ["commit"]
    confirms.on_commit(1)
    assert [*confirms.awaiting] == [two]
    confirms.on_answered(lambda number: number + 1)
    assert not confirms.awaiting
    confirms.await_commit(one)
    assert log == ["commit", "answered two", "commit"]


def test_of_very_many_channels_a_few_are_told_at_once_of_acks_and_all_in_turn() -> None:
    log: list[str] = []
    confirms = new_confirms(log)
    for place in range(2 * MOST_TOLD_AT_ONCE):
        confirms.await_commit(FakePublishing(log, str(place)))
    for _ in range(2):
        confirms.on_answered(lambda number: number)
    assert log[1:] == [f"answered {place}" for place in range(2 * MOST_TOLD_AT_ONCE)]
    assert len(confirms.awaiting) == 2 * MOST_TOLD_AT_ONCE


def test_a_channel_that_has_ended_is_told_nothing() -> None:
    log: list[str] = []
    confirms = new_confirms(log)
    one = FakePublishing(log, "one")
    confirms.write_later(one)
    confirms.await_commit(one)
    confirms.forget(one)
    confirms.forget(one)
    confirms.write()
    confirms.on_commit(1)
    assert log == ["output", "commit"] and one.awaits_commit
