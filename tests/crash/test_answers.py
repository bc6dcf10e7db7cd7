"""An answer means that the change is on disk: with a slow disk, the broker is killed as soon as the answer arrives.

A change that was answered is still there after the restart. This also holds for a client whose request changed nothing
because another client had just requested the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pamqp.base import Frame
from pamqp.commands import Basic, Confirm, Exchange, Queue, Tx

from tests.crash.broker_process import SABOTAGED, BrokerProcess
from tests.crash.crash_client import Client, exists, pack_content, routes

SLOW = (*SABOTAGED, "slow_disk")
PERSISTENT = Basic.Properties(delivery_mode=2)

MANY = 300        # queues: a publish to them is handed over in pieces
QUEUE = Queue.Declare(0, "orders", durable=True)
EXCHANGE = Exchange.Declare(0, "shop", "direct", durable=True)
BINDING = Queue.Bind(0, "orders", "shop", "key")


def has_queue(client: Client) -> bool:
    return exists(client, Queue.Declare(0, "orders", passive=True))


def has_exchange(client: Client) -> bool:
    return exists(client, Exchange.Declare(0, "shop", passive=True))


def has_binding(client: Client) -> bool:
    return routes(client, "shop", "key")


def has_messages(client: Client) -> bool:
    return bool(client.call(QUEUE).message_count)


Question = Callable[[Client], bool]
CHANGES: dict[str, tuple[list[Frame], Frame, Question, bool]] = {
    "queue.declare": ([], QUEUE, has_queue, True),
    "queue.delete": ([QUEUE], Queue.Delete(0, "orders"), has_queue, False),
    "queue.purge": ([QUEUE], Queue.Purge(0, "orders"), has_messages, False),
    "exchange.declare": ([], EXCHANGE, has_exchange, True),
    "exchange.delete": ([EXCHANGE], Exchange.Delete(0, "shop"), has_exchange, False),
    "queue.bind": ([QUEUE, EXCHANGE], BINDING, has_binding, True),
    "queue.unbind": ([QUEUE, EXCHANGE, BINDING], Queue.Unbind(0, "orders", "shop", "key"), has_binding, False),
}
BY_CHANGE = pytest.mark.parametrize(("before", "change", "question", "answer"), CHANGES.values(), ids=list(CHANGES))


class SlowBroker:
    """A broker with a slow disk that can be killed and started again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.start()

    def start(self) -> None:
        """Start it, the first time or after a kill."""
        self._process = BrokerProcess(self._directory / "data", self._directory / "log", command=SLOW)
        self._process.wait_until_ready()

    def connect(self) -> Client:
        """A new client."""
        return Client(self._process.port)

    def kill(self) -> None:
        """Kill the broker, whatever it is doing."""
        self._process.kill()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[SlowBroker]:
    broker = SlowBroker(tmp_path)
    yield broker
    broker.kill()


@BY_CHANGE
def test_an_answered_change_outlives_the_kill(
    broker: SlowBroker, before: list[Frame], change: Frame, question: Question, answer: bool
) -> None:
    with broker.connect() as client:
        prepare(client, before)
        client.call(change)
        broker.kill()
    assert_after_restart(broker, question, answer)


@BY_CHANGE
def test_an_answer_that_another_client_made_easy_outlives_the_kill(
    broker: SlowBroker, before: list[Frame], change: Frame, question: Question, answer: bool
) -> None:
    with broker.connect() as first, broker.connect() as second:
        prepare(first, before)
        first.send(change)
        second.call(Basic.Qos())        # by its answer the change has been read, too
        second.call(change)
        broker.kill()
    assert_after_restart(broker, question, answer)


def prepare(client: Client, before: list[Frame]) -> None:
    """Do what has to be there before, and put a message into the queue if that is there."""
    for method in before:
        client.call(method)
    if QUEUE in before:
        client.call(Confirm.Select())
        client.publish("", "orders", pack_content(PERSISTENT, b"before")[0])
        assert client.take(5)


def assert_after_restart(broker: SlowBroker, question: Question, answer: bool) -> None:
    """Start the broker again and ask it."""
    broker.start()
    with broker.connect() as client:
        assert question(client) is answer


@pytest.mark.parametrize("exchange", ["", "amq.fanout"])
def test_a_confirmed_message_outlives_the_kill(broker: SlowBroker, exchange: str) -> None:
    with broker.connect() as client:
        client.call(QUEUE)
        client.call(Queue.Bind(0, "orders", "amq.fanout"))
        client.call(Confirm.Select())
        client.publish(exchange, "orders", pack_content(PERSISTENT, b"body")[0])
        assert client.take(5)
        broker.kill()
    broker.start()
    with broker.connect() as client:
        arrived = client.get("orders")
        assert arrived and arrived.body == b"body"


def test_a_confirmed_message_of_very_many_queues_outlives_the_kill(broker: SlowBroker) -> None:
    """The last queues are transient, and all the time another client publishes and acks."""
    names = [f"q{n}" for n in range(MANY)]
    with broker.connect() as client, broker.connect() as other:
        for name in [*names, *(f"t{n}" for n in range(MANY))]:
            client.send(Queue.Declare(0, name, durable=name in names, nowait=True))
            client.send(Queue.Bind(0, name, "amq.fanout", nowait=True))
        client.call(Confirm.Select())
        other.call(Queue.Declare(0, "other", durable=True))
        other.call(Basic.Consume(0, "other"))
        content = pack_content(PERSISTENT, b"body")[0]
        client.publish("amq.fanout", "", content)
        answer = None
        while answer is None:
            other.publish("", "other", content)
            arrived = other.take(5)
            assert arrived
            other.send(Basic.Ack(arrived.method.delivery_tag))
            answer = client.take(0)
        broker.kill()
    assert isinstance(answer.method, Basic.Ack)
    broker.start()
    with broker.connect() as client:
        assert [client.call(Queue.Declare(0, name, passive=True)).message_count for name in names] == [1] * MANY


def deliver_one(publisher: Client, consumer: Client, arguments: dict[str, str]) -> int:
    """Publish a message with a confirm, and wait until a consumer has it; its delivery tag."""
    for name, others in (("orders", arguments), ("done", {})):
        publisher.call(Queue.Declare(0, name, durable=True, arguments=others))
    consumer.call(Basic.Consume(0, "orders"))
    publisher.call(Confirm.Select())
    publisher.publish("", "orders", pack_content(PERSISTENT, b"old")[0])
    arrived = consumer.take(5)
    assert arrived and arrived.body == b"old"
    return int(arrived.method.delivery_tag)


def assert_in_one_queue(broker: SlowBroker) -> None:
    """Start the broker again: there is something in one of the two queues, and not in both."""
    broker.start()
    with broker.connect() as client:
        assert (client.get("orders") is None) != (client.get("done") is None)


def test_a_message_that_is_acked_first_is_confirmed_before_the_disk_has_it(broker: SlowBroker) -> None:
    with broker.connect() as publisher, broker.connect() as consumer, broker.connect() as definer:
        tag = deliver_one(publisher, consumer, {})
        definer.send(EXCHANGE)          # to be written after the message
        consumer.send(Basic.Ack(tag))
        confirm = publisher.take(5)
        assert confirm and isinstance(confirm.method, Basic.Ack)
        assert definer.take() is None
        assert definer.take(5)


def test_a_confirmed_message_that_was_rejected_outlives_the_kill_as_a_dead_letter(broker: SlowBroker) -> None:
    with broker.connect() as publisher, broker.connect() as consumer:
        dead_letter_to = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "done"}
        consumer.send(Basic.Reject(deliver_one(publisher, consumer, dead_letter_to), requeue=False))
        assert publisher.take(5)
        broker.kill()
    assert_in_one_queue(broker)


def test_an_ack_in_a_transaction_is_undone_with_it_though_the_message_is_confirmed(broker: SlowBroker) -> None:
    with broker.connect() as publisher, broker.connect() as consumer:
        consumer.call(Tx.Select())
        consumer.send(Basic.Ack(deliver_one(publisher, consumer, {})))
        consumer.publish("", "done", pack_content(PERSISTENT, b"new")[0])
        consumer.send(Tx.Commit())
        assert publisher.take(5)
        broker.kill()
    assert_in_one_queue(broker)


def test_a_committed_transaction_outlives_the_kill(broker: SlowBroker) -> None:
    with broker.connect() as client:
        client.call(QUEUE)
        client.call(Queue.Declare(0, "done", durable=True))
        client.publish("", "orders", pack_content(PERSISTENT, b"old")[0])
        client.call(Tx.Select())
        arrived = client.get("orders")
        assert arrived
        client.publish("", "done", pack_content(PERSISTENT, b"new")[0])
        client.send(Basic.Ack(arrived.method.delivery_tag))
        client.call(Tx.Commit())
        broker.kill()
    broker.start()
    with broker.connect() as client:
        assert client.get("orders") is None
        arrived = client.get("done")
        assert arrived and arrived.body == b"new"


def test_acks_that_came_before_a_confirmed_publish_outlive_the_kill(broker: SlowBroker) -> None:
    with broker.connect() as client:
        client.call(QUEUE)
        client.call(Queue.Declare(0, "receipts", durable=True))
        client.call(Confirm.Select())
        client.publish("", "orders", pack_content(PERSISTENT, b"old")[0])
        assert client.take(5)
        arrived = client.get("orders")
        assert arrived
        client.send(Basic.Ack(arrived.method.delivery_tag))
        client.publish("", "receipts", pack_content(PERSISTENT, b"done")[0])
        assert client.take(5)
        broker.kill()
    assert_after_restart(broker, has_messages, False)
