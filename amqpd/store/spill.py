"""Spill files: messages that no store keeps, and memory has no room for, written down until their turn comes.

One file a spill file, in a directory of their own beside the store. Nothing here is synced or outlives the run: what
was transient is gone after a restart, and the directory is emptied at start.

Always true: a spill file's file is there until the last of its messages is read back or forgotten. Where but a few are
left, a file with these takes its place.
"""

from __future__ import annotations

import logging
import shutil
import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from pathlib import Path

from amqpd.message import Message, MessageProperties, Route, route_of
from amqpd.store.errors import StoreError, reason_of, remedy_for
from amqpd.store.sqlite import files

logger = logging.getLogger(__name__)

DIRECTORY = "spill"
_HEAD = struct.Struct(">qHHIII")    # number, length of names, channel, frame-max, body size, length of content


SPARSE = 4                  # a file is rewritten when this share of its messages is left, or less
FEWEST_OCTETS = 64 << 10    # of a file that is worth it


class SpillFile:
    """Some messages in a file of this size. `numbers` are those it was written with, and rise.

    `on_sparse` is called when most of the file is wanted no more.
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
        """Return the bytes of the messages that are left; from any thread. Raises OSError."""
        is_left = bytes(self._is_left)
        wanted = {number for number, left in zip(self.numbers, is_left) if left}
        octets = self._path.read_bytes()
        pieces = []
        at = 0
        while at < len(octets):
            number, names_size, _, _, _, size = _HEAD.unpack_from(octets, at)
            end = at + _HEAD.size + names_size + size
            if number in wanted:
                pieces.append(octets[at:end])
            at = end
        return b"".join(pieces)

    def move_to(self, path: Path, size: int) -> None:
        """Use this file from now on, which has at least what is left."""
        if self._left:
            path, self._path = self._path, path
            self._written, self.size = self._left, size
        path.unlink(missing_ok=True)

    def read(self) -> list[Message]:
        """All messages it was written with, in the order they were given. Raises StoreError."""
        try:
            octets = self._path.read_bytes()
        except OSError as error:
            raise StoreError(
                f"cannot read {self._path} ({reason_of(error)}): {remedy_for(error, self._path)}") from error
        routes: dict[bytes, Route] = {}
        facts: dict[bytes, MessageProperties] = {}
        messages = []
        at = 0
        while at < len(octets):
            try:
                number, names_size, channel, frame_max, body_size, size = _HEAD.unpack_from(octets, at)
            except struct.error as error:
                raise self._was_cut() from error
            start = at + _HEAD.size
            at = start + names_size + size
            if at > len(octets):
                raise self._was_cut()
            try:
                names = octets[start : start + names_size]
                route = routes.get(names)
                if route is None or (route.channel, route.frame_max) != (channel, frame_max):
                    route = routes[names] = route_of(names, channel, frame_max)
                message = Message(number, route, _NO_PROPERTIES, octets[start + names_size : at], body_size)
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

    def _was_cut(self) -> StoreError:
        return StoreError(f"{self._path} was cut while the broker ran: start it again")

    def forget(self, numbers: Iterable[int]) -> None:
        """Those of these that it has are wanted no more; with the last one the file goes."""
        own, is_left = self.numbers, self._is_left
        for number in numbers:
            place = bisect_left(own, number)
            if place < len(own) and own[place] == number and is_left[place]:
                is_left[place] = 0
                self._left -= 1
                if not self._left:
                    self._path.unlink(missing_ok=True)
        if 0 < self._left * SPARSE <= self._written and self.size >= FEWEST_OCTETS:
            self._written = 0       # so that it is asked for once
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
        """Drop all there is, of whatever run."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def write(self, run: Sequence[Message]) -> SpillFile:
        """Write messages down; from any thread, one at a time. Raises StoreError, and leaves no file then."""
        pieces: list[bytes] = []
        for message in run:
            route, content = message.route, message.content
            pieces += (
                _HEAD.pack(
                    message.number, len(route.octets), route.channel, route.frame_max, message.body_size,
                    len(content)), route.octets, content)
        octets = b"".join(pieces)
        return SpillFile(self._write(octets), run, len(octets), self._read_properties, self.on_sparse)

    def rewrite(self, spill_file: SpillFile) -> tuple[Path, int]:
        """Write what is left of a spill file to another file, and return that and its size; as `write`."""
        try:
            octets = spill_file.left_in_file()
        except (OSError, struct.error) as error:
            raise StoreError(f"cannot read a file of {self._directory} ({error}): check its disk") from error
        return self._write(octets), len(octets)

    def _write(self, octets: bytes) -> Path:
        path = self._directory / f"{next(self._names)}.spill"
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            files.make_empty(path)
            with open(path, "wb") as file:
                file.write(octets)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise StoreError(
                f"cannot write {path} ({reason_of(error)}): {remedy_for(error, path)}") from error
        return path


def _keep(spill_file: SpillFile) -> None:
    """Leave it as it is."""
