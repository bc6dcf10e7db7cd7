"""The canary: it publishes one confirmed persistent message every 5 ms, consumes it, and prints the durations.

    python -m tests.canary.bird HOST PORT USER PASSWORD VHOST PID

Prints a line for each round: when it began (monotonic seconds), the milliseconds until confirm and delivery, and the
milliseconds that the canary and a thread of the broker, PID, waited for a processor. The last line is `cut REASON` if
the broker closes the connection. The canary ends at the end of its stdin.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time
from pathlib import Path

from conformance import methods
from tests.canary.packing import PERSISTENT, ack, channel_open, confirm_select, consume, publish, queue_declare
from tests.canary.peer import HEAD, IDS, TAG, Address, Gone, Refused, read_until, shake_hands

EVERY_S = 0.005
QUEUE = "canary"
MESSAGE = publish("", QUEUE, b"x" * 100, PERSISTENT)


class Canary:
    """One connection with one message under way at a time."""

    def __init__(self, address: Address) -> None:
        self._socket = socket.create_connection((address.host, address.port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        shake_hands(self._socket, address)
        for octets, answer in (
            (channel_open(1), methods.CHANNEL_OPEN_OK),
            (queue_declare(QUEUE, durable=True), methods.QUEUE_DECLARE_OK),
            (confirm_select(), methods.CONFIRM_SELECT_OK),
            (consume(QUEUE), methods.BASIC_CONSUME_OK),
        ):
            self._socket.sendall(octets)
            read_until(self._socket, answer)
        self._received = bytearray()
        self.confirmed_at = self.delivered_at = 0.0

    def round(self) -> tuple[float, float, float]:
        """Publish, await both answers, ack; when it began, and the milliseconds of each. Raises Gone."""
        self.confirmed_at = self.delivered_at = 0.0
        begun = time.monotonic()
        self._socket.sendall(MESSAGE)
        self._socket.settimeout(None)
        while not (self.confirmed_at and self.delivered_at):
            octets = self._socket.recv(65_536)
            if not octets:
                raise Gone("TCP has ended")
            self._received += octets
            self._take_frames(time.monotonic())
        return begun, (self.confirmed_at - begun) * 1_000, (self.delivered_at - begun) * 1_000

    def _take_frames(self, now: float) -> None:
        received, at = self._received, 0
        while len(received) >= at + 7:
            kind, _, size = HEAD.unpack_from(received, at)
            if len(received) < at + size + 8:
                break
            if kind == 1:
                self._take_method(IDS.unpack_from(received, at + 7), at + 11, now)
            at += size + 8
        del received[:at]

    def _take_method(self, ids: tuple[int, int], at: int, now: float) -> None:
        if ids == methods.BASIC_ACK:
            self.confirmed_at = now
        elif ids == methods.BASIC_DELIVER:
            self.delivered_at = now
            tag_at = at + 1 + self._received[at]
            self._socket.sendall(ack(TAG.unpack_from(self._received, tag_at)[0]))
        else:
            raise Gone(f"the broker says {methods.name(*ids)}: {bytes(self._received[at:])!r}")


class Lines:
    """How long the canary and the threads of the broker could have run, and had no processor."""

    def __init__(self, pid: str) -> None:
        self._broker = Path(f"/proc/{pid}/task")
        self._before = self._read()
        self._own_before = in_line_ms(Path("/proc/self"))

    def since_last_ms(self) -> float:
        """The canary's time in line since the last call, and that of the thread of the broker that had to wait longest.

        Of its threads one counts, since they wait for each other: for the answer, or for the lock of the interpreter.
        """
        before, own_before = self._before, self._own_before
        self._before, self._own_before = self._read(), in_line_ms(Path("/proc/self"))
        longest = max((now - before[name] for name, now in self._before.items() if name in before), default=0.0)
        return longest + self._own_before - own_before

    def _read(self) -> dict[str, float]:
        try:
            return {thread.name: in_line_ms(thread) for thread in self._broker.iterdir()}
        except OSError:
            return {}


def in_line_ms(thread: Path) -> float:
    """Return how long a thread has waited for a processor in total, in ms; 0 if the system does not tell."""
    try:
        return int((thread / "schedstat").read_bytes().split()[1]) / 1e6
    except (OSError, IndexError):
        return 0.0


def stdin_has_ended(selector: selectors.BaseSelector, seconds: float) -> bool:
    """Wait so long, or until the end of stdin; return whether it has ended."""
    return bool(selector.select(max(seconds, 0)))


def main(arguments: list[str]) -> None:
    """Sing until stdin ends or the broker does."""
    host, port, user, password, vhost, pid = arguments
    lines = Lines(pid)
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    try:
        canary = Canary(Address(host, int(port), user, password, vhost))
        next_at = time.monotonic()
        while not stdin_has_ended(selector, next_at - time.monotonic()):
            lines.since_last_ms()
            begun, confirm_ms, delivery_ms = canary.round()
            print(f"{begun:.6f} {confirm_ms:.3f} {delivery_ms:.3f} {lines.since_last_ms():.3f}", flush=True)
            next_at = max(next_at + EVERY_S, time.monotonic())
    except (OSError, Refused) as error:
        print(f"cut {type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
