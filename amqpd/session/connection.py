"""A client's connection, sans I/O: bytes and the time come in, bytes to send come out.

`Session` is made of parts, each with state of its own; it is what the server and the broker see of them. The server has
sockets, clocks and passwords: it passes bytes in, calls `tick`, and answers `login`.

    receiver.py      bytes in, commands carried out, deferred input
    phases.py        the table of phases, from the protocol header to the end
    handshake.py     answers on channel 0; sasl.py reads the login
    channel_table.py the channels; channel.py what each of them does
    closing.py       every way in which it ends
    confirms.py, heartbeats.py, blocking.py, statistics.py   what their names say
    state.py         what all of these share

None of them refers to the session, so that it is freed with them once `lost` has been called.

Spec: §2.2.4, §4.2, §4.8; connection class; RabbitMQ docs/heartbeats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from amqpd.broker.access import User
from amqpd.broker.broker import Broker, OldestUnacked
from amqpd.broker.counts import ChannelCounts
from amqpd.broker.queue.queue import Queue
from amqpd.broker.statistics import ChannelStatistics, ConnectionStatistics, UnackedDelivery
from amqpd.broker.step_job import Act
from amqpd.message import Message
from amqpd.session.blocking import Blocking
from amqpd.session.channel_table import ChannelTable
from amqpd.session.closing import Closing
from amqpd.session.deferred_input import DeferredInput
from amqpd.session.handshake import Handshake
from amqpd.session.heartbeats import Heartbeats
from amqpd.session.phases import Phase, Phases
from amqpd.session.receiver import Receiver
from amqpd.session.sasl_steps import Login
from amqpd.session.settings import SessionSettings
from amqpd.session.signals import SessionSignals, Signals
from amqpd.session.state import ConnectionState
from amqpd.session.statistics import Statistics, Traffic
from amqpd.wire.contents import Intake
from amqpd.wire.reader import Reader
from amqpd.wire.writer import HEARTBEAT_FRAME


class Session:
    """The session of one client. `name` is `peer:port -> host:port`; times are in ms of a monotonic clock."""

    def __init__(
        self, broker: Broker, settings: SessionSettings, signals: Signals[Session], name: str, now_ms: int,
        number: int = 1, intake: Intake | None = None,
    ) -> None:
        self._signals = SessionSignals(signals, self)
        self.broker = broker
        self.name = name
        self.number = number
        self.is_read = True             # False while the server does not read from this client
        self.state = state = ConnectionState(broker, settings, self._signals, name, number)
        self.outbox = state.outbox
        self.heartbeats = Heartbeats(now_ms)
        self.traffic = Traffic()
        self._deferred = DeferredInput()
        self._channels = ChannelTable(state)
        self.channels = self._channels.by_number
        self._reader = Reader(
            state.frame_max, settings.max_body_size, self.channels, self._channels.is_wanted, intake,
            settings.incomplete_limit)
        self.phases = Phases(broker.clock, now_ms + settings.handshake_timeout_ms)
        self.handshake = Handshake(state, self.phases, self._signals, self.heartbeats, self._reader)
        self.blocking = Blocking(state, self._signals, self._deferred)
        self.closing = Closing(state, self.phases, self.handshake, self.channels, self._deferred, self._reader)
        self.receiver = Receiver(
            state, self._signals, self._reader, self._deferred, self.phases, self.handshake, self._channels,
            self.blocking, self.closing, self.heartbeats, self.traffic)
        self._statistics = Statistics(
            state, self.phases, self.heartbeats, self._channels, self.blocking, self.traffic, now_ms)
        state.when_failed = self.closing.close_failed
        self.closing.go_on = self.receiver.go_on
        # Not methods that call these: there is one call for each read.
        self.receive = self.receiver.receive
        self.receive_direct = self.receiver.receive_direct
        self.direct_room = self.receiver.direct_room
        self.go_on = self.receiver.go_on

    # The login

    @property
    def login(self) -> Login | None:
        """The login that the server has to check, if any; it calls `logged_in` or `login_failed`."""
        return self.handshake.login

    def logged_in(self, user: User) -> None:
        """Go on as this user, with the input that came meanwhile."""
        self.receiver.carry_out(self.handshake.logged_in(user))

    def login_failed(self, reason: str) -> None:
        """Refuse the login. The reason is for the log; the client always gets the same text."""
        self.handshake.login_failed(reason)

    # Bytes out

    def take_output(self, now_ms: int) -> list[bytes]:
        """Return everything that may be sent now, confirms last."""
        if self.state.confirms.due:
            self.state.confirms.write()
        pieces = self.outbox.take()
        if pieces:
            self.heartbeats.sent_ms = now_ms
        return pieces

    def resume(self) -> None:
        """Deliver what waited for room, in turn, as far as the room goes; then go on with the client's input."""
        self.state.awaiting_room.serve(lambda: self.state.room)
        self.receiver.go_on_if_read()

    # Commits

    def on_commit(self, batch: int) -> None:
        """Note that this batch and all before it are on disk."""
        state = self.state
        if state.vhost is not None:
            state.vhost.changes.on_commit(batch)
        self.outbox.on_commit(batch)
        state.confirms.on_commit(batch)

    def on_answered(self, first_pending: Callable[[int], int]) -> None:
        """Confirm messages that consumers have acked before they are on disk; see store/pending_confirms.py."""
        self.state.confirms.on_answered(first_pending)

    @property
    def unconfirmed_channels(self) -> int:
        """The number of channels with confirms that wait for a commit."""
        return len(self.state.confirms.awaiting)

    @property
    def awaits_commit(self) -> bool:
        """Whether any output waits for a batch."""
        return bool(self.outbox.awaited_batch or self.state.confirms.awaiting)

    # Time

    def tick(self, now_ms: int) -> bool:
        """Check heartbeats and timeouts; return whether the client is in time.

        If it is not, its input may not have been read yet: the server drops it only after it has read, and asked
        `is_overdue`.
        """
        if self.is_overdue(now_ms):
            return False
        self._channels.overdue.look(now_ms)
        if self.phases.current is not Phase.CLOSED and self.heartbeats.is_due(now_ms):
            self.outbox.write(HEARTBEAT_FRAME)
        return True

    def is_overdue(self, now_ms: int) -> bool:
        """Return whether the socket must be closed: a handshake, a close or a heartbeat has taken too long."""
        if self.phases.is_overdue(now_ms):
            return True
        return (self.heartbeats.is_missed(now_ms) and self.phases.current is not Phase.CLOSED
                and (self.is_read or self.blocking.is_input_full))

    def log_overdue(self, now_ms: int) -> None:
        """Log why the socket is closed, unless the connection was ending anyway."""
        if not self.phases.is_overdue(now_ms):
            self.state.log_end(f"missed heartbeats from client, timeout: {self.heartbeats.interval_s}s")
        elif self.phases.current not in (Phase.CLOSING, Phase.CLOSED):
            self.state.log_end("the handshake took too long")

    def excuse(self, gap_ms: int, now_ms: int) -> None:
        """Do not count a gap, in which the server could not read the client's input."""
        self.heartbeats.excuse(gap_ms, now_ms)
        self.phases.excuse(gap_ms)
        self._channels.excuse(gap_ms, now_ms)

    # The end

    def force_close(self, reason: str) -> None:
        """Close with 320 CONNECTION_FORCED: by an operator, for a deleted user, or at the end of the broker."""
        self.closing.force_close(reason)

    def force_close_soon(self, reason: str) -> None:
        """Let `close_forced` close it with 320, before anything more is carried out or delivered."""
        self.state.forced = reason

    def close_forced(self) -> None:
        """Close now, if it is still open after `force_close_soon`."""
        self.closing.close_forced()

    def fail(self, text: str) -> None:
        """Close with 541 INTERNAL_ERROR: output that waits for a batch is never sent."""
        self.closing.fail(text)

    def fail_internally(self) -> None:
        """Close with 541 because of the current exception: it is logged, and other clients are not affected."""
        self.closing.fail_internally()

    @property
    def is_finished(self) -> bool:
        """Whether the socket may be closed after the next output: the last output does not wait for a commit."""
        return self.phases.is_over and not self.outbox.awaited_batch

    def lost(self) -> None:
        """Release everything, as the socket is lost, and break the reference cycles between the parts."""
        self.closing.lost()
        if self.state.vhost is not None:
            self.traffic.tell(self.state.vhost.totals)
        self._deferred.clear()
        self.outbox.clear()
        self._reader.close()
        self._channels.overdue.end()
        self.state.end()
        self._signals.end()

    # What the broker calls

    @property
    def owner(self) -> object:
        """See broker/broker.py."""
        return self.state

    @property
    def user_name(self) -> str:
        """See broker/broker.py."""
        return self.state.user_name

    @property
    def vhost_name(self) -> str:
        """See broker/broker.py."""
        return self.state.vhost_name

    def statistics(self) -> ConnectionStatistics:
        """See broker/broker.py."""
        return self._statistics.connection()

    def channel_statistics(self) -> list[ChannelStatistics]:
        """See broker/broker.py."""
        return self._channels.statistics()

    def counts_of(self, channel: int) -> ChannelCounts | None:
        """See broker/broker.py."""
        return self._channels.counts_of(channel)

    def channel_counts(self) -> dict[int, ChannelCounts]:
        """See broker/broker.py."""
        return self._channels.counts()

    @property
    def unacked_count(self) -> int:
        """See broker/broker.py."""
        return self._channels.unacked_count

    def unacked_runs(self) -> Iterator[tuple[Queue, list[Message]]]:
        """See broker/broker.py."""
        return self._channels.unacked_runs()

    def oldest_unacked(self, most: int) -> Iterator[list[OldestUnacked]]:
        """See broker/broker.py."""
        return self._channels.oldest_unacked(most)

    def unacked_of(self, queue: Queue) -> Iterator[list[UnackedDelivery]]:
        """See broker/broker.py."""
        return self._channels.unacked_of(queue)

    def right_checks(self) -> Iterator[Act]:
        """See broker/broker.py."""
        return self._channels.right_checks()

    def check(self) -> None:
        """Assert what must hold between calls."""
        self._channels.check()
