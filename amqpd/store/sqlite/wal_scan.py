"""Detect damage inside a write-ahead log before SQLite would silently truncate the log there.

SQLite reads a log up to the first frame whose checksum does not follow from the frame before, and ignores the rest
without an error. After a power cut that is right: only the last transaction was not synced. If a frame in the middle of
a log is damaged, SQLite ignores everything after it in the same way, also what was confirmed.

The commits behind the first broken frame tell the two cases apart: after a power cut there is one at most, so two
complete ones prove damage. This is true because every commit is synced; because a log that was written back is
truncated to 0 bytes, and synced, before it is written again (`wal.py`); and because no run continues the log of another
run (`Store.open`). If a run did not sync its commits, `meta.synced` is 0, and its log is not scanned. Damage of the
last commit or two of a log cannot be detected.

Spec: sqlite.org/fileformat2.html#the_write_ahead_log.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from amqpd.store.errors import StoreError, from_system

Sums = tuple[int, int]

_HEADER = struct.Struct(">8I")      # magic, version, page size, number of the checkpoint, two salts, two sums
_FRAME = struct.Struct(">6I")       # page, size of the file after a commit or 0, two salts, two sums
_SUMMED_OF_HEADER = range(6)        # words
_SUMMED_OF_FRAME = (0, 1)           # words; those of the page come after them
_MAGIC = 0x377F0682                 # the words are summed as little-endian numbers; one more: as big-endian ones
_WORD = 0xFFFFFFFF
_FRAMES_AT_ONCE = 256               # a megabyte, which caches hold
_STEPS_WITHOUT_CARRY = 32           # the sums of so many steps stay below 2^64
_COMMITS_OF_DAMAGE = 2


class _Frame(NamedTuple):
    """What the scan needs of a frame. It `follows` if its sums result from the sums before it and its own words."""

    salts: Sums
    is_commit: bool
    follows: bool


def check_wal(path: Path, page_size: int) -> None:
    """Check that at most the last commit of this log is incomplete; the file need not exist.

    `page_size` is that of the database, in bytes. Raises StoreError.
    """
    try:
        with path.open("rb") as log:
            damaged = _find_damage(log, page_size)
    except FileNotFoundError:
        return
    except OSError as error:
        raise from_system(error, path, "read") from error
    if damaged is not None:
        raise StoreError(
            f"{path} is damaged ({f'frame {damaged}' if damaged else 'its header'}; more was committed after it): "
            "restore a backup of its directory, or save what can be read with 'amqpd store salvage'")


def _find_damage(log: BinaryIO, page_size: int) -> int | None:
    """Return the number of the damaged frame, from 1; 0 if the header is damaged; None if there is no damage."""
    header = log.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    magic, _, size_of_pages, _, salt_1, salt_2, sum_1, sum_2 = _HEADER.unpack(header)
    is_big = magic == _MAGIC + 1
    words = _words_of(header[:-8], is_big=is_big)
    if magic in (_MAGIC, _MAGIC + 1) and _added(words, len(words), _SUMMED_OF_HEADER) == [(sum_1, sum_2)]:
        return _first_broken(_frames(log, size_of_pages, (sum_1, sum_2), is_big=is_big), (salt_1, salt_2))
    # The header is damaged: the frames tell the salts and the byte order.
    for is_big in (False, True):
        log.seek(_HEADER.size)
        if _first_broken(_frames(log, page_size, (sum_1, sum_2), is_big=is_big), None) is not None:
            return 0
    return None


def _first_broken(frames: Iterator[_Frame], salts: Sums | None) -> int | None:
    """Return the number of the first broken frame if there are enough commits behind it, else None.

    Without `salts`, the header is broken: then the number is 0, and the salts are those of the first frame.
    """
    broken = None if salts else 0
    commits = 0
    for number, frame in enumerate(frames, 1):
        salts = salts or frame.salts
        is_current = frame.salts == salts
        if broken is None and not (is_current and frame.follows):
            broken = number
        # A frame that was written over an older one may be a mix of both, but only the first broken one can be.
        if broken is not None and frame.is_commit and is_current and (frame.follows or number == broken):
            commits += 1
            if commits == _COMMITS_OF_DAMAGE:
                return broken
    return None


# Sums: each word is added to the sum of the two sums before, alternately. So after n words of 0 the sums are the first
# ones times Fibonacci numbers, and what the words of a frame add does not depend on the frames before it. This is
# computed for many frames at once, each in 64 bits of one large number.

def _frames(log: BinaryIO, page_size: int, sums: Sums, *, is_big: bool) -> Iterator[_Frame]:
    """Yield the complete frames from the position of the file on; `sums` are those before the first of them."""
    size = _FRAME.size + page_size
    summed = (*_SUMMED_OF_FRAME, *range(_FRAME.size // 4, size // 4))
    first, second, third = _fibonacci(len(summed) - 1), _fibonacci(len(summed)), _fibonacci(len(summed) + 1)
    while count := len(piece := log.read(_FRAMES_AT_ONCE * size)) // size:
        words = _words_of(piece[: count * size], is_big=is_big)
        for at, (low, high) in enumerate(_added(words, size // 4, summed)):
            page, commit, salt_1, salt_2, *found = _FRAME.unpack_from(piece, at * size)
            expected = [
                (first * sums[0] + second * sums[1] + low) & _WORD, (second * sums[0] + third * sums[1] + high) & _WORD]
            sums = found[0], found[1]
            yield _Frame((salt_1, salt_2), bool(commit), bool(page) and found == expected)


def _words_of(piece: bytes, *, is_big: bool) -> array[int]:
    """Return the 32-bit words of these bytes."""
    words = array("I", piece)
    if is_big:
        words.byteswap()
    return words


def _added(words: array[int], stride: int, summed: Iterable[int]) -> list[Sums]:
    """Return for each stride what its words at the places `summed` add to the two sums."""
    count = len(words) // stride
    lanes = array("I", bytes(8 * count))
    mask = int.from_bytes(b"\xff\xff\xff\xff\0\0\0\0" * count, "little")
    before = last = 0
    for step, at in enumerate(summed, 1):
        lanes[::2] = words[at::stride]
        before, last = last, before + last + int.from_bytes(lanes, "little")
        if step % _STEPS_WITHOUT_CARRY == 0:
            before, last = before & mask, last & mask
    unpack = struct.Struct(f"<{count}Q").unpack
    return list(zip(*[unpack((sums & mask).to_bytes(8 * count, "little")) for sums in (before, last)]))


def _fibonacci(number: int) -> int:
    before, last = 1, 0
    for _ in range(number):
        before, last = last, before + last
    return last & _WORD
