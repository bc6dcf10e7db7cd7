"""How large pages are: one record, so that tests can choose small pages. The budget of the broker has it."""

from __future__ import annotations

import msgspec

PAGE_MESSAGES, PAGE_BYTES = 1_024, 1 << 20
FEWEST_MESSAGES, FEWEST_BYTES = 64, 64 << 10


class PageLimits(msgspec.Struct, frozen=True):
    """The size of a page: the most messages and bytes of bodies in it, and the fewest for which a page is written."""

    messages: int = PAGE_MESSAGES
    bytes: int = PAGE_BYTES
    fewest_messages: int = FEWEST_MESSAGES
    fewest_bytes: int = FEWEST_BYTES


PAGE_LIMITS = PageLimits()
