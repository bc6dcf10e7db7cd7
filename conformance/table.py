"""Print the table at the end of a run: for each chapter passed, failed, differs, and skipped with the reason."""
from __future__ import annotations

from collections import Counter
from typing import Any, Iterable, Mapping

from conformance.chapters import titles

COLUMNS = ("passed", "failed", "differs", "skipped")
OUTCOMES = {"passed": "passed", "failed": "failed", "error": "failed", "differs": "differs", "skipped": "skipped"}
TITLE_WIDTH = 48
NEEDS = "Skipped: needs "


class Chapter:
    """What became of one chapter's tests."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def add(self, outcome: str, report: Any) -> None:
        """Count one test, and why it was skipped."""
        self.counts[outcome] += 1
        if outcome == "skipped":
            self.reasons[report.longrepr[2].removeprefix(NEEDS)] += 1

    def line(self, name: str) -> str:
        """Return its row."""
        numbers = "".join(f"{self.counts[column]:>9}" for column in COLUMNS)
        reasons = "; ".join(f"{reason}: {count}" for reason, count in self.reasons.most_common())
        return f"{name:<{TITLE_WIDTH}}{numbers}  {reasons}".rstrip()


def lines(stats: Mapping[str, Iterable[Any]]) -> list[str]:
    """Return the table's lines, made of pytest's reports by their category."""
    chapters: dict[int, Chapter] = {}
    for category, outcome in OUTCOMES.items():
        for report in stats.get(category, ()):
            number = dict(report.user_properties).get("chapter", 0)
            chapters.setdefault(number, Chapter()).add(outcome, report)
    columns = "".join(f"{column:>9}" for column in COLUMNS)
    return [f"{'chapter':<{TITLE_WIDTH}}{columns}  skipped because these are needed",
            *(chapters[number].line(named(number)) for number in sorted(chapters)), total(chapters)]


def named(number: int) -> str:
    """Return a chapter's number and title, cut to the column."""
    return f"§{number:<3}{titles().get(number, 'no chapter')}"[:TITLE_WIDTH]


def total(chapters: Mapping[int, Chapter]) -> str:
    """Return the last row: all chapters together."""
    together = Chapter()
    for chapter in chapters.values():
        together.counts.update(chapter.counts)
    return together.line("all")
