"""Lists: pages, sorting, columns, filters, and long ones, which are sent while they are made."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace

from amqpd.broker.broker import OPERATOR
from amqpd.broker.definitions import BindingDefinition, QueueDefinition
from amqpd.config import Management
from amqpd.management.http.bindings import bindings_from, bindings_of, bindings_to
from amqpd.management.http.consumers import consumers_of
from amqpd.management.http.lists import KEPT
from tests.support.api import FREE, Api, running
from tests.support.subscribers import ListSubscriber, subscribe
from tests.support.talk import Stage

COUNT = KEPT + 100


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with running() as found:
        queues = [{"name": f"q{number:04}", "vhost": "/", "durable": True, "auto_delete": False, "arguments": {}}
                  for number in range(COUNT)]
        assert found.ask("POST", "/definitions", {"queues": queues}).status == 204
        message = {"properties": {}, "routing_key": "q0007", "payload": "x", "payload_encoding": "string"}
        assert found.ask("POST", "/exchanges/%2F/amq.default/publish", message).body == {"routed": True}
        yield found


def names(entries: Any) -> list[str]:
    return [entry["name"] for entry in entries]


def test_a_long_list_is_whole_and_in_order(api: Api) -> None:
    found = api.get("/queues?sort=name&sort_reverse=true&columns=name")
    assert names(found) == [f"q{number:04}" for number in reversed(range(COUNT))]
    assert all(list(entry) == ["name"] for entry in found)


def test_a_page_counts_what_there_is_and_what_matches(api: Api) -> None:
    found = api.get("/queues?page=2&page_size=3&name=q000&columns=name&sort=name")
    assert found == {"filtered_count": 10, "item_count": 3, "page": 2, "page_count": 4, "page_size": 3,
                     "total_count": COUNT, "items": [{"name": f"q000{number}"} for number in (3, 4, 5)]}


@pytest.mark.parametrize("sort", ["messages", "message_stats.publish"])
def test_sorting_by_a_number_begins_with_the_largest_if_asked_for(api: Api, sort: str) -> None:
    found = api.get(f"/queues?page=1&page_size=2&sort={sort}&sort_reverse=true")
    assert found["items"][0]["name"] == "q0007" and found["items"][0]["messages"] == 1
    assert found["items"][1]["messages"] == 0


def test_columns_of_a_list_may_be_paths_into_an_entry(api: Api) -> None:
    found = api.get("/queues?page=1&page_size=1&name=q0007&columns=name,message_stats.publish,messages")
    assert found["items"] == [{"name": "q0007", "message_stats": {"publish": 1}, "messages": 1}]


def test_a_regular_expression_filters_names(api: Api) -> None:
    found = api.get("/queues?page=1&name=^q00[0-1]7$&use_regex=true&columns=name")
    assert names(found["items"]) == ["q0007", "q0017"]


@pytest.mark.parametrize(("query", "error", "reason"), [
    ("page=0", "invalid_pagination_parameters",
     "Invalid pagination parameters: page number 0, page size undefined"),
    ("page=1&page_size=501", "invalid_pagination_parameters",
     "Invalid pagination parameters: page number 1, page size 501"),
    ("page=x", "bad_request", "Pagination parameters are invalid"),
    ("page=99&name=q0007", "page_out_of_range", "Page out of range, page: 99 page size: 100, len: 1"),
])
def test_a_page_that_cannot_be_had_is_refused(api: Api, query: str, error: str, reason: str) -> None:
    reply = api.ask("GET", f"/queues?{query}")
    assert (reply.status, reply.body) == (400, {"error": error, "reason": reason})


def test_without_statistics_an_entry_is_short(api: Api) -> None:
    found = api.get("/queues?page=1&page_size=1&disable_stats=true")["items"][0]
    assert set(found) == {
        "name", "vhost", "node", "type", "durable", "auto_delete", "exclusive", "arguments", "state", "is_paused"}
    with_totals = api.get("/queues?page=1&page_size=1&disable_stats=true&enable_queue_totals=true")["items"][0]
    assert set(with_totals) - set(found) == {"messages", "messages_ready", "messages_unacknowledged"}


def test_a_broker_without_statistics_answers_every_request_so() -> None:
    settings = Management(listeners=(FREE,), disable_stats=True)
    with running(management=settings) as api:
        assert api.put("/queues/%2F/q") == 201
        message = {"properties": {}, "routing_key": "q", "payload": "x", "payload_encoding": "string"}
        assert api.ask("POST", "/exchanges/%2F/amq.default/publish", message).body == {"routed": True}
        queue, overview = api.get("/queues/%2F/q"), api.get("/overview")
        assert "messages" not in queue and "message_stats" not in queue
        assert (overview["disable_stats"], overview["enable_queue_totals"]) == (True, False)
        assert not {"message_stats", "queue_totals", "churn_rates"} & overview.keys() and "listeners" in overview
        assert "mem_used" not in api.get("/nodes")[0]
        metrics = api.ask("GET", "/metrics", prefix="", user=None).body
        assert b'\nrabbitmq_global_messages_received_total{protocol="amqp091"} 1\n' in metrics
    with running(management=replace(settings, enable_queue_totals=True)) as api:
        assert api.put("/queues/%2F/q") == 201
        assert api.get("/queues")[0]["messages"] == 0 and api.get("/overview")["enable_queue_totals"] is True


def test_what_is_added_and_removed_while_a_list_is_read_does_no_harm() -> None:
    vhost = Stage().broker.vhosts["/"]
    numbers = count()

    def add() -> None:
        name = f"q{next(numbers)}"
        vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", name), OPERATOR)
        vhost.bind(OPERATOR, BindingDefinition("/", "amq.direct", "queue", name, name, {}), OPERATOR)
        vhost.bind(OPERATOR, BindingDefinition("/", "amq.direct", "queue", "q0", name, {}), OPERATOR)
        subscribe(vhost.queues["q0"], ListSubscriber(), name)

    add()
    add()
    for walk in (bindings_of(vhost), bindings_from(vhost, ""), bindings_from(vhost, "amq.direct"),
                 bindings_to(vhost, "queue", "q0"), consumers_of([vhost])):
        for _ in walk:
            add()
