"""The audit log: who did which administrative act, from where, and when.

Acts come from amqpctl, from the management API and from the configuration. What AMQP clients declare is not among them:
`amqpctl events` shows that. Whoever carries out an act records it before waiting for the commit, so what has been
answered is in the log. With a store the entries are rows of its table `audit_log`. The newest entries are in memory
too; without a store there are no others.

Always true: no entry has a secret; see `without_secrets`.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

from amqpd.broker.actor import current_actor
from amqpd.broker.audit_entry import AuditEntry
from amqpd.broker.clock import Clock
from amqpd.broker.ports import Journal

MOST_RECENT = 1_000
LONGEST_TEXT, LONGEST_DETAIL = 200, 4_000       # characters of a value, and of all of them as JSON
DEEPEST = 32        # levels of a value
SECRET = "***"
# Of a parameter, the value may have a URI with a password; of a message, nothing is kept.
SECRETS = frozenset({"password", "password_hash", "value", "payload", "body"})


class AuditLog:
    """The acts of one broker; `recent` has the newest ones, the newest last."""

    def __init__(self, journal: Journal, clock: Clock, most_recent: int = MOST_RECENT) -> None:
        self.recent: deque[AuditEntry] = deque(maxlen=most_recent)
        self._journal = journal
        self._clock = clock

    def record(self, action: str, detail: Mapping[str, Any]) -> None:
        """Record that whoever acts now has done this; `detail` may have secrets, which are not kept."""
        actor = current_actor()
        entry = AuditEntry(
            self._clock.wall_ms, actor.user, actor.address, actor.door, _shortened(action), _as_json(detail))
        self.recent.append(entry)
        self._journal.audited(entry)


def without_secrets(value: Any, deepest: int = DEEPEST) -> Any:
    """Return a value of JSON with secrets replaced by `***`, and with long texts and what is nested too deep cut."""
    if isinstance(value, (Mapping, list, tuple)) and not deepest:
        return "…"
    if isinstance(value, Mapping):
        return {_shortened(str(name)): SECRET if _is_secret(str(name)) and inner is not None
                else without_secrets(inner, deepest - 1) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(inner, deepest - 1) for inner in value]
    if isinstance(value, str):
        return _shortened(value)
    return value if isinstance(value, (bool, int, float, type(None))) else _shortened(str(value))


def _is_secret(name: str) -> bool:
    return name in SECRETS or name.endswith(("uri", "password", "secret"))


def _as_json(detail: Mapping[str, Any]) -> str:
    plain = without_secrets({_shortened(name): value for name, value in detail.items() if value is not None})
    text = json.dumps(plain, ensure_ascii=False)
    if len(text) > LONGEST_DETAIL:
        text = json.dumps({"too_long": _shortened(text)}, ensure_ascii=False)
    return text


def _shortened(text: str) -> str:
    text = text.encode(errors="backslashreplace").decode()      # a lone surrogate can be neither stored nor answered
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
