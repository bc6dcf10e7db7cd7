"""Commits and rollbacks that take longer than a turn: they run in slices, and are still atomic."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pamqp import frame
from pamqp.commands import Basic, Confirm, Queue, Tx

from amqpd.broker.broker import OPERATOR
from amqpd.broker.definitions import BindingDefinition, QueueDefinition
from amqpd.broker.effort import SLICE, Effort
from amqpd.broker.hand_over import WIDE
from amqpd.broker.worklist import PIECE
from amqpd.session import transaction
from amqpd.session.unacked import ANSWERS_AT_ONCE
from amqpd.session.receiver import METHOD_STEPS
from tests.support.talk import Stage, Talk

LONG = 2_500        # acts
BODIES = [b"%d" % n for n in range(LONG)]


class SteppingStage(Stage):
    """A stage in which something can be done between two turns of a commit, and that notes what each turn costs."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[int] = []
        self.between: Iterator[Callable[[], object]] = iter(())

    def end_turn(self) -> None:
        """Go on, a turn at a time, while a command has something left; only then may the journal be committed."""
        while self.broker.journal.hold.is_on or self.broker.journal.deferral.is_open or self.has_deferred:
            before = self.broker.effort.total
            self.go_on_with_deferred()
            self.broker.effort.stop = 0         # a piece a turn
            self.broker.worklist.work()
            self.turns.append(self.broker.effort.total - before)
            next(self.between, lambda: None)()
        super().end_turn()


@pytest.fixture
def stage() -> SteppingStage:
    return SteppingStage()


@pytest.fixture
def tx(stage: SteppingStage) -> Talk:
    """A transactional channel 1, an ordinary channel 2, and durable queues `d` and `e`, bound to `amq.fanout`."""
    talk = stage.client().open_channel(1).open_channel(2)
    for queue in ("d", "e"):
        talk.client(Queue.Declare(queue=queue, durable=True)).broker(Queue.DeclareOk(queue, 0, 0))
        talk.client(Queue.Bind(queue=queue, exchange="amq.fanout")).broker(Queue.BindOk())
    return talk.client(Tx.Select()).broker(Tx.SelectOk())


def bodies(talk: Talk, queue: str = "d") -> list[bytes]:
    return [message.body for message in talk.stage.broker.vhosts["/"].queues[queue].ready]


def between(stage: SteppingStage, *acts: Callable[[], object]) -> None:
    """Do these after the first, second, ... turn from now on; forget what the turns before have cost."""
    stage.between = iter(acts)
    stage.turns.clear()


def say(talk: Talk, said: frame.Frame, channel: int = 1) -> None:
    """Send this without the end of the turn."""
    talk.session.receive(frame.marshal(said, channel), talk.stage.now_ms)


def take(talk: Talk, queue: str, count: int) -> None:
    """Have channel 1 take so many messages that were there before."""
    talk.publish(queue, *BODIES[:count], persistent=True, channel=2)
    talk.client(Basic.Consume(queue=queue, consumer_tag="c")).broker(Basic.ConsumeOk("c"))
    talk.client(Basic.Cancel("c"))
    assert len(talk.session.channels[1].consuming.unacked) == count
    talk.hear_all()


def test_a_long_commit_has_a_piece_of_a_turn_at_a_time_and_is_in_one_batch(stage: SteppingStage, tx: Talk) -> None:
    tx.publish("", *BODIES, exchange="amq.fanout", persistent=True)
    batch = stage.journal.batch
    between(stage)
    tx.client(Tx.Commit()).broker(Tx.CommitOk())
    assert len(stage.turns) >= 2 * LONG // PIECE and max(stage.turns) < 2 * PIECE
    assert stage.journal.batch == batch + 1
    assert bodies(tx) == bodies(tx, "e") == stage.journal.safe.bodies("d") == BODIES


def test_nothing_is_written_while_a_commit_is_under_way_and_commit_ok_comes_after_it(
        stage: SteppingStage, tx: Talk) -> None:
    tx.publish("d", *BODIES, persistent=True)
    stage.commits_at_once = False
    held = []
    between(stage, lambda: held.append((stage.journal.hold.is_on, len(bodies(tx)), stage.journal.safe.bodies("d"))))
    tx.client(Tx.Commit()).nothing()
    (is_on, arrived, safe), = held
    assert is_on and 0 < arrived < LONG and safe == [] and not stage.journal.hold.is_on
    stage.commit()
    tx.broker(Tx.CommitOk())


def test_a_short_commit_keeps_nobody_waiting(stage: SteppingStage, tx: Talk) -> None:
    tx.publish("d", *BODIES[:transaction.AT_ONCE])
    between(stage)
    tx.client(Tx.Commit()).broker(Tx.CommitOk())
    assert not stage.turns and len(bodies(tx)) == transaction.AT_ONCE


def test_others_are_served_between_the_pieces(stage: SteppingStage, tx: Talk) -> None:
    other = stage.client().open_channel()
    tx.publish("d", *BODIES)
    between(stage, lambda: other.session.receive(
        frame.marshal(Basic.Get(queue="d", no_ack=True), 1), stage.now_ms))
    tx.client(Tx.Commit()).broker(Tx.CommitOk())
    assert other.hear(Basic.GetOk).message_count < LONG - 1
    other.hear_all()


def test_acks_and_nacks_of_a_long_commit(stage: SteppingStage, tx: Talk) -> None:
    take(tx, "d", LONG)
    tx.client(*[Basic.Ack(tag) for tag in range(2, LONG, 2)]).client(Basic.Reject(1, True))
    tx.client(Basic.Nack(LONG - 1, True, True)).client(Basic.Reject(LONG, False))
    between(stage)
    tx.client(Tx.Commit()).broker(Tx.CommitOk())
    assert len(stage.turns) >= LONG // PIECE and max(stage.turns) < 2 * PIECE
    assert bodies(tx) == stage.journal.safe.bodies("d") == BODIES[:-1:2]
    assert stage.broker.vhosts["/"].queues["d"].unacked == 0


def test_answers_whose_commit_is_under_way_are_owed_until_they_are_carried_out(stage: SteppingStage, tx: Talk) -> None:
    take(tx, "d", LONG)
    tx.client(Basic.Ack(0, True))
    counts: list[tuple[int, int]] = []
    queue, consuming = stage.broker.vhosts["/"].queues["d"], tx.session.channels[1].consuming
    between(stage, *[lambda: counts.append((len(consuming.owed), queue.unacked))] * 3)
    tx.client(Tx.Commit()).broker(Tx.CommitOk())
    assert counts[0][0] > counts[1][0] > counts[2][0] > 0 and all(owed == unacked for owed, unacked in counts)


def test_a_connection_that_is_lost_between_the_pieces_has_committed(stage: SteppingStage, tx: Talk) -> None:
    take(tx, "e", 1_000)
    tx.client(Basic.Ack(990, True)).publish("d", *BODIES, persistent=True)
    between(stage, tx.session.lost)
    tx.client(Tx.Commit()).nothing()
    assert stage.journal.safe.bodies("d") == BODIES
    assert bodies(tx, "e") == stage.journal.safe.bodies("e") == BODIES[990:1_000]


def test_a_channel_that_is_closed_between_the_pieces_has_committed(stage: SteppingStage, tx: Talk) -> None:
    take(tx, "e", 1_000)
    tx.client(Basic.Ack(990, True)).publish("d", *BODIES, persistent=True).publish("no", b"x", mandatory=True)
    channel = tx.session.channels[1]
    error = transaction.ChannelException(transaction.ReplyCode.PRECONDITION_FAILED, "too late")
    between(stage, lambda: channel.close(error, (0, 0)))
    tx.client(Tx.Commit())
    tx.closed(406, "PRECONDITION_FAILED - too late", 0, 0)
    assert stage.journal.safe.bodies("d") == BODIES
    assert bodies(tx, "e") == stage.journal.safe.bodies("e") == BODIES[990:1_000]


def test_a_queue_deleted_between_the_pieces_leaves_nothing_behind(stage: SteppingStage, tx: Talk) -> None:
    other = stage.client().open_channel()
    tx.publish("", *BODIES, exchange="amq.fanout", persistent=True)
    between(
        stage, lambda: say(other, Queue.Delete(queue="d")), lambda: say(other, Queue.Declare(queue="d", durable=True)))
    tx.client(Tx.Commit()).broker(Tx.CommitOk())
    other.hear_all()
    assert bodies(tx) == stage.journal.safe.bodies("d") == []
    assert bodies(tx, "e") == stage.journal.safe.bodies("e") == BODIES


def test_the_queue_of_acks_may_be_deleted_between_the_pieces(stage: SteppingStage, tx: Talk) -> None:
    other = stage.client().open_channel()
    take(tx, "d", LONG)
    tx.client(Basic.Ack(1_500, True)).client(Basic.Nack(0, True, True))
    between(stage, lambda: say(other, Queue.Delete(queue="d")))
    tx.client(Tx.Commit()).broker(Tx.CommitOk())
    other.hear_all()
    assert stage.broker.vhosts["/"].queues.keys() == {"e"}


def test_what_others_publish_meanwhile_is_in_the_order_of_its_arrival(stage: SteppingStage, tx: Talk) -> None:
    other = stage.client().open_channel()
    octets = frame.marshal(Basic.Publish(routing_key="d"), 1) + b"".join(
        frame.marshal(part, 1) for part in content(b"between"))
    tx.publish("d", *BODIES)
    between(stage, lambda: other.session.receive(octets, stage.now_ms))
    tx.client(Tx.Commit()).broker(Tx.CommitOk())
    found = bodies(tx)
    assert 0 < found.index(b"between") < LONG and [body for body in found if body != b"between"] == BODIES


def content(body: bytes) -> list[frame.FrameTypes]:
    return [frame.header.ContentHeader(0, len(body), Basic.Properties()), frame.body.ContentBody(body)]


def test_messages_that_expire_do_so_after_a_commit(stage: SteppingStage, tx: Talk) -> None:
    tx.publish("d", *BODIES[:20], persistent=True)
    tx.client(Basic.Publish(routing_key="d"), content=b"mortal", properties=Basic.Properties(expiration="1000"))
    tx.publish("d", *BODIES[20:], persistent=True).client(Tx.Commit()).broker(Tx.CommitOk())
    assert len(bodies(tx)) == LONG + 1
    stage.pass_time(2)
    assert bodies(tx) == BODIES


def test_one_long_commit_a_batch(stage: SteppingStage, tx: Talk) -> None:
    other = stage.client().open_channel()
    other.client(Tx.Select()).broker(Tx.SelectOk())
    other.publish("d", *[b"other"] * LONG, persistent=True)
    tx.publish("d", *BODIES, persistent=True)
    batch = stage.journal.batch
    between(stage, lambda: say(other, Tx.Commit()))
    tx.client(Tx.Commit()).broker(Tx.CommitOk())
    other.broker(Tx.CommitOk())
    assert stage.journal.batch == batch + 2
    assert bodies(tx) == BODIES + [b"other"] * LONG


def test_a_commit_that_waits_for_another_one_is_rolled_back_with_its_connection(
        stage: SteppingStage, tx: Talk) -> None:
    other = stage.client().open_channel()
    other.client(Tx.Select()).broker(Tx.SelectOk())
    other.publish("d", *[b"other"] * LONG, persistent=True)
    tx.publish("d", *BODIES, persistent=True)
    between(stage, lambda: say(other, Tx.Commit()), other.session.lost)
    tx.client(Tx.Commit()).broker(Tx.CommitOk())
    assert bodies(tx) == stage.journal.safe.bodies("d") == BODIES


def test_returns_are_built_a_slice_at_a_time_before_commit_ok(stage: SteppingStage, tx: Talk) -> None:
    tx.publish("nowhere", *[bytes(10_000)] * 1_500, mandatory=True)
    between(stage)
    tx.client(Tx.Commit())
    heard = [one.said for one in tx.hear_all()]
    assert [type(said) for said in heard] == [Basic.Return] * 1_500 + [Tx.CommitOk]
    assert len(stage.turns) >= 4 and max(stage.turns) < SLICE + 2 * PIECE


def test_the_connection_may_go_between_returns(stage: SteppingStage, tx: Talk) -> None:
    tx.publish("nowhere", *[bytes(10_000)] * 1_500, mandatory=True)
    between(stage, tx.session.lost)
    tx.client(Tx.Commit())
    assert len(tx.hear_all()) < 1_500


def test_what_a_queue_refuses_in_any_piece_is_told_at_the_end(stage: SteppingStage, tx: Talk) -> None:
    tx.client(Queue.Declare(queue="full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"}))
    tx.hear(Queue.DeclareOk)
    tx.publish("full", b"a", b"b").publish("d", *BODIES, persistent=True).client(Tx.Commit())
    tx.closed(406, "PRECONDITION_FAILED - partial tx completion", 90, 20)
    assert stage.journal.safe.bodies("d") == BODIES


def test_a_commit_of_which_a_piece_fails_is_not_answered(
        stage: SteppingStage, tx: Talk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    tx.publish("d", *BODIES).publish("e", b"x")

    def break_down(*_: object, **__: object) -> int:
        monkeypatch.undo()
        raise RuntimeError("broken")
    monkeypatch.setattr(stage.broker.vhosts["/"].queues["d"], "publish", break_down)
    tx.client(Tx.Commit())
    assert not any(isinstance(one.said, Tx.CommitOk) for one in tx.hear_all())
    assert not stage.journal.hold.is_on and 0 < len(bodies(tx)) < LONG and "broken" in caplog.text


def test_a_commit_of_publishes_to_very_many_queues_goes_in_pieces(stage: SteppingStage, tx: Talk) -> None:
    names = [f"wide {number}" for number in range(WIDE + 50)]
    for name in names:
        tx.client(
            Queue.Declare(queue=name, durable=True, nowait=True),
            Queue.Bind(queue=name, exchange="amq.fanout", nowait=True))
    tx.publish("", *BODIES[:10], exchange="amq.fanout", persistent=True).publish("wide 7", b"last", persistent=True)
    between(stage)
    tx.client(Tx.Commit()).broker(Tx.CommitOk())
    assert len(stage.turns) > 4 and max(stage.turns) < 2 * PIECE
    assert all(stage.journal.safe.bodies(name) == BODIES[:10] for name in names if name != "wide 7")
    assert bodies(tx, "wide 7") == stage.journal.safe.bodies("wide 7") == [*BODIES[:10], b"last"]


# Publishes to very many queues

MANY = [f"wide {number}" for number in range(WIDE + 50)]
FEW = BODIES[:7]


@pytest.fixture
def wide(tx: Talk) -> Talk:
    """The same client; there are very many durable queues, bound to `amq.fanout` as well, which keep 8 messages."""
    vhost = tx.stage.broker.vhosts["/"]
    for name in MANY:
        arguments = {"x-max-length": 8}
        vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", name, durable=True, arguments=arguments), OPERATOR)
        vhost.bind(OPERATOR, BindingDefinition("/", "amq.fanout", "queue", name, "", {}), OPERATOR)
    tx.stage.end_turn()
    return tx


def safe(stage: Stage, *names: str) -> list[list[bytes]]:
    """What is on disk of these queues."""
    return [stage.journal.safe.bodies(name) for name in names]


def commit(stage: Stage) -> None:
    """Have the current batch written, as a committer does while a commit goes on."""
    assert not stage.journal.hold.is_on
    stage.commit()


def test_others_are_committed_while_a_commit_to_very_many_queues_goes_on(stage: SteppingStage, wide: Talk) -> None:
    other = stage.client().open_channel()
    other.client(Confirm.Select()).broker(Confirm.SelectOk())
    wide.publish("", *FEW, exchange="amq.fanout", persistent=True).publish("d", b"last", persistent=True)
    seen: list[tuple[list[list[bytes]], list[type]]] = []

    def look() -> None:
        say_publish(other, "e", b"of another")
        commit(stage)
        seen.append((safe(stage, "d", MANY[0], MANY[-1]), [type(one.said) for one in other.hear_all()]))

    between(stage, lambda: None, *[look] * 5)
    batch = stage.journal.batch
    stage.commits_at_once = False
    wide.client(Tx.Commit()).nothing()
    assert seen == [([[], [], []], [Basic.Ack])] * 5
    assert stage.journal.batch == batch + 5 and max(stage.turns) < 2 * PIECE
    assert safe(stage, "e") == [[b"of another"] * 5]
    assert {*bodies(wide, MANY[0])} == {*FEW}
    stage.commit()
    wide.broker(Tx.CommitOk())
    assert safe(stage, *MANY) == [FEW] * len(MANY) and safe(stage, "d") == [[*FEW, b"last"]]
    assert sorted(bodies(wide, "e")) == sorted([*FEW, *[b"of another"] * 5])


def say_publish(talk: Talk, queue: str, body: bytes) -> None:
    """Publish a persistent message without the end of the turn."""
    talk.session.receive(b"".join(frame.marshal(part, 1) for part in (
        Basic.Publish(routing_key=queue), frame.header.ContentHeader(0, len(body), Basic.Properties(delivery_mode=2)),
        frame.body.ContentBody(body))), talk.stage.now_ms)


def test_what_a_commit_to_very_many_queues_drops_and_acks_stays_on_disk_until_it_is_committed(
        stage: SteppingStage, wide: Talk) -> None:
    take(wide, "d", 1)
    wide.publish("", *BODIES[:5], exchange="amq.fanout", persistent=True, channel=2)
    wide.client(Basic.Ack(1)).publish("", *FEW, exchange="amq.fanout", persistent=True)
    found: list[list[list[bytes]]] = []

    def look() -> None:
        commit(stage)
        found.append(safe(stage, MANY[0], "d"))

    between(stage, *[look] * 5)
    wide.client(Tx.Commit()).broker(Tx.CommitOk())
    assert found == [[BODIES[:5], [BODIES[0], *BODIES[:5]]]] * 5
    assert safe(stage, MANY[0], MANY[-1]) == [[BODIES[4], *FEW]] * 2 and safe(stage, "d") == [[*BODIES[:5], *FEW]]


def test_what_is_consumed_of_a_commit_that_goes_on_is_never_written(stage: SteppingStage, wide: Talk) -> None:
    other = stage.client().open_channel()
    wide.publish("", *FEW, exchange="amq.fanout", persistent=True)
    get = b"".join(frame.marshal(Basic.Get(queue=MANY[0], no_ack=True), 1) for _ in FEW)
    left: list[int] = []
    between(
        stage, lambda: None, lambda: None, lambda: other.session.receive(get, stage.now_ms),
        lambda: (commit(stage), left.append(len(bodies(wide, MANY[0])))),
        lambda: say(other, Queue.Delete(queue=MANY[1])))
    wide.client(Tx.Commit()).broker(Tx.CommitOk())
    assert left == [0] and len(other.hear_all()) == len(FEW) + 1
    assert safe(stage, MANY[0], MANY[1], MANY[2]) == [[], [], FEW]


def test_one_commit_to_very_many_queues_at_a_time(stage: SteppingStage, wide: Talk) -> None:
    other = stage.client().open_channel()
    other.client(Tx.Select()).broker(Tx.SelectOk())
    other.publish("", *[b"other"] * len(FEW), exchange="amq.fanout", persistent=True)
    wide.publish("", *FEW, exchange="amq.fanout", persistent=True)
    between(stage, lambda: say(other, Tx.Commit()))
    wide.client(Tx.Commit()).broker(Tx.CommitOk())
    other.broker(Tx.CommitOk())
    assert safe(stage, MANY[0], MANY[-1]) == [[FEW[-1], *[b"other"] * len(FEW)]] * 2


def test_a_long_commit_of_another_kind_may_go_on_beside_it(stage: SteppingStage, wide: Talk) -> None:
    other = stage.client().open_channel()
    other.client(Tx.Select()).broker(Tx.SelectOk())
    other.publish("d", *BODIES, persistent=True)
    wide.publish("", *FEW, exchange="amq.fanout", persistent=True)
    between(stage, lambda: say(other, Tx.Commit()))
    wide.client(Tx.Commit()).broker(Tx.CommitOk())
    other.broker(Tx.CommitOk())
    assert len(bodies(wide)) == LONG + len(FEW) and sorted(safe(stage, "d")[0]) == sorted([*BODIES, *FEW])


def test_messages_of_a_commit_that_goes_on_cannot_be_read_from_the_store(stage: SteppingStage, wide: Talk) -> None:
    wide.publish("", *FEW, exchange="amq.fanout", persistent=True)
    are_safe: list[bool] = []
    queue = stage.broker.vhosts["/"].queues["d"]

    def look() -> None:
        commit(stage)
        are_safe.extend([queue.records.is_stored(message) for message in queue.ready])  # type: ignore[arg-type]

    between(stage, look, look)
    wide.client(Tx.Commit()).broker(Tx.CommitOk())
    assert are_safe == [False] * 2 * len(FEW)
    stage.commit()
    assert all(queue.records.is_stored(message) for message in queue.ready)     # type: ignore[arg-type]


def test_a_commit_to_very_many_queues_with_rejects_holds_its_batch(stage: SteppingStage, wide: Talk) -> None:
    take(wide, "d", 1)
    wide.client(Basic.Reject(1, False)).publish("", *FEW, exchange="amq.fanout", persistent=True)
    held: list[bool] = []
    between(stage, lambda: held.append(stage.journal.hold.is_on))
    wide.client(Tx.Commit()).broker(Tx.CommitOk())
    assert held == [True] and safe(stage, MANY[0], "d") == [FEW] * 2


def test_what_is_owed_is_known_between_any_two_pieces_of_a_commit(stage: SteppingStage, tx: Talk) -> None:
    take(tx, "d", 2 * PIECE)
    tx.client(Basic.Ack(PIECE, True), Basic.Nack(2 * PIECE, True, True))
    tx.publish("e", *BODIES[: 6 * PIECE], persistent=True)
    owed: list[int] = []

    def look() -> None:
        tx.session.check()
        owed.append(tx.session.channels[1].consuming.owed_count)

    between(stage, *[look] * 100)
    tx.client(Tx.Commit()).broker(Tx.CommitOk())
    assert owed[0] == 2 * PIECE and owed[-1] == 0 and owed == sorted(owed, reverse=True)
    assert len({*owed}) >= 3, "answers were carried out in one piece"
    assert bodies(tx) == BODIES[PIECE : 2 * PIECE]


# Answers that are held, and rolled back

def test_an_answer_to_very_many_is_held_in_pieces(stage: SteppingStage, tx: Talk) -> None:
    take(tx, "d", LONG)
    between(stage)
    tx.client(Basic.Ack(LONG - 10, True), Basic.Nack(LONG - 1, True, False), Basic.Reject(LONG, True))
    assert len(stage.turns) == 1 and max(stage.turns) < 2 * ANSWERS_AT_ONCE
    assert stage.broker.vhosts["/"].queues["d"].unacked == LONG
    tx.client(Tx.Commit()).broker(Tx.CommitOk())
    assert bodies(tx) == BODIES[-1:]


def test_many_acks_one_by_one_are_held_in_pieces(stage: SteppingStage, tx: Talk) -> None:
    take(tx, "d", LONG)
    between(stage)
    tx.client(b"".join(frame.marshal(Basic.Ack(tag), 1) for tag in range(1, LONG + 1)))
    assert tx.session.channels[1].uncommitted.answered and not tx.session.channels[1].consuming.unacked
    assert stage.turns and max(stage.turns) < 2 * ANSWERS_AT_ONCE


def answer_in_tangles(tx: Talk) -> None:
    """Hold answers to all but some of `LONG` deliveries, not in the order of their tags."""
    tx.client(*[Basic.Ack(tag) for tag in range(LONG, 1_000, -3)])
    tx.client(Basic.Nack(900, True, False)).client(*[Basic.Ack(tag) for tag in range(901, 1_000)])


def test_a_long_rollback_takes_turns_and_all_is_unacked_again_in_order(
        stage: SteppingStage, tx: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    take(tx, "d", LONG)
    answer_in_tangles(tx)
    tx.publish("d", *BODIES)
    between(stage)
    monkeypatch.setattr(Effort, "begin", stop_at_once)
    tx.client(Tx.Rollback()).broker(Tx.RollbackOk())
    assert len(stage.turns) > LONG // PIECE and max(stage.turns) < 2 * PIECE + METHOD_STEPS
    consuming = tx.session.channels[1].consuming
    assert [*consuming.unacked] == [*range(1, LONG + 1)] and len(consuming.owed) == LONG
    monkeypatch.undo()
    tx.client(Basic.Ack(LONG, True), Tx.Commit()).broker(Tx.CommitOk())
    assert bodies(tx) == stage.journal.safe.bodies("d") == []


def stop_at_once(effort: Effort, most: int = 0) -> None:
    """Begin a slice that is spent already, so that each turn does a piece."""
    effort.stop = effort.total


def test_what_is_delivered_while_a_rollback_takes_turns_comes_after_the_others(
        stage: SteppingStage, tx: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    take(tx, "d", LONG)
    tx.client(Basic.Consume(queue="e", consumer_tag="late")).broker(Basic.ConsumeOk("late"))
    answer_in_tangles(tx)
    owed = []
    consuming, other = tx.session.channels[1].consuming, stage.client().open_channel()
    octets = frame.marshal(Basic.Publish(routing_key="e"), 1) + b"".join(
        frame.marshal(part, 1) for part in content(b"late"))
    between(
        stage, lambda: other.session.receive(octets, stage.now_ms), *[lambda: owed.append(len(consuming.owed))] * 3)
    monkeypatch.setattr(Effort, "begin", stop_at_once)
    tx.client(Tx.Rollback())
    assert {type(one.said) for one in tx.hear_all()} == {Basic.Deliver, Tx.RollbackOk}
    assert [*consuming.unacked] == [*range(1, LONG + 2)] and owed == [LONG + 1] * 3


@pytest.mark.parametrize("turns", range(0, 7, 2))
def test_a_connection_may_be_lost_while_a_rollback_takes_turns(
        stage: SteppingStage, tx: Talk, monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    take(tx, "d", LONG)
    answer_in_tangles(tx)
    between(stage, *[lambda: None] * turns, tx.session.lost)
    monkeypatch.setattr(Effort, "begin", stop_at_once)
    tx.client(Tx.Rollback())
    monkeypatch.undo()
    stage.end_turn()
    assert bodies(tx) == BODIES and stage.broker.vhosts["/"].queues["d"].unacked == 0


def test_a_connection_may_be_lost_while_an_answer_is_held_in_pieces(stage: SteppingStage, tx: Talk) -> None:
    take(tx, "d", LONG)
    tx.session.receive(frame.marshal(Basic.Ack(0, True), 1), stage.now_ms)
    tx.session.lost()
    stage.end_turn()
    assert bodies(tx) == BODIES


def test_answers_of_nothing_are_not_held(tx: Talk) -> None:
    tx.client(*[Basic.Ack(0, True)] * 3)
    assert not tx.session.channels[1].uncommitted.holds_answers


def test_confirms_of_others_wait_for_the_batch_of_a_long_commit(stage: SteppingStage, tx: Talk) -> None:
    other = stage.client().open_channel()
    other.client(Confirm.Select()).broker(Confirm.SelectOk())
    tx.publish("d", *BODIES, persistent=True)
    stage.commits_at_once = False
    tx.client(Tx.Commit())
    other.publish("e", b"x", persistent=True).nothing()
    stage.commit()
    other.broker(Basic.Ack(1))
    tx.broker(Tx.CommitOk())
