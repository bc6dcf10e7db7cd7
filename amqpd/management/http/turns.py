"""Share the event loop between requests: of those who wait, one goes on in each turn of it.

A list is made in slices, and each slice is short; without this, the slices of many clients would come in the same turn,
and together they would not be short for the clients of AMQP.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Who waits for a turn of the event loop, first come, first served."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def next(self) -> None:
        """Wait for a later turn that nobody else is given."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            loop.call_soon(self._give, loop)
        await turn

    def _give(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting and self._waiting[0].done():     # whoever waited has been cancelled
            self._waiting.popleft()
        if self._waiting:
            self._waiting[0].set_result(None)
            loop.call_soon(self._give, loop)
