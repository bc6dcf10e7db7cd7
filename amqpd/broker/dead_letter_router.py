"""Move dead messages of a queue to the queues to which its dead-letter exchange routes them.

A move is prepared completely, copy and targets, before anything changes. Then the copies are published and the message
leaves its queue, in one batch of the journal. So at every moment, also in a crash, a message is in its queue or once in
each target. A message that cannot be moved is set aside in its queue: kept, counted, logged and listed, and the others
are moved.

Dead letters are moved in slices (`broker/worklist.py`), for each queue in order. When a moved dead letter causes other
deaths, in a full target or one with a time to live of 0, these are moved before the next dead letter, newest first. So
a cascade through many queues needs little memory, the order is kept, and dead letters of other queues do not wait.

A large body that the store does not have yet, since its message died in a queue that is not durable, is written to the
store before the move, so that the batch only refers to it. The dead letters of that queue wait meanwhile.

RabbitMQ docs/dlx, docs/quorum-queues (at-least-once dead lettering); rabbit_dead_letter.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from amqpd.broker.clock import Clock
from amqpd.broker.dead_letter import REJECTED, DeadCopies, DeadLetterRoute, cycling_queues, routing_keys
from amqpd.broker.effort import QUEUE_STEPS
from amqpd.broker.exchange import Exchange
from amqpd.broker.ports import BodyWrite, PageStore
from amqpd.broker.queue.queue import Queue, note_holders
from amqpd.broker.refused import Refused
from amqpd.broker.routing import Routing
from amqpd.broker.taps import Taps
from amqpd.broker.worklist import PIECE, Worklist
from amqpd.fields import decode_table
from amqpd.message import LARGE_BODY, Message, StoredMessage

log = logging.getLogger("amqpd")

STEPS_A_MESSAGE = 40        # the cost of making a copy and finding its targets, at least
BYTES_A_STEP = 4           # of headers, which grow with each death
COPIED = 1_024              # bytes of content that are copied in a step
MOST_WAITING = 2_048        # dead letters of one queue, from which on it should produce no more
RETRY_MS = 1_000
RETRY_STEPS = 3             # the cost of checking that nothing has changed


class _Deaths:
    """Messages that died in one queue for one reason and have not been moved."""

    __slots__ = ("queue", "dead_route", "run", "at", "is_stored", "_copies", "_time_s")

    def __init__(self, queue: Queue, dead_route: DeadLetterRoute, run: Sequence[Message], is_stored: bool) -> None:
        self.queue = queue
        self.dead_route = dead_route
        self.run = run
        self.at = 0
        self.is_stored = is_stored
        self._copies: DeadCopies | None = None
        self._time_s = 0

    def next(self, count: int) -> Sequence[Message]:
        """Return the next `count` messages."""
        return self.run[self.at : self.at + count]

    def copies(self, time_s: int) -> DeadCopies:
        """Return the object that makes their copies at this time, in seconds of the wall clock."""
        if self._copies is None or self._time_s != time_s:
            self._copies, self._time_s = DeadCopies(self.dead_route, time_s), time_s
        return self._copies

    @property
    def count(self) -> int:
        """The number of messages that are left."""
        return len(self.run) - self.at


class _DeadLettersOfQueue:
    """The dead letters of one queue in order, and the deaths that their moves caused."""

    __slots__ = ("queue", "count", "rejected", "waiting", "cascade", "fresh", "bodies", "awaited", "_router")

    def __init__(self, router: DeadLetterRouter, queue: Queue) -> None:
        self.queue = queue
        self.count = 0                          # of messages in `rejected` and `waiting`
        self.rejected: deque[_Deaths] = deque()     # come first: confirms wait for them; see `rejects.py`
        self.waiting: deque[_Deaths] = deque()
        self.cascade: list[_Deaths] = []        # the last one is next
        self.fresh: list[_Deaths] = []          # deaths caused by the current slice, in order
        self.bodies: dict[Message, BodyWrite] = {}      # of messages that are not moved before these are written
        self.awaited: BodyWrite | None = None           # one of these that is being written
        self._router = router

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to move."""
        return not (self.cascade or self.rejected or self.waiting)

    @property
    def has_work(self) -> bool:
        """See `broker/worklist.py`."""
        return self.awaited is None and not self.is_empty

    @property
    def is_urgent(self) -> bool:
        """See `broker/worklist.py`."""
        return self.awaited is None and bool(self.rejected)

    def await_body(self, message: Message, body: BodyWrite) -> None:
        """Move nothing more until the body of this message has been written."""
        self.bodies[message] = self.awaited = body
        body.call(self._go_on)

    def _go_on(self) -> None:
        self.awaited = None
        self._router.go_on(self)

    def work(self) -> None:
        """See `broker/worklist.py`."""
        self._router.work_on(self)


class DeadLetterRouter:
    """The dead letters of one vhost.

    `next_message_number` returns numbers that always rise; `write_body` is the journal's. A queue with more than
    `most_waiting` dead letters that have not been moved is behind.
    """

    def __init__(
        self, exchanges: Mapping[str, Exchange], routing: Routing, worklist: Worklist, clock: Clock,
        next_message_number: Callable[[], int], page_store: PageStore,
        write_body: Callable[[Message], BodyWrite | None], taps: Taps | None = None, *,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self.most_waiting = most_waiting
        self._exchanges = exchanges
        self._routing = routing
        self._worklist = worklist
        self._effort = worklist.effort
        self._clock = clock
        self._next_message_number = next_message_number
        self._lines: dict[Queue, _DeadLettersOfQueue] = {}
        self._waiting: dict[Queue, int] = {}        # number of runs of each queue that have not been moved
        self._moving: _DeadLettersOfQueue | None = None
        self._page_store = page_store
        self._write_body = write_body
        self._taps = taps
        self._refused: dict[tuple[Queue, DeadLetterRoute], Refused] = {}
        self._retrying = _Retrying(self)
        self._is_waking = False

    @property
    def has_work(self) -> bool:
        """Return whether there are dead letters to move, apart from those that wait for room."""
        return bool(self._lines)

    def has_dead_letters_of(self, queue: Queue) -> bool:
        """Return whether there are dead letters of this queue to move, apart from those that wait for room."""
        return queue in self._waiting

    def move_those_of(self, queue: Queue) -> Iterator[int]:
        """Move the dead letters of this queue in slices; yield the steps that have not been counted."""
        while queue in self._waiting:
            line = self._lines.get(queue)
            if line is None or line.awaited is not None or self._moving is not None:
                yield PIECE     # they died in a cascade: the job of another queue moves them; or a body is written
            else:
                self.work_on(line)
                yield 1

    def dead_letter(self, queue: Queue, run: Sequence[Message], reason: str, *, is_stored: bool = True) -> None:
        """Accept messages that died in this queue; `is_stored` is false for messages that the queue never accepted."""
        rules = queue.rules
        assert rules.dead_letter_exchange is not None
        dead_route = DeadLetterRoute(
            queue.name, reason, rules.dead_letter_exchange, rules.dead_letter_routing_key, rules.is_at_least_once)
        deaths = _Deaths(queue, dead_route, run, is_stored)
        self._waiting[queue] = self._waiting.get(queue, 0) + 1
        if self._moving is not None:
            self._moving.fresh.append(deaths)
            return
        line = self._lines.get(queue)
        if line is None:
            line = self._lines[queue] = _DeadLettersOfQueue(self, queue)
        # Before anything changes: if this fails, the messages are set aside, and not moved too.
        self._worklist.add(line)
        if reason == REJECTED:
            self._worklist.hurry(line)
            line.rejected.append(deaths)
        else:
            line.waiting.append(deaths)
        line.count += len(run)

    def is_behind(self, queue: Queue) -> bool:
        """Return whether so many dead letters of this queue wait that it should produce no more for now."""
        line = self._lines.get(queue)
        return line is not None and line.count > self.most_waiting

    def work_on(self, line: _DeadLettersOfQueue) -> None:
        """Move the next messages of a queue."""
        is_cascade, in_order = bool(line.cascade), line.rejected or line.waiting
        deaths = line.cascade[-1] if is_cascade else in_order[0]
        # One at a time if a target may refuse: each message must see the room that the previous one has left.
        run = deaths.next(1 if deaths.dead_route.is_kept else 1 + PIECE // _steps_of(deaths.run[deaths.at]))
        taken = len(run)
        self._moving = line
        try:
            taken = self._move(deaths, run, line)
        except Exception:
            log.exception("queue '%s' in vhost '%s': %d dead letters cannot be moved and are set aside",
                          deaths.queue.name, deaths.queue.definition.vhost, len(run))
            if deaths.is_stored:
                deaths.queue.dead_letters.set_aside(run)
        finally:
            self._moving = None
            deaths.at += taken
            if not is_cascade:
                line.count -= taken
            if not deaths.count:
                if is_cascade:
                    line.cascade.pop()
                else:
                    in_order.popleft()
                self._has_moved_a_run(deaths.queue)
            fresh, line.fresh = line.fresh, []
            on_top = [deaths for deaths in fresh if not self._queues_up(deaths)]
            line.cascade += reversed(on_top)
            if line.is_empty:
                del self._lines[line.queue]

    def go_on(self, line: _DeadLettersOfQueue) -> None:
        """Move the dead letters of a queue, which have waited for a body."""
        self._worklist.add(line)
        if line.rejected:
            self._worklist.hurry(line)

    def _has_moved_a_run(self, queue: Queue) -> None:
        self._waiting[queue] -= 1
        if not self._waiting[queue]:
            del self._waiting[queue]

    def _queues_up(self, deaths: _Deaths) -> bool:
        """Append deaths of a cascade to earlier ones of the same queue, unless too many wait there."""
        line = self._lines.get(deaths.queue)
        if line is None or not line.waiting or line.count > self.most_waiting:
            return False
        line.waiting.append(deaths)
        line.count += deaths.count
        return True

    def _move(self, deaths: _Deaths, run: Sequence[Message], line: _DeadLettersOfQueue | None = None) -> int:
        """Move messages, at least the first, until they reach so many queues that it is enough for a slice.

        Return how many have been moved: none, if the body of the first has to be written, for which `line` waits then.
        A message that goes to many queues is not cut: after a crash it would be in some of them, and in its own queue.
        """
        queue, dead_route = deaths.queue, deaths.dead_route
        moved: dict[Message, Message] = {}      # by copy
        aside: list[Message] = []
        runs: dict[Queue, list[Message]] = {}
        known: dict[tuple[str, ...], list[Queue]] = {}
        copies = deaths.copies(self._clock.wall_ms // 1000)
        taken = steps = 0
        for message in run:
            if steps > PIECE:
                break
            taken += 1
            try:
                if message.body_size > LARGE_BODY and line is not None and not self._has_body(
                        line, message, dead_route, known, may_wait=taken == 1):
                    taken -= 1
                    break
                copy, targets = self._prepare(
                    copies.copy(message, self._next_message_number()), message, dead_route, known)
            except Exception:
                log.exception("queue '%s' in vhost '%s': message %d cannot be dead-lettered and is set aside",
                              queue.name, queue.definition.vhost, message.number)
                aside.append(message)
                continue
            if line is not None and line.bodies and (body := line.bodies.pop(message, None)) is not None:
                copy = copy.with_stored_body(body.stored)
            self._effort.total += _steps_of(message)
            if dead_route.is_kept and (full := [one for one in targets if not one.limits.has_room_for(copy.body_size)]):
                self._refuse(queue, dead_route, message, full)
                continue
            note_holders(targets, [copy])
            if self._taps is not None and self._taps.tails and (exchange := self._exchanges.get(dead_route.exchange)):
                self._taps.dead_lettered(exchange, routing_keys(message, dead_route), targets, copy)
            moved[copy] = message
            known_runs = len(runs)
            for target in targets:
                runs.setdefault(target, []).append(copy)
            steps += len(targets) + QUEUE_STEPS * (len(runs) - known_runs)
        self._effort.total += steps
        for target, arriving in runs.items():
            aside += [moved.pop(copy) for copy in self._publish(target, arriving) if copy in moved]
        if deaths.is_stored:
            # First: if this fails, all are set aside, so none may have been settled.
            queue.dead_letters.set_aside(aside)
            queue.dead_letters.moved(list(moved.values()))
        return taken

    def _has_body(
        self, line: _DeadLettersOfQueue, message: Message, dead_route: DeadLetterRoute,
        known: dict[tuple[str, ...], list[Queue]], *, may_wait: bool,
    ) -> bool:
        """Return whether this message can be moved, as its large body is in the store or need not be.

        If not, and the line `may_wait`, the body is written from now on.
        """
        if isinstance(message, StoredMessage) or message in line.bodies:
            return True
        exchange = self._exchanges.get(dead_route.exchange)
        if exchange is None or not any([queue.records.keeps(message) for queue in self._targets(
                exchange, tuple(routing_keys(message, dead_route)), message, known)]):
            return True
        body = self._write_body(message) if may_wait else None
        if body is not None:
            line.await_body(message, body)
        return may_wait and body is None

    def _prepare(
        self, copy: Message, message: Message, dead_route: DeadLetterRoute, known: dict[tuple[str, ...], list[Queue]]
    ) -> tuple[Message, list[Queue]]:
        """Return the copy and its targets, without those to which it would return for ever; change nothing."""
        exchange = self._exchanges.get(dead_route.exchange)
        if exchange is None:
            return copy, []
        targets = self._targets(exchange, tuple(routing_keys(message, dead_route)), copy, known)
        if dead_route.reason == REJECTED or not targets:
            return copy, targets
        cycling = cycling_queues(copy, [target.name for target in targets])
        return copy, [target for target in targets if target.name not in cycling]

    def _targets(
        self, exchange: Exchange, keys: tuple[str, ...], copy: Message, known: dict[tuple[str, ...], list[Queue]]
    ) -> list[Queue]:
        """Find the queues that these keys lead to; routes that do not depend on headers are cached in `known`."""
        targets = known.get(keys)
        if targets is not None:
            return targets
        walk = self._routing.find(exchange, keys)
        while not walk.step(self._effort):
            pass
        if walk.needs_headers:
            return self._routing.route(exchange, keys, lambda: decode_table(copy.facts.headers))
        known[keys] = walk.queues
        return walk.queues

    def _publish(self, target: Queue, copies: list[Message]) -> list[Message]:
        """Publish copies to a queue; return them if that failed, since it is not known how many were accepted."""
        try:
            target.publish(copies)
        except Exception:
            log.exception("queue '%s' in vhost '%s' could not take %d dead letters: they are set aside in their queue",
                          target.name, target.definition.vhost, len(copies))
            return copies
        return []

    # At-least-once dead-lettering

    def _refuse(self, queue: Queue, dead_route: DeadLetterRoute, message: Message, by: list[Queue]) -> None:
        """Keep a message for which these queues have no room, and try again later."""
        refused = self._refused.get((queue, dead_route))
        if refused is None:
            refused = self._refused[queue, dead_route] = Refused(
                queue, dead_route, self._page_store, self._try_again)
        refused.add(message, by, self._routing.version)
        queue.dead_letters.kept(message)
        self._ask_to_be_woken()

    def _ask_to_be_woken(self) -> None:
        if not self._is_waking:
            self._is_waking = True
            self._clock.wake_at(self._clock.now_ms + RETRY_MS, self)

    def wake(self) -> None:
        """Try again to move refused messages: the first of each queue, and more as long as there is room."""
        self._is_waking = False
        self._retrying.due = {**self._retrying.due, **dict.fromkeys(self._refused.values())}
        self._worklist.add(self._retrying)

    def _try_again(self, refused: Refused) -> None:
        """Try again to move the refused messages of one queue, in a slice of the worklist."""
        self._retrying.due[refused] = None
        self._worklist.add(self._retrying)

    def retry(self, due: dict[Refused, None]) -> None:
        """Try some of these again, and leave the others."""
        stop = self._effort.total + PIECE
        while due and self._effort.total < stop:
            self._effort.total += RETRY_STEPS
            refused, _ = due.popitem()
            if self._retry(refused):
                due[refused] = None
        if not due and self._refused:
            self._ask_to_be_woken()

    def _retry(self, refused: Refused) -> bool:
        """Try to move the first message; return whether to try the next one at once."""
        queue, dead_route = refused.queue, refused.dead_route
        is_over = queue.deleted or not refused
        if not is_over:
            if refused.is_pointless(self._routing.version):
                return False
            message = refused.take_first()
            if message is None and refused:
                return False        # tried again when it can be read
            if message is not None:
                left = len(refused)
                self._move_refused(queue, dead_route, message)
                if len(refused) > left:
                    return False
            is_over = not refused
        if is_over and self._refused.get((queue, dead_route)) is refused:
            del self._refused[queue, dead_route]
            refused.end()
        return not is_over

    def _move_refused(self, queue: Queue, dead_route: DeadLetterRoute, message: Message) -> None:
        try:
            self._move(_Deaths(queue, dead_route, [message], is_stored=True), [message])
        except Exception:
            log.exception("queue '%s' in vhost '%s': message %d cannot be dead-lettered and is set aside",
                          queue.name, queue.definition.vhost, message.number)
            queue.dead_letters.set_aside([message])


class _Retrying:
    """The job that tries again to move refused messages."""

    __slots__ = ("due", "_router")

    def __init__(self, router: DeadLetterRouter) -> None:
        self.due: dict[Refused, None] = {}
        self._router = router

    @property
    def has_work(self) -> bool:
        """See `broker/worklist.py`."""
        return bool(self.due)

    def work(self) -> None:
        """See `broker/worklist.py`."""
        self._router.retry(self.due)


def _steps_of(message: Message) -> int:
    """Return the cost of moving this message, about."""
    return STEPS_A_MESSAGE + len(message.facts.headers) // BYTES_A_STEP + len(message.content) // COPIED
