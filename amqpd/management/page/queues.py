"""The pages of queues: the list, and one queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, HttpError
from amqpd.management.http.request import Request
from amqpd.management.page import bulk
from amqpd.management.page.forms import Form, done
from amqpd.management.page.lists import Column, Listing, Record, vhost_filter
from amqpd.management.page.shown import Shown, form, page, path_of

TYPES = ("classic", "quorum")
IN_PATH = "/queues/{vhost}/{queue}"


def _to_queue(record: Record) -> str:
    return path_of("queues", record["vhost"], record["name"])


COLUMNS: Sequence[Column] = (
    Column("name", "Name", link=_to_queue),
    Column("vhost", "Vhost"),
    Column("type", "Type", is_shown=False),
    Column("state", "State", "state", is_sorted=False),
    Column("messages_ready", "Ready", "number", hint="Messages that wait for a consumer"),
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
    return {"types": TYPES, "vhosts": sorted(vhost.name for vhost in request.visible_vhosts())}


async def show_queue(request: Request) -> Shown:
    """Show one queue."""
    vhost, name = request.names["vhost"], request.names["queue"]
    api = "/api" + path_of("queues", vhost, name)
    queue = await request.ask("GET", api)
    bindings = await request.ask("GET", api + "/bindings")
    return Shown("queue.html", {"queue": queue, "bindings": bindings, "api": api, "form": Form()}, "queues")


async def declare_queue(request: Request) -> Shown | Answer:
    """Declare a queue, or show the form with what is wrong."""
    form = Form(request)
    vhost = form.choice("vhost", _choices(request)["vhosts"])
    name = form.text("name", required="Enter a name.")
    kind = form.choice("type", TYPES)
    arguments = form.json_object("arguments")
    for field, argument in (("max_length", "x-max-length"), ("message_ttl", "x-message-ttl")):
        if (number := form.whole(field)) is not None:
            arguments[argument] = number
    for field, argument in (("dead_letter_exchange", "x-dead-letter-exchange"),):
        if text := form.text(field):
            arguments[argument] = text
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
    form(IN_PATH + "/purge", purge_queue, "Drop the ready messages of a queue", access=Access.VHOST),
    form(IN_PATH + "/delete", delete_queue, "Delete a queue", access=Access.VHOST),
]
