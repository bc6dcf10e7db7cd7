"""What a start restores: definitions, messages in order, which are redelivered, and which are damaged."""

from __future__ import annotations

import os
import time
import tracemalloc
from array import array
from decimal import Decimal
from itertools import product

import pytest

from amqpd.broker.definitions import (
    BindingDefinition,
    Deleted,
    ExchangeDefinition,
    GlobalParameterDefinition,
    ParameterDefinition,
    PermissionDefinition,
    PolicyDefinition,
    QueueDefinition,
    TopicPermissionDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.fields import LongString, Timestamp
from amqpd.message import MessageProperties
from amqpd.store.rows import waiting
from amqpd.store.sqlite.limits import StoreLimits
from amqpd.message import LARGE_BODY
from tests.store.store_samples import NOW, contents, crash, define, load, message, query, queue, save

ONE, TWO = queue(1), queue(2)
ODD_NAMES = ["", "é" * 127, "a" * 255, "nul \x00 inside", "'; DROP TABLE queues; --", "\u202e🐇\n\t", "$type"]


def reopen(store, opened):
    store.close({})
    return load(opened())


# Definitions

def test_definitions_come_back_in_an_order_to_restore_them_in(store, journal, opened):
    definitions = [
        VhostDefinition("/", "the default", ("x",), "quorum", True),
        UserDefinition("ann", "hash", "scrypt", ("administrator",), "10000$salt$key", {"max-channels": 5}),
        PermissionDefinition("ann", "/", ".*", "^a", ""),
        TopicPermissionDefinition("ann", "/", "e", "^a", ".*"),
        GlobalParameterDefinition("cluster_name", {"odd": [None, "\x00", 1.5]}),
        ParameterDefinition("/", "vhost-limits", "limits", {"max-queues": 100}),
        PolicyDefinition("/", "p", "^q", {"max-length": 5, "overflow": "reject-publish"}, 3, "queues"),
        PolicyDefinition("/", "p", "", {"max-length": 9}, is_operator=True),
        ExchangeDefinition("/", "e", "topic", True, False, True, {"alternate-exchange": "f"}),
        ONE, TWO,
        BindingDefinition("/", "e", "queue", "queue-1", "a.#", {"x-match": "all"}),
    ]
    define(journal, *reversed(definitions))
    save(store, journal)
    assert reopen(store, opened).definitions == definitions


def test_arguments_of_every_type_come_back(store, journal, opened):
    arguments = {
        "void": None, "bool": True, "int": -5, "long": 1 << 62, "float": 0.1, "inf": float("inf"), "text": "Ü",
        "octets": b"\x00\xff", "longstr": LongString(b"\xff"), "decimal": Decimal("-1.50"), "time": Timestamp(1 << 63),
        "list": [1, "a", [None]], "table": {"deep": {"$type": "mine", "value": b"\x01"}}}
    define(journal, queue_with := QueueDefinition(3, "/", "q", True, arguments=arguments))
    save(store, journal)
    assert queue_with in reopen(store, opened).definitions


def test_names_may_be_anything_of_255_octets(store, journal, opened):
    exchanges = [ExchangeDefinition("/", name, "direct", durable=True) for name in sorted(ODD_NAMES)]
    bindings = [BindingDefinition("/", name, "exchange", name, name) for name in sorted(ODD_NAMES)]
    define(journal, *exchanges, *bindings)
    save(store, journal)
    found = reopen(store, opened).definitions
    assert [d for d in found if isinstance(d, ExchangeDefinition)] == exchanges
    assert [d for d in found if isinstance(d, BindingDefinition)] == bindings


@pytest.mark.parametrize("definition", [
    BindingDefinition("/", "nul \x00", "queue", "q", "\x00", {"a": [b"\x00"]}),
    ExchangeDefinition("/", "nul \x00", "direct", durable=True),
    PermissionDefinition("nul \x00", "/"),
    PolicyDefinition("/", "nul \x00", "\x00", {"dead-letter-exchange": "\x00"}),
])
def test_odd_names_can_be_deleted_too(store, journal, opened, definition):
    define(journal, definition)
    save(store, journal)
    journal.changed(Deleted(definition))
    save(store, journal)
    assert definition not in reopen(store, opened).definitions


def test_a_definition_replaces_the_one_with_its_identity(store, journal, opened):
    define(journal, UserDefinition("ann", "old"), PermissionDefinition("ann", "/", "a"), VhostDefinition("/", "old"))
    save(store, journal)
    define(journal, UserDefinition("ann", "new"), PermissionDefinition("ann", "/", "b"), VhostDefinition("/", "new"))
    save(store, journal)
    vhost, user, permission = reopen(store, opened).definitions[:3]
    assert (vhost.description, user.password_hash, permission.configure) == ("new", "new", "b")


def test_a_policy_and_an_operators_of_one_name_are_two(store, journal, opened):
    policies = [PolicyDefinition("/", "p", "", {"max-length": 5}, is_operator=of) for of in (False, True)]
    define(journal, *policies)
    save(store, journal)
    define(journal, changed := PolicyDefinition("/", "p", "^q", {"expires": 5}, -1, "queues"))
    journal.changed(Deleted(policies[1]))
    save(store, journal)
    assert [d for d in reopen(store, opened).definitions if isinstance(d, PolicyDefinition)] == [changed]


def test_bindings_that_differ_in_an_argument_are_two(store, journal, opened):
    bindings = [BindingDefinition("/", "e", "queue", "q", "", {"x": value}) for value in (1, 1.0, True)]
    define(journal, *bindings)
    save(store, journal)
    journal.changed(Deleted(bindings[1]))
    save(store, journal)
    left = [d for d in reopen(store, opened).definitions if isinstance(d, BindingDefinition)]
    assert sorted(repr(d.arguments) for d in left) == ["{'x': 1}", "{'x': True}"]


# Order, and what is redelivered

def test_messages_come_back_in_publish_order(store, journal, opened):
    alone, both = [message(n) for n in (1, 4, 6)], [message(n, holders=2) for n in (2, 3, 5)]
    journal.published(ONE, both)
    journal.published(TWO, both)
    journal.published(ONE, alone)
    save(store, journal)
    found = reopen(store, opened).messages
    assert [m.number for m in found[1]] == [1, 2, 3, 4, 5, 6]
    assert [m.number for m in found[2]] == [2, 3, 5]


def test_messages_that_differ_in_one_thing_from_those_before_them_come_back(store, journal, opened):
    kinds = [
        {}, {"body": b""}, {"body": b"other"}, {"body": b"longer than one frame" * 7_000}, {"routing_key": "invoices"},
        {"exchange": "orders"}, {"properties": b"\x18\x00\x02\x05"}]
    pairs = [kind for pair in product(kinds, repeat=2) for kind in pair]
    run = [message(number, **kind) for number, kind in enumerate(pairs, 1)]
    journal.published(ONE, run)
    save(store, journal)
    found = reopen(store, opened).messages[1]
    assert contents(found) == contents(run)
    assert [m.content for m in found] == [m.content for m in run]


def test_messages_of_one_route_and_different_properties_have_checksums_of_their_own(store, journal, opened):
    run = [message(1), message(2, properties=b"\x18\x00\x02\x05"), message(3)]
    for one in run:
        one.route = run[0].route
    journal.published(ONE, run)
    save(store, journal)
    found = reopen(store, opened)
    assert contents(found.messages[1]) == contents(run) and not found.damaged


@pytest.mark.parametrize("runs", [
    [(1, 4, 7), (2, 5, 8), (3, 6, 9)], [(3, 9), (2, 4), (1, 5, 6)], [(5,), (2,), (7,), (1,)]])
def test_numbers_of_several_runs_are_put_in_order_by_pieces(runs):
    numbers = array("q", [number for run in runs for number in run])
    pieces = iter(waiting._in_order(numbers))
    assert [number for start, stop in zip(pieces, pieces) for number in numbers[start:stop]] == sorted(numbers)


def test_every_durable_queue_has_its_messages_if_only_none(store, journal, opened):
    save(store, journal)
    found = reopen(store, opened)
    assert found.messages == {1: [], 2: []}
    assert found.redelivered == {1: set(), 2: set()}


def test_after_a_clean_stop_only_what_was_delivered_counts_as_redelivered(store, journal, opened):
    both = [message(1, holders=2), message(2, holders=2)]
    journal.published(ONE, [*both, message(3), message(4)])
    journal.published(TWO, both)
    save(store, journal)
    store.close({1: {2, 3}, 2: [1], 99: [7]})
    found = load(opened())
    assert found.was_clean
    assert found.redelivered == {1: {2, 3}, 2: {1}}


def test_redelivered_is_not_forgotten_by_later_stops(store, journal, opened):
    journal.published(ONE, [message(1), message(2)])
    save(store, journal)
    store.close({1: [1]})
    second = opened()
    load(second)
    assert reopen(second, opened).redelivered[1] == {1}


def test_after_a_crash_what_the_watermarks_cover_counts_as_redelivered(store, journal, after_crash):
    both = [message(1, holders=2), message(2, holders=2)]
    journal.published(ONE, [*both, message(3)])
    journal.published(TWO, both)
    journal.watermark_raised(ONE, 2)
    save(store, journal)
    journal.watermark_raised(TWO, 1)
    save(store, journal)
    found = after_crash()
    assert not found.was_clean
    assert found.redelivered == {1: {1, 2}, 2: {1}}


def test_a_watermark_that_was_not_committed_covers_nothing(store, journal, after_crash):
    journal.published(ONE, [message(1)])
    save(store, journal)
    journal.watermark_raised(ONE, 1)
    assert after_crash().redelivered[1] == set()


def test_many_watermarks_are_raised_at_once(store, journal, after_crash):
    many = [queue(number) for number in range(10, 60)]
    define(journal, *many)
    for one in many:
        journal.published(one, [message(one.number * 100), message(one.number * 100 + 1)])
        journal.watermark_raised(one, one.number * 100)
    save(store, journal)
    found = after_crash()
    assert all(found.redelivered[one.number] == {one.number * 100} for one in many)


def test_a_bound_survives_clean_stops(store, journal, opened):
    journal.published(ONE, [message(1), message(2), message(3)])
    journal.watermark_raised(ONE, 3)
    save(store, journal)
    store.close({1: [3]}, {1: 1})
    second = opened()
    assert load(second).redelivered[1] == {1, 3}
    second.close({}, {1: 1})
    assert load(opened()).redelivered[1] == {1, 3}


def test_a_clean_stop_knows_better_than_a_watermark(store, journal, opened):
    journal.published(ONE, [message(1), message(2)])
    journal.watermark_raised(ONE, 1_000)
    save(store, journal)
    store.close({1: [1]})
    assert load(opened()).redelivered[1] == {1}


def test_what_crashed_and_then_stopped_cleanly_is_as_it_was_told(store, journal, directory, tmp_path, opened):
    journal.published(ONE, [message(1)])
    save(store, journal)
    crashed = crash(directory, tmp_path / "crash")
    second = opened(crashed)
    load(second)
    second.close({})
    assert load(opened(crashed)).redelivered[1] == set()


def test_uncommitted_messages_are_gone_after_a_crash(store, journal, after_crash):
    save(store, journal)
    journal.published(ONE, [message(1)])
    assert after_crash().messages[1] == []


# Expiries and delivery counts

@pytest.mark.parametrize("is_clean", [True, False], ids=["clean stop", "crash"])
def test_expiries_and_delivery_counts_survive_a_stop(store, journal, opened, after_crash, is_clean):
    both = [message(1, holders=2), message(2, holders=2)]
    journal.published(ONE, [*both, message(3), message(4), message(5)], {1: 1_000, 3: 3_000, 4: 1 << 60})
    journal.published(TWO, both, {2: 2_000})
    save(store, journal)
    journal.requeued(ONE, {2: 1, 3: 7, 4: 1 << 40})
    journal.requeued(TWO, {2: 2})
    save(store, journal)
    found = reopen(store, opened) if is_clean else after_crash()
    assert found.expiries == {1: {1: 1_000, 3: 3_000, 4: 1 << 60}, 2: {2: 2_000}}
    assert found.deliveries == {1: {2: 1, 3: 7, 4: 1 << 40}, 2: {2: 2}}


def test_messages_that_neither_expire_nor_were_requeued_are_not_told_of(store, journal, opened):
    journal.published(ONE, [message(1), message(2, holders=2)])
    journal.published(TWO, [message(2, holders=2)])
    save(store, journal)
    found = reopen(store, opened)
    assert found.expiries == found.deliveries == {}


def test_what_expired_long_ago_comes_back_all_the_same(store, journal, opened):
    """Whether it is dead-lettered or dropped is for the queue to say."""
    journal.published(ONE, [message(1)], {1: 0})
    save(store, journal)
    found = reopen(store, opened)
    assert [m.number for m in found.messages[1]] == [1]
    assert found.expiries == {1: {1: 0}}


@pytest.mark.parametrize("value", ["'soon'", "x'00ff'", "1.5"])
def test_an_expiry_that_is_no_number_any_more_is_none(store, journal, directory, opened, value):
    """A message stays rather than goes."""
    journal.published(ONE, [message(1), both := message(2, holders=2)], {1: 1_000, 2: 2_000})
    journal.published(TWO, [both], {2: 3_000})
    save(store, journal)
    store.close({})
    query(directory, f"UPDATE message_rows SET expires_at = {value} WHERE number = 1")
    query(directory, f"UPDATE entries SET expires_at = {value} WHERE queue = 1")
    found = load(opened())
    assert [m.number for m in found.messages[1]] == [1, 2]
    assert found.expiries == {2: {2: 3_000}}


def test_a_delivery_count_that_is_no_number_any_more_is_none(store, journal, directory, opened):
    journal.published(ONE, [message(1), message(2)])
    journal.requeued(ONE, {1: 1, 2: 2})
    save(store, journal)
    store.close({})
    query(directory, "UPDATE message_rows SET deliveries = 'many' WHERE number = 1")
    assert load(opened()).deliveries == {1: {2: 2}}


# What messages share

def test_equal_routes_and_properties_are_one_object_each(store, journal, opened):
    journal.published(ONE, [message(1), message(2), message(3, routing_key="other", properties=b"\x00\x00")])
    save(store, journal)
    store.close({})
    asked = []

    def read(properties):
        asked.append(properties)
        return MessageProperties(persistent=True)

    one, two, three = load(opened(), read).messages[1]
    assert one.route is two.route is not three.route
    assert one.facts is two.facts is not three.facts
    assert asked == [b"\x10\x00\x02", b"\x00\x00"]


def test_only_so_many_different_routes_and_properties_are_remembered(store, journal, opened):
    run = [message(n, routing_key=f"key-{n % 5}", properties=b"\x08\x00" + bytes((n % 7,))) for n in range(1, 40)]
    journal.published(ONE, run)
    save(store, journal)
    store.close({})
    assert contents(load(opened(limits=StoreLimits(remembered=2))).messages[1]) == contents(run)


# Damage

DAMAGES = {
    "body": "UPDATE message_rows SET body = x'68656c6c70' WHERE number = 2",
    "properties": "UPDATE message_rows SET properties = x'100001' WHERE number = 2",
    "routing key": "UPDATE message_rows SET routing_key = 'orderz' WHERE number = 2",
    "no text": "UPDATE message_rows SET routing_key = CAST(x'ff' AS TEXT) WHERE number = 2",
    "type": "UPDATE message_rows SET body = 'hello' WHERE number = 2",
    "checksum": "UPDATE message_rows SET checksum = checksum + 1 WHERE number = 2",
    "queue": "UPDATE message_rows SET queue = 77 WHERE number = 2",
    "no queue": "UPDATE message_rows SET queue = NULL WHERE number = 2",
}


@pytest.mark.parametrize("statement", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_message_is_set_aside(store, journal, directory, opened, caplog, statement):
    of = "" if "SET queue" in statement else " of queue 'queue-1' in vhost '/'"
    journal.published(ONE, [message(1), message(2), message(3)])
    save(store, journal)
    store.close({})
    query(directory, statement)
    again = opened()
    found = load(again)
    again.check()
    assert [m.number for m in found.messages[1]] == [1, 3]
    assert found.damaged == again.info().damaged == 1
    assert again.info().messages == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"1 damaged message{of} will not be delivered: moved to the table 'damaged' of {directory}/amqpd.db"]
    again.close({})
    (number, noticed), = query(directory, "SELECT number, noticed FROM damaged")
    assert number == 2 and (noticed == NOW or abs(noticed - time.time()) < 60)


def test_of_a_damaged_message_everything_is_kept_and_nothing_told(store, journal, directory, opened):
    journal.published(ONE, [message(1), message(2)], {2: 5_000})
    journal.requeued(ONE, {2: 3})
    save(store, journal)
    store.close({})
    query(directory, DAMAGES["body"])
    again = opened()
    found = load(again)
    assert found.expiries == found.deliveries == {}
    again.close({})
    assert query(directory, "SELECT number, expires_at, deliveries FROM damaged") == [(2, 5_000, 3)]


def test_damage_is_told_of_once_but_counted_for_ever(store, journal, directory, opened, caplog):
    journal.published(ONE, [message(1), message(2)])
    save(store, journal)
    store.close({})
    query(directory, DAMAGES["body"])
    second = opened()
    load(second)
    second.close({})
    caplog.clear()
    third = opened()
    assert load(third).damaged == 0
    assert third.info().damaged == 1
    assert not caplog.records


def test_a_damaged_message_of_several_queues_leaves_them_all(store, journal, directory, opened):
    both = [message(1, holders=2), message(2, holders=2)]
    journal.published(ONE, both)
    journal.published(TWO, both)
    save(store, journal)
    store.close({})
    query(directory, DAMAGES["body"])
    again = opened()
    found = load(again)
    again.check()
    assert {number: [m.number for m in run] for number, run in found.messages.items()} == {1: [1], 2: [1]}


@pytest.mark.parametrize("body", [
    f"CAST(zeroblob({LARGE_BODY}) || x'01' AS BLOB)", str(LARGE_BODY + 1), f"hex(zeroblob({LARGE_BODY}))",
], ids=["octets", "number", "text"])
def test_a_damaged_large_body_is_set_aside(store, journal, directory, opened, body):
    journal.published(ONE, [message(number, bytes(LARGE_BODY + 1)) for number in (1, 2, 3)])
    save(store, journal)
    store.close({})
    query(directory, f"UPDATE message_rows SET body = {body} WHERE number = 2")
    again = opened()
    found = load(again)
    again.check()
    assert [m.number for m in found.messages[1]] == [1, 3] and found.damaged == 1
    assert contents(found.messages[1]) == contents([message(number, bytes(LARGE_BODY + 1)) for number in (1, 3)])


def test_a_large_body_is_read_in_pieces(store, journal):
    """To read it as a whole, and to put it together then, holds two copies of it and takes twice as long."""
    sent = message(1, os.urandom(3 * LARGE_BODY))
    journal.published(ONE, [sent])
    save(store, journal)
    tracemalloc.start()
    try:
        found, = store.fetch([1])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert contents([found]) == contents([sent]) and found.content == sent.content
    assert peak < len(sent.content) + LARGE_BODY // 2


def test_a_value_the_table_should_not_hold_is_damage_too(store, journal, directory, opened):
    journal.published(ONE, [message(1)])
    save(store, journal)
    store.close({})
    query(directory, "UPDATE message_rows SET body = zeroblob(5), properties = '', exchange = 0, checksum = 'x'")
    assert load(opened()).damaged == 1
