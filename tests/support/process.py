"""Set up the test process: it ignores no signal, and the garbage collector does not walk the collected tests."""

from __future__ import annotations

import gc
import signal


def pytest_configure() -> None:
    """Handle SIGINT and SIGHUP where they are ignored: processes that tests start would inherit that.

    A shell ignores SIGINT for what it runs in the background, and `nohup` SIGHUP, which must not end this process.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda signum, frame: None)


def pytest_collection_finish() -> None:
    """Freeze the collected tests, so that the garbage collector does not walk them."""
    gc.collect()
    gc.freeze()
