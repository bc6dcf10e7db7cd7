"""What a confirm means with a server: in one line, read from its settings."""

from __future__ import annotations

import re

from amqpd.store.postgres.connecting import Connection

_SETTINGS = """
    SELECT current_setting('fsync'), current_setting('synchronous_commit'),
        current_setting('synchronous_standby_names'), current_setting('full_page_writes')"""
_QUORUM = re.compile(r"\s*(?:(ANY|FIRST)\s+)?(\d+)\s*\((.*)\)\s*", re.IGNORECASE | re.DOTALL)


def describe_commits(connection: Connection) -> str:
    """Return what is true of a message that was confirmed. Raises psycopg.Error."""
    fsync, commit, standbys, _ = connection.execute(_SETTINGS).fetchall()[0]
    needed, of = standbys_needed(standbys) if commit in ("on", "remote_write", "remote_apply") else (0, 0)
    if commit == "off":
        return "taken by the primary, and lost if it ends within a moment (synchronous_commit = off)"
    here = "on the primary's disk" if fsync == "on" else "with the primary, not safe from a power cut (fsync = off)"
    if not needed:
        return f"{here} alone"
    there = {"remote_write": "with", "remote_apply": "visible on"}.get(commit, "on")
    return f"{here} and {there} {needed} of {of} standbys"


def standbys_needed(names: str) -> tuple[int, int]:
    """Return how many standbys a commit waits for, and of how many, by `synchronous_standby_names`.

    PostgreSQL docs/runtime-config-replication.
    """
    if not names.strip():
        return 0, 0
    found = _QUORUM.fullmatch(names)
    if found is None:
        return 1, len(names.split(","))
    return int(found[2]), len(found[3].split(","))
