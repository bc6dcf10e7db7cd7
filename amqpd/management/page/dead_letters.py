"""The pages of dead letters: the queues that they may flow to, and those of one queue by reason and origin.

Which queues these are is found from arguments, policies and bindings, as the topology has them, which is bounded. Of
a queue's messages some are looked at, and the page tells how many. Whatever is done to a group is counted before.
"""

from __future__ import annotations

from typing import Any

from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, HttpError, bad_request
from amqpd.management.http.request import Request
from amqpd.management.page.forms import Form, done, sentence_of
from amqpd.management.page.lists import Record
from amqpd.management.page.shown import Shown, form, page, path_of

MOST_NODES = 500        # of the topology
LOOKED_AT = 500         # messages of a queue
IN_PATH = "/dead-letters/{vhost}/{queue}"
ACTS = {
    "retry": ("Retry", "retried", "They go back to the queues where they died first, and keep the headers about it."),
    "move": ("Move", "moved", "They go to another queue as they are."),
    "delete": ("Delete", "deleted", "They are gone, and are not dead-lettered again."),
}


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


async def preview(request: Request) -> Shown:
    """Show what an act on a group would do, and ask. Raises HttpError."""
    act, chosen = _act(request), _chosen(request.query)
    # Where messages are moved to is not known yet, so they are counted as if they were deleted.
    counting = "delete" if act == "move" else act
    counted = await request.ask("POST", f"{_api(request)}/{counting}", body={"filter": chosen, "dry_run": True})
    return _asked(request, Form(), chosen, counted["matched"])


def _asked(request: Request, found: Form, chosen: dict[str, str], matched: int) -> Shown:
    act = _act(request)
    verb, _, text = ACTS[act]
    return Shown("dead_letters_act.html", {
        "vhost": request.names["vhost"], "queue": request.names["queue"], "act": act, "verb": verb, "text": text,
        "chosen": chosen, "matched": matched, "form": found}, "dead-letters", 200 if found.is_valid else 422)


async def carry_out(request: Request) -> Shown | Answer:
    """Act on a group, at most on as many as the preview counted. Raises HttpError."""
    act, found = _act(request), Form(request)
    chosen, limit = _chosen(found.values), found.whole("limit", least=1)
    if limit is None:
        raise bad_request("the form does not say how many messages were counted: open the page again")
    body: dict[str, Any] = {"filter": chosen, "limit": limit}
    if act == "move":
        body["to_queue"] = found.text("to_queue", required="Enter the name of a queue.")
    if found.is_valid:
        try:
            told = await request.ask("POST", f"{_api(request)}/{act}", body=body)
        except HttpError as error:
            found.errors["to_queue" if act == "move" else ""] = sentence_of(error)
    if not found.is_valid:
        return _asked(request, found, chosen, limit)
    went = told["deleted"] if act == "delete" else told["moved"]
    left = told["matched"] - went
    stayed = f" {left:,} stayed: full, without a target, or without an origin." if left else ""
    return done(f"{went:,} of {told['matched']:,} are {ACTS[act][1]}.{stayed}",
                to=path_of("dead-letters", request.names["vhost"], request.names["queue"]))


def _api(request: Request) -> str:
    return "/api" + path_of("queues", request.names["vhost"], request.names["queue"], "messages")


def _act(request: Request) -> str:
    if request.names["act"] not in ACTS:
        raise HttpError(404, "not_found", "There is no such action.")
    return request.names["act"]


def _chosen(values: Any) -> dict[str, str]:
    """Return the filter of a group. Raises HttpError: 400 for none, which would be everything."""
    found = {name: values[name] for name in ("reason", "origin") if values.get(name)}
    if not found:
        raise bad_request("choose a group of dead letters")
    return found


ROUTES = [
    page("/dead-letters", list_queues, "The queues that dead letters flow to"),
    page(IN_PATH, show_queue, "The dead letters of a queue", access=Access.VHOST),
    page(IN_PATH + "/{act}", preview, "What an act on dead letters would do", access=Access.VHOST),
    form(IN_PATH + "/{act}", carry_out, "Retry, move or delete dead letters", access=Access.VHOST),
]
