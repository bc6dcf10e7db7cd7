"""The process of `amqpd serve`: the only place that changes the process itself.

Owns signals, the interpreter's settings, the C library's allocator, the ready line on stdout, and the exit. Everything
else is in `server/runtime.py`, which an application may run in its own event loop.

A stop that takes too long, and a store that fails, end the process as a crash does; no confirmed message is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import sys
from collections.abc import Callable
from functools import partial

import anyio

from amqpd import __version__, logs
from amqpd.config import Config, Examination
from amqpd.exit_codes import EXIT_IO, EXIT_OK, EXIT_TEMPORARY
from amqpd.server.addresses import describe_address
from amqpd.server.cluster.phase import stand_by
from amqpd.server.cluster.settings import check_cluster
from amqpd.server.reloading import Reloading
from amqpd.server.runtime import Runtime
from amqpd.server.signals import StopSignals, crash, crash_after
from amqpd.server.startup import StartError, membership_of
from amqpd.server.systemd import Passed, Service, take_passed_sockets
from amqpd.store.errors import StoreError
from amqpd.store.port import Membership

__all__ = ["StartError", "serve"]

log = logging.getLogger("amqpd")

STOP_LIMIT_S = 30.0
FAIL_LIMIT_S = 3.0              # after the store has failed, at most
SWITCH_INTERVAL_S = 0.0005      # how long a commit waits for the interpreter while the loop is busy; 5 ms by default
# Python's garbage collector visits each new object twice, a few milliseconds at a time. With 50,000 objects at a time,
# an import of 10,000 queues stopped all clients for 120 ms, and was no faster. It never visits old ones automatically,
# since all clients would wait: unused objects are freed without it, by reference counts, and the memory alarm calls it.
COLLECTED = 10_000, 5, 1_000_000_000
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3     # of <malloc.h>
KEPT_BYTES = 16 * 1024 * 1024


def serve(config: Config, read: Callable[[], Examination], *, stop_limit_s: float = STOP_LIMIT_S) -> int:
    """Run the broker until a signal ends it; return the exit code. Raises StartError.

    `read` reads the configuration again, on SIGHUP. If a stop takes longer than `stop_limit_s`, the process ends as in
    a crash. Sockets that were passed to the process take the place of listeners of their kind.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _keep_freed_memory()
    passed = take_passed_sockets()

    def read_with_passed() -> Examination:
        found = read()
        return found if found.config is None else found._replace(config=passed.used_in(found.config))

    signals = StopSignals(stop_limit_s)
    with signals.heard():
        return anyio.run(
            _serve, passed.used_in(config), passed, read_with_passed, signals, backend="asyncio",
            backend_options={"use_uvloop": _has_uvloop()})


async def _serve(
    config: Config, passed: Passed, read: Callable[[], Examination], signals: StopSignals
) -> int:
    service = Service()
    if not config.cluster.listeners:
        return await _lead(config, passed, read, signals, service)
    check_cluster(config)
    membership = await asyncio.to_thread(membership_of, config)
    try:
        while await stand_by(config, membership, signals, partial(_announce, service)):
            try:
                return await _lead(config, passed, read, signals, service, membership)
            except StartError as error:
                if error.exit_code != EXIT_TEMPORARY:
                    raise       # else another node was quicker
        return EXIT_OK
    finally:
        membership.leave()


def _announce(service: Service, ready: str, addresses: list[tuple[str, int]]) -> None:
    """Tell the parent process that a node passes clients on."""
    _say(ready)
    service.ready(addresses)


async def _lead(
    config: Config, passed: Passed, read: Callable[[], Examination], signals: StopSignals, service: Service,
    membership: Membership | None = None,
) -> int:
    loop = asyncio.get_running_loop()
    try:
        async with Runtime(
            config, _complain, has_default_http=True, sockets=passed.by_listener, membership=membership
        ) as runtime, anyio.create_task_group() as tasks:
            gc.collect()
            gc.freeze()
            gc.set_threshold(*COLLECTED)
            signals.call_on_stop(lambda: loop.call_soon_threadsafe(runtime.stop))
            reloading = Reloading(
                config, read, lambda new, changed: loop.call_soon_threadsafe(_apply, runtime, new, changed),
                runtime.read_certificates_again)
            signals.call_on_reload(reloading.read_again)
            _say_ready(runtime)
            service.ready([*runtime.addresses, *runtime.tls_addresses])
            tasks.start_soon(service.keep_alive)
            try:
                await runtime.wait_until_stopping()
            except StoreError:
                crash(EXIT_IO)
            signals.begin_stop()
            service.stopping()
            tasks.cancel_scope.cancel()
    except StoreError:
        crash(EXIT_IO)
    return EXIT_OK


def _apply(runtime: Runtime, config: Config, changed: frozenset[str]) -> None:
    """Use the settings that have changed."""
    if changed & {"log.level", "log.format"}:       # else amqpctl may have set another level
        logs.change(config.log.level, config.log.format)
    runtime.change_settings(config, changed)


def _complain(error: StoreError) -> None:
    """Report that the store has failed, and end the process soon, even if it hangs."""
    log.critical("%s", error)
    logs.complain(f"amqpd: {error}")
    crash_after(FAIL_LIMIT_S, EXIT_IO, "the store has failed")


def _say_ready(runtime: Runtime) -> None:
    """Print the one line on stdout that tells the parent process that the broker is ready."""
    listeners = " ".join((
        *(f"amqp={describe_address(address)}" for address in runtime.addresses),
        *(f"amqps={describe_address(address)}" for address in runtime.tls_addresses),
        *(f"http={describe_address(address)}" for address in runtime.http_addresses),
        *(f"metrics={describe_address(address)}" for address in runtime.metrics_addresses)))
    _say(f"amqpd {__version__} ready {listeners} data={runtime.data_dir or 'memory'}")


def _say(line: str) -> None:
    """Print a line on stdout, in a thread, since stdout may not be read."""
    writer = logs.LineWriter(logs.sink_of(sys.stdout), "amqpd-ready")
    writer.put(line)
    writer.close()


def _keep_freed_memory() -> None:
    """Let the C library keep freed memory, instead of returning it to the kernel after each large message.

    A body of a megabyte then costs a quarter less. Without glibc nothing changes.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(M_TRIM_THRESHOLD, 2 * KEPT_BYTES)


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401  (an import is the only way to know)
    except ImportError:
        return False
    return True
