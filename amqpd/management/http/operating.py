"""The routes that RabbitMQ does not have: to act on queues, to explain, to follow, and on the node.

A queue is paused, a consumer cancelled and its prefetch changed by those who may make policies for the vhost, since
this changes what the clients of others get, as a policy does. What comes to an exchange is followed with the right to
bind a queue to it; what comes to the default exchange, which sees the messages of everybody, by users who see all
connections.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import msgspec

from amqpd.management.explaining.route import MOST_STEPS
from amqpd.management.http.access import Access, is_administrator, may_see_all
from amqpd.management.http.answers import Answer, bad_request, no_content, not_authorised, not_found
from amqpd.management.http.beyond import FOLLOWING, Value, body_as, carry_out, followed, fraction, whole
from amqpd.management.http.bindings import exchange_name
from amqpd.management.http.body import field_table
from amqpd.management.http.queued import readable
from amqpd.management.http.queues import IN_PATH, named
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Query, Route

EXCHANGE = "/api/exchanges/{vhost}/{exchange}"
CONSUMER = IN_PATH + "/consumers/{consumer}"
FAILS_WITHIN_S = 0.3    # a backup that cannot be made at all
MOST_CERTIFICATES, LOOKED_AT = 100, 200     # of clients; connections that are looked at between two turns
DAY_S = 86_400
MOST_LINES = 1_000      # as many as are kept
WATCH_QUERY = Query("seconds", "for how long queues are watched, 1 by default, at most 30")


class Prefetch(msgspec.Struct, forbid_unknown_fields=True):
    """How many messages a consumer may leave unacked; 0 is no limit. `channel` is the pid or the name of a channel, for
    a tag that several have.
    """

    value: int
    channel: str | None = None


class RouteOf(msgspec.Struct, forbid_unknown_fields=True):
    """A message whose way is asked for. Rights are looked at if there is a `user`."""

    routing_key: str = ""
    headers: dict[str, Any] = {}
    user: str | None = None
    most_steps: int = MOST_STEPS


class Backup(msgspec.Struct, forbid_unknown_fields=True):
    """A new file on the broker's machine, for a copy of the store; `wait` is false to be answered before it is made."""

    to: str
    wait: bool = True


class Level(msgspec.Struct, forbid_unknown_fields=True):
    """The lowest level that is logged."""

    value: str


# Queues and consumers

async def set_paused(request: Request) -> Answer:
    """Pause a queue, or resume it. Raises HttpError."""
    vhost, queue = named(request)
    command = "pause_queue" if body_as(request, Value).value else "resume_queue"
    await carry_out(request, command, vhost=vhost.name, queue=queue.name)
    return no_content()


async def cancel_consumer(request: Request) -> Answer:
    """Cancel one consumer of a queue. Raises HttpError."""
    vhost, queue = named(request)
    await carry_out(request, "cancel_consumer", vhost=vhost.name, queue=queue.name,
                    consumer_tag=request.names["consumer"], channel=request.query.get("channel"))
    return no_content()


async def set_prefetch(request: Request) -> Answer:
    """Change the prefetch of a consumer. Raises HttpError."""
    vhost, queue = named(request)
    asked = body_as(request, Prefetch)
    await carry_out(request, "set_consumer_prefetch", vhost=vhost.name, queue=queue.name,
                    consumer_tag=request.names["consumer"], prefetch=asked.value, channel=asked.channel)
    return no_content()


# Explanations

async def explain_route(request: Request) -> Any:
    """Return where a message would go. Raises HttpError."""
    vhost, asked = request.vhost(), body_as(request, RouteOf)
    if asked.user not in (None, request.user.name) and not is_administrator(request.user):
        raise not_authorised("only administrators ask for the rights of somebody else")
    return await carry_out(
        request, "explain_route", vhost=vhost.name, exchange=exchange_name(request.names["exchange"]),
        routing_key=asked.routing_key, headers=field_table(asked.headers), user=asked.user, most_steps=asked.most_steps)


async def explain_queues(request: Request) -> Any:
    """Return why queues stand still: the one of the path, or all of the vhost. Raises HttpError."""
    queue = named(request)[1].name if "queue" in request.names else None
    return await carry_out(
        request, "explain_queues", vhost=request.vhost().name, queue=queue,
        watched_s=fraction(request, "seconds", 1.0), is_all=request.flag("all"))


# What happens

async def follow_exchange(request: Request) -> Answer:
    """Follow the messages that come to an exchange. Raises HttpError."""
    name, key = exchange_name(request.names["exchange"]), request.query.get("key", "#")

    def check() -> None:
        vhost = request.vhost()
        exchange = vhost.exchanges.get(name)
        if exchange is None:
            raise not_found()
        request.user.require(vhost.name, "read", "exchange", name)
        vhost.require_key(request.user, "read", exchange, key)
        if not name and not may_see_all(request.user):
            raise not_authorised("Not monitor user")

    check()
    stream = await carry_out(
        request, "tail", vhost=request.vhost().name, exchange=name, key=key, most_payload=_most_payload(request))
    return followed(request, stream, check)


async def follow_queue(request: Request) -> Answer:
    """Follow the messages that come to a queue. Raises HttpError."""
    place = readable(request)
    stream = await carry_out(
        request, "tail", **place, key=request.query.get("key", "#"), most_payload=_most_payload(request))
    return followed(request, stream, partial(readable, request))


def _most_payload(request: Request) -> int:
    return min(max(whole(request, "truncate", 50_000), 0), 1 << 20)


async def follow_events(request: Request) -> Answer:
    """Follow what happens in the broker. Raises HttpError."""
    patterns = [pattern for pattern in request.query.get("patterns", "").split(",") if pattern]
    return followed(request, await carry_out(request, "events", patterns=patterns))


async def set_tracing(request: Request) -> Answer:
    """Turn the firehose of a vhost on or off. Raises HttpError."""
    vhost = request.vhost()
    await carry_out(request, "trace_on" if body_as(request, Value).value else "trace_off", vhost=vhost.name)
    return no_content()


async def list_audit_log(request: Request) -> Any:
    """Return the newest administrative acts that fit, the newest last. Raises HttpError."""
    query = request.query
    return await carry_out(
        request, "list_audit_log", limit=whole(request, "limit", 100), user=query.get("user", ""),
        door=query.get("door", ""), action=query.get("action", ""), since_ms=whole(request, "since_ms", 0))


def list_log(request: Request) -> Any:
    """Return the newest lines of the log that fit, the newest last. Raises HttpError: 400."""
    most = min(max(0, whole(request, "most", 100)), MOST_LINES)
    try:
        return request.context.node.read_log(most, request.query.get("level", "debug"), request.query.get("text", ""))
    except ValueError as error:
        raise bad_request(str(error)) from None


# The node

async def backup(request: Request) -> Answer:
    """Copy the store to a new file on the broker's machine. Raises HttpError."""
    asked = body_as(request, Backup)
    making = carry_out(request, "backup_store", to=asked.to)
    if asked.wait:
        await making
    elif not await request.context.node.backups.begun(making, FAILS_WITHIN_S):
        return Answer(202)
    return no_content()


def read_backup(request: Request) -> Any:
    """Return the backup that was begun last, as far as it is."""
    latest = request.context.node.backups.latest
    return {"latest": None if latest is None else msgspec.to_builtins(latest)}


async def list_certificates(request: Request) -> Any:
    """Return when the certificates of the listeners expire, and those of clients that are connected."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    now_s = time.time()
    for number, connection in enumerate(list(request.broker.connections.values()), 1):
        facts = connection.statistics()
        if (one := facts.peer_certificate) is not None:
            known = found.setdefault((one.subject, one.not_after), {
                "subject": one.subject, "issuer": one.issuer, "not_after_ms": one.not_after * 1000,
                "days_left": int((one.not_after - now_s) // DAY_S), "user": facts.user, "connections": 0})
            known["connections"] += 1
        if number % LOOKED_AT == 0:
            await request.context.turns.next()
    own = [{key: value for key, value in one.items() if key != "file"}
           for one in request.context.node.certificates()]
    peers = sorted(found.values(), key=lambda one: one["not_after_ms"])
    return {"listeners": own, "clients": peers[:MOST_CERTIFICATES], "client_certificates": len(peers)}


async def doctor(request: Request) -> Any:
    """Return what is wrong, each with a remedy."""
    return await carry_out(request, "doctor")


async def environment(request: Request) -> Any:
    """Return the settings in effect, without secrets."""
    return await carry_out(request, "environment")


async def set_log_level(request: Request) -> Answer:
    """Set the lowest level that is logged. Raises HttpError."""
    await carry_out(request, "set_log_level", level=body_as(request, Level).value)
    return no_content()


TAIL_QUERY = (Query("key", "a pattern of routing keys, `#` by default"),
              Query("truncate", "bytes of a body that are shown, 50000 by default"))

ROUTES = [
    Route(method="PUT", path=IN_PATH + "/paused", handler=set_paused, access=Access.POLICIES, body=Value,
          summary="Pause a queue, which then delivers nothing, or resume it"),
    Route(method="DELETE", path=CONSUMER, handler=cancel_consumer, access=Access.POLICIES, query=(
          Query("channel", "the pid or the name of its channel, if several consumers have this tag"),),
          summary="Cancel a consumer: its client gets basic.cancel"),
    Route(method="PUT", path=CONSUMER + "/prefetch", handler=set_prefetch, access=Access.POLICIES, body=Prefetch,
          summary="Change how many messages a consumer may leave unacked"),
    Route(method="POST", path=EXCHANGE + "/route", handler=explain_route, access=Access.VHOST, body=RouteOf,
          is_audited=False, summary="Where a message would go, and why"),
    Route(method="GET", path="/api/vhosts/{vhost}/why", handler=explain_queues, access=Access.VHOST, query=(
          WATCH_QUERY, Query("all", "true: also queues that move, or have no messages")),
          summary="Why queues of a vhost stand still"),
    Route(method="GET", path=IN_PATH + "/why", handler=explain_queues, access=Access.VHOST, query=(WATCH_QUERY,),
          summary="Why a queue stands still"),
    Route(method="GET", path=EXCHANGE + "/tail", handler=follow_exchange, access=Access.VHOST, is_stream=True,
          query=(*TAIL_QUERY, *FOLLOWING), summary="Messages as they come to an exchange"),
    Route(method="GET", path=IN_PATH + "/tail", handler=follow_queue, access=Access.VHOST, is_stream=True,
          query=(*TAIL_QUERY, *FOLLOWING), summary="Messages as they come to a queue"),
    Route(method="PUT", path="/api/vhosts/{vhost}/tracing", handler=set_tracing, access=Access.ADMINISTRATOR,
          body=Value, summary="Turn the firehose of a vhost on or off"),
    Route(method="GET", path="/api/amqpd/events", handler=follow_events, access=Access.MONITORING, is_stream=True,
          query=(Query("patterns", "only events with these names, such as `queue.*,connection.created`"), *FOLLOWING),
          summary="What happens in the broker, as it happens"),
    Route(method="GET", path="/api/amqpd/audit", handler=list_audit_log, access=Access.ADMINISTRATOR, query=(
          Query("limit", "how many, 100 by default"), Query("user", "only those of this user"),
          Query("door", "only those by `control`, `http`, `amqp` or `config`"),
          Query("action", "only those whose action matches this pattern, such as `*user*`"),
          Query("since_ms", "only those since this time, in milliseconds since 1970")),
          summary="The audit log: the newest administrative acts, the newest last"),
    Route(method="GET", path="/api/amqpd/log", handler=list_log, access=Access.ADMINISTRATOR, query=(
          Query("most", f"how many, 100 by default, at most {MOST_LINES}"),
          Query("level", "only those of this level or above: `debug`, `info`, `warning`, `error` or `critical`"),
          Query("text", "only those that contain this, in any case")),
          summary="The newest lines of the log, of the last 1,000, the newest last"),
    Route(method="POST", path="/api/amqpd/backup", handler=backup, access=Access.ADMINISTRATOR, body=Backup,
          summary="Copy the store to a new file on the broker's machine"),
    Route(method="GET", path="/api/amqpd/backup", handler=read_backup, access=Access.ADMINISTRATOR,
          summary="The backup that was begun last, and how far it is"),
    Route(method="GET", path="/api/amqpd/certificates", handler=list_certificates, access=Access.MONITORING,
          summary="When the certificates of the listeners and of connected clients expire"),
    Route(method="GET", path="/api/amqpd/doctor", handler=doctor, access=Access.ADMINISTRATOR,
          summary="What is wrong with the broker and its machine, each with a remedy"),
    Route(method="GET", path="/api/amqpd/environment", handler=environment, access=Access.ADMINISTRATOR,
          summary="The settings in effect, without secrets"),
    Route(method="PUT", path="/api/amqpd/log_level", handler=set_log_level, access=Access.ADMINISTRATOR, body=Level,
          summary="Set the lowest level that is logged, until the next start"),
]
