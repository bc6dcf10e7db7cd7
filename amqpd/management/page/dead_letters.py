"""The pages of dead letters: the queues that they may flow to, and those of one queue by reason and origin.

Which queues these are is found from arguments, policies and bindings, as the topology has them, which is bounded. Of
a queue's messages some are looked at, and the page tells how many. What is done to a group is done by `messages`.
"""

from __future__ import annotations

from amqpd.management.http.access import Access
from amqpd.management.http.request import Request
from amqpd.management.page.lists import Record
from amqpd.management.page.shown import Shown, page, path_of

MOST_NODES = 500        # of the topology
LOOKED_AT = 500         # messages of a queue
IN_PATH = "/dead-letters/{vhost}/{queue}"


async def list_queues(request: Request) -> Shown:
    """Show the queues of a vhost that dead letters may flow to. Raises HttpError."""
    vhosts = sorted(vhost.name for vhost in request.visible_vhosts())
    vhost = request.query.get("vhost", "") or ("/" if "/" in vhosts else next(iter(vhosts), ""))
    found: Record = {"nodes": [], "arrows": [], "found": 0, "is_cut": False}
    if vhost:
        found = await request.ask("GET", "/api" + path_of("vhosts", vhost, "topology"), {"most": str(MOST_NODES)})
    return Shown("dead_letters.html", {
        "vhosts": vhosts, "vhost": vhost, "queues": targets(found["nodes"], found["arrows"]),
        "is_cut": found["is_cut"] or found["found"] > len(found["nodes"])}, "dead-letters")


def targets(nodes: list[Record], arrows: list[Record]) -> list[Record]:
    """Return the queues that dead letters may flow to, each with its `sources`: the queues where messages die."""
    after: dict[int, list[int]] = {}
    for one in arrows:
        if one["way"] != "dead letters":        # a dead letter that dies again is another one
            after.setdefault(one["source"], []).append(one["target"])
    begun: dict[int, dict[str, None]] = {}      # where dead letters come first: the queues they come from
    for one in arrows:
        if one["way"] == "dead letters":
            begun.setdefault(one["target"], {})[nodes[one["source"]]["name"]] = None
    sources: dict[int, dict[str, None]] = {}
    for start, names in begun.items():
        seen, waiting = {start}, [start]
        while waiting:
            node = waiting.pop()
            if nodes[node]["kind"] == "queue":
                sources.setdefault(node, {}).update(names)
            reached = [near for near in after.get(node, ()) if near not in seen]
            seen.update(reached)
            waiting += reached
    return sorted(({**nodes[node], "sources": sorted(names)} for node, names in sources.items()),
                  key=lambda one: (-(one["messages"] or 0), one["name"]))


async def show_queue(request: Request) -> Shown:
    """Show the dead letters of a queue by reason and origin. Raises HttpError."""
    vhost, queue = request.names["vhost"], request.names["queue"]
    found = await request.ask("GET", _api(request), {
        "count": str(LOOKED_AT), "scan": str(LOOKED_AT), "truncate": "0"})
    return Shown("dead_letters_of.html", {
        "vhost": vhost, "queue": queue, "groups": groups(found["messages"]), "looked_at": found["scanned"],
        "ready": found["ready"]}, "dead-letters")


def groups(messages: list[Record]) -> list[Record]:
    """Return the messages by their last cause of death and the queue where they died first; the largest group first."""
    counts: dict[tuple[str, str], int] = {}
    for message in messages:
        headers = message["properties"].get("headers") or {}
        deaths = headers.get("x-death")
        last = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}
        key = str(last.get("reason", "")), str(headers.get("x-first-death-queue", "") if last else "")
        counts[key] = counts.get(key, 0) + 1
    return [{"reason": reason, "origin": origin, "count": count}
            for (reason, origin), count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))]


def _api(request: Request) -> str:
    return "/api" + path_of("queues", request.names["vhost"], request.names["queue"], "messages")


ROUTES = [
    page("/dead-letters", list_queues, "The queues that dead letters flow to"),
    page(IN_PATH, show_queue, "The dead letters of a queue", access=Access.VHOST),
]
