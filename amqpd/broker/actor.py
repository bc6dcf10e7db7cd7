"""Who acts: the user or operator behind what the broker is doing now, for events and for the audit log.

Whoever calls the broker for somebody says so with `acting`. The value belongs to the task of the event loop, so it
holds through the awaits of a command, and no other client sees it. What the broker does by itself, such as deleting a
queue that has expired, is done by `BROKER`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec


class Actor(msgspec.Struct, frozen=True):
    """A user or an operator. `address` is where from; `door` is "amqp", "control", "http" or "config"."""

    user: str
    address: str = ""
    door: str = ""

    @property
    def user_of_events(self) -> str:
        """The user as RabbitMQ's events name it: those of its command line have no user."""
        return "rmq-cli" if self.door == "control" else self.user


BROKER = Actor("rmq-internal")      # RabbitMQ's name for itself
_current: ContextVar[Actor] = ContextVar("actor", default=BROKER)


def current_actor() -> Actor:
    """Return who acts now."""
    return _current.get()


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """Let this user or operator act inside of `with`."""
    token = _current.set(actor)
    try:
        yield
    finally:
        _current.reset(token)
