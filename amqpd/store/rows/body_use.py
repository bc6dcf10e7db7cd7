"""Which parts of large bodies are used: they are written before their messages, and deleted after them.

Several rows may have the same body: copies that were dead-lettered, or were published to very many queues. Parts are
unused once no row has their body and no message in memory has it, which may still get a row; see `message.StoredBody`.

Deleting a part takes a third of the time of writing it. So unused parts are deleted in slices: with each write, so that
deleting keeps pace, and while there is nothing else to do. Each engine has a class on top of this with the table.

Always true between transactions: `_bodies` are the bodies of message rows; each part belongs to a body of a message
row, of a row in `damaged`, or of a message in memory, or it is about to be deleted.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence

from amqpd.message import StoredBody

ID_STEP = 1_024             # between the numbers of two bodies, which have 512 parts at most
DELETED_AT_ONCE = 8         # parts, while there is nothing else to do
DELETED_WITH_BATCH = 2
DELETED_A_PART = 2          # with each part that is written


class BodyUse:
    """The bodies of one store. Changes within a transaction are staged until `keep`, or dropped by `forget`."""

    def __init__(self) -> None:
        self._next_id = 0
        self._bodies: dict[int, int] = {}                   # the body of each message row
        self._rows: Counter[int] = Counter()                # how many have this body, damaged ones too
        self._counts: dict[int, int] = {}                   # parts of each body that is in use
        self._in_memory: Counter[int] = Counter()           # how many `StoredBody` objects there are
        self._news: deque[tuple[int, int]] = deque()        # how these change; any thread may append
        self._dead: deque[tuple[int, int]] = deque()        # parts to be deleted: the first, and how many
        self._recorded: dict[int, int] = {}                 # as `_bodies`, in this transaction
        self._gone: set[int] = set()                        # messages, likewise
        self._written: tuple[int, int] | None = None        # a body and its parts, likewise
        self._deleted = 0                                   # parts, likewise

    def know(
        self, bodies: Mapping[int, int], damaged: Iterable[int], parts: Iterable[int], first_id: int
    ) -> None:
        """Take over what there is at start: bodies by message number, those of damaged rows, and parts in order.

        New bodies get numbers from `first_id` on.
        """
        self._next_id = first_id
        self._bodies = {**bodies}
        self._rows.update(self._bodies.values())
        self._rows.update(damaged)
        found: dict[int, list[int]] = {}
        for number in parts:
            found.setdefault(number - number % ID_STEP, []).append(number)
        for body_id, numbers in found.items():
            count = numbers[-1] - numbers[0] + 1
            if body_id in self._rows:
                self._counts[body_id] = count
            else:
                self._dead.append((numbers[0], count))

    # Messages in memory

    def hold(self, size: int, body_id: int, checksums: Sequence[int]) -> StoredBody:
        """Return the body of a message that has been read."""
        self._news.append((body_id, 1))
        return StoredBody(size, self.release, body_id, checksums)

    def release(self, body_id: int) -> None:
        """Note that there is one `StoredBody` less with this body. Any thread may call this."""
        self._news.append((body_id, -1))

    def _take_news(self) -> None:
        while self._news:
            body_id, change = self._news.popleft()
            self._in_memory[body_id] += change
            if not self._in_memory[body_id]:
                del self._in_memory[body_id]
                self._delete_if_unused(body_id)

    def _delete_if_unused(self, body_id: int) -> None:
        if body_id not in self._rows and body_id not in self._in_memory and body_id in self._counts:
            self._dead.append((body_id, self._counts.pop(body_id)))

    # Changes

    def give_id(self, stored: StoredBody) -> None:
        """Give a body its number with its first part."""
        if not stored.body_id:
            stored.body_id = self._next_id
            self._next_id += ID_STEP
            self._news.append((stored.body_id, 1))

    def note_written(self, stored: StoredBody, count: int) -> None:
        """Note that a body has so many parts by now, one of which is written in this transaction."""
        self._written = stored.body_id, count

    def record(self, bodies: Iterable[tuple[int, int]]) -> None:
        """Note the bodies of messages whose rows have been written, by message number."""
        self._recorded.update(bodies)

    def of_messages(self, numbers: Iterable[int] | None) -> list[int]:
        """Return which of these messages, or of all, have a body in parts, and so may have lost their rows."""
        if not self._bodies:
            return []
        return [*self._bodies] if numbers is None else [*self._bodies.keys() & numbers]

    def note_gone(self, candidates: Iterable[int], left: Iterable[int]) -> None:
        """Note that those of these messages that are not left have no row any more."""
        self._gone |= {*candidates}.difference(left)

    def next_dead(self, most: int) -> list[tuple[int, int]]:
        """Return up to so many unused parts, which are deleted in this transaction, as first and last numbers."""
        self._take_news()
        left, skipped, ranges = most, self._deleted, []
        for first, count in self._dead:
            if skipped >= count:
                skipped -= count
                continue
            first, count = first + skipped, count - skipped
            skipped = 0
            now = min(count, left)
            ranges.append((first, first + now - 1))
            self._deleted += now
            left -= now
            if not left:
                break
        return ranges

    def find_dead(self) -> bool:
        """Return whether there are unused parts."""
        self._take_news()
        return bool(self._dead)

    def keep(self) -> None:
        """Note that the changes are committed."""
        if self._recorded:
            self._bodies.update(self._recorded)
            self._rows.update(self._recorded.values())
        if self._written is not None:
            body_id, count = self._written
            self._counts[body_id] = count
        while self._deleted:
            first, count = self._dead.popleft()
            now = min(count, self._deleted)
            self._deleted -= now
            if now < count:
                self._dead.appendleft((first + now, count - now))
        self._drop(self._gone)

    def drop_rows(self, candidates: Iterable[int], left: Iterable[int]) -> None:
        """Note that those of these messages that are not left have lost their rows: it is committed already."""
        self._drop({*candidates}.difference(left))

    def _drop(self, gone: Iterable[int]) -> None:
        for number in gone:
            body_id = self._bodies.pop(number)
            self._rows[body_id] -= 1
            if not self._rows[body_id]:
                del self._rows[body_id]
                self._delete_if_unused(body_id)

    def forget(self) -> None:
        """Forget what was changed since the last transaction."""
        self._recorded.clear()
        self._gone.clear()
        self._written = None
        self._deleted = 0

    def leave(self, numbers: Iterable[int]) -> None:
        """Keep the bodies of these messages, which are moved to the table `damaged`."""
        for number in numbers:
            self._bodies.pop(number, None)

    def check_against(self, bodies: Mapping[int, int], there: set[int]) -> None:
        """Assert what must hold between transactions: the bodies of rows, and the parts that there are."""
        assert not (self._recorded or self._gone or self._written or self._deleted)
        assert self._bodies == bodies
        assert Counter(self._bodies.values()) <= self._rows
        assert min([*self._rows.values(), *self._in_memory.values()], default=1) > 0
        kept = {one for body_id in self._bodies.values()
                for one in range(body_id, body_id + self._counts[body_id])}
        dead = {one for first, count in self._dead for one in range(first, first + count)}
        assert kept <= there, "a body lacks parts"
        assert not kept & dead, "a body is to be deleted that a message has"
