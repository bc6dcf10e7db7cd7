"""The protocol of a queue's ready messages. `paged_fifo.py` and `priority_fifo.py` implement it.

RabbitMQ docs/priority, docs/semantics (requeueing), docs/lazy-queues.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Protocol

from amqpd.broker.queue.pages import Cleared, Page, Removed
from amqpd.broker.queue.segment import NO_BOUND
from amqpd.message import Message

NO_LIMIT = 1 << 62
Bound = Callable[[int], int]


def without_bound(first: int) -> int:
    """Return a bound that lets every message go."""
    return NO_BOUND


class Fifo(Protocol):
    """What a queue asks of the place where its messages wait."""

    @property
    def octets(self) -> int:
        """Bytes of the bodies that wait, wherever they are."""

    @property
    def cost(self) -> int:
        """What the messages in memory cost of the budget."""

    @property
    def on_disk_only(self) -> tuple[int, int]:
        """How many messages have their contents on disk only, and the bytes of their bodies. Walks the pages."""

    @property
    def next_page(self) -> Page | None:
        """The page that must be read before anything can be taken."""

    @property
    def page_ahead(self) -> Page | None:
        """The page that should be read, since less than a page's worth of messages is at the head in memory."""

    @property
    def next_expiry(self) -> int | None:
        """When the next message of a page ends, or a little earlier."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Message]:
        """The messages in memory, in order."""

    def numbers(self) -> list[int]:
        """The numbers of all messages, in order."""

    def extend(self, run: Collection[Message]) -> None:
        """Add messages behind all others; their numbers are the highest."""

    def restore(self, level: int, pages: Iterable[Page]) -> None:
        """Put pages of this level behind all others, at start."""

    def put_back(self, run: Collection[Message]) -> None:
        """Put messages to where their numbers belong; of references, the messages are on disk only."""

    @property
    def first_number(self) -> int:
        """The number of the next message in memory; 0 where there is none."""

    def number_at(self, place: int) -> int:
        """The number of the message at about this place from the head in memory, or 0."""

    def take(self, limit: int, room: int, bound: Bound = without_bound) -> list[Message]:
        """Take the next messages: at most `limit`, and no more once `room` bytes are used up. May be fewer.

        `bound` says, by the number of the first one, up to which others may go with it.
        """

    def load(self, found: Collection[Message]) -> list[int]:
        """`page_ahead` was read: these are its messages. The numbers of those that are missing, and now gone."""

    def clear(self) -> Cleared:
        """Take all: lists of messages, and pages as far as they are on disk only."""

    def trim(self, most: int, most_octets: int, limit: int = NO_LIMIT) -> Removed:
        """Take from the head what is beyond so many messages, or bytes of body; about `limit` messages at most."""

    def remove(self, run: Collection[Message]) -> None:
        """Take out these messages, all of which are in memory and no page, wherever they stand."""

    def take_due(self, now_ms: int, limit: int = NO_LIMIT) -> Removed:
        """Take out of pages the messages that have expired; of no more pages once there are `limit` messages."""

    def page_out(self, octets: int, may_go: Callable[[Message], bool]) -> list[Page]:
        """Make pages of messages that are not next, up to so many bytes.

        Returns pages, up to so many bytes, that have their content still and are not about to lose it.
        """

    def check(self) -> None:
        """Assert what must hold between calls."""
