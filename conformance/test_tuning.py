"""§2 Tuning: what the broker proposes, what a client may choose, and what the negotiated values mean."""
from __future__ import annotations

from concurrent.futures import Future
from typing import Iterator

import pytest

from conformance.channel import Channel
from conformance.client import Client
from conformance.conftest import Broker
from conformance.endings import Ending, played_together
from conformance.methods import CHANNEL_OPEN, CHANNEL_OPEN_OK
from conformance.texts import Texts

CHANNEL_MAX, FRAME_MAX, HEARTBEAT = 2047, 131072, 60
SMALLEST_FRAME_MAX = 4096


def test_the_broker_proposes_its_defaults(broker: Broker) -> None:
    client = broker.client(connect=False)
    client.open_socket()
    client.greet()
    assert client.log_in() == (CHANNEL_MAX, FRAME_MAX, HEARTBEAT)


@pytest.mark.parametrize("name, value", [
    ("channel_max", 1),
    ("channel_max", CHANNEL_MAX - 1),
    ("channel_max", CHANNEL_MAX),
    ("frame_max", SMALLEST_FRAME_MAX),
    ("frame_max", FRAME_MAX - 1),
    ("frame_max", FRAME_MAX),
    ("heartbeat", 0),
    ("heartbeat", 1),
    ("heartbeat", HEARTBEAT + 1),
    ("heartbeat", 65535),
])
def test_a_client_may_answer(broker: Broker, name: str, value: int) -> None:
    broker.client(**{name: value}).channel()


def refused(channel_max: int = CHANNEL_MAX, frame_max: int = FRAME_MAX) -> Ending:
    """A tune-ok outside the limits. RabbitMQ drops TCP; a close with 530 is friendlier (§37)."""
    def ending(client: Client) -> None:
        client.channel_max, client.frame_max = channel_max, frame_max
        client.greet()
        client.log_in()
        client.tune()
        client.expect_dropped_or_closed(501, 530)
    return ending


ENDINGS = {
    "no limit of channels": refused(channel_max=0),
    "one channel too many": refused(channel_max=CHANNEL_MAX + 1),
    "all channels there are": refused(channel_max=65535),
    "no limit of frames": refused(frame_max=0),
    "frames of one octet": refused(frame_max=1),
    "frames one octet too small": refused(frame_max=SMALLEST_FRAME_MAX - 1),
    "frames one octet too large": refused(frame_max=FRAME_MAX + 1),
    "frames of 4 GiB": refused(frame_max=2 ** 32 - 1),
}


@pytest.fixture(scope="module")
def played(broker_url: str) -> Iterator[dict[str, Future]]:
    """All endings, under way."""
    with played_together(broker_url, ENDINGS) as played:
        yield played


@pytest.mark.parametrize("name", ENDINGS)
def test_a_client_may_not_answer(played: dict[str, Future], name: str) -> None:
    played[name].result()


# channel-max


@pytest.mark.parametrize("number", [6, 7, 2047, 2048, 65535])
def test_channel_max_limits_how_many_are_open_not_their_numbers(broker: Broker, number: int) -> None:
    broker.client(channel_max=5).channel(number)


@pytest.mark.parametrize("channel_max", [1, 3])
def test_one_channel_more_than_agreed_closes_the_connection(broker: Broker, channel_max: int) -> None:
    client = broker.client(channel_max=channel_max)
    for _ in range(channel_max):
        client.channel()
    Channel(client, channel_max + 1).send(CHANNEL_OPEN, "s", "")
    client.expect_connection_close(
        530, f"NOT_ALLOWED - number of channels opened ({channel_max}) has reached "
        f"the negotiated channel_max ({channel_max})", 0, 0)


@pytest.mark.standard
def test_all_agreed_channels_can_be_open_at_once(client: Client) -> None:
    channels = [Channel(client, number) for number in range(1, CHANNEL_MAX + 1)]
    for channel in channels:
        channel.send(CHANNEL_OPEN, "s", "")
    for channel in channels:
        channel.answer(CHANNEL_OPEN_OK, "L")


@pytest.mark.standard
def test_a_closed_channel_makes_room_for_another(broker: Broker) -> None:
    client = broker.client(channel_max=1)
    for number in range(1, 6):
        client.channel(number).close()


def test_a_channel_closed_by_an_error_makes_room_for_another(broker: Broker, texts: Texts) -> None:
    client = broker.client(channel_max=1)
    for number in range(1, 6):
        channel = client.channel(number)
        channel.send_declare_queue("nonesuch", passive=True)
        channel.fails(404, texts.no_queue("nonesuch"))


# frame-max


@pytest.mark.parametrize("size, expected", [
    (0, []),
    (1, [1]),
    (4088, [4088]),
    (4089, [4088, 1]),
    (10000, [4088, 4088, 1824]),
])
def test_bodies_leave_in_frames_of_the_agreed_size(
        broker: Broker, queue_name: str, size: int, expected: list[int]) -> None:
    client = broker.client(frame_max=4096)
    channel = client.channel()
    channel.declare_queue(queue_name)
    channel.publish("", queue_name, bytes(size))
    channel.send_get(queue_name, no_ack=True)
    assert [len(client.read_frame().payload) for _ in range(2 + len(expected))][2:] == expected
    assert channel.sync() == []


@pytest.mark.standard
def test_a_reader_with_small_frames_gets_what_came_in_large_ones(broker: Broker, queue_name: str) -> None:
    body = bytes(range(256)) * 400
    writer, reader = broker.channel(frame_max=131072), broker.channel(frame_max=4096)
    writer.declare_queue(queue_name)
    writer.publish("", queue_name, body)
    writer.sync()
    assert reader.get(queue_name).body == body


# heartbeat


@pytest.mark.standard
def test_a_client_that_wants_no_heartbeats_gets_none(client: Client) -> None:
    client.channel().sync()
    client.nothing(1.5)
    client.channel().sync()


@pytest.mark.standard
def test_the_clients_heartbeat_is_final(broker: Broker) -> None:
    """One second instead of the proposed sixty: the broker has to speak up within it."""
    client = broker.client(heartbeat=1)
    assert client.read_frame(within=5).kind == 8
