"""A client's talk with a session, in pamqp's frames: octets in, octets out, without a socket or a clock.

`Stage` does what a server does around sessions: it commits the journal, checks passwords, and keeps the time. The end
of each turn is the server's own (`LoopTurn`), so effects have the same order as in the server. `Talk` is one client on
it. The input of a client arrives octet by octet or all at once, as the stage was told. What the broker sends is
compared with what the test expects, in order; a mismatch shows the whole talk of all clients.

After all input of a client, the invariants of sessions, queues and vhosts are checked; at the end of a test the broker
must have nothing more to send.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from pamqp import frame
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Connection
from pamqp.exceptions import UnmarshalingException
from pamqp.header import ContentHeader, ProtocolHeader
from pamqp.heartbeat import Heartbeat

from amqpd.broker.broker import Broker
from amqpd.broker.clock import Clock
from amqpd.broker.definitions import PermissionDefinition, UserDefinition, VhostDefinition
from amqpd.broker.queue.page_limits import PAGE_LIMITS, PageLimits
from amqpd.server.loop import LoopTurn
from amqpd.session.connection import Session
from amqpd.session.sasl_steps import ProvenLogin
from amqpd.session.settings import SessionSettings
from amqpd.wire.contents import Intake
from tests.support.journals import RecordingJournal
from tests.support.page_stores import PageStoreInMemory, stored
from tests.support.turns import StageClient, StageCommitter, StagePages, StageTimers

CAPABILITIES: dict[str, Any] = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
}
SETTINGS = SessionSettings(server_properties={"product": "amqpd", "capabilities": {"basic.nack": True}})
START_MS = 1_000_000
START_WALL_MS = 1_700_000_000_000
LARGEST_FRAME = 131_072

Said = Frame | ProtocolHeader | Heartbeat
AnyMethod = TypeVar("AnyMethod", bound=Said)


class Unknown(Frame):
    """A method that pamqp does not know."""

    name = "Unknown"
    __slots__ = ["payload"]

    def __init__(self, payload: bytes) -> None:
        self.payload = payload


class Heard(NamedTuple):
    """One thing the broker said: a method with its content, a heartbeat, or a protocol header."""

    channel: int
    said: Any       # of type Said; tests know what they expect
    properties: Basic.Properties | None = None
    body: bytes | None = None


class Stage:
    """A broker with a vhost `/`, the users `guest` and `bob` who may do everything, and their clients."""

    def __init__(
        self, *, piece: int = 0, journal: RecordingJournal | None = None, settings: SessionSettings = SETTINGS,
        first_number: int = 1, page_limits: PageLimits = PAGE_LIMITS,
    ) -> None:
        self.piece = piece              # octets a client says at a time; 0 for all at once
        self.journal = journal if journal is not None else RecordingJournal()
        self.settings = settings
        self.now_ms = START_MS
        self.commits_at_once = True
        self.looks_at_passwords = True
        self.want_in: list[Session] = []        # whose password is to be looked at
        self.lines: list[str] = []
        self.talks: dict[Session, Talk] = {}
        self.page_store = PageStoreInMemory(self.journal.read, page_limits=page_limits)
        self.broker = Broker(
            self.journal, first_number=first_number, clock=Clock(START_MS, START_WALL_MS), page_store=self.page_store)
        self._is_turning = False
        self.timers = StageTimers(lambda: self.now_ms)
        self.loop_turn = LoopTurn(self.broker, self.timers, lambda: self.now_ms)
        self.loop_turn.committer = StageCommitter(self)
        self.loop_turn.page_store = self._pages = StagePages(self.page_store, self.loop_turn)
        if not self.journal.now.definitions:
            self._furnish()
        else:
            self.broker.restore(self.journal.now.in_order())
            kept = self.journal.now
            self.broker.restore_messages(
                {number: stored([messages[key] for key in sorted(messages)], kept.expiries[number])
                 for number, messages in kept.messages.items()},
                {}, kept.watermarks, kept.deliveries)

    def _furnish(self) -> None:
        self.broker.add_vhost(VhostDefinition("/"))
        for name in ("guest", "bob"):
            self.broker.users.add(UserDefinition(name))
            self.broker.users.set_permissions(PermissionDefinition(name, "/", ".*", ".*", ".*"))
        self.journal.commit()

    def stranger(self) -> Talk:
        """Return a client that has connected and sent nothing yet."""
        name = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[len(self.talks) % 26]
        session = self.begin_session(40_000 + len(self.talks), len(self.talks) + 1)
        self.talks[session] = talk = Talk(self, session, name)
        return talk

    def begin_session(self, port: int, number: int) -> Session:
        """Begin the session of a client with this port."""
        session = Session(
            self.broker, self.settings, self.loop_turn, f"10.0.0.1:{port} -> 10.0.0.2:5672", self.now_ms,
            number=number, intake=self.intake)
        self.loop_turn.protocols[session] = StageClient(self, session)
        return session

    def client(self, user: str = "guest", **tuning: Any) -> Talk:
        """Return a client whose connection is open."""
        return self.stranger().open(user, **tuning)

    # What happens around the sessions

    @property
    def intake(self) -> Intake:
        """The incomplete contents of all clients."""
        return self.loop_turn.intake

    @property
    def alarm(self) -> str:
        """The reason why nothing may be published, or ""."""
        return self.loop_turn.alarm

    @alarm.setter
    def alarm(self, reason: str) -> None:
        self.loop_turn.alarm = reason

    def set_alarm(self, reason: str) -> None:
        """Set an alarm, change its reason, or clear it with an empty reason."""
        self.loop_turn.set_alarm(reason)
        self.end_turn()

    def end_turn(self) -> None:
        """End the turn, and run further turns until nothing is left to do."""
        self._pages.begin()
        self.look_at_passwords()
        self.loop_turn.begin()
        self._turn_until_rest()
        self.check()

    def _turn_until_rest(self) -> None:
        self._is_turning = True
        try:
            while self.timers.soon:
                self.timers.turn()
                self.timers.run_due()
        finally:
            self._is_turning = False

    @property
    def has_deferred(self) -> bool:
        """Whether a client has to continue in another turn."""
        return bool(self.loop_turn._deferred or self.loop_turn._unfinished)

    def go_on_with_deferred(self) -> None:
        """Continue the clients that wait for another turn, and do nothing else."""
        for waiting in (self.loop_turn._deferred, self.loop_turn._unfinished):
            for _ in range(len(waiting)):
                waiting.popleft().go_on()

    def lose(self, session: Session) -> None:
        """Close the client's socket."""
        client = self.loop_turn.protocols.get(session)
        if client is not None:
            self.loop_turn.lose(client)

    def look_at_passwords(self) -> None:
        """Answer all logins. The password of a user is "secret " and the name."""
        while self.looks_at_passwords and self.want_in:
            session = self.want_in.pop(0)
            if session.login is None:       # it has gone
                continue
            login = session.login
            user = self.broker.users.get(login.user)
            is_right = not login.fault if isinstance(login, ProvenLogin) else login.password == f"secret {login.user}"
            if user is not None and is_right:
                session.logged_in(user)
            else:
                session.login_failed("the password is wrong")

    def commit(self) -> None:
        """Commit the journal's batch, and continue what waits for it."""
        first_deferred = self.journal.first_deferred
        number = self.journal.commit()
        self.page_store.safe_number = self.page_store.taken_number = self.broker.next_message_number - 1
        if first_deferred is not None:
            self.page_store.safe_number = first_deferred - 1
        self.page_store.committed_batch = number
        self._pages.begin()
        self.loop_turn.on_commit(number)
        self._pages.serve()
        if not self._is_turning:        # a test has it written, and wants to see what clients hear of that alone
            self.go_on_with_deferred()
            self.loop_turn._flush(self.now_ms)

    def check(self) -> None:
        """Assert what must hold between calls."""
        self.journal.pending_confirms.check()
        for session in self.talks:
            session.check()
        for vhost in self.broker.vhosts.values():
            vhost.check()
            for queue in vhost.queues.values():
                assert queue.records.kept_on_disk == len(self.journal.now.messages.get(queue.definition.number, ()))

    def pass_time(self, seconds: float) -> None:
        """Advance the clock, in quarters of a second as the server does."""
        for _ in range(round(seconds * 4)):
            self.now_ms += 250
            self.timers.run_due()
            self.loop_turn.begin()
            for session, talk in self.talks.items():
                if not talk.is_dropped and not session.tick(self.now_ms):
                    talk.is_dropped = True
                    talk.note("(is dropped)")
                    self.lose(session)
            self.end_turn()

    def forget(self, session: Session) -> None:
        """Forget the session; its talk is kept."""
        self.loop_turn.forget(session)
        self.want_in = [one for one in self.want_in if one is not session]

    # What was said

    def text(self) -> str:
        """The whole talk so far, a line each."""
        return "\n".join(self.lines)

    def assert_silent(self) -> None:
        """Everything the broker said has been expected."""
        for talk in self.talks.values():
            talk.nothing()


class Talk:
    """One client. Methods of class connection use channel 0, all others channel 1, unless `channel` is given."""

    def __init__(self, stage: Stage, session: Session, name: str) -> None:
        self.stage = stage
        self.session = session
        self.name = name
        self.is_dropped = False
        self.sent = bytearray()         # all octets the broker sent
        self._half = b""
        self._heard: deque[Heard] = deque()
        self._begun: dict[int, list[Any]] = {}

    # The client's part

    def client(
        self, *said: Said | bytes, channel: int | None = None, content: bytes | None = None,
        properties: Basic.Properties | None = None,
    ) -> Talk:
        """Send these methods, then the content if there is one."""
        return self.octets(b"".join(self._marshal(one, channel, content, properties) for one in said))

    def octets(self, octets: bytes) -> Talk:
        """Send these octets unchanged."""
        step = self.stage.piece or len(octets) or 1
        for start in range(0, len(octets), step):
            self._receive(octets[start : start + step])
        self.stage.end_turn()
        return self

    def _receive(self, octets: bytes) -> None:
        """Hand octets in as the server does: into a large body's own place where there is one."""
        session = self.session
        while octets:
            room = session.direct_room()
            if room is None:
                session.receive(octets, self.stage.now_ms)
                return
            size = min(len(room), len(octets))
            room[:size] = octets[:size]
            session.receive_direct(size, self.stage.now_ms)     # while the transport still holds the room
            octets = octets[size:]

    def _marshal(
        self, said: Said | bytes, channel: int | None, content: bytes | None, properties: Basic.Properties | None
    ) -> bytes:
        if isinstance(said, bytes):
            self.note(f"says {len(said)} octets {said[:24]!r}")
            return said
        number = self._channel(said, channel)
        self.note(f"says {describe(Heard(number, said, properties, content))}")
        octets = frame.marshal(said, number)
        if content is not None:
            octets += content_frames(number, content, properties, self.session.state.frame_max)
        return octets

    def _channel(self, said: Said, channel: int | None) -> int:
        if channel is not None:
            return channel
        return 1 if isinstance(said, Frame) and said.index >> 16 != Connection.frame_id else 0

    # The broker's part

    def take(self, pieces: Sequence[bytes]) -> None:
        """Take what the session sent, and decode it."""
        octets = b"".join(pieces)
        self.sent += octets
        octets = self._half + octets if self._half else octets
        at = 0
        while at < len(octets):
            end = at + frame_size(octets, at)
            assert end - at <= self.session.state.frame_max, "a frame is larger than frame-max"
            size, channel, value = unmarshal(octets[at:end])
            assert size == end - at, "a frame is not as long as it says"
            at = end
            self._put_together(channel, value)
        self._half = octets[at:]

    def _put_together(self, channel: int, value: Any) -> None:
        if isinstance(value, ContentHeader):
            begun = self._begun[channel]
            assert begun[1] is None, "two content headers"
            begun[1], begun[2] = value.properties, value.body_size
        elif isinstance(value, ContentBody):
            begun = self._begun[channel]
            begun[3] += value.value
        else:
            assert channel not in self._begun, "a method inside a content"
            self._begun[channel] = [value, None, 0, b""]
        method, properties, size, body = self._begun[channel]
        carries = isinstance(method, (Basic.Deliver, Basic.GetOk, Basic.Return))
        if carries and (properties is None or len(body) < size):
            return
        assert len(body) == size or not carries, "the body is longer than announced"
        del self._begun[channel]
        self._hear(Heard(channel, method, properties, body if carries else None))

    def _hear(self, heard: Heard) -> None:
        self.note(f"hears {describe(heard)}")
        self._heard.append(heard)

    def broker(
        self, *expected: Said, channel: int | None = None, content: bytes | None = None,
        properties: Basic.Properties | None = None,
    ) -> Talk:
        """Expect these methods next, the last one with this content."""
        __tracebackhide__ = True
        for one in expected:
            wanted = Heard(self._channel(one, channel), one)
            if content is not None and one is expected[-1]:
                wanted = wanted._replace(properties=properties or Basic.Properties(), body=content)
            heard = self._next(describe(wanted))
            if describe(heard) != describe(wanted):
                self._fail(describe(wanted), describe(heard))
        return self

    def hear(self, kind: type[AnyMethod]) -> AnyMethod:
        """Expect a method of this class next, and return it."""
        __tracebackhide__ = True
        heard = self._next(kind.name)
        if not isinstance(heard.said, kind):
            self._fail(kind.name, describe(heard))
        found: AnyMethod = heard.said
        return found

    def hear_all(self) -> list[Heard]:
        """Return all that the broker has sent and the test has not expected yet."""
        heard = list(self._heard)
        self._heard.clear()
        return heard

    def nothing(self) -> Talk:
        """Expect the broker to have said nothing more."""
        __tracebackhide__ = True
        if self._heard:
            self._fail("nothing", describe(self._heard[0]))
        assert not self._half and not self._begun, "half a frame, or half a content, was sent"
        return self

    def _next(self, expected: str) -> Heard:
        __tracebackhide__ = True
        if not self._heard:
            self._fail(expected, "nothing")
        return self._heard.popleft()

    def _fail(self, expected: str, heard: str) -> None:
        __tracebackhide__ = True
        raise AssertionError(
            f"client {self.name}\n  expected {expected}\n  heard    {heard}\nthe talk:\n{self.stage.text()}")

    def note(self, text: str) -> None:
        """Add a line to the record of the talk."""
        self.stage.lines.append(f"  {self.name} {text}")

    # Common passages

    def open(
        self, user: str = "guest", *, vhost: str = "/", channel_max: int = 2_047, frame_max: int = LARGEST_FRAME,
        heartbeat: int = 0, capabilities: dict[str, Any] | None = None,
    ) -> Talk:
        """Go through the handshake."""
        self.greet().log_in(user, capabilities=capabilities).hear(Connection.Tune)
        self.client(Connection.TuneOk(channel_max, frame_max, heartbeat), Connection.Open(vhost))
        return self.broker(Connection.OpenOk())

    def greet(self) -> Talk:
        """Send the protocol header, and expect connection.start."""
        self.client(ProtocolHeader()).hear(Connection.Start)
        return self

    def log_in(
        self, user: str = "guest", password: str = "", *, capabilities: dict[str, Any] | None = None
    ) -> Talk:
        """Answer connection.start with a user and, unless another is given, the right password."""
        known: Any = CAPABILITIES if capabilities is None else capabilities
        password = password or f"secret {user}"
        return self.client(Connection.StartOk({"capabilities": known}, "PLAIN", f"\0{user}\0{password}", "en_US"))

    def open_channel(self, channel: int = 1) -> Talk:
        """Open a channel."""
        self.client(Channel.Open(), channel=channel).hear(Channel.OpenOk)
        return self

    def close_channel(self, channel: int = 1) -> Talk:
        """Close a channel."""
        return self.client(Channel.Close(200, "bye", 0, 0), channel=channel).broker(Channel.CloseOk(), channel=channel)

    def closed(self, code: int, text: str, class_id: int, method_id: int, channel: int = 1) -> Talk:
        """Expect the broker to close the channel, and agree; the channel can be opened again then."""
        self.broker(Channel.Close(code, text, class_id, method_id), channel=channel)
        return self.client(Channel.CloseOk(), channel=channel)

    def hung_up(self, code: int, text: str, class_id: int, method_id: int) -> Talk:
        """Expect the broker to close the connection, and agree."""
        self.broker(Connection.Close(code, text, class_id, method_id)).client(Connection.CloseOk())
        assert self.session.is_finished
        return self

    def publish(
        self, routing_key: str, *bodies: bytes, exchange: str = "", mandatory: bool = False, persistent: bool = False,
        channel: int = 1, properties: Basic.Properties | None = None,
    ) -> Talk:
        """Publish these bodies, all in one go."""
        method = Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
        if persistent:
            properties = Basic.Properties(delivery_mode=2)
        return self.octets(b"".join(self._marshal(method, channel, body, properties) for body in bodies))

    def lose(self) -> Talk:
        """The socket is gone."""
        self.note("(is gone)")
        self.stage.lose(self.session)
        self.stage.end_turn()
        return self

    def stop_reading(self) -> Talk:
        """The transport of this client is full."""
        self.session.state.is_writable = False
        return self

    def read_on(self) -> Talk:
        """Note that the transport has room again."""
        self.session.state.is_writable = True
        self.session.resume()
        self.stage.end_turn()
        return self


def frame_size(octets: bytes, at: int) -> int:
    """The size of the frame that begins here; the protocol header has eight octets."""
    return 8 if octets[at : at + 4] == b"AMQP" else int.from_bytes(octets[at + 3 : at + 7], "big") + 8


def unmarshal(octets: bytes) -> tuple[int, int, Any]:
    """The size of the first frame, its channel, and what pamqp makes of it: octets, if it does not know the method."""
    try:
        return frame.unmarshal(octets)
    except UnmarshalingException:
        _, channel, size = frame.frame_parts(octets)
        assert size is not None and octets[size + 7] == 0xCE, f"not a frame: {octets!r}"
        return size + 8, channel, Unknown(octets[7 : size + 7])


def counted(failures: int) -> Basic.Properties:
    """The properties of a message without any, once it has been given back this often."""
    return Basic.Properties(headers={"x-delivery-count": failures})


def content_frames(
    channel: int, content: bytes, properties: Basic.Properties | None = None, frame_max: int = LARGEST_FRAME
) -> bytes:
    """The header frame and body frames of a content."""
    octets = frame.marshal(ContentHeader(0, len(content), properties), channel)
    step = frame_max - 8
    for start in range(0, len(content), step):
        octets += frame.marshal(ContentBody(content[start : start + step]), channel)
    return octets


def describe(heard: Heard) -> str:
    """What was said, in a line; two that differ read differently. Zeros and empty values are left out."""
    said = heard.said
    arguments = ", ".join(f"{name}={value!r}" for name, value in said if value) if isinstance(said, Frame) else ""
    text = f"{said.name}({arguments}) on {heard.channel}"
    if isinstance(said, ProtocolHeader):
        text += f" {said.marshal()!r}"
    if heard.body is not None:
        given = [f"{name}={value!r}" for name, value in heard.properties or () if value not in (None, "")]
        text += f" with [{', '.join(given)}] " + (
            repr(heard.body) if len(heard.body) < 80 else f"{heard.body[:20]!r} … {hash(heard.body)}")
    return text
