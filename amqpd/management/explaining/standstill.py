"""Why a queue stands still: its cause in a word and a sentence, with the remedy.

What a queue waits for is read from its state at one moment. Only two readings of its counts tell whether it moves;
`survey.py` takes them. A queue without messages stands still as well, since nothing is published to it.

RabbitMQ docs/consumers, docs/consumer-prefetch, docs/alarms, docs/flow-control.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Literal, NamedTuple

import msgspec

from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.queue.queue import Queue
from amqpd.broker.rules import DROP_HEAD
from amqpd.wording import counted, lasting

MOST_CONSUMERS = 1_000          # of one queue, that are visited

Cause = Literal[
    "moves", "paused", "busy", "no_consumer", "single_active_consumer", "prefetch_used", "channel_prefetch_used",
    "unacked_limit", "back_pressure", "disk", "unacked", "set_aside", "dead_letters", "alarm", "memory",
    "nothing_published"]
Lack = Literal["prefetch_used", "channel_prefetch_used", "unacked_limit", "back_pressure", "disk"]


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds the oldest unacknowledged delivery; the tag is empty for basic.get."""

    connection: str
    connection_name: str
    user: str
    channel: int
    consumer_tag: str

    def __str__(self) -> str:
        what = f"consumer '{self.consumer_tag}'" if self.consumer_tag else "basic.get"
        named = f" ('{self.connection_name}')" if self.connection_name else ""
        return f"{what} of user '{self.user}' on {self.connection}{named}, channel {self.channel}"


class Explained(msgspec.Struct, kw_only=True):
    """The state of a queue, and why it stands still. `held_ms` is the age of its oldest unacknowledged delivery."""

    queue: str
    cause: Cause
    sentence: str
    remedy: str
    ready: int
    unacked: int
    consumers: int
    held_ms: int | None = None
    held_by: Holder | None = None


class Seen(NamedTuple):
    """What is known of a queue besides its own state.

    `waits_for_alarm` is the reason why nobody may publish, or "". `is_behind` says that publishers wait for memory.
    `watched_s` is the time between the two readings.
    """

    held_ms: int | None
    held_by: Holder | None
    waits_for_alarm: str
    is_behind: bool
    is_bound: bool
    watched_s: float


class _Why(NamedTuple):
    cause: Cause
    sentence: str
    remedy: str


def explain(queue: Queue, seen: Seen) -> Explained:
    """Explain a queue that stands still."""
    return _explained(queue, seen, _why(queue, seen))


def moving(queue: Queue, seen: Seen, changes: Iterable[tuple[str, int]]) -> Explained:
    """Tell of a queue that moves: `changes` are counts of the time between the two readings."""
    told = ", ".join([f"{count:,} {name}" for name, count in changes if count]) or "nothing"
    return _explained(queue, seen, _Why("moves", f"it moves: {told} in {seen.watched_s:g} s", ""))


def _explained(queue: Queue, seen: Seen, why: _Why) -> Explained:
    return Explained(
        queue=queue.name, cause=why.cause, sentence=why.sentence, remedy=why.remedy, ready=len(queue.ready),
        unacked=queue.unacked, consumers=len(queue.consumers), held_ms=seen.held_ms, held_by=seen.held_by)


def _why(queue: Queue, seen: Seen) -> _Why:
    if queue.definition.is_paused:
        return _Why("paused", f"an operator has paused it; {_waiting(queue)}", "amqpctl resume_queue lets it go on")
    if queue.jobs.has_work:
        return _Why(
            "busy", f"the broker drops or requeues messages of it; {_waiting(queue)}", "none: it goes on by itself")
    if queue.ready:
        return _why_ready(queue, seen)
    if queue.unacked:
        return _Why(
            "unacked", f"clients have all of its {counted(queue.unacked, 'message')} and have not acknowledged "
            f"{'it' if queue.unacked == 1 else 'them'}{_oldest(seen)}",
            "amqpctl list_unacked tells who has which; if a connection is closed, its messages are ready again")
    if queue.dead_letters.count:
        return _why_dead(queue)
    return _why_empty(queue, seen)


def _waiting(queue: Queue) -> str:
    return f"{counted(len(queue.ready), 'message')} {'is' if len(queue.ready) == 1 else 'are'} ready"


def _oldest(seen: Seen) -> str:
    if seen.held_by is None:
        return ""
    since = "" if seen.held_ms is None else f" for {lasting(seen.held_ms)}"
    return f"; the oldest is unacknowledged{since}, by {seen.held_by}"


# With ready messages

def _why_ready(queue: Queue, seen: Seen) -> _Why:
    count = len(queue.consumers)
    if not count:
        had = "its last consumer has gone" if queue.had_consumer else "nobody has consumed from it since the start"
        full = "; it is full, so publishes are refused" if _is_full(queue) else ""
        return _Why("no_consumer", f"{_waiting(queue)}, and there is no consumer: {had}{full}{_oldest(seen)}",
                    "start a consumer")
    active = queue.dispatcher.active
    if active is not None:
        return _why_single(queue, active, seen)
    lacks = Counter(map(_lack, islice(queue.consumers, MOST_CONSUMERS)))
    lack, _ = lacks.most_common(1)[0]
    who = "its consumer" if count == 1 else f"its {count:,} consumers"
    if len(lacks) > 1:
        who = f"most of {who}"
    first = next(one for one in queue.consumers if _lack(one) == lack)
    return _of_lack(lack, f"{_waiting(queue)}, but {who}", first, seen, is_one=count == 1)


def _is_full(queue: Queue) -> bool:
    return queue.rules.overflow != DROP_HEAD and not queue.limits.has_room_for(1)


def _why_single(queue: Queue, active: Consumer[Queue], seen: Seen) -> _Why:
    others = len(queue.consumers) - 1
    wait = f"; {counted(others, 'other consumer')} only {'waits' if others == 1 else 'wait'}" if others else ""
    why = _of_lack(
        _lack(active), f"{_waiting(queue)}, but its single active consumer '{active.tag}'", active, seen, is_one=True)
    return _Why(
        "single_active_consumer", f"{why.sentence}{wait}", f"{why.remedy}; if it is cancelled, another takes over")


def _lack(consumer: Consumer[Queue]) -> Lack:
    """Return what a consumer lacks; "disk" if nothing: then the queue itself waits."""
    if consumer.credit <= 0:
        if consumer.is_at_unacked_limit:
            return "unacked_limit"
        is_own = not consumer.no_ack and consumer.prefetch and consumer.in_flight >= consumer.prefetch
        return "prefetch_used" if is_own else "channel_prefetch_used"
    return "back_pressure" if consumer.subscriber.room <= 0 else "disk"


def _of_lack(lack: Lack, begin: str, consumer: Consumer[Queue], seen: Seen, *, is_one: bool) -> _Why:
    has = "has" if is_one else "have"
    if lack == "prefetch_used":
        return _Why(lack, f"{begin} {has} used {'its' if is_one else 'their'} prefetch ({consumer.prefetch:,})"
                    f"{_oldest(seen)}",
                    "let it acknowledge, add consumers, or raise its prefetch with amqpctl set_consumer_prefetch")
    if lack == "channel_prefetch_used":
        return _Why(lack, f"{begin} {has} used the prefetch that all consumers of a channel share{_oldest(seen)}",
                    "let the channel's consumers acknowledge, raise the prefetch, or use a channel for each queue")
    if lack == "unacked_limit":
        return _Why(lack, f"{begin} {has} {consumer.in_flight:,} unacknowledged messages, as many as "
                    f"limits.unacked_per_consumer allows{_oldest(seen)}",
                    "let it acknowledge, and set a prefetch count")
    if lack == "back_pressure":
        return _Why(lack, f"{begin} {'does' if is_one else 'do'} not read: what was sent fills the buffers of the "
                    f"connection{_oldest(seen)}", "see what that client does; list_connections shows send_pend")
    return _Why(lack, f"{begin} {'waits' if is_one else 'wait'} for the disk, to read the next message or to commit",
                "see whether the disk is slow")


# Without ready messages

def _why_dead(queue: Queue) -> _Why:
    aside = len(queue.dead_letters.aside)
    if aside:
        return _Why(
            "set_aside", f"{counted(aside, 'dead letter')} could not be moved, and {'is' if aside == 1 else 'are'} "
            "set aside", "the log says why; a restart makes them ready again")
    return _Why(
        "dead_letters", f"only expired or dropped messages are left, {queue.dead_letters.count:,} of them: as dead "
        f"letters they wait for room behind exchange '{queue.rules.dead_letter_exchange}'",
        "consume from the queues that this exchange leads to, or raise their limits")


def _why_empty(queue: Queue, seen: Seen) -> _Why:
    if seen.waits_for_alarm:
        return _Why("alarm", f"it is empty, and publishers are blocked by an alarm: {seen.waits_for_alarm}",
                    "free memory or disk, or change the limit; amqpctl status shows them")
    if seen.is_behind:
        return _Why("memory", "it is empty, and publishers wait, since other queues fill the memory for messages",
                    "none: they go on as consumers take messages")
    if queue.records.counts.published:
        return _Why("nothing_published", f"it is empty, and nothing was published to it in {seen.watched_s:g} s",
                    "none, if nothing is to come; else amqpctl route shows where a message goes")
    bound = "" if seen.is_bound else ", and it is bound to no exchange but the default one"
    return _Why("nothing_published", f"nothing has been published to it since the broker started{bound}",
                "amqpctl route shows where a message goes")
