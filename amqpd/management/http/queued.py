"""The routes on messages of a queue that RabbitMQ does not have: look, move, retry, delete, export, unacked ones.

They do what the commands of amqpctl do, with the rights of the user: to read messages takes the right to read the
queue, as basic.get does, also to delete them, as a purge does. To move them takes the right to publish where they go:
to an exchange, with the routing key; to a queue, or back to where they died, to the default exchange. A queue that is
exclusive to a connection is closed to them, as to any other connection.
"""

from __future__ import annotations

from typing import Any

import msgspec

from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, bad_request, not_authorised
from amqpd.management.http.beyond import LONGEST_NUMBER, body_as, carry_out, fraction, whole
from amqpd.management.http.bindings import exchange_name
from amqpd.management.http.queues import IN_PATH, named
from amqpd.management.http.request import TRUE, Request
from amqpd.management.http.routes import Query, Route
from amqpd.management.message_filter import FilterValues

MESSAGES = IN_PATH + "/messages"
FILTER_QUERY = (
    Query("text", "only messages whose body contains this"),
    Query("header", "only messages with this header: NAME=VALUE, or NAME"),
    Query("property", "only messages with this property: NAME=VALUE, or NAME"),
    Query("json", "only messages whose JSON body has this value, such as `$.order.id=7`"),
    Query("older_than", "only messages whose timestamp is more than so many seconds ago"),
    Query("younger_than", "only messages whose timestamp is less than so many seconds ago"),
    Query("min_deliveries", "only messages that were delivered at least so often"),
    Query("max_deliveries", "only messages that were delivered at most so often"),
    Query("redelivered", "true or false: only messages that were delivered before, or only others"),
    Query("reason", "only dead letters whose last cause is this, such as `rejected`"),
    Query("origin", "only dead letters that died first in this queue"),
    Query("routing_key", "only messages with this routing key"),
)


class Selection(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which ready messages are meant: those with these ids, those that match the filter, or everything.

    `limit` is for how many at most; with `dry_run` they are only counted.
    """

    ids: list[int] | None = None
    filter: FilterValues = FilterValues()
    limit: int | None = None
    everything: bool = False
    dry_run: bool = False

    def arguments(self) -> dict[str, Any]:
        """Return what the commands take."""
        return {name: getattr(self, name) for name in self.__struct_fields__} | {
            "filter": msgspec.to_builtins(self.filter)}


class MoveOf(Selection, kw_only=True, forbid_unknown_fields=True):
    """Messages to move to a queue, or to an exchange: with a routing key, or with their own."""

    to_queue: str | None = None
    to_exchange: str | None = None
    routing_key: str | None = None


class RetryOf(Selection, kw_only=True, forbid_unknown_fields=True):
    """Dead letters to move back to where they died first, or `last`; `forget_deaths` drops the headers about it."""

    last: bool = False
    forget_deaths: bool = False


class Export(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Messages to export: those with these ids, or those that match the filter; go on from a `cursor`."""

    ids: list[int] | None = None
    filter: FilterValues = FilterValues()
    cursor: str | None = None
    count: int = 1_000
    scan: int = 10_000


async def list_unacked(request: Request) -> Any:
    """Return who holds which messages since when. Raises HttpError."""
    vhost, queue = named(request)
    return await carry_out(request, "list_unacked", vhost=vhost.name, queue=queue.name,
                           offset=whole(request, "offset", 0), count=whole(request, "count", 100))


async def peek(request: Request) -> Any:
    """Return ready messages, which stay as they are. Raises HttpError."""
    place = readable(request)
    return await carry_out(
        request, "peek", **place, offset=whole(request, "offset", 0), count=whole(request, "count", 10),
        cursor=request.query.get("cursor"), filter=_filter(request),
        truncate=whole(request, "truncate", 50_000), scan=whole(request, "scan", 10_000), ids=_ids(request))


def _ids(request: Request) -> list[int] | None:
    """Return the ids of the query, which are parted by commas, or None. Raises HttpError: 400."""
    text = request.query.get("ids")
    if text is None:
        return None
    found = text.split(",")
    if not all(one.isascii() and one.isdecimal() and len(one) <= LONGEST_NUMBER for one in found):
        raise bad_request("ids: numbers with commas between them, as the `id` of a message")
    return [int(one) for one in found]


def _filter(request: Request) -> dict[str, Any]:
    query, found = request.query, dict[str, Any]()
    for name in ("text", "reason", "origin", "routing_key"):
        if name in query:
            found[name] = query[name]
    for name in ("header", "property", "json"):
        if name in query:
            found[name] = [query[name]]
    for name in ("older_than", "younger_than"):
        if name in query:
            found[name] = fraction(request, name, 0)
    for name in ("min_deliveries", "max_deliveries"):
        if name in query:
            found[name] = whole(request, name, 0)
    if "redelivered" in query:
        found["redelivered"] = query["redelivered"].lower() in TRUE
    return found


async def export(request: Request) -> Any:
    """Return messages with their whole bodies, a part of those that match. Raises HttpError."""
    place, asked = readable(request), body_as(request, Export)
    return await carry_out(
        request, "export_messages", **place, ids=asked.ids, filter=msgspec.to_builtins(asked.filter),
        cursor=asked.cursor, count=asked.count, scan=asked.scan)


async def move(request: Request) -> Answer:
    """Move ready messages to a queue, or to an exchange. Raises HttpError."""
    place, asked = readable(request), body_as(request, MoveOf)
    vhost, user = request.vhost(), request.user
    if asked.to_exchange is not None:
        asked.to_exchange = exchange_name(asked.to_exchange)
        target = vhost.exchanges.get(asked.to_exchange)
        is_topic = target is not None and target.definition.type == "topic"
        if is_topic and asked.routing_key is None and (vhost.name, asked.to_exchange) in user.topic_permissions:
            raise not_authorised("with topic permissions, messages are moved to this exchange with one routing key")
        vhost.exchange_for_publish(user, asked.to_exchange, asked.routing_key or "")
    if asked.to_queue is not None:
        vhost.exchange_for_publish(user, "", asked.to_queue)
    result = await carry_out(request, "move", **place, **asked.arguments())
    return Answer(body=result, is_change=not asked.dry_run)


async def retry(request: Request) -> Answer:
    """Move dead letters back to where they died. Raises HttpError."""
    place, asked = readable(request), body_as(request, RetryOf)
    request.vhost().exchange_for_publish(request.user, "", "")
    result = await carry_out(request, "retry", **place, **asked.arguments())
    return Answer(body=result, is_change=not asked.dry_run)


async def delete(request: Request) -> Answer:
    """Delete ready messages. Raises HttpError."""
    place, asked = readable(request), body_as(request, Selection)
    result = await carry_out(request, "delete_messages", **place, **asked.arguments())
    return Answer(body=result, is_change=not asked.dry_run)


def readable(request: Request) -> dict[str, Any]:
    """Return vhost and queue of the path, if the user may read its messages. Raises HttpError, ChannelException."""
    vhost, queue = named(request)
    request.user.require(vhost.name, "read", "queue", queue.name)
    vhost.queue(queue.name, request)
    return {"vhost": vhost.name, "queue": queue.name}


ROUTES = [
    Route(method="GET", path=IN_PATH + "/unacked", handler=list_unacked, access=Access.VHOST, query=(
          Query("offset", "the first one that is told, 0 by default"), Query("count", "how many, 100 by default")),
          summary="Who holds which messages of a queue, and since when"),
    Route(method="GET", path=MESSAGES, handler=peek, access=Access.VHOST, query=(
          Query("offset", "the first message that is looked at, 0 by default"),
          Query("count", "how many messages, 10 by default"),
          Query("cursor", "the `cursor` of an earlier answer, to go on from there"),
          Query("truncate", "bytes of a body that are shown, 50000 by default"),
          Query("scan", "how many messages are looked at, at most, 10000 by default"),
          Query("ids", "only the messages with these ids, with commas between them"), *FILTER_QUERY),
          summary="Ready messages of a queue, which stay as they are"),
    Route(method="POST", path=MESSAGES + "/export", handler=export, access=Access.VHOST, body=Export, is_audited=False,
          summary="Ready messages with their whole bodies, a part at a time"),
    Route(method="POST", path=MESSAGES + "/move", handler=move, access=Access.VHOST, body=MoveOf,
          summary="Move messages to a queue or to an exchange"),
    Route(method="POST", path=MESSAGES + "/retry", handler=retry, access=Access.VHOST, body=RetryOf,
          summary="Move dead letters back to where they died"),
    Route(method="POST", path=MESSAGES + "/delete", handler=delete, access=Access.VHOST, body=Selection,
          summary="Delete messages, which are not dead-lettered"),
]
