"""Play sessions to a broker without sockets, beside a canary, and check what must always be true.

The checks: no error is logged, as every bug would be; each octet that the broker sends is part of a valid frame in
sequence; the invariants between calls hold; the canary's messages are confirmed and delivered in order; and when the
clients are gone and all they declared is deleted, the broker has as many objects as before.
"""

from __future__ import annotations

import gc
import logging
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace
from pamqp.commands import Basic, Confirm, Queue

from amqpd.broker.definitions import PermissionDefinition, PolicyDefinition, VhostDefinition
from amqpd.broker.policy import InvalidPolicy
from amqpd.broker.scram import make_verifier
from amqpd.session.connection import Session
from amqpd.session.sasl import MECHANISMS
from amqpd.session.sasl_steps import LoginSettings
from amqpd.tls_facts import PeerCertificate
from tests.fuzz.grammar import Session as Played
from tests.fuzz.grammar import Step
from tests.fuzz.talker import Talker
from tests.support.talk import SETTINGS, Stage, Talk

HEAD = struct.Struct(">BHI")
CONTENT_METHODS = {(60, 50), (60, 60), (60, 71)}
CANARY = b"sings"
VERIFIER = str(make_verifier("secret guest", iterations=4_096))
CERTIFICATE = PeerCertificate(
    subject="CN=guest", issuer="CN=ca", common_name="guest", not_before=0, not_after=1 << 40)
SETTINGS_OF_ALL = replace(SETTINGS, login=LoginSettings(
    mechanisms=tuple(MECHANISMS), anonymous_user="guest", certificate_name="common_name"))


class Fault(AssertionError):
    """The broker did what it must not."""


class Deaf(Talk):
    """A client that checks frames only: their sizes, their ends, and complete contents."""

    def __init__(self, stage: Stage, session: Session, talker: Talker) -> None:
        super().__init__(stage, session, "fuzz")
        self._talker = talker
        self._wanted: dict[int, int] = {}       # by channel: octets of a body that are to come; -1: its header
        self.frames = 0

    def take(self, pieces: Sequence[bytes]) -> None:
        """Check what the session sent."""
        octets = b"".join(pieces)
        at = 0
        while at < len(octets):
            if octets[at:at + 4] == b"AMQP":
                at += 8
                continue
            kind, channel, size = HEAD.unpack_from(octets, at)
            self._expect(size + 8 <= max(self.session.state.frame_max, 4_096), f"a frame of {size + 8} octets")
            self._expect(octets[at + 7 + size] == 0xCE, "a frame that does not end")
            self._look_at(kind, channel, octets[at + 7:at + 7 + size])
            at += size + 8
            self.frames += 1

    def _look_at(self, kind: int, channel: int, payload: bytes) -> None:
        wanted = self._wanted.get(channel, 0)
        if kind == 1:
            self._expect(wanted == 0, "a method inside a content")
            ids = struct.unpack_from(">HH", payload)
            if ids in CONTENT_METHODS:
                self._wanted[channel] = -1
            self._talker.hear(channel, ids, payload[4:])
        elif kind == 2:
            self._expect(wanted == -1, "a content header that nobody announced")
            self._wanted[channel] = struct.unpack_from(">Q", payload, 4)[0]
        elif kind == 3:
            self._expect(0 < len(payload) <= wanted, "more of a body than was announced")
            self._wanted[channel] = wanted - len(payload)
        else:
            self._expect((kind, channel, payload) == (8, 0, b""), f"a frame of type {kind}")

    def _expect(self, is_right: bool, otherwise: str) -> None:
        if not is_right:
            raise Fault(f"the broker sent {otherwise}")


class FuzzStage(Stage):
    """A broker with a canary in a vhost of its own, to which sessions are played one after the other."""

    def __init__(self) -> None:
        super().__init__(settings=SETTINGS_OF_ALL)
        guest = self.broker.users["guest"]
        guest.definition = replace(guest.definition, scram_sha256=VERIFIER)
        self.broker.add_vhost(VhostDefinition("aviary"))
        self.broker.users.set_permissions(PermissionDefinition("bob", "aviary", ".*", ".*", ".*"))
        self.errors: list[str] = []
        self._fuzzed: dict[int, Deaf] = {}
        self._sung = self._connected = 0
        self.canary = self.client("bob", vhost="aviary").open_channel()
        self.canary.client(Queue.Declare(queue="canary", durable=True)).hear(Queue.DeclareOk)
        self.canary.client(Confirm.Select()).hear(Confirm.SelectOk)
        self.canary.client(Basic.Consume(queue="canary", consumer_tag="c")).hear(Basic.ConsumeOk)

    def play(self, seed: int) -> None:
        """Play the session of a seed. Raises Fault, or any exception of the broker."""
        with errors_of("amqpd") as errors:
            try:
                played = Played(seed, "guest", "secret guest", "/")
                for number, step in enumerate(played.steps()):
                    self._carry_out(step, played.talkers[step.client])
                    super().check()
                    if not self.alarm and not number % 3:
                        self._sing()
                self._clear()
                self._sing()
            except Fault as fault:
                raise Fault(f"{fault}; logged: {errors}") from fault
        if errors:
            raise Fault(f"logged: {errors}")

    def check(self) -> None:
        """Nothing yet: what must hold is looked at once a step."""

    def _carry_out(self, step: Step, talker: Talker) -> None:
        deaf = self._fuzzed.get(step.client)
        if step.act == "connect":
            self._fuzzed[step.client] = self._connect(talker)
        elif step.act == "time":
            self.pass_time(step.value)
        elif step.act == "policy":
            self._set_policy(*step.value)
        elif step.act == "alarm":
            self.set_alarm(step.value)
        elif deaf is None or deaf.is_dropped:
            return
        elif step.act == "say":
            self._say(deaf, step.octets)
        elif step.act == "deaf":
            deaf.stop_reading()
        elif step.act == "hear":
            deaf.read_on()
        elif step.act == "cut":
            self._cut(deaf)

    def _connect(self, talker: Talker) -> Deaf:
        self._connected += 1
        session = self.begin_session(40_000 + self._connected % 20_000, 1_000 + self._connected)
        session.state.peer_certificate = CERTIFICATE if self._connected % 8 else None
        deaf = self.talks[session] = Deaf(self, session, talker)
        return deaf

    def _say(self, deaf: Deaf, octets: bytes) -> None:
        if not deaf.session.is_finished:
            deaf.octets(octets)

    def _cut(self, deaf: Deaf) -> None:
        deaf.is_dropped = True
        self.lose(deaf.session)
        self.end_turn()
        self.talks.pop(deaf.session, None)

    def _set_policy(self, pattern: str, definition: dict[str, Any]) -> None:
        try:
            self.broker.vhosts["/"].followers.set_policy(PolicyDefinition("/", "fuzz", pattern, definition))
        except InvalidPolicy:
            return
        self.end_turn()

    def _sing(self) -> None:
        """The canary's message is confirmed and delivered, and nothing else is said to it."""
        self._sung += 1
        self.canary.publish("canary", CANARY, persistent=True)
        heard = self.canary.hear_all()
        if sorted(one.said.name for one in heard) != ["Basic.Ack", "Basic.Deliver"]:
            raise Fault(f"the canary hears {[one.said.name for one in heard]}")
        self.canary.client(Basic.Ack(self._sung))

    def _clear(self) -> None:
        """All clients go, and all that was made is deleted."""
        for deaf in self._fuzzed.values():
            if not deaf.is_dropped:
                self._cut(deaf)
        self._fuzzed.clear()
        for session in [session for session, talk in self.talks.items() if talk.is_dropped]:
            del self.talks[session]
        vhost = self.broker.vhosts["/"]
        if list(vhost.policies.listed(is_operator=False)):
            vhost.followers.clear_policy("fuzz")
        user = self.broker.users["guest"]
        for name in list(vhost.queues):
            if name in vhost.queues:
                vhost.delete_queue(user, name, None)
                self.end_turn()
        for name in [name for name in vhost.exchanges if name and not name.startswith("amq.")]:
            if name in vhost.exchanges:
                vhost.delete_exchange(user, name)
        for binding in list(vhost.bindings()):      # between exchanges that cannot be deleted
            vhost.unbind(user, binding, None)
        self.end_turn()
        self.lines.clear()
        left = [number for number, kept in self.journal.now.messages.items() if kept]
        if left or vhost.queues:
            raise Fault(f"messages of queues {left} and queues {list(vhost.queues)} are left")


def objects_of_the_broker() -> Counter[str]:
    """How many objects of amqpd's own classes there are, by class."""
    gc.collect()
    return Counter(f"{type(one).__module__}.{type(one).__name__}" for one in gc.get_objects()
                   if type(one).__module__.startswith("amqpd."))


def grown(before: Counter[str], after: Counter[str], allowance: int) -> list[str]:
    """The classes of which there are clearly more than before."""
    return [f"{name}: {before[name]} to {count}" for name, count in after.items() if count > before[name] + allowance]


@contextmanager
def errors_of(name: str) -> Iterator[list[str]]:
    """What is logged as an error meanwhile. Nobody else keeps the records, and with them what they were about."""
    errors: list[str] = []
    logger = logging.getLogger(name)

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(self.format(record))

    ear = Ear(logging.ERROR)
    logger.addHandler(ear)
    logger.propagate = False
    try:
        yield errors
    finally:
        logger.removeHandler(ear)
        logger.propagate = True


def play_all(seeds: Iterable[int], a_stage: int = 50) -> dict[int, str]:
    """Play sessions, `a_stage` of them to one broker; the faults by seed."""
    faults: dict[int, str] = {}
    stage, count = FuzzStage(), 0
    before = objects_of_the_broker()
    for seed in seeds:
        try:
            stage.play(seed)
        except Exception as error:      # whatever comes out is a finding
            faults[seed] = f"{type(error).__name__}: {error}"
            stage, count = FuzzStage(), 0
            before = objects_of_the_broker()
            continue
        count += 1
        if count == a_stage:
            stage.journal.changes.clear()       # what a test could ask for; nobody asks here
            stage.pass_time(5)                  # the clock keeps whom it has to wake until it has
            more = grown(before, objects_of_the_broker(), a_stage // 2)
            if more:
                faults[seed] = f"after {a_stage} sessions there are more of {', '.join(more)}"
            stage, count = FuzzStage(), 0
            before = objects_of_the_broker()
    return faults
