"""What becomes of a message that died: the copy that is published again, and what it says of its deaths.

Owns the shape of `x-death` and its companions, and the rule against cycles. Where a copy goes, and that the
move is one, is `broker/vhost.py`'s matter.

RabbitMQ docs/dlx; rabbit_dead_letter.
"""

from __future__ import annotations

from typing import Any

import msgspec

from amqpd import fields
from amqpd.message import Message, Route, pack_content, pack_short_string
from amqpd.properties import original_expiration, read_facts, with_headers, without_expiration, without_headers

REJECTED, EXPIRED, MAXLEN, DELIVERY_LIMIT = "rejected", "expired", "maxlen", "delivery_limit"


class Grave(msgspec.Struct, frozen=True):
    """Where and why messages died, and where their copies go.

    `routing_key` None keeps their own keys; `is_kept` says that the queue keeps the dead until they are buried.
    """

    queue: str
    reason: str
    exchange: str
    routing_key: str | None
    is_kept: bool = False


def routing_keys(message: Message, grave: Grave) -> list[str]:
    """The keys a dead message is routed by: the one the queue names, or its own with CC."""
    if grave.routing_key is not None:
        return [grave.routing_key]
    return own_keys(message)


def own_keys(message: Message) -> list[str]:
    """The keys a message was published with: its routing key and CC. BCC is gone by the time it is in a queue."""
    return list(dict.fromkeys((message.route.routing_key, *message.facts.extra_keys)))


def dead_copy(message: Message, grave: Grave, *, number: int, time_s: int) -> Message:
    """The message as it is published to the dead-letter exchange; `time_s` is the wall clock's.

    Its headers tell of this death, its expiration is gone, and where the queue names a key, so is CC. Every
    other octet is as it was.
    """
    properties = message.properties
    deaths = with_death(message, grave, time_s)
    headers: dict[str, Any] = {"x-death": deaths}
    died_in = {"queue": grave.queue, "reason": grave.reason, "exchange": message.route.exchange}
    is_first = not isinstance(_x_death(message), list)
    for name, value in died_in.items():
        if is_first:
            headers[f"x-first-death-{name}"] = value
        headers[f"x-last-death-{name}"] = value
    if grave.routing_key is not None:
        properties = without_headers(properties, ("CC",))
    properties = with_headers(without_expiration(properties), headers)
    key = routing_keys(message, grave)[0]
    old = message.route
    names = pack_short_string(grave.exchange) + pack_short_string(key)
    route = Route(grave.exchange, key, names, old.channel, old.frame_max)
    content = pack_content(old.channel, old.frame_max, properties, message.body)
    return Message(number, route, read_facts(properties), content, message.body_size)


def with_death(message: Message, grave: Grave, time_s: int) -> list[Any]:
    """The deaths of a message, this one first. Of one queue and reason there is one entry, with a count."""
    deaths = deaths_of(message)
    for place, death in enumerate(deaths):
        if death.get("queue") == grave.queue and death.get("reason") == grave.reason:
            again = dict(death, count=fields.Long(death["count"] + 1))
            return [again, *deaths[:place], *deaths[place + 1 :]]
    death = {
        "count": fields.Long(1),
        "reason": grave.reason,
        "queue": grave.queue,
        "time": fields.Timestamp(time_s),
        "exchange": message.route.exchange,
        "routing-keys": own_keys(message),
    }
    expiration = original_expiration(message.properties)
    if expiration is not None:
        death["original-expiration"] = expiration
    return [death, *deaths]


def deaths_of(message: Message) -> list[dict[str, Any]]:
    """The deaths that `x-death` tells of, newest first; what a client put there and makes no sense is left out."""
    deaths = _x_death(message)
    if not isinstance(deaths, list):
        return []
    return [
        death for death in deaths
        if isinstance(death, dict) and isinstance(death.get("queue"), str)
        and isinstance(death.get("reason"), str) and isinstance(death.get("count"), int)
    ]


def _x_death(message: Message) -> Any:
    return fields.find(message.facts.headers, "x-death") if message.facts.headers else None


def is_cycle(deaths: list[dict[str, Any]], queue: str) -> bool:
    """Whether a message that died like this comes back to a queue all by itself, without anybody rejecting it.

    RabbitMQ docs/dlx (routing dead-lettered messages).
    """
    for place, death in enumerate(deaths):
        if death.get("queue") == queue:
            return all(earlier.get("reason") != REJECTED for earlier in deaths[: place + 1])
    return False
