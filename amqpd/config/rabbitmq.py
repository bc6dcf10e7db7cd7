"""Turn the settings of `rabbitmq.conf` into settings of amqpd, as `rabbitmq_keys` says.

A key that is unknown or has no effect is a warning, so that one file serves both brokers. As in RabbitMQ, a wrong value
of a key that has an effect stops the start. A value that RabbitMQ allows and amqpd does not becomes the nearest one
that amqpd allows, with a warning.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple, get_origin

from amqpd.config.rabbitmq_files import Entry
from amqpd.config.rabbitmq_keys import (
    COMBINED,
    KEYS,
    LEAVES_OUT,
    NO_LIMIT,
    POLICY_KEYS,
    POLICY_TARGETS,
    VHOST_LIMITS,
    Key,
    Refused,
    Whole,
    queue_type,
    row_of,
)
from amqpd.config.settings import SETTINGS
from amqpd.config.sources import bare_type, constraints, nearest

POLICIES = "default_policies.operator.$name.*"
VHOSTS = "default_limits.vhosts.$name.*"
NAMED = (POLICIES, VHOSTS)          # the third part of a key is the name of what the key belongs to
DEFAULT_VHOST = "/"
# Of two settings, the one that RabbitMQ does not use if both are set, and the other one.
OVERRIDDEN = {
    "limits.memory_high_watermark_absolute": "limits.memory_high_watermark",
    "limits.disk_free_limit": "limits.disk_free_limit_relative",
}
# As in RabbitMQ, a listener with TLS takes the place of the default one without, by their settings.
TAKES_PLACE_OF = {
    "management.tls_listeners": "management.listeners",
    "management.metrics_tls_listeners": "management.metrics_listeners",
}
ENCRYPTED = "encrypted:"


class Value(NamedTuple):
    """A setting of amqpd, with the places of its value in the files: one for each element of a list."""

    setting: str
    value: Any
    places: tuple[str, ...]


class Translation(NamedTuple):
    """The settings that a `rabbitmq.conf` makes, warnings, and problems that stop a start."""

    values: tuple[Value, ...]
    warnings: tuple[str, ...]
    problems: tuple[str, ...]


ByName = dict[str, list[Entry]]


class Found(NamedTuple):
    """A line that has an effect: its row, and its value as amqpd has it."""

    row: Key
    entry: Entry
    value: Any


def translate(entries: Iterable[Entry], default_vhost: str | None = None) -> Translation:
    """Return the settings that these lines make. `default_vhost` is given if another source sets it."""
    entries = list(entries)
    translator = _Translator()
    found, named = translator.sort(entries)
    values = translator.choose(found)
    vhost = default_vhost or next((value.value for value in values if value.setting == "default_vhost"), DEFAULT_VHOST)
    values += translator.policies(named[POLICIES], vhost)
    values += translator.vhost_limits(named[VHOSTS])

    def in_order(remarks: dict[Entry, list[str]]) -> tuple[str, ...]:
        return tuple(f"{entry.where} {text}" for entry in entries for text in remarks.get(entry, ()))

    return Translation(tuple(values), in_order(translator.warnings), in_order(translator.problems))


class _Translator:
    """Collects warnings and problems by the line that they are about."""

    def __init__(self) -> None:
        self.warnings = defaultdict[Entry, list[str]](list)
        self.problems = defaultdict[Entry, list[str]](list)

    def sort(self, entries: Iterable[Entry]) -> tuple[dict[str, list[Found]], dict[str, ByName]]:
        """Return the lines with an effect by setting; and those of `NAMED`, by the name of what they belong to."""
        found = defaultdict[str, list[Found]](list)
        named: dict[str, ByName] = {row: {} for row in NAMED}
        for entry in entries:
            row = row_of(entry.key)
            if row is None:
                self._warn(entry, f"is unknown{_suggestion('.'.join(entry.key))}")
            elif row.name in NAMED:
                named[row.name].setdefault(entry.key[2], []).append(entry)
            elif not row.setting:
                if entry.value not in row.harmless:
                    self._warn(entry, f"has no effect: {row.remark}")
            elif (value := self._read(row, entry)) is not None:
                if value == [] and row.convert in LEAVES_OUT:
                    self._warn(entry, f"is {entry.value!r}, which amqpd does not have")
                    if row.convert is queue_type:
                        continue
                if row.caution and value:
                    self._warn(entry, row.caution)
                found[row.setting].append(Found(row, entry, value))
        return found, named

    def _read(self, row: Key, entry: Entry) -> Any:
        """Return the value as amqpd has it; None, and a problem, if it is wrong."""
        if entry.value.startswith(ENCRYPTED):
            self.problems[entry].append("is encrypted, which amqpd cannot read; write the value itself, or $(NAME) and "
                                        "put it into that environment variable")
            return None
        try:
            return row.convert(entry.value)
        except Refused as error:
            # Passwords are never refused here: every text is one.
            self.problems[entry].append(f"is {entry.value!r}, allowed is {error}")
            return None

    def choose(self, found: dict[str, list[Found]]) -> list[Value]:
        """Return the value of each setting: if several lines set it, that of the highest rank, and the latest."""
        for setting, instead in OVERRIDDEN.items():
            if setting in found and instead in found:
                self._overridden(found.pop(setting), found[instead][-1].entry)
        values = [Value(plain, [], (found[tls][-1].entry.where,)) for tls, plain in TAKES_PLACE_OF.items()
                  if tls in found and plain not in found]
        return values + [
            value for setting, candidates in found.items()
            if (value := self._combined(setting, candidates) if setting in COMBINED
                else self._value(setting, candidates)) is not None]

    def _combined(self, setting: str, parts: Sequence[Found]) -> Value | None:
        highest = max(part.row.rank for part in parts)
        parts, less = _split(parts, lambda part: part.row.rank == highest)
        self._overridden(less, parts[-1].entry)
        try:
            value = COMBINED[setting]({".".join(part.entry.key): part.value for part in parts})
        except Refused as error:
            self.problems[parts[-1].entry].append(f"is {parts[-1].entry.value!r}, allowed is {error}")
            return None
        return Value(setting, value, (parts[-1].entry.where,))

    def _value(self, setting: str, candidates: Sequence[Found]) -> Value:
        highest = max(one.row.rank for one in candidates)
        used = [one for one in candidates if one.row.rank == highest]
        self._overridden([one for one in candidates if one.row.rank < highest], used[-1].entry)
        if not _is_list(setting):
            self._overridden(used[:-1], used[-1].entry)
            return Value(setting, self._allowed(setting, used[-1]), (used[-1].entry.where,))
        if used[0].row.is_numbered:
            used.sort(key=lambda one: int(one.entry.key[-1]) if one.entry.key[-1].isdecimal() else NO_LIMIT)
        if used[0].row.is_named:
            elements = [(one.entry.key[-1], one.entry.where) for one in used if one.value]
        else:
            elements = [(value, one.entry.where) for one in used for value in one.value]
        if used[0].row.is_numbered:
            first: dict[str, str] = {}
            for value, where in elements:
                first.setdefault(value, where)
            elements = list(first.items())
        return Value(setting, [value for value, _ in elements],
                     tuple(where for _, where in elements) or (used[-1].entry.where,))

    def _overridden(self, unused: Iterable[Found], by: Entry) -> None:
        for one in unused:
            self._warn(one.entry, f"has no effect, since {'.'.join(by.key)} is set too")

    def _allowed(self, setting: str, one: Found) -> Any:
        """Return the value, or the nearest one that the setting allows."""
        limits = constraints(SETTINGS[setting])
        if not isinstance(one.value, (int, float)) or limits.le is None or limits.ge is None:
            return one.value
        least = max(limits.ge, 1) if setting in OVERRIDDEN and "memory" in setting else limits.ge   # 0: not used
        allowed = bare_type(SETTINGS[setting])(min(max(one.value, least), limits.le))
        if allowed != one.value and one.value != NO_LIMIT:
            self._warn(one.entry, f"is {one.entry.value}: {setting} is set to {allowed}, the nearest value that "
                                  "amqpd allows")
        return allowed

    def policies(self, policies: ByName, vhost: str) -> list[Value]:
        """Return the operator policies of the default vhost."""
        made = [(policy, entries[0].where) for name, entries in policies.items()
                if (policy := self._policy(name, entries, vhost)) is not None]
        return [Value("operator_policies", [policy for policy, _ in made], tuple(where for _, where in made))
                ] if made else []

    def _policy(self, name: str, entries: Sequence[Entry], vhost: str) -> dict[str, Any] | None:
        policy: dict[str, Any] = {"name": name, "pattern": ".*", "definition": {}, "apply_to": "queues"}
        matches = True
        for entry in entries:
            key = ".".join(entry.key[3:])
            try:
                if key == "vhost_pattern":
                    matches = re.search(entry.value, vhost) is not None
                elif key == "queue_pattern":
                    policy["pattern"] = entry.value
                elif key == "apply_to":
                    policy["apply_to"] = POLICY_TARGETS(entry.value)
                elif key in POLICY_KEYS:
                    policy["definition"][POLICY_KEYS[key]] = Whole()(entry.value)
                else:
                    self._warn(entry, "has no effect: amqpd's operator policies have no such key")
            except Refused as error:
                self.problems[entry].append(f"is {entry.value!r}, allowed is {error}")
            except re.error as error:
                self.problems[entry].append(f"is {entry.value!r}, allowed is a regular expression: {error}")
        if not matches or not policy["definition"]:
            reason = "limits nothing" if matches else f"is not for the vhost {vhost!r}"
            self._warn(entries[0], f"has no effect: the policy {name!r} {reason}")
            return None
        self._warn(entries[0], f"has an effect in the vhost {vhost!r} only: set the policy {name!r} in others by "
                               "'amqpctl set_operator_policy'")
        return policy

    def vhost_limits(self, limits: ByName) -> list[Value]:
        """Return the limits of new vhosts, in the order in which they begin in the file: the first match counts."""
        if not limits:
            return []
        made = [self._vhost_limits(entries) for entries in limits.values()]
        return [Value("default_vhost_limits", made, tuple(entries[0].where for entries in limits.values()))]

    def _vhost_limits(self, entries: Sequence[Entry]) -> dict[str, Any]:
        limits: dict[str, Any] = {}
        for entry in entries:
            key = ".".join(entry.key[3:])
            try:
                if key == "pattern":
                    limits["pattern"] = entry.value
                elif key in VHOST_LIMITS:
                    limits[key] = Whole(-1)(entry.value)
                else:
                    self._warn(entry, f"has no effect: the limits of a vhost are {' and '.join(VHOST_LIMITS)}")
            except Refused as error:
                self.problems[entry].append(f"is {entry.value!r}, allowed is {error}")
        return limits

    def _warn(self, entry: Entry, text: str) -> None:
        self.warnings[entry].append(text)


def _is_list(setting: str) -> bool:
    return get_origin(bare_type(SETTINGS[setting])) is tuple


def _split(parts: Iterable[Found], is_used: Callable[[Found], bool]) -> tuple[list[Found], list[Found]]:
    """Return those that are used, and the others."""
    found: tuple[list[Found], list[Found]] = [], []
    for part in parts:
        found[not is_used(part)].append(part)
    return found


def _suggestion(key: str) -> str:
    near = nearest(key, list(chain.from_iterable((row.name, row.name.removesuffix(".*")) for row in KEYS)))
    return f"; did you mean {near}?" if near else ""
