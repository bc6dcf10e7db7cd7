"""The tool itself: it makes each kind of change and takes it back, and sees both what is caught and what is not."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from tests.mutation.forked import in_forks
from tests.mutation.mutants import Mutant, mutants_of
from tests.mutation.patching import NotApplicable, changed_functions

SOURCE = '''
    """Left alone."""
    LIMIT = 5

    class Box:
        def __init__(self, size: int = 3) -> None:
            """Left alone."""
            self.size = size

        def is_full(self, count: int) -> bool:
            assert count >= 0
            return count >= self.size and not self.is_open(wide=True)

        def is_open(self, wide: bool = False) -> bool:
            return wide

        def check(self) -> None:
            wanted = 1
            assert wanted == 1
'''


def mutants(folder: Path, source: str = SOURCE) -> list[Mutant]:
    path = folder / "box.py"
    path.write_text(textwrap.dedent(source).lstrip())
    return mutants_of(path)


def functions_in(path: Path) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec", dont_inherit=True), names)
    return names


def by_place(*functions: Any) -> dict[Any, list[FunctionType]]:
    codes = [function.__code__ for function in functions]
    return {(code.co_filename, code.co_qualname, code.co_firstlineno): [function]
            for code, function in zip(codes, functions)}


def test_each_kind_of_change_is_made_where_it_can_be(tmp_path: Path) -> None:
    assert [(m.function, m.kind, m.after) for m in mutants(tmp_path)] == [
        ("Box.__init__", "delete a statement", "pass"),
        ("Box.is_full", "return None", "return None"),
        ("Box.is_full", "swap an operator", "return count >= self.size or not self.is_open(wide=True)"),
        ("Box.is_full", "swap a comparison", "return count > self.size and (not self.is_open(wide=True))"),
        ("Box.is_full", "negate a condition", "return count >= self.size and self.is_open(wide=True)"),
        ("Box.is_full", "drop an argument", "return count >= self.size and (not self.is_open())"),
        ("Box.is_full", "swap True and False", "return count >= self.size and (not self.is_open(wide=False))"),
        ("Box.is_open", "return None", "return None")]


@pytest.mark.parametrize("statement, kind, after", [
    ("x += y", "delete a statement", "pass"), ("x += y", "swap an operator", "x -= y"),
    ("x = f(y)", "assign None", "x = None"), ("f(y)", "delete a statement", "pass"),
    ("raise ValueError", "delete a statement", "pass"), ("del x", "delete a statement", "pass"),
    ("x = y + 1", "off by one", "x = y + 2"), ("x = min(y, x)", "swap min and max", "x = max(y, x)"),
    ("if x: f()", "negate a condition", "if not x:"), ("while x in y: f()", "swap a comparison", "while x not in y:"),
    ("x = [z for z in y if z]", "negate a condition", "x = [z for z in y if not z]")])
def test_a_statement_is_changed(tmp_path: Path, statement: str, kind: str, after: str) -> None:
    found = mutants(tmp_path, f"def g(x, y):\n    {statement}\n")
    assert (kind, after) in [(mutant.kind, mutant.after) for mutant in found]
    for mutant in found:
        mutant.code()
    assert mutants_of(tmp_path / "box.py")[0].before == found[0].before


def test_a_mutant_is_put_into_the_functions_there_are(tmp_path: Path) -> None:
    found = mutants(tmp_path)
    box = functions_in(tmp_path / "box.py")["Box"]
    swapped = next(mutant for mutant in found if mutant.kind == "swap a comparison")
    assert box(3).is_full(3) is False and box.is_full(box(2), 3) is False
    (function, code), = changed_functions(by_place(box.is_full, box.is_open), swapped.code())
    assert function is box.is_full and box.is_full.__code__ != code
    with pytest.raises(NotApplicable):
        changed_functions(by_place(box.is_open), swapped.code())


def test_forked_processes_report_and_those_without_end_are_ended() -> None:
    def endless() -> Iterator[int]:
        while True:
            pass
        yield 0

    def failing() -> Iterator[list[int]]:
        yield [0]
        raise MemoryError

    outcomes = dict(in_forks([(lambda: iter([[1], [2]]), 5.0), (endless, 1.0), (failing, 5.0)], 2))
    assert outcomes[0] == ([[1], [2]], "")
    assert outcomes[1].ending
    assert outcomes[2].lines[0] == [0] and outcomes[2].ending == "the process died"
