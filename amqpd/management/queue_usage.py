"""What the messages of queues take, in memory and on disk: the columns of `list_queues` that cost more than a look.

Waiting messages are counted page by page. Those that are unacknowledged have to be looked at one by one, and so they
are up to `MOST_COUNTED` in a vhost; beyond that it would hold up clients, and what depends on their sizes is not known.

Always true: what is not known is empty, as with RabbitMQ, and never a guess.

RabbitMQ docs/man/rabbitmqctl.8 (list_queues), docs/lazy-queues.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from amqpd.broker.broker import Broker
from amqpd.broker.queue.queue import Queue
from amqpd.broker.queue.segment import MESSAGE_COST, body_octets, number_of
from amqpd.broker.vhost import Vhost
from amqpd.message import Message
from amqpd.properties import read_timestamp

COLUMNS = frozenset((
    "memory", "message_bytes", "message_bytes_unacknowledged", "messages_ram", "messages_ready_ram",
    "messages_unacknowledged_ram", "message_bytes_ram", "messages_paged_out", "message_bytes_paged_out",
    "messages_persistent", "message_bytes_persistent", "head_message_timestamp"))
MOST_COUNTED = 50_000
PAGED_COST = 20         # bytes of memory for a message that is on disk only, about; see broker/queue/pages.py
NOT_KNOWN = ""

Runs = dict[Queue, list[Message]]


def unacked_runs(broker: Broker, vhost: Vhost) -> Runs | None:
    """The unacknowledged messages of the vhost's queues; None if there are too many to look at."""
    connections = [one for one in broker.connections.values() if one.vhost_name == vhost.name]
    # Asked of the connections, as they may hold messages of queues that have been deleted.
    if sum([connection.unacked_count for connection in connections]) > MOST_COUNTED:
        return None
    runs: Runs = {}
    for connection in connections:
        for queue, run in connection.unacked_runs():
            runs.setdefault(queue, []).extend(run)
    return runs


def queue_usage(queue: Queue, runs: Runs | None) -> dict[str, Any]:
    """`COLUMNS` of a queue. What is unacknowledged is in memory, unless its content has been released."""
    unacked = runs.get(queue, []) if runs is not None else None if queue.unacked else []
    away, away_octets = queue.ready.on_disk_only
    in_memory, octets = len(queue.ready) - away, queue.ready.octets
    record: dict[str, Any] = {"messages_ready_ram": in_memory, "messages_persistent": queue.records.kept_on_disk}
    if unacked is None:
        if not queue.has_released:
            record |= {
                "messages_unacknowledged_ram": queue.unacked,
                "messages_ram": in_memory + queue.unacked,
                "messages_paged_out": away,
                "message_bytes_paged_out": away_octets,
            }
        return record | dict.fromkeys(COLUMNS - record.keys(), NOT_KNOWN)
    released = [message for message in unacked if not message.content]
    unacked_octets, released_octets = body_octets(unacked), body_octets(released)
    ram_octets = octets - away_octets + unacked_octets - released_octets
    return record | {
        "messages_unacknowledged_ram": queue.unacked - len(released),
        "messages_ram": in_memory + queue.unacked - len(released),
        "messages_paged_out": away + len(released),
        "message_bytes_paged_out": away_octets + released_octets,
        "memory": (queue.ready.cost + PAGED_COST * away + unacked_octets - released_octets
                   + MESSAGE_COST * len(unacked)),
        "message_bytes": octets + unacked_octets,
        "message_bytes_unacknowledged": unacked_octets,
        "message_bytes_ram": ram_octets,
        "message_bytes_persistent": _persistent_octets(queue, octets + unacked_octets),
        "head_message_timestamp": _head_timestamp(queue, unacked),
    }


def _persistent_octets(queue: Queue, octets: int) -> int | str:
    """Known where all messages are persistent, or none: they are counted, their bytes are not."""
    if not queue.records.kept_on_disk:
        return 0
    is_all = queue.records.kept_on_disk == len(queue.ready) + queue.unacked and not queue.rules.is_at_least_once
    return octets if is_all else NOT_KNOWN


def _head_timestamp(queue: Queue, unacked: list[Message]) -> int | str:
    """Of the first message that waits, and the first that is unacknowledged, if they are in memory: the earlier one."""
    page = queue.ready.next_page
    heads = [] if page is not None and page.content is None else [*islice(queue.ready, 1)]
    if unacked:
        first = min(unacked, key=number_of)
        if not first.content:
            return NOT_KNOWN
        heads.append(first)
    stamps = [stamp for head in heads if (stamp := read_timestamp(head.properties)) is not None]
    return min(stamps, default=NOT_KNOWN)
