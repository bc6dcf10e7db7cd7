"""The overview: what the broker does now, and whether all is well."""

from __future__ import annotations

from typing import Any

from amqpd.identity import NODE_NAME
from amqpd.management.http.access import is_administrator, may_see_all
from amqpd.management.http.request import Request
from amqpd.management.page.shown import Shown, page, part_of, path_of

CONFIRMS = {
    "power": "A confirmed persistent message is on disk and synced: it survives a power cut.",
    "process": "A confirmed persistent message is written, not synced: it survives a crash of the broker, and may be "
               "lost in a power cut.",
    "server": "A confirmed persistent message is {}.",
    "none": "There is no store: messages are in memory, and lost when the broker stops.",
}
RECENT = 8      # lines of the log, and of the audit log
PURPOSES = {
    "amqp": "AMQP", "amqp/ssl": "AMQP over TLS", "http": "Web page and API", "https": "Web page and API over TLS",
    "http/prometheus": "Metrics", "https/prometheus": "Metrics over TLS"}


async def show_overview(request: Request) -> Shown:
    """Show the overview. Users without the tag monitoring see their own numbers, and not the node."""
    part, user = part_of(request), request.user
    values: dict[str, Any] = {"node": None, "confirms": "", "purposes": PURPOSES, "audit": None, "log": None,
                              "node_name": NODE_NAME}
    if part != "recent":
        values["overview"] = await request.ask("GET", "/api/overview")
        if may_see_all(user):
            values["node"] = await request.ask("GET", f"/api/nodes{path_of(NODE_NAME)}")
            values["confirms"] = CONFIRMS[values["node"]["durability"]].format(values["node"]["confirms"])
    if part in ("", "recent") and is_administrator(user):
        values["audit"] = (await request.ask("GET", "/api/amqpd/audit", {"limit": str(RECENT)}))[::-1]
        values["log"] = (await request.ask("GET", "/api/amqpd/log", {"most": str(RECENT)}))[::-1]
    return Shown("overview.html", values, "overview")


ROUTES = [page("/", show_overview, "The overview")]
