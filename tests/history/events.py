"""What clients did, one event after the other: a history.

An event says when, who, what, and how far it got: a client asks (`invoke`), the broker does it (`ok`) or does not
(`fail`), and what comes unasked or needs no answer is `info`. `invoke` is noted before the octets are sent, the others
after they were read: so what really happened lies between the two.

| act | type | what it says |
| --- | --- | --- |
| start | invoke, ok | a broker is started, is ready; with `shift_ms`, its clock's distance from the others' |
| kill, stop | invoke, ok | the end of it; the stop's `ok` with the exit code |
| connection | ok, invoke | open, with `user`, `vhost` and `heartbeat_s`; to be closed, and closed |
| connection | fail | it ended by itself, or by the broker's close with `code` |
| channel | ok, invoke, fail | the same; `channel` counts the openings on a connection |
| declare, delete, purge, bind, unbind | invoke, ok, fail | with `kind` and `name`; a queue with `rules` and `dead_to` |
| see | invoke, ok, fail | there is, or is not, such a thing |
| ask | invoke, ok | something else, by whose answer the broker has read all before |
| select | ok | the channel is in mode `kind`: confirm or tx |
| publish | invoke | to exchange `name`, with what is to be known of it; `to` has the queues it has to reach |
| publish | ok, fail | ack, nack of `tag`, or of all up to it |
| return | info | the message came back |
| consume, cancel | invoke, ok | with `consumer`, `queue`, `prefetch` |
| get | invoke, ok, fail | `ok` is a delivery, `fail` an empty queue |
| deliver | info | with what was found on the message |
| ack, nack, reject, recover | invoke | answers |
| commit, rollback | invoke, ok | of a transaction; its publishes and acks have `in_tx` |
| count | ok | `queue` has `count` ready messages; `is_at_rest` says that nobody else works there |
| drain | invoke, ok | the queue is to be emptied, is empty |
| grant | ok | `user` has the patterns `configure`, `write` and `read` in `vhost` |
| number | info | a number of `kind` was given out |
| fault | invoke, ok | something keeps a connection, or all, from working; it has been mended |
| silence, gone | info | from here on the peer is not heard any more; the broker has given the connection up |
| alarm | invoke, ok | an alarm begins, ends |
| blocked, unblocked | info | the connection was told so |
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

Type = Literal["invoke", "ok", "fail", "info"]
US = 1_000_000


class Rules(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a queue does with messages by itself."""

    durable: bool = True
    exclusive: bool = False
    ttl_ms: int | None = None
    max_length: int | None = None
    overflow: str = "drop-head"
    max_priority: int = 0
    single_active: bool = False
    delivery_limit: int | None = None


class Death(msgspec.Struct, frozen=True, array_like=True):
    """An entry of x-death."""

    queue: str
    reason: str
    count: int


class Event(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One line of a history. `time` is in µs of a clock that never jumps, the same for all processes."""

    time: int
    type: Type
    act: str
    process: str = ""
    connection: str = ""
    channel: int = 0
    # Messages
    id: str = ""                    # connection/channel/sequence
    sha: str = ""                   # of the body
    head: str = ""                  # of the properties, octet for octet
    bare: str = ""                  # of the properties as a dead letter has them, where that is not the same
    to: tuple[str, ...] = ()
    persistent: bool = True
    priority: int = 0
    ttl_ms: int | None = None
    mandatory: bool = False
    in_tx: bool = False
    deaths: tuple[Death, ...] = ()
    redelivered: bool = False
    tag: int = 0
    multiple: bool = False
    requeue: bool = False
    # Queues, and what else there is
    queue: str = ""
    consumer: str = ""
    prefetch: int = 0
    no_ack: bool = False
    kind: str = ""
    name: str = ""
    rules: Rules | None = None
    dead_to: tuple[str, ...] = ()
    count: int = 0
    is_at_rest: bool = False
    # The world
    shift_ms: int = 0
    code: int = 0
    heartbeat_s: float = 0
    vhost: str = "/"
    user: str = ""
    configure: str = ""
    write: str = ""
    read: str = ""


class History:
    """Events as they happen, from many threads, in memory and then in a file."""

    def __init__(self, path: Path, process: str = "") -> None:
        self.path = path
        self.events: list[Event] = []
        self._process = process
        self._flushed = 0
        self._encode = msgspec.json.Encoder().encode
        self._lock = threading.Lock()

    @property
    def now(self) -> int:
        """The time, as events have it."""
        return time.monotonic_ns() // 1000

    def note(self, type: Type, act: str, **what: Any) -> Event:
        """One more event, now."""
        event = Event(time=self.now, type=type, act=act, process=self._process, **what)
        self.events.append(event)
        return event

    def flush(self) -> None:
        """Write what has come since the last time."""
        with self._lock, self.path.open("ab") as file:
            fresh = self.events[self._flushed:]
            file.writelines(self._encode(event) + b"\n" for event in fresh)
            self._flushed += len(fresh)


def read_history(path: Path) -> Iterator[Event]:
    """The events of a file. Raises OSError, and ValueError naming the line that is none."""
    decode = msgspec.json.Decoder(Event).decode
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield decode(line)
            except msgspec.DecodeError as error:
                raise ValueError(f"{path} line {number} is no event: {error}") from error


def in_order(events: Iterable[Event]) -> list[Event]:
    """Events by time; those of the same instant as they came."""
    return sorted(events, key=lambda event: event.time)
