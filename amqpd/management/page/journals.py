"""The pages of the log and of the audit log: the newest lines first, with filters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, HttpError
from amqpd.management.http.request import Request
from amqpd.management.page.forms import Form, done, sentence_of
from amqpd.management.page.shown import Shown, form, page

ADMIN = Access.ADMINISTRATOR
LEVELS = ("debug", "info", "warning", "error", "critical")
COLOURS = {"warning": "warn", "error": "bad", "critical": "bad"}
COUNTS = ("100", "200", "500", "1000")
DOOR_WORDS = {"http": "API", "control": "amqpctl", "config": "configuration", "amqp": "AMQP"}
LONGEST_DETAIL = 300


def _chosen(request: Request, name: str, choices: Sequence[str], default: str) -> str:
    """Return the choice that the address names, or the default if it names none of them."""
    value = request.query.get(name, "")
    return value if value in choices else default


async def show_log(request: Request) -> Shown:
    """Show the newest lines of the log, of a level or above, with a text in them. Raises HttpError."""
    level, most = _chosen(request, "level", LEVELS, "debug"), _chosen(request, "most", COUNTS, COUNTS[0])
    text = request.query.get("text", "")
    lines = await request.ask("GET", "/api/amqpd/log", {"level": level, "text": text, "most": most})
    return Shown("log.html", {
        "lines": lines[::-1], "level": level, "text": text, "most": most, "levels": LEVELS, "counts": COUNTS,
        "colours": COLOURS, "form": Form()}, "log")


async def set_level(request: Request) -> Answer:
    """Set the lowest level that is logged, until the next start. Raises HttpError."""
    found = Form(request)
    level = found.choice("level", LEVELS)
    if not found.is_valid:
        raise HttpError(422, "wrong_input", found.errors["level"])
    await request.ask("PUT", "/api/amqpd/log_level", body={"value": level})
    return done(f"Lines of level {level} and above are logged from now on.", to="/log")


async def show_audit_log(request: Request) -> Shown:
    """Show the newest administrative acts that fit."""
    user, action = request.query.get("user", ""), request.query.get("action", "")
    door, most = _chosen(request, "door", tuple(DOOR_WORDS), ""), _chosen(request, "most", COUNTS, COUNTS[0])
    entries, error = list[dict[str, Any]](), ""
    try:
        answer = await request.ask("GET", "/api/amqpd/audit", {
            "user": user, "action": action, "door": door, "limit": most})
        entries = [one | {"detail": _written(one["detail"])} for one in msgspec.to_builtins(answer)]
    except HttpError as refused:
        error = sentence_of(refused)
    return Shown("audit.html", {
        "entries": entries[::-1], "user_wanted": user, "action": action, "door": door, "most": most,
        "doors": DOOR_WORDS, "counts": COUNTS, "error": error}, "audit")


def _written(detail: Any) -> str:
    text = json.dumps(detail, ensure_ascii=False) if detail else ""
    return text if len(text) <= LONGEST_DETAIL else text[:LONGEST_DETAIL] + "…"


ROUTES = [
    page("/log", show_log, "The newest lines of the log", access=ADMIN),
    form("/log/level", set_level, "Set the lowest level that is logged", access=ADMIN),
    page("/audit", show_audit_log, "The audit log", access=ADMIN),
]
