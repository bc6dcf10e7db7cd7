"""The ports of the broker: protocols for the journal, for paged-out messages, and for direct replies.

Journal and replies only append to something that `server/` empties later, so that they never call back into the broker.
The page store answers at once, or calls when it can. The port for deliveries is in `queue/consumer.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from amqpd.broker.audit_entry import AuditEntry
    from amqpd.broker.deferral import Deferral
    from amqpd.broker.definitions import Change, QueueDefinition
    from amqpd.broker.hold import Hold
    from amqpd.broker.queue.pages import OnDisk, Page
    from amqpd.broker.queue.segment import Budget
    from amqpd.message import Message, StoredBody


class BodyWrite(Protocol):
    """A large body that is written to the store before its message is recorded."""

    @property
    def stored(self) -> StoredBody:
        """The body, for the message that is published once all of it has been written."""

    @property
    def is_done(self) -> bool:
        """Whether all of it has been written."""

    def call(self, go_on: Callable[[], None]) -> None:
        """Call back, once, when it has been written, or will not be."""

    def end(self) -> None:
        """Stop writing if not all of it has been written: its message will not be published."""


class Journal(Protocol):
    """The record of everything that must survive the process. Recording takes no time; a record is safe once committed.

    Each method returns the number of the batch that the record joined. `server/committer.py` calls `on_commit(number)`
    once that batch, and so every earlier one, is on disk. The number 0 means that there is nothing to wait for. Only
    durable queues and persistent messages may be recorded.
    """

    @property
    def batch(self) -> int:
        """The number of the current batch, or 0."""

    @property
    def watermark_count(self) -> int:
        """How often a delivery watermark was raised."""

    @property
    def hold(self) -> Hold:
        """The hold that keeps the current batch from being taken."""

    @property
    def deferral(self) -> Deferral:
        """The deferral that keeps records out of the batches until they join one as a whole."""

    def changed(self, change: Change) -> int:
        """Record a change of the definitions."""

    def audited(self, entry: AuditEntry) -> int:
        """Record an entry of the audit log."""

    def unfinished(self, is_unfinished: bool) -> int:
        """Record whether a vhost has bindings left of deleted queues or exchanges.

        Each vhost reports in turn that there are some, and that there are no more.
        """

    def published(
        self, queue: QueueDefinition, run: Sequence[Message], expiries: Mapping[int, int] | None = None
    ) -> int:
        """Record that these persistent messages, with rising numbers, are in this durable queue.

        `expiries` has the expiries of those that expire in it, by message number, in milliseconds since 1970.
        """

    def write_body(self, message: Message) -> BodyWrite | None:
        """Write the large body of this message, which is about to be published, before the message is recorded.

        So other clients need not wait for it. None if nothing is written. The message is then published as a
        `StoredMessage` with this body.
        """

    def requeued(self, queue: QueueDefinition, counts: Mapping[int, int]) -> int:
        """Record how often each of these requeued messages has been delivered, by message number.

        A count replaces the previous one, and is deleted when the message is settled.
        """

    def watermark_raised(self, queue: QueueDefinition, number: int) -> int:
        """Record that messages of this durable queue, up to this number, may be delivered from now on."""

    def settled(self, queue: QueueDefinition, numbers: Sequence[int], *, is_answered: bool = False) -> int:
        """Record that the messages of these numbers have left this queue for good.

        If the publish of a message is still in the current batch, nothing is written at all. With `is_answered` a
        consumer has acked them: their publishers may get their confirms, even if the messages are not on disk.
        """

    def fail(self, error: Exception) -> None:
        """Write nothing more, since after this internal error memory may differ from what was recorded.

        The first error counts. A record that raises calls this itself.
        """


class Reader(Protocol):
    """An object that waits for the page store."""

    def read_on(self) -> None:
        """Go on: the page store is open."""


class PageStore(Protocol):
    """The contents of waiting messages that memory has no room for.

    `budget` is the limit of messages in memory. Every message that was published durably with a number up to
    `safe_number`, and has not been settled, can be fetched.
    """

    @property
    def budget(self) -> Budget:
        """The budget that all queues share."""

    @property
    def safe_number(self) -> int:
        """The highest number that has been committed."""

    @property
    def taken_number(self) -> int:
        """The highest number that has been taken to be committed: higher ones are in the current batch."""

    @property
    def committed_batch(self) -> int:
        """The journal's last batch that has been committed."""

    @property
    def is_open(self) -> bool:
        """Whether messages can be fetched now: not while the store is being written."""

    @property
    def can_spill(self) -> bool:
        """Whether there is a disk for messages that the store does not keep."""

    def call(self, reader: Reader) -> None:
        """Call its `read_on` when the page store is open, but not from within this call."""

    def fetch(self, on_disk: OnDisk) -> list[Message]:
        """Read these messages, in order. Missing ones are damaged, and cannot be read later either."""

    def spill(self, page: Page, run: Sequence[Message]) -> None:
        """Write these messages of a page, which the store does not keep; then tell the page to drop its content."""


class ReplySubscriber(Protocol):
    """A channel that waits for direct replies. RabbitMQ docs/direct-reply-to."""

    def deliver_reply(self, message: Message) -> None:
        """Send a reply; it has no delivery tag and does not count for any prefetch."""
