"""The channels of a connection that have confirms to write or to wait for.

A confirm says that all answers that the connection sent before the publish are on disk too. So if rejected messages
have not been dead-lettered yet, the confirms of their batch and of later ones wait.

Knows the channels whose confirms can be written, which is done once at the end of the turn, and those that wait for a
commit. `session/channel_confirms.py` knows which messages are confirmed.

RabbitMQ docs/confirms.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Protocol

from amqpd.broker.rejects import Rejects

MOST_TOLD_AT_ONCE = 64      # channels, for acks in a turn


class Confirming(Protocol):
    """The confirms of one channel."""

    @property
    def awaits_commit(self) -> bool:
        """Whether it has confirms that wait for a commit."""

    def write_confirms(self) -> None:
        """Write the confirms that are due into the outbox."""

    def on_commit(self, batch: int) -> None:
        """Note that this batch and all before it are on disk."""

    def on_answered(self, first_pending: Callable[[int], int]) -> None:
        """Note that consumers have acked messages; see store/pending_confirms.py."""


class Confirms:
    """`due` are the channels whose confirms can be written, `awaiting` those that wait for a commit.

    `rejects` are the connection's rejects that may not be on disk.
    """

    __slots__ = ("due", "awaiting", "rejects", "_note_output", "_note_commit")

    def __init__(self, note_output: Callable[[], None], note_commit: Callable[[], None]) -> None:
        self.due: dict[Confirming, None] = {}
        self.awaiting: dict[Confirming, None] = {}
        self.rejects = Rejects()
        self._note_output = note_output
        self._note_commit = note_commit

    def write_later(self, channel: Confirming) -> None:
        """Have this channel's confirms written at the end of the turn."""
        if not self.due:
            self._note_output()
        self.due[channel] = None

    def write(self) -> None:
        """Write all confirms that are due."""
        for channel in self.due:
            channel.write_confirms()
        self.due.clear()

    def await_commit(self, channel: Confirming) -> None:
        """Report commits to this channel."""
        if not self.awaiting:
            self._note_commit()
        self.awaiting[channel] = None

    def on_commit(self, batch: int) -> None:
        """Report to the waiting channels that this batch and all before it are on disk."""
        if self.rejects:
            batch = self.rejects.last_sure(batch)
        for channel in list(self.awaiting):
            channel.on_commit(batch)
            if not channel.awaits_commit:
                del self.awaiting[channel]

    def on_answered(self, first_pending: Callable[[int], int]) -> None:
        """Report acks of consumers to a few of the waiting channels, in turn; see store/pending_confirms.py."""
        for channel in list(islice(self.awaiting, MOST_TOLD_AT_ONCE)):
            channel.on_answered(first_pending)
            del self.awaiting[channel]
            if channel.awaits_commit:
                self.awaiting[channel] = None       # as the last one

    def forget(self, channel: Confirming) -> None:
        """Remove a channel that has ended."""
        self.due.pop(channel, None)
        self.awaiting.pop(channel, None)

    def clear(self) -> None:
        """Remove all channels."""
        self.due.clear()
        self.awaiting.clear()
