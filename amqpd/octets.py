"""Octets as RabbitMQ shows them in its refusals: in the syntax of Erlang.

Owns nothing. A text comes out in one line, where RabbitMQ breaks a long one, and is always UTF-8, where
RabbitMQ sends octets from 160 up as they are; in every other respect the texts are equal.
"""

from __future__ import annotations

SHOWN_OCTETS = 16

# What Erlang takes for a printable character of Latin-1; the control characters among them have escapes.
_PRINTABLE = bytes((*range(8, 14), 27, *range(32, 127), *range(160, 256)))
_ESCAPES = str.maketrans({
    "\b": r"\b", "\t": r"\t", "\n": r"\n", "\v": r"\v", "\f": r"\f", "\r": r"\r", "\x1b": r"\e",
    '"': r"\"", "\\": r"\\",
})


def erlang_binary(octets: bytes) -> str:
    """A binary as Erlang's ``~p`` shows it: ``<<"abc">>`` if all of it is printable text, else ``<<97,0>>``."""
    return f"<<{_quoted(octets) or _numbers(octets)}>>"


def erlang_octets(octets: bytes) -> str:
    """A binary as Erlang's ``~w`` shows it: always ``<<97,98,99>>``."""
    return f"<<{_numbers(octets)}>>"


def erlang_string(octets: bytes) -> str:
    """A list of characters as Erlang's ``~p`` shows it: ``"abc"`` if all of it is printable text, else ``[97,0]``."""
    return _quoted(octets) or f"[{_numbers(octets)}]"


def describe_frame(kind: int, payload: bytes) -> str:
    """The frame a refusal is about: ``type 1, all octets = <<0,60>>``, or the first 16 of a longer payload."""
    extent = "all" if len(payload) <= SHOWN_OCTETS else f"first {SHOWN_OCTETS}"
    return f"type {kind}, {extent} octets = {erlang_binary(payload[:SHOWN_OCTETS])}"


def _quoted(octets: bytes) -> str:
    """The octets as a quoted string, or "" if Erlang would not take them for text, or UTF-8 cannot carry it."""
    if not octets or octets.translate(None, _PRINTABLE):
        return ""
    try:
        return f'"{octets.decode().translate(_ESCAPES)}"'
    except UnicodeDecodeError:
        return ""


def _numbers(octets: bytes) -> str:
    return ",".join(map(str, octets))
