"""The history of one object's numbers, in three rings: every 5 s for a minute, 1 min for an hour, 10 min for a day.

A number is a count that rises, or a length. The sampler calls `add` only when a number has changed, so that an idle
object costs nothing; the next change fills the gap. A ring has room only for the numbers that ever changed, four bytes
each (eight once one exceeds 32 bits), and grows as time passes. So a queue of which five numbers change, as with
publishes, deliveries and acks, needs at most 2 KB in its first minutes, and at most 6 KB after a day; a queue that has
not changed for a day needs less than 1 KB, and one that was never used nothing.

A tick is 5 s. A sample of a ring has the numbers as they were at a tick that is a multiple of the ring's step. Between
two samples of a coarse ring, a number is taken to change evenly.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

Numbers = tuple[int, ...]

TICK_S = 5
STEPS = (1, 12, 120)            # of the rings, in ticks: 5 s, 1 min, 10 min
SIZES = (13, 61, 145)           # samples: both ends of a minute, an hour, a day
KEPT = STEPS[-1] * SIZES[-1]    # ticks, after which nothing is left of a change


class _Ring:
    """The last samples at multiples of `step` ticks: rows of numbers, of which the one at the front is overwritten."""

    __slots__ = ("step", "size", "rows", "width", "start", "newest")

    def __init__(self, step: int, size: int, newest: int) -> None:
        self.step = step
        self.size = size
        self.rows: array[int] = array("I")
        self.width = 0                  # of a row
        self.newest = newest            # the last sample, by number: a multiple of `step`, divided by it
        self.start = newest + 1         # the sample whose place is the first one

    def add(self, tick: int, before: array[int], after: array[int]) -> None:
        """Note that the numbers changed with this tick."""
        last = tick // self.step
        if last <= self.newest:
            return
        first = self.newest + 1
        if last - first >= self.size:       # nothing that is there is kept
            first = self.start = last - self.size + 1
            del self.rows[:]
        for number in range(first, last + 1):
            self._put(number, after if number * self.step == tick else before)
        self.newest = last

    def _put(self, number: int, row: array[int]) -> None:
        place = (number - self.start) % self.size * self.width
        if place == len(self.rows):
            self.rows.extend(row)
        else:
            self.rows[place : place + self.width] = row

    @property
    def count(self) -> int:
        """The number of samples."""
        return len(self.rows) // self.width if self.width else 0

    def get(self, number: int, column: int) -> int:
        """Return a number of this sample, which is there."""
        return self.rows[(number - self.start) % self.size * self.width + column]

    def add_column(self, value: int, typecode: str) -> None:
        """Add a last column, which has had the same value in all samples."""
        rows, width = self.rows, self.width
        self.rows = array(typecode)
        count = len(rows) // width if width else min(self.size, self.newest + 1 - self.start)
        for row in range(count):
            self.rows.extend(rows[row * width : (row + 1) * width])
            self.rows.append(value)
        self.width = width + 1

    def use_64_bits(self) -> None:
        """Make room for larger numbers."""
        self.rows = array("Q", self.rows)


class History:
    """The history of some numbers. `tick` is that of the last change, `last` the numbers since then.

    `base` are the numbers before the first change of which anything is known.
    """

    __slots__ = ("tick", "last", "previous", "base", "_columns", "_typecode", "_rings")

    def __init__(self, tick: int, base: Numbers) -> None:
        self.tick = tick
        self.last = self.previous = self.base = base
        self._columns: list[int] = []           # the numbers that ever changed, by position
        self._typecode = "I"
        self._rings: tuple[_Ring, ...] = ()

    def add(self, tick: int, numbers: Numbers) -> None:
        """Note that the numbers are these from this tick on, which is later than the last one."""
        before, columns = self.last, self._columns
        if not self._rings:
            self._rings = tuple([_Ring(step, size, (tick - 1) // step) for step, size in zip(STEPS, SIZES)])
        if len(columns) < len(numbers):
            for column, (old, new) in enumerate(zip(before, numbers)):
                if old != new and column not in columns:
                    self._add_column(column, old)
        old_row, new_row = self._row(before), self._row(numbers)
        if old_row.typecode != new_row.typecode:
            old_row = self._row(before)
        for ring in self._rings:
            ring.add(tick, old_row, new_row)
        self.previous, self.last, self.tick = before, numbers, tick

    def _add_column(self, column: int, value: int) -> None:
        if value >> 32 and self._typecode == "I":
            self._use_64_bits()
        self._columns.append(column)
        for ring in self._rings:
            ring.add_column(value, self._typecode)

    def _row(self, numbers: Numbers) -> array[int]:
        picked = [numbers[column] for column in self._columns]
        try:
            return array(self._typecode, picked)
        except OverflowError:
            self._use_64_bits()
            return array(self._typecode, picked)

    def _use_64_bits(self) -> None:
        self._typecode = "Q"
        for ring in self._rings:
            ring.use_64_bits()

    def is_old(self, tick: int) -> bool:
        """Return whether the last change is older than all rings, so that only the numbers themselves are known."""
        return tick - self.tick > KEPT

    def forget(self) -> None:
        """Forget everything but the numbers."""
        self.previous = self.base = self.last
        self._columns, self._rings, self._typecode = [], (), "I"

    def at(self, column: int, ticks: Sequence[int]) -> list[int]:
        """Return one of the numbers at these ticks."""
        if column not in self._columns:
            return [self.last[column]] * len(ticks)
        place = self._columns.index(column)
        return [self._at(column, place, tick) for tick in ticks]

    def _at(self, column: int, place: int, tick: int) -> int:
        if tick >= self.tick:
            return self.last[column]
        for ring in self._rings:
            number = tick // ring.step
            age = ring.newest - number
            if age < ring.count:
                value = ring.get(number, place)
                beyond = tick - number * ring.step
                if not beyond:
                    return value
                if age:
                    following, later = ring.get(number + 1, place), ring.step
                else:
                    following, later = self.last[column], self.tick - number * ring.step
                return value + (following - value) * beyond // later
            if ring.count < ring.size:
                return self.base[column]        # before the first change
        oldest = self._rings[-1]
        return oldest.get(oldest.newest - oldest.count + 1, place)
