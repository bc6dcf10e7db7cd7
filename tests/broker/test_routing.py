"""The cost of routing in steps: it grows at most with what the message reaches."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from amqpd.broker import routing
from amqpd.broker.broker import OPERATOR
from amqpd.broker.definitions import BindingDefinition, ExchangeDefinition, QueueDefinition
from amqpd.broker.exchange_types.topic import TopicExchange, _Node
from amqpd.broker.vhost import Vhost
from tests.support.journals import RefusingJournal

SIZES = (50, 100, 200)


class House:
    """A vhost with a queue `q`, and the count of steps."""

    def __init__(self) -> None:
        numbers = iter(range(1, 1_000_000))
        self.vhost = Vhost("/", RefusingJournal(), lambda: next(numbers))
        self.effort = self.vhost.worklist.effort
        self.queue("q")

    def queue(self, name: str) -> None:
        self.vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", name), self)

    def exchanges(self, *names: str, kind: str, alternate: str = "") -> None:
        arguments = {"alternate-exchange": alternate} if alternate else {}
        for name in names:
            self.vhost.declare_exchange(OPERATOR, ExchangeDefinition("/", name, kind, arguments=arguments))

    def bind(self, source: str, destination: str, key: str = "", *, to: Any = "queue", **arguments: Any) -> None:
        self.vhost.bind(OPERATOR, BindingDefinition("/", source, to, destination, key, arguments), self)

    def steps(self, exchange: str, *keys: str, reaches: Iterable[str] = ("q",), **headers: Any) -> int:
        """Return what a route costs that reaches these queues."""
        before = self.effort.total
        found = self.vhost.routing.route(self.vhost.exchanges[exchange], keys, lambda: headers)
        assert {queue.name for queue in found} == {*reaches}
        return self.effort.total - before


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.vhost.check()


def chain(house: House, kind: str, length: int, *keys: str) -> str:
    """A chain of exchanges to the queue; returns the first."""
    names = [f"{kind} {length} {n}" for n in range(length)]
    house.exchanges(*names, kind=kind)
    for key in keys or ("#",):
        for source, destination in zip(names, names[1:]):
            house.bind(source, destination, key, to="exchange")
        house.bind(names[-1], "q", key)
    return names[0]


def mesh(house: House, kind: str, size: int, *keys: str) -> str:
    """Exchanges that are all bound to each other, and one to the queue; returns another one."""
    names = [f"{kind} {size} {n}" for n in range(size)]
    house.exchanges(*names, kind=kind)
    for key in keys or ("#",):
        for source in names:
            for destination in names:
                house.bind(source, destination, key, to="exchange")
    house.bind(names[-1], "q", "#")
    return names[0]


# What a route does not touch

@pytest.mark.parametrize("kind", ["direct", "topic"])
@pytest.mark.parametrize("bindings", SIZES)
def test_a_key_of_its_own_costs_the_same_however_many_others_there_are(
    house: House, kind: str, bindings: int
) -> None:
    house.exchanges("x", kind=kind)
    for n in range(bindings):
        house.bind("x", "q", f"key.{n}")
    assert house.steps("x", "key.7") <= 5


@pytest.mark.parametrize("bindings", SIZES)
def test_headers_that_meet_one_binding_cost_the_same_however_many_others_there_are(
    house: House, bindings: int
) -> None:
    for n in range(bindings):
        house.bind("amq.headers", "q", **{"x-match": "all", "common": 1, "n": n})
    assert house.steps("amq.headers", "", common=1, n=7) <= 5
    assert house.steps("amq.headers", "", reaches=(), common=1, n=-1) <= 5


@pytest.mark.parametrize("bindings", SIZES)
def test_one_header_that_is_enough_costs_the_same_however_many_bindings_ask_for_it(
    house: House, bindings: int
) -> None:
    for n in range(bindings):
        house.bind("amq.headers", "q", **{"x-match": "any", "common": 1, "n": n})
    assert house.steps("amq.headers", "", common=1) <= 5


@pytest.mark.parametrize("criteria", SIZES)
def test_bindings_of_many_criteria_are_looked_at_where_their_rarest_one_is_met(house: House, criteria: int) -> None:
    headers = {f"h{n}": n for n in range(criteria)}
    for n in range(100):
        house.bind("amq.headers", "q", **{"x-match": "all", "n": n, **headers})
    assert house.steps("amq.headers", "", n=7, **headers) <= 2 * criteria
    assert house.steps("amq.headers", "", reaches=(), **headers) <= 2 * criteria


@pytest.mark.parametrize("kind", ["direct", "fanout", "headers"])
@pytest.mark.parametrize("keys", SIZES)
def test_many_keys_cost_no_more_than_the_bindings_where_these_are_fewer(house: House, kind: str, keys: int) -> None:
    first = mesh(house, kind, 10, "key 0")
    house.bind(first, "q", "key 1")
    assert house.steps(first, *[f"key {n}" for n in range(keys)]) <= 50


@pytest.mark.parametrize("kind", ["direct", "topic", "fanout"])
def test_an_exchange_that_leads_everywhere_twice_counts_known_places_less(house: House, kind: str) -> None:
    first = mesh(house, kind, 60, "#", "another")
    assert house.steps(first, "#") <= 60 * 5


# What a route touches is counted, and grows no faster

@pytest.mark.parametrize("kind", ["direct", "topic", "fanout"])
def test_a_chain_costs_what_it_is_long(house: House, kind: str) -> None:
    costs = [house.steps(chain(house, kind, size, "k", "another"), "k") for size in SIZES]
    assert SIZES[0] <= costs[0] <= 3 * SIZES[0]
    assert_linear(costs)


@pytest.mark.parametrize("length", SIZES)
def test_alternates_cost_what_they_are_in_a_row(house: House, length: int) -> None:
    for n in range(length):
        house.exchanges(f"x{n}", kind="direct", alternate=f"x{n + 1}")
    house.exchanges(f"x{length}", kind="fanout")
    house.bind(f"x{length}", "q")
    assert length <= house.steps("x0", "k") <= 2 * length + 5


def test_many_keys_through_exchanges_that_read_them_cost_the_product() -> None:
    costs = []
    for size in SIZES:
        house = House()
        first = chain(house, "topic", 10, "#", "another")
        costs.append(house.steps(first, *[f"key {n}" for n in range(size)]))
    assert costs[0] >= 10 * SIZES[0]
    assert_linear(costs)


def patterns(count: int, words: Iterable[str], length: int, between: str = "") -> list[str]:
    """So many different patterns of these words, always the same ones."""
    dice, found = random.Random(1), dict[str, None]()
    while len(found) < count:
        text = f".{between}.".join(dice.choices([*words], k=length)).replace("..", ".")
        found[f"#.{text}.#" if between else text] = None
    return list(found)


@pytest.mark.parametrize(("length", "between", "most"), [(12, "", 3), (127, "", 3), (60, "#", 300)])
def test_patterns_that_all_match_cost_what_they_are_many(length: int, between: str, most: int) -> None:
    costs = []
    for size in SIZES:
        house = House()
        house.exchanges("x", kind="topic")
        for pattern in patterns(size, "ab" if between else "a*", length, between):
            house.bind("x", "q", pattern)
        key = ".".join("ab" * 60 if between else "a" * length)
        costs.append(house.steps("x", key))
    assert SIZES[0] <= costs[0] <= most * SIZES[0]
    assert_linear(costs)


def assert_linear(costs: list[int]) -> None:
    assert all(after <= 2.2 * before for before, after in zip(costs, costs[1:])), costs


@pytest.mark.parametrize("size", SIZES)
def test_a_topic_exchange_has_two_nodes_for_a_long_binding_key_at_most(size: int) -> None:
    exchange: TopicExchange[str] = TopicExchange()
    for pattern in patterns(size, "ab*", 127):
        exchange.bind(BindingDefinition("/", "x", "queue", "q", pattern), "q")
    exchange.check()
    nodes: list[_Node[str]] = [exchange._root]
    for node in nodes:
        nodes += node.children.values()
    assert len(nodes) <= 2 * size


# What is remembered

@pytest.fixture
def steps_again(house: House) -> Iterator[int]:
    """What the way through a chain costs that is known already."""
    first = chain(house, "fanout", 100)
    assert house.steps(first, "k") >= 100
    yield house.steps(first, "another key")


FIRST = "fanout 100 0"


def test_a_long_way_is_known_for_every_key_where_nothing_reads_the_key(house: House, steps_again: int) -> None:
    assert steps_again <= 10


def test_a_long_way_that_reads_the_key_is_known_for_that_key(house: House) -> None:
    first = chain(house, "topic", 100, "k", "other")
    assert min(house.steps(first, "k"), house.steps(first, "other")) >= 100
    assert max(house.steps(first, "k"), house.steps(first, "other")) <= 10
    assert house.steps(first, "none", reaches=()) <= 5


def test_a_known_way_holds_whatever_is_declared_elsewhere(house: House, steps_again: int) -> None:
    house.queue("other")
    house.exchanges("x", kind="direct")
    house.bind("x", "other", "k")
    assert house.steps(FIRST, "k") == steps_again
    house.vhost.delete_queue(OPERATOR, "other", house)
    house.vhost.delete_exchange(OPERATOR, "x")
    assert house.steps(FIRST, "k") == steps_again


def test_a_known_way_is_forgotten_when_anything_on_it_changes(house: House, steps_again: int) -> None:
    house.queue("other")
    house.bind("fanout 100 50", "other")
    assert house.steps(FIRST, "k", reaches=("q", "other")) >= 100
    house.vhost.delete_queue(OPERATOR, "other", house)
    assert house.steps(FIRST, "k") >= 100
    house.vhost.delete_exchange(OPERATOR, "fanout 100 99")
    assert house.steps(FIRST, "k", reaches=()) >= 99


def test_a_known_way_is_forgotten_when_a_missing_alternate_is_declared(house: House) -> None:
    for n in range(10):
        house.exchanges(f"x{n}", kind="direct", alternate=f"x{n + 1}")
    assert house.steps("x0", "k", reaches=()) >= 10
    house.exchanges("x10", kind="fanout")
    house.bind("x10", "q")
    assert house.steps("x0", "k") >= 10


def test_what_sessions_know_of_a_missing_exchange_is_outdated_once_it_is_declared(house: House) -> None:
    house.exchanges("x", kind="fanout")
    before = house.vhost.routing.version
    house.vhost.topology.add_exchange(house.vhost.exchanges["x"])
    assert house.vhost.routing.version != before
    before = house.vhost.routing.version
    house.vhost.delete_exchange(OPERATOR, "x")
    assert house.vhost.routing.version != before


def test_what_is_remembered_is_bounded(house: House) -> None:
    house.vhost.routing.most_known = 1_000
    keys = [f"key {n}" for n in range(30)]
    first = chain(house, "direct", 50, *keys)
    for key in (*keys, *keys):
        house.steps(first, key)
        known = house.vhost.routing._known
        assert sum(walk.size for walk in known.values()) == house.vhost.routing._known_size <= 1_000
    house.bind(first, "q", "one more")
    for key in keys[-5:]:
        house.steps(first, key)
        assert sum(walk.size for walk in known.values()) == house.vhost.routing._known_size


def test_a_way_is_remembered_from_ten_references_on(house: House) -> None:
    house.exchanges("x", kind="fanout", alternate="none")
    for n in range(routing.LONG_WALK - 2):
        assert not house.vhost.routing._known
        house.queue(f"q{n}")
        house.bind("x", f"q{n}")
        house.steps("x", "k", reaches=[f"q{before}" for before in range(n + 1)])
    walk, = house.vhost.routing._known.values()
    assert walk.size == routing.LONG_WALK


def test_ways_are_forgotten_once_many_are_gone_that_they_led_to(house: House) -> None:
    first = chain(house, "fanout", 50)
    house.steps(first, "k")
    for n in range(routing.FEWEST_GONE + 1):
        assert house.vhost.routing._known
        house.queue(f"gone {n}")
        house.bind(first, f"gone {n}")
        house.steps(first, "k", reaches=["q", f"gone {n}"])
        house.vhost.delete_queue(OPERATOR, f"gone {n}", house)
    assert not house.vhost.routing._known and house.vhost.routing._known_size == 0


def test_what_was_never_remembered_may_go_without_end(house: House) -> None:
    first = chain(house, "fanout", 50)
    house.steps(first, "k")
    for n in range(3 * routing.FEWEST_GONE):
        house.queue(f"gone {n}")
        house.vhost.delete_queue(OPERATOR, f"gone {n}", house)
    assert house.vhost.routing._known


# A way that needs no walk

def test_a_way_that_ends_at_its_first_exchange_is_known_at_once_and_any_other_is_not(house: House) -> None:
    def at_once(name: str) -> list[str] | None:
        found = house.vhost.routing.at_once(house.vhost.exchanges[name], "k")
        return None if found is None else [queue.name for queue in found]

    house.exchanges("x", "y", kind="direct")
    house.exchanges("z", kind="direct", alternate="x")
    house.exchanges("wide", kind="fanout")
    house.bind("x", "q", "k")
    house.bind("amq.headers", "q", "k")
    for n in range(routing.LONG_WALK):
        house.queue(f"q{n}")
        house.bind("wide", f"q{n}")
    assert [at_once(name) for name in ("", "x", "y", "z", "amq.headers", "wide")] == [[], ["q"], [], None, None, None]
    house.bind("x", "y", "another", to="exchange")
    assert at_once("x") is None
    house.vhost.delete_exchange(OPERATOR, "y")
    assert at_once("x") == ["q"]


def test_a_walk_without_headers_finds_nothing_where_an_exchange_reads_them(house: House) -> None:
    house.exchanges("first", "last", kind="fanout")
    house.bind("first", "amq.headers", to="exchange")
    house.bind("first", "last", to="exchange")
    house.bind("last", "q")
    walk = house.vhost.routing.find(house.vhost.exchanges["first"], ("k",))
    house.effort.begin()
    assert walk.step(house.effort) and walk.needs_headers and walk.queues == []
    assert house.steps("first", "k") >= 3


def test_nothing_is_kept_of_bindings_that_were_removed(house: House) -> None:
    house.exchanges("x", kind="direct")
    for key in ("a", "b"):
        house.bind("x", "q", key)
    assert len(house.vhost.topology.bindings.leading_to("queue", "q")) == 2
    for key in ("a", "b"):
        house.vhost.unbind(OPERATOR, BindingDefinition("/", "x", "queue", "q", key, {}), house)
    assert house.vhost.topology.bindings.leading_to("queue", "q") == []
    assert not house.vhost.topology.bindings._incoming


# A walk that is cut

def test_a_walk_stops_between_two_exchanges_and_two_keys(house: House) -> None:
    first = house.vhost.exchanges[chain(house, "topic", 10, "#", "another")]
    walk = house.vhost.routing.walk(first, [f"key {n}" for n in range(10)], lambda: {})
    stops = 0
    house.effort.stop = house.effort.total
    while not walk.step(house.effort):
        stops += 1
        house.effort.stop = house.effort.total
    assert stops >= 100 and [queue.name for queue in walk.queues] == ["q"]


def test_a_walk_stops_in_a_headers_exchange_with_very_many_criteria(house: House) -> None:
    criteria = {f"h{n}": 1 for n in range(250)}
    house.exchanges("wide", kind="headers")
    for n in range(100):
        house.bind("wide", "q", **{name: value for name, value in criteria.items() if name != f"h{n}"})
    for n in range(100):
        house.queue(f"any {n}")
        house.bind("wide", f"any {n}", **criteria, **{"x-match": "any"})
    walk = house.vhost.routing.walk(house.vhost.exchanges["wide"], ("",), lambda: criteria)
    pieces = []
    house.effort.stop = before = house.effort.total
    while not walk.step(house.effort):
        pieces.append(house.effort.total - before)
        before = house.effort.stop = house.effort.total
    assert sum(pieces) > 100 * 250 // 8 and max(pieces) < 600
    assert sorted(queue.name for queue in walk.queues) == sorted(["q", *(f"any {n}" for n in range(100))])


def test_bindings_of_many_criteria_that_change_during_a_walk_do_no_harm(house: House) -> None:
    criteria = {f"h{n}": 1 for n in range(250)}
    house.exchanges("wide", kind="headers", alternate="other")
    house.exchanges("other", kind="fanout")
    house.queue("late")
    house.bind("other", "late")
    for n in range(100):
        house.bind("wide", "q", **{name: value for name, value in criteria.items() if name != f"h{n}"})
        house.bind("wide", "late", f"{n}", **{f"h{n}": 1, "x-match": "any"})
    walk = house.vhost.routing.walk(house.vhost.exchanges["wide"], ("",), lambda: criteria)
    house.effort.stop = house.effort.total
    assert not walk.step(house.effort) and not walk.step(house.effort)
    house.vhost.delete_queue(OPERATOR, "q", house)
    house.bind("wide", "late", **criteria)
    house.vhost.worklist.work_off()
    house.effort.stop = house.effort.total
    while not walk.step(house.effort):
        house.effort.stop = house.effort.total
    assert [queue.name for queue in walk.queues] == ["late"]


def test_a_walk_is_done_in_one_step_where_there_is_effort_left(house: House) -> None:
    house.effort.begin()
    assert house.vhost.routing.find(house.vhost.exchanges[chain(house, "topic", 10)], ("k",)).step(house.effort)


def test_bindings_that_change_during_a_walk_do_no_harm(house: House) -> None:
    first = house.vhost.exchanges[chain(house, "topic", 4, "#", "another")]
    house.queue("late")
    walk = house.vhost.routing.find(first, ("k",))
    house.effort.stop = house.effort.total
    assert not walk.step(house.effort)
    house.bind("topic 4 0", "late", "#")        # too late
    house.bind("topic 4 3", "late", "#")        # in time
    house.vhost.delete_queue(OPERATOR, "q", house)
    house.effort.begin()
    assert walk.step(house.effort) and not walk.is_current
    assert [queue.name for queue in walk.queues] == ["late"]
    assert house.steps("topic 4 0", "k", reaches=("late",)) >= 4


def test_a_way_that_is_used_again_is_remembered_once(house: House) -> None:
    first = chain(house, "fanout", 50)
    for _ in range(5):
        house.steps(first, "k")
    walk, = house.vhost.routing._known.values()
    assert house.vhost.routing._known_size == walk.size
    while not walk.step(house.effort):
        pass
    assert house.vhost.routing._known_size == walk.size


def test_exchanges_that_were_never_remembered_may_go_without_end(house: House) -> None:
    first = chain(house, "fanout", 50)
    house.steps(first, "k")
    for n in range(3 * routing.FEWEST_GONE):
        house.exchanges(f"gone {n}", kind="fanout")
        house.vhost.delete_exchange(OPERATOR, f"gone {n}")
    assert house.vhost.routing._known


def test_to_use_a_remembered_way_counts_by_what_it_has(house: House) -> None:
    first = chain(house, "fanout", 320)
    house.steps(first, "k")
    walk, = house.vhost.routing._known.values()
    assert house.steps(first, "k") == walk.size // 32 > 15
