"""Field tables: what is decoded, what is refused, and that no other error is raised.

pamqp checks the octets independently if it supports the value.
"""

from __future__ import annotations

import datetime
import json
import struct
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp import decode, encode

from amqpd.fields import (
    DEEPEST,
    Byte,
    FieldError,
    Float,
    Long,
    LongString,
    Short,
    TableLimitError,
    Timestamp,
    UnsignedByte,
    UnsignedInt,
    UnsignedShort,
    Value,
    array_of_tables,
    check_table,
    decode_table,
    encode_table,
    find,
    find_encoded,
    find_type,
    read_value,
    tables_in,
    type_name,
    with_entries,
    without_keys,
)

NAMES = st.text(max_size=20)
ANY_NAME = st.text(max_size=63)     # at most 252 octets
NOT_UTF8 = st.binary().map(lambda octets: LongString(octets + b"\xff"))
DECIMALS = st.builds(
    lambda digits, places: Decimal(f"{digits}E-{places}"), st.integers(-(1 << 31), (1 << 31) - 1), st.integers(0, 255))
INTEGERS = st.integers(-(1 << 63), (1 << 63) - 1)
TYPED_NUMBERS = (
    st.integers(-(1 << 7), (1 << 7) - 1).map(Byte) | st.integers(0, (1 << 8) - 1).map(UnsignedByte)
    | st.integers(-(1 << 15), (1 << 15) - 1).map(Short) | st.integers(0, (1 << 16) - 1).map(UnsignedShort)
    | st.integers(0, (1 << 32) - 1).map(UnsignedInt) | st.integers(-(1 << 31), (1 << 31) - 1).map(Long)
    | st.integers(0, (1 << 64) - 1).map(Timestamp)
    | st.floats(width=32, allow_nan=False, allow_infinity=False).map(Float)
)
PLAIN_VALUES = (
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | st.text()
    | NOT_UTF8 | st.binary() | DECIMALS | TYPED_NUMBERS
)
VALUES = st.recursive(
    PLAIN_VALUES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12)
TABLES = st.dictionaries(ANY_NAME, VALUES, max_size=6)


def entry(name: bytes, tag: bytes, value: bytes = b"") -> bytes:
    return bytes((len(name),)) + name + tag + value


def sized(octets: bytes) -> bytes:
    return struct.pack(">I", len(octets)) + octets


def nested(levels: int) -> bytes:
    """A table in a table in a table."""
    octets = b""
    for _ in range(levels - 1):
        octets = entry(b"in", b"F", sized(octets))
    return octets


# Reading

@pytest.mark.parametrize("tag, octets, value", [
    (b"t", b"\x00", False),
    (b"t", b"\x02", True),
    (b"b", b"\xff", Byte(-1)),
    (b"B", b"\xff", UnsignedByte(255)),
    (b"s", b"\xff\xfe", Short(-2)),
    (b"u", b"\xff\xfe", UnsignedShort(65534)),
    (b"I", b"\xff\xff\xff\xff", -1),
    (b"i", b"\xff\xff\xff\xff", UnsignedInt(4294967295)),
    (b"l", b"\x80\x00\x00\x00\x00\x00\x00\x00", -(1 << 63)),
    (b"l", b"\x00\x00\x00\x00\x7f\xff\xff\xff", Long(2147483647)),
    (b"l", b"\x00\x00\x00\x00\x80\x00\x00\x00", 2147483648),
    (b"L", b"\xff\xff\xff\xff\xff\xff\xff\xff", Long(-1)),
    (b"f", struct.pack(">f", 0.5), Float(0.5)),
    (b"d", struct.pack(">d", 1e300), 1e300),
    (b"D", b"\x02\x00\x00\x01\x3a", Decimal("3.14")),
    (b"D", b"\xff\xff\xff\xff\xff", Decimal("-1E-255")),
    (b"T", b"\xff\xff\xff\xff\xff\xff\xff\xff", Timestamp((1 << 64) - 1)),
    (b"V", b"", None),
    (b"S", sized("naïve".encode()), "naïve"),
    (b"S", sized(b"\xff\x00"), LongString(b"\xff\x00")),
    (b"x", sized(b"abc"), b"abc"),
    (b"A", sized(b"I\x00\x00\x00\x01V"), [1, None]),
    (b"F", sized(entry(b"b", b"t", b"\x01")), {"b": True}),
])
def test_every_type_rabbitmq_knows_decodes(tag: bytes, octets: bytes, value: Value) -> None:
    table = entry(b"a", tag, octets)
    check_table(table)
    found = decode_table(table)["a"]
    assert found == value
    assert type(found) is type(value)


def test_the_first_of_two_entries_with_one_name_counts() -> None:
    assert decode_table(entry(b"a", b"b", b"\x01") + entry(b"a", b"b", b"\x02")) == {"a": 1}


def test_a_name_that_is_not_utf8_is_shown_escaped() -> None:
    table = entry(b"caf\xe9", b"V")
    check_table(table)
    assert decode_table(table) == {"caf\\xe9": None}


@given(TABLES)
def test_a_table_comes_back_as_it_was_written(table: dict[str, Value]) -> None:
    octets = encode_table(table)
    check_table(octets)
    assert decode_table(octets) == table


@given(TABLES)
def test_types_survive_a_second_writing(table: dict[str, Value]) -> None:
    octets = encode_table(table)
    assert encode_table(decode_table(octets)) == octets


# Refusing

@given(st.binary(max_size=200))
@example(b"\x00F\x00\x00\x00\x09" + b"\x00A\x00\x00\x00\x04" * 2)
def test_any_octets_decode_or_give_a_field_error(octets: bytes) -> None:
    try:
        check_table(octets)
    except FieldError:
        pass
    else:
        decode_table(octets)
    for act, arguments in ((decode_table, ()), (find, ("a",)), (without_keys, (["a"],)), (with_entries, ({"a": 1},))):
        with suppress(FieldError):
            act(octets, *arguments)


@given(TABLES, st.data())
def test_a_damaged_table_decodes_or_gives_a_field_error(table: dict[str, Value], data: st.DataObject) -> None:
    whole = encode_table(table) or b"\x00"
    at = data.draw(st.integers(0, len(whole) - 1))
    octets = whole[:at] + bytes((data.draw(st.integers(0, 255)),)) + whole[at + 1 :]
    try:
        check_table(octets)
    except FieldError:
        return
    assert without_keys(octets, ()) == octets
    for name, value in decode_table(octets).items():
        if "\\x" not in name:
            assert find(octets, name) == value


def test_a_table_cut_short_anywhere_within_an_entry_is_refused() -> None:
    octets = encode_table({"all": [
        None, True, 1, 1 << 40, 0.5, "text", LongString(b"\xff"), b"octets", Decimal("1.5"), Timestamp(1),
        {"in": ["a"]}]})
    for end in range(1, len(octets)):
        with pytest.raises(FieldError, match="table ends within a field"):
            check_table(octets[:end])
        with pytest.raises(FieldError, match="table ends within a field"):
            decode_table(octets[:end])
        with pytest.raises(FieldError):
            without_keys(octets[:end], ["other"])


def test_a_field_may_not_reach_beyond_the_table_around_it() -> None:
    octets = entry(b"in", b"F", sized(b"\x01aS\x00\x00\x00\x02")) + b"\x01b"
    with pytest.raises(FieldError, match="table ends within a field"):
        check_table(octets)


def test_a_nested_table_may_not_reach_beyond_the_one_around_it() -> None:
    inner = entry(b"a", b"F", struct.pack(">I", 10))
    with pytest.raises(FieldError, match="table ends within a field"):
        check_table(entry(b"in", b"F", sized(inner)) + bytes(10))


@pytest.mark.parametrize("tag", [b"U", b"\x00", b"\xff"])
def test_an_unknown_type_is_named(tag: bytes) -> None:
    with pytest.raises(FieldError) as refusal:
        check_table(entry(b"a", tag, bytes(8)))
    assert str(refusal.value) == f"unknown field type {chr(tag[0])!r}"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("tag", ["f", "d"])
def test_a_number_that_is_not_finite_is_refused_as_rabbitmq_does(tag: str, number: float) -> None:
    with pytest.raises(FieldError, match="not a finite number"):
        check_table(entry(b"a", tag.encode(), struct.pack(f">{tag}", number)))


def test_nesting_is_allowed_down_to_the_limit() -> None:
    check_table(nested(DEEPEST))
    with pytest.raises(TableLimitError, match="^table nested deeper than 32 levels$"):
        check_table(nested(DEEPEST + 1))


def test_deep_nesting_exhausts_no_stack() -> None:
    with pytest.raises(TableLimitError):
        decode_table(nested(20_000))


@pytest.mark.parametrize("octets", [
    b"".join(entry(b"%d" % n, b"V") for n in range(20_000)), entry(b"a", b"A", sized(b"V" * 100_000))])
def test_a_table_has_as_many_fields_as_its_frame_holds(octets: bytes) -> None:
    check_table(octets)
    assert encode_table(decode_table(octets)) == octets


# Writing

@pytest.mark.parametrize("value, octets", [
    (None, b"V"),
    (True, b"t\x01"),
    (2147483647, b"I\x7f\xff\xff\xff"),
    (2147483648, b"l\x00\x00\x00\x00\x80\x00\x00\x00"),
    (Byte(-1), b"b\xff"),
    (UnsignedByte(255), b"B\xff"),
    (Short(-2), b"s\xff\xfe"),
    (UnsignedShort(65534), b"u\xff\xfe"),
    (UnsignedInt(4294967295), b"i\xff\xff\xff\xff"),
    (Long(5), b"l\x00\x00\x00\x00\x00\x00\x00\x05"),
    (Float(0.1), b"f" + struct.pack(">f", 0.1)),
    (-2147483649, b"l\xff\xff\xff\xff\x7f\xff\xff\xff"),
    (0.1, b"d" + struct.pack(">d", 0.1)),
    ("é", b"S\x00\x00\x00\x02\xc3\xa9"),
    (LongString(b"\xff"), b"S\x00\x00\x00\x01\xff"),
    (b"\xff", b"x\x00\x00\x00\x01\xff"),
    (Timestamp(5), b"T\x00\x00\x00\x00\x00\x00\x00\x05"),
    (Decimal("-1.50"), b"D\x02\xff\xff\xff\x6a"),
    (Decimal("2E+3"), b"D\x00\x00\x00\x07\xd0"),
    ([1, [None]], b"A\x00\x00\x00\x0bI\x00\x00\x00\x01A\x00\x00\x00\x01V"),
    ({"": 0}, b"F\x00\x00\x00\x06\x00I\x00\x00\x00\x00"),
])
def test_every_value_has_one_form_on_the_wire(value: Value, octets: bytes) -> None:
    assert encode_table({"a": value}) == b"\x01a" + octets


@pytest.mark.parametrize("value", [
    1 << 63, -(1 << 63) - 1, float("nan"), Timestamp(-1), Timestamp(1 << 64), Decimal("NaN"), Decimal("1E-256"),
    Decimal(1 << 31), Decimal("1E+1000000"), Decimal("0." + "1" * 60), "\ud800", object(), (1, 2), Byte(128),
    UnsignedByte(-1), UnsignedInt(1 << 32), Long(1 << 63), Float(1e39), Float("inf"),
])
def test_a_value_without_a_place_in_a_table_is_refused(value: Value) -> None:
    with pytest.raises(FieldError):
        encode_table({"a": value})


def test_a_name_has_at_most_255_octets() -> None:
    encode_table({"é" * 127: 1})
    with pytest.raises(FieldError, match="255"):
        encode_table({"é" * 128: 1})


def test_a_table_that_contains_itself_is_refused() -> None:
    table: dict[str, Value] = {}
    table["again"] = [table]
    with pytest.raises(TableLimitError):
        encode_table(table)


def test_what_can_be_written_can_be_read_down_to_the_deepest_level() -> None:
    assert encode_table(decode_table(nested(DEEPEST))) == nested(DEEPEST)


@given(st.dictionaries(NAMES, st.recursive(
    st.none() | st.booleans() | INTEGERS | st.text() | DECIMALS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8)))
def test_pamqp_reads_what_we_write(table: dict[str, Value]) -> None:
    octets = sized(encode_table(table))
    assert decode.field_table(octets) == (len(octets), table)


def test_we_read_what_pamqp_writes() -> None:
    moment = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    octets = encode.field_table({
        "n": None, "t": True, "i": [1, 200, 70_000, -5, 1 << 40], "f": 0.5, "d": Decimal("1.25"), "s": "text",
        "x": bytearray(b"\xff"), "T": moment, "F": {"in": "side"}})
    assert decode_table(octets[4:]) == {
        "n": None, "t": True, "i": [1, 200, 70_000, -5, 1 << 40], "f": 0.5, "d": Decimal("1.25"), "s": "text",
        "x": b"\xff", "T": int(moment.timestamp()), "F": {"in": "side"}}


@pytest.mark.parametrize("value, name", [
    ("a", "longstr"), (LongString(b"\xff"), "longstr"), (1, "signedint"), (1 << 31, "long"), (0.5, "double"),
    (Byte(1), "byte"), (UnsignedByte(1), "unsignedbyte"), (Short(1), "short"), (UnsignedShort(1), "unsignedshort"),
    (UnsignedInt(1), "unsignedint"), (Long(1), "long"), (Float(1), "float"),
    (False, "bool"), ({}, "table"), ([], "array"), (Timestamp(0), "timestamp"), (Decimal(1), "decimal"), (None, "void"),
    (b"", "binary"),
])
def test_types_have_rabbitmqs_names(value: Value, name: str) -> None:
    assert type_name(value) == name


@pytest.mark.parametrize("value, name", [({"a": 1}, "table"), ([1], "array")])
def test_the_type_is_told_whatever_is_in_it(value: Value, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amqpd.fields.writing.write_value", None)      # what is in it is not written for that
    assert type_name(value) == name


def test_numbers_equal_each_other_by_value_whatever_their_types() -> None:
    numbers: list[float] = [
        5, Byte(5), UnsignedByte(5), Short(5), UnsignedShort(5), UnsignedInt(5), Long(5), Timestamp(5), Float(5), 5.0]
    assert len(set(numbers)) == 1


@pytest.mark.parametrize("value, shown", [(UnsignedByte(5), "5"), (Timestamp(5), "5"), (Float(0.5), "0.5")])
def test_numbers_are_shown_as_numbers_and_say_their_types_only_to_programmers(value: float, shown: str) -> None:
    assert str(value) == f"{value}" == json.dumps(value) == shown
    assert repr([value]) == f"[{type(value).__name__}({shown})]"


# Splicing

ODD = entry(b"byte", b"b", b"\x05") + entry(b"f", b"f", struct.pack(">f", 0.1)) + entry(b"\xff", b"S", sized(b"\xfe"))


def test_an_entry_is_found_without_looking_at_the_others() -> None:
    octets = ODD + entry(b"broken", b"A", sized(b"?")) + entry(b"CC", b"A", sized(b"S\x00\x00\x00\x01k"))
    assert find(octets, "CC") == ["k"]


def test_a_missing_entry_gives_the_default() -> None:
    assert find(ODD, "CC") is None
    assert find(ODD, "CC", "absent") == "absent"


def test_an_entry_within_another_is_not_found() -> None:
    assert find(encode_table({"in": {"CC": 1}}), "CC") is None


def test_the_type_of_an_entry_is_named() -> None:
    assert find_type(ODD, "byte") == "byte"
    assert find_type(ODD, "f") == "float"
    assert find_type(ODD, "none") is None


def test_the_octets_of_entries_are_found_with_their_types() -> None:
    octets = ODD + encode_table({"s": "text", "a": [1], "n": 5, "v": None}) + encode_table({"s": "again"})
    assert find_encoded(octets, (b"s", b"a", b"n", b"v", b"none")) == {
        b"s": ("longstr", b"text"), b"a": ("array", b"I\x00\x00\x00\x01"), b"v": ("void", b""),
        b"n": ("signedint", b"\x00\x00\x00\x05")}


@given(st.lists(TABLES, max_size=4))
def test_what_is_found_in_the_tables_of_an_array_is_what_is_found_in_each(tables: list[dict[str, Value]]) -> None:
    encoded = [encode_table(table) for table in tables]
    names = [name.encode() for table in tables for name in table]
    assert [*tables_in(bytes(array_of_tables(encoded))[4:], names)] == [
        (octets, find_encoded(octets, names)) for octets in encoded]


@given(TABLES)
def test_found_octets_are_read_as_the_value(table: dict[str, Value]) -> None:
    found = find_encoded(encode_table(table), [name.encode() for name in table])
    assert {name.decode(): read_value(*octets) for name, octets in found.items()} == table


def test_the_tables_of_an_array_are_taken_out_and_put_together_as_octets() -> None:
    array = encode_table({"a": [1, {"b": 2}, "text", [{"c": 3}], {}]})
    found = [*tables_in(find_encoded(array, (b"a",))[b"a"][1], (b"b", b"c"))]
    tables = [octets for octets, _ in found]
    assert [values for _, values in found] == [{b"b": ("signedint", b"\x00\x00\x00\x02")}, {}]
    assert tables == [encode_table({"b": 2}), b""]
    together = encode_table({"a": array_of_tables([ODD, *tables])})
    assert decode_table(together) == {"a": [decode_table(ODD), {"b": 2}, {}]}


@pytest.mark.parametrize("array", [b"F", b"F\x00", b"F\x00\x00\x00\x01", b"S\x00\x00\x00\x02a", b"?",
                                   b"F\x00\x00\x00\x01\x01VV", b"F\x00\x00\x00\x02\x00?", b"F\x00\x00\x00\x02\x00S",
                                   b"F\x00\x00\x00\x02\x00IVVVV"])
def test_an_array_that_does_not_decode_is_a_field_error(array: bytes) -> None:
    with pytest.raises(FieldError):
        list(tables_in(array, ()))


def test_a_found_value_that_does_not_decode_is_a_field_error() -> None:
    with pytest.raises(FieldError):
        find(entry(b"a", b"A", sized(b"?")), "a")


def test_entries_are_removed_and_the_others_keep_their_octets() -> None:
    bcc = entry(b"BCC", b"A", sized(b""))
    assert without_keys(bcc + ODD + bcc, {"BCC", "none"}) == ODD


def test_an_entry_is_replaced_in_its_place() -> None:
    old, new = entry(b"a", b"b", b"\x01"), encode_table({"a": "new"})
    assert with_entries(old + ODD + old, {"a": "new"}) == new + ODD


def test_a_new_entry_goes_to_the_end() -> None:
    assert with_entries(ODD, {"x-death": [{"count": 1}]}) == ODD + encode_table({"x-death": [{"count": 1}]})


@given(TABLES, ANY_NAME, VALUES)
def test_splicing_agrees_with_decoding(table: dict[str, Value], name: str, value: Value) -> None:
    octets = with_entries(encode_table(table), {name: value})
    assert decode_table(octets) == {**table, name: value}
    assert find(octets, name) == value
    assert decode_table(without_keys(octets, [name])) == {k: v for k, v in table.items() if k != name}
