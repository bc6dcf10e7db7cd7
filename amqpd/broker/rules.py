"""The rules that a queue or an exchange lives by: its arguments and the policies that match it, merged.

Owns how these combine. What may be written into them is checked before, by `arguments` and `policy`; what a rule
does is the queue's matter. Keys that mean nothing here are passed over.

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

# Where two say something about these, the smaller number holds.
_NUMBERS = frozenset((
    "message-ttl", "expires", "max-length", "max-length-bytes", "max-in-memory-length", "max-in-memory-bytes",
    "delivery-limit", "consumer-timeout",
))
# Of these a quorum queue takes the policy's word before the argument's (RabbitMQ 3.10).
_POLICY_FIRST = ("overflow", "expires")

PolicyRules = Mapping[str, Any]


class QueueRules(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for one queue now; None where there is no such rule or limit.

    `message_ttl_ms`, `expires_ms` and `consumer_timeout_ms` are milliseconds; `max_length` counts ready messages,
    `max_length_bytes` the bytes of their bodies. `overflow` is "drop-head", "reject-publish" or
    "reject-publish-dlx". `dead_letter_exchange` "" is the default exchange. With `max_priority` 0 priorities play
    no part. With `is_at_least_once` a dead message stays until those made of it are safe.
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
        """Return whether what failed is delivered with `x-delivery-count`; RabbitMQ's classic queues never have it."""
        return self.is_quorum or self.delivery_limit is not None


def queue_rules(
    arguments: Arguments, policy: PolicyRules | None = None, operator_policy: PolicyRules | None = None
) -> QueueRules:
    """The rules of a queue with these arguments, under the definitions of the policies that match it.

    Of numbers the smallest holds, a negative one being none; in all else the argument goes before the policy, but
    for `_POLICY_FIRST`. Dead letters are sure only where publishes are refused too, as in RabbitMQ.
    """
    is_quorum = type_of_queue(arguments) == QUORUM
    ruling = merge_policies(policy, operator_policy)
    given = {key.removeprefix("x-"): value for key, value in arguments.items()}
    holds = _merge(ruling, given)
    if is_quorum:
        holds |= {key: ruling[key] for key in _POLICY_FIRST if key in ruling}
    overflow = holds.get("overflow", DROP_HEAD)
    if is_quorum and overflow == REJECT_PUBLISH_DLX:
        overflow = DROP_HEAD        # such a queue does not know that one, so it is as if nothing was said
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
    """Return where an exchange sends what it cannot route: by its argument, else by its policy. RabbitMQ docs/ae.

    None is "" too: the default exchange, to which nothing is bound, routes nothing of another exchange.
    """
    found: str | None = arguments.get(ALTERNATE_EXCHANGE, (policy or {}).get(ALTERNATE_EXCHANGE))
    return found or None


def merge_policies(policy: PolicyRules | None, operator_policy: PolicyRules | None) -> dict[str, Any]:
    """What a policy and an operator's policy say together, by key; the operator has the last word.

    RabbitMQ docs/policies (operator policies).
    """
    return dict(sorted(_merge(policy or {}, operator_policy or {}).items()))


def _merge(weaker: PolicyRules, stronger: PolicyRules) -> dict[str, Any]:
    """What either says; where both do, the smaller number, or else the word of the stronger."""
    merged = {**weaker, **stronger}
    for key in _NUMBERS & weaker.keys() & stronger.keys():
        merged[key] = _smaller(weaker[key], stronger[key])
    return merged


def _smaller(one: int, other: int) -> int:
    """A negative number is no limit at all."""
    return max(one, other) if one < 0 or other < 0 else min(one, other)
