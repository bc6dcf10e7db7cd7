"""A small part of JSONPath (RFC 9535): the path to one value, and the text that the value must have.

    $.order.lines[0].sku=A-17       names and indexes, from the whole document on
    $['odd name'].state="new"       a name in quotes; what follows the first = outside of it is the value
    $.paid                          without =, the value must be there, whatever it is

The value is JSON, or else a text. Wildcards, slices and filters are not part of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from amqpd.exit_codes import EXIT_DATA
from amqpd.management.json_values import is_any_of, values_meant
from amqpd.management.refusal import Refusal

MOST_STEPS = 50
LONGEST = 1_000     # characters

_STEP = re.compile(r"\.([^.\[\]=]+)|\[(-?[0-9]{1,9})\]|\['([^']*)'\]|\[\"([^\"]*)\"\]")
_MISSING = object()


class JsonPath(msgspec.Struct, frozen=True):
    """A path, and the values of which one is expected there; none if any value will do."""

    steps: tuple[str | int, ...]
    expected: tuple[Any, ...]

    def matches(self, document: Any) -> bool:
        """Return whether the document has the expected value at the path."""
        value = document
        for step in self.steps:
            value = _at(value, step)
            if value is _MISSING:
                return False
        return not self.expected or is_any_of(value, self.expected)


def parse_path(text: str) -> JsonPath:
    """Return the path of this text. Raises Refusal."""
    if len(text) > LONGEST or not text.startswith("$"):
        raise Refusal(f"a JSON path begins with $ and has at most {LONGEST:,} characters: {text[:80]}", EXIT_DATA)
    steps: list[str | int] = []
    at = 1
    while (step := _STEP.match(text, at)) is not None:
        name, index, *quoted = step.groups()
        steps.append(int(index) if index is not None else next(one for one in (name, *quoted) if one is not None))
        at = step.end()
        if len(steps) > MOST_STEPS:
            raise Refusal(f"a JSON path has at most {MOST_STEPS} steps: {text[:80]}", EXIT_DATA)
    rest = text[at:]
    if rest and not rest.startswith("="):
        raise Refusal(f"not a JSON path such as $.a.b[0]=value, from '{rest[:40]}' on: {text[:80]}", EXIT_DATA)
    return JsonPath(tuple(steps), values_meant(rest[1:]) if rest else ())


def _at(value: Any, step: str | int) -> Any:
    if isinstance(step, str):
        return value.get(step, _MISSING) if isinstance(value, Mapping) else _MISSING
    if isinstance(value, list) and -len(value) <= step < len(value):
        return value[step]
    return _MISSING
