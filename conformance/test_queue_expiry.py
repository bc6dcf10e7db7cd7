"""§19 `x-expires`: a queue that is unused for this time is deleted.

A mandatory publish tells whether the queue exists; it does not count as a use.
"""
from __future__ import annotations

from typing import Callable

import pytest

from conformance.channel import Channel
from conformance.conftest import Broker, Names
from conformance.letters import Letters
from conformance.queues import Stopwatch, declare, fill, is_gone, let_pass
from conformance.texts import Texts
from conformance.waiting import wait_until

pytestmark = pytest.mark.needs("queue-expiry", "publisher_confirms")

SHORT_MS = 400
LEASE_MS = 1500     # long enough to be renewed in time by a busy machine

Use = Callable[[Channel, str], object]


def test_a_queue_that_nobody_uses_is_deleted(ch: Channel, names: Names) -> None:
    watch = Stopwatch()
    queue = declare(ch, names, {"x-expires": SHORT_MS})
    wait_until(lambda: is_gone(ch, queue))
    assert watch.ms >= SHORT_MS


def test_an_expired_queue_is_not_found(ch: Channel, broker: Broker, names: Names, texts: Texts) -> None:
    queue = declare(ch, names, {"x-expires": SHORT_MS})
    wait_until(lambda: is_gone(ch, queue))
    ch.send_declare_queue(queue, passive=True)
    ch.fails(404, texts.no_queue(queue))


def test_a_name_is_free_once_its_queue_has_expired(ch: Channel, names: Names) -> None:
    """Its successor has none of its messages, bindings and arguments."""
    queue = declare(ch, names, {"x-expires": SHORT_MS})
    ch.bind_queue(queue, "amq.direct", queue)
    wait_until(lambda: is_gone(ch, queue))
    assert ch.declare_queue(queue, durable=True) == (queue, 0, 0)
    ch.publish("amq.direct", queue, mandatory=True)
    assert len(ch.returns(1)) == 1


def test_the_messages_of_an_expired_queue_are_lost(ch: Channel, names: Names, letters: Letters) -> None:
    """They are not dead-lettered."""
    queue = declare(ch, names, {"x-expires": SHORT_MS, **letters.arguments})
    fill(ch, queue, "0", "1")
    wait_until(lambda: is_gone(ch, queue))
    assert letters.come() == []


def test_a_queue_expires_though_messages_are_unacked(ch: Channel, names: Names) -> None:
    """An answer to one of them is then accepted and means nothing."""
    queue = declare(ch, names, {"x-expires": SHORT_MS})
    ch.consume(queue, "tag")
    fill(ch, queue, "0", "1", "2")
    ch.deliveries(3)
    ch.cancel("tag")
    other = ch.client.channel()
    wait_until(lambda: is_gone(other, queue))
    ch.ack(1)
    ch.nack(2)
    ch.reject(3, requeue=False)
    assert ch.sync() == []


def test_an_auto_delete_queue_without_consumers_expires(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name, auto_delete=True, arguments={"x-expires": SHORT_MS})
    wait_until(lambda: is_gone(ch, queue_name))


def test_an_exclusive_queue_expires_while_its_connection_lives(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name, exclusive=True, arguments={"x-expires": SHORT_MS})
    wait_until(lambda: is_gone(ch, queue_name))


def test_a_quorum_queue_expires(ch: Channel, names: Names) -> None:
    """RabbitMQ looks for them every five seconds, and there each publish puts it off: it is asked rarely."""
    watch = Stopwatch()
    queue = declare(ch, names, {"x-expires": SHORT_MS}, "quorum")
    let_pass(SHORT_MS)
    wait_until(lambda: is_gone(ch, queue), within_s=60, pause_s=8)
    assert watch.ms >= SHORT_MS


# Use


def test_a_queue_with_a_consumer_does_not_expire(ch: Channel, broker: Broker, names: Names) -> None:
    consumer = broker.channel()
    queue = declare(ch, names, {"x-expires": SHORT_MS})
    consumer.consume(queue)
    let_pass(2 * SHORT_MS)
    assert not is_gone(ch, queue)


@pytest.mark.parametrize("end", [
    lambda channel: channel.cancel("tag"), lambda channel: channel.close(), lambda channel: channel.client.close(),
    lambda channel: channel.client.drop()], ids=["cancel", "channel", "connection", "tcp"])
def test_a_queues_time_begins_when_its_last_consumer_goes(
        ch: Channel, broker: Broker, names: Names, end: Callable[[Channel], None]) -> None:
    consumer = broker.channel()
    queue = declare(ch, names, {"x-expires": SHORT_MS})
    consumer.consume(queue, "tag")
    let_pass(2 * SHORT_MS)
    watch = Stopwatch()
    end(consumer)
    wait_until(lambda: is_gone(ch, queue))
    assert watch.ms >= SHORT_MS


USES: dict[str, Use] = {
    "get": lambda ch, queue: ch.get(queue),
    "get without ack": lambda ch, queue: ch.get(queue, no_ack=True),
    "declare": lambda ch, queue: ch.declare_queue(queue, arguments={"x-expires": LEASE_MS}),
    "passive declare": lambda ch, queue: ch.declare_queue(queue, passive=True),
    "consume and cancel": lambda ch, queue: (ch.consume(queue, "tag"), ch.cancel("tag")),
}


def test_a_queue_lives_on_by_every_use_of_it(ch: Channel, names: Names) -> None:
    """While one that was declared after them, and that nobody uses, expires."""
    queues = {use: declare(ch, names, {"x-expires": LEASE_MS}) for use in USES}
    unused = declare(ch, names, {"x-expires": LEASE_MS})

    def use_all_but_one() -> bool:
        for name, use in USES.items():
            use(ch, queues[name])
        return is_gone(ch, unused)
    wait_until(use_all_but_one)
    let_pass(LEASE_MS // 8)
    assert [name for name in USES if is_gone(ch, queues[name])] == []


@pytest.mark.parametrize("use", [
    lambda ch, queue: ch.send_publish("", queue),
    lambda ch, queue: ch.send_purge(queue),
    lambda ch, queue: ch.send_bind_queue(queue, "amq.direct", "key"),
    lambda ch, queue: ch.send_unbind_queue(queue, "amq.direct", "key"),
], ids=["publish", "purge", "bind", "unbind"])
def test_a_queue_does_not_live_by(ch: Channel, names: Names, use: Use) -> None:
    """On a channel of its own, since the last use may find it gone."""
    queue = declare(ch, names, {"x-expires": SHORT_MS})
    user = ch.client.channel()

    def expires() -> bool:
        use(user, queue)
        return is_gone(ch, queue)
    wait_until(expires)


def test_an_answer_to_an_old_delivery_is_no_use(ch: Channel, names: Names) -> None:
    queue = declare(ch, names, {"x-expires": LEASE_MS})
    fill(ch, queue, *(str(number) for number in range(600)))
    ch.consume(queue, "tag")
    ch.deliveries(600)
    ch.cancel("tag")
    tags = iter(range(1, 601))

    def expires() -> bool:
        ch.nack(next(tags))
        return is_gone(ch, queue)
    wait_until(expires)
