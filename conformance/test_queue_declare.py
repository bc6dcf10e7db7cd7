"""§10 queue.declare: the counts in the answer, equivalence, exclusive and auto-delete queues, passive declares.

Names are in §9, arguments in `test_queue_arguments`.
"""
from __future__ import annotations

import re
from typing import Any, Callable

import pytest

from conformance.channel import Channel
from conformance.client import Client
from conformance.conftest import Broker, Names
from conformance.methods import (
    BASIC_CONSUME, BASIC_GET, CHANNEL_CLOSE, QUEUE_BIND, QUEUE_DECLARE, QUEUE_DELETE, QUEUE_PURGE, QUEUE_UNBIND)
from conformance.texts import NO_PREVIOUS_QUEUE, Texts
from conformance.waiting import wait_until

# declare-ok


@pytest.mark.standard
def test_a_new_queue_has_its_name_and_nothing_else(ch: Channel, queue_name: str) -> None:
    assert ch.declare_queue(queue_name) == (queue_name, 0, 0)


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("auto_delete", [False, True])
def test_any_flags_go_together(
        ch: Channel, queue_name: str, durable: bool, exclusive: bool, auto_delete: bool) -> None:
    flags = {"durable": durable, "exclusive": exclusive, "auto_delete": auto_delete}
    assert ch.declare_queue(queue_name, **flags) == ch.declare_queue(queue_name, **flags) == (queue_name, 0, 0)


@pytest.mark.standard
def test_the_answer_counts_ready_messages_but_not_unacked_ones(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    for _ in range(3):
        ch.publish("", queue_name)
    ch.get(queue_name)
    assert ch.declare_queue(queue_name) == (queue_name, 2, 0)


@pytest.mark.standard
def test_the_answer_counts_the_consumers_of_all_connections(ch: Channel, broker: Broker, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.consume(queue_name)
    ch.consume(queue_name)
    broker.channel().consume(queue_name)
    assert ch.declare_queue(queue_name) == (queue_name, 0, 3)


@pytest.mark.standard
def test_a_queue_is_seen_by_other_connections(ch: Channel, broker: Broker, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", queue_name, b"body")
    ch.sync()
    assert broker.channel().get(queue_name).body == b"body"


@pytest.mark.standard
def test_a_queue_outlives_its_connection(broker: Broker, queue_name: str) -> None:
    client = broker.client()
    client.channel().declare_queue(queue_name)
    client.close()
    assert broker.channel().declare_queue(queue_name, passive=True) == (queue_name, 0, 0)


@pytest.mark.standard
def test_an_empty_name_makes_a_new_queue_every_time(ch: Channel) -> None:
    """The last declared queue is not meant, unlike in all other methods."""
    assert ch.declare_queue("", exclusive=True) != ch.declare_queue("", exclusive=True)


@pytest.mark.parametrize("passive", [False, True])
def test_carriage_returns_and_line_feeds_are_taken_out_of_the_name(
        ch: Channel, queue_name: str, passive: bool) -> None:
    ch.declare_queue(queue_name)
    half = len(queue_name) // 2
    odd = f"\r\n{queue_name[:half]}\r{queue_name[half:]}\n"
    assert ch.declare_queue(odd, passive=passive) == (queue_name, 0, 0)


def test_a_name_of_line_ends_alone_is_an_empty_name(ch: Channel) -> None:
    assert ch.declare_queue("\r\n", exclusive=True)[0].startswith("amq.gen-")


@pytest.mark.standard
def test_a_declare_without_waiting_is_not_answered(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name, nowait=True)
    assert ch.sync() == []
    assert ch.declare_queue(queue_name, passive=True) == (queue_name, 0, 0)


def test_a_server_named_queue_declared_without_waiting_is_the_last_declared(ch: Channel) -> None:
    ch.declare_queue("", exclusive=True, nowait=True)
    assert ch.get("") is None


@pytest.mark.parametrize("argument, told", [
    ({"x-message-ttl": -1}, "invalid arg 'x-message-ttl' for queue '{name}' in vhost '{vhost}': {{value_negative,-1}}"),
    ({"x-overflow": "no"}, "invalid arg 'x-overflow' for queue '{name}' in vhost '{vhost}': invalid_overflow"),
    ({"x-dead-letter-exchange": True}, "invalid type 'bool' for arg 'x-dead-letter-exchange' in queue '{name}' in "
                                       "vhost '{vhost}'"),
], ids=str)
def test_a_refusal_of_a_server_named_queue_tells_the_name_that_was_made(
        ch: Channel, vhost: str, argument: dict[str, Any], told: str) -> None:
    ch.send_declare_queue("", arguments=argument)
    code, text, *ids = ch.client.await_method(ch.number, [CHANNEL_CLOSE]).decode("2s22")
    name, = re.findall(r"'(amq\.gen-[\w-]{22})'", text)
    assert (code, text) == (406, f"PRECONDITION_FAILED - {told.format(name=name, vhost=vhost)}")
    assert tuple(ids) == QUEUE_DECLARE


# Equality

INEQUIVALENT = {
    "durable now": ({}, {"durable": True}, "durable", "received 'true' but current is 'false'"),
    "durable before": ({"durable": True}, {}, "durable", "received 'false' but current is 'true'"),
    "auto-delete now": ({}, {"auto_delete": True}, "auto_delete", "received 'true' but current is 'false'"),
    "auto-delete before": ({"auto_delete": True}, {}, "auto_delete", "received 'false' but current is 'true'"),
    "durable before auto-delete": (
        {}, {"durable": True, "auto_delete": True}, "durable", "received 'true' but current is 'false'"),
    "auto-delete before arguments": (
        {}, {"auto_delete": True, "arguments": {"x-max-length": 5}}, "auto_delete",
        "received 'true' but current is 'false'"),
    "auto-delete of an exclusive queue": (
        {"exclusive": True}, {"exclusive": True, "auto_delete": True}, "auto_delete",
        "received 'true' but current is 'false'"),
}


@pytest.mark.parametrize("first, second, flag, difference", INEQUIVALENT.values(), ids=INEQUIVALENT)
@pytest.mark.parametrize("nowait", [False, True])
def test_a_queue_declared_otherwise_is_refused(
        ch: Channel, texts: Texts, queue_name: str, first: dict[str, Any], second: dict[str, Any], flag: str,
        difference: str, nowait: bool) -> None:
    ch.declare_queue(queue_name, **first)
    ch.send_declare_queue(queue_name, nowait=nowait, **second)
    ch.fails(406, texts.inequivalent(flag, queue_name, difference), *QUEUE_DECLARE)


@pytest.mark.parametrize("first, second", [
    ({}, {"exclusive": True}),
    ({"exclusive": True}, {}),
    ({}, {"exclusive": True, "durable": True, "auto_delete": True}),
    ({"exclusive": True}, {"auto_delete": True, "arguments": {"x-max-length": 5}}),
], ids=["exclusive now", "exclusive before", "before other flags", "before arguments"])
def test_a_queue_declared_with_another_exclusive_flag_is_locked(
        ch: Channel, texts: Texts, queue_name: str, first: dict[str, Any], second: dict[str, Any]) -> None:
    ch.declare_queue(queue_name, **first)
    ch.send_declare_queue(queue_name, **second)
    ch.fails(405, texts.locked(queue_name), *QUEUE_DECLARE)


def test_an_exclusive_queue_is_never_durable(ch: Channel, queue_name: str) -> None:
    """The flag is dropped at every declare, so that none of them differs."""
    for durable in (True, False, True):
        assert ch.declare_queue(queue_name, exclusive=True, durable=durable) == (queue_name, 0, 0)


def test_a_refused_declare_changes_nothing(ch: Channel, texts: Texts, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", queue_name, b"kept")
    ch.send_declare_queue(queue_name, durable=True)
    ch.fails(406, texts.inequivalent("durable", queue_name, "received 'true' but current is 'false'"))
    assert ch.open().declare_queue(queue_name) == (queue_name, 1, 0)


# Passive


@pytest.mark.parametrize("flags", [
    {"durable": True}, {"auto_delete": True}, {"exclusive": True}, {"arguments": {"x-max-length": 5}},
    {"arguments": {"x-max-length": -1}}, {"arguments": {"x-queue-type": "nonesuch"}},
], ids=str)
def test_a_passive_declare_asks_only_for_existence(ch: Channel, queue_name: str, flags: dict[str, Any]) -> None:
    ch.declare_queue(queue_name)
    assert ch.declare_queue(queue_name, passive=True, **flags) == (queue_name, 0, 0)


@pytest.mark.parametrize("nowait", [False, True])
@pytest.mark.parametrize("name", ["nonesuch", "amq.nonesuch", ""])
def test_a_passive_declare_of_nothing_is_not_found(ch: Channel, texts: Texts, name: str, nowait: bool) -> None:
    """Not even an empty name means a queue: neither a new one, nor the one declared last."""
    ch.declare_queue("", exclusive=True)
    ch.send_declare_queue(name, passive=True, nowait=nowait)
    ch.fails(404, texts.no_queue(name), *QUEUE_DECLARE)


@pytest.mark.standard
def test_a_passive_declare_without_waiting_is_not_answered(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.declare_queue(queue_name, passive=True, nowait=True)
    assert ch.sync() == []


# The last declared queue

ON_LAST: dict[str, tuple[Callable[[Channel], None], tuple[int, int]]] = {
    "bind": (lambda ch: ch.send_bind_queue("", "amq.direct", "key"), QUEUE_BIND),
    "unbind": (lambda ch: ch.send_unbind_queue("", "amq.direct", "key"), QUEUE_UNBIND),
    "purge": (lambda ch: ch.send_purge(""), QUEUE_PURGE),
    "delete": (lambda ch: ch.send_delete_queue(""), QUEUE_DELETE),
    "get": (lambda ch: ch.send_get(""), BASIC_GET),
    "consume": (lambda ch: ch.send_consume(""), BASIC_CONSUME),
}
every_use_of_last = pytest.mark.parametrize("send, ids", ON_LAST.values(), ids=ON_LAST)


@every_use_of_last
def test_an_empty_name_means_nothing_before_the_first_declare(
        client: Client, ch: Channel, send: Callable[[Channel], None], ids: tuple[int, int]) -> None:
    """What another channel declared does not count."""
    client.channel().declare_queue("", exclusive=True)
    send(ch)
    ch.fails(404, NO_PREVIOUS_QUEUE, *ids)


@pytest.mark.standard
@every_use_of_last
def test_an_empty_name_means_the_last_declared_queue(
        client: Client, ch: Channel, send: Callable[[Channel], None], ids: tuple[int, int]) -> None:
    """Answered with the -ok, whose ids follow the method's; get with get-empty."""
    ch.declare_queue("", exclusive=True)
    send(ch)
    answer = ids[0], ids[1] + (2 if ids == BASIC_GET else 1)
    client.await_method(1, [answer])


@pytest.mark.parametrize("passive", [False, True])
@pytest.mark.parametrize("nowait", [False, True])
def test_the_last_declared_queue_may_have_been_there(
        ch: Channel, names: Names, passive: bool, nowait: bool) -> None:
    queue = names.queue()
    ch.declare_queue(queue)
    ch.declare_queue(names.queue())
    ch.publish("", queue, b"there")
    ch.declare_queue(queue, passive=passive, nowait=nowait)
    assert ch.get("").body == b"there"


def test_the_last_declared_queue_is_remembered_after_its_end(ch: Channel, texts: Texts, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.delete_queue("")
    ch.send_get("")
    ch.fails(404, texts.no_queue(queue_name), *BASIC_GET)


# Exclusive queues

LOCKED_USES: dict[str, tuple[Callable[[Channel, str], None], tuple[int, int]]] = {
    "declare it": (lambda ch, queue: ch.send_declare_queue(queue), QUEUE_DECLARE),
    "declare it exclusive": (lambda ch, queue: ch.send_declare_queue(queue, exclusive=True), QUEUE_DECLARE),
    "declare it passively": (lambda ch, queue: ch.send_declare_queue(queue, passive=True), QUEUE_DECLARE),
    "declare it without waiting": (lambda ch, queue: ch.send_declare_queue(queue, nowait=True), QUEUE_DECLARE),
    "bind it": (lambda ch, queue: ch.send_bind_queue(queue, "amq.direct", "key"), QUEUE_BIND),
    "purge it": (lambda ch, queue: ch.send_purge(queue), QUEUE_PURGE),
    "delete it": (lambda ch, queue: ch.send_delete_queue(queue), QUEUE_DELETE),
    "get from it": (lambda ch, queue: ch.send_get(queue), BASIC_GET),
    "consume from it": (lambda ch, queue: ch.send_consume(queue), BASIC_CONSUME),
    "consume from it, exclusively": (lambda ch, queue: ch.send_consume(queue, exclusive=True), BASIC_CONSUME),
}


@pytest.mark.parametrize("send, ids", LOCKED_USES.values(), ids=LOCKED_USES)
def test_another_connection_may_not(
        ch: Channel, broker: Broker, texts: Texts, queue_name: str, send: Callable[[Channel, str], None],
        ids: tuple[int, int]) -> None:
    ch.declare_queue(queue_name, exclusive=True)
    other = broker.channel()
    send(other, queue_name)
    other.fails(405, texts.locked(queue_name), *ids)


def test_the_text_about_a_locked_queue_fits_when_its_name_is_short(
        ch: Channel, broker: Broker, names: Names, texts: Texts) -> None:
    queue = names.queue(names.queue()[-11:])
    ch.declare_queue(queue, exclusive=True)
    other = broker.channel()
    other.send_get(queue)
    assert not texts.locked(queue).endswith("...")
    other.fails(405, texts.locked(queue), *BASIC_GET)


def test_another_connection_may_not_unbind_it(
        ch: Channel, broker: Broker, texts: Texts, queue_name: str) -> None:
    ch.declare_queue(queue_name, exclusive=True)
    ch.bind_queue(queue_name, "amq.direct", queue_name)
    other = broker.channel()
    other.send_unbind_queue(queue_name, "amq.direct", queue_name)
    other.fails(405, texts.locked(queue_name), *QUEUE_UNBIND)


def test_another_connection_may_unbind_what_is_not_bound(ch: Channel, broker: Broker, queue_name: str) -> None:
    ch.declare_queue(queue_name, exclusive=True)
    broker.channel().unbind_queue(queue_name, "amq.direct", queue_name)


@pytest.mark.standard
def test_another_connection_may_publish_to_it(ch: Channel, broker: Broker, queue_name: str) -> None:
    ch.declare_queue(queue_name, exclusive=True)
    other = broker.channel()
    other.confirm_select()
    other.publish("", queue_name, b"open to all", mandatory=True)
    assert other.confirms(1) == [(1, True)]
    assert ch.get(queue_name).body == b"open to all"


@pytest.mark.standard
def test_another_channel_of_its_connection_may_use_it(client: Client, ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name, exclusive=True)
    other = client.channel()
    assert other.declare_queue(queue_name, exclusive=True) == (queue_name, 0, 0)
    other.consume(queue_name)
    assert other.delete_queue(queue_name) == 0


@pytest.mark.standard
def test_it_is_gone_at_its_connections_close_ok(broker: Broker, queue_name: str) -> None:
    owner = broker.client()
    owner.channel().declare_queue(queue_name, exclusive=True)
    owner.close()
    assert not broker.has_queue(queue_name)


@pytest.mark.standard
def test_its_name_is_free_after_its_connection(broker: Broker, ch: Channel, queue_name: str) -> None:
    owner = broker.client()
    owner.channel().declare_queue(queue_name, exclusive=True)
    owner.close()
    assert ch.declare_queue(queue_name) == (queue_name, 0, 0)


@pytest.mark.standard
def test_it_takes_its_messages_along(broker: Broker, ch: Channel, queue_name: str) -> None:
    owner = broker.client()
    channel = owner.channel()
    channel.declare_queue(queue_name, exclusive=True)
    channel.publish("", queue_name)
    channel.bind_queue(queue_name, "amq.direct", queue_name)
    owner.close()
    ch.declare_queue(queue_name)
    ch.publish("amq.direct", queue_name, mandatory=True)
    assert ch.returns(1)[0].routing_key == queue_name
    assert ch.get(queue_name) is None


@pytest.mark.standard
def test_it_goes_when_tcp_drops(broker: Broker, queue_name: str) -> None:
    owner = broker.client()
    owner.channel().declare_queue(queue_name, exclusive=True)
    owner.drop()
    wait_until(lambda: not broker.has_queue(queue_name))


# Auto-delete queues


@pytest.fixture
def fleeting(ch: Channel, queue_name: str) -> str:
    """An auto-delete queue."""
    ch.declare_queue(queue_name, auto_delete=True)
    return queue_name


@pytest.mark.standard
def test_an_auto_delete_queue_that_never_had_a_consumer_stays(broker: Broker, queue_name: str) -> None:
    client = broker.client()
    client.channel().declare_queue(queue_name, auto_delete=True)
    client.close()
    assert broker.has_queue(queue_name)


def test_getting_from_an_auto_delete_queue_does_not_count(ch: Channel, broker: Broker, fleeting: str) -> None:
    ch.publish("", fleeting)
    ch.get(fleeting)
    ch.close()
    assert broker.has_queue(fleeting)


@pytest.mark.standard
def test_an_auto_delete_queue_is_gone_at_cancel_ok(ch: Channel, broker: Broker, fleeting: str) -> None:
    ch.consume(fleeting, "tag")
    ch.cancel("tag")
    assert not broker.has_queue(fleeting)


def test_an_auto_delete_queue_is_gone_after_a_cancel_without_waiting(
        ch: Channel, broker: Broker, fleeting: str) -> None:
    ch.consume(fleeting, "tag")
    ch.cancel("tag", nowait=True)
    ch.sync()
    assert not broker.has_queue(fleeting)


@pytest.mark.standard
def test_an_auto_delete_queue_is_gone_at_its_consumers_connection_close_ok(broker: Broker, fleeting: str) -> None:
    client = broker.client()
    client.channel().consume(fleeting)
    client.close()
    assert not broker.has_queue(fleeting)


@pytest.mark.standard
def test_an_auto_delete_queue_goes_when_its_consumers_tcp_drops(broker: Broker, fleeting: str) -> None:
    client = broker.client()
    client.channel().consume(fleeting)
    client.drop()
    wait_until(lambda: not broker.has_queue(fleeting))


@pytest.mark.standard
def test_an_auto_delete_queue_stays_until_its_last_consumer_goes(ch: Channel, broker: Broker, fleeting: str) -> None:
    ch.consume(fleeting, "first")
    other = broker.channel()
    other.consume(fleeting, "second")
    ch.cancel("first")
    assert broker.has_queue(fleeting)
    other.cancel("second")
    assert not broker.has_queue(fleeting)


@pytest.mark.standard
def test_an_auto_delete_queue_takes_its_messages_along(ch: Channel, fleeting: str) -> None:
    ch.publish("", fleeting)
    ch.consume(fleeting, "tag")
    ch.deliveries(1)
    ch.cancel("tag")
    assert ch.declare_queue(fleeting) == (fleeting, 0, 0)


def test_an_exclusive_auto_delete_queue_goes_with_its_consumer(
        ch: Channel, broker: Broker, queue_name: str) -> None:
    ch.declare_queue(queue_name, exclusive=True, auto_delete=True)
    ch.consume(queue_name, "tag")
    ch.cancel("tag")
    assert not broker.has_queue(queue_name)
