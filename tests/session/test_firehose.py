"""The firehose: copies of what clients publish and get. RabbitMQ docs/firehose.

What is expected here is what RabbitMQ 3.10.8 does; `conformance/test_firehose.py` asks brokers for it.
"""

from __future__ import annotations

from typing import Any

import pytest
from pamqp.commands import Basic, Confirm, Exchange, Queue, Tx

from amqpd.broker.broker import OPERATOR
from amqpd.broker.definitions import BindingDefinition, VhostDefinition
from amqpd.broker.firehose import TRACE_EXCHANGE, Client, Firehose
from amqpd.broker.taps import Taps
from amqpd.broker.vhost import REPLY_TO
from tests.support.talk import Heard, Stage, Talk

CLIENT = "10.0.0.1:40000 -> 10.0.0.2:5672"


@pytest.fixture
def taps(stage: Stage) -> Taps:
    """The taps of the vhost, whose firehose is on."""
    taps = stage.broker.vhosts["/"].taps
    taps.trace(is_on=True)
    return taps


@pytest.fixture
def talk(stage: Stage, taps: Taps) -> Talk:
    """A client on channel 1, with the queues `q` and `traces`; the latter has all copies."""
    talk = stage.client().open_channel()
    for name in ("traces", "q"):
        talk.client(Queue.Declare(queue=name)).broker(Queue.DeclareOk(name, 0, 0))
    talk.client(Queue.Bind(queue="traces", exchange=TRACE_EXCHANGE, routing_key="#")).broker(Queue.BindOk())
    return talk


def copies(talk: Talk) -> list[Heard]:
    """Take the copies so far, which are not copied themselves."""
    found = []
    while True:
        talk.client(Basic.Get(queue="traces", no_ack=True))
        [heard] = talk.hear_all()
        if isinstance(heard.said, Basic.GetEmpty):
            return found
        assert heard.said.exchange == TRACE_EXCHANGE and not heard.said.redelivered
        assert heard.properties is not None and heard.properties.delivery_mode is None
        found.append(heard)


def keys(talk: Talk) -> list[str]:
    return [heard.said.routing_key for heard in copies(talk)]


def headers(heard: Heard) -> dict[str, Any]:
    assert heard.properties is not None
    return dict(heard.properties.headers)


def test_a_publish_is_copied_with_its_properties_and_where_it_went(talk: Talk) -> None:
    properties = Basic.Properties(
        content_type="text/plain", content_encoding="utf8", headers={"h": 1, "CC": ["a", "q"], "BCC": ["b"]},
        delivery_mode=2, priority=3, correlation_id="c", reply_to="r", expiration="60000", message_id="m",
        message_type="t", user_id="guest", app_id="app")
    talk.client(Basic.Publish(routing_key="q"), content=b"hello", properties=properties)
    [heard] = copies(talk)
    assert heard.said.routing_key == "publish." and heard.body == b"hello"
    assert headers(heard) == {
        "exchange_name": "", "routing_keys": ["q", "a", "q", "b"], "node": "amqpd@localhost", "vhost": "/",
        "connection": CLIENT, "channel": 1, "user": "guest", "routed_queues": ["a", "b", "q"], "properties": {
            "content_type": "text/plain", "content_encoding": "utf8", "headers": {"h": 1, "CC": ["a", "q"]},
            "delivery_mode": 2, "priority": 3, "correlation_id": "c", "reply_to": "r", "expiration": "60000",
            "message_id": "m", "type": "t", "user_id": "guest", "app_id": "app"}}
    assert [*headers(heard)["properties"]][:2] == ["app_id", "user_id"]       # RabbitMQ has them in reverse order


def test_deliveries_and_gets_are_copied_with_whether_they_are_redelivered(talk: Talk) -> None:
    talk.publish("q", b"body")
    talk.client(Basic.Get(queue="q")).hear_all()
    talk.client(Basic.Nack(1, requeue=True))
    talk.client(Basic.Consume(queue="q", consumer_tag="c")).hear_all()
    published, got, delivered = copies(talk)
    assert published.said.routing_key == "publish." and headers(published)["routed_queues"] == ["q"]
    for heard, redelivered in ((got, 0), (delivered, 1)):
        assert (heard.said.routing_key, heard.body) == ("deliver.q", b"body")
        assert headers(heard) == {
            "exchange_name": "", "routing_keys": ["q"], "properties": {}, "node": "amqpd@localhost",
            "redelivered": redelivered, "vhost": "/", "connection": CLIENT, "channel": 1, "user": "guest"}


def test_every_way_of_a_publish_is_copied_once_and_in_order(stage: Stage, talk: Talk) -> None:
    talk.client(Exchange.Declare(exchange="x", exchange_type="topic")).hear_all()
    talk.client(Queue.Bind(queue="q", exchange="x", routing_key="a.#")).hear_all()
    talk.client(
        Basic.Publish(exchange="x", routing_key="a.b"), content=b"1").client(
        Basic.Publish(exchange="x", routing_key="none"), content=b"2").client(
        Basic.Publish(exchange="x", routing_key="none", mandatory=True), content=b"3").client(
        Basic.Publish(exchange="amq.headers"), content=b"4").client(
        Basic.Publish(routing_key="nonesuch"), content=b"5").hear_all()
    found = copies(talk)
    assert [heard.body for heard in found] == [b"1", b"2", b"3", b"4", b"5"]
    assert [heard.said.routing_key for heard in found] == ["publish.x"] * 3 + ["publish.amq.headers", "publish."]
    assert [headers(heard)["routed_queues"] for heard in found] == [["q"], [], [], [], ["nonesuch"]]


def test_a_run_of_publishes_keeps_its_confirms(talk: Talk) -> None:
    talk.client(Confirm.Select()).broker(Confirm.SelectOk())
    talk.client(*[Basic.Publish(routing_key="q")] * 20, content=b"x").hear_all()
    talk.client(Basic.Publish(routing_key="q"), content=b"x")
    found = talk.hear_all()
    assert found[-1].said.delivery_tag == 21
    assert keys(talk) == ["publish."] * 21


def test_what_a_transaction_publishes_is_copied_at_once(talk: Talk) -> None:
    talk.client(Tx.Select()).broker(Tx.SelectOk())
    talk.publish("q", b"held")
    talk.client(Tx.Rollback()).broker(Tx.RollbackOk())
    [heard] = copies(talk)
    assert (heard.body, headers(heard)["routed_queues"]) == (b"held", ["q"])


def test_requests_and_replies_are_copied_and_the_delivery_of_a_reply_is_not(talk: Talk) -> None:
    talk.client(Basic.Consume(queue=REPLY_TO, consumer_tag="r", no_ack=True)).hear_all()
    talk.client(
        Basic.Publish(routing_key="q"), content=b"question", properties=Basic.Properties(reply_to=REPLY_TO))
    [request] = copies(talk)
    address = headers(request)["properties"]["reply_to"]
    assert address.startswith(f"{REPLY_TO}.")
    talk.publish(address, b"answer").hear_all()
    [reply] = copies(talk)
    assert (reply.said.routing_key, headers(reply)["routed_queues"]) == ("publish.", [])


def test_dead_letters_are_copied_only_when_they_are_delivered(talk: Talk) -> None:
    talk.client(Queue.Declare(queue="short", arguments={
        "x-max-length": 1, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q"})).hear_all()
    talk.publish("short", b"1").publish("short", b"2")
    talk.client(Basic.Get(queue="q", no_ack=True)).hear_all()
    found = copies(talk)
    assert [(heard.said.routing_key, heard.body) for heard in found] == [
        ("publish.", b"1"), ("publish.", b"2"), ("deliver.q", b"1")]
    assert headers(found[2])["properties"]["headers"]["x-first-death-queue"] == "short"


def test_copies_are_never_copied_even_as_dead_letters(stage: Stage, talk: Talk) -> None:
    """On RabbitMQ this goes on for ever."""
    talk.client(Queue.Declare(queue="loop", arguments={
        "x-max-length": 0, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})).hear_all()
    talk.client(Queue.Declare(queue="dead")).hear_all()
    talk.client(Queue.Bind(queue="loop", exchange=TRACE_EXCHANGE, routing_key="#")).hear_all()
    talk.client(Basic.Consume(queue="dead", consumer_tag="c", no_ack=True)).hear_all()
    talk.publish("q", b"once")
    assert [heard.body for heard in talk.hear_all()] == [b"once"]
    assert keys(talk) == ["publish."]


def test_it_costs_nothing_while_it_is_off_and_little_while_nobody_is_bound(talk: Talk, taps: Taps) -> None:
    talk.client(Queue.Unbind(queue="traces", exchange=TRACE_EXCHANGE, routing_key="#")).hear_all()
    talk.publish("q", b"unheard")
    assert taps.firehose is not None and not taps.firehose.has_work
    talk.client(Queue.Bind(queue="traces", exchange=TRACE_EXCHANGE, routing_key="publish.#")).hear_all()
    talk.publish("q", b"heard")
    talk.client(Basic.Get(queue="q", no_ack=True)).hear_all()
    taps.trace(is_on=False)
    taps.trace(is_on=False)
    talk.publish("q", b"off")
    targets = next(iter(talk.session.channels.values())).publishing.targets.by_arguments.known
    assert [found[1].name for found in targets.values() if found[1]] == ["q"]
    assert [heard.body for heard in copies(talk)] == [b"heard"]


def test_long_names_are_cut_and_bodies_of_many_frames_stay_whole(stage: Stage, talk: Talk) -> None:
    name = "n" * 255
    other = stage.client(frame_max=4_096).open_channel()
    other.client(Queue.Declare(queue=name)).hear_all()
    other.publish(name, b"x" * 10_000)
    other.client(Basic.Get(queue=name, no_ack=True)).hear_all()
    published, delivered = copies(talk)
    assert published.body == delivered.body == b"x" * 10_000
    assert delivered.said.routing_key == "deliver." + "n" * 247


def test_a_long_name_is_cut_between_characters(stage: Stage, talk: Talk, taps: Taps) -> None:
    queue = stage.broker.vhosts["/"].queues["q"]
    talk.publish("q", b"")
    message = queue.get(no_ack=True)
    assert message is not None and taps.firehose is not None
    queue.forget(message)
    taps.firehose.published(Client("c", 1, "guest"), "ü" * 127, ("k",), (), [message])
    stage.end_turn()
    assert keys(talk) == ["publish.", "publish." + "ü" * 123]


def test_the_deepest_headers_are_copied_and_routed_by_headers(talk: Talk) -> None:
    nested: dict[str, Any] = {}
    for _ in range(31):
        nested = {"n": nested}
    talk.client(Queue.Declare(queue="h")).hear_all()
    talk.client(Exchange.Bind(source=TRACE_EXCHANGE, destination="amq.headers", routing_key="#")).hear_all()
    talk.client(Queue.Bind(queue="h", exchange="amq.headers", arguments={"user": "guest"})).hear_all()
    talk.client(Basic.Publish(routing_key="q"), content=b"", properties=Basic.Properties(headers=nested))
    assert keys(talk) == ["publish."]
    assert talk.client(Basic.Get(queue="h", no_ack=True)).hear_all()[0].body == b""


def test_publishes_and_gets_wait_while_many_copies_wait_and_no_copy_is_lost(stage: Stage) -> None:
    vhost = stage.broker.vhosts["/"]
    talk = stage.client().open_channel()
    for name in ("traces", "q"):
        talk.client(Queue.Declare(queue=name)).hear_all()
    talk.client(Queue.Bind(queue="traces", exchange=TRACE_EXCHANGE, routing_key="#")).hear_all()
    vhost.taps.trace(is_on=True)
    vhost.taps.firehose = Firehose(
        "/", vhost.exchanges[TRACE_EXCHANGE], vhost.routing, vhost.worklist, stage.broker.take_message_number,
        wait_messages=50)
    talk.publish("q", *[b"x"] * 300)
    talk.client(Basic.Get(queue="q", no_ack=True)).hear_all()
    assert not vhost.taps.firehose.is_behind
    assert keys(talk) == ["publish."] * 300 + ["deliver.q"]


def test_copies_of_deliveries_are_left_out_when_far_too_many_wait(
    stage: Stage, talk: Talk, taps: Taps, caplog: pytest.LogCaptureFixture
) -> None:
    vhost = stage.broker.vhosts["/"]
    taps.firehose = firehose = Firehose(
        "/", vhost.exchanges[TRACE_EXCHANGE], vhost.routing, vhost.worklist, stage.broker.take_message_number,
        most_messages=1)
    talk.publish("q", b"1")
    queue = vhost.queues["q"]
    [message] = [queue.get(no_ack=False)]
    assert message is not None
    for _ in range(3):
        firehose.delivered(Client("c", 1, "guest"), queue, [message])
    assert "the firehose is too slow, and leaves out copies of deliveries" in caplog.text
    assert len(caplog.records) == 1
    stage.end_turn()
    queue.requeue([message])
    assert keys(talk) == ["publish.", "deliver.q"]


def test_a_deleted_vhost_ends_its_firehose(stage: Stage) -> None:
    broker = stage.broker
    broker.add_vhost(VhostDefinition("v"))
    vhost = broker.vhosts["v"]
    vhost.taps.trace(is_on=True)
    firehose = vhost.taps.firehose
    assert firehose is not None
    vhost.bind(OPERATOR, BindingDefinition("v", TRACE_EXCHANGE, "exchange", "amq.topic"), OPERATOR)
    firehose.is_behind = True
    released: list[bool] = []
    firehose.call(lambda: released.append(True))
    broker.delete_vhost("v")
    stage.end_turn()
    assert released == [True] and not firehose.has_work and not firehose.is_behind and not vhost.taps.is_on
