"""One exchange: its bindings, and which bindings are equal."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from amqpd.broker.definitions import BindingDefinition, ExchangeDefinition
from amqpd.broker.exchange import BindingKey, DefaultExchange, Exchange, binding_key
from amqpd.broker.queue.queue import Queue
from amqpd.errors import ConnectionException, ReplyCode
from tests.support.journals import RefusingJournal
from tests.support.samples import binding, queue_definition

ORDERS, OTHER = (Queue(queue_definition(name), RefusingJournal()) for name in ("orders", "other"))


def exchange(kind: str = "direct", **arguments: object) -> Exchange:
    return Exchange(ExchangeDefinition("/", "x", kind, arguments=arguments))


def bind(x: Exchange, made: BindingDefinition, destination: Any) -> BindingKey | None:
    """Add a binding and return its key; None if it was there."""
    key = x.new_key(made)
    if key is not None:
        x.add(key, made, destination)
    return key


def test_a_message_goes_where_bindings_lead() -> None:
    x = exchange()
    assert bind(x, binding("x", "orders", "k"), ORDERS)
    assert bind(x, binding("x", "other", "l"), OTHER)
    assert (list(x.route("k", {})), list(x.route("m", {}))) == ([ORDERS], [])


def test_the_same_binding_is_made_once() -> None:
    x = exchange()
    key = bind(x, binding("x", "orders", "k"), ORDERS)
    assert key == binding_key(binding("x", "orders", "k")) and [*x.bindings] == [key]
    assert bind(x, binding("x", "orders", "k"), ORDERS) is None
    assert len(x.bindings) == 1
    assert x.unbind(key) == (binding("x", "orders", "k"), ORDERS)
    assert list(x.route("k", {})) == []


@pytest.mark.parametrize(("one", "other", "same"), [
    ({}, {}, True), ({"a": 1}, {}, False), ({"a": 1}, {"a": 2}, False), ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
    ({"a": 1}, {"a": True}, False), ({"a": 1}, {"a": 1.0}, False), ({"a": "1"}, {"a": 1}, False),
    ({"a": None}, {}, False), ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}, True),
    ({"a": Decimal("1.0")}, {"a": Decimal("1.00")}, False),
])
def test_arguments_are_part_of_what_a_binding_is(
    one: dict[str, object], other: dict[str, object], same: bool
) -> None:
    keys = [binding_key(BindingDefinition("/", "x", "queue", "orders", "k", arguments)) for arguments in (one, other)]
    assert (keys[0] == keys[1]) is same


@pytest.mark.parametrize(("kind", "text"), [
    ("x-delayed-message", "unknown exchange type 'x-delayed-message'"), ("", "invalid exchange type ''"),
    ("quorum", "invalid exchange type 'quorum'"),
])
def test_an_unknown_type_is_refused(kind: str, text: str) -> None:
    with pytest.raises(ConnectionException) as refused:
        exchange(kind)
    assert (refused.value.code, refused.value.text) == (ReplyCode.COMMAND_INVALID, text)


def test_an_exchange_knows_its_alternate() -> None:
    assert exchange().alternate is None
    assert exchange(**{"alternate-exchange": "other"}).alternate == "other"


@pytest.mark.parametrize(("kind", "reads"), [("direct", False), ("fanout", False), ("topic", False), ("headers", True)])
def test_only_headers_exchanges_read_headers(kind: str, reads: bool) -> None:
    assert exchange(kind).reads_headers is reads


def test_the_default_exchange_leads_to_every_queue_by_its_name() -> None:
    queues = {"orders": ORDERS}
    default = DefaultExchange("/", queues)
    assert list(default.route("orders", {})) == [ORDERS]
    del queues["orders"]
    assert list(default.route("orders", {})) == []
