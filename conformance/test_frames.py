"""§3 Frames: invalid input and its answers, contents in several frames, interleaved channels, heartbeats."""
from __future__ import annotations

import re
import struct

import pytest

from conformance.channel import Channel
from conformance.client import (
    BODY, FRAME_END, HEADER, HEARTBEAT, METHOD, PROTOCOL_HEADER, Client, content_frames, frame, method_frame)
from conformance.conftest import Broker
from conformance.fields import Properties, content_header, longstr, pack
from conformance.methods import (
    BASIC_GET, BASIC_PUBLISH, BASIC_QOS, BASIC_QOS_OK, CHANNEL_CLOSE, QUEUE_BIND, QUEUE_DECLARE, QUEUE_DELETE,
    QUEUE_PURGE)

UNEXPECTED_HEADER = "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead"
UNEXPECTED_BODY = "UNEXPECTED_FRAME - expected content body, got non content body frame instead"
UNEXPECTED_METHOD = "UNEXPECTED_FRAME - expected method frame, got non method frame instead"

PUBLISH = method_frame(1, *BASIC_PUBLISH, pack("2sso", 0, "", "nowhere", 0))
QOS = method_frame(1, *BASIC_QOS, pack("42o", 0, 0, 0))
CLOSE_CHANNEL = method_frame(1, *CHANNEL_CLOSE, pack("2s22", 200, "bye", 0, 0))


def header_frame(size: int, *, class_id: int = 60, weight: int = 0) -> bytes:
    """A content header on channel 1, without properties."""
    return frame(HEADER, 1, content_header(size, class_id=class_id, weight=weight))


def begins(*texts: str) -> re.Pattern:
    """Any reply text that begins with one of these."""
    return re.compile(f"(?:{'|'.join(map(re.escape, texts))}).*", re.DOTALL)


# Frames that are none. Only the code and the first words of these texts matter to clients, the rest is Erlang's.


@pytest.mark.standard
@pytest.mark.parametrize("end", [0, 0xCD, 0xFF, ord("\n")])
def test_a_wrong_end_octet_is_a_frame_error(client: Client, ch: Channel, end: int) -> None:
    client.send(method_frame(1, *BASIC_GET, pack("2so", 0, "q", 0))[:-1] + bytes([end]))
    client.expect_connection_close(501, begins("FRAME_ERROR - type 1"), 0, 0)


def test_tcp_ends_after_a_frame_error(client: Client, ch: Channel) -> None:
    client.send(QOS[:-1] + b"X")
    client.expect_connection_close(501, begins("FRAME_ERROR - type 1"), 0, 0)
    client.expect_dropped()


@pytest.mark.standard
@pytest.mark.parametrize("kind", [0, 4, 5, 6, 7, 9, 255])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_an_unknown_frame_type_is_a_frame_error(client: Client, ch: Channel, kind: int, channel: int) -> None:
    client.send_frame(kind, channel, b"abc")
    client.expect_connection_close(501, begins(f"FRAME_ERROR - type {kind}"), 0, 0)


@pytest.mark.standard
@pytest.mark.parametrize("size", [4096 + 1, 131072, 2 ** 31, 2 ** 32 - 1])
def test_a_frame_larger_than_agreed_is_a_frame_error_at_its_first_octets(broker: Broker, size: int) -> None:
    client = broker.client(frame_max=4096)
    client.channel()
    client.send(struct.pack(">BHI", BODY, 1, size))
    client.expect_connection_close(501, begins("FRAME_ERROR - type 3"), 0, 0)


@pytest.mark.parametrize("size", [4087, 4088, 4089, 4096])
def test_a_payload_up_to_frame_max_passes_although_eight_octets_less_are_agreed(
        broker: Broker, queue_name: str, size: int) -> None:
    client = broker.client(frame_max=4096)
    channel = client.channel()
    channel.declare_queue(queue_name)
    client.send(method_frame(1, *BASIC_PUBLISH, pack("2sso", 0, "", queue_name, 0)))
    client.send(header_frame(size) + frame(BODY, 1, bytes(size)))
    assert channel.get(queue_name, no_ack=True).body == bytes(size)


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\x00\x32\x00"], ids=["no octets", "one octet", "three octets"])
def test_a_method_frame_too_short_for_its_ids_is_a_frame_error(client: Client, ch: Channel, payload: bytes) -> None:
    client.send_frame(METHOD, 1, payload)
    client.expect_connection_close(501, begins("FRAME_ERROR - type 1"), 0, 0)


@pytest.mark.parametrize("payload", [b"x", b"\x00\x3c", content_header(5)[:11]], ids=len)
def test_a_header_frame_too_short_for_its_fields_is_a_frame_error(client: Client, ch: Channel, payload: bytes) -> None:
    client.send(PUBLISH + frame(HEADER, 1, payload))
    client.expect_connection_close(501, begins("FRAME_ERROR - type 2"), 0, 0)


def test_a_heartbeat_with_a_payload_is_a_frame_error(client: Client) -> None:
    client.send_frame(HEARTBEAT, 0, b"x")
    client.expect_connection_close(501, begins("FRAME_ERROR - type 8"), 0, 0)


@pytest.mark.parametrize("channel", [1, 2, 65535])
def test_a_heartbeat_on_a_channel_is_unexpected(client: Client, ch: Channel, channel: int) -> None:
    client.send_frame(HEARTBEAT, channel, b"")
    client.expect_connection_close(505, begins("UNEXPECTED_FRAME - type 8"), 0, 0)


@pytest.mark.parametrize("kind, payload", [(HEADER, content_header(0)), (BODY, b"x")], ids=["header", "body"])
def test_a_content_on_channel_0_is_unexpected(client: Client, kind: int, payload: bytes) -> None:
    client.send_frame(kind, 0, payload)
    client.expect_connection_close(505, begins(f"UNEXPECTED_FRAME - type {kind}"), 0, 0)


# Methods that cannot be read

UNREADABLE = {
    "a string that ends early": (QUEUE_DECLARE, b"\x00\x00\x20abc"),
    "no arguments at all": (QUEUE_DECLARE, b""),
    "a table that ends early": (QUEUE_DECLARE, pack("2so", 0, "q", 0) + b"\x00\x00\x00\x09"),
    "a table without its last field": (QUEUE_BIND, pack("2sss", 0, "q", "x", "k")),
    "octets after the last field": (QUEUE_PURGE, pack("2so", 0, "q", 0) + b"X"),
    "a delete without its flags": (QUEUE_DELETE, pack("2s", 0, "q")),
}


@pytest.mark.parametrize("ids, args", UNREADABLE.values(), ids=UNREADABLE)
def test_arguments_that_cannot_be_decoded_close_the_connection(
        client: Client, ch: Channel, ids: tuple[int, int], args: bytes) -> None:
    """RabbitMQ says 501 with the method's ids; 502, the specification's own code, is as good (§38)."""
    client.send_method(1, *ids, args)
    client.expect_connection_close((501, 502), begins("FRAME_ERROR - ", "SYNTAX_ERROR - "), *ids)


@pytest.mark.parametrize("name", [b"\xff", b"ok\xc3", b"\x80", b"\xc0\xaf"])
def test_a_name_that_is_not_utf8_closes_the_connection(client: Client, ch: Channel, name: bytes) -> None:
    ch.send_declare_queue(name)
    client.expect_connection_close(501, "FRAME_ERROR - Malformed UTF-8 in shortstr", 0, 0)


@pytest.mark.parametrize("ids", [(99, 1), (50, 99), (60, 0), (0, 0), (10, 99), (85, 12)], ids=str)
@pytest.mark.parametrize("channel", [0, 1])
def test_an_unknown_method_ends_the_connection(
        client: Client, ch: Channel, channel: int, ids: tuple[int, int]) -> None:
    """RabbitMQ drops TCP without a word. 503 or 540 before it is friendlier, and breaks nobody (§37)."""
    client.send_method(channel, *ids)
    client.expect_dropped_or_closed(501, 503, 504, 540)


TABLES_UNREADABLE = {
    "an unknown type octet": b"\x01kQ\x01",
    "a type octet of zero": b"\x01k\x00\x01",
    "a key without a type": b"\x01k",
    "a key that ends early": b"\x05k",
    "a value that ends early": b"\x01kI\x00\x00",
    "a string that ends early": b"\x01kS\x00\x00\x00\x05abc",
    "a nested table that ends early": b"\x01kF\x00\x00\x00\x05\x01ax",
    "an array with an unknown type octet": b"\x01kA\x00\x00\x00\x02Q\x01",
}


@pytest.mark.parametrize("table", TABLES_UNREADABLE.values(), ids=TABLES_UNREADABLE)
def test_a_table_that_cannot_be_read_ends_the_connection(client: Client, ch: Channel, table: bytes) -> None:
    """RabbitMQ drops TCP without a word; a broker may say 501 or 502 first (§3, §38)."""
    client.send_method(1, *QUEUE_DECLARE, pack("2so", 0, "q", 0) + longstr(table))
    client.expect_dropped_or_closed(501, 502)


# Contents out of turn


@pytest.mark.standard
@pytest.mark.parametrize("first", [header_frame(0), frame(BODY, 1, b"x"), frame(BODY, 1, b"")],
                         ids=["header", "body", "empty body"])
def test_a_content_with_no_method_before_it_is_unexpected(client: Client, ch: Channel, first: bytes) -> None:
    client.send(first)
    client.expect_connection_close(505, UNEXPECTED_METHOD, 0, 0)


@pytest.mark.standard
@pytest.mark.parametrize("instead", [
    PUBLISH, QOS, CLOSE_CHANNEL, frame(BODY, 1, b"x"), frame(BODY, 1, b""), header_frame(0, weight=1),
], ids=["a publish", "another method", "channel.close", "a body", "an empty body", "a header with a weight"])
def test_anything_but_a_header_after_publish_is_unexpected(client: Client, ch: Channel, instead: bytes) -> None:
    client.send(PUBLISH + instead)
    client.expect_connection_close(505, UNEXPECTED_HEADER, *BASIC_PUBLISH)


@pytest.mark.parametrize("class_id", [0, 50, 61, 65535])
def test_a_header_of_another_class_is_unexpected(client: Client, ch: Channel, class_id: int) -> None:
    client.send(PUBLISH + header_frame(0, class_id=class_id))
    text = f"UNEXPECTED_FRAME - expected content header for class 60, got one for class {class_id} instead"
    client.expect_connection_close(505, text, *BASIC_PUBLISH)


@pytest.mark.standard
@pytest.mark.parametrize("instead", [PUBLISH, QOS, CLOSE_CHANNEL, header_frame(5)],
                         ids=["a publish", "another method", "channel.close", "a second header"])
@pytest.mark.parametrize("begun", [b"", frame(BODY, 1, b"abc")], ids=["before the body", "within the body"])
def test_anything_but_body_until_it_is_whole_is_unexpected(
        client: Client, ch: Channel, begun: bytes, instead: bytes) -> None:
    client.send(PUBLISH + header_frame(5) + begun + instead)
    client.expect_connection_close(505, UNEXPECTED_BODY, *BASIC_PUBLISH)


def test_more_body_than_declared_closes_the_connection(client: Client, ch: Channel) -> None:
    """RabbitMQ notices at the next method, with 505; 501 at once is as good (§38)."""
    client.send(PUBLISH + header_frame(5) + frame(BODY, 1, b"123456") + QOS)
    client.expect_connection_close((501, 505), begins("FRAME_ERROR - ", "UNEXPECTED_FRAME - "))


def test_a_body_after_a_whole_content_is_unexpected(client: Client, ch: Channel) -> None:
    client.send(PUBLISH + header_frame(5) + frame(BODY, 1, b"12345") + frame(BODY, 1, b"6"))
    client.expect_connection_close(505, UNEXPECTED_METHOD, 0, 0)


def test_a_body_after_a_header_of_size_0_is_unexpected(client: Client, ch: Channel) -> None:
    client.send(PUBLISH + header_frame(0) + frame(BODY, 1, b""))
    client.expect_connection_close(505, UNEXPECTED_METHOD, 0, 0)


PROPERTIES_UNREADABLE = {
    "a property that ends early": struct.pack(">H", 1 << 15) + b"\x05ab",
    "headers that end early": struct.pack(">H", 1 << 13) + b"\x00\x00\x00\x09",
    "a property that is missing": struct.pack(">H", 1 << 12),
    "octets after the last property": struct.pack(">H", 0) + b"\x05",
    "headers with an unknown type octet": struct.pack(">H", 1 << 13) + longstr(b"\x01kQ\x01"),
}


@pytest.mark.parametrize("properties", PROPERTIES_UNREADABLE.values(), ids=PROPERTIES_UNREADABLE)
def test_properties_that_cannot_be_decoded_close_the_connection(
        client: Client, ch: Channel, properties: bytes) -> None:
    """RabbitMQ says 541 without a reason; 501 or 502 with one is friendlier (§38)."""
    client.send(PUBLISH + frame(HEADER, 1, struct.pack(">HHQ", 60, 0, 0) + properties))
    client.expect_connection_close((501, 502, 541), begins("FRAME_ERROR - ", "SYNTAX_ERROR - ", "INTERNAL_ERROR"))


@pytest.mark.standard
@pytest.mark.parametrize("bad", [b"", PUBLISH, PUBLISH + header_frame(5)],
                         ids=["between methods", "before a header", "within a body"])
def test_dropping_tcp_leaves_the_broker_well(broker: Broker, client: Client, ch: Channel, bad: bytes) -> None:
    client.send(bad + QOS[:5])
    client.drop()
    broker.channel().sync()


# Contents in pieces


def published(queue: str, *frames: bytes, channel: int = 1) -> bytes:
    """A publish to a queue, and the frames of its content."""
    return method_frame(channel, *BASIC_PUBLISH, pack("2sso", 0, "", queue, 0)) + b"".join(frames)


@pytest.mark.standard
@pytest.mark.parametrize("parts", [
    [b"12345"],
    [b"1", b"2", b"3", b"4", b"5"],
    [b"1234", b"5"],
    [b"", b"12345"],
    [b"12", b"", b"", b"345"],
], ids=["whole", "single octets", "uneven", "an empty frame first", "empty frames within"])
def test_a_body_may_come_in_any_pieces(client: Client, ch: Channel, queue_name: str, parts: list[bytes]) -> None:
    ch.declare_queue(queue_name)
    client.send(published(queue_name, header_frame(5), *(frame(BODY, 1, part) for part in parts)))
    assert ch.get(queue_name, no_ack=True).body == b"12345"


@pytest.mark.standard
def test_a_body_in_a_thousand_pieces_is_put_together(client: Client, ch: Channel, queue_name: str) -> None:
    body = bytes(range(250)) * 4
    ch.declare_queue(queue_name)
    client.send(published(queue_name, header_frame(1000), *(frame(BODY, 1, bytes([octet])) for octet in body)))
    assert ch.get(queue_name, no_ack=True).body == body


@pytest.mark.standard
@pytest.mark.parametrize("size", [0, 1, 131064, 131065, 262128, 1 << 20])
def test_bodies_of_any_size_come_back_unchanged(ch: Channel, queue_name: str, size: int) -> None:
    body = (bytes(range(251)) * (size // 251 + 1))[:size]
    ch.declare_queue(queue_name)
    ch.publish("", queue_name, body)
    assert ch.get(queue_name, no_ack=True).body == body


@pytest.mark.standard
def test_a_body_full_of_frame_ends_comes_back_unchanged(ch: Channel, queue_name: str) -> None:
    body = QOS + FRAME_END * 500 + PROTOCOL_HEADER
    ch.declare_queue(queue_name)
    ch.publish("", queue_name, body)
    assert ch.get(queue_name, no_ack=True).body == body


def test_heartbeats_may_come_within_a_content(client: Client, ch: Channel, queue_name: str) -> None:
    beat = frame(HEARTBEAT, 0, b"")
    ch.declare_queue(queue_name)
    client.send(beat + published(queue_name, beat, header_frame(2), beat, frame(BODY, 1, b"a"), beat,
                                 frame(BODY, 1, b"b")) + beat)
    assert ch.get(queue_name, no_ack=True).body == b"ab"


@pytest.mark.standard
def test_channel_methods_may_come_within_a_content_of_another_channel(
        client: Client, ch: Channel, queue_name: str) -> None:
    other = client.channel()
    ch.declare_queue(queue_name)
    client.send(published(queue_name))
    other.qos(0)
    client.send(header_frame(1))
    other.qos(0)
    client.send(frame(BODY, 1, b"x"))
    assert ch.get(queue_name, no_ack=True).body == b"x"


@pytest.mark.standard
def test_contents_of_two_channels_may_interleave(client: Client, ch: Channel, queue_name: str) -> None:
    client.channel(2)
    ch.declare_queue(queue_name)
    header = content_header(4)
    client.send(
        published(queue_name) + published(queue_name, channel=2)
        + frame(HEADER, 2, header) + frame(HEADER, 1, header)
        + frame(BODY, 1, b"on") + frame(BODY, 2, b"the ") + frame(BODY, 1, b"e "))
    client.sync(1)
    client.sync(2)
    assert {ch.get(queue_name, no_ack=True).body for _ in range(2)} == {b"one ", b"the "}


@pytest.mark.standard
@pytest.mark.parametrize("channels", [2, 20])
def test_contents_of_many_channels_sent_in_turns_arrive_whole(
        client: Client, ch: Channel, queue_name: str, channels: int) -> None:
    ch.declare_queue(queue_name)
    numbers = [client.channel().number for _ in range(channels)]
    bodies = {number: bytes([number]) * (2000 + number) for number in numbers}
    contents = [split_frames(published(queue_name, channel=number)
                             + content_frames(number, content_header(len(body)), body, frame_max=108))
                for number, body in bodies.items()]
    client.send(b"".join(b"".join(turn) for turn in zip(*contents)))
    client.send(b"".join(b"".join(content[min(map(len, contents)):]) for content in contents))
    for number in numbers:
        client.sync(number)
    got = [ch.get(queue_name, no_ack=True).body for _ in numbers]
    assert sorted(got) == sorted(bodies.values())


def split_frames(octets: bytes) -> list[bytes]:
    """Octets cut into their frames."""
    frames = []
    while octets:
        size = struct.unpack_from(">I", octets, 3)[0] + 8
        frames.append(octets[:size])
        octets = octets[size:]
    return frames


# The stream of octets


class Dribbling(Client):
    """A client that sends everything in segments of so many octets."""

    segment = 1

    def send(self, raw: bytes) -> None:
        for start in range(0, len(raw), self.segment):
            super().send(raw[start:start + self.segment])


@pytest.mark.standard
@pytest.mark.parametrize("segment", [1, 2, 3, 7, 64])
def test_octets_may_come_in_any_segments(broker: Broker, queue_name: str, segment: int) -> None:
    properties = Properties(headers={"k": [1, "v"]}, message_id="m")
    client = Dribbling(broker.url, connect=False)
    client.segment = segment
    with client:
        client.handshake()
        channel = client.channel()
        channel.declare_queue(queue_name, arguments={"x-expires": 60000})
        channel.publish("", queue_name, b"body", properties=properties)
        got = channel.get(queue_name)
        assert (got.properties, got.body) == (properties, b"body")


@pytest.mark.standard
def test_a_thousand_methods_in_one_segment_are_answered_in_order(client: Client, ch: Channel) -> None:
    client.send(QOS * 1000)
    for _ in range(1000):
        client.expect(1, *BASIC_QOS_OK)
