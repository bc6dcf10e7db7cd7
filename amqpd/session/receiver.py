"""Input: bytes are cut into commands, which are carried out in order, unless they have to wait.

While a command waits for the disk, for the next turn, for the end of an alarm or for the client to read, all later
input waits too (`session/deferred_input.py`). Input before the connection is open goes to the handshake, input of a
channel to that channel.

Always true between calls: after our close only close and close-ok are handled, after the end nothing.

Spec: §4.2, §4.8, §4.7.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

from pamqp.base import Frame
from pamqp.commands import Channel as ChannelMethods
from pamqp.commands import Connection

from amqpd.broker.queue.pager import MessageNotLoaded
from amqpd.errors import ConnectionException, ReplyCode
from amqpd.session.blocking import Blocking
from amqpd.session.channel import Channel
from amqpd.session.channel_table import ChannelTable
from amqpd.session.closing import Closing
from amqpd.session.deferred_input import DeferredInput, Unfinished, Wait
from amqpd.session.handshake import Handshake
from amqpd.session.heartbeats import Heartbeats
from amqpd.session.phases import Phase, Phases
from amqpd.session.signals import SessionSignals
from amqpd.session.state import ConnectionState
from amqpd.session.statistics import Traffic
from amqpd.wire.methods import decode_method
from amqpd.wire.commands import Acks, Command, Frames, Method, Publishes, TooLarge, Unwanted
from amqpd.wire.reader import Reader

METHOD_STEPS = 25           # the cost of a method that is not on the hot path, about; see broker/effort.py
TOPOLOGY_STEPS = 75         # and the additional cost of finding or creating an exchange or a queue
BYTES_A_STEP = 4           # of a method: its arguments are decoded, sorted and compared one by one
UNREAD_ANSWERS = 4          # times `outgoing_limit` of unread answers, from which on a client's input waits
LARGE_METHOD = 4_096        # bytes, from which on a method waits if other clients have used up the turn
FRAME_STEPS = 2             # for a frame without a command
CONTENTS = Publishes, TooLarge, Unwanted
TOPOLOGY = (b"\x28", b"\x32")     # the classes exchange and queue
CHANNEL_OPEN = b"\x00\x14\x00\x0a"
CLOSE_OK_FRAME = b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x33\xce"


class Receiver:
    """Carries out the input of one client."""

    def __init__(
        self, state: ConnectionState, signals: SessionSignals[Any], reader: Reader, deferred: DeferredInput,
        phases: Phases, handshake: Handshake, channels: ChannelTable, blocking: Blocking, closing: Closing,
        heartbeats: Heartbeats, traffic: Traffic,
    ) -> None:
        self._state = state
        self._outbox = state.outbox
        self._broker = state.broker
        self._signals = signals
        self._driver = signals.driver
        self._reader = reader
        self._deferred = deferred
        self._phases = phases
        self._handshake = handshake
        self._channels = channels
        self._by_number = channels.by_number
        self._blocking = blocking
        self._closing = closing
        self._heartbeats = heartbeats
        self._traffic = traffic

    # Bytes

    def direct_room(self) -> memoryview | None:
        """Return where the socket may write the next bytes itself; see wire/reader.py."""
        if (self._phases.current is not Phase.OPEN or self._closing.is_unreadable
                or self._deferred.reason is not None):
            return None
        return self._reader.direct_room()

    def receive_direct(self, size: int, now_ms: int) -> None:
        """Do as `receive`, after the socket has written that many bytes into `direct_room`."""
        self._heartbeats.heard_ms = self._broker.clock.now_ms = now_ms
        self._traffic.received_bytes += size
        self._traffic.received_count += 1
        self._broker.effort.begin()
        self.carry_out(self._reader.direct_commands(size))

    def receive(self, data: bytes | memoryview, now_ms: int) -> None:
        """Take bytes from the socket. Never raises: an error in them becomes a close."""
        self._heartbeats.heard_ms = self._broker.clock.now_ms = now_ms
        self._traffic.received_bytes += len(data)
        self._traffic.received_count += 1
        self._broker.effort.begin()
        self._hear(data)

    def _hear(self, data: bytes | memoryview) -> None:
        if self._phases.current is Phase.CLOSED:
            return
        if self._closing.is_unreadable:
            if bytes(data).endswith(CLOSE_OK_FRAME):
                self._closing.finish()
            return
        if self._deferred.reason is not None:
            self._deferred.waiting += data
            return
        if self._phases.current is Phase.AWAIT_HEADER:
            data = self._handshake.take_header(bytes(data))
            if not data:
                return
        self.carry_out(self._reader.commands(data))

    # Commands

    def carry_out(self, commands: Iterable[Command], first: Command | None = None) -> None:
        """Carry out commands, `first` before the others, until the connection has ended or the rest has to wait."""
        if self._state.forced:
            self._closing.close_forced()
        commands = iter(commands)
        effort, worklist, phases, deferred = (
            self._broker.effort, self._broker.worklist, self._phases, self._deferred)
        try:
            for command in commands if first is None else chain((first,), commands):
                if self._driver.alarm and phases.current is Phase.OPEN and isinstance(command, CONTENTS):
                    self._blocking.block(commands, command)
                    return
                if (isinstance(command, Method) and len(command.payload) > LARGE_METHOD and command is not first
                        and effort.turn_is_spent):
                    deferred.defer(commands, Wait.TURN, command)
                    self._signals.input_deferred()
                    return
                try:
                    rest = self._on_command(command)
                except MessageNotLoaded as reason:
                    deferred.defer(commands, Wait.DISK, command)
                    reason.call(self._go_on_in_turn)
                    return
                except Unfinished:
                    deferred.defer(commands, Wait.TURN, command)
                    self._signals.command_unfinished()
                    return
                except ConnectionException as error:
                    self._closing.close(error)
                    rest = None
                if worklist.has_new:
                    worklist.work_on_new()
                if phases.current is Phase.CLOSED:
                    return
                if self._must_read:
                    deferred.defer(commands, Wait.OUTPUT, rest)
                    return
                if rest is not None or effort.is_spent:
                    deferred.defer(commands, Wait.TURN, rest)
                    self._signals.input_deferred()
                    return
            if self._driver.alarm and phases.current is Phase.OPEN and self._reader.is_inside_content:
                self._blocking.block(iter(()))      # no need to take all of a large body first
        except ConnectionException as error:
            self._closing.close_unreadable(error)
        except Exception:
            self._closing.fail_internally()

    def _on_command(self, command: Command) -> Command | None:
        """Carry out one command; return the rest of it for the next turn. Raises ConnectionException."""
        if isinstance(command, Frames):
            self._broker.effort.total += FRAME_STEPS * command.total
            return None
        if self._phases.current is not Phase.OPEN:
            if isinstance(command, Method) and self._phases.current not in (Phase.CLOSING, Phase.CLOSED):
                self._broker.effort.total += METHOD_STEPS + len(command.payload) // BYTES_A_STEP
            self._handshake.on_command(command)
            return None
        channel = self._by_number.get(command.channel)
        if isinstance(command, Method):
            self._on_method(command, channel)
            return None
        if channel is None:
            raise _not_open(command)
        return channel.on_command(command)

    def _on_method(self, command: Method, channel: Channel | None) -> None:
        self._broker.effort.total += (
            METHOD_STEPS + (TOPOLOGY_STEPS if command.payload[1:2] in TOPOLOGY else 0)
            + len(command.payload) // BYTES_A_STEP)
        try:
            if channel is None and command.channel and command.payload[:4] != CHANNEL_OPEN:
                raise _not_open(command)
            method = decode_method(command.payload)
            if command.channel == 0:
                self._on_connection_method(method)
            elif channel is None:
                self._channels.open(command.channel)
            elif isinstance(method, (ChannelMethods.Close, ChannelMethods.CloseOk)):
                self._channels.on_close(channel, method)
            else:
                channel.on_method(method)
        except ConnectionException as error:
            if error.method is None:
                error.method = _ids(command.payload)
            raise

    def _on_connection_method(self, method: Frame) -> None:
        if isinstance(method, Connection.Close):
            self._closing.end_before_answer(int(method.reply_code or 0), str(method.reply_text))
        self._handshake.on_method_when_open(method)

    # Deferred input

    @property
    def is_deferred(self) -> bool:
        """Whether commands wait, except for the end of an alarm, so that no more should be read."""
        return self._deferred.reason is not None and not self._blocking.is_blocked

    @property
    def waits_for_reader(self) -> bool:
        """Whether commands wait until the client has read its answers."""
        return self._deferred.reason is Wait.OUTPUT

    @property
    def _must_read(self) -> bool:
        """Whether the client has to read answers before more of its input is carried out."""
        most = UNREAD_ANSWERS * self._state.settings.outgoing_limit
        return self._phases.current is Phase.OPEN and self._outbox.has_unread_answers(most, self._state.unsent)

    def go_on(self) -> None:
        """Carry out the commands that waited; those that have to wait again stay in order."""
        self._broker.effort.begin()
        if self._blocking.is_blocked and self._phases.current is Phase.OPEN:
            if self._blocking.has_alarm:
                return
            self._blocking.unblock()
        self.carry_out(*self._deferred.take_commands())
        while self._deferred.reason is None and self._deferred.waiting:
            self._hear(self._deferred.take_bytes())
        if self._deferred.reason is None:
            self._signals.input_drained()

    def go_on_if_read(self) -> None:
        """Go on if commands wait until the client has read its answers, and it has read enough of them."""
        if self.waits_for_reader and not self._must_read:
            self.go_on()

    def _go_on_in_turn(self) -> None:
        """Carry out waiting commands in one of the next turns, since very many clients may wait for the same."""
        if self._deferred.reason is not None:
            self._signals.input_deferred()


def _ids(payload: bytes) -> tuple[int, int]:
    """Return class and method id of a method's payload."""
    return int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big")


def _not_open(command: Command) -> ConnectionException:
    """Return the refusal of a command on a number that is not an open channel, or on channel 0.

    Whoever takes a method adds its ids.
    """
    ids = None if isinstance(command, Method) else (60, 80) if isinstance(command, Acks) else (60, 40)
    text = "expected 'channel.open'" if command.channel else "unexpected method in connection state running"
    return ConnectionException(ReplyCode.CHANNEL_ERROR, text, method=ids)
