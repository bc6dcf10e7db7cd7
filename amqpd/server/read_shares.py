"""How much is read from each client in one turn of the event loop, and which client is read next.

The reads of a turn cause about `TURN_STEPS` steps of work, so that a turn is short even if many clients send at full
speed: a client that sends more than one read takes is paused after it until the others had their turn. How much work a
read causes is known only after it, so each client is expected to send as much as last time. A client that sends little
is always read: a small read is left for each.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

TURN_STEPS = 2_500          # see broker/effort.py
BYTES_A_STEP = 1_024       # bytes that are read in a step
MOST = 256 * 1024           # bytes of one read
SCRAP = 4 * 1024            # bytes, for a client that is read when the steps of the turn are used up
LITTLE = 50                 # steps, from which on a client waits behind those that cause fewer


class Reader(Protocol):
    """A client's socket, whose reading is paused and resumed."""

    expected_steps: int         # steps of work that its next read will cause
    has_rested: bool            # whether its next read is a full one

    def resume_reading(self) -> None:
        """Resume reading, in the next turn."""


class ReadShares:
    """The shares of all clients of one loop."""

    def __init__(self) -> None:
        self._steps = 0             # that the reads of this turn caused
        self._full_reads = 0        # reads of this turn that did not take all there was
        self._is_contended = False  # whether more than one client had more to send in the last turn
        self._resting: deque[Reader] = deque()
        self._little: deque[Reader] = deque()       # those that are expected to cause few steps
        self._held: list[Reader] = []               # those that send more than can be taken

    def size(self, reader: Reader) -> int:
        """Return how many bytes the next read of this client may take."""
        return MOST if self._steps < TURN_STEPS or reader.has_rested else SCRAP

    def has_read(self, reader: Reader, received: int, size: int, steps: int) -> bool:
        """Record a read of up to `size` bytes; return whether to pause this client, since others wait."""
        steps += received // BYTES_A_STEP
        self._steps += steps
        reader.has_rested = False
        if received < size:
            reader.expected_steps = steps
            return False
        reader.expected_steps = steps if size > SCRAP else max(steps, reader.expected_steps, TURN_STEPS // 4)
        self._full_reads += 1
        return self._is_contended or self._full_reads > 1 or self.has_resting

    def add_steps(self, steps: int) -> None:
        """Count work of this turn that a read has caused before `has_read`."""
        self._steps += steps

    def rest(self, reader: Reader) -> None:
        """Read this paused client again when it is its turn."""
        (self._resting if reader.expected_steps > LITTLE else self._little).append(reader)

    def hold(self, reader: Reader) -> None:
        """Read this paused client again when more can be taken."""
        self._held.append(reader)

    @property
    def has_waiting(self) -> bool:
        """Return whether a paused client waits, for its turn or until more can be taken."""
        return self.has_resting or bool(self._held)

    @property
    def has_resting(self) -> bool:
        """Return whether a paused client waits for its turn."""
        return bool(self._resting or self._little)

    def begin_turn(self) -> None:
        """Begin a turn, in which nothing has been read yet."""
        self._is_contended = self._full_reads > 1 or self.has_resting
        self._steps = self._full_reads = 0

    def resume(self, *, with_held: bool) -> None:
        """Resume the clients that are expected to cause little work, then those that have been paused longest.

        As many as there is time for, and at least one of the latter. Clients that were held are among them only
        `with_held`.
        """
        if with_held and self._held:
            held, self._held = self._held, []
            for reader in held:
                self.rest(reader)
        expected = 0
        while self._little and expected < TURN_STEPS:
            expected += self._resume(self._little.popleft())
        if self._resting:
            expected += self._resume(self._resting.popleft())
        while self._resting and expected < TURN_STEPS:
            expected += self._resume(self._resting.popleft())

    @staticmethod
    def _resume(reader: Reader) -> int:
        reader.has_rested = True
        reader.resume_reading()
        return max(reader.expected_steps, 1)
