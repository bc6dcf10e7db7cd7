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

import anyio

from amqpd import __version__, logs
from amqpd.config import Config
from amqpd.exit_codes import EXIT_IO, EXIT_OK
from amqpd.server.addresses import describe_address
from amqpd.server.runtime import Runtime
from amqpd.server.signals import StopSignals, crash, crash_after
from amqpd.server.startup import StartError
from amqpd.store.errors import StoreError

__all__ = ["StartError", "serve"]

log = logging.getLogger("amqpd")

STOP_LIMIT_S = 30.0
FAIL_LIMIT_S = 3.0              # after the store has failed, at most
SWITCH_INTERVAL_S = 0.0005      # how long a commit waits for the interpreter while the loop is busy; 5 ms by default
# Python's garbage collector visits new objects, which takes about ten milliseconds, and now and then a few times as
# long. It never runs automatically, since all clients would wait: unused objects are freed without it, by reference
# counts, and the memory alarm calls it too.
COLLECTED = 50_000, 5, 1_000_000_000
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3     # of <malloc.h>
KEPT_BYTES = 16 * 1024 * 1024


def serve(config: Config, *, stop_limit_s: float = STOP_LIMIT_S) -> int:
    """Run the broker until a signal ends it; return the exit code. Raises StartError.

    If a stop takes longer than `stop_limit_s`, the process ends as in a crash.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _keep_freed_memory()
    signals = StopSignals(stop_limit_s)
    with signals.heard():
        return anyio.run(
            _serve, config, signals, backend="asyncio", backend_options={"use_uvloop": _has_uvloop()})


async def _serve(config: Config, signals: StopSignals) -> int:
    loop = asyncio.get_running_loop()
    try:
        async with Runtime(config, _complain) as runtime:
            gc.collect()
            gc.freeze()
            gc.set_threshold(*COLLECTED)
            signals.call_on_stop(lambda: loop.call_soon_threadsafe(runtime.stop))
            signals.call_on_reload(runtime.read_certificates_again)
            _say_ready(runtime)
            try:
                await runtime.wait_until_stopping()
            except StoreError:
                crash(EXIT_IO)
            signals.begin_stop()
    except StoreError:
        crash(EXIT_IO)
    return EXIT_OK


def _complain(error: StoreError) -> None:
    """Report that the store has failed, and end the process soon, even if it hangs."""
    log.critical("%s", error)
    logs.complain(f"amqpd: {error}")
    crash_after(FAIL_LIMIT_S, EXIT_IO, "the store has failed")


def _say_ready(runtime: Runtime) -> None:
    """Print the one line on stdout that tells the parent process that the broker is ready."""
    listeners = " ".join((
        *(f"amqp={describe_address(address)}" for address in runtime.addresses),
        *(f"amqps={describe_address(address)}" for address in runtime.tls_addresses)))
    writer = logs.LineWriter(logs.sink_of(sys.stdout), "amqpd-ready")    # in a thread, since stdout may not be read
    writer.put(f"amqpd {__version__} ready {listeners} data={runtime.data_dir or 'memory'}")
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
