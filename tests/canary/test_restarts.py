"""Attacks that continue at the next start: difficult messages, and dead-lettering in cycles, do not prevent it.

There is no canary, since the broker is restarted; the tests check that it stops and starts in time, and what is kept.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance import methods
from conformance.fields import Properties
from tests.canary.packing import PERSISTENT, confirm_select, exchange_declare, publish, queue_bind
from tests.canary.peer import Address, Peer
from tests.canary.shapes.common import await_depth, dead_letter_to, declare, fill
from tests.canary.shapes.dead_letters import forged, large_header
from tests.crash.broker_process import BrokerProcess

STOP_LIMIT_S = 30.0
TTL_MS = 3_000


class Broker:
    """A data directory, and the broker that runs on it now."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "data").mkdir(mode=0o700)
        self.process = self.start()

    def start(self) -> BrokerProcess:
        """Start it, and wait until it is ready."""
        self.process = BrokerProcess(self._folder / "data", self._folder / "log")
        return self.process.wait_until_ready()

    def peer(self) -> Peer:
        """Connect to it."""
        return Peer(Address("127.0.0.1", self.process.port, "guest", "guest", "/"))

    def log(self) -> str:
        """All it has logged."""
        return (self._folder / "log").read_text(errors="replace")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    yield broker
    broker.process.kill()


def fields(count: int) -> Properties:
    """A header table of so many fields."""
    return Properties(delivery_mode=2, headers={f"f{number}": 1 for number in range(count)})


@pytest.mark.parametrize("odd", [
    forged("source"), fields(4_090), Properties(delivery_mode=2, headers={"array": [True] * 20_000}), large_header()],
    ids=["forged-x-death", "4090-fields", "20000-elements", "header-as-large-as-its-frame"])
def test_what_a_message_holds_stops_no_start(broker: Broker, odd: Properties) -> None:
    with broker.peer() as peer:
        declare(peer, "dead", durable=True)
        declare(peer, "source", durable=True, arguments=dead_letter_to("dead", **{"x-message-ttl": TTL_MS}))
        peer.call(confirm_select(), methods.CONFIRM_SELECT_OK)
        fill(peer, "source", 50, b"good", PERSISTENT)
        peer.send(publish("", "source", b"odd", odd))
        fill(peer, "source", 50, b"good", PERSISTENT)
        peer.await_confirms(101)
    broker.process.kill()
    broker.start()
    with broker.peer() as peer:
        await_depth(peer, "dead", 101, 30)
        await_depth(peer, "source", 0, 30)
    assert broker.process.stop() == 0
    assert "Traceback" not in broker.log()


def test_dead_letters_in_circles_hinder_neither_stop_nor_start(broker: Broker) -> None:
    with broker.peer() as peer:
        peer.send(exchange_declare("circle", durable=True))
        for number in range(12):
            declare(peer, f"q{number}", durable=True, arguments={
                "x-message-ttl": 0, "x-dead-letter-exchange": "circle"})
            peer.send(queue_bind(f"q{number}", "circle"))
        peer.sync()
        peer.send(publish("", "q0", b"x", PERSISTENT))
        peer.sync()
    broker.process.signal(signal.SIGTERM)
    broker.process.wait(STOP_LIMIT_S + 5)
    broker.start()      # within the limit of a start
    with broker.peer() as peer:
        peer.sync()
    broker.process.signal(signal.SIGTERM)
    broker.process.wait(STOP_LIMIT_S + 5)
    assert "Traceback" not in broker.log()
