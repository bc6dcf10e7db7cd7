"""Policies: check them, with RabbitMQ's error texts, and find those that match a queue or exchange.

Owns the policies and the operator policies of a vhost, which are matched separately. `rules` combines them with
arguments; `policy_followers` applies changes. Keys without a meaning here (mirrors, streams, plugins, location of
messages) are checked and accepted, so that policies written for RabbitMQ can be used.

Beyond RabbitMQ 3.10 these of 4.x are accepted: the key `consumer-timeout`; `overflow` and `queue-version` in operator
policies; a negative `delivery-limit`, for none; `apply-to` with one type of queues, and with streams.

Always true between calls:
- every pattern is one that `patterns` accepts;
- policies and operator policies are in the order in which they are tried: highest priority first, then by name.

RabbitMQ docs/policies, docs/parameters, docs/ha.
"""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Callable, Collection, Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple

import msgspec

from amqpd.broker.arguments import CLASSIC, QUORUM, type_of_queue
from amqpd.broker.definitions import PolicyDefinition, QueueDefinition
from amqpd.patterns import LONGEST_NAME, Pattern, PatternError, compile_pattern, compile_stored
from amqpd.broker.rules import PolicyRules, merge_policies
from amqpd.erlang import json_term
from amqpd.errors import AmqpException, ReplyCode

HIGHEST_NUMBER = 1 << 53

_EXCHANGE = "exchange"
# The types that each `apply-to` includes.
_APPLY_TO: Mapping[str, Collection[str]] = {
    "all": (_EXCHANGE, CLASSIC, QUORUM),
    "queues": (CLASSIC, QUORUM),
    "exchanges": (_EXCHANGE,),
    "classic_queues": (CLASSIC,),
    "quorum_queues": (QUORUM,),
    "streams": (),
}


class InvalidPolicy(AmqpException):
    """An invalid policy. `faults` has a text for each problem."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__(ReplyCode.PRECONDITION_FAILED, "; ".join(faults))
        self.faults = faults


class NoSuchPolicy(AmqpException):
    """The named policy does not exist."""

    def __init__(self, name: str, vhost: str) -> None:
        super().__init__(ReplyCode.NOT_FOUND, f"no policy '{name}' in vhost '{vhost}'")


# The valid values of the keys of a definition

class _Key(NamedTuple):
    allows: Callable[[Any], bool]
    fault: str


def _is_number(least: int, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= HIGHEST_NUMBER


def _is_short_text(value: Any) -> bool:
    return isinstance(value, str) and len(value.encode()) <= LONGEST_NAME


def _is_age(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"0*[1-9]\d*[YMDhms]", value, re.ASCII) is not None


def _number(what: str, *, least: int = 0) -> _Key:
    return _Key(partial(_is_number, least), f"{{}} is not a valid {what}")


def _text(what: str) -> _Key:
    return _Key(_is_short_text, f"{{}} is not a valid {what}")


def _one_of(*choices: Any, fault: str) -> _Key:
    return _Key(lambda value: not isinstance(value, bool) and value in choices, fault)


_OPERATOR_KEYS: Mapping[str, _Key] = {
    "message-ttl": _number("message TTL"),
    "expires": _number("queue expiry", least=1),
    "max-length": _number("maximum length"),
    "max-length-bytes": _number("maximum length in bytes"),
    "max-in-memory-length": _number("maximum memory in bytes"),
    "max-in-memory-bytes": _number("maximum memory in bytes"),
    "delivery-limit": _number("delivery limit", least=-HIGHEST_NUMBER),
    "overflow": _one_of(
        "drop-head", "reject-publish", "reject-publish-dlx", fault="{} is not a valid overflow value"),
    "queue-version": _one_of(1, 2, fault="{} is not a valid queue-version value"),
}
_STREAM_KEYS: Mapping[str, _Key] = {
    "max-age": _Key(_is_age, "{} is not a valid max age"),
    "stream-max-segment-size-bytes": _number("segment size"),
    "stream-filter-size-bytes": _number("filter size", least=16),
    "initial-cluster-size": _number("cluster size"),
}
_PROMOTION = 'must be "always" or "when-synced", got {}'
_MIRROR_KEYS: Mapping[str, _Key] = {
    "ha-mode": _one_of("all", "exactly", "nodes", fault="{} is not a valid ha-mode value"),
    "ha-params": _Key(lambda value: True, ""),      # depends on the mode, see _mirror_faults
    "ha-sync-mode": _one_of("manual", "automatic", fault='ha-sync-mode must be "manual" or "automatic", got {}'),
    "ha-sync-batch-size": _Key(
        partial(_is_number, 1), "ha-sync-batch-size takes an integer greater than 0, {} given"),
    "ha-promote-on-shutdown": _one_of("always", "when-synced", fault=f"ha-promote-on-shutdown {_PROMOTION}"),
    "ha-promote-on-failure": _one_of("always", "when-synced", fault=f"ha-promote-on-failure {_PROMOTION}"),
}
# What plugins of RabbitMQ read, so that policies of its definitions can be kept.
_PLUGIN_KEYS: Mapping[str, _Key] = {
    "federation-upstream": _text("federation upstream name"),
    "federation-upstream-set": _text("federation upstream set name"),
    "federation-upstream-pattern": _text("federation upstream pattern"),
    "shards-per-node": _number("number of shards"),
    "routing-key": _text("routing key"),
}
# Keys of RabbitMQ 4 without a meaning on one node.
_LATER_KEYS: Mapping[str, _Key] = {
    "target-group-size": _number("target group size", least=1),
    "delayed-retry-type": _text("delayed retry type"),
    "delayed-retry-min": _number("delayed retry time"),
    "delayed-retry-max": _number("delayed retry time"),
}
_KEYS: Mapping[str, _Key] = {
    **_OPERATOR_KEYS,
    **_STREAM_KEYS,
    **_MIRROR_KEYS,
    **_PLUGIN_KEYS,
    **_LATER_KEYS,
    "alternate-exchange": _text("alternate exchange name"),
    "consumer-timeout": _number("consumer timeout"),
    "dead-letter-exchange": _text("dead letter exchange name"),
    "dead-letter-routing-key": _text("dead letter routing key"),
    "dead-letter-strategy": _one_of(
        "at-most-once", "at-least-once", fault="{} is not a valid dead letter strategy"),
    "queue-mode": _one_of("default", "lazy", fault="{} is not a valid queue-mode value"),
    "queue-leader-locator": _one_of(
        "client-local", "balanced", "random", "least-leaders", fault="{} is not a valid queue leader locator value"),
    "queue-master-locator": _one_of(
        "min-masters", "client-local", "random", fault="{} invalid queue-master-locator value"),
}
# A policy with one of these keys does not match such a queue.
_USELESS: Mapping[str, Collection[str]] = {
    _EXCHANGE: (),
    CLASSIC: (*_STREAM_KEYS, "queue-leader-locator", "dead-letter-strategy"),
    QUORUM: (*_STREAM_KEYS, *_MIRROR_KEYS, "queue-mode", "queue-master-locator"),
}


# The rules of one policy

def check_policy(policy: PolicyDefinition) -> None:
    """Refuse an invalid policy, with all its problems, in RabbitMQ's order.

    Numbers have to be within 0 and 2^53, exchanges and routing keys within 255 bytes; RabbitMQ has no such limits.

    Raises InvalidPolicy.
    """
    if faults := _faults(policy, _definition_fault(policy.definition, _keys(policy))):
        raise InvalidPolicy(faults)


def plain_policy_faults(policy: PolicyDefinition) -> list[str]:
    """Return all problems of a policy, each invalid value and unknown key, without RabbitMQ's Erlang terms."""
    keys, found = _keys(policy), list[str]()
    for key, value in policy.definition.items():
        if key not in keys:
            near = get_close_matches(key, keys, n=1)
            found.append(f"'{key}' is not a key of {'operator ' * policy.is_operator}policies"
                         + (f", did you mean '{near[0]}'?" if near else ""))
        elif not keys[key].allows(value):
            found.append(f"{key}: {keys[key].fault.format(_plain(value))}")
    return [*found, *_faults(policy, None)] if found else _faults(policy, _definition_fault(policy.definition, keys))


def keys_without_effect() -> frozenset[str]:
    """Return the valid keys that change nothing here: those of mirrors, streams, plugins, and clusters."""
    return frozenset((*_MIRROR_KEYS, *_STREAM_KEYS, *_PLUGIN_KEYS, *_LATER_KEYS))


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _keys(policy: PolicyDefinition) -> Mapping[str, _Key]:
    return _OPERATOR_KEYS if policy.is_operator else _KEYS


def _faults(policy: PolicyDefinition, of_definition: str | None) -> list[str]:
    found = (
        of_definition,
        _apply_to_fault(policy.apply_to),
        _pattern_fault(policy.pattern),
        _priority_fault(policy.priority),
        _name_fault(policy.name),
    )
    return [fault for fault in found if fault]


def _definition_fault(definition: Mapping[str, Any], keys: Mapping[str, _Key]) -> str | None:
    """Return the first invalid value, else a contradiction between values, else all unknown keys; None if valid."""
    if not definition:
        return "no policy provided"
    unknown = []
    for key, value in sorted(definition.items()):
        if key not in keys:
            unknown.append(f"{{{json_term(key)},{json_term(value)}}}")
        elif not keys[key].allows(value):
            return keys[key].fault.format(json_term(value))
    if keys.keys() & _MIRROR_KEYS & definition.keys():
        fault = _mirror_fault(definition.get("ha-mode"), definition.get("ha-params"))
        if fault:
            return fault
    return f"[{','.join(unknown)}] are not recognised policy settings" if unknown else None


def _mirror_fault(mode: str | None, parameters: Any) -> str | None:
    given = "none" if parameters is None else json_term(parameters)
    if mode is None:
        return "ha-mode must be specified to specify ha-params, ha-sync-mode or ha-promote-on-shutdown"
    if mode == "all" and parameters is not None:
        return 'ha-mode="all" does not take parameters'
    if mode == "exactly" and not _is_number(1, parameters):
        return f'ha-mode="exactly" takes an integer, {given} given'
    if mode == "nodes" and not isinstance(parameters, list):
        return f'ha-mode="nodes" takes a list, {given} given'
    if mode == "nodes" and not parameters:
        return 'ha-mode="nodes" list must be non-empty'
    return None


def _apply_to_fault(apply_to: str) -> str | None:
    if apply_to in _APPLY_TO:
        return None
    *others, last = map("'{}'".format, _APPLY_TO)
    return f"apply-to '{apply_to}' unrecognised; should be {', '.join(others)} or {last}"


def _pattern_fault(pattern: str) -> str | None:
    try:
        compile_pattern(pattern)
    except PatternError as error:
        return f"pattern should be regular expression but is invalid: {error}"
    return None


def _priority_fault(priority: int) -> str | None:
    if _is_number(-HIGHEST_NUMBER, priority):
        return None
    return f"priority should be number, actually was {json_term(priority)}"


def _name_fault(name: str) -> str | None:
    return None if _is_short_text(name) else f"name should have at most {LONGEST_NAME} bytes"


# Which policy applies

class Applied(msgspec.Struct, frozen=True):
    """The policy and the operator policy that apply to one queue or exchange."""

    policy: PolicyDefinition | None = None
    operator_policy: PolicyDefinition | None = None

    @property
    def definitions(self) -> tuple[PolicyRules | None, PolicyRules | None]:
        """The definition of each of them."""
        policy, operator_policy = self.policy, self.operator_policy
        return policy.definition if policy else None, operator_policy.definition if operator_policy else None

    @property
    def effective(self) -> dict[str, Any]:
        """The merged definition of both."""
        return merge_policies(*self.definitions)


class _Candidate(NamedTuple):
    definition: PolicyDefinition
    pattern: Pattern


class Policies:
    """The policies of a vhost. They do not know the queues; `policy_followers` applies them.

    They remember which ones were set and cleared until `forget_changes`: only queues and exchanges that one of those
    matches can follow other policies than before.
    """

    def __init__(self) -> None:
        self._of_users: list[_Candidate] = []
        self._of_operator: list[_Candidate] = []
        self._changed: list[_Candidate] = []

    def listed(self, *, is_operator: bool) -> Iterator[PolicyDefinition]:
        """Yield the users' policies or the operator policies, lowest priority first, as RabbitMQ lists them."""
        for candidate in reversed(self._of_sort(is_operator=is_operator)):
            yield candidate.definition

    @property
    def count(self) -> int:
        """The number of policies and operator policies."""
        return len(self._of_users) + len(self._of_operator)

    @property
    def has_slow_pattern(self) -> bool:
        """Whether a search with a pattern has run out of time, so that it may have missed names."""
        return any(candidate.pattern.is_slow for candidate in (*self._of_users, *self._of_operator))

    def set(self, definition: PolicyDefinition) -> None:
        """Add a policy, in place of one of the same kind and name."""
        whose = f"policy '{definition.name}' in vhost '{definition.vhost}'"
        added = _Candidate(definition, compile_stored(definition.pattern, whose))
        self.clear(definition.name, is_operator=definition.is_operator)
        insort(self._of_sort(is_operator=definition.is_operator), added, key=_order)
        self._changed.append(added)

    def clear(self, name: str, *, is_operator: bool) -> PolicyDefinition | None:
        """Remove a policy and return it; None if there was none."""
        candidates = self._of_sort(is_operator=is_operator)
        for candidate in candidates:
            if candidate.definition.name == name:
                candidates.remove(candidate)
                self._changed.append(candidate)
                return candidate.definition
        return None

    def changed_patterns(self) -> list[Pattern] | None:
        """Return the patterns of what was set and cleared: what none of them matches follows the policies as before.

        None if all policies have to be looked at: that takes no longer, or a slow pattern may find what it missed.
        """
        if len(self._changed) >= self.count or self.has_slow_pattern:
            return None
        return [candidate.pattern for candidate in self._changed]

    def forget_changes(self) -> None:
        """Everything follows the policies of this moment."""
        self._changed.clear()

    def of_queue(self, queue: QueueDefinition) -> Applied:
        """Return what applies to this queue: of each kind, the first policy that matches its name and type."""
        return self._of(type_of_queue(queue.arguments), queue.name)

    def of_exchange(self, name: str) -> Applied:
        """Return what applies to the exchange of this name."""
        return self._of(_EXCHANGE, name)

    def _of(self, kind: str, name: str) -> Applied:
        return Applied(_first(self._of_users, kind, name), _first(self._of_operator, kind, name))

    def _of_sort(self, *, is_operator: bool) -> list[_Candidate]:
        return self._of_operator if is_operator else self._of_users


def precedes(one: PolicyDefinition, other: PolicyDefinition) -> bool:
    """Return whether a policy is tried before another one of its kind."""
    return _order_of(one) < _order_of(other)


def _order(candidate: _Candidate) -> tuple[int, str]:
    return _order_of(candidate.definition)


def _order_of(definition: PolicyDefinition) -> tuple[int, str]:
    return -definition.priority, definition.name


def _first(candidates: list[_Candidate], kind: str, name: str) -> PolicyDefinition | None:
    for definition, pattern in candidates:
        suits = kind in _APPLY_TO[definition.apply_to] and definition.definition.keys().isdisjoint(_USELESS[kind])
        if suits and pattern.matches(name):
            return definition
    return None
