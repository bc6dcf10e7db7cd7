"""The deliveries of one channel that are not answered yet, by delivery tag.

Owns the tags. The deliveries of an answer are taken out here, in slices if there are very many; a rollback puts them
back. `session/answers.py` acks, rejects or requeues the messages.

Always true between calls: tags rise from 1; each tag in `by_tag` names one message and the consumer it was given to;
`by_tag` is in the order of its tags.

Spec: basic.ack; RabbitMQ docs/confirms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import merge
from itertools import chain, islice, takewhile

from amqpd.broker.effort import Effort
from amqpd.broker.worklist import PIECE
from amqpd.errors import ChannelException, ReplyCode
from amqpd.session.commit import Answered, Unacked
from amqpd.session.contents import release_contents

ANSWERS_AT_ONCE = 2_000         # deliveries that are answered in one turn


class UnackedDeliveries:
    """The unacked deliveries of one channel; `next_tag` is the tag of its next delivery.

    Contents of up to `small_content` bytes are not worth releasing.
    """

    def __init__(self, effort: Effort, small_content: int) -> None:
        self.by_tag: dict[int, Unacked] = {}
        self.next_tag = 1
        self._effort = effort
        self._small_content = small_content
        self._coming_back: dict[int, Unacked] = {}      # deliveries that the current rollback makes unacked again
        self._until = 0             # the last tag of an answer that is not finished, or 0
        # Contents of tags below the first have been released; those below the second will be with the next call.
        self._release_from, self._release_end = 0, 1

    # Answers

    @property
    def is_answer_unfinished(self) -> bool:
        """Whether the last answer covers more deliveries, and has to be taken again."""
        return bool(self._until)

    def take(self, tag: int) -> dict[int, Unacked]:
        """Take one delivery out. Raises ChannelException if no such tag is outstanding."""
        if tag not in self.by_tag:
            raise unknown_tag(tag)
        return {tag: self.by_tag.pop(tag)}

    def take_piece(self, tag: int) -> dict[int, Unacked]:
        """Take deliveries up to this tag, or all with tag 0, but no more than a turn allows.

        While `is_answer_unfinished`, there are more: the same answer must be taken again. Deliveries made meanwhile are
        not included. Raises ChannelException if no such tag is outstanding. Spec: basic.ack.
        """
        by_tag = self.by_tag
        if not self._until:
            if tag not in by_tag and tag:
                raise unknown_tag(tag)
            self._until = tag or next(reversed(by_tag), 0)
        tags = list(islice(takewhile(self._until.__ge__, by_tag), ANSWERS_AT_ONCE))
        self._effort.total += len(tags)
        taken = {tag: by_tag.pop(tag) for tag in tags}
        if not (by_tag and next(iter(by_tag)) <= self._until):
            self._until = 0
        return taken

    def put_back(self, answers: list[Answered]) -> Iterator[None]:
        """Undo these answers, in slices, and empty the list: the deliveries are unacked again, in order of tags.

        They become unacked at the end; deliveries made meanwhile come after them.
        """
        if not answers:
            return
        effort = self._effort
        back = self._coming_back = self.by_tag
        self.by_tag = {}
        count = 0
        while answers:
            answered, _ = answers.pop()
            back.update(answered)
            count += 1 + len(answered)
            if count >= ANSWERS_AT_ONCE:
                count = 0
                effort.total += PIECE
                yield
        tags, runs = [*back], []
        for start in range(0, len(tags), ANSWERS_AT_ONCE):
            runs.append(sorted(tags[start : start + ANSWERS_AT_ONCE]))
            if len(tags) > ANSWERS_AT_ONCE:
                effort.total += PIECE
                yield
        rising = merge(*runs) if len(runs) > 1 else chain(*runs)
        in_order: dict[int, Unacked] = {}
        while piece := {tag: back[tag] for tag in islice(rising, PIECE)}:
            in_order.update(piece)
            effort.total += len(piece)
            if len(in_order) < len(back):
                yield
        in_order.update(self.by_tag)
        self.by_tag, self._coming_back = in_order, {}
        self._release_from = 0      # contents of deliveries that were put back may be in memory

    def let_go(self) -> list[dict[int, Unacked]]:
        """Return all deliveries and forget them: the channel is ending."""
        everything = [self._coming_back, self.by_tag]
        self.by_tag, self._coming_back = {}, {}
        return everything

    @property
    def deliveries(self) -> list[Unacked]:
        """All deliveries, in any order, including those that the current rollback makes unacked again."""
        return [*self.by_tag.values(), *self._coming_back.values()]

    @property
    def count(self) -> int:
        """The number of these deliveries."""
        return len(self.by_tag) + len(self._coming_back)

    # Contents

    @property
    def has_contents(self) -> bool:
        """Whether there are contents that the next calls of `release_contents` may release."""
        return next(reversed(self.by_tag), -1) >= self._release_from

    def release_contents(self, is_ending: Callable[[], bool]) -> Iterator[None]:
        """Release, in slices, contents of messages that were unacked at the last call already and are on disk.

        Messages that are not committed yet are left for the next call. See broker/unacked_contents.py.
        """
        end, self._release_end = self._release_end, self.next_tag
        tag = max(self._release_from, next(iter(self.by_tag), end))
        self._release_from = end
        while tag < end and not is_ending():
            piece = range(tag, min(end, tag + PIECE))
            self._effort.total += len(piece)
            first_waiting = release_contents(self.by_tag, piece, self._small_content)
            self._release_from = min(self._release_from, first_waiting or end)
            tag = piece.stop
            yield

    def check(self) -> None:
        """Assert what must hold between calls."""
        assert list(self.by_tag) == sorted(self.by_tag), "unacked is out of order"
        assert next(reversed(self.by_tag), 0) < self.next_tag, "an unacked delivery that was never made"


def unknown_tag(tag: int) -> ChannelException:
    """Return the refusal of an answer to a delivery that is not outstanding."""
    return ChannelException(ReplyCode.PRECONDITION_FAILED, f"unknown delivery tag {tag}")
