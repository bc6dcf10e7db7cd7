"""The routes of bindings, and the names of bindings in paths.

A binding is named by its properties key: the routing key, percent-encoded; `~` if both key and arguments are empty; and
`KEY~HASH` with arguments.

RabbitMQ docs/http-api-reference (bindings); `rabbit_mgmt_format` (pack_binding_props).
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal
from urllib.parse import quote, quote_plus, unquote

import msgspec

from amqpd.broker.definitions import BindingDefinition
from amqpd.broker.vhost import Vhost
from amqpd.errors import ChannelException
from amqpd.fields import encode_table
from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, HttpError, no_content, not_found
from amqpd.management.http.body import Body, refused
from amqpd.management.http.lists import Source, whole_list
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Route
from amqpd.management.json_values import plain

DEFAULT_EXCHANGE = "amq.default"
KINDS: dict[str, Literal["queue", "exchange"]] = {"q": "queue", "e": "exchange"}


class NewBinding(msgspec.Struct):
    """A new binding."""

    routing_key: str = ""
    arguments: dict[str, Any] = {}


def exchange_name(text: str) -> str:
    """Return the name of an exchange that a path names; the default exchange is `amq.default` there."""
    return "" if text == DEFAULT_EXCHANGE else text


def properties_key(binding: BindingDefinition) -> str:
    """Return how a path names a binding among those of the same source and destination."""
    key = quote_plus(binding.routing_key, safe="").replace("~", "%7E").replace("*", "%2A")
    if not binding.arguments:
        return key or "~"
    digest = zlib.crc32(encode_table(dict(sorted(binding.arguments.items()))))
    return f"{key}~{base64.urlsafe_b64encode(digest.to_bytes(4, 'big')).decode().rstrip('=')}"


def record(binding: BindingDefinition) -> dict[str, Any]:
    """Return a binding as JSON has it."""
    return {
        "source": binding.source,
        "vhost": binding.vhost,
        "destination": binding.destination,
        "destination_type": binding.destination_type,
        "routing_key": binding.routing_key,
        "arguments": plain(binding.arguments),
        "properties_key": properties_key(binding),
    }


def bindings_of(vhost: Vhost) -> Iterator[BindingDefinition]:
    """Yield the bindings of a vhost; first those of every queue to the default exchange."""
    yield from map(partial(_default, vhost), [*vhost.queues])
    yield from vhost.bindings()


def _default(vhost: Vhost, queue: str) -> BindingDefinition:
    """Return the binding of a queue to the default exchange, which every queue has. Spec: §3.1.3.1."""
    return BindingDefinition(vhost.name, "", "queue", queue, queue)


def bindings_from(vhost: Vhost, name: str) -> Iterator[BindingDefinition]:
    """Yield the bindings whose source is an exchange; none if there is no such exchange."""
    if not name:
        yield from map(partial(_default, vhost), [*vhost.queues])
    elif name in vhost.exchanges:
        yield from (binding for binding, _ in [*vhost.exchanges[name].bindings.values()])


def bindings_to(vhost: Vhost, kind: str, name: str) -> Iterator[BindingDefinition]:
    """Yield the bindings whose destination is a queue or an exchange, that of a queue to the default exchange first."""
    if kind == "queue" and name in vhost.queues:
        yield _default(vhost, name)
    yield from vhost.bindings_to(kind, name)


def list_bindings(request: Request) -> Any:
    """Return the bindings of the vhosts that the user sees."""
    found = (binding for vhost in request.visible_vhosts() for binding in bindings_of(vhost))
    return whole_list(request, _source(found))


def list_from_exchange(request: Request) -> Any:
    """Return the bindings whose source is an exchange; as on RabbitMQ, none if there is no such exchange."""
    return whole_list(request, _source(bindings_from(request.vhost(), exchange_name(request.names["exchange"]))))


def list_to_exchange(request: Request) -> Any:
    """Return the bindings whose destination is an exchange; none if there is no such exchange."""
    name = exchange_name(request.names["exchange"])
    return whole_list(request, _source(bindings_to(request.vhost(), "exchange", name)))


def list_to_queue(request: Request) -> Any:
    """Return the bindings of a queue; none if there is no such queue."""
    return whole_list(request, _source(bindings_to(request.vhost(), "queue", request.names["queue"])))


def list_between(request: Request) -> Any:
    """Return the bindings between an exchange and a queue or an exchange."""
    return whole_list(request, _source(_between(request)))


def _source(found: Any) -> Source[BindingDefinition]:
    return Source(found, lambda binding: binding.destination, record)


def _between(request: Request) -> list[BindingDefinition]:
    vhost, kind = request.vhost(), _kind(request)
    source, destination = exchange_name(request.names["source"]), request.names["destination"]
    if kind == "exchange":
        destination = exchange_name(destination)
    return [binding for binding in bindings_to(vhost, kind, destination) if binding.source == source]


def _kind(request: Request) -> Literal["queue", "exchange"]:
    try:
        return KINDS[request.names["kind"]]
    except KeyError:
        raise not_found() from None


def read_binding(request: Request) -> Any:
    """Return one binding. Raises HttpError: 404."""
    return record(_named(request))


def _named(request: Request) -> BindingDefinition:
    wanted = request.names["properties"]
    found = _between(request)
    for binding in found:
        if properties_key(binding) == wanted:
            return binding
    for binding in found:       # a client may have decoded it once more
        if not binding.arguments and unquote(wanted) == binding.routing_key:
            return binding
    raise not_found()


def add_binding(request: Request) -> Answer:
    """Add a binding. Raises HttpError."""
    vhost = request.vhost_to_change()
    body = Body(request)
    kind = _kind(request)
    source, destination = exchange_name(request.names["source"]), request.names["destination"]
    binding = BindingDefinition(
        vhost.name, source, kind, destination, body.text("routing_key"), body.table("arguments"))
    try:
        vhost.bind(request.user, binding, request)
    except ChannelException as error:
        raise refused(error) from None
    return Answer(201, headers={
        "location": f"{quote(destination, safe='')}/{quote(properties_key(binding), safe='')}"})


def delete_binding(request: Request) -> Answer:
    """Delete a binding. Raises HttpError."""
    _check_default(exchange_name(request.names["source"]))
    binding = _named(request)
    try:
        request.vhost().unbind(request.user, binding, request)
    except ChannelException as error:
        raise refused(error) from None
    return no_content()


def _check_default(source: str) -> None:
    if not source:
        raise HttpError(401, "not_authorised", "Access refused.")


BETWEEN = "/api/bindings/{vhost}/e/{source}/{kind}/{destination}"
ROUTES = [
    Route(method="GET", path="/api/bindings", handler=list_bindings, access=Access.LOGIN, is_list=True,
          summary="All bindings"),
    Route(method="GET", path="/api/bindings/{vhost}", handler=list_bindings, access=Access.VHOST, is_list=True,
          summary="The bindings of a vhost"),
    Route(method="GET", path=BETWEEN, handler=list_between, access=Access.VHOST, is_list=True,
          summary="The bindings between an exchange and a queue (q) or an exchange (e)"),
    Route(method="POST", path=BETWEEN, handler=add_binding, access=Access.VHOST, body=NewBinding,
          summary="Add a binding; the last segment of Location is its properties key"),
    Route(method="GET", path=BETWEEN + "/{properties}", handler=read_binding, access=Access.VHOST,
          summary="A binding by its properties key"),
    Route(method="DELETE", path=BETWEEN + "/{properties}", handler=delete_binding, access=Access.VHOST,
          summary="Delete a binding"),
    Route(method="GET", path="/api/exchanges/{vhost}/{exchange}/bindings/source", handler=list_from_exchange,
          access=Access.VHOST, is_list=True, summary="The bindings whose source is an exchange"),
    Route(method="GET", path="/api/exchanges/{vhost}/{exchange}/bindings/destination", handler=list_to_exchange,
          access=Access.VHOST, is_list=True, summary="The bindings whose destination is an exchange"),
    Route(method="GET", path="/api/queues/{vhost}/{queue}/bindings", handler=list_to_queue, access=Access.VHOST,
          is_list=True, summary="The bindings of a queue"),
]
