"""Convert unchecked values to Structs: check types, ranges, missing keys and unknown keys.

Owns the texts that refuse a single value: the place, the value, and what is allowed. `loading` has the rules between
values. Values that may hold a password are not shown: those of a `Secret`, and tables and lists in the wrong place.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Struct

from amqpd.config.settings import SETTINGS, Declaration, File, Listener, Network, Passphrase, Secret, StoreUrl
from amqpd.config.sources import KeyPath, Sources, bare_type, constraints, nearest

STORE_SCHEMES = ("postgresql://", "postgres://")
LONGEST_SHOWN = 80      # characters of a wrong value
LISTENER = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/\s]*):\d{1,5}")

WORDS = {
    bool: "true or false",
    dict: "a table",
    str: "a text",
    Path: "the path of a directory",
    Secret: "a text that is not empty",
    Passphrase: "a text",
    StoreUrl: "postgresql://USER@HOST/DATABASE, or nothing for a file in data_dir",
    File: "the path of a file",
    Network: "an IP address or a network, such as '10.0.0.0/8'",
    Listener: "HOST:PORT, such as '127.0.0.1:5672' or '[::1]:0'",
}

MAY_BE_EMPTY = (File, Passphrase, StoreUrl)

S = TypeVar("S", bound=Struct)


class Reader:
    """Reads Structs from sources. `problems` has the line in the file and the text of each problem.

    What has a problem is left out, so that the rest can be checked too: `unread` has the first keys of the key paths
    with a problem, and `faulty` the `where` of each declaration with one.
    """

    def __init__(self, sources: Sources) -> None:
        self.problems: list[tuple[int, str]] = []
        self.unread: set[str] = set()
        self.faulty: set[str] = set()
        self._sources = sources

    def read(self, kind: type[S], table: Any, path: KeyPath) -> S | None:
        """Return a Struct made of the table found at `path`; None if it is not a table, or lacks what it has to have.
        """
        if not isinstance(table, dict):
            self._note(path, "has to be a table")
            return None
        already = len(self.problems)
        fields = {field.name: field for field in msgspec.structs.fields(kind) if field.name != "where"}
        for key in table:
            if key not in fields:
                self._refuse_key((*path, key), list(fields))
        values: dict[str, Any] = {}
        for name, field in fields.items():
            if name in table:
                value = self._value(field.type, table[name], (*path, name))
                if value is not None:
                    values[name] = value
            elif field.required:
                self._note(path, f"has no {name}")
        if issubclass(kind, Declaration):
            values["where"] = self._sources.where(path)
            if len(self.problems) > already:
                self.faulty.add(values["where"])
        if any(field.required and name not in values for name, field in fields.items()):
            return None
        return kind(**values)

    def _value(self, kind: Any, value: Any, path: KeyPath) -> Any:
        if get_origin(kind) in (Union, UnionType):      # with None, which no source can say
            kind = get_args(kind)[0]
        if _is_struct(kind):
            return self.read(kind, value, path)
        if get_origin(bare_type(kind)) is tuple:
            return self._list(kind, value, path)
        try:
            return _convert(kind, value, is_text=path in self._sources.from_text)
        except (ValueError, msgspec.ValidationError):
            self._refuse(path, "***" if _is_secret(kind) else _shown(value), _allowed(kind))
            return None

    def _list(self, kind: Any, values: Any, path: KeyPath) -> tuple[Any, ...] | None:
        item = get_args(bare_type(kind))[0]
        if _is_struct(item) and not isinstance(values, list):
            self._note(path, f"has to be a list of tables, each headed [[{self._sources.spell(path)}]]")
            return None
        if not isinstance(values, list) or len(values) < (constraints(kind).min_length or 0):
            self._refuse(path, _shown(values), _allowed(kind))
            return None
        found = tuple(self._value(item, value, (*path, index)) for index, value in enumerate(values))
        return tuple(one for one in found if one is not None)

    def _refuse(self, path: KeyPath, shown: str, allowed: str) -> None:
        self._note(path, f"is {shown}, allowed is {allowed}")

    def _refuse_key(self, path: KeyPath, siblings: list[str]) -> None:
        *parents, wrong = path
        here = self._sources.spell(tuple(parents))
        known = {name: f"{here}.{name}" if here else name for name in siblings}
        if len(parents) < 2:
            known = {setting.rpartition(".")[2]: setting for setting in SETTINGS} | known
        near = nearest(str(wrong), known)
        hint = f"did you mean {known[near]}?" if near else f"allowed are {', '.join(siblings)}"
        self._note(path, f"is not a setting; {hint}")

    def _note(self, path: KeyPath, text: str) -> None:
        self.unread.add(str(path[0]) if path else "")
        self.problems.append((self._sources.line(path), f"{self._sources.where(path)} {text}"))


def _convert(kind: Any, value: Any, *, is_text: bool) -> Any:
    converted = msgspec.convert(value, kind, strict=not is_text, dec_hook=_decode)
    longest = constraints(kind).max_length
    if longest and isinstance(converted, str) and len(converted.encode()) > longest:
        raise ValueError(f"more than {longest} bytes")
    return converted


def _decode(kind: type, value: Any) -> Any:
    """Convert to the types that msgspec does not know. Raises ValueError."""
    if not isinstance(value, str) or not value and kind not in MAY_BE_EMPTY:
        raise ValueError("no text")
    if kind in (Path, File):
        if "\0" in value:
            raise ValueError("no path")
        return kind(os.path.expanduser(value))
    value.encode()      # a variable may hold bytes that are not UTF-8
    if kind is Listener and not is_listener(value):
        raise ValueError("not HOST:PORT")
    if kind is StoreUrl and value and not value.startswith(STORE_SCHEMES):
        raise ValueError("no URL of PostgreSQL")
    if kind is Network:
        ipaddress.ip_network(value, strict=False)
    return kind(value)


def is_listener(text: str) -> bool:
    """Return whether this is HOST:PORT, in one of the forms shown in `WORDS`."""
    return bool(LISTENER.fullmatch(text)) and Listener(text).port <= 65_535


def _allowed(kind: Any) -> str:
    meta, kind = constraints(kind), bare_type(kind)
    if get_origin(kind) is Literal:
        *choices, last = map(repr, get_args(kind))
        return f"{', '.join(choices)} or {last}"
    if get_origin(kind) is tuple:
        return f"a list, each entry {_allowed(get_args(kind)[0])}"
    if kind in (int, float):
        return f"a {'whole ' if kind is int else ''}number from {meta.ge} to {meta.le}"
    if kind is str and meta.max_length:
        return f"a text of {meta.min_length or 0} to {meta.max_length} bytes"
    return WORDS[get_origin(kind) or kind]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, str):
        shown = repr(value)
        return shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}…"
    return str(value)


def _is_secret(kind: Any) -> bool:
    return any(isinstance(one, type) and issubclass(one, Secret) for one in (kind, *get_args(kind)))


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)
