"""The keys of policies that the form has fields for, in words. All others are entered as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from amqpd.management.page.forms import Form

MOST = 1 << 53


class Key(NamedTuple):
    """A key: its name in a policy, and in words. `choices` are its values if there are few, `is_text` is for a text;
    else it is a whole number.
    """

    key: str
    title: str
    hint: str
    choices: tuple[str, ...] = ()
    is_text: bool = False
    of_operators: bool = True

    def suits(self, is_operator: bool) -> bool:
        """Return whether such a policy may have this key."""
        return self.of_operators or not is_operator

    def takes(self, value: Any) -> bool:
        """Return whether the field can show a value."""
        if self.choices:
            return value in self.choices
        return isinstance(value, str) if self.is_text else isinstance(value, int) and not isinstance(value, bool)


KEYS = (
    Key("max-length", "Most messages", "Ready messages; what happens to more, Overflow says."),
    Key("max-length-bytes", "Most bytes", "Of the bodies of ready messages."),
    Key("overflow", "Overflow", "What happens to messages over a limit.",
        ("drop-head", "reject-publish", "reject-publish-dlx")),
    Key("message-ttl", "Message TTL in ms", "After which a message expires."),
    Key("expires", "Queue expires after ms", "Without consumers, gets and declarations."),
    Key("delivery-limit", "Delivery limit", "Of quorum queues: after so many returns, a message is dead."),
    Key("dead-letter-exchange", "Dead-letter exchange", "Where expired, rejected and dropped messages go.",
        is_text=True, of_operators=False),
    Key("dead-letter-routing-key", "Dead-letter routing key", "Empty: the message's own.", is_text=True,
        of_operators=False),
    Key("alternate-exchange", "Alternate exchange", "Of exchanges: where messages without a route go.", is_text=True,
        of_operators=False),
)


class _ByKey(dict[str, Key]):
    """The keys by name."""

    def written(self, definition: Mapping[str, Any]) -> str:
        """Return the keys that have no field of their own as JSON; an empty text if there are none."""
        return json.dumps(definition, ensure_ascii=False) if definition else ""


BY_KEY = _ByKey((key.key, key) for key in KEYS)


def definition_of(found: Form, *, is_operator: bool) -> dict[str, Any]:
    """Return the definition that a form has: its fields, and the JSON of further keys."""
    more = found.json_object("more")
    return more | dict(_given(found, is_operator=is_operator))


def _given(found: Form, *, is_operator: bool) -> Iterator[tuple[str, Any]]:
    for one in KEYS:
        if not one.suits(is_operator) or not found.values.get(one.key):
            continue
        if one.is_text:
            yield one.key, found.text(one.key)
        elif one.choices:
            yield one.key, found.choice(one.key, one.choices)
        elif (number := found.whole(one.key, least=-MOST)) is not None:
            yield one.key, number
