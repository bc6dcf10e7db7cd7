"""How the newest rows of the audit log are read."""

from __future__ import annotations

from typing import Any

from amqpd.broker.audit_entry import AuditEntry
from amqpd.store.postgres.database import Database
from amqpd.store.postgres.texts import from_text, to_text

_COLUMNS = 'at_ms, "user", address, door, action, detail'


def read_audit_log(
    database: Database, *, limit: int, user: str = "", door: str = "", action: str = "", since_ms: int = 0
) -> list[AuditEntry]:
    """Return the newest entries that fit, the newest last; an empty text fits everything. Raises StoreError.

    `action` is a pattern with `*`, `?` and `[…]`, as SQLite's GLOB takes it.
    """
    texts = {'"user" = %s': user, "door = %s": door, "action ~ %s": _regular(action) if action else ""}
    given: dict[str, Any] = {"at_ms >= %s": since_ms, **{
        condition: to_text(text) for condition, text in texts.items() if text}}
    rows = database.read(
        f"SELECT {_COLUMNS} FROM audit_log WHERE {' AND '.join(given)} ORDER BY id DESC LIMIT %s",
        [*given.values(), limit])
    return [AuditEntry(at_ms, *map(from_text, texts)) for at_ms, *texts in rows][::-1]


def _regular(pattern: str) -> str:
    """Return a pattern with `*`, `?` and `[…]` as a regular expression of PostgreSQL."""
    found, at = [], 0
    while at < len(pattern):
        character = pattern[at]
        end = pattern.find("]", at + 2) if character == "[" else -1
        if end > 0:
            inner = pattern[at + 1 : end].replace("\\", "\\\\")
            found.append(f"[{inner}]")
            at = end
        else:
            is_plain = character.isalnum() or character == "_"
            found.append({"*": ".*", "?": "."}.get(character, character if is_plain else "\\" + character))
        at += 1
    return f"^{''.join(found)}$"
