"""An event loop whose next turn the test begins, and waits in a real loop for events instead of a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class FakeTimer:
    """A call that was asked for later."""

    def __init__(self, delay_s: float, call: Callable[[], None]) -> None:
        self.delay_s = delay_s
        self.call = call
        self.is_cancelled = False

    def cancel(self) -> None:
        """Cancel the call."""
        self.is_cancelled = True


class FakeLoop:
    """Keeps what it is asked to call."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.timers: list[FakeTimer] = []

    def call_soon(self, call: Callable[[], None]) -> None:
        """Keep it for the next turn."""
        self.soon.append(call)

    def call_later(self, delay_s: float, call: Callable[[], None]) -> FakeTimer:
        """Keep it for the test to call."""
        self.timers.append(FakeTimer(delay_s, call))
        return self.timers[-1]

    def turn(self) -> None:
        """One turn: what was asked for before it."""
        soon, self.soon = self.soon, []
        for call in soon:
            call()

    def run_out(self) -> None:
        """Turns, until nothing more is asked for."""
        for _ in range(1_000):
            if not self.soon:
                return
            self.turn()
        raise AssertionError("the passes never end")


async def turns(count: int) -> None:
    """Let the running loop turn so often."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(is_so: Callable[[], object]) -> None:
    """Let the running loop turn until it is so; what never comes meets the time limit of the test."""
    while not is_so():
        await turns(1)
