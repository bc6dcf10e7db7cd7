"""§12 Routing: alternate exchanges, which are used if the bindings of an exchange match nothing."""
from __future__ import annotations

import pytest

from conformance.channel import Channel
from conformance.client import Client
from conformance.conftest import Names
from conformance.methods import EXCHANGE_DECLARE
from conformance.routes import Routes

pytestmark = pytest.mark.needs("alternate-exchange")


def declare(ch: Channel, name: str, type: str = "direct", alternate: str | None = None) -> str:
    """An exchange, perhaps with an alternate one; returns its name."""
    ch.declare_exchange(name, type, arguments={} if alternate is None else {"alternate-exchange": alternate})
    return name


def test_what_is_unroutable_goes_to_the_alternate(ch: Channel, routes: Routes, names: Names) -> None:
    alternate = declare(ch, names.exchange(), "fanout")
    exchange = declare(ch, names.exchange(), alternate=alternate)
    queue = routes.queue(alternate, "")
    assert routes.reached(exchange, "nobody bound this") == {queue}


def test_what_is_routed_does_not(ch: Channel, routes: Routes, names: Names) -> None:
    alternate = declare(ch, names.exchange(), "fanout")
    exchange = declare(ch, names.exchange(), alternate=alternate)
    routes.queue(alternate, "")
    queue = routes.queue(exchange, "key")
    assert routes.reached(exchange, "key") == {queue}


@pytest.mark.parametrize("type", ["direct", "fanout", "topic", "headers"])
def test_every_type_may_have_an_alternate(ch: Channel, routes: Routes, names: Names, type: str) -> None:
    alternate = declare(ch, names.exchange(), "fanout")
    exchange = declare(ch, names.exchange(), type, alternate)
    queue = routes.queue(alternate, "")
    assert routes.reached(exchange, "key") == {queue}


def test_the_alternate_routes_by_the_same_key_and_headers(ch: Channel, routes: Routes, names: Names) -> None:
    by_headers = declare(ch, names.exchange(), "headers")
    by_key = declare(ch, names.exchange(), "topic", by_headers)
    exchange = declare(ch, names.exchange(), alternate=by_key)
    key_queue = routes.queue(by_key, "a.*")
    headers_queue = routes.queue(by_headers, "", arguments={"a": 1})
    assert routes.reached(exchange, "a.b") == {key_queue}
    assert routes.reached(exchange, "b", {"a": 1}) == {headers_queue}
    assert routes.reached(exchange, "b", {"a": 2}) == set()


def test_the_message_keeps_the_exchange_it_was_published_to(ch: Channel, names: Names, queue_name: str) -> None:
    alternate = declare(ch, names.exchange(), "fanout")
    exchange = declare(ch, names.exchange(), alternate=alternate)
    ch.declare_queue(queue_name)
    ch.bind_queue(queue_name, alternate)
    ch.publish(exchange, "key")
    got = ch.get(queue_name)
    assert (got.exchange, got.routing_key) == (exchange, "key")


def test_alternates_are_followed_in_a_chain(ch: Channel, routes: Routes, names: Names) -> None:
    last = declare(ch, names.exchange(), "fanout")
    chain = last
    for _ in range(5):
        chain = declare(ch, names.exchange(), alternate=chain)
    queue = routes.queue(last, "")
    assert routes.reached(chain, "key") == {queue}


def test_a_chain_ends_at_the_first_that_routes(ch: Channel, routes: Routes, names: Names) -> None:
    last = declare(ch, names.exchange(), "fanout")
    middle = declare(ch, names.exchange(), alternate=last)
    first = declare(ch, names.exchange(), alternate=middle)
    routes.queue(last, "")
    queue = routes.queue(middle, "key")
    assert routes.reached(first, "key") == {queue}


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_circle_of_alternates_ends(ch: Channel, routes: Routes, names: Names, length: int) -> None:
    circle = [names.exchange() for _ in range(length)]
    for exchange, alternate in zip(circle, circle[1:] + circle[:1]):
        declare(ch, exchange, alternate=alternate)
    queue = routes.queue(circle[-1], "key")
    assert routes.reached(circle[0], "key") == {queue}
    assert routes.reached(circle[0], "other") == set()


def test_an_alternate_that_is_not_there_routes_nothing(ch: Channel, routes: Routes, names: Names) -> None:
    exchange = declare(ch, names.exchange(), alternate="nonesuch")
    assert routes.reached(exchange, "key") == set()


def test_an_empty_alternate_is_none(ch: Channel, names: Names, queue_name: str) -> None:
    """Not the default exchange, which would route by the key to the queue of that name."""
    exchange = declare(ch, names.exchange(), alternate="")
    ch.declare_queue(queue_name)
    ch.publish(exchange, queue_name, b"0", mandatory=True)
    assert ch.returns(1)[0].body == b"0"
    assert ch.get(queue_name) is None


@pytest.mark.parametrize("declared, again, received, current", [
    ("", None, "none", "the value '' of type 'longstr'"), (None, "", "the value '' of type 'longstr'", "none")])
def test_an_empty_alternate_is_compared_all_the_same(
        client: Client, ch: Channel, names: Names, declared: str | None, again: str | None, received: str,
        current: str) -> None:
    exchange = declare(ch, names.exchange(), alternate=declared)
    ch.send_declare_exchange(exchange, arguments={} if again is None else {"alternate-exchange": again})
    ch.fails(406, f"PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange '{exchange}' in vhost "
             f"'{client.url.vhost}': received {received} but current is {current}", *EXCHANGE_DECLARE)


def test_an_alternate_may_be_declared_later_and_deleted(ch: Channel, routes: Routes, names: Names) -> None:
    alternate = names.exchange()
    exchange = declare(ch, names.exchange(), alternate=alternate)
    queue = routes.queue(declare(ch, alternate, "fanout"), "")
    assert routes.reached(exchange, "key") == {queue}
    ch.delete_exchange(alternate)
    assert routes.reached(exchange, "key") == set()


def test_a_bound_exchange_that_drops_the_message_counts_as_a_destination(
        ch: Channel, routes: Routes, names: Names) -> None:
    alternate, bound = declare(ch, names.exchange(), "fanout"), declare(ch, names.exchange())
    exchange = declare(ch, names.exchange(), "fanout", alternate)
    ch.bind_exchange(bound, exchange)
    routes.queue(alternate, "")
    assert routes.reached(exchange, "key") == set()


def test_the_alternate_of_a_bound_exchange_is_asked(ch: Channel, routes: Routes, names: Names) -> None:
    alternate = declare(ch, names.exchange(), "fanout")
    bound = declare(ch, names.exchange(), alternate=alternate)
    exchange = declare(ch, names.exchange(), "fanout")
    ch.bind_exchange(bound, exchange)
    queue = routes.queue(alternate, "")
    assert routes.reached(exchange, "key") == {queue}


def test_an_alternate_that_was_reached_otherwise_is_not_asked_again(
        ch: Channel, routes: Routes, names: Names) -> None:
    """Each exchange is visited once, so each queue gets one copy."""
    alternate = declare(ch, names.exchange(), "fanout")
    bound = declare(ch, names.exchange(), alternate=alternate)
    exchange = declare(ch, names.exchange(), "fanout")
    ch.bind_exchange(bound, exchange)
    ch.bind_exchange(alternate, exchange)
    queue = routes.queue(alternate, "")
    assert routes.reached(exchange, "key") == {queue}


def test_the_default_exchange_has_no_alternate(ch: Channel) -> None:
    ch.publish("", "nowhere", mandatory=True)
    assert ch.returns(1)[0].text == "NO_ROUTE"


def test_confirms_and_returns_take_the_alternate_into_account(ch: Channel, routes: Routes, names: Names) -> None:
    alternate = declare(ch, names.exchange(), "direct")
    exchange = declare(ch, names.exchange(), alternate=alternate)
    routes.queue(alternate, "known")
    ch.confirm_select()
    ch.publish(exchange, "known", mandatory=True)
    ch.publish(exchange, "unknown", mandatory=True)
    assert sorted(ch.confirms(2)) == [(1, True), (2, True)]
    assert [returned.routing_key for returned in ch.returns(1)] == ["unknown"]
    assert ch.sync() == []
