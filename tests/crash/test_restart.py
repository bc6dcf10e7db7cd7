"""Clean stops and refused starts, with real processes: exit codes, last log lines, and what is kept.

Spec: §2.2.4 (320 at a stop); sysexits.h; RabbitMQ docs/confirms (redelivered).
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pamqp.commands import Basic, Confirm, Exchange, Queue, Tx

from tests.crash.broker_process import BrokerProcess
from tests.crash.crash_client import Client, Refused, exists, pack_content, routes

EXIT_UNAVAILABLE, EXIT_LOCKED = 69, 75
PERSISTENT, TRANSIENT = Basic.Properties(delivery_mode=2), Basic.Properties(delivery_mode=1)
NAMES = ("never seen", "seen", "given back", "unacked")

EXACT = {b"seen": True, b"given back": True, b"unacked": True, b"never seen": False}

Start = Callable[..., BrokerProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts brokers, each with its own log; they are ended after the test."""
    running: list[BrokerProcess] = []

    def start_one(*, directory: str = "data", listen: str = "127.0.0.1:0") -> BrokerProcess:
        running.append(BrokerProcess(tmp_path / directory, tmp_path / f"{len(running)}.log", listen=listen))
        return running[-1]

    yield start_one
    for process in running:
        process.kill()


def declare(client: Client, *names: str, durable: bool = True) -> None:
    for name in names:
        client.call(Queue.Declare(0, name, durable=durable))


def publish(client: Client, body: bytes, *, exchange: str = "", key: str = "orders",
            properties: Basic.Properties = PERSISTENT) -> None:
    client.publish(exchange, key, pack_content(properties, body)[0])


def take_all(client: Client, queue: str) -> dict[bytes, bool]:
    """The bodies in a queue, in order, and whether each is said to be redelivered. All of it is acked."""
    found = {}
    while arrived := client.get(queue):
        found[arrived.body] = bool(arrived.method.redelivered)
        client.send(Basic.Ack(arrived.method.delivery_tag))
    return found


# Stopping

@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_closes_every_client_with_320_and_exits_0(start: Start, signum: int) -> None:
    process = start().wait_until_ready()
    clients = [Client(process.port) for _ in range(3)]
    process.signal(signum)
    for client in clients:
        with pytest.raises(Refused) as refusal:
            client.take(5)
        assert (refusal.value.code, refusal.value.text) == (
            320, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'")
        client.drop()
    assert process.wait() == 0


def test_a_client_that_never_answers_the_close_does_not_stop_the_stop(start: Start) -> None:
    process = start().wait_until_ready()
    deaf = Client(process.port)
    assert process.stop() == 0
    deaf.drop()


def test_what_is_durable_is_there_after_a_stop_and_nothing_else(start: Start) -> None:
    process = start().wait_until_ready()
    with Client(process.port) as client:
        declare(client, "orders", "empty")
        declare(client, "transient", durable=False)
        client.call(Exchange.Declare(0, "shop", "topic", durable=True))
        client.call(Exchange.Declare(0, "transient", "topic"))
        client.call(Queue.Bind(0, "orders", "shop", "order.#"))
        client.call(Queue.Bind(0, "transient", "shop", "note.#"))
        publish(client, b"1", exchange="shop", key="order.new")
        publish(client, b"2", properties=TRANSIENT)
        publish(client, b"3")
    assert process.stop() == 0
    with Client(start().wait_until_ready().port) as client:
        assert list(take_all(client, "orders")) == [b"1", b"3"]
        assert exists(client, Queue.Declare(0, "empty", passive=True))
        assert routes(client, "shop", "order.new") and not routes(client, "shop", "note.new")
        assert not exists(client, Queue.Declare(0, "transient", passive=True))
        assert not exists(client, Exchange.Declare(0, "transient", passive=True))


def test_an_exclusive_queue_ends_with_the_broker(start: Start) -> None:
    process = start().wait_until_ready()
    client = Client(process.port)
    client.call(Queue.Declare(0, "mine", durable=True, exclusive=True))
    assert process.stop() == 0
    client.drop()
    with Client(start().wait_until_ready().port) as client:
        assert not exists(client, Queue.Declare(0, "mine", passive=True))


def test_an_uncommitted_transaction_is_not_there_after_a_stop(start: Start) -> None:
    process = start().wait_until_ready()
    client = Client(process.port)
    declare(client, "orders")
    publish(client, b"old")
    client.call(Tx.Select())
    arrived = client.get("orders")
    assert arrived
    client.send(Basic.Ack(arrived.method.delivery_tag))
    publish(client, b"new")
    client.call(Basic.Qos())
    assert process.stop() == 0
    client.drop()
    with Client(start().wait_until_ready().port) as client:
        assert take_all(client, "orders") == {b"old": True}


# Redelivered

def show_messages(client: Client) -> None:
    """Have one message never handed out, and others handed out and given back, or not."""
    declare(client, "orders")
    for name in NAMES[1:]:
        publish(client, name.encode())
    seen, given_back, _ = [client.get("orders") for _ in NAMES[1:]]
    assert seen and given_back
    client.send(Basic.Nack(given_back.method.delivery_tag, False, True))
    client.send(Basic.Reject(seen.method.delivery_tag, True))
    publish(client, NAMES[0].encode())
    client.call(Basic.Qos())


def test_redelivered_is_exact_after_a_clean_stop(start: Start) -> None:
    process = start().wait_until_ready()
    client = Client(process.port)
    show_messages(client)
    assert process.stop() == 0
    client.drop()
    with Client(start().wait_until_ready().port) as client:
        assert take_all(client, "orders") == EXACT


def test_redelivered_is_true_for_whatever_might_have_been_seen_before_a_kill(start: Start) -> None:
    process = start().wait_until_ready()
    client = Client(process.port)
    show_messages(client)
    client.call(Confirm.Select())
    publish(client, b"last")
    assert client.take(5)
    process.kill()
    client.drop()
    with Client(start().wait_until_ready().port) as client:
        flags = take_all(client, "orders")
    assert flags[b"seen"] and flags[b"given back"] and flags[b"unacked"]
    assert list(flags) == [b"seen", b"given back", b"unacked", b"never seen", b"last"]


def test_redelivered_is_kept_over_two_stops(start: Start) -> None:
    process = start().wait_until_ready()
    with Client(process.port) as client:
        show_messages(client)
    for _ in range(2):
        assert process.stop() == 0
        process = start().wait_until_ready()
    with Client(process.port) as client:
        assert take_all(client, "orders") == EXACT


def test_a_message_of_two_queues_is_redelivered_only_where_it_was_seen(start: Start) -> None:
    process = start().wait_until_ready()
    with Client(process.port) as client:
        declare(client, "left", "right")
        for name in ("left", "right"):
            client.call(Queue.Bind(0, name, "amq.fanout"))
        publish(client, b"both", exchange="amq.fanout")
        assert client.get("left")
    assert process.stop() == 0
    with Client(start().wait_until_ready().port) as client:
        assert take_all(client, "left") == {b"both": True}
        assert take_all(client, "right") == {b"both": False}


# Refused starts

def test_a_second_broker_on_the_directory_is_refused_in_one_line(start: Start) -> None:
    first = start().wait_until_ready()
    second = start()
    assert second.wait() == EXIT_LOCKED
    assert re.fullmatch(r"amqpd: .*amqpd\.lock is held by a running broker .*\n", second.log_path.read_text())
    with Client(first.port) as client:
        declare(client, "orders")


def test_a_directory_is_free_as_soon_as_its_broker_was_killed(start: Start) -> None:
    start().wait_until_ready().kill()
    start().wait_until_ready()


def test_an_address_in_use_is_refused_in_one_line_and_leaves_the_directory_free(start: Start) -> None:
    first = start().wait_until_ready()
    second = start(directory="other", listen=f"127.0.0.1:{first.port}")
    assert second.wait() == EXIT_UNAVAILABLE
    assert re.fullmatch(rf"amqpd: cannot listen on 127\.0\.0\.1:{first.port}: .*\n", second.log_path.read_text())
    start(directory="other").wait_until_ready()
