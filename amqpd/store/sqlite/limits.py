"""The limits of one store: how much it does in one step, and at which sizes. Tests can choose other limits."""

from __future__ import annotations

import msgspec

from amqpd.message import LARGE_BODY
from amqpd.store.body_writes import PART_BYTES
from amqpd.store.sqlite.connecting import BUSY_WAIT_S
from amqpd.store.rows.message_blocks import BlockLimits
from amqpd.store.rows.reading import REMEMBERED

LARGEST_WAL = 8 << 20       # bytes of the write-ahead log before it is written back, which takes 10 ms or so


class StoreLimits(msgspec.Struct, frozen=True):
    """Limits of one store; sizes are in bytes unless a comment says otherwise."""

    largest_wal: int = LARGEST_WAL
    long_wal: int = 2 * LARGEST_WAL     # a log of this size takes so long to write back that a small batch goes first
    kept_free_pages: int = 4_096        # 16 MiB of the file that are not given back to the disk
    shrink_pages: int = 1_024           # given back at once: some milliseconds and a sync
    backup_pages: int = 128             # of 4 KiB, copied between two commits: about a millisecond
    blocks: BlockLimits = BlockLimits()
    large_body: int = LARGE_BODY        # a larger body is written into its row in pieces
    part_bytes: int = PART_BYTES        # of each part of such a body; the journal must cut with the same size
    remembered: int = REMEMBERED        # routes, and properties, that many messages that are read have in common
    deleted_at_once: int = 256          # emptied message blocks, in one transaction: some milliseconds
    busy_wait_s: float = BUSY_WAIT_S    # for another program that has the file open, at start


LIMITS = StoreLimits()
