"""The publishing side of one channel: from encoded publishes to messages in queues.

A run of publishes is resolved group by group (`targets.py`), published to each queue as one run, and confirmed as one
(`channel_confirms.py`). A publish to very many queues is handed over in slices, and later input of the connection
waits; it also waits while a large body is written to the store, which is done before its message is published to a
queue.

Always true between calls: a return is sent before its confirm.

Spec: basic.publish, basic.return; RabbitMQ docs/direct-reply-to, docs/validated-user-id.
"""

from __future__ import annotations

from collections.abc import Collection

from pamqp.commands import Confirm

from amqpd.broker.counts import ExchangeCounts
from amqpd.broker.exchange import Exchange
from amqpd.broker.hand_over import MOST_MESSAGES, WIDE, HandOver
from amqpd.broker.ports import BodyWrite
from amqpd.broker.queue.pager import MessageNotLoaded
from amqpd.broker.queue.queue import Queue, note_holders
from amqpd.broker.vhost import REPLY_TO
from amqpd.errors import ChannelException, ConnectionException, ReplyCode
from amqpd.message import LARGE_BODY, Message, MessageProperties
from amqpd.properties import read_own_properties, with_reply_to, without_headers
from amqpd.session.channel_confirms import ChannelConfirms
from amqpd.session.channel_state import ChannelState
from amqpd.session.commit import Held
from amqpd.session.direct_replies import DirectReplies
from amqpd.session.returns import send_returns
from amqpd.session.table import Handlers
from amqpd.session.targets import Target, Targets, WalkUnfinished
from amqpd.session.uncommitted import Uncommitted
from amqpd.wire.commands import PublishGroup

NAMES_A_STEP = 20       # queue names that are listed; see broker/effort.py
REWRITTEN, COPIED = 16, 1_024       # bytes of a header table that are read or written, and of a body that are copied
RUN_STEPS = 6           # the cost of publishing a run to a queue, besides a step for each message


class Publishing:
    """The publishing side of one channel."""

    def __init__(self, channel: ChannelState, replies: DirectReplies, uncommitted: Uncommitted) -> None:
        self.confirms = ChannelConfirms(channel)
        self.targets = Targets(channel, uncommitted)
        self._channel = channel
        self._taps = channel.vhost.taps
        self._effort = channel.effort
        self._counts = channel.counts
        self._replies = replies
        self._uncommitted = uncommitted
        self._first_number = 0      # of the current run, which the confirms do not count yet
        self._hand_over: HandOver | None = None         # of the first publishes that are passed in again
        self._body: BodyWrite | None = None             # of the first publish that is passed in again
        self._body_content = b""                        # the content with that body
        self._refusal: ChannelException | ConnectionException | None = None

    def handlers(self) -> Handlers:
        """Return the methods that this part of a channel handles."""
        return {Confirm.Select: self.on_confirm_select}

    # Publishing

    def may_begin(self, arguments: bytes) -> bool:
        """Return whether a publish would be accepted, by its method alone; if not, `refuse` raises the reason.

        As RabbitMQ does, the answer waits until the content is complete; but the content is not kept.
        """
        self.targets.refresh()
        try:
            if arguments not in self.targets.by_arguments.known:
                self.targets.authorize(arguments)
        except (ChannelException, ConnectionException) as error:
            self._refusal = error.with_traceback(None)
            return False
        return True

    def refuse(self) -> None:
        """Raise the error found when a publish began: its content is complete."""
        refusal, self._refusal = self._refusal, None
        assert refusal is not None
        raise refusal

    def on_publishes(self, groups: list[PublishGroup]) -> list[PublishGroup]:
        """Take a run of publishes until the slice is used up, and return the rest, to be passed in again.

        If one is refused, those before it have been published. Raises MessageNotLoaded while the first of the rest are
        being handed over to very many queues, or their bodies written to the store.
        """
        firehose = self._taps.firehose
        if firehose is not None and firehose.is_behind:
            raise MessageNotLoaded(firehose.call)
        if self._hand_over is not None:
            groups = self._count_handed_over(self._hand_over, groups)
        if self._body is not None and not self._body.is_done:
            raise MessageNotLoaded(self._body.call)
        has_body = self._body is not None
        self.targets.refresh()
        broker, targets, effort = self._channel.broker, self.targets, self._effort
        by_arguments, by_properties = targets.by_arguments.known, targets.by_properties.known
        runs: dict[Queue, list[Message]] = {}
        first_number = number = self._first_number = broker.next_message_number
        stop = number + effort.stop - effort.total      # a message is a step
        is_timed = False
        resolved: bytes | None = None
        exchange: ExchangeCounts | None = None      # of the last publishes
        first_of_exchange = number
        remaining = iter(groups)
        rest: list[PublishGroup] = []
        try:
            for arguments, properties, body_size, contents in remaining:
                if arguments is not resolved:
                    found = by_arguments.get(arguments)
                    if found is None:
                        found = targets.resolve(arguments)
                        stop = first_number + effort.stop - effort.total - RUN_STEPS * len(runs)
                    route, only_queue, target, counts = found
                    if counts is not exchange:
                        if exchange is not None:
                            exchange.published += number - first_of_exchange
                        exchange, first_of_exchange = counts, number
                    resolved = arguments
                read = by_properties.get(properties)
                if read is None:
                    read = targets.read(properties)
                    stop = first_number + effort.stop - effort.total - RUN_STEPS * len(runs)
                facts, is_special = read
                if facts.expiration_ms is not None:
                    is_timed = True
                count = len(contents)
                if only_queue is not None and not is_special and body_size <= LARGE_BODY:
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
                number += count     # not before: a refused publish is not confirmed
                if number >= stop:
                    break
        except WalkUnfinished:
            rest = [(arguments, properties, body_size, contents)]
        finally:
            broker.next_message_number = number
            if exchange is not None:
                exchange.published += number - first_of_exchange
                self._counts.published += number - first_number
            effort.total += number - first_number + RUN_STEPS * len(runs)
            self._place(runs, number - first_number, first_number, is_timed)
            if has_body:        # it has been written, and is used now or never
                self._end_body()
        return [*rest, *remaining]

    def _spread(
        self, runs: dict[Queue, list[Message]], target: Target, facts: MessageProperties, messages: list[Message],
        is_special: bool, room: int,
    ) -> int:
        """Add messages to the runs of the queues they reach, however many, or return them to the client.

        Return how many of them have been taken: at least one, and no more than `room` steps allow; or none, if a
        hand-over of the first of them has begun, or the body of the first is being written to the store. Raises
        WalkUnfinished if their queues have not been found yet.
        """
        queues = target.queues
        content = messages[0].content
        if is_special or target.by_headers or target.replies_to is not None:
            self._check(facts)
            queues = self.targets.queues_by_content(target, facts)
            exchanges = self.targets.passed if self._taps.is_on else None
        else:
            exchanges = target.exchanges
        width = max(1, len(queues))
        is_wide = width >= WIDE and not self._uncommitted.is_active
        if is_wide:
            del messages[MOST_MESSAGES:]
        elif len(messages) * width > room:
            del messages[max(1, room // width) :]
        if facts.reply_to == REPLY_TO or facts.has_bcc:
            self._rewrite(facts, messages, room)
        if (messages[0].body_size > LARGE_BODY and target.replies_to is None and not self._uncommitted.is_active
                and not self._have_body(messages, queues, content)):
            return 0
        if exchanges is not None:
            self._show(target, exchanges, facts, queues, messages)
        if target.replies_to is not None:
            for message in messages:
                target.replies_to.deliver_reply(message)
            if not self._uncommitted.is_active:     # else they are not counted as published either
                self._counts.add_replies(target.exchange.counts, len(messages))
        elif self._uncommitted.is_active:
            self._hold(target, facts, queues, messages)
            return len(messages)
        elif not queues and target.mandatory:
            self._return(messages, is_first=not runs)
        elif is_wide:
            is_timed = facts.expiration_ms is not None
            self._hand_over = HandOver(self._channel.broker, messages, queues, is_timed=is_timed)
            self._channel.broker.worklist.add(self._hand_over)
            self._counts.add_published(target.exchange.counts, len(messages), width, mandatory=False)
            return 0
        elif len(queues) > 1:
            note_holders(queues, messages)
        copies = len(messages) * (len(queues) - 1)      # beyond the first
        if copies > 0:
            target.exchange.counts.spread += copies
            self._counts.spread += copies
        elif copies and target.replies_to is None:
            self._counts.add_unroutable(target.exchange.counts, len(messages), mandatory=target.mandatory)
        for queue in queues:
            runs.setdefault(queue, []).extend(messages)
        # One step for each queue, of which `on_publishes` counts one; also for what is returned to a client.
        self._effort.total += abs(copies)
        return len(messages)

    def _show(
        self, target: Target, exchanges: Collection[Exchange], facts: MessageProperties, queues: list[Queue],
        messages: list[Message],
    ) -> None:
        """Show messages with equal properties to those who watch; see broker/taps.py."""
        channel = self._channel
        keys = (target.route.routing_key, *facts.extra_keys)
        # As on RabbitMQ: the default exchange routes to a name even if there is no such queue.
        names = [queue.name for queue in queues] if target.exchange.name else [
            key for key in sorted({*keys}) if not key.startswith(REPLY_TO)]
        self._taps.published(
            channel.client, target.exchange.name, exchanges, keys, queues, names, messages)

    def _have_body(self, messages: list[Message], queues: list[Queue], content: bytes) -> bool:
        """Return whether there is no need to wait for the body of the first message, published with this content.

        If there is, it is written from now on, or, if this call has a body already, from the next call on. Others that
        would have to wait are removed from the list.
        """
        message = messages[0]
        if not any([queue.records.keeps(message) for queue in queues]):
            return True
        del messages[1:]
        if self._body is None:
            self._body, self._body_content = self._channel.broker.journal.write_body(message), content
            return self._body is None
        if content is not self._body_content:
            return False
        messages[0] = message.with_stored_body(self._body.stored)
        return True

    def _end_body(self) -> None:
        if self._body is not None:
            self._body.end()
        self._body, self._body_content = None, b""

    def _count_handed_over(self, hand_over: HandOver, groups: list[PublishGroup]) -> list[PublishGroup]:
        """Count messages that are in all of their queues now as published, and return the other publishes.

        Raises MessageNotLoaded while they are not.
        """
        if not hand_over.is_done:
            raise MessageNotLoaded(hand_over.call)
        self._hand_over = None
        confirms = self.confirms
        if confirms.is_on:
            confirms.refuse([confirms.sequence + 1 + place for place in hand_over.refused])
            if hand_over.has_renumbered:
                confirms.published(hand_over.count, hand_over.batch)
            else:
                confirms.published(hand_over.count, hand_over.batch, hand_over.first_number, hand_over.last_number)
        (arguments, properties, body_size, contents), *others = groups
        contents = contents[hand_over.count :]
        return [(arguments, properties, body_size, contents), *others] if contents else others

    def _hold(self, target: Target, facts: MessageProperties, queues: list[Queue], messages: list[Message]) -> None:
        """Keep messages in the transaction, with the names of their queues, which are looked up at the commit.

        The default exchange routes to a name even if there is no such queue yet.
        """
        names = [queue.name for queue in queues]
        self._effort.total += len(queues) // NAMES_A_STEP
        if not target.exchange.name:
            keys = dict.fromkeys((target.route.routing_key, *facts.extra_keys))
            names = [key for key in keys if not key.startswith(REPLY_TO)]
        self._uncommitted.hold_publishes(Held(messages, tuple(names), target.mandatory, target.exchange.counts))

    def _place(self, runs: dict[Queue, list[Message]], count: int, first_number: int, is_timed: bool) -> None:
        """Publish the runs to their queues and record their confirms."""
        self._channel.owner.published_runs += 1
        confirms, batch = self.confirms, 0
        for queue, run in runs.items():
            outcome = queue.publish(run, is_timed=is_timed)
            batch = max(batch, outcome.batch)
            if outcome.refused and confirms.is_on:
                ahead = confirms.sequence + 1 - first_number
                confirms.refuse([message.number + ahead for message in outcome.refused])
        if confirms.is_on and count:
            confirms.published(count, batch, first_number, first_number + count - 1)

    def _check(self, facts: MessageProperties) -> None:
        """Refuse what only the properties show. RabbitMQ's order of checks."""
        user = self._channel.user
        if facts.reply_to == REPLY_TO:
            self._replies.check_consumer()
        if facts.user_id is not None and facts.user_id != user.name:
            if "impersonator" not in user.definition.tags:
                raise ChannelException(
                    ReplyCode.PRECONDITION_FAILED, f"user_id property set to '{facts.user_id}' "
                    f"but authenticated user was '{user.name}'")
        if facts.flaw:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, facts.flaw)

    def _rewrite(self, facts: MessageProperties, messages: list[Message], room: int) -> None:
        """Replace `amq.rabbitmq.reply-to` by the address of the channel, and remove the BCC header.

        The messages have the same properties. Those beyond `room` steps are removed from the list.
        """
        properties = messages[0].properties
        if facts.reply_to == REPLY_TO:
            properties = with_reply_to(properties, self._replies.address)
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
        self._effort.total += steps

    def _return(self, messages: list[Message], *, is_first: bool) -> None:
        """Return mandatory messages without a route to the client, each before its confirm. Spec: basic.return.

        As on RabbitMQ, earlier publishes are confirmed first, if none of them waits. `is_first` says that publishes of
        the run that are not counted yet, if any, reached no queue.
        """
        confirms = self.confirms
        if not (confirms.is_on and is_first) or confirms.awaits_commit:
            send_returns(self._channel, messages)
            return
        for message in messages:
            confirms.write_up_to(confirms.sequence + message.number - self._first_number)
            send_returns(self._channel, [message])

    def on_confirm_select(self, method: Confirm.Select) -> Confirm.SelectOk | None:
        """Turn confirms on. Spec: confirm.select, RabbitMQ's extension. A second one changes nothing."""
        if self._uncommitted.is_active:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, "cannot switch from tx to confirm mode")
        self.confirms.is_on = True
        return None if method.nowait else Confirm.SelectOk()

    def end(self) -> None:
        """End: confirm what can be confirmed; later confirms are never sent."""
        self.confirms.end()
        self.targets.clear()
        self._hand_over = None
        self._end_body()
        self._refusal = None
