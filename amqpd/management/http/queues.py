"""The routes of queues: list, read, declare, delete and purge. RabbitMQ docs/http-api-reference (queues)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Any

import msgspec

from amqpd.broker.arguments import CLASSIC, QUEUE_TYPE
from amqpd.broker.definitions import QueueDefinition
from amqpd.broker.queue.priority_fifo import PriorityFifo
from amqpd.broker.queue.queue import Queue
from amqpd.broker.vhost import Vhost
from amqpd.errors import AmqpException
from amqpd.identity import NODE_NAME
from amqpd.management import queue_usage
from amqpd.management.http import consumers
from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, bad_request, no_content, not_found, put
from amqpd.management.http.body import Body, refused
from amqpd.management.http.erlang_process import GARBAGE
from amqpd.management.http.lists import Source, listed
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Query, Route
from amqpd.management.http.statistics import STATISTICS_QUERY, ranges_of, wants_statistics, wants_totals
from amqpd.management.json_values import plain
from amqpd.management.statistics.statistics import QUEUE_DELIVERIES, QUEUE_PUBLISHES
from amqpd.management.waiting import until_called

IN_PATH = "/api/queues/{vhost}/{queue}"
# What RabbitMQ tells of its store of one queue; `len` and `mode` are filled in.
BACKING_QUEUE = {
    "avg_ack_egress_rate": 0.0, "avg_ack_ingress_rate": 0.0, "avg_egress_rate": 0.0, "avg_ingress_rate": 0.0,
    "delta": ["delta", "undefined", "undefined"], "next_deliver_seq_id": 0, "next_seq_id": 0, "q1": 0, "q2": 0,
    "q3": 0, "q4": 0, "target_ram_count": "infinity", "version": 1}
MEMBERS = {"leader": NODE_NAME, "members": [NODE_NAME], "online": [NODE_NAME]}      # of a quorum queue
NOT_OF_CLASSIC: dict[str, Any] = {"slave_nodes": [], "synchronised_slave_nodes": [], "recoverable_slaves": None}
BASIC = frozenset({
    "name", "vhost", "node", "type", "durable", "auto_delete", "exclusive", "arguments", "state", "is_paused"})
# Of a queue without messages, and where there are no policies: most queues of a broker with very many.
NO_USAGE = dict.fromkeys(queue_usage.COLUMNS, 0) | {"head_message_timestamp": None}
NO_POLICIES: dict[str, Any] = {"policy": None, "operator_policy": None, "effective_policy_definition": {}}
ACTIONS = ("sync", "cancel_sync")


class NewQueue(msgspec.Struct):
    """A queue to declare."""

    durable: bool = False
    auto_delete: bool = False
    arguments: dict[str, Any] = {}
    node: str = ""


class Action(msgspec.Struct):
    """Something to do with the mirrors of a queue; there are none, so that nothing is done."""

    action: str


class QueueForm:
    """Makes the records of one answer. Unacknowledged messages of a vhost are visited once for all its queues."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._ranges = ranges_of(request)
        self._has_statistics = wants_statistics(request)
        self._has_totals = self._has_statistics or wants_totals(request)
        self._unacked: dict[str, queue_usage.Runs | None] = {}
        self._times: dict[int, str] = {}
        # Of the columns that are asked for, the first part; empty for all.
        self._columns = {column.partition(".")[0] for column in request.query.get("columns", "").split(",")} - {""}
        sort = request.query.get("sort", "")
        if self._columns and sort:
            self._columns.add(sort.partition(".")[0])

    def _wants(self, columns: Collection[str]) -> bool:
        """Return whether any of these columns is asked for."""
        return not self._columns or not self._columns.isdisjoint(columns)

    def record(self, vhost: Vhost, queue: Queue) -> dict[str, Any]:
        """Return a queue as JSON has it."""
        definition = queue.definition
        kind = definition.arguments.get(QUEUE_TYPE, CLASSIC)
        found = {
            "name": queue.name,
            "vhost": vhost.name,
            "node": NODE_NAME,
            "type": kind,
            "durable": definition.durable,
            "auto_delete": definition.auto_delete,
            "exclusive": definition.exclusive,
            "arguments": plain(definition.arguments),
            "state": "running",
            "is_paused": definition.is_paused,
        }
        if not self._has_statistics:
            if kind != CLASSIC:
                found |= MEMBERS
            applied = vhost.policies.of_queue(definition)
            if applied.policy is not None:
                found["policy"] = applied.policy.name
        if not self._has_statistics or not self._wants(self._columns - BASIC - TOTALS.keys()):
            return found | totals(queue) if self._has_totals else found
        found |= self._statistics(vhost, queue, kind)
        if self._wants(queue_usage.COLUMNS):
            found |= self._usage(vhost, queue)
        return found

    def _usage(self, vhost: Vhost, queue: Queue) -> dict[str, Any]:
        if not queue.unacked and not len(queue.ready):
            return NO_USAGE
        usage = queue_usage.queue_usage(queue, self._unacked_of(vhost))
        stamp = usage["head_message_timestamp"]
        # What is not known is 0 here, since programs need a number.
        return {key: 0 if value == queue_usage.NOT_KNOWN else value for key, value in usage.items()} | {
            "head_message_timestamp": None if stamp == queue_usage.NOT_KNOWN else stamp}

    def _statistics(self, vhost: Vhost, queue: Queue, kind: str) -> dict[str, Any]:
        definition = queue.definition
        exclusive = next((one.tag for one in queue.consumers if one.exclusive), None)
        active = queue.dispatcher.active
        capacity = float(bool(queue.consumers))
        found = {
            "garbage_collection": GARBAGE,
            **self._request.context.statistics.queue(queue, self._ranges),
            "message_bytes_ready": queue.ready.body_bytes,
            **_policies(vhost, definition),
            "consumers": len(queue.consumers),
            "consumer_capacity": capacity,
            "consumer_utilisation": capacity,
            "exclusive_consumer_tag": exclusive,
            "single_active_consumer_tag": active.tag if active else None,
            "messages_set_aside": len(queue.dead_letters.aside),
            "idle_since": self._idle_since(queue),
        }
        if definition.exclusive:
            found["owner_pid_details"] = self._owner_of(queue)
        if kind == CLASSIC:
            mode = definition.arguments.get("x-queue-mode", "default")
            status = {**BACKING_QUEUE, "len": len(queue.ready), "mode": mode}
            if isinstance(queue.ready, PriorityFifo):
                highest = queue.rules.max_priority or 0
                lengths = queue.ready.lengths
                status["priority_lengths"] = {str(level): lengths.get(level, 0) for level in range(highest + 1)}
            return found | NOT_OF_CLASSIC | {"backing_queue_status": status}
        return found | MEMBERS | {
            "open_files": {NODE_NAME: 0}, "messages_dlx": 0, "message_bytes_dlx": 0,
            "single_active_consumer_ctag": active.tag if active else None}

    def _idle_since(self, queue: Queue) -> str:
        since_ms = self._request.context.statistics.idle_since_ms(queue)
        if since_ms not in self._times:
            self._times[since_ms] = shown_time(since_ms)
        return self._times[since_ms]

    def _owner_of(self, queue: Queue) -> dict[str, Any]:
        for connection in self._request.broker.connections.values():
            if connection.owner is queue.owner:
                facts = connection.statistics()
                return {"name": facts.name, "peer_host": facts.peer_host, "peer_port": facts.peer_port}
        return {}

    def _unacked_of(self, vhost: Vhost) -> queue_usage.Runs | None:
        if vhost.name not in self._unacked:
            most = self._request.context.node.most_counted
            self._unacked[vhost.name] = queue_usage.unacked_runs(self._request.broker, vhost, most)
        return self._unacked[vhost.name]


def _policies(vhost: Vhost, definition: QueueDefinition) -> dict[str, Any]:
    if not vhost.policies.count:
        return NO_POLICIES
    applied = vhost.policies.of_queue(definition)
    return {
        "policy": applied.policy.name if applied.policy else None,
        "operator_policy": applied.operator_policy.name if applied.operator_policy else None,
        "effective_policy_definition": plain(applied.effective),
    }


TOTALS: dict[str, Callable[[Queue], int]] = {
    "messages": lambda queue: len(queue.ready) + queue.unacked,
    "messages_ready": lambda queue: len(queue.ready),
    "messages_unacknowledged": lambda queue: queue.unacked,
}
QUICK = TOTALS | {
    "consumers": lambda queue: len(queue.consumers), "message_bytes_ready": lambda queue: queue.ready.body_bytes}


def totals(queue: Queue) -> dict[str, int]:
    """Return how many messages a queue has."""
    return {name: count(queue) for name, count in TOTALS.items()}


def shown_time(wall_ms: int) -> str:
    """Return a time in RabbitMQ's form of 3.10."""
    return datetime.fromtimestamp(wall_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def list_queues(request: Request) -> Any:
    """Return the queues of the vhosts that the user sees."""
    form = QueueForm(request)
    found = [(vhost, queue) for vhost in request.visible_vhosts() for queue in vhost.queues.values()]
    quick: dict[str, Any] = {name: lambda one, value=value: value(one[1]) for name, value in QUICK.items()}
    if wants_statistics(request):
        rate = request.context.statistics.queue_rate
        quick |= {f"message_stats.{field.details}.rate": lambda one, field=field: rate(one[1], field)
                  for field in (*QUEUE_PUBLISHES, *QUEUE_DELIVERIES)}
    return listed(request, Source(found, lambda one: one[1].name, lambda one: form.record(*one), quick))


def read_queue(request: Request) -> Any:
    """Return one queue, with its consumers. Raises HttpError: 404."""
    vhost, queue = named(request)
    return QueueForm(request).record(vhost, queue) | {
        "consumer_details": [consumers.record(request.broker, queue, one) for one in queue.consumers],
        "incoming": [], "deliveries": []}


def named(request: Request) -> tuple[Vhost, Queue]:
    """Return the queue that a path names, and its vhost. Raises HttpError: 404."""
    vhost = request.vhost()
    queue = vhost.queues.get(request.names["queue"])
    if queue is None:
        raise not_found()
    return vhost, queue


def declare_queue(request: Request) -> Answer:
    """Declare a queue. Raises HttpError."""
    vhost, name = request.vhost_to_change(), request.names["queue"]
    body = Body(request)
    node = body.text("node")
    if node not in ("", NODE_NAME):
        raise bad_request(f"Node {node} could not be contacted")
    if len(name.encode(errors="surrogatepass")) > 255:
        raise bad_request(f"queue should be less than 255 bytes, actually was {len(name.encode())}\n")
    is_new = name not in vhost.queues
    definition = QueueDefinition(
        0, vhost.name, name, durable=body.boolean("durable"), auto_delete=body.boolean("auto_delete"),
        arguments=body.table("arguments"))
    try:
        vhost.declare_queue(request.user, definition, request)
    except AmqpException as error:
        raise refused(error) from None
    return put(is_new)


async def delete_queue(request: Request) -> Answer:
    """Delete a queue with its messages. Raises HttpError."""
    vhost, queue = named(request)
    try:
        vhost.delete_queue(
            request.user, queue.name, request, if_unused=request.flag("if-unused"),
            if_empty=request.flag("if-empty"))
    except AmqpException as error:
        raise refused(error) from None
    leaving = vhost.leaving.queues.get(queue.name)
    if leaving is not None:
        await until_called(vhost.leaving.call_after(leaving))
    return no_content()


async def purge_queue(request: Request) -> Answer:
    """Drop the ready messages of a queue. Raises HttpError."""
    vhost, queue = named(request)
    try:
        purge = vhost.purge_queue(request.user, queue.name, request)
    except AmqpException as error:
        raise refused(error) from None
    while not purge.is_done:
        await until_called(purge.call)
    return no_content()


def act_on_mirrors(request: Request) -> Answer:
    """Do nothing: RabbitMQ synchronises mirrors, and there are none. Raises HttpError."""
    named(request)
    body = Body(request)
    body.require("action")
    if body.values["action"] not in ACTIONS:
        raise bad_request(["unknown", body.values["action"]])
    return no_content()


ROUTES = [
    Route(method="GET", path="/api/queues", handler=list_queues, access=Access.LOGIN, is_list=True,
          query=STATISTICS_QUERY, summary="All queues"),
    Route(method="GET", path="/api/queues/detailed", handler=list_queues, access=Access.LOGIN, is_list=True,
          query=STATISTICS_QUERY, summary="All queues, with everything that is known of them"),
    Route(method="GET", path="/api/queues/{vhost}", handler=list_queues, access=Access.VHOST, is_list=True,
          query=STATISTICS_QUERY, summary="The queues of a vhost"),
    Route(method="GET", path=IN_PATH, handler=read_queue, access=Access.VHOST, query=STATISTICS_QUERY,
          summary="A queue with its consumers"),
    Route(method="PUT", path=IN_PATH, handler=declare_queue, access=Access.VHOST, body=NewQueue,
          summary="Declare a queue"),
    Route(method="DELETE", path=IN_PATH, handler=delete_queue, access=Access.VHOST, query=(
          Query("if-unused", "true: only if it has no consumers"), Query("if-empty", "true: only if it is empty")),
          summary="Delete a queue with its messages"),
    Route(method="DELETE", path=IN_PATH + "/contents", handler=purge_queue, access=Access.VHOST,
          summary="Drop the ready messages of a queue"),
    Route(method="POST", path=IN_PATH + "/actions", handler=act_on_mirrors, access=Access.ADMINISTRATOR, body=Action,
          summary="Synchronise mirrors: accepted, since there are none"),
]
