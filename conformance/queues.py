"""Declare queues with arguments, read what is in them, and wait for times to live."""
from __future__ import annotations

import time
from typing import Any

import pytest

from conformance.channel import Channel, Delivery, Got
from conformance.conftest import Names
from conformance.fields import Properties
from conformance.methods import BASIC_RETURN
from conformance.waiting import wait_until

of_each_type = pytest.mark.parametrize(
    "type", ["classic", pytest.param("quorum", marks=pytest.mark.needs("quorum-queues"))])


class Stopwatch:
    """Counts from when it is made."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    @property
    def ms(self) -> float:
        """Milliseconds until now."""
        return (time.monotonic() - self._begun) * 1000


def let_pass(ms: int) -> None:
    """Do nothing for so many milliseconds."""
    time.sleep(ms / 1000)


def declare(ch: Channel, names: Names, arguments: dict[str, Any] | None = None, type: str = "classic") -> str:
    """A new queue of this type with these arguments; returns its name."""
    queue = names.queue()
    type_argument = {} if type == "classic" else {"x-queue-type": type}
    ch.declare_queue(queue, durable=type != "classic", arguments={**type_argument, **(arguments or {})})
    return queue


def fill(ch: Channel, queue: str, *bodies: str, **properties: Any) -> None:
    """Publish to a queue, on a channel of its own, and await the confirms."""
    publisher = ch.client.channel()
    publisher.confirm_select()
    for body in bodies:
        publisher.publish("", queue, body.encode(), properties=Properties(**properties))
    assert all(confirm.acked for confirm in publisher.confirms(len(bodies)))
    publisher.close()


def publish_confirmed(ch: Channel, queue: str, *bodies: str, **properties: Any) -> list[bool]:
    """Publish to a queue, on a channel of its own; returns for each message whether it was acked."""
    publisher = ch.client.channel()
    publisher.confirm_select()
    for body in bodies:
        publisher.publish("", queue, body.encode(), properties=Properties(**properties))
    confirms = sorted(publisher.confirms(len(bodies)))
    publisher.close()
    return [confirm.acked for confirm in confirms]


def get(ch: Channel, queue: str, count: int = 1) -> list[Got]:
    """So many messages, as soon as they are ready."""
    got: list[Got] = []

    def has_all() -> bool:
        while len(got) < count and (message := ch.get(queue)):
            got.append(message)
        return len(got) == count
    wait_until(has_all)
    return got


def drained(ch: Channel, queue: str) -> list[str]:
    """All that is ready by now, redelivered messages with an exclamation mark."""
    got: list[Got] = []
    while message := ch.get(queue, no_ack=True):
        got.append(message)
    return shown(got)


def shown(messages: list[Got] | list[Delivery]) -> list[str]:
    """Bodies, those of redelivered messages with an exclamation mark."""
    return [message.body.decode() + "!" * message.redelivered for message in messages]


def ready(ch: Channel, queue: str) -> int:
    """How many messages are ready."""
    return ch.declare_queue(queue, passive=True)[1]


def becomes_empty(ch: Channel, queue: str) -> None:
    """Wait until no message is ready."""
    wait_until(lambda: ready(ch, queue) == 0)


def is_gone(ch: Channel, queue: str) -> bool:
    """Return whether a queue is gone, by a mandatory publish, which unlike a declare is not a use of the queue."""
    ch.publish("", queue, mandatory=True)
    return any(method.ids == BASIC_RETURN for method in ch.sync())
