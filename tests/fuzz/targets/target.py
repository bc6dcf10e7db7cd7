"""What a target of the guided fuzzer is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import NamedTuple

Mutation = Callable[[Random, bytes], bytes | None]      # None if it has nothing to change


class Target(NamedTuple):
    """Code that takes bytes from outside. `run` raises nothing, unless the code does what it must not.

    `seeds` are inputs to begin with, `words` are what a mutation may insert, `longest` is the size of an input in
    bytes. `mutate` is a mutation for this kind of input; without it, lengths in an input are adjusted to what is
    inserted: they have `lengths` bytes. `share` is how many of 200 inputs are for this target.

    An input of n bytes may run `steps` lines of Python code for each of its n + 100 bytes, and take `memory` bytes for
    each of them.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    words: Sequence[bytes] = ()
    longest: int = 1_024
    mutate: Mutation | None = None
    lengths: Sequence[int] = (4, 1)
    share: int = 30
    steps: int = 50
    memory: int = 2_000


def pieces_of(data: bytes, cuts: bytes) -> list[bytes]:
    """Cut bytes into pieces whose sizes are the numbers in `cuts`, over and over."""
    sizes = [size or 1 for size in cuts] or [len(data) or 1]
    pieces, at = [], 0
    while at < len(data):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[at:at + size])
        at += size
    return pieces
