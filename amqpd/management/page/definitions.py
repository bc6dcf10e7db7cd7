"""The page of definitions: export, and import with a list of what would change before anything does."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import msgspec

from amqpd.management.http.access import Access
from amqpd.management.http.answers import JSON, Answer, HttpError
from amqpd.management.http.definitions import FORM, MOST_UPLOAD, uploaded
from amqpd.management.http.request import Request
from amqpd.management.page.forms import Form, done, sentence_of, wrong
from amqpd.management.page.shown import Shown, form, page, path_of, to
from amqpd.management.refusal import Refusal

ADMIN = Access.ADMINISTRATOR
ALL = ""        # the choice of all vhosts
FILE = "amqpd-definitions"


async def show_definitions(request: Request) -> Shown:
    """Show what can be exported, and the form for an import."""
    return _shown(request)


def _shown(request: Request, status: int = 200, **values: Any) -> Shown:
    names = sorted(vhost.name for vhost in request.visible_vhosts())
    return Shown("definitions.html", {
        "choices": [(ALL, "everything: users, vhosts, permissions and all that is in them"),
                    *((name, f"only vhost {name}") for name in names)],
        "into": [(ALL, "as the file says"), *((name, f"into vhost {name}") for name in names)],
        "form": Form(), "preview": None, "problems": [], "digest": "", **values}, "definitions", status)


async def export(request: Request) -> Answer:
    """Lead to the file of all definitions, or of one vhost. Raises HttpError: 404."""
    vhost = request.query.get("vhost", ALL)
    if vhost and vhost not in request.broker.vhosts:
        raise HttpError(404, "not_found", "There is no such vhost.")
    path = path_of("definitions", *([vhost] if vhost else []), download=f"{FILE}{'-' + vhost if vhost else ''}.json")
    return to("../api" + path)


async def _read(request: Request) -> tuple[Form, bytes, str]:
    """Return the form, its file and the digest of that. Notes an error if there is no file. Raises HttpError."""
    if not request.headers.get("content-type", "").startswith(FORM):
        raise wrong("Choose a file.")
    content, fields = await uploaded(request)
    found = Form()
    found.values = fields
    if not content.strip():
        found.errors["file"] = "Choose a file with definitions, which has something in it."
    return found, content, await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest())


async def preview_import(request: Request) -> Shown:
    """Show what an import would change, or why it is refused. Raises HttpError."""
    found, content, digest = await _read(request)
    if not found.is_valid:
        return _shown(request, 422, form=found)
    vhost = found.text("vhost")
    preview = await request.ask("POST", "/api/amqpd/definitions-preview", {"vhost": vhost} if vhost else None,
                                body=msgspec.Raw(content), headers={"content-type": JSON})
    preview["changes"] = [msgspec.to_builtins(one) for one in preview["changes"]]
    if preview["problems"]:
        return _shown(request, 422, form=found, problems=preview["problems"])
    return _shown(request, form=found, preview=preview, digest=digest)


async def import_file(request: Request) -> Shown | Answer:
    """Import the file whose changes have been shown. Raises HttpError."""
    found, content, digest = await _read(request)
    if found.is_valid and found.text("digest") != digest:
        found.errors["file"] = "The file is another one than that whose changes are shown: look at its changes first."
    if not found.is_valid:
        return _shown(request, 422, form=found)
    vhost = found.text("vhost")
    try:
        await request.ask("POST", "/api/definitions" + (path_of(vhost) if vhost else ""), body=msgspec.Raw(content),
                          headers={"content-type": JSON})
    except Refusal as refusal:
        return _shown(request, 422, form=found, problems=str(refusal).splitlines())
    except HttpError as error:
        return _shown(request, 422, form=found, problems=[sentence_of(error)])
    return done("The definitions are imported.", to="/definitions")


ROUTES = [
    page("/definitions", show_definitions, "Definitions", access=ADMIN),
    page("/definitions/export", export, "The file of definitions", access=ADMIN),
    form("/definitions/preview", preview_import, "What an import would change", access=ADMIN, body=bytes,
         most_body=MOST_UPLOAD),
    form("/definitions/import", import_file, "Import definitions", access=ADMIN, body=bytes, most_body=MOST_UPLOAD),
]
