"""§11 Queue arguments: which are accepted, the errors for others, and the comparison at a second declare (§10).

The effects of the arguments are tested elsewhere.
"""
from __future__ import annotations

from typing import Any

import pytest

from conformance.channel import Channel
from conformance.fields import (
    Array, Boolean, ByteArray, Decimal, Double, Float, Long, LongString, SignedByte, SignedInt, SignedShort, Table,
    Timestamp, Typed, UnsignedByte, UnsignedInt, UnsignedShort, UpperLong, Void)
from conformance.methods import QUEUE_DECLARE
from conformance.texts import Texts

pytestmark = pytest.mark.needs("argument-checks")

TEN_YEARS_MS = 315_360_000_000
LARGEST_LENGTH = 2 ** 53

INTEGERS = {
    "b": SignedByte(5), "B": UnsignedByte(5), "s": SignedShort(5), "u": UnsignedShort(5), "I": SignedInt(5),
    "i": UnsignedInt(5), "l": Long(5), "L": UpperLong(5)}
NO_INTEGERS: dict[str, Typed] = {
    "bool": Boolean(True), "longstr": LongString("5"), "binary": ByteArray(b"5"), "float": Float(5.0),
    "double": Double(5.0), "decimal": Decimal(5), "timestamp": Timestamp(5), "void": Void(), "array": Array([5]),
    "table": Table({"a": 5})}
TAKING_INTEGERS = ["x-message-ttl", "x-expires", "x-max-length", "x-max-length-bytes", "x-max-priority"]
TAKING_STRINGS = ["x-overflow", "x-queue-mode", "x-queue-type"]


def declared(ch: Channel, queue: str, arguments: dict[str, Any]) -> bool:
    """Whether declaring with these arguments is answered with declare-ok; durable where the type needs it."""
    durable = arguments.get("x-queue-type") in ("quorum", "stream")
    return ch.declare_queue(queue, durable=durable, arguments=arguments) == (queue, 0, 0)


def refused(ch: Channel, queue: str, arguments: Any, text: str, *, durable: bool = False) -> None:
    """Declaring with these arguments closes the channel with 406 and this text."""
    ch.send_declare_queue(queue, durable=durable, arguments=arguments)
    ch.fails(406, text, *QUEUE_DECLARE)


# Classic queues

TAKEN = [
    ("x-message-ttl", 0), ("x-message-ttl", 1), ("x-message-ttl", 2 ** 32), ("x-message-ttl", TEN_YEARS_MS),
    ("x-expires", 60_000), ("x-expires", 2 ** 32), ("x-expires", TEN_YEARS_MS),
    ("x-max-length", 0), ("x-max-length", 2 ** 32), ("x-max-length", LARGEST_LENGTH),
    ("x-max-length-bytes", 0), ("x-max-length-bytes", 2 ** 32), ("x-max-length-bytes", LARGEST_LENGTH),
    ("x-max-priority", 0), ("x-max-priority", 1), ("x-max-priority", 10), ("x-max-priority", 255),
    ("x-overflow", "drop-head"), ("x-overflow", "reject-publish"), ("x-overflow", "reject-publish-dlx"),
    ("x-dead-letter-exchange", ""), ("x-dead-letter-exchange", "nonesuch"),
    ("x-single-active-consumer", True), ("x-single-active-consumer", False),
    ("x-queue-mode", "default"), ("x-queue-mode", "lazy"),
    ("x-queue-version", 1), ("x-queue-version", 2),
    ("x-queue-type", "classic"),
]


@pytest.mark.parametrize("name, value", TAKEN)
def test_a_queue_may_have(ch: Channel, queue_name: str, name: str, value: Any) -> None:
    """Declaring it again with the same is fine too."""
    assert declared(ch, queue_name, {name: value})
    assert declared(ch, queue_name, {name: value})


@pytest.mark.parametrize("value", INTEGERS.values(), ids=INTEGERS)
@pytest.mark.parametrize("name", [*TAKING_INTEGERS, "x-queue-version"])
def test_an_integer_may_have_any_width(ch: Channel, queue_name: str, name: str, value: Typed) -> None:
    value = type(value)(2) if name == "x-queue-version" else value
    assert declared(ch, queue_name, {name: value})


@pytest.mark.parametrize("name, value", [
    ("x-whatever", 5), ("x-ha-policy", "all"), ("ttl", -1), ("", "empty"), ("X-MAX-LENGTH", -1), ("x-max-length ", -1),
    ("x-delivery-limit ", 5),
])
def test_any_other_argument_is_taken(ch: Channel, queue_name: str, name: str, value: Any) -> None:
    assert declared(ch, queue_name, {name: value})


@pytest.mark.parametrize("key", ["key", ""])
@pytest.mark.parametrize("exchange", ["amq.direct", ""])
def test_a_dead_letter_routing_key_goes_with_an_exchange(
        ch: Channel, queue_name: str, exchange: str, key: str) -> None:
    assert declared(ch, queue_name, {"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": key})


def test_all_arguments_go_together(ch: Channel, queue_name: str) -> None:
    arguments = {
        "x-queue-type": "classic", "x-message-ttl": 60_000, "x-expires": 60_000, "x-max-length": 5,
        "x-max-length-bytes": 500, "x-overflow": "reject-publish-dlx", "x-dead-letter-exchange": "amq.direct",
        "x-dead-letter-routing-key": "dead", "x-max-priority": 5, "x-single-active-consumer": True,
        "x-queue-mode": "lazy", "x-queue-version": 1}
    assert declared(ch, queue_name, arguments)
    assert declared(ch, queue_name, arguments)


REFUSED = [
    ("x-message-ttl", -1, "{value_negative,-1}"),
    ("x-message-ttl", TEN_YEARS_MS + 1, "{value_too_large,315360000001}"),
    ("x-message-ttl", 2 ** 63 - 1, "{value_too_large,9223372036854775807}"),
    ("x-expires", 0, "{value_zero,0}"),
    ("x-expires", -5, "{value_negative,-5}"),
    ("x-expires", TEN_YEARS_MS + 1, "{value_too_large,315360000001}"),
    ("x-max-length", -1, "{value_negative,-1}"),
    ("x-max-length", -2 ** 63, "{value_negative,-9223372036854775808}"),
    ("x-max-length-bytes", -1, "{value_negative,-1}"),
    ("x-max-priority", -1, "{value_negative,-1}"),
    ("x-max-priority", 256, "{max_value_exceeded,256}"),
    ("x-overflow", "nonesuch", "invalid_overflow"),
    ("x-overflow", "", "invalid_overflow"),
    ("x-overflow", "Drop-Head", "invalid_overflow"),
    ("x-dead-letter-routing-key", "key", "routing_key_but_no_dlx_defined"),
    ("x-dead-letter-routing-key", 5, "{unacceptable_type,signedint}"),
    ("x-single-active-consumer", "true", "{unacceptable_type,longstr}"),
    ("x-single-active-consumer", 1, "{unacceptable_type,signedint}"),
    ("x-queue-mode", "nonesuch", "\"unsupported queue mode 'nonesuch'\""),
    ("x-queue-mode", "", "\"unsupported queue mode ''\""),
    ("x-queue-version", 0, "\"unsupported queue version '0'\""),
    ("x-queue-version", 3, "\"unsupported queue version '3'\""),
    ("x-queue-version", "1", "\"expected integer, got longstr\""),
    ("x-queue-type", "nonesuch", "\"unsupported queue type 'nonesuch'\""),
    ("x-queue-type", "CLASSIC", "\"unsupported queue type 'CLASSIC'\""),
    ("x-queue-type", "", "\"unsupported queue type ''\""),
]


@pytest.mark.parametrize("name, value, detail", REFUSED)
def test_a_queue_may_not_have(
        ch: Channel, texts: Texts, queue_name: str, name: str, value: Any, detail: str) -> None:
    refused(ch, queue_name, {name: value}, texts.invalid_argument(name, queue_name, detail))


@pytest.mark.parametrize("type, value", NO_INTEGERS.items(), ids=NO_INTEGERS)
@pytest.mark.parametrize("name", TAKING_INTEGERS)
def test_an_integer_may_not_be(
        ch: Channel, texts: Texts, queue_name: str, name: str, type: str, value: Typed) -> None:
    detail = f'"expected integer, got {type}"'
    refused(ch, queue_name, {name: value}, texts.invalid_argument(name, queue_name, detail))


@pytest.mark.parametrize("type, value", [
    ("bool", True), ("signedint", 5), ("double", 1.5), ("void", None), ("binary", ByteArray(b"lazy")), ("array", []),
    ("table", {})])
@pytest.mark.parametrize("name", TAKING_STRINGS)
def test_a_string_may_not_be(
        ch: Channel, texts: Texts, queue_name: str, name: str, type: str, value: Any) -> None:
    detail = f"{{unacceptable_type,{type}}}"
    refused(ch, queue_name, {name: value}, texts.invalid_argument(name, queue_name, detail))


@pytest.mark.parametrize("type, value", [
    ("bool", True), ("signedint", 5), ("long", Long(5)), ("double", 1.5), ("void", None), ("binary", ByteArray(b"x")),
    ("array", []), ("table", {})])
def test_a_dead_letter_exchange_may_not_be(
        ch: Channel, texts: Texts, queue_name: str, type: str, value: Any) -> None:
    name = "x-dead-letter-exchange"
    refused(ch, queue_name, {name: value}, texts.invalid_exchange_argument(name, queue_name, type))


BAD_IN_ORDER = [
    ("x-expires", 0, "{value_zero,0}"),
    ("x-message-ttl", -1, "{value_negative,-1}"),
    ("x-dead-letter-routing-key", "key", "routing_key_but_no_dlx_defined"),
    ("x-max-length", -1, "{value_negative,-1}"),
    ("x-max-length-bytes", -1, "{value_negative,-1}"),
    ("x-max-priority", 256, "{max_value_exceeded,256}"),
    ("x-overflow", "nonesuch", "invalid_overflow"),
]


@pytest.mark.parametrize("first, second", list(zip(BAD_IN_ORDER, BAD_IN_ORDER[1:])), ids=lambda argument: argument[0])
@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
def test_of_two_bad_arguments_the_same_is_named_in_any_order(
        ch: Channel, texts: Texts, queue_name: str, first: tuple, second: tuple, turned: bool) -> None:
    arguments = [first[:2], second[:2]]
    name, _, detail = first
    refused(ch, queue_name, arguments[::-1 if turned else 1], texts.invalid_argument(name, queue_name, detail))


def test_a_bad_dead_letter_exchange_is_named_before_all_others(ch: Channel, texts: Texts, queue_name: str) -> None:
    text = texts.invalid_exchange_argument("x-dead-letter-exchange", queue_name, "signedint")
    refused(ch, queue_name, {"x-expires": 0, "x-dead-letter-exchange": 5}, text)


def test_a_refused_declare_makes_nothing(ch: Channel, texts: Texts, queue_name: str) -> None:
    refused(ch, queue_name, {"x-expires": 0}, texts.invalid_argument("x-expires", queue_name, "{value_zero,0}"))
    ch.open()
    ch.send_declare_queue(queue_name, passive=True)
    ch.fails(404, texts.no_queue(queue_name), *QUEUE_DECLARE)


def test_without_waiting_a_bad_argument_is_refused_too(ch: Channel, texts: Texts, queue_name: str) -> None:
    ch.send_declare_queue(queue_name, nowait=True, arguments={"x-expires": 0})
    ch.fails(406, texts.invalid_argument("x-expires", queue_name, "{value_zero,0}"), *QUEUE_DECLARE)


def test_of_a_key_given_twice_the_first_counts(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name, arguments=[("x-max-length", 5), ("x-max-length", -1)])
    assert declared(ch, queue_name, {"x-max-length": 5})


# A second declare

DIFFERENT = {
    "another value": (
        {"x-message-ttl": 1000}, {"x-message-ttl": 2000}, "x-message-ttl", "received '2000' but current is '1000'"),
    "missing now": (
        {"x-max-length": 5}, {}, "x-max-length", "received none but current is the value '5' of type 'signedint'"),
    "new now": (
        {}, {"x-message-ttl": 1000}, "x-message-ttl",
        "received the value '1000' of type 'signedint' but current is none"),
    "another string": (
        {"x-dead-letter-exchange": "a"}, {"x-dead-letter-exchange": "b"}, "x-dead-letter-exchange",
        "received 'b' but current is 'a'"),
    "an empty string missing now": (
        {"x-dead-letter-exchange": ""}, {}, "x-dead-letter-exchange",
        "received none but current is the value '' of type 'longstr'"),
    "a boolean": (
        {"x-single-active-consumer": True}, {"x-single-active-consumer": False}, "x-single-active-consumer",
        "received 'false' but current is 'true'"),
    "a false boolean missing now": (
        {"x-single-active-consumer": False}, {}, "x-single-active-consumer",
        "received none but current is the value 'false' of type 'bool'"),
    "the default, new now": (
        {}, {"x-overflow": "drop-head"}, "x-overflow",
        "received the value 'drop-head' of type 'longstr' but current is none"),
    "the default mode, new now": (
        {}, {"x-queue-mode": "default"}, "x-queue-mode",
        "received the value 'default' of type 'longstr' but current is none"),
    "a float of the same value": (
        {"x-max-length": 1000}, {"x-max-length": 1000.0}, "x-max-length", "received '1.0e3' but current is '1000'"),
    "a string of the same digits": (
        {"x-max-length": 1000}, {"x-max-length": "1000"}, "x-max-length", "received '1000' but current is '1000'"),
    "true for one": (
        {"x-max-length": 1}, {"x-max-length": True}, "x-max-length", "received 'true' but current is '1'"),
    "a void": (
        {"x-max-length": 5}, {"x-max-length": None}, "x-max-length", "received none but current is '5'"),
    "a value that no queue may have": (
        {"x-max-length": 5}, {"x-max-length": -1}, "x-max-length", "received '-1' but current is '5'"),
    "another type of queue": (
        {"x-queue-type": "classic"}, {"x-queue-type": "quorum"}, "x-queue-type",
        "received 'quorum' but current is 'classic'"),
    "a type of queue, new now": (
        {}, {"x-queue-type": "quorum"}, "x-queue-type",
        "received the value 'quorum' of type 'longstr' but current is none"),
    "a type of queue that is none": (
        {}, {"x-queue-type": "nonesuch"}, "x-queue-type",
        "received the value 'nonesuch' of type 'longstr' but current is none"),
}


@pytest.mark.parametrize("first, second, name, difference", DIFFERENT.values(), ids=DIFFERENT)
def test_a_queue_declared_with_other_arguments_is_refused(
        ch: Channel, texts: Texts, queue_name: str, first: dict[str, Any], second: dict[str, Any], name: str,
        difference: str) -> None:
    ch.declare_queue(queue_name, arguments=first)
    refused(ch, queue_name, second, texts.inequivalent(name, queue_name, difference))


COMPARED = {
    "x-expires": 60_000, "x-message-ttl": 60_000, "x-dead-letter-exchange": "amq.direct", "x-max-length": 5,
    "x-max-length-bytes": 500, "x-max-priority": 5, "x-overflow": "drop-head", "x-queue-mode": "default",
    "x-queue-version": 1, "x-single-active-consumer": False}


def missing_now(value: Any) -> str:
    """Return the text for a missing value."""
    type_name = {int: "signedint", str: "longstr", bool: "bool"}[type(value)]
    shown = str(value).lower() if isinstance(value, bool) else value
    return f"received none but current is the value '{shown}' of type '{type_name}'"


@pytest.mark.parametrize("name, value", COMPARED.items(), ids=COMPARED)
def test_an_argument_is_compared(ch: Channel, texts: Texts, queue_name: str, name: str, value: Any) -> None:
    ch.declare_queue(queue_name, arguments={name: value})
    refused(ch, queue_name, {}, texts.inequivalent(name, queue_name, missing_now(value)))


def test_a_dead_letter_routing_key_is_compared(ch: Channel, texts: Texts, queue_name: str) -> None:
    ch.declare_queue(queue_name, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "a"})
    text = texts.inequivalent("x-dead-letter-routing-key", queue_name, "received 'b' but current is 'a'")
    refused(ch, queue_name, {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "b"}, text)


@pytest.mark.parametrize("first, second", list(zip(COMPARED, list(COMPARED)[1:])))
@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
def test_of_two_different_arguments_the_same_is_named_in_any_order(
        ch: Channel, texts: Texts, queue_name: str, first: str, second: str, turned: bool) -> None:
    arguments = [(first, COMPARED[first]), (second, COMPARED[second])]
    ch.declare_queue(queue_name, arguments=arguments[::-1 if turned else 1])
    refused(ch, queue_name, {}, texts.inequivalent(first, queue_name, missing_now(COMPARED[first])))


TYPE_NAMES = {
    "byte": SignedByte(5), "unsignedbyte": UnsignedByte(5), "short": SignedShort(5), "unsignedshort": UnsignedShort(5),
    "signedint": SignedInt(5), "unsignedint": UnsignedInt(5), "long": Long(5)}


@pytest.mark.parametrize("type, value", TYPE_NAMES.items(), ids=TYPE_NAMES)
def test_the_type_of_an_integer_is_named(ch: Channel, texts: Texts, queue_name: str, type: str, value: Typed) -> None:
    ch.declare_queue(queue_name, arguments={"x-max-length": value})
    difference = f"received none but current is the value '5' of type '{type}'"
    refused(ch, queue_name, {}, texts.inequivalent("x-max-length", queue_name, difference))


def test_an_upper_case_long_is_called_long(ch: Channel, texts: Texts, queue_name: str) -> None:
    ch.declare_queue(queue_name, arguments={"x-max-length": UpperLong(5)})
    difference = "received none but current is the value '5' of type 'long'"
    refused(ch, queue_name, {}, texts.inequivalent("x-max-length", queue_name, difference))


@pytest.mark.parametrize("type, shown, value", [
    ("bool", "true", True), ("longstr", "five", "five"), ("binary", "five", ByteArray(b"five")),
    ("double", "5.5", 5.5), ("float", "1.5", Float(1.5)), ("timestamp", "5", Timestamp(5)),
    ("void", "undefined", None),
], ids=str)
def test_the_type_of_a_new_argument_is_named_though_no_queue_may_have_it(
        ch: Channel, texts: Texts, queue_name: str, type: str, shown: str, value: Any) -> None:
    ch.declare_queue(queue_name)
    difference = f"received the value '{shown}' of type '{type}' but current is none"
    refused(ch, queue_name, {"x-max-length": value}, texts.inequivalent("x-max-length", queue_name, difference))


EQUAL = {
    "integers of other widths": ({"x-max-length": UnsignedByte(5)}, {"x-max-length": Long(5)}),
    "a signed and an unsigned integer": ({"x-expires": SignedInt(60_000)}, {"x-expires": UnsignedInt(60_000)}),
    "another order": (
        {"x-max-length": 5, "x-max-priority": 1}, {"x-max-priority": 1, "x-max-length": 5}),
    "a plain queue called classic": ({}, {"x-queue-type": "classic"}),
    "a classic queue not called so": ({"x-queue-type": "classic"}, {}),
    "an unknown argument missing now": ({"x-whatever": 1}, {}),
    "an unknown argument new now": ({}, {"x-whatever": 1}),
    "an unknown argument with another value": ({"x-whatever": 1}, {"x-whatever": "two"}),
}


@pytest.mark.parametrize("first, second", EQUAL.values(), ids=EQUAL)
def test_a_queue_may_be_declared_again_with(
        ch: Channel, queue_name: str, first: dict[str, Any], second: dict[str, Any]) -> None:
    assert declared(ch, queue_name, first)
    assert declared(ch, queue_name, second)


# Other types of queue

FOREIGN_TO_CLASSIC = [
    ("x-dead-letter-strategy", "at-most-once"), ("x-quorum-initial-group-size", 1), ("x-max-age", "1h"),
    ("x-stream-max-segment-size-bytes", 1000), ("x-initial-cluster-size", 1)]


@pytest.mark.parametrize("name, value", FOREIGN_TO_CLASSIC)
@pytest.mark.parametrize("type", [{}, {"x-queue-type": "classic"}], ids=["plain", "classic"])
def test_a_classic_queue_refuses_what_belongs_to_others(
        ch: Channel, texts: Texts, queue_name: str, type: dict[str, str], name: str, value: Any) -> None:
    refused(ch, queue_name, {**type, name: value}, texts.foreign_argument(name, queue_name, "classic"))


@pytest.mark.needs("delivery-limit-on-quorum-only")
def test_a_classic_queue_refuses_a_delivery_limit(ch: Channel, texts: Texts, queue_name: str) -> None:
    text = texts.foreign_argument("x-delivery-limit", queue_name, "classic")
    refused(ch, queue_name, {"x-delivery-limit": 5}, text)


@pytest.mark.needs("delivery-limit-on-classic")
@pytest.mark.parametrize("value", [5, 0, -1, UnsignedByte(5)])
def test_a_classic_queue_may_have_a_delivery_limit(ch: Channel, queue_name: str, value: Any) -> None:
    assert declared(ch, queue_name, {"x-delivery-limit": value})
    assert declared(ch, queue_name, {"x-delivery-limit": value})


@pytest.mark.needs("delivery-limit-checked")
@pytest.mark.parametrize("type", ["classic", "quorum"])
def test_a_delivery_limit_is_an_integer(ch: Channel, texts: Texts, queue_name: str, type: str) -> None:
    text = texts.invalid_argument("x-delivery-limit", queue_name, '"expected integer, got longstr"')
    refused(ch, queue_name, {"x-queue-type": type, "x-delivery-limit": "5"}, text, durable=True)


@pytest.mark.needs("consumer-timeout-argument-unknown")
@pytest.mark.parametrize("value", [60_000, -1, "nonesuch"])
def test_a_consumer_timeout_is_an_argument_like_any_other(ch: Channel, queue_name: str, value: Any) -> None:
    assert declared(ch, queue_name, {"x-consumer-timeout": value})
    assert declared(ch, queue_name, {})


@pytest.mark.parametrize("type", ["classic", "quorum"])
def test_a_consumer_timeout_is_not_compared(ch: Channel, queue_name: str, type: str) -> None:
    """So that it can be added to an application that runs, changed, and taken away."""
    for timeout in ({}, {"x-consumer-timeout": 60_000}, {"x-consumer-timeout": 5_000}, {}):
        assert declared(ch, queue_name, {"x-queue-type": type, **timeout})


@pytest.mark.needs("consumer-timeout-argument")
@pytest.mark.parametrize("value, detail", [(-1, "{value_negative,-1}"), ("5", '"expected integer, got longstr"')])
@pytest.mark.parametrize("type", ["classic", "quorum"])
def test_a_consumer_timeout_is_an_integer_from_0(
        ch: Channel, texts: Texts, queue_name: str, type: str, value: Any, detail: str) -> None:
    text = texts.invalid_argument("x-consumer-timeout", queue_name, detail)
    refused(ch, queue_name, {"x-queue-type": type, "x-consumer-timeout": value}, text, durable=True)


FLAGS = [
    ({}, "non-durable"),
    ({"exclusive": True}, "exclusive-owner"),
    ({"auto_delete": True}, "auto-delete"),
    ({"durable": True, "exclusive": True}, "exclusive-owner"),
    ({"durable": True, "auto_delete": True}, "auto-delete"),
    ({"durable": True, "exclusive": True, "auto_delete": True}, "auto-delete"),
]


@pytest.mark.parametrize("type", ["quorum", "stream"])
@pytest.mark.parametrize("flags, wrong", FLAGS, ids=str)
def test_a_replicated_queue_is_durable_and_neither_exclusive_nor_auto_delete(
        ch: Channel, texts: Texts, queue_name: str, type: str, flags: dict[str, bool], wrong: str) -> None:
    ch.send_declare_queue(queue_name, arguments={"x-queue-type": type}, **flags)
    ch.fails(406, texts.invalid_property(wrong, queue_name), *QUEUE_DECLARE)


@pytest.mark.parametrize("type", ["quorum", "stream"])
def test_a_replicated_queue_has_a_name_of_its_own(ch: Channel, type: str) -> None:
    text = f"PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_{type}_queue"
    refused(ch, "", {"x-queue-type": type}, text, durable=True)


QUORUM = {
    "nothing": {},
    "time limits": {"x-message-ttl": 60_000, "x-expires": 60_000},
    "length limits": {"x-max-length": 5, "x-max-length-bytes": 500},
    "reject-publish": {"x-overflow": "reject-publish"},
    "dead letters": {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"},
    "dead letters at most once": {"x-dead-letter-strategy": "at-most-once"},
    "dead letters at least once": {
        "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish",
        "x-dead-letter-exchange": "amq.direct"},
    "a single active consumer": {"x-single-active-consumer": True},
    "a delivery limit": {"x-delivery-limit": 5},
    "a delivery limit of none": {"x-delivery-limit": 0},
    "a group": {"x-quorum-initial-group-size": 1, "x-queue-leader-locator": "client-local"},
    "a balanced leader": {"x-queue-leader-locator": "balanced"},
}


@pytest.mark.parametrize("arguments", QUORUM.values(), ids=QUORUM)
def test_a_quorum_queue_may_have(ch: Channel, queue_name: str, arguments: dict[str, Any]) -> None:
    assert declared(ch, queue_name, {"x-queue-type": "quorum", **arguments})
    assert declared(ch, queue_name, {"x-queue-type": "quorum", **arguments})


@pytest.mark.parametrize("name, value, detail", [
    ("x-dead-letter-strategy", "nonesuch", "invalid_dlx_strategy"),
    ("x-dead-letter-strategy", 5, "{unacceptable_type,signedint}"),
    ("x-quorum-initial-group-size", 0, "{value_zero,0}"),
    ("x-quorum-initial-group-size", -1, "{value_negative,-1}"),
    ("x-quorum-initial-group-size", "1", '"expected integer, got longstr"'),
    ("x-queue-leader-locator", "nonesuch", "invalid_queue_locator_arg"),
    ("x-queue-leader-locator", 5, "{unacceptable_type,signedint}"),
    ("x-message-ttl", -1, "{value_negative,-1}"),
])
def test_a_quorum_queue_may_not_have(
        ch: Channel, texts: Texts, queue_name: str, name: str, value: Any, detail: str) -> None:
    arguments = {"x-queue-type": "quorum", name: value}
    refused(ch, queue_name, arguments, texts.invalid_argument(name, queue_name, detail), durable=True)


@pytest.mark.parametrize("name, value", [
    ("x-max-priority", 5), ("x-queue-mode", "lazy"), ("x-queue-version", 2), ("x-max-age", "1h"),
    ("x-stream-max-segment-size-bytes", 1000), ("x-initial-cluster-size", 1)])
def test_a_quorum_queue_refuses_what_belongs_to_others(
        ch: Channel, texts: Texts, queue_name: str, name: str, value: Any) -> None:
    arguments = {"x-queue-type": "quorum", name: value}
    refused(ch, queue_name, arguments, texts.foreign_argument(name, queue_name, "quorum"), durable=True)


@pytest.mark.needs("no-streams")
@pytest.mark.parametrize("arguments", [{}, {"x-max-age": "1h"}, {"x-message-ttl": 60_000}], ids=str)
def test_a_stream_is_refused(ch: Channel, texts: Texts, queue_name: str, arguments: dict[str, Any]) -> None:
    detail = '"stream queues are not supported yet, use classic or quorum"'
    text = texts.invalid_argument("x-queue-type", queue_name, detail)
    refused(ch, queue_name, {"x-queue-type": "stream", **arguments}, text, durable=True)


STREAM = {
    "nothing": {},
    "a limit of bytes": {"x-max-length-bytes": 1_000_000},
    "segments": {"x-stream-max-segment-size-bytes": 500_000},
    "a cluster": {"x-initial-cluster-size": 1, "x-queue-leader-locator": "client-local"},
    **{f"an age of {age}": {"x-max-age": age} for age in ("1Y", "2M", "7D", "1h", "90m", "3600s")},
}


@pytest.mark.needs("streams")
@pytest.mark.parametrize("arguments", STREAM.values(), ids=STREAM)
def test_a_stream_may_have(ch: Channel, queue_name: str, arguments: dict[str, Any]) -> None:
    assert declared(ch, queue_name, {"x-queue-type": "stream", **arguments})


@pytest.mark.needs("streams")
@pytest.mark.parametrize("name, value, detail", [
    ("x-max-age", "0h", "invalid_max_age"),
    ("x-max-age", "1", "invalid_max_age"),
    ("x-max-age", "1w", "invalid_max_age"),
    ("x-max-age", "1.5h", "invalid_max_age"),
    ("x-max-age", 5, "{unacceptable_type,signedint}"),
    ("x-max-length-bytes", -1, "{value_negative,-1}"),
    ("x-stream-max-segment-size-bytes", -1, "{value_negative,-1}"),
    ("x-stream-max-segment-size-bytes", "1", '"expected integer, got longstr"'),
    ("x-initial-cluster-size", 0, "{value_zero,0}"),
    ("x-initial-cluster-size", -1, "{value_negative,-1}"),
    ("x-initial-cluster-size", "1", '"expected integer, got longstr"'),
    ("x-queue-leader-locator", "nonesuch", "invalid_queue_locator_arg"),
])
def test_a_stream_may_not_have(
        ch: Channel, texts: Texts, queue_name: str, name: str, value: Any, detail: str) -> None:
    arguments = {"x-queue-type": "stream", name: value}
    refused(ch, queue_name, arguments, texts.invalid_argument(name, queue_name, detail), durable=True)


@pytest.mark.needs("streams")
@pytest.mark.parametrize("name, value", [
    ("x-message-ttl", 60_000), ("x-expires", 60_000), ("x-max-length", 5), ("x-overflow", "drop-head"),
    ("x-dead-letter-exchange", ""), ("x-max-priority", 5), ("x-single-active-consumer", True), ("x-queue-mode", "lazy"),
    ("x-queue-version", 2), ("x-delivery-limit", 5), ("x-dead-letter-strategy", "at-most-once"),
    ("x-quorum-initial-group-size", 1)])
def test_a_stream_refuses_what_belongs_to_others(
        ch: Channel, texts: Texts, queue_name: str, name: str, value: Any) -> None:
    arguments = {"x-queue-type": "stream", name: value}
    refused(ch, queue_name, arguments, texts.foreign_argument(name, queue_name, "stream"), durable=True)


@pytest.mark.needs("streams")
@pytest.mark.parametrize("name", ["x-max-age", "x-stream-max-segment-size-bytes"])
def test_a_stream_queue_compares_its_own_arguments(ch: Channel, texts: Texts, queue_name: str, name: str) -> None:
    value = {"x-max-age": "1h", "x-stream-max-segment-size-bytes": 500_000}[name]
    assert declared(ch, queue_name, {"x-queue-type": "stream", name: value})
    text = texts.inequivalent(name, queue_name, missing_now(value))
    refused(ch, queue_name, {"x-queue-type": "stream"}, text, durable=True)
