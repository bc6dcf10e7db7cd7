"""The events of the broker as they happen: connections, declarations, users, policies, alarms, for those who listen.

Names are those of RabbitMQ's event exchange, such as "queue.created". An event carries the definition or the statistics
that it is about; `management/event_records.py` turns it into a record with RabbitMQ's names.

Nothing is made, and nothing is kept, without a listener. A listener's feed is bounded: events for which it has no room
are dropped and counted, so that a slow reader never holds up the broker.

RabbitMQ docs/event-exchange.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from amqpd.broker.actor import current_actor
from amqpd.broker.clock import Clock
from amqpd.broker.feed import Feed


class Event(msgspec.Struct, frozen=True):
    """One event. `by` is the user who caused it, `at_ms` is since 1970.

    `subject` is a definition or statistics, and `facts` has what these do not have.
    """

    name: str
    at_ms: int
    by: str
    subject: Any
    facts: dict[str, Any]


class Events:
    """The listeners of one broker: feeds, each with the names that it wants. Without any, `tell` does nothing."""

    __slots__ = ("listeners", "_clock")

    def __init__(self, clock: Clock) -> None:
        self.listeners: dict[Feed[Event], Callable[[str], bool]] = {}
        self._clock = clock

    def listen(self, feed: Feed[Event], wants: Callable[[str], bool] = lambda name: True) -> None:
        """Put into this feed from now on every event whose name it wants."""
        self.listeners[feed] = wants

    def leave(self, feed: Feed[Event]) -> None:
        """Put nothing more into this feed."""
        self.listeners.pop(feed, None)

    def tell(self, name: str, subject: Any, *, by: str = "", **facts: Any) -> None:
        """Tell all listeners of an event; without `by`, whoever acts now has caused it."""
        if self.listeners:
            event = Event(name, self._clock.wall_ms, by or current_actor().user_of_events, subject, facts)
            for feed, wants in self.listeners.items():
                if wants(name) and feed.has_room():
                    feed.put(event)
