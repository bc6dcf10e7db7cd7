"""The metrics of the broker as a whole: the process, the disk, the store, logins, and totals of messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from amqpd.broker.broker import Broker
from amqpd.broker.counts import DELIVERED, Totals, Values
from amqpd.broker.measures import Measures
from amqpd.management.metrics.families import (
    ALARMS,
    BUILD_INFO,
    GLOBAL,
    GROUPS,
    IDENTITY_INFO,
    OF_STORE,
    OWN,
    Family,
)
from amqpd.management.metrics.text import Number, histogram, several, single

PROTOCOL = {"protocol": "amqp091"}
OWN_FAMILIES = {family.name.removeprefix("amqpd_"): family for family in OWN}
# As RabbitMQ's: which dead letters a strategy can have, by queue type.
STRATEGIES = {
    "classic": ("at_most_once", "disabled"), "quorum": ("at_least_once", "at_most_once", "disabled")}
NEVER = {("maxlen", "at_least_once"), ("confirmed", "at_most_once"), ("confirmed", "disabled")}
OF_QUORUM_QUEUES = ("delivery_limit", "confirmed")


class NodeFacts(msgspec.Struct, kw_only=True):
    """What the metrics need of the node, at this moment.

    `status` is what `amqpctl status` shows, `node` the statistics of the node, `store` what the store tells of itself.
    """

    status: Mapping[str, Any]
    node: Mapping[str, Any]
    totals: Totals
    publishers: int
    measures: Measures
    attempts: Mapping[str, list[int]]
    requests: Mapping[int, int]
    build: Mapping[str, str]
    identity: Mapping[str, str]
    store: Any = None


def about(facts: NodeFacts, endpoint: str) -> str:
    """Return which version this is, and which node; as in RabbitMQ 4, also which of the texts."""
    identity = {**facts.identity, "rabbitmq_endpoint": endpoint}
    return single("rabbitmq_", BUILD_INFO, 1, facts.build) + single("rabbitmq_", IDENTITY_INFO, 1, identity)


def alarms(facts: NodeFacts) -> str:
    """Return which alarms are raised."""
    raised = {one["resource"] for one in facts.status["alarms"]}
    return "".join([
        single("rabbitmq_", family, int(resource in raised))
        for family, resource in zip(ALARMS, ("file_descriptors", "disk", "memory"))])


def node_groups(facts: NodeFacts, churn: Values) -> dict[str, tuple[Number, ...]]:
    """Return the values of each group of the node, in the order of its families."""
    status, node, commits = facts.status, facts.node, facts.measures.commit_seconds
    limit = status["file_descriptors"]["total_limit"]
    return {
        "connection_churn_metrics": churn,
        "node_coarse_metrics": tuple([node[name] for name in (
            "fd_used", "sockets_used", "mem_used", "disk_free", "gc_num", "context_switches")]),
        "node_metrics": (
            limit, limit, status["vm_memory_high_watermark_limit"], status["disk_free_limit"], status["uptime"]),
        "node_persister_metrics": (
            *[node[name] for name in (
                "io_read_count", "io_read_bytes", "io_write_count", "io_write_bytes", "io_sync_count",
                "mnesia_disk_tx_count", "msg_store_read_count", "msg_store_write_count")],
            commits.sum, commits.sum),      # a batch is written and synced in one
    }


def logins(prefix: str, facts: NodeFacts) -> str:
    """Return how many logins there were, by protocol."""
    families = GROUPS["auth_attempt_metrics"]
    return "".join([
        several(prefix, family, [({"protocol": name}, value(counts)) for name, counts in facts.attempts.items()])
        for family, value in zip(families, (sum, lambda counts: counts[0], lambda counts: counts[1]))])


def commit_latency(measures: Measures) -> float:
    """Return the mean time of a commit, in seconds."""
    commits = measures.commit_seconds
    return commits.sum / commits.count if commits.count else 0.0


# RabbitMQ's totals of messages

def global_metrics(facts: NodeFacts, broker: Broker, consumers: int) -> Iterator[str]:
    """Yield the totals of all messages since the start, by protocol, queue type, and what became of dead letters."""
    received, confirmed, returned, dropped, received_confirm, routed = facts.totals.published
    plain = {
        "consumers": consumers, "publishers": facts.publishers, "messages_received_total": received,
        "messages_confirmed_total": confirmed, "messages_unroutable_returned_total": returned,
        "messages_unroutable_dropped_total": dropped, "messages_received_confirm_total": received_confirm,
        "messages_routed_total": routed}
    delivered = {kind: _delivered(facts.totals.delivered.get(kind, [0] * len(DELIVERED))) for kind in STRATEGIES}
    for family in GLOBAL:
        name = family.name.removeprefix("global_")
        if name in plain:
            yield single("rabbitmq_", family, plain[name], PROTOCOL)
        elif name.startswith("messages_dead_lettered_"):
            reason = name.removeprefix("messages_dead_lettered_").removesuffix("_total")
            yield _dead_lettered(family, reason, facts.totals)
        else:
            yield several("rabbitmq_", family, [
                ({**PROTOCOL, "queue_type": f"rabbit_{kind}_queue"}, values[name])
                for kind, values in delivered.items()])


def _delivered(counts: list[int]) -> dict[str, int]:
    deliver, deliver_no_ack, get, get_no_ack, get_empty, redeliver, ack = counts
    return {
        "messages_delivered_consume_manual_ack_total": deliver,
        "messages_delivered_consume_auto_ack_total": deliver_no_ack,
        "messages_delivered_get_manual_ack_total": get,
        "messages_delivered_get_auto_ack_total": get_no_ack,
        "messages_delivered_total": deliver + deliver_no_ack + get + get_no_ack,
        "messages_get_empty_total": get_empty,
        "messages_redelivered_total": redeliver,
        "messages_acknowledged_total": ack,
    }


def _dead_lettered(family: Family, reason: str, totals: Totals) -> str:
    return several("rabbitmq_", family, [
        ({"queue_type": f"rabbit_{kind}_queue", "dead_letter_strategy": strategy},
         totals.dropped.get((kind, reason, strategy), 0))
        for kind, strategies in STRATEGIES.items() if kind == "quorum" or reason not in OF_QUORUM_QUEUES
        for strategy in strategies if (reason, strategy) not in NEVER])


# amqpd's own

def own_metrics(facts: NodeFacts, broker: Broker, set_aside: int) -> Iterator[str]:
    """Yield what only amqpd has."""
    measures, budget = facts.measures, broker.page_store.budget
    for name, found in (
            ("commit_seconds", measures.commit_seconds), ("commit_changes", measures.batch_changes),
            ("commit_bytes", measures.batch_bytes), ("loop_lag_seconds", measures.loop_lag_seconds)):
        yield histogram(OWN_FAMILIES[name], found)
    for name, value in (
            ("body_pieces_written_total", measures.body_pieces), ("body_bytes_written_total", measures.body_bytes),
            ("paged_out_pages_total", budget.paged_out_pages), ("paged_out_messages_total", budget.paged_out_messages),
            ("paged_out_bytes_total", budget.paged_out_bytes), ("spilled_bytes_total", measures.spilled_bytes),
            ("delivery_watermarks_total", broker.journal.watermark_count),
            ("paged_messages_read_total", measures.read_messages), ("paged_bytes_read_total", measures.read_bytes),
            ("set_aside_messages", set_aside)):
        yield single("", OWN_FAMILIES[name], value)
    yield several("", OWN_FAMILIES["http_requests_total"], [
        ({"code": str(code)}, count) for code, count in sorted(facts.requests.items())])
    if facts.store is not None:
        store = facts.store
        for family, value in zip(OF_STORE, (store.file_bytes, store.wal_bytes, store.messages, store.damaged)):
            yield single("", family, value)
