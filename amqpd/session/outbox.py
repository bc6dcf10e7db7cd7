"""The output of a connection: bytes in order, some of them held until a batch is on disk.

Owns the outgoing bytes of one connection. The answer to a declaration must not be sent before the declaration is on
disk; all output after it waits too, so that a client sees everything in the order in which it happened.

Answers are counted separately from deliveries. Deliveries wait for room, so they are limited; answers are limited only
by what the client asks for, so it must read them before it continues.

Always true between calls: `size` is the bytes in `_free` and in all held parts together; held parts wait for rising
batch numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

MARK_EVERY = 64 * 1024      # bytes of answers


def _nothing() -> None:
    """Do nothing: the outbox is no longer used."""


class Outbox:
    """The output of one connection. `on_output` is called with the first bytes after it was emptied."""

    def __init__(self, on_output: Callable[[], None]) -> None:
        self.size = 0
        self._answered = self._delivered = 0        # bytes since the connection began
        self._marked = 0                            # bytes of answers up to the last mark
        self._read = 0                              # and up to the last mark that the client has read
        self._marks: deque[tuple[int, int]] = deque()       # bytes in all, and of answers, up to some positions
        self._on_output = on_output
        self._is_noted = False
        self._free: list[bytes] = []
        self._held: deque[tuple[int, list[bytes]]] = deque()
        self._last = self._free

    def write(self, frames: bytes) -> None:
        """Append an answer."""
        size = len(frames)
        self.size += size
        self._answered += size
        if self._answered - self._marked >= MARK_EVERY:
            self._marked = self._answered
            self._marks.append((self._answered + self._delivered, self._answered))
        self._last.append(frames)
        if not self._is_noted:
            self.note()

    def extend(self, pieces: Iterable[bytes], size: int) -> None:
        """Append deliveries, `size` bytes together."""
        self.size += size
        self._delivered += size
        self._last += pieces
        if not self._is_noted:
            self.note()

    def note(self) -> None:
        """Request a flush at the end of the turn."""
        self._is_noted = True
        self._on_output()

    def has_unread_answers(self, most: int, unsent: Callable[[], int]) -> bool:
        """Return whether more than so many bytes of answers are here or in the transport, to about 64 KiB.

        `unsent` returns the bytes in the transport. It is called only if that may make a difference.
        """
        if self._answered - self._read <= most:
            return False
        pending = self.size + unsent()
        gone = self._answered + self._delivered - pending
        while self._marks and self._marks[0][0] <= gone:
            self._read = self._marks.popleft()[1]
        return min(pending, self._answered - self._read) > most

    def clear(self) -> None:
        """Drop everything: the client is gone."""
        self._free.clear()
        self.forget_held()
        self._marks.clear()
        self._on_output = _nothing

    def hold_until(self, batch: int) -> None:
        """Hold all output from now on until this batch is on disk."""
        self._last = []
        self._held.append((batch, self._last))

    def on_commit(self, batch: int) -> bool:
        """Release the output that waited for this batch or an earlier one; return whether there was any."""
        freed = False
        while self._held and self._held[0][0] <= batch:
            self._free += self._held.popleft()[1]
            freed = True
        if freed:
            if not self._held:
                self._last = self._free
            if not self._is_noted:
                self.note()
        return freed

    def forget_held(self) -> None:
        """Drop held output: its batches will never be on disk."""
        self.size = sum(map(len, self._free))
        self._held.clear()
        self._last = self._free

    @property
    def awaited_batch(self) -> int:
        """The batch that the newest held part waits for; 0 if nothing is held."""
        return self._held[-1][0] if self._held else 0

    def take(self) -> list[bytes]:
        """Return everything that may be sent now."""
        self._is_noted = False
        pieces = self._free
        self._free = []
        if not self._held:
            self._last = self._free
            self.size = 0
        else:
            self.size -= sum(map(len, pieces))
        return pieces
