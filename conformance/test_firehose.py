"""§32 The firehose: copies of what is published and delivered, with which keys, headers and types.

docs/firehose; rabbit_trace.
"""
from __future__ import annotations

import shlex
import subprocess
from typing import Any, Iterator

import pytest

from conformance.channel import Channel, Got
from conformance.client import Client
from conformance.conftest import Broker, Names
from conformance.fields import Array, LongString, Properties, SignedInt, Table, decode_table
from conformance.queues import drained, fill
from conformance.restarting import restart
from conformance.waiting import wait_until

pytestmark = pytest.mark.needs("ctl", "firehose")

TRACE = "amq.rabbitmq.trace"
BEFORE_PROPERTIES = 14      # octets of a content header: class, weight, size, flags
REPLY_TO = "amq.rabbitmq.reply-to"


class Traces:
    """The copies of what concerns the queues of one test; the firehose is on until the test ends."""

    def __init__(self, command: str, broker: Broker, names: Names) -> None:
        self._command = command
        self._vhost = broker.parts.vhost
        self.channel = broker.channel()
        self._queue = names.queue()
        self.channel.declare_queue(self._queue)
        self.channel.bind_queue(self._queue, TRACE, "#")
        self.run("trace_on")

    def run(self, word: str) -> None:
        """Turn the firehose on or off."""
        words = shlex.join([word, "-p", self._vhost])
        done = subprocess.run(f"{self._command} {words}", shell=True, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def take(self, count: int) -> list[Got]:
        """Take the copies so far, which have to become exactly so many."""
        found: list[Got] = []

        def has_all() -> bool:
            while (got := self.channel.get(self._queue, no_ack=True)) is not None:
                found.append(got)
            return len(found) >= count

        wait_until(has_all)
        assert len(found) == count, [got.routing_key for got in found]
        assert {(got.exchange, got.redelivered) for got in found} <= {(TRACE, False)}
        assert all(got.properties == Properties(headers=got.properties.headers) for got in found)
        return found

    def keys(self, count: int) -> list[str]:
        """The routing keys of so many copies."""
        return [got.routing_key for got in self.take(count)]


@pytest.fixture
def traces(request: pytest.FixtureRequest, broker: Broker, names: Names) -> Iterator[Traces]:
    """The firehose, which is off again when the test ends."""
    traces = Traces(request.config.getoption("--ctl"), broker, names)
    yield traces
    traces.run("trace_off")


def headers(got: Got) -> dict[str, Any]:
    """The headers of a copy without their types; the node has a name of its own."""
    found = dict(got.properties.headers)
    assert found.pop("node").count("@") == 1
    return found


def name_of(client: Client) -> str:
    """The name that the broker gives a connection."""
    addresses = client.socket.getsockname()[:2], client.socket.getpeername()[:2]
    return " -> ".join([f"{host}:{port}" for host, port in addresses])


def test_a_publish_is_copied_with_the_types_of_rabbitmq(
    ch: Channel, client: Client, queue_name: str, traces: Traces, broker: Broker
) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", queue_name, b"hello", properties=Properties(
        content_type="text/plain", headers={"h": SignedInt(1), "CC": Array([LongString("cc")]),
                                            "BCC": Array([LongString("bcc")])},
        delivery_mode=2, priority=3, timestamp=17, message_id="m"))
    [got] = traces.take(1)
    assert (got.routing_key, got.body) == ("publish.", b"hello")
    given = dict(decode_table(got.header[BEFORE_PROPERTIES:]))
    assert isinstance(given.pop("node"), LongString)
    assert given == {
        "exchange_name": LongString(""),
        "routing_keys": Array([LongString(queue_name), LongString("cc"), LongString("bcc")]),
        "properties": Table([
            ("timestamp", SignedInt(17)), ("message_id", LongString("m")), ("priority", SignedInt(3)),
            ("delivery_mode", SignedInt(2)),
            ("headers", Table([("h", SignedInt(1)), ("CC", Array([LongString("cc")]))])),
            ("content_type", LongString("text/plain"))]),
        "vhost": LongString(broker.parts.vhost), "connection": LongString(name_of(client)),
        "channel": SignedInt(ch.number), "user": LongString(broker.parts.user),
        "routed_queues": Array([LongString(name) for name in sorted(["bcc", "cc", queue_name])])}


def test_deliveries_and_gets_are_copied(
    ch: Channel, client: Client, queue_name: str, traces: Traces, broker: Broker
) -> None:
    ch.declare_queue(queue_name)
    ch.publish("", queue_name, b"body")
    got = ch.get(queue_name)
    assert got is not None
    ch.nack(got.tag)
    ch.consume(queue_name)
    ch.deliveries(1)
    _, *delivered = traces.take(3)
    assert [one.routing_key for one in delivered] == [f"deliver.{queue_name}"] * 2
    for one, redelivered in zip(delivered, (0, 1)):
        assert one.body == b"body"
        assert headers(one) == {
            "exchange_name": "", "routing_keys": [queue_name], "properties": {}, "redelivered": redelivered,
            "vhost": broker.parts.vhost, "connection": name_of(client), "channel": ch.number,
            "user": broker.parts.user}


def test_where_it_went_is_told_for_every_way(ch: Channel, queue_name: str, exchange_name: str, traces: Traces) -> None:
    ch.declare_queue(queue_name)
    ch.declare_exchange(exchange_name, "topic")
    ch.bind_queue(queue_name, exchange_name, "a.#")
    for exchange, key in ((exchange_name, "a.b"), (exchange_name, "none"), ("", f"{queue_name}.none")):
        ch.publish(exchange, key)
    copies = traces.take(3)
    assert [got.routing_key for got in copies] == [f"publish.{exchange_name}"] * 2 + ["publish."]
    assert [headers(got)["routed_queues"] for got in copies] == [[queue_name], [], [f"{queue_name}.none"]]


def test_a_refused_publish_is_copied_too(ch: Channel, queue_name: str, traces: Traces) -> None:
    ch.declare_queue(queue_name, arguments={"x-max-length": SignedInt(0), "x-overflow": LongString("reject-publish")})
    ch.publish("", queue_name, b"refused")
    assert traces.take(1)[0].body == b"refused"


@pytest.mark.needs("transactions")
def test_what_a_transaction_publishes_is_copied_before_it_commits(
    ch: Channel, queue_name: str, traces: Traces
) -> None:
    ch.declare_queue(queue_name)
    ch.tx_select()
    ch.publish("", queue_name, b"held")
    assert traces.take(1)[0].body == b"held"
    ch.tx_rollback()


@pytest.mark.needs("dead-letters", "length-limits")
def test_a_dead_letter_is_copied_only_when_it_is_delivered(
    ch: Channel, names: Names, queue_name: str, traces: Traces
) -> None:
    dead = names.queue()
    ch.declare_queue(dead)
    ch.declare_queue(queue_name, arguments={
        "x-max-length": SignedInt(1), "x-dead-letter-exchange": LongString(""),
        "x-dead-letter-routing-key": LongString(dead)})
    ch.publish("", queue_name, b"1")
    ch.publish("", queue_name, b"2")
    wait_until(lambda: ch.get(dead, no_ack=True) is not None)
    copies = traces.take(3)
    assert [got.routing_key for got in copies] == ["publish.", "publish.", f"deliver.{dead}"]
    assert headers(copies[2])["properties"]["headers"]["x-first-death-queue"] == queue_name


@pytest.mark.needs("direct_reply_to")
def test_a_request_is_copied_with_its_address_and_its_reply_as_a_publish(
    ch: Channel, queue_name: str, traces: Traces
) -> None:
    ch.declare_queue(queue_name)
    ch.consume(REPLY_TO, no_ack=True)
    ch.publish("", queue_name, b"question", properties=Properties(reply_to=REPLY_TO))
    address = headers(traces.take(1)[0])["properties"]["reply_to"]
    assert address.startswith(f"{REPLY_TO}.")
    ch.publish("", address, b"answer")
    ch.deliveries(1)
    [reply] = traces.take(1)
    assert (reply.routing_key, headers(reply)["routed_queues"]) == ("publish.", [])


def test_nothing_is_copied_while_it_is_off(ch: Channel, queue_name: str, traces: Traces) -> None:
    ch.declare_queue(queue_name)
    traces.run("trace_off")
    ch.publish("", queue_name, b"unheard")
    ch.sync()
    traces.run("trace_on")
    ch.publish("", queue_name, b"heard")
    assert [got.body for got in traces.take(1)] == [b"heard"]


def test_nobody_can_publish_to_its_exchange(ch: Channel, traces: Traces) -> None:
    ch.publish(TRACE, "publish.x")
    ch.fails(403, f"ACCESS_REFUSED - cannot publish to internal exchange '{TRACE}' in vhost '/'", 60, 40)


@pytest.mark.needs("restart")
def test_a_restart_turns_it_off(
    ch: Channel, names: Names, traces: Traces, broker: Broker, request: pytest.FixtureRequest
) -> None:
    """It is not kept, so that nobody pays for copies that were forgotten; turned on again, it copies what comes."""
    restart(request.config.getoption("--restart"), [ch.client, traces.channel.client])
    after = broker.channel()
    queue, copies = names.queue(), names.queue()
    for name in (queue, copies):
        after.declare_queue(name)
    after.bind_queue(copies, TRACE, "#")
    fill(after, queue, "not copied")
    traces.run("trace_on")
    fill(after, queue, "copied")
    found = list[str]()

    def has_some() -> bool:
        found.extend(drained(after, copies))
        return bool(found)

    wait_until(has_some)
    assert found == ["copied"]
