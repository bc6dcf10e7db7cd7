"""Ack, nack, reject and recover, and the redeliveries that follow."""

from __future__ import annotations

import warnings

from typing import Any

import pytest
from pamqp.commands import Basic, Channel, Queue

from tests.support.talk import Talk, counted

UNKNOWN = "PRECONDITION_FAILED - unknown delivery tag {}"


@pytest.fixture
def five(talk: Talk) -> Talk:
    """Five unacked messages, by consumer `c` of channel 1, of queue `q`; `q` is empty."""
    talk.open_channel().client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    talk.client(Basic.Consume(queue="q", consumer_tag="c")).broker(Basic.ConsumeOk("c"))
    talk.publish("q", *b"1 2 3 4 5".split())
    assert [heard.said.delivery_tag for heard in talk.hear_all()] == [1, 2, 3, 4, 5]
    return talk


def recover_async(*, requeue: bool) -> Basic.RecoverAsync:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")     # pamqp calls it deprecated
        return Basic.RecoverAsync(requeue=requeue)


def assert_unacked(talk: Talk, *tags: int) -> None:
    assert list(talk.session.channels[1].consuming.unacked) == list(tags)
    assert talk.stage.broker.vhosts["/"].queues["q"].unacked == len(tags)


def came_back(talk: Talk, *bodies: bytes, first_tag: int = 6) -> Talk:
    for tag, body in enumerate(bodies, first_tag):
        talk.broker(Basic.Deliver("c", tag, True, "", "q"), content=body)
    return talk


def test_an_ack_settles_one(five: Talk) -> None:
    five.client(Basic.Ack(3)).nothing()
    assert_unacked(five, 1, 2, 4, 5)


def test_an_ack_of_several_settles_all_up_to_it(five: Talk) -> None:
    five.client(Basic.Ack(2)).client(Basic.Ack(4, True)).nothing()
    assert_unacked(five, 5)


def test_an_ack_of_several_with_tag_0_settles_all(five: Talk) -> None:
    five.client(Basic.Ack(0, True)).nothing()
    assert_unacked(five)


def test_an_ack_of_several_with_tag_0_is_fine_with_nothing_to_settle(five: Talk) -> None:
    five.client(Basic.Ack(0, True)).client(Basic.Ack(0, True)).nothing()


def test_acks_in_a_row_settle_each(five: Talk) -> None:
    five.client(Basic.Ack(5), Basic.Ack(1), Basic.Ack(3, True)).nothing()
    assert_unacked(five, 4)


@pytest.mark.parametrize("method", [
    Basic.Ack(6), Basic.Ack(0), Basic.Ack(6, True), Basic.Nack(6), Basic.Nack(9, True), Basic.Reject(0),
    Basic.Ack(2**63 - 1),
], ids=lambda method: method.name)
def test_an_unknown_tag_is_refused_and_everything_goes_back(five: Talk, method: Basic.Ack) -> None:
    five.client(method).closed(406, UNKNOWN.format(method.delivery_tag), 60, method.index & 0xFFFF)
    queue = five.stage.broker.vhosts["/"].queues["q"]
    assert [message.body for message in queue.ready] == [b"1", b"2", b"3", b"4", b"5"]


def test_a_tag_cannot_be_answered_twice(five: Talk) -> None:
    five.client(Basic.Ack(2, True)).client(Basic.Ack(1)).closed(406, UNKNOWN.format(1), 60, 80)


def test_acks_in_a_row_hold_up_to_the_one_that_is_refused(five: Talk) -> None:
    five.client(Basic.Ack(1), Basic.Ack(2), Basic.Ack(2), Basic.Ack(3)).closed(406, UNKNOWN.format(2), 60, 80)
    queue = five.stage.broker.vhosts["/"].queues["q"]
    assert [message.body for message in queue.ready] == [b"3", b"4", b"5"]


def test_an_ack_on_another_channel_is_refused(five: Talk) -> None:
    five.open_channel(2).client(Basic.Ack(1), channel=2).closed(406, UNKNOWN.format(1), 60, 80, channel=2)
    assert_unacked(five, 1, 2, 3, 4, 5)


def test_a_nack_that_does_not_requeue_settles(five: Talk) -> None:
    five.client(Basic.Nack(3, True, False)).client(Basic.Reject(5, False)).nothing()
    assert_unacked(five, 4)


def test_a_nack_that_requeues_brings_the_message_back_at_once(five: Talk) -> None:
    came_back(five.client(Basic.Nack(2, False, True)), b"2")
    assert_unacked(five, 1, 3, 4, 5, 6)


def test_a_reject_that_requeues_brings_the_message_back_at_once(five: Talk) -> None:
    came_back(five.client(Basic.Reject(5, True)), b"5")


def test_a_nack_of_several_brings_them_back_in_order(five: Talk) -> None:
    came_back(five.client(Basic.Ack(2)).client(Basic.Nack(4, True, True)), b"1", b"3", b"4")


def test_a_nack_of_several_with_tag_0_means_all(five: Talk) -> None:
    came_back(five.client(Basic.Nack(0, True, True)), b"1", b"2", b"3", b"4", b"5")


def test_recover_is_answered_before_anything_comes_back(five: Talk) -> None:
    five.client(Basic.Ack(3)).client(Basic.Recover(requeue=True)).broker(Basic.RecoverOk())
    came_back(five, b"1", b"2", b"4", b"5")


def test_recover_async_has_no_answer(five: Talk) -> None:
    came_back(five.client(recover_async(requeue=True)), b"1", b"2", b"3", b"4", b"5")


@pytest.mark.parametrize("method", [Basic.Recover(requeue=False), recover_async(requeue=False)])
def test_recover_to_the_same_consumer_is_not_implemented(five: Talk, method: Basic.Recover) -> None:
    five.client(method).hung_up(540, "NOT_IMPLEMENTED - requeue=false", 60, method.index & 0xFFFF)


def test_only_what_was_given_to_somebody_is_redelivered(five: Talk) -> None:
    five.client(Basic.Cancel("c")).broker(Basic.CancelOk("c")).publish("q", b"6")
    five.client(Basic.Nack(5, False, True)).nothing()
    for tag, (body, again) in enumerate([(b"5", True), (b"6", False)], 6):
        five.client(Basic.Get(queue="q")).broker(Basic.GetOk(tag, again, "", "q", 6 - tag + 1), content=body)


def test_a_message_is_requeued_to_where_it_was_published(five: Talk) -> None:
    five.client(Basic.Cancel("c")).broker(Basic.CancelOk("c"))
    for tag in (4, 1, 3):
        five.client(Basic.Reject(tag, True))
    queue = five.stage.broker.vhosts["/"].queues["q"]
    assert [message.body for message in queue.ready] == [b"1", b"3", b"4"]


def test_what_a_message_without_ack_was_is_not_redelivered(talk: Talk) -> None:
    talk.open_channel().client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0)).publish("q", b"a")
    talk.client(Basic.Consume(queue="q", consumer_tag="c", no_ack=True)).broker(Basic.ConsumeOk("c"))
    talk.broker(Basic.Deliver("c", 1, False, "", "q"), content=b"a")
    talk.client(Basic.Recover(requeue=True)).broker(Basic.RecoverOk())
    talk.client(Channel.Close(200, "bye", 0, 0)).broker(Channel.CloseOk())


@pytest.mark.parametrize("arguments, is_told", [
    ({}, False), ({"x-delivery-limit": 5}, True), ({"x-queue-type": "quorum"}, True)], ids=str)
def test_each_failure_of_a_delivery_is_told_where_failures_matter(
    talk: Talk, arguments: dict[str, Any], is_told: bool
) -> None:
    """Not by a classic queue without a limit: there are clients that cannot read the type of the header."""
    talk.open_channel().client(Queue.Declare(queue="q", durable=True, arguments=arguments))
    talk.broker(Queue.DeclareOk("q", 0, 0)).publish("q", b"1")
    talk.client(Basic.Get(queue="q")).broker(Basic.GetOk(1, False, "", "q", 0), content=b"1")
    for failures in (1, 2):
        talk.client(Basic.Reject(failures, True)).client(Basic.Get(queue="q"))
        again = Basic.GetOk(failures + 1, True, "", "q", 0)
        talk.broker(again, content=b"1", properties=counted(failures) if is_told else None)
    talk.client(Basic.Reject(3, True)).client(Basic.Consume(queue="q", consumer_tag="c"))
    talk.broker(Basic.ConsumeOk("c"))
    talk.broker(Basic.Deliver("c", 4, True, "", "q"), content=b"1", properties=counted(3) if is_told else None)


def test_redeliveries_are_counted(five: Talk) -> None:
    came_back(five.client(Basic.Nack(2, True, True)), b"1", b"2")
    assert five.stage.broker.vhosts["/"].queues["q"].statistics().redelivered == 2
