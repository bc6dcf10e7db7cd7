"""The pages of vhosts: the list, and one vhost with what is said of it, its limits, and who may enter it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, HttpError
from amqpd.management.http.request import Request
from amqpd.management.page.forms import Form, done, wrong
from amqpd.management.page.lists import Column, Listing, Record
from amqpd.management.page.navigation import rights_of
from amqpd.management.page.rights import PREFIX, put_limits
from amqpd.management.page.shown import Shown, form, page, path_of
from amqpd.management.page.users import one_line

ADMIN = Access.ADMINISTRATOR
IN_PATH = "/vhosts/{vhost}"
LIMITS = (("max-connections", "Most connections"), ("max-queues", "Most queues"))
NO_TYPE = "undefined"
TYPES = ((NO_TYPE, "as the broker's"), ("classic", "classic"), ("quorum", "quorum"))


def path_to(name: str) -> str:
    """Return the path of the page of a vhost."""
    return path_of("vhosts", name)


def _to_vhost(record: Record) -> str:
    return path_to(record["name"])


def _to_queues(record: Record) -> str:
    return path_of("queues", vhost=record["name"])


def columns_for(request: Request) -> Sequence[Column]:
    """Return the columns of the list; only administrators come to the page of a vhost, others to its queues."""
    return (
        Column("name", "Name", link=_to_vhost if rights_of(request.user).administrates else _to_queues),
        Column("description", "Description", is_sorted=False),
        Column("tags", "Tags", "tags", is_sorted=False),
        Column("default_queue_type", "Default queue type", is_shown=False),
        Column("messages_ready", "Ready", "number"),
        Column("messages_unacknowledged", "Unacked", "number"),
        Column("messages", "Total", "number"),
        Column("message_stats.publish_details.rate", "In", "rate", hint="Messages published, per second"),
        Column("message_stats.deliver_get_details.rate", "Out", "rate", hint="Messages delivered, per second"),
        Column("tracing", "Tracing", "yes", is_shown=False),
        Column("protected_from_deletion", "Protected", "yes", is_shown=False))


async def list_vhosts(request: Request) -> Shown:
    """Show the vhosts that the user sees."""
    listing = Listing(request, "/vhosts", columns_for(request), noun="vhost", needs=("name",),
                      empty="You may not enter any: an administrator gives you permissions.")
    await listing.load(request, "/api/vhosts")
    return Shown("vhosts.html", {"listing": listing, "form": Form(), "types": TYPES}, "vhosts")


def _said(found: Form) -> dict[str, Any]:
    """Return what a form says of a vhost."""
    return {
        "description": found.text("description"), "tags": [tag.strip() for tag in found.text("tags").split(",")
                                                           if tag.strip()],
        "default_queue_type": found.choice("default_queue_type", [kind for kind, _ in TYPES]),
        "tracing": found.flag("tracing"), "protected_from_deletion": found.flag("protected_from_deletion")}


async def add_vhost(request: Request) -> Shown | Answer:
    """Add a vhost, or show the form with what is wrong."""
    found = Form(request)
    name, said = found.text("name", required="Enter a name."), _said(found)
    if any(vhost.name == name for vhost in request.visible_vhosts()):
        found.errors["name"] = "There is a vhost of this name."
    if found.is_valid:
        try:
            await request.ask("PUT", "/api" + path_to(name), body=said)
        except HttpError as error:
            found.refused(error, "name")
    if not found.is_valid:
        return Shown("vhosts.html", {"listing": None, "form": found, "types": TYPES}, "vhosts", 422)
    return done(f"Vhost {name} is added. You may do everything in it.", to=path_to(name))


OF_USERS = tuple(Column(key, key.capitalize()) for key in ("user", "configure", "write", "read"))


async def show_vhost(request: Request) -> Shown:
    """Show one vhost. Raises HttpError."""
    return await _shown_with(request)


async def _shown_with(request: Request, **forms: Form) -> Shown:
    name = request.names["vhost"]
    vhost = await request.ask("GET", "/api" + path_to(name))
    limits = await request.ask("GET", "/api" + path_of("vhost-limits", name))
    permissions = Listing(request, path_to(name), OF_USERS, noun="user", needs=("user",), sort="user",
                          empty="Nobody may enter the vhost. Permissions are given on the page of a user.")
    await permissions.load(request, f"/api{path_to(name)}/permissions")
    return Shown("vhost.html", {
        "vhost": vhost, "limits": LIMITS, "types": TYPES, "permissions": permissions,
        "values": limits[0]["value"] if limits else {},
        **{key: forms.get(key, Form()) for key in ("said_form", "limits_form")}}, "vhosts", 422 if forms else 200)


async def change_vhost(request: Request) -> Shown | Answer:
    """Replace what is said of a vhost. Raises HttpError."""
    found, name = Form(request), request.names["vhost"]
    said = _said(found)
    if found.is_valid:
        try:
            await request.ask("PUT", "/api" + path_to(name), body=said)
        except HttpError as error:
            found.refused(error)
    if not found.is_valid:
        return await _shown_with(request, said_form=found)
    return done(f"Vhost {name} is changed.", to=path_to(name))


async def set_limits(request: Request) -> Shown | Answer:
    """Set the limits of a vhost; an empty field is no limit. Raises HttpError."""
    found, name = Form(request), request.names["vhost"]
    values = {key: found.whole(PREFIX + key) for key, _ in LIMITS}
    if not found.is_valid:
        return await _shown_with(request, limits_form=found)
    await put_limits(request, "vhost-limits", name, values)
    return done(f"The limits of {name} are set.", to=path_to(name))


async def delete_vhost(request: Request) -> Answer:
    """Delete a vhost, whose name has to be typed. Raises HttpError."""
    name = request.names["vhost"]
    if Form(request).text("typed") != one_line(name):
        raise wrong("Type the name of the vhost to delete it.")
    await request.ask("DELETE", "/api" + path_to(name))
    return done(f"Vhost {name} is deleted.", to="/vhosts")


ROUTES = [
    page("/vhosts", list_vhosts, "The vhosts"),
    form("/vhosts", add_vhost, "Add a vhost", access=ADMIN),
    page(IN_PATH, show_vhost, "A vhost", access=ADMIN),
    form(IN_PATH + "/change", change_vhost, "Change what is said of a vhost", access=ADMIN),
    form(IN_PATH + "/limits", set_limits, "Set the limits of a vhost", access=ADMIN),
    form(IN_PATH + "/delete", delete_vhost, "Delete a vhost", access=ADMIN),
]
