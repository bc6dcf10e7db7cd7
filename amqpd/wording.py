"""Wording that several messages to users share."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: `1 message`, `2,000 messages`. The default plural is the noun with an s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
