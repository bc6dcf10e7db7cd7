"""Batches of bytes: what is packed is what the broker's reader reads, and what its writer packs is understood."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic

from amqpd.message import Route, pack_content, pack_short_string
from amqpd.perf.batches import (
    PublishBlock,
    Row,
    next_frame,
    pack_ack_up_to,
    pack_acks,
    properties,
    read_acks,
    row_of,
)
from amqpd.perf.publisher import Answers
from amqpd.wire.commands import Acks, Publishes
from amqpd.wire.publish import read_publish
from amqpd.wire.reader import Reader
from amqpd.wire.writer import HEARTBEAT_FRAME, delivery_head, pack_confirm, pack_tag

FRAME_MAX = 4_096
NAMES = pack_short_string("ex") + pack_short_string("key")


def reader() -> Reader:
    return Reader(FRAME_MAX, 1 << 30, {1})


def delivery(tag: int, body: bytes, consumer: str = "c") -> bytes:
    head = delivery_head(1, FRAME_MAX, pack_short_string(consumer), Route("ex", "key", NAMES, 1, FRAME_MAX))
    return head.front + pack_tag(tag) + head.back + pack_content(1, FRAME_MAX, b"\0\0", body)


@pytest.mark.parametrize("size", [0, 7, 8, 200, 10_000])
@pytest.mark.parametrize("persistent, priority", [(False, None), (True, None), (True, 7)])
def test_a_block_is_whole_publishes_with_their_time(size: int, persistent: bool, priority: int | None) -> None:
    packed = properties(is_persistent=persistent, priority=priority)
    block = PublishBlock("ex", "key", size, packed, FRAME_MAX, is_mandatory=True)
    stamped = bytes(block.stamped(3, 0x0102030405060708))
    commands = [*reader().commands(stamped)]
    groups = [group for command in commands if isinstance(command, Publishes) for group in command.groups]
    assert sum(len(contents) for *_, contents in groups) == 3
    for arguments, found, body_size, contents in groups:
        asked = read_publish(arguments)
        assert (asked.exchange, asked.routing_key, asked.mandatory) == ("ex", "key", True)
        assert (found, body_size) == (packed, size)
        for content in contents:
            body_at = 20 + len(packed) + 7
            if size >= 8:
                assert content[body_at : body_at + 8] == bytes(range(1, 9))


def test_acks_of_each_delivery_and_of_all_up_to_one() -> None:
    commands = [*reader().commands(pack_acks(254, 258) + pack_ack_up_to(1 << 40))]
    assert commands == [Acks(1, [(tag, 0) for tag in range(254, 259)] + [(1 << 40, 1)])]


def test_confirms_are_read_up_to_the_first_other_frame() -> None:
    confirms = pack_confirm(1, 5, multiple=True) + pack_confirm(1, 6, multiple=False)
    data = bytearray(confirms + HEARTBEAT_FRAME + pack_confirm(1, 7, multiple=False)[:-1])
    assert read_acks(data, 0) == ([(5, True), (6, False)], len(confirms))
    assert next_frame(data, len(confirms)) == (8, b"", len(confirms) + 8)
    assert next_frame(data, len(confirms) + 8) is None


@given(st.lists(st.tuples(st.sampled_from([0, 5, 8, 40, 9_000]), st.integers(1, 5), st.booleans()), max_size=8),
       st.lists(st.integers(1, 40_000), max_size=6))
def test_deliveries_are_counted_however_they_are_mixed_and_cut(
    runs: list[tuple[int, int, bool]], cuts: list[int]
) -> None:
    stream, expected, tag = b"", list[tuple[int, int]](), 0
    for size, count, beats in runs:
        for _ in range(count):
            tag += 1
            stream += delivery(tag, struct.pack(">Q", tag * 1_000)[:size].ljust(size, b"."))
            expected.append((tag, tag * 1_000 if size >= 8 else -1))
        stream += HEARTBEAT_FRAME if beats else b""
    found, beats_found, row = list[tuple[int, int]](), 0, None
    buffer = bytearray()
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for start, stop in zip(places, places[1:]):
        buffer += stream[start:stop]
        at, row = take_all(buffer, row, found)
        beats_found += at[1]
        del buffer[: at[0]]
    assert found == expected and not buffer
    assert beats_found == sum(beats for *_, beats in runs)


def take_all(buffer: bytearray, row: Row | None, found: list[tuple[int, int]]) -> tuple[tuple[int, int], Row | None]:
    """Read what a consumer reads, in the same order; return where it stopped, the heartbeats, and the form."""
    at = beats = 0
    while True:
        count = row.count_in(buffer, at) if row else 0
        if row and count:
            stamps = row.stamps(buffer, at, count) or [-1] * count
            found += [(row.tag(buffer, at + number * row.size), stamps[number]) for number in range(count)]
            at += count * row.size
            continue
        try:
            new = row_of(buffer, at)
        except ValueError:
            frame = next_frame(buffer, at)
            if frame is None:
                return (at, beats), row
            at, beats = frame[2], beats + 1
        else:
            if new is None:
                return (at, beats), row
            row = new


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.data())
def test_each_publish_is_answered_once_with_its_time_in_any_order(batches: list[int], data: st.DataObject) -> None:
    answers, times, last = Answers(), dict[int, int](), 0
    for time_ns, count in enumerate(batches):
        answers.expect(count, time_ns)
        times |= dict.fromkeys(range(last + 1, last + count + 1), time_ns)
        last += count
    left = dict(times)
    while left:
        tag = data.draw(st.sampled_from(sorted(left)))
        multiple = data.draw(st.booleans())
        answered = [one for one in left if one == tag or multiple and one < tag]
        expected = [left.pop(one) for one in answered]
        found = [time_ns for time_ns, count in answers.on_answer(tag, multiple) for _ in range(count)]
        assert sorted(found) == sorted(expected)
        assert answers.count == last - len(left)
    assert not answers.on_answer(last, True)


def test_the_methods_of_a_block_are_basic_publish() -> None:
    frame = next_frame(bytearray(PublishBlock("", "q", 1, b"\0\0", FRAME_MAX).stamped(1, 0)), 0)
    assert frame and frame[1][:4] == struct.pack(">I", Basic.Publish.index)
