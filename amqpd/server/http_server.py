"""The management API of one broker, and its metrics: the applications with everything they need, on their listeners.

Only a broker that has such a listener imports this, since the libraries take time and memory to load.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable

from msgspec.structs import replace

from amqpd.broker.broker import Broker
from amqpd.config import Management
from amqpd.management.commands import Commands
from amqpd.management.control import Control
from amqpd.management.http.application import Application
from amqpd.management.http.context import Context
from amqpd.management.http.metrics import routes_of_listener
from amqpd.management.http.sessions import Sessions
from amqpd.management.http.table import all_routes
from amqpd.management.http.turns import Turns
from amqpd.management.node_commands import Node
from amqpd.management.page.web_page import WebPage
from amqpd.management.statistics.statistics import Statistics
from amqpd.server.addresses import MANAGEMENT_OPTION, METRICS_OPTION, describe_address
from amqpd.server.binding import NO_MANAGEMENT, NO_METRICS, Bound, HttpBound, unavailable
from amqpd.server.direct_client import DirectClients
from amqpd.server.http_listener import HttpListeners
from amqpd.server.http_login import HttpLogins
from amqpd.server.listener import Listeners
from amqpd.server.login import Logins
from amqpd.server.monotonic import now_ms

log = logging.getLogger("amqpd")

CurrentTls = Callable[[], ssl.SSLContext] | None
Addresses = list[tuple[str, int]]


class HttpServer:
    """The listeners of the management API and of the metrics. `listeners` are those for AMQP."""

    def __init__(
        self, broker: Broker, node: Node, commands: Commands, control: Control, logins: Logins, listeners: Listeners,
        statistics: Statistics, settings: Management,
    ) -> None:
        self._node = node
        self._settings = settings
        self._logins = HttpLogins(logins)
        clients = DirectClients(
            broker, listeners.turn, listeners.settings, listeners.take_number, lambda: listeners.has_stopped)
        turns = Turns()
        context = Context(
            broker=broker, node=node, commands=commands, login=self._logins.check, connect=clients.connect,
            command=control.answer, statistics=statistics, sessions=Sessions(broker, now_ms),
            turns=turns, attempts=logins.attempts, path_prefix=settings.path_prefix,
            disable_stats=settings.disable_stats, enable_queue_totals=settings.enable_queue_totals)
        self._api = HttpListeners(Application(context, all_routes(), WebPage(settings.path_prefix)), turns)
        routes = routes_of_listener(settings.metrics_path, has_objects=settings.metrics_per_object)
        self._metrics = HttpListeners(
            Application(replace(context, path_prefix=""), routes), turns, purpose="the metrics")

    async def listen(self, bound: HttpBound, context: CurrentTls) -> tuple[Addresses, Addresses]:
        """Serve at these bound addresses; return the first of each listener, of the API and of the metrics.

        `context` returns the context of the next connection with TLS. Raises StartError.
        """
        api, metrics = Addresses(), Addresses()
        prefix, path = self._settings.path_prefix, self._settings.metrics_path
        for listeners, tls in ((bound.api, None), (bound.api_tls, context)):
            for listener in listeners:
                if await self._listen(self._api, listener, tls, MANAGEMENT_OPTION, NO_MANAGEMENT):
                    api.append(address := _first(listener))
                    self._node.http_listeners.append((*address, tls is not None))
                    log.info("started management listener on %s%s/", _url(address, tls), prefix)
        for listeners, tls in ((bound.metrics, None), (bound.metrics_tls, context)):
            for listener in listeners:
                if await self._listen(self._metrics, listener, tls, METRICS_OPTION, NO_METRICS):
                    metrics.append(address := _first(listener))
                    self._node.metrics_listeners.append((*address, tls is not None))
                    log.info("started metrics listener on %s%s", _url(address, tls), path)
        return api, metrics

    async def _listen(
        self, listeners: HttpListeners, bound: Bound, tls: CurrentTls, option: str, warning: str
    ) -> bool:
        """Listen; return False, and warn, if that fails and the broker runs without it. Raises StartError."""
        listener, sockets = bound
        try:
            await listeners.listen(sockets, tls)
        except OSError as error:    # another program has bound the address at the same time
            fault = unavailable(listener, error, option)
            if listener not in self._settings.optional:
                raise fault from None
            log.warning(warning, fault)
            return False
        return True

    async def stop(self) -> None:
        """Stop serving."""
        await self._api.stop()
        await self._metrics.stop()


def _first(bound: Bound) -> tuple[str, int]:
    address: tuple[str, int] = bound[1][0].getsockname()[:2]
    return address


def _url(address: tuple[str, int], tls: CurrentTls) -> str:
    return f"http{'' if tls is None else 's'}://{describe_address(address)}"
