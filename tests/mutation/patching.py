"""Put a mutant into a process that has imported the module: give its functions the changed code.

A process that has imported everything, and collected all tests, is forked for each mutant. That takes milliseconds,
where another start takes seconds.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import CodeType, FunctionType

Place = tuple[str, str, int]


class NotApplicable(Exception):
    """No function that exists would run the changed code."""


def functions_of(folder: str) -> dict[Place, list[FunctionType]]:
    """Return all functions whose code stands below a folder, by file, qualified name and first line."""
    functions: dict[Place, list[FunctionType]] = {}
    gc.unfreeze()
    for one in gc.get_objects():
        if type(one) is FunctionType and one.__code__.co_filename.startswith(folder):
            functions.setdefault(_place(one.__code__), []).append(one)
    return functions


def changed_functions(
    functions: dict[Place, list[FunctionType]], code: CodeType
) -> list[tuple[FunctionType, CodeType]]:
    """Return the functions that read differently in this code of their module, each with its new code."""
    changed = []
    for new in _codes_in(code):
        for function in functions.get(_place(new), ()):
            if function.__code__ != new:
                if function.__code__.co_freevars != new.co_freevars:
                    raise NotApplicable
                changed.append((function, new))
    if not changed or len({id(function) for function, _ in changed}) < len(changed):
        raise NotApplicable
    return changed


def _place(code: CodeType) -> Place:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def _codes_in(code: CodeType) -> Iterator[CodeType]:
    """Give the code objects of a module, but for those inside functions."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType) and "<locals>" not in constant.co_qualname:
            yield constant
            yield from _codes_in(constant)
