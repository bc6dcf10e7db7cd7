"""A target with a fault behind several conditions, so that tests can tell whether the fuzzer detects one."""

from __future__ import annotations

from tests.fuzz.targets.target import Target


def run(data: bytes) -> None:
    """Fail for one input of 2^32, whose bytes are compared one by one."""
    if data[:1] == b"A":
        if data[1:2] == b"M":
            if data[2:3] == b"Q":
                if data[3:4] == b"P":
                    raise ZeroDivisionError("a planted fault")


TARGET = Target(run, lambda: [b""], longest=100)
