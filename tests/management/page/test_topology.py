"""The page of the topology, and where its nodes stand in the picture."""

from __future__ import annotations

import asyncio
import random
import re
from urllib.parse import quote

import pytest

from amqpd.management.page.drawing import COLUMN, PASSES, Drawing, draw
from tests.management.page.conftest import Visitor, user_with
from tests.management.page.test_exchanges import HOSTILE, shop
from tests.support.api import Api

__all__ = ["shop"]


def drawn(count: int, arrows: list[tuple[int, int]], turns: list[int] | None = None) -> Drawing:
    """Return a picture."""
    async def pause() -> None:
        if turns is not None:
            turns.append(1)

    return asyncio.run(draw(count, arrows, pause))


def crossings(drawing: Drawing, arrows: list[tuple[int, int]]) -> int:
    """Return how many pairs of arrows between the same two layers cross."""
    lines = [(drawing.places[source], drawing.places[target]) for source, target in arrows]
    return sum(
        (one[0].y - other[0].y) * (one[1].y - other[1].y) < 0 and one[0].x == other[0].x and one[1].x == other[1].x
        for place, one in enumerate(lines) for other in lines[:place])


def test_arrows_lead_to_the_right_but_for_those_that_close_a_cycle() -> None:
    arrows = [(0, 1), (1, 2), (0, 2), (2, 3), (3, 1)]
    places = drawn(5, arrows).places
    assert [place.x // COLUMN for place in places] == [0, 1, 2, 3, 0]
    assert drawn(0, []).places == [] and len(drawn(2, [(0, 1), (1, 0), (0, 0)]).paths) == 3


def test_no_two_nodes_stand_in_one_place_and_every_one_is_in_the_picture() -> None:
    chance = random.Random(7)
    for count in (1, 2, 30, 300):
        arrows = [(chance.randrange(count), chance.randrange(count)) for _ in range(count * 3)]
        drawing = drawn(count, arrows)
        assert len(set(drawing.places)) == count == len(drawing.places)
        assert all(0 <= place.x < drawing.width and 0 <= place.y < drawing.height for place in drawing.places)


def test_sorting_undoes_crossings() -> None:
    arrows = [(source, 10 + 9 - source) for source in range(10)]       # each pair of them crosses at first
    assert crossings(drawn(20, arrows), arrows) == 0


def test_others_get_a_turn_after_each_pass() -> None:
    turns: list[int] = []
    drawn(500, [(0, number) for number in range(1, 500)] * 4, turns)
    assert len(turns) == PASSES + 2


@pytest.mark.usefixtures("shop")
def test_the_picture_links_to_pages_and_to_neighbourhoods(guest: Visitor) -> None:
    shown = guest.text("/topology")
    assert 'href="/exchanges/%2F/shop"' in shown and 'href="/queues/%2F/orders"' in shown
    assert "<title>shop → orders: binding order.*</title>" in shown
    assert "<title>shop → rest: alternate exchange</title>" in shown
    assert "<title>orders → dead: dead letters</title>" in shown
    around = re.findall(r'class="near" href="([^"]+)"[^>]*><title>What is around leftover<', shown)
    assert around == ["/topology?vhost=%2F&amp;around=queue%3Aleftover"]
    near = guest.text("/topology?vhost=%2F&around=queue%3Aleftover&depth=1")
    assert "Around leftover, up to 1 arrow away." in near and "/queues/%2F/orders" not in near
    found = guest.text("/topology?name=LEFT")
    assert "/queues/%2F/leftover" in found and "/queues/%2F/orders" not in found
    assert "Nothing matches." in guest.text("/topology?name=nothing-like-this")
    assert guest.get("/topology?around=queue:none").status == 404
    assert guest.get("/topology?vhost=none").status in (401, 404)


@pytest.mark.usefixtures("shop")
def test_the_way_of_a_message_is_lit(guest: Visitor) -> None:
    shown = guest.text("/topology?exchange=shop&routing_key=order.made")
    assert "The message would reach 1 queue." in shown
    lit = re.findall(r'class="box \w+ lit" href="([^"]+)"', shown)
    assert sorted(lit) == ["/exchanges/%2F/shop", "/queues/%2F/dead", "/queues/%2F/orders"]
    assert len(re.findall(r'class="line [\w -]+ lit"', shown)) == 2
    reply = guest.get("/topology?exchange=shop&headers=no")
    assert (reply.status, b"This is not JSON" in reply.body) == (422, True)


def test_queues_that_nothing_leads_to_are_named_below(api: Api, guest: Visitor) -> None:
    api.put("/queues/%2F/lonely")
    assert '<a href="/queues/%2F/lonely">lonely</a>' in guest.text("/topology?name=lonely")
    api.delete("/queues/%2F/lonely")


def test_who_may_see_no_vhost_is_told_so(api: Api) -> None:
    lost = user_with(api, "lost", "management")
    api.delete("/permissions/%2F/lost")
    assert "There is no vhost that you may see." in lost.text("/topology")


def test_more_than_can_be_read_is_counted(api: Api, guest: Visitor) -> None:
    api.put("/vhosts/wide")
    api.put("/exchanges/wide/all", {"type": "fanout"})
    for number in range(305):
        api.put(f"/queues/wide/q{number}")
        api.ask("POST", f"/bindings/wide/e/all/q/q{number}", {})
    shown = guest.text("/topology?vhost=wide")
    assert shown.count('class="box') == 300 and "300 of 306 are shown, 6 more are not" in shown
    assert "6 more are linked with it" in shown
    api.delete("/vhosts/wide")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text_in_the_picture(api: Api, guest: Visitor, name: str) -> None:
    quoted = quote(name, safe="")
    api.put(f"/exchanges/%2F/{quoted}", {"type": "direct"})
    api.put(f"/queues/%2F/{quoted}", {})
    api.ask("POST", f"/bindings/%2F/e/{quoted}/q/{quoted}", {"routing_key": name})
    for query in (f"name={quoted}", f"around=queue:{quoted}", f"exchange={quoted}&routing_key={quoted}"):
        shown = guest.text(f"/topology?{query}")
        assert "<img" not in shown and ">49<" not in shown and f'href="/queues/%2F/{quoted}"' in shown
    api.delete(f"/queues/%2F/{quoted}")
    api.delete(f"/exchanges/%2F/{quoted}")
