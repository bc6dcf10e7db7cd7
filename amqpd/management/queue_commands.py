"""Commands on queues and connections, also on exclusive queues of any connection."""

from __future__ import annotations

from amqpd.broker.broker import OPERATOR, Broker
from amqpd.exit_codes import EXIT_UNAVAILABLE, EXIT_USAGE
from amqpd.management import listings
from amqpd.management.refusal import Refusal, vhost_of
from amqpd.management.waiting import until_called


class QueueCommands:
    """The commands on the queues and connections of one broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def purge_queue(self, vhost: str, queue: str) -> None:
        """Drop a queue's ready messages; the queue may be exclusive."""
        home = vhost_of(self._broker, vhost)
        found = home.queues.get(queue)
        if found is None:
            raise Refusal(f"not_found: no queue '{queue}' in vhost '{vhost}'", EXIT_UNAVAILABLE)
        found.purge()

    async def delete_queue(self, vhost: str, queue: str, if_empty: bool = False, if_unused: bool = False) -> int:
        """Delete a queue, which may be exclusive; return how many messages were ready."""
        home = vhost_of(self._broker, vhost)
        found = home.queues.get(queue)
        if found is None:
            raise Refusal("Queue not found", EXIT_USAGE)
        if if_unused and found.consumers:
            raise Refusal("Queue is in use", EXIT_USAGE)
        if if_empty and found.ready:
            raise Refusal("Queue is not empty", EXIT_USAGE)
        count = home.delete_queue(OPERATOR, queue, found.owner)
        while queue in home.leaving.queues:
            await until_called(home.leaving.call_after(home.leaving.queues[queue]))
        return count

    def close_connection(self, connection: str, explanation: str) -> None:
        """Close a connection, found by pid or name: the client gets reply code 320 and the explanation."""
        for key, found in self._broker.connections.items():
            if connection in (listings.pid(key), found.statistics().name):
                found.force_close(explanation)
                return
        raise Refusal(f"no connection '{connection}'", EXIT_UNAVAILABLE)
