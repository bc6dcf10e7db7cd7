"""The end of a connection: every way in which it closes, and the release of what it has in the broker.

Errors of the client, internal errors, failures of the store, commands of operators, the client's own close and a lost
socket all come here. `session/phases.py` says which of them may follow which.

Always true between calls: once the connection has ended, nothing is delivered to it, and nothing in the broker refers
to it when the departures that this began are done.

Spec: §2.2.4, §4.8; connection.close.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import chain

from amqpd.broker.departure import Departure
from amqpd.broker.queue.pager import MessageNotLoaded
from amqpd.broker.step_job import Act
from amqpd.broker.worklist import nothing
from amqpd.errors import ConnectionException, ReplyCode
from amqpd.session.channel import Channel
from amqpd.session.deferred_input import DeferredInput, Wait
from amqpd.session.handshake import Handshake
from amqpd.session.phases import Event, Phase, Phases
from amqpd.session.state import ConnectionState
from amqpd.wire.methods import pack_close
from amqpd.wire.reader import Reader

LOST_STEPS = 150        # the cost of removing a lost client, with its log lines
STOP_STEPS, RELEASE_STEPS = 5, 15   # the cost of stopping a channel, and of freeing it


class Closing:
    """The closing of one connection. `is_unreadable` says that framing is lost: input can no longer be parsed.

    `go_on` is called after a close, as its answer may be in input that was read and deferred.
    """

    def __init__(
        self, state: ConnectionState, phases: Phases, handshake: Handshake, channels: dict[int, Channel],
        deferred: DeferredInput, reader: Reader,
    ) -> None:
        self.is_unreadable = False
        self.go_on: Callable[[], None] = nothing
        self._state = state
        self._phases = phases
        self._handshake = handshake
        self._channels = channels
        self._deferred = deferred
        self._reader = reader

    # Because of an error

    def close(self, error: ConnectionException) -> None:
        """Close the connection because of an error, and wait a while for close-ok. Spec: §2.2.4."""
        if not self._phases.allows(Event.CLOSE):
            return
        state = self._state
        state.log_end(str(error))
        self.end()
        class_id, method_id = error.method or (0, 0)
        state.outbox.write(pack_close(0, error.code, error.reply_text, class_id, method_id))
        self._phases.await_close_ok()
        if self._deferred.reason in (Wait.ALARM, Wait.OUTPUT):
            self.go_on()            # only for the answer to our close: publishes are no longer carried out

    def close_unreadable(self, error: ConnectionException) -> None:
        """Close because the bytes cannot be parsed; nothing after them can be understood."""
        self.is_unreadable = True
        if self._phases.allows(Event.CLOSE):
            self.close(error)
            self._phases.linger()
        elif self._phases.current is not Phase.CLOSING:
            self.finish()

    def fail_internally(self) -> None:
        """Close with 541 because of the current exception: it is logged, and other clients are not affected."""
        self._state.log.exception("%s: internal error", self._state.name)
        self._state.has_failed = True
        self.close_failed()

    def close_failed(self) -> None:
        """Close with 541 INTERNAL_ERROR, after an internal error."""
        self.close_unreadable(ConnectionException(ReplyCode.INTERNAL_ERROR, method=(0, 0)))

    def fail(self, text: str) -> None:
        """Close with 541 INTERNAL_ERROR: output that waits for a batch is never sent."""
        self._state.outbox.forget_held()
        self._close_or_finish(ReplyCode.INTERNAL_ERROR, text)

    # Closed by the broker

    def force_close(self, reason: str) -> None:
        """Close with 320 CONNECTION_FORCED: by an operator, for a deleted user, or at the end of the broker."""
        self._close_or_finish(ReplyCode.CONNECTION_FORCED, reason)

    def _close_or_finish(self, code: ReplyCode, text: str) -> None:
        if self._phases.current is Phase.OPEN:
            self.close(ConnectionException(code, text, method=(0, 0)))
        else:
            self.finish()

    def close_forced(self) -> None:
        """Close now, if it has been marked to be closed by force and is still open."""
        reason, self._state.forced = self._state.forced, ""
        if reason and not self._state.has_ended:
            self.force_close(reason)

    # Closed by the client, or lost

    def end_before_answer(self, code: int, text: str) -> None:
        """End before the client's close is answered; `code` and `text` are its reason.

        Raises MessageNotLoaded until everything is released.
        """
        why = f": {code} {text}".rstrip() if code or text else ""
        self._state.log_end(f"client closed it{why}", logging.INFO)
        self.end()
        for departure in self._state.departures:
            if departure.has_work:
                raise MessageNotLoaded(departure.call)

    def finish(self) -> None:
        """Ignore further input; the socket is closed after the last output."""
        self.end()
        self._handshake.finish()

    def lost(self) -> None:
        """End, as the socket is lost."""
        state, phases = self._state, self._phases
        state.broker.effort.total += LOST_STEPS
        if phases.current is Phase.AWAIT_HEADER:
            state.log.debug("%s: client closed the TCP connection before it said anything", state.name)
        elif phases.current not in (Phase.CLOSED, Phase.CLOSING):
            because = f" ({state.socket_error})" if state.socket_error else ""
            state.log_end(f"client unexpectedly closed TCP connection{because}")
        self.end()
        phases.begin(Event.END)
        self.go_on = nothing

    def end(self) -> None:
        """Release everything in the broker: channels first, then exclusive queues."""
        state = self._state
        if state.has_ended:
            return
        state.has_ended = True      # from now on nothing is delivered, even if very many channels have to be stopped
        self._handshake.login = None            # the result of the login is no longer needed
        for confirming in state.confirms.due:
            self._let_go(confirming.write_confirms)
        state.confirms.clear()
        ended = [*self._channels.values()]
        self._channels.clear()
        state.memory.clear()
        self._reader.skip_contents()
        if state.vhost is not None:
            acts = chain(_parting(ended), state.vhost.topology.leave(state), _releases(ended))
            state.log_end("the broker closed it", logging.INFO)
            state.departs(Departure(acts, state.broker.worklist))
            state.tell("connection.closed")
            del state.broker.connections[state.number]
            state.count_connection(-1)

    def _let_go(self, act: Callable[[], None]) -> None:
        """Release one thing; an error does not keep the others from being released."""
        try:
            act()
        except Exception:
            self._state.log.exception("%s: internal error at the end of the connection", self._state.name)


def _parting(channels: list[Channel]) -> Iterator[Act]:
    """Yield the acts that end these channels, unless they are ending already."""
    going = [channel for channel in channels if not channel.is_closing]
    give_backs: list[Iterator[Act]] = []

    def leaves() -> Iterator[Iterator[Act]]:
        for channel in going:
            leave, give_back = channel.parting()
            give_backs.append(give_back)
            yield leave

    # All consumers are removed first: messages requeued by one channel are not for another.
    return chain(
        ((STOP_STEPS, channel.stop) for channel in going),
        chain.from_iterable(leaves()), chain.from_iterable(give_backs))


def _releases(channels: list[Channel]) -> Iterator[Act]:
    while channels:
        yield RELEASE_STEPS, channels.pop().release
