"""Large tables of arguments: what the broker asks of them is known without decoding them."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp.commands import Basic, Exchange, Queue

from amqpd.broker.definitions import PolicyDefinition, VhostDefinition
from amqpd.packed_table import SMALL
from tests.support.talk import Stage, Talk

PLAIN = {"x-nothing": 1, **{f"{number:04x}": None for number in range(SMALL)}}
WITH_TABLE, WITH_ARRAY = {**PLAIN, "x-nothing": {}}, {**PLAIN, "x-nothing": []}
TABLES = pytest.mark.parametrize("table", [PLAIN, WITH_TABLE, WITH_ARRAY], ids=["plain", "table", "array"])


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Return a client of a broker that fails to decode a large table."""
    monkeypatch.setattr("amqpd.packed_table.decode_checked_table", None)
    return Stage().client().open_channel()


@TABLES
def test_a_queue_with_large_arguments_is_declared_again_and_gets_policies(talk: Talk, table: dict[str, Any]) -> None:
    table = {**table, "x-max-length": 3}
    for _ in range(2):
        talk.client(Queue.Declare(queue="q", durable=True, arguments=table)).broker(Queue.DeclareOk("q", 0, 0))
    talk.client(Queue.Declare(queue="q", durable=True, arguments={**table, "x-max-length": 4}))
    talk.closed(
        406, "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received '4' but "
        "current is '3'", 50, 10)
    vhost = talk.stage.broker.vhosts["/"]
    vhost.followers.set_policy(PolicyDefinition("/", "short", "^q$", {"max-length": 2}))
    talk.stage.end_turn()
    assert vhost.queues["q"].rules.max_length == 2


@TABLES
def test_a_queue_with_large_arguments_gets_the_default_type(talk: Talk, table: dict[str, Any]) -> None:
    talk.stage.broker.replace_vhost(VhostDefinition("/", default_queue_type="quorum"))
    talk.client(Queue.Declare(queue="q", durable=True, arguments=table)).broker(Queue.DeclareOk("q", 0, 0))
    assert talk.stage.broker.vhosts["/"].queues["q"].rules.is_quorum


@TABLES
def test_an_unfit_argument_is_refused_whatever_else_there_is(talk: Talk, table: dict[str, Any]) -> None:
    talk.client(Queue.Declare(queue="q", arguments={**table, "x-max-age": "1D"}))
    talk.closed(
        406, "PRECONDITION_FAILED - invalid arg 'x-max-age' for queue 'q' in vhost '/' of queue type "
        "rabbit_classic_queue", 50, 10)


@TABLES
def test_consumers_with_large_arguments_are_served_by_priority(talk: Talk, table: dict[str, Any]) -> None:
    talk.client(Queue.Declare(queue="q")).hear(Queue.DeclareOk)
    for tag, priority in (("low", {}), ("high", {"x-priority": 1}), ("last", {"x-priority": -1})):
        talk.client(Basic.Consume(queue="q", consumer_tag=tag, arguments={**table, **priority})).broker(
            Basic.ConsumeOk(tag))
    talk.publish("q", b"x", b"y")
    assert [talk.hear(Basic.Deliver).consumer_tag for _ in range(2)] == ["high", "high"]
    talk.client(Basic.Cancel("high")).broker(Basic.CancelOk("high"))
    talk.publish("q", b"z")
    assert talk.hear(Basic.Deliver).consumer_tag == "low"
    talk.client(Basic.Ack(0, True))
    talk.stage.pass_time(120)


@TABLES
def test_an_exchange_with_large_arguments_has_its_alternate_exchange(talk: Talk, table: dict[str, Any]) -> None:
    talk.client(Queue.Declare(queue="q")).hear(Queue.DeclareOk)
    for _ in range(2):
        talk.client(Exchange.Declare(exchange="e", arguments={**table, "alternate-exchange": "amq.fanout"})).broker(
            Exchange.DeclareOk())
    talk.client(Queue.Bind(queue="q", exchange="amq.fanout")).broker(Queue.BindOk())
    talk.publish("nobody", b"x", exchange="e").client(Queue.Declare(queue="q", passive=True))
    talk.broker(Queue.DeclareOk("q", 1, 0))


@pytest.mark.parametrize("name, value, counted", [
    ("x-queue-master-locator", {**PLAIN}, True), ("x-queue-master-locator", [{}] * SMALL, True),
    ("x-queue-master-locator", "x" * 4 * SMALL, True), ("x-queue-master-locator", {}, False),
    ("x-nothing", {**PLAIN}, False)], ids=["table", "array", "text", "small", "unknown"])
def test_a_short_declaration_that_is_compared_with_a_large_value_counts_for_it(
    name: str, value: Any, counted: bool
) -> None:
    talk = Stage().client().open_channel()
    talk.client(Queue.Declare(queue="q", arguments={**PLAIN, name: value})).hear(Queue.DeclareOk)
    effort = talk.stage.broker.effort
    before = effort.total
    talk.client(Queue.Declare(queue="q", arguments={"x-queue-master-locator": {}} if name != "x-nothing" else {}))
    talk.hear_all()
    assert (effort.total - before > SMALL / 2) == counted
