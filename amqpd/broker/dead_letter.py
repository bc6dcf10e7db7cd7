"""The copy of a dead message that is published again, and the headers that record its deaths.

Owns the shape of `x-death` and the related headers, and the rule against cycles. `dead_letter_router.py` decides where
a copy goes, and moves it.

Always true: a copy can be made of every accepted message, with any headers from a client, as often as the message
dies. Entries of `x-death` that do not change are copied as bytes, and never decoded.

RabbitMQ docs/dlx; rabbit_dead_letter.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Hashable
from typing import NamedTuple

import msgspec

from amqpd import fields
from amqpd.message import Message, MessageProperties, Route, named_like
from amqpd.properties import original_expiration, read_own_properties, with_headers, without_expiration, without_headers

REJECTED, EXPIRED, MAXLEN, DELIVERY_LIMIT = "rejected", "expired", "maxlen", "delivery_limit"
HIGHEST_COUNT = (1 << 63) - 1       # the highest count of an entry; RabbitMQ's becomes negative
REMEMBERED = 100                    # different properties of copies that are cached

_Field = tuple[str, bytes]      # type and bytes of a value
_OF_DEATH = frozenset((b"queue", b"reason", b"count"))      # the fields of an entry of `x-death` that are read
_OF_ORIGIN = frozenset((b"x-death", b"x-first-death-queue"))
_OF_ENTRY = frozenset((b"queue", b"exchange", b"routing-keys", b"reason"))
_REJECTED = "longstr", REJECTED.encode()
_COUNT = b"\x05countl"
_pack_count = struct.Struct(">q").pack
FEW = 16        # queues that are searched for in the bytes of all deaths; for more, the entries are read


class DeadLetterRoute(msgspec.Struct, frozen=True):
    """The queue and the reason of deaths, and the destination of the copies.

    With `routing_key` None they keep their own keys. `is_kept` means that the queue keeps the message until it is
    moved.
    """

    queue: str
    reason: str
    exchange: str
    routing_key: str | None
    is_kept: bool = False


def routing_keys(message: Message, dead_route: DeadLetterRoute) -> list[str]:
    """Return the keys that a dead message is routed by: the one that the queue names, or its own with CC."""
    if dead_route.routing_key is not None:
        return [dead_route.routing_key]
    return own_keys(message)


def own_keys(message: Message) -> list[str]:
    """Return the keys that a message was published with: its routing key and CC. BCC is not kept in a queue."""
    return list(dict.fromkeys((message.route.routing_key, *message.facts.extra_keys)))


class Origin(NamedTuple):
    """Where a dead-lettered message died, and the exchange and routing key with which it had come there."""

    queue: str
    exchange: str
    routing_key: str
    reason: str


def origin_of(message: Message, *, last: bool = False) -> Origin | None:
    """Return where a message died first, or `last`, as its headers tell; None for a message that has not died."""
    headers = message.facts.headers
    if b"x-death" not in headers:
        return None
    try:
        found = fields.find_encoded(headers, _OF_ORIGIN)
        kind, array = found.get(b"x-death", ("void", b""))
        deaths = [entry for _, entry in fields.tables_in(array, _OF_ENTRY)] if kind == "array" else []
    except fields.FieldError:
        return None
    if not deaths:
        return None
    died = deaths[0] if last else deaths[-1]
    first = _string(found.get(b"x-first-death-queue"))
    if not last and first:
        died = next((death for death in reversed(deaths) if _string(death.get(b"queue")) == first), died)
    keys = _keys(died.get(b"routing-keys"))
    return Origin(
        _string(died.get(b"queue")), _string(died.get(b"exchange")), keys[0] if keys else message.route.routing_key,
        _string(died.get(b"reason")))


def _string(field: _Field | None) -> str:
    return field[1].decode(errors="replace") if field is not None and field[0] == "longstr" else ""


def _keys(field: _Field | None) -> list[str]:
    values = fields.read_value(*field) if field is not None and field[0] == "array" else []
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


class DeadCopies:
    """Makes the copies of messages that died of one cause at one time; equal properties are rewritten once.

    `time_s` is the wall clock.
    """

    def __init__(self, dead_route: DeadLetterRoute, time_s: int) -> None:
        self._dead_route = dead_route
        self._time_s = time_s
        self._known: dict[tuple[Route, bytes], tuple[Route, bytes, MessageProperties]] = {}

    def copy(self, message: Message, number: int) -> Message:
        """Return the message as it is published to the dead-letter exchange, under this number.

        Its headers record this death, its expiration is removed, and so is CC if the queue names a key. All other bytes
        are unchanged. Never raises.
        """
        key = message.route, message.properties
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            properties, is_merged = dead_properties(message, self._dead_route, self._time_s)
            facts = msgspec.structs.replace(read_own_properties(properties), deaths_are_merged=is_merged)
            known = self._known[key] = self._route(message), properties, facts
        route, properties, facts = known
        return message.copy_as(number, route, facts, message.content_with(properties))

    def _route(self, message: Message) -> Route:
        return named_like(message.route, self._dead_route.exchange, routing_keys(message, self._dead_route)[0])


def dead_properties(message: Message, dead_route: DeadLetterRoute, time_s: int) -> tuple[bytes, bool]:
    """Return the properties of the copy of a message that died, and whether its deaths are merged."""
    properties = message.properties
    x_death = _x_death(message)
    deaths, is_merged = _with_death(x_death, message, dead_route, time_s)
    headers: dict[str, fields.Value] = {"x-death": deaths}
    died_in = {"exchange": message.route.exchange, "queue": dead_route.queue, "reason": dead_route.reason}
    if x_death is None:
        headers |= {f"x-first-death-{name}": value for name, value in died_in.items()}
    headers |= {f"x-last-death-{name}": value for name, value in died_in.items()}
    if dead_route.routing_key is not None:
        properties = without_headers(properties, ("CC",))
    return with_headers(without_expiration(properties), headers), is_merged


def _x_death(message: Message) -> _Field | None:
    """Return the type and the encoded value of the header `x-death`, or None without it."""
    headers = message.facts.headers
    return fields.find_encoded(headers, (b"x-death",)).get(b"x-death") if headers else None


def _with_death(
    x_death: _Field | None, message: Message, dead_route: DeadLetterRoute, time_s: int
) -> tuple[fields.Encoded, bool]:
    """Return the deaths of a message, this one first, and whether they are merged.

    There is one entry with a count for each queue and reason. An `x-death` that is not an array, and elements that are
    not tables, are dropped.
    """
    array = x_death[1] if x_death is not None and x_death[0] == "array" else b""
    queue = dead_route.queue.encode()
    if message.facts.deaths_are_merged and not any([_entry_of_queue(tag, queue) in array for tag in b"Sx"]):
        # All entries are of other queues: they need not be decoded, which takes long if there are thousands.
        first = fields.array_of_tables([_new_death(message, dead_route, time_s)])
        return fields.Encoded(first.tag, _sized(first[4:] + array)), True
    deaths, is_merged = _deaths(array)
    again = deaths.pop((queue, dead_route.reason.encode()), None)
    if again is None:
        death = _new_death(message, dead_route, time_s)
    else:
        death = _with_count(again, (_count_of(again) or 0) + 1)
    return fields.array_of_tables((death, *deaths.values())), is_merged


def _entry_of_queue(tag: int, queue: bytes) -> bytes:
    """Return the bytes of a field `queue` with this queue, as a string of this type."""
    return b"\x05queue" + bytes((tag,)) + _sized(queue)


def _deaths(array: bytes) -> tuple[dict[Hashable, bytes], bool]:
    """Return the first entry of each queue and reason, by these, and whether every entry has a count.

    If there are several entries, one without a count gets the number of entries of its queue and reason: old brokers
    wrote an entry for each death, without a count.
    """
    first: dict[Hashable, bytes] = {}
    times: dict[Hashable, int] = {}
    uncounted: list[Hashable] = []
    for table, found in fields.tables_in(array, _OF_DEATH):
        key: Hashable = _comparable(found.get(b"queue")), _comparable(found.get(b"reason"))
        if key in times:
            times[key] += 1
            continue
        times[key] = 1
        first[key] = table
        if b"count" not in found or found[b"count"][0] not in fields.INTEGERS:
            uncounted.append(key)
    if sum(times.values()) == 1 and uncounted:
        return first, False
    for key in uncounted:
        first[key] = _with_count(first[key], times[key])
    return first, True


def _comparable(field: _Field | None) -> Hashable:
    """Return a key that is equal for equal values; the type of a string does not matter."""
    return field[1] if field is not None and field[0] in ("longstr", "binary") else field


def _count_of(death: bytes) -> int | None:
    """Return the count of an entry, or None if it has no number."""
    found = fields.find_encoded(death, (b"count",)).get(b"count")
    count = fields.read_value(*found) if found is not None and found[0] in fields.INTEGERS else None
    return count if isinstance(count, int) else None


def _with_count(death: bytes, count: int) -> bytes:
    if b"\x05count" not in death:       # there may be thousands without a count
        return death + _COUNT + _pack_count(min(count, HIGHEST_COUNT))
    return fields.with_entries(death, {"count": fields.Long(min(count, HIGHEST_COUNT))})


def _new_death(message: Message, dead_route: DeadLetterRoute, time_s: int) -> bytes:
    death: dict[str, fields.Value] = {
        "count": fields.Long(1),
        "reason": dead_route.reason,
        "queue": dead_route.queue,
        "time": fields.Timestamp(max(0, time_s)),
        "exchange": message.route.exchange,
        "routing-keys": [*own_keys(message)],
    }
    expiration = original_expiration(message.properties)
    if expiration is not None:
        death["original-expiration"] = expiration
    return fields.encode_table(death)


def cycling_queues(message: Message, among: Collection[str]) -> set[str]:
    """Return the queues of `among` to which the message would return in a cycle in which no consumer rejected it.

    RabbitMQ docs/dlx (routing dead-lettered messages).
    """
    queues: set[str] = set()
    x_death = _x_death(message)
    if x_death is None or x_death[0] != "array":
        return queues
    array = x_death[1]
    if len(among) <= FEW and not any([
            "\\" in name or _entry_of_queue(ord("S"), name.encode()) in array for name in among]):
        return queues
    for _, found in fields.tables_in(array, _OF_DEATH):
        if found.get(b"reason") == _REJECTED:
            break
        kind, queue = found.get(b"queue", ("void", b""))
        if kind == "longstr":
            queues.add(queue.decode(errors="backslashreplace"))
    return queues.intersection(among)


def _sized(table: bytes) -> bytes:
    return len(table).to_bytes(4, "big") + table
