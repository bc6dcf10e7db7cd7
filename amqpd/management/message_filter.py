"""Which messages of a queue an operator means: conditions on body, headers, properties, age, deliveries and deaths.

All conditions that are given must hold. Those that need neither properties nor body are checked first.

Always true: a condition costs a bounded amount for each message: a text is looked for in the first 16 MiB of a body; a
body of more than 1 MiB, or of more than 30,000 values, is not read as JSON, so it matches no path. Headers are decoded
once for all conditions. What is longer than a few KiB is read in a thread, which leaves the event loop to clients.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from amqpd.broker.dead_letter import origin_of
from amqpd.broker.queue.queue import Queue
from amqpd.exit_codes import EXIT_DATA
from amqpd.fields import FieldError
from amqpd.management.event_records import plain_value
from amqpd.management.json_path import JsonPath, parse_path
from amqpd.management.json_values import is_any_of, values_meant
from amqpd.management.message_records import LIGHT_PROPERTIES, body_start
from amqpd.management.refusal import Refusal
from amqpd.message import Message
from amqpd.properties import all_properties, read_timestamp

MOST_SEARCHED = 16 << 20    # bytes of a body
MOST_JSON = 1 << 20
# A text has at most one value more than it has of these bytes. A value takes up to 0.36 µs, and nothing else runs then.
MOST_JSON_VALUES, BETWEEN_JSON_VALUES = 30_000, b",[{"
PIECE = 256 << 10           # bytes of a body that are searched at once: a millisecond
LIGHT_BODY = 32 << 10       # bytes that are read in the event loop
TIMES_TEXT = 32             # a byte of properties or of JSON takes as long as so many of text that is searched
MOST_CONDITIONS = 50
LONGEST_TEXT = 10_000

Condition = Callable[[Message], bool]


class FilterValues(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The conditions as a request has them.

    `header` and `property` are NAME=VALUE, or NAME for one that is there. Ages are seconds since the publisher's
    timestamp, which is the only time that a message has: one without a timestamp has no age. `reason` and `origin` are
    those of the last death and the queue of the first one.
    """

    text: str | None = None
    header: tuple[str, ...] = ()
    property: tuple[str, ...] = ()
    json: tuple[str, ...] = ()
    older_than: float | None = None
    younger_than: float | None = None
    min_deliveries: int | None = None
    max_deliveries: int | None = None
    redelivered: bool | None = None
    reason: str | None = None
    origin: str | None = None
    routing_key: str | None = None


class MessageFilter:
    """The conditions on messages of one queue. `now_s` is the wall clock. Raises Refusal for senseless ones."""

    def __init__(self, values: Mapping[str, Any], queue: Queue, now_s: int) -> None:
        try:
            wanted = msgspec.convert(dict(values), FilterValues)
        except msgspec.ValidationError as error:
            raise Refusal(f"filter: {error}", EXIT_DATA) from None
        self._queue = queue
        self._now_s = now_s
        if len(wanted.header) + len(wanted.property) + len(wanted.json) > MOST_CONDITIONS:
            raise Refusal(f"a filter has at most {MOST_CONDITIONS} conditions", EXIT_DATA)
        of_properties = self._of_properties(wanted)
        self._quick, self._slow = self._of_head(wanted), [*of_properties, *_of_body(wanted)]
        self._reads_properties = bool(of_properties)
        self._body_costs = TIMES_TEXT if wanted.json else int(wanted.text is not None)
        self._last: tuple[int, bool] | None = None      # the message that was judged last, and how

    @property
    def is_empty(self) -> bool:
        """Whether it has no condition: every message matches."""
        return not (self._quick or self._slow)

    def matches(self, message: Message) -> bool:
        """Return whether all conditions hold."""
        if self._last is not None and self._last[0] == message.number:
            return self._last[1]
        return _hold(self._quick, message) and _hold(self._slow, message)

    def cost(self, message: Message) -> int:
        """Return about how long it takes to check the conditions, as bytes of text that are searched in this time."""
        head = len(message.properties) * TIMES_TEXT if self._reads_properties else 0
        return head + message.body_size * self._body_costs

    def is_light(self, message: Message) -> bool:
        """Return whether `matches` takes a few milliseconds at most; else `judge` has to be called before."""
        if self._last is not None and self._last[0] == message.number:
            return True
        return not (self._reads_properties and len(message.properties) > LIGHT_PROPERTIES
                    or self._body_costs and message.body_size > LIGHT_BODY)

    async def judge(self, message: Message) -> None:
        """Find out, in a thread, whether a message matches, which `matches` returns then."""
        holds = _hold(self._quick, message) and await asyncio.to_thread(_hold, self._slow, message)
        self._last = message.number, holds

    def _of_head(self, wanted: FilterValues) -> list[Condition]:
        deliveries, conditions = self._queue.redelivery, list[Condition]()
        if (key := wanted.routing_key) is not None:
            conditions.append(lambda message: message.route.routing_key == key)
        if (least := wanted.min_deliveries) is not None:
            conditions.append(lambda message: deliveries.deliveries.get(message.number, 0) >= least)
        if (most := wanted.max_deliveries) is not None:
            conditions.append(lambda message: deliveries.deliveries.get(message.number, 0) <= most)
        if wanted.redelivered is not None:
            conditions.append(lambda message: deliveries.is_redelivered(message) is wanted.redelivered)
        return conditions

    def _of_properties(self, wanted: FilterValues) -> list[Condition]:
        conditions, decoded = list[Condition](), Decoded()
        if (older := wanted.older_than) is not None:
            conditions.append(lambda message: (age := self._age(message)) is not None and age > older)
        if (younger := wanted.younger_than) is not None:
            conditions.append(lambda message: (age := self._age(message)) is not None and age < younger)
        if (reason := wanted.reason) is not None:
            conditions.append(lambda message: (died := origin_of(message, last=True)) is not None
                              and died.reason == reason)
        if (origin := wanted.origin) is not None:
            conditions.append(lambda message: (died := origin_of(message)) is not None and died.queue == origin)
        conditions += [_has_value(given, decoded, of_headers=False) for given in wanted.property]
        conditions += [_has_value(given, decoded, of_headers=True) for given in wanted.header]
        return conditions

    def _age(self, message: Message) -> int | None:
        stamp = read_timestamp(message.properties)
        return None if stamp is None else self._now_s - stamp


def _hold(conditions: list[Condition], message: Message) -> bool:
    return all(condition(message) for condition in conditions)


class Decoded:
    """The properties of one message, and those values of them that were asked for, for all conditions on them."""

    def __init__(self) -> None:
        self._number = -1
        self._properties: Any = {}
        self._plain: dict[tuple[str, bool], Any] = {}

    def value(self, message: Message, name: str, *, of_headers: bool) -> Any:
        """Return a property or header as JSON has it. Raises KeyError."""
        if message.number != self._number:
            self._plain = {}
            try:
                self._properties = all_properties(message.properties)
            except FieldError:
                self._properties = {}
            self._number = message.number
        if (name, of_headers) not in self._plain:
            values = self._properties.get("headers", {}) if of_headers else self._properties
            self._plain[name, of_headers] = plain_value(values[name])
        return self._plain[name, of_headers]


def _has_value(given: str, decoded: Decoded, *, of_headers: bool) -> Condition:
    name, has_value, text = given.partition("=")
    if not name:
        raise Refusal(f"not NAME=VALUE: {given[:80]}", EXIT_DATA)
    expected = values_meant(text)

    def condition(message: Message) -> bool:
        try:
            value = decoded.value(message, name, of_headers=of_headers)
        except KeyError:
            return False
        return not has_value or is_any_of(value, expected)

    return condition


def _of_body(wanted: FilterValues) -> list[Condition]:
    conditions: list[Condition] = []
    if wanted.text is not None:
        searched = wanted.text.encode()
        if not 0 < len(searched) <= LONGEST_TEXT:
            raise Refusal(f"a text to look for has 1 to {LONGEST_TEXT:,} bytes", EXIT_DATA)
        conditions.append(lambda message: _has_text(message, searched))
    if wanted.json:
        paths = [parse_path(text) for text in wanted.json]
        conditions.append(lambda message: _matches_json(message, paths))
    return conditions


def _has_text(message: Message, searched: bytes) -> bool:
    """Search in pieces that overlap: in a thread, others go on only between two searches."""
    body = memoryview(body_start(message, MOST_SEARCHED))
    return any(searched in bytes(body[start : start + PIECE + len(searched)]) for start in range(0, len(body), PIECE))


def _matches_json(message: Message, paths: list[JsonPath]) -> bool:
    if message.body_size > MOST_JSON:
        return False
    body = bytes(message.body)
    if sum(map(body.count, BETWEEN_JSON_VALUES)) > MOST_JSON_VALUES:
        return False
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return all([path.matches(document) for path in paths])
