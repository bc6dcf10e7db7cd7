"""A bounded buffer between the broker, which never waits, and one reader that may be slow.

The broker puts items in; the reader takes all of them at once, when it can. An item for which there is no room is
dropped and counted, and the count is taken with the items that were before it.

Always true between calls: the feed holds at most `most` items, and at most `most_bytes` unless it is a single item.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from amqpd.broker.worklist import nothing

Item = TypeVar("Item")

MOST_ITEMS = 2_000
MOST_BYTES = 8 << 20


class Feed(Generic[Item]):
    """The items that one reader has not taken. `on_first` is called when an item comes into the empty feed."""

    __slots__ = ("on_first", "_most", "_most_bytes", "_items", "_bytes", "_dropped")

    def __init__(self, most: int = MOST_ITEMS, most_bytes: int = MOST_BYTES) -> None:
        self.on_first: Callable[[], None] = nothing
        self._most = most
        self._most_bytes = most_bytes
        self._items: list[Item] = []
        self._bytes = 0
        self._dropped = 0

    def has_room(self, size: int = 0) -> bool:
        """Return whether an item of this size can be put; if not, count it as dropped."""
        if not self._items or len(self._items) < self._most and self._bytes + size <= self._most_bytes:
            return True
        self._dropped += 1
        return False

    def put(self, item: Item, size: int = 0) -> None:
        """Put an item of about so many bytes, after `has_room` has said that it can be put."""
        self._items.append(item)
        self._bytes += size
        if len(self._items) == 1:
            self.on_first()

    def take(self) -> tuple[list[Item], int]:
        """Take all items, and the number of those that were dropped after them."""
        taken = self._items, self._dropped
        self._items, self._bytes, self._dropped = [], 0, 0
        return taken
