"""What an operator can have done by name: the commands of amqpctl, carried out on the broker.

Owns their meaning, and the texts and exit codes of their refusals: those of rabbitmqctl 3.10, its odd ones too, since
programs know them. Where a request comes from and how it is answered is `control`'s matter.

Always true: whoever asks may do everything, exclusive queues of others included.

RabbitMQ docs/cli, docs/man/rabbitmqctl.8.
"""

from __future__ import annotations

import asyncio
import os
import platform
import resource
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from amqpd import __version__
from amqpd.broker.access import RIGHTS, SCRYPT, hash_password, password_matches
from amqpd.broker.broker import OPERATOR, AlreadyThere, Broker
from amqpd.broker.definitions import PermissionDefinition, PolicyDefinition, UserDefinition, VhostDefinition
from amqpd.broker.patterns import PatternError, compile_pattern
from amqpd.broker.policy import InvalidPolicy, NoSuchPolicy
from amqpd.broker.vhost import Vhost
from amqpd.exit_codes import EXIT_DATA, EXIT_EXISTS, EXIT_NO_USER, EXIT_UNAVAILABLE, EXIT_USAGE
from amqpd.management import listings

LONGEST_NAME = 255      # octets

Table = dict[str, Any]


class Refusal(Exception):
    """A command that is not carried out: why, and amqpctl's exit code."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


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


class Commands:
    """The commands on one broker. `lookups` change nothing that is kept; `changes` are to be on disk once answered.

    `acts` are the lookups that change something until the next start, or make a file: they are logged as changes are.
    """

    acts = frozenset({"backup_store", "set_vm_memory_high_watermark", "set_disk_free_limit"})

    def __init__(self, broker: Broker, node: Node) -> None:
        self._broker = broker
        self._node = node
        self._started_s = time.monotonic()
        self.lookups: dict[str, Callable[..., Any]] = _by_name(
            self.ping, self.status, self.stop, self.store_info, self.backup_store, self.list_queues,
            self.list_exchanges, self.list_bindings, self.list_connections, self.list_channels, self.list_consumers,
            self.list_users, self.list_vhosts, self.list_permissions, self.list_user_permissions, self.list_policies,
            self.list_operator_policies, self.authenticate_user, self.set_vm_memory_high_watermark,
            self.set_disk_free_limit)
        self.changes: dict[str, Callable[..., Any]] = _by_name(
            self.purge_queue, self.delete_queue, self.close_connection, self.add_user, self.delete_user,
            self.change_password, self.set_user_tags, self.set_permissions, self.clear_permissions, self.add_vhost,
            self.delete_vhost, self.set_policy, self.clear_policy, self.set_operator_policy,
            self.clear_operator_policy)

    # The broker itself

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
        """Set when the memory alarm begins, until the next start: a part of the memory there is, or octets."""
        if fraction is None:
            self._node.alarms.set_memory_watermark_absolute(absolute)
        elif not 0 <= fraction <= 1:
            raise Refusal("Bad argument: The threshold should be a fraction between 0.0 and 1.0", EXIT_DATA)
        else:
            self._node.alarms.set_memory_watermark(fraction)

    def set_disk_free_limit(self, octets: int = 0, mem_relative: float | None = None) -> None:
        """Set when the disk alarm begins, until the next start: octets, or how many times the memory there is."""
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

    # Lists

    def list_queues(self, vhost: str, columns: list[str]) -> Table:
        """Columns: see `listings`, here and below."""
        return _table(listings.queues(self._broker, self._vhost(vhost), columns), columns)

    def list_exchanges(self, vhost: str, columns: list[str]) -> Table:
        """The exchanges of a vhost."""
        return _table(listings.exchanges(self._vhost(vhost)), columns)

    def list_bindings(self, vhost: str, columns: list[str]) -> Table:
        """The bindings of a vhost."""
        return _table(listings.bindings(self._vhost(vhost)), columns)

    def list_consumers(self, vhost: str, columns: list[str]) -> Table:
        """The consumers of a vhost."""
        return _table(listings.consumers(self._vhost(vhost)), columns)

    def list_permissions(self, vhost: str, columns: list[str]) -> Table:
        """What users may do in a vhost."""
        return _table(listings.permissions(self._broker, self._vhost(vhost)), columns)

    def list_user_permissions(self, user: str) -> Table:
        """What a user may do, vhost by vhost."""
        found = self._broker.users.get(user)
        if found is None:
            raise Refusal(f'{{:no_such_user, "{user}"}}', EXIT_UNAVAILABLE)
        return _table(listings.user_permissions(found), ["vhost", *RIGHTS])

    def list_policies(self, vhost: str, columns: list[str]) -> Table:
        """The policies of a vhost."""
        return _table(listings.policies(self._vhost(vhost), is_operator=False), columns)

    def list_operator_policies(self, vhost: str, columns: list[str]) -> Table:
        """The operator's policies of a vhost."""
        return _table(listings.policies(self._vhost(vhost), is_operator=True), columns)

    def list_connections(self, vhost: str, columns: list[str]) -> Table:
        """Connections to any vhost."""
        return _table(listings.connections(self._broker), columns)

    def list_channels(self, vhost: str, columns: list[str]) -> Table:
        """Channels to any vhost."""
        return _table(listings.channels(self._broker), columns)

    def list_users(self, vhost: str, columns: list[str]) -> Table:
        """All users."""
        return _table(listings.users(self._broker), columns)

    def list_vhosts(self, vhost: str, columns: list[str]) -> Table:
        """All vhosts."""
        return _table(listings.vhosts(self._broker), columns)

    # Queues and connections

    def purge_queue(self, vhost: str, queue: str) -> None:
        """Drop a queue's ready messages, also those of a queue that is exclusive."""
        home = self._vhost(vhost)
        found = home.queues.get(queue)
        if found is None:
            raise Refusal(f"not_found: no queue '{queue}' in vhost '{vhost}'", EXIT_UNAVAILABLE)
        found.purge()

    async def delete_queue(self, vhost: str, queue: str, if_empty: bool = False, if_unused: bool = False) -> int:
        """Delete a queue, also one that is exclusive; says how many messages were ready."""
        home = self._vhost(vhost)
        found = home.queues.get(queue)
        if found is None:
            raise Refusal("Queue not found", EXIT_USAGE)
        if if_unused and found.consumers:
            raise Refusal("Queue is in use", EXIT_USAGE)
        if if_empty and found.ready:
            raise Refusal("Queue is not empty", EXIT_USAGE)
        count = home.delete_queue(OPERATOR, queue, found.owner)
        while queue in home.leaving.queues:
            await _called(home.leaving.call_after(home.leaving.queues[queue]))
        return count

    def close_connection(self, connection: str, explanation: str) -> None:
        """Close a connection by pid or name: 320 to the client, with the explanation."""
        for key, found in self._broker.connections.items():
            if connection in (listings.pid(key), found.statistics()["name"]):
                found.force_close(explanation)
                return
        raise Refusal(f"no connection '{connection}'", EXIT_UNAVAILABLE)

    # Users

    async def add_user(self, user: str, password: str) -> None:
        """Add a user without tags and permissions; with an empty password he cannot log in by one."""
        _check_name("user", user)
        if user in self._broker.users:
            raise Refusal(f'User "{user}" already exists', EXIT_EXISTS)
        # The loop goes on meanwhile: a hash is slow on purpose.
        password_hash, algorithm = await asyncio.to_thread(hash_password, password) if password else ("", SCRYPT)
        try:
            self._broker.add_user(UserDefinition(user, password_hash, algorithm))
        except AlreadyThere:
            raise Refusal(f'User "{user}" already exists', EXIT_EXISTS) from None

    def delete_user(self, user: str) -> None:
        """Delete a user; his connections are closed."""
        self._check_user(user)
        self._broker.delete_user(user)

    async def change_password(self, user: str, password: str) -> None:
        """Give a user a new password."""
        self._check_user(user)
        if not password:
            raise Refusal("Bad argument: password cannot be an empty string", EXIT_DATA)
        password_hash, algorithm = await asyncio.to_thread(hash_password, password)
        self._check_user(user)
        self._broker.change_password(user, password_hash, algorithm)

    async def authenticate_user(self, user: str, password: str) -> None:
        """See whether this is the user's password."""
        found = self._broker.users.get(user)
        if not await asyncio.to_thread(password_matches, found.definition if found else None, password):
            raise Refusal(
                f"Error: failed to authenticate user \"{user}\"\nuser '{user}' - invalid credentials", EXIT_DATA)

    def set_user_tags(self, user: str, tags: list[str]) -> None:
        """Give a user these tags in place of those he had."""
        self._check_user(user)
        self._broker.set_user_tags(user, tuple(tags))

    def set_permissions(self, vhost: str, user: str, configure: str, write: str, read: str) -> None:
        """Set what a user may do in a vhost."""
        self._check_user(user)
        self._vhost(vhost)
        for pattern in (configure, write, read):
            _check_pattern(pattern)
        self._broker.set_permissions(PermissionDefinition(user, vhost, configure, write, read))

    def clear_permissions(self, vhost: str, user: str) -> None:
        """Take away all a user may do in a vhost; that he may nothing there already is fine."""
        if user not in self._broker.users:
            raise Refusal(f"User {user} does not exist", EXIT_NO_USER)
        if vhost not in self._broker.vhosts:
            raise Refusal(f"Virtual host {vhost} does not exist", EXIT_UNAVAILABLE)
        self._broker.clear_permissions(user, vhost)

    def _check_user(self, name: str) -> None:
        if name not in self._broker.users:
            raise Refusal(f'User "{name}" does not exist', EXIT_NO_USER)

    # Policies

    def set_policy(
        self, vhost: str, name: str, pattern: str, definition: str, priority: int = 0, apply_to: str = "all"
    ) -> Awaitable[None]:
        """Set a policy; `definition` is JSON. When this is answered queues and exchanges have followed."""
        said = _parse_definition(definition)
        return self._set_policy(PolicyDefinition(vhost, name, pattern, said, priority, apply_to))

    def set_operator_policy(
        self, vhost: str, name: str, pattern: str, definition: str, priority: int = 0, apply_to: str = "all"
    ) -> Awaitable[None]:
        """Set a policy of the operator's."""
        said = _parse_definition(definition)
        return self._set_policy(PolicyDefinition(vhost, name, pattern, said, priority, apply_to, is_operator=True))

    async def _set_policy(self, policy: PolicyDefinition) -> None:
        vhost = self._vhost(policy.vhost)
        try:
            vhost.set_policy(policy)
        except InvalidPolicy as error:
            faults = "\n".join(error.faults)
            raise Refusal(f"Validation failed\n\n{faults}\n", EXIT_UNAVAILABLE) from None
        await _followed(vhost)

    def clear_policy(self, vhost: str, name: str) -> Awaitable[None]:
        """Take a policy away."""
        return self._clear_policy(vhost, name, is_operator=False)

    def clear_operator_policy(self, vhost: str, name: str) -> Awaitable[None]:
        """Take a policy of the operator's away."""
        return self._clear_policy(vhost, name, is_operator=True)

    async def _clear_policy(self, name: str, policy: str, *, is_operator: bool) -> None:
        vhost = self._vhost(name)
        try:
            vhost.clear_policy(policy, is_operator=is_operator)
        except NoSuchPolicy:
            raise Refusal("Parameter does not exist", EXIT_UNAVAILABLE) from None
        await _followed(vhost)

    # Vhosts

    def add_vhost(self, vhost: str) -> None:
        """Add a vhost; one that exists is fine."""
        _check_name("vhost", vhost)
        if vhost not in self._broker.vhosts:
            self._broker.add_vhost(VhostDefinition(vhost))

    def delete_vhost(self, vhost: str) -> None:
        """Delete a vhost with all that is in it; its connections are closed."""
        self._vhost(vhost)
        self._broker.delete_vhost(vhost)

    def _vhost(self, name: str) -> Vhost:
        try:
            return self._broker.vhosts[name]
        except KeyError:
            raise Refusal(f"Virtual host '{name}' does not exist", EXIT_DATA) from None


async def _followed(vhost: Vhost) -> None:
    """Return once all exchanges and queues have followed the policies."""
    if vhost.followers.has_work:
        await _called(vhost.followers.call)


async def _called(call: Callable[[Callable[[], None]], None]) -> None:
    """Return once what this is given has been called."""
    event = asyncio.Event()
    call(event.set)
    await event.wait()


def _in_memory() -> Refusal:
    return Refusal("this amqpd keeps everything in memory: it has no store", EXIT_UNAVAILABLE)


def _by_name(*methods: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    return {method.__name__: method for method in methods}


def _table(records: Iterable[listings.Record], columns: list[str]) -> Table:
    try:
        return {"columns": columns, "rows": [[record[column] for column in columns] for record in records]}
    except KeyError as error:
        raise Refusal(f"Info key(s) {error.args[0]} are not supported", EXIT_USAGE) from None


def _check_name(kind: str, name: str) -> None:
    if not name:
        raise Refusal(f"Bad argument: {kind} cannot be an empty string", EXIT_DATA)
    if len(name.encode()) > LONGEST_NAME:
        raise Refusal(f"Bad argument: {kind} cannot be longer than {LONGEST_NAME} octets", EXIT_DATA)


def _check_pattern(pattern: str) -> None:
    try:
        compile_pattern(pattern)
    except PatternError as error:
        raise Refusal(f"regular expression '{pattern}' is invalid: {error}", EXIT_UNAVAILABLE) from None


def _parse_definition(text: str) -> dict[str, Any]:
    try:
        definition = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refusal(f"JSON decoding error. Reason: {error}", EXIT_UNAVAILABLE) from None
    if not isinstance(definition, dict):
        raise Refusal("Validation failed\n\ndefinition must be a dictionary\n", EXIT_UNAVAILABLE)
    return definition
