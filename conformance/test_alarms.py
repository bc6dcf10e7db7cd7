"""§27 Alarms: which connections are blocked and when, the notifications, and what continues unchanged.

docs/connection-blocked, docs/alarms.
"""
from __future__ import annotations

import contextlib
import time
from typing import Iterator

import pytest

from conformance.alarms import Alarms
from conformance.channel import Channel
from conformance.client import HEARTBEAT, Client, Silence, frame
from conformance.conftest import Broker
from conformance.fields import unpack
from conformance.methods import BASIC_ACK, CONNECTION_BLOCKED, CONNECTION_UNBLOCKED
from conformance.waiting import wait_until

pytestmark = pytest.mark.needs("ctl", "connection.blocked")

RESOURCES = ["memory", "disk"]
INTERVAL_S = 1


@pytest.fixture
def alarms(request: pytest.FixtureRequest) -> Iterator[Alarms]:
    """The broker's alarms, all off again when the test ends."""
    alarms = Alarms(request.config.getoption("--ctl"))
    yield alarms
    alarms.end_all()


@pytest.fixture
def publisher(ch: Channel, queue_name: str) -> Channel:
    """A channel with confirms, and a queue."""
    ch.declare_queue(queue_name)
    ch.confirm_select()
    return ch


def hear_blocked(client: Client) -> str:
    """Expect connection.blocked, and return its reason."""
    return unpack("s", client.await_method(0, [CONNECTION_BLOCKED]).args)[0]


def hear_unblocked(client: Client) -> None:
    """Expect connection.unblocked."""
    assert client.await_method(0, [CONNECTION_UNBLOCKED]).args == b""


def has_messages(broker: Broker, queue: str, count: int) -> bool:
    """Whether so many wait in this queue; asked on a connection of its own."""
    return broker.channel().declare_queue(queue) == (queue, count, 0)


def state_of(alarms: Alarms, client: Client) -> str:
    """The state of this connection as list_connections has it."""
    port = str(client.socket.getsockname()[1])
    lines = [line.split("\t") for line in alarms.run("list_connections", "peer_port", "state").splitlines()]
    return next(line[1] for line in lines if line[0] == port)


@pytest.mark.parametrize("resource", RESOURCES)
def test_a_publisher_is_blocked_until_the_alarm_ends(
    client: Client, publisher: Channel, queue_name: str, broker: Broker, alarms: Alarms, resource: str
) -> None:
    alarms.begin(resource)
    client.nothing()
    publisher.publish("", queue_name, b"body")
    assert hear_blocked(client) == f"low on {resource}"
    client.nothing()
    assert has_messages(broker, queue_name, 0)
    alarms.end(resource)
    hear_unblocked(client)
    assert [confirm.tag for confirm in publisher.confirms(1)] == [1]
    assert has_messages(broker, queue_name, 1)


def test_what_comes_after_the_publish_is_not_looked_at(
    client: Client, publisher: Channel, queue_name: str, alarms: Alarms
) -> None:
    alarms.begin("memory")
    publisher.publish("", queue_name, b"body")
    hear_blocked(client)
    publisher.send_get(queue_name)
    client.nothing()
    alarms.end("memory")
    hear_unblocked(client)
    assert client.await_method(publisher.number, [(60, 71)]).body == b"body"


def test_a_connection_that_publishes_nothing_goes_on(
    publisher: Channel, queue_name: str, broker: Broker, alarms: Alarms
) -> None:
    for body in (b"a", b"b"):
        publisher.publish("", queue_name, body)
    publisher.confirms(2)
    consumer = broker.channel()
    consumer.consume(queue_name)
    assert len(consumer.deliveries(2)) == 2
    alarms.begin("memory")
    consumer.nack(1)
    again, = consumer.deliveries(1)
    consumer.ack(again.tag, multiple=True)
    consumer.declare_queue(queue_name)
    assert consumer.sync() == []


def test_a_newcomer_may_log_in_and_is_blocked_when_it_publishes(
    queue_name: str, broker: Broker, alarms: Alarms
) -> None:
    alarms.begin("disk")
    client = broker.client()
    channel = client.channel()
    channel.declare_queue(queue_name)
    channel.publish("", queue_name, b"body")
    assert hear_blocked(client) == "low on disk"


def test_unblocked_comes_when_the_last_alarm_has_ended(
    client: Client, publisher: Channel, queue_name: str, broker: Broker, alarms: Alarms
) -> None:
    alarms.begin("memory")
    publisher.publish("", queue_name, b"body")
    assert hear_blocked(client) == "low on memory"
    alarms.begin("disk")
    client.nothing()
    late = broker.client()
    late.channel().publish("", queue_name, b"body")
    assert hear_blocked(late) == "low on disk & memory"
    alarms.end("memory")
    client.nothing()
    late.nothing()
    alarms.end("disk")
    for each in (client, late):
        hear_unblocked(each)
    client.await_method(publisher.number, [BASIC_ACK])


def test_who_published_nothing_meanwhile_hears_nothing(client: Client, publisher: Channel, alarms: Alarms) -> None:
    alarms.begin("memory")
    alarms.end("memory")
    client.nothing()
    assert publisher.sync() == []


@pytest.mark.parametrize("capabilities", [{}, {"connection.blocked": False}], ids=["none", "false"])
def test_a_client_without_the_capability_is_blocked_without_a_word(
    queue_name: str, broker: Broker, alarms: Alarms, capabilities: dict
) -> None:
    client = broker.client(capabilities=capabilities)
    channel = client.channel()
    channel.declare_queue(queue_name)
    alarms.begin("memory")
    channel.publish("", queue_name, b"body")
    client.nothing()
    assert has_messages(broker, queue_name, 0)
    alarms.end("memory")
    wait_until(lambda: has_messages(broker, queue_name, 1), pause_s=0.2)
    assert channel.sync() == []


def test_a_second_alarm_blocks_again(client: Client, publisher: Channel, queue_name: str, alarms: Alarms) -> None:
    for _ in range(2):
        alarms.begin("memory")
        publisher.publish("", queue_name, b"body")
        hear_blocked(client)
        alarms.end("memory")
        hear_unblocked(client)
        assert len(publisher.confirms(1)) == 1


def test_list_connections_tells_who_is_blocked_and_who_would_be(
    client: Client, publisher: Channel, queue_name: str, broker: Broker, alarms: Alarms
) -> None:
    consumer = broker.client()
    assert state_of(alarms, client) == "running"
    alarms.begin("memory")
    publisher.publish("", queue_name, b"body")
    hear_blocked(client)
    assert (state_of(alarms, client), state_of(alarms, consumer)) == ("blocked", "blocking")
    alarms.end("memory")
    hear_unblocked(client)
    assert (state_of(alarms, client), state_of(alarms, consumer)) == ("running", "running")


def test_a_blocked_client_hears_heartbeats_and_lives_by_its_own(
    queue_name: str, broker: Broker, alarms: Alarms
) -> None:
    client = broker.client(heartbeat=INTERVAL_S)
    channel = client.channel()
    channel.declare_queue(queue_name)
    alarms.begin("memory")
    channel.publish("", queue_name, b"body")
    hear_blocked(client)
    beats, end = 0, time.monotonic() + 4 * INTERVAL_S
    while time.monotonic() < end:
        client.send(frame(HEARTBEAT, 0, b""))
        with contextlib.suppress(Silence):
            beats += client.read_frame(within=INTERVAL_S / 2).kind == HEARTBEAT
    assert beats >= 3
    alarms.end("memory")
    hear_unblocked(client)
    channel.sync()


@pytest.mark.needs("blocked-clients-time-out")
def test_a_blocked_client_that_falls_silent_is_dropped(queue_name: str, broker: Broker, alarms: Alarms) -> None:
    client = broker.client(heartbeat=INTERVAL_S)
    channel = client.channel()
    channel.declare_queue(queue_name)
    alarms.begin("memory")
    channel.publish("", queue_name, b"body")
    hear_blocked(client)
    client.expect_dropped()


@pytest.mark.needs("empty-publishes-block")
def test_an_empty_publish_blocks_as_any_other(
    client: Client, publisher: Channel, queue_name: str, broker: Broker, alarms: Alarms
) -> None:
    alarms.begin("disk")
    publisher.publish("", queue_name, b"")
    hear_blocked(client)
    assert has_messages(broker, queue_name, 0)
    alarms.end("disk")
    hear_unblocked(client)
    assert len(publisher.confirms(1)) == 1


@pytest.mark.parametrize("octets, is_raised", [("1000000", False), ("500000GB", True)])
def test_limits_are_taken_with_units(
    client: Client, publisher: Channel, queue_name: str, alarms: Alarms, octets: str, is_raised: bool
) -> None:
    alarms.begin("disk")
    alarms.run("set_disk_free_limit", octets)
    publisher.publish("", queue_name, b"body")
    if is_raised:
        hear_blocked(client)
    else:
        assert len(publisher.confirms(1)) == 1
