"""An entry of the audit log, as a value: the store keeps it, see `audit.py`."""

from __future__ import annotations

import msgspec


class AuditEntry(msgspec.Struct, frozen=True):
    """One act. `detail` is a JSON object. `door` is "control", "http" or "config"; see broker/actor.py."""

    at_ms: int      # since 1970
    user: str
    address: str
    door: str
    action: str
    detail: str
