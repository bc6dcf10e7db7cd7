"""The page store of a broker without a store: nothing is ever paged out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from amqpd.broker.queue.pages import OnDisk, Page
from amqpd.broker.queue.segment import Budget
from amqpd.message import Message

if TYPE_CHECKING:
    from amqpd.broker.ports import Reader


class MemoryPageStore:
    """See `broker/ports.py`."""

    def __init__(self) -> None:
        self.budget = Budget()
        self.safe_number = self.taken_number = self.committed_batch = 0
        self.is_open = True
        self.can_spill = False

    def call(self, reader: Reader) -> None:
        """Do nothing: there is nothing to read."""

    def fetch(self, on_disk: OnDisk) -> list[Message]:
        """Return nothing."""
        return []

    def spill(self, page: Page, run: Sequence[Message]) -> None:
        """Do nothing: nothing is paged out."""
