"""Publishes with large bodies: the body is written to the store first, and what the client sends next waits."""

from __future__ import annotations

import pytest
from pamqp.commands import Basic, Channel, Confirm, Exchange, Queue, Tx

from amqpd.broker.broker import OPERATOR
from amqpd.broker.dead_letter_router import DeadLetterRouter
from amqpd.broker.definitions import BindingDefinition, PermissionDefinition, QueueDefinition
from amqpd.broker.hand_over import WIDE
from amqpd.errors import ChannelException, ReplyCode
from amqpd.message import LARGE_BODY, Message, StoredBody, StoredMessage
from amqpd.session.uncommitted import LARGE_OF_MANY
from amqpd.store.body_writes import BodyQueue, BodyWrite, parts_of
from tests.support.talk import Stage, Talk

LARGE = b"x" * (LARGE_BODY + 1)
PERSISTENT = Basic.Properties(delivery_mode=2)
NAMED = Basic.Properties(delivery_mode=2, reply_to="amq.rabbitmq.reply-to")


@pytest.fixture
def stage() -> Stage:
    """Return a broker whose store has written the bodies that `write` names."""
    stage = Stage()
    stage.journal.bodies = BodyQueue()
    stage.journal.bodies.release = released(stage).append
    return stage


def released(stage: Stage) -> list[int]:
    """The bodies that no message in memory has any more."""
    found: list[int] = stage.__dict__.setdefault("released", [])
    return found


@pytest.fixture
def talk(stage: Stage) -> Talk:
    """A client with confirms; the queue `q` is durable, `lost` is not."""
    talk = stage.client().open_channel()
    for name in ("q", "other", "lost"):
        talk.client(Queue.Declare(queue=name, durable=name != "lost")).broker(Queue.DeclareOk(name, 0, 0))
    return talk.client(Confirm.Select()).broker(Confirm.SelectOk())


def bodies(stage: Stage) -> list[BodyWrite]:
    """The bodies that are being written."""
    assert stage.journal.bodies is not None
    return [*stage.journal.bodies._bodies]


def write(stage: Stage) -> None:
    """Write one body."""
    note_written(stage)
    stage.end_turn()


def note_written(stage: Stage) -> None:
    """Note that one body is in the store."""
    body, *_ = bodies(stage)
    body.stored.body_id = len(released(stage)) + 1
    body.note_written([0] * parts_of(body.stored.size))


def ready(stage: Stage, queue: str = "q") -> list[Message]:
    return [*stage.broker.vhosts["/"].queues[queue].ready]      # type: ignore[list-item]  # all of them are in memory


def sizes(stage: Stage, queue: str = "q") -> list[int]:
    return [message.body_size for message in ready(stage, queue)]


def test_a_large_body_is_written_before_its_message_is_recorded(stage: Stage, talk: Talk) -> None:
    talk.publish("q", LARGE, persistent=True).nothing()
    assert sizes(stage) == [] and len(bodies(stage)) == 1
    write(stage)
    talk.broker(Basic.Ack(1))
    assert [message.body for message in ready(stage)] == [LARGE]
    assert [type(message) for message in ready(stage)] == [StoredMessage] and released(stage) == []


def test_what_comes_after_it_waits_and_what_came_before_it_does_not(stage: Stage, talk: Talk) -> None:
    talk.publish("q", b"before", LARGE, LARGE, b"after", persistent=True).broker(Basic.Ack(1))
    other = stage.client().open_channel()
    other.publish("q", b"of another", persistent=True)
    assert sizes(stage) == [6, 10]
    write(stage)
    assert sizes(stage) == [6, 10, len(LARGE)] and len(bodies(stage)) == 1
    write(stage)
    assert sizes(stage) == [6, 10, len(LARGE), len(LARGE), 5]
    talk.broker(Basic.Ack(2)).broker(Basic.Ack(4, multiple=True))
    numbers = [message.number for message in ready(stage)]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("queue, body, properties", [
    ("lost", LARGE, PERSISTENT), ("none", LARGE, PERSISTENT), ("q", LARGE, None), ("q", LARGE[:-1], PERSISTENT),
], ids=["transient queue", "no queue", "transient message", "not large"])
def test_only_what_is_kept_and_large_is_written_first(stage: Stage, talk: Talk, queue, body, properties) -> None:
    talk.publish(queue, body, properties=properties).broker(Basic.Ack(1))
    assert bodies(stage) == []


def test_a_body_for_several_queues_is_written_once(stage: Stage, talk: Talk) -> None:
    properties = Basic.Properties(delivery_mode=2, headers={"CC": ["other", "lost"]})
    talk.publish("q", LARGE, properties=properties)
    write(stage)
    talk.broker(Basic.Ack(1))
    assert bodies(stage) == [] and [sizes(stage, queue) for queue in ("q", "other", "lost")] == [[len(LARGE)]] * 3
    assert ready(stage)[0].holders == 2


def test_the_address_for_replies_is_put_in_whatever_waits(stage: Stage, talk: Talk) -> None:
    talk.client(Basic.Consume(queue="amq.rabbitmq.reply-to", no_ack=True))
    talk.hear_all()
    talk.publish("q", LARGE, LARGE, properties=NAMED)
    for _ in range(2):
        write(stage)
    talk.hear_all()
    assert [b"g1h2" in message.properties for message in ready(stage)] == [True] * 2
    assert [message.body for message in ready(stage)] == [LARGE] * 2 and bodies(stage) == [] == released(stage)


def test_a_body_that_no_queue_takes_in_the_end_is_dropped(stage: Stage, talk: Talk) -> None:
    """Its queue is full, or deleted meanwhile, or only a transient one is left."""
    vhost = stage.broker.vhosts["/"]
    full = {"x-max-length": 0, "x-overflow": "reject-publish"}
    vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", "full", durable=True, arguments=full), OPERATOR)
    talk.publish("full", LARGE, persistent=True)
    write(stage)
    talk.broker(Basic.Nack(1))
    assert released(stage) == [1]
    talk.publish("other", LARGE, persistent=True)
    stage.client().open_channel().client(Queue.Delete(queue="other"))
    write(stage)
    talk.broker(Basic.Ack(2))
    assert released(stage) == [1, 2]
    properties = Basic.Properties(delivery_mode=2, headers={"CC": ["lost"]})
    talk.publish("q", LARGE, properties=properties)
    stage.client().open_channel().client(Queue.Delete(queue="q"))
    write(stage)
    talk.broker(Basic.Ack(3))
    assert released(stage) == [1, 2, 3] and sizes(stage, "lost") == [len(LARGE)]


def test_a_client_that_goes_meanwhile_leaves_nothing(stage: Stage, talk: Talk) -> None:
    talk.publish("q", LARGE, persistent=True)
    talk.lose()
    assert bodies(stage) == [] and sizes(stage) == []


def test_a_body_that_is_written_when_the_client_is_gone_is_dropped(stage: Stage, talk: Talk) -> None:
    talk.publish("q", LARGE, persistent=True)
    note_written(stage)
    talk.lose()
    assert released(stage) == [1] and sizes(stage) == []


def test_a_channel_that_the_broker_closes_meanwhile_does_not_keep_the_connection(stage: Stage, talk: Talk) -> None:
    talk.publish("q", LARGE, persistent=True)
    error = ChannelException(ReplyCode.PRECONDITION_FAILED, "delivery acknowledgement timed out")
    talk.session.channels[1].close(error, (0, 0))
    stage.end_turn()
    talk.hear(Channel.Close)
    assert bodies(stage) == [] == sizes(stage)
    talk.client(Channel.CloseOk()).open_channel(2)


def test_a_publish_that_is_not_allowed_any_more_is_refused_and_its_body_dropped(stage: Stage, talk: Talk) -> None:
    talk.publish("q", LARGE, persistent=True)
    stage.broker.users.set_permissions(PermissionDefinition("guest", "/", ".*", "", ".*"))
    write(stage)
    assert isinstance(talk.hear(Channel.Close), Channel.Close)
    assert len(released(stage)) == 1 and sizes(stage) == []


def test_a_journal_in_memory_writes_nothing_first(stage: Stage, talk: Talk) -> None:
    stage.journal.bodies = None
    talk.publish("q", LARGE, persistent=True).broker(Basic.Ack(1))
    assert sizes(stage) == [len(LARGE)]


# What shares a body

def test_a_publish_to_very_many_queues_writes_its_body_once_and_before_any_queue_has_it(
    stage: Stage, talk: Talk
) -> None:
    vhost, count = stage.broker.vhosts["/"], 300
    talk.client(Exchange.Declare(exchange="wide", exchange_type="fanout")).broker(Exchange.DeclareOk())
    for n in range(count):
        vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", f"q{n}", durable=True), OPERATOR)
        vhost.bind(OPERATOR, BindingDefinition("/", "wide", "queue", f"q{n}", "", {}), OPERATOR)
    stage.end_turn()
    talk.publish("", LARGE, LARGE, exchange="wide", persistent=True).nothing()
    assert not any(ready(stage, f"q{n}") for n in range(count)) and len(bodies(stage)) == 1
    other = stage.client().open_channel()
    note_written(stage)
    stage.broker.effort.begin_turn()
    talk.session.go_on()
    while not ready(stage, "q0"):
        stage.broker.worklist.work()
    at = next(n for n in range(count) if not ready(stage, f"q{n}"))
    other.session.receive(other._marshal(Basic.Publish(routing_key="lost"), 1, b"x", None), stage.now_ms)
    stage.end_turn()
    talk.broker(Basic.Ack(1))
    assert len(bodies(stage)) == 1, "the second publish"
    found = [ready(stage, f"q{n}")[0] for n in range(count)]
    assert found[at].number > found[0].number
    assert len({stored_body(message) for message in found}) == 1 and released(stage) == []


def stored_body(message: Message) -> StoredBody:
    assert isinstance(message, StoredMessage)
    return message.stored_body


def test_a_dead_letter_has_the_body_of_its_message(stage: Stage, talk: Talk) -> None:
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "other"}
    talk.client(Queue.Declare(queue="source", durable=True, arguments=arguments))
    talk.broker(Queue.DeclareOk("source", 0, 0))
    talk.publish("source", LARGE, persistent=True)
    write(stage)
    talk.broker(Basic.Ack(1))
    before = stored_body(ready(stage, "source")[0])
    talk.client(Basic.Get(queue="source"))
    talk.hear_all()
    talk.client(Basic.Nack(1, requeue=False))
    dead, = ready(stage, "other")
    assert stored_body(dead) is before and dead.body == LARGE and b"x-death" in dead.properties
    assert bodies(stage) == [] == released(stage)


# Dead letters whose bodies the store does not have

@pytest.fixture
def transient(talk: Talk) -> Talk:
    """The same client, with two queues that are not durable and dead-letter to `other`, or to `lost`."""
    for name, to in (("source", "other"), ("beside", "other"), ("gone", "lost")):
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": to, "x-max-length": 0}
        if name == "source":
            arguments["x-max-length"] = 9
        talk.client(Queue.Declare(queue=name, arguments=arguments)).broker(Queue.DeclareOk(name, 0, 0))
    return talk


def reject_all(talk: Talk, count: int) -> None:
    for _ in range(count):
        talk.client(Basic.Get(queue="source"))
    talk.hear_all()
    talk.client(Basic.Nack(count, multiple=True, requeue=False))


def test_a_dead_letter_of_a_transient_queue_is_moved_when_its_body_has_been_written(
    stage: Stage, transient: Talk
) -> None:
    transient.publish("source", b"1", LARGE, b"2", LARGE, persistent=True)
    transient.hear_all()
    reject_all(transient, 4)
    assert sizes(stage, "other") == [1] and len(bodies(stage)) == 1
    transient.publish("beside", b"3", persistent=True).broker(Basic.Ack(5))
    assert sizes(stage, "other") == [1, 1], "another queue does not wait"
    before = stage.broker.effort.total
    stage.end_turn()
    assert stage.broker.effort.total == before and stage.broker.worklist.is_empty, "it works while it waits"
    write(stage)
    assert sizes(stage, "other") == [1, 1, len(LARGE), 1] and len(bodies(stage)) == 1
    write(stage)
    found = ready(stage, "other")
    assert [message.body for message in found] == [b"1", b"3", LARGE, b"2", LARGE]
    assert [type(message) for message in found] == [Message, Message, StoredMessage, Message, StoredMessage]
    assert bodies(stage) == [] == released(stage)


@pytest.mark.parametrize("queue, properties", [("gone", PERSISTENT), ("beside", None)])
def test_a_dead_letter_that_no_queue_keeps_does_not_wait(stage: Stage, transient: Talk, queue, properties) -> None:
    transient.publish(queue, LARGE, properties=properties).broker(Basic.Ack(1))
    assert bodies(stage) == [] and sizes(stage, "lost" if queue == "gone" else "other") == [len(LARGE)]


def test_dead_letters_that_wait_for_a_body_survive_the_deletion_of_their_queue(stage: Stage, transient: Talk) -> None:
    transient.publish("source", LARGE, b"1", persistent=True)
    transient.hear_all()
    reject_all(transient, 2)
    stage.client().open_channel().client(Queue.Delete(queue="source"))
    assert sizes(stage, "other") == []
    write(stage)
    assert sizes(stage, "other") == [len(LARGE), 1]


def test_a_target_that_is_deleted_while_a_body_is_written_gets_nothing(stage: Stage, transient: Talk) -> None:
    transient.publish("source", LARGE, persistent=True)
    transient.hear_all()
    reject_all(transient, 1)
    stage.client().open_channel().client(Queue.Delete(queue="other"))
    write(stage)
    assert released(stage) == [1] and not stage.broker.vhosts["/"].dead_letters.has_work


def test_a_large_dead_letter_whose_route_fails_is_set_aside_alone(
    stage: Stage, transient: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    router, targets = stage.broker.vhosts["/"].dead_letters, DeadLetterRouter._targets

    def fail_for_large(self: DeadLetterRouter, exchange: object, keys: object, copy: Message, known: object) -> object:
        if copy.body_size > LARGE_BODY:
            raise RuntimeError("a mistake of ours")
        return targets(self, exchange, keys, copy, known)  # type: ignore[arg-type]

    monkeypatch.setattr(DeadLetterRouter, "_targets", fail_for_large)
    transient.publish("source", b"1", LARGE, b"2", persistent=True)
    transient.hear_all()
    reject_all(transient, 3)
    assert sizes(stage, "other") == [1, 1] and not router.has_work and bodies(stage) == []
    assert len(stage.broker.vhosts["/"].queues["source"].dead_letters.aside) == 1


def test_a_journal_in_memory_lets_no_dead_letter_wait(stage: Stage, transient: Talk) -> None:
    stage.journal.bodies = None
    transient.publish("beside", LARGE, persistent=True).broker(Basic.Ack(1))
    assert sizes(stage, "other") == [len(LARGE)]


# Transactions

@pytest.fixture
def tx(stage: Stage) -> Talk:
    """A client with a transaction; `q` is durable, `lost` is not."""
    talk = stage.client().open_channel()
    for name in ("q", "lost"):
        talk.client(Queue.Declare(queue=name, durable=name != "lost")).broker(Queue.DeclareOk(name, 0, 0))
    return talk.client(Tx.Select()).broker(Tx.SelectOk())


def test_the_bodies_of_a_transaction_are_written_one_by_one_before_its_commit(stage: Stage, tx: Talk) -> None:
    tx.publish("q", LARGE, b"small", LARGE[1:] + b"ab", persistent=True).client(Tx.Commit()).nothing()
    for _ in range(2):
        assert sizes(stage) == [] and len(bodies(stage)) == 1
        write(stage)
    tx.broker(Tx.CommitOk())
    assert [message.body for message in ready(stage)] == [LARGE, b"small", LARGE[1:] + b"ab"]
    assert [type(message) for message in ready(stage)] == [StoredMessage, Message, StoredMessage]
    assert bodies(stage) == [] == released(stage)
    numbers = [message.number for message in ready(stage)]
    assert numbers == sorted(numbers)
    tx.publish("q", b"next", persistent=True).client(Tx.Commit()).broker(Tx.CommitOk())


def test_what_others_publish_while_bodies_are_written_comes_first(stage: Stage, tx: Talk) -> None:
    tx.publish("q", LARGE, persistent=True).client(Tx.Commit())
    stage.client().open_channel().publish("q", b"other", persistent=True)
    write(stage)
    tx.broker(Tx.CommitOk())
    assert sizes(stage) == [5, len(LARGE)]


@pytest.mark.parametrize("count, waits", [(4, True), (3, False)])
def test_bodies_that_are_large_together_are_written_before_the_commit(
    stage: Stage, tx: Talk, count: int, waits: bool
) -> None:
    tx.publish("q", *[bytes(LARGE_BODY // 4 + 1)] * count, b"x", persistent=True).client(Tx.Commit())
    assert bool(bodies(stage)) == waits
    while bodies(stage):
        write(stage)
    tx.broker(Tx.CommitOk())
    assert [type(message) for message in ready(stage)] == [StoredMessage if waits else Message] * count + [Message]


@pytest.mark.parametrize("queues, waits", [(WIDE, True), (WIDE - 1, False)])
def test_a_body_for_very_many_queues_is_written_before_the_commit_since_a_batch_may_have_it_often(
    stage: Stage, tx: Talk, queues: int, waits: bool
) -> None:
    vhost = stage.broker.vhosts["/"]
    for n in range(queues):
        vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", f"q{n}", durable=True), OPERATOR)
        vhost.bind(OPERATOR, BindingDefinition("/", "amq.fanout", "queue", f"q{n}", "", {}), OPERATOR)
    stage.end_turn()
    tx.publish("", bytes(LARGE_OF_MANY), bytes(LARGE_OF_MANY + 1), exchange="amq.fanout", persistent=True)
    tx.client(Tx.Commit())
    assert len(bodies(stage)) == waits
    while bodies(stage):
        write(stage)
    tx.broker(Tx.CommitOk())
    assert sizes(stage, "q0") == [LARGE_OF_MANY, LARGE_OF_MANY + 1]
    assert [type(message) for message in ready(stage, "q0")] == [Message, StoredMessage if waits else Message]


@pytest.mark.parametrize("queue, properties", [("lost", PERSISTENT), ("none", PERSISTENT), ("q", None)])
def test_what_is_not_kept_of_a_transaction_is_not_written_first(stage: Stage, tx: Talk, queue, properties) -> None:
    tx.publish(queue, LARGE, properties=properties).client(Tx.Commit()).broker(Tx.CommitOk())
    assert bodies(stage) == []


def test_a_transaction_whose_client_goes_while_bodies_are_written_leaves_nothing(stage: Stage, tx: Talk) -> None:
    tx.publish("q", LARGE, LARGE, persistent=True).client(Tx.Commit())
    write(stage)
    assert len(bodies(stage)) == 1
    tx.lose()
    stage.end_turn()
    assert bodies(stage) == [] == sizes(stage) and released(stage) == [1]


def test_a_transaction_that_is_rolled_back_writes_no_body(stage: Stage, tx: Talk) -> None:
    tx.publish("q", LARGE, persistent=True).client(Tx.Rollback()).broker(Tx.RollbackOk())
    tx.client(Tx.Commit()).broker(Tx.CommitOk())
    assert bodies(stage) == [] == sizes(stage)


def test_a_transaction_in_memory_writes_nothing_first(stage: Stage, tx: Talk) -> None:
    stage.journal.bodies = None
    tx.publish("q", LARGE, LARGE, persistent=True).client(Tx.Commit()).broker(Tx.CommitOk())
    assert sizes(stage) == [len(LARGE)] * 2
