"""Compute the figures of a canary's rounds: their number, the worst delay, the 99th percentile, a lost connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

WORST_MS = 250.0
P99_MS = 50.0
# An idle broker on a machine with nothing else to do stays far below these; else the machine is judged, not the broker.
IDLE_WORST_MS = 100.0
IDLE_P99_MS = 20.0
LATE_MS = 60.0


class Round(NamedTuple):
    """One message of the canary: when it was published (monotonic seconds), and the milliseconds to both answers.

    `in_line_ms` is how long the broker and the canary could have run and had no processor: other programs had it.
    """

    begun: float
    confirm_ms: float
    delivery_ms: float
    in_line_ms: float

    @property
    def ms(self) -> float:
        """The delay of the slower answer."""
        return max(self.confirm_ms, self.delivery_ms)

    @property
    def own_ms(self) -> float:
        """The part of it that the broker needed while it had a processor."""
        return max(self.ms - self.in_line_ms, 0.0)

    @property
    def ended(self) -> float:
        """When the slower answer came."""
        return self.begun + self.ms / 1_000


class Delays(NamedTuple):
    """The figures of a segment of rounds; `own` are those without the time in line for a processor."""

    rounds: int
    worst_ms: float
    p99_ms: float
    own_worst_ms: float
    own_p99_ms: float

    def __str__(self) -> str:
        return (f"rounds {self.rounds}, worst {self.worst_ms:.0f} ms, p99 {self.p99_ms:.0f} ms "
                f"(own {self.own_worst_ms:.0f}, {self.own_p99_ms:.0f})")


def delays_of(rounds: Sequence[Round]) -> Delays:
    """The figures of these rounds; of none at all, as if the one that never ended had taken for ever."""
    if not rounds:
        return Delays(0, *[float("inf")] * 4)
    return Delays(len(rounds), *worst_and_p99([one.ms for one in rounds]),
                  *worst_and_p99([one.own_ms for one in rounds]))


def worst_and_p99(delays: list[float]) -> tuple[float, float]:
    """The largest, and the one that one in a hundred is over."""
    delays.sort()
    return delays[-1], delays[min(len(delays) - 1, len(delays) * 99 // 100)]


class Figures(NamedTuple):
    """One run of a shape."""

    name: str
    idle: Delays                # before the attack
    attacked: Delays
    late_ms: float              # how late the machine woke a process that only slept, at worst
    cut: str                    # the reason, or nothing
    seconds: float              # what the attack took
    memory_mib: float           # by which the broker grew, at most
    notes: str                  # what the attacker had to say

    def __str__(self) -> str:
        return (f"{self.name}: {self.attacked}, cut {self.cut or 'no'} | idle worst {self.idle.worst_ms:.0f} ms, "
                f"p99 {self.idle.p99_ms:.0f} ms, machine late {self.late_ms:.0f} ms | {self.seconds:.1f} s, "
                f"memory +{self.memory_mib:.0f} MiB{self.notes and ' | ' + self.notes}")

    @property
    def is_of_a_busy_machine(self) -> bool:
        """Whether the machine itself was so slow that the run has no meaning."""
        return (self.idle.worst_ms > IDLE_WORST_MS or self.idle.p99_ms > IDLE_P99_MS or self.late_ms > LATE_MS)
