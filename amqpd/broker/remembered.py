"""Caches for what clients repeat, and the limit of their memory.

Everything cached can be computed again. Each connection has a limit, and all connections together have one: a
connection that reaches its limit clears its caches, and if all together reach theirs, the connections that began first
lose their caches.

Sizes are estimates, in bytes. A connection gets memory from the common limit in grants, so that adding an entry is
mostly an addition of two numbers.

Always true between calls: the grant of a connection covers its caches; all grants together are within the limit.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from amqpd.broker.effort import Effort

MOST = 1024 * 1024          # bytes for a connection
MOST_OF_ALL = 32 * MOST
LARGEST = MOST // 4         # for one entry; a larger one is not cached
GRANT = 4096
BYTES_A_STEP = 2048        # that are freed

Key = TypeVar("Key")
Value = TypeVar("Value")


class CommonMemory:
    """The grants of all connections: at most `most` bytes for one of them, and `most_of_all` for all together."""

    def __init__(self, effort: Effort, *, most: int = MOST, most_of_all: int = MOST_OF_ALL) -> None:
        self.most = most
        self.most_of_all = most_of_all
        self.granted = 0
        self.effort = effort
        self.memories: dict[Memory, None] = {}      # with a grant, in the order in which they began


class Memory:
    """The caches of one connection."""

    __slots__ = ("used", "granted", "places", "_common")

    def __init__(self, common: CommonMemory) -> None:
        self.used = 0
        self.granted = 0
        self.places: set[Remembered[Any, Any]] = set()        # caches that are not empty
        self._common = common

    def make_room(self, size: int) -> None:
        """Get a grant of so much more than there is; for that, clear the caches of this connection or of others."""
        common = self._common
        if self.used + size > common.most:
            self.clear()
        more = -(-(self.used + size - self.granted) // GRANT) * GRANT
        while common.memories and common.granted + more > common.most_of_all:
            first = next(iter(common.memories))
            first.clear()
            if first is self:
                more = -(-size // GRANT) * GRANT
        common.memories[self] = None
        self.granted += more
        common.granted += more

    def clear(self) -> None:
        """Clear all caches."""
        common = self._common
        common.effort.total += self.used // BYTES_A_STEP
        for place in [*self.places]:
            place.clear()
        common.memories.pop(self, None)
        common.granted -= self.granted
        self.granted = 0


class Remembered(Generic[Key, Value]):
    """One cache of a connection; `known` is for look-ups only."""

    __slots__ = ("known", "_used", "_memory")

    def __init__(self, memory: Memory) -> None:
        self.known: dict[Key, Value] = {}
        self._used = 0
        self._memory = memory

    def keep(self, key: Key, value: Value, size: int) -> None:
        """Add an entry that is not there, of about this size, unless it is too large."""
        if size > LARGEST:
            return
        memory = self._memory
        if memory.used + size > memory.granted:
            memory.make_room(size)
        memory.places.add(self)
        memory.used += size
        self._used += size
        self.known[key] = value

    def clear(self) -> None:
        """Clear this cache."""
        memory = self._memory
        memory.places.discard(self)
        memory.used -= self._used
        self._used = 0
        self.known.clear()
