"""Run tests of slow ends of connections at the same time.

RabbitMQ waits three seconds before it closes a connection after a failed handshake. A test module with many such tests
runs all of them at once, and each test reads its own result.
"""
from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Callable, Iterator

from conformance.client import Client

Ending = Callable[[Client], None]


AT_ONCE = 60   # brokers limit how many connections of one address have not logged in


@contextmanager
def played_together(url: str, endings: dict[str, Ending]) -> Iterator[dict[str, Future]]:
    """Begin all endings, each with a connected socket of its own; a future holds what its ending raised."""
    with ThreadPoolExecutor(min(len(endings), AT_ONCE)) as pool:
        yield {name: pool.submit(play, url, ending) for name, ending in endings.items()}


def play(url: str, ending: Ending) -> None:
    """One ending, from the open socket on."""
    client = Client(url, connect=False)
    client.open_socket()
    try:
        ending(client)
    finally:
        client.drop()
