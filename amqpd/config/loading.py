"""Loading: one `Config` from all sources, or every reason why not.

Owns what must hold between the values of a declaration, and between declarations. What depends on the broker's
state, such as a vhost that was added by hand, is left to the server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace

from amqpd.config.reading import Reader
from amqpd.config.settings import (
    BindingDeclaration,
    Config,
    ConfigError,
    Declaration,
    ExchangeDeclaration,
    QueueDeclaration,
    UserDeclaration,
)
from amqpd.config.sources import Sources
from amqpd.fields import FieldError, encode_table

NOTHING: Mapping[str, Any] = MappingProxyType({})
RIGHTS = ("configure", "write", "read")
RESERVED_PREFIX = "amq."


def load(path: str | None, environ: Mapping[str, str], overrides: Mapping[str, Any] = NOTHING) -> Config:
    """Read the file, if there is one, and lay environment and overrides over it.

    `overrides` goes from key path, such as "log.level", to value. No other file is looked for.
    Raises ConfigError with all that is wrong; of a file that is no TOML, only that.
    """
    sources = Sources(path)
    problems = list(sources.lay_environment(environ))
    sources.lay_overrides(overrides)
    problems += sources.password_fault()
    reader = Reader(sources)
    config = reader.read(Config, sources.root, ())
    problems += [problem for _, problem in sorted(reader.problems, key=itemgetter(0))]
    if config is not None:
        config = _with_default_vhost(config)
        problems += _contradictions(config)
        problems += _same_listeners(config, sources)
    if config is None or problems:
        raise ConfigError(problems, config)
    return config


def _with_default_vhost(config: Config) -> Config:
    def fill(declaration: Any) -> Any:
        return declaration if declaration.vhost else replace(declaration, vhost=config.default_vhost)

    return replace(
        config,
        users=tuple(replace(user, permissions=tuple(map(fill, user.permissions))) for user in config.users),
        policies=tuple(map(fill, config.policies)),
        operator_policies=tuple(map(fill, config.operator_policies)),
        exchanges=tuple(map(fill, config.exchanges)),
        queues=tuple(map(fill, config.queues)),
        bindings=tuple(map(fill, config.bindings)))


def _contradictions(config: Config) -> Iterator[str]:
    yield from _twice(config.vhosts, "name")
    yield from _twice(config.users, "name")
    yield from _twice(config.policies, "vhost", "name")
    yield from _twice(config.operator_policies, "vhost", "name")
    yield from _twice(config.exchanges, "vhost", "name")
    yield from _twice(config.queues, "vhost", "name")
    for user in config.users:
        yield from _user_contradictions(user)
    for policy in (*config.policies, *config.operator_policies):
        yield from _pattern_contradictions(f"{policy.where}.pattern", policy.pattern)
    named: tuple[ExchangeDeclaration | QueueDeclaration, ...] = (*config.exchanges, *config.queues)
    for declaration in named:
        if declaration.name.startswith(RESERVED_PREFIX):
            yield f"{declaration.where} is a reserved name, allowed is one that does not start with '{RESERVED_PREFIX}'"
    for with_arguments in (*named, *config.bindings):
        yield from _argument_contradictions(with_arguments)


def listener_places(path: str, environ: Mapping[str, str], count: int) -> list[str]:
    """Return where each of the listeners of a configuration stands, which `load` has accepted."""
    sources = Sources(path)
    list(sources.lay_environment(environ))
    return [sources.where(("listeners", index)) for index in range(count)]


def _same_listeners(config: Config, sources: Sources) -> Iterator[str]:
    seen = set()
    for index, listener in enumerate(config.listeners):
        key = listener.host, listener.port
        if listener.port and key in seen:
            yield f"{sources.where(('listeners', index))} is '{listener}', which is listed already; delete one of them"
        seen.add(key)


def _twice(declarations: Iterable[Declaration], *identity: str) -> Iterator[str]:
    first: dict[tuple[str, ...], str] = {}
    for declaration in declarations:
        key = tuple(getattr(declaration, field) for field in identity)
        if key in first:
            yield f"{declaration.where} is declared already: {first[key]}; delete one of them"
        first.setdefault(key, declaration.where)


def _user_contradictions(user: UserDeclaration) -> Iterator[str]:
    if (user.password is None) == (user.password_hash is None):
        yield f"{user.where} has {'neither' if user.password is None else 'both'} of password and password_hash, " \
              "allowed is one of them"
    for index, permission in enumerate(user.permissions):
        for right in RIGHTS:
            yield from _pattern_contradictions(
                f"{user.where}.permissions[{index}].{right}", getattr(permission, right))


def _pattern_contradictions(place: str, pattern: str) -> Iterator[str]:
    try:
        re.compile(pattern)
    except re.error as error:
        yield f"{place} is {pattern!r}, allowed is a regular expression: {error}"


def _argument_contradictions(declaration: ExchangeDeclaration | QueueDeclaration | BindingDeclaration) -> Iterator[str]:
    try:
        encode_table(declaration.arguments)
    except FieldError as error:
        yield f"{declaration.where}.arguments are no field table: {error}"
