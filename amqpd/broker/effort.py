"""Count the work that the broker does, so that one client's work can be cut into slices.

The unit is a step: about a microsecond of Python on the machine of the bench, such as putting one message into one
queue, looking at one binding, or visiting one node of a topic's trie. Steps are counted and not timed, so that the
same input is always cut at the same place.

Whoever does work adds to `total`; whoever hands out turns calls `begin`, and asks `is_spent` between two pieces.
"""

from __future__ import annotations

SLICE = 4_000       # steps: a few milliseconds, after which the others have their turn


class Effort:
    """`total` counts all steps since the start; `stop` is the total at which the present slice ends."""

    __slots__ = ("total", "stop")

    def __init__(self) -> None:
        self.total = 0
        self.stop = SLICE

    def begin(self, steps: int = SLICE) -> None:
        """Begin a slice of this many steps."""
        self.stop = self.total + steps

    @property
    def is_spent(self) -> bool:
        """Return whether the present slice is used up: what is left waits for the next turn."""
        return self.total >= self.stop
