"""The memory and disk use of queues: the columns of `list_queues` that are not a mere attribute of the queue.

Ready messages are counted page by page. Unacknowledged messages have to be visited one by one, and only up to
`MOST_COUNTED` in a vhost, since more would hold up clients: beyond that, columns that depend on their sizes are empty.

Always true: a value that is not known is empty, as in RabbitMQ, and never a guess.

RabbitMQ docs/man/rabbitmqctl.8 (list_queues), docs/lazy-queues.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from amqpd.broker.broker import Broker
from amqpd.broker.queue.queue import Queue
from amqpd.broker.queue.segment import MESSAGE_COST, body_bytes, number_of
from amqpd.broker.vhost import Vhost
from amqpd.message import Message
from amqpd.properties import read_timestamp

COLUMNS = frozenset((
    "memory", "message_bytes", "message_bytes_unacknowledged", "messages_ram", "messages_ready_ram",
    "messages_unacknowledged_ram", "message_bytes_ram", "messages_paged_out", "message_bytes_paged_out",
    "messages_persistent", "message_bytes_persistent", "head_message_timestamp"))
MOST_COUNTED = 50_000
PAGED_COST = 20         # bytes of memory for a message that is only on disk, about; see broker/queue/pages.py
NOT_KNOWN = ""

Runs = dict[Queue, list[Message]]


def unacked_runs(broker: Broker, vhost: Vhost, most: int = MOST_COUNTED) -> Runs | None:
    """Return the unacknowledged messages of the vhost's queues; None if there are more than `most`."""
    connections = [one for one in broker.connections.values() if one.vhost_name == vhost.name]
    # From the connections, since they may hold messages of queues that have been deleted.
    if sum([connection.unacked_count for connection in connections]) > most:
        return None
    runs: Runs = {}
    for connection in connections:
        for queue, run in connection.unacked_runs():
            runs.setdefault(queue, []).extend(run)
    return runs


def queue_usage(queue: Queue, runs: Runs | None) -> dict[str, Any]:
    """Return `COLUMNS` of a queue. An unacknowledged message is in memory unless its content has been released."""
    unacked = runs.get(queue, []) if runs is not None else None if queue.unacked else []
    away, away_bytes = queue.ready.on_disk_only
    in_memory, ready_bytes = len(queue.ready) - away, queue.ready.body_bytes
    record: dict[str, Any] = {"messages_ready_ram": in_memory, "messages_persistent": queue.records.kept_on_disk}
    if unacked is None:
        if not queue.records.has_released:
            record |= {
                "messages_unacknowledged_ram": queue.unacked,
                "messages_ram": in_memory + queue.unacked,
                "messages_paged_out": away,
                "message_bytes_paged_out": away_bytes,
            }
        return record | dict.fromkeys(COLUMNS - record.keys(), NOT_KNOWN)
    released = [message for message in unacked if not message.content]
    unacked_bytes, released_bytes = body_bytes(unacked), body_bytes(released)
    ram_bytes = ready_bytes - away_bytes + unacked_bytes - released_bytes
    return record | {
        "messages_unacknowledged_ram": queue.unacked - len(released),
        "messages_ram": in_memory + queue.unacked - len(released),
        "messages_paged_out": away + len(released),
        "message_bytes_paged_out": away_bytes + released_bytes,
        "memory": (queue.ready.cost + PAGED_COST * away + unacked_bytes - released_bytes
                   + MESSAGE_COST * len(unacked)),
        "message_bytes": ready_bytes + unacked_bytes,
        "message_bytes_unacknowledged": unacked_bytes,
        "message_bytes_ram": ram_bytes,
        "message_bytes_persistent": _persistent_bytes(queue, ready_bytes + unacked_bytes),
        "head_message_timestamp": _head_timestamp(queue, unacked),
    }


def _persistent_bytes(queue: Queue, size: int) -> int | str:
    """Return the bytes of persistent messages; not known if only some messages are persistent."""
    if not queue.records.kept_on_disk:
        return 0
    is_all = queue.records.kept_on_disk == len(queue.ready) + queue.unacked and not queue.rules.is_at_least_once
    return size if is_all else NOT_KNOWN


def _head_timestamp(queue: Queue, unacked: list[Message]) -> int | str:
    """Return the earlier timestamp of the first ready and the first unacknowledged message, if they are in memory."""
    page = queue.ready.next_page
    heads = [] if page is not None and page.content is None else [*islice(queue.ready, 1)]
    if unacked:
        first = min(unacked, key=number_of)
        if not first.content:
            return NOT_KNOWN
        heads.append(first)
    stamps = [stamp for head in heads if (stamp := read_timestamp(head.properties)) is not None]
    return min(stamps, default=NOT_KNOWN)
