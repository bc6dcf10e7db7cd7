"""The limits of the configuration in the parts of a broker that runs: at its start, and when they have changed."""

from __future__ import annotations

from msgspec.structs import replace

from amqpd.broker.broker import Broker
from amqpd.config import Config, Limits
from amqpd.server.alarms import Alarms
from amqpd.server.connection import ClientProtocol
from amqpd.server.listener import Listeners
from amqpd.server.login import Logins
from amqpd.server.resources import descriptors_for_clients, disk_free_limit
from amqpd.server.session_settings import session_settings
from amqpd.server.unauthenticated import Unauthenticated


def change_limits(
    broker: Broker, listeners: Listeners, logins: Logins, config: Config, changed: frozenset[str]
) -> None:
    """Set the limits of queues, logins and sessions, which new connections get."""
    limits = config.limits
    broker.quota.limit = limits.max_queues
    logins.change_rules(frozenset(config.loopback_users), limits.login_failure_delay_s)
    settings = session_settings(config)
    # The salts of users that do not exist stay as they are, or a change would tell that they do not.
    login = replace(settings.login, made_up_verifiers=listeners.settings.login.made_up_verifiers)
    listeners.change_limits(
        replace(settings, login=login), *_unauthenticated_limits(limits), limits.tls_handshake_timeout_s)


def change_alarms(alarms: Alarms, config: Config, changed: frozenset[str]) -> None:
    """Set the limits that have changed in the configuration; others may have been set by amqpctl."""
    limits = config.limits
    if changed & {"limits.memory_high_watermark", "limits.memory_high_watermark_absolute"}:
        if limits.memory_high_watermark_absolute:
            alarms.set_memory_watermark_absolute(limits.memory_high_watermark_absolute)
        else:
            alarms.set_memory_watermark(limits.memory_high_watermark)
    if changed & {"limits.disk_free_limit", "limits.disk_free_limit_relative"}:
        alarms.set_disk_free_limit(disk_free_limit(limits))


def unauthenticated_clients(config: Config) -> Unauthenticated[ClientProtocol]:
    """Return the clients before login."""
    return Unauthenticated(*_unauthenticated_limits(config.limits))


def _unauthenticated_limits(limits: Limits) -> tuple[int, int]:
    """Return how many clients before login there may be, and from one address.

    If few descriptors are left, they get at most half of them, and those of one address a quarter.
    """
    descriptors = descriptors_for_clients()
    return (min(limits.max_unauthenticated, descriptors // 2),
            min(limits.max_unauthenticated_per_address, descriptors // 4))
