"""Measure the process for the statistics of the node."""

from __future__ import annotations

import gc
import os
import resource

from amqpd.broker.broker import Broker
from amqpd.broker.measures import Measures
from amqpd.server.alarms import Alarms


def measure(alarms: Alarms, broker: Broker, measures: Measures) -> dict[str, int]:
    """Return the numbers of this moment, under RabbitMQ's names; those of the store since it was opened."""
    found = alarms.statistics()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    commits = measures.commit_seconds
    return {
        "mem_used": found["memory"]["total"]["rss"],
        "disk_free": found["disk_free"],
        "fd_used": len(os.listdir("/dev/fd")),
        "sockets_used": len(broker.connections),
        "gc_num": sum([generation["collections"] for generation in gc.get_stats()]),
        "context_switches": usage.ru_nvcsw + usage.ru_nivcsw,
        "io_read_count": measures.read_messages,
        "io_read_bytes": measures.read_bytes,
        "io_write_count": commits.count + measures.body_pieces,
        "io_write_bytes": int(measures.batch_bytes.sum) + measures.body_bytes,
        "io_sync_count": commits.count + measures.body_pieces,
        "msg_store_read_count": measures.read_messages,
        "msg_store_write_count": int(measures.batch_changes.sum),
        "mnesia_disk_tx_count": commits.count,
        "commit_count": commits.count,
        "commit_us": int(commits.sum * 1_000_000),
    }
