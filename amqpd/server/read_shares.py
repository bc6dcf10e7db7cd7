"""How much is read from each client in one turn of the event loop, and who is read next.

The reads of a turn make about `TURN_STEPS` of work, so that it is short however many clients send at full speed: those
that send more than one read takes rest after it until the others had theirs. What a read makes is only known after it,
so each client is taken to send what it sent last. Who sends little is always read: a scrap is left for everybody.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

TURN_STEPS = 2_500          # see broker/effort.py
OCTETS_A_STEP = 1_024       # that are read
MOST = 256 * 1024           # bytes of one read
SCRAP = 4 * 1024            # bytes, of a client that comes when the turn is spent
LITTLE = 50                 # steps, from which on a client stands in line behind those that make less


class Reader(Protocol):
    """Whose reading is paused and resumed: a client's socket."""

    expected_steps: int         # of work, that its next read will make
    has_rested: bool            # so that its next read is not a scrap

    def resume_reading(self) -> None:
        """Let more be read, in the next turn."""


class ReadShares:
    """The shares of all clients of one loop."""

    def __init__(self) -> None:
        self._steps = 0             # that the reads of this turn made
        self._full_reads = 0        # of this turn: those that found more than they took
        self._is_contended = False  # whether more than one client had more to say in the turn before
        self._resting: deque[Reader] = deque()
        self._little: deque[Reader] = deque()       # those of which little is expected

    def size(self, reader: Reader) -> int:
        """Return how many bytes this client's next read may take."""
        return MOST if self._steps < TURN_STEPS or reader.has_rested else SCRAP

    def has_read(self, reader: Reader, octets: int, size: int, steps: int) -> bool:
        """Note a read of up to `size` bytes; return whether this client has to rest, since others wait."""
        steps += octets // OCTETS_A_STEP
        self._steps += steps
        reader.has_rested = False
        if octets < size:
            reader.expected_steps = steps
            return False
        reader.expected_steps = steps if size > SCRAP else max(steps, reader.expected_steps, TURN_STEPS // 4)
        self._full_reads += 1
        return self._is_contended or self._full_reads > 1 or self.has_resting

    def rest(self, reader: Reader) -> None:
        """Read this client again when it is its turn; its reading has been paused."""
        (self._resting if reader.expected_steps > LITTLE else self._little).append(reader)

    @property
    def has_resting(self) -> bool:
        """Return whether a client waits for its turn."""
        return bool(self._resting or self._little)

    def begin_turn(self) -> None:
        """Begin a turn: nothing has been read in it."""
        self._is_contended = self._full_reads > 1 or self.has_resting
        self._steps = self._full_reads = 0

    def resume(self) -> None:
        """Let those be read in this turn of whom little is expected, and of the others who have rested for longest.

        As many as there is time for, and one of the others at least.
        """
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
