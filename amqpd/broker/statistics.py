"""Statistics of connections, channels and queues: records of one moment, which never change.

`management/listings.py` gives them RabbitMQ's names and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from amqpd.tls_facts import PeerCertificate, TlsFacts


class QueueStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Messages of a queue now, and counts since it was created or the broker started; bytes are of bodies."""

    ready: int
    ready_bytes: int
    unacked: int
    set_aside: int          # dead letters that cannot be moved
    consumers: int
    published: int
    delivered: int
    got: int                # by basic.get
    redelivered: int
    settled: int            # removed for good, for any reason
    acked: int
    purged: int
    expired: int            # this and the next three: dropped, and dead-lettered if the rules say so
    rejected: int
    over_length: int
    over_delivery_limit: int
    dead_lettered: int      # copies are in other queues


class UnackedDelivery(NamedTuple):
    """A message that was delivered and has not been settled.

    `consumer_tag` is empty for basic.get. One that was answered in an open transaction has the `delivery_tag` 0.
    `delivered_ms` is by the broker's clock, or None if that is not known.
    """

    number: int
    body_bytes: int
    channel: int
    consumer_tag: str
    delivery_tag: int
    delivered_ms: int | None


class ConnectionStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A client's connection: client, negotiated values, and counts of what was read and written.

    `user` and `vhost` are empty before the login and connection.open. `unsent_bytes` are in the output buffer.
    """

    name: str
    user: str
    vhost: str
    peer_host: str
    peer_port: int
    host: str
    port: int
    auth_mechanism: str
    state: str
    channels: int
    channel_max: int
    frame_max: int          # bytes
    heartbeat_s: int
    client_properties: Mapping[str, Any]
    connected_at_ms: int    # since 1970
    received_bytes: int
    received_count: int     # reads
    sent_bytes: int
    sent_count: int         # writes
    unsent_bytes: int
    tls: TlsFacts | None = None     # None for plain TCP
    peer_certificate: PeerCertificate | None = None


class ChannelStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A channel of a connection; `uncommitted` publishes and acks are those of a transaction."""

    name: str
    number: int
    connection: str
    user: str
    vhost: str
    consumers: int
    prefetch: int
    shared_prefetch: int
    unacked: int
    unconfirmed: int
    uncommitted: int
    uncommitted_acks: int
    dropped_replies: int
    has_confirms: bool
    is_transactional: bool
