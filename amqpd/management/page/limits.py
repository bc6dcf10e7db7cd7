"""The pages of limits: of vhosts, and of users. Those who have none are not listed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, HttpError
from amqpd.management.http.request import Request
from amqpd.management.page import users, vhosts
from amqpd.management.page.forms import Form, done
from amqpd.management.page.lists import Column, Listing, Record
from amqpd.management.page.navigation import rights_of
from amqpd.management.page.rights import PREFIX, put_limits
from amqpd.management.page.shown import Shown, form, page, path_of


class _Kind(NamedTuple):
    """Whose limits a page has: the key of a name in records, the list of the API, and the limits with their titles."""

    noun: str
    path: str
    api: str
    limits: tuple[tuple[str, str], ...]
    text: str


KINDS: Mapping[str, _Kind] = {
    "vhosts": _Kind("vhost", "/limits", "vhost-limits", vhosts.LIMITS,
                    "What is there already stays when a limit is lowered."),
    "users": _Kind("user", "/limits/users", "user-limits", users.LIMITS,
                   "They count over all vhosts. What is open already stays when a limit is lowered.")}


def _listing(request: Request, name: str) -> Listing:
    kind = KINDS[name]

    def link(record: Record) -> str:
        return path_of(name, record[kind.noun])

    columns = [Column(kind.noun, kind.noun.capitalize(), link=link if rights_of(request.user).administrates else None)]
    columns += [Column(f"value.{key}", title, "quota") for key, title in kind.limits]
    return Listing(
        request, kind.path, columns, noun=f"{kind.noun} with limits", plural=f"{name} with limits",
        needs=(kind.noun, "value"), sort=kind.noun, empty="To set one, choose Set limits."
        if rights_of(request.user).administrates else "Administrators set them.")


async def list_limits(request: Request, *, name: str) -> Shown:
    """Show the limits of vhosts, or of users."""
    listing = await _listing(request, name).load(request, f"/api/{KINDS[name].api}")
    return Shown("limits.html", {"listing": listing, "form": Form(), "name": name, "kind": KINDS[name]}, "limits")


async def set_limits(request: Request, *, name: str) -> Shown | Answer:
    """Set the limits of one; an empty field is no limit."""
    found, kind = Form(request), KINDS[name]
    one = found.text("name", required=f"Enter the name of a {kind.noun}.")
    values = {key: found.whole(PREFIX + key) for key, _ in kind.limits}
    if found.is_valid:
        try:
            await request.ask("GET", "/api" + path_of(name, one))
        except HttpError as error:
            if error.status != 404:
                raise
            found.errors["name"] = f"There is no such {kind.noun}."
    if found.is_valid:
        await put_limits(request, kind.api, one, values)
        return done(f"The limits of {one} are set.", to=kind.path)
    return Shown("limits.html", {"listing": None, "form": found, "name": name, "kind": kind}, "limits", 422)


ROUTES = [
    route for name, kind in KINDS.items() for route in (
        page(kind.path, partial(list_limits, name=name), f"The limits of {name}"),
        form("/limits/set/" + name, partial(set_limits, name=name), f"Set limits of a {kind.noun}",
             access=Access.ADMINISTRATOR))]
