"""What a client publishes on one channel: from octets to messages in queues, and the confirms back.

Owns the publish sequence and what is not confirmed yet. A run of publishes is resolved group by group, handed
to each queue it reaches as one run, and confirmed as one. What reaches very many queues is handed over in pieces, and
what comes after it on this connection waits.

A target is remembered by the octets of the publish's arguments, and facts by the octets of the properties:
publishers repeat themselves, and permission, exchange, routing and decoding are then one look-up. Any change
of topology or permissions in the vhost empties the targets.

Always true between calls: `_pending` waits for rising batches and rising sequence numbers; each publish on a
confirm channel is answered once, in order; a return goes out before its confirm.

Spec: basic.publish, basic.return; RabbitMQ docs/confirms, docs/direct-reply-to, docs/validated-user-id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, NamedTuple

from pamqp.commands import Confirm

from amqpd import fields
from amqpd.broker.exchange import Exchange
from amqpd.broker.hand_over import MOST_MESSAGES, WIDE, HandOver
from amqpd.broker.ports import ReplySubscriber
from amqpd.broker.queue.pager import MessageNotLoaded
from amqpd.broker.queue.queue import Queue, note_holders
from amqpd.broker.remembered import Remembered
from amqpd.broker.routing import Walk
from amqpd.broker.vhost import REPLY_TO
from amqpd.errors import ChannelException, ConnectionException, ReplyCode
from amqpd.message import Message, MessageProperties, Route
from amqpd.properties import read_own_properties, read_properties, with_reply_to, without_headers
from amqpd.session.commit import Held
from amqpd.session.table import Handlers
from amqpd.wire.publish import PublishArguments, read_publish
from amqpd.wire.commands import PublishGroup
from amqpd.wire.writer import pack_confirm, pack_refusal, pack_return, refit_content

if TYPE_CHECKING:
    from amqpd.session.channel import Channel

# What a target and facts take in memory, about, besides their octets, and each name among them.
TARGET_OCTETS, FACTS_OCTETS, NAME_OCTETS = 800, 400, 64
# What finding a target costs without the walk, and reading facts, in steps of broker/effort.py.
RESOLVE_STEPS, READ_STEPS, OCTETS_A_STEP = 4, 2, 32
WIDE_HEADERS = 1_024    # octets of a header table, from which on it is remembered where they lead
NAMES_A_STEP = 20       # of queues that are listed
DECODED = 10            # octets of a header table that are decoded in a step
REWRITTEN, COPIED = 16, 1_024       # octets of a header table that are read or written, of a body that are copied
RUN_STEPS = 6           # what handing a run to a queue takes, beyond a step for each message


class _Unfinished(Exception):
    """The slice is spent before it is known where a publish goes."""


class Target(NamedTuple):
    """What a publish with these arguments leads to."""

    route: Route
    exchange: Exchange
    queues: list[Queue]
    mandatory: bool
    by_headers: bool                        # the queues depend on each message's headers
    replies_to: ReplySubscriber | None      # a direct reply, not a queue


# What is remembered of a target: its route, its queue where it is but one, and the rest.
Resolved = tuple[Route, "Queue | None", Target]


class Publishing:
    """The publishing side of one channel."""

    def __init__(self, channel: Channel) -> None:
        self.confirms = False
        self.published_total = 0
        self._channel = channel
        self._sequence = 0          # of the last publish since confirm.select
        self._confirmed = 0         # the last sequence number that went out
        self._ready = 0             # the last one that may go out
        self._first_number = 0      # of the messages of the run at hand, which `_sequence` does not count yet
        self._refused: set[int] = set()     # those among the rest that a queue would not take
        # (batch, the last sequence number and the last message that wait for it), a run of publishes each
        self._pending: deque[tuple[int, int, int]] = deque()
        self._targets: Remembered[bytes, Resolved] = Remembered(channel.owner.memory)
        self._targets_version = -1
        # by the octets of exchange and key, and of wide headers
        self._matched: Remembered[tuple[bytes, bytes], list[Queue]] = Remembered(channel.owner.memory)
        self._cut_off: dict[Hashable, Walk] = {}        # walks that a slice was too short for; see `_finish`
        self._hand_over: HandOver | None = None         # of the first publishes that are handed in again
        self._refusal: ChannelException | ConnectionException | None = None
        # with whether they ask for more than a queue
        self._facts: Remembered[bytes, tuple[MessageProperties, bool]] = Remembered(channel.owner.memory)

    def handlers(self) -> Handlers:
        """The methods this part of a channel answers."""
        return {Confirm.Select: self.on_confirm_select}

    @property
    def unconfirmed(self) -> int:
        """Publishes that still wait for their confirm."""
        return self._sequence - self._confirmed

    # Publishing

    def may_begin(self, arguments: bytes) -> bool:
        """Return whether a publish of which only the method is there would be taken; if not, `refuse` says why.

        RabbitMQ answers once the content is whole, and so do we; only the content of such a publish is not kept.
        """
        self._forget_old_targets()
        try:
            if arguments not in self._targets.known:
                self._authorize(arguments)
        except (ChannelException, ConnectionException) as error:
            self._refusal = error.with_traceback(None)
            return False
        return True

    def refuse(self) -> None:
        """Raise what was found wrong with a publish when it began: its content is whole."""
        refusal, self._refusal = self._refusal, None
        assert refusal is not None
        raise refusal

    def _forget_old_targets(self) -> None:
        if self._targets_version != self._channel.vhost.version:
            self._targets.clear()
            self._matched.clear()
            self._targets_version = self._channel.vhost.version

    def on_publishes(self, groups: list[PublishGroup]) -> list[PublishGroup]:
        """Take a run of publishes until the slice is spent, and return the rest, to be handed in again.

        If one is refused, those before it have been published. Raises NotAtHand while the first of those that are
        handed in again are on their way to very many queues.
        """
        channel = self._channel
        if self._hand_over is not None:
            groups = self._count_handed_over(self._hand_over, groups)
        self._forget_old_targets()
        broker, targets, known = channel.broker, self._targets.known, self._facts.known
        effort = broker.effort
        runs: dict[Queue, list[Message]] = {}
        first_number = number = self._first_number = broker.next_message_number
        stop = number + effort.stop - effort.total      # a message is a step
        is_timed = False
        resolved: bytes | None = None
        remaining = iter(groups)
        rest: list[PublishGroup] = []
        try:
            for arguments, properties, body_size, contents in remaining:
                if arguments is not resolved:
                    found = targets.get(arguments)
                    if found is None:
                        found = self._resolve(arguments)
                        stop = first_number + effort.stop - effort.total - RUN_STEPS * len(runs)
                    route, only_queue, target = found
                    resolved = arguments
                read = known.get(properties)
                if read is None:
                    read = self._read(properties)
                    stop = first_number + effort.stop - effort.total - RUN_STEPS * len(runs)
                facts, is_special = read
                if facts.expiration_ms is not None:
                    is_timed = True
                count = len(contents)
                if only_queue is not None and not is_special:
                    run = runs.get(only_queue)
                    if run is None:
                        run = runs[only_queue] = []
                        stop -= RUN_STEPS
                    if count == 1:
                        run.append(Message(number, route, facts, contents[0], body_size))
                    else:
                        run += [
                            Message(n, route, facts, content, body_size) for n, content in enumerate(contents, number)]
                else:
                    room = first_number + effort.stop - effort.total - RUN_STEPS * len(runs) - number
                    run = [Message(n, route, facts, content, body_size) for n, content in enumerate(contents, number)]
                    count = self._spread(runs, target, facts, run, is_special, room)
                    stop = first_number + effort.stop - effort.total - RUN_STEPS * len(runs)
                    if count < len(contents):
                        rest = [(arguments, properties, body_size, contents[count:])]
                        stop = number
                number += count     # not before: what is refused is not confirmed
                if number >= stop:
                    break
        except _Unfinished:
            rest = [(arguments, properties, body_size, contents)]
        finally:
            broker.next_message_number = number
            effort.total += number - first_number + RUN_STEPS * len(runs)
            self._place(runs, number - first_number, first_number, is_timed)
        return [*rest, *remaining]

    def _spread(
        self, runs: dict[Queue, list[Message]], target: Target, facts: MessageProperties, messages: list[Message],
        is_special: bool, room: int,
    ) -> int:
        """Add messages to the runs of the queues they reach, however many, or return them to the client.

        Return how many of them have been taken: at least one, and no more than there is room for, in steps; or none,
        since a hand-over of the first of them has begun.
        Raises _Unfinished where not even their queues could be found.
        """
        queues = target.queues
        if is_special or target.by_headers or target.replies_to is not None:
            self._check(facts)
            queues = self._queues_by_content(target, facts)
        width = max(1, len(queues))
        is_wide = width >= WIDE and not self._channel.transaction.active
        if is_wide:
            del messages[MOST_MESSAGES:]
        elif len(messages) * width > room:
            del messages[max(1, room // width) :]
        if facts.reply_to == REPLY_TO or facts.has_bcc:
            self._rewrite(facts, messages, room)
        if target.replies_to is not None:
            for message in messages:
                target.replies_to.deliver_reply(message)
        elif self._channel.transaction.active:
            self._hold(target, facts, queues, messages)
            return len(messages)
        elif is_wide:
            is_timed = facts.expiration_ms is not None
            self._hand_over = HandOver(self._channel.broker, messages, queues, is_timed=is_timed)
            self._channel.broker.worklist.add(self._hand_over)
            return 0
        elif not queues and target.mandatory:
            self._return(messages, is_first=not runs)
        elif len(queues) > 1:
            note_holders(queues, messages)
        for queue in queues:
            runs.setdefault(queue, []).extend(messages)
        # One step for each queue, of which `on_publishes` counts one; as many for what goes back to a client at once.
        self._channel.broker.effort.total += len(messages) * abs(len(queues) - 1)
        return len(messages)

    def _count_handed_over(self, hand_over: HandOver, groups: list[PublishGroup]) -> list[PublishGroup]:
        """Count what is in all of its queues now as published, and return the other publishes. Raises NotAtHand."""
        if not hand_over.is_done:
            raise MessageNotLoaded(hand_over.call)
        self._hand_over = None
        self.published_total += hand_over.count
        if self.confirms:
            self._refused.update([self._sequence + 1 + place for place in hand_over.refused])
            self._sequence += hand_over.count
            self._wait_for(hand_over.batch, hand_over.first_number, hand_over.last_number)
        (arguments, properties, body_size, contents), *others = groups
        contents = contents[hand_over.count :]
        return [(arguments, properties, body_size, contents), *others] if contents else others

    def _hold(self, target: Target, facts: MessageProperties, queues: list[Queue], messages: list[Message]) -> None:
        """Keep messages in the transaction, with the names of their queues, which are looked up at the commit.

        The default exchange routes to a name whether there is such a queue or not.
        """
        names = [queue.name for queue in queues]
        self._channel.broker.effort.total += len(queues) // NAMES_A_STEP
        if not target.exchange.name:
            keys = dict.fromkeys((target.route.routing_key, *facts.extra_keys))
            names = [key for key in keys if not key.startswith(REPLY_TO)]
        self._channel.transaction.hold_publishes(Held(messages, tuple(names), target.mandatory))

    def _place(self, runs: dict[Queue, list[Message]], count: int, first_number: int, is_timed: bool) -> None:
        """Put the runs into their queues and see to the confirms."""
        self.published_total += count
        self._channel.owner.published_runs += 1
        batch = 0
        for queue, run in runs.items():
            outcome = queue.publish(run, is_timed=is_timed)
            batch = max(batch, outcome.batch)
            if outcome.refused and self.confirms:
                ahead = self._sequence + 1 - first_number
                self._refused.update([message.number + ahead for message in outcome.refused])
        if self.confirms and count:
            self._sequence += count
            self._wait_for(batch, first_number, first_number + count - 1)

    def forget_targets(self) -> None:
        """Look up anew where publishes go: a transaction begins, whose publishes are looked at one by one."""
        self._targets.clear()

    def _authorize(self, arguments: bytes) -> tuple[PublishArguments, Exchange]:
        """Decode the arguments and check whether this may be published. RabbitMQ's order of checks."""
        channel = self._channel
        vhost = channel.vhost
        asked = read_publish(arguments)
        if asked.immediate:
            raise ConnectionException(ReplyCode.NOT_IMPLEMENTED, "immediate=true", method=(60, 40))
        channel.user.require(vhost.name, "write", "exchange", asked.exchange)
        exchange = vhost.exchange(asked.exchange)
        if exchange.definition.internal:
            raise ChannelException(
                ReplyCode.ACCESS_REFUSED, f"cannot publish to internal exchange '{exchange.name}' "
                f"in vhost '{vhost.name}'")
        return asked, exchange

    def _resolve(self, arguments: bytes) -> Resolved:
        """Find out where such a publish goes, and whether it may."""
        channel = self._channel
        vhost = channel.vhost
        asked, exchange = self._authorize(arguments)
        key = asked.routing_key
        queues, by_headers, is_lasting = vhost.routing.at_once(exchange, key), False, True
        if queues is None:
            walk = self._finish(arguments, lambda: vhost.routing.find(exchange, (key,)))
            queues, by_headers, is_lasting = walk.queues, walk.needs_headers, walk.is_current
        route = Route(asked.exchange, key, asked.names, channel.number, channel.frame_max)
        replies_to = None if asked.exchange else vhost.reply_subscribers.get(key)
        target = Target(route, exchange, queues, asked.mandatory, by_headers, replies_to)
        is_plain = len(queues) == 1 and replies_to is None and not channel.transaction.active
        only_queue = queues[0] if is_plain else None
        known = (route, only_queue, target)
        channel.broker.effort.total += RESOLVE_STEPS
        if is_lasting:      # else bindings have changed on the way: the target holds for this publish only
            self._targets.keep(arguments, known, TARGET_OCTETS + 4 * len(arguments) + 8 * len(queues))
        return known

    def _read(self, properties: bytes) -> tuple[MessageProperties, bool]:
        facts = read_properties(properties)
        self._channel.broker.effort.total += READ_STEPS + len(properties) // OCTETS_A_STEP
        known = facts, facts.is_special
        self._facts.keep(
            properties, known, FACTS_OCTETS + 2 * len(properties) + NAME_OCTETS * len(facts.extra_keys))
        return known

    def _check(self, facts: MessageProperties) -> None:
        """Refuse what only a look at the properties can refuse. RabbitMQ's order of checks."""
        channel = self._channel
        if facts.reply_to == REPLY_TO:
            channel.consuming.replies.check_consumer()
        if facts.user_id is not None and facts.user_id != channel.user.name:
            if "impersonator" not in channel.user.definition.tags:
                raise ChannelException(
                    ReplyCode.PRECONDITION_FAILED, f"user_id property set to '{facts.user_id}' "
                    f"but authenticated user was '{channel.user.name}'")
        if facts.flaw:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, facts.flaw)

    def _queues_by_content(self, target: Target, facts: MessageProperties) -> list[Queue]:
        """Return the queues of publishes whose headers, or CC and BCC, have a say in it. Raises _Unfinished."""
        if target.replies_to is not None:
            return []
        if not target.by_headers and not facts.extra_keys:
            return target.queues
        routing = self._channel.vhost.routing
        keys = dict.fromkeys((target.route.routing_key, *facts.extra_keys))
        asked = target.route.octets, facts.headers
        queues = self._matched.known.get(asked)
        if queues is None:
            walk = self._finish(asked, lambda: routing.walk(
                target.exchange, keys, lambda: self._decode(facts.headers)))
            queues = walk.queues
            if len(facts.headers) >= WIDE_HEADERS and walk.is_current:
                self._matched.keep(asked, queues, TARGET_OCTETS + len(facts.headers) + 8 * len(queues))
        return queues

    def _decode(self, headers: bytes) -> dict[str, Any]:
        self._channel.broker.effort.total += len(headers) // DECODED
        return fields.decode_table(headers)

    def _rewrite(self, facts: MessageProperties, messages: list[Message], room: int) -> None:
        """Replace `amq.rabbitmq.reply-to` by the address of the channel, and take the BCC header out.

        The messages have the same properties. Those that there is no room for, in steps, are taken out of the list.
        """
        properties = messages[0].properties
        if facts.reply_to == REPLY_TO:
            properties = with_reply_to(properties, self._channel.consuming.replies.address)
        if facts.has_bcc:
            properties = without_headers(properties, ("BCC",))
        facts = read_own_properties(properties)
        steps = len(properties) // REWRITTEN
        for place, message in enumerate(messages):
            if place and steps > room:
                del messages[place:]
                break
            content, copied = message.take_content_with(properties)
            messages[place] = Message(message.number, message.route, facts, content, message.body_size)
            steps += copied // COPIED
        self._channel.broker.effort.total += steps

    def _finish(self, asked: Hashable, begin: Callable[[], Walk]) -> Walk:
        """Return a walk that is done: of what is asked, or the one of it that the end of a slice has cut off.

        Raises _Unfinished where this slice ends too early as well.
        """
        walk = self._cut_off.pop(asked, None) or begin()
        if not walk.step(self._channel.broker.effort):
            self._cut_off[asked] = walk
            raise _Unfinished
        self._cut_off.clear()
        return walk

    def _return(self, messages: list[Message], *, is_first: bool) -> None:
        """Return mandatory messages without a route to the client, each before its confirm. Spec: basic.return.

        As on RabbitMQ the publishes before it are confirmed first, where nothing of them waits. `is_first` says that
        those of its run that are not counted yet, if any, reached no queue.
        """
        if not (self.confirms and is_first) or self._pending:
            self.send_returns(messages)
            return
        for message in messages:
            self._ready = self._sequence + message.number - self._first_number
            self.write_confirms()
            self.send_returns([message])

    def send_returns(self, messages: list[Message]) -> None:
        """Return mandatory messages that reached no queue to the client."""
        channel = self._channel
        for message in messages:
            channel.outbox.write(pack_return(channel.number, message.route))
            channel.outbox.write(refit_content(message, channel.number, channel.frame_max))

    # Confirms

    def on_confirm_select(self, method: Confirm.Select) -> Confirm.SelectOk | None:
        """Spec: confirm.select, RabbitMQ's extension. A second one changes nothing."""
        if self._channel.transaction.active:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, "cannot switch from tx to confirm mode")
        self.confirms = True
        return None if method.nowait else Confirm.SelectOk()

    def _wait_for(self, batch: int, first: int, last: int) -> None:
        """Everything published so far, these messages last, may be confirmed once this batch, and what waits already,
        is on disk; 0 stands for nothing to wait for.
        """
        pending = self._pending
        if batch:
            self._channel.await_commit()
        elif pending:
            batch = pending[-1][0]
        else:
            self._ready = self._sequence
            self._channel.outbox_has_confirms()
            return
        if pending and pending[-1][0] == batch and pending[-1][2] == first - 1:
            pending.pop()       # one run with those
        pending.append((batch, self._sequence, last))

    def on_commit(self, batch: int) -> None:
        """This batch is on disk: what waited for it may be confirmed."""
        while self._pending and self._pending[0][0] <= batch:
            self._ready = self._pending.popleft()[1]
        if self._ready > self._confirmed:
            self._channel.outbox_has_confirms()

    def on_answered(self, number: int) -> None:
        """Nobody is owed a message up to this number any more: it may be confirmed, whether it is on disk or not."""
        pending = self._pending
        while pending and pending[0][2] <= number:
            self._ready = pending.popleft()[1]
        if pending:
            _, sequence, last = pending[0]
            self._ready = max(self._ready, sequence - (last - number))
        if self._ready > self._confirmed:
            self._channel.outbox_has_confirms()

    @property
    def awaits_commit(self) -> bool:
        """Whether any confirm waits for a batch."""
        return bool(self._pending)

    def write_confirms(self) -> None:
        """Say what may be confirmed, in as few words as possible."""
        if self._ready > self._confirmed:
            for sequence in sorted([one for one in self._refused if one <= self._ready]):
                self._refused.discard(sequence)
                self._confirm(sequence - 1)
                self._channel.outbox.write(pack_refusal(self._channel.number, sequence))
                self._confirmed = sequence
            self._confirm(self._ready)

    def _confirm(self, sequence: int) -> None:
        if sequence > self._confirmed:
            multiple = sequence - self._confirmed > 1
            self._confirmed = sequence
            self._channel.outbox.write(pack_confirm(self._channel.number, sequence, multiple=multiple))

    def end(self) -> None:
        """The channel is going: what may be confirmed is, and what is not on disk yet never will be."""
        self.write_confirms()
        self._pending.clear()
        self._targets.clear()
        self._matched.clear()
        self._facts.clear()
        self._cut_off.clear()
        self._hand_over = None
        self._refusal = None

    def check(self) -> None:
        """Assert what must hold between calls."""
        assert list(self._pending) == sorted(self._pending), "confirms wait out of order"
        assert self._confirmed <= self._ready <= self._sequence
