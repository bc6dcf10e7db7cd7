"""The routes of the broker as a whole: overview, node, cluster name, feature flags.

There is one node. What only an Erlang node has is there with a constant, since programs fail without the key.

RabbitMQ docs/management, docs/http-api-reference (overview, nodes).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from typing import Any

import msgspec

from amqpd import __version__
from amqpd.broker.arguments import CLASSIC
from amqpd.broker.definitions import GlobalParameterDefinition
from amqpd.identity import NODE_NAME, RABBITMQ_VERSION
from amqpd.management.http.access import Access, may_see_all
from amqpd.management.http.answers import Answer, bad_request, no_content, not_found
from amqpd.management.http.body import Body
from amqpd.management.http.lists import Source, whole_list
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Route
from amqpd.management.http.statistics import STATISTICS_QUERY, ranges_of, wants_statistics, wants_totals

CLUSTER_NAME = "cluster_name"
ERLANG_VERSION = "25.2.3"       # that of the server properties; some programs parse it
ERLANG_TITLE = f"Erlang/OTP {ERLANG_VERSION.partition('.')[0]} (amqpd on Python {platform.python_version()})"
EXCHANGE_TYPES = [
    {"name": name, "description": f"AMQP {name} exchange, as per the AMQP specification", "enabled": True}
    for name in ("direct", "fanout", "headers", "topic")]
AUTH_MECHANISMS = {
    "PLAIN": "SASL PLAIN authentication mechanism", "AMQPLAIN": "QPid AMQPLAIN mechanism",
    "EXTERNAL": "TLS peer verification using SASL EXTERNAL", "ANONYMOUS": "SASL ANONYMOUS authentication mechanism",
    "SCRAM-SHA-256": "SASL SCRAM-SHA-256 authentication mechanism"}
# In seconds, as the samples are kept; see management/statistics.
RETENTION = {"global": [60, 3_600, 86_400], "basic": [60, 3_600, 86_400], "detailed": [60]}
ONLY_ERLANG = {
    "partitions": [], "net_ticktime": 60, "run_queue": 0, "proc_total": 1_048_576, "cluster_links": [],
    "ra_open_file_metrics": {"ra_log_wal": 0, "ra_log_segment_writer": 0}, "mem_calculation_strategy": "rss",
    "metrics_gc_queue_length": dict.fromkeys((
        "connection_closed", "channel_closed", "consumer_deleted", "exchange_deleted", "queue_deleted",
        "vhost_deleted", "node_node_deleted", "channel_consumer_deleted"), 0),
}
MEMORY = (
    "connection_readers", "connection_writers", "connection_channels", "connection_other", "queue_procs",
    "queue_slave_procs", "quorum_queue_procs", "quorum_queue_dlx_procs", "stream_queue_procs",
    "stream_queue_replica_reader_procs", "stream_queue_coordinator_procs", "plugins", "other_proc", "metrics",
    "mgmt_db", "mnesia", "quorum_ets", "other_ets", "binary", "msg_index", "code", "atom", "other_system",
    "allocated_unused", "reserved_unallocated")
BINARY = (
    "connection_readers", "connection_writers", "connection_channels", "connection_other", "queue_procs",
    "queue_slave_procs", "quorum_queue_procs", "quorum_queue_dlx_procs", "stream_queue_procs",
    "stream_queue_replica_reader_procs", "stream_queue_coordinator_procs", "plugins", "mgmt_db", "msg_index", "other")
# The feature flags that RabbitMQ 3.10 and 4 have, as programs look for them.
FEATURE_FLAGS = {
    "classic_mirrored_queue_version": "Support setting version for classic mirrored queues",
    "classic_queue_type_delivery_support": "Bug fix for classic queue deliveries using mixed versions",
    "direct_exchange_routing_v2": "v2 direct exchange routing implementation",
    "drop_unroutable_metric": "Count unroutable publishes to be dropped in stats",
    "empty_basic_get_metric": "Count AMQP `basic.get` on empty queues in stats",
    "feature_flags_v2": "Feature flags subsystem V2",
    "implicit_default_bindings": "Default bindings are now implicit, instead of being stored in the database",
    "listener_records_in_ets": "Store listener records in ETS instead of Mnesia",
    "maintenance_mode_status": "Maintenance mode status",
    "quorum_queue": "Support queues of type `quorum`",
    "stream_queue": "Support queues of type `stream`",
    "tracking_records_in_ets": "Store tracking records in ETS instead of Mnesia",
    "user_limits": "Configure connection and channel limits for a user",
    "virtual_host_metadata": "Virtual host metadata (description, tags, etc)",
}


class ClusterName(msgspec.Struct):
    """A name for the cluster."""

    name: str


def cluster_name(request: Request) -> str:
    """Return the name of the cluster: the global parameter, or that of the node."""
    found = request.broker.parameters.global_value(CLUSTER_NAME)
    return found if isinstance(found, str) else NODE_NAME


def listeners(request: Request) -> list[dict[str, Any]]:
    """Return where the broker listens."""
    node = request.context.node
    found = [("amqp", one) for one in node.listeners] + [("amqp/ssl", one) for one in node.tls_listeners]
    found += [("https" if is_tls else "http", (host, port)) for host, port, is_tls in node.http_listeners]
    found += [("https/prometheus" if is_tls else "http/prometheus", (host, port))
              for host, port, is_tls in node.metrics_listeners]
    return [{"node": NODE_NAME, "protocol": protocol, "ip_address": host, "port": port,
             "socket_opts": {"backlog": 4096, "nodelay": True}} for protocol, (host, port) in found]


def contexts(request: Request) -> list[dict[str, Any]]:
    """Return where the management API is."""
    return [{"ssl_opts": [], "node": NODE_NAME, "description": "RabbitMQ Management", "path": "/", "cowboy_opts": "[]",
             "ip": host, "port": str(port)} for host, port, _ in request.context.node.http_listeners]


async def overview(request: Request) -> Any:
    """Return the broker at a glance. Users see totals of what they may see; numbers of messages are those of all."""
    sees_all = may_see_all(request.user)
    visible = request.visible_vhosts()
    ranges = ranges_of(request)
    found: dict[str, Any] = {
        "management_version": RABBITMQ_VERSION,
        "rabbitmq_version": RABBITMQ_VERSION,
        "product_name": "RabbitMQ",
        "product_version": RABBITMQ_VERSION,
        "amqpd_version": __version__,
        "release_series_support_status": "supported",
        "rates_mode": "basic",
        "sample_retention_policies": RETENTION,
        "exchange_types": EXCHANGE_TYPES,
        "cluster_name": cluster_name(request),
        "cluster_tags": [],
        "node_tags": [],
        "default_queue_type": request.broker.vhost_defaults.queue_type or CLASSIC,
        "erlang_version": ERLANG_VERSION,
        "erlang_full_version": ERLANG_TITLE,
        "disable_stats": not wants_statistics(request),
        "enable_queue_totals": wants_totals(request),
        "is_op_policy_updating_enabled": True,
        "statistics_db_event_queue": 0,
        "node": NODE_NAME,
        "object_totals": _object_totals(request, visible),
    }
    if not request.context.disable_stats and (sees_all or wants_statistics(request)):
        found |= request.context.statistics.overview(ranges)
    if sees_all:
        found |= {"listeners": listeners(request), "contexts": contexts(request)}
    names = {column.partition(".")[0] for column in request.query.get("columns", "").split(",")} - {""}
    # As on RabbitMQ, a column here is one of the keys, whole.
    return Answer(body={key: found[key] for key in found if key in names} if names else found)


def _object_totals(request: Request, visible: Iterable[Any]) -> dict[str, int]:
    user, sees_all = request.user, may_see_all(request.user)
    vhosts = list(visible)
    if sees_all:
        connections, channels = len(request.broker.connections), request.broker.channel_count
    else:
        own = [one for one in request.broker.connections.values() if one.user_name == user.name]
        connections, channels = len(own), sum(one.statistics().channels for one in own)
    return {
        "channels": channels,
        "connections": connections,
        "consumers": sum(len(queue.consumers) for vhost in vhosts for queue in vhost.queues.values()),
        "exchanges": sum(len(vhost.exchanges) for vhost in vhosts),
        "queues": sum(len(vhost.queues) for vhost in vhosts),
    }


# The node

def node_record(request: Request) -> dict[str, Any]:
    """Return the node as JSON has it."""
    status = request.context.commands.lookups["status"]()
    node = request.context.node
    raised = {alarm["resource"] for alarm in status["alarms"]}
    files = status["file_descriptors"]
    found = {
        **ONLY_ERLANG,
        "name": NODE_NAME,
        "type": "disc",
        "running": True,
        "being_drained": False,
        "os_pid": str(status["pid"]),
        "uptime": min(1000 * status["uptime"], (1 << 32) - 1),
        "processors": os.cpu_count() or 1,
        "rates_mode": "basic",
        "fd_total": files["total_limit"],
        "sockets_total": files["total_limit"],
        "mem_limit": status["vm_memory_high_watermark_limit"],
        "mem_alarm": "memory" in raised,
        "disk_free_limit": status["disk_free_limit"],
        "disk_free_alarm": "disk" in raised,
        "exchange_types": EXCHANGE_TYPES,
        "auth_mechanisms": [{"name": name, "description": text, "enabled": name in node.auth_mechanisms}
                            for name, text in AUTH_MECHANISMS.items()],
        "applications": [
            {"name": "rabbit", "description": "RabbitMQ", "version": RABBITMQ_VERSION},
            {"name": "rabbitmq_management", "description": "RabbitMQ Management Console",
             "version": RABBITMQ_VERSION},
            {"name": "amqpd", "description": "amqpd", "version": __version__}],
        "contexts": [{key: value for key, value in one.items() if key not in ("node", "ssl_opts")}
                     for one in contexts(request)],
        "log_files": ["<stderr>"],
        "db_dir": status["data_directory"],
        "config_files": ["(see amqpctl environment)"],
        "enabled_plugins": ["rabbitmq_management"],
        "rabbitmq_version": RABBITMQ_VERSION,
        "durability": status["durability"],
        "confirms": status["confirms"],
    }
    return found if request.context.disable_stats else found | request.context.statistics.node(ranges_of(request))


def list_nodes(request: Request) -> Any:
    """Return the node, in a list."""
    return whole_list(request, Source([NODE_NAME], str, lambda name: node_record(request)))


def read_node(request: Request) -> Any:
    """Return the node. Raises HttpError: 404."""
    _check_node(request)
    found = node_record(request)
    if request.flag("memory"):
        found |= read_memory(request)
    if request.flag("binary"):
        found["binary"] = _binary(request)
    return found


def _check_node(request: Request) -> None:
    if request.names["node"] != NODE_NAME:
        raise not_found()


def _memory(request: Request) -> tuple[dict[str, int], int]:
    """Return the memory by use, and all of it. Only what is waiting in queues is known apart from the rest."""
    used = request.context.commands.lookups["status"]()["memory"]
    total = used["total"]["rss"]
    parts = dict.fromkeys(MEMORY, 0)
    parts["connection_readers"] = used["connection_readers"]
    waiting = sum(queue.ready.cost for vhost in request.broker.vhosts.values() for queue in vhost.queues.values())
    parts["binary"] = min(waiting, total - parts["connection_readers"])
    parts["other_proc"] = max(0, total - sum(parts.values()))
    return parts, total


def _binary(request: Request) -> dict[str, int]:
    """Return the memory of what passes through the broker, by use: what is waiting in queues, and what clients sent."""
    parts, _ = _memory(request)
    return dict.fromkeys(BINARY, 0) | {
        "connection_readers": parts["connection_readers"], "queue_procs": parts["binary"]}


def read_memory(request: Request) -> Any:
    """Return the memory of the node. Raises HttpError: 404."""
    _check_node(request)
    parts, total = _memory(request)
    return {"memory": {**parts, "strategy": "rss", "total": {"erlang": total, "rss": total, "allocated": total}}}


def read_relative_memory(request: Request) -> Any:
    """Return the memory of the node, in parts of a hundred. Raises HttpError: 404."""
    _check_node(request)
    parts, total = _memory(request)
    return {"memory": {"total": 100, **{name: 100 * size // max(1, total) for name, size in parts.items()}}}


def read_tables(request: Request) -> Any:
    """Return the memory of Erlang's tables: none. Raises HttpError: 404."""
    _check_node(request)
    return {"ets_tables_memory": {"total": 0}}


# Names, flags, attempts

def read_cluster_name(request: Request) -> Any:
    """Return the name of the cluster."""
    return {"name": cluster_name(request)}


def put_cluster_name(request: Request) -> Answer:
    """Set the name of the cluster. Raises HttpError."""
    body = Body(request)
    body.require("name")
    name = body.values["name"]
    if not isinstance(name, str):
        raise bad_request("name must be a text")
    request.broker.parameters.set_global(GlobalParameterDefinition(CLUSTER_NAME, name))
    return no_content()


def list_feature_flags(request: Request) -> Any:
    """Return the feature flags, which are all enabled."""
    return whole_list(request, Source(FEATURE_FLAGS, str, lambda name: {
        "name": name, "desc": FEATURE_FLAGS[name], "doc_url": "", "state": "enabled", "stability": "stable",
        "provided_by": "rabbit"}))


def enable_feature_flag(request: Request) -> Answer:
    """Do nothing, since all flags are enabled. Raises HttpError."""
    if request.names["flag"] not in FEATURE_FLAGS:
        raise bad_request("unsupported")
    return no_content()


def nothing_deprecated(request: Request) -> Any:
    """Return the features that will be removed: none."""
    return []


def read_attempts(request: Request) -> Any:
    """Return how many logins there were. Raises HttpError: 404."""
    _check_node(request)
    attempts = request.context.attempts
    return [{"protocol": protocol, "auth_attempts": sum(counts), "auth_attempts_failed": counts[1],
             "auth_attempts_succeeded": counts[0]} for protocol, counts in attempts.items()]


def read_attempts_by_source(request: Request) -> Any:
    """Return how many logins each address tried: none is counted, as RabbitMQ's default is. Raises HttpError: 404."""
    _check_node(request)
    return []


def forget_attempts(request: Request) -> Answer:
    """Begin to count logins again. Raises HttpError: 404."""
    _check_node(request)
    for counts in request.context.attempts.values():
        counts[:] = [0, 0]
    return no_content()


def rebalance(request: Request) -> Answer:
    """Do nothing: there is one node."""
    return no_content()


def reset_statistics(request: Request) -> Answer:
    """Do nothing: samples leave by themselves. Raises HttpError: 404."""
    if "node" in request.names:
        _check_node(request)
    return no_content()


def read_auth(request: Request) -> Any:
    """Return how users log in to RabbitMQ's page: with a name and a password."""
    return {"enable_uaa": False, "uaa_client_id": "", "uaa_location": "", "oauth_enabled": False}


MEMORY_PATH = "/api/nodes/{node}/memory"
ROUTES = [
    Route(method="GET", path="/api/overview", handler=overview, access=Access.LOGIN, query=STATISTICS_QUERY,
          summary="The broker at a glance"),
    Route(method="GET", path="/api/nodes", handler=list_nodes, access=Access.MONITORING, is_list=True,
          query=STATISTICS_QUERY, summary="The nodes: one"),
    Route(method="GET", path="/api/nodes/{node}", handler=read_node, access=Access.MONITORING,
          query=STATISTICS_QUERY, summary="The node"),
    Route(method="GET", path=MEMORY_PATH, handler=read_memory, access=Access.MONITORING,
          summary="The memory of the node"),
    Route(method="GET", path=MEMORY_PATH + "/relative", handler=read_relative_memory, access=Access.MONITORING,
          summary="The memory of the node, in parts of a hundred"),
    *(Route(method="GET", path=MEMORY_PATH + tables, handler=read_tables, access=Access.MONITORING,
            summary="The memory of Erlang's tables: none")
      for tables in ("/ets", "/ets/relative", "/ets/{filter}", "/ets/{filter}/relative")),
    Route(method="GET", path="/api/cluster-name", handler=read_cluster_name, access=Access.LOGIN,
          summary="The name of the cluster"),
    Route(method="PUT", path="/api/cluster-name", handler=put_cluster_name, access=Access.ADMINISTRATOR,
          body=ClusterName, summary="Set the name of the cluster"),
    Route(method="GET", path="/api/feature-flags", handler=list_feature_flags, access=Access.ADMINISTRATOR,
          is_list=True, summary="RabbitMQ's feature flags, which are all enabled"),
    Route(method="PUT", path="/api/feature-flags/{flag}/enable", handler=enable_feature_flag,
          access=Access.ADMINISTRATOR, summary="Enable a feature flag: accepted, since all are enabled"),
    *(Route(method="GET", path=path, handler=nothing_deprecated, access=Access.ADMINISTRATOR,
            summary="The features that will be removed: none")
      for path in ("/api/deprecated-features", "/api/deprecated-features/used")),
    Route(method="GET", path="/api/auth", handler=read_auth, access=Access.ANYONE, summary="How users log in"),
    Route(method="GET", path="/api/auth/attempts/{node}", handler=read_attempts, access=Access.MONITORING,
          summary="How many logins there were"),
    Route(method="GET", path="/api/auth/attempts/{node}/source", handler=read_attempts_by_source,
          access=Access.MONITORING, summary="How many logins each address tried: none is counted"),
    *(Route(method="DELETE", path=path, handler=forget_attempts, access=Access.MONITORING,
            summary="Begin to count logins again")
      for path in ("/api/auth/attempts/{node}", "/api/auth/attempts/{node}/source")),
    Route(method="POST", path="/api/rebalance/queues", handler=rebalance, access=Access.ADMINISTRATOR,
          summary="Spread queues over the nodes: accepted, since there is one"),
    *(Route(method="DELETE", path=path, handler=reset_statistics, access=Access.ADMINISTRATOR,
            summary="Forget statistics: accepted, since samples leave by themselves")
      for path in ("/api/reset", "/api/reset/{node}")),
]
