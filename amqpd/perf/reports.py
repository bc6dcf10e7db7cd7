"""What the coordinator tells a worker process, and what that reports: lines of JSON."""

from __future__ import annotations

import msgspec

from amqpd.perf.counts import Counts
from amqpd.perf.plan import Plan


class Job(msgspec.Struct):
    """The plan of the run, and which part of it is for this worker: every `workers`-th connection from `number` on."""

    plan: Plan
    number: int
    workers: int


class Report(msgspec.Struct, omit_defaults=True):
    """What a worker tells. `state` goes from `ready` over `running` and `published` to `ended`.

    `failure` ends the run. `cpu_s` is the CPU time of the process so far.
    """

    state: str
    counts: Counts = msgspec.field(default_factory=Counts)
    blocked: int = 0
    cpu_s: float = 0.0
    failure: str = ""
    exit_code: int = 0
