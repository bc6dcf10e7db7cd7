"""The rules for arguments: which ones a queue, exchange or consumer may have, and when two declarations agree.

Everything here compares values with values, with RabbitMQ's texts and in RabbitMQ's order. The caller checks what
depends on the state of the broker (permissions, limits, the owner of an exclusive queue), and carries out what the
arguments say. Arguments that no queue type knows are kept and ignored.

`x-delivery-limit` and `x-consumer-timeout` must be integers and are accepted on classic queues too; RabbitMQ 3.10
refuses the first one there, ignores the second one, and checks neither. Streams are refused after their names and
properties have been checked.

Sources: RabbitMQ docs/queues, docs/ttl, docs/maxlength, docs/dlx, docs/quorum-queues, docs/consumers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain, islice
from typing import Any

from msgspec.structs import replace

from amqpd.broker.definitions import Arguments, BindingDefinition, ExchangeDefinition, QueueDefinition
from amqpd.erlang import field_term
from amqpd.errors import LONGEST_TEXT, ChannelException, ReplyCode
from amqpd.fields import Timestamp, type_name
from amqpd.packed_table import PackedTable, known_names, with_known

ALTERNATE_EXCHANGE = "alternate-exchange"
DEAD_LETTER_EXCHANGE = "x-dead-letter-exchange"
DEAD_LETTER_ROUTING_KEY = "x-dead-letter-routing-key"
CONSUMER_TIMEOUT = "x-consumer-timeout"
QUEUE_TYPE = "x-queue-type"
MOST_BINDING_ARGUMENTS = 256
BYTES_A_STEP = 4        # of values that are decoded and compared; see broker/effort.py
MOST_SHOWN = LONGEST_TEXT // 5     # entries of a table or array in an error text: each takes more than five characters

CLASSIC = "classic"
QUORUM = "quorum"
_STREAM = "stream"

LONGEST_EXPIRY_MS = 10 * 365 * 24 * 60 * 60 * 1000
HIGHEST_MAX_PRIORITY = 255


class InvalidArgument(ChannelException):
    """An argument with an invalid value; has RabbitMQ's text, and one in plain words for the configuration."""

    def __init__(self, text: str, plain: str) -> None:
        super().__init__(ReplyCode.PRECONDITION_FAILED, text)
        self.plain = plain


# Names in texts

def describe_queue(name: str, vhost: str) -> str:
    """Describe a queue for a reply text: ``queue 'q' in vhost '/'``."""
    return f"queue '{name}' in vhost '{vhost}'"


def describe_exchange(name: str, vhost: str) -> str:
    """Describe an exchange for a reply text: ``exchange 'x' in vhost '/'``."""
    return f"exchange '{name}' in vhost '{vhost}'"


# The rules of one declaration

def type_of_queue(arguments: Arguments) -> str:
    """Return the queue type that checked arguments ask for, `CLASSIC` or `QUORUM`."""
    return str(arguments.get(QUEUE_TYPE, CLASSIC))


def with_default_type(definition: QueueDefinition, default: str) -> QueueDefinition:
    """Return a declaration with the default type of its vhost if it names no type; "" is no default.

    Exclusive, auto-delete and transient queues are classic whatever the default is. RabbitMQ docs/vhosts.
    """
    is_replicable = definition.durable and not (definition.exclusive or definition.auto_delete)
    if not default or QUEUE_TYPE in definition.arguments or not (default == CLASSIC or is_replicable):
        return definition
    return replace(definition, arguments=with_known(definition.arguments, QUEUE_TYPE, default))


def check_server_named(arguments: Arguments) -> None:
    """Refuse an empty queue name, for which the broker chooses one, if the type does not allow that.

    Raises ChannelException: PRECONDITION_FAILED.
    Source: RabbitMQ docs/quorum-queues.
    """
    if (queue_type := arguments.get(QUEUE_TYPE)) in (QUORUM, _STREAM):
        raise _refusal(f"Cannot declare a server-named queue for type {_module(queue_type)}")


def check_queue_arguments(definition: QueueDefinition) -> None:
    """Refuse a new queue with invalid arguments, or with properties that its type does not allow.

    Raises ChannelException: PRECONDITION_FAILED, naming the first fault.
    Sources: RabbitMQ docs/queues, docs/quorum-queues.
    """
    arguments, owner = definition.arguments, describe_queue(definition.name, definition.vhost)
    named_exchange(DEAD_LETTER_EXCHANGE, arguments, owner)
    _check_value(QUEUE_TYPE, _queue_type, arguments, owner)
    queue_type = type_of_queue(arguments)
    if queue_type == _STREAM:
        _check_replicated_properties(definition, owner)
        fault = '"stream queues are not supported yet, use classic or quorum"'
        raise _refusal(f"invalid arg '{QUEUE_TYPE}' for {owner}: {fault}")
    rules = _QUEUE_RULES if DEAD_LETTER_EXCHANGE in arguments else _RULES_WITHOUT_EXCHANGE
    _check_arguments(queue_type, arguments, owner, rules, _QUEUE_ARGUMENTS)
    if queue_type == QUORUM:
        _check_replicated_properties(definition, owner)


def check_exchange_arguments(definition: ExchangeDefinition) -> None:
    """Refuse a new exchange whose alternate exchange is not a name.

    Raises ChannelException: PRECONDITION_FAILED.
    Source: RabbitMQ docs/ae.
    """
    owner = describe_exchange(definition.name, definition.vhost)
    named_exchange(ALTERNATE_EXCHANGE, definition.arguments, owner)


def check_binding_arguments(binding: BindingDefinition) -> None:
    """Refuse a binding with more arguments than `MOST_BINDING_ARGUMENTS`, each of which messages are compared with.

    Raises ChannelException: PRECONDITION_FAILED. RabbitMQ has no such limit.
    """
    if len(binding.arguments) > MOST_BINDING_ARGUMENTS:
        raise _refusal(
            f"a binding cannot have more than {MOST_BINDING_ARGUMENTS} arguments: this one, from "
            f"{describe_exchange(binding.source, binding.vhost)}, has {len(binding.arguments)}")


def check_consumer_arguments(queue_name: str, vhost: str, arguments: Arguments, queue_type: str = CLASSIC) -> None:
    """Refuse arguments of basic.consume that are invalid for a queue of this type.

    Raises ChannelException: PRECONDITION_FAILED, naming the first fault.
    Sources: RabbitMQ docs/consumer-priority, docs/consumers.
    """
    owner = describe_queue(queue_name, vhost)
    _check_arguments(queue_type, arguments, owner, _CONSUMER_RULES, _CONSUMER_ARGUMENTS)


def named_exchange(key: str, arguments: Arguments, owner: str) -> str | None:
    """Return the exchange that an argument names, or None without that argument; "" is the default exchange.

    `owner` describes the queue or exchange that is declared.

    Raises ChannelException: PRECONDITION_FAILED, for a value that is not text.
    """
    if key not in arguments:
        return None
    name = arguments[key]
    if isinstance(name, str):
        return name
    raise InvalidArgument(f"invalid type '{type_name(name)}' for arg '{key}' in {owner}", f"{key} has to be a text")


def _check_arguments(
    queue_type: str, arguments: Arguments, owner: str, rules: Mapping[str, _Rule], known: Mapping[str, Collection[str]]
) -> None:
    for key, rule in rules.items():
        if key in known[queue_type]:
            _check_value(key, rule, arguments, owner)
    elsewhere = set(chain.from_iterable(known.values())).difference(known[queue_type])
    for key in known_names(arguments):
        if key in elsewhere:
            raise _refusal(f"invalid arg '{key}' for {owner} of queue type {_module(queue_type)}")


def _check_value(key: str, rule: _Rule, arguments: Arguments, owner: str) -> None:
    if key not in arguments:
        return
    try:
        rule(arguments[key])
    except _Invalid as fault:
        raise InvalidArgument(f"invalid arg '{key}' for {owner}: {fault}", f"{key} {fault.plain}") from None


def _check_replicated_properties(definition: QueueDefinition, owner: str) -> None:
    for fault, is_present in (
        ("auto-delete", definition.auto_delete),
        ("exclusive-owner", definition.exclusive),
        ("non-durable", not definition.durable),
    ):
        if is_present:
            raise _refusal(f"invalid property '{fault}' for {owner}")


def _module(queue_type: str) -> str:
    """Return RabbitMQ's name of a queue type, for error texts."""
    return f"rabbit_{queue_type}_queue"


def _refusal(text: str) -> ChannelException:
    return ChannelException(ReplyCode.PRECONDITION_FAILED, text)


# The rules of single values. Each raises _Invalid.

_Rule = Callable[[Any], None]


class _Invalid(Exception):
    """An invalid value, described twice: as an Erlang term, after `invalid arg '…' for …: `, and in plain words."""

    def __init__(self, term: str, plain: str) -> None:
        super().__init__(term)
        self.plain = plain


def _integer(value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, (bool, Timestamp)):
        raise _Invalid(f'"expected integer, got {type_name(value)}"', "has to be a whole number")


def _not_negative(value: Any) -> None:
    _integer(value)
    if value < 0:
        raise _Invalid(f"{{value_negative,{value}}}", "may not be negative")


def _positive(value: Any) -> None:
    _not_negative(value)
    if value == 0:
        raise _Invalid("{value_zero,0}", "may not be 0")


def _message_ttl(value: Any) -> None:
    _not_negative(value)
    if value > LONGEST_EXPIRY_MS:
        raise _Invalid(f"{{value_too_large,{value}}}", f"may be at most {LONGEST_EXPIRY_MS}")


def _expires(value: Any) -> None:
    _positive(value)
    _message_ttl(value)


def _max_priority(value: Any) -> None:
    _not_negative(value)
    if value > HIGHEST_MAX_PRIORITY:
        raise _Invalid(f"{{max_value_exceeded,{value}}}", f"may be at most {HIGHEST_MAX_PRIORITY}")


def _queue_version(value: Any) -> None:
    _not_negative(value)
    if value not in (1, 2):
        raise _Invalid(f"\"unsupported queue version '{value}'\"", "may be 1 or 2")


def _boolean(value: Any) -> None:
    if not isinstance(value, bool):
        raise _Invalid(f"{{unacceptable_type,{type_name(value)}}}", "has to be true or false")


def _text(value: Any) -> None:
    if not isinstance(value, str):
        raise _Invalid(f"{{unacceptable_type,{type_name(value)}}}", "has to be a text")


def _one_of(*choices: str, otherwise: str) -> _Rule:
    def rule(value: Any) -> None:
        _text(value)
        if value not in choices:
            raise _Invalid(otherwise.format(value), f"has to be one of {', '.join(choices)}")
    return rule


def _without_exchange(value: Any) -> None:
    _text(value)
    raise _Invalid("routing_key_but_no_dlx_defined", f"needs {DEAD_LETTER_EXCHANGE}")


_queue_type = _one_of(CLASSIC, QUORUM, _STREAM, otherwise="\"unsupported queue type '{}'\"")

# In the order in which RabbitMQ checks them.
_QUEUE_RULES: Mapping[str, _Rule] = {
    "x-expires": _expires,
    "x-message-ttl": _message_ttl,
    DEAD_LETTER_ROUTING_KEY: _text,
    "x-dead-letter-strategy": _one_of("at-most-once", "at-least-once", otherwise="invalid_dlx_strategy"),
    "x-max-length": _not_negative,
    "x-max-length-bytes": _not_negative,
    "x-max-in-memory-length": _not_negative,
    "x-max-in-memory-bytes": _not_negative,
    "x-max-priority": _max_priority,
    "x-overflow": _one_of("drop-head", "reject-publish", "reject-publish-dlx", otherwise="invalid_overflow"),
    "x-queue-mode": _one_of("default", "lazy", otherwise="\"unsupported queue mode '{}'\""),
    "x-queue-version": _queue_version,
    "x-single-active-consumer": _boolean,
    "x-quorum-initial-group-size": _positive,
    "x-queue-leader-locator": _one_of(
        "client-local", "balanced", "random", "least-leaders", otherwise="invalid_queue_locator_arg"
    ),
    "x-delivery-limit": _integer,
    CONSUMER_TIMEOUT: _not_negative,
}
_RULES_WITHOUT_EXCHANGE: Mapping[str, _Rule] = {**_QUEUE_RULES, DEAD_LETTER_ROUTING_KEY: _without_exchange}
# In the order in which a new declaration is compared with an old one; those of streams are only there to be refused.
_QUEUE_ARGUMENTS: Mapping[str, Collection[str]] = {
    CLASSIC: (
        "x-expires", "x-message-ttl", DEAD_LETTER_EXCHANGE, DEAD_LETTER_ROUTING_KEY, "x-max-length",
        "x-max-length-bytes", "x-max-priority", "x-overflow", "x-queue-mode", "x-queue-version",
        "x-single-active-consumer", QUEUE_TYPE, "x-queue-master-locator", "x-delivery-limit", CONSUMER_TIMEOUT,
    ),
    QUORUM: (
        DEAD_LETTER_EXCHANGE, DEAD_LETTER_ROUTING_KEY, "x-dead-letter-strategy", "x-expires", "x-max-length",
        "x-max-length-bytes", "x-max-in-memory-length", "x-max-in-memory-bytes", "x-overflow",
        "x-single-active-consumer", QUEUE_TYPE, "x-quorum-initial-group-size", "x-delivery-limit", "x-message-ttl",
        "x-queue-leader-locator", CONSUMER_TIMEOUT,
    ),
    _STREAM: ("x-max-age", "x-stream-max-segment-size-bytes", "x-initial-cluster-size"),
}
_CONSUMER_RULES: Mapping[str, _Rule] = {
    "x-priority": _integer,
    "x-cancel-on-ha-failover": _boolean,
    CONSUMER_TIMEOUT: _not_negative,
}
_CONSUMER_ARGUMENTS: Mapping[str, Collection[str]] = {
    CLASSIC: ("x-priority", "x-cancel-on-ha-failover", CONSUMER_TIMEOUT),
    QUORUM: ("x-priority", CONSUMER_TIMEOUT),
    _STREAM: ("x-stream-offset",),
}


def known_queue_arguments() -> set[str]:
    """Return the arguments that a type of queues knows."""
    return set(chain.from_iterable(_QUEUE_ARGUMENTS.values()))


# Whether two declarations agree

def check_queue_equivalence(current: QueueDefinition, declared: QueueDefinition) -> None:
    """Refuse to declare an existing queue again with other properties, or other values of arguments its type knows.

    The caller checks before whether the connection may use an exclusive queue.

    Raises ChannelException: PRECONDITION_FAILED, naming the first difference.
    Sources: Spec: queue.declare; RabbitMQ docs/queues.
    """
    owner = describe_queue(current.name, current.vhost)
    _check_same("durable", current.durable, declared.durable, owner)
    _check_same("auto_delete", current.auto_delete, declared.auto_delete, owner)
    for key in _QUEUE_ARGUMENTS[type_of_queue(current.arguments)]:
        if key != CONSUMER_TIMEOUT:     # unknown to RabbitMQ 3.10, so an application may add it later
            _check_same_argument(key, current.arguments, declared.arguments, owner)


def steps_to_compare(current: QueueDefinition) -> int:
    """Return the cost of comparing a declaration of any size with this one, if it has large values."""
    arguments = current.arguments
    return arguments.known_size // BYTES_A_STEP if isinstance(arguments, PackedTable) else 0


def check_exchange_equivalence(current: ExchangeDefinition, declared: ExchangeDefinition) -> None:
    """Refuse to declare an existing exchange again with another type, other properties or alternate exchange.

    Raises ChannelException: PRECONDITION_FAILED, naming the first difference.
    Sources: Spec: exchange.declare; RabbitMQ docs/ae.
    """
    owner = describe_exchange(current.name, current.vhost)
    _check_same("type", current.type, declared.type, owner)
    _check_same("durable", current.durable, declared.durable, owner)
    _check_same("auto_delete", current.auto_delete, declared.auto_delete, owner)
    _check_same("internal", current.internal, declared.internal, owner)
    _check_same_argument(ALTERNATE_EXCHANGE, current.arguments, declared.arguments, owner)


def _check_same_argument(key: str, current: Arguments, declared: Arguments, owner: str) -> None:
    if key in current and key in declared:
        _check_same(key, current[key], declared[key], owner)
    elif key in current or key in declared:
        received, existing = _described(key, declared), _described(key, current)
        if key != QUEUE_TYPE or CLASSIC not in (current.get(key), declared.get(key)):
            raise _refusal(f"inequivalent arg '{key}' for {owner}: received {received} but current is {existing}")


def _check_same(key: str, current: Any, declared: Any, owner: str) -> None:
    if not are_equivalent(current, declared):
        received, existing = _quoted(declared), _quoted(current)
        raise _refusal(f"inequivalent arg '{key}' for {owner}: received {received} but current is {existing}")


def are_equivalent(one: Any, other: Any) -> bool:
    """Return whether two values have the same `field_term`, without forming it of tables and arrays, however large."""
    if not (isinstance(one, (dict, list)) and isinstance(other, (dict, list))):
        return not isinstance(one, (dict, list)) and not isinstance(other, (dict, list)) and (
            field_term(one) == field_term(other))
    if len(one) != len(other) or not one:
        return not one and not other        # an empty table is an empty array
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and _are_same(one.values(), other.values())
    return isinstance(one, list) and isinstance(other, list) and _are_same(one, other)


def _are_same(values: Iterable[Any], others: Iterable[Any]) -> bool:
    return all(
        type_name(value) == type_name(other) and are_equivalent(value, other)
        for value, other in zip(values, others, strict=True))


def _described(key: str, arguments: Arguments) -> str:
    if key not in arguments:
        return "none"
    value = arguments[key]
    return f"the value '{_shown(value)}' of type '{type_name(value)}'"


def _quoted(value: Any) -> str:
    return "none" if value is None else f"'{_shown(value)}'"


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, str):
        return value
    # A refusal is cut long before its end (amqpd/errors.py), so the rest need not be formatted.
    if isinstance(value, list):
        value = value[:MOST_SHOWN]
    elif isinstance(value, dict):
        value = dict(islice(value.items(), MOST_SHOWN))
    return field_term(value)
