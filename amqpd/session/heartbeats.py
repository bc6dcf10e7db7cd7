"""Heartbeats of one connection: when one has to be sent, and whether the client has missed too many.

Knows when input last came and output was last sent. The server excuses gaps in which it could not read, since the
client may have sent something meanwhile.

RabbitMQ docs/heartbeats.
"""

from __future__ import annotations

SLACK_MS = 50       # since the clock is read only now and then


class Heartbeats:
    """The heartbeats of one connection; `interval_s` 0 means none. Times are in ms of a monotonic clock."""

    __slots__ = ("interval_s", "heard_ms", "sent_ms")

    def __init__(self, now_ms: int) -> None:
        self.interval_s = 0
        self.heard_ms = self.sent_ms = now_ms

    def is_due(self, now_ms: int) -> bool:
        """Return whether nothing was sent for half the interval, so that a heartbeat is due."""
        return bool(self.interval_s) and now_ms - self.sent_ms >= 500 * self.interval_s - SLACK_MS

    def is_missed(self, now_ms: int) -> bool:
        """Return whether nothing was received for two intervals."""
        return bool(self.interval_s) and now_ms - self.heard_ms > 2_000 * self.interval_s + SLACK_MS

    def peer_is_alive(self, at_ms: int) -> None:
        """Record that the server knows that the client was alive then, without input from it."""
        self.heard_ms = max(self.heard_ms, at_ms)

    def excuse(self, gap_ms: int, now_ms: int) -> None:
        """Do not count a gap, in which nothing could be read."""
        self.heard_ms = min(now_ms, self.heard_ms + gap_ms)
