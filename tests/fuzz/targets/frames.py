"""What a client sends, cut anywhere: the reader of frames, and the readers of what it cuts out.

An input is the number of cuts, the cuts, and a stream. However a stream is cut, the same comes of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

from pamqp.base import Frame

from amqpd.errors import AmqpException, ConnectionException
from amqpd.properties import read_properties
from amqpd.wire.commands import Acks, Command, Frames, Method, Publishes, Unwanted, memory_of
from amqpd.wire.methods import decode_method, encode_method
from amqpd.wire.publish import read_publish
from amqpd.wire.reader import Reader
from tests.fuzz.targets.target import Target, pieces_of

FRAME_MAX = 256        # smaller than any client's, so that small inputs have larger frames
MAX_BODY = 100_000      # large enough for the way in which the socket writes into the body itself


def read(pieces: Sequence[bytes]) -> tuple[list[Any], int]:
    """Return the commands in these pieces, one by one, and the code of the refusal that ends them, or 0."""
    reader = Reader(FRAME_MAX, MAX_BODY, {1, 2}, is_wanted)
    found: list[Any] = []
    try:
        for piece in pieces:
            for command in take(reader, piece):
                assert memory_of(command) >= 0
                found += units(command)
    except ConnectionException as error:
        return found, code_of(error)
    finally:
        reader.close()
    return found, 0


def is_wanted(channel: int, arguments: bytes) -> bool:
    """Return whether a publish is wanted: any but an immediate one."""
    return arguments[-1:] != b"\x02"


def take(reader: Reader, piece: bytes) -> Iterator[Command]:
    """Pass a piece to the reader as a socket does: into a large body's own place where there is one."""
    while piece:
        room = reader.direct_room()
        if room is None:
            yield from reader.commands(piece)
            return
        size = min(len(room), len(piece))
        room[:size] = piece[:size]
        yield from reader.direct_commands(size)
        del room
        piece = piece[size:]


def units(command: Command) -> list[Any]:
    """Return the parts of a command, which do not depend on how the stream was cut."""
    match command:
        case Publishes(channel, groups):
            # Whether a publish is wanted is asked only if it is incomplete.
            return [("publish", channel, arguments, properties, size, bytes(content))
                    if is_wanted(channel, arguments) else Unwanted(channel)
                    for arguments, properties, size, contents in groups for content in contents]
        case Acks(channel, tags):
            return [("ack", channel, *tag) for tag in tags]
        case Frames():
            return []
    return [command]


def code_of(error: AmqpException) -> int:
    """Return the code of a refusal; its text has to fit into a short string."""
    assert 0 < len(error.reply_text.encode()) <= 255
    return error.code


def look_at(unit: Any) -> None:
    """Decode what a session would decode of it."""
    try:
        if isinstance(unit, Method):
            method = decode_method(unit.payload)
            again = decode_method(encode_method(unit.channel, method)[7:-1])
            assert values_of(method) == values_of(again), method
        elif unit[0] == "publish":
            read_publish(unit[2])
            read_properties(unit[3])
    except ConnectionException as error:
        code_of(error)


def values_of(method: Frame) -> list[Any]:
    """Return the type and the arguments of a method."""
    return [type(method), *(getattr(method, name) for name in method.attributes())]


def run(data: bytes) -> None:
    """Read a stream whole and in pieces."""
    count = data[0] % 8 if data else 0
    cuts, stream = data[1:1 + count], data[1 + count:]
    found, end = read([stream] if stream else [])
    assert read(pieces_of(stream, cuts)) == (found, end), "the pieces make something else than the whole"
    for unit in found:
        look_at(unit)


# Seeds

def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Return a frame."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def method(channel: int, class_id: int, method_id: int, arguments: bytes = b"") -> bytes:
    """Return a method frame."""
    return frame(1, channel, struct.pack(">HH", class_id, method_id) + arguments)


def content(channel: int, body: bytes, step: int = FRAME_MAX - 8, properties: bytes = b"\0\0") -> bytes:
    """Return a header frame and body frames."""
    return frame(2, channel, struct.pack(">HHQ", 60, 0, len(body)) + properties) + b"".join(
        frame(3, channel, body[at:at + step]) for at in range(0, len(body), step))


PUBLISH = method(1, 60, 40, b"\0\0\0\x01q\0")
UNWANTED = method(1, 60, 40, b"\0\0\0\x01q\x02")
TABLE = b"\x01aI\0\0\0\x01\x01bS\0\0\0\x01x\x01cF\0\0\0\x04\x01dt\x01"
ARGUMENTS = struct.pack(">I", len(TABLE)) + TABLE
STREAMS = (
    b"", frame(8, 0, b""), method(1, 60, 10, bytes(7)), method(1, 60, 80, bytes(7) + b"\x01\0") * 3,
    (PUBLISH + content(1, b"body", properties=b"\x10\0\x02")) * 3,
    PUBLISH + content(1, b"body", 1) + PUBLISH + content(1, b""),
    UNWANTED + content(1, b"body", 2), PUBLISH + content(1, bytes(70_000))[:500],
    PUBLISH + frame(2, 1, struct.pack(">HHQ", 60, 0, 200_000) + b"\0\0") + frame(3, 1, b"x"),
    method(0, 10, 11, ARGUMENTS + b"\x05PLAIN\0\0\0\x08\0guest\0g\x05en_US"),
    method(1, 50, 10, b"\0\0\x01q\x02" + ARGUMENTS), method(1, 40, 10, b"\0\0\x01x\x06direct\x02" + ARGUMENTS),
    method(1, 50, 20, b"\0\0\x01q\x01x\x01k\0" + ARGUMENTS), method(1, 60, 20, b"\0\0\x01q\x01c\0" + ARGUMENTS),
    method(1, 20, 40, b"\0\xc8\x02ok\0\0\0\0") + frame(3, 3, b"x"), b"AMQP\0\0\x09\x01")

TARGET = Target(
    run, lambda: [cuts + stream for stream in STREAMS for cuts in (b"\0", b"\x01\x01", b"\x02\x07\x20")],
    [PUBLISH, UNWANTED, content(1, b"body"), frame(3, 1, b"more"), frame(8, 0, b""), ARGUMENTS, b"\xce", b"\xce\x01",
     method(2, 60, 80, bytes(9))],
    longest=600, steps=80, memory=4_000, lengths=(4, 1), share=34)
