"""The chapters of SEMANTICS.md, and to which of them a test belongs.

The docstring of a test module begins with its chapter: `§19 Time to live: …`. Tests may cite other chapters too.
"""
from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

SEMANTICS = Path(__file__).parent / "SEMANTICS.md"
HEADING = re.compile(r"^## (\d+)\. (.+)$", re.MULTILINE)
CITED = re.compile(r"§(\d+)(?: to §?(\d+))?")


@cache
def titles() -> dict[int, str]:
    """Return the title of each chapter by its number."""
    return {int(number): title for number, title in HEADING.findall(SEMANTICS.read_text())}


def of(item: pytest.Item) -> int:
    """Return the chapter that a test belongs to, 0 for one whose module names none."""
    module = item.getparent(pytest.Module)
    begun = CITED.match(module.obj.__doc__ or "") if module is not None else None
    return int(begun[1]) if begun else 0


def cited(text: str) -> set[int]:
    """Return all chapters that a text cites, those between the ends of a range too."""
    return {number for first, last in CITED.findall(text) for number in range(int(first), int(last or first) + 1)}
