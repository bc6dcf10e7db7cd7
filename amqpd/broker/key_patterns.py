"""Match single names or routing keys as a topic exchange does, without an exchange.

Spec: §3.1.3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from amqpd.broker.definitions import BindingDefinition
from amqpd.broker.exchange_types.topic import TopicExchange


def key_matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return whether a key matches one of these patterns: `*` is one word and `#` any number of them."""
    known: TopicExchange[str] = TopicExchange()
    for pattern in dict.fromkeys(patterns):
        known.bind(BindingDefinition("", "", "queue", "", pattern), pattern)
    return lambda key: bool(known.route(key, {}))
