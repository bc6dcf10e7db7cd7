"""A reject is on disk with its batch, or the confirms of its connection, and its transaction, wait for it."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp import frame
from pamqp.commands import Basic, Confirm, Queue, Tx

from amqpd.broker.dead_letter_router import STEPS_A_MESSAGE
from amqpd.broker.effort import TURN
from amqpd.broker.rejects import MOST_BATCHES, Rejects
from tests.support.talk import Stage, Talk, content_frames

TO_DEAD: dict[str, Any] = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
FEW, MANY = 3, 8 * TURN // STEPS_A_MESSAGE


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def talk(stage: Stage) -> Talk:
    """A client whose dead letters of the durable queue `q` go to the durable queue `dead`; channel 1 has confirms."""
    talk = stage.client().open_channel(1).open_channel(2)
    for queue, arguments in (("q", TO_DEAD), ("dead", {}), ("other", {})):
        talk.client(Queue.Declare(queue=queue, durable=True, arguments=arguments)).broker(Queue.DeclareOk(queue, 0, 0))
    return talk.client(Confirm.Select()).broker(Confirm.SelectOk())


def take(talk: Talk, count: int) -> None:
    """Have channel 2 take so many messages of `q`."""
    talk.client(Basic.Qos(prefetch_count=count), Basic.Consume(queue="q"), channel=2)
    talk.publish("q", *[b"%d" % n for n in range(count)], persistent=True, channel=2)
    talk.hear_all()


def one_turn(talk: Talk, *said: frame.Frame, channel: int = 2) -> None:
    """Send these methods, and end one turn, in which jobs have no slice but their first one."""
    stage = talk.stage
    stage.commits_at_once = False
    talk.session.receive(b"".join([frame.marshal(one, channel) for one in said]), stage.now_ms)
    stage.loop_turn.begin()
    stage.timers.turn()


def publish(talk: Talk) -> None:
    """Publish a message that is confirmed once its batch is on disk."""
    method, properties = Basic.Publish(routing_key="other"), Basic.Properties(delivery_mode=2)
    talk.session.receive(frame.marshal(method, 1) + content_frames(1, b"x", properties, 4_096), talk.stage.now_ms)


def stored(stage: Stage) -> tuple[int, int]:
    return len(stage.journal.safe.bodies("q")), len(stage.journal.safe.bodies("dead"))


@pytest.fixture
def _no_jobs(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage.loop_turn, "_work", lambda: None)


@pytest.mark.usefixtures("_no_jobs")
def test_rejects_are_moved_in_their_batch_though_the_job_of_their_queue_is_late(stage: Stage, talk: Talk) -> None:
    take(talk, FEW)
    expiring = Basic.Properties(delivery_mode=2, expiration="1000")
    talk.publish("q", *[b"expires"] * MANY, properties=expiring, channel=2)
    stage.now_ms += 1_001
    stage.timers.run_due()
    one_turn(talk)
    stage.commit()
    waiting = stored(stage)[0] - FEW
    assert waiting > MANY // 2
    publish(talk)
    one_turn(talk, Basic.Nack(0, multiple=True, requeue=False))
    stage.commit()
    talk.broker(Basic.Ack(1))
    assert FEW <= stored(stage)[1] and {body for body in stage.journal.safe.bodies("q")} == {b"expires"}


@pytest.mark.usefixtures("_no_jobs")
def test_confirms_wait_for_earlier_rejects_that_are_too_many_for_one_batch(stage: Stage, talk: Talk) -> None:
    take(talk, MANY)
    one_turn(talk, Basic.Nack(0, multiple=True, requeue=False))
    publish(talk)
    one_turn(talk)
    stage.commit()
    left, moved = stored(stage)
    assert left > MANY // 2 and 0 < moved < MANY // 2
    talk.nothing()
    stage.broker.worklist.work_off()
    one_turn(talk)
    talk.nothing()                      # they have been moved, and are not on disk
    stage.commit()
    talk.broker(Basic.Ack(1))
    assert stored(stage) == (0, MANY)


@pytest.mark.usefixtures("_no_jobs")
@pytest.mark.parametrize("ending", ["deleted", "set aside"])
def test_confirms_do_not_wait_for_rejects_that_will_not_be_moved(stage: Stage, talk: Talk, ending: str) -> None:
    take(talk, MANY)
    queue = stage.broker.vhosts["/"].queues["q"]
    messages = [message for message, _ in talk.session.channels[2].consuming.unacked.values()]
    one_turn(talk, Basic.Nack(0, multiple=True, requeue=False))
    publish(talk)
    one_turn(talk)
    stage.commit()
    talk.nothing()
    if ending == "deleted":
        queue.dead_letters.stop()
        queue.dead_letters.end()
    else:
        queue.dead_letters.set_aside(messages)
    stage.commit()
    talk.broker(Basic.Ack(1))


@pytest.mark.usefixtures("_no_jobs")
def test_confirms_do_not_wait_for_rejects_that_wait_for_room(stage: Stage, talk: Talk) -> None:
    full, sure = {"x-max-length": 0, "x-overflow": "reject-publish"}, {
        "x-queue-type": "quorum", "x-overflow": "reject-publish", "x-dead-letter-strategy": "at-least-once",
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "full"}
    for queue, arguments in (("full", full), ("sure", sure)):
        talk.client(Queue.Declare(queue=queue, durable=True, arguments=arguments)).broker(Queue.DeclareOk(queue, 0, 0))
    talk.client(Basic.Consume(queue="sure"), channel=2)
    talk.publish("sure", b"kept", persistent=True, channel=2)
    talk.hear_all()
    one_turn(talk, Basic.Nack(0, multiple=True, requeue=False))
    publish(talk)
    one_turn(talk)
    stage.commit()
    talk.broker(Basic.Ack(1))
    assert stage.journal.safe.bodies("sure") == [b"kept"]


def test_a_transaction_with_rejects_is_on_disk_as_a_whole(
        stage: Stage, talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    take(talk, MANY)
    commit, seen = stage.commit, []

    def commit_and_look() -> None:
        commit()
        seen.append((*stored(stage), len(stage.journal.safe.bodies("other"))))

    monkeypatch.setattr(stage, "commit", commit_and_look)
    talk.client(Tx.Select(), channel=2).broker(Tx.SelectOk(), channel=2)
    talk.publish("other", b"x", persistent=True, channel=2)
    talk.client(Basic.Nack(0, multiple=True, requeue=False), Tx.Commit(), channel=2).broker(Tx.CommitOk(), channel=2)
    assert seen == [(0, MANY, 1)]


def test_batches_are_sure_up_to_the_first_reject_that_is_not_on_disk() -> None:
    rejects = Rejects()
    assert not rejects and rejects.last_sure(7) == 7
    first, second = rejects.add(2, 3), rejects.add(1, 5)
    assert rejects.add(1, 5) is second and rejects.has_unmoved
    first.moved(5)
    second.moved(5)
    second.moved(6)
    assert rejects.last_sure(6) == 2
    first.moved(7)
    assert rejects.last_sure(6) == 2 and rejects.last_sure(7) == 7
    assert not rejects and not rejects.has_unmoved


def test_rejects_of_a_client_that_awaits_no_commit_take_little_memory() -> None:
    rejects = Rejects()
    for batch in range(1, 3 * MOST_BATCHES):
        rejects.add(1, batch).moved(batch)
    assert len(rejects) <= 2
    for batch in range(3 * MOST_BATCHES, 6 * MOST_BATCHES):
        rejects.add(1, batch)
    assert len(rejects) == MOST_BATCHES
