"""SIGTERM and SIGINT, and the watchdog that ends a stop which takes too long. Both work while the loop is busy.

Owns a thread that waits for the signals, which are blocked in all others, and the timer of the watchdog. The first
signal asks for a stop and starts the watchdog; a second one, or one before the broker is ready, ends the process as a
crash would, which is safe.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

from amqpd import logs

log = logging.getLogger("amqpd")

STOPPING = frozenset({signal.SIGTERM, signal.SIGINT})
LAST_LINES_S = 0.5      # for the log to be read before the process ends at once


class StopSignals:
    """`limit_s` is how long a stop may take before the watchdog ends the process."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._on_stop: Callable[[], object] | None = None
        self._watchdog: threading.Timer | None = None
        self._lock = threading.Lock()
        self._is_over = False
        self._thread = threading.Thread(target=self._wait_forever, name="amqpd-signals", daemon=True)

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Hear the signals until the block ends. Threads that are started inside it do not get them."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        self._thread.start()
        try:
            yield
        finally:
            self._is_over = True
            if self._watchdog is not None:
                self._watchdog.cancel()
            if self._thread.ident is not None:
                signal.pthread_kill(self._thread.ident, signal.SIGTERM)
            self._thread.join()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def call_on_stop(self, on_stop: Callable[[], object]) -> None:
        """Have the next signal call this, in the thread of the signals, instead of ending the process."""
        self._on_stop = on_stop

    def begin_stop(self) -> None:
        """Start the watchdog, once; the next signal ends the process."""
        with self._lock:
            self._on_stop = None
            if self._watchdog is None:
                self._watchdog = crash_after(self._limit_s, 128 + signal.SIGTERM, "the stop takes too long")

    def _wait_forever(self) -> None:
        while True:
            signum = signal.sigwait(STOPPING)
            if self._is_over:
                return
            on_stop = self._on_stop
            if on_stop is None:
                crash(128 + signum)
            log.info("stopping: %s", signal.Signals(signum).name)
            self.begin_stop()
            on_stop()


def crash_after(seconds: float, exit_code: int, reason: str) -> threading.Timer:
    """End the process then, whatever it is doing, unless that is cancelled; nothing is lost that was promised."""
    def end() -> None:
        log.critical("%s: ending as a crash would", reason)
        crash(exit_code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    return timer


def crash(exit_code: int) -> NoReturn:
    """End the process now, after what was logged, if that is read."""
    logs.flush(LAST_LINES_S)
    os._exit(exit_code)
