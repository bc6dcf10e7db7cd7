"""`python -m tests.fuzz.instrumented TARGET OPTIONS OF LIBFUZZER`: fuzz one target in a process of its own.

Atheris tells libFuzzer which branches of the broker's code an input reaches. The process ends with the run.
"""

from __future__ import annotations

import sys
import time
from random import Random

import atheris

from tests.fuzz.targets import load

NOTED_S, MOST_S = 0.01, 1.0     # of processor time


def main() -> None:
    """Fuzz a target."""
    with atheris.instrument_imports(include=["amqpd", "regex", "tests.fuzz.targets.planted"]):
        target = load(sys.argv.pop(1))
        from tests.fuzz.counting import trace
        from tests.fuzz.mutations import mutated
    slowest = NOTED_S

    def run(data: bytes) -> None:
        """Run an input. If it takes long, count what it costs: the time depends on what else the machine does."""
        nonlocal slowest
        begun = time.thread_time()
        target.run(data)
        spent = time.thread_time() - begun
        if spent > NOTED_S:
            trace(lambda: target.run(data), target.steps * (len(data) + 100))
            if spent > slowest:
                slowest = spent
                print(f"slowest: {spent * 1000:.0f} ms for {data!r}", file=sys.stderr)
            assert spent < MOST_S, f"takes {spent:.1f} s of processor time"

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        return mutated(target, data, longest, Random(seed), lambda: atheris.Mutate(data, longest))

    atheris.Setup(sys.argv, run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
