"""The statistics of a connection: what it has read and written, and everything that is listed of it.

RabbitMQ docs/management (connections).
"""

from __future__ import annotations

from amqpd.broker.counts import Totals
from amqpd.broker.statistics import ConnectionStatistics
from amqpd.session.blocking import Blocking
from amqpd.session.channel_table import ChannelTable
from amqpd.session.heartbeats import Heartbeats
from amqpd.session.phases import Phase, Phases
from amqpd.session.state import ConnectionState


class Traffic:
    """Bytes of one connection, and the number of reads and writes. The server counts what it sends."""

    __slots__ = ("received_bytes", "received_count", "sent_bytes", "sent_count", "_told")

    def __init__(self) -> None:
        self.received_bytes = self.received_count = 0
        self.sent_bytes = self.sent_count = 0
        self._told = 0, 0       # the bytes that the totals know

    def tell(self, totals: Totals) -> tuple[int, int]:
        """Add to the totals of the vhost the bytes since the last call; return all bytes received and sent."""
        now, told = (self.received_bytes, self.sent_bytes), self._told
        if now != told:
            self._told = now
            totals.add_bytes(now[0] - told[0], now[1] - told[1])
        return now


class Statistics:
    """The statistics of one connection."""

    __slots__ = (
        "_state", "_phases", "_heartbeats", "_channels", "_blocking", "_traffic", "_connected_at_ms")

    def __init__(
        self, state: ConnectionState, phases: Phases, heartbeats: Heartbeats, channels: ChannelTable,
        blocking: Blocking, traffic: Traffic, now_ms: int,
    ) -> None:
        self._state = state
        self._phases = phases
        self._heartbeats = heartbeats
        self._channels = channels
        self._blocking = blocking
        self._traffic = traffic
        self._connected_at_ms = state.broker.clock.to_wall(now_ms)

    def connection(self) -> ConnectionStatistics:
        """Return name, client address, negotiated values, and counts."""
        state, traffic = self._state, self._traffic
        peer, _, host = state.name.partition(" -> ")
        return ConnectionStatistics(
            name=state.name,
            user=state.user_name,
            vhost=state.vhost_name,
            peer_host=peer.rpartition(":")[0],
            peer_port=int(peer.rpartition(":")[2] or 0),
            host=host.rpartition(":")[0],
            port=int(host.rpartition(":")[2] or 0),
            auth_mechanism=state.mechanism,
            state=self._state_name(),
            channels=len(self._channels.by_number),
            channel_max=state.channel_max,
            frame_max=state.frame_max,
            heartbeat_s=self._heartbeats.interval_s,
            client_properties=state.client_properties,
            connected_at_ms=self._connected_at_ms,
            received_bytes=traffic.received_bytes,
            received_count=traffic.received_count,
            sent_bytes=traffic.sent_bytes,
            sent_count=traffic.sent_count,
            unsent_bytes=state.outbox.size + state.unsent(),
            tls=state.tls,
            peer_certificate=state.peer_certificate,
        )

    def _state_name(self) -> str:
        if self._phases.current is not Phase.OPEN:
            return self._phases.current.name.lower()
        return "blocked" if self._blocking.is_blocked else "blocking" if self._blocking.has_alarm else "running"
