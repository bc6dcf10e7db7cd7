"""The part of the configuration that a session needs."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import msgspec

from amqpd.broker.queue.segment import MESSAGE_COST
from amqpd.session.sasl_steps import LoginSettings
from amqpd.wire.methods import pack_start


class SessionSettings(msgspec.Struct, frozen=True, dict=True):
    """The limits of every connection. Sizes are in bytes; `heartbeat_s` 0 offers no heartbeats."""

    server_properties: dict[str, Any]
    login: LoginSettings = LoginSettings()
    heartbeat_s: int = 60
    frame_max: int = 131_072
    channel_max: int = 2_047
    max_body_size: int = 128 * 1024 * 1024
    consumer_limit: int = 10_000                    # of a channel
    unacked_limit: int = 50_000
    outgoing_limit: int = 1024 * 1024
    handshake_timeout_ms: int = 10_000
    connection_limit: int = 20_000
    channel_limit: int = 100_000                    # of all connections together
    consumer_timeout_ms: int | None = 1_800_000
    early_bytes: int = 64 * 1024                    # of commands that are kept while the password is checked
    incomplete_limit: int = 64 * 1024 * 1024        # bytes of bodies that have not arrived in full, of a connection
    transaction_acts: int = 100_000                 # publishes and answers that one transaction may hold,
    transaction_bytes: int = 64 * 1024 * 1024      # and bytes of bodies
    logged_timeouts: int = 5                        # channels closed together that are logged one by one
    small_content: int = MESSAGE_COST               # of an unacked message: smaller ones are not worth a reference

    def start_frame(self, mechanisms: tuple[str, ...]) -> bytes:
        """Return the frame of `connection.start` for clients that may use these mechanisms."""
        frame = self._start_frames.get(mechanisms)
        if frame is None:
            frame = pack_start(self.server_properties, " ".join(mechanisms), "en_US")
            self._start_frames[mechanisms] = frame
        return frame

    @cached_property
    def _start_frames(self) -> dict[tuple[str, ...], bytes]:
        return {}
