"""Dead letters: declare a queue for them, and read the headers that describe the deaths."""
from __future__ import annotations

from typing import Any

from conformance.channel import Channel, Delivery, Got
from conformance.fields import Cursor, Typed

MARK = b"all that came before"


class Letters:
    """A queue for dead letters, consumed from the start on a channel of its own."""

    def __init__(self, channel: Channel, queue: str) -> None:
        self.queue = queue
        self._channel = channel
        channel.declare_queue(queue)
        channel.consume(queue, no_ack=True)

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of a queue whose dead letters come here."""
        return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": self.queue}

    def take(self, count: int) -> list[Delivery]:
        """The next letters, exactly so many."""
        return self._channel.deliveries(count)

    def come(self) -> list[Delivery]:
        """Return all dead letters so far. The effects of another queue are complete after a request to it."""
        self._channel.publish("", self.queue, MARK)
        come = [self.take(1)[0]]
        while come[-1].body != MARK:
            come += self.take(1)
        return come[:-1]


def deaths(letter: Delivery | Got) -> list[dict[str, Any]]:
    """The header x-death as plain tables."""
    return letter.properties.headers["x-death"]


def counts(letter: Delivery | Got) -> list[tuple[str, str, int]]:
    """Queue, reason and count of each entry of x-death, in their order."""
    return [(death["queue"], death["reason"], death["count"]) for death in deaths(letter)]


def typed_headers(letter: Delivery | Got) -> dict[str, Typed]:
    """The headers with their types, in the order of the wire; neither content type nor encoding may be set."""
    cursor = Cursor(letter.header[12:])
    assert cursor.number(">H") & 0b111 << 13 == 1 << 13, "a content type, a content encoding, or no headers"
    return dict(cursor.typed_pairs())
