"""Octets are decoded to commands: however they are cut, in runs of any kind, valid or not.

Frames are made by hand here, so that the test shares nothing with the reader except the specification.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amqpd.errors import ConnectionException
from amqpd.wire.publish import read_publish
from amqpd.wire.contents import LARGE_BODY, ROOM_AHEAD
from amqpd.wire.commands import Acks, Command, Frames, Method, Publishes, TooLarge, Unwanted
from amqpd.wire.publish_runs import MOST_HEADS, PublishRuns
from amqpd.wire.reader import Reader

FRAME_MAX = 131_072
MAX_BODY = 200_000
OPEN = (1, 2, 3)
NO_PROPERTIES = b"\0\0"
PERSISTENT = b"\x10\x00\x02"

Unit = tuple[Any, ...]      # a command, or one of a run, in plain values


# Frames

def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def method(channel: int, class_id: int, method_id: int, arguments: bytes = b"") -> bytes:
    return frame(1, channel, struct.pack(">HH", class_id, method_id) + arguments)


def names(exchange: str, routing_key: str, bits: int = 0) -> bytes:
    pieces = [bytes((len(name.encode()),)) + name.encode() for name in (exchange, routing_key)]
    return b"\0\0" + b"".join(pieces) + bytes((bits,))


def header(channel: int, body_size: int, properties: bytes = NO_PROPERTIES) -> bytes:
    return frame(2, channel, struct.pack(">HHQ", 60, 0, body_size) + properties)


def bodies(channel: int, body: bytes, step: int = FRAME_MAX - 8) -> bytes:
    return b"".join(frame(3, channel, body[start : start + step]) for start in range(0, len(body), step))


def publish(
    channel: int, body: bytes, arguments: bytes = names("", "q"), properties: bytes = NO_PROPERTIES,
    step: int = FRAME_MAX - 8,
) -> bytes:
    content = header(channel, len(body), properties) + bodies(channel, body, step)
    return method(channel, 60, 40, arguments) + content


def ack(channel: int, tag: int, bits: int = 0) -> bytes:
    return method(channel, 60, 80, struct.pack(">QB", tag, bits))


def kept(channel: int, pieces: Iterable[bytes]) -> bytes:
    """The body frames that these are kept as: one of less than 4,088 octets takes in the next one, if it can."""
    bodies: list[bytes] = []
    for piece in pieces:
        if bodies and len(bodies[-1]) < 4_088 and len(bodies[-1]) + len(piece) <= FRAME_MAX - 8:
            bodies[-1] += piece
        else:
            bodies.append(piece)
    return b"".join(frame(3, channel, body) for body in bodies)


def published(
    channel: int, body: bytes, arguments: bytes = names("", "q"), properties: bytes = NO_PROPERTIES,
    step: int = FRAME_MAX - 8,
) -> Unit:
    content = header(channel, len(body), properties) + kept(channel, in_pieces(body, step))
    return "publish", channel, arguments, properties, len(body), content


QOS = method(1, 60, 10, bytes(7))
TX_SELECT = method(1, 90, 10)
HEARTBEAT = frame(8, 0, b"")


# Reading

def new_reader(frame_max: int = FRAME_MAX, max_body: int = MAX_BODY) -> Reader:
    return Reader(frame_max, max_body, OPEN)


def take(reader: Reader, octets: bytes) -> Iterable[Command]:
    """Hand octets in as a session does: into a large body's own place where there is one."""
    while octets:
        room = reader.direct_room()
        if room is None:
            yield from reader.commands(octets)
            return
        size = min(len(room), len(octets))
        room[:size] = octets[:size]
        yield from reader.direct_commands(size)     # while whoever read into it still holds the room
        del room                                    # but not when it is asked for the next one
        octets = octets[size:]


def units(command: Command) -> list[Unit]:
    match command:
        case Publishes(channel, groups):
            return [
                ("publish", channel, arguments, properties, body_size, bytes(content))
                for arguments, properties, body_size, contents in groups for content in contents]
        case Acks(channel, tags):
            return [("ack", channel, tag, bool(multiple)) for tag, multiple in tags]
        case Method(channel, payload):
            return [("method", channel, payload)]
        case TooLarge(channel, body_size):
            return [("too large", channel, body_size)]
        case Unwanted(channel):
            return [("unwanted", channel)]
        case Frames():
            return []       # how the octets are cut decides what is counted


def read(pieces: Iterable[bytes], reader: Reader | None = None) -> list[Unit]:
    reader = reader or new_reader()
    return [unit for piece in pieces for command in take(reader, piece) for unit in units(command)]


def read_or_fail(pieces: Iterable[bytes]) -> tuple[list[Unit], int]:
    """What came before the fault, and its code; 0 if there was none."""
    found: list[Unit] = []
    reader = new_reader()
    try:
        for piece in pieces:
            for command in take(reader, piece):
                found += units(command)
    except ConnectionException as error:
        assert error.text or error.code == 541
        return found, error.code
    return found, 0


def in_pieces(octets: bytes, size: int) -> list[bytes]:
    return [octets[start : start + size] for start in range(0, len(octets), size)]


def at(octets: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = sorted({0, len(octets), *(cut % (len(octets) + 1) for cut in cuts)})
    return [octets[start:stop] for start, stop in zip(places, places[1:])]


WAYS: dict[str, Callable[[bytes], Sequence[bytes]]] = {
    "whole": lambda octets: [octets],
    "octet by octet": lambda octets: in_pieces(octets, 1),
    "in sevens": lambda octets: in_pieces(octets, 7),
    "with nothing in between": lambda octets: [part for piece in in_pieces(octets, 5) for part in (piece, b"")],
}


@pytest.fixture(params=WAYS, ids=lambda name: name.replace(" ", "-"))
def cut(request: pytest.FixtureRequest) -> Callable[[bytes], Sequence[bytes]]:
    """One way to cut a stream."""
    return WAYS[request.param]


# One command

STREAMS: list[tuple[bytes, list[Unit]]] = [
    (b"", []),
    (HEARTBEAT, []),
    (QOS, [("method", 1, QOS[7:-1])]),
    (method(0, 10, 50), [("method", 0, b"\0\x0a\0\x32")]),
    (ack(2, 77), [("ack", 2, 77, False)]),
    (ack(2, 2**64 - 1, 1), [("ack", 2, 2**64 - 1, True)]),
    (ack(1, 5, 0xFE), [("ack", 1, 5, False)]),
    (publish(1, b"hello"), [published(1, b"hello")]),
    (publish(1, b""), [published(1, b"")]),
    (publish(3, b"x" * 300, names("ex", "a.b", 3), PERSISTENT),
     [published(3, b"x" * 300, names("ex", "a.b", 3), PERSISTENT)]),
    (publish(1, b"in many frames", step=3), [published(1, b"in many frames", step=3)]),
    (publish(1, b"one") + publish(1, b"two"), [published(1, b"one"), published(1, b"two")]),
    (publish(1, b"") + publish(1, b""), [published(1, b""), published(1, b"")]),
    (publish(1, b"a") + ack(1, 1) + HEARTBEAT + publish(2, b"b") + QOS,
     [published(1, b"a"), ("ack", 1, 1, False), published(2, b"b"), ("method", 1, QOS[7:-1])]),
    (ack(1, 1) + ack(1, 2, 1) + ack(2, 1), [("ack", 1, 1, False), ("ack", 1, 2, True), ("ack", 2, 1, False)]),
]


@pytest.mark.parametrize(("octets", "expected"), STREAMS)
def test_a_stream_reads_the_same_however_it_is_cut(
    octets: bytes, expected: list[Unit], cut: Callable[[bytes], Sequence[bytes]]
) -> None:
    assert read(cut(octets)) == expected


@pytest.mark.parametrize(("octets", "expected"), STREAMS)
def test_octets_of_the_next_frame_wait(octets: bytes, expected: list[Unit]) -> None:
    for kept in range(len(QOS)):
        reader = new_reader()
        assert read([octets + QOS[:kept]], reader) == expected
        assert read([QOS[kept:]], reader) == [("method", 1, QOS[7:-1])]


def test_every_cut_in_two_reads_the_same() -> None:
    octets = publish(1, b"abc", step=2) + ack(1, 1) + publish(2, b"xyz") + publish(2, b"xyz") + QOS
    expected = read([octets])
    for place in range(len(octets)):
        assert read([octets[:place], octets[place:]]) == expected


# Runs

def test_equal_heads_make_one_group() -> None:
    command, = new_reader().commands(publish(1, b"one") + publish(1, b"two") + publish(1, b"six"))
    assert isinstance(command, Publishes)
    group, = command.groups
    assert tuple(group) == (
        names("", "q"), NO_PROPERTIES, 3, [header(1, 3) + bodies(1, body) for body in (b"one", b"two", b"six")])


@pytest.mark.parametrize("other", [
    publish(1, b"two", names("", "r")), publish(1, b"two", names("", "q", 1)), publish(1, b"longer"),
    publish(1, b"two", properties=PERSISTENT), publish(1, b""),
], ids=["key", "mandatory", "body size", "properties", "no body"])
def test_another_head_makes_another_group_of_the_same_run(other: bytes) -> None:
    command, = new_reader().commands(publish(1, b"one") + other + publish(1, b"one"))
    assert isinstance(command, Publishes)
    assert len(command.groups) == 3


def test_heads_that_take_turns_are_remembered_and_read_the_same() -> None:
    kinds = [b"\x08\x00" + bytes((level,)) for level in range(10)]
    octets = b"".join(publish(1, b"%3d" % number, properties=kinds[number % 10]) for number in range(100))
    expected = [published(1, b"%3d" % number, properties=kinds[number % 10]) for number in range(100)]
    reader = new_reader()
    assert read([octets], reader) == expected
    assert read([octets], reader) == expected


def test_heads_that_take_turns_stay_with_their_channel() -> None:
    kinds = [b"\x08\x00" + bytes((level,)) for level in range(10)]
    reader = new_reader()
    for channel in (1, 2, 1):
        octets = b"".join(publish(channel, b"%3d" % n, properties=kinds[n % 10]) for n in range(50))
        expected = [published(channel, b"%3d" % n, properties=kinds[n % 10]) for n in range(50)]
        assert read([octets], reader) == expected
    both = [publish(1 + n // 25 % 2, b"%3d" % n, properties=kinds[n % 10]) for n in range(100)]
    expected = [published(1 + n // 25 % 2, b"%3d" % n, properties=kinds[n % 10]) for n in range(100)]
    assert read([b"".join(both)], reader) == expected


def test_heads_that_take_turns_keep_their_keys() -> None:
    keys = [names("", "q"), names("", "r"), names("x", "q", 1)]
    octets = b"".join(publish(1, b"%3d" % n, keys[n % 3]) for n in range(60))
    expected = [published(1, b"%3d" % n, keys[n % 3]) for n in range(60)]
    reader = new_reader()
    assert read([octets], reader) == expected
    assert read([octets], reader) == expected


def cut_runs(runs: PublishRuns, octets: bytes) -> tuple[int, int]:
    """Return how many publishes are cut at once, and where they end."""
    groups, position = runs.cut(octets, 0, 1, FRAME_MAX)
    return sum([len(contents) for *_, contents in groups]), position


@pytest.mark.parametrize("kinds", [1, 10])
def test_publishes_in_a_row_are_cut_at_once_up_to_a_fault(kinds: int) -> None:
    run = [publish(1, b"%3d" % n, properties=b"\x08\x00" + bytes((n % kinds,))) for n in range(60)]
    runs, size = PublishRuns(MAX_BODY), len(run[0])
    for _ in range(2):
        repeats = runs._repeats
        assert cut_runs(runs, b"".join(run)) == (60, 60 * size)
        assert len(runs._turns) == (kinds if kinds > 1 else 0)
    assert 0 < runs._repeats - repeats < 10, "most are known by their head or their turn, without another look"
    for place in (0, 1, 30, 59):
        damaged = [*run[:place], run[place][:-1] + b"x", *run[place + 1:]]
        assert cut_runs(runs, b"".join(damaged)) == (place, place * size)


def test_no_more_publishes_that_take_turns_are_remembered_than_heads() -> None:
    runs, numbers = PublishRuns(MAX_BODY), range(MOST_HEADS + 10)
    octets = b"".join([publish(1, b"x", names("", f"{number:4}")) for number in numbers])
    assert cut_runs(runs, octets)[0] == len(numbers)
    assert len(runs._turns) <= MOST_HEADS


def test_a_fault_behind_heads_that_take_turns_is_found() -> None:
    kinds = [b"\x08\x00" + bytes((level,)) for level in range(10)]
    octets = b"".join(publish(1, b"%3d" % number, properties=kinds[number % 10]) for number in range(50))
    reader = new_reader()
    read([octets], reader)
    with pytest.raises(ConnectionException, match="invalid_frame_end_marker"):
        read([octets[:-1] + b"x"], reader)


def test_a_fault_behind_a_remembered_head_is_found() -> None:
    first, second = publish(1, b"one", properties=PERSISTENT), publish(1, b"two")
    reader = new_reader()
    read([first, second], reader)
    with pytest.raises(ConnectionException, match="invalid_frame_end_marker"):
        read([second, first[:-1] + b"x"], reader)


def test_heads_are_not_remembered_any_more_once_they_do_not_repeat() -> None:
    reader = new_reader()
    runs = reader._publish_runs
    numbers = iter(range(1 << 30))

    def read_heads(count: int, times: int) -> None:
        for _ in range(count):
            octets = publish(1, b"body", properties=b"\x00\x80\x08%08d" % next(numbers))
            for _ in range(times):
                read([octets], reader)

    read_heads(MOST_HEADS, 2)
    read_heads(1, 1)
    assert runs._remembers and len(runs._heads) == 1
    read_heads(MOST_HEADS, 1)
    assert not runs._remembers
    read_heads(5, 1)
    assert len(runs._heads) == 1, "the one that was new when that was found"


def test_heads_that_never_come_again_are_not_kept_for_ever() -> None:
    reader = new_reader()
    for number in range(2 * MOST_HEADS):
        read([publish(1, b"body", properties=b"\x00\x80\x08%08d" % number)], reader)
    assert len(reader._publish_runs._heads) <= MOST_HEADS
    assert not reader._publish_runs._remembers


def test_another_channel_makes_another_run() -> None:
    commands = list(new_reader().commands(publish(1, b"a") + publish(2, b"b") + publish(1, b"c")))
    assert [command.channel for command in commands] == [1, 2, 1]


def test_acks_in_a_row_make_one_run() -> None:
    command, = new_reader().commands(b"".join(ack(1, tag) for tag in range(1, 50)))
    assert command == Acks(1, [(tag, 0) for tag in range(1, 50)])


def test_a_run_ends_where_a_publish_is_not_whole() -> None:
    octets = publish(1, b"one") + publish(1, b"two")
    for kept in range(len(publish(1, b"one")), len(octets)):
        reader = new_reader()
        assert read([octets[:kept]], reader) == [published(1, b"one")]
        assert read([octets[kept:]], reader) == [published(1, b"two")]


def test_a_body_that_looks_like_a_frame_is_a_body() -> None:
    body = publish(1, b"inner") + b"\xce"
    assert read([publish(1, body) * 2]) == [published(1, body)] * 2


# Contents in several frames

def test_contents_of_several_channels_may_mingle(cut: Callable[[bytes], Sequence[bytes]]) -> None:
    octets = (
        method(1, 60, 40, names("", "a")) + method(2, 60, 40, names("", "b")) + header(2, 4) + header(1, 2)
        + frame(3, 2, b"BB") + HEARTBEAT + frame(3, 1, b"A") + ack(3, 9) + frame(3, 2, b"BB") + frame(3, 1, b"A"))
    assert read(cut(octets)) == [
        ("ack", 3, 9, False), published(2, b"BBBB", names("", "b"), step=2),
        published(1, b"AA", names("", "a"), step=1)]


def test_frames_without_octets_inside_a_body_are_left_out(cut: Callable[[bytes], Sequence[bytes]]) -> None:
    empty = frame(3, 1, b"")
    octets = method(1, 60, 40, names("", "q")) + header(1, 4)
    octets += empty + frame(3, 1, b"ab") + empty + empty + frame(3, 1, b"cd") + QOS
    assert read(cut(octets)) == [published(1, b"abcd", step=2), ("method", 1, QOS[7:-1])]


@pytest.mark.parametrize("size", [65_536, 100_000, 131_064, 131_065, 200_000])
@pytest.mark.parametrize("step", [FRAME_MAX - 8, FRAME_MAX, 4_088, 100_001, 999])
@pytest.mark.parametrize("piece", [1 << 20, 262_144, 65_537, 4_093])
def test_a_large_body_comes_in_as_it_was_sent(size: int, step: int, piece: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    octets = ack(1, 1) + publish(1, body, step=step) + publish(1, b"next") + publish(1, body, step=step) + QOS
    assert read(in_pieces(octets, piece)) == [
        ("ack", 1, 1, False), published(1, body, step=step), published(1, b"next"), published(1, body, step=step),
        ("method", 1, QOS[7:-1])]


def test_large_bodies_of_several_channels_may_mingle() -> None:
    sent = {channel: bytes([channel]) * (100_000 + channel) for channel in OPEN}
    frames = {channel: in_pieces(body, 10_000 + channel) for channel, body in sent.items()}
    octets = b"".join(method(channel, 60, 40, names("", "q")) + header(channel, len(sent[channel])) for channel in OPEN)
    for number in range(10):
        octets += b"".join(frame(3, channel, frames[channel][number]) for channel in OPEN)
        octets += HEARTBEAT
    assert all(len(pieces) == 10 for pieces in frames.values())
    for piece in (1 << 20, 70_001, 12_345):
        assert read(in_pieces(octets, piece)) == [
            published(channel, sent[channel], step=10_000 + channel) for channel in OPEN]


def test_a_large_body_is_read_into_its_own_place() -> None:
    reader = new_reader()
    octets = publish(1, bytes(100_000))
    assert list(reader.commands(octets[:1_000])) == []
    room = reader.direct_room()
    assert room is not None and len(room) == len(octets) - 1_000
    room.release()


@pytest.mark.parametrize("more, whole", [(LARGE_BODY // 2, True), (2 * LARGE_BODY, False)])
def test_a_little_more_room_is_made_if_that_completes_a_body(more: int, *, whole: bool) -> None:
    reader = new_reader(max_body=2 * ROOM_AHEAD)
    octets = publish(1, bytes(ROOM_AHEAD + more))
    assert list(reader.commands(octets[:1_000])) == []
    room = reader.direct_room()
    assert room is not None and (len(room) == len(octets) - 1_000) is whole
    room.release()


def test_nothing_is_read_into_place_for_small_bodies() -> None:
    reader = new_reader()
    assert list(reader.commands(publish(1, bytes(10_000))[:1_000])) == []
    assert reader.direct_room() is None


# Too large

def test_a_body_over_the_limit_is_told_at_its_header_and_skipped(cut: Callable[[bytes], Sequence[bytes]]) -> None:
    reader = new_reader(max_body=10)
    octets = publish(1, bytes(10)) + publish(1, bytes(11), step=4) + publish(1, b"next")
    assert read(cut(octets), reader) == [published(1, bytes(10)), ("too large", 1, 11), published(1, b"next")]


def test_a_skipped_body_takes_no_memory() -> None:
    reader = new_reader(max_body=10)
    begun = method(1, 60, 40, names("", "q")) + header(1, 10_000_000)
    assert read([begun], reader) == [("too large", 1, 10_000_000)]
    for _ in range(50):
        assert read([frame(3, 1, bytes(100_000))], reader) == []
    assert reader.direct_room() is None and len(reader._contents.by_channel[1].frames) < 100


def test_half_received_contents_of_a_connection_are_limited() -> None:
    reader = Reader(FRAME_MAX, 600, OPEN, gathered_limit=1_000)
    for channel in (1, 2):
        read([method(channel, 60, 40, names("", "q")) + header(channel, 500) + frame(3, channel, bytes(450))], reader)
    assert read([frame(3, 1, bytes(50))], reader)
    read([method(1, 60, 40, names("", "q")) + header(1, 600) + frame(3, 1, bytes(550))], reader)
    with pytest.raises(ConnectionException, match="half-received contents of this connection exceed") as refused:
        read([frame(3, 1, bytes(1))], reader)
    assert refused.value.code == 506


def test_no_more_than_one_frame_is_kept() -> None:
    reader = new_reader(frame_max=4_096)
    read(in_pieces(publish(1, b"x") + method(1, 50, 10, bytes(4_092))[:-1], 100), reader)
    assert len(reader._tail) <= 4_096 + 8


# Frame sizes

def test_a_frame_may_be_as_large_as_frame_max_and_no_larger() -> None:
    assert read([method(1, 50, 10, bytes(4_092))], new_reader(4_096)) == [("method", 1, b"\0\x32\0\x0a" + bytes(4_092))]
    with pytest.raises(ConnectionException, match="frame_too_large,4097,4088"):
        read([struct.pack(">BHI", 1, 1, 4_097)], new_reader(4_096))


def test_a_larger_frame_max_holds_from_the_next_command_on() -> None:
    reader = new_reader(4_096)
    found = []
    for command in reader.commands(method(0, 10, 31) + method(1, 50, 10, bytes(5_000))):
        reader.frame_max = 8_192
        found.append(command)
    assert len(found) == 2


@pytest.mark.parametrize("step, sizes", [
    (1_022, [4_088]), (1_023, [3_069, 1_023]), (2_044, [4_088]), (4_088, [4_088, 4]), (4_000, [4_000, 4_000])])
def test_small_body_frames_are_put_together_up_to_frame_max(step: int, sizes: list[int]) -> None:
    body = (bytes(range(256)) * 32)[: sum(sizes)]
    command, = new_reader(4_096).commands(publish(1, body, step=step))
    assert isinstance(command, Publishes)
    (_, _, size, (content,)), = command.groups
    kept = header(1, len(body)) + b"".join(
        frame(3, 1, body[sum(sizes[:at]) : sum(sizes[: at + 1])]) for at in range(len(sizes)))
    assert (size, bytes(content)) == (len(body), kept)


# What makes no sense

FAULTS: list[tuple[bytes, int, str]] = [
    (frame(1, 0, b"\0\x0a\0\x15\0\0\0\x08password")[:-1] + b"\0", 501,
     "type 1, all octets = <<0,10,0,21>>: {invalid_frame_end_marker,0}"),
    (frame(1, 1, b"\0\x5a\0\x0a")[:-1] + b"\0", 501, "invalid_frame_end_marker,0"),
    (ack(1, 1)[:-1] + b"\0", 501, "invalid_frame_end_marker,0"),
    (publish(1, b"abc")[:-1] + b"\xcd", 501, "invalid_frame_end_marker,205"),
    (method(1, 60, 40, names("", "q"))[:-1] + b"\x00" + header(1, 0), 501, "invalid_frame_end_marker,0"),
    (method(1, 60, 40, names("", "q")) + header(1, 0)[:-1] + b"\x00", 501, "invalid_frame_end_marker,0"),
    (struct.pack(">BHI", 1, 1, 2**32 - 1), 501, "frame_too_large,4294967295,"),
    (struct.pack(">BHI", 3, 1, FRAME_MAX + 1), 501, "frame_too_large"),
    (frame(9, 1, b"abc"), 501, 'type 9, all octets = <<"abc">>: unknown_frame'),
    (frame(0, 0, b""), 501, "type 0, all octets = <<>>: unknown_frame"),
    (frame(8, 0, b"x"), 501, 'type 8, all octets = <<"x">>: unknown_frame'),
    (frame(8, 1, b""), 505, "type 8, all octets = <<>>"),
    (frame(2, 0, bytes(14)), 505, "type 2, all octets = <<0,0,0,0,0,0,0,0,0,0,0,0,0,0>>"),
    (frame(3, 0, b"x"), 505, 'type 3, all octets = <<"x">>'),
    (frame(3, 1, b"x"), 505, "expected method frame, got non method frame instead"),
    (header(1, 0), 505, "expected method frame, got non method frame instead"),
    (publish(1, b"x") + frame(3, 1, b""), 505, "expected method frame, got non method frame instead"),
    (method(1, 60, 40, names("", "q")) + QOS, 505, "expected content header for class 60, got non content header"),
    (method(1, 60, 40, names("", "q")) + frame(3, 1, b""), 505, "expected content header for class 60, got non"),
    (method(1, 60, 40, names("", "q")) + frame(2, 1, bytes(13)), 501, "unknown_frame"),
    (method(1, 60, 40, names("", "q")) + frame(2, 1, struct.pack(">HHQ", 50, 0, 0) + b"\0\0"), 505,
     "expected content header for class 60, got one for class 50 instead"),
    (method(1, 60, 40, names("", "q")) + frame(2, 1, struct.pack(">HHQ", 60, 1, 0) + b"\0\0"), 505,
     "expected content header for class 60, got non content header frame instead"),
    (method(1, 60, 40, names("", "q")) + header(1, 2**63), 501, "content of 9223372036854775808 octets announced"),
    (method(1, 60, 40, names("", "q")) + header(1, 2) + frame(3, 1, b"abc"), 505, "expected content body, got non"),
    (method(1, 60, 40, names("", "q")) + header(1, 4) + frame(3, 1, b"ab") + frame(3, 1, b"abc"), 505,
     "expected content body, got non"),
    (method(1, 60, 40, names("", "q")) + header(1, 2) + header(1, 2), 505, "expected content body, got non content"),
    (method(1, 60, 40, names("", "q")) + header(1, 2) + ack(1, 1), 505, "expected content body, got non content"),
    (method(1, 60, 40, names("", "q")) + header(1, 2) + publish(1, b"x"), 505, "expected content body, got non"),
]


@pytest.mark.parametrize(("octets", "code", "text"), FAULTS)
def test_a_fault_is_told_however_it_is_cut(
    octets: bytes, code: int, text: str, cut: Callable[[bytes], Sequence[bytes]]
) -> None:
    with pytest.raises(ConnectionException) as refused:
        read(cut(octets))
    assert refused.value.code == code
    assert refused.value.method == ((60, 40) if "content" in text else (0, 0))
    if octets[:1] == b"\x01" or len(octets) < 30:
        assert text in str(refused.value)


@pytest.mark.parametrize(("octets", "code", "text"), FAULTS)
def test_everything_before_a_fault_is_handed_out(octets: bytes, code: int, text: str) -> None:
    before = publish(2, b"a") + publish(2, b"b") + ack(3, 4)
    assert read_or_fail([before + octets])[0][:3] == [published(2, b"a"), published(2, b"b"), ("ack", 3, 4, False)]


def test_contents_on_a_channel_that_is_not_open_are_handed_on_as_they_stand() -> None:
    pieces = [method(9, 60, 40, names("", "q")), header(9, 1), frame(3, 9, b"x")]
    for octets in pieces:
        assert read([octets]) == [("method", 9, octets[7:-1])]


# Whatever comes

octet_streams = st.lists(st.binary(max_size=60) | st.sampled_from([
    HEARTBEAT, QOS, TX_SELECT, ack(1, 1), ack(2, 7, 1), publish(1, b"abc"), publish(2, b""), publish(1, b"abc", step=1),
    method(1, 60, 40, names("", "q")), header(1, 3), header(2, 0), frame(3, 1, b"ab"), frame(3, 1, b"c"),
    frame(3, 1, b""),
    publish(1, b"abc")[:-1], ack(1, 1)[:-2],
]), max_size=12).map(b"".join)


@given(octets=octet_streams, cuts=st.lists(st.integers(0, 10_000), max_size=8))
def test_nonsense_ends_in_a_refusal_and_in_the_same_one_however_it_is_cut(octets: bytes, cuts: list[int]) -> None:
    assert read_or_fail(at(octets, cuts)) == read_or_fail([octets]) == read_or_fail(in_pieces(octets, 1))


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, list[Unit]]:
    """Frames of several channels, mingled, and what they mean."""
    lanes = [[step for item in draw(st.lists(items(channel), max_size=4)) for step in item] for channel in OPEN]
    octets, expected = [], []
    while any(lanes):
        lane = draw(st.sampled_from([lane for lane in lanes if lane]))
        for _ in range(draw(st.sampled_from([1, 1, 2, 5, 20]))):
            if lane:
                piece, meaning = lane.pop(0)
                octets.append(piece)
                expected += meaning
    return b"".join(octets), expected


@st.composite
def items(draw: st.DrawFn, channel: int) -> list[tuple[bytes, list[Unit]]]:
    """The frames of something a client says on a channel, each with what is known once it is there."""
    match draw(st.sampled_from(["publish", "publish", "publish", "ack", "method", "too large", "heartbeat"])):
        case "ack":
            tag, multiple = draw(st.integers(0, 2**64 - 1)), draw(st.booleans())
            return [(ack(channel, tag, multiple), [("ack", channel, tag, multiple)])]
        case "method":
            octets = method(channel, 50, 10, draw(st.binary(max_size=20)))
            return [(octets, [("method", channel, octets[7:-1])])]
        case "heartbeat":
            return [(HEARTBEAT, [])]
        case "too large":
            frames = [(method(channel, 60, 40, names("", "q")), []),
                      (header(channel, MAX_BODY + 1), [("too large", channel, MAX_BODY + 1)])]
            return [*frames, *((frame(3, channel, piece), []) for piece in in_pieces(bytes(MAX_BODY + 1), FRAME_MAX))]
        case _:
            return draw(publishes(channel))


@st.composite
def publishes(draw: st.DrawFn, channel: int) -> list[tuple[bytes, list[Unit]]]:
    arguments = names(draw(st.sampled_from(["", "ex"])), draw(st.sampled_from(["q", "a.b"])), draw(st.integers(0, 1)))
    properties = draw(st.sampled_from([NO_PROPERTIES, PERSISTENT]))
    body = draw(st.binary(max_size=6) | st.sampled_from([b"same", b"same", bytes(70_000), bytes(150_000)]))
    sizes = [FRAME_MAX - 8, 1, 3] if len(body) < 100 else [FRAME_MAX - 8, 80_000, 50_000, 9_000, 3_000, 700]
    pieces = []
    rest = body
    while rest:
        size = draw(st.sampled_from(sizes))
        pieces.append(rest[:size])
        rest = rest[size:]
    head = header(channel, len(body), properties)
    whole = "publish", channel, arguments, properties, len(body), head + kept(channel, pieces)
    frames = [method(channel, 60, 40, arguments), head, *(frame(3, channel, piece) for piece in pieces)]
    return [*((octets, []) for octets in frames[:-1]), (frames[-1], [whole])]


@given(conversation=conversations(), cuts=st.lists(st.integers(0, 10**6), max_size=12))
def test_a_conversation_reads_as_it_was_meant_however_it_is_cut(
    conversation: tuple[bytes, list[Unit]], cuts: list[int]
) -> None:
    octets, expected = conversation
    assert read([octets]) == expected
    assert read(at(octets, cuts)) == expected


@given(
    conversation=conversations(), cuts=st.lists(st.integers(0, 10**6), max_size=6),
    damage=st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 255)), min_size=1, max_size=3))
@example(conversation=(publish(1, b"a") + publish(1, b"b"), []), cuts=[], damage=[(0, 0)])
def test_a_damaged_conversation_fails_alike_however_it_is_cut(
    conversation: tuple[bytes, list[Unit]], cuts: list[int], damage: list[tuple[int, int]]
) -> None:
    octets = bytearray(conversation[0] or HEARTBEAT)
    for place, octet in damage:
        octets[place % len(octets)] = octet
    assert read_or_fail(at(bytes(octets), cuts)) == read_or_fail([bytes(octets)])


# The arguments of a publish

def test_the_arguments_of_a_publish() -> None:
    found = read_publish(names("ex", "kéy", 1))
    assert (found.exchange, found.routing_key, found.mandatory, found.immediate) == ("ex", "kéy", True, False)
    assert found.names == b"\x02ex\x04k\xc3\xa9y"
    assert read_publish(names("", "", 2)).immediate


@pytest.mark.parametrize("arguments", [names("ex", "key")[:kept] for kept in range(len(names("ex", "key")))] + [
    names("ex", "key") + b"\0", b"\0\0\xffshort\0"])
def test_arguments_of_a_publish_must_be_whole_and_nothing_more(arguments: bytes) -> None:
    with pytest.raises(ConnectionException, match="cannot decode <<") as refused:
        read_publish(arguments)
    assert (refused.value.code, refused.value.method) == (501, (60, 40))


def test_names_of_a_publish_must_be_utf_8() -> None:
    with pytest.raises(ConnectionException, match="FRAME_ERROR - Malformed UTF-8 in shortstr") as refused:
        read_publish(b"\0\0\x01\xff\0\0")
    assert refused.value.method == (0, 0)


def test_a_content_on_another_channel_than_its_method_is_refused_although_its_head_is_known() -> None:
    stream = publish(1, b"body") + method(2, 60, 40, names("", "q")) + header(1, 4) + bodies(1, b"body")
    for pieces in ([stream], in_pieces(stream, 1)):
        found, code = read_or_fail(pieces)
        assert found == [published(1, b"body")] and code == 505
