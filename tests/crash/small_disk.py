"""A disk of a few megabytes, on which a broker can run and which a test can fill: `SmallDisk`.

It is a tmpfs in a mount namespace of its own, which needs no root if users may create namespaces, as on Debian. If they
may not, as in some containers, `python small_disk.py BYTES FOLDER COMMAND …` runs the broker in a folder that stands
for such a disk: the sizes of its files are added up, and SQLite gets no more pages when they reach the limit.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from amqpd.cli import main
from amqpd.server import alarms
from amqpd.store import ballast
from amqpd.store.sqlite.database import Database

NAMESPACES = (("--mount",), ("--user", "--map-root-user", "--mount"))
MOUNT = 'mount -t tmpfs -o mode=700,size="$1" none "$2" && echo mounted && read -r _'
PAGE = 4_096
MOST_AT_ONCE = 1 << 20


class SmallDisk:
    """The disk. `path` is where this process sees it, `inside` where the broker does."""

    def __init__(self, folder: Path, size: int) -> None:
        self.inside = folder
        self.size = size
        self._holder: subprocess.Popen[str] | None = None
        self._enter: tuple[str, ...] = ()
        for namespaces in NAMESPACES:
            if self._mount(namespaces):
                break

    def __enter__(self) -> SmallDisk:
        return self

    def __exit__(self, *_: object) -> None:
        if self._holder is not None:
            self._holder.communicate("\n")

    def _mount(self, namespaces: tuple[str, ...]) -> bool:
        holder = subprocess.Popen(
            ["unshare", *namespaces, "sh", "-c", MOUNT, "mount", str(self.size), str(self.inside)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert holder.stdout is not None
        if holder.stdout.readline() != "mounted\n":
            holder.communicate("\n")
            return False
        self._holder = holder
        entered = [f"--{name}=/proc/{holder.pid}/ns/{short}" for name, short in (("user", "user"), ("mount", "mnt"))
                   if f"--{name}" in namespaces]
        keeps = ["--preserve-credentials"] if "--user" in namespaces else []
        self._enter = ("nsenter", *entered, *keeps)
        return True

    @property
    def kind(self) -> str:
        """What kind of disk it is, for reports."""
        return "tmpfs" if self._holder is not None else "counted"

    @property
    def path(self) -> Path:
        """The disk's root."""
        return Path(f"/proc/{self._holder.pid}/root{self.inside}") if self._holder is not None else self.inside

    def command(self, *command: str) -> tuple[str, ...]:
        """The command that runs a broker on this disk, given the one that runs it elsewhere."""
        if self._holder is not None:
            return (*self._enter, *command)
        return (sys.executable, __file__, str(self.size), str(self.inside))

    def free(self) -> int:
        """Octets that are free."""
        if self._holder is None:
            return self.size - taken(self.inside)
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, *, leave: int = 0) -> None:
        """Let another program take all but this much of what is left."""
        with (self.path / "other").open("ab", buffering=0) as file, suppress(OSError):
            while self.free() >= leave + PAGE:
                file.write(bytes(min(MOST_AT_ONCE, self.free() - leave) // PAGE * PAGE))

    def make_room(self) -> None:
        """Let that program give all of it back."""
        (self.path / "other").unlink()


def taken(folder: Path) -> int:
    """What the files in a folder take on their disk."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


class CountedDisk:
    """In the broker's process: a folder that counts as a disk."""

    def __init__(self, size: int, folder: Path) -> None:
        self._size = size
        self._folder = folder

    def free(self, directory: Path) -> int:
        """Octets that are free."""
        return max(0, self._size - taken(self._folder))

    def install(self) -> None:
        """Have the broker believe it."""
        for module in (alarms, ballast):
            assert hasattr(module, "free_bytes")
            setattr(module, "free_bytes", self.free)
        transaction = Database.transaction
        disk = self

        @contextmanager
        def limited(self: Database) -> Iterator[sqlite3.Connection]:
            with transaction(self) as connection:
                if disk.free(disk._folder) < 16 * PAGE:
                    fill_up(connection)
                yield connection

        setattr(Database, "transaction", limited)


def fill_up(connection: sqlite3.Connection) -> None:
    """Request one page more than allowed, so that SQLite raises its own error."""
    pages, = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    try:
        connection.execute("CREATE TABLE more (octets)")
        connection.execute("INSERT INTO more VALUES (zeroblob(500000000))")
    finally:
        connection.execute("PRAGMA max_page_count = 4294967294").fetchall()


if __name__ == "__main__":
    CountedDisk(int(sys.argv[1]), Path(sys.argv[2])).install()
    sys.exit(main(sys.argv[3:]))
