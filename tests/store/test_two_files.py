"""Tools that read one store and write another one: an error names the file that failed, and what helps there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from amqpd.store.errors import StoreError, StoreFull
from amqpd.store.sqlite.store import Store
from amqpd.store.tools import compacting, copies
from amqpd.store.tools.copies import StoreDamaged
from amqpd.store.tools.salvaging import salvage
from tests.store.kept_store import spoil, stop, tree
from tests.store.store_samples import NOW, load, query
from tests.support.disk import Disk, Fault

Tool = Callable[[Path, Path], object]
TOOLS: dict[str, Tool] = {
    "backup": copies.backup,
    "restore": copies.restore,
    "compact": lambda kept, to: compacting.compact(kept),
    "salvage": lambda kept, to: salvage(kept, to, NOW),
}
NEW = {"backup": r"/to(/amqpd\.db)?", "restore": r"/to/amqpd\.db(\.new)?", "compact": r"kept/amqpd\.db(\.new)?",
       "salvage": r"/to(/amqpd\.db(\.new)?)?"}
EVERY_TOOL = pytest.mark.parametrize("tool", TOOLS)


class FilesOfDisk(Disk):
    """A disk on which only some files fail: those whose path below the directory fits a pattern."""

    def __init__(self, directory: Path, pattern: str, fault: Fault | None = None) -> None:
        super().__init__(directory / "nothing of it", fault)
        self._root = str(directory.resolve())
        self._pattern = re.compile(pattern)

    def holds(self, path: str) -> bool:
        """Whether it is one of these files."""
        return path.startswith(self._root + "/") and self._pattern.fullmatch(path, len(self._root) + 1) is not None


# A directory that is being made has a name of its own.
NEW_FILES = r"(to\..*\.new|to)/amqpd\.db.*|kept/amqpd\.db\.new.*"


@pytest.fixture
def big(kept: Path) -> Path:
    """The directory of a stopped store that is larger than SQLite keeps in memory."""
    query(stop(kept), "CREATE TABLE more (octets)")
    query(kept, "INSERT INTO more SELECT randomblob(3000) FROM message_rows")
    return kept


def failures(
    tool: str, kept: Path, tmp_path: Path, pattern: str, kind: str, how: str
) -> list[StoreError]:
    """Return what the tool says if an operation of this kind fails: one of the first, of the middle, of the last."""
    told = []
    if tool == "compact":
        compacting.compact(kept)        # so that the next time takes as long as the others
    with FilesOfDisk(tmp_path, pattern).at_work() as sound:
        TOOLS[tool](kept, tmp_path / "to")
    count = sound.counts[kind]
    chosen = {1, 2, count // 2 + 1, count - 2, count - 1, count}
    if kind == "sync":
        chosen = {*range(1, count + 1)}
    elif kind == "read":    # salvage can do without some
        chosen = {1, 2, count // 2 + 1} if tool != "salvage" else {1, 2}
    before = tree(kept)
    for nth in sorted(chosen & {*range(1, count + 1)}):
        if (tmp_path / "to").exists():
            (tmp_path / "to").rename(tmp_path / f"made before {nth}")
        with FilesOfDisk(tmp_path, pattern, Fault(kind, nth, how)).at_work() as disk:
            with pytest.raises(StoreError) as refused:
                TOOLS[tool](kept, tmp_path / "to")
            assert disk.has_failed
            told.append(refused.value)
        assert tool == "compact" or tree(kept) == before
        assert not [*tmp_path.glob("to*/amqpd.db*")] and not [*kept.glob("*.new*")], "half of a store is left"
    return told


@EVERY_TOOL
@pytest.mark.parametrize("kind", ["write", "sync"])
def test_a_disk_without_room_for_the_new_file_is_told_by_its_name(
    big: Path, tmp_path: Path, tool: str, kind: str
) -> None:
    for error in failures(tool, big, tmp_path, NEW_FILES, kind, "ENOSPC"):
        assert re.search(NEW[tool] + "[: ]", str(error)) and "kept/amqpd.db " not in str(error)
        assert kind == "sync" or isinstance(error, StoreFull) and str(error).endswith(": free some on its disk")


@EVERY_TOOL
def test_a_new_file_that_cannot_be_written_is_told_by_its_name(big: Path, tmp_path: Path, tool: str) -> None:
    for error in failures(tool, big, tmp_path, NEW_FILES, "write", "EIO"):
        assert re.search(NEW[tool] + "[: ]", str(error)) and str(error).endswith(": check its disk and its permissions")


@EVERY_TOOL
def test_a_store_that_cannot_be_read_is_told_by_its_name(big: Path, tmp_path: Path, tool: str) -> None:
    for error in failures(tool, big, tmp_path, r"kept/amqpd\.db", "read", "EIO"):
        assert re.match(f"cannot use {big}/amqpd.db .disk I/O error.: |{big}/amqpd.db is damaged", str(error))


def test_a_backup_of_a_store_with_a_damaged_page_names_the_store(kept: Path, tmp_path: Path) -> None:
    (root,), = query(stop(kept), "SELECT rootpage FROM sqlite_master WHERE name = 'queue_rows'")
    spoil(kept, root)
    with pytest.raises(StoreDamaged, match=f"^{kept}/amqpd.db is damaged .*: restore a backup, or save what can be"):
        copies.backup(kept, tmp_path / "to")
    with pytest.raises(StoreDamaged, match=f"^{kept}/amqpd.db is damaged "):
        copies.restore(kept, tmp_path / "to")


def test_compact_names_a_store_with_a_damaged_message(kept: Path) -> None:
    query(stop(kept), "UPDATE message_rows SET checksum = 0 WHERE number = 2")
    with pytest.raises(StoreDamaged, match=f"^{kept}/amqpd.db is damaged "):
        compacting.compact(kept)


@pytest.mark.parametrize("tool", ["backup", "salvage"])
def test_a_file_that_may_not_be_looked_at_is_told_by_its_name(
    kept: Path, tmp_path: Path, tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exists = Path.exists

    def refuse(path: Path) -> bool:
        if path.name == "amqpd.db-wal":
            raise PermissionError(13, "Permission denied", str(path))
        return exists(path)

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(StoreError, match=f"^cannot use {kept}/amqpd.db-wal .Permission denied.: check the permissions"):
        TOOLS[tool](kept, tmp_path / "to")


def test_a_backup_of_a_running_broker_that_cannot_read_its_store_names_the_store(
    big: Path, tmp_path: Path
) -> None:
    with FilesOfDisk(tmp_path, r"kept/amqpd\.db").at_work() as disk:
        store = Store.open(big, now=NOW)
        load(store)
        disk.fault = Fault("read", disk.counts["read"] + 20)
        with pytest.raises(StoreError, match=f"cannot use {big}/amqpd.db .disk I/O error."):
            store.backup(tmp_path / "copy.db", lambda left, total: None)
        store.abandon()
