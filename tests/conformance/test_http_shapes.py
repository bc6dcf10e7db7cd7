"""The shapes of the management API's suite, its comparison, and that its records belong to its requests."""
from __future__ import annotations

from typing import Any

import pytest

from conformance.http import recording, rights
from conformance.http.comparing import compared
from conformance.http.differences import Difference
from conformance.http.scenarios import SCENARIOS
from conformance.http.shapes import merged, misfits, shape_of


@pytest.mark.parametrize("value, shape", [
    (1, "number"), (1.5, "number"), (True, "bool"), (None, "null"), ("x", "string"), ([], []), ({}, {}),
    ([1, "a"], ["number|string"]),
    ([{"a": 1}, {"a": None, "b": 2}], [{"a": "null|number", "b?": "number"}]),
    ([1, []], [{"one of": ["number", []]}])])
def test_the_shape_of_a_value(value: Any, shape: Any) -> None:
    assert shape_of(value) == shape
    assert not list(misfits(shape, value))


@pytest.mark.parametrize("one, other, together", [
    ({"a": "number"}, {"b": "string"}, {"a?": "number", "b?": "string"}),
    ({"a?": "number"}, {"a": "string"}, {"a?": "number|string"}),
    ([], ["number"], {"one of": [[], ["number"]]}),
    ({"one of": [[], ["number"]]}, ["string"], {"one of": [[], ["number|string"]]}),
    ("number|null", {"a": "bool"}, {"one of": ["null|number", {"a": "bool"}]})])
def test_two_shapes_together_fit_what_either_fits(one: Any, other: Any, together: Any) -> None:
    assert merged(one, other) == together


@pytest.mark.parametrize("shape, value, where, text", [
    ("number", "1", "", "must be number, not string"),
    ("number", True, "", "must be number, not bool"),
    ({"a": "number"}, {}, "a", "is missing"),
    ({"a?": "number"}, {"a": None}, "a", "must be number, not null"),
    ([{"a": "number"}], [{"a": 1}, {}], "*.a", "is missing"),
    (["number"], [], "", "must not be an empty list"),
    ({"one of": ["null", {"a": "number"}]}, [], "", "must be null or object, not list")])
def test_what_does_not_fit_is_named(shape: Any, value: Any, where: str, text: str) -> None:
    assert list(misfits(shape, value)) == [(where, text)]


@pytest.mark.parametrize("shape, value", [
    ({"a": "number"}, {"a": 1, "more": None}), ({"one of": [[], ["number"]]}, []), ([], ["anything"])])
def test_more_keys_fit_and_an_empty_list_where_one_was(shape: Any, value: Any) -> None:
    assert not list(misfits(shape, value))


def permission(exchange: str) -> dict[str, str]:
    return {"vhost": "v", "user": "u", "exchange": exchange, "write": "", "read": ""}


@pytest.mark.parametrize("recorded, outcome, places", [
    ({"status": 204}, {"status": 204}, []),
    ({"status": 204}, {"status": 201}, ["status"]),
    ({"status": 204}, {"status": 204, "json": {}}, ["body"]),
    ({"status": 500}, {"status": 400, "json": {}}, []),
    ({"status": 500}, {"status": 500}, ["status"]),
    ({"status": 201, "headers": {"location": "a/b"}}, {"status": 201}, ["headers.location"]),
    ({"status": 405, "headers": {"allow": "GET, PUT"}}, {"status": 405, "headers": {"allow": "PUT, GET, HEAD"}}, []),
    ({"status": 400, "body": {"error": "e", "reason": "r"}},
     {"status": 400, "json": {"error": "e", "reason": "s", "more": 1}}, ["body.reason", "body"]),
    ({"status": 400, "body": {"error": "e", "reason": None}}, {"status": 400, "json": {"error": "e", "reason": "x"}},
     []),
    ({"status": 200, "body": {"a": 1}}, {"status": 200, "json": {"a": 1, "b": 2}}, []),
    ({"status": 200, "body": {"a": 1}}, {"status": 200, "json": {"a": True}}, ["body.a"]),
    ({"status": 200, "body": [1]}, {"status": 200, "json": [1, 2]}, ["body"]),
    ({"status": 200, "body": [1, 2]}, {"status": 200, "json": [2, 1]}, ["body.0", "body.1"]),
    ({"status": 200, "body": [permission("a"), permission("b")]},
     {"status": 200, "json": [permission("b"), permission("a")]}, []),
    ({"status": 200, "shape": {"a": "number"}, "values": {"a": 1}}, {"status": 200, "json": {"a": 2}}, ["body.a"]),
    ({"status": 200, "shape": {}}, {"status": 200, "json": {}, "waited in vain for": ["b"]}, ["body.b"])])
def test_an_answer_is_held_against_its_record(
        recorded: dict[str, Any], outcome: dict[str, Any], places: list[str]) -> None:
    assert [where for where, _ in compared(recorded, outcome, may_crash=False)] == places


def test_a_difference_covers_a_place_in_the_answers_to_some_requests() -> None:
    line = Difference("reply-texts", "GET /nodes", "body.*.memory", "because")
    assert line.covers("GET /nodes/n", "body.0.memory")
    assert not line.covers("GET /nodes", "body.0.memory.total")
    assert not line.covers("GET /overview", "body.0.memory")


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_record_has_exactly_the_requests_of_its_scenario(name: str) -> None:
    recorded = [recording.asked_of(entry) for entry in recording.read(SCENARIOS[name])]
    assert recorded == recording.requests_of(SCENARIOS[name])


def test_the_record_of_rights_has_every_route() -> None:
    assert rights.read().keys() == {request.text for request in rights.rows()}
