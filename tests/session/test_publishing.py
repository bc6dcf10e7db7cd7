"""Publishing: what is refused, what is returned, and when it is confirmed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Confirm, Connection, Exchange, Queue, Tx
from pamqp.header import ContentHeader

from amqpd.broker.definitions import PermissionDefinition, TopicPermissionDefinition
from amqpd.session.settings import SessionSettings
from tests.support.talk import Stage, Talk, content_frames


@pytest.fixture
def settings() -> SessionSettings:
    """Bodies of up to 1,000 octets."""
    return SessionSettings(server_properties={}, max_body_size=1_000)


@pytest.fixture
def open_talk(talk: Talk) -> Talk:
    """An open channel 1, and a queue `q` on it."""
    talk.open_channel().client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    return talk


def assert_got(talk: Talk, *bodies: bytes, queue: str = "q") -> None:
    """These bodies, and no others, are in the queue."""
    found = []
    while True:
        answer = talk.client(Basic.Get(queue=queue, no_ack=True)).hear_all()[0]
        if answer.body is None:
            break
        found.append(answer.body)
    assert found == list(bodies)


# Contents

def test_a_message_comes_out_as_it_was_put_in(open_talk: Talk) -> None:
    properties = Basic.Properties(
        content_type="text/plain", content_encoding="utf-8", headers={"n": 1, "t": {"deep": [True, None]}},
        delivery_mode=1, priority=3, correlation_id="c", reply_to="r", expiration="60000", message_id="m",
        message_type="kind", user_id="guest", app_id="a")
    open_talk.client(Basic.Publish(routing_key="q"), content=b"body", properties=properties)
    open_talk.client(Basic.Get(queue="q", no_ack=True))
    open_talk.broker(Basic.GetOk(1, False, "", "q", 0), content=b"body", properties=properties)


def test_an_empty_message_has_no_body_frame(open_talk: Talk) -> None:
    open_talk.publish("q", b"").client(Basic.Get(queue="q", no_ack=True))
    open_talk.broker(Basic.GetOk(1, False, "", "q", 0), content=b"")


def test_a_body_may_come_in_any_number_of_frames(open_talk: Talk) -> None:
    pieces = [b"one", b"", b"two", b"three"]
    open_talk.client(
        Basic.Publish(routing_key="q"), frame.marshal(ContentHeader(0, 11), 1),
        *[b"\x03\0\1" + len(piece).to_bytes(4, "big") + piece + b"\xce" for piece in pieces])
    assert_got(open_talk, b"onetwothree")


def test_contents_of_two_channels_may_mingle(open_talk: Talk) -> None:
    talk = open_talk.open_channel(2)
    talk.client(Basic.Publish(routing_key="q"), channel=1).client(Basic.Publish(routing_key="q"), channel=2)
    talk.octets(frame.marshal(ContentHeader(0, 2), 2) + frame.marshal(ContentHeader(0, 2), 1))
    talk.octets(frame.marshal(ContentBody(b"A"), 1) + frame.marshal(ContentBody(b"BB"), 2))
    talk.client(Basic.Qos(prefetch_count=1), channel=2).broker(Basic.QosOk(), channel=2)
    talk.octets(frame.marshal(ContentBody(b"A"), 1))
    assert_got(talk, b"BB", b"AA")


@pytest.mark.parametrize(("out_of_turn", "text"), [
    (frame.marshal(Tx.Select(), 1), "expected content header for class 60, got non content header frame instead"),
    (frame.marshal(ContentBody(b"x"), 1), "expected content header for class 60, got non content header frame instead"),
    (b"\x02\0\1\0\0\0\x0e\0\x32\0\0" + bytes(10) + b"\xce",
     "expected content header for class 60, got one for class 50 instead"),
    (b"\x02\0\1\0\0\0\x0e\0\x3c\0\1" + bytes(10) + b"\xce",
     "expected content header for class 60, got non content header frame instead"),
])
def test_what_is_no_content_header_where_one_is_due_is_refused(
    open_talk: Talk, out_of_turn: bytes, text: str
) -> None:
    open_talk.client(Basic.Publish(routing_key="q"), out_of_turn)
    open_talk.broker(Connection.Close(505, f"UNEXPECTED_FRAME - {text}", 60, 40))


@pytest.mark.parametrize("out_of_turn", [
    frame.marshal(Tx.Select(), 1), frame.marshal(ContentHeader(0, 4), 1), frame.marshal(ContentBody(b"12345"), 1),
    frame.marshal(Basic.Publish(routing_key="q"), 1), frame.marshal(Basic.Ack(1), 1),
])
def test_what_is_no_content_body_where_one_is_due_is_refused(open_talk: Talk, out_of_turn: bytes) -> None:
    open_talk.client(Basic.Publish(routing_key="q"), frame.marshal(ContentHeader(0, 4), 1), out_of_turn)
    open_talk.broker(Connection.Close(
        505, "UNEXPECTED_FRAME - expected content body, got non content body frame instead", 60, 40))


def test_a_body_that_is_too_large_is_refused_at_its_header_and_skipped(open_talk: Talk) -> None:
    open_talk.client(Basic.Publish(routing_key="q"), frame.marshal(ContentHeader(0, 1_001), 1))
    open_talk.broker(Channel.Close(
        406, "PRECONDITION_FAILED - message size 1001 is larger than configured max size 1000", 60, 40))
    open_talk.octets(frame.marshal(ContentBody(bytes(600)), 1)).nothing()
    open_talk.octets(frame.marshal(ContentBody(bytes(401)), 1)).client(Channel.CloseOk()).open_channel()
    assert_got(open_talk)


def test_a_body_of_exactly_the_limit_is_taken(open_talk: Talk) -> None:
    open_talk.publish("q", bytes(1_000))
    assert_got(open_talk, bytes(1_000))


def test_a_body_beyond_every_limit_closes_the_connection(open_talk: Talk) -> None:
    open_talk.client(Basic.Publish(routing_key="q"), frame.marshal(ContentHeader(0, 2**63), 1))
    assert open_talk.hear(Connection.Close).reply_code == 501


# Refusals, in RabbitMQ's order

def test_immediate_is_not_implemented(open_talk: Talk) -> None:
    open_talk.client(Basic.Publish(exchange="missing", immediate=True), content=b"x")
    open_talk.hung_up(540, "NOT_IMPLEMENTED - immediate=true", 60, 40)


def test_a_missing_exchange_is_refused(open_talk: Talk) -> None:
    open_talk.client(Basic.Publish(exchange="missing"), content=b"x")
    open_talk.closed(404, "NOT_FOUND - no exchange 'missing' in vhost '/'", 60, 40)


def test_permission_is_asked_before_existence(open_talk: Talk) -> None:
    open_talk.stage.broker.users.set_permissions(PermissionDefinition("guest", "/", ".*", "^q$", ".*"))
    open_talk.client(Basic.Publish(exchange="missing"), content=b"x")
    open_talk.closed(403, "ACCESS_REFUSED - access to exchange 'missing' in vhost '/' refused for user 'guest'", 60, 40)


def test_the_default_exchange_has_a_name_for_permissions(open_talk: Talk) -> None:
    open_talk.stage.broker.users.set_permissions(PermissionDefinition("guest", "/", ".*", "^q$", ".*"))
    open_talk.publish("q", b"x")
    open_talk.closed(
        403, "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'guest'", 60, 40)


def test_a_permission_that_is_taken_away_holds_from_the_next_publish_on(open_talk: Talk) -> None:
    open_talk.publish("q", b"kept")
    open_talk.stage.broker.users.set_permissions(PermissionDefinition("guest", "/", "", "", ".*"))
    open_talk.publish("q", b"refused").hear(Channel.Close)
    open_talk.client(Channel.CloseOk()).open_channel()
    assert_got(open_talk, b"kept")


def test_publishing_to_a_topic_exchange_needs_permission_for_the_key(open_talk: Talk) -> None:
    open_talk.client(Basic.Publish(exchange="amq.topic", routing_key="b"), content=b"x")
    open_talk.stage.broker.users.set_topic_permissions(
        TopicPermissionDefinition("guest", "/", "amq.topic", "^a", ".*"))
    open_talk.client(Basic.Publish(exchange="amq.topic", routing_key="a"), content=b"x")
    open_talk.client(Basic.Publish(exchange="amq.direct", routing_key="b"), content=b"x")
    open_talk.client(Basic.Publish(exchange="amq.topic", routing_key="b"), content=b"x")
    text = "ACCESS_REFUSED - access to topic 'b' in exchange 'amq.topic' in vhost '/' refused for user 'guest'"
    open_talk.closed(403, text, 60, 40)


def test_permissions_that_are_cleared_refuse_the_next_publish(open_talk: Talk) -> None:
    open_talk.publish("q", b"kept")
    open_talk.stage.broker.users.clear_permissions("guest", "/")
    open_talk.publish("q", b"refused")
    open_talk.closed(
        403, "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'guest'", 60, 40)


def test_an_internal_exchange_is_refused(open_talk: Talk) -> None:
    open_talk.client(Basic.Publish(exchange="amq.rabbitmq.trace"), content=b"x")
    open_talk.closed(
        403, "ACCESS_REFUSED - cannot publish to internal exchange 'amq.rabbitmq.trace' in vhost '/'", 60, 40)


@pytest.mark.parametrize(("properties", "text"), [
    (Basic.Properties(user_id="bob"), "user_id property set to 'bob' but authenticated user was 'guest'"),
    (Basic.Properties(expiration="soon"), "invalid expiration 'soon': no_integer"),
    (Basic.Properties(expiration="-1"), "invalid expiration '-1': {value_negative,-1}"),
    (Basic.Properties(headers={"CC": "q"}), 'invalid message: {unacceptable_type_in_header,"CC",longstr}'),
    (Basic.Properties(user_id="bob", expiration="soon"),
     "user_id property set to 'bob' but authenticated user was 'guest'"),
])
def test_a_flaw_in_the_properties_is_refused(open_talk: Talk, properties: Basic.Properties, text: str) -> None:
    open_talk.client(Basic.Publish(routing_key="q"), content=b"x", properties=properties)
    open_talk.closed(406, f"PRECONDITION_FAILED - {text}", 60, 40).open_channel()
    assert_got(open_talk)


def test_properties_that_do_not_decode_are_refused(open_talk: Talk) -> None:
    header = b"\x02\0\1\0\0\0\x0f" + b"\0\x3c\0\0" + bytes(8) + b"\x80\0\x20" + b"\xce"
    open_talk.client(Basic.Publish(routing_key="q"), header).hung_up(541, "INTERNAL_ERROR", 0, 0)


def test_a_user_with_the_tag_may_claim_to_be_another(stage: Stage) -> None:
    user = stage.broker.users["bob"]
    user.definition = type(user.definition)("bob", tags=("impersonator",))
    talk = stage.client("bob").open_channel()
    talk.client(Queue.Declare(queue="q")).hear(Queue.DeclareOk)
    talk.client(Basic.Publish(routing_key="q"), content=b"x", properties=Basic.Properties(user_id="guest"))
    assert_got(talk, b"x")


@pytest.mark.parametrize("arguments", [b"", b"\0\0", b"\0\0\x05ab", b"\0\0\0\x01q", b"\0\0\0\x01q\0more"])
def test_a_publish_whose_arguments_do_not_decode_is_refused(open_talk: Talk, arguments: bytes) -> None:
    payload = b"\0\x3c\0\x28" + arguments
    open_talk.octets(b"\x01\0\1" + len(payload).to_bytes(4, "big") + payload + b"\xce" + content_frames(1, b"x"))
    dumped = ",".join(map(str, arguments))
    open_talk.hung_up(501, f"FRAME_ERROR - cannot decode <<{dumped}>>", 60, 40)


def test_what_was_published_before_a_refusal_in_one_go_has_been_published(open_talk: Talk) -> None:
    talk = open_talk.client(Confirm.Select()).broker(Confirm.SelectOk())
    good, bad = Basic.Publish(routing_key="q"), Basic.Publish(exchange="missing")
    one, two, lost = content_frames(1, b"one"), content_frames(1, b"two"), content_frames(1, b"lost")
    talk.client(good, one, good, two, bad, lost, good, lost)
    talk.broker(Basic.Ack(2, True)).closed(404, "NOT_FOUND - no exchange 'missing' in vhost '/'", 60, 40)
    talk.open_channel()
    assert_got(talk, b"one", b"two")


def test_a_refused_publish_is_not_confirmed_with_those_before_it(open_talk: Talk) -> None:
    talk = open_talk.client(Confirm.Select()).broker(Confirm.SelectOk())
    flawed = content_frames(1, b"lost", Basic.Properties(expiration="soon"))
    publish = Basic.Publish(routing_key="q")
    one, two = content_frames(1, b"one"), content_frames(1, b"two")
    talk.client(publish, one, publish, two, publish, flawed, publish, flawed)
    talk.broker(Basic.Ack(2, True))
    talk.closed(406, "PRECONDITION_FAILED - invalid expiration 'soon': no_integer", 60, 40).open_channel()
    assert_got(talk, b"one", b"two")


# Routing

def test_a_publish_follows_bindings_as_they_change(open_talk: Talk) -> None:
    def publish(body: bytes) -> None:
        open_talk.publish("k", body, exchange="amq.direct")

    publish(b"before")
    open_talk.client(Queue.Bind(queue="q", exchange="amq.direct", routing_key="k")).broker(Queue.BindOk())
    publish(b"bound")
    open_talk.client(Queue.Unbind(queue="q", exchange="amq.direct", routing_key="k")).broker(Queue.UnbindOk())
    publish(b"unbound")
    assert_got(open_talk, b"bound")


def test_a_publish_to_a_queue_declared_again_finds_the_new_one(open_talk: Talk) -> None:
    open_talk.publish("q", b"old").client(Queue.Delete(queue="q")).broker(Queue.DeleteOk(1))
    open_talk.publish("q", b"between").client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    open_talk.publish("q", b"new")
    assert_got(open_talk, b"new")


def test_cc_and_bcc_are_routed_to_and_only_bcc_is_taken_out(open_talk: Talk) -> None:
    for name in ("cc", "bcc"):
        open_talk.client(Queue.Declare(queue=name)).broker(Queue.DeclareOk(name, 0, 0))
    headers: dict[str, Any] = {"CC": ["cc", "q"], "BCC": ["bcc"], "kept": "here"}
    open_talk.client(Basic.Publish(routing_key="q"), content=b"x", properties=Basic.Properties(headers=headers))
    stored = Basic.Properties(headers={"CC": ["cc", "q"], "kept": "here"})
    for tag, name in enumerate(("q", "cc", "bcc"), 1):
        open_talk.client(Basic.Get(queue=name, no_ack=True))
        open_talk.broker(Basic.GetOk(tag, False, "", "q", 0), content=b"x", properties=stored)


def test_one_message_to_several_queues_is_confirmed_once(open_talk: Talk) -> None:
    for name in ("q", "r"):
        open_talk.client(Queue.Declare(queue=name)).hear(Queue.DeclareOk)
        open_talk.client(Queue.Bind(queue=name, exchange="amq.fanout")).broker(Queue.BindOk())
    open_talk.client(Confirm.Select()).broker(Confirm.SelectOk())
    open_talk.publish("", b"x", exchange="amq.fanout").broker(Basic.Ack(1))
    assert_got(open_talk, b"x", queue="q")
    assert_got(open_talk, b"x", queue="r")


def test_headers_decide_message_by_message(open_talk: Talk) -> None:
    bind = Queue.Bind(queue="q", exchange="amq.headers", arguments={"colour": "red"})
    open_talk.client(bind).broker(Queue.BindOk())
    for colour in ("red", "blue", "red"):
        open_talk.client(
            Basic.Publish(exchange="amq.headers"), content=colour.encode(),
            properties=Basic.Properties(headers={"colour": colour}))
    assert_got(open_talk, b"red", b"red")


# Returns

def test_a_mandatory_publish_without_route_comes_back_before_its_confirm(open_talk: Talk) -> None:
    open_talk.client(Confirm.Select()).broker(Confirm.SelectOk())
    open_talk.publish("nowhere", b"hi", mandatory=True)
    open_talk.broker(Basic.Return(312, "NO_ROUTE", "", "nowhere"), content=b"hi").broker(Basic.Ack(1))


def test_a_return_brings_the_properties_back(open_talk: Talk) -> None:
    properties = Basic.Properties(message_id="m", headers={"a": "b"})
    publish = Basic.Publish(exchange="amq.topic", routing_key="a.b", mandatory=True)
    open_talk.client(publish, content=b"hi", properties=properties)
    open_talk.broker(Basic.Return(312, "NO_ROUTE", "amq.topic", "a.b"), content=b"hi", properties=properties)


def test_a_publish_without_route_that_is_not_mandatory_is_confirmed_and_gone(open_talk: Talk) -> None:
    open_talk.client(Confirm.Select()).broker(Confirm.SelectOk()).publish("nowhere", b"hi").broker(Basic.Ack(1))


def test_a_mandatory_publish_with_a_route_does_not_come_back(open_talk: Talk) -> None:
    open_talk.publish("q", b"hi", mandatory=True).nothing()


def test_what_an_alternate_exchange_routes_does_not_come_back(open_talk: Talk) -> None:
    declare = Exchange.Declare(exchange="x", arguments={"alternate-exchange": "amq.fanout"})
    open_talk.client(declare).broker(Exchange.DeclareOk())
    open_talk.publish("k", b"lost", exchange="x", mandatory=True)
    open_talk.broker(Basic.Return(312, "NO_ROUTE", "x", "k"), content=b"lost")
    open_talk.client(Queue.Bind(queue="q", exchange="amq.fanout")).broker(Queue.BindOk())
    open_talk.publish("k", b"found", exchange="x", mandatory=True).nothing()
    assert_got(open_talk, b"found")


# Confirms

def test_nothing_is_confirmed_without_confirm_select(open_talk: Talk) -> None:
    open_talk.publish("q", b"x").nothing()


def test_confirms_count_from_confirm_select_on(open_talk: Talk) -> None:
    open_talk.publish("q", b"x").client(Confirm.Select()).broker(Confirm.SelectOk())
    open_talk.publish("q", b"y").broker(Basic.Ack(1)).publish("q", b"z").broker(Basic.Ack(2))


def test_confirm_select_without_an_answer_selects_too(open_talk: Talk) -> None:
    open_talk.client(Confirm.Select(nowait=True)).nothing().publish("q", b"x").broker(Basic.Ack(1))


def test_a_second_confirm_select_changes_nothing(open_talk: Talk) -> None:
    open_talk.client(Confirm.Select()).broker(Confirm.SelectOk()).publish("q", b"x").broker(Basic.Ack(1))
    open_talk.client(Confirm.Select()).broker(Confirm.SelectOk()).publish("q", b"x").broker(Basic.Ack(2))


def test_each_channel_counts_its_own_confirms(open_talk: Talk) -> None:
    talk = open_talk.open_channel(2)
    for channel in (1, 2):
        talk.client(Confirm.Select(), channel=channel).broker(Confirm.SelectOk(), channel=channel)
    talk.publish("q", b"x", channel=2).broker(Basic.Ack(1), channel=2)
    talk.publish("q", b"x", channel=1).broker(Basic.Ack(1), channel=1)


def test_several_publishes_of_one_pass_are_confirmed_together(open_talk: Talk) -> None:
    open_talk.client(Confirm.Select()).broker(Confirm.SelectOk())
    open_talk.publish("q", b"a", b"b", b"c").broker(Basic.Ack(3, True))
    assert_got(open_talk, b"a", b"b", b"c")


def test_a_channel_with_confirms_cannot_have_transactions(open_talk: Talk) -> None:
    open_talk.client(Confirm.Select()).broker(Confirm.SelectOk()).client(Tx.Select())
    open_talk.closed(406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode", 90, 10)


def test_a_channel_with_transactions_cannot_have_confirms(open_talk: Talk) -> None:
    open_talk.client(Tx.Select()).broker(Tx.SelectOk()).client(Confirm.Select())
    open_talk.closed(406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode", 85, 10)


# Publishes that come in pieces

@pytest.fixture
def half_said(open_talk: Talk) -> Callable[[str], bytes]:
    """Send a publish to this exchange without its last octet, and return that."""
    def say(exchange: str) -> bytes:
        octets = frame.marshal(Basic.Publish(exchange=exchange, routing_key="q"), 1) + content_frames(1, bytes(900))
        open_talk.octets(octets[:-1])
        return octets[-1:]

    return say


@pytest.mark.parametrize(("exchange", "code", "text"), [
    ("nonesuch", 404, "NOT_FOUND - no exchange 'nonesuch' in vhost '/'"),
    ("amq.rabbitmq.trace", 403,
     "ACCESS_REFUSED - cannot publish to internal exchange 'amq.rabbitmq.trace' in vhost '/'"),
], ids=["missing", "internal"])
def test_a_publish_that_is_refused_keeps_nothing_of_its_body_and_is_answered_after_it(
    open_talk: Talk, half_said: Callable[[str], bytes], exchange: str, code: int, text: str
) -> None:
    rest = half_said(exchange)
    open_talk.nothing()
    assert intake_of(open_talk) == 0
    open_talk.octets(rest).closed(code, text, 60, 40)


def test_a_publish_without_the_right_to_it_keeps_nothing_of_its_body(stage: Stage) -> None:
    stage.broker.users.set_permissions(PermissionDefinition("bob", "/", "", "", ""))
    talk = stage.client("bob").open_channel()
    octets = frame.marshal(Basic.Publish(routing_key="q"), 1) + content_frames(1, bytes(900))
    talk.octets(octets[:-1]).nothing()
    assert intake_of(talk) == 0
    talk.octets(octets[-1:]).closed(
        403, "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'bob'", 60, 40)


def test_a_publish_that_may_begin_is_judged_again_when_it_is_whole(
    stage: Stage, open_talk: Talk, half_said: Callable[[str], bytes]
) -> None:
    other = stage.client().open_channel(2)
    other.client(Exchange.Declare(exchange="x"), channel=2).hear(Exchange.DeclareOk)
    rest = half_said("x")
    assert intake_of(open_talk) == 900
    other.client(Exchange.Delete(exchange="x"), channel=2).hear(Exchange.DeleteOk)
    open_talk.octets(rest).closed(404, "NOT_FOUND - no exchange 'x' in vhost '/'", 60, 40)


def test_a_body_on_a_channel_that_is_closing_is_not_kept(
    open_talk: Talk, half_said: Callable[[str], bytes]
) -> None:
    open_talk.client(Basic.Ack(7)).hear(Channel.Close)
    half_said("")
    assert intake_of(open_talk) == 0


def test_what_a_connection_has_half_received_is_forgotten_when_it_closes(
    open_talk: Talk, half_said: Callable[[str], bytes]
) -> None:
    rest = half_said("")
    open_talk.session.force_close("bye")
    assert intake_of(open_talk) == 0
    open_talk.octets(rest + frame.marshal(Connection.CloseOk(), 0)).hear(Connection.Close)


def intake_of(talk: Talk) -> int:
    """How much of bodies the connection has kept that are not whole."""
    return talk.stage.intake.octets
