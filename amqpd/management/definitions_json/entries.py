"""The values of one object in a definitions file, each checked for its type; and the list of what was found.

Always true: reading a value never fails. A wrong one is noted with its JSON path, and a value of the right type is
returned instead, so that the rest can be checked too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from typing import Any

from amqpd.broker.limits import LARGEST
from amqpd.fields import FieldError, encode_table
from amqpd.management.definitions_json.parsing import path_of

LONGEST_NAME = 255          # bytes
LONGEST_SHOWN = 80          # characters of a wrong value
REQUIRED = object()
SECRETS = frozenset({"password", "password_hash", "scram_sha256"})

_TYPES: Mapping[type, str] = {
    str: "a text", bool: "true or false", int: "a whole number", dict: "an object", list: "a list"}


class Report:
    """What was found in a file: `problems` keep it from being imported, `warnings` do not.

    `unknown` has those of the warnings that are about unknown keys, which may be the cause of a problem.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.unknown: list[str] = []

    def refuse(self, path: str, reason: str) -> None:
        """Note a problem."""
        self.problems.append(f"{path}: {reason}")

    def warn(self, path: str, reason: str) -> None:
        """Note something that the operator should know."""
        self.warnings.append(f"{path}: {reason}")

    def warn_of_unknown(self, path: str, key: str, known: Collection[str]) -> None:
        """Note a key that means nothing."""
        near = get_close_matches(key, known, n=1)
        self.warn(path, "the key is not known and has no effect" + (f"; is it {near[0]}?" if near else ""))
        self.unknown.append(self.warnings[-1])


class Entry:
    """One object of a file. `is_valid` turns False with the first problem."""

    def __init__(self, values: Mapping[str, Any], path: str, report: Report) -> None:
        self.values = values
        self.path = path
        self.report = report
        self.is_valid = True

    def at(self, key: str | int) -> str:
        """Return the path of a key."""
        return path_of(self.path, key)

    def refuse(self, key: str | None, reason: str) -> None:
        """Note a problem of a key, or of the whole object."""
        self.is_valid = False
        self.report.refuse(self.path if key is None else self.at(key), reason)

    def warn(self, key: str | None, reason: str) -> None:
        """Note what the operator should know of a key, or of the whole object."""
        self.report.warn(self.path if key is None else self.at(key), reason)

    def warn_of_unknown(self, known: Collection[str]) -> None:
        """Warn of keys that mean nothing."""
        for key in self.values:
            if key not in known:
                self.report.warn_of_unknown(self.at(key), key, known)

    def value(self, key: str, kind: type, default: Any = REQUIRED) -> Any:
        """Return a value of this type; JSON's null counts as missing."""
        value = self.values.get(key)
        if value is None:
            if default is REQUIRED:
                self.refuse(None, f"has no {key}")
                return kind()
            return default
        if not isinstance(value, kind) or isinstance(value, bool) and kind is not bool:
            shown = "***" if key in SECRETS else _shown(value)
            self.refuse(key, f"is {shown}, it has to be {_TYPES[kind]}")
            return kind()
        return value

    def text(self, key: str, default: Any = REQUIRED) -> str:
        """Return a text of any length."""
        found: str = self.value(key, str, default)
        return found

    def name(self, key: str, default: Any = REQUIRED, *, may_be_empty: bool = False) -> str:
        """Return a name of at most `LONGEST_NAME` bytes."""
        name = self.text(key, default)
        if len(name.encode()) > LONGEST_NAME:
            self.refuse(key, f"longer than {LONGEST_NAME} bytes")
        elif not name and not may_be_empty and self.values.get(key) == "":
            self.refuse(key, "is empty")
        return name

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false."""
        found: bool = self.value(key, bool, default)
        return found

    def number(self, key: str, default: int) -> int:
        """Return a whole number."""
        found: int = self.value(key, int, default)
        return found

    def table(self, key: str) -> dict[str, Any]:
        """Return arguments, which have to fit into a field table. RabbitMQ writes an empty one as a list at times."""
        if self.values.get(key) == []:
            return {}
        table: dict[str, Any] = self.value(key, dict, {})
        try:
            encode_table(table)
        except FieldError as error:
            self.refuse(key, str(error))
            return {}
        return table

    def tags(self, key: str = "tags") -> tuple[str, ...]:
        """Return tags: a list of names, or one text with commas, as older versions wrote it."""
        found = self.values.get(key)
        if isinstance(found, str):
            return tuple(tag for part in found.split(",") if (tag := part.strip()))
        tags = self.value(key, list, [])
        for index, tag in enumerate(tags):
            if not isinstance(tag, str) or not tag:
                self.is_valid = False
                self.report.refuse(path_of(self.at(key), index), f"is {_shown(tag)}, it has to be a name")
        return tuple(tag for tag in tags if isinstance(tag, str))

    def limits(self, key: str, known: Collection[str]) -> dict[str, int]:
        """Return limits: an object, or a list of pairs as RabbitMQ 3.10 writes those of vhosts."""
        found = self.values.get(key)
        if isinstance(found, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in found):
            found = {str(name): number for name, number in found}
        elif found is None:
            return {}
        elif not isinstance(found, dict):
            self.refuse(key, f"is {_shown(found)}, it has to be an object")
            return {}
        for name, number in found.items():
            if name not in known:
                self.is_valid = False
                self.report.refuse(path_of(self.at(key), name), f"is not a limit; there are {' and '.join(known)}")
            elif not isinstance(number, int) or isinstance(number, bool) or abs(number) > LARGEST:
                self.is_valid = False
                self.report.refuse(
                    path_of(self.at(key), name), f"is {_shown(number)}, it has to be a whole number up to {LARGEST}")
        return found

    def checked(self, key: str | None, check: Callable[[], object], errors: type[Exception]) -> None:
        """Call a check, and note the error it raises."""
        try:
            check()
        except errors as error:
            self.refuse(key, getattr(error, "plain", "") or getattr(error, "text", "") or str(error))


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    if isinstance(value, (dict, list)):
        return _TYPES[type(value)]
    shown = repr(value)
    return shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}…"
