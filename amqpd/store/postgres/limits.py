"""The limits of one store in PostgreSQL: how much it does in one step, and at which sizes. Tests can choose others."""

from __future__ import annotations

import msgspec

from amqpd.message import LARGE_BODY
from amqpd.store.rows.message_blocks import BlockLimits
from amqpd.store.rows.reading import REMEMBERED


class StoreLimits(msgspec.Struct, frozen=True):
    """Limits of one store; sizes are in bytes."""

    blocks: BlockLimits = BlockLimits()
    large_body: int = LARGE_BODY        # a body that is sent without putting it together first
    remembered: int = REMEMBERED        # routes, and properties, that many messages that are read have in common
    deleted_at_once: int = 256          # emptied message blocks, in one transaction: some milliseconds
    read_at_once: int = 1_000           # rows that a start reads at once


LIMITS = StoreLimits()
