"""The message browser: the ready messages of a queue, which stay as they are, and what is done to some of them.

The address holds the filter. Messages are counted before anything is done to them, and at most that number is changed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, HttpError, bad_request
from amqpd.management.http.request import TRUE, Request
from amqpd.management.page.bodies import SHOWN, body_of, image_type, snippet_of, views_of
from amqpd.management.page.deaths import deaths_of
from amqpd.management.page.forms import Form, done
from amqpd.management.page.lists import Record
from amqpd.management.page.navigation import require_changes
from amqpd.management.page.shown import Shown, form, page, path_of

IN_PATH = "/queues/{vhost}/{queue}/messages"
ON_A_PAGE, PREVIEWED, LOOKED_AT = 50, 300, 10_000      # messages, bytes of a body, messages of the queue
MOST_MARKED, MOST_NUMBER = 1_000, 999_999_999
EXPORTED_AT_ONCE = 100
PIECE = 1 << 18             # characters of a body that are written in one turn: a multiple of four, for base64
RUNS_NOTHING = {"content-security-policy": "default-src 'none'; sandbox"}       # whatever a body is
TEXTS = ("text", "routing_key", "reason", "origin")
LISTS = ("header", "property", "json")
NUMBERS, AGES = ("min_deliveries", "max_deliveries"), ("older_than", "younger_than")
FIELDS = (*TEXTS, *LISTS, *AGES, *NUMBERS, "redelivered")
AGE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*(s|min|m|h|d|days?)?")
SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "day": 86_400, "days": 86_400}
QUICK = 10_000              # ready messages of which those that match are counted without being asked
WORDS = {
    "text": "body contains", "routing_key": "routing key is", "reason": "died because", "origin": "died first in",
    "header": "header", "property": "property", "json": "JSON", "older_than": "older than",
    "younger_than": "younger than", "min_deliveries": "delivered at least", "max_deliveries": "delivered at most",
    "redelivered": "redelivered"}
# Which field of the filter a refusal of the API is about, by a part of its text.
ABOUT = (("JSON path", "json"), ("a text to look for", "text"))
REASONS = (("", "any"), ("rejected", "rejected"), ("expired", "expired"), ("maxlen", "queue was full"),
           ("delivery_limit", "delivered too often"))
ACTS = {
    "retry": ("Retry", "retried", "They go back to the queues where they died, and keep the headers about it."),
    "move": ("Move", "moved", "They go to another queue, or to an exchange as if they were published there."),
    "delete": ("Delete", "deleted", "They are gone, and are not dead-lettered."),
}


async def list_messages(request: Request) -> Shown:
    """Show ready messages of a queue that match the filter of the address. Raises HttpError."""
    asked = _asked(request.query)
    chosen, found = filter_of(asked), None
    if asked.is_valid:
        query = {name: value[0] if isinstance(value, list) else str(value) for name, value in chosen.items()}
        query |= {"count": str(ON_A_PAGE), "truncate": str(PREVIEWED), "scan": str(LOOKED_AT)}
        query |= {name: request.query[name] for name in ("cursor", "offset") if request.query.get(name)}
        try:
            found = await request.ask("GET", api_of(request), query)
        except HttpError as error:
            if error.status != 400:
                raise
            asked.refused(error, next((field for part, field in ABOUT if part in str(error.reason)), ""))
    return Shown("messages.html", {
        **_place(request), "asked": asked, "found": found, "reasons": REASONS, "acts": ACTS,
        "rows": [_row(one) for one in found["messages"]] if found else [],
        "chosen": {name: asked.values[name] for name in FIELDS if asked.values.get(name)},
        "is_begin": not request.query.get("cursor") and not request.query.get("offset"),
        "matching": await _count(request, chosen, found["ready"]) if found else None},
        "queues", 200 if asked.is_valid else 422)


def _row(message: Record) -> Record:
    """Return a message, with the values that only its row in the list needs."""
    properties, (snippet, is_described) = message["properties"], snippet_of(message)
    stamp, deaths = properties.get("timestamp"), deaths_of(properties)
    return {**message, "snippet": snippet, "is_described": is_described, "reason": deaths[0].reason if deaths else "",
            "published_ms": stamp * 1_000 if isinstance(stamp, int) else None}


async def _count(request: Request, chosen: Record, ready: int) -> int | None:
    """Return how many messages match, or None if that would take long and nobody asks for it. Raises HttpError."""
    if not chosen:
        return ready
    if ready > QUICK and request.query.get("counted") != "1":
        return None
    told = await request.ask("POST", api_of(request) + "/delete", body={"filter": chosen, "dry_run": True})
    return int(told["matched"])


def _place(request: Request) -> Record:
    return {"vhost": request.names["vhost"], "name": request.names["queue"]}


def api_of(request: Request) -> str:
    """Return the path of the messages of a queue in the API."""
    return "/api" + path_of("queues", request.names["vhost"], request.names["queue"], "messages")


def _asked(values: Any) -> Form:
    found = Form()
    found.values = {name: values[name] for name in FIELDS if values.get(name)}
    return found


def filter_of(found: Form) -> Record:
    """Return the filter of a form as the API takes it, and note beside each field what is wrong with it."""
    chosen: Record = {name: found.text(name) for name in TEXTS if found.values.get(name)}
    for name in LISTS:
        if text := found.text(name):
            chosen[name] = [text]
            if name != "json" and text.startswith("="):
                found.errors[name] = "Enter NAME=VALUE, or a NAME alone."
    for name in AGES:
        if text := found.text(name).strip():
            if (age := AGE.fullmatch(text)) is None:
                found.errors[name] = "Enter a time such as 90 s, 15 min, 2 h or 1 d."
            else:
                chosen[name] = float(age[1]) * SECONDS[age[2] or "s"]
    for name in NUMBERS:
        if (number := found.whole(name, most=MOST_NUMBER)) is not None:
            chosen[name] = number
    if found.values.get("redelivered"):
        chosen["redelivered"] = found.choice("redelivered", ("true", "false")) in TRUE
    return chosen


# One message

async def show_message(request: Request) -> Shown:
    """Show one message. Raises HttpError: 404 if it is not ready any more."""
    message = await read_message(request, request.names["message"])
    properties = message["properties"]
    views = views_of(message)
    view = request.query.get("as", "")
    view = view if view in views.names else views.names[0]
    headers = properties.get("headers") or {}
    here = path_of("queues", *_place(request).values(), "messages", message["id"])
    return Shown("message.html", {
        **_place(request), "found": message, "views": views, "view": view, "shown": SHOWN,
        "ways_shown": [
            (name[0].upper() + name[1:], here + path_of(**{"as": name})[1:], name == view) for name in views.names],
        "properties": {key: value for key, value in properties.items() if key != "headers"},
        "headers": {key: value for key, value in headers.items() if key != "x-death"},
        "deaths": deaths_of(properties)}, "queues")


async def read_message(request: Request, number: str, most: int = SHOWN) -> Record:
    """Return a message of the queue of the path, with at most so many bytes of its body. Raises HttpError: 404."""
    if not (number.isascii() and number.isdecimal() and len(number) < 19):
        raise HttpError(404, "not_found", "A message is named by its number.")
    found = await request.ask("GET", api_of(request), {"ids": number, "count": "1", "truncate": str(most)})
    if not found["messages"]:
        raise HttpError(404, "not_found", f"Message {number} is not ready any more: it was delivered, acked, moved or "
                        "deleted, or it has expired.")
    message: Record = found["messages"][0]
    return message


async def download_body(request: Request) -> Answer:
    """Return the body of a message as a file, which no browser shows. Raises HttpError: 404."""
    return Answer(headers=_as_file(f"message-{request.names['message']}.bin"), pieces=await _whole_body(request),
                  media_type="application/octet-stream")


async def show_image(request: Request) -> Answer:
    """Return the body of a message that is an image. Raises HttpError: 404 for any other."""
    pieces = await _whole_body(request)
    media_type = image_type(pieces[0])
    if not media_type:
        raise HttpError(404, "not_found", "This body is no image that browsers show.")
    return Answer(headers=RUNS_NOTHING, pieces=pieces, media_type=media_type)


async def _whole_body(request: Request) -> list[bytes]:
    """Return the body of the message of the path, up to 16 MiB, in pieces: at least one. Raises HttpError: 404."""
    number = (await read_message(request, request.names["message"], 0))["id"]
    found = await request.ask("POST", api_of(request) + "/export", body={"ids": [number], "count": 1})
    if not found["messages"]:
        raise HttpError(404, "not_found", f"Message {number} is not ready any more.")
    message = found["messages"][0]
    payload, pieces = message["payload"], list[bytes]()
    for start in range(0, max(1, len(payload)), PIECE):
        pieces.append(body_of({**message, "payload": payload[start:start + PIECE]}))
        await asyncio.sleep(0)
    return pieces


def _as_file(name: str) -> dict[str, str]:
    return {**RUNS_NOTHING, "content-disposition": f'attachment; filename="{name}"'}


# What is done to messages

async def export(request: Request) -> Answer:
    """Return messages as JSON, one in each line: those that are marked, or all that match. Raises HttpError."""
    chosen = _chosen([*request.pairs, ("all", "1")])
    body: Record = {**chosen, "count": EXPORTED_AT_ONCE}
    body.pop("everything", None)
    first = await request.ask("POST", api_of(request) + "/export", body=body)
    return Answer(headers=_as_file("messages.jsonl"), media_type="application/x-ndjson",
                  stream=_lines(request, body, first))


async def _lines(request: Request, body: Record, part: Record) -> AsyncIterator[bytes]:
    """Yield the lines of a part, and then those of the following parts. An error ends them with a line about it.

    No more messages are looked at than were ready at the beginning, so that it ends while others publish.
    """
    left = part["ready"]
    while True:
        for one in part["messages"]:
            for piece in _line(one):
                yield piece
                await asyncio.sleep(0)
        left -= part["scanned"]
        if part["cursor"] is None or left <= 0:
            return
        try:
            part = await request.ask("POST", api_of(request) + "/export", body={**body, "cursor": part["cursor"]})
        except HttpError as error:
            yield msgspec.json.encode({"error": str(error.reason)}) + b"\n"
            return


def _line(message: Record) -> Iterator[bytes]:
    """Yield the line of a message, with a long body in pieces."""
    payload = message["payload"]
    head = msgspec.json.encode({key: value for key, value in message.items() if key != "payload"}, enc_hook=str)
    line = head[:-1] + b',"payload":"'
    for start in range(0, len(payload), PIECE):
        line += msgspec.json.encode(payload[start:start + PIECE])[1:-1]
        if start + PIECE < len(payload):
            yield line
            line = b""
    yield line + b'"}\n'


async def preview(request: Request) -> Shown:
    """Show what an act would do, and ask. Raises HttpError."""
    require_changes(request)
    _act(request)
    chosen = _chosen(request.pairs)
    # Where messages are moved to is not known yet, so they are counted as if they were deleted.
    counting = "retry" if request.names["act"] == "retry" else "delete"
    told = await request.ask("POST", f"{api_of(request)}/{counting}", body={**chosen, "dry_run": True})
    return _shown(request, Form(), request.pairs, told["matched"])


def _shown(request: Request, found: Form, pairs: Any, matched: int) -> Shown:
    act = request.names["act"]
    verb, _, text = ACTS[act]
    kept = [(name, value) for name, value in pairs if name in (*FIELDS, "id", "all") and value]
    return Shown("messages_act.html", {
        **_place(request), "act": act, "verb": verb, "text": text, "kept": kept, "matched": matched, "form": found,
        "chosen": {name: value for name, value in kept if name in FIELDS},
        "conditions": [(WORDS[name], value) for name, value in kept if name in FIELDS],
        "marked": sum(name == "id" for name, _ in kept)}, "queues", 200 if found.is_valid else 422)


async def carry_out(request: Request) -> Shown | Answer:
    """Act on messages, at most on as many as were counted. Raises HttpError."""
    act, found = _act(request), Form(request)
    limit = found.whole("limit", least=1)
    if limit is None:
        raise bad_request("the form does not say how many messages were counted: open the page again")
    body: Record = {**_chosen(found.pairs), "limit": limit}
    if act == "move":
        kind = found.choice("kind", ("queue", "exchange"))
        body[f"to_{kind}"] = found.text("target", required="Enter a name.")
        if kind == "exchange" and found.text("key"):
            body["routing_key"] = found.text("key")
    elif act == "retry":
        body["last"], body["forget_deaths"] = found.flag("last"), found.flag("forget_deaths")
    told: Record = {}
    if found.is_valid:
        try:
            told = await request.ask("POST", f"{api_of(request)}/{act}", body=body)
        except HttpError as error:
            found.refused(error, "target" if act == "move" else "")
    if not found.is_valid:
        return _shown(request, found, found.pairs, limit)
    return done(_sentence(act, told), to=path_of(
        "queues", *_place(request).values(), "messages", **_asked(found.values).values))


def _sentence(act: str, told: Record) -> str:
    """Return what became of the messages."""
    went = told["deleted"] if act == "delete" else told["moved"]
    left, gone = told["matched"] - went, told.get("gone") or 0
    found = f"{went:,} of {told['matched']:,} are {ACTS[act][1]}."
    if left:
        found += f" {left:,} stayed: full, without a target, or without an origin."
    if gone := len(gone) if isinstance(gone, list) else gone:
        found += f" {gone:,} were not ready any more."
    return found + (f" Stopped: {told['stopped']}." if told.get("stopped") else "")


def _act(request: Request) -> str:
    if request.names["act"] not in ACTS:
        raise HttpError(404, "not_found", "There is no such action.")
    return request.names["act"]


def _chosen(pairs: Any) -> Record:
    """Return which messages are meant, as the API takes it. Raises HttpError: 400 if that is not said."""
    ids = [value for name, value in pairs if name == "id"]
    if len(ids) > MOST_MARKED or not all(one.isascii() and one.isdecimal() and len(one) < 19 for one in ids):
        raise bad_request(f"mark at most {MOST_MARKED:,} messages, by their numbers")
    if ids:
        return {"ids": [int(one) for one in ids]}
    asked = _asked(dict(pairs))
    chosen = filter_of(asked)
    if not asked.is_valid:
        raise bad_request(" ".join(asked.errors.values()))
    if not chosen and ("all", "1") not in pairs:
        raise bad_request("mark messages, or search for some, or choose all")
    return {"filter": chosen, "everything": not chosen}


ROUTES = [
    page(IN_PATH, list_messages, "The ready messages of a queue", access=Access.VHOST),
    page(IN_PATH + "/export", export, "Messages as a file", access=Access.VHOST),
    page(IN_PATH + "/{message}", show_message, "One message", access=Access.VHOST),
    page(IN_PATH + "/{message}/body", download_body, "The body of a message as a file", access=Access.VHOST),
    page(IN_PATH + "/{message}/image", show_image, "The body of a message that is an image", access=Access.VHOST),
    page(IN_PATH + "/act/{act}", preview, "What an act on messages would do", access=Access.VHOST),
    form(IN_PATH + "/act/{act}", carry_out, "Retry, move or delete messages", access=Access.VHOST),
]
