"""The commands that a client's octets make: what the reader hands to the session.

The hot path comes in runs; every other method is handed on as it stands.

Spec: §2.3.5, §4.2.
"""

from __future__ import annotations

from typing import NamedTuple

# Publishes in a row with equal method arguments, equal properties and equally long bodies: the octets of the
# arguments from the ticket on, those of the properties, the size of a body, and the content frames of each.
PublishGroup = tuple[bytes, bytes, int, list[bytes]]


class Publishes(NamedTuple):
    """A run of whole publishes on one channel."""

    channel: int
    groups: list[PublishGroup]


class Acks(NamedTuple):
    """A run of basic.ack on one channel: delivery tag and the `multiple` bit of each."""

    channel: int
    tags: list[tuple[int, int]]


class Method(NamedTuple):
    """Any other method, not yet decoded."""

    channel: int
    payload: bytes


class TooLarge(NamedTuple):
    """A content over `max_body_size` was announced; its body frames will be skipped."""

    channel: int
    body_size: int


class Unwanted(NamedTuple):
    """A publish is whole that was not wanted when it began: its content has not been kept."""

    channel: int


class Frames(NamedTuple):
    """So many frames have been read and make no command yet: nothing is to be done but to count the work."""

    channel: int
    total: int


Command = Publishes | Acks | Method | TooLarge | Unwanted | Frames
