"""Write the large bodies of a transaction to the store before its commit begins.

What a commit records is on disk with one batch, for which all publishers wait. So the bodies come first, in pieces, as
those of other publishes do (`broker/ports.py`), and the batch only refers to them. They are written one after the
other, so that large publishes of others have every second turn. If the transaction is not committed after all, the
store deletes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from amqpd.broker.ports import BodyWrite, Journal
from amqpd.broker.queue.queue import Queue
from amqpd.message import Message
from amqpd.session.commit import Held


class CommitBodies:
    """The bodies of these publishes, as far as a queue keeps them on disk. `queues` are those of the vhost, by name."""

    def __init__(self, journal: Journal, queues: Mapping[str, Queue], publishes: Sequence[Held]) -> None:
        self._journal = journal
        self._places: deque[tuple[list[Message], int]] = deque()
        for held in publishes:
            if any([_keeps(queues.get(name), held.messages[0]) for name in held.queues]):
                self._places += [(held.messages, place) for place in range(len(held.messages))]
        self._body: BodyWrite | None = None     # of the first of these

    def next(self) -> BodyWrite | None:
        """Return the body to wait for; None once all have been written, and the messages have them."""
        while self._places:
            messages, place = self._places[0]
            if self._body is None:
                self._body = self._journal.write_body(messages[place])
            if self._body is not None:
                if not self._body.is_done:
                    return self._body
                messages[place] = messages[place].with_stored_body(self._body.stored)
                self._body = None
            self._places.popleft()
        return None

    def end(self) -> None:
        """Write no more: the channel is ending."""
        if self._body is not None:
            self._body.end()


def _keeps(queue: Queue | None, message: Message) -> bool:
    return queue is not None and queue.records.keeps(message)
