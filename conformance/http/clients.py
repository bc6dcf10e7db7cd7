"""Clients that keep a broker busy over AMQP while it is asked: named channels, on connections of one vhost."""
from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

from conformance.alarms import Alarms
from conformance.channel import Channel
from conformance.client import Client
from conformance.fields import Properties

PASSWORD = "recorded"       # of every user that scenarios make


class NamedClient(Client):
    """A client that names its connection, as most libraries let their users do."""

    def __init__(self, url: str, name: str, **options: Any) -> None:
        self.name = name
        super().__init__(url, **options)

    def client_properties(self) -> dict[str, Any]:
        """Return properties as a usual client sends them."""
        return {"product": "conformance", "version": "1.0", "platform": "Python", "connection_name": self.name,
                "capabilities": self.capabilities}


class Clients:
    """The connections and channels of one scenario, by name, and the alarms it raises if there is a `ctl` command."""

    password = PASSWORD

    def __init__(self, url: str, ctl: str | None = None) -> None:
        self.url = url
        self.alarms = Alarms(ctl or "false")
        self._clients: dict[str, NamedClient] = {}
        self._channels: dict[str, Channel] = {}

    def connect(self, name: str, vhost: str, *, user: str | None = None, heartbeat: int = 580) -> NamedClient:
        """Open a connection that is called so."""
        parts = urlsplit(self.url)
        who = f"{parts.username or 'guest'}:{parts.password or 'guest'}" if user is None else f"{user}:{PASSWORD}"
        url = f"amqp://{who}@{parts.hostname}:{parts.port or 5672}/{quote(vhost, safe='')}"
        self._clients[name] = NamedClient(url, name, heartbeat=heartbeat)
        return self._clients[name]

    def open(self, name: str, connection: str) -> Channel:
        """Open a channel that is called so on a connection."""
        self._channels[name] = self._clients[connection].channel()
        return self._channels[name]

    def __getitem__(self, name: str) -> Channel:
        return self._channels[name]

    def publish(self, channel: str, exchange: str, key: str, count: int = 1, *, body: bytes = b"hello",
                mandatory: bool = False, **properties: Any) -> None:
        """Publish so many messages alike."""
        for _ in range(count):
            self[channel].publish(exchange, key, body, properties=Properties(**properties), mandatory=mandatory)

    def expect_close(self, name: str, code: int, text: str) -> None:
        """Await that the broker closes a connection so, and drop it."""
        client = self._clients.pop(name)
        client.expect_connection_close(code, text)
        client.drop()

    def drop(self, name: str) -> None:
        """Close the socket of a connection, whatever state it is in."""
        self._clients.pop(name).drop()

    def close(self) -> None:
        """Close every connection, whatever state it is in, and end all alarms."""
        self.alarms.end_all()
        while self._clients:
            self._clients.popitem()[1].drop()
