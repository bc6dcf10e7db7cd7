"""The steps that commands of clients count, by which slices are cut: as `broker/effort.py` and others say.

If a command counted fewer steps than it takes, its client could delay all others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pamqp.commands import Basic, Channel, Confirm, Queue, Tx
from pamqp.heartbeat import Heartbeat

from amqpd.broker.effort import Effort
from amqpd.broker.worklist import PIECE, Worklist
from amqpd.session import commit, consuming, delivering, publishing
from amqpd.session.channel_timeouts import LOOKED_AT_IN_A_STEP
from amqpd.session.closing import LOST_STEPS
from amqpd.session.consumer_timeouts import CLOSE_STEPS, LOOK_STEPS, Looks, OverdueChannels
from amqpd.session.receiver import FRAME_STEPS, METHOD_STEPS, TOPOLOGY_STEPS
from amqpd.session.targets import RESOLVE_STEPS
from amqpd.session.transaction import RETURN_STEPS
from amqpd.session.unacked import ANSWERS_AT_ONCE, UnackedDeliveries
from amqpd.wire.contents import MOST_FRAMES
from tests.support.talk import Talk

LOOK_UP = RESOLVE_STEPS + 1         # and the step of the exchange that leads there
PUBLISHED, COMMITTED, DELIVERED = publishing.RUN_STEPS, commit.RUN_STEPS, consuming.RUN_STEPS
FIVE = [b"x"] * 5


@pytest.fixture
def piece() -> int:
    """Said whole: octets that come one by one count more."""
    return 0


@pytest.fixture
def talk(talk: Talk) -> Talk:
    """A client that has published to the queues `q` and `p`, alone and together, so that where to is known."""
    talk.open_channel()
    for name in ("q", "p"):
        talk.client(Queue.Declare(queue=name), Queue.Bind(queue=name, exchange="amq.fanout"))
    talk.publish("q", b"known").publish("p", b"known").publish("", b"known", exchange="amq.fanout")
    talk.publish("nowhere", b"known", mandatory=True)
    talk.client(Queue.Purge(queue="q"), Queue.Purge(queue="p"))
    talk.hear_all()
    return talk


def steps(talk: Talk, act: Callable[[], object]) -> int:
    """Return how many steps are counted while a client does something."""
    before = talk.stage.broker.effort.total
    act()
    talk.hear_all()
    return talk.stage.broker.effort.total - before


def method_steps(size: int) -> int:
    """Return what a method of so many bytes takes that is not on the hot path."""
    return METHOD_STEPS + size // 4


def test_publishes_count_a_step_each_and_more_for_the_run_of_a_queue(talk: Talk) -> None:
    assert steps(talk, lambda: talk.publish("q", b"x")) == 1 + PUBLISHED
    assert steps(talk, lambda: talk.publish("q", *FIVE)) == 5 + PUBLISHED
    assert steps(talk, lambda: talk.publish("", *FIVE, exchange="amq.fanout")) == 2 * (5 + PUBLISHED)
    assert steps(talk, lambda: talk.publish("nowhere", *FIVE, mandatory=True)) == 2 * 5, "they go back"
    assert steps(talk, lambda: talk.publish("new", *FIVE)) == 2 * 5 + LOOK_UP


@pytest.mark.parametrize("count", [1, 5])
def test_deliveries_count_a_step_each_and_more_for_the_run_of_a_consumer(talk: Talk, count: int) -> None:
    talk.client(Basic.Consume(queue="q", consumer_tag="c")).publish("q", b"first")
    published = count + PUBLISHED
    assert steps(talk, lambda: talk.publish("q", *FIVE[:count])) == published + DELIVERED + count
    talk.client(Basic.Cancel("c"), Basic.Consume(queue="q", consumer_tag="c", no_ack=True)).publish("q", b"first")
    assert steps(talk, lambda: talk.publish("q", *FIVE[:count])) == published + DELIVERED + count
    assert steps(talk, lambda: talk.client(Basic.Ack(0, True))) == 1 + 1 + count


def test_the_first_delivery_with_a_key_counts_for_its_head(talk: Talk) -> None:
    talk.client(Basic.Consume(queue="q", consumer_tag="c"))
    assert steps(talk, lambda: talk.publish("q", b"x")) == 1 + PUBLISHED + DELIVERED + 1 + delivering.HEAD_STEPS


@pytest.mark.parametrize("said, size", [
    (Basic.Get(queue="q"), 8), (Basic.Cancel("c"), 7), (Basic.Qos(0, 5), 11), (Confirm.Select(), 5), (Tx.Select(), 4),
    (Basic.Get(queue="p", no_ack=True), 8)], ids=lambda value: getattr(value, "name", str(value)))
def test_other_methods_count_by_their_size(talk: Talk, said: Basic.Get, size: int) -> None:
    talk.publish("q", b"x")
    assert steps(talk, lambda: talk.client(said)) == method_steps(size)


def test_methods_that_look_for_queues_and_exchanges_count_more(talk: Talk) -> None:
    assert steps(talk, lambda: talk.client(Queue.Declare(queue="q"))) == TOPOLOGY_STEPS + method_steps(13)
    assert steps(talk, lambda: talk.client(Queue.Purge(queue="q"))) == TOPOLOGY_STEPS + method_steps(9)


def test_a_frame_without_a_command_counts_once_there_are_some(talk: Talk) -> None:
    assert steps(talk, lambda: talk.client(*[Heartbeat()] * (MOST_FRAMES - 1))) == 0
    assert steps(talk, lambda: talk.client(*[Heartbeat()] * (MOST_FRAMES + 1))) == MOST_FRAMES * FRAME_STEPS


def test_a_transaction_counts_its_publishes_when_they_come_and_when_it_is_committed(talk: Talk) -> None:
    talk.client(Tx.Select()).publish("q", b"x").publish("", b"x", exchange="amq.fanout").client(Tx.Commit())
    talk.hear_all()
    assert steps(talk, lambda: talk.publish("q", *FIVE)) == 5
    assert steps(talk, lambda: talk.client(Tx.Commit())) == method_steps(4) + 1 + 5 + COMMITTED
    assert steps(talk, lambda: talk.publish("", *FIVE, exchange="amq.fanout")) == 5
    assert steps(talk, lambda: talk.client(Tx.Commit())) == method_steps(4) + 1 + 2 * (5 + COMMITTED)
    talk.publish("nowhere", *FIVE, mandatory=True)
    assert steps(talk, lambda: talk.client(Tx.Commit())) == method_steps(4) + 1 + 5 + 5 * RETURN_STEPS


def test_answers_of_a_transaction_count_for_each_consumer_they_go_back_to(talk: Talk) -> None:
    talk.client(Basic.Consume(queue="q", consumer_tag="c"), Basic.Consume(queue="p", consumer_tag="d"), Tx.Select())
    talk.publish("", *FIVE, exchange="amq.fanout").client(Tx.Commit())
    talk.hear_all()
    assert steps(talk, lambda: talk.client(Basic.Ack(0, True))) == 1 + 10
    assert steps(talk, lambda: talk.client(Tx.Commit())) == method_steps(4) + 10 + 2 * COMMITTED
    talk.publish("", *FIVE, exchange="amq.fanout").client(Tx.Commit())
    talk.client(Basic.Cancel("c"), Basic.Cancel("d"), Basic.Nack(0, True, True))
    assert steps(talk, lambda: talk.client(Tx.Commit())) == method_steps(4) + 10 + 4 * COMMITTED


def test_a_client_that_is_gone_counts(talk: Talk) -> None:
    assert steps(talk, talk.lose) == LOST_STEPS + 1 + consuming.LEAVE_STEPS + 15


def test_a_channel_that_goes_counts_for_what_goes_back(talk: Talk) -> None:
    talk.client(Basic.Consume(queue="q", consumer_tag="c"), Basic.Consume(queue="p", consumer_tag="d"))
    talk.publish("", *[b"x"] * 40, exchange="amq.fanout")
    talk.hear_all()
    counted = steps(talk, lambda: talk.client(Channel.Close(200, "", 0, 0)))
    leaves, pieces = 2 * 2 * consuming.LEAVE_STEPS, 1 + 80 // 4
    go_back = 2 * (consuming.GO_BACK_STEPS + 40)
    assert counted == method_steps(11) + leaves + pieces + go_back


def test_very_many_messages_that_go_back_count_a_piece_for_each_queue(talk: Talk) -> None:
    talk.client(Basic.Consume(queue="q", consumer_tag="c")).publish("q", *[b"x"] * 3 * PIECE)
    talk.hear_all()
    counted = steps(talk, talk.lose)
    assert counted >= LOST_STEPS + 3 * PIECE // 4 + 2 * PIECE


def test_a_look_for_late_deliveries_counts_consumers_and_all_deliveries_if_any_may_be_late_first(talk: Talk) -> None:
    for number in range(20):
        talk.client(Basic.Consume(queue="q", consumer_tag=f"c{number}"))
    talk.publish("q", *[b"x"] * 200)
    talk.hear_all()
    timeouts, now_ms = talk.session.channels[1].consuming.timeouts, talk.stage.now_ms
    assert steps(talk, lambda: timeouts.overdue(now_ms, 1_000)) == 20 // LOOKED_AT_IN_A_STEP
    talk.client(Basic.Consume(queue="p", consumer_tag="own", arguments={"x-consumer-timeout": 60_000}))
    assert steps(talk, lambda: timeouts.overdue(now_ms, 1_000)) == 221 // LOOKED_AT_IN_A_STEP


def test_contents_that_are_released_count_a_step_each(talk: Talk) -> None:
    talk.client(Basic.Consume(queue="q", consumer_tag="c")).publish("q", *[b"x"] * 40)
    talk.hear_all()
    deliveries = talk.session.channels[1].consuming.deliveries
    assert steps(talk, lambda: [*deliveries.release_contents(lambda: False)]) == 0, "none was unacked at the last call"
    assert steps(talk, lambda: [*deliveries.release_contents(lambda: False)]) == 40


def test_deliveries_that_become_unacked_again_count_by_slices() -> None:
    effort, count = Effort(), 5 * ANSWERS_AT_ONCE // 2
    deliveries = UnackedDeliveries(effort, 0)
    answers: list[Any] = [({tag: f"delivery {tag}"}, None) for tag in range(count, 0, -1)]
    slices = len([*deliveries.put_back(answers)])
    assert effort.total == (5 + 3) * PIECE + count, "of answers, of runs that are sorted, and of deliveries"
    assert slices == 5 + 3 + -(-count // PIECE) - 1
    assert [*deliveries.by_tag] == [*range(1, count + 1)] and not answers


def test_each_channel_that_may_be_late_counts_and_more_if_it_is() -> None:
    looks, worklist = Looks(), Worklist(Effort())
    for number in range(4):
        looks.add(number, 100)
    overdue = OverdueChannels(looks, worklist, lambda number, *_: number == 2, lambda count: None, 10)
    overdue.look(100)
    before = worklist.effort.total
    overdue.work()
    assert worklist.effort.total - before == 4 * LOOK_STEPS + CLOSE_STEPS and not overdue.has_work
