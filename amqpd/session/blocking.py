"""What an alarm does to one client: from its first publish on nothing that it says is carried out until the end.

A client that never publishes notices nothing. One that does is read a little further, so that its heartbeats are heard.

RabbitMQ docs/connection-blocked, docs/alarms.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pamqp.commands import Connection

from amqpd.session.deferred_input import DeferredInput, Wait
from amqpd.session.signals import SessionSignals
from amqpd.session.state import ConnectionState
from amqpd.wire.methods import encode_method
from amqpd.wire.commands import Command

UNBLOCKED_STEPS = 25            # what it takes to tell a client that it goes on; see broker/effort.py
MOST_DEFERRED_BYTES = 16 * 1024  # of a blocked client, from which on it is not read any more


class Blocking:
    """Whether one client is blocked, and what it is told of that."""

    __slots__ = ("_state", "_signals", "_deferred")

    def __init__(self, state: ConnectionState, signals: SessionSignals[Any], deferred: DeferredInput) -> None:
        self._state = state
        self._signals = signals
        self._deferred = deferred

    @property
    def is_blocked(self) -> bool:
        """Return whether the client published while an alarm was on."""
        return self._deferred.reason is Wait.ALARM

    @property
    def has_alarm(self) -> bool:
        """Return whether nothing may be published now."""
        return bool(self._signals.driver.alarm)

    @property
    def is_input_full(self) -> bool:
        """Return whether so much of a blocked client waits that no more should be read from it."""
        return self.is_blocked and len(self._deferred.octets) >= MOST_DEFERRED_BYTES

    def block(self, commands: Iterator[Command], first: Command | None = None) -> None:
        """Defer everything that the client says, and tell it, if it understands that."""
        self._deferred.defer(commands, Wait.ALARM, first)
        state, reason = self._state, self._signals.driver.alarm
        state.log.info("%s: blocked: %s", state.name, reason)
        if state.client_can("connection.blocked"):
            state.outbox.write(encode_method(0, Connection.Blocked(reason)))

    def ask_to_unblock(self) -> None:
        """Have a blocked client go on when it is its turn: all alarms have ended."""
        if self.is_blocked:
            self._signals.input_deferred()

    def unblock(self) -> None:
        """Tell the client that it goes on, if it understands that."""
        if self._state.client_can("connection.blocked"):
            self._state.broker.effort.total += UNBLOCKED_STEPS
            self._state.outbox.write(encode_method(0, Connection.Unblocked()))
