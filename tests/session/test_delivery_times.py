"""When the deliveries of a channel were made: told for all, however many there are, in little memory."""

from __future__ import annotations

from typing import Any

from amqpd.session.consumer_timeouts import FEWEST_TIMES, DeliveryTimes

DAY_MS = 86_400_000


class TimedConsumer:
    """A consumer whose deliveries may be unacked for as long as its channel says, or for ever."""

    def __init__(self, *, is_timed: bool) -> None:
        self.is_timed = is_timed

    def timeout_ms(self, default_ms: int | None) -> int | None:
        """See `Consumer`."""
        return default_ms if self.is_timed else None


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
