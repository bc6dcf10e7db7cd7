"""The rows of the audit log: which columns there are, and how the newest are read."""

from __future__ import annotations

import sqlite3

from amqpd.broker.audit_entry import AuditEntry

AUDIT_COLUMNS = ("at_ms", "user", "address", "door", "action", "detail")


def read_audit_log(
    connection: sqlite3.Connection, *, limit: int, user: str, door: str, action: str, since_ms: int
) -> list[AuditEntry]:
    """Return the newest entries that fit, the newest last; an empty text fits everything. Raises sqlite3.Error."""
    texts = {"user = ?": user, "door = ?": door, "action GLOB ?": action}
    given = {"at_ms >= ?": since_ms, **{condition: text for condition, text in texts.items() if text}}
    rows = connection.execute(
        f"SELECT {', '.join(AUDIT_COLUMNS)} FROM audit_log WHERE {' AND '.join(given)} "
        "ORDER BY id DESC LIMIT ?", (*given.values(), limit))
    return [AuditEntry(*row) for row in rows][::-1]
