"""The process that the tests run in: it hears SIGINT, and its garbage collector does not walk the collected tests."""

from __future__ import annotations

import gc
import signal


def pytest_configure() -> None:
    """Hear SIGINT even where a shell in the background has it ignored: the processes that tests start inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Put what the collected tests are made of where the collector does not look."""
    gc.collect()
    gc.freeze()
