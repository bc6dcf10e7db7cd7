"""How the page shows the body of a message: as text, folded JSON or MessagePack, hexadecimal digits, or an image.

Always true: what is shown is bounded, whatever the body holds: bytes of text, values and depth of a tree, bytes of
hexadecimal digits. An image is an address of its own. The whole body can be downloaded.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from amqpd.management.page.lists import Record

SHOWN = 64 << 10            # bytes of a body that a page looks at
MOST_VALUES, MOST_DEPTH, LONGEST_VALUE = 1_000, 30, 2_000
MOST_HEX, IN_A_ROW = 4 << 10, 16
IN_A_LINE = 160             # characters of a body in a list
IMAGES = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF87a", "gif"), (b"GIF89a", "gif"))
MSGPACK_TYPES = ("application/msgpack", "application/x-msgpack", "application/vnd.msgpack")


class Branch(NamedTuple):
    """A value of a document: its key, and its text; or, of an object or a list, its values and their number `size`."""

    key: str
    text: str
    branches: Sequence[Branch] = ()
    size: int = -1          # -1: it is not an object or a list
    is_cut: bool = False

    @property
    def is_list(self) -> bool:
        """Whether it is a list."""
        return self.text == "["


class Views(NamedTuple):
    """The ways to show a body, the best one first. A way that does not fit the body is None or empty."""

    size: int
    text: str | None
    is_text_cut: bool
    tree: Branch | None
    tree_name: str
    hex: Sequence[str]
    is_hex_cut: bool
    image: bool

    @property
    def names(self) -> list[str]:
        """The names of the ways: image, JSON, MessagePack, text and hex."""
        found = ["image"] if self.image else []
        found += [self.tree_name] if self.tree is not None else []
        return [*found, *(["text"] if self.text is not None else []), "hex"]


def body_of(message: Record) -> bytes:
    """Return the body of a message as the API gave it: the whole body, or its beginning."""
    payload: str = message["payload"]
    if message["payload_encoding"] == "string":
        return payload.encode(errors="surrogatepass")
    try:
        return base64.b64decode(payload)
    except binascii.Error:
        return b""


def views_of(message: Record) -> Views:
    """Return the ways to show the body of a message of the API, or the beginning that the message has of it.

    The content type that the publisher gave is used for MessagePack only.
    """
    body, size, properties = body_of(message), message["payload_bytes"], message["properties"]
    text = message["payload"] if message["payload_encoding"] == "string" else None
    is_cut, tree, name = len(body) < size or size > SHOWN, None, ""
    if text is not None and not is_cut:
        tree, name = _tree(body, msgspec.json.decode), "JSON"
    elif not is_cut and (_content_type(properties) in MSGPACK_TYPES or body[:1] >= b"\x80"):
        tree, name = _tree(body, msgspec.msgpack.decode), "MessagePack"
    return Views(
        size, text, text is not None and len(body) < size, tree, name, _hex(body[:MOST_HEX]), size > MOST_HEX,
        bool(image_type(body)))


def snippet_of(message: Record) -> tuple[str, bool]:
    """Return the beginning of a body in one line, for a list; and whether it only describes a body that is no text."""
    body, size = body_of(message), message["payload_bytes"]
    if kind := image_type(body):
        return f"an image, {kind.removeprefix('image/').upper()}", True
    if message["payload_encoding"] == "string":
        text = " ".join(message["payload"][:IN_A_LINE].split())
        return text + (" …" if size > len(body) or len(message["payload"]) > IN_A_LINE else ""), False
    return body[:IN_A_ROW].hex(" ") + (" …" if size > IN_A_ROW else ""), True


def _content_type(properties: Any) -> str:
    return str(properties.get("content_type", "")) if isinstance(properties, dict) else ""


def image_type(body: bytes) -> str:
    """Return the media type of a body that is an image which browsers show, by its first bytes, or nothing."""
    kind = next((kind for start, kind in IMAGES if body.startswith(start)), "")
    if body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        kind = "webp"
    return f"image/{kind}" if kind else ""


def _hex(body: bytes) -> list[str]:
    """Return rows of a place, hexadecimal digits, and the characters of ASCII."""
    rows = []
    for start in range(0, len(body), IN_A_ROW):
        row = body[start : start + IN_A_ROW]
        shown = "".join([chr(byte) if 32 <= byte < 127 else "." for byte in row])
        rows.append(f"{start:06x}  {row.hex(' '):<{3 * IN_A_ROW}} {shown}")
    return rows


def _tree(body: bytes, decode: Callable[[bytes], Any]) -> Branch | None:
    """Return a body as a tree; None if it is no such document, or only a single value."""
    try:
        document = decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError, TypeError, OverflowError):
        return None
    return _Tree().branch("", document, 0) if isinstance(document, (dict, list)) else None


class _Tree:
    """Counts the values of a tree, so that there are at most `MOST_VALUES`."""

    def __init__(self) -> None:
        self._left = MOST_VALUES

    def branch(self, key: str, value: Any, depth: int) -> Branch:
        """Return a value, with all below it as far as there is room."""
        self._left -= 1
        if not isinstance(value, (dict, list)):
            return Branch(key, _shown(value))
        found: list[Branch] = []
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        if depth < MOST_DEPTH:
            for name, one in pairs:
                if self._left <= 0:
                    break
                found.append(self.branch(str(name)[:LONGEST_VALUE], one, depth + 1))
        return Branch(key, "{" if isinstance(value, dict) else "[", found, len(value), len(found) < len(value))


def _shown(value: Any) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(value):,} bytes: {bytes(value[:LONGEST_VALUE // 2]).hex()}"
    text = msgspec.json.encode(value, enc_hook=str).decode()
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + " …"
