"""Commands on the ready messages of a queue: peek, export, move, retry and delete, of a selection or of all that match.

Messages are selected by their ids, or by a filter. A command works in slices; what is selected in a slice is moved or
deleted within it, so each message is somewhere exactly once at every moment. Messages that are published after the
command began do not take part. Unacknowledged messages are not ready: they stay with their consumers.

Always true: a request is bounded in what it returns; one that looks at very many messages leaves the event loop to
clients between two slices, and waits for the disk before it records more than a few mebibytes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from amqpd.broker.broker import Broker
from amqpd.broker.browsing import Browser, Selected
from amqpd.broker.moving import Destination, Moved, Mover, TargetGone, ToExchange, ToOrigin, ToQueue
from amqpd.broker.queue.fifo import HEAD, NO_LIMIT, Place
from amqpd.broker.queue.pager import MessageNotLoaded
from amqpd.broker.queue.queue import Queue
from amqpd.broker.queue.segment import MESSAGE_COST
from amqpd.broker.vhost import Vhost
from amqpd.exit_codes import EXIT_DATA, EXIT_USAGE
from amqpd.management.message_filter import MessageFilter
from amqpd.management.message_records import Record, queued_record
from amqpd.management.node_commands import Node
from amqpd.management.refusal import Refusal, exchange_of, queue_of
from amqpd.message import Message

SKIPPED = 2_000             # messages that are passed at once without a look
MOST_SHOWN = 1_000          # messages in an answer
MOST_SCANNED = 100_000      # messages that one peek, or one part of an export, may look at
MOST_IDS = 10_000
MOST_PAYLOAD = 1 << 20      # bytes of a body that a peek shows
MOST_EXPORTED = 16 << 20    # bytes of a body that an export contains
MOST_READ = 1 << 20         # bytes of text that are searched in one turn, or what takes as long
TIMES_PROPERTIES = 8        # a byte of properties takes as long as so many of a body, but for the first ones
FREE_PROPERTIES = 1 << 10

Filter = Mapping[str, Any]
Result = TypeVar("Result")


class MessageCommands:
    """The commands on messages of one broker."""

    def __init__(self, broker: Broker, node: Node) -> None:
        self._broker = broker
        self._node = node
        self._limits = node.message_limits
        self._one_reads = asyncio.Lock()

    # Looking

    async def peek(
        self, vhost: str, queue: str, offset: int = 0, count: int = 10, cursor: str | None = None,
        filter: Filter = {}, truncate: int = 50_000, scan: int = 10_000, ids: Sequence[int] | None = None,
    ) -> Record:
        """Return the ready messages from an offset, or from behind a cursor, that match a filter; change nothing.

        At most `scan` messages are looked at. `cursor` of the answer is where to go on; None if that was the end. With
        `ids`, only those are looked at, in the order of their ids.
        """
        _check_range("offset", offset, NO_LIMIT)
        _check_range("count", count, MOST_SHOWN)
        _check_range("truncate", truncate, MOST_PAYLOAD)
        _check_range("scan", scan, MOST_SCANNED)
        _, found = queue_of(self._broker, vhost, queue)
        if ids is not None:
            return await self._look(found, Selected(found, _checked_ids(ids)), 0, count, filter, truncate, scan)
        browser = Browser(found, _place(cursor), self._newest)
        if cursor is None and offset:
            await self._skip(browser, browser.begin_at(offset))
        return await self._look(found, browser, offset, count, filter, truncate, scan)

    async def export_messages(
        self, vhost: str, queue: str, cursor: str | None = None, ids: Sequence[int] | None = None,
        filter: Filter = {}, count: int = MOST_SHOWN, scan: int = 10_000,
    ) -> Record:
        """Return messages with their whole bodies, a part of those that match; go on with `cursor` until it is None.

        Of a body of more than 16 MiB only the beginning is there, and `truncated` says so. `gone` has those of the ids
        that this part has passed and that are of no ready message.
        """
        _check_range("count", count, MOST_SHOWN)
        _check_range("scan", scan, MOST_SCANNED)
        _, found = queue_of(self._broker, vhost, queue)
        if ids is None:
            browser = Browser(found, _place(cursor), self._newest)
            return await self._look(found, browser, 0, count, filter, MOST_EXPORTED, scan)
        wanted = _checked_ids(ids)
        left = [number for number in wanted if cursor is None or number > _place(cursor)[1]]
        selected = Selected(found, left)
        part = await self._look(found, selected, 0, count, filter, MOST_EXPORTED, scan)
        return part | {"gone": selected.gone}

    async def _look(
        self, queue: Queue, walk: Browser | Selected, offset: int, count: int, filter: Filter, truncate: int,
        scan: int,
    ) -> Record:
        """Return the next messages of a walk that match. `offset` is that of the first one it looks at."""
        wanted = self._filter(filter, queue)
        before, size, turns = walk.passed, 0, Turns(self._pause)
        records: list[Record] = []
        while not walk.is_at_end and len(records) < count and size < self._limits.answer_bytes:
            limit = min(self._limits.slice, scan - (walk.passed - before))
            if wanted.is_empty:
                limit = min(limit, count - len(records))
            if limit <= 0:
                break
            position = offset + walk.passed - before
            run = await self._loaded(partial(walk.next, limit))
            for at, message in enumerate(run):
                await turns.spend(wanted.cost(message))
                if not wanted.is_light(message):
                    await self._judge(wanted, message)
                if wanted.matches(message):
                    records.append({"offset": position + at, **await queued_record(queue, message, truncate)})
                    size += (shown := _shown(message, truncate))
                    await turns.spend(shown)
                    if len(records) >= count or size >= self._limits.answer_bytes:
                        walk.turn_back(message.number, len(run) - at - 1)
                        break
            await self._pause()
        scanned = walk.passed - before
        return {
            "messages": records, "offset": offset, "scanned": scanned, "next_offset": offset + scanned,
            "cursor": None if walk.is_at_end else walk.cursor, "ready": len(queue.ready)}

    # Acting

    async def move(
        self, vhost: str, queue: str, to_queue: str | None = None, to_exchange: str | None = None,
        routing_key: str | None = None, ids: Sequence[int] | None = None, filter: Filter = {},
        limit: int | None = None, everything: bool = False, dry_run: bool = False,
    ) -> Record:
        """Move ready messages to a queue, or to an exchange as if they were published there."""
        home, found = queue_of(self._broker, vhost, queue)
        destination = _destination(self._broker, home, found, to_queue, to_exchange, routing_key)
        return await self._move(found, destination, ids, filter, limit, everything, dry_run)

    async def retry(
        self, vhost: str, queue: str, last: bool = False, forget_deaths: bool = False,
        ids: Sequence[int] | None = None, filter: Filter = {}, limit: int | None = None, everything: bool = False,
        dry_run: bool = False,
    ) -> Record:
        """Move dead-lettered messages back to the queue where they died first, or `last`."""
        home, found = queue_of(self._broker, vhost, queue)
        destination = ToOrigin(home, last=last, forgets_deaths=forget_deaths)
        return await self._move(found, destination, ids, filter, limit, everything, dry_run)

    async def delete_messages(
        self, vhost: str, queue: str, ids: Sequence[int] | None = None, filter: Filter = {},
        limit: int | None = None, everything: bool = False, dry_run: bool = False,
    ) -> Record:
        """Delete ready messages; they are not dead-lettered."""
        _, found = queue_of(self._broker, vhost, queue)
        deleted = 0

        def delete(run: list[Message]) -> None:
            nonlocal deleted
            found.take_out(run)
            found.drop_taken(run)
            deleted += len(run)

        told = await self._act(found, ids, filter, limit, everything, dry_run, delete)
        return told | {"deleted": deleted}

    async def _move(
        self, queue: Queue, destination: Destination, ids: Sequence[int] | None, filter: Filter, limit: int | None,
        everything: bool, dry_run: bool,
    ) -> Record:
        mover = Mover(queue, destination, self._broker.take_message_number)
        result = Moved()
        told = await self._act(
            queue, ids, filter, limit, everything, dry_run, lambda run: result.add(mover.move(run)))
        return told | msgspec.structs.asdict(result)

    async def _act(
        self, queue: Queue, ids: Sequence[int] | None, filter: Filter, limit: int | None, everything: bool,
        dry_run: bool, act: Callable[[list[Message]], None],
    ) -> Record:
        """Call `act` with the selected messages, slice by slice; with `dry_run`, only count them.

        `gone` has those of the ids that are of no ready message: it was delivered, acked, moved or has expired.
        """
        wanted = self._filter(filter, queue)
        if ids is None and wanted.is_empty and limit is None and not everything:
            raise Refusal("say which messages: ids, a filter, a limit, or all of them", EXIT_USAGE)
        most = NO_LIMIT if limit is None else limit
        _check_range("limit", most, NO_LIMIT)
        told: Record = {"matched": 0, "matched_bytes": 0, "dry_run": dry_run, "stopped": None}
        walk = Browser(queue, HEAD, self._newest) if ids is None else Selected(queue, _checked_ids(ids))

        heavy: Message | None = None        # its turn is next, when it has been judged

        def carry_out() -> int:
            """Do a slice, all within this turn; return about how many bytes it has recorded."""
            nonlocal heavy
            queue.expiry.drop_due()
            found, heavy = _readable(wanted, walk, walk.next(self._limits.slice))
            run = [message for message in found if wanted.matches(message)][: most - told["matched"]]
            if run and not dry_run:
                act(run)
            told["matched"] += len(run)
            told["matched_bytes"] += sum([message.body_size for message in run])
            return sum([len(message.content) + MESSAGE_COST for message in run])

        recorded = 0
        while not walk.is_at_end and told["matched"] < most:
            try:
                recorded += await self._loaded(carry_out)
            except TargetGone as gone:
                told["stopped"] = str(gone)
                break
            if not dry_run and recorded >= self._limits.recorded_bytes:
                recorded = 0
                await self._node.wait_committed()
            await self._pause()
            if heavy is not None:
                await self._judge(wanted, heavy)
        if queue.deleted:
            told["stopped"] = f"queue '{queue.name}' has been deleted"
        if isinstance(walk, Selected):
            told["gone"] = walk.gone
        return told

    # Slices

    async def _loaded(self, act: Callable[[], Result]) -> Result:
        """Return what `act` returns: it is called now, or as soon as the messages that it needs can be read.

        In the second case the page store calls `act` while the page store is open; when this task goes on, the page
        store may be closed again.
        """
        try:
            return act()
        except MessageNotLoaded as busy:
            done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            busy.call(lambda: _call(act, done))
            return await done

    async def _skip(self, browser: Browser, count: int) -> None:
        while count > 0 and (passed := browser.skip(min(count, SKIPPED))):
            count -= passed
            await self._pause()

    async def _judge(self, wanted: MessageFilter, message: Message) -> None:
        """Look into a long message: into one at a time, so that one thread at most competes with the event loop."""
        async with self._one_reads:
            await wanted.judge(message)
        self._node.begin()

    async def _pause(self) -> None:
        """Leave the event loop to others, and begin another slice."""
        await asyncio.sleep(0)
        self._node.begin()

    @property
    def _newest(self) -> int:
        return self._broker.next_message_number - 1

    def _filter(self, filter: Filter, queue: Queue) -> MessageFilter:
        return MessageFilter(filter, queue, self._broker.clock.wall_ms // 1000)


class Turns:
    """What is spent in a turn of the event loop; if it is too much, `pause` ends the turn."""

    def __init__(self, pause: Callable[[], Awaitable[None]]) -> None:
        self._pause = pause
        self._spent = 0

    async def spend(self, cost: int) -> None:
        """Count what is about to be done, or has been done; end the turn when it is full."""
        self._spent += cost
        if self._spent > MOST_READ:
            self._spent = 0
            await self._pause()


def _shown(message: Message, truncate: int) -> int:
    """Return about how much of an answer a message takes, in bytes of a body."""
    return min(message.body_size, truncate) + max(0, len(message.properties) - FREE_PROPERTIES) * TIMES_PROPERTIES


def _readable(
    wanted: MessageFilter, walk: Browser | Selected, run: list[Message]
) -> tuple[list[Message], Message | None]:
    """Return those of the next messages that can be checked in one turn, and the one that has to be judged before it.

    The walk goes back to behind the last of those.
    """
    cost = 0
    for at, message in enumerate(run):
        cost += wanted.cost(message)
        is_light = wanted.is_light(message)
        if not is_light or at and cost > MOST_READ:
            walk.turn_back(message.number - 1, len(run) - at)
            return run[:at], None if is_light else message
    return run, None


def _destination(
    broker: Broker, home: Vhost, source: Queue, to_queue: str | None, to_exchange: str | None, routing_key: str | None
) -> Destination:
    if (to_queue is None) == (to_exchange is None):
        raise Refusal("name either a queue or an exchange to move to", EXIT_USAGE)
    if to_queue is not None:
        if routing_key is not None:
            raise Refusal("a routing key is for an exchange to move to", EXIT_USAGE)
        _, target = queue_of(broker, home.name, to_queue)
        if target is source:
            raise Refusal(f"queue '{source.name}' is where the messages are", EXIT_USAGE)
        return ToQueue(home, target)
    return ToExchange(home, exchange_of(home, to_exchange or ""), routing_key)


def _check_range(name: str, value: int, most: int) -> None:
    if not 0 <= value <= most:
        raise Refusal(f"{name}: a number from 0 to {most:,}" if most < NO_LIMIT else f"{name}: not negative", EXIT_DATA)


def _checked_ids(ids: Sequence[int]) -> list[int]:
    if len(ids) > MOST_IDS or not all([isinstance(one, int) and 0 <= one < NO_LIMIT for one in ids]):
        raise Refusal(f"ids: at most {MOST_IDS:,} numbers, as peek shows them", EXIT_DATA)
    return sorted({*ids})


def _place(cursor: str | None) -> Place:
    if cursor is None:
        return HEAD
    found = re.fullmatch("([0-9]{1,19}):(-?[0-9]{1,19})", cursor)
    if found is None:
        raise Refusal(f"not a cursor of an earlier answer: {cursor[:60]}", EXIT_DATA)
    return int(found[1]), int(found[2])


def _call(act: Callable[[], Result], done: asyncio.Future[Result]) -> None:
    """Call `act`, and once more later if it has to wait again; note its result."""
    if done.cancelled():
        return
    try:
        done.set_result(act())
    except MessageNotLoaded as busy:
        busy.call(lambda: _call(act, done))
    except Exception as error:
        done.set_exception(error)
