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
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio
from msgspec.structs import replace

from amqpd import __version__
from amqpd.broker.broker import Broker
from amqpd.broker.definitions import UserDefinition
from amqpd.broker.departure import Departure
from amqpd.broker.events import Events
from amqpd.broker.measures import Measures
from amqpd.config import Config, Listener
from amqpd.config.settings import effective
from amqpd.exit_codes import EXIT_CONFIG
from amqpd.identity import CONTROL_SOCKET, RABBITMQ_VERSION
from amqpd.management.commands import Commands
from amqpd.management.control import Control
from amqpd.management.node_commands import Node
from amqpd.server import addresses, exposure
from amqpd.server.alarms import Alarms
from amqpd.server.application import SHUTDOWN, Application
from amqpd.server.binding import Binding, Bound, HttpBound, unavailable
from amqpd.server.certificates import CertificateError, Certificates, warnings
from amqpd.server.cluster.gate import Gate
from amqpd.server.cluster.members import Members
from amqpd.server.cluster.settings import reached_at
from amqpd.server.committer import Committer
from amqpd.server.declarations import password_form
from amqpd.server.exposure import begins_with_guest_alone, has_guest_alone
from amqpd.server.listener import Listeners
from amqpd.server.live_limits import change_alarms, change_limits, unauthenticated_clients
from amqpd.server.login import Logins
from amqpd.server.loop import LoopTurn
from amqpd.server.measuring import measure
from amqpd.server.resources import disk_free_limit
from amqpd.server.session_settings import session_settings
from amqpd.server.startup import StartError, Storage, declare_configuration, is_first_start, open_broker
from amqpd.server.store_jobs import back_up, read_audit_log, read_log
from amqpd.server.ticker import Ticker
from amqpd.server.wall_clock import WallClock
from amqpd.store.ballast import Ballast
from amqpd.store.errors import StoreError
from amqpd.store.journal import Journal
from amqpd.store.port import Membership, Store

if TYPE_CHECKING:
    from amqpd.management.statistics import Statistics
    from amqpd.server.machine_checks import Finding

log = logging.getLogger("amqpd")

CLOSE_OK_WAIT_S = 5.0
LINGER_S = 1.0      # for clients to read that the store has failed


class Runtime:
    """A broker that runs during its `async with` block. Entering the block raises StartError.

    `on_failure` is called at once when the store fails; `wait_until_stopping` raises the error a moment later. A stop
    waits at most `close_ok_wait_s` for clients to answer `close`. If the configuration does not say where
    the management API is, or the metrics, there is none, or with `has_default_http` one at its default address if that
    is free.
    `sockets` are bound already, for these listeners of the configuration. `membership` is this node's, if it shares
    the store with others.
    """

    def __init__(
        self, config: Config, on_failure: Callable[[StoreError], None] | None = None, *,
        close_ok_wait_s: float = CLOSE_OK_WAIT_S, has_default_http: bool = False,
        sockets: Mapping[Listener, socket.socket] | None = None, membership: Membership | None = None,
    ) -> None:
        self.addresses: list[tuple[str, int]] = []      # the first address of each listener without TLS
        self.tls_addresses: list[tuple[str, int]] = []
        self.http_addresses: list[tuple[str, int]] = []     # of the management API
        self.metrics_addresses: list[tuple[str, int]] = []
        self._has_default_http = has_default_http
        self._sockets = sockets or {}
        self._membership = membership
        self.measures = Measures()
        self._config = config
        self._close_ok_wait_s = close_ok_wait_s
        self._on_failure = on_failure or (lambda error: log.critical("%s", error))
        self._members = None if membership is None else Members(membership)
        self._stopping = asyncio.Event()
        self._failure: StoreError | None = None
        self._telling: asyncio.Task[None] | None = None
        self._stack = contextlib.AsyncExitStack()
        self._ballast = Ballast(config.data_dir, config.limits.ballast_size)
        self._store: Store | None = None
        self._committer: Committer | None = None
        self._listeners: Listeners | None = None
        self._certificates: Certificates | None = None
        self._changes: list[Callable[[Config, frozenset[str]], None]] = []      # what each part does with new settings

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

    def change_settings(self, config: Config, changed: frozenset[str]) -> None:
        """Use the new values of these settings, which are some of `reloading.RELOADABLE`."""
        self._config = config
        for change in self._changes:
            change(config, changed)

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
        certificates = self._certificates = _certificates(config)
        is_first = is_first_start(config)
        # As far as the users are known already, this is checked before the data directory is created.
        _check_exposure(config, lambda: is_first and begins_with_guest_alone(config), is_first)
        binding = Binding(undo, self._sockets)
        bound = await binding.bind(config.listeners)
        tls_bound = await binding.bind(config.tls.listeners, addresses.TLS_LISTEN_OPTION)
        http_bound = await binding.bind_http(config.management, has_defaults=self._has_default_http)
        cluster_bound = await binding.bind(config.cluster.listeners, addresses.CLUSTER_OPTION)
        reached = reached_at(config, cluster_bound[0][1]) if cluster_bound else ""
        broker, storage = open_broker(config, self._ballast, self._fail, reached)
        if storage is not None:
            self._store = storage.store
            undo.callback(storage.store.abandon)        # does nothing once the store is closed
        turn = LoopTurn(broker, asyncio.get_running_loop())
        alarms = self._alarms(turn, broker.events)
        wall_clock = WallClock(broker.clock, Journal() if storage is None else storage.journal, turn)
        if storage is not None:
            storage.page_store.on_written = alarms.on_written
            storage.page_store.measures = self.measures
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
            broker, settings, turn, logins, unauthenticated_clients(config), asyncio.get_running_loop(),
            certificates, config.proxy_protocol_from, config.limits.tls_handshake_timeout_s)
        undo.callback(listeners.stop_listening)
        self._changes += [partial(change_limits, broker, listeners, logins), partial(change_alarms, alarms)]
        turn.committer.take()
        self.addresses = self._listen(listeners, bound)
        if cluster_bound:
            self._open_gate(undo, listeners, cluster_bound[0][1], reached)
        self.tls_addresses = self._listen(listeners, tls_bound, is_tls=True)
        node = self._node(turn, alarms)
        node.application = Application(
            listeners, partial(_declare_anew, config, broker), self._close_ok_wait_s)
        commands = Commands(broker, node)
        control = Control(commands, node.wait_committed, turn.begin)
        statistics = None
        if any(http_bound):
            statistics = await self._open_http(
                undo, http_bound, broker, node, commands, control, logins, listeners, alarms)
        await self._open_control(undo, control)
        await self._start_tasks(undo, turn, alarms, wall_clock, statistics)
        undo.push_async_callback(self._shut_down, broker, listeners, storage)
        for warning in exposure.warnings(config, users):
            log.warning("%s", warning)
        log.info("%s", exposure.describe(config, users, *self._http_listeners()))
        log.info("Server startup complete in %.1f s", time.monotonic() - started_s)

    def _open_gate(
        self, undo: contextlib.AsyncExitStack, listeners: Listeners, sockets: list[socket.socket], reached: str
    ) -> None:
        """Accept the clients that other nodes pass on. Raises StartError."""
        gate = Gate(self._config.cluster.secret.reveal().encode(), listeners.take_in, asyncio.get_running_loop())
        try:
            gate.listen(sockets)
        except OSError as error:
            raise unavailable(self._config.cluster.listeners[0], error, addresses.CLUSTER_OPTION) from None
        undo.callback(gate.stop)
        if self._membership is not None:
            self._membership.address = reached
        log.info("other nodes reach this one at %s", reached)

    def _listen(
        self, listeners: Listeners, bound: list[Bound], *, is_tls: bool = False
    ) -> list[tuple[str, int]]:
        """Accept clients, and return the first address of each listener. Raises StartError."""
        found = []
        for listener, sockets in bound:
            try:
                listeners.listen(sockets, is_tls=is_tls)
            except OSError as error:
                raise unavailable(listener, error) from None
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
            self._ballast.with_room, wall_clock.follow, alarms.on_written, measures=self.measures)
        loop = asyncio.get_running_loop()

        def tell(reason: str) -> None:
            with contextlib.suppress(RuntimeError):     # the loop has ended
                loop.call_soon_threadsafe(alarms.set_unreachable, reason)

        storage.store.on_reachable(tell)
        committer.thread.start()
        undo.push_async_callback(committer.thread.end)

    def _alarms(self, turn: LoopTurn, events: Events) -> Alarms:
        """Return the alarms, which know from the start whether the disk is full."""
        limits, is_stored = self._config.limits, self._store is not None
        alarms = Alarms(
            turn, memory_fraction=limits.memory_high_watermark,
            memory_absolute=limits.memory_high_watermark_absolute, disk_free_limit=disk_free_limit(limits),
            data_dir=self._config.data_dir if is_stored else None, ballast=self._ballast if is_stored else None,
            events=events)
        loop = asyncio.get_running_loop()
        self._ballast.on_spent = lambda: loop.call_soon_threadsafe(alarms.check_disk)
        alarms.check_memory()
        alarms.check_disk()
        return alarms

    async def _start_tasks(
        self, undo: contextlib.AsyncExitStack, turn: LoopTurn, alarms: Alarms, wall_clock: WallClock,
        statistics: Statistics | None,
    ) -> None:
        tasks = await undo.enter_async_context(anyio.create_task_group())
        undo.callback(tasks.cancel_scope.cancel)
        ticker = Ticker(turn, self._config.limits.outgoing_timeout_s, self.measures)
        self._changes.append(lambda new, changed: ticker.change_timeout(new.limits.outgoing_timeout_s))
        for task in (ticker.tick_forever, alarms.watch_memory_forever, alarms.watch_disk_forever,
                     wall_clock.follow_forever):
            tasks.start_soon(task)
        if statistics is not None:
            tasks.start_soon(statistics.sample_forever)
        if self._committer is not None:
            tasks.start_soon(self._committer.watch_files_forever)
        if self._certificates is not None:
            tasks.start_soon(self._certificates.look_forever)
        if self._members is not None:
            tasks.start_soon(self._members.note_forever)

    def _node(self, turn: LoopTurn, alarms: Alarms) -> Node:
        """Return what the commands need and the broker does not know."""
        committer = self._committer
        node = Node(
            rabbitmq_version=RABBITMQ_VERSION, data_dir=self.data_dir,
            durability="none" if self._store is None else self._store.info().durability, alarms=alarms,
            listeners=self.addresses, tls_listeners=self.tls_addresses, stop=self.stop,
            auth_mechanisms=self._config.auth_mechanisms, password_form=password_form(self._config),
            environment=lambda: effective(self._config), begin=turn.begin,
            diagnose=self._diagnose, read_log=read_log)
        if self._certificates is not None:
            node.certificates = self._certificates.listed
        if self._members is not None:
            node.members = self._members.listed
        if committer is not None:
            node.wait_committed = committer.wait_committed
        if self._store is not None and committer is not None:
            node.store_info = self._store.info
            node.confirms = self._store.info().confirms
            node.backup = partial(back_up, self._store, committer)
            node.read_audit_log = partial(read_audit_log, self._store, committer)
        return node

    def _http_listeners(self) -> tuple[list[Listener], list[Listener]]:
        """Return where the management API is, and where the metrics are."""
        api, metrics = [[Listener(addresses.describe_address(address)) for address in found]
                        for found in (self.http_addresses, self.metrics_addresses)]
        return api, metrics

    async def _open_http(
        self, undo: contextlib.AsyncExitStack, bound: HttpBound, broker: Broker, node: Node, commands: Commands,
        control: Control, logins: Logins, listeners: Listeners, alarms: Alarms,
    ) -> Statistics:
        """Serve the management API and the metrics, and return their statistics. Raises StartError."""
        # Only here: they take time and memory to load.
        from amqpd.management.statistics import Statistics
        from amqpd.server.http_server import HttpServer

        statistics = Statistics(
            broker, listeners.turn.now_ms, partial(measure, alarms, broker, self.measures), self.measures,
            keeps_samples=bool(bound.api or bound.api_tls) and not self._config.management.disable_stats)
        server = HttpServer(broker, node, commands, control, logins, listeners, statistics, self._config.management)
        undo.push_async_callback(server.stop)
        certificates = self._certificates
        self.http_addresses, self.metrics_addresses = await server.listen(
            bound, None if certificates is None else lambda: certificates.context)
        return statistics

    async def _open_control(self, undo: contextlib.AsyncExitStack, control: Control) -> None:
        """Open the control socket; without a store only if a data directory was named, since the socket is a file."""
        data_dir = self._config.data_dir
        if self._store is None and data_dir == Config().data_dir:
            return
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

    def _diagnose(
        self, status: dict[str, Any], users: Collection[UserDefinition], clock_behind_ms: int
    ) -> list[Finding]:
        from amqpd.server.doctor import examine_running     # only here: it takes time to load, and is seldom asked

        return examine_running(self._config, status, users, clock_behind_ms)

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
            try:
                self._committer.commit_rest()       # from here on nothing awaits until the store is closed
                redelivered, bounds = broker.redelivered(), broker.redelivered_to()
                self._ballast.with_room(lambda: storage.store.close(redelivered, bounds))
            except StoreError as error:
                self._fail(error)
                return
        log.info("stopped")


def _check_exposure(config: Config, is_guest_alone: Callable[[], bool], is_first: bool) -> None:
    """Check that not only guest's password protects a listener. Raises StartError."""
    if fault := exposure.refusal(config, is_guest_alone, is_first_start=is_first):
        raise StartError(fault, EXIT_CONFIG)


def _declare_anew(config: Config, broker: Broker) -> None:
    """Declare the configuration on a broker that has nothing, as at a first start. Raises StartError."""
    declare_configuration(config, broker)
    users = [user.definition for user in broker.users.values()]
    _check_exposure(config, lambda: has_guest_alone(users), is_first=True)


def _certificates(config: Config) -> Certificates | None:
    """Read the certificates, if there is a TLS listener. Raises StartError."""
    if not config.has_tls:
        return None
    try:
        certificates = Certificates(config.tls)
    except CertificateError as error:
        raise StartError(str(error), EXIT_CONFIG) from None
    for warning in warnings(certificates.certificates, time.time()):
        log.warning("%s", warning)
    return certificates
