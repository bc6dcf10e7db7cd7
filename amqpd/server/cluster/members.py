"""The leading node tells the others that it is up, and knows which others there are."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from amqpd.server.sparing_log import SparingLog
from amqpd.store.errors import StoreError
from amqpd.store.port import Member, Membership

NOTE_S = 1.0

log = logging.getLogger("amqpd.cluster")


class Members:
    """The nodes that share the store, as they were known a second ago."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._members: list[Member] = []
        self._sparing_log = SparingLog(log)

    async def note_forever(self) -> None:
        """Tell the others that this node is up, and look who they are."""
        while True:
            try:
                self._members = await asyncio.to_thread(self._note)
            except StoreError as error:
                self._sparing_log.warning("%s", error)
            await asyncio.sleep(NOTE_S)

    def _note(self) -> list[Member]:
        self._membership.note()
        return self._membership.members()

    def listed(self) -> list[dict[str, Any]]:
        """Return the nodes as records, by name."""
        return [{"name": one.name, "address": one.address, "running": one.is_up, "leads": one.is_leader,
                 "started": one.started} for one in self._members]
