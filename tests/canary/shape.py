"""An attack: a function that gets a `World`, and the bounds for the broker during it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tests.canary.peer import Address, Peer

SHAPES: dict[str, Shape] = {}


@dataclass
class World:
    """What an attacker can reach. `other_vhost` is a second one of its own; `pid` is the broker's, or 0.

    `http_port` is that of the management API, or 0 if it is not served.
    """

    address: Address
    other_vhost: str
    canary: Address
    ctl_command: list[str]
    pid: int
    http_port: int
    is_long: bool
    seconds: float

    def of(self, short: int, long: int) -> int:
        """How many in the form that is run."""
        return long if self.is_long else short

    def peer(self, vhost: str = "", user: str = "", **options: Any) -> Peer:
        """A connection of the attacker."""
        there = self.address
        address = Address(there.host, there.port, user or there.user, there.password, vhost or there.vhost)
        return Peer(address, **options)

    def ctl(self, *words: str) -> str:
        """Run a command of the operator's program, and return its output."""
        done = subprocess.run([*self.ctl_command, *words], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def policy(self, name: str, pattern: str, definition: str) -> None:
        """Set a policy in the attacker's vhost."""
        self.ctl("set_policy", "--vhost", self.address.vhost, "--apply-to", "queues", name, pattern, definition)

    def note(self, text: str) -> None:
        """Add a note to the figures."""
        print(text, flush=True)

    def until_time_is_up(self) -> Callable[[], bool]:
        """Whether an attack that could go on for ever shall."""
        deadline = time.monotonic() + self.seconds
        return lambda: time.monotonic() < deadline

    def resident_mib(self) -> float:
        """The broker's resident size; 0 where its process is not known."""
        return resident_mib(self.pid)


@dataclass(frozen=True)
class Shape:
    """An attack, what it may cost the broker in memory, and how it is judged."""

    name: str
    number: str                             # of the list, or "sibling"
    attack: Callable[[World], None]
    memory_mib: float = 0.0                 # by which the broker may grow; 0: no bound of its own
    bounds_delay: bool = True               # False where the attack itself stops the broker for a while
    log_is_read: bool = True                # False: the broker's stderr is a pipe that nobody reads
    in_ci: bool = True
    has_http: bool = False                  # the management API is served
    variables: tuple[tuple[str, str], ...] = ()     # the broker's environment


def shape(name: str, number: str, **expected: Any) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Enter an attack into the list."""
    def enter(attack: Callable[[World], None]) -> Callable[[World], None]:
        assert name not in SHAPES, name
        SHAPES[name] = replace(Shape(name, number, attack), **expected)
        return attack
    return enter


def resident_mib(pid: int) -> float:
    """The resident size of a process; 0 where it is not known."""
    try:
        with open(f"/proc/{pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    except (OSError, IndexError):
        return 0.0
