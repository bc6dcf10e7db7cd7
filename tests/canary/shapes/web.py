"""Attacks on the management API: clients that are slow, many, greedy or malformed, with and without a login."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from urllib.parse import quote

from conformance.fields import Properties
from tests.canary.http_peer import answer_of, asked, authorization, connected, head, honest_requests
from tests.canary.packing import publish
from tests.canary.shape import World, shape
from tests.canary.shapes.common import declare, fill

CUT = (OSError, http.client.HTTPException)      # what a client sees of a connection that was closed
JSON = "Content-Type: application/json"


@contextlib.contextmanager
def threads(count: int, target: Callable[[int], None]) -> Iterator[None]:
    """Run a function with a number in so many threads; wait for their end."""
    running = [threading.Thread(target=target, args=(number, )) for number in range(count)]
    for one in running:
        one.start()
    try:
        yield
    finally:
        for one in running:
            one.join()


def opened(world: World, sent: bytes) -> socket.socket | None:
    """Connect and send; None if there are too many already."""
    try:
        client = connected(world)
        client.sendall(sent)
        client.setblocking(False)
        return client
    except OSError:
        return None


@shape("http-requests-an-octet-at-a-time", "sibling", memory_mib=64, has_http=True)
def slow_requests(world: World) -> None:
    """Very many clients send heads, or with a login bodies, an octet at a time; each that is cut comes back."""
    heads = b"GET /api/overview HTTP/1.1\r\nX-Padding: " + b"x" * 4_000
    whole = head(world, "PUT", "/api/queues/attack/q", JSON, "Content-Length: 9000")
    begins = itertools.cycle([b"", whole])
    octets = itertools.cycle(heads)
    strangers: list[socket.socket | None] = [None] * world.of(400, 1_000)
    cut, is_on = 0, world.until_time_is_up()
    with honest_requests(world):
        while is_on():
            octet = bytes([next(octets)])
            for place, stranger in enumerate(strangers):
                try:
                    if stranger is not None:
                        stranger.send(octet)
                        continue
                except OSError:
                    cut += 1
                if stranger is not None:
                    stranger.close()
                strangers[place] = opened(world, next(begins))
            time.sleep(0.05)
    world.note(f"{len(strangers)} slow clients, {cut} were cut")


@shape("http-answers-that-nobody-reads", "sibling", memory_mib=192, has_http=True)
def unread(world: World) -> None:
    """Clients ask for long lists over and over in one connection, and never read an answer."""
    with world.peer() as peer:
        for number in range(world.of(1_000, 5_000)):
            declare(peer, f"queue-{number:05}")
    request = head(world, "GET", "/api/queues/attack") * 50
    clients, is_on = [opened(world, request) for _ in range(world.of(40, 120))], world.until_time_is_up()
    with honest_requests(world):
        while is_on():
            time.sleep(0.1)
    world.note(f"{sum(one is not None for one in clients)} clients that read nothing")


@shape("http-event-streams", "sibling", memory_mib=128, has_http=True)
def streams(world: World) -> None:
    """Three hundred followers of events, half of which never read, while queues come and go."""
    request = head(world, "GET", "/api/amqpd/events")
    followers, is_on = [opened(world, request) for _ in range(300)], world.until_time_is_up()
    starts, events = [b""] * len(followers), 0
    with honest_requests(world), world.peer() as peer:
        while is_on():
            declare(peer, f"short-{events % 50}", auto_delete=True)
            events += 1
            for place in range(0, len(followers), 2):
                starts[place] = (starts[place] + received(followers[place]))[:20]
    starts[1::2] = [received(one)[:20] for one in followers[1::2]]
    statuses = Counter(start[9:12].decode() for start in starts)
    world.note(f"{len(followers)} followers were answered {dict(statuses)}, {events} events")
    assert statuses["200"] >= 30, statuses


def received(client: socket.socket | None) -> bytes:
    """What has arrived."""
    try:
        return b"" if client is None else client.recv(65_536)
    except OSError:
        return b""


@shape("http-small-requests-without-a-login", "sibling", memory_mib=32, has_http=True)
def small_requests(world: World) -> None:
    """Requests without a login, and with wrong ones, as fast as a few clients can, many in a packet."""
    kinds = [head(world, "GET", "/api/overview", login=False), head(world, "GET", "/nowhere", login=False),
             head(world, "GET", "/api/queues", f"Cookie: {'a=b; ' * 5_000}", login=False),
             head(world, "POST", "/api/definitions", "Content-Length: 0", login=False),
             head(world, "GET", "/", login=False)]
    is_on, counts, most = world.until_time_is_up(), [0] * 4, world.of(20_000, 100_000)

    def flood(number: int) -> None:
        kind = kinds[number % len(kinds)]
        requests = kind * 49 + kind.replace(b"Host: x", b"Host: x\r\nConnection: close")
        while is_on() and sum(counts) < most:
            with contextlib.suppress(OSError), connected(world) as client:
                client.sendall(requests)
                while answers := client.recv(65_536):
                    counts[number] += answers.count(b"HTTP/1.1 ")

    with honest_requests(world), threads(len(counts), flood):
        pass
    world.note(f"{sum(counts)} requests")


@shape("http-wrong-logins", "sibling", memory_mib=64, has_http=True)
def wrong_logins(world: World) -> None:
    """Four hundred clients with wrong passwords, each another one, that come and go beside honest requests."""
    is_on, clients, count = world.until_time_is_up(), list[socket.socket](), 0
    with honest_requests(world):
        while is_on():
            login = authorization("attack", f"guess {count}")
            client = opened(world, head(world, "GET", "/api/whoami", login, login=False))
            count += 1
            if client is not None:
                clients.append(client)
            if len(clients) > 400:
                clients.pop(0).close()
            time.sleep(0.002)
    world.note(f"{count} guesses")


DEEP = "[" * 5_000 + "]" * 5_000
ODD_PATHS = (
    "/api/queues/attack/%", "/api/queues/%ff%fe/%00", "/api/queues/attack/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "/api/%71ueues", "//api///queues", "/api/queues/attack/" + "%41" * 8_000, "/api/queues/attack/%0d%0aX-Evil:%201",
    "/api/queues?page=-1", "/api/queues?page=99999999999999999999", "/api/queues?page=1&page_size=0",
    "/api/queues?page=1&page_size=501", "/api/queues?page=1e9", "/api/queues?page=1&page_size=NaN",
    "/api/queues?sort=" + ".".join(["a"] * 2_000), "/api/queues?sort=arguments", "/api/queues?sort=__class__",
    "/api/queues?sort=message_stats.publish_details.rate&sort_reverse=true", "/api/queues?sort=%00",
    "/api/queues?columns=" + ",".join(["a.b.c.d"] * 3_000), "/api/queues?columns=" + ".".join(["a"] * 8_000),
    "/api/queues?" + "&".join(f"a{n}=1" for n in range(3_000)), "/api/queues?columns=,,,,.,.,.",
    "/api/queues?name=(a%2B)%2B%24&use_regex=true&page=1", "/api/queues?name=" + "(" * 900 + "&use_regex=true",
    "/api/queues?name=(.*)*b(.*)*b(.*)*b(.*)*c&use_regex=true&page=1", "/api/overview?lengths_age=1e400&lengths_incr=0",
    "/api/overview?lengths_age=86400&lengths_incr=1&msg_rates_age=99999999&msg_rates_incr=1",
    "/api/queues/attack/big/messages?offset=99999999999999999999",
    "/api/queues/attack/big/messages?json=$" + "[0]" * 300,
    "/api/queues/attack/big/messages?header=" + "x" * 9_000, "/api/nodes/%2e%2e", "/login?next=//evil",
    "/api/health/checks/port-listener/99999999999", "/api/health/checks/certificate-expiration/99999999999/years")
ODD_HEADERS = (
    ("Content-Length: 5", "Content-Length: 6"), ("Content-Length: 5", "Transfer-Encoding: chunked"),
    ("Content-Length: -1", ), ("Content-Length: +5", ), ("Content-Length: 0x5", ), ("Transfer-Encoding: gzip", ),
    ("Transfer-Encoding: chunked, chunked", ), ("Expect: 200-maybe", ), ("X: a\rb", ), ("X: a\nb: c", ), ("X:\0", ),
    ("Cookie: " + "a=b; " * 6_000, ), tuple(f"Cookie: amqpd={n}" for n in range(900)),
    ("Accept: " + "a/b;q=0.1, " * 2_000, ), ("Origin: null", ), ("Host: evil", ), ("X-Forwarded-For: 127.0.0.1", ),
    ("Range: bytes=0-0,1-1" + ",2-2" * 5_000, ), ("Upgrade: h2c", "Connection: Upgrade"),
    ("Accept-Language: \u00ff\u0000", ), ("Authorization: Basic " + "A" * 20_000, ), ("Authorization: Basic \u00e9", ),
    ("User-Agent: %s%n\x1b[2J", ))
ODD_BODIES = (
    b"1\r\n{\r\n" + b"1\r\n \r\n" * 30_000 + b"1\r\n}\r\n0\r\n\r\n", b"ffffffffffffffff\r\n", b"-1\r\n",
    b"5;" + b"x" * 40_000, b"0\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", b"zz\r\n\r\n")


@shape("http-odd-requests", "sibling", memory_mib=96, has_http=True)
def odd_requests(world: World) -> None:
    """Paths, queries, headers, lengths and chunks that are garbage; every answer is a refusal or true, and no error."""
    requests = [head(world, "GET", path) for path in ODD_PATHS]
    requests += [head(world, "PUT", "/api/queues/attack/q", JSON, *headers) + b"{}   " for headers in ODD_HEADERS]
    requests += [head(world, "PUT", "/api/queues/attack/q", JSON, "Transfer-Encoding: chunked") + body
                 for body in ODD_BODIES]
    requests += [head(world, method, f"/api/queues/attack/{quote(name)}", JSON, f"Content-Length: {len(DEEP)}")
                 + DEEP.encode() for method in ("PUT", "DELETE", "POST", "\u00e9", "A" * 5_000)
                 for name in ("q", "a\r\nb", "\0", "<script>", "\u202e")]
    requests += [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"AMQP\x00\x00\x09\x01", b"\r\n" * 30_000,
                 b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                 b"GET http://evil/api/whoami HTTP/1.1\r\n\r\n"]
    is_on, sent, errors = world.until_time_is_up(), [0] * 2, list[bytes]()

    def send(number: int) -> None:
        for request in itertools.islice(itertools.cycle(requests), number, None, len(sent)):
            if not is_on() and sent[number] > len(requests):
                break
            sent[number] += 1
            with contextlib.suppress(*CUT), connected(world) as client:
                client.settimeout(2)
                client.sendall(request)
                client.shutdown(socket.SHUT_WR)
                status, _ = answer_of(client)
                if status >= 500:
                    errors.append(request[:200])

    with honest_requests(world), threads(len(sent), send):
        pass
    world.note(f"{sum(sent)} odd requests of {len(requests)} kinds")
    assert not errors, f"{len(errors)} errors, the first for {errors[0]!r}"


@shape("http-bodies-without-a-right-to-them", "sibling", memory_mib=64, has_http=True)
def large_bodies(world: World) -> None:
    """Definitions of 256 MiB from a user who may not import any, in one piece and in chunks, and gigantic queues."""
    is_on, cut = world.until_time_is_up(), [0] * 3
    requests = [
        head(world, "POST", "/api/definitions", JSON, f"Content-Length: {256 << 20}"),
        head(world, "POST", "/api/definitions", JSON, "Transfer-Encoding: chunked"),
        head(world, "PUT", "/api/queues/attack/q", JSON, "Transfer-Encoding: chunked")]
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"

    def send(number: int) -> None:
        while is_on():
            with contextlib.suppress(OSError), connected(world) as client:
                client.settimeout(5)
                client.sendall(requests[number])
                for _ in range(4_096):
                    client.sendall(chunk)
            cut[number] += 1

    with honest_requests(world), threads(3, send):
        pass
    world.note(f"cut {cut}")


def crowded(fields: int) -> Properties:
    """Properties with a table of so many headers."""
    return Properties(headers={f"header-{number:05}": number for number in range(fields)})


@shape("http-costly-filters", "sibling", memory_mib=256, has_http=True)
def costly_filters(world: World) -> None:
    """Look through large bodies, deep JSON and crowded headers with as many conditions as a request may have."""
    with world.peer() as peer:
        for name in ("big", "deep", "crowded"):
            declare(peer, name)
        fill(peer, "big", world.of(2, 6), b"a" * (8 << 20))
        fill(peer, "deep", world.of(40, 100), b'{"a":' * 400 + b"[" + b"[]," * 50_000 + b"[]]" + b"}" * 400)
        fill(peer, "deep", world.of(40, 100), b"[" + b'{"a":1},' * 100_000 + b"0]")
        peer.send(publish("", "crowded", b"x", crowded(5_000)) * world.of(100, 400))
        peer.sync()
    filters = {
        "big": {"text": "a" * 5_000 + "b"}, "deep": {"json": ["$" + ".a" * 45 + "=1"] * 50},
        "crowded": {"header": ["header-04999"] * 49 + ["other"]}}
    is_on, asked_for, statuses = world.until_time_is_up(), [0] * 6, set[int]()

    def look(number: int) -> None:
        name = list(filters)[number % 3]
        path, body = f"/api/queues/attack/{name}/messages/export", {"filter": filters[name], "count": 1_000}
        while is_on():
            with contextlib.suppress(*CUT):
                statuses.add(asked(world, "POST", path, body)[0])
            asked_for[number] += 1

    with honest_requests(world), threads(len(asked_for), look):
        pass
    world.note(f"{asked_for} exports, statuses {sorted(statuses)}")
    assert statuses == {200}, statuses
