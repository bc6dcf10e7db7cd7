"""The unchecked values of a configuration, and the place where each of them stands.

Owns the precedence of file, environment and command line, and how errors name a place. tomllib does not tell line
numbers, so `find_lines` lets it parse the file once more, statement by statement.

Always true: a key path leads to the same value in `root` as in the source that `where` names for it.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Union, get_origin

from msgspec import Meta

from amqpd.config.rabbitmq_variables import NodeVariables
from amqpd.config.settings import CONFIG_FILE_VARIABLE, SETTINGS, VARIABLES, ConfigError

NO_ENTRY = "none"       # of a list in a variable

KeyPath = tuple[Union[str, int], ...]

RABBITMQ_VARIABLES = {
    "RABBITMQ_DEFAULT_USER": "default_user",
    "RABBITMQ_DEFAULT_PASS": "default_password",
    "RABBITMQ_DEFAULT_VHOST": "default_vhost",
}
# RabbitMQ's image refuses these too: if they were ignored, guest would keep its default password.
REFUSED_VARIABLES = {
    "RABBITMQ_DEFAULT_USER_FILE": "RABBITMQ_DEFAULT_USER",
    "RABBITMQ_DEFAULT_PASS_FILE": "RABBITMQ_DEFAULT_PASS",
    "RABBITMQ_VM_MEMORY_HIGH_WATERMARK": "AMQPD_LIMITS_MEMORY_HIGH_WATERMARK",
}
# The first line of a file that is neither empty nor a comment, if its value is a word that TOML does not have.
WITHOUT_QUOTES = re.compile(r"(?:[ \t]*(?:#.*)?\r?\n)*[ \t]*[\w.-]+[ \t]*=[ \t]*(?!(?:true|false|inf|nan)\b)[A-Za-z/]")
# Kubernetes sets these in every container in the namespace of a service called "amqpd".
KUBERNETES_VARIABLE = re.compile(r"AMQPD_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)")


class Sources:
    """The values of a file, if there is one. `lay_environment` and `lay_overrides` override some of them."""

    def __init__(self, path: str | None) -> None:
        """Read the file. Raises ConfigError if it cannot be read or is not TOML."""
        self.root: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.from_text: set[KeyPath] = set()    # texts from variables, which may stand for numbers and booleans
        self._path = path
        self._lines: dict[KeyPath, int] = {}
        self._elsewhere: dict[KeyPath, str] = {}
        if path is not None:
            text = _read(path)
            self.root = _parse(path, text)
            self._lines = find_lines(text)

    def lay_environment(self, environ: Mapping[str, str]) -> Iterator[str]:
        """Take over the values of the environment; an empty variable counts as not set. Yield the problems."""
        node = NodeVariables.of(environ)
        yield from node.problems
        self.warnings += node.warnings
        for variable, setting, value in node.values:
            self._lay(tuple(setting.split(".")), value, variable)
        for variable, setting in (RABBITMQ_VARIABLES | VARIABLES).items():
            if environ.get(variable):
                self._lay_text(setting, environ[variable], variable)
        for variable, instead in REFUSED_VARIABLES.items():
            if environ.get(variable):
                yield f"{variable} is set but not read: put the value itself in {instead}"
        for variable in environ:
            if variable.startswith("AMQPD_") and not _is_known(variable):
                near = nearest(variable, VARIABLES, prefix="AMQPD_")
                yield f"{variable} is not a setting; {f'did you mean {near}?' if near else 'unset it'}"
            elif variable.startswith("RABBITMQ_DEFAULT_") and variable not in (*RABBITMQ_VARIABLES, *REFUSED_VARIABLES):
                near = nearest(variable, RABBITMQ_VARIABLES, prefix="RABBITMQ_DEFAULT_")
                yield f"{variable} is not read; {f'did you mean {near}?' if near else 'unset it'}"

    def lay_overrides(self, overrides: Mapping[str, Any]) -> None:
        """Take over the values of the command line, by key path."""
        for setting, value in overrides.items():
            self._lay(tuple(setting.split(".")), value, f"command line: {setting}")

    def lay_beneath(self, setting: str, value: Any, places: Sequence[str]) -> None:
        """Take over a value of a `rabbitmq.conf`, unless another source has set it. Declarations are added.

        `places` has the place of the value or, if it is a list, of each element.
        """
        path = tuple(setting.split("."))
        if setting not in SETTINGS:
            declared = self.root.setdefault(setting, [])
            if isinstance(declared, list):
                for declaration, place in zip(value, places):
                    self._elsewhere[setting, len(declared)] = place
                    declared.append(declaration)
        elif not self.has(path):
            self._lay(path, value, places[0])
            self._elsewhere.update(((*path, index), place) for index, place in enumerate(places) if len(places) > 1)

    def has(self, path: KeyPath) -> bool:
        """Return whether a source has set this value."""
        table: Any = self.root
        for key in path:
            if not isinstance(table, dict) or key not in table:
                return False
            table = table[key]
        return True

    def password_fault(self) -> Iterator[str]:
        """Refuse RABBITMQ_DEFAULT_USER without a password, since that user would get guest's password."""
        if self._elsewhere.get(("default_user",)) == "RABBITMQ_DEFAULT_USER" and "default_password" not in self.root:
            yield ("RABBITMQ_DEFAULT_USER is set without RABBITMQ_DEFAULT_PASS: set the password too, there is none "
                   "by default")

    def _lay_text(self, setting: str, text: str, origin: str) -> None:
        path = tuple(setting.split("."))
        is_list = get_origin(bare_type(SETTINGS[setting])) is tuple
        self._lay(path, _listed(text) if is_list else text, origin)
        self.from_text.add(path)

    def _lay(self, path: KeyPath, value: Any, origin: str) -> None:
        table: Any = self.root
        for key in path[:-1]:
            table = table.setdefault(key, {}) if isinstance(table, dict) else None
        if isinstance(table, dict):
            table[path[-1]] = value
            self._elsewhere[path] = origin
            self.from_text.discard(path)

    def where(self, path: KeyPath) -> str:
        """Describe the place of a value: the variable, or the file with the line and the key path."""
        for end in range(len(path), 0, -1):
            if path[:end] in self._elsewhere:
                return self._elsewhere[path[:end]]
        line = self.line(path)
        place = f"{self._path} line {line}" if line else str(self._path)
        return f"{place}: {self.spell(path)}" if path else place

    def line(self, path: KeyPath) -> int:
        """Return the line of the file on which a value, or the table that contains it, starts; 0 for the whole file."""
        return next((self._lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self._lines), 0)

    def spell(self, path: KeyPath) -> str:
        """Return a key path for people: an element of a list is called by its name, if it has one."""
        spelled, value = "", self.root
        for key in path:
            value = value[key] if isinstance(value, list) or isinstance(value, dict) and key in value else {}
            name = value.get("name") if isinstance(key, int) and isinstance(value, dict) else key
            spelled += f".{_quoted(name)}" if isinstance(name, str) else f"[{key}]"
        return spelled.removeprefix(".")


def _listed(text: str) -> list[str]:
    """Return the list that a variable has; an empty variable is not set, so there is a word for no entry."""
    return [] if text.strip() == NO_ENTRY else [part.strip() for part in text.split(",")]


def bare_type(kind: Any) -> Any:
    """Return a type without its `Annotated` metadata."""
    return getattr(kind, "__origin__", kind) if hasattr(kind, "__metadata__") else kind


def constraints(kind: Any) -> Meta:
    """Return the range or the lengths that a type allows."""
    return next(iter(getattr(kind, "__metadata__", ())), Meta())


def nearest(wrong: str, known: Iterable[str], *, prefix: str = "") -> str | None:
    """Return the known name that is most like a wrong name, or None. The prefix that they share does not count."""
    names = [name.removeprefix(prefix) for name in known]
    near = difflib.get_close_matches(wrong.removeprefix(prefix), names, n=1)
    return prefix + near[0] if near else None


def find_lines(text: str) -> dict[KeyPath, int]:
    """Return on which line of a TOML text each key path starts.

    A line that does not parse by itself begins a statement of several lines.
    """
    lines: dict[KeyPath, int] = {}
    last_index: dict[KeyPath, int] = {}
    table: KeyPath = ()
    statement, start = "", 1
    for number, line in enumerate(text.split("\n"), 1):
        statement += line + "\n"
        try:
            parsed = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        if statement.lstrip().startswith("["):
            table = _enter(parsed, last_index)
            parsed = {}
            lines[table] = start
        for path in _paths(parsed, table):
            lines.setdefault(path, start)
        statement, start = "", number + 1
    return lines


def _enter(header: dict[str, Any], last_index: dict[KeyPath, int]) -> KeyPath:
    """Return the key path of the table that a `[header]` or `[[header]]` opens; `last_index` tells list lengths."""
    path: KeyPath = ()
    inner: Any = header
    while inner:
        ((key, inner),) = inner.items()
        path = (*path, key)
        if isinstance(inner, list):
            last_index[path] = last_index.get(path, -1) + 1
            return (*path, last_index[path])
        if path in last_index:
            path = (*path, last_index[path])
    return path


def _paths(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield from _paths(inner, (*path, key))


def _is_known(variable: str) -> bool:
    return variable in (*VARIABLES, CONFIG_FILE_VARIABLE) or KUBERNETES_VARIABLE.fullmatch(variable) is not None


def _quoted(key: str) -> str:
    return key if re.fullmatch(r"[\w-]+", key, re.ASCII) else repr(key)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path} line {line}: is not UTF-8"]) from None


def _parse(path: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, place = str(error).rpartition(" (at ")
        line = re.match(r"line (\d+)", place)
        number = line[1] if line else text.rstrip().count("\n") + 1
        remedy = "; for a rabbitmq.conf use --rabbitmq-conf" if _is_like_rabbitmq(path, text) else ""
        raise ConfigError([f"{path} line {number}: is not TOML: {what}{remedy}"]) from None


def _is_like_rabbitmq(path: str, text: str) -> bool:
    """Return whether a file is named as a `rabbitmq.conf`, or begins with a value without quotes as those have."""
    return path.endswith(".conf") or WITHOUT_QUOTES.match(text) is not None
