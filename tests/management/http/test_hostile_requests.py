"""Requests that are made to hurt: what is refused unread, how much of them is looked at, and in which turn."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from amqpd.management.http.answers import HttpError
from amqpd.management.http.lists import searched
from amqpd.management.http.turns import Turns
from amqpd.server.http_listener import MOST_CLIENTS, PIECE_OF_CHUNKS, ApiProtocol
from tests.support.api import Api, basic, running

DEEP = b"[" * 500 + b"]" * 500


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with running() as found:
        assert found.put("/users/manager", {"password": "pw", "tags": "management"}) == 201
        assert found.put("/permissions/%2F/manager", {"configure": ".*", "write": ".*", "read": ".*"}) == 201
        assert found.put("/users/leaver", {"password": "pw", "tags": "administrator"}) == 201
        yield found


MANAGER, LEAVER = ("manager", "pw"), ("leaver", "pw")


@contextlib.contextmanager
def begun(api: Api, request: str, *headers: str, user: tuple[str, str] = MANAGER) -> Iterator[socket.socket]:
    """Send a request up to its body; yield the connection."""
    head = (f"{request} HTTP/1.1", "Host: x", f"Authorization: {basic(user)}", "Content-Type: application/json")
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as client:
        client.sendall("\r\n".join((*head, *headers, "", "")).encode())
        yield client


def status_of(client: socket.socket) -> int:
    """Read an answer and return its status."""
    answer = http.client.HTTPResponse(client)
    answer.begin()
    answer.read()
    return answer.status


def test_the_right_is_checked_before_the_body_is_read(api: Api) -> None:
    with begun(api, "POST /api/definitions", "Content-Length: 1000000") as client:
        assert client.recv(12) == b"HTTP/1.1 401"


@pytest.mark.parametrize("length", ["2000000", "9" * 4000])
def test_a_length_that_is_too_large_is_refused_before_the_body_is_read(api: Api, length: str) -> None:
    with begun(api, "PUT /api/queues/%2F/q", f"Content-Length: {length}") as client:
        assert client.recv(12) in (b"HTTP/1.1 413", b"HTTP/1.1 400")


def test_a_user_who_is_deleted_while_the_body_is_sent_changes_nothing(api: Api) -> None:
    with begun(api, "PUT /api/vhosts/late", "Expect: 100-continue", "Content-Length: 2", user=LEAVER) as client:
        assert client.recv(12) == b"HTTP/1.1 100"       # so it is logged in, and the body is waited for
        client.recv(1024)
        assert api.delete("/users/leaver") == 204
        client.sendall(b"{}")
        assert client.recv(12) == b"HTTP/1.1 401"
    assert api.ask("GET", "/vhosts/late").status == 404


@pytest.mark.parametrize("path, body", [
    ("/queues/%2F/q", b'{"arguments":{"a":' + DEEP + b"}}"),
    ("/queues/%2F/q", b'{"not_known":' + DEEP + b"}"),
    ("/queues/%2F/q", b'{"arguments":{"a":[' + b"{}," * 30_000 + b"{}]}}"),
    ("/queues/%2F/q", b'{"arguments":{"a":"' + b"x" * 200_000 + b'"}}'),
    ("/policies/%2F/p", b'{"pattern":"x","definition":{"a":' + DEEP + b"}}"),
    ("/global-parameters/p", b'{"value":' + DEEP + b"}"),
])
def test_what_is_nested_too_deep_or_has_too_much_in_it_is_a_bad_request(api: Api, path: str, body: bytes) -> None:
    assert api.ask("PUT", path, body).status == 400


def test_headers_of_a_message_that_are_nested_too_deep_are_a_bad_request(api: Api) -> None:
    body = (b'{"routing_key":"q","payload":"","payload_encoding":"string","properties":{"headers":{"a":'
            + DEEP + b"}}}")
    assert api.ask("POST", "/exchanges/%2F/amq.default/publish", body, user=MANAGER).status == 400


def test_of_a_long_body_only_texts_may_be_long(api: Api) -> None:
    path, message = "/exchanges/%2F/amq.default/publish", {
        "routing_key": "nowhere", "payload": "x" * (2 << 20), "payload_encoding": "string", "properties": {}}
    assert api.ask("POST", path, message, user=MANAGER).body == {"routed": False}
    reply = api.ask("POST", path, message | {"properties": {"headers": {"a": [{}] * 600_000}}}, user=MANAGER)
    assert (reply.status, reply.body["reason"]) == (400, "properties has more than 1024 KiB")


def test_the_rest_of_a_small_request_that_is_refused_is_discarded_and_the_connection_stays(api: Api) -> None:
    with begun(api, "POST /api/definitions", "Content-Length: 1000") as client:
        assert status_of(client) == 401
        again = f"GET /api/whoami HTTP/1.1\r\nHost: x\r\nAuthorization: {basic(MANAGER)}\r\n\r\n"
        client.sendall(b" " * 1000 + again.encode())
        assert status_of(client) == 200


@pytest.mark.parametrize("limit, value, sent", [("MOST_DISCARDED", 200_000, 300_000), ("DISCARD_LIMIT_S", 0.05, 10)])
def test_a_client_that_goes_on_with_a_request_that_is_refused_is_disconnected(
        api: Api, monkeypatch: pytest.MonkeyPatch, limit: str, value: float, sent: int) -> None:
    monkeypatch.setattr(f"amqpd.server.http_listener.{limit}", value)
    with begun(api, "POST /api/definitions", "Content-Length: 1000000") as client:
        assert status_of(client) == 401
        with contextlib.suppress(ConnectionError):
            client.sendall(b" " * sent)
            assert client.recv(1) == b""


def test_clients_that_send_their_bodies_slowly_keep_nobody_out(api: Api) -> None:
    with contextlib.ExitStack() as slow:
        for _ in range(MOST_CLIENTS):
            client = slow.enter_context(begun(
                api, "PUT /api/queues/%2F/q", "Expect: 100-continue", "Content-Length: 9000"))
            assert client.recv(12) == b"HTTP/1.1 100"       # so it is logged in, and the body is waited for
        for _ in range(10):
            assert api.get("/whoami", user=MANAGER)["name"] == "manager"


class SlowSearch:
    """Names that take so long to search, by a clock that only the search moves."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.time, self.turns = seconds, 0.0, 0

    def wanted(self, name: str) -> bool:
        self.time += self.seconds
        return name == "b"

    async def next_turn(self) -> None:
        self.turns += 1

    def search(self, names: str) -> list[str]:
        return asyncio.run(searched(names, self.wanted, lambda: self.time, self.next_turn))


def test_a_slow_regular_expression_is_searched_in_many_turns() -> None:
    slow, fast = SlowSearch(0.009), SlowSearch(0.000_001)
    assert (slow.search("ab" * 20), slow.turns) == (["b"] * 20, 40)
    assert (fast.search("ab" * 20), fast.turns) == (["b"] * 20, 0)


def test_a_regular_expression_that_takes_too_long_for_a_list_is_refused() -> None:
    with pytest.raises(HttpError, match="takes too long"):
        SlowSearch(0.009).search("ab" * 100)


def test_of_those_who_wait_one_goes_on_in_each_turn() -> None:
    async def run() -> list[int]:
        turns, seen, number = Turns(), list[int](), 0

        async def wait() -> None:
            await turns.next()
            seen.append(number)

        waiting = [asyncio.create_task(wait()) for _ in range(4)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        for _ in range(20):
            number += 1
            await asyncio.sleep(0)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*waiting)
        return seen

    seen = asyncio.run(run())
    assert len(seen) == len(set(seen)) == 3


def test_chunks_of_a_single_byte_are_parsed_a_little_in_each_turn(api: Api, monkeypatch: Any) -> None:
    sizes = list[int]()
    parse = ApiProtocol._parse

    def parse_and_note(self: ApiProtocol, data: bytes) -> None:
        sizes.append(len(data))
        parse(self, data)

    monkeypatch.setattr(ApiProtocol, "_parse", parse_and_note)
    with begun(api, "PUT /api/queues/%2F/chunks", "Transfer-Encoding: chunked") as client:
        client.sendall(b"1\r\n \r\n" * 20_000 + b"2\r\n{}\r\n0\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 201"
    assert max(sizes) <= PIECE_OF_CHUNKS
    assert sum(sizes) > 120_000
