"""Count the work of the broker, so that one client's work can be cut into slices.

The unit is a step: about a microsecond of Python on the machine of the bench, such as putting one message into one
queue, checking one binding, or visiting one node of a topic's trie. Steps are counted, time is not measured, so that
the same input is always cut at the same place.

A turn of the event loop has `TURN` steps for everything; a client, or a job of the worklist, has a slice of it. When
a slice is used up, the rest waits for a later turn. If many clients are active in a turn, each has a smaller slice, but
at least `SMALLEST_SLICE`.
"""

from __future__ import annotations

TURN = 5_000               # steps
SLICE = 2_500
SMALLEST_SLICE = 1_000
QUEUE_STEPS = 10            # the cost of one queue, besides a step for each message


class Effort:
    """A count of steps: `total` since the start; `stop` is the total at which the current slice ends."""

    __slots__ = ("total", "stop", "_turn_stop")

    @classmethod
    def without_end(cls) -> Effort:
        """Return a count whose first slice never ends, for work that nothing else waits for."""
        effort = cls()
        effort.stop = effort._turn_stop = 1 << 62
        return effort

    def __init__(self) -> None:
        self.total = 0
        self.stop = SLICE
        self._turn_stop = TURN

    def begin_turn(self) -> None:
        """Begin a turn of the event loop with a full budget."""
        self._turn_stop = self.total + TURN

    def begin(self, most: int = SLICE) -> None:
        """Begin a slice of at most this many steps, within the rest of the turn."""
        left = self._turn_stop - self.total
        self.stop = self.total + max(SMALLEST_SLICE, min(most, left))

    @property
    def is_spent(self) -> bool:
        """Whether the current slice is used up, so that the rest must wait for a later turn."""
        return self.total >= self.stop

    @property
    def turn_is_spent(self) -> bool:
        """Whether the budget of this turn is used up."""
        return self.total >= self._turn_stop

    @property
    def turn_is_overspent(self) -> bool:
        """Whether this turn has used its budget twice, by work that cannot be cut."""
        return self.total >= self._turn_stop + TURN
