"""What a connection still has to say: bytes in order, some of them held until a batch is on disk.

Owns the outgoing bytes of one connection. A declaration's answer must not go out before the declaration is
safe; everything said after it waits behind it, so the order a client sees is the order things happened in.

Answers are counted apart from deliveries. Deliveries wait until there is room for them, so they are few; answers are as
many as the client asks for, and it is asked to read them before it goes on.

Always true between calls: `size` is the bytes in `_free` and in every held part together; held parts wait
for rising batch numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

MARK_EVERY = 64 * 1024      # bytes of answers


def _nothing() -> None:
    """Nobody is asked to empty it any more."""


class Outbox:
    """`on_output` is called when the first bytes come in after it was emptied."""

    def __init__(self, on_output: Callable[[], None]) -> None:
        self.size = 0
        self._answered = self._delivered = 0        # bytes since the connection began
        self._marked = 0                            # those of answers up to the last mark
        self._read = 0                              # and up to the last mark that the peer has come to
        self._marks: deque[tuple[int, int]] = deque()       # bytes in all, and of answers, up to some places
        self._on_output = on_output
        self._is_noted = False
        self._free: list[bytes] = []
        self._held: deque[tuple[int, list[bytes]]] = deque()
        self._last = self._free

    def write(self, octets: bytes) -> None:
        """Say this answer after everything else."""
        size = len(octets)
        self.size += size
        self._answered += size
        if self._answered - self._marked >= MARK_EVERY:
            self._marked = self._answered
            self._marks.append((self._answered + self._delivered, self._answered))
        self._last.append(octets)
        if not self._is_noted:
            self.note()

    def extend(self, pieces: Iterable[bytes], size: int) -> None:
        """Deliver all these, `size` bytes together."""
        self.size += size
        self._delivered += size
        self._last += pieces
        if not self._is_noted:
            self.note()

    def note(self) -> None:
        """Ask to be emptied at the end of the turn."""
        self._is_noted = True
        self._on_output()

    def has_unread_answers(self, most: int, unsent: Callable[[], int]) -> bool:
        """Return whether more than so many bytes of answers are here or with the transport, to about 64 KiB.

        `unsent` says how many bytes the transport has. It is only asked where that may make a difference.
        """
        if self._answered - self._read <= most:
            return False
        pending = self.size + unsent()
        gone = self._answered + self._delivered - pending
        while self._marks and self._marks[0][0] <= gone:
            self._read = self._marks.popleft()[1]
        return min(pending, self._answered - self._read) > most

    def clear(self) -> None:
        """Forget everything: the peer is gone."""
        self._free.clear()
        self.forget_held()
        self._marks.clear()
        self._on_output = _nothing

    def hold_until(self, batch: int) -> None:
        """Hold everything said from now on until this batch is on disk."""
        self._last = []
        self._held.append((batch, self._last))

    def on_commit(self, batch: int) -> bool:
        """Free what waited for this batch or an earlier one; whether there was any."""
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
        """The batches will never be on disk: nothing that waits for them is said."""
        self.size = sum(map(len, self._free))
        self._held.clear()
        self._last = self._free

    @property
    def awaited_batch(self) -> int:
        """The batch the newest held part waits for; 0 if nothing is held."""
        return self._held[-1][0] if self._held else 0

    def take(self) -> list[bytes]:
        """All that may be said now."""
        self._is_noted = False
        pieces = self._free
        self._free = []
        if not self._held:
            self._last = self._free
            self.size = 0
        else:
            self.size -= sum(map(len, pieces))
        return pieces
