"""Requests to the management API by chance: the table of routes times methods, names, queries, headers and bodies."""

from __future__ import annotations

import base64
import json
import types
import typing
from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from amqpd.management.http import lists
from amqpd.management.http.application import METHODS
from amqpd.management.http.routes import Route

NAMES = {
    "vhost": ["/", "/", "/", "other", "none"],
    "queue": ["orders", "orders", "dead", "full", "none", "new"],
    "exchange": ["amq.topic", "amq.default", "amq.fanout", "amq.headers", "amq.rabbitmq.trace", "new", "none"],
    "user": ["guest", "reader", "none", "new"],
    "consumer": ["tag", "none"],
    "node": ["rabbit@localhost", "none"],
    "limit": ["max-connections", "max-queues", "max-channels", "none"],
    "component": ["shovel", "vhost-limits", "operator_policy", "policy", "none"],
}
ANY_NAMES = ["new", "orders", "a", "policy", "cluster_name"]
STRANGE = ["", ".", "..", "é", "\0", "\n", "%", "~", "a~b", "x" * 300, "$[*]", "\udcff", "🐇", "*", "#", "null", "-1"]
NUMBERS = [0, 1, -1, 2, 7, 100, 65_535, 65_536, 2**31, 2**63 - 1, 2**63, 2**64, -2**63, 10**30, 1.5, 1e308, -0.0]
TEXTS = [
    "", "a", "order.new", "#", "*", "true", "1", "-1", "1e9", "nan", "x" * 1_000, "é\0", "\ud800", "(a+)+$", "[", "$.a",
    "$.a[0]=1", "a=1", "=", "auto", "base64", "string", "ack_requeue_true", "reject_requeue_false", "classic",
    "quorum", "topic", "headers", "orders", "amq.topic", "guest", "other", "/", "sync", "administrator", "messages",
    "name", "message_stats.publish", "name,messages", "1:2", "1099511628801:0", "queue.*", "info"]
QUERY = [query.name for query in lists.QUERY] + [
    "columns", "lengths_age", "lengths_incr", "msg_rates_age", "msg_rates_incr", "data_rates_age", "data_rates_incr",
    "disable_stats", "enable_queue_totals", "if-unused", "if-empty", "vhost", "name", "unknown"]
MADE: dict[str, list[Any]] = {        # values that lead further than others
    "durable": [True, False],
    "auto_delete": [True, False],
    "type": ["topic", "direct", "x-none"],
    "arguments": [
        {}, {"x-max-length": 2}, {"x-dead-letter-exchange": ""}, {"x-max-priority": 5}, {"x-queue-type": "quorum"}],
    "payload": ["a", '{"a": [1]}', "x" * 5_000],
    "payload_encoding": ["string", "base64"],
    "properties": [{}, {"headers": {"a": 1}, "delivery_mode": 2}, {"priority": 300}, {"headers": []}],
    "routing_key": ["orders", "order.new", "dead"],
    "count": [1, 10, 1_000],
    "ackmode": ["ack_requeue_true", "ack_requeue_false"],
    "encoding": ["auto", "base64"],
    "to_queue": ["dead", "orders", "full"],
    "to_exchange": ["amq.topic", "amq.fanout"],
    "everything": [True],
    "limit": [1, 5],
    "ids": [[1], [], [1, 2, 3]],
    "filter": [{}, {"text": "a"}, {"json": ["$.a[0]=1"]}, {"header": ["a=1"], "older_than": 1}, {"reason": "rejected"}],
    "pattern": [".*", "^o"],
    "definition": [{"max-length": 3}, {"expires": 60_000}, {}],
    "apply-to": ["queues", "all"],
    "configure": [".*"],
    "write": [".*"],
    "read": [".*"],
    "password": ["p"],
    "password_hash": ["", "x"],
    "tags": ["management", "administrator", []],
    "value": [True, 1, "info", {"a": 1}],
    "headers": [{}, {"a": 1}],
}
STRANGE_HEADERS = [
    (b"accept", b"text/html"), (b"accept", b"text/event-stream"), (b"origin", b"null"), (b"content-length", b"x"),
    (b"content-type", b"multipart/form-data; boundary=x"), (b"cookie", b"m=\xff; auth=x; ;="), (b"x-\xff", b"\0"),
    (b"sec-fetch-site", b"cross-site"), (b"transfer-encoding", b"chunked"), (b"accept-encoding", b"gzip"),
    (b"host", b"[::"), (b"content-type", b"application/x-www-form-urlencoded")]
STRANGE_BODIES = [
    b"{", b"[]", b'"a"', b"null", b"1e999", b"\xff", b"{}{}", b"[" * 5_000, b'{"a":' * 5_000, b'{"a":"\\ud800"}', b" ",
    b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n{}\r\n--x--', b"username=guest&password=pw"]


class Sent(NamedTuple):
    """One request."""

    method: str
    path: str
    query: str
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def __str__(self) -> str:
        return f"{self.method} {self.path}?{self.query} {self.headers} {self.body[:500]!r}"


class RequestMaker:
    """Makes the requests of one seed."""

    def __init__(self, seed: int, routes: Sequence[Route], commands: Sequence[str]) -> None:
        self._random = Random(seed)
        self._routes = routes
        self._commands = commands

    def make(self) -> Sent:
        """Return a request, most of them for a route that there is."""
        random = self._random
        route = random.choice(self._routes)
        method = route.method if random.random() < 0.9 else random.choice([*METHODS, "PATCH", "get", ""])
        return Sent(method, self._path(route), self._query(route), self._headers(), self._body(route))

    # The path

    def _path(self, route: Route) -> str:
        random, parts = self._random, []
        for part in route.path.split("/"):
            parts.append(self._name(part.strip("{}")) if part.startswith("{") else part)
        path = "/".join(parts)
        if random.random() < 0.03:
            path = random.choice([
                path + "/", path.upper(), path[:-1], path + "/x", "/" + path, path + "%", "/api/..", "*"])
        return path

    def _name(self, kind: str) -> str:
        random = self._random
        if random.random() < 0.1:
            return quote(random.choice(STRANGE), safe="", errors="surrogatepass")
        return quote(random.choice(NAMES.get(kind, ANY_NAMES)), safe="")

    def _query(self, route: Route) -> str:
        random = self._random
        names = [query.name for query in route.query]
        pairs = []
        for _ in range(random.choice([0, 0, 1, 2, 3, 150] if random.random() < 0.02 else [0, 0, 1, 2, 3])):
            name = random.choice(names) if names and random.random() < 0.7 else random.choice(QUERY)
            pairs.append(f"{name}={self._query_value()}")
        if route.path.endswith("/why"):
            pairs.append(f"seconds={random.choice(['0', '0', '-1', '31', 'nan', 'x'])}")
        return "&".join(pairs)

    def _query_value(self) -> str:
        random = self._random
        if random.random() < 0.05:
            return random.choice(["%", "%ff", "%00", "%zz", "+", "a=b", ";", "[]"])
        kind: Sequence[Any] = random.choice([NUMBERS, TEXTS, ["true", "false", "5", "60"]])
        return quote(str(random.choice(kind)), errors="surrogatepass")

    # Headers and body

    def _headers(self) -> list[tuple[bytes, bytes]]:
        random = self._random
        user = random.choice(["guest"] * 8 + ["reader", "policy", "nobody"])
        login = b"Basic " + base64.b64encode(f"{user}:pw".encode())
        if random.random() < 0.03:
            login = random.choice([b"", b"Basic", b"Basic =", b"Bearer x", b"Basic \xff", b"Basic /w=="])
        headers = [(b"host", b"x"), (b"authorization", login)]
        if random.random() < 0.95:
            headers.append((b"content-type", b"application/json"))
        return headers + ([random.choice(STRANGE_HEADERS)] if random.random() < 0.08 else [])

    def _body(self, route: Route) -> bytes:
        random = self._random
        if route.method in ("GET", "DELETE") and random.random() < 0.9:
            return b""
        if random.random() < 0.07:
            return random.choice(STRANGE_BODIES)
        if route.path == "/api/amqpctl":
            return self._encode({"command": random.choice(self._commands), "arguments": {
                name: self._value(2) if random.random() < 0.3 else made for name, made in self._arguments()}})
        if route.body is None or route.body is bytes:
            return self._encode(self._value(3))
        fields = msgspec.structs.fields(route.body)
        kept = [field for field in fields if random.random() < (0.97 if field.required else 0.5)]
        body = {field.encode_name: self._field(field.encode_name, field.type) for field in kept}
        if random.random() < 0.05:
            body[random.choice(TEXTS)] = self._value(2)
        return self._encode(body)

    def _arguments(self) -> list[tuple[str, Any]]:
        random = self._random
        made = {"vhost": "/", "queue": random.choice(NAMES["queue"]), "user": "reader", "exchange": "amq.topic",
                "columns": ["name"], "name": "new", "filter": {}, "count": 5, "everything": True, "to_queue": "dead"}
        return random.sample(sorted(made.items(), key=lambda item: item[0]), random.randrange(5)) + [("vhost", "/")] * (
            random.random() < 0.5)

    def _field(self, name: str, kind: Any) -> Any:
        random = self._random
        chance = random.random()
        if chance < 0.6 and name in MADE:
            return random.choice(MADE[name])
        return self._value(3) if chance > 0.85 else self._typed(kind)

    def _typed(self, kind: Any) -> Any:
        random, origin = self._random, typing.get_origin(kind)
        if origin in (typing.Union, types.UnionType):
            return self._typed(random.choice(typing.get_args(kind)))
        if kind is bool:
            return random.random() < 0.5
        if kind in (int, float):
            return random.choice(NUMBERS)
        if kind is str:
            return random.choice(TEXTS)
        if kind is type(None):
            return None
        if origin in (list, tuple):
            inner = typing.get_args(kind)[0]
            return [self._typed(inner) for _ in range(random.randrange(3))]
        return self._value(2)

    def _value(self, depth: int) -> Any:
        random = self._random
        kind = random.randrange(7 if depth else 5)
        if kind == 5:
            return [self._value(depth - 1) for _ in range(random.randrange(4))]
        if kind == 6:
            return {random.choice(TEXTS): self._value(depth - 1) for _ in range(random.randrange(4))}
        return random.choice([None, True, False, random.choice(NUMBERS), random.choice(TEXTS)])

    @staticmethod
    def _encode(value: Any) -> bytes:
        return json.dumps(value).encode()
