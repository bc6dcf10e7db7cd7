"""The topology of a vhost: what leads from exchanges to queues and on, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from amqpd.broker.broker import OPERATOR
from amqpd.broker.definitions import BindingDefinition, ExchangeDefinition, QueueDefinition
from amqpd.management.explaining.topology import Key, Topology, TopologySurvey
from tests.support.api import Api
from tests.support.talk import Stage


@pytest.fixture
def shop(api: Api) -> Iterator[None]:
    """A vhost with a bit of everything."""
    api.put("/vhosts/shop")
    for name, arguments in (("in", {"alternate-exchange": "rest"}), ("rest", {}), ("audit", {})):
        api.put(f"/exchanges/shop/{name}", {"type": "fanout", "arguments": arguments})
    api.put("/queues/shop/orders", {"arguments": {"x-dead-letter-exchange": "nowhere"}})
    api.put("/queues/shop/retry", {"arguments": {
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "orders"}})
    for name in ("leftover", "alone-2", "alone-1"):
        api.put(f"/queues/shop/{name}")
    for kind, source, name, key in (("q", "in", "orders", "a"), ("q", "in", "orders", "b"), ("e", "in", "audit", ""),
                                    ("q", "rest", "leftover", "")):
        api.ask("POST", f"/bindings/shop/e/{source}/{kind}/{name}", {"routing_key": key})
    yield
    api.delete("/vhosts/shop")


def arrows(found: Any) -> set[tuple[str, str, str, int]]:
    """Return the arrows by the names of their ends."""
    names = [node["name"] for node in found["nodes"]]
    return {(names[one["source"]], names[one["target"]], one["way"], one["count"]) for one in found["arrows"]}


ALL = {("in", "orders", "binding", 2), ("in", "audit", "binding", 1), ("in", "rest", "alternate", 1),
       ("rest", "leftover", "binding", 1), ("orders", "nowhere", "dead letters", 1),
       ("retry", "orders", "dead letters", 1)}


@pytest.mark.usefixtures("shop")
def test_all_that_is_linked_is_told_and_queues_that_are_not_are_named(api: Api) -> None:
    found = api.get("/vhosts/shop/topology")
    assert arrows(found) == ALL
    assert (found["found"], found["is_cut"]) == (7, False)
    assert (found["lone"], found["lone_count"]) == (["alone-1", "alone-2"], 2)
    nodes = {node["name"]: node for node in found["nodes"]}
    assert (nodes["nowhere"]["exists"], nodes["in"]["type"], nodes["orders"]["type"]) == (False, "fanout", "classic")
    assert (nodes["orders"]["messages"], nodes["in"]["messages"], nodes["in"]["rate_in"]) == (0, None, 0.0)
    assert next(one["keys"] for one in found["arrows"] if one["count"] == 2) == ["a", "b"]


@pytest.mark.usefixtures("shop")
def test_a_name_finds_what_has_it_with_its_neighbours(api: Api) -> None:
    found = api.get("/vhosts/shop/topology?name=ORD")
    assert arrows(found) == {one for one in ALL if "orders" in one}
    assert api.get("/vhosts/shop/topology?name=alone-1")["lone"] == ["alone-1"]


@pytest.mark.usefixtures("shop")
def test_only_the_neighbourhood_of_a_node_is_told(api: Api) -> None:
    found = api.get("/vhosts/shop/topology?around=queue:leftover&depth=1")
    assert (arrows(found), found["lone_count"]) == ({("rest", "leftover", "binding", 1)}, 0)
    found = api.get("/vhosts/shop/topology?around=exchange:rest&depth=2")
    assert {node["name"] for node in found["nodes"]} == {"rest", "leftover", "in", "orders", "audit"}
    assert [node["name"] for node in api.get("/vhosts/shop/topology?around=queue:alone-1")["nodes"]] == ["alone-1"]


@pytest.mark.usefixtures("shop")
def test_what_is_left_out_is_told(api: Api) -> None:
    found = api.get("/vhosts/shop/topology?most=2")
    assert (len(found["nodes"]), found["found"]) == (2, 7)
    assert sum(node["hidden"] for node in found["nodes"]) > 0


@pytest.mark.parametrize(("query", "status"), [
    ("most=0", 400), ("most=501", 400), ("depth=11", 400), ("depth=-1", 400), ("most=x", 400), ("around=box:a", 400),
    ("around=queue:none", 404), ("around=exchange:none", 404)])
def test_what_cannot_be_told_is_refused(api: Api, query: str, status: int) -> None:
    assert api.ask("GET", f"/vhosts/%2F/topology?{query}").status == status


def test_work_and_answer_are_bounded_and_others_get_turns() -> None:
    vhost = Stage().broker.vhosts["/"]
    vhost.declare_exchange(OPERATOR, ExchangeDefinition("/", "wide", "direct"))
    for number in range(300):
        vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", f"q{number:03}"), OPERATOR)
        for key in range(10):
            vhost.bind(OPERATOR, BindingDefinition("/", "wide", "queue", f"q{number:03}", str(key), {}), OPERATOR)
    turns: list[int] = []

    async def pause() -> None:
        turns.append(1)
        vhost.bind(OPERATOR, BindingDefinition("/", "wide", "queue", "q000", f"new {len(turns)}", {}), OPERATOR)

    def look(most_looked_at: int, most: int, most_arrows: int = 500) -> Topology:
        survey = TopologySurvey(vhost, pause, most_looked_at=most_looked_at, most_arrows=most_arrows)
        return asyncio.run(survey.look(most=most))

    found = look(50_000, 50)
    assert (len(found.nodes), found.found, found.nodes[0].hidden, found.is_cut) == (50, 301, 251, False)
    assert found.arrows[0].count >= 10 and len(found.arrows[0].keys) == 5 and len(turns) >= 3
    found = look(1_000, 500)
    assert found.is_cut and found.found <= 101
    assert len(look(50_000, 500, 20).arrows) == 20
    assert asyncio.run(TopologySurvey(vhost, pause).look(around=Key("queue", "q001"), depth=1)).found == 2
