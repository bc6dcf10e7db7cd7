"""The page of the topology: exchanges, queues and what leads from one to another, as a picture that the server draws.

The address holds what is searched for, the node in the middle, and the message whose way is lit.
"""

from __future__ import annotations

from typing import Any

from amqpd.management.http.bindings import DEFAULT_EXCHANGE
from amqpd.management.http.request import Request
from amqpd.management.page.drawing import HEIGHT, WIDTH, draw
from amqpd.management.page.forms import Form
from amqpd.management.page.lists import Record
from amqpd.management.page.shown import Shown, page, path_of
from amqpd.management.page.tracing import route_of
from amqpd.management.page.words import rate

MOST = 300
FEW, SOME, MANY = 1.0, 50.0, 1_000.0        # messages per second, from which an arrow is thicker
LONGEST = 22                                # characters of a name in a picture
DEPTHS = ("1", "2", "3", "5")
WAYS = {"binding": "binding", "alternate": "alternate exchange", "dead letters": "dead letters"}


async def show_topology(request: Request) -> Shown:
    """Show the topology of a vhost. Raises HttpError."""
    query = request.query
    vhosts = sorted(vhost.name for vhost in request.visible_vhosts())
    vhost = query.get("vhost", "") or ("/" if "/" in vhosts else next(iter(vhosts), ""))
    depth = query.get("depth", "") if query.get("depth", "") in DEPTHS else "2"
    asked, found, route = Form(), None, None
    asked.values = {name: query[name] for name in ("exchange", "routing_key", "headers") if name in query}
    if vhost:
        if asked.values.get("exchange"):
            api = "/api" + path_of("exchanges", vhost, asked.values["exchange"])
            route = await route_of(request, api, asked)
        found = await request.ask("GET", "/api" + path_of("vhosts", vhost, "topology"), {
            "name": query.get("name", ""), "around": query.get("around", ""), "depth": depth, "most": str(MOST)})
    values = {"vhost": vhost, "vhosts": vhosts, "depth": depth, "depths": DEPTHS, "name": query.get("name", ""),
              "around": query.get("around", ""), "asked": asked, "route": route, "found": found}
    if found is not None:
        values |= await _drawn(request, vhost, found, _lit(route))
    return Shown("topology.html", values, "topology", 200 if asked.is_valid else 422)


def _lit(route: dict[str, Any] | None) -> set[tuple[str, str]]:
    """Return the kinds and names of all nodes on the way of a message."""
    steps = route["steps"] if route else []
    return {(step["kind"], step["name"]) for step in steps if step["kind"] in ("exchange", "queue")}


async def _drawn(request: Request, vhost: str, found: Record, lit: set[tuple[str, str]]) -> dict[str, Any]:
    """Return boxes and lines with all that a template shows of them."""
    nodes, arrows = found["nodes"], found["arrows"]
    drawing = await draw(len(nodes), [(one["source"], one["target"]) for one in arrows], request.context.turns.next)
    into = [0] * len(nodes)
    for one in arrows:
        into[one["target"]] += 1
    boxes = [_box(vhost, node, place, lit) for node, place in zip(nodes, drawing.places)]
    lines = []
    for one, path in zip(arrows, drawing.paths):
        source, target = nodes[one["source"]], nodes[one["target"]]
        is_lit = all((end["kind"], end["name"]) in lit for end in (source, target))
        # Rates are counted by queue, not by binding: an arrow has that of its queue if no other leads there.
        is_only = target["kind"] == "queue" and into[one["target"]] == 1
        speed = target["rate_in"] if is_only else 0.0
        place = drawing.places[one["target"]]
        lines.append({
            "path": path, "way": one["way"].replace(" ", "-"), "is_lit": is_lit, "thick": _thickness(speed),
            "label": rate(speed), "x": place.x - 8, "y": place.y + HEIGHT // 2 - 5, "text": _said(one, source, target)})
    return {"boxes": boxes, "lines": lines, "width": drawing.width, "height": drawing.height,
            "box_width": WIDTH, "box_height": HEIGHT}


def _thickness(speed: float) -> int:
    return sum(speed >= bound for bound in (FEW, SOME, MANY))


def _said(arrow: Record, source: Record, target: Record) -> str:
    keys = ", ".join(key or "(empty key)" for key in arrow["keys"])
    more = arrow["count"] - len(arrow["keys"])
    counted = f" and {more:,} more" if arrow["keys"] and more else ""
    return f"{source['name']} → {target['name']}: {WAYS[arrow['way']]}{' ' + keys if keys else ''}{counted}"


def _box(vhost: str, node: Record, place: Any, lit: set[tuple[str, str]]) -> Record:
    name, kind = node["name"], node["kind"]
    shown = name or "(default exchange)" if kind == "exchange" else name or "(empty name)"
    section = "exchanges" if kind == "exchange" else "queues"
    return {
        **node, "x": place.x, "y": place.y, "full": shown, "is_lit": (kind, name) in lit,
        "short": shown if len(shown) <= LONGEST else shown[:LONGEST - 1] + "…",
        "to": path_of(section, vhost, name or (DEFAULT_EXCHANGE if kind == "exchange" else "")),
        "near": path_of("topology", vhost=vhost, around=f"{kind}:{name or DEFAULT_EXCHANGE}")}


ROUTES = [page("/topology", show_topology, "The topology of a vhost")]
