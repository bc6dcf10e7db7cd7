"""The values of commands that are JSON, read from the text of an argument and shown as one; field values as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from amqpd.exit_codes import EXIT_UNAVAILABLE
from amqpd.management.refusal import Refusal


def parsed(text: str) -> Any:
    """Return the value. Raises Refusal for a text that is not JSON."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refusal(f"JSON decoding error. Reason: {error}", EXIT_UNAVAILABLE) from None


def shown(value: Any) -> str:
    """Return a value as rabbitmqctl shows it: JSON without blanks, keys in order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def values_meant(text: str) -> tuple[Any, ...]:
    """Return the values that an operator may mean by a text: the text itself, and the JSON in it."""
    try:
        return text, msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return (text,)


def is_any_of(found: Any, values: tuple[Any, ...]) -> bool:
    """Return whether a value is equal to one of these; a boolean is equal to no number."""
    return any([found == one and isinstance(found, bool) == isinstance(one, bool) for one in values])


def _escaped(value: bytes) -> str:
    return value.decode(errors="backslashreplace")


def plain(
    value: Any, *, text: Callable[[bytes], str] = _escaped, decimal: Callable[[Decimal], float | str] = float
) -> Any:
    """Return a field value as JSON has it, without its type. `text` and `decimal` make what JSON has not."""
    if isinstance(value, Mapping):
        return {name: plain(inner, text=text, decimal=decimal) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner, text=text, decimal=decimal) for inner in value]
    if isinstance(value, bytes):
        return text(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Decimal):
        return decimal(value)
    return float(value) if isinstance(value, float) else value
