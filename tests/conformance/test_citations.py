"""The conformance suite cites only chapters of its SEMANTICS.md, and every test belongs to one."""
from __future__ import annotations

import ast
from pathlib import Path

import pytest

from conformance import chapters
from conformance.capabilities import MEANINGS
from conformance.http.consumers import CONSUMERS
from conformance.http.differences import DIFFERENCES

SUITE = Path(chapters.__file__).parent
FILES = sorted([*SUITE.rglob("*.py"), *SUITE.rglob("*.md"), *SUITE.glob("brokers/*.toml")])
TESTS = sorted(SUITE.rglob("test_*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_citation_is_a_chapter(path: Path) -> None:
    missing = chapters.cited(path.read_text()) - chapters.titles().keys()
    assert not missing, f"{path.name} cites {sorted(missing)}"


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_every_test_belongs_to_a_chapter(path: Path) -> None:
    begun = chapters.CITED.match(ast.get_docstring(ast.parse(path.read_text())) or "")
    assert begun and int(begun[1]) in chapters.titles()


def test_no_chapter_comes_twice_and_they_are_in_order() -> None:
    numbers = [int(number) for number, _ in chapters.HEADING.findall(chapters.SEMANTICS.read_text())]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("text, expected", [
    ("§19", {19}), ("§19 to §23, §28", {19, 20, 21, 22, 23, 28}), ("(§25, §37)", {25, 37}), ("no chapter", set())])
def test_a_range_cites_all_that_is_in_it(text: str, expected: set[int]) -> None:
    assert chapters.cited(text) == expected


# Capabilities

def needed_by(path: Path) -> set[str]:
    """The capabilities that markers of this file name, and its preparations for a restart."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return {word.value for call in calls for word in call.args if isinstance(word, ast.Constant)
            and ast.unparse(call.func) in ("pytest.mark.needs", "before_the_restart_with")}


def test_what_tests_need_has_a_meaning_and_what_has_a_meaning_is_needed() -> None:
    needed = set().union(*(needed_by(path) for path in [*TESTS, SUITE / "queues.py"]))
    needed |= {row.needs for rows in CONSUMERS.values() for row in rows}
    needed |= {line.capability for line in DIFFERENCES}
    assert needed | {"reply-texts", "rabbitmq-choices", "http-crashes"} == MEANINGS.keys()


def test_no_test_asks_which_product_it_talks_to() -> None:
    for path in TESTS:
        assert "mark.only" not in path.read_text(), path.name
