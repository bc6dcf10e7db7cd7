"""Publishes that take longer than a slice: cut between groups, within a group, and within a walk."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from pamqp.commands import Basic, Channel, Confirm, Exchange, Queue, Tx

from amqpd.broker.broker import OPERATOR
from amqpd.broker.definitions import BindingDefinition
from amqpd.broker.effort import SLICE
from amqpd.session.connection import Session
from amqpd.session.publishing import RUN_STEPS
from amqpd.session.targets import FACTS_BYTES, TARGET_BYTES
from tests.support.talk import Heard, Stage, Talk

MANY = 40           # queues
BODIES = [b"%d" % n for n in range(1_000)]


class CountingStage(Stage):
    """A stage that notes what the slices of deferred input cost, and may do something between two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.slices: list[int] = []
        self.between: list[Talk] = []       # clients that delete queue `q0` before the next slice
        self._total = 0
        self._defer = self.loop_turn.input_deferred
        self.loop_turn.input_deferred = self.input_deferred     # type: ignore[method-assign]

    def input_deferred(self, session: Session) -> None:
        """Note what the slice that ends has cost."""
        self._defer(session)
        self.slices.append(self.broker.effort.total - self._total)
        self._total = self.broker.effort.total
        for talk in self.between:
            talk.session.receive(talk._marshal(Queue.Delete(queue="q0"), None, None, None), self.now_ms)
        self.between.clear()
        self._total = self.broker.effort.total

    def measured(self) -> None:
        """Begin to measure."""
        self.slices.clear()
        self._total = self.broker.effort.total


@pytest.fixture
def stage() -> CountingStage:
    return CountingStage()


@pytest.fixture
def talk(stage: CountingStage) -> Talk:
    """A client with a fanout exchange `wide` to many queues."""
    talk = stage.client().open_channel()
    talk.client(Exchange.Declare(exchange="wide", exchange_type="fanout")).broker(Exchange.DeclareOk())
    for n in range(MANY):
        declare(talk, f"q{n}", "wide")
    return talk


def declare(talk: Talk, queue: str, exchange: str, key: str = "") -> None:
    talk.client(Queue.Declare(queue=queue)).hear(Queue.DeclareOk)
    talk.client(Queue.Bind(queue=queue, exchange=exchange, routing_key=key)).broker(Queue.BindOk())


def chain(talk: Talk, length: int, kind: str = "topic") -> None:
    """Exchanges `x0` to the last, each bound to the next one by `#`, and by another key so that keys are read."""
    for n in range(length):
        talk.client(Exchange.Declare(exchange=f"x{n}", exchange_type=kind)).broker(Exchange.DeclareOk())
    for n in range(length - 1):
        for key in ("#", "another"):
            talk.client(Exchange.Bind(destination=f"x{n + 1}", source=f"x{n}", routing_key=key))
            talk.broker(Exchange.BindOk())


def bodies(talk: Talk, queue: str) -> list[bytes]:
    found = talk.stage.broker.vhosts["/"].queues[queue].ready
    return [message.body for message in found]      # type: ignore[union-attr]  # all of them are in memory


def confirmed(heard: Iterable[Heard]) -> list[int]:
    """The last numbers that acks name, in their order."""
    return [one.said.delivery_tag for one in heard if isinstance(one.said, Basic.Ack)]


def test_a_run_to_many_queues_is_cut_within_the_run_and_keeps_its_order(stage: CountingStage, talk: Talk) -> None:
    talk.client(Confirm.Select()).broker(Confirm.SelectOk())
    stage.measured()
    talk.publish("", *BODIES, exchange="wide")
    cuts = len(BODIES) * MANY // SLICE
    assert cuts - 1 <= len(stage.slices) <= cuts + 1
    assert max(stage.slices) < SLICE + (2 + RUN_STEPS) * MANY
    assert confirmed(talk.hear_all())[-1] == len(BODIES)
    assert all(bodies(talk, f"q{n}") == BODIES for n in range(MANY))


def test_each_publish_to_more_queues_than_a_slice_is_taken_by_itself(stage: CountingStage, talk: Talk) -> None:
    stage.broker.effort.total += SLICE
    publishing = talk.session.channels[1].publishing
    arguments = b"\0\0\4wide\0\0"
    group = (arguments, b"\0\0", 1, [b"\2\0\1\0\0\0\x0e\0\x3c" + bytes(10) + b"\0\0\xce"] * 5)
    assert [len(contents) for *_, contents in publishing.on_publishes([group])] == [4]
    assert len(talk.stage.broker.vhosts["/"].queues["q0"].ready) == 1


def test_returns_go_out_before_their_confirm_where_the_run_was_cut(stage: CountingStage, talk: Talk) -> None:
    talk.client(Confirm.Select()).broker(Confirm.SelectOk())
    said = b""
    for n in range(800):
        said += talk._marshal(Basic.Publish(exchange="wide"), 1, b"%d" % n, None)
        said += talk._marshal(Basic.Publish(routing_key=f"none {n}", mandatory=True), 1, b"r%d" % n, None)
    stage.measured()
    heard = talk.octets(said).hear_all()
    assert len(stage.slices) > 2
    returned = {}
    last = 0
    for one in heard:
        if isinstance(one.said, Basic.Return):
            returned[one.body] = last
        else:
            assert one.said.delivery_tag > last
            last = one.said.delivery_tag
    assert last == 1_600 and list(returned) == [b"r%d" % n for n in range(800)]
    assert all(before < 2 * n + 2 for n, before in enumerate(returned.values()))
    assert bodies(talk, "q3") == [b"%d" % n for n in range(800)]


def test_the_rest_of_a_run_is_dropped_where_the_channel_is_closed(stage: CountingStage, talk: Talk) -> None:
    said = b"".join([talk._marshal(Basic.Publish(exchange="wide"), 1, body, None) for body in BODIES])
    said += talk._marshal(Basic.Publish(exchange="none"), 1, b"x", None)
    said += talk._marshal(Basic.Publish(exchange="wide"), 1, b"too late", None)
    talk.octets(said).closed(404, "NOT_FOUND - no exchange 'none' in vhost '/'", 60, 40)
    assert bodies(talk, "q0") == BODIES


def test_a_cut_run_in_a_transaction_is_committed_as_a_whole(stage: CountingStage, talk: Talk) -> None:
    talk.client(Tx.Select()).broker(Tx.SelectOk())
    stage.measured()
    talk.publish("", *BODIES, exchange="wide")
    assert len(stage.slices) > 2 and bodies(talk, "q0") == []
    talk.client(Tx.Commit()).broker(Tx.CommitOk())
    assert bodies(talk, "q0") == bodies(talk, "q39") == BODIES


KEYS = [f"key {n}" for n in range(300)]


@pytest.fixture
def long_way(talk: Talk) -> Talk:
    """A client whose way to queues is 100 exchanges long; at its beginning is `q0`, at its end `end`."""
    chain(talk, 100)
    talk.client(Queue.Bind(queue="q0", exchange="x0", routing_key="#")).broker(Queue.BindOk())
    declare(talk, "end", "x99", "key 299")
    return talk


def test_one_publish_that_takes_many_slices_to_find_its_queues(stage: CountingStage, long_way: Talk) -> None:
    talk = long_way.client(Confirm.Select()).broker(Confirm.SelectOk())
    stage.measured()
    carbon_copies = Basic.Properties(headers={"CC": KEYS})
    talk.publish("k", b"first", b"second", exchange="x0", properties=carbon_copies).publish("end", b"third")
    assert len(stage.slices) > 4 and max(stage.slices) < SLICE + 2 * len(KEYS)
    assert confirmed(talk.hear_all())[-1] == 3
    assert bodies(talk, "end") == [b"first", b"second", b"third"] and bodies(talk, "q0") == [b"first", b"second"]


def test_a_queue_that_goes_while_a_publish_looks_for_its_queues_gets_nothing(
    stage: CountingStage, long_way: Talk
) -> None:
    other = stage.client().open_channel()
    stage.between.append(other)
    talk = long_way.publish(
        "k", b"first", exchange="x0", mandatory=True, properties=Basic.Properties(headers={"CC": KEYS[:200]}))
    other.broker(Queue.DeleteOk(0))
    talk.broker(Basic.Return(312, "NO_ROUTE", "x0", "k"), content=b"first", properties=Basic.Properties(
        headers={"CC": KEYS[:200]}))
    assert not stage.between


def test_a_channel_that_closes_while_a_publish_looks_for_its_queues_ends_after_it(
    stage: CountingStage, long_way: Talk
) -> None:
    talk = long_way
    stage.measured()
    said = talk._marshal(Basic.Publish(exchange="x0"), 1, b"body", Basic.Properties(headers={"CC": KEYS}))
    talk.octets(said + talk._marshal(Channel.Close(200, "bye", 0, 0), 1, None, None)).broker(Channel.CloseOk())
    assert len(stage.slices) > 4 and bodies(talk, "end") == [b"body"]


@pytest.mark.parametrize("last", ["end", "nowhere"])
def test_publishes_that_each_look_for_their_queue_share_slices(
    stage: CountingStage, long_way: Talk, last: str
) -> None:
    talk = long_way.client(Confirm.Select()).broker(Confirm.SelectOk())
    end = talk.stage.broker.vhosts["/"].queues["end"]
    for key in KEYS if last == "end" else ():
        talk.client(Queue.Bind(queue="end", exchange="x99", routing_key=key)).broker(Queue.BindOk())
    talk.client(Queue.Unbind(queue="q0", exchange="x0", routing_key="#")).broker(Queue.UnbindOk())
    stage.measured()
    talk.octets(b"".join([talk._marshal(Basic.Publish(exchange="x0", routing_key=key), 1, b"x", None) for key in KEYS]))
    assert len(stage.slices) > 3 and max(stage.slices) < SLICE + 500
    assert confirmed(talk.hear_all())[-1] == len(KEYS)
    assert len(end.ready) == (len(KEYS) if last == "end" else 1)


def test_properties_that_are_long_to_read_count(stage: CountingStage, talk: Talk) -> None:
    before = stage.broker.effort.total
    for n in range(10):
        talk.publish("q1", b"x", properties=Basic.Properties(headers={"n": n, "long": "x" * 100_000}))
    assert stage.broker.effort.total - before > 3 * SLICE


def test_one_key_that_matches_thousands_of_patterns_is_looked_for_in_slices(stage: CountingStage, talk: Talk) -> None:
    vhost = stage.broker.vhosts["/"]
    words = [f"{n:02}" for n in range(80)]
    for one in words:
        for other in words:
            vhost.bind(OPERATOR, BindingDefinition("/", "amq.topic", "queue", "q1", f"#.{one}.#.{other}", {}), OPERATOR)
    talk.client(Confirm.Select()).broker(Confirm.SelectOk())
    stage.measured()
    talk.publish(".".join(words), b"x", exchange="amq.topic")
    assert stage.slices and max(stage.slices) < SLICE + 2_500
    assert confirmed(talk.hear_all()) == [1] and bodies(talk, "q1") == [b"x"]


# How much a slice has

def said_at_once(talk: Talk, said: bytes) -> int:
    """Send this, and run one slice only; return its steps."""
    effort = talk.stage.broker.effort
    effort.begin_turn()
    before = effort.total
    talk.session.receive(said, talk.stage.now_ms)
    return effort.total - before


def test_a_slice_takes_as_many_publishes_as_it_has_steps(talk: Talk) -> None:
    said = b""
    for queue in ("q0", "q1"):
        talk.publish(queue, b"known").client(Queue.Purge(queue=queue)).hear_all()
        said += talk._marshal(Basic.Publish(routing_key=queue), 1, b"x", None)
    assert said_at_once(talk, said * SLICE) == SLICE
    assert len(bodies(talk, "q0")) + len(bodies(talk, "q1")) == SLICE - 2 * RUN_STEPS
    talk.stage.end_turn()


@pytest.mark.parametrize("new", ["key", "properties"])
def test_a_slice_ends_in_time_where_every_publish_has_something_new(talk: Talk, new: str) -> None:
    for n in range(MANY):
        talk.client(Queue.Bind(queue=f"q{n}", exchange="amq.topic", routing_key=f"q{n}.*")).broker(Queue.BindOk())
        talk.publish(f"q{n}.0", b"known", exchange="amq.topic")
    said = b""
    for n in range(20 * MANY):
        key = f"q{n % MANY}.{n if new == 'key' else 0}"
        properties = Basic.Properties(message_id=f"{n:9}") if new == "properties" else None
        said += talk._marshal(Basic.Publish(exchange="amq.topic", routing_key=key), 1, b"x", properties)
    assert SLICE <= said_at_once(talk, said) < SLICE + 3 * RUN_STEPS
    talk.stage.end_turn()
    assert len(bodies(talk, "q0")) == 21


def test_what_was_looked_for_when_a_channel_ended_is_forgotten(talk: Talk) -> None:
    targets = talk.session.channels[1].publishing.targets
    walk: Any = object()
    targets._cut_off["somewhere"] = walk
    talk.client(Channel.Close(200, "", 0, 0)).broker(Channel.CloseOk())
    assert not targets._cut_off


def test_what_is_remembered_of_a_target_counts_with_its_queues(talk: Talk) -> None:
    memory = talk.session.state.memory
    before = memory.used
    talk.publish("", b"x", exchange="wide")
    assert memory.used - before == (
        TARGET_BYTES + 4 * len(b"\0\0\4wide\0\0") + 8 * MANY + FACTS_BYTES + 2 * len(b"\0\0"))
