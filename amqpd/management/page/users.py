"""The pages of users: the list, and one user with tags, password, rights and limits.

No page shows a password or the hash of one, and none comes back in a form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, HttpError
from amqpd.management.http.request import Request
from amqpd.management.page.forms import Form, done, wrong
from amqpd.management.page.lists import Column, Listing, Record
from amqpd.management.page.shown import Shown, form, page, path_of

ADMIN = Access.ADMINISTRATOR
TAGS = (
    ("administrator", "may do everything"),
    ("monitoring", "sees everything, changes nothing"),
    ("policymaker", "sets policies in vhosts that it may enter"),
    ("management", "uses this page and the API in vhosts that it may enter"))
KNOWN = tuple(name for name, _ in TAGS)
LIMITS = (("max-connections", "Most connections"), ("max-channels", "Most channels"))
IN_PATH = "/users/{user}"
NO_RIGHTS = ""
ALL = {"configure": ".*", "write": ".*", "read": ".*"}


def path_to(name: str) -> str:
    """Return the path of the page of a user."""
    return path_of("users", name)


def _to_user(record: Record) -> str:
    return path_to(record["name"])


COLUMNS: Sequence[Column] = (
    Column("name", "Name", link=_to_user),
    Column("tags", "Tags", "tags", is_sorted=False),
    Column("limits.max-connections", "Most connections", "quota", is_sorted=False),
    Column("limits.max-channels", "Most channels", "quota", is_sorted=False),
    Column("hashing_algorithm", "Password hash", is_shown=False),
)


async def list_users(request: Request) -> Shown:
    """Show the users."""
    listing = Listing(request, "/users", COLUMNS, noun="user", needs=("name",),
                      empty="To make one, choose Add a user.")
    await listing.load(request, "/api/users")
    return Shown("users.html", {"listing": listing, "form": Form(), **_choices(request)}, "users")


def _choices(request: Request) -> dict[str, Any]:
    vhosts = sorted(vhost.name for vhost in request.visible_vhosts())
    return {"tags": TAGS, "vhosts": vhosts, "rights": [(NO_RIGHTS, "none yet"), *((one, one) for one in vhosts)]}


def tags_of(found: Form, before: Sequence[str] = ()) -> list[str]:
    """Return the tags that are checked, and those of the user that the form has no box for."""
    return [tag for tag in KNOWN if tag in found.every("tag")] + [tag for tag in before if tag not in KNOWN]


async def add_user(request: Request) -> Shown | Answer:
    """Add a user, or show the form with what is wrong."""
    found, choices = Form(request), _choices(request)
    name = found.text("name", required="Enter a name.")
    password = _password(found)
    vhost = found.text("vhost")
    if vhost and vhost not in choices["vhosts"]:
        found.errors["vhost"] = "There is no such vhost."
    if found.is_valid and await _exists(request, name):
        found.errors["name"] = "There is a user of this name."
    if found.is_valid:
        try:
            await request.ask("PUT", "/api" + path_to(name), body={"password": password, "tags": tags_of(found)})
            if vhost:
                await request.ask("PUT", "/api" + path_of("permissions", vhost, name), body=ALL)
        except HttpError as error:
            found.refused(error, "name")
    if not found.is_valid:
        return Shown("users.html", {"listing": None, "form": found, **choices}, "users", 422)
    return done(f"User {name} is added.", to=path_to(name))


async def _exists(request: Request, name: str) -> bool:
    try:
        await request.ask("GET", "/api" + path_to(name))
    except HttpError as error:
        if error.status != 404:
            raise
        return False
    return True


def _password(found: Form) -> str:
    """Return the new password, which has to be typed twice. The form does not keep it."""
    password, again = found.values.pop("password", ""), found.values.pop("again", "")
    found.pairs = [(key, value) for key, value in found.pairs if key not in ("password", "again")]
    if not password:
        found.errors["password"] = "Enter a password."
    elif password != again:
        found.errors["again"] = "This is not the same password."
    return password


FORMS = ("tags_form", "password_form", "limits_form", "permission_form", "topic_form")
OF_PERMISSIONS = tuple(Column(key, key.capitalize()) for key in ("vhost", "configure", "write", "read"))
OF_TOPICS = tuple(Column(key, key.capitalize()) for key in ("vhost", "exchange", "write", "read"))


async def show_user(request: Request) -> Shown:
    """Show one user. Raises HttpError."""
    return await shown_with(request)


async def shown_with(request: Request, **forms: Form) -> Shown:
    """Return the page of the user that the path names, with forms that have come back. Raises HttpError: 404."""
    name = request.names["user"]
    user = await request.ask("GET", "/api" + path_to(name), {"columns": "name,tags,limits"})
    # The address pages through the permissions; of topic permissions the first ones are shown.
    permissions = Listing(request, path_to(name), OF_PERMISSIONS, noun="permission", needs=("vhost",), sort="vhost",
                          empty="The user may not enter any vhost.")
    await permissions.load(request, f"/api{path_to(name)}/permissions")
    topics = await request.ask("GET", f"/api{path_to(name)}/topic-permissions", {"sort": "vhost"})
    return Shown("user.html", {
        "account": user, "permissions": permissions, "topics": topics[:MOST_TOPICS], "topics_found": len(topics),
        "is_own": name == request.user.name, "limits": LIMITS, "previews": [], "api": path_to(name),
        **_choices(request), **{key: forms.get(key, Form()) for key in FORMS}},
        "users", 422 if forms else 200)


MOST_TOPICS = 500


async def set_tags(request: Request) -> Shown | Answer:
    """Replace the tags of a user. Raises HttpError."""
    found, name = Form(request), request.names["user"]
    user = await request.ask("GET", "/api" + path_to(name), {"columns": "tags"})
    tags = tags_of(found, user["tags"])
    if name == request.user.name and "administrator" not in tags and not found.flag("sure"):
        found.errors["tag"] = ("You would lose the rights of an administrator yourself. To do so, check “I give up my "
                               "own rights”.")
        return await shown_with(request, tags_form=found)
    await command(request, "set_user_tags", user=name, tags=tags)
    return done(f"The tags of {name} are set.", to="/" if name == request.user.name else "")


async def set_password(request: Request) -> Shown | Answer:
    """Replace the password of a user. Raises HttpError."""
    found, name = Form(request), request.names["user"]
    password = _password(found)
    if found.is_valid:
        try:
            await command(request, "change_password", user=name, password=password)
        except HttpError as error:
            found.refused(error, "password")
    if not found.is_valid:
        return await shown_with(request, password_form=found)
    return done(f"The password of {name} is changed.", to=path_to(name))


async def command(request: Request, name: str, **arguments: Any) -> Any:
    """Carry out a command of amqpctl as the user of the page. Raises HttpError for one that is refused."""
    answer = await request.ask("POST", "/api/amqpctl", body={"command": name, "arguments": arguments})
    if not answer.get("ok"):
        raise HttpError(400, "bad_request", str(answer.get("error", "The broker refuses this.")))
    return answer.get("result")


async def delete_user(request: Request) -> Answer:
    """Delete a user. Raises HttpError."""
    found, name = Form(request), request.names["user"]
    if name == request.user.name and found.text("typed") != one_line(name):
        raise wrong("This is your own account: type its name to delete it.")
    await request.ask("DELETE", "/api" + path_to(name))
    return done(f"User {name} is deleted.", to="/users")


def one_line(name: str) -> str:
    """Return a name as it can be typed: a field of one line takes no line ends."""
    return name.replace("\r", "").replace("\n", "")


ROUTES = [
    page("/users", list_users, "The users", access=ADMIN),
    form("/users", add_user, "Add a user", access=ADMIN),
    page(IN_PATH, show_user, "A user", access=ADMIN),
    form(IN_PATH + "/tags", set_tags, "Set the tags of a user", access=ADMIN),
    form(IN_PATH + "/password", set_password, "Change the password of a user", access=ADMIN),
    form(IN_PATH + "/delete", delete_user, "Delete a user", access=ADMIN),
]
