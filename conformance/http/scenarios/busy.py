"""A broker with connections, channels, consumers, queues of all kinds and traffic: each route that can be read.

What is waited for comes first, so that all that follows shows one state: 9 messages are ready, 3 unacked.
"""
from __future__ import annotations

from conformance.http.clients import Clients
from conformance.http.scenarios.empty import SAMPLES
from conformance.http.scenarios.scenario import VHOST, Scenario, everything_deleted, user_made, vhost_made
from conformance.http.steps import ANY, Act, Request, Step, delete, get, post, put

V = VHOST
QUEUE_VALUES = ("name", "vhost", "type", "durable", "auto_delete", "exclusive", "arguments", "state", "policy",
                "operator_policy", "effective_policy_definition", "messages", "messages_ready",
                "messages_unacknowledged", "consumers")
COUNTS = ("message_stats.publish", "message_stats.deliver", "message_stats.deliver_get", "message_stats.ack",
          "message_stats.get", "message_stats.get_no_ack", "message_stats.get_empty", "message_stats.deliver_no_ack",
          "message_stats.redeliver")

MADE: tuple[Request, ...] = (
    put(f"/exchanges/{V}/events", {"type": "topic", "durable": True, "arguments": {"alternate-exchange": "unrouted"}}),
    put(f"/exchanges/{V}/unrouted", {"type": "fanout", "durable": True}),
    put(f"/exchanges/{V}/internal", {"type": "headers", "durable": False, "auto_delete": False, "internal": True}),
    put(f"/queues/{V}/orders", {"durable": True, "arguments": {"x-message-ttl": 3_600_000}}),
    put(f"/queues/{V}/jobs", {"durable": True, "arguments": {"x-queue-type": "quorum"}}),
    put(f"/queues/{V}/urgent", {"durable": True, "arguments": {"x-max-priority": 5}}),
    put(f"/queues/{V}/lazy", {"durable": True, "arguments": {"x-queue-mode": "lazy"}}),
    put(f"/queues/{V}/single", {"durable": True, "arguments": {"x-single-active-consumer": True}}),
    put(f"/queues/{V}/quiet", {"durable": True}),
    put(f"/queues/{V}/temporary", {"durable": False, "auto_delete": True}),
    post(f"/bindings/{V}/e/events/q/orders", {"routing_key": "order.*", "arguments": {}}),
    post(f"/bindings/{V}/e/events/q/orders", {"routing_key": "order.*", "arguments": {"note": "second"}}),
    post(f"/bindings/{V}/e/events/q/orders", {}),
    post(f"/bindings/{V}/e/events/q/jobs", {"routing_key": "job.#"}),
    post(f"/bindings/{V}/e/events/e/internal", {"routing_key": "#"}),
    put(f"/policies/{V}/shorter", {"pattern": "^orders$", "definition": {"max-length": 1000}, "apply-to": "queues"}),
    put(f"/operator-policies/{V}/capped", {"pattern": "^orders$", "definition": {"max-length": 500}}),
    put(f"/vhost-limits/{V}/max-queues", {"value": 100}),
    put("/user-limits/shapes-worker/max-channels", {"value": 100}),
    put(f"/topic-permissions/{V}/shapes-worker", {"exchange": "events", "write": "^order", "read": ".*"}),
    put("/global-parameters/shapes", {"value": {"a": 1}}),
)


def traffic(clients: Clients) -> None:
    """Publish, deliver, get, acknowledge, requeue, return and drop, then leave some messages ready and some unacked."""
    clients.connect("publisher", V)
    clients.connect("worker", V, user="shapes-worker")
    publish, work = clients.open("publish", "publisher"), clients.open("work", "worker")
    more = clients.open("more", "worker")
    publish.confirm_select()
    clients.publish("publish", "events", "order.new", 9, delivery_mode=2, content_type="text/plain",
                    headers={"tries": 1}, message_id="m-1")
    clients.publish("publish", "events", "job.new", 2, delivery_mode=2)
    clients.publish("publish", "", "urgent", 2, priority=3)
    clients.publish("publish", "", "nowhere", 1)
    clients.publish("publish", "", "nowhere", 1, mandatory=True)
    publish.confirms(15)
    publish.returns(1)
    work.qos(2)
    work.consume("orders", "worker-1", arguments={"x-priority": 1})
    first, _ = work.deliveries(2)
    work.ack(first.tag)
    (third,) = work.deliveries(1)
    work.reject(third.tag, requeue=True)
    work.deliveries(1)
    work.sync()
    work.qos(2)
    more.get("urgent", no_ack=True)
    more.get("quiet")
    more.get("urgent")
    more.consume("quiet", "idle", no_ack=True)
    more.consume("single", "active")
    more.consume("single", "waiting")
    clients.publish("publish", "", "quiet", 1)
    more.deliveries(1)
    owner = clients.open("own", "publisher")
    owner.declare_queue("mine", exclusive=True)
    owner.qos(5, is_global=True)
    owner.tx_select()


# What the statistics must have come to before anything is compared.
WAITED_FOR: tuple[Step, ...] = (
    get(f"/queues/{V}/orders", until={
        "messages_ready": 6, "messages_unacknowledged": 2, "message_stats.ack": 1, "message_stats.redeliver": 1,
        "consumer_details.0.consumer_tag": "worker-1", "policy": "shorter"}),
    get(f"/exchanges/{V}/events", until={"message_stats.publish_in": 11, "message_stats.publish_out": 11}),
    get(f"/exchanges/{V}/amq.default", until={"message_stats.publish_in": ANY}),
    get(f"/queues/{V}/jobs", until={"messages_ready": 2, "message_stats.publish": 2}),
    get(f"/queues/{V}/urgent", until={
        "messages_unacknowledged": 1, "messages": 1, "message_stats.get": 1, "message_stats.get_no_ack": 1}),
    get(f"/queues/{V}/quiet", until={
        "message_stats.get_empty": 1, "message_stats.deliver_no_ack": 1, "consumers": 1}),
    get(f"/queues/{V}/single", until={"consumers": 2, "single_active_consumer_tag": "active"}),
    get(f"/queues/{V}/mine", until={"exclusive": True, "state": "running"}),
    get("/overview", until={
        "queue_totals.messages_ready": 8, "queue_totals.messages_unacknowledged": 3, "object_totals.connections": 2,
        "object_totals.channels": 4, "object_totals.consumers": 4, "message_stats.publish": ANY,
        "message_stats.return_unroutable": ANY, "message_stats.confirm": ANY}),
    get(f"/vhosts/{V}", until={
        "messages_ready": 8, "messages_unacknowledged": 3, "message_stats.publish": ANY, "recv_oct": ANY}),
    get(f"/vhosts/{V}/connections?sort=user_provided_name", until={
        "#": 2, "0.channels": 2, "0.state": "running", "1.channels": 2, "1.state": "running",
        "0.client_properties.connection_name": "publisher"}, save={"connection": "0.name"}),
    get(f"/vhosts/{V}/channels?sort=consumer_count&sort_reverse=true", until={
        "#": 4, "0.consumer_count": 3, "1.consumer_count": 1, "1.messages_unacknowledged": 2},
        save={"channel": "1.name", "worker": "1.connection_details.name"}),
    get(f"/consumers/{V}", until={"#": 4}),
    get("/channels", until={"#": 4}),
    get("/connections", until={"#": 2}),
)

READ: tuple[Step, ...] = (
    get("/overview", values=(
        "queue_totals.messages", "queue_totals.messages_ready", "queue_totals.messages_unacknowledged",
        "object_totals.channels", "object_totals.connections", "object_totals.consumers", "object_totals.queues")),
    get(f"/overview?{SAMPLES}"),
    get("/nodes"),
    get("/nodes/{node}"),
    get("/nodes/{node}?node_stats_age=60&node_stats_incr=5"),
    get("/connections"),
    get(f"/connections?{SAMPLES}"),
    get("/connections?page=1&page_size=10"),
    get("/connections/{connection}", values=(
        "vhost", "user", "protocol", "auth_mechanism", "channels", "ssl", "state", "type", "frame_max", "channel_max",
        "timeout", "client_properties", "user_provided_name", "peer_host", "host")),
    get(f"/connections/{{connection}}?{SAMPLES}"),
    get("/connections/{connection}/channels"),
    get("/connections/username/shapes-worker"),
    get(f"/vhosts/{V}/connections"),
    get("/channels"),
    get("/channels?page=1&page_size=10"),
    get("/channels/{channel}", values=(
        "vhost", "user", "number", "consumer_count", "prefetch_count", "global_prefetch_count", "confirm",
        "transactional", "messages_unacknowledged", "messages_unconfirmed", "messages_uncommitted", "acks_uncommitted",
        "state")),
    get(f"/channels/{{channel}}?{SAMPLES}"),
    get(f"/vhosts/{V}/channels"),
    get("/consumers"),
    get(f"/consumers/{V}"),
    get(f"/consumers/{V}?columns=consumer_tag,ack_required,exclusive,prefetch_count,active,activity_status,arguments,"
        "queue.name&sort=consumer_tag", exact=True),
    get("/exchanges"),
    get(f"/exchanges/{V}"),
    get(f"/exchanges/{V}?page=1&page_size=100"),
    get(f"/exchanges/{V}/events", values=(
        "name", "vhost", "type", "durable", "auto_delete", "internal", "arguments", "message_stats.publish_in",
        "message_stats.publish_out")),
    get(f"/exchanges/{V}/events?{SAMPLES}"),
    get(f"/exchanges/{V}/amq.default"),
    get(f"/exchanges/{V}/internal"),
    get(f"/exchanges/{V}/events/bindings/source"),
    get(f"/exchanges/{V}/internal/bindings/destination", exact=True),
    get(f"/exchanges/{V}/amq.default/bindings/source?sort=destination", exact=True),
    get("/queues"),
    get(f"/queues?{SAMPLES}"),
    get(f"/queues/{V}"),
    get(f"/queues/{V}?page=1&page_size=100&name=&use_regex=false&pagination=true"),
    get(f"/queues/{V}?page=1&use_regex=true&pagination=false&name=orders&page_size=100"),
    get(f"/queues/{V}/orders", values=(*QUEUE_VALUES, *COUNTS)),
    get(f"/queues/{V}/orders?{SAMPLES}"),
    get(f"/queues/{V}/jobs", values=QUEUE_VALUES),
    get(f"/queues/{V}/urgent", values=(*QUEUE_VALUES, *COUNTS)),
    get(f"/queues/{V}/lazy", values=QUEUE_VALUES),
    get(f"/queues/{V}/single", values=(*QUEUE_VALUES, "single_active_consumer_tag")),
    get(f"/queues/{V}/quiet", values=(*QUEUE_VALUES, *COUNTS)),
    get(f"/queues/{V}/temporary", values=QUEUE_VALUES),
    get(f"/queues/{V}/mine", values=QUEUE_VALUES),
    get(f"/queues/{V}/orders/bindings"),
    get(f"/queues/{V}/quiet/bindings", exact=True),
    get(f"/queues/{V}?columns=name,messages,messages_ready,messages_unacknowledged,consumers&sort=name", exact=True),
    get(f"/queues/{V}?columns=name,message_stats.publish,message_stats.publish_details.rate&sort=message_stats.publish"
        "&sort_reverse=true"),
    # Statistics left out, as by ServiceControl and rabbitmqadmin
    get("/overview?disable_stats=true"),
    get("/queues?disable_stats=true"),
    get("/queues?disable_stats=true&enable_queue_totals=true"),
    get(f"/queues/{V}?disable_stats=true&enable_queue_totals=true&sort=name", exact=True),
    get(f"/queues/{V}/orders?disable_stats=true&enable_queue_totals=true"),
    get(f"/queues/{V}?page=1&page_size=100&disable_stats=true&enable_queue_totals=true"),
    get("/exchanges?disable_stats=true"),
    get("/connections?disable_stats=true"),
    get("/channels?disable_stats=true"),
    get("/consumers?disable_stats=true"),
    get("/vhosts?disable_stats=true"),
    get("/nodes?disable_stats=true"),
    get("/bindings"),
    get(f"/bindings/{V}"),
    get(f"/bindings/{V}?columns=source,destination,destination_type,routing_key,arguments,properties_key"
        "&sort=properties_key"),
    get(f"/bindings/{V}/e/events/q/orders"),
    get(f"/bindings/{V}/e/events/q/jobs", exact=True),
    get(f"/bindings/{V}/e/events/e/internal", exact=True),
    get(f"/bindings/{V}/e/events/q/jobs/job.%23", exact=True),
    get(f"/bindings/{V}/e/amq.default/q/orders", exact=True),
    get("/vhosts"),
    get(f"/vhosts/{V}", values=("name", "messages", "messages_ready", "messages_unacknowledged")),
    get(f"/vhosts/{V}?{SAMPLES}"),
    get(f"/vhosts/{V}/permissions"),
    get(f"/vhosts/{V}/topic-permissions", exact=True),
    get("/users"),
    get("/users/shapes-worker"),
    get("/users/shapes-worker/permissions", exact=True),
    get("/users/shapes-worker/topic-permissions", exact=True),
    get("/permissions"),
    get("/topic-permissions", exact=True),
    get(f"/topic-permissions/{V}/shapes-worker", exact=True),
    get("/policies", exact=True),
    get(f"/policies/{V}/shorter", exact=True),
    get("/operator-policies", exact=True),
    get(f"/operator-policies/{V}/capped", exact=True),
    get("/parameters"),
    get(f"/parameters/vhost-limits/{V}"),
    get("/global-parameters"),
    get("/global-parameters/shapes", exact=True),
    get("/vhost-limits", exact=True),
    get(f"/vhost-limits/{V}", exact=True),
    get("/user-limits", exact=True),
    get("/user-limits/shapes-worker", exact=True),
    get("/definitions"),
    get(f"/definitions/{V}"),
    get("/auth/attempts/{node}"),
    get("/auth/attempts/{node}/source"),
)

QUEUES = ("orders", "jobs", "urgent", "lazy", "single", "quiet", "temporary", "mine")
# The queues first: RabbitMQ's totals of a vhost that is deleted with its messages are wrong when it is made again.
CLEANUP = (*(delete(f"/queues/{V}/{queue}") for queue in QUEUES),
           *everything_deleted("/users/shapes-worker", "/global-parameters/shapes"))
PREPARE: tuple[Step, ...] = (*vhost_made(), *user_made("shapes-worker"))
TRAFFIC = Act("publish, deliver, get, acknowledge, requeue, return and drop", traffic)

SCENARIO = Scenario("busy", "Connections, channels, consumers, queues and traffic: each route that can be read.",
                    (*MADE, TRAFFIC, *WAITED_FOR, *READ), prepare=PREPARE, cleanup=CLEANUP)

# A broker that was started without statistics: the same, without a wait for what is never counted.
WITHOUT_STATISTICS = Scenario(
    "without_statistics", "As busy, on a broker that was started with its statistics off.",
    (TRAFFIC, *(get(step.path) for step in READ if isinstance(step, Request) and "{c" not in step.path)),
    prepare=(*PREPARE, *MADE), cleanup=CLEANUP, statistics=False)
