"""How the page shows the body of a message: as text, folded JSON or MessagePack, hexadecimal digits, or an image.

Always true: what is shown is bounded, whatever the body holds: characters of text, values and depth of a tree, bytes of
hexadecimal digits and of an image. The whole body can be downloaded.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from amqpd.management.page.lists import Record

MOST_TEXT = 64 << 10        # characters
MOST_TREE = 1 << 20         # bytes of a body that is read as JSON or MessagePack
MOST_VALUES, MOST_DEPTH, LONGEST_VALUE = 2_000, 30, 2_000
MOST_HEX, IN_A_ROW = 4 << 10, 16
MOST_IMAGE = 1 << 20
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
    """The ways in which a body can be shown, the best first. Those that do not suit it are None, or empty."""

    size: int
    text: str | None
    is_text_cut: bool
    tree: Branch | None
    tree_name: str
    hex: Sequence[str]
    is_hex_cut: bool
    image: str

    @property
    def names(self) -> list[str]:
        """The names of the ways: image, JSON, MessagePack, text and hex."""
        found = ["image"] if self.image else []
        found += [self.tree_name] if self.tree is not None else []
        return [*found, *(["text"] if self.text is not None else []), "hex"]


def body_of(message: Record) -> bytes:
    """Return the body of a message as the API has it, as far as it is there."""
    payload: str = message["payload"]
    if message["payload_encoding"] == "string":
        return payload.encode(errors="surrogatepass")
    try:
        return base64.b64decode(payload)
    except binascii.Error:
        return b""


def views_of(body: bytes, content_type: str = "") -> Views:
    """Return the ways to show a body. What its publisher says of it counts for MessagePack only."""
    text = _text(body)
    tree, name = None, ""
    if text is not None:
        tree, name = _tree(body, msgspec.json.decode), "JSON"
    elif content_type in MSGPACK_TYPES or body[:1] >= b"\x80":
        tree, name = _tree(body, msgspec.msgpack.decode), "MessagePack"
    return Views(
        len(body), None if text is None else text[:MOST_TEXT], text is not None and len(text) > MOST_TEXT, tree, name,
        _hex(body[:MOST_HEX]), len(body) > MOST_HEX, _image(body))


def _text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _image(body: bytes) -> str:
    """Return an image as an address that holds it; nothing for another body."""
    if len(body) > MOST_IMAGE:
        return ""
    kind = next((kind for start, kind in IMAGES if body.startswith(start)), "")
    if body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(body).decode()}" if kind else ""


def _hex(body: bytes) -> list[str]:
    """Return rows of a place, hexadecimal digits, and the characters of ASCII."""
    rows = []
    for start in range(0, len(body), IN_A_ROW):
        row = body[start : start + IN_A_ROW]
        shown = "".join([chr(byte) if 32 <= byte < 127 else "." for byte in row])
        rows.append(f"{start:06x}  {row.hex(' '):<{3 * IN_A_ROW}} {shown}")
    return rows


def _tree(body: bytes, decode: Callable[[bytes], Any]) -> Branch | None:
    """Return a body as a tree; None if it is too large, no such document, or only a single value."""
    if len(body) > MOST_TREE:
        return None
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
