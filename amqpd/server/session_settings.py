"""What sessions need of the configuration."""

from __future__ import annotations

from pathlib import Path

from amqpd.broker.scram import MadeUpVerifiers
from amqpd.config import Config
from amqpd.server.login_key import login_key
from amqpd.server.resources import descriptors_for_connections
from amqpd.server.server_properties import server_properties
from amqpd.session.sasl_steps import LoginSettings
from amqpd.session.settings import SessionSettings


def session_settings(config: Config) -> SessionSettings:
    """Return what sessions need of the configuration."""
    limits = config.limits
    return SessionSettings(
        server_properties=server_properties(),
        login=_login_settings(config),
        heartbeat_s=limits.heartbeat_s,
        frame_max=limits.frame_max,
        channel_max=limits.channel_max,
        max_body_size=limits.max_message_size,
        consumer_limit=limits.consumers_per_channel,
        unacked_limit=limits.unacked_per_consumer,
        early_bytes=limits.login_buffer_size,
        incomplete_limit=limits.incomplete_bodies_size,
        transaction_acts=limits.transaction_operations,
        transaction_bytes=limits.transaction_size,
        outgoing_limit=limits.outgoing_buffer_size,
        handshake_timeout_ms=int(limits.handshake_timeout_s * 1000),
        connection_limit=min(limits.max_connections, descriptors_for_connections()),
        channel_limit=limits.max_channels,
        consumer_timeout_ms=int(limits.consumer_timeout_s * 1000) or None,
    )


def _login_settings(config: Config) -> LoginSettings:
    login = config.login
    return LoginSettings(
        mechanisms=config.auth_mechanisms,
        anonymous_user=login.anonymous_user,
        certificate_name=login.certificate_name,
        certificate_san_type=login.certificate_san_type,
        requires_tls=login.require_tls,
        made_up_verifiers=MadeUpVerifiers(login_key(_key_dir(config))))


def _key_dir(config: Config) -> Path | None:
    """Return where the key for SCRAM is kept; None if none is needed after a restart."""
    return None if config.memory or "SCRAM-SHA-256" not in config.auth_mechanisms else config.data_dir
