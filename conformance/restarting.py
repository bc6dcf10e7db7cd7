"""Restart the broker cleanly, and check how its connections end."""
from __future__ import annotations

import contextlib
import subprocess

from conformance.client import Client, Closed, Method
from conformance.methods import CONNECTION_CLOSE, CONNECTION_CLOSE_OK

RESTART_S = 180


def restart(command: str, clients: list[Client]) -> list[Method]:
    """Run the command, and close these connections meanwhile; return what the broker sent on them."""
    restarting = subprocess.Popen(command, shell=True)
    farewells = [say_goodbye(client) for client in clients]
    assert restarting.wait(RESTART_S) == 0, f"{command!r} failed"
    return farewells


def say_goodbye(client: Client) -> Method:
    """Await the broker's close, answer it, and await the end."""
    client.timeout = RESTART_S
    farewell = client.await_method(0, [CONNECTION_CLOSE])
    with contextlib.suppress(Closed):
        client.send_method(0, *CONNECTION_CLOSE_OK)
    client.drop()
    return farewell
