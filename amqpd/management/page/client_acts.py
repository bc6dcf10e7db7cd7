"""What pages do to one connection or consumer: those of one, and those that act on many."""

from __future__ import annotations

from amqpd.management.http.request import Request
from amqpd.management.page.forms import Form, wrong
from amqpd.management.page.shown import path_of

LONGEST_REASON = 200
REASON = "Closed by an operator on the management page"


def reason_of(form: Form) -> str:
    """Return the reason for which connections are closed. Raises HttpError: 422."""
    reason = form.text("reason").strip() or REASON
    if len(reason) > LONGEST_REASON or not reason.isprintable():
        raise wrong(f"Enter a reason of one line and at most {LONGEST_REASON} characters.")
    return reason


async def close(request: Request, name: str, reason: str) -> None:
    """Close a connection: its client gets the reason. Raises HttpError."""
    await request.ask("DELETE", "/api" + path_of("connections", name), headers={"x-reason": reason})


async def cancel(request: Request, vhost: str, queue: str, tag: str, channel: str) -> None:
    """Cancel a consumer: its client gets basic.cancel. Raises HttpError."""
    await request.ask("DELETE", "/api" + path_of("queues", vhost, queue, "consumers", tag),
                      {"channel": channel} if channel else None)
