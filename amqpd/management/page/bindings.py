"""Bindings on the pages of exchanges and queues: lists in both directions, adding one and deleting one."""

from __future__ import annotations

from collections.abc import Sequence

from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, HttpError, bad_request
from amqpd.management.http.bindings import DEFAULT_EXCHANGE, KINDS
from amqpd.management.http.request import Request
from amqpd.management.page.forms import Form, done
from amqpd.management.page.lists import Column, Listing, Record
from amqpd.management.page.shown import Shown, form, page, path_of

LETTERS: dict[str, str] = {kind: letter for letter, kind in KINDS.items()}
NEEDS = ("vhost", "source", "destination", "destination_type", "routing_key", "arguments", "properties_key")


def _to_destination(record: Record) -> str:
    section = "queues" if record["destination_type"] == "queue" else "exchanges"
    return path_of(section, record["vhost"], record["destination"])


def _to_source(record: Record) -> str:
    return path_of("exchanges", record["vhost"], record["source"] or DEFAULT_EXCHANGE)


KEY_AND_ARGUMENTS = (
    Column("routing_key", "Routing key", "code"), Column("arguments", "Arguments", "json", is_sorted=False))
FROM: Sequence[Column] = (
    Column("destination", "To", link=_to_destination), Column("destination_type", "Kind"), *KEY_AND_ARGUMENTS)
TO: Sequence[Column] = (Column("source", "From", "exchange", link=_to_source), *KEY_AND_ARGUMENTS)


async def from_exchange(request: Request, path: str, api: str) -> Listing:
    """Return the bindings whose source is an exchange; `api` is its path in the API. Raises HttpError."""
    listing = Listing(
        request, path, FROM, noun="binding", needs=NEEDS, sort="destination", searched="Destination",
        empty="What is published here reaches no queue. Choose Add a binding.")
    return await listing.load(request, api + "/bindings/source")


async def to_exchange(request: Request, path: str, api: str) -> Listing:
    """Return the bindings whose destination is an exchange. Raises HttpError."""
    listing = Listing(
        request, path, TO, noun="binding", needs=NEEDS, sort="source", searched="Destination",
        empty="Only publishers send messages here. To bind it to another exchange, go to that one.")
    return await listing.load(request, api + "/bindings/destination")


async def show_of_queue(request: Request) -> Shown:
    """Show the bindings to a queue. Raises HttpError."""
    return await _of_queue(request, Form())


async def _of_queue(request: Request, found: Form) -> Shown:
    vhost, name = request.names["vhost"], request.names["queue"]
    path = path_of("queues", vhost, name)
    await request.ask("GET", "/api" + path)     # it has to exist
    listing = Listing(
        request, path + "/bindings", TO, noun="binding", needs=NEEDS, sort="source", searched="Destination",
        empty="Only what is published with its name comes here. Choose Bind to an exchange.")
    await listing.load(request, f"/api{path}/bindings")
    return Shown("queue_bindings.html", {
        "vhost": vhost, "name": name, "listing": listing, "form": found}, "queues", 200 if found.is_valid else 422)


async def bind_queue(request: Request) -> Shown | Answer:
    """Bind a queue to an exchange, or show the form with what is wrong."""
    found, vhost, name = Form(request), request.names["vhost"], request.names["queue"]
    exchange = found.text("exchange", required="Enter the name of an exchange.")
    body = {"routing_key": found.text("routing_key"), "arguments": found.json_object("arguments")}
    if found.is_valid:
        try:
            await request.ask("POST", "/api" + path_of("bindings", vhost, "e", exchange, "q", name), body=body)
        except HttpError as error:
            found.refused(error, "exchange" if error.status == 401 else "")
            if error.status == 404:
                found.errors = {"exchange": "There is no such exchange in the vhost."}
    if not found.is_valid:
        return await _of_queue(request, found)
    return done(f"{name} is bound to {exchange}.", to=path_of("queues", vhost, name, "bindings"))


async def add_binding(request: Request) -> Shown | Answer:
    """Bind a queue or an exchange to an exchange, or show the form with what is wrong."""
    found = Form(request)
    vhost, source = request.names["vhost"], request.names["exchange"]
    kind = found.choice("kind", tuple(LETTERS))
    destination = found.text("destination", required="Enter the name of a queue or an exchange.")
    key, arguments = found.text("routing_key"), found.json_object("arguments")
    if found.is_valid:
        try:
            await request.ask(
                "POST", "/api" + path_of("bindings", vhost, "e", source, LETTERS[kind], destination),
                body={"routing_key": key, "arguments": arguments})
        except HttpError as error:
            found.refused(error, "destination" if error.status == 404 else "")
            if error.status == 404:
                found.errors["destination"] = f"There is no such {kind} in the vhost."
    if not found.is_valid:
        return Shown("binding_form.html", {
            "form": found, "vhost": vhost, "source": source}, "exchanges", 422)
    return done(f"{destination} is bound.", to=path_of("exchanges", vhost, source))


async def delete_binding(request: Request) -> Answer:
    """Delete one binding. Raises HttpError."""
    found, vhost = Form(request), request.names["vhost"]
    source, destination, key = found.text("source"), found.text("destination"), found.text("properties_key")
    letter = LETTERS.get(found.text("destination_type")) if source and key else None
    if letter is None:
        raise bad_request("the form does not name a binding: open the page again")
    await request.ask("DELETE", "/api" + path_of("bindings", vhost, "e", source, letter, destination, key))
    return done(f"The binding of {destination} is deleted.")


ROUTES = [
    page("/queues/{vhost}/{queue}/bindings", show_of_queue, "The bindings to a queue", access=Access.VHOST),
    form("/queues/{vhost}/{queue}/bind", bind_queue, "Bind a queue to an exchange", access=Access.VHOST),
    form("/exchanges/{vhost}/{exchange}/bind", add_binding, "Add a binding", access=Access.VHOST),
    form("/bindings/{vhost}/delete", delete_binding, "Delete a binding", access=Access.VHOST),
]
