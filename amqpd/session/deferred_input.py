"""The input of a client that is not carried out yet, in order, and the reason why it waits.

Holds commands that have been read, and the bytes that came after them. They wait for the next turn of the event loop if
the client has had its share of this one, for the disk if a message must be read first, for the end of an alarm, or
until the client has read its answers. The server stops reading from the client meanwhile, so about one read waits.

Always true between calls: there are commands or bytes only while there is a reason to wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

from amqpd.wire.commands import Command


class Wait(Enum):
    """The reason why a client's commands wait."""

    TURN = auto()       # other clients have their turn first
    DISK = auto()       # a message must be read, or a job finished, before the next command can be answered
    ALARM = auto()      # nothing may be published during an alarm
    OUTPUT = auto()     # the client has not read its answers


class Unfinished(Exception):
    """A command has done a part of its work: it must be carried out again in the next turn, and continues."""


class DeferredInput:
    """The deferred input of one client; `reason` is None while nothing waits."""

    __slots__ = ("reason", "waiting", "_commands", "_first")

    def __init__(self) -> None:
        self.reason: Wait | None = None
        self.waiting = bytearray()
        self._commands: Iterator[Command] = iter(())
        self._first: Command | None = None

    def defer(self, commands: Iterator[Command], reason: Wait, first: Command | None = None) -> None:
        """Keep commands that have not been carried out; later bytes stay behind them.

        `first` precedes the others. It is kept separately, since a command can be cut into any number of parts.
        """
        self._commands, self._first = commands, first
        self.reason = reason

    def take_commands(self) -> tuple[Iterator[Command], Command | None]:
        """Return the commands, and the first one, to be carried out now; the bytes behind them stay."""
        commands, first = self._commands, self._first
        self._commands, self._first = iter(()), None
        self.reason = None
        return commands, first

    def take_bytes(self) -> bytes:
        """Return the bytes that came after the commands."""
        waiting = bytes(self.waiting)
        self.waiting.clear()
        return waiting

    def clear(self) -> None:
        """Drop everything: the client is gone."""
        self.take_commands()
        self.waiting.clear()
