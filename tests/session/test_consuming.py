"""Consumers and gets: what is delivered, in which order, to which consumer, and how it ends."""

from __future__ import annotations

import pytest
from pamqp.commands import Basic, Channel, Connection, Queue

from amqpd.broker.definitions import PermissionDefinition
from amqpd.session.settings import SessionSettings
from tests.support.talk import Stage, Talk


@pytest.fixture
def settings() -> SessionSettings:
    """A connection counts as full at 2,000 octets."""
    return SessionSettings(server_properties={}, outgoing_limit=2_000)


@pytest.fixture
def open_talk(talk: Talk) -> Talk:
    """An open channel 1, and a queue `q` on it."""
    talk.open_channel().client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    return talk


def consume(talk: Talk, tag: str = "c", *, queue: str = "q", channel: int = 1, no_ack: bool = False) -> Talk:
    talk.client(Basic.Consume(queue=queue, consumer_tag=tag, no_ack=no_ack), channel=channel)
    return talk.broker(Basic.ConsumeOk(tag), channel=channel)


def delivered(
    talk: Talk, tag: int, body: bytes, *, consumer: str = "c", again: bool = False, channel: int = 1
) -> Talk:
    return talk.broker(Basic.Deliver(consumer, tag, again, "", "q"), content=body, channel=channel)


def refused(talk: Talk, method: Basic.Consume | Basic.Get, code: int, text: str) -> None:
    talk.client(method).closed(code, text, method.index >> 16, method.index & 0xFFFF)


# Consumers

def test_what_a_command_dead_letters_is_there_for_the_next_command_of_the_same_input(open_talk: Talk) -> None:
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q"}
    open_talk.client(Queue.Declare(queue="mortal", arguments=arguments)).hear(Queue.DeclareOk)
    open_talk.publish("mortal", b"a").client(Basic.Get(queue="mortal")).hear(Basic.GetOk)
    open_talk.client(Basic.Reject(1, requeue=False), Basic.Get(queue="q", no_ack=True)).hear(Basic.GetOk)


def test_consume_ok_comes_before_the_first_delivery(open_talk: Talk) -> None:
    open_talk.publish("q", b"a", b"b")
    delivered(delivered(consume(open_talk), 1, b"a"), 2, b"b")


def test_a_message_is_delivered_as_it_is_published(open_talk: Talk) -> None:
    delivered(consume(open_talk).publish("q", b"a"), 1, b"a")
    delivered(open_talk.publish("q", b"b"), 2, b"b")


def test_a_consumer_without_a_tag_is_given_one(open_talk: Talk) -> None:
    tag = open_talk.client(Basic.Consume(queue="q")).hear(Basic.ConsumeOk).consumer_tag
    assert tag is not None and tag.startswith("amq.ctag-") and len(tag) == 31
    delivered(open_talk.publish("q", b"a"), 1, b"a", consumer=tag)


def test_consume_without_an_answer_starts_deliveries(open_talk: Talk) -> None:
    open_talk.client(Basic.Consume(queue="q", consumer_tag="c", nowait=True)).nothing()
    delivered(open_talk.publish("q", b"a"), 1, b"a")


def test_an_empty_queue_name_means_the_queue_declared_last(open_talk: Talk) -> None:
    consume(open_talk, queue="")
    delivered(open_talk.publish("q", b"a"), 1, b"a")


def test_an_empty_queue_name_with_nothing_declared_is_refused(talk: Talk) -> None:
    refused(talk.open_channel(), Basic.Consume(), 404, "NOT_FOUND - no previously declared queue")


def test_a_tag_that_is_in_use_on_the_channel_closes_the_connection(open_talk: Talk) -> None:
    consume(open_talk).client(Basic.Consume(queue="q", consumer_tag="c"))
    open_talk.hung_up(530, "NOT_ALLOWED - attempt to reuse consumer tag 'c'", 60, 20)


def test_a_channel_has_a_limit_of_consumers(piece: int, caplog: pytest.LogCaptureFixture) -> None:
    told = "PRECONDITION_FAILED - reached maximum (2) of consumers per channel, which limits.consumers_per_channel sets"
    talk = Stage(piece=piece, settings=SessionSettings(server_properties={}, consumer_limit=2)).client().open_channel()
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    consume(consume(talk, "a"), "b").client(Basic.Cancel("a")).broker(Basic.CancelOk("a"))
    consume(talk, "c")
    consume(talk.open_channel(2), channel=2)
    refused(talk, Basic.Consume(queue="q", consumer_tag="d"), 406, told)
    assert sum(told in record.getMessage() for record in caplog.records) == 1
    consume(talk.open_channel(), "d")


def test_two_channels_may_use_the_same_tag(open_talk: Talk) -> None:
    consume(consume(open_talk).open_channel(2), channel=2)


def test_a_missing_queue_is_refused(open_talk: Talk) -> None:
    refused(open_talk, Basic.Consume(queue="missing"), 404, "NOT_FOUND - no queue 'missing' in vhost '/'")


def test_reading_needs_permission_before_existence(open_talk: Talk) -> None:
    open_talk.stage.broker.users.set_permissions(PermissionDefinition("guest", "/", ".*", ".*", "^mine"))
    text = "ACCESS_REFUSED - access to queue 'missing' in vhost '/' refused for user 'guest'"
    refused(open_talk, Basic.Consume(queue="missing"), 403, text)
    refused(open_talk.open_channel(), Basic.Get(queue="missing"), 403, text)


def test_a_consumer_ends_with_its_user_s_permission_to_read(stage: Stage) -> None:
    """And no other channel: not of consumers that may go on, nor of other users."""
    losing, keeping = stage.client().open_channel(), stage.client().open_channel()
    for name in "gone", "kept":
        losing.client(Queue.Declare(queue=name)).broker(Queue.DeclareOk(name, 0, 0))
    consume(losing, queue="gone")
    consume(losing.open_channel(2), queue="kept", channel=2)
    consume(keeping, queue="kept")
    losing.publish("gone", b"first").hear(Basic.Deliver)
    stage.broker.users.set_permissions(PermissionDefinition("guest", "/", ".*", ".*", "^kept"))
    stage.end_turn()
    text = "ACCESS_REFUSED - access to queue 'gone' in vhost '/' refused for user 'guest'"
    losing.broker(Channel.Close(403, text, 60, 20))
    assert len(stage.broker.vhosts["/"].queues["gone"].ready) == 1
    assert not stage.broker.vhosts["/"].queues["gone"].consumers
    assert len(stage.broker.vhosts["/"].queues["kept"].consumers) == 2
    stage.broker.users.clear_permissions("guest", "/")
    stage.end_turn()
    text = text.replace("gone", "kept")
    losing.broker(Channel.Close(403, text, 60, 20), channel=2)
    keeping.broker(Channel.Close(403, text, 60, 20))
    assert not stage.broker.vhosts["/"].queues["kept"].consumers


def test_another_connection_s_exclusive_queue_is_refused(stage: Stage) -> None:
    owner, other = stage.client().open_channel(), stage.client().open_channel()
    owner.client(Queue.Declare(queue="mine", exclusive=True)).broker(Queue.DeclareOk("mine", 0, 0))
    text = ("RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine' in vhost '/'. It could be "
            "originally declared on another connection or the exclusive property value does not match that of the "
            "original declaration.")
    refused(other, Basic.Consume(queue="mine"), 405, text[:252] + "..." if len(text) > 255 else text)
    refused(other.open_channel(), Basic.Get(queue="mine"), 405, text)
    consume(owner, queue="mine")


def test_an_exclusive_consumer_keeps_others_out_until_it_leaves(open_talk: Talk) -> None:
    text = "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"
    open_talk.client(Basic.Consume(queue="q", consumer_tag="c", exclusive=True)).broker(Basic.ConsumeOk("c"))
    open_talk.open_channel(2).client(Basic.Consume(queue="q"), channel=2).closed(403, text, 60, 20, channel=2)
    open_talk.client(Basic.Cancel("c")).broker(Basic.CancelOk("c"))
    consume(open_talk.open_channel(2), channel=2)


def test_a_queue_with_consumers_cannot_be_had_exclusively(open_talk: Talk) -> None:
    consume(open_talk)
    refused(open_talk, Basic.Consume(queue="q", exclusive=True), 403,
            "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use")


def test_consumers_take_turns(open_talk: Talk) -> None:
    consume(consume(open_talk, "a"), "b")
    open_talk.publish("q", b"1", b"2").publish("q", b"3")
    turns = sorted((one.said.delivery_tag, one.said.consumer_tag, one.body) for one in open_talk.hear_all())
    assert turns == [(1, "a", b"1"), (2, "b", b"2"), (3, "a", b"3")]


def test_consumers_of_two_connections_take_turns(stage: Stage) -> None:
    one, two = stage.client().open_channel(), stage.client().open_channel()
    one.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    consume(one, "a")
    consume(two, "b")
    one.publish("q", b"1", b"2", b"3", b"4", b"5")
    assert [heard.body for heard in one.hear_all()] == [b"1", b"3", b"5"]
    assert [heard.body for heard in two.hear_all()] == [b"2", b"4"]
    one.publish("q", b"6")
    two.broker(Basic.Deliver("b", 3, False, "", "q"), content=b"6")


def test_a_higher_priority_is_served_first_while_it_has_credit(open_talk: Talk) -> None:
    open_talk.client(Basic.Qos(prefetch_count=1)).broker(Basic.QosOk())
    consume(open_talk, "low")
    open_talk.client(Basic.Consume(queue="q", consumer_tag="high", arguments={"x-priority": 5}))
    open_talk.broker(Basic.ConsumeOk("high")).publish("q", b"1", b"2", b"3")
    delivered(delivered(open_talk, 1, b"1", consumer="high"), 2, b"2", consumer="low")
    delivered(open_talk.client(Basic.Ack(1)), 3, b"3", consumer="high")


def test_a_priority_that_is_no_integer_is_refused(open_talk: Talk) -> None:
    refused(open_talk, Basic.Consume(queue="q", arguments={"x-priority": "high"}), 406,
            "PRECONDITION_FAILED - invalid arg 'x-priority' for queue 'q' in vhost '/': "
            "\"expected integer, got longstr\"")


def test_messages_of_another_channel_and_frame_size_are_fitted(stage: Stage) -> None:
    one = stage.client().open_channel(3)
    two = stage.client(frame_max=4_096).open_channel(2)
    one.client(Queue.Declare(queue="q"), channel=3).broker(Queue.DeclareOk("q", 0, 0), channel=3)
    one.publish("q", bytes(10_000), channel=3)
    delivered(consume(two, channel=2), 1, bytes(10_000), channel=2)


@pytest.mark.parametrize("bodies", [
    pytest.param([b"%d" % number for number in range(20)], id="small"),
    pytest.param([b"%d" % number * 3_000 for number in range(7)], id="too large to be joined"),
    pytest.param([bytes(number * 700) for number in range(0, 20, 3)], id="of different sizes, one of them empty"),
])
def test_a_long_run_is_delivered_as_it_was_published(talk: Talk, bodies: list[bytes]) -> None:
    """By one route, by two in turn, and, to the second client, on another channel."""
    talk.open_channel().client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    talk.client(Queue.Bind(queue="q", exchange="amq.direct", routing_key="q")).broker(Queue.BindOk())
    talk.publish("q", *bodies)
    for body in bodies:
        talk.publish("q", body, exchange="amq.direct").publish("q", body)
    consume(talk, no_ack=True)
    expected = [("", body) for body in bodies] + [(name, body) for body in bodies for name in ("amq.direct", "")]
    for tag, (exchange, body) in enumerate(expected, 1):
        talk.broker(Basic.Deliver("c", tag, False, exchange, "q"), content=body)
    talk.client(Basic.Cancel("c")).broker(Basic.CancelOk("c"))
    talk.publish("q", *bodies).open_channel(2)
    consume(talk, channel=2)
    for tag, body in enumerate(bodies, 1):
        delivered(talk, tag, body, channel=2)


# Cancelling

def test_cancel_stops_deliveries_and_leaves_what_is_unacked(open_talk: Talk) -> None:
    delivered(consume(open_talk).publish("q", b"a"), 1, b"a")
    open_talk.client(Basic.Cancel("c")).broker(Basic.CancelOk("c")).publish("q", b"b").nothing()
    open_talk.client(Basic.Ack(1)).nothing()
    open_talk.client(Basic.Get(queue="q")).broker(Basic.GetOk(2, False, "", "q", 0), content=b"b")


def test_an_unknown_tag_may_be_cancelled(open_talk: Talk) -> None:
    open_talk.client(Basic.Cancel("nobody")).broker(Basic.CancelOk("nobody"))


def test_a_cancel_without_an_answer_cancels(open_talk: Talk) -> None:
    consume(open_talk).client(Basic.Cancel("c", nowait=True)).publish("q", b"a").nothing()


def test_a_cancelled_tag_may_be_used_again(open_talk: Talk) -> None:
    consume(open_talk).client(Basic.Cancel("c")).broker(Basic.CancelOk("c"))
    delivered(consume(open_talk).publish("q", b"a"), 1, b"a")


def test_a_consumer_is_told_when_its_queue_is_deleted(stage: Stage) -> None:
    talk, other = stage.client().open_channel(), stage.client().open_channel()
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    consume(talk)
    other.client(Queue.Delete(queue="q")).broker(Queue.DeleteOk(0))
    talk.broker(Basic.Cancel("c", True))
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    consume(talk)


def test_a_client_that_does_not_know_cancels_is_not_told(stage: Stage) -> None:
    talk = stage.client(capabilities={}).open_channel()
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    consume(talk).client(Queue.Delete(queue="q")).broker(Queue.DeleteOk(0))


def test_an_answer_for_a_deleted_queue_is_accepted_silently(open_talk: Talk) -> None:
    open_talk.publish("q", b"a", b"b", b"c")
    for tag in (1, 2, 3):
        open_talk.client(Basic.Get(queue="q")).hear(Basic.GetOk)
    open_talk.client(Queue.Delete(queue="q")).broker(Queue.DeleteOk(0))
    open_talk.client(Basic.Ack(1), Basic.Nack(2, False, True), Basic.Reject(3, False)).nothing()


def test_an_auto_delete_queue_goes_with_its_last_consumer(talk: Talk) -> None:
    talk.open_channel().client(Queue.Declare(queue="q", auto_delete=True)).broker(Queue.DeclareOk("q", 0, 0))
    consume(consume(talk, "a"), "b").client(Basic.Cancel("a")).broker(Basic.CancelOk("a"))
    talk.client(Queue.Declare(queue="q", passive=True)).broker(Queue.DeclareOk("q", 0, 1))
    talk.client(Basic.Cancel("b")).broker(Basic.CancelOk("b"))
    talk.client(Queue.Declare(queue="q", passive=True)).closed(404, "NOT_FOUND - no queue 'q' in vhost '/'", 50, 10)


def test_an_auto_delete_queue_without_consumers_stays(talk: Talk) -> None:
    talk.open_channel().client(Queue.Declare(queue="q", auto_delete=True)).broker(Queue.DeclareOk("q", 0, 0))
    talk.publish("q", b"a").client(Basic.Get(queue="q", no_ack=True)).hear(Basic.GetOk)
    talk.client(Queue.Declare(queue="q", passive=True)).broker(Queue.DeclareOk("q", 0, 0))


# Getting

def test_get_tells_how_many_are_left(open_talk: Talk) -> None:
    open_talk.publish("q", b"a", b"b").client(Basic.Get(queue="q"))
    open_talk.broker(Basic.GetOk(1, False, "", "q", 1), content=b"a").client(Basic.Get(queue="q"))
    open_talk.broker(Basic.GetOk(2, False, "", "q", 0), content=b"b").client(Basic.Get(queue="q"))
    open_talk.broker(Basic.GetEmpty())


def test_gets_and_deliveries_share_one_counter(open_talk: Talk) -> None:
    open_talk.publish("q", b"a", b"b").client(Basic.Get(queue="q", no_ack=True))
    open_talk.broker(Basic.GetOk(1, False, "", "q", 1), content=b"a")
    delivered(consume(open_talk, no_ack=True), 2, b"b")
    delivered(open_talk.publish("q", b"c"), 3, b"c")


def test_each_channel_counts_its_own_deliveries(open_talk: Talk) -> None:
    open_talk.open_channel(9).publish("q", b"a", b"b").client(Basic.Get(queue="q"))
    open_talk.broker(Basic.GetOk(1, False, "", "q", 1), content=b"a").client(Basic.Get(queue="q"), channel=9)
    open_talk.broker(Basic.GetOk(1, False, "", "q", 0), content=b"b", channel=9)


def test_get_from_an_empty_queue_on_a_high_channel(open_talk: Talk) -> None:
    open_talk.open_channel(0x2525).client(Basic.Get(queue="q"), channel=0x2525)
    open_talk.broker(Basic.GetEmpty(), channel=0x2525)


def test_get_without_ack_is_final(open_talk: Talk) -> None:
    open_talk.publish("q", b"a").client(Basic.Get(queue="q", no_ack=True)).hear(Basic.GetOk)
    open_talk.client(Basic.Ack(1)).closed(406, "PRECONDITION_FAILED - unknown delivery tag 1", 60, 80)
    open_talk.open_channel().client(Basic.Get(queue="q")).broker(Basic.GetEmpty())


# A client that does not read

def test_a_client_that_does_not_read_is_given_no_more_than_it_has_room_for(open_talk: Talk) -> None:
    consume(open_talk, no_ack=True).stop_reading()
    open_talk.publish("q", *[b"%03d" % number for number in range(100)]).nothing()
    assert len(open_talk.stage.broker.vhosts["/"].queues["q"].ready) == 100
    open_talk.read_on()
    assert [heard.body for heard in open_talk.hear_all()] == [b"%03d" % number for number in range(100)]


def test_what_one_client_has_no_room_for_goes_to_another(stage: Stage) -> None:
    slow, quick = stage.client().open_channel(), stage.client().open_channel()
    slow.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    consume(slow, "a").stop_reading()
    consume(quick, "b").publish("q", b"1", b"2")
    delivered(delivered(quick, 1, b"1", consumer="b"), 2, b"2", consumer="b")


def test_more_than_fits_into_the_outbox_comes_as_it_empties(open_talk: Talk) -> None:
    open_talk.publish("q", *[bytes(600)] * 20)
    consume(open_talk)
    assert len(open_talk.hear_all()) == 20


def test_one_message_larger_than_the_outbox_comes_all_the_same(open_talk: Talk) -> None:
    delivered(consume(open_talk).publish("q", bytes(5_000)), 1, bytes(5_000))


def test_consumers_of_a_client_that_reads_again_are_served_in_turn(open_talk: Talk) -> None:
    for queue in ("r", "s"):
        open_talk.client(Queue.Declare(queue=queue)).hear(Queue.DeclareOk)
        open_talk.client(Basic.Consume(queue=queue, consumer_tag=queue)).hear(Basic.ConsumeOk)
    open_talk.stop_reading().publish("r", bytes(66_000), bytes(66_000)).publish("s", b"1").nothing()
    open_talk.read_on()
    assert [heard.said.consumer_tag for heard in open_talk.hear_all()] == ["r", "s", "r"]


def test_a_cancelled_consumer_of_a_client_that_does_not_read_gets_nothing(open_talk: Talk) -> None:
    consume(open_talk, "a").stop_reading().publish("q", b"1").nothing()
    open_talk.client(Basic.Cancel("a")).read_on().broker(Basic.CancelOk("a")).nothing()
    delivered(consume(open_talk, "b"), 1, b"1", consumer="b")


# The end

def test_a_consumer_of_a_closing_channel_gets_nothing_more(open_talk: Talk) -> None:
    delivered(consume(open_talk).publish("q", b"a"), 1, b"a")
    open_talk.client(Basic.Ack(9)).broker(Channel.Close(406, "PRECONDITION_FAILED - unknown delivery tag 9", 60, 80))
    open_talk.open_channel(2).publish("q", b"b", channel=2).nothing().client(Channel.CloseOk())


def test_requeued_messages_of_a_lost_client_keep_their_places(stage: Stage) -> None:
    talk, other = stage.client().open_channel(), stage.client().open_channel()
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    talk.publish("q", *b"0 1 2 3 4 5".split())
    for _ in range(3):
        talk.client(Basic.Get(queue="q")).hear(Basic.GetOk)
    talk.client(Basic.Ack(2)).lose()
    consume(other)
    for tag, body in enumerate(b"0 2 3 4 5".split(), 1):
        delivered(other, tag, body, again=body in (b"0", b"2"))


def test_the_whole_connection_is_let_go_of_at_once(stage: Stage) -> None:
    talk = stage.client().open_channel(1).open_channel(2)
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0)).publish("q", b"a", b"b")
    delivered(delivered(consume(talk), 1, b"a"), 2, b"b")
    talk.client(Connection.Close(200, "bye", 0, 0)).broker(Connection.CloseOk())
    queue = stage.broker.vhosts["/"].queues["q"]
    assert (len(queue.ready), queue.unacked, len(queue.consumers)) == (2, 0, 0)


def test_what_one_channel_of_a_lost_connection_gives_back_is_not_for_another(stage: Stage) -> None:
    talk = stage.client().open_channel(1).open_channel(2)
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0)).publish("q", b"a")
    talk.client(Basic.Get(queue="q")).broker(Basic.GetOk(1, False, "", "q", 0), content=b"a")
    consume(talk, channel=2, no_ack=True).lose()
    queue = stage.broker.vhosts["/"].queues["q"]
    assert ([message.body for message in queue.ready], queue.redelivery.deliveries) == ([b"a"], {1: 1})


def test_the_next_single_active_consumer_is_given_what_waits_when_the_first_one_leaves(stage: Stage) -> None:
    talk, other = stage.client().open_channel(), stage.client().open_channel()
    talk.client(Queue.Declare(queue="single", arguments={"x-single-active-consumer": True})).hear(Queue.DeclareOk)
    talk.client(Basic.Qos(0, 1)).hear(Basic.QosOk)
    for client in (talk, other):
        client.client(Basic.Consume(queue="single", consumer_tag="c")).hear(Basic.ConsumeOk)
    talk.publish("single", b"a", b"b").broker(Basic.Deliver("c", 1, False, "", "single"), content=b"a")
    other.nothing()
    talk.client(Basic.Cancel("c")).broker(Basic.CancelOk("c"))
    other.broker(Basic.Deliver("c", 1, False, "", "single"), content=b"b")
