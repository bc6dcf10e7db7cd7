"""A broker in a thread of its own, with a control socket and one port where it listens."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from amqpd.broker.broker import Broker
from amqpd.broker.definitions import PermissionDefinition, UserDefinition, VhostDefinition
from amqpd.broker.passwords import hash_known_password
from amqpd.identity import CONTROL_SOCKET, RABBITMQ_VERSION
from amqpd.management.commands import Commands
from amqpd.management.control import Control
from amqpd.management.node_commands import Node
from amqpd.store.journal import MemoryJournal


class QuietAlarms:
    """No alarm, and limits that are only taken."""

    def set_memory_watermark(self, fraction: float) -> None:
        pass

    def set_memory_watermark_absolute(self, limit_bytes: int) -> None:
        pass

    def set_disk_free_limit(self, limit_bytes: int) -> None:
        pass

    def set_disk_free_limit_relative(self, fraction: float) -> None:
        pass

    def statistics(self) -> dict[str, Any]:
        return {
            "alarms": [], "memory": {"total": {"rss": 50_000_000}, "connection_readers": 0}, "disk_free": 10 ** 9,
            "disk_free_limit": 10 ** 8, "vm_memory_high_watermark_setting": {"relative": 0.6},
            "vm_memory_high_watermark_limit": 10 ** 9}


class QuietApplication:
    """A service without clients, which declares vhost "/" and user guest."""

    def __init__(self, broker: Broker) -> None:
        self.is_running = True
        self._broker = broker

    async def stop(self) -> None:
        self.is_running = False

    def start(self) -> None:
        self.is_running = True

    def declare(self) -> None:
        self._broker.add_vhost(VhostDefinition("/"))
        self._broker.users.add(UserDefinition("guest", *hash_known_password("guest"), tags=("administrator",)))
        self._broker.users.set_permissions(PermissionDefinition("guest", "/", ".*", ".*", ".*"))


async def nothing() -> None:
    """Commit at once."""


@contextlib.contextmanager
def broker_in_thread(folder: Path) -> Iterator[tuple[Broker, int]]:
    """Run a broker whose control socket is in this folder, with a user guest; yield it and its port."""
    broker = Broker(MemoryJournal())
    application = QuietApplication(broker)
    application.declare()
    listens, loop, ends = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve(port: int) -> None:
        node = Node(rabbitmq_version=RABBITMQ_VERSION, data_dir=None, durability="none", alarms=QuietAlarms(),
                    listeners=[("127.0.0.1", port)], stop=lambda: None,
                    application=application)
        async with Control(Commands(broker, node), nothing).listening(folder / CONTROL_SOCKET):
            listens.set()
            await ends.wait()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=loop.run_until_complete, args=(serve(port),))
        thread.start()
        assert listens.wait(10)
        try:
            yield broker, port
        finally:
            loop.call_soon_threadsafe(ends.set)
            thread.join()
            loop.close()
