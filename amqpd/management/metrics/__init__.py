"""Metrics as text for Prometheus, with RabbitMQ's names and some of amqpd's own. RabbitMQ docs/prometheus."""

from __future__ import annotations

from amqpd.management.metrics.exposition import Exposition
from amqpd.management.metrics.node_metrics import NodeFacts

__all__ = ["Exposition", "NodeFacts"]
