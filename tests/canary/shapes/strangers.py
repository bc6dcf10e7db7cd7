"""Attacks that only need a connection: logins an octet at a time, frames and tables that are bombs, guesses."""

from __future__ import annotations

import contextlib
import itertools
import resource
import socket
import threading
import time
from collections.abc import Iterator

from conformance import methods
from conformance.client import PROTOCOL_HEADER, frame, method_frame
from conformance.fields import pack
from tests.canary.peer import Gone, Refused, start_ok
from tests.canary.shape import World, shape

LOGIN_S = 3.0           # an honest login beside them; the bound is for a busy machine
BEFORE_LOGIN = 4_096    # octets of a frame
PACE_S = 0.005          # between two connections: all at once would measure the kernel's queue of new connections


def connected(world: World) -> socket.socket:
    """Connect TCP alone."""
    return socket.create_connection((world.address.host, world.address.port), timeout=30)


def honest_login_s(world: World) -> float:
    """How long a login of another user, with the right password and from the same address, takes."""
    begun = time.monotonic()
    with world.peer(user="nobody") as peer:
        peer.sync()
    return time.monotonic() - begun


@contextlib.contextmanager
def honest_logins(world: World) -> Iterator[None]:
    """Log in over and over, beside the attack; note the slowest, and fail if it took too long."""
    took: list[float] = []
    is_over = threading.Event()

    def log_in() -> None:
        while not is_over.wait(0.2):
            took.append(honest_login_s(world))

    honest = threading.Thread(target=log_in)
    honest.start()
    try:
        yield
    finally:
        is_over.set()
        honest.join()
    assert took, "nobody logged in"
    worst = max(took)
    world.note(f"{len(took)} honest logins, the first took {took[0]:.2f} s, the slowest {worst:.2f} s")
    assert worst < LOGIN_S, f"an honest login took {worst:.1f} s"


@shape("login-an-octet-at-a-time", "sibling", memory_mib=128)
def slow_login(world: World) -> None:
    """Very many clients that send their login one octet at a time; each that is cut comes back."""
    octets = PROTOCOL_HEADER + start_ok("attack", "wrong")
    strangers = [(connected(world), iter(octets)) for _ in range(world.of(300, 1_000))]
    cut, is_on = 0, world.until_time_is_up()
    with honest_logins(world):
        while is_on():
            for place, (stranger, rest) in enumerate(strangers):
                try:
                    stranger.send(bytes([next(rest, 0)]))
                except OSError:
                    stranger.close()
                    strangers[place] = connected(world), iter(octets)
                    cut += 1
            time.sleep(0.1)
    world.note(f"{len(strangers)} slow clients, {cut} were cut and came back")
    for stranger, _ in strangers:
        stranger.close()


def nested(depth: int) -> bytes:
    """A table in a table in a table …, with their lengths."""
    table = b""
    for _ in range(depth):
        table = b"\x01aF" + len(table).to_bytes(4, "big") + table
    return len(table).to_bytes(4, "big") + table


def start_ok_with(table: bytes) -> bytes:
    """Pack start-ok with these client properties."""
    return method_frame(0, *methods.CONNECTION_START_OK, table + pack("sLs", "PLAIN", "\0attack\0wrong", "en_US"))


BOMBS = [
    start_ok_with(nested(500)), start_ok_with(nested(33)),
    start_ok_with((3_900).to_bytes(4, "big") + b"\x01aV" * 1_300),
    start_ok_with((3_900).to_bytes(4, "big") + b"\x01aA\x00\x00\x0f\x33" + b"V" * 3_893),
    start_ok_with(b"\xff\xff\xff\xff"), start_ok_with(nested(10_000)),
    method_frame(0, *methods.CONNECTION_START_OK, bytes(BEFORE_LOGIN - 12)),
    frame(1, 0, bytes(100_000)), b"\x01\x00\x00\xff\xff\xff\xff" + bytes(60_000), frame(8, 0, b"") * 500,
    method_frame(0, *methods.CONNECTION_START_OK, pack("TsLs", {}, "PLAIN", b"\0" * 3_900, "en_US")),
    method_frame(0, *methods.CONNECTION_START_OK, pack("TsLs", {}, "PLAIN", "\0attack\0" + "p" * 3_900, "en_US")),
]


@shape("bombs-before-login", "sibling", memory_mib=64, in_ci=False)
def bombs_before(world: World) -> None:
    """Nested and crowded tables and claimed lengths in start-ok, on connections that stay as long as they may."""
    bombs, is_on = itertools.cycle(BOMBS), world.until_time_is_up()
    strangers: list[socket.socket] = []
    count = 0
    with honest_logins(world):
        while is_on():
            stranger = connected(world)
            with contextlib.suppress(OSError):
                stranger.sendall(PROTOCOL_HEADER + next(bombs))
            strangers.append(stranger)
            count += 1
            time.sleep(PACE_S)
            if len(strangers) > world.of(200, 1_000):
                strangers.pop(0).close()
    world.note(f"{count} bombs, {len(strangers)} connections at a time")
    for stranger in strangers:
        stranger.close()


@shape("bombs-in-tables", "sibling", memory_mib=128, in_ci=False)
def bombs_after(world: World) -> None:
    """The arguments of a declare are a table as deep, or with as many fields, as a frame can hold."""
    tables = [nested(16_000), nested(32), nested(33), (120_000).to_bytes(4, "big") + b"\x01aV" * 40_000,
              (120_000).to_bytes(4, "big") + b"\x01aA\x00\x01\xd4\xb9" + b"V" * 119_993]
    is_on, refused, taken = world.until_time_is_up(), 0, 0
    for table in itertools.cycle(tables):
        if not is_on():
            break
        try:
            with world.peer() as peer:
                peer.call(method_frame(1, *methods.QUEUE_DECLARE, pack("2so", 0, "bomb", 0) + table),
                          methods.QUEUE_DECLARE_OK)
                taken += 1
        except (Refused, Gone):
            refused += 1
    world.note(f"{refused} refused, {taken} taken")
    assert refused, "all were taken"


@shape("guesses-of-four-clients", "sibling", memory_mib=64, in_ci=False)
def fast_guesses(world: World) -> None:
    """Guessed passwords, each another one, some hundred a second, beside honest logins."""
    is_on, counts = world.until_time_is_up(), [0] * 4

    def guess(number: int) -> None:
        while is_on():
            with contextlib.suppress(OSError), connected(world) as stranger:
                stranger.sendall(PROTOCOL_HEADER + start_ok("attack", f"guess {number} {counts[number]}"))
                counts[number] += 1
            time.sleep(PACE_S)

    guessing = [threading.Thread(target=guess, args=(number, )) for number in range(len(counts))]
    with honest_logins(world):
        for one in guessing:
            one.start()
        for one in guessing:
            one.join()
    world.note(f"{sum(counts)} guesses in {world.seconds:.0f} s")


@shape("thousands-of-strangers", "D14", memory_mib=100)
def thousands(world: World) -> None:
    """Thousands of clients of one address connect at the same moment, and say nothing more than which protocol."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    count = min(world.of(1_500, 3_900), most - 100)
    strangers = [socket.socket() for _ in range(count)]
    for stranger in strangers:
        stranger.setblocking(False)
        stranger.connect_ex((world.address.host, world.address.port))
        with contextlib.suppress(OSError):
            stranger.send(PROTOCOL_HEADER)
    took = honest_login_s(world)
    world.note(f"a login took {took:.2f} s beside {count} others")
    assert took < LOGIN_S, f"an honest login took {took:.1f} s"
    for stranger in strangers:
        stranger.close()


@shape("abandoned-logins", "sibling", memory_mib=64)
def abandoned(world: World) -> None:
    """Logins that are abandoned as soon as they are sent, as fast as two clients can, beside honest logins."""
    is_on, counts = world.until_time_is_up(), [0] * 2

    def abandon(number: int) -> None:
        while is_on():
            with contextlib.suppress(OSError), connected(world) as stranger:
                stranger.sendall(PROTOCOL_HEADER + start_ok("attack", f"guess {number} {counts[number]}"))
                counts[number] += 1

    abandoning = [threading.Thread(target=abandon, args=(number, )) for number in range(len(counts))]
    with honest_logins(world):
        for one in abandoning:
            one.start()
        for one in abandoning:
            one.join()
    world.note(f"{sum(counts)} abandoned logins in {world.seconds:.0f} s")
