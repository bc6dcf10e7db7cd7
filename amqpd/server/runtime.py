"""One broker in the event loop of its caller: create all its parts, connect them, and stop them.

Nothing here changes the process: `server/process.py` has the signals, exit, the interpreter's settings and stdout. So
several brokers can run in one process, beside other code.

Start: bind addresses, open the store, restore it, declare the configuration, listen. Stop: accept no more clients,
close connections with 320, commit the last batch, close the store as clean. If the store fails, nothing more is
confirmed: clients that can be told quickly are told, and the owner of the broker gets the error.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
import socket
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import TracebackType

import anyio
from msgspec.structs import replace

from amqpd import __version__
from amqpd.broker.broker import Broker
from amqpd.broker.departure import Departure
from amqpd.broker.scram import MadeUpVerifiers
from amqpd.config import Config, Limits, Listener, Tls
from amqpd.exit_codes import EXIT_CONFIG, EXIT_IO, EXIT_UNAVAILABLE
from amqpd.identity import CONTROL_SOCKET, RABBITMQ_VERSION
from amqpd.management.commands import Commands
from amqpd.management.control import Control
from amqpd.management.node_commands import Node
from amqpd.management.refusal import Refusal
from amqpd.server import addresses, exposure
from amqpd.server.alarms import Alarms
from amqpd.server.certificates import CertificateError, Certificates, warnings
from amqpd.server.committer import Committer
from amqpd.server.connection import ClientProtocol
from amqpd.server.declarations import password_form
from amqpd.server.exposure import begins_with_guest_alone, has_guest_alone
from amqpd.server.listener import Listeners
from amqpd.server.login import Logins
from amqpd.server.login_key import login_key
from amqpd.server.loop import LoopTurn
from amqpd.server.resources import available_bytes, descriptors_for_clients, descriptors_for_connections
from amqpd.server.server_properties import server_properties
from amqpd.server.startup import StartError, Storage, declare_configuration, is_first_start, open_broker
from amqpd.server.ticker import Ticker
from amqpd.server.unauthenticated import Unauthenticated
from amqpd.server.wall_clock import WallClock
from amqpd.session.sasl_steps import LoginSettings
from amqpd.session.settings import SessionSettings
from amqpd.store.ballast import Ballast
from amqpd.store.errors import StoreError
from amqpd.store.journal import Journal
from amqpd.store.port import Store

log = logging.getLogger("amqpd")

CLOSE_OK_WAIT_S = 5.0
LINGER_S = 1.0      # for clients to read that the store has failed
SHUTDOWN = "broker forced connection closure with reason 'shutdown'"


class Runtime:
    """A broker that runs during its `async with` block. Entering the block raises StartError.

    `on_failure` is called at once when the store fails; `wait_until_stopping` raises the error a moment later. A stop
    waits at most `close_ok_wait_s` for clients to answer `close`.
    """

    def __init__(
        self, config: Config, on_failure: Callable[[StoreError], None] | None = None, *,
        close_ok_wait_s: float = CLOSE_OK_WAIT_S,
    ) -> None:
        self.addresses: list[tuple[str, int]] = []      # the first address of each listener without TLS
        self.tls_addresses: list[tuple[str, int]] = []
        self._config = config
        self._close_ok_wait_s = close_ok_wait_s
        self._on_failure = on_failure or (lambda error: log.critical("%s", error))
        self._stopping = asyncio.Event()
        self._failure: StoreError | None = None
        self._telling: asyncio.Task[None] | None = None
        self._stack = contextlib.AsyncExitStack()
        self._ballast = Ballast(config.data_dir, config.limits.ballast_size)
        self._store: Store | None = None
        self._committer: Committer | None = None
        self._listeners: Listeners | None = None
        self._certificates: Certificates | None = None

    @property
    def data_dir(self) -> Path | None:
        """The data directory; None without a store."""
        return None if self._config.memory else self._config.data_dir

    async def __aenter__(self) -> Runtime:
        async with contextlib.AsyncExitStack() as undo:
            await self._start(undo)
            self._stack = undo.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()      # whatever ended the block, the broker stops in the same way
        if self._telling is not None:       # the store may have failed just now
            await self._telling
        if self._failure is not None and error is None:
            raise self._failure

    def stop(self) -> None:
        """Request a stop: `wait_until_stopping` returns."""
        self._stopping.set()

    @property
    def read_certificates_again(self) -> Callable[[], None] | None:
        """The function that reads the certificates again, which any thread may call; None without TLS."""
        return None if self._certificates is None else self._certificates.read_again

    async def wait_until_stopping(self) -> None:
        """Wait until a stop is requested. Raises StoreError once the store has failed."""
        await self._stopping.wait()
        if self._failure is not None:
            raise self._failure

    # Starting

    async def _start(self, undo: contextlib.AsyncExitStack) -> None:
        """Start all parts in this order, each with its cleanup: the part that was started last is stopped first."""
        config, started_s = self._config, time.monotonic()
        log.info("Starting amqpd %s (behaves as RabbitMQ %s) on Python %s", __version__, RABBITMQ_VERSION,
                 platform.python_version())
        certificates = self._certificates = _certificates(config.tls)
        is_first = is_first_start(config)
        # As far as the users are known already, this is checked before the data directory is created.
        _check_exposure(config, lambda: is_first and begins_with_guest_alone(config), is_first)
        bound = await self._bind(undo, config.listeners)
        tls_bound = await self._bind(undo, config.tls.listeners, addresses.TLS_LISTEN_OPTION)
        broker, storage = open_broker(config, self._ballast, self._fail)
        if storage is not None:
            self._store = storage.store
            undo.callback(storage.store.abandon)        # does nothing once the store is closed
        turn = LoopTurn(broker, asyncio.get_running_loop())
        alarms = self._alarms(turn)
        wall_clock = WallClock(broker.clock, Journal() if storage is None else storage.journal, turn)
        if storage is not None:
            storage.page_store.on_written = alarms.on_written
            await self._start_committer(undo, broker, storage, turn, wall_clock, alarms)
        try:
            declare_configuration(config, broker)
            users = [user.definition for user in broker.users.values()]
            _check_exposure(config, lambda: has_guest_alone(users), is_first)
        except StartError:
            await self._close_unused(storage)
            raise
        settings = session_settings(config)
        logins = Logins(
            broker, frozenset(config.loopback_users), config.limits.login_failure_delay_s,
            form=replace(password_form(config), made_up=settings.login.made_up_verifiers), on_change=turn.begin)
        undo.callback(logins.close)
        listeners = self._listeners = Listeners(
            broker, settings, turn, logins, _unauthenticated(config), asyncio.get_running_loop(),
            certificates, config.proxy_protocol_from, config.limits.tls_handshake_timeout_s)
        undo.callback(listeners.stop_listening)
        turn.committer.take()
        self.addresses = self._listen(listeners, bound)
        self.tls_addresses = self._listen(listeners, tls_bound, is_tls=True)
        await self._open_control(undo, broker, turn, alarms)
        await self._start_tasks(undo, turn, alarms, wall_clock)
        undo.push_async_callback(self._shut_down, broker, listeners, storage)
        for warning in exposure.warnings(config, users):
            log.warning("%s", warning)
        log.info("%s", exposure.describe(config, users))
        log.info("Server startup complete in %.1f s", time.monotonic() - started_s)

    async def _bind(
        self, undo: contextlib.AsyncExitStack, listeners: Iterable[Listener], option: str = addresses.LISTEN_OPTION
    ) -> list[tuple[Listener, list[socket.socket]]]:
        """Bind every address before anything is created; `option` sets them. Raises StartError."""
        found = []
        for listener in listeners:
            try:
                sockets = await addresses.bind(listener.host, listener.port)
            except OSError as error:
                raise _unavailable(listener, error, option) from None
            for one in sockets:
                undo.enter_context(one)
            found.append((listener, sockets))
        return found

    def _listen(
        self, listeners: Listeners, bound: list[tuple[Listener, list[socket.socket]]], *, is_tls: bool = False
    ) -> list[tuple[str, int]]:
        """Accept clients, and return the first address of each listener. Raises StartError."""
        found = []
        for listener, sockets in bound:
            try:
                listeners.listen(sockets, is_tls=is_tls)
            except OSError as error:
                raise _unavailable(listener, error) from None
            for one in sockets:
                log.info("started %s listener on %s", "TLS" if is_tls else "TCP",
                         addresses.describe_address(one.getsockname()[:2]))
            found.append(sockets[0].getsockname()[:2])
        return found

    async def _start_committer(
        self, undo: contextlib.AsyncExitStack, broker: Broker, storage: Storage, turn: LoopTurn, wall_clock: WallClock,
        alarms: Alarms,
    ) -> None:
        turn.page_store = storage.page_store
        storage.page_store.begin(broker, turn.schedule, lambda: "disk" not in turn.alarm)
        turn.committer = self._committer = committer = Committer(
            storage.journal, storage.store, turn, asyncio.get_running_loop(), self._fail, storage.page_store,
            self._ballast.with_room, wall_clock.follow, alarms.on_written)
        committer.thread.start()
        undo.push_async_callback(committer.thread.end)

    def _alarms(self, turn: LoopTurn) -> Alarms:
        """Return the alarms, which know from the start whether the disk is full."""
        limits, is_stored = self._config.limits, self._store is not None
        alarms = Alarms(
            turn, memory_fraction=limits.memory_high_watermark,
            memory_absolute=limits.memory_high_watermark_absolute, disk_free_limit=_disk_free_limit(limits),
            data_dir=self._config.data_dir if is_stored else None, ballast=self._ballast if is_stored else None)
        loop = asyncio.get_running_loop()
        self._ballast.on_spent = lambda: loop.call_soon_threadsafe(alarms.check_disk)
        alarms.check_memory()
        alarms.check_disk()
        return alarms

    async def _start_tasks(
        self, undo: contextlib.AsyncExitStack, turn: LoopTurn, alarms: Alarms, wall_clock: WallClock
    ) -> None:
        tasks = await undo.enter_async_context(anyio.create_task_group())
        undo.callback(tasks.cancel_scope.cancel)
        ticker = Ticker(turn, self._config.limits.outgoing_timeout_s)
        for task in (ticker.tick_forever, alarms.watch_memory_forever, alarms.watch_disk_forever,
                     wall_clock.follow_forever):
            tasks.start_soon(task)
        if self._committer is not None:
            tasks.start_soon(self._committer.watch_files_forever)
        if self._certificates is not None:
            tasks.start_soon(self._certificates.look_forever)

    async def _open_control(
        self, undo: contextlib.AsyncExitStack, broker: Broker, turn: LoopTurn, alarms: Alarms
    ) -> None:
        """Open the control socket; without a store only if a data directory was named, since the socket is a file."""
        data_dir, committer = self._config.data_dir, self._committer
        if self._store is None and data_dir == Config().data_dir:
            return
        node = Node(
            rabbitmq_version=RABBITMQ_VERSION, data_dir=self.data_dir,
            durability="none" if self._store is None else self._config.durability, alarms=alarms,
            listeners=self.addresses, tls_listeners=self.tls_addresses, stop=self.stop,
            password_form=password_form(self._config), begin=turn.begin)
        if self._certificates is not None:
            node.certificates = self._certificates.listed
        if self._store is not None and committer is not None:
            node.store_info = self._store.info
            node.backup = partial(_back_up, self._store, committer)
        control = Control(
            Commands(broker, node), _nothing if committer is None else committer.wait_committed, turn.begin)
        try:
            await undo.enter_async_context(control.listening(data_dir / CONTROL_SOCKET))
        except OSError as error:
            log.warning("amqpctl cannot be used: no control socket in %s: %s", data_dir, error)

    # Running

    def _fail(self, error: StoreError) -> None:
        """Stop, since a broker that cannot write may not confirm; the next start restores what is on disk.

        From here on nothing is confirmed. Clients are told with reply code 541, but none is waited for longer than a
        moment.
        """
        if self._failure is None:
            self._failure = error
            self._on_failure(error)
            self._telling = asyncio.ensure_future(self._tell_clients())

    async def _tell_clients(self) -> None:
        if self._listeners is not None:
            self._listeners.stop_listening()
            await self._listeners.fail_all("the store has failed", LINGER_S)
        self._stopping.set()

    # Stopping

    async def _close_unused(self, storage: Storage | None) -> None:
        """Leave the store as it was found, since the start is refused and no batch has been taken."""
        if storage is not None and self._committer is not None:
            await self._committer.thread.end()
            with contextlib.suppress(StoreError):       # then the next start recovers, as after a crash
                storage.close_unused()

    async def _shut_down(self, broker: Broker, listeners: Listeners, storage: Storage | None) -> None:
        """Stop cleanly; if the store has failed, leave it as after a crash."""
        if self._failure is not None:
            return
        listeners.stop_listening()
        await listeners.close_all(SHUTDOWN, self._close_ok_wait_s)
        broker.worklist.finish(Departure)       # requeue everything unacked, so that it is stored as delivered
        if self._committer is not None and storage is not None:
            await self._committer.stop()
            storage.page_store.end()
            redelivered, bounds = broker.redelivered(), broker.redelivered_to()
            try:
                self._ballast.with_room(lambda: storage.store.close(redelivered, bounds))
            except StoreError as error:
                self._fail(error)
                return
        log.info("stopped")


def _check_exposure(config: Config, is_guest_alone: Callable[[], bool], is_first: bool) -> None:
    """Check that not only guest's password protects a listener. Raises StartError."""
    if fault := exposure.refusal(config, is_guest_alone, is_first_start=is_first):
        raise StartError(fault, EXIT_CONFIG)


def _unavailable(listener: Listener, error: OSError, option: str = addresses.LISTEN_OPTION) -> StartError:
    return StartError(addresses.describe_failure(str(listener), listener.port, error, option), EXIT_UNAVAILABLE)


def _certificates(tls: Tls) -> Certificates | None:
    """Read the certificates, if there is a TLS listener. Raises StartError."""
    if not tls.listeners:
        return None
    try:
        certificates = Certificates(tls)
    except CertificateError as error:
        raise StartError(str(error), EXIT_CONFIG) from None
    for warning in warnings(certificates.certificates, time.time()):
        log.warning("%s", warning)
    return certificates


async def _back_up(store: Store, committer: Committer, to: Path) -> None:
    """Copy the store to a new file between commits. Raises Refusal."""
    try:
        await committer.thread.run_between(lambda between: store.backup(to, lambda left, total: between()))
    except StoreError as error:
        raise Refusal(str(error), EXIT_IO) from None


async def _nothing() -> None:
    """Return at once: without a store, there is nothing to commit."""


def _disk_free_limit(limits: Limits) -> int:
    if limits.disk_free_limit_relative:
        return int(available_bytes() * limits.disk_free_limit_relative)
    return limits.disk_free_limit


def _unauthenticated(config: Config) -> Unauthenticated[ClientProtocol]:
    """Return the clients before login; if few descriptors are left, they get at most half of them."""
    limits = config.limits
    return Unauthenticated(
        min(limits.max_unauthenticated, descriptors_for_clients() // 2), limits.max_unauthenticated_per_address)


def _login_settings(config: Config) -> LoginSettings:
    login = config.login
    return LoginSettings(
        mechanisms=config.auth_mechanisms,
        anonymous_user=login.anonymous_user,
        certificate_name=login.certificate_name,
        certificate_san_type=login.certificate_san_type,
        requires_tls=login.require_tls,
        made_up_verifiers=MadeUpVerifiers(login_key(_key_dir(config))))


def _key_dir(config: Config) -> Path | None:
    """Return where the key for SCRAM is kept; None if none is needed after a restart."""
    return None if config.memory or "SCRAM-SHA-256" not in config.auth_mechanisms else config.data_dir


def session_settings(config: Config) -> SessionSettings:
    """Return what sessions need of the configuration."""
    limits = config.limits
    return SessionSettings(
        server_properties=server_properties(),
        login=_login_settings(config),
        heartbeat_s=limits.heartbeat_s,
        frame_max=limits.frame_max,
        channel_max=limits.channel_max,
        max_body_size=limits.max_message_size,
        consumer_limit=limits.consumers_per_channel,
        unacked_limit=limits.unacked_per_consumer,
        early_bytes=limits.login_buffer_size,
        incomplete_limit=limits.incomplete_bodies_size,
        transaction_acts=limits.transaction_operations,
        transaction_bytes=limits.transaction_size,
        outgoing_limit=limits.outgoing_buffer_size,
        handshake_timeout_ms=int(limits.handshake_timeout_s * 1000),
        connection_limit=min(limits.max_connections, descriptors_for_connections()),
        channel_limit=limits.max_channels,
        consumer_timeout_ms=int(limits.consumer_timeout_s * 1000) or None,
    )
