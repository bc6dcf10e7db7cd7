"""Attacks before login: guessed passwords, silence, many connections, a paused broker, a log that nobody reads."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from conformance.client import PROTOCOL_HEADER
from tests.canary.packing import HEARTBEAT
from tests.canary.peer import Peer, shake_hands, start_ok
from tests.canary.shape import World, shape


@shape("paused-broker", "D13", bounds_delay=False)
def paused(world: World) -> None:
    """SIGSTOP for a while: clients that kept sending are not judged by what was not read."""
    heartbeat, pause_s = world.of(1, 5), float(world.of(4, 40))
    peers = [world.peer(heartbeat=heartbeat) for _ in range(20)]
    is_over = threading.Event()

    def beat() -> None:
        while not is_over.wait(heartbeat / 2):
            for peer in peers:
                if not peer.is_gone:
                    peer.socket.send(HEARTBEAT)

    beats = threading.Thread(target=beat)
    beats.start()
    time.sleep(1)
    os.kill(world.pid, signal.SIGSTOP)
    time.sleep(pause_s)
    os.kill(world.pid, signal.SIGCONT)
    time.sleep(heartbeat * 2.5)
    is_over.set()
    beats.join()
    survivors = sum(not peer.is_gone for peer in peers)
    world.note(f"{survivors} of 20 survive")
    assert survivors == 20, f"{survivors} of 20 survive"


@shape("guessed-passwords", "D14")
def guesses(world: World) -> None:
    """Logins with a wrong password, each disconnected at once; a correct login succeeds."""
    guess = PROTOCOL_HEADER + start_ok("attack", "wrong")
    is_on, count = world.until_time_is_up(), 0
    while is_on():
        with socket.create_connection((world.address.host, world.address.port), timeout=30) as stranger:
            stranger.sendall(guess)
        count += 1
        time.sleep(0.002)
    begun = time.monotonic()
    world.peer().sync()
    took = time.monotonic() - begun
    world.note(f"{count} guesses, honest login after {took:.2f} s")
    assert took < 3, f"an honest login took {took:.1f} s"


@shape("six-hundred-at-once", "D14")
def six_hundred(world: World) -> None:
    """600 clients of one address come back at the same moment, and all get in."""
    count = 600
    connections = [socket.socket() for _ in range(count)]
    for one in connections:
        one.setblocking(False)
        one.connect_ex((world.address.host, world.address.port))
    begun = time.monotonic()

    def log_in(one: socket.socket) -> bool:
        one.settimeout(30)
        try:
            shake_hands(one, world.address)
        except OSError:
            return False
        return True

    with ThreadPoolExecutor(40) as pool:
        inside = sum(pool.map(log_in, connections))
    world.note(f"{inside} of {count} are in after {time.monotonic() - begun:.1f} s")
    for one in connections:
        one.close()
    assert inside == count, f"{inside} of {count} got in"


@shape("silent-strangers", "D14")
def silent(world: World) -> None:
    """Silent connections before login do not prevent the login of another client."""
    strangers = [socket.create_connection((world.address.host, world.address.port)) for _ in range(200)]
    begun = time.monotonic()
    with world.peer() as peer:
        peer.sync()
    took = time.monotonic() - begun
    world.note(f"login after {took:.2f} s beside {len(strangers)} silent ones")
    assert took < 2, f"a login took {took:.1f} s"
    for one in strangers:
        one.close()


@shape("log-that-nobody-reads", "D15", log_is_read=False)
def unread_log(world: World) -> None:
    """Many connections, each with a few lines in the log, which nobody reads."""
    for _ in range(world.of(600, 2_000)):
        peer = Peer(world.address, reads=False)
        peer.send(b"\x07" * 20)
        peer.drop()
    with world.peer() as peer:
        peer.sync()
