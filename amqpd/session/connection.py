"""A client's connection, sans I/O: octets and the time come in, octets to send come out.

Owns the phase of the talk, what was tuned, the channels and the outbox. Sockets, clocks and
passwords are the server's: it hands in octets, calls `tick`, and answers `login`.

Always true between calls:
- after our close only close and close-ok are heard, after the end nothing;
- a channel is in `channels` from its open until close-ok has been exchanged;
- while a command waits for the disk, for the next turn or for the end of an alarm, all that came after it waits too,
  in order (`session/deferred_input.py`);
- once ended, nothing in the broker knows this connection.

Spec: §2.2.4, §4.2, §4.8; connection class; RabbitMQ docs/heartbeats, docs/connection-blocked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import chain
from typing import Any, Protocol

import msgspec
from pamqp.base import Frame
from pamqp.commands import Channel as ChannelMethods
from pamqp.commands import Connection

from amqpd.broker.access import User
from amqpd.broker.broker import Broker
from amqpd.broker.departure import Act, Departure
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.pager import MessageNotLoaded
from amqpd.broker.queue.queue import Queue
from amqpd.broker.remembered import Memory
from amqpd.broker.vhost import Vhost
from amqpd.broker.worklist import Later
from amqpd.errors import ChannelException, ConnectionException, ReplyCode
from amqpd.message import Message
from amqpd.session.blocked_consumers import BlockedConsumers
from amqpd.session.channel import Channel
from amqpd.session.consumer_timeouts import Looks, OverdueChannels
from amqpd.session.credentials import LoginRequest, read_amqplain, read_plain
from amqpd.session.deferred_input import DeferredInput, Unfinished, Wait
from amqpd.session.heartbeats import Heartbeats
from amqpd.session.outbox import Outbox
from amqpd.session.phases import TRANSITIONS, Phase
from amqpd.wire.methods import decode_method, encode_method, pack_channel_open_ok, pack_close, pack_start
from amqpd.wire.reader import Acks, Command, Frames, Intake, Method, Publishes, Reader, TooLarge, Unwanted
from amqpd.wire.writer import HEARTBEAT_FRAME

log = logging.getLogger("amqpd.connection")

HEADER_0_9_1 = b"AMQP\x00\x00\x09\x01"
ACCEPTED_HEADERS = (HEADER_0_9_1, b"AMQP\x01\x01\x00\x09")
MECHANISMS = "AMQPLAIN PLAIN"
SMALLEST_FRAME_MAX = 4_096
FRAME_MAX_BEFORE_TUNING = SMALLEST_FRAME_MAX
EARLY_COMMANDS = 100
CLOSE_OK_WAIT_MS = 5_000
LINGER_MS = 1_000       # how long a peer may read our last words before the socket goes
MOST_DEFERRED_BYTES = 16 * 1024  # of a blocked client, from which on it is not read any more
METHOD_STEPS = 25           # what a method that is not on the hot path costs, about; see broker/effort.py
LOST_STEPS = 150        # what it takes to forget a client that is gone, with its lines of the log
STOP_STEPS, RELEASE_STEPS = 5, 15   # what it takes to stop a channel that ends, and to free it
TOPOLOGY_STEPS = 75         # and what it costs beyond that to look for an exchange or a queue, or to make one
OCTETS_A_STEP = 4           # of a method: its arguments are read, put in order and compared one by one
UNREAD_ANSWERS = 4          # times `outgoing_limit`, from which on a client that does not read them is not heard
UNREAD_REPLIES = 8          # times `outgoing_limit` of anything unread, from which on direct replies are dropped
FRAME_STEPS = 2             # of effort, for a frame that makes no command
CONTENTS = Publishes, TooLarge, Unwanted
TOPOLOGY = (b"\x28", b"\x32")     # the classes exchange and queue
CHANNEL_OPEN = b"\x00\x14\x00\x0a"
CONNECTION_CLOSE = b"\x00\x0a\x00\x32"
CONNECTION_CLOSE_OK = b"\x00\x0a\x00\x33"
CLOSE_OK_FRAME = b"\x01\x00\x00\x00\x00\x00\x04" + CONNECTION_CLOSE_OK + b"\xce"


class SessionSettings(msgspec.Struct, frozen=True, dict=True):
    """What a session needs of the configuration. Sizes in octets; `heartbeat_s` 0 offers none."""

    server_properties: dict[str, Any]
    heartbeat_s: int = 60
    frame_max: int = 131_072
    channel_max: int = 2_047
    max_body_size: int = 128 * 1024 * 1024
    unacked_limit: int = 50_000
    outgoing_limit: int = 1024 * 1024
    handshake_timeout_ms: int = 10_000
    connection_limit: int = 20_000
    consumer_timeout_ms: int | None = 1_800_000

    @cached_property
    def start_frame(self) -> bytes:
        """Return `connection.start`, which is the same for all clients."""
        return pack_start(self.server_properties, MECHANISMS, "en_US")


class Signals(Protocol):
    """What a session asks of whoever drives it; each only makes a note for the end of the turn.

    `alarm` is why nothing may be published now, in the words for `connection.blocked`, or empty.
    """

    alarm: str

    def output_ready(self, session: Session) -> None:
        """There is something to send."""

    def handshake_advanced(self, session: Session) -> None:
        """The client has taken a step towards its login: if `login` is set, that can be looked at."""

    def commit_awaited(self, session: Session) -> None:
        """Something waits for a batch to be on disk."""

    def input_deferred(self, session: Session) -> None:
        """The client has had its share of this turn: call `go_on` in the next one."""

    def command_unfinished(self, session: Session) -> None:
        """A command goes on in the next turn in which jobs are worked on: call `go_on` then."""

    def input_drained(self, session: Session) -> None:
        """What waited has been carried out: the client may be read again."""


class Session:
    """One client's talk. `name` is `peer:port -> host:port`, `number` its own; times are in ms of a monotonic clock."""

    def __init__(
        self, broker: Broker, settings: SessionSettings, signals: Signals, name: str, now_ms: int, number: int = 1,
        intake: Intake | None = None,
    ) -> None:
        self.broker = broker
        self.settings = settings
        self.name = name
        self.number = number
        self.phase = Phase.AWAIT_HEADER
        self.channels: dict[int, Channel] = {}
        self.outbox = Outbox(self._note_output)
        self.memory = Memory(broker.memory)
        self.login: LoginRequest | None = None
        self.frame_max = FRAME_MAX_BEFORE_TUNING
        self.channel_max = settings.channel_max
        self.heartbeats = Heartbeats(now_ms)
        self.user: User | None = None
        self.vhost: Vhost | None = None
        self.client_properties: dict[str, Any] = {}
        self.mechanism = ""
        self.drop_at_ms: int | None = now_ms + settings.handshake_timeout_ms
        self.is_writable = True         # the transport's word: False while its buffer is full
        self.is_read = True             # False while the server takes nothing from this client
        self.peer_closes = False        # the peer got close-ok: closing the socket is left to it for a while
        self._deferred = DeferredInput()
        self.received_octets = self.sent_octets = 0
        self.received_count = self.sent_count = 0           # of reads and writes
        self.unsent: Callable[[], int] = int                # octets the transport could not send yet
        self.published_runs = 0
        self.connected_at_ms = broker.clock.to_wall(now_ms)
        self._signals = signals
        self._log = logging.LoggerAdapter(log, {"connection": number})
        self._now_ms = now_ms
        self._header = b""
        self._early: list[Command] = []     # what came while the password was looked at
        self._discards_input = False           # framing is lost: what comes cannot be understood any more
        self._has_ended = False
        self._forced = ""           # why it is closed by force before it says anything more
        self._departures: list[Departure] = []      # of this connection, or channels, that may not be over
        self._has_failed = False        # by an error of ours
        self._is_over = False           # our last words have been written
        self._confirming: dict[Channel, None] = {}
        self.awaiting_room = BlockedConsumers()
        self._reader = Reader(
            FRAME_MAX_BEFORE_TUNING, settings.max_body_size, self.channels, self._is_wanted, intake)
        self.looks = Looks()
        self._overdue = OverdueChannels(self.looks, broker.worklist, self._close_if_overdue, self._log_closed)
        self._awaiting_confirms: dict[Channel, None] = {}       # channels with confirms that wait for a commit

    # Octets in

    def direct_room(self) -> memoryview | None:
        """Where the socket may write the next octets itself; see wire/reader.py."""
        if self.phase is not Phase.OPEN or self._discards_input or self._deferred.reason is not None:
            return None
        return self._reader.direct_room()

    def receive_direct(self, size: int, now_ms: int) -> None:
        """As `receive`, after the socket has written that many octets into `direct_room`."""
        self._now_ms = self.heartbeats.heard_ms = self.broker.clock.now_ms = now_ms
        self.received_octets += size
        self.received_count += 1
        self.broker.effort.begin()
        self._take(self._reader.direct_commands(size))

    def receive(self, data: bytes | memoryview, now_ms: int) -> None:
        """Take octets from the socket. Never raises: what is wrong with them becomes a close."""
        self._now_ms = self.heartbeats.heard_ms = self.broker.clock.now_ms = now_ms
        self.received_octets += len(data)
        self.received_count += 1
        self.broker.effort.begin()
        self._hear(data)

    def _hear(self, data: bytes | memoryview) -> None:
        if self.phase is Phase.CLOSED:
            return
        if self._discards_input:
            if bytes(data).endswith(CLOSE_OK_FRAME):
                self._finish()
            return
        if self._deferred.reason is not None:
            self._deferred.octets += data
            return
        if self.phase is Phase.AWAIT_HEADER:
            data = self._take_header(bytes(data))
            if not data:
                return
        self._take(self._reader.commands(data))

    def _take(self, commands: Iterable[Command], first: Command | None = None) -> None:
        """Carry out commands, `first` before the others, until the connection has ended or the rest has to wait."""
        if self._forced:
            self.close_forced()
        commands = iter(commands)
        effort, worklist = self.broker.effort, self.broker.worklist
        try:
            for command in commands if first is None else chain((first,), commands):
                if self._signals.alarm and self.phase is Phase.OPEN and isinstance(command, CONTENTS):
                    self._block(commands, command)
                    return
                try:
                    rest = self._on_command(command)
                except MessageNotLoaded as reason:
                    self._deferred.defer(commands, Wait.DISK, command)
                    reason.call(self._go_on_in_turn)
                    return
                except Unfinished:
                    self._deferred.defer(commands, Wait.TURN, command)
                    self._signals.command_unfinished(self)
                    return
                if worklist.has_new:
                    worklist.work_on_new()
                if self.phase is Phase.CLOSED:
                    return
                if self._must_read:
                    self._deferred.defer(commands, Wait.OUTPUT, rest)
                    return
                if rest is not None or effort.is_spent:
                    self._deferred.defer(commands, Wait.TURN, rest)
                    self._signals.input_deferred(self)
                    return
            if self._signals.alarm and self.phase is Phase.OPEN and self._reader.is_inside_content:
                self._block(iter(()))       # no need to take all of a large body first
        except ConnectionException as error:
            self._close_unreadable(error)
        except Exception:
            self.fail_internally()

    @property
    def is_deferred(self) -> bool:
        """Return whether commands wait for something other than the end of an alarm, so that no more should come."""
        return self._deferred.reason is not None and not self.is_blocked

    @property
    def _must_read(self) -> bool:
        """Return whether the client has to read answers before anything else that it says is carried out."""
        most = UNREAD_ANSWERS * self.settings.outgoing_limit
        return self.phase is Phase.OPEN and self.outbox.has_unread_answers(most, self.unsent)

    @property
    def waits_for_reader(self) -> bool:
        """Return whether commands wait until the client has read what it was answered."""
        return self._deferred.reason is Wait.OUTPUT

    @property
    def takes_replies(self) -> bool:
        """Return whether direct replies can still be sent to this client, which does not ask for each."""
        return self.outbox.size + self.unsent() <= UNREAD_REPLIES * self.settings.outgoing_limit

    def go_on(self) -> None:
        """Carry out the commands that waited; those that have to wait again stay in order."""
        self._now_ms = self.broker.clock.now_ms
        self.broker.effort.begin()
        if self.is_blocked and self.phase is Phase.OPEN:
            if self._signals.alarm:
                return
            if self.client_can("connection.blocked"):
                self.broker.effort.total += METHOD_STEPS
                self._send(Connection.Unblocked())
        self._take(*self._deferred.take_commands())
        while self._deferred.reason is None and self._deferred.octets:
            self._hear(self._deferred.take_octets())
        if self._deferred.reason is None:
            self._signals.input_drained(self)

    def _go_on_in_turn(self) -> None:
        """Carry out in one of the next turns what waited: very many clients may have waited for the same."""
        if self._deferred.reason is not None:
            self._signals.input_deferred(self)

    def _take_header(self, data: bytes) -> bytes:
        """The protocol header, Spec: §4.2.2; what follows it is returned."""
        self._header += data
        header, rest = self._header[:8], self._header[8:]
        if len(header) < 8 and HEADER_0_9_1.startswith(header[:4]):
            return b""
        self._log.info("accepting AMQP connection %s", self.name)
        if header not in ACCEPTED_HEADERS:
            self._log.warning("%s: not an AMQP 0-9-1 client: it began with %r", self.name, header)
            self.outbox.write(HEADER_0_9_1)
            self._finish()
            return b""
        self.phase = Phase.AWAIT_START_OK
        self._signals.handshake_advanced(self)
        self.outbox.write(self.settings.start_frame)
        return rest

    def _on_command(self, command: Command) -> Command | None:
        """Carry out one command, whatever the phase; return what is left of it for the next turn."""
        if isinstance(command, Frames):
            self.broker.effort.total += FRAME_STEPS * command.total
            return None
        channel = self.channels.get(command.channel)
        if self.phase is Phase.AUTHENTICATING:
            self._keep_for_later(command)
        elif isinstance(command, Method):
            self._on_method(command, channel)
        elif self.phase is not Phase.OPEN:
            if self.phase is not Phase.CLOSING:
                self._refuse_silently("content during the handshake")
        else:
            try:
                if channel is None:
                    raise _not_open(command)
                return channel.on_command(command)
            except ConnectionException as error:
                self.close(error)
        return None

    def _is_wanted(self, number: int, arguments: bytes) -> bool:
        """Return whether the content of a publish that begins is worth its memory: not if it will be refused."""
        channel = self.channels[number]
        return not channel.is_closing and channel.publishing.may_begin(arguments)

    def _keep_for_later(self, command: Command) -> None:
        """A client need not wait for the answer to its password, but it may not go on for ever either."""
        self._early.append(command)
        if len(self._early) > EARLY_COMMANDS:
            self._refuse_silently("too much was said before the password had been looked at")

    def _on_method(self, command: Method, channel: Channel | None) -> None:
        if self.phase is not Phase.OPEN:
            if self.phase is Phase.CLOSING:
                self._on_method_while_closing(command)
            else:
                self._on_handshake(command)
            return
        self.broker.effort.total += (
            METHOD_STEPS + (TOPOLOGY_STEPS if command.payload[1:2] in TOPOLOGY else 0)
            + len(command.payload) // OCTETS_A_STEP)
        try:
            if channel is None and command.channel and command.payload[:4] != CHANNEL_OPEN:
                raise _not_open(command)
            method = decode_method(command.payload)
            if command.channel == 0:
                self._on_connection_method(method)
            elif channel is None:
                self._open_channel(command.channel)
            elif isinstance(method, (ChannelMethods.Close, ChannelMethods.CloseOk)):
                self._on_channel_close(channel, method)
            else:
                channel.on_method(method)
        except ConnectionException as error:
            if error.method is None:
                error.method = _ids(command.payload)
            self.close(error)

    # The handshake

    def _on_handshake(self, command: Method) -> None:
        """A method before the connection is open: the right one, or the end without a word, as on RabbitMQ."""
        try:
            method = decode_method(command.payload)
        except ConnectionException as error:
            self._refuse_silently(error.reply_text)
            return
        following = TRANSITIONS.get(self.phase, {}).get(type(method))
        if command.channel or following is None:
            self._refuse_silently(f"unexpected {method.name} during the handshake")
            return
        self.phase = following
        if isinstance(method, Connection.StartOk):
            self._on_start_ok(method)
        elif isinstance(method, Connection.TuneOk):
            self._on_tune_ok(method)
        elif isinstance(method, Connection.Open):
            self._on_open(method)

    def _on_start_ok(self, method: Connection.StartOk) -> None:
        """Who is it? The answer comes from the server, through `logged_in` or `login_failed`."""
        self.client_properties = method.client_properties
        self.mechanism = method.mechanism
        response = method.response.encode() if isinstance(method.response, str) else bytes(method.response)
        if method.mechanism == "PLAIN":
            self.login = read_plain(response)
        elif method.mechanism == "AMQPLAIN":
            self.login = read_amqplain(response)
        else:
            self._refuse_silently(f"unknown authentication mechanism '{method.mechanism}'")
            return
        if self.login is None:
            self._refuse_silently(f"malformed {method.mechanism} response")
            return
        self._signals.handshake_advanced(self)

    def logged_in(self, user: User) -> None:
        """The password was right: go on to tuning, and to what the client may have said meanwhile."""
        self.login = None
        if self.phase is not Phase.AUTHENTICATING:
            return
        self.user = user
        self.phase = Phase.AWAIT_TUNE_OK
        settings = self.settings
        self._send(Connection.Tune(settings.channel_max, settings.frame_max, settings.heartbeat_s))
        early, self._early = self._early, []
        self._take(early)

    def login_failed(self, reason: str) -> None:
        """Refuse the login. The reason is for the log; the client always gets the same text."""
        assert self.login is not None
        self._log.warning("%s: %s login of user '%s' refused: %s", self.name, self.mechanism, self.login.user, reason)
        self.login = None
        if self.phase is not Phase.AUTHENTICATING:
            return
        if self.client_can("authentication_failure_close"):
            self.outbox.write(pack_close(
                0, ReplyCode.ACCESS_REFUSED,
                f"ACCESS_REFUSED - Login was refused using authentication mechanism {self.mechanism}. "
                "For details see the broker logfile.", 0, 0))
            self.phase = Phase.CLOSING
            self.drop_at_ms = self._now_ms + LINGER_MS
        else:
            self._finish()

    def _on_tune_ok(self, method: Connection.TuneOk) -> None:
        settings = self.settings
        for field, value, least, most in (
            ("channel_max", method.channel_max, 1, settings.channel_max),
            ("frame_max", method.frame_max, SMALLEST_FRAME_MAX, settings.frame_max),
        ):
            if least <= value <= most:
                continue
            side, bound = ("lower than the minimum", least) if value < least else ("higher than the maximum", most)
            text = f"negotiated {field} = {value} is {side} allowed value ({bound})"
            self._log.warning("%s: %s", self.name, text)
            self.close(ConnectionException(ReplyCode.NOT_ALLOWED, text, method=(10, 31)))
            return
        self.channel_max = method.channel_max
        self.frame_max = self._reader.frame_max = method.frame_max
        self.heartbeats.interval_s = method.heartbeat

    def _on_open(self, method: Connection.Open) -> None:
        assert self.user is not None
        name, user = method.virtual_host, self.user
        refusal = ""
        if name not in self.broker.vhosts:
            refusal = f"vhost {name} not found"
        elif not user.may_enter(name):
            refusal = f"access to vhost '{name}' refused for user '{user.name}'"
        elif len(self.broker.connections) >= self.settings.connection_limit:
            refusal = f"connection refused: node connection limit ({self.settings.connection_limit}) is reached"
        if refusal:
            self._log.warning("%s: %s", self.name, refusal)
            self.close(ConnectionException(ReplyCode.NOT_ALLOWED, refusal, method=(10, 40)))
            return
        self.vhost = self.broker.vhosts[name]
        self.drop_at_ms = None
        self.broker.connections[self.number] = self
        self._log.info("%s: user '%s' authenticated and granted access to vhost '%s'", self.name, user.name, name)
        self._send(Connection.OpenOk())

    def turn_out(self, reason: str) -> None:
        """End without a word: the server is about to drop the socket."""
        self._log.info("%s: closing: %s", self.name, reason)
        self.phase = Phase.CLOSED

    def _refuse_silently(self, reason: str) -> None:
        """End without a method, after a pause that slows down whoever guesses. RabbitMQ: rabbit_reader."""
        self._log.warning("%s: closing: %s", self.name, reason)
        self.phase = Phase.CLOSED
        self.login = None       # nobody waits for an answer any more
        self.drop_at_ms = self._now_ms + LINGER_MS

    # The open connection

    def _on_connection_method(self, method: Frame) -> None:
        if isinstance(method, Connection.Close):
            self._send_after_end(Connection.CloseOk())
        elif isinstance(method, Connection.UpdateSecret):
            self._send(Connection.UpdateSecretOk())
        else:
            raise ConnectionException(ReplyCode.CHANNEL_ERROR, "unexpected method in connection state running")

    def _send_after_end(self, method: Frame) -> None:
        """Answer the client's close once nothing is left of it. Raises NotAtHand until then."""
        self.end()
        for departure in self._departures:
            if departure.has_work:
                raise MessageNotLoaded(departure.call)
        self._send(method)
        self._finish(peer_closes=True)

    def _on_method_while_closing(self, command: Method) -> None:
        """After our close only the peer's close and close-ok matter, whatever channel they claim."""
        method = command.payload[:4]
        if command.channel == 0 and method == CONNECTION_CLOSE:
            self._send(Connection.CloseOk())
            self._finish(peer_closes=True)
        elif command.channel == 0 and method == CONNECTION_CLOSE_OK:
            self._finish()

    def _open_channel(self, number: int) -> None:
        assert self.vhost is not None and self.user is not None
        if len(self.channels) >= self.channel_max:
            raise ConnectionException(
                ReplyCode.NOT_ALLOWED, f"number of channels opened ({len(self.channels)}) has reached the "
                f"negotiated channel_max ({self.channel_max})", method=(0, 0))
        self.channels[number] = Channel(self, number, self.vhost, self.user)
        self.outbox.write(pack_channel_open_ok(number))

    def _on_channel_close(self, channel: Channel, method: Frame) -> None:
        if isinstance(method, ChannelMethods.CloseOk):
            if not channel.is_closing:
                raise ConnectionException(ReplyCode.COMMAND_INVALID, "unimplemented method")
            self._free_channel(channel)
            return
        if channel.is_closing:      # both sides closed at once: ours still wants its close-ok
            self.outbox.write(encode_method(channel.number, ChannelMethods.CloseOk()))
            return
        departure = channel.end()
        if departure.has_work:
            raise MessageNotLoaded(departure.call)
        self._free_channel(channel)
        self.outbox.write(encode_method(channel.number, ChannelMethods.CloseOk()))

    def _free_channel(self, channel: Channel) -> None:
        """Forget a channel that has ended: its number may be used again."""
        del self.channels[channel.number]
        self._confirming.pop(channel, None)
        self._awaiting_confirms.pop(channel, None)
        channel.release()

    # Closing

    def close(self, error: ConnectionException) -> None:
        """Close the connection because of an error, and wait a while for close-ok. Spec: §2.2.4."""
        if self.phase in (Phase.CLOSING, Phase.CLOSED):
            return
        self._log.warning("%s: closing: %s", self.name, error)
        self.end()
        class_id, method_id = error.method or (0, 0)
        self.outbox.write(pack_close(0, error.code, error.reply_text, class_id, method_id))
        self.phase = Phase.CLOSING
        self.drop_at_ms = self._now_ms + CLOSE_OK_WAIT_MS
        if self.is_blocked or self.waits_for_reader:
            self.go_on()            # only for the answer to our close: what it published is not taken any more

    def _close_unreadable(self, error: ConnectionException) -> None:
        """Close because the octets themselves make no sense; nothing after them can be understood."""
        self._discards_input = True
        if self.phase in (Phase.OPEN, Phase.AWAIT_OPEN, Phase.AWAIT_TUNE_OK, Phase.AWAIT_START_OK):
            self.close(error)
            self.drop_at_ms = self._now_ms + LINGER_MS
        elif self.phase is not Phase.CLOSING:
            self._finish()

    def fail_internally(self) -> None:
        """Close with 541 since something of ours raised just now: it is logged, and no other client notices."""
        self._log.exception("%s: internal error", self.name)
        self._has_failed = True
        self._close_unreadable(ConnectionException(ReplyCode.INTERNAL_ERROR, method=(0, 0)))

    def fail_soon(self) -> None:
        """Close with 541 in the next turn; until then nothing more is delivered."""
        if not self._has_failed:
            self._has_failed = True
            Later(self.broker.worklist, self._close_failed).ask()

    def _close_failed(self) -> None:
        self._close_unreadable(ConnectionException(ReplyCode.INTERNAL_ERROR, method=(0, 0)))

    def force_close(self, reason: str) -> None:
        """Close it with 320 CONNECTION_FORCED: an operator, a deleted user, or the end of the broker."""
        if self.phase is Phase.OPEN:
            self.close(ConnectionException(ReplyCode.CONNECTION_FORCED, reason, method=(0, 0)))
        else:
            self._finish()

    def force_close_soon(self, reason: str) -> None:
        """Have `close_forced` close it with 320, before anything more of it is carried out or delivered."""
        self._forced = reason

    def close_forced(self) -> None:
        """Close it now, if it has not been closed since `force_close_soon`."""
        reason, self._forced = self._forced, ""
        if reason and not self._has_ended:
            self.force_close(reason)

    def fail(self, text: str) -> None:
        """Close it with 541 INTERNAL_ERROR: what still waits for a batch is never said."""
        self.outbox.forget_held()
        if self.phase is Phase.OPEN:
            self.close(ConnectionException(ReplyCode.INTERNAL_ERROR, text, method=(0, 0)))
        else:
            self._finish()

    def _finish(self, *, peer_closes: bool = False) -> None:
        """Nothing more is heard; the socket goes once the last octets are out, or once the peer closes it."""
        self.end()
        self.phase = Phase.CLOSED
        self.peer_closes = peer_closes
        self._is_over = True
        self.drop_at_ms = self._now_ms + LINGER_MS
        self.outbox.note()

    @property
    def is_finished(self) -> bool:
        """Whether the socket may go with the next output: the last words do not wait for a commit any more."""
        return self._is_over and not self.outbox.awaited_batch

    def lost(self) -> None:
        """The socket is gone."""
        self.broker.effort.total += LOST_STEPS
        if self.phase is Phase.AWAIT_HEADER:
            self._log.debug("%s: client closed the TCP connection before it said anything", self.name)
        elif self.phase not in (Phase.CLOSED, Phase.CLOSING):
            self._log.warning("%s: client unexpectedly closed the TCP connection", self.name)
        self.end()
        self.phase = Phase.CLOSED
        self._deferred.clear()
        self.outbox.clear()
        self._reader.close()
        self._overdue.end()
        self.unsent = int

    def end(self) -> None:
        """Let go of everything in the broker: channels first, then exclusive queues."""
        if self._has_ended:
            return
        self._has_ended = True       # from now on nothing is delivered, though there may be very many channels to stop
        self.login = None           # nobody waits for an answer any more
        for channel in self._confirming:
            self._let_go(channel.publishing.write_confirms)
        self._confirming.clear()
        self._awaiting_confirms.clear()
        ended = [*self.channels.values()]
        self.channels.clear()
        self.memory.clear()
        self._reader.skip_contents()
        if self.vhost is not None:
            acts = chain(_parting(ended), self.vhost.leave(self), _releases(ended))
            self.departs(Departure(acts, self.broker.worklist))
            del self.broker.connections[self.number]
            self._log.info("%s: closing AMQP connection", self.name)

    def departs(self, departure: Departure) -> None:
        """Have the answer to a close wait for this, which has begun."""
        self._departures = [one for one in (*self._departures, departure) if one.has_work]

    def _let_go(self, act: Callable[[], None]) -> None:
        """Let go of one thing: an error in it does not keep the others."""
        try:
            act()
        except Exception:
            self._log.exception("%s: internal error at the end of the connection", self.name)

    # Octets out

    @property
    def room(self) -> int:
        """Octets that may be delivered before the connection counts as full; 0 while the transport is full."""
        if not self.is_writable or self._has_failed or self.is_ending:
            return 0
        return self.settings.outgoing_limit - self.outbox.size

    @property
    def is_ending(self) -> bool:
        """Return whether nothing is delivered any more, though there may be consumers that have not been stopped."""
        return self._has_ended or bool(self._forced)

    def take_output(self, now_ms: int) -> list[bytes]:
        """Everything that may be sent now, confirms last."""
        for channel in self._confirming:
            channel.publishing.write_confirms()
        self._confirming.clear()
        pieces = self.outbox.take()
        if pieces:
            self.heartbeats.sent_ms = now_ms
        return pieces

    def resume(self) -> None:
        """There is room again: deliver what waited for it, in turn, as far as the room goes; then hear the client."""
        self.awaiting_room.serve(lambda: self.room)
        if self.waits_for_reader and not self._must_read:
            self.go_on()

    def _send(self, method: Frame) -> None:
        self.outbox.write(encode_method(0, method))

    def _note_output(self) -> None:
        self._signals.output_ready(self)

    def has_confirms(self, channel: Channel) -> None:
        """Write this channel's confirms at the end of the turn."""
        self._confirming[channel] = None
        self.outbox.note()

    # Commits

    def await_commit(self) -> None:
        """Ask to be told of commits."""
        self._signals.commit_awaited(self)

    def hold_output_until(self, batch: int) -> None:
        """Hold what is said from now on until this batch is on disk; 0 holds nothing."""
        if batch > self.outbox.awaited_batch:
            self.outbox.hold_until(batch)
            self.await_commit()

    def await_confirms(self, channel: Channel) -> None:
        """Ask to be told of commits, for a channel that has confirms to send then."""
        self._awaiting_confirms[channel] = None
        self._signals.commit_awaited(self)

    def on_commit(self, batch: int) -> None:
        """This batch and all before it are on disk."""
        if self.vhost is not None:
            self.vhost.on_commit(batch)
        self.outbox.on_commit(batch)
        for channel in list(self._awaiting_confirms):
            channel.publishing.on_commit(batch)
            self._forget_confirmed(channel)

    def on_answered(self, number: int) -> None:
        """Nobody is owed a message up to this number any more: what was published may be confirmed."""
        for channel in list(self._awaiting_confirms):
            channel.publishing.on_answered(number)
            self._forget_confirmed(channel)

    def _forget_confirmed(self, channel: Channel) -> None:
        if not channel.publishing.awaits_commit:
            del self._awaiting_confirms[channel]

    @property
    def awaits_commit(self) -> bool:
        """Whether anything still waits for a batch."""
        return bool(self.outbox.awaited_batch or self._awaiting_confirms)

    # Time

    def tick(self, now_ms: int) -> bool:
        """See to heartbeats and timeouts; return whether the client is in time with all that it owes us.

        One that is not may have spoken without having been read yet: it is the server that drops it, after it has read
        and asked `is_overdue`.
        """
        self._now_ms = now_ms
        if self.is_overdue(now_ms):
            return False
        self._overdue.look(now_ms)
        if self.phase is not Phase.CLOSED and self.heartbeats.is_due(now_ms):
            self.outbox.write(HEARTBEAT_FRAME)
        return True

    def is_overdue(self, now_ms: int) -> bool:
        """Return whether the socket must go: a handshake, a close or a heartbeat has taken too long."""
        if self.drop_at_ms is not None and now_ms >= self.drop_at_ms:
            return True
        return (self.heartbeats.is_missed(now_ms) and self.phase is not Phase.CLOSED
                and (self.is_read or self.is_input_full))

    def log_overdue(self, now_ms: int) -> None:
        """Tell in the log why the socket goes, unless the connection was at its end anyway."""
        if self.drop_at_ms is None or now_ms < self.drop_at_ms:
            self._log.warning("%s: closing: missed heartbeats from client, timeout: %ss", self.name,
                              self.heartbeats.interval_s)
        elif self.phase not in (Phase.CLOSING, Phase.CLOSED):
            self._log.warning("%s: closing: the handshake took too long", self.name)

    def excuse(self, gap_ms: int, now_ms: int) -> None:
        """Do not count a time in which the server could not read what the client had to say."""
        self.heartbeats.excuse(gap_ms, now_ms)
        if self.drop_at_ms is not None:
            self.drop_at_ms += gap_ms
        for channel in self.channels.values():
            channel.consuming.times.excuse(gap_ms, now_ms)

    def _close_if_overdue(self, number: int, when_ms: int, now_ms: int, is_told: bool) -> bool:
        """Close a channel on which a delivery has been unacked for too long. RabbitMQ docs/consumers."""
        channel = self.channels.get(number)
        if channel is None or channel.is_closing or channel.consuming.times.next_look_ms != when_ms:
            return False
        overdue = channel.consuming.overdue(now_ms, self.settings.consumer_timeout_ms)
        next_look_ms = channel.consuming.times.next_look_ms
        if next_look_ms is not None:
            self.looks.add(number, next_look_ms)
        if overdue is None:
            return False
        channel.close(ChannelException(
            ReplyCode.PRECONDITION_FAILED, f"delivery acknowledgement on channel {channel.number} timed out. "
            f"Timeout value used: {overdue} ms. This timeout value can be configured, see consumers doc guide "
            "to learn more"), (0, 0), is_told=is_told)
        return True

    def _log_closed(self, count: int) -> None:
        self._log.warning("%s: %d more channels were closed: deliveries were not acknowledged in time",
                          self.name, count)

    # Alarms

    @property
    def is_blocked(self) -> bool:
        """Whether the client published while an alarm was on. RabbitMQ docs/connection-blocked."""
        return self._deferred.reason is Wait.ALARM

    @property
    def is_input_full(self) -> bool:
        """Whether so much of a blocked client waits that no more should be read from it."""
        return self.is_blocked and len(self._deferred.octets) >= MOST_DEFERRED_BYTES

    def _block(self, commands: Iterator[Command], first: Command | None = None) -> None:
        """Defer everything that the client says, and tell it, if it understands that."""
        self._deferred.defer(commands, Wait.ALARM, first)
        self._log.info("%s: blocked: %s", self.name, self._signals.alarm)
        if self.client_can("connection.blocked"):
            self._send(Connection.Blocked(self._signals.alarm))

    def unblock(self) -> None:
        """All alarms have ended: tell a blocked client when it is its turn, and look at what it said meanwhile."""
        if self.is_blocked:
            self._signals.input_deferred(self)

    def peer_is_alive(self, at_ms: int) -> None:
        """The server knows that the peer was alive then, though nothing is read from it."""
        self.heartbeats.heard_ms = max(self.heartbeats.heard_ms, at_ms)

    # Outlook

    @property
    def user_name(self) -> str:
        """Who logged in."""
        return self.user.name if self.user else ""

    @property
    def vhost_name(self) -> str:
        """Where to."""
        return self.vhost.name if self.vhost else ""

    def client_can(self, capability: str) -> bool:
        """Whether the client declared this capability; anything but a true boolean means no."""
        capabilities = self.client_properties.get("capabilities")
        return isinstance(capabilities, dict) and capabilities.get(capability) is True

    def log_channel(self, number: int, text: str) -> None:
        """Write this of a channel in the log."""
        self._log.warning("%s: channel %d: %s", self.name, number, text)

    def log_unacked_limit(self, number: int, consumer: Consumer) -> None:
        """Note in the log why a consumer gets nothing more."""
        self._log.warning(
            "%s: channel %d: consumer '%s' of queue '%s' waits: it has %d unanswered deliveries, as many as "
            "limits.unacked_per_consumer allows; let it acknowledge, or set a prefetch count",
            self.name, number, consumer.tag, consumer.queue.name, consumer.in_flight)

    def log_channel_error(self, number: int, error: ChannelException) -> None:
        """Note in the log why a channel was closed."""
        self._log.warning("%s: channel %d error: %s", self.name, number, error)

    def statistics(self) -> dict[str, Any]:
        """Name, peer, tuning and counts, by RabbitMQ's names."""
        peer, _, host = self.name.partition(" -> ")
        return {
            "name": self.name,
            "user": self.user_name,
            "vhost": self.vhost_name,
            "peer_host": peer.rpartition(":")[0],
            "peer_port": int(peer.rpartition(":")[2] or 0),
            "host": host.rpartition(":")[0],
            "port": int(host.rpartition(":")[2] or 0),
            "protocol": "AMQP 0-9-1",
            "auth_mechanism": self.mechanism,
            "ssl": False,
            "state": self._state_name(),
            "channels": len(self.channels),
            "channel_max": self.channel_max,
            "frame_max": self.frame_max,
            "timeout": self.heartbeats.interval_s,
            "client_properties": self.client_properties,
            "user_provided_name": self.client_properties.get("connection_name", ""),
            "connected_at": self.connected_at_ms,
            "recv_oct": self.received_octets,
            "send_oct": self.sent_octets,
            "recv_cnt": self.received_count,
            "send_cnt": self.sent_count,
            "send_pend": self.outbox.size + self.unsent(),
        }

    def _state_name(self) -> str:
        if self.phase is not Phase.OPEN:
            return self.phase.name.lower()
        return "blocked" if self.is_blocked else "blocking" if self._signals.alarm else "running"

    @property
    def unacked_count(self) -> int:
        """See broker/broker.py."""
        return sum([channel.consuming.owed_count for channel in self.channels.values()])

    def unacked_runs(self) -> Iterator[tuple[Queue, list[Message]]]:
        """See broker/broker.py."""
        for channel in self.channels.values():
            runs: dict[Queue, list[Message]] = {}
            for message, consumer in channel.consuming.owed:
                runs.setdefault(consumer.queue, []).append(message)
            yield from runs.items()

    def channel_statistics(self) -> list[dict[str, Any]]:
        """The same for each channel."""
        return [channel.statistics() for channel in self.channels.values()]

    def check(self) -> None:
        """Assert what must hold between calls."""
        assert not (self._has_ended and self.channels), "ended with channels"
        for channel in self.channels.values():
            channel.check()


def _parting(channels: list[Channel]) -> Iterator[Act]:
    """Return what makes these channels part with all that they hold, unless they do already."""
    going = [channel for channel in channels if not channel.is_closing]
    give_backs: list[Iterator[Act]] = []

    def leaves() -> Iterator[Iterator[Act]]:
        for channel in going:
            leave, give_back = channel.parting()
            give_backs.append(give_back)
            yield leave

    # All consumers leave first: what one channel gives back is not for another.
    return chain(
        ((STOP_STEPS, channel.stop) for channel in going),
        chain.from_iterable(leaves()), chain.from_iterable(give_backs))


def _releases(channels: list[Channel]) -> Iterator[Act]:
    while channels:
        yield RELEASE_STEPS, channels.pop().release


def _ids(payload: bytes) -> tuple[int, int]:
    """Class and method id of a method's payload."""
    return int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big")


def _not_open(command: Command) -> ConnectionException:
    """The refusal of a command on a number that is no open channel; channel 0 is the connection's own."""
    if isinstance(command, Method):
        ids = _ids(command.payload)
    else:
        ids = (60, 80) if isinstance(command, Acks) else (60, 40)
    text = "expected 'channel.open'" if command.channel else "unexpected method in connection state running"
    return ConnectionException(ReplyCode.CHANNEL_ERROR, text, method=ids)
