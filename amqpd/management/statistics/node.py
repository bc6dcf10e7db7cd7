"""The numbers of the node that have a history: of the process, the disk, and the store."""

from __future__ import annotations

from collections.abc import Mapping

from amqpd.broker.counts import Churn
from amqpd.management.statistics.history import Numbers

NodeNumbers = Mapping[str, int]

MEASURED = ("mem_used", "fd_used", "sockets_used", "proc_used", "disk_free", "gc_num", "context_switches")
# Counts of the store: batches and pieces of bodies written, and their bytes; messages read.
STORE = (
    "io_read_count", "io_read_bytes", "io_write_count", "io_write_bytes", "io_sync_count", "msg_store_read_count",
    "msg_store_write_count", "mnesia_disk_tx_count")
# What only an Erlang node has: 0, since some programs fail without these keys.
ERLANG = (
    "gc_bytes_reclaimed", "io_seek_count", "io_reopen_count", "mnesia_ram_tx_count", "queue_index_read_count",
    "queue_index_write_count", "queue_index_journal_write_count", "io_file_handle_open_attempt_count")
COMMITS = ("commit_us", "commit_count")     # amqpd's own: from their samples, how long a commit took at a time
NODE_FIELDS = (*MEASURED, *STORE, *ERLANG, *Churn.__slots__, *COMMITS)
# Averages, in ms, each of a time in microseconds and a count; those without are 0.
AVERAGES: dict[str, tuple[str, str] | None] = {
    "io_write_avg_time": COMMITS, "io_sync_avg_time": COMMITS, "io_read_avg_time": None, "io_seek_avg_time": None,
    "io_file_handle_open_attempt_avg_time": None}


def node_numbers(measured: NodeNumbers) -> Numbers:
    """Return what `NODE_FIELDS` names; what was not measured is 0."""
    return tuple([measured.get(name, 0) for name in NODE_FIELDS])
