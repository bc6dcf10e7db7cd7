"""The rules of a queue or an exchange: its arguments and the policies that match it, merged.

Owns how these are combined. `arguments` and `policy` have checked the values; the queue applies the rules. Unknown keys
are ignored.

RabbitMQ docs/policies, docs/ttl, docs/maxlength, docs/dlx, docs/quorum-queues.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from amqpd.broker.arguments import ALTERNATE_EXCHANGE, QUORUM, type_of_queue
from amqpd.broker.definitions import Arguments

DROP_HEAD, REJECT_PUBLISH, REJECT_PUBLISH_DLX = "drop-head", "reject-publish", "reject-publish-dlx"
AT_LEAST_ONCE = "at-least-once"

# If several sources set one of these, the smaller number applies.
_NUMBERS = frozenset((
    "message-ttl", "expires", "max-length", "max-length-bytes", "max-in-memory-length", "max-in-memory-bytes",
    "delivery-limit", "consumer-timeout",
))
# The arguments that are merged with policies, by the key of a policy.
_ARGUMENTS = {key: f"x-{key}" for key in (
    "message-ttl", "expires", "max-length", "max-length-bytes", "overflow", "dead-letter-exchange",
    "dead-letter-routing-key", "dead-letter-strategy", "delivery-limit", "consumer-timeout")}
# For these a quorum queue prefers the policy to the argument (RabbitMQ 3.10).
_POLICY_FIRST = ("overflow", "expires")

PolicyRules = Mapping[str, Any]


class QueueRules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of one queue; None stands for no such rule or limit.

    `message_ttl_ms`, `expires_ms` and `consumer_timeout_ms` are milliseconds; `max_length` counts ready messages,
    `max_length_bytes` the bytes of their bodies. `overflow` is "drop-head", "reject-publish" or
    "reject-publish-dlx". `dead_letter_exchange` "" is the default exchange. `max_priority` 0 means no priorities. With
    `is_at_least_once` a dead message stays in the queue until its copies are on disk.
    """

    message_ttl_ms: int | None = None
    expires_ms: int | None = None
    max_length: int | None = None
    max_length_bytes: int | None = None
    overflow: str = DROP_HEAD
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None
    max_priority: int = 0
    single_active_consumer: bool = False
    delivery_limit: int | None = None
    consumer_timeout_ms: int | None = None
    is_at_least_once: bool = False
    is_quorum: bool = False

    @property
    def shows_delivery_count(self) -> bool:
        """Whether failed messages are delivered with `x-delivery-count`; on RabbitMQ's classic queues they are not."""
        return self.is_quorum or self.delivery_limit is not None


def queue_rules(
    arguments: Arguments, policy: PolicyRules | None = None, operator_policy: PolicyRules | None = None
) -> QueueRules:
    """Return the rules of a queue with these arguments and matching policies.

    Of numbers the smallest applies, a negative one standing for none; for all other keys the argument comes before the
    policy, except `_POLICY_FIRST`. At-least-once dead-lettering needs refused publishes, as in RabbitMQ.
    """
    is_quorum = type_of_queue(arguments) == QUORUM
    ruling = merge_policies(policy, operator_policy)
    given = {key: arguments[name] for key, name in _ARGUMENTS.items() if name in arguments}
    holds = _merge(ruling, given)
    if is_quorum:
        holds |= {key: ruling[key] for key in _POLICY_FIRST if key in ruling}
    overflow = holds.get("overflow", DROP_HEAD)
    if is_quorum and overflow == REJECT_PUBLISH_DLX:
        overflow = DROP_HEAD        # this queue type does not know the value, so it is ignored
    exchange = holds.get("dead-letter-exchange")
    is_sure = is_quorum and overflow == REJECT_PUBLISH and holds.get("dead-letter-strategy") == AT_LEAST_ONCE
    delivery_limit = holds.get("delivery-limit", -1)
    return QueueRules(
        message_ttl_ms=holds.get("message-ttl"),
        expires_ms=holds.get("expires"),
        max_length=holds.get("max-length"),
        max_length_bytes=holds.get("max-length-bytes"),
        overflow=overflow,
        dead_letter_exchange=exchange,
        dead_letter_routing_key=holds.get("dead-letter-routing-key"),
        max_priority=arguments.get("x-max-priority", 0),
        single_active_consumer=arguments.get("x-single-active-consumer", False),
        delivery_limit=None if delivery_limit < 0 else delivery_limit,
        consumer_timeout_ms=holds.get("consumer-timeout"),
        is_at_least_once=is_sure and exchange is not None,
        is_quorum=is_quorum,
    )


def alternate_exchange(arguments: Arguments, policy: PolicyRules | None = None) -> str | None:
    """Return the alternate exchange of an exchange: from its argument, else from its policy. RabbitMQ docs/ae.

    None for "" too: the default exchange, to which nothing is bound, routes no messages of another exchange.
    """
    found: str | None = arguments.get(ALTERNATE_EXCHANGE, (policy or {}).get(ALTERNATE_EXCHANGE))
    return found or None


def merge_policies(policy: PolicyRules | None, operator_policy: PolicyRules | None) -> dict[str, Any]:
    """Return a policy and an operator policy merged, by key; the operator policy has priority.

    RabbitMQ docs/policies (operator policies).
    """
    return dict(sorted(_merge(policy or {}, operator_policy or {}).items()))


def _merge(weaker: PolicyRules, stronger: PolicyRules) -> dict[str, Any]:
    """Return both merged: for a key of both, the smaller number, or else the value of the stronger."""
    merged = {**weaker, **stronger}
    for key in _NUMBERS & weaker.keys() & stronger.keys():
        merged[key] = _smaller(weaker[key], stronger[key])
    return merged


def _smaller(one: int, other: int) -> int:
    """Return the smaller limit; a negative number stands for no limit."""
    return max(one, other) if one < 0 or other < 0 else min(one, other)
