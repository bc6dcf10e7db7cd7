"""From a `Config` to a running broker, and to its clean end.

Owns the order of starting and stopping. Everything that can be wrong with the configuration, the data
directory or an address is found before a client is let in, and is a `StartError`: one line for the user.

Start: addresses bound, store, what it kept, what the config declares, listeners, "ready". Stop: no new clients, 320 to
those that are there, the last batch, the store closed as clean. A stop that takes too long, and a store that fails, end
as a crash does; in the latter case the clients that can be told quickly are told.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import platform
import socket
import sys
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import anyio

from amqpd import __version__, logs
from amqpd.broker.broker import Broker
from amqpd.broker.clock import Clock
from amqpd.broker.definitions import QueueDefinition
from amqpd.broker.stretch import Budget
from amqpd.config import Config, Listener
from amqpd.management.commands import Commands, Node, Refusal
from amqpd.management.control import SOCKET_NAME, Control
from amqpd.server import addresses
from amqpd.server.alarms import Alarms
from amqpd.server.committer import Committer
from amqpd.server.connection import ClientProtocol
from amqpd.server.declarations import Undeclared, declare
from amqpd.server.listener import Listeners, describe_address
from amqpd.server.login import Logins
from amqpd.server.loop import Pass
from amqpd.server.resources import descriptors_for_clients, descriptors_for_connections
from amqpd.server.shelf import StoreShelf
from amqpd.server.signals import StopSignals, crash, crash_after
from amqpd.server.ticker import Ticker
from amqpd.server.unauthenticated import Unauthenticated
from amqpd.session.connection import SessionSettings
from amqpd.server.wall_clock import WallClock, read_clocks
from amqpd.store.ballast import Ballast
from amqpd.store.errors import StoreError, StoreLocked, from_finding
from amqpd.store.files import DATABASE
from amqpd.store.journal import Journal, MemoryJournal
from amqpd.store.recovery import Recovered
from amqpd.store.restoring import restore
from amqpd.store.spill import Spill
from amqpd.store.store import Store
from amqpd.properties import read_own_facts
from amqpd.wording import counted

log = logging.getLogger("amqpd")

RABBITMQ_VERSION = "3.10.8"     # whose behaviour and properties clients find
CLOSE_OK_WAIT_S = 5.0
STOP_LIMIT_S = 30.0             # then a stop ends as a crash would
LAST_WORDS_S, FAIL_LIMIT_S = 1.0, 3.0           # after the store has failed: to tell the clients; in any case
SWITCH_INTERVAL_S = 0.0005      # a commit that needs the interpreter waits this long for a busy loop, not 5 ms
# Python's collector looks at new objects, for about ten milliseconds, and now and then for a few times as long. It
# never looks at all by itself, since everybody would wait meanwhile: what is not used any more is freed without it, and
# the memory alarm calls it as well.
COLLECTED = 50_000, 5, 1_000_000_000
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3     # of <malloc.h>
KEPT_OCTETS = 16 * 1024 * 1024
OURS = "broker forced connection closure with reason 'shutdown'"

EXIT_OK, EXIT_UNAVAILABLE, EXIT_IO, EXIT_LOCKED, EXIT_CONFIG = 0, 69, 74, 75, 78


class StartError(Exception):
    """The broker cannot start: one line that says what, where and the remedy, and the exit code."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def serve(config: Config) -> int:
    """Run the broker until a signal ends it; returns the exit code. Raises StartError."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _keep_freed_memory()
    signals = StopSignals(STOP_LIMIT_S)
    with signals.heard():
        return anyio.run(_Server(config, signals).run, backend="asyncio", backend_options={"use_uvloop": _has_uvloop()})


def _keep_freed_memory() -> None:
    """Ask the C library not to give memory back to the kernel after each large message, only to take it again.

    Bodies of a megabyte cost a quarter less. Elsewhere than on glibc nothing is changed.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, KEPT_OCTETS)
        mallopt(M_TRIM_THRESHOLD, 2 * KEPT_OCTETS)


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401  (an import is the only way to know)
    except ImportError:
        return False
    return True


class _Server:
    """One run of the broker."""

    def __init__(self, config: Config, signals: StopSignals) -> None:
        self._config = config
        self._signals = signals
        self._stop = asyncio.Event()
        self._store: Store | None = None
        self._shelf: StoreShelf | None = None
        self._ballast = Ballast(config.data_dir, config.limits.ballast_size)
        self._listeners: Listeners | None = None
        self._last_words: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Start, wait, stop. Raises StartError."""
        started_s = time.monotonic()
        log.info("Starting amqpd %s (behaves as RabbitMQ %s) on Python %s", __version__, RABBITMQ_VERSION,
                 platform.python_version())
        with contextlib.ExitStack() as bound:
            sockets = await self._bind(bound)
            return await self._run(sockets, started_s)

    async def _run(self, sockets: list[tuple[Listener, list[socket.socket]]], started_s: float) -> int:
        config = self._config
        broker, journal = self._open()
        loop = asyncio.get_running_loop()
        passes = Pass(loop, broker)
        wall_clock = WallClock(broker.clock, journal, passes)
        alarms = self._alarms(passes)
        if self._store is not None and self._shelf is not None:
            passes.shelf = self._shelf
            self._shelf.begin(broker, passes.schedule, lambda: "disk" not in passes.alarm)
            passes.committer = Committer(
                journal, self._store, passes, loop, self._fail, self._shelf, self._ballast.with_room,
                wall_clock.follow)
        self._declare(broker)
        logins = Logins(broker, frozenset(config.loopback_users), config.limits.login_failure_delay_s)
        self._listeners = listeners = Listeners(
            broker, _session_settings(config), passes, logins, _unauthenticated(config), loop)
        if passes.committer is not None:
            passes.committer.start()
            passes.committer.take()
        listening = self._listen(listeners, sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTED)
        async with self._control(broker, passes, listening, alarms), anyio.create_task_group() as tasks:
            for task in (Ticker(passes).tick_forever, alarms.watch_memory_forever, alarms.watch_disk_forever,
                         wall_clock.follow_forever):
                tasks.start_soon(task)
            if passes.committer is not None:
                tasks.start_soon(passes.committer.watch_files_forever)
            self._signals.call_on_stop(lambda: loop.call_soon_threadsafe(self._stop.set))
            log.info("Server startup complete in %.1f s", time.monotonic() - started_s)
            _say_ready(listening, None if self._store is None else config.data_dir)
            await self._stop.wait()
            self._signals.begin_stop()
            await self._shut_down(broker, listeners, passes, logins)
            tasks.cancel_scope.cancel()
        return EXIT_OK

    # Starting

    def _open(self) -> tuple[Broker, Journal]:
        """The broker as it was when it was last stopped, and the journal that its store is fed from."""
        config = self._config
        clock = Clock(*read_clocks())
        journal = Journal()
        if config.memory:
            return Broker(MemoryJournal(), clock=clock), journal
        if config.durability == "process":
            log.warning('durability = "process": confirmed messages survive the end of the process, but not the loss '
                        "of power")
        with_room = self._ballast.with_room
        began_s = time.monotonic()
        try:
            store = with_room(lambda: Store.open(
                config.data_dir, durability=config.durability, now=int(time.time())), is_start=True)
            try:
                recovered = with_room(lambda: store.load(read_own_facts), is_start=True)
            except StoreError:
                store.abandon()
                raise
        except StoreLocked as error:
            raise StartError(str(error), EXIT_LOCKED) from None
        except StoreError as error:
            raise StartError(str(error), EXIT_IO) from None
        budget = Budget(config.limits.message_memory)
        self._shelf = StoreShelf(store, Spill(Path(config.data_dir), read_own_facts), budget, self._fail)
        broker = Broker(journal, first_number=store.first_number, clock=clock, shelf=self._shelf)
        path = config.data_dir / DATABASE
        for finding in restore(broker, recovered.definitions):
            store.abandon()
            raise StartError(str(from_finding(str(finding), path)), EXIT_IO)
        clock.set_stored(recovered.clock_behind_ms)
        broker.restore_messages(
            recovered.messages, recovered.redelivered, recovered.redelivered_to, recovered.deliveries)
        self._store = store
        _say_recovered(recovered, config.data_dir, time.monotonic() - began_s)
        if not self._ballast.ensure() and not self._ballast.is_spent:
            log.warning("no ballast: less than twice limits.ballast_size is free in %s", config.data_dir)
        return broker, journal

    def _alarms(self, passes: Pass) -> Alarms:
        """The alarms, that of a full disk known from the start."""
        limits, is_stored = self._config.limits, self._store is not None
        alarms = Alarms(
            passes, memory_fraction=limits.memory_high_watermark,
            memory_absolute=limits.memory_high_watermark_absolute, disk_free_limit=limits.disk_free_limit,
            data_dir=self._config.data_dir if is_stored else None, ballast=self._ballast if is_stored else None)
        loop = asyncio.get_running_loop()
        self._ballast.on_spent = lambda: loop.call_soon_threadsafe(alarms.check_disk)
        alarms.check_memory()
        alarms.check_disk()
        return alarms

    def _declare(self, broker: Broker) -> None:
        """Vhosts, users, policies, exchanges, queues and bindings of the configuration. Raises StartError."""
        try:
            declare(self._config, broker)
        except Undeclared as error:
            raise StartError(str(error), EXIT_CONFIG) from None

    async def _bind(self, bound: contextlib.ExitStack) -> list[tuple[Listener, list[socket.socket]]]:
        """Bind every address, before anything is created. Raises StartError."""
        found = []
        for listener in self._config.listeners:
            try:
                sockets = await addresses.bind(listener.host, listener.port)
            except OSError as error:
                raise _unavailable(listener, error) from None
            for one in sockets:
                bound.enter_context(one)
            found.append((listener, sockets))
        return found

    def _listen(
        self, listeners: Listeners, bound: list[tuple[Listener, list[socket.socket]]]
    ) -> list[tuple[str, int]]:
        """Accept clients, and return the first address of each listener. Raises StartError."""
        found = []
        for listener, sockets in bound:
            try:
                listeners.listen(sockets)
            except OSError as error:
                raise _unavailable(listener, error) from None
            for one in sockets:
                log.info("started TCP listener on %s", describe_address(one.getsockname()[:2]))
            found.append(sockets[0].getsockname()[:2])
        return found

    @contextlib.asynccontextmanager
    async def _control(
        self, broker: Broker, passes: Pass, listening: list[tuple[str, int]], alarms: Alarms
    ) -> AsyncIterator[None]:
        """The socket that amqpctl talks to. In memory only where a directory was asked for: no file otherwise."""
        data_dir = self._config.data_dir
        if self._store is None and data_dir == Config().data_dir:
            yield
            return
        node = Node(
            rabbitmq_version=RABBITMQ_VERSION, data_dir=None if self._store is None else data_dir,
            durability="none" if self._store is None else self._config.durability, alarms=alarms,
            listeners=listening, stop=self._stop.set)
        committer = passes.committer
        if self._store is not None and committer is not None:
            node.store_info = self._store.info
            node.backup = partial(_back_up, self._store, committer)
        control = Control(
            Commands(broker, node), _nothing if committer is None else committer.wait_committed, passes.begin)
        async with contextlib.AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(control.listening(data_dir / SOCKET_NAME))
            except OSError as error:
                log.warning("amqpctl cannot be used: no control socket in %s: %s", data_dir, error)
            yield

    # Running

    def _fail(self, error: StoreError) -> None:
        """A broker that cannot write may not confirm: it stops, and recovery decides what is true.

        Nothing is confirmed from here on. Clients that listen hear 541; nobody is waited for longer than a moment.
        """
        if self._last_words is not None:
            return
        log.critical("%s", error)
        logs.complain(f"amqpd: {error}")
        crash_after(FAIL_LIMIT_S, EXIT_IO, "the store has failed")
        self._last_words = asyncio.ensure_future(self._end_failed())

    async def _end_failed(self) -> None:
        if self._listeners is not None:
            self._listeners.stop_listening()
            await self._listeners.fail_all("the store has failed", LAST_WORDS_S)
        crash(EXIT_IO)

    # Stopping

    async def _shut_down(self, broker: Broker, listeners: Listeners, passes: Pass, logins: Logins) -> None:
        listeners.stop_listening()
        await listeners.close_all(OURS, CLOSE_OK_WAIT_S)
        logins.close()
        if passes.committer is not None and self._store is not None and self._shelf is not None:
            await passes.committer.stop()
            self._shelf.end()
            store, redelivered, bounds = self._store, broker.redelivered(), broker.redelivered_to()
            try:
                self._ballast.with_room(lambda: store.close(redelivered, bounds))
            except StoreError as error:
                self._fail(error)
                await asyncio.Event().wait()
        log.info("stopped")


def _say_recovered(recovered: Recovered, data_dir: Path, took_s: float) -> None:
    """Log what the store had, and whether the last run was stopped or ended otherwise."""
    queues = sum(isinstance(definition, QueueDefinition) for definition in recovered.definitions)
    messages = sum(len(stored.numbers) for stored in recovered.messages.values())
    log.info("data directory: %s", data_dir.absolute())
    log.info("%s %s and %s in %.1f s",
             "loaded" if recovered.was_clean else "the last run was not stopped cleanly: recovered",
             counted(queues, "durable queue"), counted(messages, "message"), took_s)


def _unavailable(listener: Listener, error: OSError) -> StartError:
    return StartError(addresses.describe_failure(str(listener), listener.port, error), EXIT_UNAVAILABLE)


def _say_ready(listening: list[tuple[str, int]], data_dir: Path | None) -> None:
    """The one line on stdout that whoever started the broker waits for."""
    listeners = " ".join(f"amqp={describe_address(address)}" for address in listening)
    writer = logs.LineWriter(logs.sink_of(sys.stdout), "amqpd-ready")    # nobody need read that either
    writer.put(f"amqpd {__version__} ready {listeners} data={data_dir or 'memory'}")
    writer.close()


async def _back_up(store: Store, committer: Committer, to: Path) -> None:
    """Copy the store to a new file between commits. Raises Refusal."""
    try:
        await committer.run_between(lambda between: store.backup(to, lambda left, total: between()))
    except StoreError as error:
        raise Refusal(str(error), EXIT_IO) from None


async def _nothing() -> None:
    """What a commit takes where nothing is kept."""


def _unauthenticated(config: Config) -> Unauthenticated[ClientProtocol]:
    """No clients yet; where few descriptors are left, those that have not logged in get half of them at most."""
    limits = config.limits
    return Unauthenticated(
        min(limits.max_unauthenticated, descriptors_for_clients() // 2), limits.max_unauthenticated_per_address)


def _session_settings(config: Config) -> SessionSettings:
    limits = config.limits
    return SessionSettings(
        server_properties=server_properties(),
        heartbeat_s=limits.heartbeat_s,
        frame_max=limits.frame_max,
        channel_max=limits.channel_max,
        max_body_size=limits.max_message_size,
        unacked_limit=limits.unacked_per_consumer,
        outgoing_limit=limits.outgoing_buffer_size,
        handshake_timeout_ms=int(limits.handshake_timeout_s * 1000),
        connection_limit=min(limits.max_connections, descriptors_for_connections()),
        consumer_timeout_ms=int(limits.consumer_timeout_s * 1000) or None,
    )


def server_properties() -> dict[str, object]:
    """What a client is told of us. Clients choose by product and version, so these are RabbitMQ's; ours are beside.

    RabbitMQ docs/specification (capabilities).
    """
    return {
        "capabilities": dict.fromkeys((
            "publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
            "connection.blocked", "consumer_priorities", "authentication_failure_close", "per_consumer_qos",
            "direct_reply_to",
        ), True),
        "cluster_name": "amqpd@localhost",
        "copyright": "The amqpd authors",
        "information": "amqpd speaks AMQP 0-9-1 as RabbitMQ does",
        "platform": "Erlang/OTP 25.2.3",
        "product": "RabbitMQ",
        "version": RABBITMQ_VERSION,
        "amqpd_product": "amqpd",
        "amqpd_version": __version__,
        "amqpd_platform": f"Python {sys.version.split()[0]}",
    }
