"""The end of a connection: every way in which it closes, and what it lets go of in the broker.

An error of the client, of ours or of the store, an operator's word, the client's own close and the loss of its socket
all come here. Which of them may follow which is in `session/phases.py`.

Always true between calls: once the connection has ended, nothing is delivered to it, and nothing in the broker knows
it when the departures that this began are over.

Spec: §2.2.4, §4.8; connection.close.
"""

from __future__ import annotations

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

LOST_STEPS = 150        # what it takes to forget a client that is gone, with its lines of the log
STOP_STEPS, RELEASE_STEPS = 5, 15   # what it takes to stop a channel that ends, and to free it


class Closing:
    """Closes one connection. `is_unreadable` says that framing is lost: what comes cannot be understood any more.

    `go_on` is called after a close that the client may have answered in what has been read of it and waits.
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
        state.log.warning("%s: closing: %s", state.name, error)
        self.end()
        class_id, method_id = error.method or (0, 0)
        state.outbox.write(pack_close(0, error.code, error.reply_text, class_id, method_id))
        self._phases.await_close_ok()
        if self._deferred.reason in (Wait.ALARM, Wait.OUTPUT):
            self.go_on()            # only for the answer to our close: what it published is not taken any more

    def close_unreadable(self, error: ConnectionException) -> None:
        """Close because the bytes themselves make no sense; nothing after them can be understood."""
        self.is_unreadable = True
        if self._phases.allows(Event.CLOSE):
            self.close(error)
            self._phases.linger()
        elif self._phases.current is not Phase.CLOSING:
            self.finish()

    def fail_internally(self) -> None:
        """Close with 541 since something of ours raised just now: it is logged, and no other client notices."""
        self._state.log.exception("%s: internal error", self._state.name)
        self._state.has_failed = True
        self.close_failed()

    def close_failed(self) -> None:
        """Close with 541 INTERNAL_ERROR: something of ours has failed."""
        self.close_unreadable(ConnectionException(ReplyCode.INTERNAL_ERROR, method=(0, 0)))

    def fail(self, text: str) -> None:
        """Close it with 541 INTERNAL_ERROR: what still waits for a batch is never said."""
        self._state.outbox.forget_held()
        self._close_or_finish(ReplyCode.INTERNAL_ERROR, text)

    # Because the broker wants it

    def force_close(self, reason: str) -> None:
        """Close it with 320 CONNECTION_FORCED: an operator, a deleted user, or the end of the broker."""
        self._close_or_finish(ReplyCode.CONNECTION_FORCED, reason)

    def _close_or_finish(self, code: ReplyCode, text: str) -> None:
        if self._phases.current is Phase.OPEN:
            self.close(ConnectionException(code, text, method=(0, 0)))
        else:
            self.finish()

    def close_forced(self) -> None:
        """Close it now, if it has not been closed since it was marked to be closed by force."""
        reason, self._state.forced = self._state.forced, ""
        if reason and not self._state.has_ended:
            self.force_close(reason)

    # Because the client wants it, or is gone

    def end_before_answer(self) -> None:
        """End before the client's close is answered. Raises MessageNotLoaded until nothing of it is left."""
        self.end()
        for departure in self._state.departures:
            if departure.has_work:
                raise MessageNotLoaded(departure.call)

    def finish(self) -> None:
        """Hear nothing more; the socket goes once the last bytes are out."""
        self.end()
        self._handshake.finish()

    def lost(self) -> None:
        """The socket is gone."""
        state, phases = self._state, self._phases
        state.broker.effort.total += LOST_STEPS
        if phases.current is Phase.AWAIT_HEADER:
            state.log.debug("%s: client closed the TCP connection before it said anything", state.name)
        elif phases.current not in (Phase.CLOSED, Phase.CLOSING):
            state.log.warning("%s: client unexpectedly closed the TCP connection", state.name)
        self.end()
        phases.begin(Event.END)
        self.go_on = nothing

    def end(self) -> None:
        """Let go of everything in the broker: channels first, then exclusive queues."""
        state = self._state
        if state.has_ended:
            return
        state.has_ended = True      # from now on nothing is delivered, though there may be very many channels to stop
        self._handshake.login = None            # nobody waits for an answer any more
        for confirming in state.confirms.due:
            self._let_go(confirming.write_confirms)
        state.confirms.clear()
        ended = [*self._channels.values()]
        self._channels.clear()
        state.memory.clear()
        self._reader.skip_contents()
        if state.vhost is not None:
            acts = chain(_parting(ended), state.vhost.topology.leave(state), _releases(ended))
            state.departs(Departure(acts, state.broker.worklist))
            del state.broker.connections[state.number]
            state.log.info("%s: closing AMQP connection", state.name)

    def _let_go(self, act: Callable[[], None]) -> None:
        """Let go of one thing: an error in it does not keep the others."""
        try:
            act()
        except Exception:
            self._state.log.exception("%s: internal error at the end of the connection", self._state.name)


def _parting(channels: list[Channel]) -> Iterator[Act]:
    """Return what makes these channels part with all that they hold, unless they do already."""
    going = [channel for channel in channels if not channel.is_closing]
    give_backs: list[Iterator[Act]] = []

    def leaves() -> Iterator[Iterator[Act]]:
        for channel in going:
            leave, give_back = channel.parting()
            give_backs.append(give_back)
            yield leave

    # All consumers leave first: what one channel gives back is not for another.
    return chain(
        ((STOP_STEPS, channel.stop) for channel in going),
        chain.from_iterable(leaves()), chain.from_iterable(give_backs))


def _releases(channels: list[Channel]) -> Iterator[Act]:
    while channels:
        yield RELEASE_STEPS, channels.pop().release
