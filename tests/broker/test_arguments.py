"""Invalid arguments are refused with the texts of RabbitMQ 3.10."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amqpd.broker import arguments
from amqpd.broker.arguments import (
    are_equivalent,
    check_consumer_arguments,
    check_exchange_arguments,
    check_exchange_equivalence,
    check_queue_arguments,
    check_queue_equivalence,
    check_server_named,
    describe_exchange,
    describe_queue,
    field_term,
    named_exchange,
    type_of_queue,
)
from amqpd.broker.definitions import ExchangeDefinition, QueueDefinition
from amqpd.errors import ChannelException
from amqpd.fields import Byte, Float, Long, LongString, Short, Timestamp, UnsignedByte, UnsignedInt, UnsignedShort

Arguments = dict[str, Any]
QUORUM = {"x-queue-type": "quorum"}
STREAM = {"x-queue-type": "stream"}
TEN_YEARS_MS = 315_360_000_000


def queue(arguments: Arguments | None = None, *, durable: bool = True, **properties: bool) -> QueueDefinition:
    return QueueDefinition(1, "/", "q", durable=durable, arguments=arguments or {}, **properties)


def exchange(type: str = "direct", arguments: Arguments | None = None, **properties: bool) -> ExchangeDefinition:
    return ExchangeDefinition("/", "x", type, arguments=arguments or {}, **properties)


def refusal(check: Any, *values: Any) -> str:
    """The text a check refuses these values with."""
    with pytest.raises(ChannelException) as refused:
        check(*values)
    code, text = refused.value.reply_text.split(" - ", 1)
    assert code == "PRECONDITION_FAILED"
    return text


# Names in texts

def test_queues_and_exchanges_are_described_with_their_vhost() -> None:
    assert describe_queue("q", "/") == "queue 'q' in vhost '/'"
    assert describe_exchange("x", "test") == "exchange 'x' in vhost 'test'"


# Queue arguments

INVALID_VALUES = [
    ("x-message-ttl", -1, "{value_negative,-1}"),
    ("x-message-ttl", TEN_YEARS_MS + 1, "{value_too_large,315360000001}"),
    ("x-message-ttl", "5", '"expected integer, got longstr"'),
    ("x-message-ttl", True, '"expected integer, got bool"'),
    ("x-message-ttl", 1.0, '"expected integer, got double"'),
    ("x-message-ttl", Float(1), '"expected integer, got float"'),
    ("x-message-ttl", Byte(-1), "{value_negative,-1}"),
    ("x-message-ttl", None, '"expected integer, got void"'),
    ("x-message-ttl", b"5", '"expected integer, got binary"'),
    ("x-message-ttl", [5], '"expected integer, got array"'),
    ("x-message-ttl", {"a": 5}, '"expected integer, got table"'),
    ("x-message-ttl", Decimal("1.5"), '"expected integer, got decimal"'),
    ("x-message-ttl", Timestamp(5), '"expected integer, got timestamp"'),
    ("x-expires", 0, "{value_zero,0}"),
    ("x-expires", -5, "{value_negative,-5}"),
    ("x-expires", TEN_YEARS_MS + 1, "{value_too_large,315360000001}"),
    ("x-expires", True, '"expected integer, got bool"'),
    ("x-max-length", -1, "{value_negative,-1}"),
    ("x-max-length", 1.5, '"expected integer, got double"'),
    ("x-max-length-bytes", -1, "{value_negative,-1}"),
    ("x-overflow", "foo", "invalid_overflow"),
    ("x-overflow", 1, "{unacceptable_type,signedint}"),
    ("x-overflow", b"drop-head", "{unacceptable_type,binary}"),
    ("x-dead-letter-routing-key", "k", "routing_key_but_no_dlx_defined"),
    ("x-dead-letter-routing-key", 1, "{unacceptable_type,signedint}"),
    ("x-max-priority", 256, "{max_value_exceeded,256}"),
    ("x-max-priority", -1, "{value_negative,-1}"),
    ("x-max-priority", "9", '"expected integer, got longstr"'),
    ("x-single-active-consumer", "true", "{unacceptable_type,longstr}"),
    ("x-single-active-consumer", 1, "{unacceptable_type,signedint}"),
    ("x-queue-mode", "foo", "\"unsupported queue mode 'foo'\""),
    ("x-queue-mode", 1, "{unacceptable_type,signedint}"),
    ("x-queue-version", 3, "\"unsupported queue version '3'\""),
    ("x-queue-version", 0, "\"unsupported queue version '0'\""),
    ("x-queue-version", -1, "{value_negative,-1}"),
    ("x-queue-version", "2", '"expected integer, got longstr"'),
    ("x-queue-type", "foo", "\"unsupported queue type 'foo'\""),
    ("x-queue-type", 1, "{unacceptable_type,signedint}"),
    ("x-queue-type", b"classic", "{unacceptable_type,binary}"),
    ("x-queue-type", None, "{unacceptable_type,void}"),
    ("x-delivery-limit", "3", '"expected integer, got longstr"'),
    ("x-consumer-timeout", -1, "{value_negative,-1}"),
]


@pytest.mark.parametrize(("key", "value", "detail"), INVALID_VALUES)
def test_an_invalid_value_is_refused_with_its_detail(key: str, value: Any, detail: str) -> None:
    text = refusal(check_queue_arguments, queue({key: value}))
    assert text == f"invalid arg '{key}' for queue 'q' in vhost '/': {detail}"


@pytest.mark.parametrize(("key", "value", "detail"), [
    ("x-message-ttl", -1, "{value_negative,-1}"),
    ("x-dead-letter-strategy", "foo", "invalid_dlx_strategy"),
    ("x-dead-letter-strategy", 1, "{unacceptable_type,signedint}"),
    ("x-max-in-memory-length", -1, "{value_negative,-1}"),
    ("x-max-in-memory-bytes", "1", '"expected integer, got longstr"'),
    ("x-quorum-initial-group-size", 0, "{value_zero,0}"),
    ("x-quorum-initial-group-size", "a", '"expected integer, got longstr"'),
    ("x-queue-leader-locator", "foo", "invalid_queue_locator_arg"),
    ("x-queue-leader-locator", 1, "{unacceptable_type,signedint}"),
    ("x-delivery-limit", 1.5, '"expected integer, got double"'),
])
def test_an_invalid_value_is_refused_on_a_quorum_queue_too(key: str, value: Any, detail: str) -> None:
    text = refusal(check_queue_arguments, queue({**QUORUM, key: value}))
    assert text == f"invalid arg '{key}' for queue 'q' in vhost '/': {detail}"


@pytest.mark.parametrize("arguments", [{}, {"x-max-age": "1h"}, {"x-max-length": 5}, {"x-message-ttl": -1}])
def test_a_stream_is_refused_whatever_it_is_given(arguments: Arguments) -> None:
    text = refusal(check_queue_arguments, queue({**arguments, **STREAM}))
    detail = '"stream queues are not supported yet, use classic or quorum"'
    assert text == f"invalid arg 'x-queue-type' for queue 'q' in vhost '/': {detail}"


@pytest.mark.parametrize(("value", "type_name"), [
    (1, "signedint"), (None, "void"), (True, "bool"), (b"x", "binary"), (LongString(b"\xff"), "longstr"),
])
def test_a_dead_letter_exchange_is_named_by_text(value: Any, type_name: str) -> None:
    text = refusal(check_queue_arguments, queue({"x-dead-letter-exchange": value}))
    assert text == f"invalid type '{type_name}' for arg 'x-dead-letter-exchange' in queue 'q' in vhost '/'"


@pytest.mark.parametrize("arguments", [
    {"x-message-ttl": 0}, {"x-message-ttl": TEN_YEARS_MS}, {"x-expires": 1}, {"x-expires": TEN_YEARS_MS},
    {"x-max-length": 0, "x-max-length-bytes": 0}, {"x-overflow": "drop-head"}, {"x-overflow": "reject-publish"},
    {"x-overflow": "reject-publish-dlx"}, {"x-dead-letter-exchange": ""},
    {"x-dead-letter-exchange": "later", "x-dead-letter-routing-key": ""}, {"x-max-priority": 0},
    {"x-max-priority": 255}, {"x-single-active-consumer": False}, {"x-queue-mode": "lazy"},
    {"x-queue-mode": "default"}, {"x-queue-version": 1}, {"x-queue-version": 2}, {"x-queue-type": "classic"},
    {"x-queue-master-locator": "min-masters"}, {"x-delivery-limit": -1}, {"x-consumer-timeout": 0},
    {"x-ours": {"any": ["thing"]}, "": None},
    *[{"x-max-length": kind(5)} for kind in (Byte, UnsignedByte, Short, UnsignedShort, UnsignedInt, Long)],
])
def test_what_a_classic_queue_may_be_given(arguments: Arguments) -> None:
    check_queue_arguments(queue(arguments))
    check_queue_arguments(queue(arguments, durable=False, exclusive=True, auto_delete=True))


@pytest.mark.parametrize("arguments", [
    {}, {"x-delivery-limit": 3}, {"x-delivery-limit": -1}, {"x-dead-letter-strategy": "at-least-once"},
    {"x-quorum-initial-group-size": 3}, {"x-queue-leader-locator": "balanced"}, {"x-max-in-memory-length": 0},
    {"x-overflow": "reject-publish-dlx"}, {"x-single-active-consumer": True}, {"x-expires": 1, "x-message-ttl": 0},
    {"x-consumer-timeout": 1000}, {"x-ours": 1},
])
def test_what_a_quorum_queue_may_be_given(arguments: Arguments) -> None:
    check_queue_arguments(queue({**QUORUM, **arguments}))


@pytest.mark.parametrize("key", [
    "x-dead-letter-strategy", "x-quorum-initial-group-size", "x-queue-leader-locator", "x-max-in-memory-length",
    "x-max-in-memory-bytes", "x-max-age", "x-stream-max-segment-size-bytes", "x-initial-cluster-size",
])
def test_an_argument_of_another_type_is_refused_on_a_classic_queue(key: str) -> None:
    text = refusal(check_queue_arguments, queue({key: None}))
    assert text == f"invalid arg '{key}' for queue 'q' in vhost '/' of queue type rabbit_classic_queue"


@pytest.mark.parametrize("key", [
    "x-max-priority", "x-queue-mode", "x-queue-version", "x-queue-master-locator", "x-max-age",
])
def test_an_argument_of_another_type_is_refused_on_a_quorum_queue(key: str) -> None:
    text = refusal(check_queue_arguments, queue({**QUORUM, key: None}))
    assert text == f"invalid arg '{key}' for queue 'q' in vhost '/' of queue type rabbit_quorum_queue"


@pytest.mark.parametrize(("properties", "fault"), [
    ({"durable": False}, "non-durable"),
    ({"exclusive": True}, "exclusive-owner"),
    ({"auto_delete": True}, "auto-delete"),
    ({"durable": False, "exclusive": True}, "exclusive-owner"),
    ({"durable": False, "exclusive": True, "auto_delete": True}, "auto-delete"),
])
@pytest.mark.parametrize("arguments", [QUORUM, STREAM], ids=["quorum", "stream"])
def test_a_replicated_queue_is_durable_shared_and_stays(
    arguments: Arguments, properties: dict[str, bool], fault: str
) -> None:
    text = refusal(check_queue_arguments, queue(arguments, **properties))
    assert text == f"invalid property '{fault}' for queue 'q' in vhost '/'"


@pytest.mark.parametrize(("arguments", "named"), [
    ({"x-max-length": -1, "x-expires": 0}, "x-expires"),
    ({"x-message-ttl": -1, "x-queue-type": "foo"}, "x-queue-type"),
    ({"x-max-age": "1h", "x-message-ttl": -1}, "x-message-ttl"),
    ({"x-queue-type": "foo", "x-dead-letter-exchange": 1}, "x-dead-letter-exchange"),
    ({"x-max-age": "1h", "x-dead-letter-strategy": "foo"}, "x-max-age"),
    ({"x-dead-letter-routing-key": "k", "x-max-length": -1}, "x-dead-letter-routing-key"),
    ({"x-dead-letter-routing-key": "k", "x-message-ttl": -1}, "x-message-ttl"),
])
def test_of_two_faults_rabbitmq_and_we_name_the_same(arguments: Arguments, named: str) -> None:
    assert f" arg '{named}' " in refusal(check_queue_arguments, queue(arguments))


def test_faulty_values_are_named_before_faulty_properties() -> None:
    text = refusal(check_queue_arguments, queue({**QUORUM, "x-message-ttl": -1}, durable=False))
    assert text == "invalid arg 'x-message-ttl' for queue 'q' in vhost '/': {value_negative,-1}"


def test_the_broker_chooses_names_for_classic_queues_only() -> None:
    check_server_named({})
    check_server_named({"x-queue-type": "classic"})
    assert refusal(check_server_named, QUORUM) == "Cannot declare a server-named queue for type rabbit_quorum_queue"
    assert refusal(check_server_named, STREAM) == "Cannot declare a server-named queue for type rabbit_stream_queue"


def test_a_queue_is_classic_unless_its_arguments_say_otherwise() -> None:
    assert type_of_queue({}) == type_of_queue({"x-queue-type": "classic"}) == "classic"
    assert type_of_queue(QUORUM) == "quorum"


# Exchange and consumer arguments

@pytest.mark.parametrize(("value", "type_name"), [
    (1, "signedint"), (Long(1), "long"), (Float(1), "float"), (None, "void"), (b"a", "binary"),
])
def test_an_alternate_exchange_is_named_by_text(value: Any, type_name: str) -> None:
    text = refusal(check_exchange_arguments, exchange(arguments={"alternate-exchange": value}))
    assert text == f"invalid type '{type_name}' for arg 'alternate-exchange' in exchange 'x' in vhost '/'"


@pytest.mark.parametrize("arguments", [{}, {"alternate-exchange": "later"}, {"x-ours": 1}])
def test_what_an_exchange_may_be_given(arguments: Arguments) -> None:
    check_exchange_arguments(exchange(arguments=arguments))


def test_the_exchange_an_argument_names_is_told_or_none() -> None:
    assert named_exchange("alternate-exchange", {"alternate-exchange": "ae"}, "exchange 'x' in vhost '/'") == "ae"
    assert named_exchange("x-dead-letter-exchange", {"x-dead-letter-exchange": ""}, "queue 'q' in vhost '/'") == ""
    assert named_exchange("alternate-exchange", {}, "exchange 'x' in vhost '/'") is None


@pytest.mark.parametrize(("key", "value", "detail"), [
    ("x-priority", "5", '"expected integer, got longstr"'),
    ("x-priority", 1.5, '"expected integer, got double"'),
    ("x-priority", True, '"expected integer, got bool"'),
    ("x-cancel-on-ha-failover", 1, "{unacceptable_type,signedint}"),
    ("x-consumer-timeout", "1", '"expected integer, got longstr"'),
    ("x-consumer-timeout", -1, "{value_negative,-1}"),
])
def test_an_invalid_consumer_argument_is_refused(key: str, value: Any, detail: str) -> None:
    text = refusal(check_consumer_arguments, "q", "/", {key: value})
    assert text == f"invalid arg '{key}' for queue 'q' in vhost '/': {detail}"


def test_what_a_consumer_may_be_given() -> None:
    check_consumer_arguments("q", "/", {"x-priority": -5, "x-cancel-on-ha-failover": True, "x-ours": 1})
    check_consumer_arguments("q", "/", {"x-priority": 5, "x-consumer-timeout": 1000}, "quorum")


@pytest.mark.parametrize(("key", "type_of_queue"), [
    ("x-stream-offset", "classic"), ("x-stream-offset", "quorum"), ("x-cancel-on-ha-failover", "quorum"),
])
def test_a_consumer_argument_of_another_queue_type_is_refused(key: str, type_of_queue: str) -> None:
    text = refusal(check_consumer_arguments, "q", "/", {key: True}, type_of_queue)
    assert text == f"invalid arg '{key}' for queue 'q' in vhost '/' of queue type rabbit_{type_of_queue}_queue"


# Queue equivalence

@pytest.mark.parametrize(("current", "declared"), [
    ({}, {}), ({"x-max-length": 5}, {"x-max-length": 5}), ({"x-message-ttl": 1000}, {"x-message-ttl": Timestamp(1000)}),
    ({}, {"x-queue-type": "classic"}), ({"x-queue-type": "classic"}, {}), (QUORUM, QUORUM),
    ({"x-ours": 1}, {"x-ours": 2}), ({"x-ours": 1}, {}), ({}, {"x-dead-letter-strategy": "at-most-once"}),
    (QUORUM, {**QUORUM, "x-max-priority": 5}), ({"x-dead-letter-exchange": "a"}, {"x-dead-letter-exchange": b"a"}),
    ({"x-max-length": 5}, {"x-max-length": UnsignedByte(5)}), ({"x-max-length": Byte(5)}, {"x-max-length": Long(5)}),
])
def test_declarations_that_agree(current: Arguments, declared: Arguments) -> None:
    check_queue_equivalence(queue(current), queue(declared))


@pytest.mark.parametrize(("current", "declared", "key", "words"), [
    ({"x-message-ttl": 1000}, {"x-message-ttl": 2000}, "x-message-ttl", "received '2000' but current is '1000'"),
    ({"x-message-ttl": 1000}, {"x-message-ttl": 1000.0}, "x-message-ttl", "received '1.0e3' but current is '1000'"),
    ({"x-message-ttl": 1000}, {"x-message-ttl": "1000"}, "x-message-ttl", "received '1000' but current is '1000'"),
    ({"x-message-ttl": 1000}, {"x-message-ttl": None}, "x-message-ttl", "received none but current is '1000'"),
    ({"x-message-ttl": 1000}, {"x-message-ttl": [1000]}, "x-message-ttl",
     "received '[{signedint,1000}]' but current is '1000'"),
    ({"x-message-ttl": 1000}, {"x-message-ttl": {"a": 1}}, "x-message-ttl",
     "received '[{<<\"a\">>,signedint,1}]' but current is '1000'"),
    ({"x-max-length": 1}, {"x-max-length": True}, "x-max-length", "received 'true' but current is '1'"),
    ({"x-max-length": 5}, {}, "x-max-length",
     "received none but current is the value '5' of type 'signedint'"),
    ({"x-message-ttl": 5_000_000_000}, {}, "x-message-ttl",
     "received none but current is the value '5000000000' of type 'long'"),
    ({}, {"x-message-ttl": 1000}, "x-message-ttl",
     "received the value '1000' of type 'signedint' but current is none"),
    ({"x-max-length": UnsignedByte(5)}, {}, "x-max-length",
     "received none but current is the value '5' of type 'unsignedbyte'"),
    ({}, {"x-max-length": Float(1.5)}, "x-max-length",
     "received the value '1.5' of type 'float' but current is none"),
    ({"x-max-length": 5}, {"x-max-length": Short(-6)}, "x-max-length", "received '-6' but current is '5'"),
    ({}, {"x-message-ttl": "a"}, "x-message-ttl", "received the value 'a' of type 'longstr' but current is none"),
    ({}, {"x-message-ttl": b"abc"}, "x-message-ttl", "received the value 'abc' of type 'binary' but current is none"),
    ({}, {"x-message-ttl": None}, "x-message-ttl", "received the value 'undefined' of type 'void' but current is none"),
    ({}, {"x-message-ttl": Decimal("1.5")}, "x-message-ttl",
     "received the value '{1,15}' of type 'decimal' but current is none"),
    ({"x-dead-letter-exchange": ""}, {}, "x-dead-letter-exchange",
     "received none but current is the value '' of type 'longstr'"),
    ({"x-overflow": "drop-head"}, {"x-overflow": "reject-publish"}, "x-overflow",
     "received 'reject-publish' but current is 'drop-head'"),
    ({"x-single-active-consumer": True}, {}, "x-single-active-consumer",
     "received none but current is the value 'true' of type 'bool'"),
    ({}, {"x-single-active-consumer": False}, "x-single-active-consumer",
     "received the value 'false' of type 'bool' but current is none"),
    ({}, QUORUM, "x-queue-type", "received the value 'quorum' of type 'longstr' but current is none"),
    (QUORUM, {}, "x-queue-type", "received none but current is the value 'quorum' of type 'longstr'"),
    (QUORUM, {"x-queue-type": "classic"}, "x-queue-type", "received 'classic' but current is 'quorum'"),
    ({}, {"x-queue-type": 1}, "x-queue-type", "received the value '1' of type 'signedint' but current is none"),
    ({}, {"x-queue-type": b"classic"}, "x-queue-type",
     "received the value 'classic' of type 'binary' but current is none"),
    ({}, {"x-delivery-limit": 1}, "x-delivery-limit",
     "received the value '1' of type 'signedint' but current is none"),
])
def test_another_argument_is_refused(current: Arguments, declared: Arguments, key: str, words: str) -> None:
    text = refusal(check_queue_equivalence, queue(current), queue(declared))
    assert text == f"inequivalent arg '{key}' for queue 'q' in vhost '/': {words}"


@pytest.mark.parametrize(("current", "declared", "words"), [
    (queue(), queue(durable=False), "'durable' for queue 'q' in vhost '/': received 'false' but current is 'true'"),
    (queue(durable=False), queue(), "'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'"),
    (queue(), queue(auto_delete=True),
     "'auto_delete' for queue 'q' in vhost '/': received 'true' but current is 'false'"),
])
def test_another_queue_property_is_refused(current: QueueDefinition, declared: QueueDefinition, words: str) -> None:
    assert refusal(check_queue_equivalence, current, declared) == f"inequivalent arg {words}"


@pytest.mark.parametrize(("current", "declared", "named"), [
    (queue(), queue({"x-expires": 1}, durable=False, auto_delete=True), "durable"),
    (queue(), queue({"x-expires": 1}, auto_delete=True), "auto_delete"),
    (queue({"x-message-ttl": 1, "x-expires": 1}), queue(), "x-expires"),
    (queue(), queue({"x-max-priority": 1, "x-overflow": "drop-head"}), "x-max-priority"),
    (queue(QUORUM), queue({"x-message-ttl": 1}), "x-queue-type"),
])
def test_of_two_differences_rabbitmq_and_we_name_the_same(
    current: QueueDefinition, declared: QueueDefinition, named: str
) -> None:
    assert refusal(check_queue_equivalence, current, declared).startswith(f"inequivalent arg '{named}' for ")


# Exchange equivalence

@pytest.mark.parametrize(("current", "declared", "words"), [
    (exchange(), exchange("fanout", durable=True), "'type' for X: received 'fanout' but current is 'direct'"),
    (exchange(), exchange(durable=True, auto_delete=True, internal=True),
     "'durable' for X: received 'true' but current is 'false'"),
    (exchange(), exchange(auto_delete=True, internal=True),
     "'auto_delete' for X: received 'true' but current is 'false'"),
    (exchange(internal=True), exchange(arguments={"alternate-exchange": "a"}),
     "'internal' for X: received 'false' but current is 'true'"),
    (exchange(), exchange(arguments={"alternate-exchange": "a"}),
     "'alternate-exchange' for X: received the value 'a' of type 'longstr' but current is none"),
    (exchange(arguments={"alternate-exchange": "a"}), exchange(),
     "'alternate-exchange' for X: received none but current is the value 'a' of type 'longstr'"),
    (exchange(arguments={"alternate-exchange": "a"}), exchange(arguments={"alternate-exchange": "b"}),
     "'alternate-exchange' for X: received 'b' but current is 'a'"),
    (exchange(arguments={"alternate-exchange": "a"}), exchange(arguments={"alternate-exchange": 1}),
     "'alternate-exchange' for X: received '1' but current is 'a'"),
])
def test_another_exchange_is_refused(current: ExchangeDefinition, declared: ExchangeDefinition, words: str) -> None:
    text = refusal(check_exchange_equivalence, current, declared)
    assert text == f"inequivalent arg {words.replace('X', describe_exchange('x', '/'), 1)}"


def test_other_exchange_arguments_may_differ() -> None:
    check_exchange_equivalence(exchange(arguments={"x-ours": 1}), exchange(arguments={"x-ours": 2}))


# Values in texts

@pytest.mark.parametrize(("value", "term"), [
    (None, "undefined"), (True, "true"), (False, "false"), (-7, "-7"), (Timestamp(1_577_836_800), "1577836800"),
    ("foo", '<<"foo">>'), ("", "<<>>"), ('a"b\\', '<<"a\\"b\\\\">>'), ("é", '<<"é">>'), (b"\x01\x02", "<<1,2>>"),
    (LongString(b"\xff"), "<<255>>"), (Decimal("-1.50"), "{2,-150}"), (Decimal("3"), "{0,3}"),
    ([1, "a", []], '[{signedint,1},{longstr,<<"a">>},{array,[]}]'),
    ([Byte(-1), Float(0.5)], "[{byte,-1},{float,0.5}]"), (UnsignedShort(7), "7"),
    ({"k": 1, "t": {}}, '[{<<"k">>,signedint,1},{<<"t">>,table,[]}]'),
])
def test_values_are_printed_as_erlang_terms(value: Any, term: str) -> None:
    assert field_term(value) == term


@pytest.mark.parametrize(("value", "term"), [
    (0.0, "0.0"), (1.0, "1.0"), (100.0, "100.0"), (1000.0, "1.0e3"), (1200.0, "1.2e3"), (1230.0, "1230.0"),
    (123456.0, "123456.0"), (1e22, "1.0e22"), (0.1, "0.1"), (0.0001, "0.0001"), (0.00001, "1.0e-5"), (-12.5, "-12.5"),
    (5e-324, "5.0e-324"), (1.7976931348623157e308, "1.7976931348623157e308"),
])
def test_floats_are_printed_in_the_shorter_way(value: float, term: str) -> None:
    assert field_term(value) == term


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2), st.integers(0, 2).map(Byte), st.integers(0, 2).map(Timestamp),
    st.integers(-2, 2).map(float), st.sampled_from(["", "a", "1", "undefined", b"a", LongString(b"\xff"), "[]"]),
    st.sampled_from([Decimal("1"), Decimal("1.0")]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=3)


@given(VALUES, VALUES)
@example({}, [])
@example({"a": {}}, {"a": []})
@example({"a": 1, "b": 2}, {"b": 2, "a": 1})
@example([1], [Byte(1)])
@example({"a": [1, {"b": "x"}]}, {"a": [1, {"b": "x"}]})
@example({"a": [1, {"b": "x"}]}, {"a": [1, {"b": "y"}]})
def test_values_are_equivalent_if_they_are_the_same_term(one: Any, other: Any) -> None:
    assert are_equivalent(one, other) == (field_term(one) == field_term(other))
    assert are_equivalent(one, one)


@pytest.mark.parametrize("declared", [{}, {"a": 1}, [1], "a", 1], ids=str)
def test_of_values_of_which_one_is_large_no_more_is_compared_than_of_the_other(
    declared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arguments, "field_term", None)
    assert not are_equivalent({f"{number}": [{}] for number in range(1_000)}, declared)
    assert not are_equivalent(declared, [[{}] * 1_000] * 1_000)


@pytest.mark.parametrize("wide", [["x"] * 10_000, {f"{n}": {"a": True} for n in range(10_000)}], ids=["array", "table"])
def test_of_a_wide_argument_a_refusal_writes_down_the_beginning(wide: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []

    def counted(value: Any) -> str:
        if isinstance(value, (list, dict)):
            written.append(len(value))
        return field_term(value)

    monkeypatch.setattr(arguments, "field_term", counted)
    current, declared = QueueDefinition(1, "/", "q"), QueueDefinition(2, "/", "q", arguments={"x-max-length": wide})
    text = refusal(check_queue_equivalence, current, declared)
    assert written == [arguments.MOST_SHOWN] and field_term(wide)[:100] in text
