"""Spill files: transient messages that memory has no room for, on disk until they are delivered.

They are in a directory of their own beside the store. Nothing here is synced or outlives the run: transient messages
are gone after a restart, and the directory is emptied at start.

Always true: a spill file exists until the last of its messages has been forgotten. When only a few are left, a smaller
file with these takes its place.
"""

from __future__ import annotations

import logging
import shutil
import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

from amqpd.message import Message, MessageProperties, Route, route_of
from amqpd.store import files
from amqpd.store.errors import StoreError, reason_of, remedy_for

logger = logging.getLogger(__name__)

DIRECTORY = "spill"
_HEAD = struct.Struct(">qHHIII")    # number, length of names, channel, frame-max, body size, length of content

SPARSE = 4                  # a file is rewritten when a quarter of its messages is left, or less
FEWEST_BYTES = 64 << 10     # of a file that is worth rewriting


class SpillFile:
    """Some messages in a file of `size` bytes. `numbers` are those it was written with, and rise.

    `on_sparse` is called once when most of the messages have been forgotten.
    """

    def __init__(
        self, path: Path, run: Sequence[Message], size: int, read_properties: Callable[[bytes], MessageProperties],
        on_sparse: Callable[[SpillFile], None],
    ) -> None:
        self.numbers = array("q", [message.number for message in run])
        self._path = path
        self._read_properties = read_properties
        self._is_left = bytearray(b"\1") * len(run)     # by place: many spill files can be waiting
        self._left = self._written = len(run)
        self.size = size
        self._on_sparse = on_sparse

    @property
    def has_messages(self) -> bool:
        """Return whether any is left."""
        return self._left > 0

    def left_in_file(self) -> bytes:
        """Return the bytes of the messages that are left; from any thread. Raises StoreError."""
        is_left = bytes(self._is_left)
        wanted = {number for number, left in zip(self.numbers, is_left) if left}
        found = self._read_file()
        return b"".join([found[start:end] for start, end, head in self._records(found) if head[0] in wanted])

    def move_to(self, path: Path, size: int) -> None:
        """Use this file of `size` bytes from now on; it has at least the messages that are left."""
        if self._left:
            path, self._path = self._path, path
            self._written, self.size = self._left, size
        path.unlink(missing_ok=True)

    def read(self) -> list[Message]:
        """Return all messages of the file, in the order in which they were written. Raises StoreError."""
        found = self._read_file()
        routes: dict[bytes, Route] = {}
        facts: dict[bytes, MessageProperties] = {}
        messages = []
        for start, end, (number, names_size, channel, frame_max, body_size, _) in self._records(found):
            try:
                names_start = start + _HEAD.size
                names_end = names_start + names_size
                names = found[names_start:names_end]
                route = routes.get(names)
                if route is None or (route.channel, route.frame_max) != (channel, frame_max):
                    route = routes[names] = route_of(names, channel, frame_max)
                message = Message(number, route, _NO_PROPERTIES, found[names_end:end], body_size)
                properties = message.properties
                known = facts.get(properties)
                if known is None:
                    known = facts[properties] = self._read_properties(properties)
            except MemoryError:
                raise
            except Exception as error:
                logger.error("a message of %s cannot be read and is dropped: %s: %s", self._path, type(error).__name__,
                             error)
                continue
            message.facts = known
            messages.append(message)
        return messages

    def _read_file(self) -> bytes:
        """Return the whole file. Raises StoreError where it cannot be read, or has not the size it was written with."""
        try:
            found = self._path.read_bytes()
        except OSError as error:
            raise StoreError(
                f"cannot read {self._path} ({reason_of(error)}): {remedy_for(error, self._path)}") from error
        if len(found) != self.size:
            raise self._was_changed("cut")
        return found

    def _records(self, found: bytes) -> Iterator[tuple[int, int, tuple[int, ...]]]:
        """Return start, end and head of each message. Raises StoreError where a head does not fit the file."""
        at = 0
        while at < len(found):
            try:
                head = _HEAD.unpack_from(found, at)
            except struct.error as error:
                raise self._was_changed("changed") from error
            end = at + _HEAD.size + head[1] + head[5]
            if end > len(found):
                raise self._was_changed("changed")
            yield at, end, head
            at = end

    def _was_changed(self, how: str) -> StoreError:
        return StoreError(f"{self._path} was {how} while the broker ran: start it again")

    def forget(self, numbers: Iterable[int]) -> None:
        """Drop these messages from the file, as far as it has them; delete the file with its last message."""
        own, is_left = self.numbers, self._is_left
        for number in numbers:
            place = bisect_left(own, number)
            if place < len(own) and own[place] == number and is_left[place]:
                is_left[place] = 0
                self._left -= 1
                if not self._left:
                    self._path.unlink(missing_ok=True)
        if 0 < self._left * SPARSE <= self._written and self.size >= FEWEST_BYTES:
            self._written = 0       # so that `on_sparse` is called once
            self._on_sparse(self)


_NO_PROPERTIES = MessageProperties()


class Spill:
    """The directory of the spill files of a run. `read_properties` reads the bytes of properties."""

    def __init__(self, directory: Path, read_properties: Callable[[bytes], MessageProperties]) -> None:
        self._directory = directory / DIRECTORY
        self._read_properties = read_properties
        self._names = count(1)
        self.on_sparse: Callable[[SpillFile], None] = _keep
        self.clear()

    def clear(self) -> None:
        """Delete all spill files, also those of an earlier run."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def write(self, run: Sequence[Message]) -> SpillFile:
        """Write messages to a new spill file; from any thread, one call at a time.

        Raises StoreError, and leaves no file then.
        """
        pieces: list[bytes] = []
        for message in run:
            route, content = message.route, message.content
            pieces += (
                _HEAD.pack(
                    message.number, len(route.packed_names), route.channel, route.frame_max, message.body_size,
                    len(content)), route.packed_names, content)
        packed = b"".join(pieces)
        return SpillFile(self._write(packed), run, len(packed), self._read_properties, self.on_sparse)

    def rewrite(self, spill_file: SpillFile) -> tuple[Path, int]:
        """Write what is left of a spill file to a new file; return its path and size. Called and raises as `write`."""
        left = spill_file.left_in_file()
        return self._write(left), len(left)

    def _write(self, packed: bytes) -> Path:
        path = self._directory / f"{next(self._names)}.spill"
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            files.make_empty(path)
            with open(path, "wb") as file:
                file.write(packed)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise StoreError(
                f"cannot write {path} ({reason_of(error)}): {remedy_for(error, path)}") from error
        return path


def _keep(spill_file: SpillFile) -> None:
    """Leave the file as it is."""
