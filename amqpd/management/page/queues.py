"""The pages of queues: the list, and one queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, HttpError
from amqpd.management.http.request import Request
from amqpd.management.page import bulk
from amqpd.management.page.consumers import complete
from amqpd.management.page.forms import Form, done
from amqpd.management.page.lists import Column, Listing, Record, vhost_filter
from amqpd.management.page.shown import Shown, form, page, path_of
from amqpd.management.page.words import lasting, number

TYPES = ("classic", "quorum")
IN_PATH = "/queues/{vhost}/{queue}"


def _to_queue(record: Record) -> str:
    return path_of("queues", record["vhost"], record["name"])


def _to_messages(record: Record) -> str:
    return path_of("queues", record["vhost"], record["name"], "messages")


COLUMNS: Sequence[Column] = (
    Column("name", "Name", link=_to_queue),
    Column("vhost", "Vhost"),
    Column("type", "Type", is_shown=False),
    Column("state", "State", "state", is_sorted=False),
    Column("messages_ready", "Ready", "number", link=_to_messages, hint="Messages that wait for a consumer"),
    Column("messages_unacknowledged", "Unacked", "number", hint="Messages that consumers hold and have not acked"),
    Column("messages", "Total", "number"),
    Column("message_bytes_ready", "Ready bytes", "size", is_shown=False),
    Column("message_stats.publish_details.rate", "In", "rate", hint="Messages published to the queue, per second"),
    Column("message_stats.deliver_get_details.rate", "Out", "rate", hint="Messages delivered, per second"),
    Column("message_stats.ack_details.rate", "Acked", "rate", hint="Messages acked, per second"),
    Column("consumers", "Consumers", "number"),
    Column("policy", "Policy", is_shown=False),
    Column("idle_since", "Last change", "ago", is_shown=False),
)


MOVEMENTS = ("deliver_get_details", "ack_details", "redeliver_details")
MOST_HELD, MOST_CONSUMERS = 10, 100
DURATIONS = ("message-ttl", "expires", "consumer-timeout")
MEANINGS = {
    "message-ttl": "Messages expire {0} after they came.",
    "expires": "The queue is deleted when nobody has used it for {0}.",
    "max-length": "It keeps at most {0} ready messages.",
    "max-length-bytes": "It keeps at most {0} bytes of ready messages.",
    "max-priority": "Messages with a higher priority come first, up to {0}.",
    "delivery-limit": "A message that was given back {0} times is dead-lettered, or dropped.",
    "consumer-timeout": "A consumer that does not ack within {0} is cut off.",
}
CHOICES = {
    ("overflow", "drop-head"): "If it is full, the oldest messages give way.",
    ("overflow", "reject-publish"): "If it is full, publishes are refused.",
    ("overflow", "reject-publish-dlx"): "If it is full, publishes are refused, and dead-lettered.",
    ("single-active-consumer", True): "One consumer gets all messages; the others wait to take over.",
    ("queue-type", "quorum"): "It is a quorum queue: durable, and it counts deliveries.",
}
# Fields of the form that declares a queue, and the arguments that they become.
NUMBERS = (("max_length", "x-max-length"), ("message_ttl", "x-message-ttl"), ("expires", "x-expires"),
           ("max_priority", "x-max-priority"))
TEXTS = (("dead_letter_exchange", "x-dead-letter-exchange"), ("dead_letter_routing_key", "x-dead-letter-routing-key"))
OVERFLOWS = (("", "drop the oldest messages"), ("reject-publish", "refuse publishes"),
             ("reject-publish-dlx", "refuse publishes, and dead-letter them"))


async def list_queues(request: Request) -> Shown:
    """Show the queues of the vhosts that the user sees, or of one."""
    vhost = request.query.get("vhost", "")
    listing = Listing(
        request, "/queues", COLUMNS, noun="queue", filters=[vhost_filter(request)],
        needs=("name", "vhost", "is_paused", "exclusive", "durable", "auto_delete", "arguments", "policy", "state"),
        empty="Clients declare queues when they start. To make one by hand, choose Declare a queue.")
    await listing.load(request, "/api/queues" + (path_of(vhost) if vhost else ""))
    return Shown("queues.html", {
        "listing": listing, "form": Form(), "offered": bulk.actions_for(request, "queues"),
        **_choices(request)}, "queues")


def _choices(request: Request) -> dict[str, Any]:
    return {"types": TYPES, "overflows": OVERFLOWS, "vhosts": sorted(vhost.name for vhost in request.visible_vhosts())}


async def show_queue(request: Request) -> Shown:
    """Show one queue. Raises HttpError."""
    vhost, name = request.names["vhost"], request.names["queue"]
    api = "/api" + path_of("queues", vhost, name)
    queue = await request.ask("GET", api)
    why = msgspec.to_builtins(await request.ask("GET", api + "/why", {"seconds": "0"}))["queues"]
    held = await request.ask("GET", api + "/unacked", {"count": str(MOST_HELD)})
    for row in queue["consumer_details"]:
        complete(row)
    rules = effective(queue["arguments"], queue["effective_policy_definition"])
    return Shown("queue.html", {
        "queue": queue, "api": api, "rules": in_words(rules), "dead": _dead_letters(rules),
        "which_die": _which_die(rules),
        "why": why[0] if why and not _is_quiet(queue, why[0]["cause"]) else None,
        "held": [dict(zip(held["columns"], row)) for row in held["rows"]],
        "consumers": queue["consumer_details"][:MOST_CONSUMERS]}, "queues")


def _is_quiet(queue: Record, cause: str) -> bool:
    """Return whether a queue needs no attention: no messages arrive, or it delivers them. A short pause is normal."""
    stats = queue.get("message_stats") or {}
    is_moving = any(stats.get(name, {}).get("rate", 0) > 0 for name in MOVEMENTS)
    return cause in ("moves", "nothing_published") or is_moving and cause != "paused"


def effective(arguments: Record, policy: Record) -> Record:
    """Return the rules in force: the lower one of two numbers, otherwise the argument, as on RabbitMQ."""
    rules = {key.removeprefix("x-"): value for key, value in arguments.items()}
    for key, value in policy.items():
        own = rules.get(key, value)
        rules[key] = min(own, value) if isinstance(own, int) and isinstance(value, int) else own
    return rules


def in_words(rules: Record) -> list[str]:
    """Return what arguments and policies of a queue mean, a sentence each; those without a sentence are left out."""
    found = []
    for key, value in rules.items():
        if (key, value if isinstance(value, (str, bool)) else "") in CHOICES:
            found.append(CHOICES[key, value])
        elif key in MEANINGS and isinstance(value, int):
            found.append(MEANINGS[key].format(lasting(value / 1000) if key in DURATIONS else number(value)))
    return found


def _dead_letters(rules: Record) -> Record | None:
    """Return where messages go that die here: exchange, routing key, and the queue if it is known; None if nowhere."""
    exchange = rules.get("dead-letter-exchange")
    if not isinstance(exchange, str):
        return None
    key = rules.get("dead-letter-routing-key")
    return {"exchange": exchange, "key": key, "to_queue": key if not exchange else None}


def _which_die(rules: Record) -> str:
    """Return which messages are dead-lettered or dropped: those without room are not, if their publish is refused."""
    is_refused = rules.get("overflow") == "reject-publish"
    return "that are rejected or expire" + ("" if is_refused else ", or for which there is no room,")


async def set_paused(request: Request) -> Answer:
    """Pause a queue, or resume it. Raises HttpError."""
    vhost, name = request.names["vhost"], request.names["queue"]
    is_paused = Form(request).flag("paused")
    await request.ask("PUT", "/api" + path_of("queues", vhost, name, "paused"), body={"value": is_paused})
    return done(f"Queue {name} is {'paused' if is_paused else 'resumed'}.")


async def declare_queue(request: Request) -> Shown | Answer:
    """Declare a queue, or show the form with what is wrong."""
    form = Form(request)
    vhost = form.choice("vhost", _choices(request)["vhosts"])
    name = form.text("name", required="Enter a name.")
    kind = form.choice("type", TYPES)
    arguments = form.json_object("arguments")
    for field, argument in NUMBERS:
        if (value := form.whole(field)) is not None:
            arguments[argument] = value
    for field, argument in TEXTS:
        if text := form.text(field):
            arguments[argument] = text
    if form.text("overflow"):
        arguments["x-overflow"] = form.choice("overflow", [one for one, _ in OVERFLOWS if one])
    if form.flag("single_active_consumer"):
        arguments["x-single-active-consumer"] = True
    if form.is_valid:
        body = {"durable": form.flag("durable"), "auto_delete": form.flag("auto_delete"),
                "arguments": {"x-queue-type": kind, **arguments} if kind != "classic" else arguments}
        try:
            await request.ask("PUT", "/api" + path_of("queues", vhost, name), body=body)
        except HttpError as error:
            form.refused(error, "name" if error.status == 401 else "")
    if not form.is_valid:
        return Shown("queues.html", {"form": form, "listing": None, **_choices(request)}, "queues", 422)
    return done(f"Queue {name} is declared.", to=path_of("queues", vhost, name))


async def purge_queue(request: Request) -> Answer:
    """Drop the ready messages of a queue. Raises HttpError."""
    vhost, name = request.names["vhost"], request.names["queue"]
    await request.ask("DELETE", "/api" + path_of("queues", vhost, name, "contents"))
    return done(f"Queue {name} is purged.")


async def delete_queue(request: Request) -> Answer:
    """Delete a queue. Raises HttpError."""
    vhost, name = request.names["vhost"], request.names["queue"]
    await request.ask("DELETE", "/api" + path_of("queues", vhost, name))
    return done(f"Queue {name} is deleted.", to="/queues")


ROUTES = [
    page("/queues", list_queues, "The queues"),
    form("/queues", declare_queue, "Declare a queue"),
    page(IN_PATH, show_queue, "A queue", access=Access.VHOST),
    form(IN_PATH + "/paused", set_paused, "Pause a queue, or resume it", access=Access.VHOST),
    form(IN_PATH + "/purge", purge_queue, "Drop the ready messages of a queue", access=Access.VHOST),
    form(IN_PATH + "/delete", delete_queue, "Delete a queue", access=Access.VHOST),
]
