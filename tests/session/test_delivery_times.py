"""The times of deliveries of a channel: known for all, however many there are, in little memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amqpd.broker.rules import QueueRules
from amqpd.session.consumer_timeouts import FEWEST_TIMES, LOOK_MS, DeliveryTimes, Looks

DAY_MS = 86_400_000


class TimedConsumer:
    """A consumer whose deliveries may be unacked for the timeout of its channel, or for ten years."""

    def __init__(self, *, is_timed: bool) -> None:
        self.arguments = {} if is_timed else {"x-consumer-timeout": 3_650 * DAY_MS}
        self.queue = SimpleNamespace(rules=QueueRules())


def test_steady_deliveries_beside_one_that_is_never_answered_are_few_times() -> None:
    times = DeliveryTimes()
    for tag in range(100_000):
        times.delivered(tag + 1, 1_000 * tag)
        assert len(times._made) <= 4 * FEWEST_TIMES
    consumer, never = TimedConsumer(is_timed=True), TimedConsumer(is_timed=False)
    now_ms = 1_000 * 99_999
    for age_ms in (0, 1_000, 60_000, 1_800_000, DAY_MS):
        made_ms = now_ms - age_ms
        unacked: Any = {0: (None, never), made_ms // 1_000: (None, consumer)}
        for at_ms, timeout_ms, found in (
                (now_ms, age_ms + 1_000, None), (now_ms + age_ms // 31 + 1, age_ms, age_ms)):
            assert times.overdue(at_ms, unacked, timeout_ms, has_own_timeouts=True, keeps_all=False) == found


def test_a_channel_is_due_at_its_time_and_no_earlier() -> None:
    looks = Looks()
    assert not looks.are_due(1 << 60)
    looks.add(3, 200)
    looks.add(2, 100)
    looks.add(1, 100)
    assert not looks.are_due(99) and looks.are_due(100) and [*looks.due(99)] == []
    assert [*looks.due(100)] == [(1, 100), (2, 100)]
    assert not looks.are_due(199) and [*looks.due(1 << 60)] == [(3, 200)]


class AskedConsumer:
    """Counts how often it is asked for its timeout, which is that of its channel."""

    def __init__(self) -> None:
        self.asked = 0
        self.queue = SimpleNamespace(rules=QueueRules())

    @property
    def arguments(self) -> dict[str, Any]:
        """Return none."""
        self.asked += 1
        return {}


def test_a_consumer_is_asked_once_for_all_its_deliveries() -> None:
    times, consumer, other = DeliveryTimes(), AskedConsumer(), AskedConsumer()
    for tag in range(1, 11):
        times.delivered(tag + 1, 1_000 * tag)
    unacked: Any = {tag: (None, consumer if tag % 2 else other) for tag in range(1, 11)}
    assert times.overdue(10_000, unacked, 60_000, has_own_timeouts=True, keeps_all=False) is None
    assert (consumer.asked, other.asked) == (1, 1)
    assert times.overdue(10_000, unacked, 60_000, has_own_timeouts=False, keeps_all=False) is None
    assert (consumer.asked, other.asked) == (2, 1), "the oldest delivery tells"


def test_the_next_look_is_at_the_first_timeout_and_in_five_seconds_at_the_latest() -> None:
    times, consumer = DeliveryTimes(), TimedConsumer(is_timed=True)
    times.delivered(2, 1_000)
    unacked: Any = {1: (None, consumer)}
    assert times.overdue(2_000, unacked, 3_000, has_own_timeouts=False, keeps_all=False) is None
    assert times.next_look_ms == 4_001
    assert times.overdue(4_000, unacked, 3_000, has_own_timeouts=False, keeps_all=False) is None
    assert times.overdue(4_001, unacked, 3_000, has_own_timeouts=False, keeps_all=False) == 3_000
    assert times.overdue(2_000, unacked, 60_000, has_own_timeouts=False, keeps_all=False) is None
    assert times.next_look_ms == 2_000 + LOOK_MS
    times.excuse(5_000, 3_000)
    assert times.overdue(6_000, unacked, 3_000, has_own_timeouts=False, keeps_all=False) is None
    assert times.overdue(6_001, unacked, 3_000, has_own_timeouts=False, keeps_all=False) == 3_000
    assert times.overdue(9_000, {}, 3_000, has_own_timeouts=False, keeps_all=False) is None
    assert times.next_look_ms is None and not times._made


def test_deliveries_of_a_quarter_of_a_second_count_from_the_last_of_them() -> None:
    times, consumer = DeliveryTimes(), TimedConsumer(is_timed=True)
    for tag, now_ms in ((1, 1_000), (2, 1_100), (3, 1_249), (4, 1_250)):
        times.delivered(tag + 1, now_ms)
    assert [*times._made] == [(4, 1_249, 1_000), (5, 1_250, 1_250)]
    unacked: Any = {tag: (None, consumer) for tag in (2, 3, 4)}
    assert times.overdue(2_249, unacked, 1_000, has_own_timeouts=False, keeps_all=False) is None
    assert times.overdue(2_250, unacked, 1_000, has_own_timeouts=False, keeps_all=False) == 1_000
