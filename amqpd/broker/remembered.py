"""What is remembered of clients' repetitions so that the next one is a look-up, and how much memory that may take.

Anything remembered can be found out anew. So it has no owner's limit of its own, but one for each connection and one
for all of them: a connection that comes to its limit begins anew, and where all together come to theirs, the
connections that began first forget what they have.

Sizes are estimates, in bytes. A connection takes them from the common store in grants, so that remembering one thing
more is mostly an addition.

Always true between calls: a connection has been granted what it remembers, or more; all grants are within the limit.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from amqpd.broker.effort import Effort

MOST = 1024 * 1024          # bytes a connection
MOST_OF_ALL = 32 * MOST
LARGEST = MOST // 4         # of one thing; what is larger is not remembered
GRANT = 4096
OCTETS_A_STEP = 2048        # that are forgotten

Key = TypeVar("Key")
Value = TypeVar("Value")


class CommonMemory:
    """What all connections remember together."""

    def __init__(self, effort: Effort) -> None:
        self.granted = 0
        self.effort = effort
        self.memories: dict[Memory, None] = {}      # that have a grant, in the order in which they began


class Memory:
    """What one connection remembers, in any number of places."""

    __slots__ = ("octets", "granted", "places", "_common")

    def __init__(self, common: CommonMemory) -> None:
        self.octets = 0
        self.granted = 0
        self.places: set[Remembered[Any, Any]] = set()        # that are not empty
        self._common = common

    def make_room(self, octets: int) -> None:
        """Have so much more granted; what this connection remembers, or others do, is forgotten for it."""
        common = self._common
        if self.octets + octets > MOST:
            self.clear()
        more = max(0, -(-(self.octets + octets - self.granted) // GRANT)) * GRANT
        while common.memories and common.granted + more > MOST_OF_ALL:
            first = next(iter(common.memories))
            first.clear()
            if first is self:
                more = -(-octets // GRANT) * GRANT
        common.memories[self] = None
        self.granted += more
        common.granted += more

    def clear(self) -> None:
        """Forget everything."""
        common = self._common
        common.effort.total += self.octets // OCTETS_A_STEP
        for place in [*self.places]:
            place.clear()
        common.memories.pop(self, None)
        common.granted -= self.granted
        self.granted = 0


class Remembered(Generic[Key, Value]):
    """One place where a connection remembers: `known` is for look-ups only."""

    __slots__ = ("known", "_octets", "_memory")

    def __init__(self, memory: Memory) -> None:
        self.known: dict[Key, Value] = {}
        self._octets = 0
        self._memory = memory

    def keep(self, key: Key, value: Value, octets: int) -> None:
        """Remember this, which is not known yet and takes about so much memory, unless it is too large."""
        if octets > LARGEST:
            return
        memory = self._memory
        if memory.octets + octets > memory.granted:
            memory.make_room(octets)
        memory.places.add(self)
        memory.octets += octets
        self._octets += octets
        self.known[key] = value

    def clear(self) -> None:
        """Forget what is kept here."""
        memory = self._memory
        memory.places.discard(self)
        memory.octets -= self._octets
        self._octets = 0
        self.known.clear()
