"""Transactions: what takes effect at the commit, what a rollback undoes, and what takes effect at once."""

from __future__ import annotations

import msgspec
import pytest
from pamqp.commands import Basic, Channel, Queue, Tx

from amqpd.broker.counts import ExchangeCounts
from amqpd.broker.worklist import Worklist
from amqpd.errors import ChannelException
from amqpd.session.commit import Held
from amqpd.session.receiver import METHOD_STEPS
from amqpd.session.uncommitted import Uncommitted
from tests.support.samples import message
from tests.support.talk import SETTINGS, Stage, Talk


@pytest.fixture
def tx(talk: Talk) -> Talk:
    """A transactional channel 1, an ordinary channel 2, a queue `q` and a durable queue `d`."""
    talk.open_channel(1).open_channel(2)
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    talk.client(Queue.Declare(queue="d", durable=True)).broker(Queue.DeclareOk("d", 0, 0))
    return talk.client(Tx.Select()).broker(Tx.SelectOk())


def commit(talk: Talk) -> Talk:
    return talk.client(Tx.Commit()).broker(Tx.CommitOk())


def roll_back(talk: Talk) -> Talk:
    return talk.client(Tx.Rollback()).broker(Tx.RollbackOk())


def bodies(talk: Talk, queue: str = "q") -> list[bytes]:
    return [message.body for message in talk.stage.broker.vhosts["/"].queues[queue].ready]


def get(talk: Talk, tag: int, body: bytes, left: int = 0, *, again: bool = False) -> Talk:
    return talk.client(Basic.Get(queue="q")).broker(Basic.GetOk(tag, again, "", "q", left), content=body)


@pytest.mark.parametrize("method", [Tx.Commit(), Tx.Rollback()], ids=lambda method: method.name)
def test_a_channel_without_transactions_refuses_to_end_one(talk: Talk, method: Tx.Commit) -> None:
    talk.open_channel().client(method)
    talk.closed(406, "PRECONDITION_FAILED - channel is not transactional", 90, method.index & 0xFFFF)


def test_a_second_select_changes_nothing(tx: Talk) -> None:
    tx.publish("q", b"a").client(Tx.Select()).broker(Tx.SelectOk())
    commit(tx)
    assert bodies(tx) == [b"a"]


def test_publishes_wait_for_the_commit(tx: Talk) -> None:
    tx.publish("q", b"a", b"b").publish("q", b"c")
    assert bodies(tx) == []
    commit(tx)
    assert bodies(tx) == [b"a", b"b", b"c"]


def test_publishes_of_a_rollback_are_forgotten(tx: Talk) -> None:
    roll_back(tx.publish("q", b"a")).publish("q", b"b")
    commit(tx)
    assert bodies(tx) == [b"b"]


def test_a_transaction_begins_where_the_last_one_ended(tx: Talk) -> None:
    commit(commit(tx.publish("q", b"a")))
    assert bodies(tx) == [b"a"]


def test_a_mandatory_publish_comes_back_before_commit_ok(tx: Talk) -> None:
    tx.publish("nowhere", b"a", mandatory=True).nothing().client(Tx.Commit())
    tx.broker(Basic.Return(312, "NO_ROUTE", "", "nowhere"), content=b"a").broker(Tx.CommitOk())


def test_a_mandatory_publish_that_was_rolled_back_does_not_come_back(tx: Talk) -> None:
    commit(roll_back(tx.publish("nowhere", b"a", mandatory=True)))


def test_a_publish_is_refused_when_it_comes_not_at_the_commit(tx: Talk) -> None:
    tx.publish("q", b"a").client(Basic.Publish(exchange="missing"), content=b"b")
    tx.closed(404, "NOT_FOUND - no exchange 'missing' in vhost '/'", 60, 40)
    assert bodies(tx) == []


def test_routes_are_those_of_the_publish_not_of_the_commit(tx: Talk) -> None:
    tx.publish("k", b"a", exchange="amq.direct")
    tx.client(Queue.Bind(queue="q", exchange="amq.direct", routing_key="k")).broker(Queue.BindOk())
    commit(tx.publish("k", b"b", exchange="amq.direct"))
    assert bodies(tx) == [b"b"]


def test_a_message_for_a_queue_that_is_deleted_before_the_commit_is_gone(tx: Talk) -> None:
    tx.publish("d", b"a", persistent=True).publish("q", b"b")
    tx.client(Queue.Delete(queue="d"), channel=2).broker(Queue.DeleteOk(0), channel=2)
    commit(tx)
    assert bodies(tx) == [b"b"] and tx.stage.journal.now.messages == {}


def test_acks_wait_for_the_commit(tx: Talk) -> None:
    tx.publish("q", b"a", channel=2)
    get(tx, 1, b"a").client(Basic.Ack(1))
    assert tx.stage.broker.vhosts["/"].queues["q"].unacked == 1
    commit(tx)
    assert tx.stage.broker.vhosts["/"].queues["q"].unacked == 0


def test_a_nack_that_requeues_waits_for_the_commit(tx: Talk) -> None:
    tx.publish("q", b"a", channel=2)
    get(tx, 1, b"a").client(Basic.Reject(1, True))
    assert bodies(tx) == []
    commit(tx)
    assert bodies(tx) == [b"a"]


def test_acks_of_a_rollback_are_undone_and_may_be_made_again(tx: Talk) -> None:
    tx.publish("q", b"a", b"b", b"c", channel=2)
    for tag, body in enumerate((b"a", b"b", b"c"), 1):
        get(tx, tag, body, 3 - tag)
    roll_back(tx.client(Basic.Ack(2)).client(Basic.Ack(1))).client(Basic.Ack(3, True))
    commit(tx)
    assert tx.stage.broker.vhosts["/"].queues["q"].unacked == 0


def test_a_second_rollback_undoes_what_came_after_the_first(tx: Talk) -> None:
    tx.publish("q", b"a", channel=2)
    get(tx, 1, b"a")
    for _ in range(2):
        roll_back(tx.client(Basic.Ack(1)).publish("q", b"b"))
        assert [*tx.session.channels[1].consuming.unacked] == [1] and bodies(tx) == []
    commit(tx)
    assert tx.stage.broker.vhosts["/"].queues["q"].unacked == 1


def test_a_rollback_puts_back_all_answers_in_one_step_each_however_many_there_are(tx: Talk) -> None:
    tx.publish("q", *[b"a"] * 30, channel=2)
    for tag in range(30):
        tx.client(Basic.Get(queue="q")).hear(Basic.GetOk)
    for tag in range(20, 0, -1):
        tx.client(Basic.Ack(tag))
    before = tx.stage.broker.effort.total
    roll_back(tx)
    assert before + 30 < tx.stage.broker.effort.total <= before + METHOD_STEPS + 1 + 30     # 1 for its octets
    assert [*tx.session.channels[1].consuming.unacked] == [*range(1, 31)]


def test_a_delivery_whose_ack_was_rolled_back_is_as_old_as_before(tx: Talk) -> None:
    tx.publish("q", b"a", channel=2)
    get(tx, 1, b"a").client(Basic.Ack(1)).stage.pass_time(1)
    roll_back(tx).stage.pass_time(1_799)
    tx.nothing().stage.pass_time(0.25)
    assert tx.hear(Channel.Close).reply_code == 406


def test_an_ack_cannot_be_made_twice_in_a_transaction(tx: Talk) -> None:
    tx.publish("q", b"a", channel=2)
    get(tx, 1, b"a").client(Basic.Ack(1)).client(Basic.Ack(1))
    tx.closed(406, "PRECONDITION_FAILED - unknown delivery tag 1", 60, 80)
    assert bodies(tx) == [b"a"]


def test_closing_the_channel_rolls_back(tx: Talk) -> None:
    tx.publish("q", b"a", channel=2)
    get(tx, 1, b"a").client(Basic.Ack(1)).publish("q", b"lost")
    tx.client(Channel.Close(200, "bye", 0, 0)).broker(Channel.CloseOk())
    assert bodies(tx) == [b"a"]


def test_losing_the_connection_rolls_back(tx: Talk) -> None:
    tx.publish("q", b"a", channel=2)
    get(tx, 1, b"a").client(Basic.Ack(1)).publish("q", b"lost").lose()
    assert bodies(tx) == [b"a"]


def test_declarations_and_deliveries_do_not_wait(tx: Talk) -> None:
    tx.client(Basic.Consume(queue="q", consumer_tag="c")).broker(Basic.ConsumeOk("c")).publish("q", b"a", channel=2)
    tx.broker(Basic.Deliver("c", 1, False, "", "q"), content=b"a")
    roll_back(tx.client(Queue.Declare(queue="r")).broker(Queue.DeclareOk("r", 0, 0)))
    tx.client(Queue.Declare(queue="r", passive=True)).broker(Queue.DeclareOk("r", 0, 0))


def test_what_is_published_reaches_a_consumer_before_commit_ok(tx: Talk) -> None:
    tx.client(Basic.Consume(queue="q", consumer_tag="c"), channel=2).broker(Basic.ConsumeOk("c"), channel=2)
    tx.publish("q", b"a").client(Tx.Commit())
    tx.broker(Basic.Deliver("c", 1, False, "", "q"), content=b"a", channel=2).broker(Tx.CommitOk())


def test_commit_ok_waits_for_the_disk(tx: Talk) -> None:
    stage = tx.stage
    stage.commits_at_once = False
    tx.publish("d", b"a", persistent=True).client(Tx.Commit()).nothing()
    assert stage.journal.safe.bodies("d") == []
    stage.commit()
    tx.broker(Tx.CommitOk())
    assert stage.journal.safe.bodies("d") == [b"a"]


def test_the_acks_of_a_transaction_are_on_disk_before_commit_ok(tx: Talk) -> None:
    tx.publish("d", b"a", persistent=True, channel=2).client(Basic.Get(queue="d")).hear(Basic.GetOk)
    stage = tx.stage
    stage.commits_at_once = False
    tx.client(Basic.Ack(1)).client(Tx.Commit()).nothing()
    assert stage.journal.safe.bodies("d") == [b"a"]
    stage.commit()
    tx.broker(Tx.CommitOk())
    assert stage.journal.safe.bodies("d") == []


def test_publishes_and_acks_of_a_transaction_are_in_one_batch(tx: Talk) -> None:
    tx.publish("d", b"a", persistent=True, channel=2).client(Basic.Get(queue="d")).hear(Basic.GetOk)
    stage = tx.stage
    stage.commits_at_once = False
    tx.client(Basic.Ack(1)).publish("d", b"b", persistent=True)
    stage.commit()
    assert stage.journal.safe.bodies("d") == [b"a"]
    before = stage.journal.batch
    tx.client(Tx.Commit())
    assert stage.journal.batch == before and stage.journal.now.bodies("d") == [b"b"]
    stage.commit()
    tx.broker(Tx.CommitOk())


def test_a_commit_with_nothing_for_the_disk_does_not_wait(tx: Talk) -> None:
    tx.stage.commits_at_once = False
    commit(tx.publish("q", b"a"))


def limited(tx: Talk, **limits: int) -> Talk:
    """Another client with a transaction, whose limits are these."""
    tx.stage.settings = msgspec.structs.replace(tx.stage.settings, **limits)
    return tx.stage.client().open_channel().client(Tx.Select()).broker(Tx.SelectOk())


def test_a_transaction_that_grows_too_long_is_rolled_back(tx: Talk) -> None:
    tx = limited(tx, transaction_acts=3)
    tx.publish("q", b"a", b"b").publish("q", b"c", b"d")
    close = tx.hear(Channel.Close)
    assert (close.reply_code, close.class_id, close.method_id) == (406, 60, 40)
    tx.client(Channel.CloseOk())
    assert bodies(tx) == []


def test_a_transaction_that_grows_too_large_is_rolled_back(tx: Talk) -> None:
    tx = limited(tx, transaction_bytes=1_000)
    tx.publish("q", bytes(600)).nothing().publish("q", bytes(600)).hear(Channel.Close)
    tx.client(Channel.CloseOk())
    assert bodies(tx) == []


def test_statistics_tell_what_is_held(stage: Stage) -> None:
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0)).publish("q", b"a")
    talk.client(Tx.Select()).broker(Tx.SelectOk())
    get(talk, 1, b"a").client(Basic.Ack(1)).publish("q", b"b").publish("nowhere", b"c", mandatory=True)
    channel, = talk.session.channel_statistics()
    assert (channel.is_transactional, channel.uncommitted, channel.uncommitted_acks) == (True, 2, 1)


def test_a_message_s_place_in_its_queues_is_that_of_the_commit(tx: Talk) -> None:
    for queue in ("q", "d"):
        tx.client(Queue.Bind(queue=queue, exchange="amq.fanout")).broker(Queue.BindOk())
    tx.publish("q", b"held 1").publish("", b"held 2", exchange="amq.fanout").publish("q", b"early", channel=2)
    tx.publish("", b"early too", exchange="amq.fanout", channel=2)
    commit(tx.publish("q", b"held 3"))
    tx.publish("q", b"late", channel=2)
    assert bodies(tx) == [b"early", b"early too", b"held 1", b"held 2", b"held 3", b"late"]
    assert bodies(tx, "d") == [b"early too", b"held 2"]


@pytest.mark.parametrize("acts, size, is_allowed", [(3, 1, True), (4, 1, False), (1, 100, True), (1, 101, False)])
def test_a_transaction_may_hold_what_its_limits_say_and_no_more(acts: int, size: int, *, is_allowed: bool) -> None:
    settings = msgspec.structs.replace(SETTINGS, transaction_acts=3, transaction_bytes=100)
    uncommitted = Uncommitted(settings, Worklist())
    messages = [message(number, bytes(size)) for number in range(acts)]
    held = Held(messages, ("q",), is_mandatory=False, exchange=ExchangeCounts())
    if is_allowed:
        uncommitted.hold_publishes(held)
    else:
        with pytest.raises(ChannelException, match=r"larger than 3 operations \(.*_operations\) or 100 bytes"):
            uncommitted.hold_publishes(held)
