"""Publishes to very many queues: they are enqueued in slices, and confirmed when all queues have them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp.commands import Basic, Confirm, Exchange, Queue, Tx

from amqpd.broker.broker import OPERATOR
from amqpd.broker.definitions import BindingDefinition, QueueDefinition
from amqpd.broker.effort import QUEUE_STEPS, SLICE, SMALLEST_SLICE
from amqpd.broker.hand_over import WIDE, HandOver
from amqpd.broker.queue.queue import Queue as BrokerQueue
from amqpd.broker.worklist import PIECE, nothing
from amqpd.fields import Value
from amqpd.message import Message
from amqpd.store.pending_confirms import MOST_QUEUES
from tests.support.talk import Stage, Talk

MANY = 300
NOISE = "noise"
PERSISTENT = Basic.Properties(delivery_mode=2)


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def talk(stage: Stage) -> Talk:
    """A client with confirms, and a fanout exchange `wide` to the durable queues `q0` and so on."""
    talk = stage.client().open_channel()
    talk.client(Exchange.Declare(exchange="wide", exchange_type="fanout", durable=True)).broker(Exchange.DeclareOk())
    for n in range(MANY):
        add_queue(stage, f"q{n}", {"x-max-length": 1, "x-overflow": "reject-publish"} if n == MANY - 1 else {})
    stage.end_turn()
    return talk.client(Confirm.Select()).broker(Confirm.SelectOk())


def add_queue(stage: Stage, name: str, arguments: dict[str, Value] | None = None, *, durable: bool = True) -> None:
    """Declare a queue and bind it to the exchange."""
    vhost = stage.broker.vhosts["/"]
    definition = QueueDefinition(0, "/", name, durable=durable, arguments=arguments or {})
    vhost.declare_queue(OPERATOR, definition, OPERATOR)
    vhost.bind(OPERATOR, BindingDefinition("/", "wide", "queue", name, "", {}), OPERATOR)


def begin(talk: Talk, *bodies: bytes) -> None:
    """Send a run of publishes, and stop after the first slice."""
    talk.session.receive(
        b"".join([talk._marshal(Basic.Publish(exchange="wide"), 1, body, PERSISTENT) for body in bodies]),
        talk.stage.now_ms)


def step(talk: Talk) -> None:
    """Let one slice of the worklist pass."""
    talk.stage.broker.effort.begin_turn()
    talk.stage.broker.effort.begin(PIECE)
    talk.stage.broker.worklist.work()


def ready(talk: Talk, number: int) -> list[Message]:
    return [*queue_of(talk, number).ready]      # type: ignore[list-item]  # all of them are in memory


def queue_of(talk: Talk, number: int) -> BrokerQueue:
    return talk.stage.broker.vhosts["/"].queues[f"q{number}"]


def test_a_publish_to_very_many_queues_is_handed_over_in_pieces(talk: Talk) -> None:
    effort = talk.stage.broker.effort
    before = effort.total
    begin(talk, b"x")
    steps = []
    while not ready(talk, MANY - 1):
        steps.append(effort.total - before)
        before = effort.total
        step(talk)
    assert len(steps) > 1 and max(steps[1:]) <= SMALLEST_SLICE + PIECE
    assert not talk.session.channels[1].publishing.confirms.awaits_commit, "counted before all queues had it"
    talk.stage.end_turn()
    talk.broker(Basic.Ack(1))
    assert all([message.body for message in ready(talk, n)] == [b"x"] for n in range(MANY))


def test_a_run_is_handed_over_together_in_order_and_before_what_comes_after_it(talk: Talk) -> None:
    bodies = [b"%d" % n for n in range(90)]
    begin(talk, *bodies)
    talk.publish("q7", b"last")
    assert [message.body for message in ready(talk, 7)] == [*bodies, b"last"]
    assert talk.session.channels[1].publishing.confirms.unconfirmed == 0
    refused = sorted(one.said.delivery_tag for one in talk.hear_all() if isinstance(one.said, Basic.Nack))
    assert refused == [*range(2, 91)]


def test_others_publish_and_a_batch_is_written_between_two_pieces(stage: Stage, talk: Talk) -> None:
    other = stage.client().open_channel()
    begin(talk, b"first", b"later")
    at = next(n for n in range(MANY) if not ready(talk, n))
    stage.commit()
    for n in (0, at, MANY - 2):
        other.session.receive(
            other._marshal(Basic.Publish(routing_key=f"q{n}"), 1, b"other", PERSISTENT), stage.now_ms)
    assert ready(talk, 0) and not ready(talk, MANY - 1) and len(ready(talk, at)) == 1
    stage.end_turn()
    talk.hear_all()
    assert [message.body for message in ready(talk, 0)] == [b"first", b"later", b"other"]
    assert [message.body for message in ready(talk, at)] == [b"other", b"first", b"later"]
    for n in range(MANY):
        numbers = [message.number for message in ready(talk, n)]
        assert numbers == sorted(numbers)
    assert ready(talk, 0)[0].number < ready(talk, MANY - 2)[0].number, "a number of a batch that is written"


def test_a_queue_that_goes_between_two_pieces_gets_nothing(stage: Stage, talk: Talk) -> None:
    begin(talk, b"x")
    stage.broker.vhosts["/"].topology.remove_queue(gone := queue_of(talk, MANY - 2))
    stage.end_turn()
    talk.broker(Basic.Ack(1))
    assert gone.records.counts.published == 0


def test_a_message_is_numbered_though_the_queues_of_the_first_piece_are_gone(stage: Stage, talk: Talk) -> None:
    broker = stage.broker
    talk.publish("q0", b"before", properties=PERSISTENT).hear_all()
    queues = [*broker.vhosts["/"].queues.values()]
    message = ready(talk, 0)[0]
    for queue in queues[: MANY // 2]:
        broker.vhosts["/"].topology.remove_queue(queue)
    hand_over = HandOver(broker, [message], queues, is_timed=False)
    while hand_over.has_work:
        hand_over.work()
    assert message.number < ready(talk, MANY - 2)[0].number == broker.next_message_number - 1
    assert not hand_over.has_renumbered
    stage.end_turn()


def test_a_message_with_several_numbers_is_confirmed_by_no_ack_of_others(stage: Stage, talk: Talk) -> None:
    other = begin_with_others(stage, talk)
    stage.end_turn()
    assert len({ready(talk, n)[0].number for n in range(MANY)}) > 1
    other.publish_and_ack()
    stage.end_turn()
    talk.nothing()
    stage.commit()
    talk.broker(Basic.Ack(1))


def test_what_follows_a_message_with_several_numbers_is_confirmed_after_it(stage: Stage, talk: Talk) -> None:
    other = begin_with_others(stage, talk)
    talk.publish("", b"y", exchange="amq.fanout").publish(NOISE, b"z", properties=PERSISTENT)
    other.ack()
    stage.end_turn()
    talk.nothing()
    stage.commit()
    talk.broker(Basic.Ack(3, True))


def begin_with_others(stage: Stage, talk: Talk) -> Other:
    """Publish a message to the durable queues, then to transient ones, while another client publishes."""
    for n in range(200):
        add_queue(stage, f"t{n}", durable=False)
    other = Other(stage)
    stage.commits_at_once = False
    begin(talk, b"x")
    while not stage.broker.vhosts["/"].queues["t199"].ready:
        other.publish()
        step(talk)
    return other


def test_a_message_with_one_number_in_many_queues_is_confirmed_once_it_is_acked_in_the_durable_ones(
    stage: Stage
) -> None:
    talk = stage.client().open_channel()
    talk.client(Exchange.Declare(exchange="wide", exchange_type="fanout", durable=True), Confirm.Select())
    for n in range(MANY):
        add_queue(stage, f"q{n}", durable=n == 7)
    talk.client(Basic.Consume(queue="q7")).hear_all()
    stage.commits_at_once = False
    talk.publish("", b"x", exchange="wide", properties=PERSISTENT).hear(Basic.Deliver)
    talk.nothing()
    talk.client(Basic.Ack(1)).broker(Basic.Ack(1))


class Other:
    """Another client, which publishes to a queue of its own, and consumes from it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._talk = stage.client().open_channel()
        self._talk.client(Queue.Declare(queue=NOISE, durable=True)).hear(Queue.DeclareOk)
        self._talk.client(Basic.Consume(queue=NOISE)).hear(Basic.ConsumeOk)

    def publish(self) -> None:
        """Publish a message, within the turn."""
        method = Basic.Publish(routing_key=NOISE)
        self._talk.session.receive(self._talk._marshal(method, 1, b"noise", PERSISTENT), self._stage.now_ms)

    def ack(self) -> None:
        """Ack all messages, within the turn."""
        self._talk.session.receive(self._talk._marshal(Basic.Ack(0, True), 1, None, None), self._stage.now_ms)

    def publish_and_ack(self) -> None:
        """Publish a message and ack all, within the turn."""
        self.publish()
        self.ack()

    def end(self) -> None:
        """Expect nothing more."""
        self._talk.hear_all()


SIZES = st.sampled_from([1, 2, MOST_QUEUES - 2, MOST_QUEUES + 2, WIDE, WIDE + 30])
GROUPS = st.lists(st.tuples(st.booleans(), SIZES), min_size=1, max_size=3)
ACTS = st.lists(st.sampled_from(["publish", "ack", "commit", "nothing"]), min_size=1, max_size=5)


@given(groups=GROUPS, count=st.integers(1, 2), acts=ACTS, acked=st.randoms(use_true_random=False))
@example(groups=[(True, 2), (False, WIDE)], count=1, acts=["publish"], acked=Random(1))
@example(groups=[(True, WIDE), (False, 100)], count=2, acts=["commit", "publish"], acked=Random(1))
def test_a_confirm_says_that_each_durable_queue_has_the_message_on_disk_or_acked(groups, count, acts, acked):
    stage = Stage()
    talk, consumer = stage.client().open_channel(), stage.client().open_channel()
    talk.client(Exchange.Declare(exchange="wide", exchange_type="fanout", durable=True), Confirm.Select()).hear_all()
    names = [(f"{group}-{n}", durable) for group, (durable, size) in enumerate(groups) for n in range(size)]
    for name, durable in names:
        add_queue(stage, name, durable=durable)
    durable_names = [name for name, durable in names if durable]
    for name in durable_names[-6:]:
        consumer.client(Basic.Consume(queue=name, consumer_tag=name)).hear(Basic.ConsumeOk)
    other = Other(stage)
    stage.commits_at_once = False
    bodies = [b"%d" % n for n in range(count)]
    begin(talk, *bodies)
    doings = {"publish": other.publish, "ack": other.ack, "commit": stage.commit, "nothing": nothing}
    for act in cycle(acts):
        if stage.broker.worklist.is_empty:
            break
        doings[act]()
        step(talk)
    stage.end_turn()
    other.publish_and_ack()
    stage.end_turn()
    deliveries = [heard for heard in consumer.hear_all() if isinstance(heard.said, Basic.Deliver)]
    assert len(deliveries) == count * min(len(durable_names), 6)
    left = {(name, body) for name in durable_names for body in bodies}
    confirmed = 0
    acked.shuffle(deliveries)
    for heard in [None, *deliveries]:
        if heard is not None:
            consumer.client(Basic.Ack(heard.said.delivery_tag))
            left.discard((heard.said.consumer_tag, heard.body))
        if now := [one.said.delivery_tag for one in talk.hear_all()]:
            confirmed = now[-1]
            assert not {(name, body) for name, body in left if body in bodies[:confirmed]} - on_disk(stage)
    stage.commit()
    assert max([confirmed, *(one.said.delivery_tag for one in talk.hear_all())]) == count
    other.end()
    stage.assert_silent()


def on_disk(stage: Stage) -> set[tuple[str, bytes]]:
    """Return the queue and the body of all messages that a crash would leave."""
    safe = stage.journal.safe
    return {
        (definition.name, message.body) for definition in safe.definitions.values()
        if isinstance(definition, QueueDefinition) for message in safe.messages[definition.number].values()}


def test_what_one_queue_refuses_is_not_confirmed(talk: Talk) -> None:
    talk.publish("", b"taken", exchange="wide", properties=PERSISTENT).broker(Basic.Ack(1))
    talk.publish("", b"refused", exchange="wide", properties=PERSISTENT).broker(Basic.Nack(2))
    talk.publish("q0", b"next").broker(Basic.Ack(3))


def test_what_one_queue_fails_to_take_is_not_confirmed_and_comes_to_the_others(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publish = BrokerQueue.publish

    def fail(queue: BrokerQueue, *arguments: object, **options: bool) -> int:
        if queue.name == "q3":
            raise ValueError
        return publish(queue, *arguments, **options)    # type: ignore[arg-type]

    monkeypatch.setattr(BrokerQueue, "publish", fail)
    talk.publish("", b"x", exchange="wide").broker(Basic.Nack(1))
    assert "queue 'q3' in vhost '/' could not take 1 messages" in caplog.text
    assert all(len(ready(talk, n)) == (n != 3) for n in range(MANY))


@pytest.mark.parametrize("leave", [
    lambda talk: talk.session.lost(), lambda talk: talk.session.force_close("enough")], ids=["lost", "closed"])
def test_a_hand_over_is_carried_through_whatever_becomes_of_the_client(
    stage: Stage, talk: Talk, leave: Callable[[Talk], None]
) -> None:
    begin(talk, b"x")
    leave(talk)
    stage.end_turn()
    talk.hear_all()
    assert all(len(ready(talk, n)) == 1 for n in range(MANY))


def test_a_mandatory_publish_to_very_many_queues_does_not_come_back(talk: Talk) -> None:
    talk.publish("", b"x", exchange="wide", mandatory=True).broker(Basic.Ack(1))


def test_a_message_that_expires_at_once_does_so_in_each_of_very_many_queues(talk: Talk) -> None:
    talk.publish("", b"x", exchange="wide", properties=Basic.Properties(expiration="0")).broker(Basic.Ack(1))
    assert not any(ready(talk, n) for n in range(MANY))
    talk.client(Queue.Declare(queue="q0", passive=True)).broker(Queue.DeclareOk("q0", 0, 0))


def test_copies_with_new_numbers_are_kept_once_for_as_many_queues_as_share_them(stage: Stage, talk: Talk) -> None:
    """The store keeps a message with one holder in a queue's own row."""
    other = stage.client().open_channel()
    begin(talk, b"x")
    at = next(n for n in range(MANY) if not ready(talk, n))
    other.session.receive(other._marshal(Basic.Publish(routing_key="q0"), 1, b"other", PERSISTENT), stage.now_ms)
    stage.end_turn()
    talk.hear_all()
    copy, = ready(talk, at)
    assert copy.number > ready(talk, 0)[0].number
    assert copy.holders == PIECE // (QUEUE_STEPS + 1) * SLICE // PIECE > 2
    assert ready(talk, at + 1)[0] is copy


def test_transient_copies_have_no_holders(stage: Stage, talk: Talk) -> None:
    other = stage.client().open_channel()
    talk.session.receive(talk._marshal(Basic.Publish(exchange="wide"), 1, b"x", None), stage.now_ms)
    at = next(n for n in range(MANY) if not ready(talk, n))
    other.session.receive(other._marshal(Basic.Publish(routing_key="q0"), 1, b"other", PERSISTENT), stage.now_ms)
    stage.end_turn()
    talk.hear_all()
    assert ready(talk, at)[0].holders == 0


@pytest.mark.parametrize("count", [1, 2])
def test_messages_of_a_transaction_that_expire_at_once_do_so_in_very_many_queues(
    stage: Stage, talk: Talk, count: int
) -> None:
    other = stage.client().open_channel().client(Tx.Select()).broker(Tx.SelectOk())
    other.publish("", *[b"x"] * count, exchange="wide", properties=Basic.Properties(expiration="0"))
    other.client(Tx.Commit()).hear_all()
    assert not any(ready(talk, n) for n in range(MANY))
    assert queue_of(talk, 0).statistics().expired == count
