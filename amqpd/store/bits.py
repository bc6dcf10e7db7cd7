"""Sets of message numbers as one integer that has a bit for each number."""

from __future__ import annotations

from collections.abc import Sequence


def bits_of(numbers: Sequence[int], first: int = 0) -> int:
    """Return the set of these numbers, which rise; the lowest bit stands for the number `first`."""
    if numbers[-1] - numbers[0] == len(numbers) - 1:
        return (1 << len(numbers)) - 1 << numbers[0] - first
    bits = 0
    for number in numbers:
        bits |= 1 << number - first
    return bits
