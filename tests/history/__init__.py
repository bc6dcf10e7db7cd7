"""A history checker: a pure program that checks a log of what clients of a broker did and received."""

from __future__ import annotations

from tests.history import lines_after, lines_messages, lines_order, lines_talk, lines_time, lines_world
from tests.history.events import Event, History, read_history
from tests.history.lines import LINES, Finding, judge, judge_book

__all__ = (
    "LINES", "Event", "Finding", "History", "judge", "judge_book", "lines_after", "lines_messages", "lines_order",
    "lines_talk", "lines_time", "lines_world", "read_history")
