"""Frames of the hot path are decoded with pamqp."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from amqpd.message import Message, pack_content, pack_short_string
from amqpd.wire import writer
from tests.support.samples import FRAME_MAX, message, route

PROPERTIES = b"\x10\x00\x02"


def read(octets: bytes) -> list[tuple[int, Any]]:
    """All frames, with their channels."""
    found = []
    while octets:
        size, channel, value = frame.unmarshal(octets)
        found.append((channel, value))
        octets = octets[size:]
    return found


def only(octets: bytes) -> tuple[int, dict[str, Any]]:
    """The one frame's channel and arguments."""
    (channel, value), = read(octets)
    return channel, dict(value)


def body_of(octets: bytes) -> tuple[set[int], int, bytes]:
    """The channels of a content's frames, the size it announces, and its body."""
    frames = read(octets)
    assert isinstance(frames[0][1], ContentHeader)
    body = b""
    for _, piece in frames[1:]:
        assert isinstance(piece, ContentBody)
        body += piece.value
    return {channel for channel, _ in frames}, frames[0][1].body_size, body


def with_body(body: bytes, *, channel: int = 1, frame_max: int = FRAME_MAX) -> Message:
    where = route(channel=channel, frame_max=frame_max)
    return Message(1, where, message(1).facts, pack_content(channel, frame_max, PROPERTIES, body), len(body))


def test_a_heartbeat() -> None:
    (channel, value), = read(writer.HEARTBEAT_FRAME)
    assert channel == 0 and isinstance(value, Heartbeat)


@pytest.mark.parametrize("redelivered", [False, True])
@pytest.mark.parametrize("key", ["", "orders", "k" * 255, "kéy", "with space/and:more"])
def test_a_delivery(key: str, redelivered: bool) -> None:
    head = writer.delivery_head(7, FRAME_MAX, pack_short_string("tag"), route(key, "ex", channel=7))
    back = head.back_redelivered if redelivered else head.back
    assert only(head.front + writer.pack_tag(2**62) + back) == (7, {
        "consumer_tag": "tag", "delivery_tag": 2**62, "redelivered": redelivered, "exchange": "ex",
        "routing_key": key})


@pytest.mark.parametrize(("channel", "frame_max", "fits"), [
    (1, FRAME_MAX, True), (2, FRAME_MAX, False), (1, FRAME_MAX + 1, True), (1, 4_096, False)])
def test_a_content_fits_the_same_channel_with_frames_as_large(channel: int, frame_max: int, fits: bool) -> None:
    assert writer.delivery_head(channel, frame_max, b"\x01c", route()).content_fits is fits


@pytest.mark.parametrize("redelivered", [False, True])
def test_a_get_ok(redelivered: bool) -> None:
    octets = writer.pack_get_ok(3, 9, redelivered=redelivered, route=route("k", "ex"), left=4_000_000_000)
    assert only(octets) == (3, {
        "delivery_tag": 9, "redelivered": redelivered, "exchange": "ex", "routing_key": "k",
        "message_count": 4_000_000_000})


def test_a_return() -> None:
    assert only(writer.pack_return(3, route("k", "ex"))) == (3, {
        "reply_code": 312, "reply_text": "NO_ROUTE", "exchange": "ex", "routing_key": "k"})


@pytest.mark.parametrize("multiple", [False, True])
def test_a_confirm(multiple: bool) -> None:
    (channel, ack), = read(writer.pack_confirm(3, 77, multiple=multiple))
    assert isinstance(ack, Basic.Ack)
    assert (channel, ack.delivery_tag, ack.multiple) == (3, 77, multiple)


def test_a_refusal_to_confirm() -> None:
    (channel, nack), = read(writer.pack_refusal(3, 77))
    assert isinstance(nack, Basic.Nack)
    assert (channel, nack.delivery_tag, nack.multiple, nack.requeue) == (3, 77, False, True)


def test_a_short_string_is_at_most_255_octets() -> None:
    assert pack_short_string("é" * 127) == b"\xfe" + "é".encode() * 127
    with pytest.raises(ValueError):
        pack_short_string("é" * 128)


def test_a_content_for_its_own_channel_and_frames_is_not_touched() -> None:
    whole = with_body(bytes(10_000))
    assert writer.refit_content(whole, 1, FRAME_MAX) is whole.content


@given(
    body=st.sampled_from([b"", b"x", bytes(4_088), bytes(4_089), bytes(20_000)]), channel=st.sampled_from([1, 2]),
    sent_max=st.sampled_from([4_096, 8_192, FRAME_MAX]), taken_max=st.sampled_from([4_096, 5_000, FRAME_MAX]))
def test_a_content_is_fitted_to_any_channel_and_frame_size(
    body: bytes, channel: int, sent_max: int, taken_max: int
) -> None:
    octets = writer.refit_content(with_body(body, frame_max=sent_max), channel, taken_max)
    assert body_of(octets) == ({channel}, len(body), body)
    position = 0
    while position < len(octets):
        size = frame.unmarshal(octets[position:])[0]
        assert size <= max(taken_max, min(sent_max, taken_max))
        position += size
    assert read(octets)[0][1].properties.delivery_mode == 2


def test_a_content_that_was_read_into_place_is_fitted_too() -> None:
    whole = with_body(bytes(200_000))
    whole.content = bytearray(whole.content)        # type: ignore[assignment]  # as the reader leaves large ones
    assert body_of(writer.refit_content(whole, 5, 4_096)) == ({5}, 200_000, bytes(200_000))
    assert type(whole.properties) is bytes and bytes(whole.body) == bytes(200_000)


@given(
    body=st.sampled_from([b"", b"x", bytes(20_000), bytes(range(256)) * 400]), channel=st.sampled_from([1, 2]),
    sent_max=st.sampled_from([64, 4_096, FRAME_MAX]), taken_max=st.sampled_from([4_096, 5_000, FRAME_MAX]),
    properties=st.sampled_from([None, b"\x10\x00\x01"]))
def test_the_pieces_of_a_content_are_fitted_to_any_channel_and_frame_size(
    body: bytes, channel: int, sent_max: int, taken_max: int, properties: bytes | None
) -> None:
    whole = with_body(body, frame_max=sent_max)
    octets = b"".join(writer.content_pieces(whole, channel, taken_max, properties))
    assert body_of(octets) == ({channel}, len(body), body)
    assert max(len(value.value) for _, value in read(octets)[1:]) <= taken_max - 8 if body else len(read(octets)) == 1
    assert Message(1, whole.route, whole.facts, octets, len(body)).properties == (properties or PROPERTIES)


@pytest.mark.parametrize(("sent_max", "taken_max"), [
    (FRAME_MAX, FRAME_MAX), (4_096, FRAME_MAX), (FRAME_MAX, 4_096), (4_096, 4_096)])
def test_a_large_body_is_not_copied_for_another_channel(sent_max: int, taken_max: int) -> None:
    whole = with_body(bytes(1_000_000), frame_max=sent_max)
    pieces = writer.content_pieces(whole, 2, taken_max)
    assert all(isinstance(piece, memoryview) and piece.obj is whole.content for piece in pieces[1::2])
    assert sum(map(len, pieces[::2])) < 10_000
    same = writer.content_pieces(with_body(bytes(1_000_000)), 1, FRAME_MAX)
    assert len(same) == 1


def test_a_large_body_in_tiny_frames_is_copied() -> None:
    """To keep each of them as a piece would take more memory than the copy."""
    assert len(writer.content_pieces(with_body(bytes(100_000), frame_max=64), 2, FRAME_MAX)) == 1


def test_a_body_of_many_frames_and_a_content_are_put_together_with_one_copy() -> None:
    body = bytes(4_000_000)
    whole = with_body(body)
    for act in (lambda: whole.body, lambda: pack_content(1, FRAME_MAX, PROPERTIES, body)):
        tracemalloc.start()
        try:
            act()
            assert tracemalloc.get_traced_memory()[1] < 4_200_000
        finally:
            tracemalloc.stop()
