"""What the configuration declares: made at every start, and tried out by `amqpd check-config`.

Owns the order, in which nothing comes before what it needs, and the line for the user where the broker refuses:
where it stands, what is wrong with it, the remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from amqpd.broker.access import RIGHTS, hash_known_password, password_matches
from amqpd.broker.broker import AlreadyThere, Broker
from amqpd.broker.definitions import (
    BindingDefinition,
    ExchangeDefinition,
    PermissionDefinition,
    PolicyDefinition,
    QueueDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.broker.patterns import PatternError, compile_pattern
from amqpd.config import Config, PolicyDeclaration, UserDeclaration
from amqpd.errors import AmqpException, ReplyCode
from amqpd.store.journal import MemoryJournal

Step = tuple[str, Callable[[], None]]       # where it stands, and what makes it


class Undeclared(Exception):
    """A declaration that the broker refuses, as one line."""


def declare(config: Config, broker: Broker) -> None:
    """Make what is missing; what is there as it is declared is fine. Raises Undeclared."""
    _begin(config, broker)
    for where, make in _steps(config, broker):
        try:
            make()
        except AmqpException as error:
            raise Undeclared(_line(where, error)) from None


def faults(config: Config) -> list[str]:
    """A line for each declaration that no broker takes.

    What it refers to and does not declare may be stored, and is not asked for.
    """
    broker, lines = Broker(MemoryJournal()), list[str]()
    _begin(config, broker)
    for name in _vhosts(config) - broker.vhosts.keys():
        broker.add_vhost(VhostDefinition(name))
    for where, make in _steps(config, broker):
        try:
            make()
        except AmqpException as error:
            if error.code is not ReplyCode.NOT_FOUND:
                lines.append(_line(where, error))
    return lines


def _begin(config: Config, broker: Broker) -> None:
    """The vhosts; at a first start the default ones of vhosts and users, unless the configuration declares them."""
    if not broker.vhosts:
        broker.add_vhost(VhostDefinition(config.default_vhost))
    if not broker.users and all(user.name != config.default_user for user in config.users):
        password_hash, algorithm = hash_known_password(config.default_password.reveal())
        broker.add_user(UserDefinition(config.default_user, password_hash, algorithm, ("administrator",)))
        broker.set_permissions(PermissionDefinition(config.default_user, config.default_vhost, ".*", ".*", ".*"))
    for vhost in config.vhosts:
        if vhost.name not in broker.vhosts:
            broker.add_vhost(VhostDefinition(vhost.name, vhost.description, vhost.tags))


def _vhosts(config: Config) -> set[str]:
    """Those that something is declared in."""
    return {
        *(permission.vhost for user in config.users for permission in user.permissions),
        *(policy.vhost for policy in (*config.policies, *config.operator_policies)),
        *(exchange.vhost for exchange in config.exchanges),
        *(queue.vhost for queue in config.queues),
        *(binding.vhost for binding in config.bindings),
    }


def _steps(config: Config, broker: Broker) -> Iterator[Step]:
    """Each is to be taken before the next one is asked for."""
    for user in config.users:
        yield user.where, lambda: _declare_user(broker, user)
    for policy in config.policies:
        yield policy.where, lambda: _declare_policy(broker, policy, is_operator=False)
    for policy in config.operator_policies:
        yield policy.where, lambda: _declare_policy(broker, policy, is_operator=True)
    for exchange in config.exchanges:
        yield exchange.where, lambda: broker.ensure(ExchangeDefinition(
            exchange.vhost, exchange.name, exchange.type, True, exchange.auto_delete, exchange.internal,
            exchange.arguments))
    for queue in config.queues:
        yield queue.where, lambda: broker.ensure(QueueDefinition(
            0, queue.vhost, queue.name, True, False, queue.auto_delete, queue.arguments))
    for binding in config.bindings:
        yield binding.where, lambda: broker.ensure(BindingDefinition(
            binding.vhost, binding.source, binding.destination_type, binding.destination, binding.routing_key,
            binding.arguments))


def _line(where: str, error: AmqpException) -> str:
    if error.code is ReplyCode.NOT_FOUND:
        remedy = "declare it too or change the line"
    elif isinstance(error, AlreadyThere) or error.text.startswith("inequivalent arg"):
        remedy = "delete what is stored or change the line"
    else:
        remedy = "change the line"
    return f"{where}: {error.text}; {remedy}"


def _declare_user(broker: Broker, user: UserDeclaration) -> None:
    """A user that is missing is made; of one that exists the permissions are set. Raises AmqpException."""
    stored = broker.users.get(user.name)
    if stored is not None:
        if user.password is not None and not password_matches(stored.definition, user.password.reveal()):
            raise AlreadyThere(f"user '{user.name}' is stored with another password")
        if user.tags != stored.definition.tags:
            raise AlreadyThere(f"user '{user.name}' is stored with the tags {', '.join(stored.definition.tags)}")
    else:
        if user.password is not None:
            password_hash, algorithm = hash_known_password(user.password.reveal())
        else:
            password_hash = user.password_hash.reveal() if user.password_hash else ""
            algorithm = user.hashing_algorithm
        broker.add_user(UserDefinition(user.name, password_hash, algorithm, user.tags))
    for permission in user.permissions:
        wanted = PermissionDefinition(
            user.name, permission.vhost, permission.configure, permission.write, permission.read)
        _check_patterns(wanted)
        if broker.user(user.name).permissions.get(permission.vhost) != wanted:
            broker.set_permissions(wanted)


def _check_patterns(permission: PermissionDefinition) -> None:
    for right in RIGHTS:
        try:
            compile_pattern(getattr(permission, right))
        except PatternError as error:
            text = f"{right} in vhost '{permission.vhost}' should be regular expression but is invalid: {error}"
            raise AmqpException(ReplyCode.PRECONDITION_FAILED, text) from None


def _declare_policy(broker: Broker, policy: PolicyDeclaration, *, is_operator: bool) -> None:
    """A policy is set, whatever was stored under its name. Raises AmqpException."""
    vhost = broker.vhost(policy.vhost)
    wanted = PolicyDefinition(
        policy.vhost, policy.name, policy.pattern, policy.definition, policy.priority, policy.apply_to, is_operator)
    if wanted not in vhost.policies.listed(is_operator=is_operator):
        vhost.set_policy(wanted)
        vhost.followers.finish()
