"""The memory of incomplete contents: what has arrived, whatever was announced and however it was cut."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from amqpd.errors import ConnectionException
from amqpd.wire.commands import Frames, Publishes
from amqpd.wire.contents import MOST_ROOM, MOST_ROOM_AHEAD, ROOM_AHEAD, Intake
from amqpd.wire.reader import Reader
from tests.support.counting import kept_by
from tests.wire.test_reader import (
    FRAME_MAX,
    HEARTBEAT,
    MAX_BODY,
    bodies,
    frame,
    header,
    in_pieces,
    method,
    names,
    publish,
    published,
    read,
    take,
)

CLAIM = 128 << 20
CHANNELS = range(1, 201)
BEGUN = method(1, 60, 40, names("", "q"))
READ = 256 * 1024           # octets that the server reads at most at once
LITTLE = 64 * 1024


def new_reader(intake: Intake | None = None) -> Reader:
    return Reader(FRAME_MAX, CLAIM, CHANNELS, intake=intake)


def claim(channel: int) -> bytes:
    """The beginning of a publish whose body is large, up to the first octet of it."""
    return method(channel, 60, 40, names("", "q")) + header(channel, CLAIM) + frame(3, channel, b"x")


def full_frames(size: int) -> Iterator[bytes]:
    """So much of a body in frames as large as they may be, as a server reads it."""
    yield from in_pieces(bodies(1, bytes(size)), READ)


# Room

def test_what_is_announced_and_does_not_come_costs_a_little_for_all_connections_together() -> None:
    def announce() -> list[Reader]:
        intake = Intake()
        readers = [new_reader(intake) for _ in range(5)]
        for reader in readers:
            read([claim(channel) for channel in CHANNELS], reader)
        return readers

    assert kept_by(announce) < MOST_ROOM_AHEAD + ROOM_AHEAD + 5 * len(CHANNELS) * 1_500


@pytest.mark.parametrize("size", [100_000, 1_500_000, 5_000_000, 30_000_000])
def test_a_large_body_on_its_way_in_costs_at_most_twice_what_has_come(size: int) -> None:
    def begin() -> Reader:
        intake = Intake()
        intake.room_ahead = MOST_ROOM_AHEAD
        reader = new_reader(intake)
        read([BEGUN, header(1, CLAIM)], reader)
        for piece in full_frames(size):
            read([piece], reader)
        return reader

    assert kept_by(begin) < 2 * size + LITTLE


def test_a_large_body_on_its_way_in_is_not_copied_when_it_needs_more_room() -> None:
    """To copy 64 MiB keeps everybody waiting for a tenth of a second, and takes twice the memory."""
    size = 40_000_000
    reader = new_reader()
    read([BEGUN, header(1, CLAIM)], reader)
    pieces = [*in_pieces(bodies(1, bytes(size)), 200_000)]     # that end within a frame
    tracemalloc.start()
    try:
        for piece in pieces:
            read([piece], reader)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    spare = size // 8       # as a bytearray has it, when it grows by little
    assert held < size + spare + MOST_ROOM + LITTLE
    assert peak < size + spare + 2 * MOST_ROOM + 2 * READ


def test_a_body_of_which_somebody_has_a_view_gets_more_room_all_the_same() -> None:
    body = bytes(range(256)) * 20_000
    views = []

    class Holding(Reader):
        def direct_room(self) -> memoryview | None:
            room = super().direct_room()
            views.append(room)
            return room

    reader = Holding(FRAME_MAX, CLAIM, CHANNELS)
    assert read(in_pieces(publish(1, body), 200_000), reader) == [published(1, body)]
    assert len({id(view.obj) for view in views if view is not None}) > 1


def test_a_body_in_frames_of_one_octet_costs_at_most_twice_what_has_come() -> None:
    size = 30_000
    pieces = in_pieces(bodies(1, bytes(size), step=1), READ)

    def begin() -> Reader:
        intake = Intake()
        intake.room_ahead = MOST_ROOM_AHEAD
        reader = new_reader(intake)
        read([BEGUN, header(1, CLAIM)], reader)
        read(pieces, reader)
        return reader

    assert kept_by(begin) < 2 * size + 10_000


@pytest.mark.parametrize("step", [1, 2, 7, 100, 4_087, 4_088, 5_000, 70_000, FRAME_MAX - 8])
@pytest.mark.parametrize("piece", [1_000, READ])
def test_a_whole_body_costs_what_it_is_long_however_it_was_cut(step: int, piece: int) -> None:
    body = bytes(range(256)) * 300
    octets = publish(1, body, step=step)
    reader = new_reader()
    assert read(in_pieces(octets, piece), reader) == [published(1, body, step=step)]
    found = []
    for part in in_pieces(octets, piece):
        found += [command for command in take(reader, part) if isinstance(command, Publishes)]
    content = found[0].groups[0][3][0]
    assert len(content) <= 1.005 * len(body) + 100


def test_a_body_that_others_leave_no_room_for_is_read_all_the_same() -> None:
    intake = Intake()
    intake.room_ahead = MOST_ROOM_AHEAD
    body = bytes(3_000_000)
    assert read(in_pieces(publish(1, body), READ), new_reader(intake)) == [published(1, body)]
    assert intake.room_ahead == MOST_ROOM_AHEAD


# Contents that nobody wants

def test_the_content_of_a_publish_that_is_not_wanted_is_not_kept() -> None:
    asked = []

    def is_wanted(channel: int, arguments: bytes) -> bool:
        asked.append((channel, arguments))
        return channel != 1

    body = bytes(2_000_000)
    pieces = in_pieces(publish(1, body, names("secret", "k")), READ)
    reader = Reader(FRAME_MAX, CLAIM, CHANNELS, is_wanted)
    assert kept_by(lambda: read(pieces[:-1], reader)) < LITTLE
    assert read([pieces[-1] + publish(2, b"x") + BEGUN], reader) == [("unwanted", 1), published(2, b"x")]
    assert asked == [(1, names("secret", "k")), (1, names("", "q"))]


def test_nobody_is_asked_about_publishes_that_come_whole() -> None:
    reader = Reader(FRAME_MAX, CLAIM, CHANNELS, lambda channel, arguments: False)
    assert read([publish(1, b"a") + publish(1, b"")], reader) == [published(1, b"a"), published(1, b"")]


def test_a_content_without_a_body_that_is_not_wanted_is_told_at_its_header() -> None:
    reader = Reader(FRAME_MAX, CLAIM, CHANNELS, lambda channel, arguments: False)
    assert read([BEGUN, header(1, 0)], reader) == [("unwanted", 1)]


def test_of_a_publish_that_is_too_large_and_not_wanted_the_former_is_told() -> None:
    reader = Reader(FRAME_MAX, MAX_BODY, CHANNELS, lambda channel, arguments: False)
    assert read([BEGUN, header(1, MAX_BODY + 1), bodies(1, bytes(MAX_BODY + 1)), HEARTBEAT], reader) == [
        ("too large", 1, MAX_BODY + 1)]


# What all connections have half received

def test_half_received_contents_of_all_connections_are_counted_until_they_are_whole() -> None:
    intake = Intake()
    readers = [new_reader(intake) for _ in range(3)]
    body = bytes(300_000)
    for count, reader in enumerate(readers, 1):
        read(in_pieces(publish(1, body)[:-1], READ), reader)
        assert intake.octets == count * len(body)
    for count, reader in enumerate(readers, 1):
        assert read([b"\xce"], reader) == [published(1, body)]
        assert intake.octets == (3 - count) * len(body)
    assert intake.room_ahead == 0


def test_contents_of_a_connection_that_ends_count_no_longer_and_are_forgotten() -> None:
    intake = Intake()
    reader = new_reader(intake)
    for channel in CHANNELS:
        read([claim(channel)], reader)
    assert (intake.octets, intake.room_ahead) == (len(CHANNELS), MOST_ROOM_AHEAD)
    reader.close()
    assert (intake.octets, intake.room_ahead, reader.is_inside_content) == (0, 0, False)
    assert kept_by(lambda: reader) < LITTLE


def test_what_is_skipped_from_the_middle_of_a_body_on_is_skipped_to_its_end() -> None:
    intake = Intake()
    reader = new_reader(intake)
    octets = publish(1, bytes(700_000))
    read([BEGUN.replace(b"\0\x01", b"\0\x02", 1), octets[:300_000]], reader)
    reader.skip_contents()
    assert (intake.octets, intake.room_ahead) == (0, 0)
    assert kept_by(lambda: read(in_pieces(octets[300_000:], READ), reader)) < LITTLE
    assert read([header(2, 0), publish(1, b"x")], reader) == [published(1, b"x")]


def test_what_goes_beyond_the_limit_of_a_connection_counts_until_that_ends() -> None:
    intake = Intake()
    reader = Reader(FRAME_MAX, 600, CHANNELS, intake=intake, gathered_limit=1_000)
    with pytest.raises(ConnectionException, match="half-received contents of this connection exceed 1000 bytes"):
        read([BEGUN + header(1, 600) + frame(3, 1, bytes(590)), method(2, 60, 40, names("", "q")), header(2, 600),
              frame(3, 2, bytes(410)), frame(3, 2, b"x")], reader)
    assert intake.octets == 1_001
    reader.close()
    assert intake.octets == 0


# Work

@pytest.mark.parametrize("octets", [
    HEARTBEAT * 25_000, BEGUN + header(1, CLAIM) + frame(3, 1, b"x") * 25_000,
    BEGUN + header(1, CLAIM) + frame(3, 1, b"") * 25_000,
    BEGUN + header(1, CLAIM) + (frame(3, 1, b"x") + HEARTBEAT) * 12_500,
], ids=["heartbeats", "body", "empty", "both"])
@pytest.mark.parametrize("read_at_once", [READ, 100_000])
def test_frames_that_make_no_command_are_told_of_as_work(octets: bytes, read_at_once: int) -> None:
    reader = new_reader()
    told = [command for piece in in_pieces(octets, read_at_once) for command in take(reader, piece)]
    assert all(isinstance(command, Frames) and command.total <= 1_000 for command in told)
    assert sum(command.total for command in told if isinstance(command, Frames)) >= 20_000
