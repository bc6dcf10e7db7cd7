"""The values of commands that are JSON, read from the text of an argument and shown as one."""

from __future__ import annotations

import json
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
