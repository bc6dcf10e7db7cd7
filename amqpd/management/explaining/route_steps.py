"""The steps of a route as records: exchanges, queues, and what happens to dead letters.

A route is a list of steps in the order of a tree that is read from the top; `depth` says below which step one stands.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from amqpd.broker.dead_letter import DELIVERY_LIMIT, EXPIRED, MAXLEN, REJECTED
from amqpd.broker.exchange import Exchange
from amqpd.broker.queue.queue import Queue
from amqpd.broker.rules import REJECT_PUBLISH, QueueRules
from amqpd.broker.vhost import Vhost
from amqpd.message import Message

Way = Literal["publish", "binding", "queue name", "alternate exchange", "dead letter"]
Cycle = Literal["", "ends", "goes on"]


class UsedBinding(msgspec.Struct, kw_only=True):
    """A binding that matched, with the routing keys of the message that it matches."""

    routing_key: str
    arguments: dict[str, Any]
    matched_keys: list[str]


class Reached(msgspec.Struct, kw_only=True):
    """How the message came to an exchange or a queue.

    `bindings` are those of the exchange above it; with `has_more_bindings`, others may have matched too.
    """

    depth: int
    by: Way
    bindings: list[UsedBinding] = []
    has_more_bindings: bool = False


class ExchangeStep(Reached, tag_field="kind", tag="exchange", kw_only=True):
    """An exchange. With `is_shown_above`, an earlier step has what follows it.

    `is_unrouted`: the exchange found no destination of its own.
    """

    name: str
    type: str
    policy: str
    alternate_exchange: str | None
    has_alternate_exchange: bool
    is_unrouted: bool
    is_shown_above: bool


class QueueStep(Reached, tag_field="kind", tag="queue", kw_only=True):
    """A queue with the rules in force; numbers that are None do not limit it.

    `is_at_limit`: a further message is refused or dropped, or another one is dropped for it. With `is_shown_above`, an
    earlier step has its dead letters. `cycle` is "" unless the message was in this queue before, as a dead letter. Then
    the message "ends" there, since no consumer has rejected it, or it "goes on".
    """

    name: str
    type: str
    policy: str
    operator_policy: str
    ready: int
    unacked: int
    consumers: int
    message_ttl_ms: int | None
    expires_ms: int | None
    max_length: int | None
    max_length_bytes: int | None
    overflow: str
    is_at_limit: bool
    delivery_limit: int | None
    dead_letter_exchange: str | None
    max_priority: int
    single_active_consumer: bool
    cycle: Cycle
    is_shown_above: bool


class DeadLetterStep(msgspec.Struct, tag_field="kind", tag="dead_letters", kw_only=True):
    """Where a queue's dead letters go, and why messages die there. `exists` is False without such an exchange."""

    depth: int
    causes: list[str]
    exchange: str
    routing_keys: list[str]
    is_own_key: bool        # the message keeps its keys, as the queue names none
    exists: bool
    is_at_least_once: bool


class ReplyStep(msgspec.Struct, tag_field="kind", tag="direct_reply", kw_only=True):
    """A client that waits for a direct reply under this routing key."""

    depth: int
    name: str


Step = ExchangeStep | QueueStep | DeadLetterStep | ReplyStep


def exchange_step(
    vhost: Vhost, exchange: Exchange, reached: Reached, *, is_unrouted: bool, is_shown_above: bool
) -> ExchangeStep:
    """Return the step of this exchange."""
    policy = vhost.policies.of_exchange(exchange.name).policy
    return ExchangeStep(
        **msgspec.structs.asdict(reached), name=exchange.name, type=exchange.definition.type,
        policy=policy.name if policy else "", alternate_exchange=exchange.alternate,
        has_alternate_exchange=exchange.alternate in vhost.exchanges, is_unrouted=is_unrouted,
        is_shown_above=is_shown_above)


def queue_step(vhost: Vhost, queue: Queue, reached: Reached, *, cycle: Cycle, is_shown_above: bool) -> QueueStep:
    """Return the step of this queue."""
    rules, definition = queue.rules, queue.definition
    applied = vhost.policies.of_queue(definition)
    return QueueStep(
        **msgspec.structs.asdict(reached), name=queue.name, type=queue.records.queue_type,
        policy=applied.policy.name if applied.policy else "",
        operator_policy=applied.operator_policy.name if applied.operator_policy else "",
        ready=len(queue.ready), unacked=queue.unacked, consumers=len(queue.consumers),
        message_ttl_ms=rules.message_ttl_ms, expires_ms=rules.expires_ms, max_length=rules.max_length,
        max_length_bytes=rules.max_length_bytes, overflow=rules.overflow, is_at_limit=_is_at_limit(queue),
        delivery_limit=rules.delivery_limit, dead_letter_exchange=rules.dead_letter_exchange,
        max_priority=rules.max_priority,
        single_active_consumer=rules.single_active_consumer, cycle=cycle, is_shown_above=is_shown_above)


def _is_at_limit(queue: Queue) -> bool:
    rules = queue.rules
    return (rules.max_length is not None and len(queue.ready) >= rules.max_length) or (
        rules.max_length_bytes is not None and queue.ready.body_bytes >= rules.max_length_bytes)


def death_causes(rules: QueueRules, message: Message) -> list[str]:
    """Return why this message may die in a queue with these rules; a rejection by a consumer comes last."""
    is_limited = rules.max_length is not None or rules.max_length_bytes is not None
    causes = []
    if rules.message_ttl_ms is not None or message.facts.expiration_ms is not None:
        causes.append(EXPIRED)
    if is_limited and rules.overflow != REJECT_PUBLISH:
        causes.append(MAXLEN)
    if rules.delivery_limit is not None:
        causes.append(DELIVERY_LIMIT)
    return [*causes, REJECTED]
