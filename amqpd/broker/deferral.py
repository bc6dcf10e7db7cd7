"""The deferral of records, for a job that records in several turns what must be on disk as a whole.

Records that are deferred are kept out of the journal's batches while the job goes on, and join one batch at its end. So
the batches of other clients are written meanwhile. One job at a time may defer records; another one waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from amqpd.broker.worklist import nothing


class Deferral:
    """The deferral; `is_open` while a job has it, `is_on` while that job records. `join` is called at its end."""

    __slots__ = ("is_open", "is_on", "_join", "_calls")

    def __init__(self, join: Callable[[], None] = nothing) -> None:
        self.is_open = self.is_on = False
        self._join = join
        self._calls: list[Callable[[], None]] = []

    def begin(self) -> bool:
        """Begin to defer records; return False if another job does."""
        if self.is_open:
            return False
        self.is_open = True
        return True

    @contextmanager
    def on(self) -> Iterator[None]:
        """Defer what is published, settled and requeued until the block ends."""
        self.is_on = True
        try:
            yield
        finally:
            self.is_on = False

    def end(self) -> None:
        """Let the records join the current batch."""
        self._join()
        self.is_open = False
        calls, self._calls = self._calls, []
        for go_on in calls:
            go_on()

    def call(self, go_on: Callable[[], None]) -> None:
        """Call back, once, when the deferral has ended."""
        self._calls.append(go_on)


class NoDeferral(Deferral):
    """The deferral where nothing is written: it is always granted."""

    __slots__ = ()

    def begin(self) -> bool:
        """See `Deferral`."""
        return True
