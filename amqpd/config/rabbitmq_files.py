"""Read the format of `rabbitmq.conf`: a line is `key = value`, a comment, or `include FILE`.

Owns which files are read, in which order, and what a line means; `rabbitmq_keys` has the keys. As in RabbitMQ, a later
line replaces an earlier one with the same key, a comment begins at `#`, also after a value, `\\.` is a dot inside a
part of a key, and `$(NAME)` stands for the value of another key or of an environment variable. A value in single quotes
is taken without them and may contain `#`, as in RabbitMQ 4; RabbitMQ 3.10 has no quotes. Double quotes are part of a
value.

RabbitMQ docs/configure.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from amqpd.config.settings import ConfigError

FILE_VARIABLE = "RABBITMQ_CONFIG_FILE"
FILES_VARIABLE = "RABBITMQ_CONFIG_FILES"
ADVANCED_VARIABLE = "RABBITMQ_ADVANCED_CONFIG_FILE"
ADVANCED_FILE = "advanced.config"
TERMS_SUFFIX = ".config"        # of files with Erlang terms
TOML_SUFFIX = ".toml"

WORD = r"(?:\\\.|[A-Za-z0-9_-])+"
END = r"[ \t]*(?:#.*)?"
SETTING = re.compile(
    rf"[ \t]*(?P<key>{WORD}(?:\.{WORD})*)[ \t]*=[ \t]*(?:'(?P<quoted>[^']*)'{END}|(?P<value>[^#]*?){END})")
INCLUDE = re.compile(rf"[ \t]*include[ \t]+(?P<pattern>[A-Za-z0-9_.*/-]+){END}")
NOTHING = re.compile(END)
TABLE = re.compile(r"[ \t]*\[.+\]")        # as TOML has it
SUBSTITUTE = re.compile(r"\$\(([^()]+)\)")


class Entry(NamedTuple):
    """One setting of a file: the parts of its key, and the value as text."""

    key: tuple[str, ...]
    value: str
    file: str
    line: int

    @property
    def where(self) -> str:
        """The place, as errors name it."""
        return f"{self.file} line {self.line}: {'.'.join(self.key)}"


class ConfFiles(NamedTuple):
    """The files to read, in order, and warnings about those that cannot be read because they have another format."""

    paths: tuple[str, ...]
    warnings: tuple[str, ...]


def find_files(given: Sequence[str], environ: Mapping[str, str]) -> ConfFiles:
    """Return the files that the command line names or, if there are none, the variables of RabbitMQ.

    A directory stands for its files `*.conf` in the order of their names. Raises ConfigError if there is no such file.
    """
    paths, terms, problems = list[str](), list[str](), list[str]()
    named = [("", path) for path in given] or [
        (variable, environ[variable]) for variable in (FILE_VARIABLE, FILES_VARIABLE) if environ.get(variable)]
    for variable, path in named:
        found = _expand(path, is_pattern=variable == FILES_VARIABLE)
        if found is None:
            prefix = f"{variable}: " if variable else ""
            problems.append(f"{prefix}{path}: there is no such file or directory; create it, or name another one")
        elif found[:1] and found[0].endswith(TERMS_SUFFIX):
            terms += found
        else:
            paths += found
    if problems:
        raise ConfigError(problems)
    terms += [os.path.join(folder, ADVANCED_FILE) for folder in dict.fromkeys(map(os.path.dirname, paths))
              if os.path.exists(os.path.join(folder, ADVANCED_FILE))]
    advanced = "" if given else environ.get(ADVANCED_VARIABLE, "")
    terms += [path for path in (advanced, f"{advanced}{TERMS_SUFFIX}") if advanced and os.path.exists(path)]
    return ConfFiles(tuple(paths), (
        *(f"{path} is read as a rabbitmq.conf; for amqpd's TOML file use --config"
          for path in paths if path.endswith(TOML_SUFFIX)),
        *(f"{path} is not read, since it has Erlang terms; settings of amqpd belong into its TOML file"
          for path in dict.fromkeys(terms))))


def _expand(path: str, *, is_pattern: bool) -> list[str] | None:
    if os.path.isdir(path):
        return sorted(str(file) for file in Path(path).glob("*.conf"))
    if os.path.exists(path):
        return [path]
    if os.path.exists(f"{path}.conf"):      # RabbitMQ's variables may leave that out
        return [f"{path}.conf"]
    return sorted(glob.glob(path)) if is_pattern and glob.has_magic(path) else None


def read_files(paths: Sequence[str], environ: Mapping[str, str]) -> list[Entry]:
    """Return the settings of all files, each key once, with its last value. Raises ConfigError with all problems."""
    problems = list[str]()
    entries: dict[tuple[str, ...], Entry] = {}
    for path in paths:
        for entry in _read(path, problems, ()):
            entries.pop(entry.key, None)
            entries[entry.key] = entry
    substituted = [_substitute(entry, entries, environ, problems) for entry in entries.values()]
    if problems:
        raise ConfigError(problems)
    return substituted


def _read(path: str, problems: list[str], parents: tuple[str, ...]) -> Iterator[Entry]:
    """Yield the settings of a file and of the files that it includes."""
    try:
        encoded = Path(path).read_bytes()
        text = encoded.decode()
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
        return
    except UnicodeDecodeError as error:
        problems.append(f"{path} line {encoded.count(bytes([10]), 0, error.start) + 1}: is not UTF-8")
        return
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        setting, include = SETTING.fullmatch(line), INCLUDE.fullmatch(line)
        if setting and (setting["quoted"] is not None or setting["value"]):
            yield Entry(_parts(setting["key"]), setting["quoted"] or setting["value"] or "", path, number)
        elif include:
            yield from _include(f"{path} line {number}", include["pattern"], path, problems, parents)
        elif not NOTHING.fullmatch(line):
            remedy = "; for amqpd's TOML file use --config" if path.endswith(TOML_SUFFIX) or TABLE.match(line) else ""
            problems.append(
                f"{path} line {number}: is not a setting; allowed is 'key = value' or a comment after '#'{remedy}")


def _include(
    where: str, pattern: str, path: str, problems: list[str], parents: tuple[str, ...]
) -> Iterator[Entry]:
    target = os.path.normpath(os.path.join(os.path.dirname(path), pattern))
    found = sorted(glob.glob(target)) if glob.has_magic(target) else [target]
    for included in found:
        if os.path.realpath(included) in map(os.path.realpath, (*parents, path)):
            problems.append(f"{where}: {included} includes itself; delete this line")
        else:
            yield from _read(included, problems, (*parents, path))


def _parts(key: str) -> tuple[str, ...]:
    return tuple(part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", key))


def _substitute(
    entry: Entry, entries: Mapping[tuple[str, ...], Entry], environ: Mapping[str, str], problems: list[str]
) -> Entry:
    """Replace each `$(NAME)` in a value. The values of other keys are taken as they stand."""
    def replace(match: re.Match[str]) -> str:
        other = entries.get(_parts(match[1]))
        if other is None and match[1] not in environ:
            problems.append(f"{entry.where} uses $({match[1]}), which is neither a key nor an environment variable; "
                            "set it")
        return other.value if other else environ.get(match[1], "")

    return entry._replace(value=SUBSTITUTE.sub(replace, entry.value))
