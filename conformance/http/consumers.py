"""The programs that read the management API: what each asks, and which keys it must find with which types.

A row is a request and a shape, as `shapes` writes it: keys without a question mark are those on whose lack the program
fails, those with one must have that type where they are. `each` is a list that may be empty. `{}` is an object with
any keys. What a program needs of RabbitMQ 4 alone is under a name of its own and needs `http-4`.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from conformance.http.scenarios.scenario import VHOST
from conformance.http.shapes import Shape
from conformance.http.steps import Request, get, post, put

V = VHOST
NUMBER, TEXT, BOOL = "number", "string", "bool"
RATE = {"rate": NUMBER}


@dataclass(frozen=True)
class Row:
    """One request and the shape of its answer. `worlds` are those in which it can be asked."""

    request: Request
    must: Shape
    worlds: tuple[str, ...] = ("empty", "busy", "without_statistics")
    status: int = 200
    values: tuple[tuple[str, Any], ...] = ()
    needs: str = "http"


def each(shape: Shape) -> Shape:
    """Return the shape of a list that may be empty."""
    return {"one of": [[], [shape]]}


def optional(shape: dict[str, Shape]) -> dict[str, Shape]:
    """Return the shape of an object in which no key must be, but each has its type."""
    return {key if key.endswith("?") else f"{key}?": inner for key, inner in shape.items()}


def rated(*names: str) -> dict[str, Shape]:
    """Return numbers, each with its details."""
    return {key: shape for name in names for key, shape in ((name, NUMBER), (f"{name}_details", RATE))}


def numbers(*names: str) -> dict[str, Shape]:
    """Return keys that are numbers."""
    return dict.fromkeys(names, NUMBER)


BUSY = ("busy",)
COUNTED = ("empty", "busy")     # without statistics RabbitMQ leaves out what these read
ARGUMENTS: Shape = {}
PAGE = {"filtered_count": NUMBER, "item_count": NUMBER, "page": NUMBER, "page_count": NUMBER, "page_size": NUMBER,
        "total_count": NUMBER}
TOTALS = ("messages", "messages_ready", "messages_unacknowledged")
OBJECTS = numbers("channels", "connections", "consumers", "exchanges", "queues")
QUEUE = {"name": TEXT, "vhost": TEXT, "type": TEXT, "durable": BOOL, "auto_delete": BOOL, "exclusive": BOOL,
         "arguments": ARGUMENTS}
EXCHANGE = {"name": TEXT, "vhost": TEXT, "type": TEXT, "durable": BOOL, "auto_delete": BOOL, "internal": BOOL,
            "arguments": ARGUMENTS}
BINDING = {"vhost": TEXT, "source": TEXT, "destination": TEXT, "destination_type": TEXT, "routing_key": TEXT,
           "arguments": ARGUMENTS, "properties_key": TEXT}
STATS = optional(rated("ack", "deliver", "deliver_get", "publish", "redeliver", "publish_in", "publish_out", "confirm",
                       "return_unroutable", "get", "get_no_ack", "deliver_no_ack", "drop_unroutable"))
USER = {"name": TEXT, "tags": each(TEXT), "password_hash": TEXT}
POLICY = {"name": TEXT, "vhost": TEXT, "pattern": TEXT, "apply-to": TEXT, "priority": NUMBER, "definition": {}}
LISTENER = {"node": TEXT, "protocol": TEXT, "port": NUMBER}

RABBITMQADMIN_2 = (
    Row(get("/overview"), {
        "cluster_name": TEXT, "node": TEXT, "erlang_full_version": TEXT, "erlang_version": TEXT,
        "rabbitmq_version": TEXT, "product_name": TEXT, "product_version": TEXT, "statistics_db_event_queue": NUMBER,
        "churn_rates": optional(rated("connection_created", "connection_closed", "queue_declared", "queue_created",
                                      "queue_deleted", "channel_created", "channel_closed")),
        "queue_totals": optional(rated(*TOTALS)), "object_totals": OBJECTS, "message_stats": STATS,
        "listeners": [LISTENER]}, COUNTED),
    Row(get("/cluster-name"), {"name": TEXT}),
    Row(get("/nodes"), [{
        "name": TEXT, **numbers("uptime", "run_queue", "processors", "fd_total", "proc_total", "mem_limit",
                                "disk_free_limit"),
        "os_pid": TEXT, "mem_alarm": BOOL, "disk_free_alarm": BOOL, "rates_mode": TEXT, "enabled_plugins": each(TEXT),
        "applications": [{"name": TEXT, "version": TEXT}]}], COUNTED),
    Row(get("/nodes/{node}/memory"), {"memory": {"total": {}, "strategy": TEXT}}),
    Row(get("/connections"), each({"name": TEXT, "node": TEXT, "protocol": TEXT, "user": TEXT,
                                   "connected_at": NUMBER}), COUNTED),
    Row(get("/connections/username/shapes-worker"), [{"name": TEXT, "node": TEXT, "vhost": TEXT, "user": TEXT}], BUSY),
    Row(get("/channels"), each({
        "number": NUMBER, "name": TEXT, "connection_details": {"name": TEXT, "peer_host": TEXT, "peer_port": NUMBER},
        "vhost": TEXT, "state": TEXT, "consumer_count": NUMBER, "confirm": BOOL, "prefetch_count": NUMBER,
        "messages_unacknowledged": NUMBER, "messages_unconfirmed": NUMBER}), COUNTED),
    Row(get("/consumers"), each({
        "consumer_tag": TEXT, "active": BOOL, "ack_required": BOOL, "prefetch_count": NUMBER, "exclusive": BOOL,
        "arguments": ARGUMENTS, "queue": {"name": TEXT, "vhost": TEXT}, "channel_details": {}}), COUNTED),
    Row(get("/queues"), each(QUEUE)),
    Row(get("/queues?page=1&page_size=10&name=orders"), PAGE | {"items": each(QUEUE)}),
    Row(get("/exchanges"), [EXCHANGE]),
    Row(get("/bindings"), each(BINDING)),
    Row(get(f"/exchanges/{V}/events/bindings/source"), [BINDING], BUSY),
    Row(get(f"/queues/{V}/orders/bindings"), [BINDING], BUSY),
    Row(get("/vhosts"), [{"name": TEXT, "tags": each(TEXT), "tracing": BOOL, "cluster_state": {}}]),
    Row(get("/users"), [USER]),
    Row(get("/users/without-permissions"), each(USER)),
    Row(get("/permissions"), [dict.fromkeys(("user", "vhost", "configure", "write", "read"), TEXT)]),
    Row(get("/topic-permissions"), each(dict.fromkeys(("user", "vhost", "exchange", "write", "read"), TEXT))),
    Row(get("/policies"), each(POLICY)),
    Row(get("/operator-policies"), each(POLICY)),
    Row(get("/parameters"), each({"name": TEXT, "vhost": TEXT, "component": TEXT, "value": {}})),
    Row(get("/global-parameters"), each({"name": TEXT})),
    Row(get("/vhost-limits"), each({"vhost": TEXT, "value": {}})),
    Row(get("/user-limits"), each({"user": TEXT, "value": {}})),
    Row(get("/feature-flags"), [dict.fromkeys(("name", "state", "desc", "doc_url", "stability", "provided_by"), TEXT)]),
    Row(get("/auth/attempts/{node}"), each({"protocol": TEXT} | numbers(
        "auth_attempts", "auth_attempts_failed", "auth_attempts_succeeded"))),
    Row(get("/whoami"), {"name": TEXT, "tags": each(TEXT)}),
    Row(get("/definitions"), {"rabbitmq_version": TEXT, "users": [USER], "vhosts": [{"name": TEXT}],
                              "permissions": [{}], "queues": each({}), "exchanges": each({}), "bindings": each({}),
                              "policies": each({}), "parameters": each({}), "global_parameters": each({})}),
    Row(get("/health/checks/port-listener/1"), {"status": TEXT, "reason": TEXT, "missing": NUMBER}, status=503),
    Row(get("/health/checks/protocol-listener/mqtt"), {
        "status": TEXT, "reason": TEXT, "protocols": each(TEXT), "missing": TEXT}, status=503),
    Row(post(f"/queues/{V}/jobs/get", {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}), [{
        "payload_bytes": NUMBER, "redelivered": BOOL, "exchange": TEXT, "routing_key": TEXT, "message_count": NUMBER,
        "properties": {"one of": [{}, []]}, "payload": TEXT, "payload_encoding": TEXT}], BUSY),
)
RABBITMQADMIN_2_ON_4 = (
    Row(get("/nodes"), [{"being_drained": BOOL}], needs="http-4"),
    Row(get("/consumers"), each({"consumer_timeout": NUMBER}), needs="http-4"),
    Row(get("/queues/detailed"), each(QUEUE), needs="http-4"),
    Row(get("/deprecated-features"), each({"name": TEXT}), needs="http-4"),
    Row(get("/deprecated-features/used"), each({"name": TEXT}), needs="http-4"),
    Row(get("/health/checks/below-node-connection-limit"), {"status": TEXT}, needs="http-4"),
    Row(get("/health/checks/ready-to-serve-clients"), {"status": TEXT}, needs="http-4"),
    Row(get("/health/checks/is-in-service"), {"status": TEXT}, needs="http-4"),
    Row(post(f"/vhosts/{V}/deletion/protection"), None, status=204, needs="http-4"),
    Row(get(f"/vhosts/{V}"), {"protected_from_deletion": BOOL}, needs="http-4"),
    Row(Request("DELETE", f"/vhosts/{V}/deletion/protection"), None, status=204, needs="http-4"),
    Row(get("/auth/hash_password/secret"), {"ok": TEXT}, needs="http-4"),
    Row(get("/version"), TEXT, needs="http-4"),
    Row(get("/overview"), {"default_queue_type": TEXT, "cluster_tags": {"one of": [{}, []]},
                           "node_tags": {"one of": [{}, []]}}, needs="http-4"),
)
TELEGRAF = (
    Row(get("/overview"), {
        "queue_totals": {}, "object_totals": OBJECTS, "message_stats": STATS, "listeners": [LISTENER]}, COUNTED),
    Row(get("/nodes"), [{
        "name": TEXT, "running": BOOL, "mem_alarm": BOOL, "disk_free_alarm": BOOL, "uptime": NUMBER,
        **numbers("disk_free", "disk_free_limit", "fd_total", "fd_used", "mem_limit", "mem_used", "proc_total",
                  "proc_used", "run_queue", "sockets_total", "sockets_used"),
        **rated("mnesia_disk_tx_count", "mnesia_ram_tx_count", "gc_num", "gc_bytes_reclaimed", "io_read_avg_time",
                "io_read_bytes", "io_write_avg_time", "io_write_bytes")}], COUNTED),
    Row(get("/nodes/{node}/memory"), {"memory": {"total": {}, **numbers(
        "connection_readers", "connection_writers", "connection_channels", "connection_other", "queue_procs", "plugins",
        "other_proc", "metrics", "mgmt_db", "mnesia", "other_ets", "binary", "msg_index", "code", "atom",
        "other_system", "allocated_unused", "reserved_unallocated")}}),
    Row(get("/queues"), each({
        "name": TEXT, "node?": TEXT, "vhost": TEXT, "durable": BOOL, "auto_delete": BOOL, "idle_since?": TEXT,
        "slave_nodes?": each(TEXT), "consumer_utilisation?": "null|number", "message_stats?": STATS,
        **optional(numbers("consumers", "memory", "messages_persistent", "message_bytes", "message_bytes_ready",
                           "message_bytes_unacknowledged", "message_bytes_ram", "message_bytes_persistent")),
        **optional(rated(*TOTALS))})),
    Row(get("/exchanges"), [{"name": TEXT, "vhost": TEXT, "type": TEXT, "internal": BOOL, "durable": BOOL,
                             "auto_delete": BOOL, "message_stats?": STATS}]),
)
DATADOG = (
    Row(get("/vhosts"), [{"name": TEXT}]),
    Row(get("/overview"), {
        "cluster_name": TEXT, "rabbitmq_version": TEXT, "object_totals": OBJECTS,
        "queue_totals": optional(rated(*TOTALS)), "message_stats": STATS}, COUNTED),
    Row(get("/exchanges"), [{"name": TEXT, "vhost": TEXT, "message_stats?": STATS}]),
    Row(get("/queues"), each({
        "name": TEXT, "vhost": TEXT, "node": TEXT, "policy": "null|string", "consumers": NUMBER, "memory": NUMBER,
        "consumer_utilisation": "null|number", "head_message_timestamp?": "null|number", **rated(*TOTALS),
        "message_stats?": STATS}), COUNTED),
    Row(get(f"/queues/{V}/orders/bindings"), [BINDING], BUSY),
    Row(get("/nodes"), [{
        "name": TEXT, "running": BOOL, "mem_alarm": BOOL, "disk_free_alarm": BOOL, "partitions": each(TEXT),
        **numbers("fd_used", "disk_free", "mem_used", "mem_limit", "run_queue", "sockets_used")}], COUNTED),
    Row(get("/connections"), each({"name": TEXT, "vhost": TEXT, "state": TEXT}), COUNTED),
    Row(get(f"/vhosts/{V}/connections"), each({"state": TEXT}), COUNTED),
    Row(get(f"/aliveness-test/{V}"), {"status": TEXT}, values=(("status", "ok"),)),
)
ZABBIX = (
    Row(get("/overview"), {
        "management_version": TEXT, "rabbitmq_version": TEXT, "object_totals": OBJECTS, "message_stats": STATS,
        "queue_totals": optional(numbers(*TOTALS))}, COUNTED),
    Row(get("/nodes"), [{"name": TEXT, "uptime": NUMBER, "running": BOOL, **numbers(
        "disk_free", "disk_free_limit", "mem_used", "mem_limit", "sockets_used", "sockets_total", "fd_used")}],
        COUNTED),
    Row(get("/exchanges"), [{"name": TEXT, "type": TEXT, "vhost": TEXT, "message_stats?": STATS}]),
    Row(get("/queues"), each({"name": TEXT, "vhost": TEXT, "message_stats?": STATS}), COUNTED),
    Row(get("/health/checks/alarms"), {"status": TEXT}),
    Row(get("/health/checks/local-alarms"), {"status": TEXT}),
    Row(get("/health/checks/certificate-expiration/1/months"), {"status": TEXT}),
    Row(get("/health/checks/virtual-hosts"), {"status": TEXT}),
    Row(get("/health/checks/node-is-mirror-sync-critical"), {"status": TEXT}),
    Row(get("/health/checks/node-is-quorum-critical"), {"status": TEXT}),
)
METRICBEAT = (
    Row(get("/nodes/{node}"), {
        "disk_free_limit": NUMBER, "name": TEXT, "type": TEXT, **numbers(
            "disk_free", "fd_total", "fd_used", "gc_bytes_reclaimed", "gc_num", "io_read_avg_time", "io_read_bytes",
            "io_read_count",
            "io_reopen_count", "io_seek_avg_time", "io_seek_count", "io_sync_avg_time", "io_sync_count",
            "io_write_avg_time", "io_write_bytes", "io_write_count", "mem_limit", "mem_used", "mnesia_disk_tx_count",
            "mnesia_ram_tx_count", "msg_store_read_count", "msg_store_write_count", "proc_total", "proc_used",
            "processors", "queue_index_read_count", "queue_index_write_count",
            "run_queue", "sockets_total", "sockets_used", "uptime")}, COUNTED),
    Row(get("/connections"), each({
        "name": TEXT, "vhost": TEXT, "user": TEXT, "node": TEXT, "type": TEXT, "host": TEXT, "peer_host": TEXT,
        **numbers("channels", "channel_max", "frame_max", "send_cnt", "recv_cnt", "send_pend", "send_oct", "recv_oct",
                  "port", "peer_port")}), COUNTED),
    Row(get("/queues"), each({
        "name": TEXT, "vhost": TEXT, "durable": BOOL, "auto_delete": BOOL, "exclusive": BOOL, "node": TEXT,
        "state": TEXT, "arguments": ARGUMENTS, **rated(*TOTALS),
        **numbers("messages_persistent", "memory", "consumers")}), COUNTED),
    Row(get("/exchanges"), [EXCHANGE | {"message_stats?": STATS}]),
    Row(get("/overview"), {"node": TEXT, "cluster_name": TEXT, "management_version": TEXT, "rabbitmq_version": TEXT,
                           "erlang_version": TEXT}),
)
# RabbitMQ 3.10.8 leaves these out until something was counted; another broker sends 0.
METRICBEAT_BEYOND = (
    Row(get("/nodes/{node}"), numbers(
        "io_file_handle_open_attempt_avg_time", "io_file_handle_open_attempt_count",
        "queue_index_journal_write_count"), COUNTED, needs="http-4"),
)
PROMETHEUS_EXPORTER = (
    Row(get("/overview"), {"rabbitmq_version": TEXT, "erlang_version": TEXT, "cluster_name": TEXT, "node": TEXT,
                           "queue_totals": {}, "object_totals": OBJECTS, "message_stats": STATS}, COUNTED),
    Row(get("/queues?sort="), each({
        "name": TEXT, "vhost": TEXT, "durable": BOOL, "arguments": ARGUMENTS, "state": TEXT, "policy": "null|string",
        "effective_policy_definition": {"one of": ["null", {}]}, "slave_nodes?": each(TEXT), "members?": each(TEXT),
        "online?": each(TEXT), "idle_since?": TEXT, "garbage_collection": {}, "reductions": NUMBER,
        "message_stats?": STATS, **numbers("consumers", "memory", *TOTALS)}), COUNTED),
    Row(get("/exchanges"), [{"name": TEXT, "vhost": TEXT, "message_stats?": STATS}]),
    Row(get("/nodes"), [{"name": TEXT, "running": BOOL, "partitions": each(TEXT), "mem_alarm": BOOL, **numbers(
        "uptime", "mem_used", "mem_limit", "disk_free", "disk_free_limit", "fd_used", "fd_total", "sockets_used",
        "sockets_total")}], COUNTED),
    Row(get("/connections"), each({"vhost": TEXT, "node": TEXT, "peer_host": TEXT, "user": TEXT, "state": TEXT,
                                   **numbers("channels", "recv_oct", "send_oct", "recv_cnt", "send_cnt",
                                             "send_pend")}), COUNTED),
    Row(get(f"/aliveness-test/{V}"), {"status": TEXT}, values=(("status", "ok"),)),
)
BERT = {"accept": "application/bert, application/json;q=0.1"}
PROMETHEUS_EXPORTER_BY_BERT = (
    Row(get("/overview", headers=BERT), {"rabbitmq_version": TEXT}, needs="http-json-only"),
    Row(get("/queues", headers=BERT), each({"name": TEXT}), needs="http-json-only"),
)
KEDA = (
    Row(get(f"/queues/{V}/orders"), {
        "name": TEXT, **numbers("messages", "messages_ready", "messages_unacknowledged"),
        "message_stats": {"publish_details": RATE, "deliver_get_details": RATE}}, BUSY),
    Row(get(f"/queues/{V}?page=1&use_regex=true&pagination=false&name=orders&page_size=100"), {"items": each({
        "name": TEXT, **numbers("messages", "messages_ready", "messages_unacknowledged"), "message_stats?": STATS})},
        COUNTED),
)
NSERVICEBUS = (
    Row(get("/overview"), {"rabbitmq_version": TEXT}),
    Row(get("/feature-flags"), [{"name": TEXT, "state": TEXT}]),
    Row(get(f"/queues/{V}/orders"), QUEUE | {"effective_policy_definition": {}}, BUSY),
    Row(get(f"/queues/{V}/quiet"), QUEUE | {"effective_policy_definition": {}}, BUSY),
    Row(get(f"/queues/{V}/jobs"), QUEUE | {"effective_policy_definition": {}}, BUSY),
    Row(put(f"/policies/{V}/nsb", {"pattern": "^nothing$", "definition": {"max-length": 1}, "apply-to": "queues",
                                   "priority": 0}), None, status=201),
)
SERVICECONTROL = (
    Row(get("/overview"), {"disable_stats": BOOL, "product_version": TEXT, "management_version": TEXT,
                           "product_name": TEXT, "rabbitmq_version": TEXT}),
    Row(get("/queues?page=1&page_size=500&name=&use_regex=false&pagination=true"), PAGE | {"items": each(
        QUEUE | {"message_stats?": {"ack?": NUMBER}})}),
    Row(get(f"/queues/{V}/orders"), QUEUE, BUSY),
    Row(get(f"/queues/{V}/orders/bindings"), [BINDING], BUSY),
    Row(get(f"/exchanges/{V}/internal/bindings/destination"), [BINDING], BUSY),
)
TERRAFORM = (
    Row(put(f"/exchanges/{V}/tf", {"type": "direct", "durable": True, "auto_delete": False, "arguments": {}}), None,
        status=201),
    Row(put(f"/queues/{V}/tf", {"durable": True, "auto_delete": False, "arguments": {}}), None, status=201),
    Row(post(f"/bindings/{V}/e/tf/q/tf", {"routing_key": "a b", "arguments": {}}), None, status=201),
    Row(get(f"/bindings/{V}/e/tf/q/tf"), [BINDING]),
    Row(get(f"/exchanges/{V}/tf"), EXCHANGE),
    Row(get(f"/queues/{V}/tf"), QUEUE),
    Row(get(f"/vhosts/{V}"), {"name": TEXT, "tracing": BOOL, "description": TEXT, "tags": each(TEXT)}),
    Row(get("/users/{me}"), USER),
    Row(get(f"/permissions/{V}/{{me}}"), {"configure": TEXT, "write": TEXT, "read": TEXT}),
    Row(get(f"/policies/{V}/nothing"), {"error": TEXT, "reason": TEXT}, status=404),
    Row(Request("DELETE", f"/bindings/{V}/e/tf/q/tf/a%20b"), None, status=204),
    Row(Request("DELETE", f"/queues/{V}/tf"), None, status=204),
    Row(Request("DELETE", f"/exchanges/{V}/tf"), None, status=204),
)
FLOWER = (
    Row(get(f"/queues/{V}"), each({"name": TEXT, "idle_since?": TEXT, **numbers("consumers", *TOTALS)}), COUNTED),
)
OPENTELEMETRY = (
    Row(get("/queues"), each({"name": TEXT, "node": TEXT, "vhost": TEXT, **numbers(
        "consumers", "messages_ready", "messages_unacknowledged"), "message_stats?": STATS}), COUNTED),
    Row(get("/nodes"), [{"name": TEXT}]),
)
NEW_RELIC = (
    Row(get("/overview"), {"rabbitmq_version": TEXT, "management_version": TEXT, "cluster_name": TEXT}),
    Row(get("/nodes"), [{"name": TEXT, "running": BOOL, "config_files": each(TEXT), "partitions": each(TEXT), **numbers(
        "disk_free", "fd_used", "mem_used", "run_queue", "sockets_used", "proc_used")}], COUNTED),
    Row(get("/queues"), each(QUEUE | {"consumer_utilisation": "null|number", "memory": NUMBER, "consumers": NUMBER,
                                      **rated(*TOTALS), "message_stats?": STATS}), COUNTED),
    Row(get("/exchanges"), [EXCHANGE | {"message_stats?": STATS}]),
    Row(get("/connections"), each({"state": TEXT, "vhost": TEXT}), COUNTED),
    Row(get("/vhosts"), [{"name": TEXT}]),
    Row(get("/bindings"), each(BINDING)),
    Row(get(f"/aliveness-test/{V}"), {"status": TEXT}),
    Row(get("/healthchecks/node/{node}"), {"status": TEXT}),
)

CONSUMERS: dict[str, tuple[Row, ...]] = {
    "rabbitmqadmin 2": RABBITMQADMIN_2,
    "rabbitmqadmin 2 on RabbitMQ 4": RABBITMQADMIN_2_ON_4,
    "Telegraf": TELEGRAF,
    "Datadog": DATADOG,
    "Zabbix": ZABBIX,
    "Metricbeat": METRICBEAT,
    "Metricbeat beyond 3.10": METRICBEAT_BEYOND,
    "rabbitmq_exporter": PROMETHEUS_EXPORTER,
    "rabbitmq_exporter by bert": PROMETHEUS_EXPORTER_BY_BERT,
    "KEDA": KEDA,
    "NServiceBus": NSERVICEBUS,
    "ServiceControl": SERVICECONTROL,
    "Flower": FLOWER,
    "OpenTelemetry": OPENTELEMETRY,
    "New Relic": NEW_RELIC,
    # It makes queues, so it comes last: of these RabbitMQ has no statistics yet.
    "Terraform": TERRAFORM,
}
