"""The consumer timeout: deliveries that are unacked for too long; the check costs nothing if none is due."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from pamqp.commands import Basic, Channel, Queue, Tx

from amqpd.broker.worklist import PIECE
from amqpd.session.consumer_timeouts import CLOSE_STEPS, LOOK_MS
from amqpd.session.channel_timeouts import ChannelTimeouts
from tests.support.talk import SETTINGS, Stage, Talk

TIMEOUT_S = 1_800
TOLD = SETTINGS.logged_timeouts


@pytest.fixture
def two(stage: Stage) -> Talk:
    return with_two_deliveries(stage)


def with_two_deliveries(stage: Stage) -> Talk:
    """A client that was given two messages of `q` on channel 1."""
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="q")).hear(Queue.DeclareOk)
    talk.publish("q", b"1", b"2").client(Basic.Consume(queue="q", consumer_tag="c"))
    talk.hear_all()
    return talk


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The channels that were looked at."""
    numbers: list[int] = []
    overdue = ChannelTimeouts.overdue

    def noted(self: ChannelTimeouts, now_ms: int, default_ms: int | None) -> int | None:
        numbers.append(self._number)
        return overdue(self, now_ms, default_ms)

    monkeypatch.setattr(ChannelTimeouts, "overdue", noted)
    yield numbers


def timed_out(talk: Talk) -> Talk:
    assert talk.hear(Channel.Close).reply_code == 406
    return talk.client(Channel.CloseOk())


def test_a_delivery_times_out_not_before_its_time_and_with_the_next_tick(two: Talk) -> None:
    two.stage.pass_time(TIMEOUT_S)
    two.nothing().stage.pass_time(0.25)
    timed_out(two)


def test_the_oldest_delivery_that_is_left_counts(two: Talk) -> None:
    two.stage.pass_time(100)
    two.publish("q", b"3").hear(Basic.Deliver)
    two.client(Basic.Ack(2, True)).stage.pass_time(TIMEOUT_S)
    two.nothing().stage.pass_time(0.25)
    timed_out(two)


def test_a_consumer_s_own_timeout_counts_from_its_delivery_whatever_else_waits(two: Talk) -> None:
    two.client(Queue.Declare(queue="r")).hear(Queue.DeclareOk)
    two.stage.pass_time(7)
    two.client(Basic.Consume(queue="r", consumer_tag="d", arguments={"x-consumer-timeout": 1_000}))
    two.hear(Basic.ConsumeOk)
    two.publish("r", b"3").hear(Basic.Deliver)
    two.stage.pass_time(1)
    two.nothing().stage.pass_time(0.25)
    timed_out(two)


def test_a_channel_that_was_answered_and_is_given_more_is_watched_again(two: Talk) -> None:
    two.client(Basic.Ack(2, True)).stage.pass_time(20)
    two.publish("q", b"3").hear(Basic.Deliver)
    two.stage.pass_time(TIMEOUT_S)
    two.nothing().stage.pass_time(0.25)
    timed_out(two)


def test_what_was_got_times_out_too(stage: Stage) -> None:
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="q")).hear(Queue.DeclareOk)
    talk.publish("q", b"1").client(Basic.Get(queue="q")).hear(Basic.GetOk)
    stage.pass_time(TIMEOUT_S + 0.25)
    timed_out(talk)


def test_answers_that_a_transaction_holds_are_not_late_until_they_are_rolled_back(two: Talk) -> None:
    two.client(Tx.Select()).hear(Tx.SelectOk)
    two.client(Basic.Ack(2, True)).stage.pass_time(TIMEOUT_S + 10)
    two.nothing().client(Tx.Rollback()).broker(Tx.RollbackOk()).stage.pass_time(LOOK_MS / 1000)
    timed_out(two)


def test_channels_are_looked_at_when_something_may_be_due_and_not_with_each_tick(
    stage: Stage, looked_at: list[int]
) -> None:
    talk = stage.client()
    talk.open_channel(1).client(Queue.Declare(queue="q")).hear(Queue.DeclareOk)
    for number in range(2, 12):
        talk.open_channel(number)
    talk.publish("q", b"1").client(Basic.Get(queue="q"), channel=7).hear(Basic.GetOk)
    stage.pass_time(10 * LOOK_MS / 1000)
    assert set(looked_at) == {7} and 9 <= len(looked_at) <= 11
    talk.client(Basic.Ack(1), channel=7).stage.pass_time(LOOK_MS / 1000)
    looked_at.clear()
    stage.pass_time(100)
    assert not looked_at


def test_many_deliveries_in_a_short_time_are_noted_together(two: Talk) -> None:
    for _ in range(100):
        two.publish("q", b"x")
    two.hear_all()
    times = two.session.channels[1].consuming.timeouts.times
    assert len(times._made) == 1
    two.stage.pass_time(1)
    two.publish("q", b"x").hear(Basic.Deliver)
    assert len(times._made) == 2


def test_very_many_overdue_channels_are_closed_in_pieces_and_the_log_counts_them(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    talk = stage.client()
    talk.open_channel(1).client(Queue.Declare(queue="q")).hear(Queue.DeclareOk)
    count = 3 * PIECE // CLOSE_STEPS
    for number in range(2, 2 + count):
        talk.open_channel(number)
        talk.publish("q", b"x").client(Basic.Get(queue="q"), channel=number).hear(Basic.GetOk)
    channels = talk.session.channels
    now_ms = stage.now_ms + TIMEOUT_S * 1000 + 1
    talk.session.tick(now_ms)
    closed = [0]
    while talk.session.state.looks.are_due(now_ms):
        before = stage.broker.effort.total
        talk.session._channels.overdue.work()
        assert stage.broker.effort.total - before <= PIECE + 2 * CLOSE_STEPS
        closed.append(sum(channel.is_closing for channel in channels.values()))
    assert len(closed) >= 4 and closed[-1] == count
    stage.end_turn()
    assert len([heard for heard in talk.hear_all() if isinstance(heard.said, Channel.Close)]) == count
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == TOLD + 1 and f"{count - TOLD} more channels were closed" in told[-1]


def test_the_next_overdue_channels_are_told_of_again(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.settings = msgspec.structs.replace(stage.settings, logged_timeouts=1)
    two = with_two_deliveries(stage)
    two.stage.pass_time(TIMEOUT_S + 0.25)
    timed_out(two)
    two.open_channel(1).client(Basic.Get(queue="q")).hear(Basic.GetOk)
    two.stage.pass_time(TIMEOUT_S + 0.25)
    timed_out(two)
    assert len([record for record in caplog.records if "timed out" in record.message]) == 2
