"""Wait for jobs of the broker, which are worked off in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until_called(call: Callable[[Callable[[], None]], None]) -> None:
    """Return once what this is given has been called."""
    event = asyncio.Event()
    call(event.set)
    await event.wait()
