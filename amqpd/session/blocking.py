"""The effect of an alarm on one client: from its first publish on, its input is not carried out until the alarm clears.

A client that never publishes notices nothing. A blocked client is read a little further, so that its heartbeats arrive.

RabbitMQ docs/connection-blocked, docs/alarms.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pamqp.commands import Connection

from amqpd.session.deferred_input import DeferredInput, Wait
from amqpd.session.signals import SessionSignals
from amqpd.session.state import ConnectionState
from amqpd.wire.commands import Command
from amqpd.wire.methods import encode_method

UNBLOCKED_STEPS = 25            # the cost of unblocking a client; see broker/effort.py
MOST_DEFERRED_BYTES = 16 * 1024  # of input from a blocked client; with more, it is no longer read


class Blocking:
    """The blocked state of one client, and the methods that tell it."""

    __slots__ = ("_state", "_signals", "_deferred")

    def __init__(self, state: ConnectionState, signals: SessionSignals[Any], deferred: DeferredInput) -> None:
        self._state = state
        self._signals = signals
        self._deferred = deferred

    @property
    def is_blocked(self) -> bool:
        """Whether the client published during an alarm."""
        return self._deferred.reason is Wait.ALARM

    @property
    def has_alarm(self) -> bool:
        """Whether nothing may be published now."""
        return bool(self._signals.driver.alarm)

    @property
    def is_input_full(self) -> bool:
        """Whether so much input of a blocked client waits that no more should be read from it."""
        return self.is_blocked and len(self._deferred.waiting) >= MOST_DEFERRED_BYTES

    def block(self, commands: Iterator[Command], first: Command | None = None) -> None:
        """Defer all input of the client, and tell it, if it supports connection.blocked."""
        self._deferred.defer(commands, Wait.ALARM, first)
        state, reason = self._state, self._signals.driver.alarm
        state.log.info("%s: blocked: %s", state.name, reason)
        if state.client_can("connection.blocked"):
            state.outbox.write(encode_method(0, Connection.Blocked(reason)))

    def ask_to_unblock(self) -> None:
        """Let a blocked client continue when it is its turn: all alarms have cleared."""
        if self.is_blocked:
            self._signals.input_deferred()

    def unblock(self) -> None:
        """Tell the client that it is unblocked, if it supports that."""
        if self._state.client_can("connection.blocked"):
            self._state.broker.effort.total += UNBLOCKED_STEPS
            self._state.outbox.write(encode_method(0, Connection.Unblocked()))
