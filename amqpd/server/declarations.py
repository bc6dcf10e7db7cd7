"""The declarations of the configuration: carried out at every start, and tried out by `amqpd check-config`.

Owns their order, in which nothing precedes what it needs, and the line for the user if the broker refuses one: its
place, the problem, the remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from msgspec.structs import replace

from amqpd.broker.access import pattern_faults
from amqpd.broker.arguments import (
    ALTERNATE_EXCHANGE,
    CLASSIC,
    DEAD_LETTER_EXCHANGE,
    QUEUE_TYPE,
    InvalidArgument,
    check_queue_arguments,
    known_queue_arguments,
)
from amqpd.broker.broker import Broker
from amqpd.broker.definitions import (
    BindingDefinition,
    Definition,
    ExchangeDefinition,
    ParameterDefinition,
    PermissionDefinition,
    PolicyDefinition,
    QueueDefinition,
    TopicPermissionDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.broker.limits import MAX_CHANNELS, MAX_CONNECTIONS, MAX_QUEUES
from amqpd.broker.parameters import LIMITS, VHOST_LIMITS
from amqpd.broker.passwords import PasswordForm, StoredPassword, password_matches
from amqpd.broker.policy import InvalidPolicy, plain_policy_faults
from amqpd.broker.vhost_defaults import VhostDefaults
from amqpd.config import (
    BindingDeclaration,
    Config,
    ExchangeDeclaration,
    PolicyDeclaration,
    QueueDeclaration,
    UserDeclaration,
    VhostDeclaration,
)
from amqpd.config.settings import Declaration
from amqpd.config.sources import nearest
from amqpd.errors import AlreadyThere, AmqpException, ReplyCode
from amqpd.server.definitions_file import finish_begun_import, load_definitions, try_definitions
from amqpd.patterns import compile_stored
from amqpd.store.journal import MemoryJournal
from amqpd.store.restoring import restore

METADATA = ("description", "tags", "default_queue_type", "protected_from_deletion")      # of a vhost

Step = tuple[Declaration, Callable[[], None]]       # and the call that carries it out


class Undeclared(Exception):
    """A declaration that the broker refuses; the text is one line."""


def declare(config: Config, broker: Broker) -> None:
    """Finish an import, load the file of definitions, then create what is missing; what exists as declared stays.

    Raises Undeclared, NotLoaded.
    """
    finish_begun_import(broker)
    load_definitions(config, broker, password_form(config))
    _begin(config, broker)
    for declaration, make in _steps(config, broker):
        try:
            make()
        except AmqpException as error:
            raise Undeclared(_line(declaration.where, error)) from None


class Trial:
    """The declarations of a configuration, tried out on a broker in memory. `problems` would stop a start.

    `stored` are the definitions of the store; None if they could not be read: then a declaration may refer to a stored
    object, and so it may if the configuration `is_partial`. `faulty` has the `where` of declarations with known
    problems, of which nothing more is told.
    """

    def __init__(
        self, config: Config, stored: Iterable[Definition] | None, faulty: Collection[str] = frozenset(), *,
        is_partial: bool = False,
    ) -> None:
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self._config, self._may_be_stored, self._faulty = config, stored is None or is_partial, faulty
        self._broker = Broker(
            MemoryJournal(), binding_limit=config.limits.bindings_per_queue, queue_limit=config.limits.max_queues,
            vhost_defaults=vhost_defaults(config))
        for unrestored in restore(self._broker, stored or ()):
            self.problems.append(f"{config.data_dir}: {unrestored}; restore a backup or salvage it")
        problems, warnings = try_definitions(config, self._broker, is_whole=not self._may_be_stored)
        self.problems += problems
        self.warnings += warnings
        if problems:
            self._may_be_stored = True      # so that nothing is told of what the file would have brought
        _begin(config, self._broker)
        self._refused: set[tuple[str, str, str]] = set()

    @property
    def knows_users(self) -> bool:
        """Whether store and definitions could be read, so that `users` has all."""
        return not self._may_be_stored

    @property
    def users(self) -> list[UserDefinition]:
        """The users that there would be."""
        return [user.definition for user in self._broker.users.values()]

    def run(self) -> None:
        """Try every declaration."""
        self._try_vhosts()
        for declaration, make in _steps(self._config, self._broker):
            if declaration.where in self._faulty:       # perhaps with arguments that no broker can keep
                self._note_refused(declaration)
                continue
            try:
                make()
            except AmqpException as error:
                self._note(declaration, error)
        for queue in self._config.queues:
            self._warn(queue, known_queue_arguments())
        for exchange in self._config.exchanges:
            self._warn(exchange, {ALTERNATE_EXCHANGE})

    def _try_vhosts(self) -> None:
        """Report missing vhosts, and add them to go on."""
        missing = set()
        for where, vhost in _vhosts_named(self._config):
            if vhost not in self._broker.vhosts:
                missing.add(vhost)
                if not (self._may_be_stored or where in self._faulty):
                    self.problems.append(f"{where}: no vhost '{vhost}'; declare it too or change the line")
        for vhost in missing:
            self._broker.add_vhost(VhostDefinition(vhost))

    def _note_refused(self, declaration: Declaration) -> None:
        if isinstance(declaration, (ExchangeDeclaration, QueueDeclaration)):
            kind = "queue" if isinstance(declaration, QueueDeclaration) else "exchange"
            self._refused.add((declaration.vhost, kind, declaration.name))

    def _note(self, declaration: Declaration, error: AmqpException) -> None:
        self._note_refused(declaration)
        if isinstance(declaration, BindingDeclaration) and error.code is ReplyCode.NOT_FOUND:
            self._note_ends(declaration)
        elif isinstance(error, InvalidArgument) and isinstance(declaration, QueueDeclaration):
            self.problems += [_line(declaration.where, fault) for fault in _argument_faults(declaration)]
        elif isinstance(error, InvalidPolicy):
            self.problems += [f"{declaration.where}: {fault}; change the line" for fault in error.faults]
        else:
            self.problems.append(_line(declaration.where, error))

    def _note_ends(self, binding: BindingDeclaration) -> None:
        """Report the missing ends of a binding, unless the declaration of an end is reported itself."""
        vhost = self._broker.vhosts[binding.vhost]
        ends = (("exchange", binding.source), (binding.destination_type, binding.destination))
        for kind, name in ends:
            names = vhost.queues if kind == "queue" else vhost.exchanges
            if name not in names and (binding.vhost, kind, name) not in self._refused and not self._may_be_stored:
                self.problems.append(
                    f"{binding.where}: no {kind} '{name}' in vhost '{binding.vhost}'; declare it too or change the "
                    "line")

    def _warn(self, declaration: ExchangeDeclaration | QueueDeclaration, known: set[str]) -> None:
        for key in declaration.arguments:
            near = nearest(key, known)
            if key not in known and (key.startswith("x-") or near):
                hint = f"did you mean {near}?" if near else "delete it unless an application reads it"
                self.warnings.append(f"{declaration.where}: the argument {key} has no effect; {hint}")


def _argument_faults(queue: QueueDeclaration) -> Iterator[AmqpException]:
    """Yield the error of each invalid argument of a queue."""
    definition = _definition_of(queue)
    always = {key: queue.arguments[key] for key in (QUEUE_TYPE, DEAD_LETTER_EXCHANGE) if key in queue.arguments}
    told = set()
    for key, value in queue.arguments.items():
        try:
            check_queue_arguments(replace(definition, arguments={**always, key: value}))
        except AmqpException as error:
            if error.text not in told:
                told.add(error.text)
                yield error


def vhost_defaults(config: Config) -> VhostDefaults:
    """Return what vhosts have that is not said of them."""
    limits = []
    for one in config.default_vhost_limits:
        wanted = {MAX_CONNECTIONS: one.max_connections, MAX_QUEUES: one.max_queues}
        limits.append((compile_stored(one.pattern, one.where), {
            name: most for name, most in wanted.items() if most >= 0}))
    return VhostDefaults("" if config.default_queue_type == CLASSIC else config.default_queue_type, tuple(limits))


def _begin(config: Config, broker: Broker) -> None:
    """Add the vhosts; at a first start also the default vhost and user, unless the configuration declares users.

    Where definitions are loaded, these have the vhosts and users, as on RabbitMQ.
    """
    is_defined = bool(config.load_definitions)
    if not broker.vhosts and not is_defined:
        broker.add_vhost(VhostDefinition(config.default_vhost))
    if not broker.users and not is_defined and all(user.name != config.default_user for user in config.users):
        stored = password_form(config).store_known(config.default_password.reveal())
        broker.users.add(UserDefinition(
            config.default_user, stored.password_hash, stored.hashing_algorithm, config.default_user_tags,
            stored.scram_sha256))
        granted = config.default_permissions
        broker.users.set_permissions(PermissionDefinition(
            config.default_user, config.default_vhost, granted.configure, granted.write, granted.read))
    for vhost in config.vhosts:
        _declare_vhost(broker, vhost)


def _declare_vhost(broker: Broker, vhost: VhostDeclaration) -> None:
    """Add a vhost, or set of an existing one what is declared; what is not declared stays."""
    said = {name: getattr(vhost, name) for name in METADATA if getattr(vhost, name) is not None}
    if vhost.name not in broker.vhosts:
        broker.add_vhost(VhostDefinition(vhost.name, **said))
    else:
        broker.replace_vhost(replace(broker.vhost_definitions[vhost.name], **said))
    if vhost.limits is not None:
        wanted = {MAX_CONNECTIONS: vhost.limits.max_connections, MAX_QUEUES: vhost.limits.max_queues}
        if broker.parameters.value(vhost.name, VHOST_LIMITS, LIMITS) != wanted:
            broker.parameters.set(ParameterDefinition(vhost.name, VHOST_LIMITS, LIMITS, wanted))


def _vhosts_named(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the vhosts that declarations name, each with the place of the declaration."""
    for user in config.users:
        for permission in user.permissions:
            yield user.where, permission.vhost
        for topics in user.topic_permissions:
            yield user.where, topics.vhost
    placed: tuple[PolicyDeclaration | ExchangeDeclaration | QueueDeclaration | BindingDeclaration, ...] = (
        *config.policies, *config.operator_policies, *config.exchanges, *config.queues, *config.bindings)
    for declaration in placed:
        yield declaration.where, declaration.vhost


def _steps(config: Config, broker: Broker) -> Iterator[Step]:
    """Yield the declarations with their calls; each must be called before the next one is asked for."""
    for user in config.users:
        yield user, lambda: _declare_user(broker, user, password_form(config))
    for policy in config.policies:
        yield policy, lambda: _declare_policy(broker, policy, is_operator=False)
    for policy in config.operator_policies:
        yield policy, lambda: _declare_policy(broker, policy, is_operator=True)
    for exchange in config.exchanges:
        yield exchange, lambda: broker.ensure(ExchangeDefinition(
            exchange.vhost, exchange.name, exchange.type, True, exchange.auto_delete, exchange.internal,
            exchange.arguments))
    for queue in config.queues:
        yield queue, lambda: broker.ensure(_definition_of(queue))
    for binding in config.bindings:
        yield binding, lambda: broker.ensure(BindingDefinition(
            binding.vhost, binding.source, binding.destination_type, binding.destination, binding.routing_key,
            binding.arguments))


def _definition_of(queue: QueueDeclaration) -> QueueDefinition:
    return QueueDefinition(0, queue.vhost, queue.name, True, False, queue.auto_delete, queue.arguments)


def _line(where: str, error: AmqpException) -> str:
    if error.code is ReplyCode.NOT_FOUND:
        remedy = "declare it too or change the line"
    elif isinstance(error, AlreadyThere) or error.text.startswith("inequivalent arg"):
        remedy = "delete what is stored or change the line"
    else:
        remedy = "change the line"
    return f"{where}: {error.plain if isinstance(error, InvalidArgument) else error.text}; {remedy}"


def password_form(config: Config) -> PasswordForm:
    """Return the form in which passwords are stored."""
    return PasswordForm("SCRAM-SHA-256" in config.auth_mechanisms, config.login.rehash_imported)


def _declare_user(broker: Broker, user: UserDeclaration, form: PasswordForm) -> None:
    """Add a user, or check an existing one; set the permissions. Raises AmqpException."""
    stored = broker.users.get(user.name)
    if stored is None:
        password = _password_of(user, form)
        broker.users.add(UserDefinition(
            user.name, password.password_hash, password.hashing_algorithm, user.tags, password.scram_sha256))
    else:
        _check_stored(broker, stored.definition, user, form)
    if user.limits is not None:
        limits = {MAX_CONNECTIONS: user.limits.max_connections, MAX_CHANNELS: user.limits.max_channels}
        broker.users.set_limits(user.name, limits)
    for permission in user.permissions:
        wanted = PermissionDefinition(
            user.name, permission.vhost, permission.configure, permission.write, permission.read)
        _check_patterns(wanted)
        if broker.users.named(user.name).permissions.get(permission.vhost) != wanted:
            broker.users.set_permissions(wanted)
    for topics in user.topic_permissions:
        keys = TopicPermissionDefinition(user.name, topics.vhost, topics.exchange, topics.write, topics.read)
        _check_patterns(keys)
        if broker.users.named(user.name).topic_permissions.get((topics.vhost, topics.exchange)) != keys:
            broker.users.set_topic_permissions(keys)


def _password_of(user: UserDeclaration, form: PasswordForm) -> StoredPassword:
    if user.password is not None:
        return form.store_known(user.password.reveal())
    return StoredPassword(user.password_hash.reveal() if user.password_hash else "", user.hashing_algorithm)


def _check_stored(broker: Broker, stored: UserDefinition, user: UserDeclaration, form: PasswordForm) -> None:
    """Check that a user is stored as declared, and bring the password into the form of today. Raises AlreadyThere."""
    if user.password is not None and not password_matches(stored, user.password.reveal()):
        raise AlreadyThere(f"user '{user.name}' is stored with another password")
    if user.tags != stored.tags:
        raise AlreadyThere(f"user '{user.name}' is stored with the tags {', '.join(stored.tags)}")
    if user.password is not None and not form.is_kept_by(stored):
        password = form.stored_anew(stored, user.password.reveal())
        broker.users.change_password(
            user.name, password.password_hash, password.hashing_algorithm, password.scram_sha256)


def _check_patterns(permission: PermissionDefinition | TopicPermissionDefinition) -> None:
    for right, fault in pattern_faults(permission):
        text = f"{right} in vhost '{permission.vhost}' should be regular expression but is invalid: {fault}"
        raise AmqpException(ReplyCode.PRECONDITION_FAILED, text)


def _declare_policy(broker: Broker, policy: PolicyDeclaration, *, is_operator: bool) -> None:
    """Set a policy, in place of a stored policy of this name. Raises AmqpException."""
    vhost = broker.vhost(policy.vhost)
    wanted = PolicyDefinition(
        policy.vhost, policy.name, policy.pattern, policy.definition, policy.priority, policy.apply_to, is_operator)
    if faults := plain_policy_faults(wanted):
        raise InvalidPolicy(faults)
    if wanted not in vhost.policies.listed(is_operator=is_operator):
        vhost.followers.set_policy(wanted)
        vhost.followers.finish()
