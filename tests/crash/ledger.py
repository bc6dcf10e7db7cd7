"""What the broker has promised so far, and every promise it broke.

Two books, fed by what clients sent and were told: `Ledger` holds messages, `Definitions` holds queues, exchanges
and bindings. Both are asked to compare after each restart. Neither talks to anybody; a lock of their own lets many
threads write in them.

A message stands in each of its queues as
- UNCERTAIN: published, and no confirm was seen. After a restart it is there or not, in all its queues alike;
- SAFE: confirmed, or found after a restart. It has to be there;
- SETTLING: answered for good, but nothing proves that the answer is on disk. It may come back with a restart;
- GONE: settled for sure, or not found after a restart. It must never be seen again.

What is GONE everywhere is forgotten: an id that was given and is not in the book any more stands for it.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

FIRST_SHOWN = 20        # violations kept as text; all are counted


class Standing(Enum):
    """Where a message stands in one queue."""

    UNCERTAIN = auto()
    SAFE = auto()
    SETTLING = auto()
    GONE = auto()


class Seen(NamedTuple):
    """One copy of a message as a client got it."""

    id: int
    redelivered: bool
    digest: bytes


@dataclass(slots=True)
class Publish:
    """One message. `source` is the publisher's channel, on which ids rise."""

    id: int
    source: str
    digest: bytes
    persistent: bool
    standings: dict[str, Standing]
    deliveries: Counter[str] = field(default_factory=Counter)


def digest_of(header: bytes, body: bytes) -> bytes:
    """What stands for a content: its properties and its body, octet for octet."""
    return hashlib.blake2b(header + body, digest_size=16).digest()


class Violations:
    """Broken promises, by kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.texts: list[str] = []

    def note(self, kind: str, text: str) -> None:
        """One more."""
        self.counts[kind] += 1
        if len(self.texts) < FIRST_SHOWN:
            self.texts.append(f"{kind}: {text}")


class Ledger:
    """The book of messages. `figures` counts what happened, for the report."""

    def __init__(self, violations: Violations) -> None:
        self.violations = violations
        self.figures: Counter[str] = Counter()
        self.backlog = 0                # entries published and not answered, about
        self._lock = threading.Lock()
        self._open: dict[int, Publish] = {}
        self._last_id = 0

    # Publishing

    def next_id(self) -> int:
        """An id for a message, never given before."""
        with self._lock:
            self._last_id += 1
            return self._last_id

    def published(self, message: Publish) -> None:
        """This message is about to be sent."""
        with self._lock:
            self._open[message.id] = message
            self.backlog += len(message.standings)
            self.figures["published"] += 1

    def confirmed(self, ids: Iterable[int]) -> None:
        """The broker took responsibility for these."""
        with self._lock:
            for id in ids:
                self.figures["confirmed"] += 1
                standings = self._open[id].standings
                for queue, standing in standings.items():
                    if standing is Standing.UNCERTAIN:
                        standings[queue] = Standing.SAFE

    # Consuming

    def delivered(self, queue: str, seen: Seen, *, is_stopping: bool = False) -> None:
        """A client was given this while the broker ran: an answer given in the same run holds.

        A broker that is stopping closes one channel after the other. What was unacked on the first goes to the
        second, maybe before its ack was read there, and maybe noted here before its first delivery is.
        """
        with self._lock:
            self.figures["delivered"] += 1
            message = self._check(queue, seen)
            if message is None or is_stopping:
                return
            if message.standings[queue] is Standing.SETTLING:
                self._note("came back", message, queue, "was delivered after its ack")
            self._check_redelivered(queue, seen, message)

    def settling(self, queue: str, ids: Iterable[int]) -> None:
        """These are about to be answered for good."""
        with self._lock:
            for id in ids:
                self.backlog -= 1
                self._open[id].standings[queue] = Standing.SETTLING

    def settled(self, queue: str, ids: Iterable[int]) -> None:
        """Something that was said after the answers was confirmed, so they are on disk too."""
        with self._lock:
            for id in ids:
                self.figures["settled"] += 1
                self._open[id].standings[queue] = Standing.GONE

    def dropped(self, queue: str) -> None:
        """The queue is no more, with all that was in it."""
        with self._lock:
            for message in self._open.values():
                if queue in message.standings:
                    message.standings[queue] = Standing.GONE

    # After a restart

    def recovered(self, found: Mapping[str, list[Seen]]) -> None:
        """Compare with what is in every queue, in its order; what was uncertain is known from here on."""
        with self._lock:
            there = {queue: self._look_through(queue, run) for queue, run in found.items()}
            for message in self._open.values():
                self._check_wholeness(message, there)
                for queue, standing in message.standings.items():
                    message.standings[queue] = self._stands_after(
                        message, queue, standing, is_there=message.id in there.get(queue, ()))
            self._forget_gone()

    def _look_through(self, queue: str, run: list[Seen]) -> set[int]:
        """Check every copy in one queue, that none is there twice, and that each source's are in order."""
        there: set[int] = set()
        last: dict[str, int] = {}
        for seen in run:
            message = self._check(queue, seen)
            if message is None:
                continue
            self._check_redelivered(queue, seen, message)
            if seen.id in there:
                self._note("twice", message, queue, "is there more than once")
            elif seen.id < last.get(message.source, 0):
                self._note("order", message, queue, f"is behind message {last[message.source]}")
            if not message.persistent:
                self._note("transient", message, queue, "outlived a restart")
            there.add(seen.id)
            last[message.source] = seen.id
        return there

    def _stands_after(self, message: Publish, queue: str, before: Standing, *, is_there: bool) -> Standing:
        if is_there:
            self.figures["uncertain, kept"] += before is Standing.UNCERTAIN
            self.figures["acks undone"] += before is Standing.SETTLING
            return Standing.SAFE
        if before is Standing.SAFE and message.persistent:
            self._note("lost", message, queue, "is not there")
        self.figures["uncertain, dropped"] += before is Standing.UNCERTAIN
        self.figures["settled"] += before is Standing.SETTLING
        return Standing.GONE

    def _check_wholeness(self, message: Publish, there: Mapping[str, set[int]]) -> None:
        """A message that nobody answered is in all its queues or in none."""
        standings = message.standings
        if message.persistent and all(standing is Standing.UNCERTAIN for standing in standings.values()):
            holders = [queue for queue in standings if message.id in there.get(queue, ())]
            if 0 < len(holders) < len(standings):
                self._note("torn", message, holders[0], f"is in {len(holders)} of {len(standings)} queues")

    def _forget_gone(self) -> None:
        self._open = {
            id: message for id, message in self._open.items()
            if any(standing is not Standing.GONE for standing in message.standings.values())}
        self.backlog = sum(len(message.standings) for message in self._open.values())

    # Every copy that is seen

    def _check(self, queue: str, seen: Seen) -> Publish | None:
        """Check one copy against its publish; None if nothing can be said about it but that it should not be."""
        message = self._open.get(seen.id)
        if message is None:
            kind = "came back" if 0 < seen.id <= self._last_id else "never published"
            self.violations.note(kind, f"message {seen.id} is in queue {queue}")
            return None
        standing = message.standings.get(queue)
        if standing is None:
            self._note("astray", message, queue, "was not routed there")
            return None
        if standing is Standing.GONE:
            self._note("came back", message, queue, "is there again")
        if seen.digest != message.digest:
            self._note("altered", message, queue, "is not what was published")
        message.deliveries[queue] += 1
        return message

    def _check_redelivered(self, queue: str, seen: Seen, message: Publish) -> None:
        if message.deliveries[queue] > 1 and not seen.redelivered:
            self._note("redelivered", message, queue, "was delivered before and says it was not")

    def _note(self, kind: str, message: Publish, queue: str, text: str) -> None:
        self.violations.note(kind, f"message {message.id} of {message.source} in queue {queue} {text}")

    @property
    def left(self) -> int:
        """Messages that have to be, or may be, in some queue."""
        return len(self._open)


Key = tuple[str, ...]                   # ("queue", name), ("exchange", name), ("binding", exchange, queue)


class Definitions:
    """The book of what is declared: True or False once the broker answered, None while it is uncertain."""

    def __init__(self, violations: Violations) -> None:
        self.answered = 0
        self.violations = violations
        self._known: dict[Key, bool | None] = {}

    def is_there(self, key: Key) -> bool:
        """Whether it is known to be there."""
        return self._known.get(key) is True

    def keys(self, kind: str) -> list[Key]:
        """All that was ever declared of a kind."""
        return [key for key in self._known if key[0] == kind]

    def asked(self, effects: Mapping[Key, bool]) -> None:
        """The broker is about to be asked for this."""
        for key, there in effects.items():
            if self._known.get(key) is not there:
                self._known[key] = None

    def done(self, effects: Mapping[Key, bool]) -> None:
        """The broker answered that it is done."""
        self.answered += 1
        self._known.update(effects)

    def recovered(self, found: Collection[Key]) -> None:
        """Compare with all that is there after a restart."""
        for key, known in self._known.items():
            if known is not None and known is not (key in found):
                fault = "was declared and is not there" if known else "was deleted and is back"
                self.violations.note("definition", f"{' '.join(key)} {fault}")
            self._known[key] = key in found


def without(exchange_or_queue: Key, definitions: Definitions) -> dict[Key, bool]:
    """What deleting an exchange or a queue does: it goes, with every binding it is an end of."""
    kind, name = exchange_or_queue
    end = 1 if kind == "exchange" else 2
    return {exchange_or_queue: False} | {key: False for key in definitions.keys("binding") if key[end] == name}
