"""The routes that export and import definitions. RabbitMQ docs/definitions, docs/http-api-reference."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import Any

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from amqpd.management.definitions_commands import listed
from amqpd.management.definitions_json.checking import check
from amqpd.management.definitions_json.comparing import Change, compare, known_passwords
from amqpd.management.http.access import Access
from amqpd.management.http.answers import JSON, Answer, HttpError, bad_request, no_content
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Query, Route

FORM = "multipart/form-data"
MOST_UPLOAD = 256 << 20
PIECE = 1 << 20
MOST_CHANGES, SLICE = 500, 200      # definitions that a preview names, and those between two turns of the event loop
WITHIN = re.compile(r"(?:\.\.?/)*(?:[\w#-][\w/#.-]*)?", re.ASCII)       # where a form may send a browser: nowhere else


async def export(request: Request) -> Answer:
    """Return the definitions of the broker, or of one vhost. Raises HttpError: 400 if there is no such vhost."""
    vhost = request.names.get("vhost")
    if vhost is not None and not request.has_vhost:
        raise bad_request("vhost_not_found")
    body = await request.context.commands.lookups["export_definitions"](vhost, names_vhost=True)
    name = request.query.get("download")
    headers = {"content-disposition": f"attachment; filename={_quoted(name)}"} if name else {}
    return Answer(body=body, headers=headers, media_type=JSON)


def _quoted(name: str) -> str:
    return '"' + "".join(one for one in name if one.isprintable() and one not in '"\\' and ord(one) < 128) + '"'


async def take_in(request: Request) -> Answer:
    """Import definitions: JSON, or a form with a file named `file`. Raises HttpError."""
    vhost = request.names.get("vhost")
    if vhost is not None and not request.has_vhost:
        raise HttpError(404, "not_found", "vhost_not_found")
    redirect = ""
    if request.headers.get("content-type", "").startswith(FORM):
        body, fields = await uploaded(request)
        redirect = fields.get("redirect", "")
        if redirect and not WITHIN.fullmatch(redirect):
            raise bad_request("redirect must be a path relative to this one")
        if not body.strip():
            raise bad_request("failed_to_parse_json")
    else:
        body = request.body
    if not body.strip():
        return no_content()
    await request.context.commands.changes["import_definitions"](body, vhost)
    return Answer(303, headers={"location": redirect}) if redirect else no_content()


async def uploaded(request: Request) -> tuple[bytes, dict[str, str]]:
    """Return the file of a form, and its other fields. Raises HttpError: 400."""
    async def pieces() -> Any:
        for place in range(0, len(request.body), PIECE):        # a large file is no long turn of the event loop
            yield request.body[place:place + PIECE]
            await request.context.turns.next()
        yield b""

    try:
        form = await MultiPartParser(Headers(dict(request.headers)), pieces()).parse()
    except (MultiPartException, KeyError):
        raise bad_request("the form cannot be read") from None
    found = form.get("file")
    content = await found.read() if isinstance(found, UploadFile) else (found or "").encode()
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    await form.close()
    return content, fields


async def preview(request: Request) -> Any:
    """Return what an import of the body would change, and what is wrong with it. Raises HttpError: 404."""
    vhost = request.query.get("vhost") or None
    if vhost is not None and vhost not in request.broker.vhosts:
        raise HttpError(404, "not_found", "vhost_not_found")
    plan = await asyncio.to_thread(check, request.body, request.broker, vhost)
    known = await asyncio.to_thread(known_passwords, plan, request.broker)
    counts, changes = Counter[str](), list[Change]()
    for number, change in enumerate(compare(plan, request.broker, known) if not plan.problems else (), 1):
        counts[change.change] += 1
        if change.change != "same" and len(changes) < MOST_CHANGES:
            changes.append(change)
        if number % SLICE == 0:
            await request.context.turns.next()
            request.context.node.begin()
    return {
        "added": counts["added"], "changed": counts["changed"], "same": counts["same"], "changes": changes,
        "problems": listed([*(f"warning: {one}" for one in plan.unknown), *plan.problems]) if plan.problems else [],
        "warnings": listed(plan.warnings)}


PATHS = ("/api/definitions", "/api/definitions/{vhost}", "/api/all-configuration")
ROUTES = [
    *(Route(method="GET", path=path, handler=export, access=Access.ADMINISTRATOR,
            query=(Query("download", "the name of a file to save the answer in"),),
            summary="The definitions of the broker, or of one vhost") for path in PATHS),
    *(Route(method="POST", path=path, handler=take_in, access=Access.ADMINISTRATOR, body=bytes,
            most_body=MOST_UPLOAD, summary="Import definitions") for path in PATHS),
    Route(method="POST", path="/api/amqpd/definitions-preview", handler=preview, access=Access.ADMINISTRATOR,
          body=bytes, most_body=MOST_UPLOAD, is_audited=False,
          query=(Query("vhost", "the vhost to import into; without it, everything is imported"),),
          summary="What an import of definitions would change, and what is wrong with the file"),
]
