"""The rare methods: decode a frame's payload into a pamqp method object, and encode such an object into a frame.

pamqp provides the classes and with them the layouts; the octets are decoded and encoded here. pamqp's own codec trusts
lengths, recurses into tables, changes the values in them, and refuses names that RabbitMQ allows. `wire/reader.py` and
`wire/writer.py` have faster ways for basic.publish, basic.ack, and what a broker delivers.

A decoded method object has every attribute of its class: numbers are int, bits bool, tables as
`packed_table.read_table` returns them, short strings str, and long strings str if they are UTF-8, else
`fields.LongString`.

Spec: §2.3.5.1, §4.2.5; the refusals are RabbitMQ's (`rabbit_framing`), except that we give a reason where RabbitMQ
closes the connection without one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Any, ClassVar

from pamqp.base import Frame
from pamqp.commands import INDEX_MAPPING, Basic, Channel, Connection, Queue

from amqpd import fields
from amqpd.erlang import describe_frame, erlang_bytes
from amqpd.errors import ConnectionException, ReplyCode, cut_reply_text
from amqpd.message import pack_short_string
from amqpd.packed_table import read_table

METHOD_FRAME = 1
FRAME_END = b"\xce"
_IDS = struct.Struct(">HH")
_FRAME_HEAD = struct.Struct(">BHI")
_LONG = struct.Struct(">I")
_DUMPED_OCTETS = 128    # of arguments that cannot be decoded: more would not fit into a reply text

MethodIds = tuple[int, int]

# connection.start-ok, connection.secure-ok and connection.update-secret: their arguments are neither logged nor sent.
_WITH_SECRETS: frozenset[MethodIds] = frozenset({(10, 11), (10, 21), (10, 70)})


class AccessRequest(Frame):
    """access.request of AMQP 0-9, which pamqp lacks; some clients still send it."""

    __slots__ = ["realm", "exclusive", "passive", "active", "write", "read"]

    frame_id = 10
    index = 0x001E000A
    name = "Access.Request"
    synchronous = True
    valid_responses: ClassVar[list[str]] = ["Access.RequestOk"]

    _realm = "shortstr"
    _exclusive = _passive = _active = _write = _read = "bit"


class AccessRequestOk(Frame):
    """access.request-ok of AMQP 0-9. RabbitMQ's ticket is always 1, and has no meaning."""

    __slots__ = ["ticket"]

    frame_id = 11
    index = 0x001E000B
    name = "Access.RequestOk"

    _ticket = "short"

    def __init__(self, ticket: int = 1) -> None:
        self.ticket = ticket


# An argument: its type in pamqp's words, and its name; all bits in a row share an octet and count as one argument.
Layout = list[tuple[str, list[str]]]


def _layout(method_class: type[Frame]) -> Layout:
    layout: Layout = []
    for kind, names in groupby(method_class.attributes(), method_class.amqp_type):
        layout += [("bits", list(names))] if kind == "bit" else [(kind, [name]) for name in names]
    return layout


_CLASSES: dict[MethodIds, type[Frame]] = {
    (index >> 16, index & 0xFFFF): method_class
    for index, method_class in {
        **INDEX_MAPPING, AccessRequest.index: AccessRequest, AccessRequestOk.index: AccessRequestOk}.items()
}
_LAYOUTS: dict[type[Frame], Layout] = {method_class: _layout(method_class) for method_class in _CLASSES.values()}
_WIDTHS = {"octet": 1, "short": 2, "long": 4, "longlong": 8, "bits": 1}
_LENGTH_WIDTHS = {"shortstr": 1, "longstr": 4, "table": 4}


# Reading

def decode_method(payload: bytes) -> Frame:
    """Return the method in the payload of a method frame.

    Raises ConnectionException: NOT_IMPLEMENTED for a class or method that does not exist; FRAME_ERROR if arguments are
    cut short, have octets left over, or contain a short string that is not UTF-8; SYNTAX_ERROR for a table that cannot
    be decoded or is beyond the limits of `fields`.
    """
    if len(payload) < _IDS.size:
        raise ConnectionException(
            ReplyCode.FRAME_ERROR, f"{describe_frame(METHOD_FRAME, payload)}: unknown_frame", method=(0, 0))
    ids = _IDS.unpack_from(payload)
    method_class = _method_class(ids)
    layout = _LAYOUTS[method_class]
    method = method_class.__new__(method_class)     # __init__ would validate defaults, and sometimes warn
    for (kind, names), octets in zip(layout, _cut(payload, ids, layout)):
        if kind == "bits":
            for position, name in enumerate(names):
                setattr(method, name, bool(octets[0] >> position & 1))
        else:
            setattr(method, names[0], _READERS[kind](octets, ids))
    return method


def shown(payload: bytes) -> bytes:
    """Return what may be shown of the payload of a method frame: no arguments that may hold a password."""
    is_secret = len(payload) >= _IDS.size and _IDS.unpack_from(payload) in _WITH_SECRETS
    return payload[: _IDS.size] if is_secret else payload


def _method_class(ids: MethodIds) -> type[Frame]:
    method_class = _CLASSES.get(ids)
    if method_class is not None:
        return method_class
    class_id, method_id = ids
    known = any(class_id == other for other, _ in _CLASSES)
    text = f"unknown method {method_id} of class {class_id}" if known else f"unknown class {class_id}"
    raise ConnectionException(ReplyCode.NOT_IMPLEMENTED, text, method=ids)


def _cut(payload: bytes, ids: MethodIds, layout: Layout) -> list[bytes]:
    """Return the octets of each argument, without lengths. They must cover the whole payload, as in RabbitMQ."""
    at = _IDS.size
    pieces = []
    for kind, _ in layout:
        width = _WIDTHS.get(kind)
        if width is None:
            start = at + _LENGTH_WIDTHS[kind]
            width = int.from_bytes(payload[at:start], "big")
            at = start
        pieces.append(payload[at : at + width])
        at += width
    if at != len(payload):
        if ids in _WITH_SECRETS:
            text = "cannot decode the arguments, which are not shown since they may hold a password"
        else:
            text = f"cannot decode {erlang_bytes(payload[_IDS.size : _IDS.size + _DUMPED_OCTETS])}"
        raise ConnectionException(ReplyCode.FRAME_ERROR, text, method=ids)
    return pieces


def _read_number(octets: bytes, ids: MethodIds) -> int:
    return int.from_bytes(octets, "big")


def _read_short_string(octets: bytes, ids: MethodIds) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise ConnectionException(ReplyCode.FRAME_ERROR, "Malformed UTF-8 in shortstr", method=(0, 0)) from None


def _read_long_string(octets: bytes, ids: MethodIds) -> str | fields.LongString:
    return fields.long_string(octets)


def _read_table(octets: bytes, ids: MethodIds) -> Mapping[str, fields.Value]:
    try:
        return read_table(octets)
    except fields.FieldError as error:
        raise ConnectionException(ReplyCode.SYNTAX_ERROR, str(error), method=ids) from None


_READERS: dict[str, Callable[[bytes, MethodIds], Any]] = {
    **dict.fromkeys(("octet", "short", "long", "longlong"), _read_number),
    "shortstr": _read_short_string,
    "longstr": _read_long_string,
    "table": _read_table,
}


# Writing

def encode_method(channel: int, method: Frame) -> bytes:
    """Return the whole frame of a method. Names are written unchanged, even if pamqp would refuse them.

    Raises ValueError for a short string of more than 255 octets or a table that cannot be encoded.
    """
    return _pack(channel, type(method), [getattr(method, name) for name in method.attributes()])


def _pack(channel: int, method_class: type[Frame], arguments: Iterable[Any]) -> bytes:
    pieces = [method_class.index.to_bytes(4, "big")]
    rest = iter(arguments)
    for kind, names in _LAYOUTS[method_class]:
        if kind == "bits":
            pieces.append(bytes((sum(bool(next(rest)) << position for position in range(len(names))),)))
        else:
            pieces.append(_WRITERS[kind](next(rest)))
    payload = b"".join(pieces)
    return _FRAME_HEAD.pack(METHOD_FRAME, channel, len(payload)) + payload + FRAME_END


def _write_long_string(value: str | bytes) -> bytes:
    octets = value.encode() if isinstance(value, str) else value
    return _LONG.pack(len(octets)) + octets


_WRITERS: dict[str, Callable[[Any], bytes]] = {
    "octet": struct.Struct(">B").pack,
    "short": struct.Struct(">H").pack,
    "long": _LONG.pack,
    "longlong": struct.Struct(">Q").pack,
    "shortstr": pack_short_string,
    "longstr": _write_long_string,
    "table": lambda table: _write_long_string(fields.encode_table(table)),
}


# Answers whose pamqp classes refuse allowed names in their constructors

def pack_start(server_properties: Mapping[str, fields.Value], mechanisms: str, locales: str) -> bytes:
    """Pack connection.start, version 0-9; spaces separate `mechanisms` and `locales`. Spec: connection.start."""
    return _pack(0, Connection.Start, (0, 9, server_properties, mechanisms, locales))


def pack_secure(challenge: bytes) -> bytes:
    """Pack connection.secure. Spec: connection.secure."""
    return _pack(0, Connection.Secure, (challenge,))


def pack_channel_open_ok(channel: int) -> bytes:
    """Pack channel.open-ok, whose one field is empty; pamqp would write "0" there. Spec: channel.open-ok."""
    return _pack(channel, Channel.OpenOk, ("",))


def pack_declare_ok(channel: int, queue: str, messages: int, consumers: int) -> bytes:
    """Pack queue.declare-ok. Spec: queue.declare-ok."""
    return _pack(channel, Queue.DeclareOk, (queue, messages, consumers))


def pack_consume_ok(channel: int, tag: str) -> bytes:
    """Pack basic.consume-ok. Spec: basic.consume-ok."""
    return _pack(channel, Basic.ConsumeOk, (tag,))


def pack_cancel(channel: int, tag: str, nowait: bool) -> bytes:
    """Pack a basic.cancel from the broker. RabbitMQ docs/consumer-cancel."""
    return _pack(channel, Basic.Cancel, (tag, nowait))


def pack_cancel_ok(channel: int, tag: str) -> bytes:
    """Pack basic.cancel-ok. Spec: basic.cancel-ok."""
    return _pack(channel, Basic.CancelOk, (tag,))


def pack_close(channel: int, code: int, text: str, class_id: int, method_id: int) -> bytes:
    """Pack channel.close, or connection.close on channel 0. The text is cut to 255 octets. Spec: §2.3.7."""
    method_class = Channel.Close if channel else Connection.Close
    return _pack(channel, method_class, (code, cut_reply_text(text), class_id, method_id))
