"""§12 Routing: the headers CC and BCC, whose values are additional routing keys."""
from __future__ import annotations

from typing import Any

import pytest

from conformance.channel import Channel
from conformance.conftest import Names
from conformance.fields import ByteArray, Decimal, Double, Long, Properties, Timestamp, Void, decode_table
from conformance.methods import BASIC_PUBLISH
from conformance.routes import Routes

pytestmark = pytest.mark.needs("cc-and-bcc")

both = pytest.mark.parametrize("header", ["CC", "BCC"])


@pytest.fixture
def direct(ch: Channel, exchange_name: str) -> str:
    """A direct exchange."""
    ch.declare_exchange(exchange_name, "direct")
    return exchange_name


@both
def test_every_key_is_routed(routes: Routes, direct: str, header: str) -> None:
    queues = {routes.queue(direct, key) for key in ("a", "b", "c")}
    routes.queue(direct, "d")
    assert routes.reached(direct, "a", {header: ["b", "c"]}) == queues


def test_keys_of_both_headers_are_routed(routes: Routes, direct: str) -> None:
    queues = {routes.queue(direct, key) for key in ("a", "b", "c")}
    assert routes.reached(direct, "a", {"CC": ["b"], "BCC": ["c"]}) == queues


@both
def test_the_routing_key_itself_may_lead_nowhere(routes: Routes, direct: str, header: str) -> None:
    queue = routes.queue(direct, "b")
    assert routes.reached(direct, "a", {header: ["b"]}) == {queue}


@both
def test_keys_that_lead_to_one_queue_give_one_copy(routes: Routes, direct: str, header: str) -> None:
    queue = routes.queue(direct, "a", "b")
    assert routes.reached(direct, "a", {header: ["a", "b", "b", "a"]}) == {queue}


@both
def test_the_default_exchange_routes_them_to_queues_by_name(ch: Channel, names: Names, header: str) -> None:
    queues = [names.queue() for _ in range(3)]
    for queue in queues:
        ch.declare_queue(queue)
    ch.publish("", queues[0], properties=Properties(headers={header: queues[1:]}))
    for queue in queues:
        assert ch.get(queue, no_ack=True).routing_key == queues[0]


@both
def test_a_topic_exchange_matches_them_with_its_patterns(
        ch: Channel, routes: Routes, exchange_name: str, header: str) -> None:
    ch.declare_exchange(exchange_name, "topic")
    queue = routes.queue(exchange_name, "b.*")
    assert routes.reached(exchange_name, "a", {header: ["b.c"]}) == {queue}
    assert routes.reached(exchange_name, "a", {header: ["b"]}) == set()


@both
def test_a_fanout_exchange_routes_once(ch: Channel, routes: Routes, exchange_name: str, header: str) -> None:
    ch.declare_exchange(exchange_name, "fanout")
    queue = routes.queue(exchange_name, "")
    assert routes.reached(exchange_name, "a", {header: ["b", "c"]}) == {queue}


@both
def test_a_bound_exchange_routes_them_again(
        ch: Channel, routes: Routes, direct: str, names: Names, header: str) -> None:
    destination = names.exchange()
    ch.declare_exchange(destination, "direct")
    ch.bind_exchange(destination, direct, "b")
    queue = routes.queue(destination, "c")
    assert routes.reached(direct, "a", {header: ["b", "c"]}) == {queue}


@both
def test_an_alternate_exchange_is_not_asked_when_one_key_was_routed(
        ch: Channel, routes: Routes, names: Names, header: str) -> None:
    alternate, exchange = names.exchange(), names.exchange()
    ch.declare_exchange(alternate, "fanout")
    ch.declare_exchange(exchange, "direct", arguments={"alternate-exchange": alternate})
    routes.queue(alternate, "")
    queue = routes.queue(exchange, "b")
    assert routes.reached(exchange, "a", {header: ["b"]}) == {queue}


@pytest.mark.parametrize("name", ["cc", "bcc", "Cc", "X-CC"])
def test_other_spellings_are_plain_headers(routes: Routes, direct: str, name: str) -> None:
    routes.queue(direct, "b")
    assert routes.reached(direct, "a", {name: ["b"]}) == set()
    assert routes.reached(direct, "a", {name: "b"}) == set()


@both
def test_entries_that_are_no_strings_are_passed_over(routes: Routes, direct: str, header: str) -> None:
    queue = routes.queue(direct, "b")
    assert routes.reached(direct, "a", {header: [1, None, ["b"], "b", {"b": "b"}]}) == {queue}


@both
def test_an_empty_list_changes_nothing(routes: Routes, direct: str, header: str) -> None:
    queue = routes.queue(direct, "a")
    assert routes.reached(direct, "a", {header: []}) == {queue}


@both
@pytest.mark.parametrize("value, type", [
    ("b", "longstr"), (5, "signedint"), (Long(5), "long"), (True, "bool"), (Void(), "void"), ({}, "table"),
    (Double(1), "double"), (Timestamp(1), "timestamp"), (Decimal(1), "decimal"), (ByteArray(b"b"), "binary")])
def test_anything_but_a_list_is_refused(ch: Channel, direct: str, header: str, value: Any, type: str) -> None:
    ch.publish(direct, "a", properties=Properties(headers={header: value}))
    ch.fails(406, f'PRECONDITION_FAILED - invalid message: {{unacceptable_type_in_header,"{header}",{type}}}',
             *BASIC_PUBLISH)


HEADERS = [("z", 1), ("CC", ["cc"]), ("BCC", ["bcc"]), ("a", "text")]


def keys(header: bytes) -> list[str]:
    """The keys of a content header that has nothing but headers, in their order."""
    return [key for key, _ in decode_table(header[14:])]


def test_cc_stays_and_bcc_is_removed_on_delivery(ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", queue_name, properties=Properties(headers=HEADERS))
    got = ch.get(queue_name)
    assert keys(got.header) == ["z", "CC", "a"]
    assert got.properties.headers == {"z": 1, "CC": ["cc"], "a": "text"}


def test_cc_stays_and_bcc_is_removed_on_return(ch: Channel) -> None:
    ch.publish("", "nowhere", properties=Properties(headers=HEADERS), mandatory=True)
    assert ch.returns(1)[0].properties.headers == {"z": 1, "CC": ["cc"], "a": "text"}


def test_other_properties_stay_when_bcc_is_removed(ch: Channel, queue_name: str) -> None:
    properties = Properties(content_type="text/plain", priority=3, message_id="m", timestamp=5, headers={"BCC": []})
    ch.declare_queue(queue_name)
    ch.publish("", queue_name, b"body", properties=properties)
    got = ch.get(queue_name)
    assert (got.properties.content_type, got.properties.priority) == ("text/plain", 3)
    assert (got.properties.message_id, got.properties.timestamp, got.body) == ("m", 5, b"body")
    assert not got.properties.headers


@both
def test_one_confirm_covers_all_keys(ch: Channel, routes: Routes, direct: str, header: str) -> None:
    for key in ("a", "b", "c"):
        routes.queue(direct, key)
    ch.confirm_select()
    ch.publish(direct, "a", properties=Properties(headers={header: ["b", "c"]}))
    assert ch.confirms(1) == [(1, True)]
    assert ch.sync() == []
