"""Record in the audit log what is changed other than by a command, such as by the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from amqpd.broker.actor import Actor, acting
from amqpd.broker.broker import Broker
from amqpd.broker.events import Event
from amqpd.broker.feed import Feed
from amqpd.broker.key_patterns import key_matcher
from amqpd.management.event_records import event_record

ADMINISTRATIVE = (
    "user.#", "permission.#", "topic.permission.#", "vhost.#", "policy.#", "operator.policy.#", "parameter.#")
NOT_DETAIL = ("event", "timestamp_in_ms", "user_who_performed_action")


@contextmanager
def audited(broker: Broker, actor: Actor) -> Iterator[None]:
    """Record users, permissions, vhosts, policies and parameters that are changed inside of `with`, by this actor.

    The action is the name of the event, such as "user.created". Queues, exchanges and bindings are not recorded.
    """
    feed: Feed[Event] = Feed()
    broker.events.listen(feed, key_matcher(ADMINISTRATIVE))
    try:
        with acting(actor):
            yield
            events, dropped = feed.take()
            for event in events:
                record = event_record(event)
                broker.audit.record(
                    event.name, {name: value for name, value in record.items() if name not in NOT_DETAIL})
            if dropped:
                broker.audit.record("more", {"changes": dropped})
    finally:
        broker.events.leave(feed)
