"""Count what an input costs, and what it reaches: lines of the broker's code, not time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import amqpd

CODE = str(Path(amqpd.__file__).parent)

Arc = tuple[str, int, int]      # a file, and two lines of which the second follows the first


class Costs(AssertionError):
    """An input runs more code than its size allows."""


def trace(call: Callable[[], Any], most: int = sys.maxsize) -> tuple[int, set[Arc]]:
    """Return how many lines of the broker's code a call runs, and the arcs between them. Raises Costs beyond `most`."""
    count = 0
    arcs: set[Arc] = set()

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(CODE):
            return None
        last = -frame.f_code.co_firstlineno

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal count, last
            if event == "line":
                count += 1
                arcs.add((name, last, frame.f_lineno))
                last = frame.f_lineno
                if count > most:
                    raise Costs(f"more than {most} lines of code")
            return step

        return step

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        call()
    finally:
        sys.settrace(before)
    return count, arcs


def fewest(run: Callable[[bytes], None], seeds: Iterable[bytes], inputs: Iterable[bytes]) -> list[bytes]:
    """Return the inputs that each reach something, in the order of their sizes, that no shorter one and no seed does.
    """
    reached: set[Arc] = set()
    for data in seeds:
        reached |= _arcs(run, data)
    kept: list[bytes] = []
    for data in sorted(set(inputs), key=lambda one: (len(one), one)):
        arcs = _arcs(run, data)
        if not arcs <= reached:
            reached |= arcs
            kept.append(data)
    return kept


def _arcs(run: Callable[[bytes], None], data: bytes) -> set[Arc]:
    return trace(lambda: run(data))[1]
