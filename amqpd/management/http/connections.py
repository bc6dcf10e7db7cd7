"""The routes of connections and channels. RabbitMQ docs/http-api-reference (connections, channels)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from amqpd.broker.broker import Connection
from amqpd.broker.statistics import ChannelStatistics, ConnectionStatistics
from amqpd.identity import NODE_NAME
from amqpd.management import listings
from amqpd.management.http import consumers
from amqpd.management.http.access import Access, foreign_object, is_administrator, may_see_all
from amqpd.management.http.answers import Answer, no_content, not_found
from amqpd.management.http.erlang_process import GARBAGE
from amqpd.management.http.lists import Source, listed, whole_list
from amqpd.management.http.queues import shown_time
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Route
from amqpd.management.http.statistics import STATISTICS_QUERY, ranges_of, wants_statistics
from amqpd.management.json_values import plain
from amqpd.management.statistics import Ranges

CLOSED = "Closed via management plugin"
MOST_SEARCHED = 255     # characters of the name that a client gave
TLS_COLUMNS = ("ssl_protocol", "ssl_key_exchange", "ssl_cipher", "ssl_hash",
               "peer_cert_issuer", "peer_cert_subject", "peer_cert_validity")


class _Open(NamedTuple):
    """A connection with its number, and its statistics of this moment."""

    number: int
    connection: Connection
    facts: ConnectionStatistics


class _OpenChannel(NamedTuple):
    """A channel, and the connection that it belongs to."""

    owner: _Open
    facts: ChannelStatistics


# Connections

def _visible(request: Request) -> Iterator[_Open]:
    """Yield the connections that the user sees: all, or the user's own."""
    user, sees_all = request.user, may_see_all(request.user)
    for number, connection in list(request.broker.connections.items()):
        if sees_all or connection.user_name == user.name:
            yield _Open(number, connection, connection.statistics())


def record(request: Request, one: _Open, ranges: Ranges | None) -> dict[str, Any]:
    """Return a connection as JSON has it; without statistics if `ranges` is None."""
    facts = one.facts
    found = {
        "name": facts.name,
        "node": NODE_NAME,
        "type": "network",
        "protocol": "AMQP 0-9-1",
        "user": facts.user,
        "user_who_performed_action": facts.user,
        "vhost": facts.vhost,
        "host": facts.host,
        "port": facts.port,
        "peer_host": facts.peer_host,
        "peer_port": facts.peer_port,
        "auth_mechanism": facts.auth_mechanism,
        "client_properties": plain(facts.client_properties),
        "connected_at": facts.connected_at_ms,
    }
    name = facts.client_properties.get("connection_name")
    if isinstance(name, str):
        found["user_provided_name"] = name
    if ranges is None:
        return found
    tls = listings.tls_columns(facts)
    return found | {
        "garbage_collection": GARBAGE,
        "ssl": facts.tls is not None,
        **{column: tls[column] or None for column in TLS_COLUMNS},
        "state": facts.state,
        "channels": facts.channels,
        "channel_max": facts.channel_max,
        "frame_max": facts.frame_max,
        "timeout": facts.heartbeat_s,
        "recv_cnt": facts.received_count,
        "send_cnt": facts.sent_count,
        "send_pend": facts.unsent_bytes,
    } | request.context.statistics.connection(one.number, ranges)


def _connection_source(request: Request, found: Any) -> Source[_Open]:
    ranges = ranges_of(request) if wants_statistics(request) else None
    return Source(found, lambda one: one.facts.name, lambda one: record(request, one, ranges),
                  searched=_texts if request.is_of_page else None)      # RabbitMQ's API searches names only


def _texts(one: _Open) -> tuple[str, str, str]:
    """Return what the web page finds a connection by: its addresses, its user, and the name that the client gave it."""
    given = one.facts.client_properties.get("connection_name")
    return one.facts.name, one.facts.user, given[:MOST_SEARCHED] if isinstance(given, str) else ""


def list_connections(request: Request) -> Any:
    """Return the connections that the user sees."""
    return listed(request, _connection_source(request, _visible(request)))


def list_connections_of_vhost(request: Request) -> Any:
    """Return the connections to a vhost. Raises HttpError: 404."""
    name = request.vhost().name
    return whole_list(request, _connection_source(
        request, (one for one in _visible(request) if one.facts.vhost == name)))


def list_connections_of_user(request: Request) -> Any:
    """Return the connections of a user, in short. Raises HttpError: 401 for those of somebody else."""
    name = request.names["user"]
    if name != request.user.name and not may_see_all(request.user):
        raise foreign_object()
    found = [one for one in _visible(request) if one.facts.user == name]
    return whole_list(request, Source(found, lambda one: one.facts.name, lambda one: {
        "name": one.facts.name, "vhost": one.facts.vhost, "user": one.facts.user, "node": NODE_NAME}))


def _named(request: Request) -> _Open:
    """Return the connection that a path names. Raises HttpError: 404, and 401 if it is somebody else's."""
    name = request.names["connection"]
    for number, connection in list(request.broker.connections.items()):
        facts = connection.statistics()
        if facts.name == name:
            if facts.user != request.user.name and not may_see_all(request.user):
                raise foreign_object()
            return _Open(number, connection, facts)
    raise not_found()


def read_connection(request: Request) -> Any:
    """Return one connection. Raises HttpError."""
    found = record(request, _named(request), ranges_of(request))
    return found | {column: found[column] or "" for column in TLS_COLUMNS}


def close_connection(request: Request) -> Answer:
    """Close a connection, with the reason of the header X-Reason. Raises HttpError."""
    one = _named(request)
    if one.facts.user != request.user.name and not is_administrator(request.user):
        raise foreign_object()
    one.connection.force_close(_reason(request))
    return no_content()


def close_connections_of_user(request: Request) -> Answer:
    """Close the connections of a user. Raises HttpError: 401 for those of somebody else."""
    name = request.names["user"]
    if name != request.user.name and not is_administrator(request.user):
        raise foreign_object()
    for connection in list(request.broker.connections.values()):
        if connection.user_name == name:
            connection.force_close_soon(_reason(request))
            connection.close_forced()
    return no_content()


def _reason(request: Request) -> str:
    return request.headers.get("x-reason", CLOSED)


# Channels

def _channels(request: Request) -> Iterator[_OpenChannel]:
    for one in _visible(request):
        for facts in one.connection.channel_statistics():
            yield _OpenChannel(one, facts)


def channel_record(request: Request, one: _OpenChannel, ranges: Ranges | None) -> dict[str, Any]:
    """Return a channel as JSON has it; without statistics if `ranges` is None."""
    facts, owner = one.facts, one.owner.facts
    found = {
        "name": facts.name,
        "number": facts.number,
        "node": NODE_NAME,
        "user": facts.user,
        "user_who_performed_action": facts.user,
        "vhost": facts.vhost,
        "connection_details": {
            "name": owner.name, "peer_host": owner.peer_host, "peer_port": owner.peer_port},
    }
    if ranges is None:
        return found
    clock = request.broker.clock
    return found | {
        "garbage_collection": GARBAGE,
        "state": owner.state,
        "idle_since": shown_time(clock.to_wall(clock.now_ms)),
        "confirm": facts.has_confirms,
        "transactional": facts.is_transactional,
        "consumer_count": facts.consumers,
        "prefetch_count": facts.prefetch,
        "global_prefetch_count": facts.shared_prefetch,
        "messages_unacknowledged": facts.unacked,
        "messages_unconfirmed": facts.unconfirmed,
        "messages_uncommitted": facts.uncommitted,
        "acks_uncommitted": facts.uncommitted_acks,
        "pending_raft_commands": 0,
    } | request.context.statistics.channel(one.owner.number, facts.number, ranges)


def _channel_source(request: Request, found: Any) -> Source[_OpenChannel]:
    ranges = ranges_of(request) if wants_statistics(request) else None
    return Source(found, lambda one: one.facts.name, lambda one: channel_record(request, one, ranges))


def list_channels(request: Request) -> Any:
    """Return the channels of the connections that the user sees."""
    return listed(request, _channel_source(request, _channels(request)))


def list_channels_of_vhost(request: Request) -> Any:
    """Return the channels in a vhost. Raises HttpError: 404."""
    name = request.vhost().name
    return whole_list(request, _channel_source(
        request, (one for one in _channels(request) if one.facts.vhost == name)))


def list_channels_of_connection(request: Request) -> Any:
    """Return the channels of a connection. Raises HttpError."""
    owner = _named(request)
    found = [_OpenChannel(owner, facts) for facts in owner.connection.channel_statistics()]
    return whole_list(request, _channel_source(request, found))


def read_channel(request: Request) -> Any:
    """Return one channel, with its consumers. Raises HttpError: 404, and 401 if it is somebody else's."""
    name, user = request.names["channel"], request.user
    for number, connection in list(request.broker.connections.items()):
        facts = connection.statistics()
        if not name.startswith(f"{facts.name} ("):
            continue
        for channel in connection.channel_statistics():
            if channel.name == name:
                if facts.user != user.name and not may_see_all(user):
                    raise foreign_object()
                one = _OpenChannel(_Open(number, connection, facts), channel)
                return channel_record(request, one, ranges_of(request)) | {
                    "consumer_details": _consumers(request, number, channel), "deliveries": [], "publishes": []}
    raise not_found()


def _consumers(request: Request, connection: int, channel: ChannelStatistics) -> list[dict[str, Any]]:
    vhost = request.broker.vhosts.get(channel.vhost)
    if vhost is None or not channel.consumers:
        return []
    return [consumers.record(request.broker, queue, one) for queue in vhost.queues.values()
            for one in queue.consumers if one.subscriber.address == (connection, channel.number)]


ROUTES = [
    Route(method="GET", path="/api/connections", handler=list_connections, access=Access.LOGIN, is_list=True,
          query=STATISTICS_QUERY, summary="The connections that the user sees"),
    Route(method="GET", path="/api/vhosts/{vhost}/connections", handler=list_connections_of_vhost,
          access=Access.VHOST, is_list=True, query=STATISTICS_QUERY, summary="The connections to a vhost"),
    Route(method="GET", path="/api/connections/username/{user}", handler=list_connections_of_user,
          access=Access.LOGIN, is_list=True, summary="The connections of a user"),
    Route(method="DELETE", path="/api/connections/username/{user}", handler=close_connections_of_user,
          access=Access.LOGIN, summary="Close the connections of a user"),
    Route(method="GET", path="/api/connections/{connection}", handler=read_connection, access=Access.LOGIN,
          query=STATISTICS_QUERY, summary="A connection"),
    Route(method="DELETE", path="/api/connections/{connection}", handler=close_connection, access=Access.LOGIN,
          summary="Close a connection, with the reason of the header X-Reason"),
    Route(method="GET", path="/api/connections/{connection}/channels", handler=list_channels_of_connection,
          access=Access.LOGIN, is_list=True, query=STATISTICS_QUERY, summary="The channels of a connection"),
    Route(method="GET", path="/api/channels", handler=list_channels, access=Access.LOGIN, is_list=True,
          query=STATISTICS_QUERY, summary="The channels of the connections that the user sees"),
    Route(method="GET", path="/api/vhosts/{vhost}/channels", handler=list_channels_of_vhost, access=Access.VHOST,
          is_list=True, query=STATISTICS_QUERY, summary="The channels in a vhost"),
    Route(method="GET", path="/api/channels/{channel}", handler=read_channel, access=Access.LOGIN,
          query=STATISTICS_QUERY, summary="A channel with its consumers"),
]
