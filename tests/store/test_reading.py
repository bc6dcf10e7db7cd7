"""Reading messages from rows and blocks: how damage is reported, and the limits of the caches."""

from __future__ import annotations

import pytest

from amqpd.message import MessageProperties
from amqpd.store.rows import message_blocks
from amqpd.store.rows.message_blocks import HEAD, SPAN, Record, iter_heads, pack_blocks, records_of, taken_apart
from amqpd.store.rows.reading import MessageReader, Unreadable
from tests.store.store_samples import PERSISTENT, message, read_properties

REMEMBERED = 3


def read_or_fail(properties: bytes) -> MessageProperties:
    if properties == b"odd":
        raise KeyError("of another day")
    return read_properties(properties)


@pytest.fixture
def reader() -> MessageReader:
    """One that remembers little."""
    return MessageReader(read_or_fail, REMEMBERED)


@pytest.mark.parametrize("exchange, routing_key, properties, can_read", [
    (b"events", b"k", PERSISTENT, True), (b"e" * 255, b"k" * 255, PERSISTENT, True), (b"\xff", b"k", PERSISTENT, False),
    (b"events", b"\xff", PERSISTENT, False), (b"e" * 256, b"k", PERSISTENT, False), (b"events", b"k", b"odd", False)])
def test_it_says_whether_a_message_can_be_read(
    reader: MessageReader, exchange: bytes, routing_key: bytes, properties: bytes, *, can_read: bool
) -> None:
    assert reader.can_read(exchange, routing_key, properties) is can_read


def test_properties_that_cannot_be_read_are_told_with_the_reason(reader: MessageReader) -> None:
    with pytest.raises(Unreadable, match="^KeyError: 'of another day'$"):
        reader.facts(b"odd")


def test_what_it_remembers_has_a_bound(reader: MessageReader) -> None:
    for number in range(3 * REMEMBERED + 2):
        name = b"%d" % number
        assert reader.can_read(b"", name, name)
        block, = pack_blocks(1, {n: message(n, routing_key=f"k{number}") for n in range(1, 20)}, ())[0]
        found = reader.read_block(block[0], *block[-2:], 0b11)
        assert [one.route.routing_key for one in found] == [f"k{number}"] * 2
    held = (reader._routes, reader._block_routes, reader._facts)
    assert [len(of_kind) for of_kind in held] == [2, 2, 1 + 1]


def test_a_damaged_head_beyond_the_span_of_a_block_hides_no_other_message(reader: MessageReader) -> None:
    (first, *_, heads, contents), = pack_blocks(1, {n: message(n) for n in range(1, 20)}, ())[0]
    _, *others = next(iter_heads(heads))
    beyond = HEAD.pack(SPAN, *others)
    found = reader.read_block(first, beyond + heads[HEAD.size :], contents, (1 << 19) - 1)
    assert [one.number for one in found] == [*range(2, 20)]


def test_messages_of_one_route_share_it(reader: MessageReader) -> None:
    block, = pack_blocks(1, {n: message(n, bytes(n % 2)) for n in range(1, 20)}, ())[0]
    found = reader.read_block(block[0], *block[-2:], (1 << 19) - 1)
    assert len({id(one.route) for one in found}) == 1 and [one.number for one in found] == [*range(1, 20)]
    route = found[0].route
    assert (route.exchange, route.routing_key, route.packed_names, route.channel, route.frame_max) == (
        "", "orders", b"\x00\x06orders", 1, 131_072)


# Blocks that are taken apart

@pytest.fixture
def block() -> tuple[int, bytes, bytes]:
    """The first number, the heads and the contents of a block of messages 11 to 30 but for 13."""
    run = {
        n: message(n, b"%d" % n if n % 2 else b"", exchange="events", routing_key=f"key-{n}", properties=PERSISTENT)
        for n in range(11, 31) if n != 13}
    row, = pack_blocks(1, run, ())[0]
    return row[0], row[-2], row[-1]


def test_a_record_has_what_was_published(block: tuple[int, bytes, bytes]) -> None:
    _, heads, contents = block
    records = [*records_of(heads, contents)]
    assert [(r.place, r.exchange, r.routing_key, r.properties, r.body, r.is_sound) for r in records] == [
        (n - 11, b"events", b"key-%d" % n, PERSISTENT, b"%d" % n if n % 2 else b"", True)
        for n in range(11, 31) if n != 13]
    assert [r.checksum for r in records] == [head[-1] for head in iter_heads(heads)]


def test_the_messages_of_a_block_that_wait_are_taken_apart_with_what_was_delivered(
    block: tuple[int, bytes, bytes]
) -> None:
    first, heads, contents = block
    taken = [*taken_apart(first, heads, contents, 0b11001, 0b01001)]
    assert [(number, was_delivered) for number, _, was_delivered in taken] == [(11, 1), (14, 1), (15, 0)]
    assert [record.body for _, record, _ in taken] == [b"11", b"", b"15"]


def test_a_damaged_message_of_a_block_is_told_by_its_place_whether_it_waits_or_not(
    block: tuple[int, bytes, bytes]
) -> None:
    first, heads, contents = block
    damaged = contents.replace(b"key-14", b"key-41").replace(b"key-12", b"key-21")
    taken = [*taken_apart(first, heads, damaged, 0b1, 0b111)]
    assert [(number, record.is_sound, was_delivered) for number, record, was_delivered in taken] == [
        (11, True, 1), (12, False, 0), (13, False, 0)]
    assert isinstance(taken[1][1], Record) and taken[1][1].row_checksum == taken[1][1].checksum


def test_heads_whose_numbers_do_not_rise_are_those_of_no_block(block: tuple[int, bytes, bytes]) -> None:
    _, heads, _ = block
    one = message_blocks.HEAD.size
    assert message_blocks.places_and_sizes(heads)[:3] == [(0, 2), (1, 0), (3, 0)]
    for other in (b"", heads[:-1], heads + b"x"):
        with pytest.raises(ValueError, match="there are no such heads"):
            message_blocks.places_and_sizes(other)
    swapped = heads[:one] + heads[2 * one : 3 * one] + heads[one : 2 * one] + heads[3 * one :]
    for other in (heads[one:], swapped, heads[:one] * 2, heads + message_blocks.HEAD.pack(
            message_blocks.SPAN, 0, 0, 0, 0, 0, 0)):
        with pytest.raises(ValueError, match="its numbers do not rise"):
            message_blocks.places_and_sizes(other)
