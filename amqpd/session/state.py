"""The state that the parts of a session share: identity, negotiated values, the outbox, and whether it is ending.

Every part may read it. Each value is changed by one part alone: negotiated values by the handshake, the end by
`session/closing.py`, the transport's values by the server. To its channels this is the `owner`, and to the broker
the owner of exclusive queues.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from amqpd.broker.access import User
from amqpd.broker.broker import Broker
from amqpd.broker.departure import Departure
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.queue import Queue
from amqpd.broker.remembered import Memory
from amqpd.broker.vhost import Vhost
from amqpd.broker.worklist import Later, nothing
from amqpd.errors import ChannelException
from amqpd.session.blocked_consumers import BlockedConsumers
from amqpd.session.confirms import Confirms
from amqpd.session.consumer_timeouts import Looks
from amqpd.session.outbox import Outbox
from amqpd.session.settings import SessionSettings
from amqpd.session.signals import SessionSignals
from amqpd.tls_facts import PeerCertificate, TlsFacts

log = logging.getLogger("amqpd.connection")

FRAME_MAX_BEFORE_TUNING = 4_096
UNREAD_REPLIES = 8          # times `outgoing_limit` of unread output, from which on direct replies are dropped


class ConnectionState:
    """The state of one connection. `name` is `peer:port -> host:port`, `number` its own."""

    def __init__(
        self, broker: Broker, settings: SessionSettings, signals: SessionSignals[Any], name: str, number: int
    ) -> None:
        self.broker = broker
        self.settings = settings
        self.name = name
        self.number = number
        self.log = logging.LoggerAdapter(log, {"connection": number})
        self.outbox = Outbox(signals.output_ready)
        self.confirms = Confirms(self.outbox.note, signals.commit_awaited)
        self.awaiting_room = BlockedConsumers()
        self.looks = Looks()
        self.memory = Memory(broker.memory)
        self.published_runs = 0
        # Negotiated
        self.mechanism = ""
        self.client_properties: dict[str, Any] = {}
        self.user: User | None = None
        self.vhost: Vhost | None = None
        self.frame_max = FRAME_MAX_BEFORE_TUNING
        self.channel_max = settings.channel_max
        # The transport
        self.tls: TlsFacts | None = None                        # None for plain TCP
        self.peer_certificate: PeerCertificate | None = None    # the client's, if it sent one
        self.is_local = False                   # whether the client is on this machine
        self.is_writable = True                 # False while its buffer is full
        self.unsent: Callable[[], int] = int    # bytes it could not send yet
        # The end
        self.has_ended = False
        self.has_failed = False                 # by an internal error
        self.end_is_told = False                # in the log
        self.socket_error = ""                  # what the system said when the socket was lost
        self.forced = ""                        # why it is closed by force before any more output
        self.departures: list[Departure] = []   # of this connection, or its channels, that may not be done
        self.when_failed: Callable[[], None] = nothing
        self._signals = signals

    # Negotiated

    @property
    def user_name(self) -> str:
        """The user that logged in."""
        return self.user.name if self.user else ""

    @property
    def vhost_name(self) -> str:
        """The vhost that was opened."""
        return self.vhost.name if self.vhost else ""

    def count_connection(self, change: int) -> None:
        """Count this connection for its vhost and its user (1), or no longer (-1)."""
        assert self.vhost is not None and self.user is not None
        self.vhost.connection_count += change
        if change > 0:
            self.broker.churn.connection_created += 1
        else:
            self.broker.churn.connection_closed += 1
        self.user.connection_count += change

    def tell(self, event: str) -> None:
        """Tell listeners of an event of this open connection; see `broker/events.py`."""
        if self.broker.events.listeners and (connection := self.broker.connections.get(self.number)) is not None:
            self.broker.events.tell(
                event, connection.statistics(), by=self.user_name, connection_number=self.number)

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can read what the client sends."""
        return self.is_local or self.tls is not None

    def client_can(self, capability: str) -> bool:
        """Return whether the client declared this capability; any value but a true boolean means no."""
        capabilities = self.client_properties.get("capabilities")
        return isinstance(capabilities, dict) and capabilities.get(capability) is True

    # Room

    @property
    def room(self) -> int:
        """Bytes that may be delivered before the connection counts as full; 0 while the transport is full."""
        if not self.is_writable or self.has_failed or self.is_ending:
            return 0
        return self.settings.outgoing_limit - self.outbox.size

    @property
    def takes_replies(self) -> bool:
        """Whether direct replies can still be sent to this client, which does not limit their number."""
        return self.outbox.size + self.unsent() <= UNREAD_REPLIES * self.settings.outgoing_limit

    # Commits

    def hold_output_until(self, batch: int) -> None:
        """Hold all output from now on until this batch is on disk; 0 holds nothing."""
        if batch > self.outbox.awaited_batch:
            self.outbox.hold_until(batch)
            self._signals.commit_awaited()

    # The end

    @property
    def is_ending(self) -> bool:
        """Whether nothing is delivered any more, even if some consumers have not been stopped."""
        return self.has_ended or bool(self.forced)

    def departs(self, departure: Departure) -> None:
        """Let the answer to a close wait for this departure, which has begun."""
        self.departures = [one for one in (*self.departures, departure) if one.has_work]

    def fail_soon(self) -> None:
        """Close with 541 in the next turn; until then nothing more is delivered."""
        if not self.has_failed:
            self.has_failed = True
            Later(self.broker.worklist, self.when_failed).ask()

    def end(self) -> None:
        """Stop calling the server: the socket is lost."""
        self.unsent = int
        self.when_failed = nothing

    # The log

    @property
    def title(self) -> str:
        """Return `<0.7.0> (peer:port -> host:port - client's name, vhost: '/', user: 'guest')`, as RabbitMQ's log does.

        What is not known yet is left out.
        """
        vhost = f", vhost: '{self.vhost.name}', user: '{self.user_name}'" if self.vhost else ""
        return f"<0.{self.number}.0> ({self.full_name}{vhost})"

    @property
    def full_name(self) -> str:
        """Return the name, with the one that the client gave the connection."""
        given = self.client_properties.get("connection_name")
        return f"{self.name} - {given}" if given and isinstance(given, str) else self.name

    def log_end(self, reason: str, level: int = logging.WARNING) -> None:
        """Log why the connection ends: one line for each connection, with the first reason."""
        if not self.end_is_told:
            self.end_is_told = True
            self.log.log(level, "closing AMQP connection %s: %s", self.title, reason)

    def log_login_refused(self, user: str, reason: str) -> None:
        """Log why a login was refused, which ends the connection. The form is that of RabbitMQ's log."""
        self.end_is_told = True
        self.log.warning("Error on AMQP connection <0.%d.0> (%s, state: starting): %s login refused: user '%s' - %s",
                         self.number, self.full_name, self.mechanism, user, reason)

    def log_channel(self, number: int, text: str) -> None:
        """Log a text about a channel."""
        self.log.warning("%s: channel %d: %s", self.name, number, text)

    def log_unacked_limit(self, number: int, consumer: Consumer[Queue]) -> None:
        """Log why a consumer gets nothing more."""
        self.log.warning(
            "%s: channel %d: consumer '%s' of queue '%s' waits: it has %d unanswered deliveries, as many as "
            "limits.unacked_per_consumer allows; let it acknowledge, or set a prefetch count",
            self.name, number, consumer.tag, consumer.queue.name, consumer.in_flight)

    def log_channel_error(self, number: int, error: ChannelException) -> None:
        """Log why a channel was closed."""
        self.log.warning("Channel error on connection %s, channel %d: %s", self.title, number, error)
