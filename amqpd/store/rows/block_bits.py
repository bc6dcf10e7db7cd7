"""Which messages of message blocks are left: a number with a bit for each message of a block, in memory.

So the messages that are left are known without reading. Each engine has a class on top of this that keeps the tables
`message_blocks` and `block_flags` in step.

Deleting a row takes as long as writing it. So when very many blocks become empty at once, by a purge or with a queue,
only some are deleted at once. The others get flags which say that no message is left, and are deleted in slices.

Always true between transactions: nothing is staged; `_emptied` are the blocks without messages that have a row still.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

from amqpd.store.bits import bits_of
from amqpd.store.rows.message_blocks import SPAN, BlockRow, pack_flags, places_and_sizes, unpack_flags

NOTHING_WAITS = pack_flags(0, 0)
_MANY = 32


class BlockBits:
    """The blocks of one store. Changes within a transaction are staged until `keep`, or dropped by `forget`."""

    def __init__(self, deleted_at_once: int) -> None:
        self._deleted_at_once = deleted_at_once     # rows, in one transaction
        self._firsts: list[int] = []                # of all blocks, rising
        self._waiting: dict[int, int] = {}          # by the first number of a block
        self._redelivered: dict[int, int] = {}      # as far as the last clean stop knew; most blocks have none
        self._added: dict[int, int] = {}            # in this transaction, and what waits in them
        self._changed: dict[int, int] = {}          # what waits in others once it is done
        self._emptied: list[int] = []               # rows that are to be deleted
        self._now_emptied: list[int] = []           # in this transaction
        self._deleted = 0                           # of `_emptied`, in this transaction

    def know(self, first: int, waiting: int, redelivered: int) -> None:
        """Register a block, when the store is read; blocks come in the order of their numbers."""
        if not waiting:
            self._emptied.append(first)
            return
        self._firsts.append(first)
        self._waiting[first] = waiting
        if redelivered:
            self._redelivered[first] = redelivered

    # Changes

    def add_bits(self, rows: Sequence[BlockRow]) -> None:
        """Stage these blocks, which are written in this transaction."""
        for first, last, _, count, _, heads, _ in rows:
            has_gaps = last - first >= count
            self._added[first] = bits_of([place for place, _ in places_and_sizes(heads)] if has_gaps else range(count))

    def settle(self, numbers: Sequence[int]) -> list[int]:
        """Remove these messages, whose numbers rise, from their blocks; return the numbers of those in none."""
        found, single = self.split(numbers)
        for first, bits in found.items():
            self._changed[first] = self._now_waiting(first) & ~bits
        return single

    def pending(self) -> tuple[list[int], list[int], list[tuple[int, bytes]]]:
        """Return the blocks to delete in this transaction, those to lose their flags, and the flags to be written.

        Blocks are given by their first numbers. The flags come after the deletions.
        """
        gone = [first for first, bits in self._changed.items() if not bits]
        deleted, self._now_emptied = gone[:self._deleted_at_once], gone[self._deleted_at_once:]
        unflagged = [*self._changed]
        flags = [(first, pack_flags(bits, self._redelivered.get(first, 0) & bits))
                 for first, bits in self._changed.items() if bits]
        flags += [(first, NOTHING_WAITS) for first in self._now_emptied]
        most = self._deleted_at_once - len(gone)
        if most > 0 and self._emptied:      # of blocks that became empty before this transaction
            emptied = self._emptied[-most:]
            self._deleted = len(emptied)
            deleted += emptied
            unflagged += emptied
        return deleted, unflagged, flags

    @property
    def has_emptied(self) -> bool:
        """Whether empty blocks are to be deleted."""
        return bool(self._emptied)

    def keep(self) -> None:
        """Note that the changes are committed."""
        if self._added:
            in_order = not self._firsts or self._firsts[-1] < min(self._added)
            self._firsts += sorted(self._added)
            if not in_order:        # what is published later may have been given its number earlier
                self._firsts.sort()
        self._waiting.update(self._added)
        gone = []
        for first, bits in self._changed.items():
            if bits:
                self._waiting[first] = bits
            elif self._waiting.pop(first, None) is not None:    # but for one that was never known to be sound
                gone.append(first)
                self._redelivered.pop(first, None)
        if len(gone) < _MANY:
            for first in gone:
                del self._firsts[bisect_left(self._firsts, first)]
        else:
            self._firsts = [first for first in self._firsts if first in self._waiting]
        if self._deleted:
            del self._emptied[-self._deleted :]
        self._emptied += self._now_emptied

    def forget(self) -> None:
        """Forget what was changed since the last transaction."""
        self._added.clear()
        self._changed.clear()
        self._now_emptied = []
        self._deleted = 0

    def _now_waiting(self, first: int) -> int:
        return self._changed.get(first, self._waiting.get(first, 0))

    # Looking

    def split(self, numbers: Sequence[int]) -> tuple[dict[int, int], list[int]]:
        """Return the blocks of these messages, whose numbers rise, with their bits; and the numbers without a block."""
        found: dict[int, int] = {}
        single: list[int] = []
        if not self._firsts:
            return found, [*numbers]
        at = 0
        while at < len(numbers):
            number = numbers[at]
            first = self._block_of(number)
            if first is None:
                single.append(number)
                at += 1
                continue
            waiting = self._now_waiting(first)
            end = bisect_left(numbers, first + waiting.bit_length(), at)
            bits = bits_of(numbers[at:end], first)
            found[first] = here = bits & waiting
            if here != bits:        # blocks of several queues may share a span
                others = [number for number in numbers[at:end] if not here >> number - first & 1]
                numbers, at, end = [*others, *numbers[end:]], 0, 0
            at = end
        return found, single

    def _block_of(self, number: int) -> int | None:
        """Return the first number of the block in which this message waits."""
        for at in range(bisect_right(self._firsts, number) - 1, -1, -1):
            first = self._firsts[at]
            if number - first >= SPAN:
                break
            if self._now_waiting(first) >> number - first & 1:
                return first
        return None

    def check_against(self, blocks: Iterable[tuple[Any, ...]]) -> None:
        """Assert what must hold between transactions, by rows as `parse_block` takes them."""
        assert not self._added and not self._changed, "a change was neither kept nor forgotten"
        assert self._firsts == sorted(self._waiting)
        rows = {row[0]: parse_block(row) for row in blocks}
        assert sorted(self._emptied) == [first for first, (_, waiting, _) in rows.items() if not waiting]
        rows = {first: row for first, row in rows.items() if row[1]}
        assert {first: waiting for first, (_, waiting, _) in rows.items()} == self._waiting
        for first, (_, waiting, redelivered) in rows.items():
            assert redelivered == self._redelivered.get(first, 0) & waiting


def parse_block(row: tuple[Any, ...]) -> tuple[list[tuple[int, int]], int, int]:
    """Parse a row of `SELECT_BLOCKS`: return places and sizes of all messages, the bits of those that are left, and of
    those that have been delivered. Raises TypeError, ValueError for a damaged row.
    """
    first, _, last, count, body_bytes, heads, flags = row
    found = places_and_sizes(heads)
    places, sizes = zip(*found)
    if (last, count, body_bytes) != (first + places[-1], len(found), sum(sizes)):
        raise ValueError("its heads are not what its other columns say")
    everything = bits_of(places)
    waiting, redelivered = (everything, 0) if flags is None else unpack_flags(flags)
    if flags == b"" or waiting & ~everything:
        raise ValueError("its flags are not those of its messages")
    return found, waiting, redelivered & waiting
