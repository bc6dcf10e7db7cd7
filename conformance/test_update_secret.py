"""§27 connection.update-secret: it has no effect for a user whose password the broker checks itself."""
from __future__ import annotations

import pytest

from conformance.channel import Channel
from conformance.client import Client
from conformance.conftest import Broker
from conformance.fields import pack
from conformance.methods import CONNECTION_UPDATE_SECRET, CONNECTION_UPDATE_SECRET_OK

pytestmark = pytest.mark.needs("update-secret")


def update_secret(client: Client, secret: str | bytes, reason: str = "renewed") -> None:
    """Send a new secret and await its ok."""
    client.send_method(0, *CONNECTION_UPDATE_SECRET, pack("Ls", secret, reason))
    assert client.await_method(0, [CONNECTION_UPDATE_SECRET_OK]).args == b""


@pytest.mark.parametrize("secret", ["", "new", b"\xff\x00", "x" * 10_000], ids=["empty", "new", "octets", "long"])
@pytest.mark.parametrize("reason", ["", "renewed"])
def test_a_new_secret_is_agreed_to(client: Client, secret: str | bytes, reason: str) -> None:
    update_secret(client, secret, reason)


def test_a_new_secret_changes_nothing(client: Client, ch: Channel, broker: Broker) -> None:
    update_secret(client, "new")
    ch.sync()
    broker.channel().sync()


def test_a_new_secret_may_come_at_any_time(client: Client, ch: Channel, queue_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.consume(queue_name)
    for _ in range(5):
        ch.publish("", queue_name)
        update_secret(client, "new")
    assert len(ch.deliveries(5)) == 5
