"""The promises that a history is checked against, called lines, by number, with the function that checks each.

Such a function takes a book and returns a text for each violation; the modules `lines_…` have them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from tests.history.book import Book
from tests.history.events import Event

Check = Callable[[Book], Iterator[str]]


class Line(NamedTuple):
    """One line: its words, and the check."""

    words: str
    check: Check


class Finding(NamedTuple):
    """A line that was broken, and how."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.line} {LINES[self.line].words}: {self.text}"


LINES: dict[int, Line] = {}


def line(number: int, words: str) -> Callable[[Check], Check]:
    """Make a check known by the line's number and words."""
    def known(check: Check) -> Check:
        assert number not in LINES, f"line {number} is there already"
        LINES[number] = Line(words, check)
        return check

    return known


def judge(events: Iterable[Event]) -> list[Finding]:
    """Everything that is wrong with a history, line by line."""
    return judge_book(Book(events))


def judge_book(book: Book) -> list[Finding]:
    """Everything that is wrong with a history that has been put together."""
    return [Finding(number, text) for number in sorted(LINES) for text in LINES[number].check(book)]
