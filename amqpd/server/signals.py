"""SIGTERM, SIGINT and SIGHUP, and the watchdog for a stop that takes too long. They work while the loop is busy.

Owns a thread that waits for the signals, which are blocked in all other threads, and the timer of the watchdog. The
first signal requests a stop and starts the watchdog. A second signal, or one before the broker is ready, ends the
process as a crash does, which is safe.

SIGHUP stops a broker that runs in a terminal, since the terminal is closed. A service has no terminal: there the signal
means "reload": see `server/reloading.py`. If the parent process ignores the signal, as `nohup` does, it stays ignored.
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
    """The handling of the signals. `limit_s` is how long a stop may take before the watchdog ends the process."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._has_terminal = has_terminal()     # read now, since it is not known once the terminal is closed
        is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._awaited = STOPPING if is_ignored else STOPPING | {signal.SIGHUP}
        self._on_stop: Callable[[], object] | None = None
        self._on_reload: Callable[[], object] | None = None
        self._watchdog: threading.Timer | None = None
        self._lock = threading.Lock()
        self._is_over = False
        self._thread = threading.Thread(target=self._wait_forever, name="amqpd-signals", daemon=True)

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Handle the signals until the block ends. Threads that are started inside the block do not get them."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._awaited)
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

    def call_on_stop(self, on_stop: Callable[[], object] | None) -> None:
        """Let the next signal call this, in the thread of the signals, instead of ending the process.

        None lets it end the process.
        """
        self._on_stop = on_stop

    def call_on_reload(self, on_reload: Callable[[], object] | None) -> None:
        """Let SIGHUP call this, in the thread of the signals, where there is no terminal."""
        self._on_reload = on_reload

    def begin_stop(self) -> None:
        """Start the watchdog, once; the next signal ends the process."""
        with self._lock:
            self._on_stop = None
            if self._watchdog is None:
                self._watchdog = crash_after(self._limit_s, 128 + signal.SIGTERM, "the stop takes too long")

    def _wait_forever(self) -> None:
        while True:
            signum = signal.sigwait(self._awaited)
            if self._is_over:
                return
            self._on_signal(signum)

    def _on_signal(self, signum: int) -> None:
        name = signal.Signals(signum).name
        if signum == signal.SIGHUP and self._watchdog is not None:
            return      # the shell and the kernel may both report that the terminal is closed
        if signum == signal.SIGHUP and not self._has_terminal:
            if self._on_reload is None:
                log.info("SIGHUP ignored before the start is complete")
            else:
                self._on_reload()
            return
        on_stop = self._on_stop
        if on_stop is None:
            log.warning("%s %s: ending as in a crash", name,
                        "before the start was complete" if self._watchdog is None else "while stopping")
            crash(128 + signum)
        log.info("stopping: %s", name)
        self.begin_stop()
        on_stop()


def has_terminal() -> bool:
    """Return whether a terminal controls this process."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def crash_after(seconds: float, exit_code: int, reason: str) -> threading.Timer:
    """End the process after so many seconds, even if it hangs, unless the timer is cancelled; no confirm is lost."""
    def end() -> None:
        log.critical("%s: ending as in a crash", reason)
        crash(exit_code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    return timer


def crash(exit_code: int) -> NoReturn:
    """End the process now, after a short wait for the log to be written."""
    logs.flush(LAST_LINES_S)
    os._exit(exit_code)
