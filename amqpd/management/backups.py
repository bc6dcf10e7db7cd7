"""How far the copy of the store is that was begun last, for those who wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import msgspec


class Backup(msgspec.Struct):
    """A copy of the store. Times are in ms since 1970; `ended_ms` is 0 while it is being made.

    `left` and `total` count the store's pages; both are 0 until the first ones are copied. `error` tells why it failed.
    """

    to: str
    begun_ms: int
    left: int = 0
    total: int = 0
    ended_ms: int = 0
    error: str = ""

    def tell(self, left: int, total: int) -> None:
        """Note what is left, and how much there is in all. May be called in any thread."""
        self.left, self.total = left, total

    def end(self, error: str = "") -> None:
        """Note that it has ended, and why if it failed."""
        self.ended_ms, self.error = _now_ms(), error


class Backups:
    """The backups of one run of the broker: only the latest one is known."""

    def __init__(self) -> None:
        self.latest: Backup | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, to: str) -> Backup:
        """Return a backup that begins now."""
        self.latest = Backup(to, _now_ms())
        return self.latest

    async def begun(self, making: Coroutine[Any, Any, Any], within_s: float) -> bool:
        """Make a backup without waiting for its end; return whether it has ended already. Raises what that raises.

        What it raises later is in `latest`.
        """
        task = asyncio.create_task(making)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        done, _ = await asyncio.wait({task}, timeout=within_s)
        for one in done:
            one.result()
        return bool(done)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()        # told in `latest`


def _now_ms() -> int:
    return int(time.time() * 1000)
