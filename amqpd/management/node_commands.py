"""Commands on the broker as a whole: status, limits, the store, and the stop."""

from __future__ import annotations

import asyncio
import os
import platform
import resource
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from amqpd import __version__
from amqpd.broker.broker import Broker
from amqpd.broker.definitions import UserDefinition
from amqpd.broker.passwords import PasswordForm
from amqpd.exit_codes import EXIT_DATA, EXIT_UNAVAILABLE
from amqpd.identity import NODE_NAME
from amqpd.management.audit_commands import ReadAuditLog
from amqpd.management.backups import Backups
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


class MessageLimits(msgspec.Struct, frozen=True):
    """How much the commands on messages do at once.

    `slice` is messages in a slice; an answer is complete with `answer_bytes` of bodies; with `recorded_bytes` of
    messages, the next slice waits for the disk.
    """

    slice: int = 250
    answer_bytes: int = 4 << 20
    recorded_bytes: int = 4 << 20


async def nothing_to_wait_for() -> None:
    """Return at once: there is no store."""


Diagnose = Callable[[dict[str, Any], list[UserDefinition], int], Any]


def no_diagnosis(status: dict[str, Any], users: list[UserDefinition], clock_behind_ms: int) -> Any:
    """Return no findings."""
    return []


class Application(Protocol):
    """The service for clients, which can be stopped while the process goes on."""

    is_running: bool

    async def stop(self) -> None:
        """Turn clients away, and close all connections."""

    def declare(self) -> None:
        """Declare what the configuration declares, as at a start. Raises Refusal."""

    def start(self) -> None:
        """Accept clients again."""


class Node(msgspec.Struct, kw_only=True):
    """What the commands need and the broker does not know. `listeners` and `tls_listeners` are addresses and ports;
    `http_listeners`, of the management API, and `metrics_listeners` tell besides whether they are for TLS.

    `certificates` lists those of the TLS listeners. `data_dir`, `store_info`, `backup` and `read_audit_log` are None
    without a store. `backup` copies the store to a new file, tells what is left and
    what there is in all, and raises Refusal. `environment` returns the settings in
    effect, without secrets. `durability` is what a confirmed message survives:
    "power", "process", "server" if `confirms` tells, or "none" without a store.
    `read_log` returns the newest lines of the log: at most so many, of a
    level or above, with a text in them; it raises ValueError for a level that does not exist. `begin` is called before
    each slice of a long command, as before each command. `members` lists the nodes that share the store; there are
    none without a cluster. `wait_committed` returns once everything recorded before is on disk.
    """

    rabbitmq_version: str
    data_dir: Path | None
    durability: str
    confirms: str = ""
    members: Callable[[], list[dict[str, Any]]] = list
    alarms: Alarms
    listeners: list[tuple[str, int]]
    stop: Callable[[], None]
    tls_listeners: list[tuple[str, int]] = []
    http_listeners: list[tuple[str, int, bool]] = []
    metrics_listeners: list[tuple[str, int, bool]] = []
    auth_mechanisms: tuple[str, ...] = ()
    certificates: Callable[[], list[dict[str, Any]]] = list
    environment: Callable[[], dict[str, Any]] = dict
    application: Application | None = None
    store_info: Callable[[], Any] | None = None
    backup: Callable[[Path, Callable[[int, int], None]], Awaitable[None]] | None = None
    backups: Backups = msgspec.field(default_factory=Backups)
    read_audit_log: ReadAuditLog | None = None
    read_log: Callable[[int, str, str], list[dict[str, Any]]] = lambda most, level, text: []
    password_form: PasswordForm = PasswordForm()
    begin: Callable[[], None] = lambda: None
    wait_committed: Callable[[], Awaitable[None]] = nothing_to_wait_for
    diagnose: Diagnose = no_diagnosis       # status, users, and how far the store's clock is behind, to findings
    message_limits: MessageLimits = MessageLimits()
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
            "erlang_version": "",
            "crypto_lib_version": ssl.OPENSSL_VERSION,
            "release_series_support_status": "supported",
            "is_under_maintenance": False,
            "active_plugins": [],
            "enabled_plugin_file": "",
            "config_files": [],
            "log_files": ["<stderr>"],
            "net_ticktime": 0,
            "processes": {"limit": 0, "used": 0},
            "run_queue": 0,
            "raft_data_directory": "",
            "vm_memory_calculation_strategy": "rss",
            "python_version": platform.python_version(),
            "data_directory": str(node.data_dir.absolute()) if node.data_dir else "(memory)",
            "durability": node.durability,
            "confirms": node.confirms,
            "members": node.members(),
            **node.alarms.statistics(),
            "file_descriptors": {
                "total_used": len(os.listdir("/dev/fd")),
                "total_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
                "sockets_used": len(broker.connections),
                "sockets_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            },
            "totals": {
                "connection_count": len(broker.connections),
                "queue_count": sum(len(vhost.queues) for vhost in broker.vhosts.values()),
                "virtual_host_count": len(broker.vhosts),
            },
            "listeners": [
                {"node": NODE_NAME, "interface": host, "port": port, "protocol": "amqp", "purpose": "AMQP 0-9-1"}
                for host, port in node.listeners
            ] + [
                {"node": NODE_NAME, "interface": host, "port": port, "protocol": "amqp/ssl",
                 "purpose": "AMQP 0-9-1 over TLS"}
                for host, port in node.tls_listeners
            ] + [
                {"node": NODE_NAME, "interface": host, "port": port, "protocol": "https" if is_tls else "http",
                 "purpose": "HTTPS API" if is_tls else "HTTP API"}
                for host, port, is_tls in node.http_listeners
            ] + [
                {"node": NODE_NAME, "interface": host, "port": port,
                 "protocol": "https/prometheus" if is_tls else "http/prometheus",
                 "purpose": f"Prometheus exporter API over {'TLS (HTTPS)' if is_tls else 'HTTP'}"}
                for host, port, is_tls in node.metrics_listeners
            ],
            "tls_certificates": node.certificates(),
        }

    async def doctor(self) -> Any:
        """Return what is wrong with the broker and its machine, each with a remedy; see server/doctor.py."""
        users = [user.definition for user in self._broker.users.values()]
        return await asyncio.to_thread(
            self._node.diagnose, self.status(), users, self._broker.clock.stored_behind_ms)

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

    async def backup_store(self, to: str, unfinished: str | None = None) -> None:
        """Copy the store, as it is when the copy ends, to a new file. The file is not synced.

        `unfinished` is the name of that file if the client renames it to `to`, which is what the audit log is about.
        """
        if self._node.backup is None:
            raise _in_memory()
        backup, error = self._node.backups.begin(to), "it was interrupted"
        try:
            await self._node.backup(Path(unfinished or to), backup.tell)
            error = ""
        except Refusal as refusal:
            error = str(refusal)
            raise
        finally:
            backup.end(error)


def _in_memory() -> Refusal:
    return Refusal("this amqpd keeps everything in memory: it has no store", EXIT_UNAVAILABLE)
