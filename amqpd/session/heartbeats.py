"""Tell when a heartbeat of one connection is due, and when the peer has missed too many.

Knows when the peer was last heard and last spoken to. The server excuses time in which it could not read: the peer may
have spoken meanwhile.

RabbitMQ docs/heartbeats.
"""

from __future__ import annotations

SLACK_MS = 50       # for a clock that is looked at from time to time only


class Heartbeats:
    """`interval_s` is what the client agreed to; 0 means no heartbeats. Times are in ms of a monotonic clock."""

    __slots__ = ("interval_s", "heard_ms", "sent_ms")

    def __init__(self, now_ms: int) -> None:
        self.interval_s = 0
        self.heard_ms = self.sent_ms = now_ms

    def is_due(self, now_ms: int) -> bool:
        """Return whether nothing was sent for half the interval, so that the peer should get a heartbeat."""
        return bool(self.interval_s) and now_ms - self.sent_ms >= 500 * self.interval_s - SLACK_MS

    def is_missed(self, now_ms: int) -> bool:
        """Return whether nothing was heard for two intervals."""
        return bool(self.interval_s) and now_ms - self.heard_ms > 2_000 * self.interval_s + SLACK_MS

    def peer_is_alive(self, at_ms: int) -> None:
        """Note that the server knows that the peer was alive then, though nothing is read from it."""
        self.heard_ms = max(self.heard_ms, at_ms)

    def excuse(self, gap_ms: int, now_ms: int) -> None:
        """Do not count a time in which nothing could be heard."""
        self.heard_ms = min(now_ms, self.heard_ms + gap_ms)
