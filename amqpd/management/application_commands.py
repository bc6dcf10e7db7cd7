"""Commands that stop and start the service for clients, and that delete everything: stop_app, reset, start_app.

RabbitMQ docs/man/rabbitmqctl.8. Unlike on RabbitMQ, a node that was reset has at once what a new
one has at its start.
"""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from amqpd.broker.broker import Broker
from amqpd.exit_codes import EXIT_UNAVAILABLE, EXIT_USAGE
from amqpd.management.node_commands import Application, Node
from amqpd.management.refusal import Refusal

MUST_BE_STOPPED = (
    "Error: this command requires the 'rabbit' app to be stopped on the target node. Stop it with "
    "'rabbitmqctl stop_app'.")


class ApplicationCommands:
    """The commands on the service of one broker."""

    def __init__(self, broker: Broker, node: Node) -> None:
        self._broker = broker
        self._node = node

    def is_running(self) -> bool:
        """Return whether clients are served."""
        return self._node.application is None or self._node.application.is_running

    async def stop_app(self) -> None:
        """Close all connections, and turn clients away until start_app."""
        await self._application().stop()

    def start_app(self) -> None:
        """Accept clients again."""
        self._application().start()

    async def reset(self) -> None:
        """Delete everything, and declare what a new broker has. Clients must be turned away already."""
        application = self._application()
        if application.is_running:
            raise Refusal(MUST_BE_STOPPED, EXIT_USAGE)
        broker = self._broker
        for name in list(broker.vhosts):
            broker.replace_vhost(replace(broker.vhost_definitions[name], protected_from_deletion=False))
            broker.delete_vhost(name)
            await self._pause()
        for user in list(broker.users):
            broker.users.delete(user)
            await self._pause()
        for parameter in list(broker.parameters.of_broker):
            broker.parameters.clear_global(parameter.name)
        # Before the same names are used again.
        await self._node.wait_committed()
        self._node.begin()
        application.declare()

    async def _pause(self) -> None:
        await asyncio.sleep(0)
        self._node.begin()

    def _application(self) -> Application:
        if self._node.application is None:
            raise Refusal("this broker cannot turn its clients away", EXIT_UNAVAILABLE)
        return self._node.application
