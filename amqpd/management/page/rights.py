"""What users may do, on their pages: permissions, topic permissions, limits; and what patterns match."""

from __future__ import annotations

from amqpd.management.http.answers import Answer, HttpError
from amqpd.management.http.request import Request
from amqpd.management.page.forms import Form, done
from amqpd.management.page.patterns import previews
from amqpd.management.page.shown import Shown, form, path_of
from amqpd.management.page.users import ADMIN, IN_PATH, LIMITS, path_to, shown_with

RIGHTS = ("configure", "write", "read")
PREFIX = "limit-"       # of the fields of limits


def _vhost(found: Form, request: Request, field: str = "vhost") -> str:
    return found.choice(field, sorted(vhost.name for vhost in request.visible_vhosts()))


async def set_permission(request: Request) -> Shown | Answer:
    """Set the permissions of a user in a vhost, or show what is wrong with each pattern. Raises HttpError."""
    found, name = Form(request), request.names["user"]
    vhost, patterns = _vhost(found, request), {right: found.text(right) for right in RIGHTS}
    if found.is_valid:
        for told in await previews(request, vhost, patterns):
            if told["queues"] is None:
                found.errors[told["title"]] = told["error"]
    if found.is_valid:
        await request.ask("PUT", "/api" + path_of("permissions", vhost, name), body=patterns)
        return done(f"The permissions of {name} in {vhost} are set.", to=path_to(name))
    return await shown_with(request, permission_form=found)


async def preview_permission(request: Request) -> Shown:
    """Show what the patterns of a form match. Raises HttpError."""
    found, shown = Form(request), await shown_with(request)
    vhost = found.text("vhost")
    if vhost in shown.values["vhosts"]:
        shown.values["previews"] = await previews(
            request, vhost, {right.capitalize(): found.text(right) for right in RIGHTS})
    return shown


async def delete_permission(request: Request) -> Answer:
    """Remove the permissions of a user in a vhost. Raises HttpError."""
    name, vhost = request.names["user"], Form(request).text("vhost")
    await request.ask("DELETE", "/api" + path_of("permissions", vhost, name))
    return done(f"{name} may not enter {vhost} any more.", to=path_to(name))


async def set_topic_permission(request: Request) -> Shown | Answer:
    """Set the topic permissions of a user on an exchange. Raises HttpError."""
    found, name = Form(request), request.names["user"]
    vhost = _vhost(found, request, "topic-vhost")
    exchange = found.text("exchange", required="Enter the name of an exchange.")
    patterns = {right: found.text(f"topic-{right}") for right in RIGHTS[1:]}
    if found.is_valid:
        try:
            await request.ask("PUT", "/api" + path_of("topic-permissions", vhost, name),
                              body={"exchange": exchange, **patterns})
        except HttpError as error:
            wrong = isinstance(error.reason, list) and len(error.reason) > 1 and error.reason[1]
            field = next((f"topic-{right}" for right in patterns if patterns[right] == wrong), "exchange")
            found.errors[field] = f"This expression cannot be used: {error.reason}."
    if not found.is_valid:
        return await shown_with(request, topic_form=found)
    return done(f"The topic permissions of {name} on {exchange} are set.", to=path_to(name))


async def delete_topic_permission(request: Request) -> Answer:
    """Remove the topic permissions of a user on an exchange. Raises HttpError."""
    name, found = request.names["user"], Form(request)
    await request.ask("DELETE", "/api" + path_of(
        "topic-permissions", found.text("vhost"), name, found.text("exchange")))
    return done(f"The topic permissions of {name} on {found.text('exchange')} are removed.", to=path_to(name))


async def set_limits(request: Request) -> Shown | Answer:
    """Set the limits of a user; an empty field is no limit. Raises HttpError."""
    found, name = Form(request), request.names["user"]
    limits = {key: found.whole(PREFIX + key) for key, _ in LIMITS}
    if not found.is_valid:
        return await shown_with(request, limits_form=found)
    await put_limits(request, "user-limits", name, limits)
    return done(f"The limits of {name} are set.", to=path_to(name))


async def put_limits(request: Request, kind: str, name: str, limits: dict[str, int | None]) -> None:
    """Set each limit that has a value, and remove the others. Raises HttpError."""
    for key, value in limits.items():
        path = "/api" + path_of(kind, name, key)
        if value is None:
            await request.ask("DELETE", path)
        else:
            await request.ask("PUT", path, body={"value": value})


ROUTES = [
    form(IN_PATH + "/permissions", set_permission, "Set permissions of a user", access=ADMIN),
    form(IN_PATH + "/permissions/preview", preview_permission, "What permissions would match", access=ADMIN),
    form(IN_PATH + "/permissions/delete", delete_permission, "Remove permissions of a user", access=ADMIN),
    form(IN_PATH + "/topic-permissions", set_topic_permission, "Set topic permissions of a user", access=ADMIN),
    form(IN_PATH + "/topic-permissions/delete", delete_topic_permission, "Remove topic permissions", access=ADMIN),
    form(IN_PATH + "/limits", set_limits, "Set the limits of a user", access=ADMIN),
]
