"""The command that lists the audit log."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from amqpd.broker.audit_entry import AuditEntry
from amqpd.broker.broker import Broker
from amqpd.exit_codes import EXIT_DATA
from amqpd.management.refusal import Refusal

MOST_LISTED = 10_000


class AuditFilter(msgspec.Struct, frozen=True):
    """Which entries are wanted: the newest `limit` of those that fit. `action` is a pattern with `*`, `?` and `[…]`.

    An empty text fits everything.
    """

    limit: int = 100
    user: str = ""
    door: str = ""
    action: str = ""
    since_ms: int = 0

    def fits(self, entry: AuditEntry) -> bool:
        """Return whether this entry is wanted, apart from the limit."""
        return (self.user in ("", entry.user) and self.door in ("", entry.door) and entry.at_ms >= self.since_ms
                and (not self.action or fnmatchcase(entry.action, self.action)))


ReadAuditLog = Callable[[AuditFilter], Awaitable[list[AuditEntry]]]


class AuditCommands:
    """The commands on the audit log of one broker. `read` reads the store's; None without a store."""

    def __init__(self, broker: Broker, read: Callable[[], ReadAuditLog | None]) -> None:
        self._broker = broker
        self._read = read

    async def list_audit_log(
        self, limit: int = 100, user: str = "", door: str = "", action: str = "", since_ms: int = 0
    ) -> list[dict[str, Any]]:
        """Return the newest administrative acts that fit, the newest last."""
        if not 0 < limit <= MOST_LISTED:
            raise Refusal(f"the limit has to be from 1 to {MOST_LISTED}", EXIT_DATA)
        wanted, read = AuditFilter(limit, user, door, action, since_ms), self._read()
        if read is None:
            entries = [entry for entry in self._broker.audit.recent if wanted.fits(entry)][-limit:]
        else:
            entries = await read(wanted)
        return [{**msgspec.structs.asdict(entry), "detail": json.loads(entry.detail)} for entry in entries]
