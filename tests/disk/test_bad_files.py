"""Files that are not a store, or no longer one: each is refused with a line that says what to do, and left unchanged.

`FILES=2000 SEED=7 pytest -s tests/disk/test_bad_files.py` tests another number of files.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from amqpd.store.errors import StoreError
from amqpd.store.sqlite.schema import APPLICATION_ID, newest_format
from amqpd.store.sqlite.store import Store
from tests.crash.broker_process import ROOT, BrokerProcess
from tests.disk.power import Image, write_out
from tests.disk.workload import Workload, load
from tests.store.store_samples import NOW, crash, query, read_properties
from tests.support.disk import Disk
from tests.support.sizes import sized

FILES = sized(40, 200, "FILES")
SEED = int(os.environ.get("SEED") or random.SystemRandom().getrandbits(32))
MOST_S = 5
EXIT_IO, EXIT_LOCKED = 74, 75
DATABASE, LOG = "amqpd.db", "amqpd.db-wal"
REMEDY = re.compile(
    "move it away|choose another directory|restore a backup|use the amqpd that wrote it|check its (disk|permissions)|"
    "check the permissions of|"
    "choose a directory on a local disk")

Make = Callable[[random.Random, Image], Image]
MAKERS: list[Make] = []


def bad(make: Make) -> Make:
    """Have the tests make such files, from those of a sound store."""
    MAKERS.append(make)
    return make


def of_another_program(chance: random.Random, *statements: str) -> Image:
    """A file of SQLite, with these tables and settings in it."""
    path = Path(os.environ["PYTEST_TMP"]) / f"foreign-{chance.getrandbits(64)}.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)
    octets = path.read_bytes()
    path.unlink()
    return {DATABASE: octets}


@bad
def another_program(chance: random.Random, sound: Image) -> Image:
    """Make the database of another program, with any page size, and with or without a log."""
    return of_another_program(
        chance, f"PRAGMA page_size = {1 << chance.randint(9, 16)}",
        f"PRAGMA journal_mode = {chance.choice(('delete', 'wal'))}",
        f"PRAGMA application_id = {chance.choice((0, 1, APPLICATION_ID ^ 1 << chance.randrange(31)))}",
        "CREATE TABLE messages (number INTEGER PRIMARY KEY, body BLOB)",
        f"INSERT INTO messages (body) VALUES (randomblob({chance.randrange(20_000)}))")


@bad
def another_format(chance: random.Random, sound: Image) -> Image:
    """What an amqpd of some other day wrote."""
    found = chance.choice((newest_format() + 1, 99, 2**31 - 1, 0, -1))
    return of_another_program(
        chance, f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {found}",
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)", "INSERT INTO meta VALUES ('epoch', 'seven')")


@bad
def cut_short(chance: random.Random, sound: Image) -> Image:
    """The copy was interrupted, by a page at least: less than that may be nothing but free space."""
    octets = sound[DATABASE]
    return {DATABASE: octets[: chance.randrange(len(octets) - 4096)]}


@bad
def cut_short_at_a_page(chance: random.Random, sound: Image) -> Image:
    """The copy was interrupted between two pages."""
    octets = sound[DATABASE]
    return {DATABASE: octets[: 4096 * chance.randrange(len(octets) // 4096)]}


@bad
def zeros(chance: random.Random, sound: Image) -> Image:
    """From somewhere on, or from the beginning, there is nothing."""
    octets = sound[DATABASE]
    at = chance.choice((0, chance.randrange(100, len(octets) // 2)))
    return {DATABASE: octets[:at].ljust(len(octets), b"\0")}


@bad
def random_octets(chance: random.Random, sound: Image) -> Image:
    """Anything at all."""
    return {DATABASE: chance.randbytes(chance.randrange(1, 50_000))}


@bad
def a_text(chance: random.Random, sound: Image) -> Image:
    """A list of things to buy."""
    return {DATABASE: b"eggs, milk, a message broker\n" * chance.randrange(1, 1000)}


@bad
def a_head_and_random_octets(chance: random.Random, sound: Image) -> Image:
    """Its first page is ours."""
    octets = sound[DATABASE]
    return {DATABASE: octets[:4096] + chance.randbytes(len(octets) - 4096)}


@bad
def shuffled_pages(chance: random.Random, sound: Image) -> Image:
    """All is there, and in disorder."""
    octets = sound[DATABASE]
    pages = [octets[at : at + 4096] for at in range(4096, len(octets), 4096)]
    chance.shuffle(pages)
    return {DATABASE: octets[:4096] + b"".join(pages)}


@pytest.fixture
def sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image:
    """The file of a store that was stopped cleanly."""
    monkeypatch.setenv("PYTEST_TMP", str(tmp_path))
    directory = tmp_path / "sound"
    work = Workload(directory, SEED)
    work.open()
    work.commit_some(20)
    work.close()
    return {DATABASE: (directory / DATABASE).read_bytes()}


def contents(directory: Path) -> dict[str, tuple[int, bytes]]:
    """What stands in a directory, but for the lock: kind and octets."""
    return {
        path.name: (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in directory.iterdir() if path.suffix != ".lock"}


def refusal_of(directory: Path) -> str:
    """Start, and be refused, soon, in a line, with a remedy, without any change."""
    before, begun = contents(directory), time.perf_counter()
    with Disk(directory).at_work(), pytest.raises(StoreError) as refusal:
        store = Store.open(directory, now=NOW)
        try:
            store.load(read_properties)
        finally:
            store.abandon()
    text = str(refusal.value)
    assert time.perf_counter() - begun < MOST_S
    assert text.isprintable() and str(directory) in text and REMEDY.search(text) and "mistake" not in text, text
    assert contents(directory) == before, text
    return text


@pytest.mark.proof
@pytest.mark.timeout(60 + FILES)
def test_bad_files_are_refused_and_left_alone(tmp_path: Path, sound: Image) -> None:
    chance, counts = random.Random(SEED), Counter[str]()
    for number in range(FILES):
        make = MAKERS[number % len(MAKERS)]
        directory = write_out(make(chance, sound), tmp_path / f"{number}-{make.__name__}")
        refusal_of(directory)
        counts[make.__name__] += 1
        shutil.rmtree(directory)
    print(f"\nbadfile: seed {SEED}, {FILES} files refused and left alone: {dict(counts)}")


@pytest.mark.parametrize("page_size", [1024, 4096, 16384])
def test_the_log_of_another_programs_file_is_refused(tmp_path: Path, sound: Image, page_size: int) -> None:
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in (f"PRAGMA page_size = {page_size}", "PRAGMA journal_mode = WAL", "PRAGMA user_version = 1"):
            connection.execute(statement)
        connection.execute("CREATE TABLE meta (key TEXT, value TEXT)")
        log = path.with_name("theirs.db-wal").read_bytes()
    refusal_of(write_out({**sound, LOG: log}, tmp_path / "mixed"))


@pytest.mark.proof
@pytest.mark.timeout(60 + FILES)
def test_a_store_without_its_log_is_refused_or_was_whole(tmp_path: Path) -> None:
    """Killed anywhere, its log deleted, or written back by a tool: nothing that was confirmed is missing unsaid."""
    work, counts = Workload(tmp_path / "store", SEED, largest_wal=200_000), Counter[str]()
    work.open()
    for number in range(FILES):
        work.commit_some(1)
        if number % 20 == 19:
            work.close() if number % 40 == 19 else work.abandon()
            work.open()
        for way in ("deleted", "written back"):
            left = crash(tmp_path / "store", tmp_path / f"{number}-{way}")
            if way == "deleted":
                (left / LOG).unlink(missing_ok=True)
            else:
                query(left, "SELECT * FROM meta")
            try:
                store = Store.open(left, now=NOW)
                found, set_aside = load(store)
                store.abandon()
            except StoreError as refusal:
                assert "is missing" in str(refusal) and REMEDY.search(str(refusal))
                counts[f"{way}: refused"] += 1
            else:
                assert found == work.state and not set_aside, f"seed {SEED}, after {number + 1} commits, {way}"
                counts[f"{way}: whole"] += 1
            shutil.rmtree(left)
    work.close()
    print(f"\nbadfile: seed {SEED}, {FILES} times without its log: {dict(counts)}")
    assert counts["written back: whole"] == FILES and min(counts.values()) > FILES / 20


# What is no file

def a_directory(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_link_to_nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make, name", [
    (a_directory, DATABASE), (a_pipe, DATABASE), (a_link_to_nowhere, DATABASE), (a_directory, "amqpd.lock"),
    (a_pipe, "amqpd.lock"), (a_directory, LOG),
])
def test_what_is_no_file_is_refused(tmp_path: Path, sound: Image, make: Callable[[Path], None], name: str) -> None:
    directory = tmp_path / "store"
    directory.mkdir(mode=0o700)
    if name == LOG:
        (directory / DATABASE).write_bytes(sound[DATABASE])
    make(directory / name)
    refusal_of(directory)


# What may not be read or written

OPEN = """
import os, sys
from amqpd.store.errors import StoreError
from amqpd.store.sqlite.store import Store
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    Store.open(sys.argv[1], now=1)
except StoreError as refusal:
    print(refusal)
"""


@pytest.fixture
def somebodys(sound: Image) -> Iterator[Path]:
    """Make a valid store that belongs to a user other than root."""
    directory = Path(tempfile.mkdtemp(prefix="amqpd-"))
    (directory / "amqpd.lock").touch()
    (directory / DATABASE).write_bytes(sound[DATABASE])
    if os.getuid() == 0:
        for path in (directory, *directory.iterdir()):
            os.chown(path, 65534, 65534)
    yield directory
    directory.chmod(0o700)
    shutil.rmtree(directory)


@pytest.mark.parametrize("name, mode, complaint", [
    (DATABASE, 0o400, "this user cannot read and write .*amqpd.db: check its permissions, or choose another"),
    (DATABASE, 0o000, "this user cannot read and write .*amqpd.db: check its permissions, or choose another"),
    ("amqpd.lock", 0o400, "cannot open .*amqpd.lock .Permission denied.: check the permissions of .*amqpd.lock"),
])
def test_what_this_user_may_not_use_is_refused(
    somebodys: Path, sound: Image, name: str, mode: int, complaint: str
) -> None:
    (somebodys / name).chmod(mode)
    said = subprocess.run([sys.executable, "-c", OPEN, somebodys], capture_output=True, text=True, cwd=ROOT, check=True)
    assert re.fullmatch(complaint + ".*\n", said.stdout), said
    assert (somebodys / DATABASE).read_bytes() == sound[DATABASE]


def test_a_directory_that_this_user_may_not_write_is_refused(somebodys: Path, sound: Image) -> None:
    (somebodys / "amqpd.lock").unlink()
    somebodys.chmod(0o500)
    said = subprocess.run([sys.executable, "-c", OPEN, somebodys], capture_output=True, text=True, cwd=ROOT, check=True)
    assert re.fullmatch(
        f"cannot open {somebodys}/amqpd.lock .Permission denied.: check the permissions of {somebodys}\n", said.stdout)
    assert [path.name for path in somebodys.iterdir()] == [DATABASE]


def test_a_file_that_the_disk_opens_for_nobody_is_refused(tmp_path: Path, sound: Image) -> None:
    directory = write_out(sound, tmp_path / "store")
    disk = Disk(directory)
    disk.unreadable.add(DATABASE)
    with disk.at_work(), pytest.raises(StoreError, match=f"cannot use {directory}/amqpd.db .*check its disk and its"):
        Store.open(directory, now=NOW)
    assert contents(directory)[DATABASE][1] == sound[DATABASE]


def test_a_file_on_a_disk_that_takes_no_writes_is_refused(tmp_path: Path, sound: Image) -> None:
    directory = write_out(sound, tmp_path / "store")
    disk = Disk(directory)
    disk.read_only.add(DATABASE)
    with disk.at_work(), pytest.raises(StoreError, match=f"cannot use {directory}/amqpd.db .*check its disk and its"):
        Store.open(directory, now=NOW)
    assert contents(directory)[DATABASE][1] == sound[DATABASE]


# The program

Start = Callable[[Path], BrokerProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts brokers, each with its own log file; they are ended after the test."""
    running: list[BrokerProcess] = []

    def start_one(directory: Path) -> BrokerProcess:
        running.append(BrokerProcess(directory, tmp_path / f"{len(running)}.log"))
        return running[-1]

    yield start_one
    for process in running:
        process.kill()


@pytest.mark.parametrize("make", [another_program, another_format, cut_short_at_a_page, random_octets, shuffled_pages])
def test_the_program_says_one_line_and_ends_with_74(tmp_path: Path, sound: Image, start: Start, make: Make) -> None:
    directory = write_out(make(random.Random(SEED), sound), tmp_path / "store")
    before = contents(directory)
    process = start(directory)
    assert process.wait() == EXIT_IO
    assert re.fullmatch(rf"amqpd: .*{directory}/amqpd\.db.*: .*\n", process.log_path.read_text())
    assert contents(directory) == before


@pytest.mark.parametrize("make", [a_directory, a_pipe, a_link_to_nowhere])
def test_so_it_does_for_what_is_no_file(tmp_path: Path, start: Start, make: Callable[[Path], None]) -> None:
    directory = tmp_path / "store"
    directory.mkdir(mode=0o700)
    make(directory / DATABASE)
    process = start(directory)
    assert process.wait() == EXIT_IO
    assert process.log_path.read_text() == (
        f"amqpd: {directory}/amqpd.db is not a file: move it away, or choose another directory\n")


def test_a_second_broker_is_told_the_process_of_the_first_and_ends_with_75(tmp_path: Path, start: Start) -> None:
    directory = tmp_path / "store"
    first = start(directory).wait_until_ready()
    second = start(directory)
    assert second.wait() == EXIT_LOCKED
    said = re.fullmatch(
        rf"amqpd: {directory}/amqpd\.lock is held by a running broker \(process (\d+)\): stop it, or .*\n",
        second.log_path.read_text())
    assert said and int(said[1]) == first.pid
    assert first.stop() == 0
