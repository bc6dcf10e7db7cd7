"""The doors out of the broker: what must outlive the process, where contents are that wait, where direct replies go.

The journal and the replies only append to something that `server/` empties later, so they never call back into the
broker; the page store answers at once, or calls when it can. Where deliveries go is in `queue/consumer.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from amqpd.broker.definitions import Change, QueueDefinition
    from amqpd.broker.hold import Hold
    from amqpd.broker.queue.pages import OnDisk, Page
    from amqpd.broker.queue.segment import Budget
    from amqpd.message import Message


class StoredBody(Protocol):
    """A large body that is written to the store before its message is recorded."""

    @property
    def is_done(self) -> bool:
        """Whether all of it has been written."""

    def call(self, go_on: Callable[[], None]) -> None:
        """Call back, once, when it has been, or will not be."""

    def begin_publish(self, number: int) -> None:
        """Let the message of this number have this body; it is published next."""

    def end(self) -> None:
        """Delete the body unless its message has been recorded: it has been published by now, or will not be."""


class Journal(Protocol):
    """What must outlive the process. Recording is instant; nothing is safe until its batch commits.

    Each method answers the number of the batch that the record joined; `server/committer.py` calls
    `on_commit(number)` once that batch, and so every earlier one, is on disk. The number 0 means
    "nothing to wait for". Only durable queues and persistent messages may be recorded.
    """

    @property
    def batch(self) -> int:
        """The number of the batch that fills, or 0."""

    @property
    def hold(self) -> Hold:
        """What keeps it from being taken."""

    def changed(self, change: Change) -> int:
        """Record a change of the definitions."""

    def unfinished(self, is_unfinished: bool) -> int:
        """Record whether bindings are left in a vhost whose queue or exchange has been recorded as deleted.

        Each vhost says in turn that there are, and that there are no more.
        """

    def published(
        self, queue: QueueDefinition, run: Sequence[Message], expiries: Mapping[int, int] | None = None
    ) -> int:
        """Record that these persistent messages, whose numbers rise, are in this durable queue.

        `expiries` says when those of them that expire in it do, by message number, in milliseconds since 1970.
        """

    def write_body(self, message: Message) -> StoredBody | None:
        """Write the large body of this message, which is about to be published, before the message is recorded.

        Others need not wait for it then. None where nothing is written.
        """

    def requeued(self, queue: QueueDefinition, counts: Mapping[int, int]) -> int:
        """Record how often each of these messages, back in this queue, has been delivered, by message number.

        A count takes the place of the one before, and is forgotten when the message is settled.
        """

    def watermark_raised(self, queue: QueueDefinition, number: int) -> int:
        """Record that messages of this durable queue, up to this number, may be handed out from now on."""

    def settled(self, queue: QueueDefinition, numbers: Sequence[int], *, is_answered: bool = False) -> int:
        """Record that the messages of these numbers have left this queue for good.

        Of a message whose publish is still in the batch that fills, nothing is written at all. With `is_answered` a
        consumer has taken them over: their publishers may be told, whether they are on disk or not.
        """

    def fail(self, error: Exception) -> None:
        """Write nothing any more: by this mistake of ours, memory may differ from what was recorded.

        The first error counts. A record that raises does this by itself.
        """


class Reader(Protocol):
    """Who waits for the page store."""

    def read_on(self) -> None:
        """The page store is open."""


class PageStore(Protocol):
    """Where the contents of waiting messages are that memory has no room for.

    `budget` is what memory has room for. `safe_number`: whatever was published durably with a number up to it, and
    has not been settled, can be fetched.
    """

    @property
    def budget(self) -> Budget:
        """Shared by all queues."""

    @property
    def safe_number(self) -> int:
        """The highest number that has been committed."""

    @property
    def taken_number(self) -> int:
        """The highest number that has been taken to be committed: higher ones are in the batch that fills."""

    @property
    def committed_batch(self) -> int:
        """The journal's last batch that has been committed."""

    @property
    def is_open(self) -> bool:
        """Whether anything can be fetched now: not while the store is being written."""

    @property
    def can_spill(self) -> bool:
        """Whether there is a disk for what the store does not keep."""

    def call(self, reader: Reader) -> None:
        """Call its `read_on` when the page store is open, and not from within this call."""

    def fetch(self, on_disk: OnDisk) -> list[Message]:
        """Read these messages, in order. Those that are missing are damaged, and never to be had."""

    def spill(self, page: Page, run: Sequence[Message]) -> None:
        """Write down these messages of a page, which the store does not keep; then tell it that it may let go."""


class ReplySubscriber(Protocol):
    """A channel that waits for direct replies. RabbitMQ docs/direct-reply-to."""

    def deliver_reply(self, message: Message) -> None:
        """Send a reply; it counts for no delivery tag and no prefetch."""
