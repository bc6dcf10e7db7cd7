"""Declarations of exchanges, queues and bindings by a client: answers, refusals, and generated names."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pamqp.base import Frame
from pamqp.commands import Basic, Channel, Exchange, Queue

from amqpd.broker.definitions import PermissionDefinition, TopicPermissionDefinition
from tests.support.talk import Stage, Talk, Unknown

LOCKED = (
    "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{}' in vhost '/'. It could be originally "
    "declared on another connection or the exclusive property value does not match that of the original "
    "declaration.")
DEFAULT = "ACCESS_REFUSED - operation not permitted on the default exchange"


@pytest.fixture
def open_talk(talk: Talk) -> Talk:
    """An open channel 1."""
    return talk.open_channel()


def declare(talk: Talk, name: str = "q", ready: int = 0, consumers: int = 0, **flags: Any) -> Talk:
    return talk.client(Queue.Declare(queue=name, **flags)).broker(Queue.DeclareOk(name, ready, consumers))


def refused(talk: Talk, method: Frame, code: int, text: str) -> Talk:
    talk.client(method).closed(code, text, method.index >> 16, method.index & 0xFFFF)
    return talk.open_channel()


# Queues

def test_declare_ok_counts_ready_messages_and_consumers(open_talk: Talk) -> None:
    declare(open_talk).publish("q", b"a", b"b", b"c").client(Basic.Get(queue="q")).hear(Basic.GetOk)
    declare(open_talk, ready=2)
    open_talk.client(Basic.Qos(prefetch_count=1)).broker(Basic.QosOk())
    open_talk.client(Basic.Consume(queue="q", consumer_tag="c")).broker(Basic.ConsumeOk("c")).hear(Basic.Deliver)
    declare(open_talk, ready=1, consumers=1)


def test_a_queue_without_a_name_is_given_one(open_talk: Talk) -> None:
    names = {str(open_talk.client(Queue.Declare()).hear(Queue.DeclareOk).queue) for _ in range(2)}
    assert len(names) == 2
    assert all(re.fullmatch(r"amq\.gen-[A-Za-z0-9_-]{22}", name) for name in names)


def test_a_given_name_is_the_queue_declared_last(open_talk: Talk) -> None:
    name = str(open_talk.client(Queue.Declare(exclusive=True)).hear(Queue.DeclareOk).queue)
    open_talk.client(Queue.Bind(exchange="amq.direct")).broker(Queue.BindOk())
    open_talk.publish(name, b"bound by its name", exchange="amq.direct")
    open_talk.client(Queue.Purge()).broker(Queue.PurgeOk(1))
    open_talk.client(Queue.Unbind(exchange="amq.direct")).broker(Queue.UnbindOk())
    open_talk.publish(name, b"lost", exchange="amq.direct").client(Queue.Delete()).broker(Queue.DeleteOk(0))


def test_each_channel_remembers_its_own_last_queue(open_talk: Talk) -> None:
    declare(open_talk).open_channel(2).client(Queue.Purge(), channel=2)
    open_talk.closed(404, "NOT_FOUND - no previously declared queue", 50, 30, channel=2)


def test_line_breaks_are_taken_out_of_names(open_talk: Talk) -> None:
    name = b"a\r\nb"
    payload = b"\0\x32\0\x0a\0\0" + bytes((len(name),)) + name + b"\0" + b"\0\0\0\0"
    open_talk.octets(b"\x01\0\1\0\0\0" + bytes((len(payload),)) + payload + b"\xce")
    open_talk.broker(Queue.DeclareOk("ab", 0, 0))


def test_a_declaration_without_an_answer_declares(open_talk: Talk) -> None:
    open_talk.client(Queue.Declare(queue="q", nowait=True)).nothing()
    declare(open_talk, passive=True)


def test_a_missing_queue_is_not_found_even_without_an_answer(open_talk: Talk) -> None:
    text = "NOT_FOUND - no queue 'missing' in vhost '/'"
    refused(open_talk, Queue.Declare(queue="missing", passive=True), 404, text)
    refused(open_talk, Queue.Declare(queue="missing", passive=True, nowait=True), 404, text)


def test_an_equal_declaration_is_fine_and_another_is_not(open_talk: Talk) -> None:
    declare(declare(open_talk, durable=True), durable=True)
    refused(open_talk, Queue.Declare(queue="q"), 406,
            "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': "
            "received 'false' but current is 'true'")


@pytest.mark.parametrize("arguments", [{"x-expires": "soon"}, {"x-max-priority": 256}])
def test_arguments_that_make_no_sense_are_refused(open_talk: Talk, arguments: dict[str, Any]) -> None:
    open_talk.client(Queue.Declare(queue="q", arguments=arguments))
    assert open_talk.hear(Channel.Close).reply_code == 406
    open_talk.client(Channel.CloseOk())


@pytest.mark.parametrize("method", [
    Queue.Declare(queue="mine"), Queue.Declare(queue="mine", passive=True), Queue.Declare(queue="mine", exclusive=True),
    Queue.Purge(queue="mine"), Queue.Delete(queue="mine"), Queue.Bind(queue="mine", exchange="amq.direct"),
    Queue.Unbind(queue="mine", exchange="amq.fanout"), Basic.Get(queue="mine"), Basic.Consume(queue="mine"),
], ids=lambda method: method.name)
def test_an_exclusive_queue_is_closed_to_other_connections(stage: Stage, method: Queue.Declare) -> None:
    owner, other = stage.client().open_channel(), stage.client().open_channel()
    declare(owner, "mine", exclusive=True).client(Queue.Bind(queue="mine", exchange="amq.fanout")).hear(Queue.BindOk)
    refused(other, method, 405, LOCKED.format("mine"))
    declare(owner.open_channel(2), "mine", exclusive=True)


def test_everybody_may_publish_into_an_exclusive_queue(stage: Stage) -> None:
    owner, other = stage.client().open_channel(), stage.client().open_channel()
    declare(owner, "mine", exclusive=True)
    other.publish("mine", b"a")
    owner.client(Basic.Get(queue="mine", no_ack=True)).broker(Basic.GetOk(1, False, "", "mine", 0), content=b"a")


def test_an_owner_who_forgets_that_it_is_exclusive_is_refused(open_talk: Talk) -> None:
    declare(open_talk, exclusive=True)
    refused(open_talk, Queue.Declare(queue="q"), 405, LOCKED.format("q"))


def test_reserved_names_are_refused(open_talk: Talk) -> None:
    text = "ACCESS_REFUSED - {} name 'amq.mine' contains reserved prefix 'amq.*'"
    refused(open_talk, Queue.Declare(queue="amq.mine"), 403, text.format("queue"))
    refused(open_talk, Exchange.Declare(exchange="amq.mine"), 403, text.format("exchange"))


def test_purge_tells_how_many_were_ready(open_talk: Talk) -> None:
    declare(open_talk).publish("q", b"a", b"b", b"c").client(Basic.Get(queue="q")).hear(Basic.GetOk)
    open_talk.client(Queue.Purge(queue="q")).broker(Queue.PurgeOk(2))
    open_talk.client(Queue.Purge(queue="q", nowait=True)).client(Basic.Reject(1, True)).nothing()
    declare(open_talk, ready=1)


def test_delete_tells_how_many_were_ready_and_a_missing_queue_is_fine(open_talk: Talk) -> None:
    declare(open_talk).publish("q", b"a", b"b").client(Queue.Delete(queue="q")).broker(Queue.DeleteOk(2))
    open_talk.client(Queue.Delete(queue="q")).broker(Queue.DeleteOk(0))
    open_talk.client(Queue.Delete(queue="q", nowait=True)).nothing()


def test_a_queue_that_should_be_empty_or_unused_is_not_deleted(open_talk: Talk) -> None:
    declare(open_talk).publish("q", b"a")
    refused(open_talk, Queue.Delete(queue="q", if_empty=True), 406,
            "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty")
    open_talk.client(Basic.Consume(queue="q", consumer_tag="c")).broker(Basic.ConsumeOk("c")).hear(Basic.Deliver)
    open_talk.open_channel(2).client(Queue.Delete(queue="q", if_unused=True), channel=2)
    open_talk.closed(406, "PRECONDITION_FAILED - queue 'q' in vhost '/' in use", 50, 40, channel=2)
    open_talk.client(Queue.Delete(queue="q", if_empty=True)).broker(Queue.DeleteOk(0), Basic.Cancel("c", True))


# Exchanges

@pytest.mark.parametrize("kind", ["direct", "fanout", "topic", "headers"])
def test_an_exchange_is_declared_and_deleted(open_talk: Talk, kind: str) -> None:
    for _ in range(2):
        open_talk.client(Exchange.Declare(exchange="x", exchange_type=kind)).broker(Exchange.DeclareOk())
    open_talk.client(Exchange.Declare(exchange="x", passive=True)).broker(Exchange.DeclareOk())
    for _ in range(2):
        open_talk.client(Exchange.Delete(exchange="x")).broker(Exchange.DeleteOk())


def test_exchange_methods_without_an_answer_do_their_work(open_talk: Talk) -> None:
    open_talk.client(
        Exchange.Declare(exchange="x", nowait=True), Exchange.Bind(destination="x", source="amq.fanout", nowait=True),
        Exchange.Unbind(destination="x", source="amq.fanout", nowait=True), Exchange.Delete(exchange="x", nowait=True))
    open_talk.nothing()


@pytest.mark.parametrize(("kind", "fault"), [("x-nope", "unknown"), ("classic", "invalid"), ("", "invalid")])
def test_an_unknown_exchange_type_closes_the_connection(open_talk: Talk, kind: str, fault: str) -> None:
    open_talk.client(Exchange.Declare(exchange="x", exchange_type=kind or "direct") if kind else _typeless())
    open_talk.hung_up(503, f"COMMAND_INVALID - {fault} exchange type '{kind}'", 40, 10)


def _typeless() -> Exchange.Declare:
    method = Exchange.Declare(exchange="x")
    method.exchange_type = ""
    return method


def test_another_declaration_of_an_exchange_is_refused(open_talk: Talk) -> None:
    open_talk.client(Exchange.Declare(exchange="x", exchange_type="fanout")).broker(Exchange.DeclareOk())
    refused(open_talk, Exchange.Declare(exchange="x"), 406,
            "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'x' in vhost '/': "
            "received 'direct' but current is 'fanout'")


@pytest.mark.parametrize("method", [
    Exchange.Declare(exchange=""), Exchange.Declare(exchange="", passive=True), Exchange.Delete(exchange=""),
    Queue.Bind(queue="q", exchange=""), Queue.Unbind(queue="q", exchange=""),
    Exchange.Bind(destination="", source="amq.fanout"), Exchange.Unbind(destination="amq.fanout", source=""),
], ids=lambda method: method.name)
def test_the_default_exchange_cannot_be_touched(open_talk: Talk, method: Exchange.Declare) -> None:
    refused(declare(open_talk), method, 403, DEFAULT)


def test_a_predeclared_exchange_may_be_declared_as_it_is_but_not_deleted(open_talk: Talk) -> None:
    open_talk.client(Exchange.Declare(exchange="amq.topic", exchange_type="topic", durable=True))
    open_talk.broker(Exchange.DeclareOk())
    refused(open_talk, Exchange.Delete(exchange="amq.topic"), 403,
            "ACCESS_REFUSED - deletion of system exchange 'amq.topic' in vhost '/' not allowed")


def test_an_exchange_in_use_that_should_be_unused_is_not_deleted(open_talk: Talk) -> None:
    open_talk.client(Exchange.Declare(exchange="x")).broker(Exchange.DeclareOk())
    declare(open_talk).client(Queue.Bind(queue="q", exchange="x")).broker(Queue.BindOk())
    refused(open_talk, Exchange.Delete(exchange="x", if_unused=True), 406,
            "PRECONDITION_FAILED - exchange 'x' in vhost '/' in use")


# Bindings

@pytest.mark.parametrize(("method", "text"), [
    (Queue.Bind(queue="missing", exchange="amq.direct"), "no queue 'missing' in vhost '/'"),
    (Queue.Bind(queue="q", exchange="missing"), "no exchange 'missing' in vhost '/'"),
    (Exchange.Bind(destination="missing", source="amq.direct"), "no exchange 'missing' in vhost '/'"),
    (Exchange.Bind(destination="amq.direct", source="missing"), "no exchange 'missing' in vhost '/'"),
])
def test_both_ends_of_a_binding_must_exist(open_talk: Talk, method: Queue.Bind, text: str) -> None:
    open_talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0)).client(method)
    open_talk.closed(404, f"NOT_FOUND - {text}", method.index >> 16, method.index & 0xFFFF)


def test_taking_away_what_is_not_there_is_fine(open_talk: Talk) -> None:
    declare(open_talk)
    for queue, exchange in (("q", "amq.direct"), ("missing", "amq.direct"), ("q", "missing")):
        open_talk.client(Queue.Unbind(queue=queue, exchange=exchange)).broker(Queue.UnbindOk())
    open_talk.client(Exchange.Unbind(destination="amq.fanout", source="amq.direct")).broker(Exchange.UnbindOk())


def test_a_binding_that_is_made_twice_leads_there_once(open_talk: Talk) -> None:
    declare(open_talk)
    for key in ("k", "k", "k.#"):
        open_talk.client(Queue.Bind(queue="q", exchange="amq.topic", routing_key=key)).broker(Queue.BindOk())
    open_talk.publish("k", b"a", exchange="amq.topic")
    declare(open_talk, ready=1)


def test_exchanges_lead_to_exchanges_and_the_message_keeps_its_first_names(open_talk: Talk) -> None:
    declare(open_talk).client(Queue.Bind(queue="q", exchange="amq.fanout")).broker(Queue.BindOk())
    bind = Exchange.Bind(destination="amq.fanout", source="amq.direct", routing_key="k")
    open_talk.client(bind).broker(Exchange.BindOk()).publish("k", b"a", exchange="amq.direct")
    open_talk.client(Basic.Get(queue="q")).broker(Basic.GetOk(1, False, "amq.direct", "k", 0), content=b"a")


def test_a_binding_s_arguments_that_its_type_refuses_are_refused(open_talk: Talk) -> None:
    declare(open_talk)
    refused(open_talk, Queue.Bind(queue="q", exchange="amq.headers", arguments={"x-match": "some"}), 406,
            "PRECONDITION_FAILED - Invalid x-match field value <<\"some\">>; "
            "expected all, any, all-with-x, or any-with-x")


# Permissions

@pytest.mark.parametrize(("method", "thing"), [
    (Queue.Declare(queue="no"), "queue 'no'"), (Queue.Delete(queue="no"), "queue 'no'"),
    (Queue.Purge(queue="no"), "queue 'no'"), (Queue.Bind(queue="no", exchange="yes"), "queue 'no'"),
    (Queue.Bind(queue="yes", exchange="no"), "exchange 'no'"),
    (Queue.Unbind(queue="no", exchange="yes"), "queue 'no'"), (Exchange.Declare(exchange="no"), "exchange 'no'"),
    (Exchange.Delete(exchange="no"), "exchange 'no'"),
    (Exchange.Bind(destination="no", source="yes"), "exchange 'no'"),
    (Exchange.Bind(destination="yes", source="no"), "exchange 'no'"),
    (Queue.Declare(queue="yes", arguments={"x-dead-letter-exchange": "no"}), "exchange 'no'"),
    (Exchange.Declare(exchange="yes", arguments={"alternate-exchange": "no"}), "exchange 'no'"),
])
def test_what_a_user_may_not_touch_is_refused_before_anything_else(
    open_talk: Talk, method: Queue.Declare, thing: str
) -> None:
    open_talk.stage.broker.users.set_permissions(PermissionDefinition("guest", "/", "^yes$", "^yes$", "^yes$"))
    refused(open_talk, method, 403, f"ACCESS_REFUSED - access to {thing} in vhost '/' refused for user 'guest'")


@pytest.mark.parametrize("rights", [("^q$|^amq", "", ""), ("", "^q$|^amq", ""), ("", "", "^q$|^amq")])
def test_a_passive_declaration_needs_any_permission(open_talk: Talk, rights: tuple[str, str, str]) -> None:
    declare(open_talk).stage.broker.users.set_permissions(PermissionDefinition("guest", "/", *rights))
    declare(open_talk, passive=True)
    open_talk.client(Exchange.Declare(exchange="amq.direct", passive=True)).broker(Exchange.DeclareOk())


@pytest.mark.parametrize("name", ["q", "missing"])
def test_without_permission_a_passive_declaration_does_not_tell_what_there_is(open_talk: Talk, name: str) -> None:
    declare(open_talk).stage.broker.users.set_permissions(PermissionDefinition("guest", "/", "", "", ""))
    text = f"ACCESS_REFUSED - access to queue '{name}' in vhost '/' refused for user 'guest'"
    refused(open_talk, Queue.Declare(queue=name, passive=True), 403, text)
    refused(open_talk, Exchange.Declare(exchange=name, passive=True), 403, text.replace("queue", "exchange"))


@pytest.mark.parametrize("method", [
    Queue.Bind(queue="q", exchange="amq.topic", routing_key="b"),
    Queue.Unbind(queue="q", exchange="amq.topic", routing_key="b"),
    Exchange.Bind(destination="amq.fanout", source="amq.topic", routing_key="b"),
    Exchange.Unbind(destination="amq.fanout", source="amq.topic", routing_key="b"),
])
def test_binding_to_a_topic_exchange_needs_permission_for_the_key(open_talk: Talk, method: Queue.Bind) -> None:
    declare(open_talk).stage.broker.users.set_topic_permissions(
        TopicPermissionDefinition("guest", "/", "amq.topic", ".*", "^a"))
    refused(open_talk, method, 403,
            "ACCESS_REFUSED - access to topic 'b' in exchange 'amq.topic' in vhost '/' refused for user 'guest'")


def test_a_given_name_needs_permission_too(open_talk: Talk) -> None:
    open_talk.stage.broker.users.set_permissions(PermissionDefinition("guest", "/", "^mine", "", ""))
    open_talk.client(Queue.Declare())
    assert open_talk.hear(Channel.Close).reply_code == 403
    open_talk.client(Channel.CloseOk())


# The rest of a channel

def test_flow_can_only_be_switched_on(open_talk: Talk) -> None:
    open_talk.client(Channel.Flow(True)).broker(Channel.FlowOk(True)).client(Channel.Flow(False))
    open_talk.hung_up(540, "NOT_IMPLEMENTED - active=false", 20, 20)


def test_an_access_request_gets_the_ticket_1(open_talk: Talk) -> None:
    open_talk.octets(b"\x01\0\1\0\0\0\x0b\0\x1e\0\x0a\x05/data\x1f\xce")
    open_talk.broker(Unknown(b"\0\x1e\0\x0b\0\x01"), channel=1)


def test_the_log_tells_the_beginning_of_a_long_argument(talk: Talk, caplog: pytest.LogCaptureFixture) -> None:
    talk.open_channel().client(Queue.Declare(queue="q", arguments={"x-max-length": 1})).hear(Queue.DeclareOk)
    talk.client(Queue.Declare(queue="q", arguments={"x-max-length": "x" * 100_000})).hear(Channel.Close)
    [told] = [record.message for record in caplog.records if "PRECONDITION_FAILED" in record.message]
    assert len(told) < 700 and told.endswith("...")
    talk.client(Channel.CloseOk())
