"""Load the configuration: one `Config` from all sources, or a list of everything that is wrong.

Owns the rules between the values of a declaration, and between declarations. The server checks what depends on the
broker's state, such as a vhost that an operator has added.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from msgspec.structs import replace

from amqpd.config.rabbitmq import OVERRIDDEN, Translation, translate
from amqpd.config.rabbitmq_files import find_files, read_files
from amqpd.config.reading import WORDS, Reader
from amqpd.config.settings import (
    BindingDeclaration,
    Config,
    ConfigError,
    Declaration,
    ExchangeDeclaration,
    Listener,
    QueueDeclaration,
    UserDeclaration,
)
from amqpd.config.sources import KeyPath, Sources
from amqpd.fields import FieldError, encode_table
from amqpd.patterns import PatternError, compile_pattern

NOTHING: Mapping[str, Any] = MappingProxyType({})
RIGHTS = ("configure", "write", "read")
TOPIC_RIGHTS = RIGHTS[1:]
RESERVED_PREFIX = "amq."

# Of two limits of one thing, a `rabbitmq.conf` cannot set one if another source sets the other.
RIVALS = OVERRIDDEN | {instead: setting for setting, instead in OVERRIDDEN.items()}

Fault = tuple[Declaration, str]


class Examination(NamedTuple):
    """A configuration as it was read, and everything that is wrong with it.

    If a single value cannot be used, `config` lacks it, and is good for further checks only: `unread` has the first key
    of each such value. `faulty` has the `where` of each declaration with a problem of its own. `listener_places` tells
    where each of `Config.all_listeners` stands. `warnings` do not stop a start.
    """

    config: Config | None
    problems: tuple[str, ...]
    faulty: frozenset[str] = frozenset()
    listener_places: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unread: frozenset[str] = frozenset()


def load(
    path: str | None, environ: Mapping[str, str], overrides: Mapping[str, Any] = NOTHING,
    rabbitmq_conf: Sequence[str] = (),
) -> Config:
    """Return the configuration that `examine` reads. Raises ConfigError with all problems."""
    return usable(examine(path, environ, overrides, rabbitmq_conf))


def usable(found: Examination) -> Config:
    """Return the configuration that was read. Raises ConfigError with all problems."""
    if found.config is None or found.problems:
        raise ConfigError(found.problems)
    return found.config


def examine(
    path: str | None, environ: Mapping[str, str], overrides: Mapping[str, Any] = NOTHING,
    rabbitmq_conf: Sequence[str] = (),
) -> Examination:
    """Read the file, if there is one, and override its values by the environment and by `overrides`.

    `overrides` goes from key path, such as "log.level", to value. `rabbitmq_conf` names files of RabbitMQ's format, or
    directories of them; without it, the variables of RabbitMQ do. What these files set is used if no other source sets
    it. Raises ConfigError for a file that cannot be read or has another format.
    """
    sources = Sources(path)
    problems = list(sources.lay_environment(environ))
    sources.lay_overrides(overrides)
    files = find_files(rabbitmq_conf, environ)
    vhost = sources.root.get("default_vhost")
    translation = translate(read_files(files.paths, environ), vhost if isinstance(vhost, str) else None)
    sources.warnings += files.warnings
    _lay_translation(sources, translation)
    return _examine(sources, [*problems, *translation.problems, *sources.password_fault()])


def examine_translation(translation: Translation) -> Examination:
    """Check the settings of a `rabbitmq.conf` without any other source."""
    sources = Sources(None)
    _lay_translation(sources, translation)
    return _examine(sources, [*translation.problems])


def _lay_translation(sources: Sources, translation: Translation) -> None:
    sources.warnings += translation.warnings
    for value in translation.values:
        rival = RIVALS.get(value.setting)
        if rival is None or not sources.has(tuple(rival.split("."))):
            sources.lay_beneath(*value)
    user = next((value.places[0] for value in translation.values if value.setting == "default_user"), None)
    if user == sources.where(("default_user",)) and not sources.has(("default_password",)):
        sources.warnings.append(f"{user} is set without default_pass: the password is guest's, as in RabbitMQ")


def _examine(sources: Sources, problems: list[str]) -> Examination:
    """Convert and check the values of all sources; `problems` are those so far."""
    warnings = tuple(sources.warnings)
    reader = Reader(sources)
    config = reader.read(Config, sources.root, ())
    problems += [problem for _, problem in sorted(reader.problems, key=itemgetter(0))]
    if config is None:
        return Examination(None, tuple(problems), warnings=warnings)
    config = _with_default_vhost(config)
    faults = [(declaration, text) for declaration, text in _contradictions(config)
              if declaration.where not in reader.faulty]
    problems += [text for _, text in faults]
    places = _places(sources, config)
    if not reader.unread & {"listeners", "tls", "management"}:
        problems += _tls_contradictions(config, sources)
        problems += _same_listeners(config.all_listeners, places)
    if not reader.unread & {"auth_mechanisms", "login", "tls"}:
        mechanisms_place = sources.where(("auth_mechanisms",))
        problems += _login_faults(config, mechanisms_place)
        warnings += tuple(_login_warnings(config, mechanisms_place))
    faulty = reader.faulty.union(declaration.where for declaration, _ in faults)
    return Examination(config, tuple(problems), frozenset(faulty), places, warnings, frozenset(reader.unread))


def _places(sources: Sources, config: Config) -> tuple[str, ...]:
    """Return where each of `Config.all_listeners` stands."""
    lists: tuple[tuple[KeyPath, Sequence[Listener]], ...] = (
        (("listeners",), config.listeners),
        (("tls", "listeners"), config.tls.listeners),
        (("management", "listeners"), config.management.listeners),
        (("management", "tls_listeners"), config.management.tls_listeners),
        (("management", "metrics_listeners"), config.management.plain_metrics),
        (("management", "metrics_tls_listeners"), config.management.metrics_tls_listeners))
    return tuple(sources.where((*path, index)) for path, listeners in lists for index in range(len(listeners)))


def _tls_contradictions(config: Config, sources: Sources) -> Iterator[str]:
    tls = config.tls
    if not config.listeners and not tls.listeners:
        yield (f"{sources.where(('listeners',))} is an empty list, allowed is a list, each entry {WORDS[Listener]}, "
               "unless tls.listeners has one")
    listening = ("tls", "listeners") if tls.listeners else (
        "management", "tls_listeners" if config.management.tls_listeners else "metrics_tls_listeners")
    for name in ("certificate", "key"):
        if config.has_tls and not getattr(tls, name):
            yield (f"{sources.where(listening)} needs tls.{name}, the path of a PEM file; for a first try, "
                   "'amqpctl make_certificates DIR' makes one")
    if tls.client_certificates != "none" and not tls.ca:
        yield (f"{sources.where(('tls', 'client_certificates'))} is '{tls.client_certificates}' and needs tls.ca, the "
               "path of a PEM file with the CAs that signed the clients' certificates")


def _with_default_vhost(config: Config) -> Config:
    def fill(declaration: Any) -> Any:
        return declaration if declaration.vhost else replace(declaration, vhost=config.default_vhost)

    return replace(
        config,
        users=tuple(
            replace(user, permissions=tuple(map(fill, user.permissions)),
                    topic_permissions=tuple(map(fill, user.topic_permissions)))
            for user in config.users),
        policies=tuple(map(fill, config.policies)),
        operator_policies=tuple(map(fill, config.operator_policies)),
        exchanges=tuple(map(fill, config.exchanges)),
        queues=tuple(map(fill, config.queues)),
        bindings=tuple(map(fill, config.bindings)))


def _contradictions(config: Config) -> Iterator[Fault]:
    yield from _twice(config.vhosts, "name")
    yield from _twice(config.users, "name")
    yield from _twice(config.policies, "vhost", "name")
    yield from _twice(config.operator_policies, "vhost", "name")
    yield from _twice(config.exchanges, "vhost", "name")
    yield from _twice(config.queues, "vhost", "name")
    yield from _twice(config.tls.names, "name")
    for user in config.users:
        yield from _user_contradictions(user)
    for policy in (*config.policies, *config.operator_policies):
        yield from _pattern_contradictions(policy, "pattern", policy.pattern)
    for limits in config.default_vhost_limits:
        yield from _pattern_contradictions(limits, "pattern", limits.pattern)
    named: tuple[ExchangeDeclaration | QueueDeclaration, ...] = (*config.exchanges, *config.queues)
    for declaration in named:
        if declaration.name.startswith(RESERVED_PREFIX):
            yield (declaration, f"{declaration.where} is a reserved name, allowed is one that does not start with "
                                f"'{RESERVED_PREFIX}'")
    for with_arguments in (*named, *config.bindings):
        yield from _argument_contradictions(with_arguments)


def _same_listeners(listeners: Iterable[Listener], places: Iterable[str]) -> Iterator[str]:
    seen = set()
    for where, listener in zip(places, listeners):
        key = listener.host, listener.port
        if listener.port and key in seen:
            yield f"{where} is '{listener}', which is listed already; delete one of them"
        seen.add(key)


def _login_faults(config: Config, where: str) -> Iterator[str]:
    mechanisms = config.auth_mechanisms
    for mechanism in sorted({one for one in mechanisms if mechanisms.count(one) > 1}):
        yield f"{where} lists {mechanism} more than once; delete one of them"
    if "ANONYMOUS" in mechanisms and not config.login.anonymous_user:
        yield f"{where} lists ANONYMOUS, which needs a user: set login.anonymous_user, or delete ANONYMOUS"


def _login_warnings(config: Config, where: str) -> Iterator[str]:
    tls = config.tls
    if "EXTERNAL" in config.auth_mechanisms and (not tls.listeners or tls.client_certificates == "none"):
        yield (f"{where} lists EXTERNAL, with which nobody can log in: it needs tls.listeners, and "
               "tls.client_certificates = 'optional' or 'required'")


def _twice(declarations: Iterable[Declaration], *identity: str) -> Iterator[Fault]:
    first: dict[tuple[str, ...], str] = {}
    for declaration in declarations:
        key = tuple(getattr(declaration, field) for field in identity)
        if key in first:
            yield declaration, f"{declaration.where} is declared already: {first[key]}; delete one of them"
        first.setdefault(key, declaration.where)


def _user_contradictions(user: UserDeclaration) -> Iterator[Fault]:
    if (user.password is None) == (user.password_hash is None):
        yield user, (f"{user.where} has {'neither' if user.password is None else 'both'} of password and "
                     "password_hash, allowed is one of them")
    for index, permission in enumerate(user.permissions):
        for right in RIGHTS:
            yield from _pattern_contradictions(user, f"permissions[{index}].{right}", getattr(permission, right))
    for index, topics in enumerate(user.topic_permissions):
        for right in TOPIC_RIGHTS:
            yield from _pattern_contradictions(user, f"topic_permissions[{index}].{right}", getattr(topics, right))


def _pattern_contradictions(declaration: Declaration, key: str, pattern: str) -> Iterator[Fault]:
    try:
        compile_pattern(pattern)
    except PatternError as error:
        yield declaration, f"{declaration.where}.{key} is {pattern!r}, allowed is a regular expression: {error}"


def _argument_contradictions(
    declaration: ExchangeDeclaration | QueueDeclaration | BindingDeclaration
) -> Iterator[Fault]:
    try:
        encode_table(declaration.arguments)
    except FieldError as error:
        yield declaration, f"{declaration.where}.arguments are not a field table: {error}"
