"""The properties of a content: read, edited, and rewritten for dead letters as often as a message dies."""

from __future__ import annotations

import struct

from amqpd import fields
from amqpd.broker.dead_letter import DeadCopies, DeadLetterRoute, cycling_queues, routing_keys
from amqpd.errors import ChannelException, ConnectionException, ReplyCode
from amqpd.message import Message, Route, pack_content
from amqpd.properties import (
    original_expiration,
    read_own_properties,
    read_properties,
    read_timestamp,
    with_headers,
    with_reply_to,
    without_expiration,
    without_headers,
)
from tests.fuzz.targets import tables
from tests.fuzz.targets.frames import code_of
from tests.fuzz.targets.target import Target

ROUTE = Route("x", "k", b"\x01x\x01k", 1, 4_096)
DEATHS = (DeadLetterRoute("q", "expired", "", None), DeadLetterRoute("q", "rejected", "x", "other"),
          DeadLetterRoute("q2", "maxlen", "x", None), DeadLetterRoute("q", "expired", "", None))


def run(data: bytes) -> None:
    """Read properties, then do to them what the broker does to those that it has accepted."""
    try:
        facts = read_properties(data)
    except ConnectionException as error:
        code_of(error)
        return
    if facts.flaw:
        code_of(ChannelException(ReplyCode.PRECONDITION_FAILED, facts.flaw))
        return
    for edited in (with_reply_to(data, "elsewhere"), without_expiration(data), without_headers(data, ("CC", "BCC")),
                   with_headers(data, {"CC": ["k"], "new": 1})):
        read_own_properties(edited)
    assert read_own_properties(without_expiration(data)).expiration_ms is None
    assert read_own_properties(with_reply_to(data, "elsewhere")).reply_to == "elsewhere"
    original_expiration(data)
    read_timestamp(data)
    message = Message(1, ROUTE, facts, pack_content(1, 4_096, data, b"body"), 4)
    for number, death in enumerate(DEATHS, 2):
        routing_keys(message, death)
        cycling_queues(message, ("q", "q2", "\\xff"))
        message = DeadCopies(death, 1_700_000_000).copy(message, number)
        assert message.facts.expiration_ms is None and message.body == b"body"
        assert fields.find_type(message.facts.headers, "x-death") == "array"
        assert fields.find(without_deaths(message.facts.headers), "x-last-death-queue") == death.queue


def without_deaths(headers: bytes) -> bytes:
    """Return headers without deaths, which may be nested too deep to be read."""
    return fields.with_entries(b"", {
        "x-last-death-queue": fields.read_value(*fields.find_encoded(headers, [b"x-last-death-queue"])[
            b"x-last-death-queue"])})


def of(flags: int, *values: bytes) -> bytes:
    """Return properties with these flags and values."""
    return struct.pack(">H", flags) + b"".join(values)


def sized(table: bytes) -> bytes:
    """Return a table with its length."""
    return struct.pack(">I", len(table)) + table


def array(name: bytes, *elements: bytes) -> bytes:
    """Return an entry that is an array."""
    return bytes((len(name),)) + name + b"A" + sized(b"".join(elements))


def seeds() -> list[bytes]:
    """Return each property by itself, all together, and headers that the broker reads."""
    short = b"\x02ab"
    every = [short, short, sized(b"\x01aV"), b"\x02", b"\x09", short, short, b"\x02" b"60", short, bytes(8), short,
             short, short, short]
    singles = [of(1 << 15 - at, value) for at, value in enumerate(every)]
    headers = [of(1 << 13, sized(table)) for table in tables.seeds()]
    copies = [of(1 << 13, sized(array(b"CC", b"S\0\0\0\x01k", b"x\0\0\0\x01k") + array(b"BCC", b"S\0\0\0\x01k"))),
              of(1 << 13, sized(b"\x02CCt\x01"))]
    expirations = [of(1 << 8, bytes((len(text),)) + text) for text in (b"-1", b"60x", b"", b"9" * 30, b"+5")]
    return [of(0), of(0xFFFC, *every), *singles, *headers, *copies, *expirations]


TARGET = Target(
    run, seeds, [*tables.TARGET.words, b"\x02CC", b"\x03BCC", array(b"CC", b"S\0\0\0\x01k"), b"A\0\0\0\0"], steps=200,
    memory=8_000, lengths=(4, 1), share=40)
