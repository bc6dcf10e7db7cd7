"""§17 The consumer timeout: a delivery that is not acked in time closes its channel.

Needs `--consumer-timeout MS`, the timeout with which the broker was started: a few seconds, longer than the other tests
leave anything unacked. All scenes begin together and have one common wait. RabbitMQ checks for such deliveries from
time to time, so the close may come late, but never early.
"""
from __future__ import annotations

from typing import Callable, Iterator, NamedTuple

import pytest

from conformance.channel import Channel
from conformance.client import Client
from conformance.conftest import Names
from conformance.queues import Stopwatch, fill, get, let_pass, shown

pytestmark = pytest.mark.needs("consumer-timeout", "publisher_confirms", "quorum-queues")

LATE_MS = 1000
Beginning = Callable[[Channel, str], object]


class Scene(NamedTuple):
    """A channel on a connection of its own, and the queue that two messages of were published to."""

    channel: Channel
    queue: str
    watch: Stopwatch


def consume(ch: Channel, queue: str) -> None:
    """Take both messages and answer neither."""
    ch.consume(queue, "tag")
    ch.deliveries(2)


def consume_and_answer_the_second(ch: Channel, queue: str) -> None:
    """As it says."""
    consume(ch, queue)
    ch.ack(2)


def consume_and_cancel(ch: Channel, queue: str) -> None:
    """As it says."""
    consume(ch, queue)
    ch.cancel("tag")


TOO_LONG: dict[str, Beginning] = {
    "consumed": consume,
    "got": lambda ch, queue: get(ch, queue, 2),
    "one of two": consume_and_answer_the_second,
    "cancelled": consume_and_cancel,
}
IN_TIME: dict[str, Beginning] = {
    "acked": lambda ch, queue: (consume(ch, queue), ch.ack(2, multiple=True)),
    "rejected": lambda ch, queue: (consume(ch, queue), ch.nack(2, multiple=True, requeue=False)),
    "without ack": lambda ch, queue: (ch.consume(queue, no_ack=True), ch.deliveries(2)),
    "got without ack": lambda ch, queue: ch.get(queue, no_ack=True),
    "nothing consumed": lambda ch, queue: None,
}
QUORUM = "consumed from a quorum queue"


@pytest.fixture(scope="module")
def timeout_ms(request: pytest.FixtureRequest) -> int:
    """The broker's timeout."""
    return request.config.getoption("--consumer-timeout")


@pytest.fixture(scope="module")
def scenes(broker_url: str, timeout_ms: int) -> Iterator[dict[str, Scene]]:
    """All of them, begun."""
    names = Names("consumer_timeout")
    beginnings = {**TOO_LONG, **IN_TIME, QUORUM: consume}
    scenes = {label: begun(broker_url, names, begin, label == QUORUM) for label, begin in beginnings.items()}
    for scene in scenes.values():
        scene.channel.client.timeout = 3 * timeout_ms / 1000 + 60
    yield scenes
    for scene in scenes.values():
        scene.channel.client.close()
    names.delete(broker_url)


def begun(url: str, names: Names, begin: Beginning, is_quorum: bool) -> Scene:
    """One scene, on a connection of its own."""
    channel, queue = Client(url).channel(), names.queue()
    channel.declare_queue(queue, durable=is_quorum, arguments={"x-queue-type": "quorum"} if is_quorum else {})
    fill(channel, queue, "0", "1")
    watch = Stopwatch()
    begin(channel, queue)
    return Scene(channel, queue, watch)


def times_out(scene: Scene, timeout_ms: int) -> None:
    """The channel is closed, not too early."""
    text = (f"PRECONDITION_FAILED - delivery acknowledgement on channel {scene.channel.number} timed out. "
            f"Timeout value used: {timeout_ms} ms. This timeout value can be configured, see consumers doc guide "
            "to learn more")
    scene.channel.fails(406, text, 0, 0)
    assert scene.watch.ms >= timeout_ms


@pytest.mark.parametrize("label", [*TOO_LONG, QUORUM])
def test_a_delivery_unanswered_for_too_long_closes_its_channel(
        scenes: dict[str, Scene], timeout_ms: int, ch: Channel, label: str) -> None:
    """What was unanswered is requeued, and the rest of the connection goes on."""
    scene = scenes[label]
    other = scene.channel.client.channel()
    times_out(scene, timeout_ms)
    assert other.sync() == []
    count = 1 if label == "one of two" else 2
    assert sorted(shown(get(ch, scene.queue, count))) == ["0!", "1!"][:count]


@pytest.mark.parametrize("label", IN_TIME)
def test_a_channel_without_such_a_delivery_goes_on(
        scenes: dict[str, Scene], timeout_ms: int, label: str) -> None:
    """Long after the others were closed."""
    scene = scenes[label]
    let_pass(max(0, int(timeout_ms + LATE_MS - scene.watch.ms)))
    assert scene.channel.sync() == []


def test_a_channel_closed_by_the_timeout_can_be_opened_again(broker_url: str, timeout_ms: int, names: Names) -> None:
    scene = begun(broker_url, names, consume, False)
    scene.channel.client.timeout = 3 * timeout_ms / 1000 + 60
    times_out(scene, timeout_ms)
    scene.channel.open()
    assert shown(get(scene.channel, scene.queue, 2)) == ["0!", "1!"]
    scene.channel.client.close()
