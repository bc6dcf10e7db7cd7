"""Commands on the broker as a whole: status, limits, the store, and the stop."""

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
from amqpd.broker.passwords import PasswordForm
from amqpd.exit_codes import EXIT_DATA, EXIT_UNAVAILABLE
from amqpd.management.queue_usage import MOST_COUNTED
from amqpd.management.refusal import Refusal


class Alarms(Protocol):
    """The server's alarms, as operators see and set them."""

    def set_memory_watermark(self, fraction: float) -> None:
        """Set the memory limit of the process as a fraction of the available memory."""

    def set_memory_watermark_absolute(self, limit_bytes: int) -> None:
        """Set the memory limit of the process in bytes."""

    def set_disk_free_limit(self, limit_bytes: int) -> None:
        """Set how many bytes of the disk must be free."""

    def set_disk_free_limit_relative(self, fraction: float) -> None:
        """Set how much of the disk must be free, as a multiple of the available memory."""

    def statistics(self) -> dict[str, Any]:
        """Return alarms, limits and use, under the names of `rabbitmqctl status --formatter json`."""


class Node(msgspec.Struct, kw_only=True):
    """What the commands need and the broker does not know. `listeners` and `tls_listeners` are addresses and ports.

    `certificates` lists those of the TLS listeners. `data_dir`, `store_info` and `backup` are None without a store.
    `backup` copies the store to a new file, and raises Refusal. `durability` is what a confirmed message survives:
    "power", "process", or "none" without a store. `begin` is called before each slice of a long command, as before each
    command.
    """

    rabbitmq_version: str
    data_dir: Path | None
    durability: str
    alarms: Alarms
    listeners: list[tuple[str, int]]
    stop: Callable[[], None]
    tls_listeners: list[tuple[str, int]] = []
    certificates: Callable[[], list[dict[str, Any]]] = list
    store_info: Callable[[], Any] | None = None
    backup: Callable[[Path], Awaitable[None]] | None = None
    password_form: PasswordForm = PasswordForm()
    begin: Callable[[], None] = lambda: None
    most_counted: int = MOST_COUNTED        # unacknowledged messages of a vhost, in a list of its queues


class NodeCommands:
    """The commands on the broker as a whole."""

    def __init__(self, broker: Broker, node: Node) -> None:
        self._broker = broker
        self._node = node
        self._started_s = time.monotonic()

    def ping(self) -> None:
        """Do nothing: the answer shows that the broker runs."""

    def status(self) -> dict[str, Any]:
        """Return versions, limits and counts, under the names of `rabbitmqctl status --formatter json`."""
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
            ] + [
                {"interface": host, "port": port, "protocol": "amqp/ssl", "purpose": "AMQP 0-9-1 over TLS"}
                for host, port in node.tls_listeners
            ],
            "tls_certificates": node.certificates(),
        }

    def stop(self) -> None:
        """Begin a clean stop. The operator's connection stays open until the process ends."""
        self._node.stop()

    def set_vm_memory_high_watermark(self, fraction: float | None = None, absolute: int = 0) -> None:
        """Set the limit of the memory alarm until the next start: a fraction of the available memory, or bytes."""
        if fraction is None:
            self._node.alarms.set_memory_watermark_absolute(absolute)
        elif not 0 <= fraction <= 1:
            raise Refusal("Bad argument: The threshold should be a fraction between 0.0 and 1.0", EXIT_DATA)
        else:
            self._node.alarms.set_memory_watermark(fraction)

    def set_disk_free_limit(self, absolute: int = 0, mem_relative: float | None = None) -> None:
        """Set the limit of the disk alarm until the next start: bytes, or a multiple of the available memory."""
        if mem_relative is None:
            self._node.alarms.set_disk_free_limit(absolute)
        else:
            self._node.alarms.set_disk_free_limit_relative(mem_relative)

    def store_info(self) -> Any:
        """Return what the store tells of itself. Raises Refusal without a store."""
        if self._node.store_info is None:
            raise _in_memory()
        return self._node.store_info()

    async def backup_store(self, to: str) -> None:
        """Copy the store, as it is when the copy ends, to a new file. The file is not synced."""
        if self._node.backup is None:
            raise _in_memory()
        await self._node.backup(Path(to))


def _in_memory() -> Refusal:
    return Refusal("this amqpd keeps everything in memory: it has no store", EXIT_UNAVAILABLE)
