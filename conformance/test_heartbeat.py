"""§27 Heartbeats: how often the broker sends them, and when it closes the connection of a silent client.

All tests use heartbeats of one second, and wait at the same time.
"""
from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Iterator

import pytest

from conformance.channel import Channel
from conformance.client import HEADER, HEARTBEAT, Client, Closed, Frame, frame, method_frame
from conformance.conftest import Broker
from conformance.endings import Ending, played_together
from conformance.fields import content_header, pack
from conformance.methods import BASIC_PUBLISH
from conformance.waiting import wait_until

INTERVAL_S = 1
SURVIVES_S = 4          # longer than any broker waits for a silent client
PATIENCE_S = 10         # of tests, on a busy machine
BEAT = frame(HEARTBEAT, 0, b"")


def connect(client: Client, heartbeat: int = INTERVAL_S) -> Channel:
    """Open connection and channel on a connected socket, with this heartbeat."""
    client.heartbeat = heartbeat
    client.greet()
    client.log_in()
    client.tune()
    client.open_vhost()
    return client.channel()


def frames_until_dropped(client: Client) -> list[Frame]:
    """What the broker sends until it drops TCP."""
    frames = []
    while True:
        try:
            frames.append(client.read_frame(within=PATIENCE_S))
        except Closed:
            return frames


def speaking_every_half_interval(client: Client, octets: Iterator[bytes]) -> None:
    """Send these octets, one piece every half interval, for longer than a silent client stays connected."""
    end = time.monotonic() + SURVIVES_S
    while time.monotonic() < end:
        client.send(next(octets))
        time.sleep(INTERVAL_S / 2)


def the_broker_beats(client: Client) -> None:
    """Often enough that a client may give it up after two intervals."""
    connect(client)
    for _ in range(4):
        client.send(BEAT)
        assert client.read_frame(within=2 * INTERVAL_S) == Frame(HEARTBEAT, 0, b"")


def the_broker_beats_at_half_the_interval(client: Client) -> None:
    """Of four seconds two, with time to spare on a busy machine."""
    connect(client, heartbeat=4)
    begin = time.monotonic()
    assert client.read_frame(within=PATIENCE_S).kind == HEARTBEAT
    assert time.monotonic() - begin < 3.5


def a_silent_client_is_dropped(client: Client) -> None:
    """After two intervals at the earliest, and with nothing said but heartbeats."""
    connect(client)
    begin = time.monotonic()
    frames = frames_until_dropped(client)
    assert 2 * INTERVAL_S - 0.2 <= time.monotonic() - begin < PATIENCE_S
    assert {received.kind for received in frames} <= {HEARTBEAT}


def a_client_that_beats_lives(client: Client) -> None:
    channel = connect(client)
    speaking_every_half_interval(client, iter(lambda: BEAT, None))
    assert channel.sync() == []


def a_client_that_publishes_lives(client: Client) -> None:
    """Any traffic counts as a heartbeat."""
    channel = connect(client)
    publish = method_frame(1, *BASIC_PUBLISH, pack("2sso", 0, "", "", 0)) + frame(HEADER, 1, content_header(0))
    speaking_every_half_interval(client, iter(lambda: publish, None))
    assert channel.sync() == []


def a_client_that_sends_single_octets_lives(client: Client) -> None:
    """They need not make a frame."""
    channel = connect(client)
    octets = iter(BEAT * 2)
    speaking_every_half_interval(client, (bytes([octet]) for octet in octets))
    client.send(bytes(octets))
    assert channel.sync() == []


def a_client_without_heartbeats_lives(client: Client) -> None:
    channel = connect(client, heartbeat=0)
    client.nothing(SURVIVES_S)
    assert channel.sync() == []


ENDINGS: dict[str, Ending] = {ending.__name__: ending for ending in (
    the_broker_beats, the_broker_beats_at_half_the_interval, a_silent_client_is_dropped,
    a_client_that_beats_lives, a_client_that_publishes_lives, a_client_that_sends_single_octets_lives,
    a_client_without_heartbeats_lives)}


@pytest.fixture(scope="module")
def played(broker_url: str) -> Iterator[dict[str, Future]]:
    """All of them, under way."""
    with played_together(broker_url, ENDINGS) as played:
        yield played


@pytest.mark.parametrize("name", ENDINGS)
def test_heartbeats(played: dict[str, Future], name: str) -> None:
    played[name].result()


def test_what_a_dropped_client_had_is_requeued(broker: Broker, ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", queue_name)
    silent = broker.channel(heartbeat=INTERVAL_S)
    silent.consume(queue_name)
    silent.deliveries(1)
    wait_until(lambda: ch.declare_queue(queue_name) == (queue_name, 1, 0), within_s=PATIENCE_S)
    assert ch.get(queue_name).redelivered
