"""Publisher confirms of one channel: which publishes may be confirmed, and which have been.

Owns the sequence numbers. Publishes wait for the batch that makes them durable, or until consumers have acked them in
every queue; they are confirmed in order, with as few methods as possible. Publishes that have several numbers wait for
the batch in any case.

Always true between calls: `_pending` waits for rising batches and rising sequence numbers; each publish on a confirm
channel is confirmed or refused once, in order.

Spec: RabbitMQ's confirm.select; RabbitMQ docs/confirms.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from amqpd.session.channel_state import ChannelState
from amqpd.wire.writer import pack_confirm, pack_refusal

NO_NUMBER = 0       # a message's number is higher


class ChannelConfirms:
    """The confirms of one channel; `is_on` after confirm.select."""

    def __init__(self, channel: ChannelState) -> None:
        self.is_on = False
        self.sequence = 0           # of the last publish since confirm.select
        self._number = channel.number
        self._outbox = channel.outbox
        self._of_connection = channel.owner.confirms
        self._confirmed = 0         # the last sequence number that went out
        self._ready = 0             # the last sequence number that was confirmed
        self._nacked = 0            # the number of publishes that were answered with basic.nack
        self._refused: set[int] = set()     # the last one that may be confirmed
        # (batch, the last sequence number and the last message that wait for it), for each run of publishes; instead of
        # the message NO_NUMBER, if acks of consumers do not matter for the run
        self._pending: deque[tuple[int, int, int]] = deque()

    @property
    def unconfirmed(self) -> int:
        """The number of publishes that wait for their confirm."""
        return self.sequence - self._confirmed

    @property
    def confirmed(self) -> int:
        """The number of publishes that were answered with basic.ack."""
        return self._confirmed - self._nacked

    @property
    def awaits_commit(self) -> bool:
        """Whether any confirm waits for a batch."""
        return bool(self._pending)

    # Publishes

    def refuse(self, sequences: Iterable[int]) -> None:
        """Answer these publishes, by sequence number, with basic.nack in their turn."""
        self._refused.update(sequences)

    def published(self, count: int, batch: int, first: int = NO_NUMBER, last: int = NO_NUMBER) -> None:
        """Confirm so many more publishes, these messages, once this batch is on disk and earlier ones are confirmed.

        Batch 0 means that there is nothing to wait for. Without numbers, the messages are not confirmed earlier because
        consumers have acked them.
        """
        self.sequence += count
        pending = self._pending
        if batch:
            self._of_connection.await_commit(self)
        elif pending:
            batch = pending[-1][0]
        else:
            self._ready = self.sequence
            self._of_connection.write_later(self)
            return
        if pending and pending[-1][0] == batch and pending[-1][2] == first - 1:
            pending.pop()       # joined with the new run
        pending.append((batch, self.sequence, last))

    # Becoming durable

    def on_commit(self, batch: int) -> None:
        """Confirm the publishes that waited for this batch, which is on disk."""
        while self._pending and self._pending[0][0] <= batch:
            self._ready = self._pending.popleft()[1]
        if self._ready > self._confirmed:
            self._of_connection.write_later(self)

    def on_answered(self, first_pending: Callable[[int], int]) -> None:
        """Confirm messages up to the first one of this channel that is neither on disk nor acked by consumers.

        `first_pending` finds it, from a message's number on; see store/pending_confirms.py.
        """
        pending = self._pending
        while pending:
            _, sequence, last = pending[0]
            if last == NO_NUMBER:
                break
            number = first_pending(last - (sequence - self._ready) + 1)
            if number <= last:
                self._ready = sequence - (last - number) - 1
                break
            self._ready = sequence
            pending.popleft()
        if self._ready > self._confirmed:
            self._of_connection.write_later(self)

    # Writing

    def write_confirms(self) -> None:
        """Write the confirms that are due."""
        if self._ready > self._confirmed:
            for sequence in sorted([one for one in self._refused if one <= self._ready]):
                self._refused.discard(sequence)
                self._confirm(sequence - 1)
                self._outbox.write(pack_refusal(self._number, sequence))
                self._confirmed = sequence
                self._nacked += 1
            self._confirm(self._ready)

    def write_up_to(self, sequence: int) -> None:
        """Confirm everything up to this publish, none of which waits."""
        self._ready = sequence
        self.write_confirms()

    def _confirm(self, sequence: int) -> None:
        if sequence > self._confirmed:
            multiple = sequence - self._confirmed > 1
            self._confirmed = sequence
            self._outbox.write(pack_confirm(self._number, sequence, multiple=multiple))

    def end(self) -> None:
        """Write the confirms that are due: the channel is ending, and later ones are never sent."""
        self.write_confirms()
        self._pending.clear()

    def check(self) -> None:
        """Assert what must hold between calls."""
        assert list(self._pending) == sorted(self._pending), "confirms wait out of order"
        assert self._confirmed <= self._ready <= self.sequence
