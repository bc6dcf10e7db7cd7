"""The cost of deliveries that have to be rewritten: in steps, by their bytes, and in memory."""

from __future__ import annotations

import pytest
from pamqp.commands import Basic, Exchange, Queue, Tx

from amqpd.broker.effort import SLICE
from amqpd.broker.queue.delivery import FEW
from amqpd.properties import with_headers, without_headers
from amqpd.session import consuming, delivering, publishing, targets
from tests.support.samples import message
from tests.support.talk import Stage, Talk


@pytest.fixture
def piece() -> int:
    """Return 0: all input arrives at once, since it is large."""
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
        delivering, "with_headers", lambda *arguments: written.append(1) or with_headers(*arguments))
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
    assert talk.stage.broker.effort.total - before > 20 * FEW * delivering.COUNTED_STEPS


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


WIDE = {f"{number}": True for number in range(4_000)}


def test_publishes_that_are_rewritten_are_read_once_and_count_by_their_octets(
        talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    monkeypatch.setattr(
        publishing, "without_headers", lambda *arguments: written.append(1) or without_headers(*arguments))
    talk.open_channel().client(Queue.Declare(queue="q")).hear(Queue.DeclareOk)
    effort = talk.stage.broker.effort
    before = effort.total
    bodies = [b"x" * 100_000] * 8
    talk.publish("q", *bodies, properties=Basic.Properties(headers={**WIDE, "BCC": ["q"]}))
    assert effort.total - before > sum(map(len, bodies)) // publishing.COPIED + len(WIDE) * 5 // publishing.REWRITTEN
    ready = [*talk.stage.broker.vhosts["/"].queues["q"].ready]
    assert [message.body for message in ready] == bodies and b"BCC" not in ready[0].properties
    assert len(written) < len(bodies)


def test_so_many_publishes_are_rewritten_at_once_as_there_is_room_for(
        talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 30 * publishing.COPIED
    talk.open_channel().client(Queue.Declare(queue="q")).hear(Queue.DeclareOk)
    ready = talk.stage.broker.vhosts["/"].queues["q"].ready
    placed = []
    place = publishing.Publishing._place
    monkeypatch.setattr(publishing.Publishing, "_place", lambda self, runs, count, *rest: (
        placed.append(count), place(self, runs, count, *rest)))
    talk.publish("q", *[b"x" * size] * 300, properties=Basic.Properties(headers={"BCC": ["q"]}))
    assert len(ready) == 300 and sum(placed) == 300 and max(placed) <= SLICE // 30 + 1


def test_a_large_body_is_not_copied_to_take_a_header_out() -> None:
    plain = message(1).properties
    properties, wide = with_headers(plain, {"a": True}), with_headers(plain, {"a": True, "BCC": "q", "longer": True})
    content = message(1, bytes(1_000)).content_with(with_headers(plain, {"a": True, "BCC": "q"}))
    for new, copied, is_looked_at in (properties, 0, False), (wide, len(content), False), (properties, 1, True):
        octets = bytearray(content)
        given = message(1, bytes(1_000))
        given.content = octets  # type: ignore[assignment]  # as the reader has it
        view = memoryview(octets) if is_looked_at else None
        found, count = given.take_content_with(new)
        assert (found is octets) == (view is None) and bool(count) == bool(copied)
        given.content = found
        assert (given.properties, given.body) == (new, bytes(1_000))


def test_a_transaction_counts_the_queues_whose_names_it_holds(talk: Talk) -> None:
    talk.open_channel()
    count = 4 * publishing.NAMES_A_STEP
    for number in range(count):
        talk.client(Queue.Declare(queue=f"q{number}", nowait=True))
        talk.client(Queue.Bind(queue=f"q{number}", exchange="amq.fanout", nowait=True))
    talk.client(Tx.Select()).hear(Tx.SelectOk)
    talk.publish("", b"", exchange="amq.fanout")
    effort = talk.stage.broker.effort
    before = effort.total
    for _ in range(5):
        talk.publish("", b"", exchange="amq.fanout")
    assert effort.total - before >= 5 * count // publishing.NAMES_A_STEP
    talk.client(Tx.Rollback()).broker(Tx.RollbackOk())


def test_where_wide_headers_lead_is_found_once_until_the_topology_changes(
        talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    decode_table = targets.fields.decode_table
    monkeypatch.setattr(
        targets.fields, "decode_table", lambda octets: decoded.append(1) or decode_table(octets))
    talk.open_channel().client(Queue.Declare(queue="q")).hear(Queue.DeclareOk)
    talk.client(Queue.Declare(queue="r")).hear(Queue.DeclareOk)
    talk.client(Queue.Bind(0, "q", "amq.headers", "", False, {"1": True})).hear(Queue.BindOk)
    decoded.clear()
    effort = talk.stage.broker.effort
    wide = Basic.Properties(headers=WIDE)
    costs = []
    for _ in range(3):
        before = effort.total
        talk.publish("", b"x", exchange="amq.headers", properties=wide)
        costs.append(effort.total - before)
    assert len(decoded) == 1 and costs[0] >= 5 * len(WIDE) // targets.DECODED and max(costs[1:]) < 50
    talk.client(Queue.Bind(0, "r", "amq.headers", "", False, {"2": True})).hear(Queue.BindOk)
    talk.publish("", b"x", exchange="amq.headers", properties=wide)
    queues = talk.stage.broker.vhosts["/"].queues
    assert (len(queues["q"].ready), len(queues["r"].ready)) == (4, 1)
