"""The transport of a client: when it is read and written, and how it ends."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pamqp import frame
from pamqp.commands import Basic, Channel, Connection, Queue
from pamqp.header import ProtocolHeader

from amqpd.broker.broker import Broker
from amqpd.broker.definitions import PermissionDefinition, UserDefinition, VhostDefinition
from amqpd.server import connection as connection_module
from amqpd.server.connection import ClientProtocol
from amqpd.server.listener import Listeners
from amqpd.server.loop import LoopTurn
from amqpd.server.read_shares import LITTLE, SCRAP, TURN_STEPS, ReadShares
from amqpd.server.unauthenticated import Unauthenticated
from amqpd.session.phases import Phase
from amqpd.session.settings import SessionSettings
from amqpd.store.journal import MemoryJournal
from tests.support.loops import FakeLoop
from tests.support.talk import content_frames

HANDSHAKE = b"".join((
    ProtocolHeader().marshal(),
    frame.marshal(Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US"), 0),
    frame.marshal(Connection.TuneOk(2_047, 131_072, 0), 0),
    frame.marshal(Connection.Open("/"), 0),
    frame.marshal(Channel.Open(), 1),
))
CLOSE = frame.marshal(Connection.Close(200, "bye", 0, 0), 0)
CLOSE_OK = frame.marshal(Connection.CloseOk(), 0)
PUBLISH = frame.marshal(Basic.Publish(routing_key="q"), 1) + content_frames(1, bytes(1_000))


class FakeTransport(asyncio.Transport):
    """A transport that keeps what is written, in the pieces that it was given."""

    def __init__(self) -> None:
        super().__init__()
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.peer = socket.create_connection(server.getsockname())
            self.socket, _ = server.accept()
        self.writes: list[bytes] = []
        self.calls: list[str] = []
        self.is_closed = False
        self.unsent = 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"socket": self.socket}[name]

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.calls.append(f"limits {high} {low}")

    def write(self, data: Any) -> None:
        assert "eof" not in self.calls, "nothing can be written after the end"
        self.writes.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.calls.append(f"writelines {len(list(list_of_data))}")
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        self.calls.append("eof")

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.is_closed = True
        self.calls.append("abort")

    def close_sockets(self) -> None:
        """Close both ends of the connection."""
        self.peer.close()
        self.socket.close()


class WatchedShares(ReadShares):
    """Shares that record the paused readers, and never continue them."""

    def __init__(self) -> None:
        super().__init__()
        self.again: list[Any] = []      # who rests until the others had their turn
        self.later: list[Any] = []      # who is not read until more can be taken

    def rest(self, reader: Any) -> None:
        self.again.append(reader)

    def hold(self, reader: Any) -> None:
        self.later.append(reader)


class WatchedPass(LoopTurn):
    """A turn that ends when the test says so."""

    def __init__(self, broker: Broker) -> None:
        self.turns = FakeLoop()
        super().__init__(broker, self.turns)
        self.shares: WatchedShares = WatchedShares()


class FakeLogins:
    """Logins that succeed as `guest`, when the test says so."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.asked: list[Any] = []
        self.answers_at_once = True

    def check(self, session: Any, address: str, on_logged_in: Callable[[], None]) -> None:
        self.asked.append(address)
        if self.answers_at_once:
            session.logged_in(self.broker.users["guest"])
            on_logged_in()


class Client:
    """A client on a socket that is none."""

    def __init__(self, limit: int = 1 << 20) -> None:
        self.broker = Broker(MemoryJournal())
        self.broker.add_vhost(VhostDefinition("/"))
        self.broker.users.add(UserDefinition("guest"))
        self.broker.users.set_permissions(PermissionDefinition("guest", "/", ".*", ".*", ".*"))
        self.turn = WatchedPass(self.broker)
        self.logins = FakeLogins(self.broker)
        settings = SessionSettings(server_properties={}, outgoing_limit=limit)
        self.unauthenticated: Unauthenticated[ClientProtocol] = Unauthenticated(4, 2)
        loop: Any = self.turn.turns
        logins: Any = self.logins
        self.listeners = Listeners(self.broker, settings, self.turn, logins, self.unauthenticated, loop)
        self.transport = FakeTransport()
        self.protocol = ClientProtocol(
            self.listeners, self.turn, self.listeners.buffer, settings.outgoing_limit, ("10.0.0.1", 40_000),
            ("10.0.0.2", 5_672))
        self.protocol.connection_made(self.transport)

    def say(self, octets: bytes) -> None:
        """Let the transport read these, as an event loop would, in as many reads as it takes."""
        while octets:
            buffer = self.protocol.get_buffer(-1)
            size = min(len(buffer), len(octets))
            memoryview(buffer)[:size] = octets[:size]
            self.protocol.buffer_updated(size)
            octets = octets[size:]

    def say_all(self, octets: bytes) -> None:
        """Send this, and end the turn."""
        self.say(octets)
        self.turn.turns.run_out()

    @property
    def session(self) -> Any:
        return self.protocol.session

    def heard(self) -> bytes:
        octets = b"".join(self.transport.writes)
        self.transport.writes.clear()
        return octets


@pytest.fixture
def client() -> Iterator[Client]:
    """A client that has connected."""
    client = Client()
    yield client
    client.transport.close_sockets()


@pytest.fixture
def open_client(client: Client) -> Client:
    """A client whose channel 1 is open."""
    client.say_all(HANDSHAKE)
    assert client.session.phases.current is Phase.OPEN
    client.heard()
    return client


def test_a_pass_ends_in_one_write(client: Client) -> None:
    client.say_all(HANDSHAKE)
    assert len(client.transport.writes) == 1
    assert client.session.traffic.sent_bytes == len(client.heard())
    statistics = client.session.statistics()
    assert (statistics.received_count, statistics.sent_count, statistics.unsent_bytes) == (1, 1, 0)


def test_what_the_peer_has_not_taken_yet_is_pending(open_client: Client) -> None:
    open_client.transport.unsent = 5_000
    assert open_client.session.statistics().unsent_bytes == 5_000


def test_sockets_are_told_to_send_at_once_and_to_notice_the_dead(client: Client) -> None:
    options = client.transport.socket
    assert options.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert options.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert options.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 90_000


def test_a_password_is_looked_at_once_however_much_is_said_meanwhile(client: Client) -> None:
    client.logins.answers_at_once = False
    for start in range(0, len(HANDSHAKE), 3):
        client.say_all(HANDSHAKE[start : start + 3])
    assert client.logins.asked == ["10.0.0.1"]
    client.session.logged_in(client.broker.users["guest"])
    assert client.session.phases.current is Phase.OPEN


def test_the_password_of_a_client_that_has_disconnected_is_not_checked(client: Client) -> None:
    client.transport.peer.close()
    client.say_all(HANDSHAKE)
    assert not client.logins.asked


def is_of(shared: bytearray, room: bytearray | memoryview) -> bool:
    """Return whether this buffer is part of the one that all connections share."""
    return isinstance(room, memoryview) and room.obj is shared


def test_a_large_body_is_read_into_its_own_place(open_client: Client) -> None:
    publish = frame.marshal(Basic.Publish(routing_key="q"), 1) + content_frames(1, bytes(400_000))
    open_client.say_all(frame.marshal(Queue.Declare(queue="q"), 1) + publish[:70_000])
    shared = open_client.listeners.buffer
    assert not is_of(shared, open_client.protocol.get_buffer(-1))
    open_client.say_all(publish[70_000:])
    assert is_of(shared, open_client.protocol.get_buffer(-1))
    message, = open_client.broker.vhosts["/"].queues["q"].ready
    assert message.body == bytes(400_000)


def test_who_says_a_lot_rests_while_others_wait(open_client: Client) -> None:
    size = len(open_client.listeners.buffer)
    publish = frame.marshal(Basic.Publish(routing_key="q"), 1) + content_frames(1, bytes(1_000))
    run = publish * (3 * size // len(publish))
    open_client.say(run[:size])
    assert open_client.turn.shares.again == [] and open_client.session.is_read, "it is alone"
    open_client.turn.shares.begin_turn()
    ReadShares.rest(open_client.turn.shares, open_client.protocol)      # it stands for somebody else here
    open_client.say(run[size : 2 * size])
    assert open_client.turn.shares.again == [open_client.protocol] and not open_client.session.is_read
    assert open_client.transport.calls[-1] == "pause"
    assert open_client.protocol.expected_steps > size // 2_000, "what it sent is what it is expected to send"
    open_client.protocol.resume_reading()
    assert open_client.session.is_read and open_client.transport.calls[-1] == "resume"


def test_a_spent_turn_leaves_a_scrap_for_everybody(open_client: Client) -> None:
    shares = open_client.turn.shares
    other: Any = SimpleNamespace(expected_steps=0, has_rested=False)
    shares.has_read(other, 1, 2, TURN_STEPS)
    assert len(open_client.protocol.get_buffer(-1)) == SCRAP
    shares.begin_turn()
    assert len(open_client.protocol.get_buffer(-1)) == len(open_client.listeners.buffer)


def test_a_full_journal_stops_the_reading_of_those_who_send_much(open_client: Client) -> None:
    open_client.turn.committer.backlog.is_full = True
    open_client.say(PUBLISH)
    assert open_client.session.is_read
    open_client.say(PUBLISH * (2 * LITTLE))
    open_client.say(PUBLISH)
    assert open_client.turn.shares.later == [open_client.protocol] and not open_client.session.is_read


def test_a_journal_that_is_over_full_stops_the_reading_of_everybody(open_client: Client) -> None:
    backlog = open_client.turn.committer.backlog
    backlog.is_overfull = backlog.is_full = True
    open_client.say(PUBLISH)
    open_client.say(PUBLISH)
    assert open_client.turn.shares.later == [open_client.protocol] and not open_client.session.is_read


def test_while_consumers_are_behind_those_who_publish_much_are_not_read_on_and_others_are(open_client: Client) -> None:
    open_client.broker.is_behind = True
    open_client.say(frame.marshal(Channel.Flow(True), 1))
    assert open_client.turn.shares.later == [] and open_client.session.is_read, "it has published nothing"
    open_client.say(PUBLISH * (4 * LITTLE))
    assert open_client.turn.shares.later == [open_client.protocol] and not open_client.session.is_read


def test_a_full_transport_stops_deliveries_until_it_has_drained(open_client: Client) -> None:
    declare = frame.marshal(Queue.Declare(queue="q"), 1) + frame.marshal(Basic.Consume(queue="q", no_ack=True), 1)
    open_client.say_all(declare)
    open_client.heard()
    open_client.protocol.pause_writing()
    open_client.say_all(frame.marshal(Basic.Publish(routing_key="q"), 1) + content_frames(1, b"body"))
    assert open_client.heard() == b""
    open_client.protocol.resume_writing()
    open_client.turn.turns.run_out()
    assert b"body" in open_client.heard()


def test_more_than_the_outbox_holds_is_delivered_pass_by_pass() -> None:
    client = Client(limit=10_000)
    client.say_all(HANDSHAKE)
    publish = frame.marshal(Basic.Publish(routing_key="q"), 1) + content_frames(1, bytes(1_000))
    client.say_all(frame.marshal(Queue.Declare(queue="q"), 1) + publish * 100)
    client.heard()
    client.say(frame.marshal(Basic.Consume(queue="q", no_ack=True), 1))
    client.turn.turns.turn()
    assert 9_000 < len(client.heard()) < 13_000
    client.turn.turns.run_out()
    assert len(client.heard()) > 80_000
    client.transport.close_sockets()


def test_large_pieces_are_not_joined_before_they_are_written(open_client: Client) -> None:
    publish = frame.marshal(Basic.Publish(routing_key="nowhere", mandatory=True), 1) + content_frames(1, bytes(120_000))
    open_client.say_all(publish)
    assert open_client.transport.calls[-1].startswith("writelines")
    assert len(open_client.heard()) > 120_000


def test_a_huge_content_in_small_frames_is_not_joined_either(open_client: Client) -> None:
    open_client.say_all(b"".join((
        frame.marshal(Queue.Declare(queue="q"), 1), frame.marshal(Channel.Open(), 2),
        frame.marshal(Basic.Consume(queue="q", no_ack=True), 2))))
    content = content_frames(1, bytes(1 << 21), None, 4_096)
    open_client.say_all(frame.marshal(Basic.Publish(routing_key="q"), 1) + content)
    assert open_client.transport.calls[-1].startswith("writelines")


# Alarms

def test_a_blocked_client_is_read_in_small_pieces_and_then_not_at_all(open_client: Client) -> None:
    open_client.turn.set_alarm("low on disk")
    open_client.say(PUBLISH)
    assert len(open_client.protocol.get_buffer(-1)) == connection_module.READ_WHILE_BLOCKED
    open_client.say_all(PUBLISH * 15)
    assert open_client.session.is_read
    open_client.say_all(PUBLISH)
    assert not open_client.session.is_read and open_client.transport.calls[-1] == "pause"
    open_client.protocol.resume_reading()
    assert not open_client.session.is_read and open_client.transport.calls[-1] == "pause"
    open_client.turn.set_alarm("")
    open_client.turn.turns.run_out()
    open_client.turn.shares.again.pop().resume_reading()
    assert open_client.session.is_read and open_client.transport.calls[-1] == "resume"


def test_the_shared_buffer_may_be_used_by_others_while_a_client_is_blocked(open_client: Client) -> None:
    """What was read together with the publish that blocked is still what it was afterwards."""
    bodies = [bytes((number,)) * 100_000 for number in range(3)]
    publishes = [frame.marshal(Basic.Publish(routing_key="q"), 1) + content_frames(1, body) for body in bodies]
    open_client.say_all(frame.marshal(Queue.Declare(queue="q"), 1) + publishes[0][:50_000])
    open_client.protocol.session.receive(publishes[0][50_000:60_000], 0)
    open_client.turn.set_alarm("low on disk")
    open_client.say(publishes[0][60_000:] + publishes[1] + publishes[2])
    assert open_client.session.blocking.is_blocked
    open_client.listeners.buffer[:] = bytes(len(open_client.listeners.buffer))
    open_client.turn.set_alarm("")
    open_client.turn.turns.run_out()
    assert [message.body for message in open_client.broker.vhosts["/"].queues["q"].ready] == bodies


def test_the_kernel_tells_whether_a_peer_that_is_not_read_is_there(open_client: Client) -> None:
    peer, connection = open_client.transport.peer, open_client.transport.socket
    peer.send(b"octet")
    age = connection.recv(5) and open_client.protocol.acknowledged_ms_ago()
    assert isinstance(age, int) and age < 5_000 and not open_client.protocol.has_gone
    peer.send(b"unread")
    peer.close()
    assert select.select([connection], [], [], 5)[0] and connection.recv(6)
    assert select.select([connection], [], [], 5)[0]
    assert open_client.protocol.acknowledged_ms_ago() is None and open_client.protocol.has_gone


def test_where_the_kernel_does_not_tell_the_peer_counts_as_alive(open_client: Client) -> None:
    open_client.transport.socket.close()
    assert open_client.protocol.acknowledged_ms_ago() == 0 and not open_client.protocol.has_gone


# The end

def test_a_client_that_closes_hears_so_and_closes_its_socket_itself(open_client: Client) -> None:
    open_client.say_all(CLOSE)
    assert open_client.heard().endswith(CLOSE_OK)
    assert "eof" not in open_client.transport.calls and not open_client.transport.is_closed


def test_a_client_that_agreed_to_our_close_hears_the_end(open_client: Client) -> None:
    open_client.session.force_close("enough")
    open_client.turn.turns.run_out()
    assert b"CONNECTION_FORCED - enough" in open_client.heard()
    open_client.say_all(CLOSE_OK)
    assert open_client.transport.calls[-1] == "eof"


def test_another_protocol_hears_ours_and_then_the_end(client: Client) -> None:
    client.say_all(b"GET / HTTP/1.1\r\n\r\n")
    assert client.heard() == ProtocolHeader().marshal() and client.transport.calls[-1] == "eof"
    client.say_all(b"Host: nobody\r\n")
    assert client.heard() == b""


def test_an_end_that_is_due_is_read_for_even_if_reading_was_stopped(open_client: Client) -> None:
    backlog = open_client.turn.committer.backlog
    backlog.is_overfull = backlog.is_full = True
    open_client.say(CLOSE)
    assert not open_client.session.is_read
    open_client.turn.turns.run_out()
    assert open_client.session.is_read and open_client.transport.calls[-1] == "resume"


def test_nothing_is_written_to_a_socket_that_is_closing(open_client: Client) -> None:
    open_client.transport.is_closed = True
    open_client.say_all(frame.marshal(Basic.Qos(), 1))
    assert open_client.heard() == b""
    open_client.protocol.resume_reading()
    assert "resume" not in open_client.transport.calls


def test_a_lost_socket_ends_the_session(open_client: Client) -> None:
    open_client.say_all(frame.marshal(Queue.Declare(queue="mine", exclusive=True), 1))
    open_client.protocol.connection_lost(None)
    assert open_client.session.phases.current is Phase.CLOSED and not open_client.turn.protocols
    assert not open_client.broker.connections and not open_client.broker.vhosts["/"].queues


@pytest.mark.parametrize("error, shown", [
    (None, ""), (ConnectionResetError(104, "Connection reset by peer"), " (Connection reset by peer)")])
def test_the_log_tells_what_the_system_said_of_a_lost_socket(
    open_client: Client, caplog: pytest.LogCaptureFixture, error: OSError | None, shown: str
) -> None:
    open_client.protocol.connection_lost(error)
    open_client.turn.turns.run_out()
    assert caplog.messages[-1].endswith(f"vhost: '/', user: 'guest'): client unexpectedly closed TCP connection{shown}")


def test_a_client_is_dropped_whatever_it_has_still_to_hear(open_client: Client) -> None:
    open_client.protocol.drop()
    assert open_client.transport.calls[-1] == "abort"


# Clients that do not read

def test_looks_in_vain_are_counted_while_octets_wait_and_none_goes(open_client: Client) -> None:
    protocol, session = open_client.protocol, open_client.session
    assert [protocol.looks_in_vain() for _ in range(3)] == [0, 0, 0]
    open_client.transport.unsent, session.traffic.sent_bytes = 500, session.traffic.sent_bytes + 500
    assert [protocol.looks_in_vain() for _ in range(3)] == [1, 2, 3]
    open_client.transport.unsent = 400
    assert [protocol.looks_in_vain() for _ in range(2)] == [0, 1]
    session.traffic.sent_bytes += 50
    open_client.transport.unsent = 450
    assert protocol.looks_in_vain() == 2
    open_client.transport.unsent = 0
    assert protocol.looks_in_vain() == 0


def test_a_client_that_must_read_its_answers_first_is_not_read_and_goes_on_when_it_has() -> None:
    client = Client(limit=10_000)
    client.say_all(HANDSHAKE)
    client.heard()
    client.protocol.pause_writing()
    client.transport.unsent = 1 << 20
    client.transport.calls.clear()
    declare = frame.marshal(Queue.Declare(queue="q"), 1)
    client.say_all(declare * 10_000)
    assert client.session.receiver.waits_for_reader and not client.session.is_read
    assert client.transport.calls[-1] == "pause"
    said = client.heard().count(b"\x01q")
    client.transport.unsent = 0
    while client.session.receiver.waits_for_reader:
        client.protocol.resume_writing()
        client.turn.turns.run_out()
        said += client.heard().count(b"\x01q")
    client.turn.turns.run_out()
    assert said + client.heard().count(b"\x01q") == 10_000
    assert client.turn.shares.again == [client.protocol]
    client.transport.close_sockets()


def test_a_read_of_tls_that_left_something_counts_as_a_full_one_and_its_records_as_work(open_client: Client) -> None:
    protocol, shares = open_client.protocol, open_client.turn.shares
    heartbeat = b"\x08\0\0\0\0\0\0\xce"
    for is_full in (False, True):
        shares.begin_turn()
        buffer = memoryview(protocol.get_buffer(-1))
        buffer[:8] = heartbeat
        protocol.note_read(8, 300, is_full=is_full)
        protocol.buffer_updated(8)
        assert shares._full_reads == is_full and 300 <= shares._steps < 400
