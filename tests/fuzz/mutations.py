"""Mutate inputs so that what is in them stays readable: lengths are adjusted to what is inserted or removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from tests.fuzz.targets.target import Target


def mutated(target: Target, data: bytes, longest: int, random: Random, otherwise: Callable[[], bytes]) -> bytes:
    """Return an input made of this one: by the mutation of its kind, with lengths adjusted, or by `otherwise`."""
    chance = random.random()
    made: bytes | None = None
    if target.mutate is not None:
        made = target.mutate(random, data) if chance < 0.7 else None
    elif chance < 0.4:
        made = resized(random, data, target.words, target.lengths)
    elif chance < 0.5:
        made = resized(random, data, target.words, ())
    if made is None or len(made) > longest:
        return otherwise()
    return made


def resized(random: Random, data: bytes, words: Sequence[bytes], widths: Sequence[int]) -> bytes:
    """Replace a few bytes at some place by a word or by a part of the input; adjust the lengths of what is around it.

    Every number of so many bytes counts as a length if that many bytes follow it, and the place is among them.
    """
    at = random.randrange(len(data) + 1)
    removed = min(random.choice((0, 0, 0, 1, 2, 4, 8, 16)), len(data) - at)
    start = random.randrange(len(data) + 1)
    inserted = random.choice((
        b"", random.choice(words) if words else b"", data[start:start + random.choice((1, 4, 16, 64))]))
    result = bytearray(data[:at] + inserted + data[at + removed:])
    for width in widths:
        for place in range(max(0, at - 5_000), at - width + 1):
            length = int.from_bytes(data[place:place + width], "big")
            if length and at + removed <= place + width + length <= len(data):
                changed = length + len(inserted) - removed
                if 0 <= changed < 1 << 8 * width and (width > 1 or random.random() < 0.3):
                    result[place:place + width] = changed.to_bytes(width, "big")
    return bytes(result)
