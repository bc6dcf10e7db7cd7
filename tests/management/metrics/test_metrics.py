"""Metrics for Prometheus: RabbitMQ's names, types, texts and labels, and values that are true.

`rabbitmq_3_10_8.json` has the families that RabbitMQ 3.10.8 answered at /metrics and /metrics/per-object.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pika import BlockingConnection, URLParameters
from pika.exceptions import ProbableAuthenticationError
from prometheus_client.parser import text_string_to_metric_families

from amqpd.broker.broker import Broker
from amqpd.broker.definitions import QueueDefinition
from amqpd.broker.measures import Measures
from amqpd.management.metrics import Exposition, NodeFacts
from amqpd.management.metrics.families import GROUPS, OF_STORE, OWN
from amqpd.store.journal import Journal
from tests.support.api import Api, running
from tests.support.talk import Stage

RABBITMQ: dict[str, Any] = json.loads(Path(__file__).with_name("rabbitmq_3_10_8.json").read_text())
PAGE = (Path(__file__).parents[3] / "docs/metrics.md").read_text()
# What the dashboards 10991 (RabbitMQ-Overview) and 11340 (RabbitMQ-Quorum-Queues-Raft) of Grafana ask for: the names in
# the expressions of RabbitMQ's deps/rabbitmq_prometheus/docker/grafana/dashboards. Older revisions of the Overview read
# the totals of channels, newer ones the global totals.
OF_CHANNELS = (
    "messages_published", "messages_confirmed", "messages_unroutable_dropped", "messages_unroutable_returned",
    "messages_delivered", "messages_delivered_ack", "messages_redelivered", "messages_acked", "get", "get_ack",
    "get_empty")
OF_TYPES = (
    "delivered", "delivered_consume_auto_ack", "delivered_consume_manual_ack", "delivered_get_auto_ack",
    "delivered_get_manual_ack", "get_empty", "redelivered", "acknowledged")
OF_PUBLISHES = (
    "received", "received_confirm", "routed", "confirmed", "unroutable_dropped", "unroutable_returned")
OVERVIEW = {
    "rabbitmq_build_info", "rabbitmq_identity_info", "rabbitmq_connections", "rabbitmq_channels", "rabbitmq_queues",
    "rabbitmq_consumers", "rabbitmq_connections_opened_total", "rabbitmq_connections_closed_total",
    "rabbitmq_channels_opened_total", "rabbitmq_channels_closed_total", "rabbitmq_queues_declared_total",
    "rabbitmq_queues_created_total", "rabbitmq_queues_deleted_total", "rabbitmq_queue_messages_ready",
    "rabbitmq_queue_messages_unacked", "rabbitmq_process_open_fds", "rabbitmq_process_max_fds",
    "rabbitmq_process_open_tcp_sockets", "rabbitmq_process_max_tcp_sockets",
    "rabbitmq_process_resident_memory_bytes", "rabbitmq_resident_memory_limit_bytes",
    "rabbitmq_disk_space_available_bytes", "rabbitmq_disk_space_available_limit_bytes",
    "rabbitmq_erlang_uptime_seconds", "rabbitmq_global_publishers", "rabbitmq_global_consumers",
    "rabbitmq_channel_consumers", "rabbitmq_channel_messages_unconfirmed", "rabbitmq_queue_messages_published_total",
    *(f"rabbitmq_channel_{name}_total" for name in OF_CHANNELS),
    *(f"rabbitmq_global_messages_{name}_total" for name in (*OF_TYPES, *OF_PUBLISHES))}
RAFT = {
    "rabbitmq_raft_log_commit_index", "rabbitmq_raft_log_last_written_index", "rabbitmq_raft_log_snapshot_index",
    "rabbitmq_raft_term_total", "rabbitmq_raft_entry_commit_latency_seconds"}
SUCCEEDED = "rabbitmq_auth_attempts_succeeded_total"
Series = dict[str, list[tuple[dict[str, str], float]]]


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    """A broker with a classic and a quorum queue, 3 publishes and a get each; and a publish to no queue.

    A client has a channel, with which all series of channels are there.
    """
    with running() as found, opened(found):
        for name, kind in (("a", "classic"), ("jobs", "quorum")):
            path = f"/queues/%2F/{name}"
            assert found.put(path, {"durable": True, "arguments": {"x-queue-type": kind}}) == 201
            for _ in range(3):
                publish(found, name)
            reply = found.ask("POST", f"{path}/get", {"count": 1, "ackmode": "ack_requeue_false", "encoding": "auto"})
            assert reply.status == 200
        publish(found, "nowhere")
        assert found.put('/queues/%2F/x"y%5Cz', {}) == 201
        yield found


def opened(api: Api) -> BlockingConnection:
    """Return an AMQP connection with a channel."""
    connection = BlockingConnection(URLParameters(f"amqp://guest:guest@127.0.0.1:{api.amqp_port}/?heartbeat=0"))
    connection.channel()
    return connection


def publish(api: Api, queue: str) -> None:
    reply = api.ask("POST", "/exchanges/%2F/amq.default/publish", {
        "properties": {"delivery_mode": 2}, "routing_key": queue, "payload": "12345", "payload_encoding": "string"})
    assert reply.status == 200, reply


def read(api: Api, path: str, **named: Any) -> str:
    reply = api.ask("GET", path, prefix="", **named)
    assert (reply.status, reply.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8"), reply
    return reply.body.decode()


def series(text: str) -> Series:
    """Return all samples by name, as Prometheus' own parser reads them; each family is one block."""
    found: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names)), "a family is in two blocks"
    return found


def values(found: Series, name: str) -> list[float]:
    return [value for _, value in found[name]]


def described(text: str) -> dict[str, tuple[str, str]]:
    """Return type and text of each family."""
    types = {line.split()[2]: line.split()[3] for line in text.splitlines() if line.startswith("# TYPE ")}
    texts = dict(line.removeprefix("# HELP ").split(" ", 1) for line in text.splitlines() if line.startswith("# HELP "))
    return {name: (kind, texts[name]) for name, kind in types.items()}


@pytest.mark.parametrize("path", ["/metrics", "/metrics/per-object"])
def test_families_are_those_of_rabbitmq_with_its_types_and_texts(api: Api, path: str) -> None:
    ours = described(read(api, path))
    for name, (kind, text) in ours.items():
        if name.startswith("rabbitmq_"):
            assert (kind, text) == (RABBITMQ[name]["type"], RABBITMQ[name]["help"]), name
    left_out = {name for name in RABBITMQ if name not in ours}
    told = {line.strip("- `") for line in PAGE.partition("## Left out")[2].splitlines() if line.startswith("- `")}
    assert left_out == told


def test_series_have_rabbitmqs_labels(api: Api) -> None:
    found = series(read(api, "/metrics/per-object"))
    for name in ("rabbitmq_queue_messages_ready", "rabbitmq_raft_log_commit_index", "rabbitmq_queue_consumers"):
        assert [[*labels] for labels, _ in found[name]] == [RABBITMQ[name]["labels"]] * len(found[name])
    for name in found:
        if name.startswith("rabbitmq_global_"):
            assert [*found[name][0][0]] == RABBITMQ[name]["labels"], name
    assert [*found["rabbitmq_build_info"][0][0]][:4] == RABBITMQ["rabbitmq_build_info"]["labels"]
    *labels, of_rabbitmq_4 = found["rabbitmq_identity_info"][0][0]
    assert (labels, of_rabbitmq_4) == (RABBITMQ["rabbitmq_identity_info"]["labels"], "rabbitmq_endpoint")


def test_logins_are_counted_by_protocol(api: Api) -> None:
    before = {labels["protocol"]: count for labels, count in series(read(api, "/metrics"))[SUCCEEDED]}
    for password, status in (("guest", 200), ("wrong", 401)):
        assert api.ask("GET", "/whoami", user=("guest", password)).status == status
    with pytest.raises(ProbableAuthenticationError):
        BlockingConnection(URLParameters(f"amqp://guest:wrong@127.0.0.1:{api.amqp_port}/"))
    with opened(api):
        found = series(read(api, "/metrics", user=None))
    counts = [{labels["protocol"]: count for labels, count in found[name]} for name in (
        SUCCEEDED, "rabbitmq_auth_attempts_failed_total", "rabbitmq_auth_attempts_total")]
    assert counts[0] == {"amqp091": before["amqp091"] + 1, "http": before["http"] + 1} and before["amqp091"] >= 1
    assert counts[1] == {"amqp091": 1, "http": 1}
    assert counts[2] == {name: count + 1 for name, count in counts[0].items()}


@pytest.mark.parametrize("path", ["/metrics", "/metrics/per-object"])
def test_the_dashboards_find_their_series(api: Api, path: str) -> None:
    found = series(read(api, path))
    assert OVERVIEW | RAFT <= found.keys()
    # They join with the one series of the node, by instance and job, and by endpoint since RabbitMQ 4.
    (identity, _), = found["rabbitmq_identity_info"]
    assert {"rabbitmq_node", "rabbitmq_cluster"} <= identity.keys()
    assert identity["rabbitmq_endpoint"] == ("aggregated" if path == "/metrics" else "per-object")
    assert all(labels["protocol"] == "amqp091" for labels, _ in found["rabbitmq_global_messages_acknowledged_total"])


def test_sums_are_true(api: Api) -> None:
    found = series(read(api, "/metrics"))
    assert values(found, "rabbitmq_queue_messages_ready") == values(found, "rabbitmq_queue_messages") == [4]
    assert values(found, "rabbitmq_queue_messages_ready_bytes") == [20]
    assert values(found, "rabbitmq_queue_messages_published_total") == [6]
    assert values(found, "rabbitmq_queues") == values(found, "rabbitmq_queues_created_total") == [3]
    assert values(found, "rabbitmq_global_messages_received_total") == [7]
    assert values(found, "rabbitmq_global_messages_routed_total") == [6]
    assert values(found, "rabbitmq_global_messages_acknowledged_total") == [1, 1]
    assert values(found, "rabbitmq_global_messages_unroutable_returned_total") == [1]
    assert values(found, "rabbitmq_raft_log_commit_index") == [4]       # of the quorum queue: 3 publishes, 1 settle
    assert values(found, "rabbitmq_process_resident_memory_bytes")[0] > 1_000_000
    assert values(found, "rabbitmq_resident_memory_limit_bytes")[0] > 1_000_000
    assert values(found, "rabbitmq_alarms_memory_used_watermark") == [0]
    assert ({"code": "201"}, 3) in found["amqpd_http_requests_total"]


def test_each_queue_has_its_series_and_names_are_escaped(api: Api) -> None:
    found = series(read(api, "/metrics/per-object"))
    seen = [
        ({"vhost": "/", "queue": "a"}, 2), ({"vhost": "/", "queue": "jobs"}, 2), ({"vhost": "/", "queue": 'x"y\\z'}, 0)]
    assert found["rabbitmq_queue_messages_ready"] == seen
    assert found["rabbitmq_queue_messages_published_total"][1] == ({"queue_vhost": "/", "queue": "jobs"}, 3)
    assert found["rabbitmq_raft_log_commit_index"] == [(seen[1][0], 4)]


def test_only_groups_and_vhosts_that_are_asked_for_are_detailed(api: Api) -> None:
    always = {"rabbitmq_build_info", "rabbitmq_identity_info"}
    assert series(read(api, "/metrics/detailed")).keys() == always
    found = series(read(api, "/metrics/detailed?family=queue_coarse_metrics&family=vhost_status"))
    assert found.keys() == always | {"rabbitmq_cluster_vhost_status"} | {
        f"rabbitmq_detailed_{family.name}" for family in GROUPS["queue_coarse_metrics"]}
    assert len(found["rabbitmq_detailed_queue_messages"]) == 3
    path = "/metrics/detailed?family=queue_coarse_metrics&vhost=other&vhost="
    assert "rabbitmq_detailed_queue_messages" not in series(read(api, path + "more"))
    assert len(series(read(api, path + "%2F"))["rabbitmq_detailed_queue_messages"]) == 3
    every = series(read(api, "/metrics/detailed?" + "&".join(
        f"family={group}" for group in (*GROUPS, "exchange_names", "exchange_bindings"))))
    assert every["rabbitmq_detailed_connections_opened_total"] == series(read(api, "/metrics"))[
        "rabbitmq_connections_opened_total"]
    assert ({"vhost": "/", "exchange": "amq.topic", "type": "topic"}, 0) in every["rabbitmq_cluster_exchange_bindings"]


def test_names_of_objects_are_for_users_with_the_tag_monitoring(api: Api) -> None:
    read(api, "/metrics", user=None)
    assert api.put("/users/plain", {"password": "p", "tags": "management"}) == 201
    for path in ("/metrics/per-object", "/metrics/detailed?family=queue_metrics"):
        assert api.ask("GET", path, prefix="", user=None).status == 401
        assert api.ask("GET", path, prefix="", user=("plain", "p")).status == 401


@pytest.mark.parametrize("accepted", ["text/plain", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"])
def test_prometheus_gets_text_that_it_accepts(api: Api, accepted: str) -> None:
    series(read(api, "/metrics", headers={"Accept": accepted}))


def test_histograms_add_up(api: Api) -> None:
    api.runtime.measures.committed(0.003, 20, 5_000)
    found = series(read(api, "/metrics"))
    buckets = {float(labels["le"]): count for labels, count in found["amqpd_commit_seconds_bucket"]}
    assert (buckets[0.0025], buckets[0.005], buckets[math.inf]) == (0, 1, 1)
    assert values(found, "amqpd_commit_seconds_count") == [1]
    assert values(found, "amqpd_commit_changes_sum") == [20]


def test_the_page_has_all_families_of_amqpd() -> None:
    rows = {line.split("`")[1] for line in PAGE.splitlines() if line.startswith("| `amqpd_")}
    assert rows == {family.name for family in (*OWN, *OF_STORE)}


def facts_of(broker: Broker) -> NodeFacts:
    status = {"file_descriptors": {"total_limit": 1}, "vm_memory_high_watermark_limit": 1, "disk_free_limit": 1,
              "uptime": 1, "alarms": []}
    return NodeFacts(
        status=status, node=defaultdict(int), totals=broker.totals, publishers=0, measures=Measures(), attempts={},
        requests={}, build={}, identity={})


def test_what_left_memory_and_raised_watermarks_are_counted() -> None:
    broker = Broker(Journal())
    budget = broker.page_store.budget
    budget.paged_out_pages, budget.paged_out_messages, budget.paged_out_bytes = 2, 30, 400
    broker.journal.watermark_raised(QueueDefinition(1, "/", "q", durable=True), 1_000)
    facts = facts_of(broker)
    facts.measures.spilled_bytes = 5_000
    found = series("".join(Exposition(broker, lambda: facts, lambda: None).aggregated()))
    assert [values(found, f"amqpd_{name}_total") for name in (
        "paged_out_pages", "paged_out_messages", "paged_out_bytes", "spilled_bytes", "delivery_watermarks")] == [
            [2], [30], [400], [5_000], [1]]


def test_many_series_are_made_in_short_turns() -> None:
    broker, turns = Stage().broker, []
    vhost, user = broker.vhosts["/"], next(iter(broker.users.values()))
    for number in range(5):
        vhost.declare_queue(user, QueueDefinition(0, "/", f"q{number}"), None)
    metrics = Exposition(broker, lambda: facts_of(broker), lambda: turns.append(1), slice_size=2, written=2)
    samples = [part.count("queue=") for part in metrics.detailed(["queue_coarse_metrics"])]
    assert (max(samples), sum(samples), len(turns)) == (2, 15, 3)
