"""The forms that publish a message, from an exchange or to a queue, and that get messages of a queue.

Where a published message goes is asked before it is published, with its routing key and headers: so the answer names
the queues.
"""

from __future__ import annotations

import json

import msgspec

from amqpd.management.http.access import Access
from amqpd.management.http.answers import HttpError
from amqpd.management.http.bindings import DEFAULT_EXCHANGE
from amqpd.management.http.request import Request
from amqpd.management.page.bodies import SHOWN, views_of
from amqpd.management.page.exchanges import IN_PATH as EXCHANGE
from amqpd.management.page.exchanges import read
from amqpd.management.page.forms import Form
from amqpd.management.page.lists import Record
from amqpd.management.page.messages import read_message
from amqpd.management.page.navigation import require_changes
from amqpd.management.page.shown import Shown, form, page, path_of

QUEUE = "/queues/{vhost}/{queue}"
ENCODINGS = (("string", "text"), ("base64", "base64"))
PERSISTENT, TRANSIENT = 2, 1
OWN_FIELDS = ("content_type", "delivery_mode", "headers")      # properties that have fields of their own
# The field that a refusal of the API is about, and what it says in words.
REFUSALS = {
    "not_int": ("properties", "{} has to be a whole number."), "not_string": ("properties", "{} has to be a text."),
    "not_table": ("properties", "{} has to be a JSON object."), "not_base64": ("payload", "This is not base64.")}
MOST_NAMED = 20             # queues in the answer to a publish
MOST_GOT = 100              # messages
MOST_AGAIN = 256 << 10      # bytes of a body that the form begins with
MODES = (("ack_requeue_true", "look: put them back, marked as redelivered"),
         ("ack_requeue_false", "take them away"),
         ("reject_requeue_false", "reject them: they are dead-lettered, or dropped"))


# Publish

async def show_form(request: Request) -> Shown:
    """Show the form that publishes to an exchange; as an earlier message, if the address names one. Raises HttpError.
    """
    require_changes(request)
    found = Form()
    found.values = {"routing_key": request.query.get("key", "")}
    if request.query.get("id"):
        found.values = await _as_before(request)
    return await _of_exchange(request, found)


async def _as_before(request: Request) -> dict[str, str]:
    """Return the fields for a message of the queue that the address names."""
    names = {"vhost": request.names["vhost"], "queue": request.query.get("queue", "")}
    message = await read_message(msgspec.structs.replace(request, names=names), request.query["id"], MOST_AGAIN)
    if message["truncated"]:
        raise HttpError(400, "too_long", f"A body of more than {MOST_AGAIN >> 10} KiB is too long for this form. "
                        "Download it, and publish it with a program.")
    properties, is_text = message["properties"], message["payload_encoding"] == "string"
    return {
        "routing_key": message["routing_key"], "payload": message["payload"],
        "payload_encoding": "string" if is_text else "base64", "content_type": str(properties.get("content_type", "")),
        **({"persistent": "on"} if properties.get("delivery_mode") == PERSISTENT else {}),
        "headers": _json({key: value for key, value in (properties.get("headers") or {}).items()
                          if not key.startswith(("x-death", "x-first-death-", "x-last-death-"))}),
        "properties": _json({key: value for key, value in properties.items() if key not in OWN_FIELDS})}


def _json(found: Record) -> str:
    return json.dumps(found, indent=1, ensure_ascii=False) if found else ""


async def publish(request: Request) -> Shown:
    """Publish a message to an exchange, and show where it went. Raises HttpError."""
    found = Form(request)
    api = "/api" + path_of("exchanges", request.names["vhost"], request.names["exchange"])
    result = await _publish(request, api, found, found.text("routing_key"))
    return await _of_exchange(request, found, result)


async def _of_exchange(request: Request, found: Form, result: Record | None = None) -> Shown:
    values = await read(request)
    return Shown("exchange.html", {
        **values, "listing": None, "form": Form(), "part": "publish", "publishing": found, "result": result,
        "encodings": ENCODINGS}, "exchanges", 200 if found.is_valid else 422)


async def show_queue_form(request: Request) -> Shown:
    """Show the form that publishes to a queue. Raises HttpError."""
    require_changes(request)
    return await _of_queue(request, Form())


async def publish_to_queue(request: Request) -> Shown:
    """Publish a message to a queue, by the default exchange. Raises HttpError."""
    found = Form(request)
    api = "/api" + path_of("exchanges", request.names["vhost"], DEFAULT_EXCHANGE)
    return await _of_queue(request, found, await _publish(request, api, found, request.names["queue"]))


async def _of_queue(request: Request, found: Form, result: Record | None = None) -> Shown:
    vhost, name = request.names["vhost"], request.names["queue"]
    await request.ask("GET", "/api" + path_of("queues", vhost, name))      # it has to exist
    return Shown("queue_publish.html", {
        "vhost": vhost, "name": name, "publishing": found, "result": result, "encodings": ENCODINGS}, "queues",
        200 if found.is_valid else 422)


async def _publish(request: Request, api: str, found: Form, key: str) -> Record | None:
    """Publish what a form describes, and return where it went. If it was refused, return None and note the error."""
    properties = found.json_object("properties")
    headers = found.json_object("headers")
    if headers:
        properties["headers"] = headers
    if kind := found.text("content_type"):
        properties["content_type"] = kind
    properties.setdefault("delivery_mode", PERSISTENT if found.flag("persistent") else TRANSIENT)
    encoding = found.choice("payload_encoding", tuple(key for key, _ in ENCODINGS))
    if not found.is_valid:
        return None
    body = {"routing_key": key, "properties": properties, "payload_encoding": encoding,
            "payload": _as_sent(found.text("payload"), encoding)}
    try:
        route = msgspec.to_builtins(await request.ask(
            "POST", api + "/route", body={"routing_key": key, "headers": headers}), enc_hook=str)
        told = await request.ask("POST", api + "/publish", body=body)
    except HttpError as error:
        _refuse(found, error)
        return None
    names = reached(route["steps"])
    return {"routed": told["routed"], "queues": names[:MOST_NAMED] if told["routed"] else [],
            "more": max(0, len(names) - MOST_NAMED)}


def reached(steps: list[Record]) -> list[str]:
    """Return the queues that a message reaches at once, by the steps of its way: not those of its dead letters."""
    found, dead_at = dict[str, None](), None
    for step in steps:
        if dead_at is not None and step["depth"] > dead_at:
            continue
        dead_at = step["depth"] if step["kind"] == "dead_letters" else None
        if step["kind"] == "queue":
            found[step["name"]] = None
    return list(found)


def _as_sent(text: str, encoding: str) -> str:
    """Return what was typed: a browser sends line ends as CR and LF, and base64 may have line ends of its own."""
    return "".join(text.split()) if encoding == "base64" else text.replace("\r\n", "\n")


def _refuse(found: Form, error: HttpError) -> None:
    """Note what the API refuses beside the field that it is about."""
    reason = error.reason
    if isinstance(reason, list) and len(reason) == 2 and reason[0] in REFUSALS:
        field, text = REFUSALS[reason[0]]
        found.errors[field] = text.format(reason[1])
    else:
        found.refused(error, "routing_key" if "routing_key" in str(reason) else "")


# Get

async def show_get(request: Request) -> Shown:
    """Show the form that gets messages of a queue. Raises HttpError."""
    require_changes(request)
    return await _got(request, Form())


async def get(request: Request) -> Shown:
    """Get messages of a queue as a client does, and show them. Raises HttpError."""
    found = Form(request)
    count = found.whole("count", least=1, most=MOST_GOT)
    if count is None:
        found.errors.setdefault("count", f"Enter a whole number from 1 to {MOST_GOT}.")
    mode = found.choice("mode", tuple(key for key, _ in MODES))
    messages = None
    if found.is_valid:
        api = "/api" + path_of("queues", request.names["vhost"], request.names["queue"])
        try:
            messages = await request.ask("POST", api + "/get", body={
                "count": count, "ackmode": mode, "encoding": "auto", "truncate": SHOWN})
        except HttpError as error:
            found.refused(error)
    return await _got(request, found, messages)


async def _got(request: Request, found: Form, messages: list[Record] | None = None) -> Shown:
    vhost, name = request.names["vhost"], request.names["queue"]
    queue = await request.ask("GET", "/api" + path_of("queues", vhost, name))
    shown = None if messages is None else [_viewed(one) for one in messages]
    return Shown("queue_get.html", {
        "vhost": vhost, "name": name, "asked": found, "messages": shown, "modes": MODES, "most": MOST_GOT,
        "ready": queue["messages_ready"]}, "queues", 200 if found.is_valid else 422)


def _viewed(message: Record) -> Record:
    """Return a message that was got with the best way to show it; an image has no address any more."""
    views = views_of(message)
    return {**message, "views": views, "view": next(name for name in views.names if name != "image")}


ROUTES = [
    page(EXCHANGE + "/publish", show_form, "The form that publishes to an exchange", access=Access.VHOST),
    form(EXCHANGE + "/publish", publish, "Publish to an exchange", access=Access.VHOST, most_body=4 << 20),
    page(QUEUE + "/publish", show_queue_form, "The form that publishes to a queue", access=Access.VHOST),
    form(QUEUE + "/publish", publish_to_queue, "Publish to a queue", access=Access.VHOST, most_body=4 << 20),
    page(QUEUE + "/get", show_get, "The form that gets messages of a queue", access=Access.VHOST),
    form(QUEUE + "/get", get, "Get messages of a queue", access=Access.VHOST),
]
