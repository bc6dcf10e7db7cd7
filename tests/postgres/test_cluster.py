"""Nodes that share a store: any node takes any client, and a node that ends costs seconds and no confirmed message."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import pytest
from pika.exceptions import AMQPError

from tests.postgres.nodes import WITHIN_S, Node, leader_of

SECRET = "0123456789abcdef" * 2
PERSISTENT = pika.BasicProperties(delivery_mode=2)
ROUNDS = 5

pytestmark = pytest.mark.timeout(300)
Start = Callable[..., Node]


@pytest.fixture
def start(tmp_path: Path, url: str) -> Iterator[Start]:
    """A function that starts a node with this name; all nodes are ended at the end."""
    nodes: list[Node] = []

    def start(name: str, *options: str, secret: str = SECRET) -> Node:
        node = Node(tmp_path, name, url, *options, secret=secret)
        nodes.append(node)
        node.start()
        return node

    yield start
    for node in nodes:
        node.end(signal.SIGKILL)


def ctl(node: Node, *words: str) -> str:
    command = [Path(sys.executable).with_name("amqpctl"), "-q", "--data-dir", node.directory, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class Traffic:
    """Publishers that confirm, through all nodes in turn, until it ends. `confirmed` is by publisher, in order."""

    def __init__(self, nodes: list[Node], queue: str, count: int = 4) -> None:
        self.confirmed: list[list[int]] = [[] for _ in range(count)]
        self.longest_gap_s = 0.0
        self._nodes = nodes
        self._queue = queue
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._publish, args=(one,)) for one in range(count)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(WITHIN_S)

    def _publish(self, number: int) -> None:
        at, last, node = 0, time.monotonic(), number
        while not self._ended.is_set():
            node += 1
            try:
                with self._nodes[node % len(self._nodes)].connect() as connection:
                    channel = connection.channel()
                    channel.confirm_delivery()
                    while not self._ended.is_set():
                        at += 1
                        channel.basic_publish("", self._queue, f"{number} {at}".encode(), PERSISTENT)
                        self.confirmed[number].append(at)
                        now = time.monotonic()
                        self.longest_gap_s, last = max(self.longest_gap_s, now - last), now
            except (AMQPError, OSError):
                self._ended.wait(0.02)

    def wait_for_more(self) -> None:
        """Wait until each publisher has confirmed more than now."""
        before = [len(one) for one in self.confirmed]
        end = time.monotonic() + WITHIN_S
        while any(len(one) <= count + 20 for one, count in zip(self.confirmed, before)):
            assert time.monotonic() < end, "nothing is confirmed any more"
            self._ended.wait(0.02)


def drained(node: Node, queue: str) -> list[list[int]]:
    """Take all messages of a queue; return their numbers by publisher, in the order of delivery."""
    found: list[list[int]] = [[], [], [], []]
    with node.connect() as connection:
        channel = connection.channel()
        while True:
            method, _, body = channel.basic_get(queue, auto_ack=True)
            if method is None:
                return found
            publisher, number = map(int, body.split())
            found[publisher].append(number)


def declare(node: Node, queue: str) -> None:
    with node.connect() as connection:
        connection.channel().queue_declare(queue, durable=True)


def test_any_node_takes_any_client(start):
    first, second = start("one"), start("two")
    assert first.leads and not second.leads
    with second.connect() as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("q", durable=True)
        channel.basic_publish("", "q", b"x" * 3_000_000, PERSISTENT)
        port = connection._impl._transport._sock.getsockname()[1]     # type: ignore
        assert ctl(first, "list_connections", "user", "peer_host", "peer_port").split()[-3:] == [
            "guest", "127.0.0.1", str(port)]
        with first.connect() as other:
            assert other.channel().basic_get("q", auto_ack=True)[2] == b"x" * 3_000_000
    end = time.monotonic() + WITHIN_S       # the leading node looks once a second
    while len((status := json.loads(ctl(first, "cluster_status", "--formatter", "json")))["members"]) < 2:
        assert time.monotonic() < end
    assert status["running_nodes"] == ["one", "two"]
    assert [(one["name"], one["leads"]) for one in status["members"]] == [("one", True), ("two", False)]
    asked = http.client.HTTPConnection("127.0.0.1", second.http_port, timeout=WITHIN_S)
    asked.request("GET", "/api/overview")
    answer = asked.getresponse()
    assert answer.status == 503 and json.load(answer)["reason"] == "two is a standby: one leads"
    asked.close()


def test_a_wrong_password_is_refused_through_a_standby_with_the_same_words(start):
    start("one")
    second = start("two")
    with pytest.raises(pika.exceptions.ProbableAuthenticationError, match="ACCESS_REFUSED"):
        pika.BlockingConnection(pika.ConnectionParameters(
            "127.0.0.1", second.port, credentials=pika.PlainCredentials("guest", "wrong")))


def test_kill9_of_the_leader_loses_nothing_that_was_confirmed(start, capsys):
    nodes = [start(name) for name in ("one", "two", "three")]
    declare(nodes[0], "q")
    gaps = []
    with Traffic(nodes, "q") as traffic:
        for _ in range(ROUNDS):
            traffic.wait_for_more()
            traffic.longest_gap_s = 0.0
            killed = leader_of(nodes)
            killed.end(signal.SIGKILL)
            traffic.wait_for_more()
            gaps.append(traffic.longest_gap_s)
            killed.start()
    found = drained(leader_of(nodes), "q")
    for got, confirmed in zip(found, traffic.confirmed):
        assert not {*confirmed}.difference(got), "a confirmed message is lost"
        assert got == sorted(got) and len(got) == len({*got})
    with capsys.disabled():
        print(f"\n{ROUNDS} kills of the leader, {sum(map(len, traffic.confirmed))} confirmed, none lost; longest waits "
              f"for a confirm: {', '.join(f'{gap:.2f}' for gap in sorted(gaps))} s")


def test_a_leader_that_slept_past_its_lease_writes_nothing_more(start):
    nodes = [start(name) for name in ("one", "two")]
    declare(nodes[0], "q")
    with Traffic(nodes[1:], "q") as traffic:
        traffic.wait_for_more()
        assert nodes[0].process is not None
        nodes[0].process.send_signal(signal.SIGSTOP)
        nodes[1].wait_for("Server startup complete")
        traffic.wait_for_more()
        nodes[0].process.send_signal(signal.SIGCONT)
        nodes[0].wait_for("has been taken over by another broker")
        assert nodes[0].process.wait(WITHIN_S) == 74
        traffic.wait_for_more()
    found = drained(nodes[1], "q")
    for got, confirmed in zip(found, traffic.confirmed):
        assert not {*confirmed}.difference(got) and got == sorted(got)


def test_a_clean_stop_hands_over_at_once(start):
    nodes = [start(name) for name in ("one", "two")]
    declare(nodes[0], "q")
    with Traffic(nodes, "q") as traffic:
        traffic.wait_for_more()
        assert nodes[0].end() == 0
        nodes[1].wait_for("Server startup complete")
        traffic.wait_for_more()
    found = drained(nodes[1], "q")
    for got, confirmed in zip(found, traffic.confirmed):
        assert not {*confirmed}.difference(got)
    assert not any("not stopped cleanly" in line for line in nodes[1].log)


def test_a_standby_stops_cleanly(start):
    start("one")
    second = start("two")
    assert second.end() == 0


def test_a_second_node_of_one_name_is_refused(start, tmp_path, url):
    start("one")
    again = Node(tmp_path / "other", "one", url, secret=SECRET)
    with pytest.raises(AssertionError, match="a node with the name 'one' is up already at .*: give this one another"):
        again.start()
    again.end(signal.SIGKILL)


def test_a_node_that_does_not_know_the_secret_gets_no_client_in(start):
    first, second = start("one"), start("two", secret="another secret, which is long enough")
    with pytest.raises((AMQPError, OSError)):
        second.connect()
    second.wait_for("cannot be passed on to one")
    first.wait_for("it does not know the secret (cluster.secret)")
    with first.connect():
        pass


@pytest.mark.parametrize("option, secret, text", [
    ("0.0.0.0:0", "", "which other machines can reach, but there is no cluster.secret"),
    ("127.0.0.1:0", "short", "cluster.secret has 5 octets, and at least 32 are needed"),
    ("0.0.0.0:0", SECRET, "to which nobody can connect: set cluster.address"),
])
def test_a_cluster_that_is_open_to_others_does_not_start(tmp_path, url, option, secret, text):
    node = Node(tmp_path, "one", url, "--cluster-listen", option, secret=secret)
    with pytest.raises(AssertionError, match=text):
        node.start()
    node.end(signal.SIGKILL)
