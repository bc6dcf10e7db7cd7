"""A fair queue: addresses take turns, and the users of an address take turns, however many items each of them has."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

FEWEST_SWEPT = 256      # items, from which on unwanted items are searched for

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """A queue of items by address and user. An item that `is_wanted` rejects is never returned, and is soon dropped."""

    def __init__(self, is_wanted: Callable[[Item], bool]) -> None:
        self._is_wanted = is_wanted
        self._turns: OrderedDict[str, OrderedDict[str, deque[Item]]] = OrderedDict()
        self._count = 0
        self._sweep_at = FEWEST_SWEPT

    def __len__(self) -> int:
        return self._count

    def put(self, address: str, user: str, item: Item) -> None:
        """Append an item to those of its address and user."""
        self._turns.setdefault(address, OrderedDict()).setdefault(user, deque()).append(item)
        self._count += 1
        if self._count > self._sweep_at:
            self._sweep()

    def take(self) -> Item | None:
        """Remove and return the next wanted item; None if there is none."""
        while self._turns:
            address, users = self._turns.popitem(last=False)
            user, items = users.popitem(last=False)
            item = items.popleft()
            self._count -= 1
            if items:
                users[user] = items
            if users:
                self._turns[address] = users
            if self._is_wanted(item):
                return item
        return None

    def _sweep(self) -> None:
        """Drop unwanted items. Called each time the queue has doubled, so it costs little for each item."""
        turns, self._turns, self._count = self._turns, OrderedDict(), 0
        for address, users in turns.items():
            for user, items in users.items():
                wanted = deque(item for item in items if self._is_wanted(item))
                if wanted:
                    self._turns.setdefault(address, OrderedDict())[user] = wanted
                    self._count += len(wanted)
        self._sweep_at = max(FEWEST_SWEPT, 2 * self._count)
