"""Clients before login: who waits, and who is disconnected when there are too many."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pamqp.header import ProtocolHeader

from amqpd.broker.broker import Broker
from amqpd.broker.definitions import UserDefinition, VhostDefinition
from amqpd.server.acceptor import ACCEPTED_IN_A_TURN
from amqpd.server.addresses import bind
from amqpd.server.listener import ADMITTED_IN_A_TURN, Listeners
from amqpd.server.loop import LoopTurn
from amqpd.server.unauthenticated import Unauthenticated
from amqpd.session.settings import SessionSettings
from amqpd.store.journal import MemoryJournal
from tests.server.test_connection import HANDSHAKE, FakeLogins
from tests.support.loops import until

HEADER = ProtocolHeader().marshal()
SOON_S = 0.15       # in which nothing comes; longer than the look that would let somebody in


class House:
    """Listeners that allow so many clients before login, and so many of one address."""

    def __init__(self, limit: int, per_address: int) -> None:
        broker = Broker(MemoryJournal())
        broker.add_vhost(VhostDefinition("/"))
        broker.users.add(UserDefinition("guest"))
        loop = asyncio.get_running_loop()
        self.turn = LoopTurn(broker, loop)
        logins: Any = FakeLogins(broker)
        self.unauthenticated: Any = Unauthenticated(limit, per_address)
        self.listeners = Listeners(
            broker, SessionSettings(server_properties={}), self.turn, logins, self.unauthenticated, loop)
        self.clients: list[socket.socket] = []
        self.port = 0

    async def open(self) -> None:
        sockets = await bind("127.0.0.1", 0)
        self.listeners.listen(sockets)
        self.port = sockets[0].getsockname()[1]

    async def client(self, says: bytes = b"", address: str = "127.0.0.1") -> socket.socket:
        """Return a client from this address that sends this, and nothing else."""
        client = socket.socket()
        client.setblocking(False)
        client.bind((address, 0))
        self.clients.append(client)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", self.port))
        await asyncio.get_running_loop().sock_sendall(client, says)
        return client

    async def close(self) -> None:
        self.listeners.stop_listening()
        for client in self.clients:
            client.close()
        await until(lambda: not self.turn.protocols)


def run(limit: int, per_address: int, talk: Callable[[House], Awaitable[None]]) -> None:
    async def main() -> None:
        house = House(limit, per_address)
        await house.open()
        async with asyncio.timeout(30):
            await talk(house)
            await house.close()

    asyncio.run(main())


async def hears(client: socket.socket) -> bytes:
    """Return the first octet that a client receives; b"" at the end of its connection."""
    try:
        return await asyncio.get_running_loop().sock_recv(client, 1)
    except ConnectionResetError:
        return b""


async def hears_nothing(client: socket.socket) -> bool:
    """Return whether a client receives nothing for a while."""
    try:
        async with asyncio.timeout(SOON_S):
            await asyncio.get_running_loop().sock_recv(client, 1)
    except TimeoutError:
        return True
    return False


def test_newcomers_of_an_address_without_room_wait_until_one_of_it_has_gone(caplog: pytest.LogCaptureFixture) -> None:
    async def talk(house: House) -> None:
        first, second = await house.client(), await house.client()
        third, fourth = await house.client(HEADER), await house.client(HEADER)
        other = await house.client(HEADER, "127.0.0.2")
        assert await hears(other) == b"\x01"
        assert await hears_nothing(third)
        first.close()
        assert await hears(third) == b"\x01"
        assert await hears_nothing(fourth)
        second.close()
        assert await hears(fourth) == b"\x01"

    run(10, 2, talk)
    assert "2 clients of one address have not logged in (limits.max_unauthenticated_per_address)" in caplog.text


def test_who_has_logged_in_makes_room() -> None:
    async def talk(house: House) -> None:
        for _ in range(20):
            assert await hears(await house.client(HANDSHAKE)) == b"\x01"
        assert len(house.unauthenticated) == 0

    run(10, 1, talk)


def test_a_newcomer_takes_the_place_of_one_that_makes_no_progress() -> None:
    async def talk(house: House) -> None:
        house.unauthenticated.patience_ms = house.unauthenticated.long_patience_ms = 0
        first, second, other = await house.client(), await house.client(), await house.client(address="127.0.0.2")
        third = await house.client(HEADER)
        assert await hears(third) == b"\x01"
        assert await hears(first) == b""
        assert await hears_nothing(second) and await hears_nothing(other)

    run(10, 2, talk)


def test_who_waits_is_let_in_as_soon_as_patience_ends() -> None:
    async def talk(house: House) -> None:
        first = await house.client()
        waiting = [await house.client(HEADER) for _ in range(3)]
        assert await hears_nothing(waiting[0])
        house.unauthenticated.patience_ms = house.unauthenticated.long_patience_ms = 0
        assert await hears(first) == b""
        assert [await hears(client) for client in waiting] == [b"\x01"] * 3

    run(10, 1, talk)


def test_newcomers_wait_while_too_many_of_all_addresses_have_not_logged_in(caplog: pytest.LogCaptureFixture) -> None:
    async def talk(house: House) -> None:
        first = await house.client()
        await house.client(address="127.0.0.2")
        third = await house.client(HEADER, "127.0.0.3")
        assert await hears_nothing(third)
        first.close()
        assert await hears(third) == b"\x01"

    run(2, 2, talk)
    assert "2 clients have not logged in (limits.max_unauthenticated)" in caplog.text


def test_of_all_addresses_the_one_without_progress_goes() -> None:
    async def talk(house: House) -> None:
        house.unauthenticated.patience_ms = house.unauthenticated.long_patience_ms = 0
        first, second = await house.client(), await house.client(address="127.0.0.2")
        assert await hears_nothing(second)
        assert await hears(await house.client(HEADER, "127.0.0.3")) == b"\x01"
        assert await hears(first) == b""

    run(2, 2, talk)


def test_newcomers_wait_while_no_descriptors_are_left(caplog: pytest.LogCaptureFixture) -> None:
    async def talk(house: House) -> None:
        house.listeners.most_sockets = 2
        first = await house.client(HANDSHAKE)
        assert await hears(first) == b"\x01"
        assert await hears(await house.client(HANDSHAKE)) == b"\x01"
        third = await house.client(HEADER)
        assert await hears_nothing(third)
        first.close()
        assert await hears(third) == b"\x01"

    run(10, 10, talk)
    assert "2 clients are connected, and no file descriptors are left (ulimit -n)" in caplog.text


def test_who_was_gone_before_it_was_served_is_not_counted_for_ever() -> None:
    async def talk(house: House) -> None:
        for _ in range(50):
            client = await house.client()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
        assert await hears(await house.client(HEADER)) == b"\x01"
        await until(lambda: len(house.unauthenticated) <= 1 and house.listeners._sockets <= 1)

    run(10, 3, talk)


def test_who_waits_at_the_end_is_closed() -> None:
    async def talk(house: House) -> None:
        await house.client()
        second = await house.client(HEADER)
        assert await hears_nothing(second)
        house.listeners.stop_listening()
        assert await hears(second) == b""

    run(10, 1, talk)


def crowd(house: House, count: int, address: str = "127.0.0.1") -> list[socket.socket]:
    """Return clients that connect while the loop does nothing."""
    clients = []
    for _ in range(count):
        clients.append(client := socket.socket())
        client.bind((address, 0))
        client.connect(("127.0.0.1", house.port))
        client.setblocking(False)
    house.clients += clients
    return clients


def test_who_comes_from_another_address_does_not_wait_for_a_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    async def talk(house: House) -> None:
        begin = house.listeners.begin_session
        monkeypatch.setattr(
            house.listeners, "begin_session", lambda protocol: begun.append(protocol.peer[0]) or begin(protocol))
        crowd(house, 5 * ADMITTED_IN_A_TURN)
        crowd(house, 1, "127.0.0.2")
        await until(lambda: len(begun) == 5 * ADMITTED_IN_A_TURN + 1)

    run(1_000, 1_000, talk)
    assert begun.index("127.0.0.2") <= ADMITTED_IN_A_TURN + 1


@pytest.mark.parametrize("says", [b"", HANDSHAKE], ids=["silent", "with a login"])
def test_who_has_gone_when_it_is_accepted_is_not_served_if_others_come_too(
    says: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "amqpd.connection")

    async def talk(house: House) -> None:
        *gone, last = crowd(house, ACCEPTED_IN_A_TURN)
        for client in gone:
            client.send(says)
            client.close()
        last.send(HEADER)
        assert await hears(last) == b"\x01"
        await until(lambda: house.listeners._sockets == 1)
        assert house.listeners.take_number() == ADMITTED_IN_A_TURN + 2
        unserved = [text for text in caplog.messages if text.endswith(" disconnected before it was served")]
        assert len(unserved) == len(gone) - ADMITTED_IN_A_TURN

    run(1_000, 1_000, talk)


def test_who_has_gone_does_not_wait_behind_a_crowd() -> None:
    async def talk(house: House) -> None:
        crowd(house, ADMITTED_IN_A_TURN + 1)
        for client in crowd(house, ACCEPTED_IN_A_TURN // 2):
            client.close()
        most = 0
        while len(house.turn.protocols) < ADMITTED_IN_A_TURN + 1:
            await asyncio.sleep(0)
            most = max(most, house.listeners._waiting_count)
        assert most == 1

    run(1_000, 1_000, talk)


@pytest.mark.parametrize("says", [b"", HANDSHAKE], ids=["silent", "with a login"])
def test_who_goes_while_it_waits_is_only_closed(says: bytes) -> None:
    async def talk(house: House) -> None:
        first = await house.client()
        waiting, last = [await house.client(says) for _ in range(3)], await house.client(HEADER)
        assert await hears_nothing(last)
        for client in (*waiting, first):
            client.close()
        assert await hears(last) == b"\x01"
        assert house.listeners.take_number() == 3

    run(10, 1, talk)
