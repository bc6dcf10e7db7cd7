"""The clients that have not logged in: how many there are, from where, and which of them made no progress for longest.

Owns the counts and the order; plain and synchronous. Sockets are the listener's.

Progress is the next step of the handshake, not bytes, so that one who sends an byte now and then counts as silent.
A client whose password is looked at waits for us, and is not silent.

Always true between calls: a client is counted for its address and in all until it is removed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

PATIENCE_MS, LONG_PATIENCE_MS = 2_000, 7_000

Client = TypeVar("Client", bound=Hashable)


class Unauthenticated(Generic[Client]):
    """`limit` is for all clients together, `limit_per_address` for those of one address.

    A client may have to go for another after `patience_ms` without progress of anybody there, and after
    `long_patience_ms` while others do make progress: where very many come at once, all are slow.
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
        self._stepped_ms: dict[str | None, int] = {}    # when anybody took a step, by address; None stands for all
        self._silent: OrderedDict[Client, int] = OrderedDict()      # by progress, the oldest first
        self._silent_of: dict[str, OrderedDict[Client, int]] = {}

    def __len__(self) -> int:
        return len(self._addresses)

    def has_room(self, address: str) -> bool:
        """Return whether one more of this address fits."""
        return self._counts.get(address, 0) < self.limit_per_address

    def add(self, client: Client, address: str) -> None:
        """Count a client that has just come; nothing is expected from it yet."""
        self._addresses[client] = address
        self._counts[address] = self._counts.get(address, 0) + 1

    def note_step(self, client: Client, now_ms: int) -> None:
        """Note that the client has taken a step; what comes next is ours, unless `expect_progress` is called."""
        address = self._addresses.get(client)
        if address is not None:
            self._stepped_ms[address] = self._stepped_ms[None] = now_ms
            self.expect_nothing(client)

    def expect_progress(self, client: Client, now_ms: int) -> None:
        """Note that the next step is the client's, from now on."""
        address = self._addresses.get(client)
        if address is not None:
            self.expect_nothing(client)
            self._silent[client] = now_ms
            self._silent_of.setdefault(address, OrderedDict())[client] = now_ms

    def expect_nothing(self, client: Client) -> None:
        """Note that the client does not have to do anything, so that it is not silent."""
        if self._silent.pop(client, None) is not None:
            address = self._addresses[client]
            silent = self._silent_of[address]
            del silent[client]
            if not silent:
                del self._silent_of[address]

    def remove(self, client: Client) -> None:
        """Count the client no longer: it has logged in, or gone; harmless for one that is not counted."""
        self.expect_nothing(client)
        address = self._addresses.pop(client, None)
        if address is None:
            return
        self._counts[address] -= 1
        if not self._counts[address]:
            del self._counts[address]
            self._stepped_ms.pop(address, None)

    def excuse(self, gap_ms: int, now_ms: int) -> None:
        """Do not count a time in which nobody could be heard."""
        for times in (self._silent, *self._silent_of.values()):
            for client, since_ms in times.items():
                times[client] = min(now_ms, since_ms + gap_ms)
        for address, stepped_ms in self._stepped_ms.items():
            self._stepped_ms[address] = min(now_ms, stepped_ms + gap_ms)

    def longest_silent(self, now_ms: int, address: str | None = None) -> Client | None:
        """Return who made no progress for longest, of this address or of all; None if nobody is silent for long."""
        silent = self._silent if address is None else self._silent_of.get(address)
        if not silent:
            return None
        client, since_ms = next(iter(silent.items()))
        is_quiet = now_ms - self._stepped_ms.get(address, 0) >= self.patience_ms
        return client if now_ms - since_ms >= (self.patience_ms if is_quiet else self.long_patience_ms) else None
