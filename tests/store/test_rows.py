"""Definitions and their arguments are converted to rows and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd.broker.definitions import (
    BindingDefinition,
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
from amqpd.fields import Byte, Float, Long, LongString, Short, Timestamp, UnsignedByte, UnsignedInt, UnsignedShort
from amqpd.packed_table import SMALL, PackedTable
from amqpd.store.rows.definition_rows import TABLES, pack_arguments, unpack_arguments

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBER_TYPES = st.sampled_from([Byte, UnsignedByte, Short, UnsignedShort, UnsignedInt, Long, Float])
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1), st.floats(allow_nan=False), TEXTS,
        st.binary(max_size=20), st.binary(max_size=20).map(LongString),
        st.decimals(allow_nan=False, allow_infinity=False), st.integers(0, (1 << 64) - 1).map(Timestamp),
        st.builds(lambda kind, number: kind(number), NUMBER_TYPES, st.integers(0, 127))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS | st.just("$type"), inner, max_size=4),
    max_leaves=10)


def shape(value):
    """A value with the type of everything in it, since 1 == 1.0 == True."""
    if isinstance(value, Mapping):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return type(value), str(value)


@given(st.dictionaries(TEXTS | st.sampled_from(["$type", "value"]), VALUES, max_size=5))
def test_arguments_come_back_as_they_were(arguments):
    back = unpack_arguments(pack_arguments(arguments))
    assert back == arguments
    assert shape(back) == shape(arguments)


@given(st.dictionaries(TEXTS | st.sampled_from(["$type", "value"]), VALUES, max_size=5))
def test_large_arguments_come_back_as_they_were(arguments):
    arguments |= {"long": "x" * SMALL}
    assert unpack_arguments(pack_arguments(arguments)) == arguments


def test_a_float_that_is_no_number_comes_back():
    back = unpack_arguments(pack_arguments({"a": float("nan"), "b": float("-inf")}))
    assert str(back["a"]) == "nan"
    assert back["b"] == float("-inf")


def test_a_tag_may_be_written_with_escapes():
    arguments = {"a": Long(1), "b": [LongString(b"text")]}
    text = pack_arguments(arguments).replace("type", "\\u0074ype").replace("long", "\\u006cong")
    for edited in (text, text + " " * SMALL):
        assert shape(unpack_arguments(edited)) == shape(arguments)


@pytest.mark.parametrize("value", [None, {}, [[{}]], True, "x", 1 << 40, {"a": [1, "b"]}, 0.5, Long(1)], ids=str)
def test_large_arguments_are_restored_without_decoding_what_was_encoded(value, monkeypatch):
    arguments = {"x-max-length": 5, **{f"{number:04x}": value for number in range(SMALL)}}
    with monkeypatch.context() as during:
        for name in ("check_table", "decode_table", "decode_checked_table", "find_encoded", "is_read_back"):
            during.setattr(f"amqpd.packed_table.{name}", None)
        back = unpack_arguments(pack_arguments(arguments))
        assert isinstance(back, PackedTable) and back["x-max-length"] == 5
    assert shape(back) == shape(arguments)


def test_equal_arguments_are_equal_text():
    assert pack_arguments({"a": 1, "b": [2]}) == pack_arguments({"b": [2], "a": 1})


def test_arguments_equal_but_for_their_types_are_different_text():
    """As bindings that differ in them are two."""
    assert pack_arguments({"a": 1}) != pack_arguments({"a": Long(1)})


def test_arguments_can_be_read_in_a_query():
    text = pack_arguments({"x-message-ttl": 60_000, "x-dead-letter-exchange": "Überlauf"})
    assert text == '{"x-dead-letter-exchange": "Überlauf", "x-message-ttl": 60000}'


def test_what_json_lacks_is_tagged():
    text = pack_arguments({
        "binary": b"\x00\xff", "decimal": Decimal("1.50"), "float": Float(0.5), "longstr": LongString(b"\xff"),
        "since": Timestamp(7), "unsignedbyte": UnsignedByte(255)})
    assert json.loads(text) == {
        "binary": {"$type": "binary", "value": "00ff"},
        "decimal": {"$type": "decimal", "value": "1.50"},
        "float": {"$type": "float", "value": 0.5},
        "longstr": {"$type": "longstr", "value": "ff"},
        "since": {"$type": "timestamp", "value": 7},
        "unsignedbyte": {"$type": "unsignedbyte", "value": 255},
    }


@pytest.mark.parametrize("definition", [
    VhostDefinition("/", "the default", ("a", "b"), "quorum", True),
    UserDefinition("ann", "hash", "scrypt", ("administrator",), "10000$salt$key", {"max-channels": 5}),
    PermissionDefinition("ann", "/", "^a", "", ".*"),
    TopicPermissionDefinition("ann", "/", "e", "^a", ".*"),
    GlobalParameterDefinition("cluster_name", "rabbit"),
    ParameterDefinition("/", "vhost-limits", "limits", {"max-queues": 100}),
    PolicyDefinition("/", "p", "^q", {"max-length": 5, "dead-letter-exchange": "Überlauf"}, -3, "queues", True),
    ExchangeDefinition("/", "e", "topic", True, True, True, {"alternate-exchange": "f"}),
    QueueDefinition(7, "/", "q", True, False, True, {"x-max-length": 5}),
    QueueDefinition(8, "/", "paused", True, is_paused=True),
    BindingDefinition("/", "e", "queue", "q", "a.#", {"x": Timestamp(1)}),
], ids=lambda definition: type(definition).__name__)
def test_a_definition_comes_back_from_its_row(definition):
    table = TABLES[type(definition)]
    assert table.definition_of(table.row_of(definition)) == definition


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.__name__)
def test_every_field_of_a_definition_is_kept_or_implied(kind):
    table = TABLES[kind]
    fields = {field.name for field in msgspec.structs.fields(kind)}
    # A durable queue is never exclusive: an exclusive one ends with its connection.
    assert fields - {"exclusive"} == {*table.columns, *table.implied}
