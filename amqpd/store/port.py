"""What the server asks of a store: the calls, and the records that cross the border. No engine is named here.

`sqlite/store.py` and `postgres/store.py` are the engines. `server/startup.py` opens one; everybody else holds one of
these protocols.

Threads: one thread at a time calls a store. That is the main thread at start and stop, and the committer's in between;
while no batch is being written, the loop may call `fetch`. `release_body`, `check_files`, `fail` and `info` may be
called by any thread at any time.

Errors: StoreFull says that nothing was written and that the same call may be made again; after any other StoreError
nobody knows what was written, the store has failed, and every later call raises the same error. See `errors.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from amqpd.broker.audit_entry import AuditEntry
from amqpd.broker.definitions import Definition
from amqpd.broker.queue.pages import StoredMessages
from amqpd.message import Message, MessageProperties
from amqpd.store.batch import Batch
from amqpd.store.body_writes import BodyPiece
from amqpd.store.errors import StoreError

# What a committed batch survives: a power cut, the end of the process, or what the settings of a database server say.
Durability = Literal["power", "process", "server"]


class StoreInfo(msgspec.Struct, frozen=True):
    """What a store tells of itself. Sizes are in bytes; `wal_bytes` is that of its write-ahead log.

    `messages` wait in queues; `damaged` ones were set aside. `confirms` tells where a committed batch is, as a part of
    a sentence, if `durability` does not.
    """

    path: str
    durability: Durability
    format: int
    file_bytes: int
    wal_bytes: int
    messages: int
    damaged: int
    confirms: str = ""


class Recovered(msgspec.Struct, frozen=True):
    """What the last run left.

    `definitions` come in an order in which they can be restored. By queue number, `messages` has what waits in each
    durable queue; `redelivered` the numbers of messages that have been delivered before; `redelivered_to` a number up
    to which any message may have been delivered; `deliveries`, by message number, how often a message had been
    delivered when it was last requeued. `damaged` messages were set aside by this start, `damaged_in` describes their
    queues. `is_copy` says that `amqpd store` made this store of another one, as a backup for example.
    """

    definitions: list[Definition]
    messages: dict[int, StoredMessages]
    redelivered: dict[int, set[int]]
    redelivered_to: dict[int, int]
    deliveries: dict[int, dict[int, int]]
    damaged: int
    was_clean: bool
    clock_behind_ms: int = 0        # how far the store's clock is behind the wall clock
    is_copy: bool = False
    damaged_in: tuple[str, ...] = ()


class Member(msgspec.Struct, frozen=True, kw_only=False):
    """A node that shares a store with others. `started` is in seconds since 1970, by the clock of the server."""

    name: str
    address: str
    is_up: bool
    is_leader: bool
    started: int


class Membership(Protocol):
    """What a node knows of the nodes with which it shares a store. All calls may wait for the server.

    Others reach this node at `address`, while it leads.
    """

    address: str

    def note(self) -> None:
        """Note that this node is up. Raises StoreError if another one has its name, or the server is away."""

    def leader(self) -> Member | None:
        """Return who leads the store; None if a node could take it. Raises StoreError."""

    def members(self) -> list[Member]:
        """Return all nodes, by name. Raises StoreError."""

    def leave(self) -> None:
        """Note that this node is gone, and let go of the server."""


class MessageSource(Protocol):
    """What the page store reads."""

    @property
    def first_number(self) -> int:
        """The lowest number that this run may give to a message or a queue; no earlier run has reached it."""

    def fetch(self, numbers: Sequence[int]) -> list[Message]:
        """Return the messages of these numbers, which rise, in order; after `load`, and not during a commit.

        A message that is missing is damaged: it has been set aside and logged, and will never be found. Raises
        StoreError.
        """

    def fail(self, failure: StoreError) -> None:
        """Write nothing any more, and raise this failure from now on; the first failure counts.

        To be called when messages could not be read, so that nobody settles them as missing.
        """


class BatchStore(Protocol):
    """What the committer writes, and tidies up while there is nothing to write."""

    def commit(self, batch: Batch) -> None:
        """Write a batch as one transaction; on return it is on disk. Raises StoreFull, StoreError."""

    def write_body(self, piece: BodyPiece) -> None:
        """Write some parts of a large body, whose message is recorded later; on return they are on disk.

        Sets the piece's `checksums`. Raises StoreFull, StoreError.
        """

    def is_checkpoint_due(self) -> bool:
        """Return whether `checkpoint_if_due` has work to do: what commits have logged is to be written back.

        A store that does this by itself returns False. Raises StoreError.
        """

    @property
    def is_checkpoint_long(self) -> bool:
        """Return whether that work, as `is_checkpoint_due` last saw it, takes so long that a small batch goes first."""

    def checkpoint_if_due(self) -> None:
        """Do that work if it is due. Committed batches are safe before as well. Raises StoreFull, StoreError."""

    @property
    def has_to_sweep(self) -> bool:
        """Return whether there is anything that `sweep` would delete."""

    def sweep(self) -> bool:
        """Delete a piece of what a purge, a deleted queue or a large message has left; return whether there is more.

        Takes some milliseconds. Raises StoreFull, StoreError.
        """

    def shrink(self) -> bool:
        """Give a piece of the free room in the files back to the disk; return whether there is more to give.

        Takes some milliseconds. Raises StoreFull, StoreError.
        """

    def check_files(self) -> None:
        """Check that what was opened is still there, so that what was committed can be relied on.

        Takes some microseconds. Raises StoreError.
        """

    def fail_by_mistake(self, error: Exception) -> StoreError:
        """Write nothing any more, as after `fail`, because of a mistake of ours; return the StoreError for it."""


class Store(MessageSource, BatchStore, Protocol):
    """A store from its opening to its end: `load` once, then batches, at last `close` or `abandon`."""

    def load(self, read_properties: Callable[[bytes], MessageProperties]) -> Recovered:
        """Read everything but the contents of messages, once, before the first batch.

        `read_properties` reads the properties of a content header. What cannot be read is set aside and logged.
        Raises StoreFull, StoreError; the store is left as it was then.
        """

    def on_reachable(self, tell: Callable[[str], None]) -> None:
        """Call this, in any thread, with a reason when the store cannot be reached, and with "" when it can again.

        Calls of the store wait meanwhile. A store in a file is always reachable.
        """

    def release_body(self, body_id: int) -> None:
        """Note that one `message.StoredBody` less has this body; delete its parts at some time if no row has it."""

    def backup(self, to: Path, between: Callable[[int, int], None]) -> None:
        """Copy everything to a new file, in steps, with what is committed meanwhile.

        After each step `between` is called with what is left and what there is in all; it may commit. The copy is as
        a crash would leave it, and not synced. Raises StoreError, of the copy only, and what `between` raises.
        """

    def audit_log(
        self, *, limit: int, user: str = ..., door: str = ..., action: str = ..., since_ms: int = ...
    ) -> list[AuditEntry]:
        """Return the newest `limit` entries of the audit log that fit, the newest last; not during a commit.

        An empty text fits everything; `action` is a pattern with `*`, `?` and `[…]`. Raises StoreError.
        """

    def info(self) -> StoreInfo:
        """Return figures that are at hand, after `load`."""

    def close(self, redelivered: Mapping[int, Collection[int]], redelivered_to: Mapping[int, int] = ...) -> None:
        """Write what the next start needs, and close the store as stopped cleanly.

        By queue number: `redelivered` has the numbers of messages that have been delivered, `redelivered_to` the
        number up to which any may have been, of queues where that is all that is known. Raises StoreFull, StoreError;
        `abandon` is what is left to do then.
        """

    def abandon(self) -> None:
        """Close the files as a crash would: the next start recovers. Does nothing on a closed store."""
