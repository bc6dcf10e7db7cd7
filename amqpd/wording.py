"""Wording that several messages to users share."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: `1 message`, `2,000 messages`. The default plural is the noun with an s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def lasting(milliseconds: int) -> str:
    """Return a duration in the largest unit of which there are at least two: `500 ms`, `90 s`, `14 min`, `3 h`, `2 d`.

    What is less than a tenth of that unit is left out.
    """
    for size, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")):
        if milliseconds >= 2 * size or milliseconds == size:
            tenths = milliseconds * 10 // size
            return f"{tenths // 10}{f'.{tenths % 10}' if tenths % 10 and tenths < 100 else ''} {unit}"
    return f"{milliseconds} ms"


def escape(text: str) -> str:
    """Return the text with all characters that are not printable, also line ends, as Python escapes."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode() for c in text])
