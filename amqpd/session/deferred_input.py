"""What a client has said that is not carried out yet, in order, and why it waits.

Holds commands that have been read, and the bytes that came after them. They wait for the next turn of the event loop
when the client has had its share of this one, for the disk when a message must be read first, for the end of an alarm,
or until the client has read what it was answered. The server stops reading from the client meanwhile, so what waits is
about one read.

Always true between calls: there are commands or bytes only while there is a reason to wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

from amqpd.wire.commands import Command


class Wait(Enum):
    """Why a client's commands wait."""

    TURN = auto()       # the others have their turn first
    DISK = auto()       # something must be read, or worked off, before the next command can be answered
    ALARM = auto()      # nothing may be published while an alarm is on
    OUTPUT = auto()     # the client has not read the answers to what it said before


class Unfinished(Exception):
    """A command has done a piece of its work: it is to be carried out again, in the next turn, and goes on."""


class DeferredInput:
    """The deferred input of one client; `reason` is None while nothing waits."""

    __slots__ = ("reason", "octets", "_commands", "_first")

    def __init__(self) -> None:
        self.reason: Wait | None = None
        self.octets = bytearray()
        self._commands: Iterator[Command] = iter(())
        self._first: Command | None = None

    def defer(self, commands: Iterator[Command], reason: Wait, first: Command | None = None) -> None:
        """Keep the commands that have not been carried out; bytes that came after them stay behind them.

        `first` comes before the others. It is kept beside them, since a command can be cut into any number of parts.
        """
        self._commands, self._first = commands, first
        self.reason = reason

    def take_commands(self) -> tuple[Iterator[Command], Command | None]:
        """Give back the commands, and the one that comes first, to be carried out now; the bytes behind them stay."""
        commands, first = self._commands, self._first
        self._commands, self._first = iter(()), None
        self.reason = None
        return commands, first

    def take_octets(self) -> bytes:
        """Give back the bytes that came after the commands."""
        octets = bytes(self.octets)
        self.octets.clear()
        return octets

    def clear(self) -> None:
        """Forget everything: the client is gone."""
        self.take_commands()
        self.octets.clear()
