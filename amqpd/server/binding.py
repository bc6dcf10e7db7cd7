"""Bind the addresses of all listeners before anything is created, or use sockets that are bound already."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from amqpd.config import Listener, Management
from amqpd.exit_codes import EXIT_UNAVAILABLE
from amqpd.server import addresses
from amqpd.server.startup import StartError

log = logging.getLogger("amqpd")

NO_MANAGEMENT = "no management API: %s; --management none serves none without this warning"
NO_METRICS = "no metrics: %s; --metrics none serves none without this warning"
Bound = tuple[Listener, list[socket.socket]]


class HttpBound(NamedTuple):
    """What is bound for the management API and for the metrics, each without TLS and with it."""

    api: list[Bound]
    api_tls: list[Bound]
    metrics: list[Bound]
    metrics_tls: list[Bound]


class Binding:
    """Binds addresses, and closes the sockets with `undo`. `given` has sockets that are bound already."""

    def __init__(self, undo: contextlib.AsyncExitStack, given: Mapping[Listener, socket.socket]) -> None:
        self._undo = undo
        self._given = given

    async def bind(self, listeners: Iterable[Listener], option: str = addresses.LISTEN_OPTION) -> list[Bound]:
        """Bind every address; `option` sets them. Raises StartError."""
        found = []
        for listener in listeners:
            try:
                given = self._given.get(listener)
                sockets = [given] if given else await addresses.bind(listener.host, listener.port)
            except OSError as error:
                raise unavailable(listener, error, option) from None
            for one in sockets:
                self._undo.enter_context(one)
            found.append((listener, sockets))
        return found

    async def bind_http(self, management: Management, *, has_defaults: bool) -> HttpBound:
        """Bind the addresses of the management API and of the metrics. Raises StartError.

        A default address is bound if it is free and `has_defaults`.
        """
        api, metrics = addresses.MANAGEMENT_OPTION, addresses.METRICS_OPTION
        api_tls = await self.bind(management.tls_listeners, api)
        metrics_tls = await self.bind(management.metrics_tls_listeners, metrics)
        if not management.is_default:
            api_bound = await self.bind(management.listeners, api)
        else:
            api_bound = await self._bind_if_free(management.listeners, api, NO_MANAGEMENT) if has_defaults else []
        if not management.has_default_metrics:
            metrics_bound = await self.bind(management.plain_metrics, metrics)
        else:
            metrics_bound = await self._bind_if_free(
                management.plain_metrics, metrics, NO_METRICS) if has_defaults else []
        return HttpBound(api_bound, api_tls, metrics_bound, metrics_tls)

    async def _bind_if_free(self, listeners: Iterable[Listener], option: str, warning: str) -> list[Bound]:
        try:
            return await self.bind(listeners, option)
        except StartError as error:
            log.warning(warning, error)
            return []


def unavailable(listener: Listener, error: OSError, option: str = addresses.LISTEN_OPTION) -> StartError:
    """Return the error for an address that cannot be used; `option` sets another one."""
    return StartError(addresses.describe_failure(str(listener), listener.port, error, option), EXIT_UNAVAILABLE)
