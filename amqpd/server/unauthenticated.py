"""The clients before login: how many there are, from which address, and which of them is stuck longest.

Owns the counts and the order; plain and synchronous. The listener has the sockets.

Progress is the next step of the handshake, not bytes, so that a client that sends a byte now and then counts as silent.
A client whose password is being checked waits for us, and is not silent.

Always true between calls: a client is counted, for its address and in all, until it is removed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

PATIENCE_MS, LONG_PATIENCE_MS = 2_000, 7_000

Client = TypeVar("Client", bound=Hashable)


class Unauthenticated(Generic[Client]):
    """The clients before login. `limit` is for all together, `limit_per_address` for those of one address.

    A client may be replaced after `patience_ms` in which no client of its group made progress, and after
    `long_patience_ms` if others made progress: when very many clients come at once, all of them are slow.
    """

    def __init__(
        self, limit: int, limit_per_address: int, patience_ms: int = PATIENCE_MS,
        long_patience_ms: int = LONG_PATIENCE_MS,
    ) -> None:
        self.limit = limit
        self.limit_per_address = limit_per_address
        self.patience_ms = patience_ms
        self.long_patience_ms = long_patience_ms
        self._addresses: dict[Client, str] = {}
        self._counts: dict[str, int] = {}
        self._stepped_ms: dict[str | None, int] = {}    # time of the last step by address; None stands for all
        self._silent: OrderedDict[Client, int] = OrderedDict()      # by progress, longest silent first
        self._silent_of: dict[str, OrderedDict[Client, int]] = {}

    def __len__(self) -> int:
        return len(self._addresses)

    def has_room(self, address: str) -> bool:
        """Return whether one more client of this address fits."""
        return self._counts.get(address, 0) < self.limit_per_address

    def add(self, client: Client, address: str) -> None:
        """Count a new client; nothing is expected from it yet."""
        self._addresses[client] = address
        self._counts[address] = self._counts.get(address, 0) + 1

    def note_step(self, client: Client, now_ms: int) -> None:
        """Record a step of the client; the next step is ours, unless `expect_progress` is called."""
        address = self._addresses.get(client)
        if address is not None:
            self._stepped_ms[address] = self._stepped_ms[None] = now_ms
            self.expect_nothing(client)

    def expect_progress(self, client: Client, now_ms: int) -> None:
        """Record that the next step is the client's, from now on."""
        address = self._addresses.get(client)
        if address is not None:
            self.expect_nothing(client)
            self._silent[client] = now_ms
            self._silent_of.setdefault(address, OrderedDict())[client] = now_ms

    def expect_nothing(self, client: Client) -> None:
        """Record that the client need not act, so that it is not silent."""
        if self._silent.pop(client, None) is not None:
            address = self._addresses[client]
            silent = self._silent_of[address]
            del silent[client]
            if not silent:
                del self._silent_of[address]

    def remove(self, client: Client) -> None:
        """Stop counting a client that has logged in or gone; a client that is not counted is ignored."""
        self.expect_nothing(client)
        address = self._addresses.pop(client, None)
        if address is None:
            return
        self._counts[address] -= 1
        if not self._counts[address]:
            del self._counts[address]
            self._stepped_ms.pop(address, None)

    def excuse(self, gap_ms: int, now_ms: int) -> None:
        """Do not count a gap, in which no client was read, as silence."""
        for times in (self._silent, *self._silent_of.values()):
            for client, since_ms in times.items():
                times[client] = min(now_ms, since_ms + gap_ms)
        for address, stepped_ms in self._stepped_ms.items():
            self._stepped_ms[address] = min(now_ms, stepped_ms + gap_ms)

    def longest_silent(self, now_ms: int, address: str | None = None) -> Client | None:
        """Return the client that is silent longest, of this address or of all; None if none is silent for long."""
        silent = self._silent if address is None else self._silent_of.get(address)
        if not silent:
            return None
        client, since_ms = next(iter(silent.items()))
        is_quiet = now_ms - self._stepped_ms.get(address, 0) >= self.patience_ms
        return client if now_ms - since_ms >= (self.patience_ms if is_quiet else self.long_patience_ms) else None
