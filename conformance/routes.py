"""Bind queues to exchanges, and find out which of them a publish reaches."""
from __future__ import annotations

from typing import Any

from conformance.channel import Channel
from conformance.fields import Properties


class Routes:
    """Queues of one test. They are exclusive, so they go with the channel's connection."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._queues: list[str] = []

    def queue(self, exchange: str, *keys: str, arguments: Any = ()) -> str:
        """A new queue, bound with each of the keys; returns its name."""
        name, _, _ = self._channel.declare_queue(exclusive=True)
        for key in keys:
            self._channel.bind_queue(name, exchange, key, arguments)
        self._queues.append(name)
        return name

    def reached(self, exchange: str, key: str = "", headers: Any = None) -> set[str]:
        """The queues that a publish reaches, each with one copy. The broker must return it just when there are none."""
        self._channel.publish(exchange, key, mandatory=True, properties=Properties(headers=headers))
        copies = {queue: self._channel.purge(queue) for queue in self._queues}
        assert set(copies.values()) <= {0, 1}, f"a queue got the message more than once: {copies}"
        reached = {queue for queue, count in copies.items() if count}
        returned = self._channel.sync()
        assert len(returned) == (not reached), f"{reached} reached, but returned: {returned}"
        return reached
