"""Which messages of a queue an operator means: conditions on body, headers, properties, age, deliveries and deaths.

All conditions that are given must hold. Conditions that need nothing of the body are checked first.

Always true: a condition costs a bounded amount for each message: a text is looked for in the first 16 MiB of a body,
and a body of more than 1 MiB is not read as JSON, so it matches no path.
"""

from __future__ import annotations

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
from amqpd.management.message_records import body_start
from amqpd.management.refusal import Refusal
from amqpd.message import Message
from amqpd.properties import all_properties, read_timestamp

MOST_SEARCHED = 16 << 20    # bytes of a body
MOST_JSON = 1 << 20
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
        self._conditions = [*self._of_head(wanted), *_of_body(wanted)]

    @property
    def is_empty(self) -> bool:
        """Whether it has no condition: every message matches."""
        return not self._conditions

    def matches(self, message: Message) -> bool:
        """Return whether all conditions hold."""
        for condition in self._conditions:
            if not condition(message):
                return False
        return True

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
        if (older := wanted.older_than) is not None:
            conditions.append(lambda message: (age := self._age(message)) is not None and age > older)
        if (younger := wanted.younger_than) is not None:
            conditions.append(lambda message: (age := self._age(message)) is not None and age < younger)
        if (reason := wanted.reason) is not None:
            conditions.append(lambda message: (died := origin_of(message, last=True)) is not None
                              and died.reason == reason)
        if (origin := wanted.origin) is not None:
            conditions.append(lambda message: (died := origin_of(message)) is not None and died.queue == origin)
        conditions += [_has_value(given, of_headers=False) for given in wanted.property]
        conditions += [_has_value(given, of_headers=True) for given in wanted.header]
        return conditions

    def _age(self, message: Message) -> int | None:
        stamp = read_timestamp(message.properties)
        return None if stamp is None else self._now_s - stamp


def _has_value(given: str, *, of_headers: bool) -> Condition:
    name, has_value, text = given.partition("=")
    if not name:
        raise Refusal(f"not NAME=VALUE: {given[:80]}", EXIT_DATA)
    expected = values_meant(text)

    def condition(message: Message) -> bool:
        try:
            values: Any = all_properties(message.properties)
        except FieldError:
            return False
        if of_headers:
            values = values.get("headers", {})
        if name not in values:
            return False
        return not has_value or is_any_of(plain_value(values[name]), expected)

    return condition


def _of_body(wanted: FilterValues) -> list[Condition]:
    conditions: list[Condition] = []
    if wanted.text is not None:
        searched = wanted.text.encode()
        if not 0 < len(searched) <= LONGEST_TEXT:
            raise Refusal(f"a text to look for has 1 to {LONGEST_TEXT:,} bytes", EXIT_DATA)
        conditions.append(lambda message: searched in body_start(message, MOST_SEARCHED))
    if wanted.json:
        paths = [parse_path(text) for text in wanted.json]
        conditions.append(lambda message: _matches_json(message, paths))
    return conditions


def _matches_json(message: Message, paths: list[JsonPath]) -> bool:
    if message.body_size > MOST_JSON:
        return False
    try:
        document = msgspec.json.decode(message.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return all([path.matches(document) for path in paths])
