"""Commands on queues and connections, also on exclusive queues of any connection."""

from __future__ import annotations

import asyncio

from amqpd.broker.broker import OPERATOR, Broker
from amqpd.broker.operations import cancel_consumer, set_paused, set_prefetch
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.queue import Queue
from amqpd.exit_codes import EXIT_DATA, EXIT_UNAVAILABLE, EXIT_USAGE
from amqpd.management import listings
from amqpd.management.refusal import Refusal, queue_of, vhost_of
from amqpd.management.waiting import until_called

MOST_PREFETCH = 65_535      # as in basic.qos


class QueueCommands:
    """The commands on the queues and connections of one broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def purge_queue(self, vhost: str, queue: str) -> None:
        """Drop a queue's ready messages; the queue may be exclusive."""
        queue_of(self._broker, vhost, queue)[1].purge()

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

    def pause_queue(self, vhost: str, queue: str) -> None:
        """Deliver nothing of a queue until it is resumed, also after a restart if it is durable."""
        set_paused(*queue_of(self._broker, vhost, queue), is_paused=True)

    def resume_queue(self, vhost: str, queue: str) -> None:
        """Deliver the messages of a paused queue again."""
        set_paused(*queue_of(self._broker, vhost, queue), is_paused=False)

    def cancel_consumer(self, vhost: str, queue: str, consumer_tag: str, channel: str | None = None) -> None:
        """Cancel one consumer: its client gets basic.cancel; the consumer's unacked messages stay with its channel.

        `channel` is the pid or the name of a channel.
        """
        home, found = queue_of(self._broker, vhost, queue)
        cancel_consumer(home, self._consumer_of(found, consumer_tag, channel))

    def set_consumer_prefetch(
        self, vhost: str, queue: str, consumer_tag: str, prefetch: int, channel: str | None = None
    ) -> None:
        """Change how many messages a consumer may leave unacked, 0 for no limit, until it is cancelled.

        `channel` is the pid or the name of a channel.
        """
        _, found = queue_of(self._broker, vhost, queue)
        consumer = self._consumer_of(found, consumer_tag, channel)
        if consumer.no_ack:
            raise Refusal(f"consumer '{consumer_tag}' acknowledges nothing: a prefetch has no effect", EXIT_USAGE)
        if not 0 <= prefetch <= MOST_PREFETCH:
            raise Refusal(f"a prefetch is a number from 0 to {MOST_PREFETCH}", EXIT_DATA)
        set_prefetch(consumer, prefetch)

    def close_connection(self, connection: str, explanation: str) -> None:
        """Close a connection, found by pid or name: the client gets reply code 320 and the explanation."""
        for key, found in self._broker.connections.items():
            if connection in (listings.pid(key), found.statistics().name):
                found.force_close(explanation)
                return
        raise Refusal(f"no connection '{connection}'", EXIT_UNAVAILABLE)

    async def close_all_connections(
        self, explanation: str, vhost: str | None = None, limit: int = 0, per_connection_delay_ms: int = 0
    ) -> int:
        """Close the connections to a vhost, or to all; at most `limit` of them if it is not 0. Return their number."""
        return await self._close(
            [key for key, found in self._broker.connections.items() if vhost is None or found.vhost_name == vhost],
            explanation, limit, per_connection_delay_ms)

    async def close_all_user_connections(self, user: str, explanation: str) -> int:
        """Close the connections of a user, and return their number."""
        return await self._close(
            [key for key, found in self._broker.connections.items() if found.user_name == user], explanation)

    async def _close(self, keys: list[int], explanation: str, limit: int = 0, delay_ms: int = 0) -> int:
        """Close connections in slices, since each one lets go of all that it has."""
        closed = 0
        for key in keys:
            found = self._broker.connections.get(key)
            if found is None:
                continue
            if limit and closed == limit:
                break
            found.force_close(explanation)
            closed += 1
            await asyncio.sleep(delay_ms / 1_000 if delay_ms > 0 else 0)
        return closed

    def _consumer_of(self, queue: Queue, tag: str, channel: str | None) -> Consumer[Queue]:
        """Return the consumer with this tag, and on this channel if one is named. Raises Refusal."""
        found = [consumer for consumer in queue.consumers if consumer.tag == tag
                 and (channel is None or channel in self._names_of(*consumer.subscriber.address))]
        if not found:
            raise Refusal(f"queue '{queue.name}' has no consumer '{tag}'", EXIT_UNAVAILABLE)
        if len(found) > 1:
            channels = ", ".join([listings.pid(*consumer.subscriber.address) for consumer in found])
            raise Refusal(f"several consumers have the tag '{tag}': name one of their channels, {channels}", EXIT_USAGE)
        return found[0]

    def _names_of(self, connection: int, channel: int) -> tuple[str, str]:
        """Return the pid and the name of a channel."""
        owner = self._broker.connections.get(connection)
        return listings.pid(connection, channel), f"{owner.statistics().name} ({channel})" if owner is not None else ""
