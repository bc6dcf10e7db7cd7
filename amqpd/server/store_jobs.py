"""What the commands read and copy of the log and the store while the broker runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from amqpd import logs
from amqpd.broker.audit_entry import AuditEntry
from amqpd.exit_codes import EXIT_IO
from amqpd.management.audit_commands import AuditFilter
from amqpd.management.refusal import Refusal
from amqpd.server.committer import Committer
from amqpd.store.errors import StoreError
from amqpd.store.port import Store


def read_log(most: int, level: str, text: str) -> list[dict[str, Any]]:
    """Return the newest lines of the log. Raises ValueError."""
    return [line._asdict() for line in logs.recent(most=most, least_level=level, text=text)]


async def read_audit_log(store: Store, committer: Committer, wanted: AuditFilter) -> list[AuditEntry]:
    """Read the audit log between commits, with everything recorded so far. Raises Refusal."""
    found: list[AuditEntry] = []
    await committer.wait_committed()
    try:
        await committer.thread.run_between(lambda between: found.extend(store.audit_log(
            limit=wanted.limit, user=wanted.user, door=wanted.door, action=wanted.action, since_ms=wanted.since_ms)))
    except StoreError as error:
        raise Refusal(str(error), EXIT_IO) from None
    return found


async def back_up(store: Store, committer: Committer, to: Path, tell: Callable[[int, int], None]) -> None:
    """Copy the store to a new file between commits, and tell what is left after each step. Raises Refusal."""
    def copy(between: Callable[[], None]) -> None:
        def after_step(left: int, total: int) -> None:
            tell(left, total)
            between()

        store.backup(to, after_step)

    try:
        await committer.thread.run_between(copy)
    except StoreError as error:
        raise Refusal(str(error), EXIT_IO) from None
