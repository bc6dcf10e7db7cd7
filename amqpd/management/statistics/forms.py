"""The forms of RabbitMQ's management API for numbers that have a history: value, rate, and samples on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from amqpd.management.statistics.history import TICK_S, History, Numbers
from amqpd.management.statistics.ranges import Range

Record = dict[str, Any]


class Field(NamedTuple):
    """A key of an answer, the key of its details, and the position of its number."""

    name: str
    details: str
    place: int


class Kind:
    """The numbers of one kind of object, by name, and sums of neighbours among them, by their first and last name."""

    def __init__(self, numbers: Sequence[str], sums: Mapping[str, tuple[str, str]] | None = None) -> None:
        sums = sums or {}
        self._names = (*numbers, *sums)
        self._sums = tuple([
            slice(numbers.index(first), numbers.index(last) + 1) for first, last in sums.values()])
        self._count = len(numbers)

    def fields(self, *names: str) -> tuple[Field, ...]:
        """Return the fields with these names."""
        return tuple([Field(name, f"{name}_details", self._names.index(name)) for name in names])

    def with_sums(self, numbers: Numbers) -> Numbers:
        """Return the numbers and their sums."""
        return numbers + tuple([sum(numbers[one]) for one in self._sums]) if self._sums else numbers

    def parts(self, place: int) -> range:
        """Return the positions of the numbers of which the one at this position is the sum."""
        if place < self._count:
            return range(place, place + 1)
        one = self._sums[place - self._count]
        return range(one.start, one.stop)


class Moment(NamedTuple):
    """The last sampling: its tick, how many ticks it covers, and how far the wall clock has been set since the start.
    """

    tick: int
    ticks: int
    shift_ms: int


class View:
    """The current numbers of one object, with its history if it has one."""

    __slots__ = ("values", "_kind", "_history", "_moment", "_rates")

    def __init__(self, kind: Kind, numbers: Numbers, history: History | None, moment: Moment) -> None:
        self.values = kind.with_sums(numbers)
        self._kind = kind
        self._history = history
        self._moment = moment
        self._rates: Sequence[float] | None = None      # None: nothing has changed
        if history is not None and history.tick >= moment.tick:
            seconds = TICK_S * moment.ticks
            self._rates = kind.with_sums(tuple([
                (last - previous) / seconds  # type: ignore[misc]  # a sum of rates is a rate
                for last, previous in zip(history.last, history.previous)]))

    def has_any(self, fields: Sequence[Field]) -> bool:
        """Return whether one of these numbers is not 0."""
        values = self.values
        for _, _, place in fields:
            if values[place]:
                return True
        return False

    def render(self, fields: Sequence[Field], range_: Range | None) -> Record:
        """Return values and details of these fields."""
        values, rates = self.values, self._rates
        record: Record = {}
        for name, details, place in fields:
            record[name] = values[place]
            if range_ is not None:
                record[details] = self._samples(place, range_)
            else:
                record[details] = {"rate": rates[place] if rates is not None else 0.0}
        return record

    def _samples(self, place: int, range_: Range) -> Record:
        times = times_of(range_, self._moment)
        parts = [self._at(part, times) for part in self._kind.parts(place)]
        return with_samples([sum(at) for at in zip(*parts)], times, self._moment)

    def _at(self, place: int, times: range) -> Sequence[int]:
        if self._history is None:
            return [0] * len(times)
        return self._history.at(place, [time_s // TICK_S for time_s in times])

    def render_average(self, name: str, time_us: Field, count: Field, range_: Range | None) -> Record:
        """Return an average in ms and its details; its rate is the average of the last sampling, as on RabbitMQ."""
        values, rates = self.values, self._rates
        record: Record = {name: _quotient(values[time_us.place], values[count.place])}
        rate = _quotient(rates[time_us.place], rates[count.place]) if rates is not None else 0.0
        details: Record = {}
        if range_ is not None:
            times = times_of(range_, self._moment)
            both = zip(self._at(time_us.place, times), self._at(count.place, times))
            details = with_samples([_quotient(*at) for at in both], times, self._moment)
        return record | {f"{name}_details": details | {"rate": rate}}


def constant(range_: Range | None, moment: Moment) -> Record:
    """Return the details of a number that is always 0."""
    if range_ is None:
        return {"rate": 0.0}
    times = times_of(range_, moment)
    return with_samples([0] * len(times), times, moment)


def times_of(range_: Range, moment: Moment) -> range:
    """Return the times of samples in s, newest first: whole multiples of the increment before the last sampling."""
    last_s = moment.tick * TICK_S // range_.incr_s * range_.incr_s
    return range(last_s - range_.age_s, last_s + 1, range_.incr_s)[::-1]


def with_samples(values: Sequence[float], times: range, moment: Moment) -> Record:
    """Return details with these samples; there are no averages of a single one."""
    shift_ms = moment.shift_ms
    record: Record = {
        "rate": 0.0,
        "samples": [{"sample": value, "timestamp": 1000 * time_s + shift_ms} for value, time_s in zip(values, times)],
    }
    if len(values) > 1:
        record["rate"] = (values[0] - values[1]) / (times[0] - times[1])
        record["avg_rate"] = (values[0] - values[-1]) / (times[0] - times[-1])
        record["avg"] = sum(values) / len(values)
    return record


def sum_of(one: Any, other: Any) -> Any:
    """Return the sum of two records: of their numbers, and of their samples at the same times."""
    if not one or not other:
        return one or other
    if isinstance(one, dict):
        return {
            key: one[key] if key == "timestamp" else sum_of(one.get(key), other.get(key))
            for key in one.keys() | other.keys()}
    if isinstance(one, list):
        return [sum_of(mine, yours) for mine, yours in zip(one, other)]
    return one + other


def _quotient(time_us: float, count: float) -> float:
    """Return the average in ms."""
    return time_us / count / 1000 if count else 0.0
