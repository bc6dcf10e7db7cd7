"""Read the JSON of a definitions file in pieces, and refuse what cannot be stored.

A file may have 20 MiB, and Python's JSON decoder lets no other thread run until it returns. So the elements of the
lists on the outermost level are decoded one by one.

Always true: whatever the bytes are, the only exception is `NotDefinitions`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from math import isfinite
from typing import Any

MOST_BYTES = 20 << 20
DEEPEST = 64                # levels of lists and objects, including the outermost
LOWEST, HIGHEST = -(1 << 63), (1 << 64) - 1     # the numbers that the store can keep

_SPACE = re.compile(r"[ \t\n\r]*")
_PLAIN_KEY = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)


class NotDefinitions(Exception):
    """A file that is not JSON, or has values that cannot be kept. `problems` has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def path_of(path: str, key: str | int) -> str:
    """Return the JSON path of an element or a key: `$.queues[3]`, `$.queues[3].arguments["own key"]`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) else f"{path}[{json.dumps(key)}]"


def parse(body: bytes) -> dict[str, Any]:
    """Return the object that a file consists of. Raises NotDefinitions."""
    if len(body) > MOST_BYTES:
        raise NotDefinitions([f"$: larger than {MOST_BYTES >> 20} MiB"])
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotDefinitions([f"$: byte {error.start} is not UTF-8"]) from None
    found = _Scanner(text).scan()
    problems = [problem for key, value in found.items() for problem in _faults(value, path_of("$", key), 2)]
    problems += [f"$: the key {key!a} is not a text that can be stored" for key in found if not _is_utf8(key)]
    if problems:
        raise NotDefinitions(problems)
    return found


class _Scanner:
    """Decodes an object whose values are mostly long lists."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def scan(self) -> dict[str, Any]:
        self._skip_space()
        if not self._text.startswith("{", self._at):
            self._fail("an object was expected")
        found: dict[str, Any] = {}
        for _ in self._items("}"):
            key = self._value()
            if not isinstance(key, str):
                self._fail("a key in quotes was expected")
            if key in found:
                self._fail(f"the key {key!r} is there twice")
            self._skip_space()
            if not self._text.startswith(":", self._at):
                self._fail("':' was expected")
            self._at += 1
            self._skip_space()
            if self._text.startswith("[", self._at):
                found[key] = [self._value() for _ in self._items("]")]
            else:
                found[key] = self._value()
        self._skip_space()
        if self._at < len(self._text):
            self._fail("nothing more was expected")
        return found

    def _items(self, end: str) -> Iterator[None]:
        """Yield at the start of each item of a list or object, whose bracket is next; stop behind its end."""
        self._at += 1
        self._skip_space()
        if self._text.startswith(end, self._at):
            self._at += 1
            return
        while True:
            self._skip_space()
            yield
            self._skip_space()
            following = self._text[self._at:self._at + 1]
            if following not in (",", end) or not following:
                self._fail(f"',' or '{end}' was expected")
            self._at += 1
            if following == end:
                return

    def _value(self) -> Any:
        try:
            value, self._at = self._decoder.raw_decode(self._text, self._at)
        except RecursionError:
            self._fail(f"nested deeper than {DEEPEST} levels")
        except json.JSONDecodeError as error:
            self._at = error.pos
            self._fail(error.msg)
        except ValueError as error:
            self._fail(str(error))
        return value

    def _skip_space(self) -> None:
        found = _SPACE.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _fail(self, reason: str) -> None:
        before = self._text[:self._at]
        line, column = before.count("\n") + 1, self._at - before.rfind("\n")
        raise NotDefinitions([f"$: not JSON, line {line} column {column}: {reason}"])


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _faults(value: Any, path: str, level: int) -> Iterator[str]:
    """Yield what cannot be stored of a value: half characters, numbers that are too large, too many levels."""
    if isinstance(value, str):
        if not _is_utf8(value):
            yield f"{path}: has half of a surrogate pair, which is not a character"
    elif isinstance(value, float):
        if not isfinite(value):
            yield f"{path}: the number is too large"
    elif isinstance(value, int):
        if not LOWEST <= value <= HIGHEST:
            yield f"{path}: the number is beyond 64 bits"
    elif isinstance(value, (list, dict)):
        if level > DEEPEST:
            yield f"{path}: nested deeper than {DEEPEST} levels"
            return
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(key, str) and not _is_utf8(key):
                yield f"{path}: the key {key!a} is not a text that can be stored"
            yield from _faults(inner, path_of(path, key), level + 1)


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
