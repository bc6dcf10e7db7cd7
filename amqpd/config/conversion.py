"""Print the settings of `rabbitmq.conf` as the TOML file that has the same effect."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from amqpd.config.loading import examine_translation
from amqpd.config.rabbitmq import Value, translate
from amqpd.config.rabbitmq_files import find_files, read_files
from amqpd.config.settings import SETTINGS, ConfigError


def convert(given: Sequence[str], environ: Mapping[str, str]) -> str:
    """Return the TOML text for these files or directories. `environ` is used for `$(NAME)` only.

    Raises ConfigError with everything that would stop a start.
    """
    files = find_files(given, {})
    translation = translate(read_files(files.paths, environ))
    if problems := examine_translation(translation).problems:
        raise ConfigError(problems)
    head = [f"# The settings of {_one_line(', '.join(given))} for amqpd."]
    head += [f"# warning: {_one_line(warning)}" for warning in (*files.warnings, *translation.warnings)]
    tables: dict[str, list[str]] = {"": []}
    for value in translation.values:
        if value.setting in SETTINGS:
            table, _, key = value.setting.rpartition(".")
            tables.setdefault(table, []).extend(_setting(key, value))
    declared = [value for value in translation.values if value.setting not in SETTINGS]
    parts = [head, tables.pop(""), *([f"[{name}]", *lines] for name, lines in tables.items())]
    parts += [part for value in declared for part in _declarations(value)]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _setting(key: str, value: Value) -> Iterator[str]:
    for place in dict.fromkeys(value.places):
        yield f"# {_one_line(place)}"
    yield f"{key} = {spell(value.value)}"


def _declarations(value: Value) -> Iterator[list[str]]:
    for declaration, place in zip(value.value, value.places):
        lines = [f"{key} = {spell(of)}" for key, of in declaration.items()]
        yield [f"# {_one_line(place)}", f"[[{value.setting}]]", *lines]


def spell(value: Any) -> str:
    """Return a value as TOML has it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{spell(key)} = {spell(of)}" for key, of in value.items()) + " }" if value else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(spell, value))}]"
    if isinstance(value, str):
        # JSON's escapes are TOML's too, and TOML wants one more character escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower()


def _one_line(text: str) -> str:
    return text if text.isprintable() else ascii(text)[1:-1]
