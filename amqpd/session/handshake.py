"""The answers to the client's methods on channel 0, from the protocol header to close-ok.

A method must be allowed in the current phase (`session/phases.py`). Otherwise it is an error, which ends a connection
that is not open without a reply, as on RabbitMQ. `ANSWERS` has the action for each method, before its phase begins.

Owns the login and the commands that came before it was answered. Negotiated values go into the `ConnectionState`.
`session/closing.py` releases everything in the broker.

Spec: §2.2.4, §4.2.2; connection class; RabbitMQ rabbit_reader.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pamqp.base import Frame
from pamqp.commands import Connection

from amqpd.broker.access import User
from amqpd.broker.limits import MAX_CONNECTIONS, reached_limit
from amqpd.broker.vhost import Vhost
from amqpd.errors import ConnectionException, ReplyCode
from amqpd.session.heartbeats import Heartbeats
from amqpd.session.phases import LINGER_MS, Event, Phase, Phases
from amqpd.session.sasl import Circumstances, Respond, begin, offered
from amqpd.session.sasl_steps import Challenge, Login, ProvenLogin, SaslError, Step
from amqpd.session.scram import Verifiers
from amqpd.session.signals import SessionSignals
from amqpd.session.state import ConnectionState
from amqpd.wire.commands import Command, Method, memory_of
from amqpd.wire.methods import decode_method, encode_method, pack_close, pack_secure
from amqpd.wire.reader import Reader

HEADER_0_9_1 = b"AMQP\x00\x00\x09\x01"
ACCEPTED_HEADERS = (HEADER_0_9_1, b"AMQP\x01\x01\x00\x09")
SMALLEST_FRAME_MAX = 4_096
EARLY_COMMANDS = 100
_CLOSING_METHODS = {kind.index: kind for kind in (Connection.Close, Connection.CloseOk)}


class Handshake:
    """Moves one connection from phase to phase. `login` is the login that the server has to check."""

    def __init__(
        self, state: ConnectionState, phases: Phases, signals: SessionSignals[Any], heartbeats: Heartbeats,
        reader: Reader,
    ) -> None:
        self.login: Login | None = None
        self._respond: Respond              # of the mechanism that the client has chosen
        self._step: Step                    # what came of the client's last answer
        self._admitted: User | None = None  # who is logged in once the client has our last words
        self._state = state
        self._phases = phases
        self._signals = signals
        self._heartbeats = heartbeats
        self._reader = reader
        self._header = b""
        self._early: list[Command] = []     # commands that came while the password was checked
        self._early_bytes = 0

    def _send(self, method: Frame) -> None:
        self._state.outbox.write(encode_method(0, method))

    # Before the connection is open

    def take_header(self, data: bytes) -> bytes:
        """Take the protocol header, Spec: §4.2.2; return the bytes after it."""
        state = self._state
        self._header += data
        header, rest = self._header[:8], self._header[8:]
        if len(header) < 8 and HEADER_0_9_1.startswith(header[:4]):
            return b""
        state.log.info("accepting AMQP connection <0.%d.0> (%s)", state.number, state.name)
        if header not in ACCEPTED_HEADERS:
            state.log_end(f"not an AMQP 0-9-1 client: it began with {header!r}{_advice(header)}")
            state.outbox.write(HEADER_0_9_1)
            self.finish()
            return b""
        self._phases.begin(Event.HEADER)
        self._signals.handshake_advanced()
        state.outbox.write(state.settings.start_frame(offered(self._circumstances)))
        return rest

    def on_command(self, command: Command) -> None:
        """Take a command before the connection is open. Raises ConnectionException."""
        if self._phases.current is Phase.AUTHENTICATING:
            self._keep_for_later(command)
        elif self._phases.current is Phase.CLOSING:
            self._on_command_while_closing(command)
        elif isinstance(command, Method):
            self._on_handshake(command)
        else:
            self.refuse_silently("content during the handshake")

    def _keep_for_later(self, command: Command) -> None:
        """Keep a command: a client need not wait for the result of its login, but only few commands are kept."""
        self._early.append(command)
        self._early_bytes += memory_of(command)
        if len(self._early) > EARLY_COMMANDS or self._early_bytes > self._state.settings.early_bytes:
            self.refuse_silently("too many commands before the login was answered")

    def _on_handshake(self, command: Method) -> None:
        """Take a method before the connection is open; end without a reply if it is not allowed, as on RabbitMQ."""
        try:
            method = decode_method(command.payload)
        except ConnectionException as error:
            self.refuse_silently(error.reply_text)
            return
        if command.channel or not self._phases.allows(type(method)):
            self.refuse_silently(f"unexpected {method.name} during the handshake")
            return
        try:
            self._answer(type(method), method)
        except SaslError as error:
            self.refuse_silently(str(error))
        if self._phases.current is Phase.AUTHENTICATING:
            self._go_on_with_login()

    def _answer(self, kind: type[Frame], method: Frame | None) -> None:
        ANSWERS[kind](self, method)
        self._phases.begin(kind)

    # The login

    @property
    def _circumstances(self) -> Circumstances:
        state = self._state
        login = state.settings.login
        return Circumstances(
            login, Verifiers(state.broker.users, login.made_up_verifiers), state.is_private, state.peer_certificate)

    def _on_start_ok(self, method: Connection.StartOk) -> None:
        """Begin a login with the mechanism that the client has chosen."""
        self._state.client_properties = dict(method.client_properties)
        self._state.mechanism = method.mechanism
        self._respond = begin(method.mechanism, self._circumstances)
        self._step = self._respond(_bytes(method.response or b""))

    def _on_secure_ok(self, method: Connection.SecureOk) -> None:
        """Give the mechanism the answer to its challenge; our last words need none."""
        if self._admitted is None:
            self._step = self._respond(_bytes(method.response or b""))
        elif method.response:
            raise SaslError(f"malformed {self._state.mechanism} response: the login was complete")

    def _go_on_with_login(self) -> None:
        """Challenge the client, or let the server check the login: it calls `logged_in` or `login_failed`."""
        if self._admitted is not None:
            self._complete_login(self._admitted)
        elif isinstance(self._step, Challenge):
            self._challenge(self._step.data)
        else:
            self.login = self._step
        self._signals.handshake_advanced()

    def _challenge(self, data: bytes) -> None:
        self._state.outbox.write(pack_secure(data))
        self._phases.begin(Event.CHALLENGED)

    def logged_in(self, user: User) -> list[Command]:
        """Go on to tuning, as the login was right; return the commands that came meanwhile."""
        login, self.login = self.login, None
        if self._phases.current is not Phase.AUTHENTICATING:
            return []
        if isinstance(login, ProvenLogin) and login.last_words:
            self._admitted = user
            self._challenge(login.last_words)
        else:
            self._complete_login(user)
        early, self._early = self._early, []
        return early

    def _complete_login(self, user: User) -> None:
        settings = self._state.settings
        self._state.user = user
        self._tell_of_login("success", user.name)
        self._phases.begin(Event.LOGGED_IN)
        self._send(Connection.Tune(settings.channel_max, settings.frame_max, settings.heartbeat_s))

    def login_failed(self, reason: str) -> None:
        """Refuse the login. The reason is for the log; the client always gets the same text."""
        assert self.login is not None
        state = self._state
        state.log_login_refused(self.login.user, reason)
        self._tell_of_login("failure", self.login.user, error=reason)
        self.login = None
        self._early.clear()
        if self._phases.current is not Phase.AUTHENTICATING:
            return
        if state.client_can("authentication_failure_close"):
            state.outbox.write(pack_close(
                0, ReplyCode.ACCESS_REFUSED,
                f"ACCESS_REFUSED - Login was refused using authentication mechanism {state.mechanism}. "
                "For details see the broker logfile.", 0, 0))
            self._phases.await_close_ok(LINGER_MS, event=Event.LOGIN_FAILED)
        else:
            self.finish()

    def _tell_of_login(self, result: str, user: str, **facts: str) -> None:
        state = self._state
        state.broker.events.tell(
            f"user.authentication.{result}", None, by=user, user=user, connection=state.name,
            mechanism=state.mechanism, is_tls=state.tls is not None, **facts)

    # After the login

    def _on_tune_ok(self, method: Connection.TuneOk) -> None:
        state, settings = self._state, self._state.settings
        for field, value, least, most in (
            ("channel_max", method.channel_max, 1, settings.channel_max),
            ("frame_max", method.frame_max, SMALLEST_FRAME_MAX, settings.frame_max),
        ):
            if least <= value <= most:
                continue
            side, bound = ("lower than the minimum", least) if value < least else ("higher than the maximum", most)
            raise ConnectionException(
                ReplyCode.NOT_ALLOWED, f"negotiated {field} = {value} is {side} allowed value ({bound})",
                method=(10, 31))
        state.channel_max = method.channel_max
        state.frame_max = self._reader.frame_max = method.frame_max
        self._heartbeats.interval_s = method.heartbeat

    def _on_open(self, method: Connection.Open) -> None:
        state = self._state
        assert state.user is not None
        name, user, broker, limit = method.virtual_host, state.user, state.broker, state.settings.connection_limit
        refusal = ""
        if name not in broker.vhosts:
            refusal = f"vhost {name} not found"
        elif broker.users.get(user.name) is not user or not user.may_enter(name):     # or was deleted since the login
            refusal = f"access to vhost '{name}' refused for user '{user.name}'"
        elif len(broker.connections) >= limit:
            refusal = f"connection refused: node connection limit ({limit}) is reached"
        else:
            refusal = _limit_refusal(broker.vhosts[name], user)
        if refusal:
            raise ConnectionException(ReplyCode.NOT_ALLOWED, refusal, method=(10, 40))
        state.log.info(
            "connection %s: user '%s' authenticated and granted access to vhost '%s'", state.title, user.name, name)
        state.vhost = broker.vhosts[name]
        state.count_connection(1)
        self._phases.drop_at_ms = None
        self._signals.enter(broker, state.number)
        state.tell("connection.created")
        self._send(Connection.OpenOk())

    # The open connection

    def on_method_when_open(self, method: Frame) -> None:
        """Answer a method of channel 0. Raises ConnectionException."""
        if not self._phases.allows(type(method)):
            raise ConnectionException(ReplyCode.CHANNEL_ERROR, "unexpected method in connection state running")
        self._answer(type(method), method)

    def _on_update_secret(self, method: Connection.UpdateSecret) -> None:
        self._send(Connection.UpdateSecretOk())

    # Closing

    def _on_command_while_closing(self, command: Command) -> None:
        """Handle only the client's close and close-ok, even with invalid arguments."""
        if isinstance(command, Method) and not command.channel:
            kind = _CLOSING_METHODS.get(int.from_bytes(command.payload[:4], "big"))
            if kind is not None:
                self._answer(kind, None)

    def _on_close(self, method: Connection.Close | None) -> None:
        self._send(Connection.CloseOk())
        self._say_no_more(peer_closes=True)

    def _on_close_ok(self, method: Connection.CloseOk | None) -> None:
        self._say_no_more()

    def finish(self) -> None:
        """Ignore further input; the socket is closed after the last output."""
        self._phases.begin(Event.END)
        self._say_no_more()

    def _say_no_more(self, *, peer_closes: bool = False) -> None:
        self._phases.say_no_more(peer_closes=peer_closes)
        self._state.outbox.note()

    def refuse_silently(self, reason: str) -> None:
        """End without a reply, after a delay that slows down guessing. RabbitMQ: rabbit_reader."""
        self._state.log_end(reason)
        self._phases.begin(Event.END)
        self.login = None       # the result is no longer needed
        self._early.clear()
        self._phases.linger()

    def turn_out(self, reason: str) -> None:
        """End without a reply: the server is about to close the socket."""
        self._state.log_end(reason, logging.INFO)
        self._phases.begin(Event.END)


def _bytes(value: str | bytes) -> bytes:
    """Return the bytes of a long string, which `decode_method` returns as text if it is UTF-8."""
    return value.encode() if isinstance(value, str) else bytes(value)


# The action for each method in the table of phases.
ANSWERS: dict[type[Frame], Callable[[Handshake, Any], None]] = {
    Connection.StartOk: Handshake._on_start_ok,
    Connection.SecureOk: Handshake._on_secure_ok,
    Connection.TuneOk: Handshake._on_tune_ok,
    Connection.Open: Handshake._on_open,
    Connection.UpdateSecret: Handshake._on_update_secret,
    Connection.Close: Handshake._on_close,
    Connection.CloseOk: Handshake._on_close_ok,
}


def _limit_refusal(vhost: Vhost, user: User) -> str:
    """Return the refusal of a connection beyond the limit of the vhost or the user; "" if there is room."""
    limit = reached_limit(vhost.limits, MAX_CONNECTIONS, vhost.connection_count)
    if limit is not None:
        return f"access to vhost '{vhost.name}' refused for user '{user.name}': connection limit ({limit}) is reached"
    limit = reached_limit(user.definition.limits, MAX_CONNECTIONS, user.connection_count)
    if limit is not None:
        return f"connection refused for user '{user.name}': user connection limit ({limit}) is reached"
    return ""


def _advice(header: bytes) -> str:
    """Return what may help a client that speaks another protocol."""
    if header.startswith(b"\x16\x03"):
        return "; it speaks TLS: connect it to a listener for TLS (tls.listeners), or let it use amqp instead of amqps"
    if header.startswith((b"GET ", b"POST ", b"HEAD ", b"PUT ")):
        return "; it speaks HTTP, and this port AMQP"
    return ""
