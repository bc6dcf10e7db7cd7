"""What operators do to queues and their consumers, whoever declared them: pause and resume, cancel, change a prefetch.

A paused queue delivers nothing: neither to its consumers nor to basic.get, for which it counts as empty. It accepts
publishes and answers, its messages expire, and its limits hold. A durable queue is still paused after a restart.
"""

from __future__ import annotations

from msgspec.structs import replace

from amqpd.broker.definitions import Defined
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.queue import Queue
from amqpd.broker.vhost import Vhost


def set_paused(vhost: Vhost, queue: Queue, *, is_paused: bool) -> bool:
    """Pause or resume a queue; return whether that changed anything."""
    if queue.definition.is_paused == is_paused:
        return False
    definition = replace(queue.definition, is_paused=is_paused)
    with vhost.changes:
        queue.define(definition)
        if definition.durable:
            vhost.changes.record(Defined(definition))
    vhost.changes.tell("queue.paused" if is_paused else "queue.resumed", definition)
    queue.dispatch()
    return True


def cancel_consumer(vhost: Vhost, consumer: Consumer[Queue]) -> None:
    """Cancel a consumer and tell its client, if that supports it; its unacked messages stay with its channel.

    An auto-delete queue is deleted with its last consumer.
    """
    queue = consumer.queue
    queue.unsubscribe(consumer)
    consumer.subscriber.cancelled(consumer)
    vhost.topology.consumer_left(queue)
    queue.dispatch()


def set_prefetch(consumer: Consumer[Queue], prefetch: int) -> None:
    """Change the prefetch of a consumer, 0 for none. If more is unacked already, it gets nothing until that is less."""
    queue = consumer.queue
    consumer.prefetch, consumer.in_flight_before = prefetch, consumer.in_flight
    queue.unblock(consumer)
    queue.dispatch()
