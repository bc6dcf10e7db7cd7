"""Answers without an end: records as they come, for one reader, as an async iterator.

The broker puts items into a bounded feed and never waits; what the reader is too slow for is dropped, and a record
`{"dropped": 3}` says how many. Whoever iterates calls `close` in the end, or uses `async with`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, TypeVar

from amqpd.broker.feed import Feed

Item = TypeVar("Item")
Record = dict[str, Any]

PIECE = 100     # records that are made in one turn of the event loop


class Stream(Generic[Item]):
    """The records of one feed. `render` makes a record of an item, or None if the reader does not want it.

    `leave` stops the feed from being filled.
    """

    def __init__(
        self, feed: Feed[Item], render: Callable[[Item], Record | None], leave: Callable[[Feed[Item]], None],
    ) -> None:
        self._feed = feed
        self._render = render
        self._leave = leave
        self._has_more = asyncio.Event()
        self._items: list[Item] = []        # taken, the next one last
        self._dropped = 0
        self._rendered = 0
        self._is_closed = False
        feed.on_first = self._has_more.set

    def __aiter__(self) -> Stream[Item]:
        return self

    async def __anext__(self) -> Record:
        while not self._is_closed:
            record = self._next()
            if record is not None:
                self._rendered += 1
                if self._rendered % PIECE == 0:
                    await asyncio.sleep(0)
                return record
            await self._has_more.wait()
        raise StopAsyncIteration

    def _next(self) -> Record | None:
        """Return the next record that is there already, if any."""
        while True:
            while self._items:
                record = self._render(self._items.pop())
                if record is not None:
                    return record
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                return {"dropped": dropped}
            self._has_more.clear()
            items, self._dropped = self._feed.take()
            if not items and not self._dropped:
                return None
            self._items = items[::-1]

    def close(self) -> None:
        """Take nothing more, and end the iteration."""
        if not self._is_closed:
            self._is_closed = True
            self._leave(self._feed)
            self._has_more.set()

    async def __aenter__(self) -> Stream[Item]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
