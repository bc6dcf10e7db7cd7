"""Accepting clients: a few in a turn of the loop, and none while there are too many."""

from __future__ import annotations

import asyncio
import socket
from errno import EMFILE
from typing import Any

import pytest

from amqpd.server.acceptor import ACCEPTED_IN_A_TURN, PAUSE_S, Acceptor
from amqpd.server.addresses import bind
from tests.support.loops import FakeLoop


class ReadingLoop(FakeLoop):
    """Knows which sockets it would watch."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: dict[Any, Any] = {}

    def add_reader(self, listener: Any, call: Any, *arguments: Any) -> None:
        self.watched[listener] = call, arguments

    def remove_reader(self, listener: Any) -> None:
        self.watched.pop(listener, None)


class FakeListener:
    """A listening socket with so many waiting clients, or one whose accept fails for lack of descriptors."""

    def __init__(self, waiting: int = 0) -> None:
        self.waiting = waiting
        self.is_exhausted = False
        self.is_closed = False

    def accept(self) -> Any:
        if self.is_exhausted:
            raise OSError(EMFILE, "Too many open files")
        if not self.waiting:
            raise BlockingIOError
        self.waiting -= 1
        return self, ("10.0.0.1", 40_000)

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def close(self) -> None:
        self.is_closed = True


class Door:
    """An acceptor with one listener, for so many clients at most."""

    def __init__(self, waiting: int, room: int = 1_000) -> None:
        self.loop = ReadingLoop()
        self.room = room
        self.makes_room = False
        self.came = 0
        loop: Any = self.loop
        self.acceptor = Acceptor(loop, lambda: self.room > 0, self.make_room, self.on_client)
        self.listener = FakeListener(waiting)
        listener: Any = self.listener
        self.acceptor._listeners.append(listener)
        self.acceptor._resume()

    def make_room(self) -> bool:
        if self.room <= 0 and self.makes_room:
            self.room += 1
        return self.room > 0

    def on_client(self, connection: socket.socket, peer: Any) -> None:
        self.came += 1
        self.room -= 1

    def turn(self) -> None:
        """Run a turn of the loop while a client waits at the listener."""
        if self.listener in self.loop.watched:
            call, arguments = self.loop.watched[self.listener]
            call(*arguments)


def test_only_some_are_accepted_in_a_turn() -> None:
    door = Door(2 * ACCEPTED_IN_A_TURN + 1)
    came = []
    for _ in range(3):
        door.turn()
        came.append(door.came)
    assert came == [ACCEPTED_IN_A_TURN, 2 * ACCEPTED_IN_A_TURN, 2 * ACCEPTED_IN_A_TURN + 1]
    assert not door.loop.timers


def test_without_room_newcomers_wait_and_are_accepted_later() -> None:
    door = Door(5, room=2)
    door.turn()
    assert door.came == 2 and door.listener in door.loop.watched
    door.turn()
    timer, = door.loop.timers
    assert door.came == 2 and not door.loop.watched and timer.delay_s == PAUSE_S
    door.room = 3
    timer.call()
    door.turn()
    assert door.came == 5


def test_room_is_made_only_for_somebody_who_waits() -> None:
    door = Door(2, room=1)
    door.makes_room = True
    door.turn()
    assert (door.came, door.room) == (1, 0), "after the first one nobody knows whether there is a second"
    door.turn()
    assert (door.came, door.room) == (2, 0)


def test_without_descriptors_accepting_pauses_and_that_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    door = Door(1)
    door.listener.is_exhausted = True
    for number in range(3):
        door.turn()
        assert not door.loop.watched and door.loop.timers[number].delay_s == PAUSE_S
        door.loop.timers[number].call()
    door.listener.is_exhausted = False
    door.turn()
    assert door.came == 1
    assert [record.getMessage() for record in caplog.records] == [
        "cannot accept clients for now: Too many open files"]


def test_an_acceptor_that_has_stopped_does_not_resume() -> None:
    door = Door(1, room=0)
    door.turn()
    door.acceptor.stop()
    assert door.loop.timers[0].is_cancelled and door.listener.is_closed and not door.loop.watched


def test_bound_sockets_accept_clients_once_they_are_listened_on() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        acceptor = Acceptor(loop, lambda: True, lambda: True, lambda connection, peer: connection.close())
        sockets = await bind("127.0.0.1", 0)
        address = sockets[0].getsockname()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=10)
        acceptor.listen(sockets)
        with socket.create_connection(address, timeout=10) as client:
            client.setblocking(False)
            assert await loop.sock_recv(client, 1) == b""
        acceptor.stop()

    asyncio.run(main())
