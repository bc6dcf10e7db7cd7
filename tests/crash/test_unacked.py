"""A client that receives a whole backlog and acks nothing, with a real process: the messages are on disk, and kept.

RabbitMQ docs/persistence-conf, docs/confirms (redelivered).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pamqp.commands import Basic, Confirm, Queue

from amqpd import ctl
from tests.crash.broker_process import BrokerProcess
from tests.crash.crash_client import Client, pack_content

COUNT, SIZE = 300, 128 << 10
MEMORY = 4 << 20        # for messages that wait; half as much for those that are unacked
MOST_IN_MEMORY = COUNT // 4
PATIENCE_S = 20.0
VARIABLES = {"AMQPD_LIMITS_MESSAGE_MEMORY": str(MEMORY)}


def start(folder: Path) -> BrokerProcess:
    return BrokerProcess(folder / "data", folder / "log", variables=VARIABLES)


def fill(client: Client) -> None:
    client.call(Queue.Declare(0, "orders", durable=True))
    client.call(Confirm.Select())
    for place in range(COUNT):
        client.publish("", "orders", pack_content(
            Basic.Properties(delivery_mode=2), b"%d " % place + bytes(SIZE))[0])
    confirmed = 0
    while confirmed < COUNT:
        arrived = client.take(PATIENCE_S)
        assert arrived is not None and isinstance(arrived.method, Basic.Ack)
        confirmed = max(confirmed, arrived.method.delivery_tag)


def take_all(client: Client) -> list[tuple[int, bool]]:
    """Take everything and answer nothing: the places, and whether each is said to be delivered again."""
    found: list[tuple[int, bool]] = []
    while len(found) < COUNT:
        arrived = client.take(PATIENCE_S)
        assert arrived is not None and len(arrived.body) > SIZE
        found.append((int(arrived.body.split()[0]), bool(arrived.method.redelivered)))
    return found


def listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[int]:
    """Return from `list_queues` the messages that are unacked, unacked in memory, ready in memory, and on disk only."""
    capsys.readouterr()
    assert ctl.main([
        "-q", "--data-dir", str(folder / "data"), "list_queues", "messages_unacknowledged",
        "messages_unacknowledged_ram", "messages_ready_ram", "messages_paged_out"]) == 0
    return [int(figure) for figure in capsys.readouterr().out.splitlines()[-1].split()]


def test_what_nobody_answers_is_on_disk_and_survives_a_kill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with start(tmp_path) as broker:
        with Client(broker.wait_until_ready().port) as client:
            fill(client)
        with Client(broker.port) as client:
            client.call(Basic.Consume(0, "orders", "c"))
            assert take_all(client) == [(place, False) for place in range(COUNT)]
            unacked, in_memory, _, on_disk = listed(tmp_path, capsys)
            assert unacked == COUNT == in_memory + on_disk and in_memory <= MOST_IN_MEMORY
            client.call(Basic.Recover(True))
            assert take_all(client) == [(place, True) for place in range(COUNT)]
            assert listed(tmp_path, capsys)[1] <= MOST_IN_MEMORY
            client.drop()
        with Client(broker.port) as client:
            while client.call(Queue.Declare(0, "orders", passive=True)).message_count < COUNT:
                pass
            _, _, ready, on_disk = listed(tmp_path, capsys)
            assert ready + on_disk == COUNT and ready <= MOST_IN_MEMORY
            client.call(Basic.Consume(0, "orders", "c"))
            assert take_all(client) == [(place, True) for place in range(COUNT)]
        broker.kill()
    with start(tmp_path) as broker, Client(broker.wait_until_ready().port) as client:
        client.call(Basic.Consume(0, "orders", "c"))
        assert take_all(client) == [(place, True) for place in range(COUNT)]
        client.send(Basic.Ack(COUNT, True))
        assert client.call(Queue.Purge(0, "orders")).message_count == 0
        assert listed(tmp_path, capsys) == [0, 0, 0, 0]
    assert "[error]" not in (tmp_path / "log").read_text()
