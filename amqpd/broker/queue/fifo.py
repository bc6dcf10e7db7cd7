"""The protocol of a queue's ready messages. `paged_fifo.py` and `priority_fifo.py` implement it.

RabbitMQ docs/priority, docs/semantics (requeueing), docs/lazy-queues.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Protocol

from amqpd.broker.queue.pages import NEVER_DUE, Cleared, Due, OnDisk, Page, Removed
from amqpd.broker.queue.segment import NO_BOUND
from amqpd.message import Message

NO_LIMIT = 1 << 62
Place = tuple[int, int]     # behind the message with this priority, and this number
HEAD: Place = NO_LIMIT, -1
Bound = Callable[[int], int]


def without_bound(first: int) -> int:
    """Return a bound that lets every message be delivered."""
    return NO_BOUND


class Fifo(Protocol):
    """The ready messages of a queue, as the queue uses them."""

    @property
    def body_bytes(self) -> int:
        """Bytes of the bodies of all ready messages, in memory or on disk."""

    @property
    def cost(self) -> int:
        """What the messages in memory cost of the budget."""

    @property
    def on_disk_only(self) -> tuple[int, int]:
        """The number of messages that are only on disk, and the bytes of their bodies. Walks the pages."""

    @property
    def next_page(self) -> Page | None:
        """The page that must be loaded before any message can be taken."""

    @property
    def page_ahead(self) -> Page | None:
        """The page that should be loaded, since less than a page of messages is at the head in memory."""

    @property
    def next_expiry(self) -> int | None:
        """When the next message of a page expires, or a little earlier."""

    @property
    def next_due(self) -> Due:
        """The same, and the number of the first message of its page, or a lower one; `NEVER_DUE` for never."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Message]:
        """Yield the messages in memory, in order."""

    def numbers(self) -> list[int]:
        """Return the numbers of all messages, in order."""

    def extend(self, run: Collection[Message]) -> None:
        """Add messages behind all others; their numbers are the highest."""

    def restore(self, level: int, pages: Iterable[Page]) -> None:
        """Add pages of this level behind all others, at start."""

    def put_back(self, run: Collection[Message]) -> None:
        """Put messages back into the order of their numbers; references stand for messages that are only on disk."""

    @property
    def first_number(self) -> int:
        """The number of the next message in memory; 0 if there is none."""

    def number_at(self, place: int) -> int:
        """Return the number of the message at about this place from the head in memory, or 0."""

    def take(self, limit: int, room: int, bound: Bound = without_bound) -> list[Message]:
        """Take the next messages: at most `limit`, and no more once `room` bytes are used up. May return fewer.

        `bound` returns, for the number of the first message, the number up to which others may be taken with it.
        """

    def load(self, found: Collection[Message]) -> list[int]:
        """Insert the messages of `page_ahead`, which was read. Return the numbers of missing ones; remove these."""

    def clear(self) -> Cleared:
        """Take all: lists of messages, and the pages that are only on disk."""

    def trim(self, most: int, most_bytes: int, limit: int = NO_LIMIT) -> Removed:
        """Take from the head what exceeds so many messages, or bytes of body; about `limit` messages at most."""

    def remove(self, run: Collection[Message]) -> None:
        """Take out these messages, which are in memory and in no page, at any position."""

    def after(self, place: Place, limit: int) -> tuple[list[Message] | OnDisk, int]:
        """Return the next messages behind a place, at most `limit` and of one level, and the level; they stay.

        If there is no message behind the place, the list is empty.
        """

    def before(self, position: int) -> tuple[Place, int]:
        """Return a place before the message at this position, and how many messages are between them."""

    def take_out(self, run: Sequence[Message]) -> None:
        """Take out these messages, wherever they are. They are in order, and those on disk have been loaded."""

    def take_due(self, now_ms: int, limit: int = NO_LIMIT, until: Due = NEVER_DUE) -> Removed:
        """Take expired messages out of pages; stop after the page with which `limit` messages are reached.

        A page of which all messages expire after `until`, by expiry and number, is left as it is.
        """

    def page_out(self, wanted: int, may_go: Callable[[Message], bool]) -> list[Page]:
        """Make pages of messages that are not next, up to so many bytes.

        Returns pages, up to so many bytes, that still have their content and are not being written.
        """

    def check(self) -> None:
        """Assert what must hold between calls."""
