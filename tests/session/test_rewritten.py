"""What a delivery costs that has to be rewritten: in steps, by its octets, and in memory."""

from __future__ import annotations

import pytest
from pamqp.commands import Basic, Exchange, Queue

from amqpd.broker.queue import FEW
from amqpd.properties import with_headers
from amqpd.session import consuming
from tests.support.talk import Stage, Talk


@pytest.fixture
def piece() -> int:
    """Say all at once: these are large."""
    return 0


def take_wide(talk: Talk, count: int, *headers: str) -> None:
    """Have so many unacked messages with these headers, of the quorum queue `q`, by consumer `c`."""
    talk.open_channel().client(Queue.Declare(queue="q", durable=True, arguments={"x-queue-type": "quorum"}))
    talk.broker(Queue.DeclareOk("q", 0, 0))
    talk.publish("q", *[b"x"] * count, properties=Basic.Properties(headers={name: True for name in headers}))
    talk.client(Basic.Consume(queue="q", consumer_tag="c")).hear_all()


def test_the_count_of_failures_is_written_once_into_equal_headers_of_a_run_and_costs_by_their_octets(
        talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    monkeypatch.setattr(
        consuming, "with_headers", lambda *arguments: written.append(1) or with_headers(*arguments))
    wide = [f"{number}" for number in range(4_000)]
    take_wide(talk, FEW, "x-delivery-count", *wide)
    effort = talk.stage.broker.effort
    before = effort.total
    talk.client(Basic.Nack(0, True, True))
    assert len(written) == 1 and 1_000 < effort.total - before < 4_000
    assert [heard.properties.headers["x-delivery-count"] for heard in talk.hear_all() if heard.properties] == [1] * FEW


def test_messages_that_tell_of_failures_are_delivered_few_at_a_time(
        talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may have to be rewritten, so the slice ends between them."""
    take_wide(talk, 5 * FEW, "a")
    runs = []
    deliver = consuming.Consuming.deliver
    monkeypatch.setattr(consuming.Consuming, "deliver", lambda self, consumer, run: (
        runs.append(len(run)), deliver(self, consumer, run)))
    talk.client(Basic.Nack(0, True, True))
    assert runs == [FEW] * 5
    assert [heard.body for heard in talk.hear_all()] == [b"x"] * 5 * FEW


def test_each_small_message_that_tells_of_failures_counts_for_being_rewritten(talk: Talk) -> None:
    """That takes some microseconds, however small it is: else a slice of them takes several times as long."""
    take_wide(talk, 20 * FEW)
    before = talk.stage.broker.effort.total
    talk.client(Basic.Nack(0, True, True))
    assert len([heard for heard in talk.hear_all() if isinstance(heard.said, Basic.Deliver)]) == 20 * FEW
    assert talk.stage.broker.effort.total - before > 20 * FEW * consuming.COUNTED_STEPS


@pytest.mark.parametrize("size, least", [(60_000, 55), (1_000_000, 15)])
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("is_got", [False, True])
def test_what_goes_out_on_another_channel_costs_by_its_octets_or_its_pieces(
        talk: Talk, size: int, least: int, again: bool, is_got: bool) -> None:
    costs = []
    talk.open_channel().open_channel(2).client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0))
    for channel in (1, 2):
        talk.publish("q", bytes(size))
        if again:
            talk.client(Basic.Get(queue="q")).hear(Basic.GetOk)
            talk.client(Basic.Nack(0, True, True))
        before = talk.stage.broker.effort.total
        if is_got:
            talk.client(Basic.Get(queue="q", no_ack=True), channel=channel).hear(Basic.GetOk)
        else:
            talk.client(Basic.Consume(queue="q", consumer_tag="c", no_ack=True), channel=channel).hear(Basic.ConsumeOk)
            talk.hear(Basic.Deliver)
            talk.client(Basic.Cancel("c", nowait=True), channel=channel)
        costs.append(talk.stage.broker.effort.total - before)
    assert costs[1] - costs[0] >= least


def test_a_large_body_is_in_memory_once_however_many_have_it_on_their_way_out(stage: Stage, talk: Talk) -> None:
    talk.open_channel().client(Exchange.Declare(exchange="f", exchange_type="fanout")).broker(Exchange.DeclareOk())
    others = [stage.client() for _ in range(5)]
    for number, other in enumerate(others):
        other.open_channel(2).client(Queue.Declare(queue=f"q{number}"), channel=2).hear(Queue.DeclareOk)
        other.client(Queue.Bind(queue=f"q{number}", exchange="f"), channel=2).hear(Queue.BindOk)
        other.client(Basic.Consume(queue=f"q{number}", consumer_tag="c", no_ack=True), channel=2).hear(Basic.ConsumeOk)
    taken: list[list[bytes]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Talk, "take", lambda self, pieces: taken.append(pieces))
        talk.publish("", bytes(1_000_000), exchange="f")
    views = [piece for pieces in taken for piece in pieces if isinstance(piece, memoryview)]
    assert sum(map(len, views)) == 5_000_000 and len({id(view.obj) for view in views}) == 1
