"""What RabbitMQ calls the application: the service for clients, which operators can stop while the process goes on.

While it is stopped, the ports stay bound and accepted clients are disconnected at once. The control socket and the
management API are served. A restart of the process starts it again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from amqpd.management.refusal import Refusal
from amqpd.server.listener import Listeners
from amqpd.server.startup import StartError

log = logging.getLogger("amqpd")

SHUTDOWN = "broker forced connection closure with reason 'shutdown'"


class Application:
    """The service for clients. `declare` carries out the configuration's declarations, and raises StartError."""

    def __init__(self, listeners: Listeners, declare: Callable[[], None], close_ok_wait_s: float) -> None:
        self.is_running = True
        self._listeners = listeners
        self._declare = declare
        self._close_ok_wait_s = close_ok_wait_s

    async def stop(self) -> None:
        """Turn clients away, and close all connections."""
        self.is_running = False
        self._listeners.pause()
        log.warning("clients are turned away until 'amqpctl start_app'")
        await self._listeners.close_all(SHUTDOWN, self._close_ok_wait_s)

    def declare(self) -> None:
        """Declare what the configuration declares, as at a start. Raises Refusal."""
        try:
            self._declare()
        except StartError as error:
            raise Refusal(str(error), error.exit_code) from None

    def start(self) -> None:
        """Accept clients again."""
        self.is_running = True
        self._listeners.resume()
