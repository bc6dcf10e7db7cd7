"""Wait for jobs of the broker, which are carried out in slices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until_called(call: Callable[[Callable[[], None]], None]) -> None:
    """Return once the callback that `call` is given has been called."""
    event = asyncio.Event()
    call(event.set)
    await event.wait()
