"""Count the work that the broker does, so that one client's work can be cut into slices.

The unit is a step: about a microsecond of Python on the machine of the bench, such as putting one message into one
queue, looking at one binding, or visiting one node of a topic's trie. Steps are counted and not timed, so that the
same input is always cut at the same place.

A turn of the event loop has `TURN` steps for everybody; a client, or a job of the worklist, has a slice of it. When
a slice is spent, the rest waits for a later turn. A turn in which many clients have something to say gives each a
smaller slice, and none less than `SMALLEST_SLICE`.
"""

from __future__ import annotations

TURN = 10_000               # steps
SLICE = 5_000
SMALLEST_SLICE = 1_500
QUEUE_STEPS = 10            # what it costs to hand anything to one queue, beside a step for each message


class Effort:
    """`total` counts all steps since the start; `stop` is the total at which the present slice ends."""

    __slots__ = ("total", "stop", "_turn_stop")

    @classmethod
    def without_end(cls) -> Effort:
        """Return a count whose first slice is never spent, for who works alone."""
        effort = cls()
        effort.stop = effort._turn_stop = 1 << 62
        return effort

    def __init__(self) -> None:
        self.total = 0
        self.stop = SLICE
        self._turn_stop = TURN

    def begin_turn(self) -> None:
        """Begin a turn of the event loop: its budget is whole again."""
        self._turn_stop = self.total + TURN

    def begin(self, most: int = SLICE) -> None:
        """Begin a slice of at most this many steps, and not more than the turn has left."""
        left = self._turn_stop - self.total
        self.stop = self.total + max(SMALLEST_SLICE, min(most, left))

    @property
    def is_spent(self) -> bool:
        """Return whether the present slice is used up: what is left waits for the next turn."""
        return self.total >= self.stop

    @property
    def turn_is_spent(self) -> bool:
        """Return whether this turn has used up its budget."""
        return self.total >= self._turn_stop

    @property
    def turn_is_overspent(self) -> bool:
        """Return whether this turn has used up as much again, by something that cannot be cut."""
        return self.total >= self._turn_stop + TURN
