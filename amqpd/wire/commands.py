"""The commands that the reader makes of a client's octets and passes to the session.

Publishes and acks, the hot path, come in runs; every other method is passed on undecoded.

Spec: §2.3.5, §4.2.
"""

from __future__ import annotations

from typing import NamedTuple

# Publishes in a row with equal method arguments, equal properties and bodies of equal size: the octets of the
# arguments after the ticket, the octets of the properties, the size of a body, and the content frames of each.
PublishGroup = tuple[bytes, bytes, int, list[bytes]]


class Publishes(NamedTuple):
    """A run of complete publishes on one channel."""

    channel: int
    groups: list[PublishGroup]


class Acks(NamedTuple):
    """A run of basic.ack on one channel: the delivery tag and the `multiple` bit of each."""

    channel: int
    tags: list[tuple[int, int]]


class Method(NamedTuple):
    """Any other method, not decoded yet."""

    channel: int
    payload: bytes


class TooLarge(NamedTuple):
    """A content over `max_body_size` was announced; its body frames will be skipped."""

    channel: int
    body_size: int


class Unwanted(NamedTuple):
    """A complete publish that was not wanted when it began: its content has not been kept."""

    channel: int


class Frames(NamedTuple):
    """A number of frames without a command: the session only counts the work."""

    channel: int
    total: int


Command = Publishes | Acks | Method | TooLarge | Unwanted | Frames

ACK_MEMORY = 100        # bytes of an entry of `Acks`


def memory_of(command: Command) -> int:
    """Return about how many bytes of memory a command takes."""
    if isinstance(command, Method):
        return len(command.payload)
    if isinstance(command, Acks):
        return ACK_MEMORY * len(command.tags)
    if isinstance(command, Publishes):
        return sum([
            len(arguments) + len(properties) + sum(map(len, contents))
            for arguments, properties, _, contents in command.groups])
    return 0
