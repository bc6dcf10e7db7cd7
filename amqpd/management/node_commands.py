"""Commands on the broker as a whole: how it is, its limits, its store, and its end."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from amqpd import __version__
from amqpd.broker.broker import Broker
from amqpd.exit_codes import EXIT_DATA, EXIT_UNAVAILABLE
from amqpd.management.refusal import Refusal


class Alarms(Protocol):
    """The server's alarms, as far as operators have to do with them."""

    def set_memory_watermark(self, fraction: float) -> None:
        """The process may have this part of the memory there is."""

    def set_memory_watermark_absolute(self, octets: int) -> None:
        """The process may have so much memory."""

    def set_disk_free_limit(self, octets: int) -> None:
        """So much of the disk should be free."""

    def set_disk_free_limit_relative(self, fraction: float) -> None:
        """So many times the memory there is should be free on the disk."""

    def statistics(self) -> dict[str, Any]:
        """Alarms, limits and use, under the names of `rabbitmqctl status --formatter json`."""


class Node(msgspec.Struct, kw_only=True):
    """What the broker itself does not know. `listeners` are addresses and ports.

    `data_dir`, `store_info` and `backup` are None in memory. `backup` copies the store to a new file, and raises
    Refusal. `durability` is what a confirmed message survives: "power", "process", or in memory "none".
    """

    rabbitmq_version: str
    data_dir: Path | None
    durability: str
    alarms: Alarms
    listeners: list[tuple[str, int]]
    stop: Callable[[], None]
    store_info: Callable[[], Any] | None = None
    backup: Callable[[Path], Awaitable[None]] | None = None


class NodeCommands:
    """The commands on one broker."""

    def __init__(self, broker: Broker, node: Node) -> None:
        self._broker = broker
        self._node = node
        self._started_s = time.monotonic()

    def ping(self) -> None:
        """Nothing happens; the answer tells that the broker lives."""

    def status(self) -> dict[str, Any]:
        """What runs and how much there is, under the names of `rabbitmqctl status --formatter json`."""
        node, broker = self._node, self._broker
        return {
            "pid": os.getpid(),
            "os": platform.system(),
            "uptime": int(time.monotonic() - self._started_s),
            "product_name": "amqpd",
            "product_version": __version__,
            "rabbitmq_version": node.rabbitmq_version,
            "python_version": platform.python_version(),
            "data_directory": str(node.data_dir.absolute()) if node.data_dir else "(memory)",
            "durability": node.durability,
            **node.alarms.statistics(),
            "file_descriptors": {
                "total_used": len(os.listdir("/dev/fd")),
                "total_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            },
            "totals": {
                "connection_count": len(broker.connections),
                "queue_count": sum(len(vhost.queues) for vhost in broker.vhosts.values()),
                "virtual_host_count": len(broker.vhosts),
            },
            "listeners": [
                {"interface": host, "port": port, "protocol": "amqp", "purpose": "AMQP 0-9-1"}
                for host, port in node.listeners
            ],
        }

    def stop(self) -> None:
        """Begin a clean stop. The connection of whoever asked stays until the process ends."""
        self._node.stop()

    def set_vm_memory_high_watermark(self, fraction: float | None = None, absolute: int = 0) -> None:
        """Set when the memory alarm begins, until the next start: a part of the memory there is, or bytes."""
        if fraction is None:
            self._node.alarms.set_memory_watermark_absolute(absolute)
        elif not 0 <= fraction <= 1:
            raise Refusal("Bad argument: The threshold should be a fraction between 0.0 and 1.0", EXIT_DATA)
        else:
            self._node.alarms.set_memory_watermark(fraction)

    def set_disk_free_limit(self, octets: int = 0, mem_relative: float | None = None) -> None:
        """Set when the disk alarm begins, until the next start: bytes, or how many times the memory there is."""
        if mem_relative is None:
            self._node.alarms.set_disk_free_limit(octets)
        else:
            self._node.alarms.set_disk_free_limit_relative(mem_relative)

    def store_info(self) -> Any:
        """What the store says of itself."""
        if self._node.store_info is None:
            raise _in_memory()
        return self._node.store_info()

    async def backup_store(self, to: str) -> None:
        """Copy the store, as it is when that ends, to a new file, which is not synced yet."""
        if self._node.backup is None:
            raise _in_memory()
        await self._node.backup(Path(to))


def _in_memory() -> Refusal:
    return Refusal("this amqpd keeps everything in memory: it has no store", EXIT_UNAVAILABLE)
