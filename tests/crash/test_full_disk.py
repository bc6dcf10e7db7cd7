"""A disk becomes full: the alarm comes first, everything can be drained while it is full, and a restart works too.

The disk is a small one, and another program uses the space that the broker leaves free. The counter-test: without its
ballast, the broker can neither drain nor start again, and says so.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pamqp.commands import Basic, Confirm, Connection, Queue

from tests.crash.broker_process import COMMAND, ROOT, BrokerProcess
from tests.crash.crash_client import Client, Refused, pack_content
from tests.crash.small_disk import SmallDisk

MIB = 1 << 20
DISK, LEFT, BALLAST, LIMIT = 192 * MIB, 112 * MIB, 40 * MIB, 48 * MIB
PERSISTENT = Basic.Properties(delivery_mode=2)
WINDOW = 32             # publishes that wait for their confirm
PAD = bytes(32_768)
PATIENCE_S, STAYS_S = 30.0, 0.5
EXIT_IO = 74


class Publisher:
    """Publishes numbered messages, a window at a time, until it is blocked."""

    def __init__(self, port: int) -> None:
        self.client = Client(port, hears_blocked=True)
        self.client.call(Queue.Declare(0, "orders", durable=True))
        self.client.call(Confirm.Select())
        self.published = self.confirmed = 0

    def run(self) -> str:
        """Publish until blocked for more than a moment; return the reason. Raises Refused if closed instead.

        During a checkpoint the log takes its space twice, so a first alarm may end at once.
        """
        reason, is_blocked = "", False
        while True:
            while not is_blocked and self.published - self.confirmed < WINDOW:
                self.published += 1
                self.client.publish("", "orders", pack_content(PERSISTENT, b"%08d" % self.published + PAD)[0])
            heard = self.client.take(STAYS_S if is_blocked else PATIENCE_S)
            if heard is None:
                assert is_blocked, "neither a confirm nor an alarm"
                return reason
            is_blocked = isinstance(heard.method, Connection.Blocked) or (
                is_blocked and not isinstance(heard.method, Connection.Unblocked))
            if isinstance(heard.method, Connection.Blocked):
                reason = str(heard.method.reason)
            elif isinstance(heard.method, Basic.Ack):
                self.on_ack(heard.method)

    def on_ack(self, ack: Basic.Ack) -> None:
        """So many are safe."""
        assert ack.delivery_tag is not None
        self.confirmed = ack.delivery_tag

    def wait_unblocked(self) -> None:
        """Wait for the end of the alarm, and for all confirms."""
        heard = self.client.take(PATIENCE_S)
        while heard is not None and not isinstance(heard.method, Connection.Unblocked):
            self.on_ack(heard.method)       # of what was written when the alarm came
            heard = self.client.take(PATIENCE_S)
        assert heard is not None, "the alarm does not end"
        while self.confirmed < self.published:
            heard = self.client.take(PATIENCE_S)
            assert heard is not None, "what was published before the alarm is not confirmed after it"
            self.on_ack(heard.method)


class Place:
    """A small disk, and the broker on it."""

    def __init__(self, disk: SmallDisk, log: Path) -> None:
        self.disk = disk
        self.log = log
        self.ballast = disk.path / "data" / "amqpd.ballast"
        self.clients: list[Client] = []

    def start(self, ballast: int = BALLAST) -> BrokerProcess:
        """Start the broker, the first time or again."""
        return BrokerProcess(
            self.disk.inside / "data", self.log, command=self.disk.command(*COMMAND),
            variables={"AMQPD_LIMITS_BALLAST_SIZE": str(ballast), "AMQPD_LIMITS_DISK_FREE_LIMIT": str(LIMIT)})

    def fill_up(self, broker: BrokerProcess, ballast: int = BALLAST) -> Publisher:
        """Publish until the alarm comes; then nothing has failed, and another program takes the rest of the disk."""
        publisher = Publisher(broker.port)
        self.clients.append(publisher.client)
        assert publisher.run() == "low on disk"
        free = self.disk.free()
        assert publisher.confirmed > 300 and 0 < free < LIMIT
        assert self.ballast.exists() == bool(ballast) and "was freed" not in self.log.read_text()
        print(f"{self.disk.kind} with {LEFT // MIB} MiB: blocked after {publisher.confirmed} confirmed messages, "
              f"{free / MIB:.1f} MiB free")
        self.disk.fill()
        return publisher


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A small disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with SmallDisk(folder, DISK) as disk:
        disk.fill(leave=LEFT)
        place = Place(disk, tmp_path / "log")
        yield place
        for client in place.clients:
            client.drop()


def drain(port: int) -> list[int]:
    """Consume and ack all there is; the numbers that came. Returns when that is on disk."""
    numbers: list[int] = []
    with Client(port) as client:
        client.call(Basic.Qos(0, 200))
        waiting = client.call(Queue.Declare(0, "orders", passive=True)).message_count
        client.call(Basic.Consume(0, "orders", "drain"))
        while len(numbers) < waiting:
            arrived = client.take(PATIENCE_S)
            assert arrived is not None, f"only {len(numbers)} of {waiting} messages came"
            numbers.append(int(arrived.body[:8]))
            client.send(Basic.Ack(arrived.method.delivery_tag))
        client.call(Queue.Declare(0, "done", durable=True))
    return numbers


@pytest.mark.parametrize("is_killed", [False, True], ids=["running on", "killed and started again"])
def test_everything_is_drained_while_the_disk_is_full(place: Place, *, is_killed: bool) -> None:
    with place.start().wait_until_ready() as broker:
        publisher = place.fill_up(broker)
        if is_killed:
            broker.kill()
            broker = place.start().wait_until_ready()
        with broker:
            assert place.disk.free() < (LIMIT if is_killed else 1)
            numbers = drain(broker.port)
            assert sorted(numbers)[:publisher.confirmed] == list(range(1, publisher.confirmed + 1))
            assert not place.ballast.exists() and "was freed" in place.log.read_text()
            broker.kill()
        with place.start().wait_until_ready() as again, Client(again.port) as client:
            assert client.call(Queue.Declare(0, "orders", passive=True)).message_count == 0
            assert client.call(Queue.Declare(0, "done", passive=True))
    print(f"drained {len(numbers)} messages, lost 0")


def test_the_alarm_ends_when_there_is_room_again(place: Place) -> None:
    with place.start().wait_until_ready() as broker:
        publisher = place.fill_up(broker)
        assert drain(broker.port) and not place.ballast.exists()
        place.disk.make_room()
        publisher.wait_unblocked()
        assert place.ballast.stat().st_size == BALLAST
        assert drain(broker.port)[-1] == publisher.published
        assert broker.stop() == 0


def test_without_a_ballast_nothing_can_be_drained_and_the_broker_says_so(place: Place) -> None:
    with place.start(ballast=0).wait_until_ready() as broker:
        place.fill_up(broker, ballast=0)
        watcher = Client(broker.port)
        place.clients.append(watcher)
        with pytest.raises((Refused, OSError)):
            drain(broker.port)
        assert broker.wait() == EXIT_IO
        with pytest.raises(Refused, match="541 INTERNAL_ERROR - the store has failed"):
            watcher.take(PATIENCE_S)
        line = f"amqpd: no space left for {place.disk.inside}/data/amqpd.db: free some on its disk"
        assert line in place.log.read_text().splitlines()
    if place.disk.kind == "tmpfs":      # where it is counted, the end of the log has given room back
        place.disk.fill()
        started_at = time.monotonic()
        with place.start(ballast=0) as broker:
            assert broker.wait() == EXIT_IO
        assert time.monotonic() - started_at < PATIENCE_S
    assert "Traceback" not in place.log.read_text()


@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
def test_without_a_ballast_an_operator_can_still_look_at_a_full_disk_and_take_a_backup(
    place: Place, tmp_path: Path, *, is_killed: bool
) -> None:
    with place.start(ballast=0).wait_until_ready() as broker:
        publish(broker.port, 200)
        if is_killed:
            broker.kill()
        else:
            assert broker.stop() == 0
    place.disk.fill()
    data = place.disk.path / "data"
    before = {path.name: path.read_bytes() for path in data.iterdir() if path.name.startswith("amqpd.db")}
    told = store_command(place, "info")
    assert re.search(r"^messages: +200$", told, re.MULTILINE)
    if place.disk.kind == "tmpfs":
        assert re.search(r"^disk: +full: free some of it", told, re.MULTILINE)
    assert store_command(place, "check").endswith("fine; messages 200\n")
    assert store_command(place, "backup", str(tmp_path / "backup")).endswith("fine; messages 200\n")
    assert before == {path.name: path.read_bytes() for path in data.iterdir() if path.name.startswith("amqpd.db")}
    with place.start(ballast=0) as broker:
        assert broker.wait() == EXIT_IO
    line = f"amqpd: no space left for {place.disk.inside}/data/amqpd.db: free some on its disk"
    assert line in place.log.read_text().splitlines() and "Traceback" not in place.log.read_text()
    with BrokerProcess(tmp_path / "backup", tmp_path / "log").wait_until_ready() as broker:
        assert len(drain(broker.port)) == 200
    place.disk.make_room()
    with place.start(ballast=0).wait_until_ready() as broker:
        assert len(drain(broker.port)) == 200


def publish(port: int, count: int) -> None:
    """Publish so many messages, and wait for their confirms."""
    with Client(port) as client:
        client.call(Queue.Declare(0, "orders", durable=True))
        client.call(Confirm.Select())
        for number in range(1, count + 1):
            client.publish("", "orders", pack_content(PERSISTENT, b"%08d" % number + PAD[:8_000])[0])
            arrived = client.take(PATIENCE_S)
            assert arrived and isinstance(arrived.method, Basic.Ack)


def store_command(place: Place, *command: str) -> str:
    """What a command on the store of this disk prints, which it does without a fault."""
    done = subprocess.run(
        [*place.disk.command(*COMMAND), "store", *command, "--data-dir", str(place.disk.inside / "data")],
        cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
