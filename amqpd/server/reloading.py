"""SIGHUP: read the configuration again, and use the new values of the settings that can change while the broker runs.

`RELOADABLE` are these settings. Declarations are never reloaded, and neither is what concerns the first start only. A
configuration with a fault changes nothing; the log has the faults.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from msgspec.structs import replace

from amqpd.config import Config, ConfigError, Examination, usable
from amqpd.config.settings import SETTINGS, Declaration, Limits, value_at

log = logging.getLogger("amqpd")

# The memory of messages and the ballast have been given out, and vhosts have their limit of bindings.
_FIXED_LIMITS = {"message_memory", "ballast_size", "bindings_per_queue"}
AT_ONCE = frozenset({
    "log.level", "log.format", "loopback_users", "limits.login_failure_delay_s", "limits.max_queues",
    "limits.max_unauthenticated", "limits.max_unauthenticated_per_address", "limits.memory_high_watermark",
    "limits.memory_high_watermark_absolute", "limits.disk_free_limit", "limits.disk_free_limit_relative",
    "limits.outgoing_timeout_s"})
FOR_NEW_CONNECTIONS = frozenset({
    "login.anonymous_user", "login.certificate_name", "login.certificate_san_type", "login.require_tls",
    *(f"limits.{name}" for name in Limits.__struct_fields__ if name not in _FIXED_LIMITS)}) - AT_ONCE
RELOADABLE = AT_ONCE | FOR_NEW_CONNECTIONS
FIRST_START = frozenset({
    "default_user", "default_password", "default_vhost", "default_user_tags", "default_permissions.configure",
    "default_permissions.write", "default_permissions.read"})
DECLARED = ("vhosts", "users", "policies", "operator_policies", "exchanges", "queues", "bindings")


class Reloading:
    """The configuration in use. `read` reads all sources; `apply` is called with the new one and what has changed.

    `read_certificates` reads the certificates again. Any thread may call `read_again`.
    """

    def __init__(
        self, config: Config, read: Callable[[], Examination], apply: Callable[[Config, frozenset[str]], object],
        read_certificates: Callable[[], object] | None = None,
    ) -> None:
        self.config = config
        self._read = read
        self._apply = apply
        self._read_certificates = read_certificates

    def read_again(self) -> None:
        """Read everything, and use what can change; log what has changed, and what is wrong."""
        if self._read_certificates is not None:
            self._read_certificates()
        try:
            found = self._read()
            read = usable(found)
        except ConfigError as error:
            for problem in error.problems:
                log.error("SIGHUP: the configuration stays as it was: %s", problem)
            return
        for warning in found.warnings:
            log.warning("%s", warning)
        changed = differing(self.config, read)
        new = changed & RELOADABLE
        for setting in sorted(new):
            self.config = _with(self.config, setting, value_at(read, setting))
        if new:
            self._apply(self.config, new)
        log.info("SIGHUP: the configuration has been read again: %s", _describe(changed))


def differing(one: Config, other: Config) -> frozenset[str]:
    """Return the settings whose values differ, and the kinds of declarations that do; not where they stand."""
    settings = {name for name in SETTINGS if name not in FIRST_START and value_at(one, name) != value_at(other, name)}
    lists = ("tls.names", "default_vhost_limits", *DECLARED)
    return frozenset(settings) | {
        name for name in lists if _anywhere(value_at(one, name)) != _anywhere(value_at(other, name))}


def _with(config: Config, setting: str, value: Any) -> Config:
    table, _, name = setting.rpartition(".")
    if not table:
        return replace(config, **{name: value})
    return replace(config, **{table: replace(getattr(config, table), **{name: value})})


def _anywhere(declarations: Iterable[Declaration]) -> list[Declaration]:
    return [replace(one, where="") for one in declarations]


def _describe(changed: frozenset[str]) -> str:
    parts = [f"{', '.join(sorted(names))} {when}" for names, when in (
        (changed & AT_ONCE, "now in effect"), (changed & FOR_NEW_CONNECTIONS, "now in effect for new connections"),
        (changed - RELOADABLE, "in effect at the next start")) if names]
    return "; ".join(parts) or "nothing has changed"
