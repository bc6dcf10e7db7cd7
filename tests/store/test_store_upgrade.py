"""The upgrade of a store of an earlier format: everything is kept, whatever happens during it."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest

from amqpd.broker.definitions import (
    BindingDefinition,
    Definition,
    ExchangeDefinition,
    GlobalParameterDefinition,
    ParameterDefinition,
    PermissionDefinition,
    PolicyDefinition,
    QueueDefinition,
    TopicPermissionDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.fields import LongString, Timestamp
from amqpd.store.errors import StoreError
from amqpd.store.sqlite import connecting, schema
from amqpd.store.sqlite.store import Store
from tests.store.store_samples import NOW, PERSISTENT, Whole, contents, load, query
from tests.support.sizes import sized

STEP = sized(12, 4)     # between the points at which one part kills
FORMATS = {number: Path(__file__).with_name(f"format_{number}.sql").read_text() for number in (1, 2, 3, 4, 5)}

# What is in those files.
DEFINITIONS = [
    VhostDefinition("/", "the default", ("x",)),
    VhostDefinition("nul \x00"),
    UserDefinition("ann", "hash", "scrypt", ("administrator",)),
    PermissionDefinition("ann", "/", ".*", "^a", ""),
    PolicyDefinition("/", "p", "^q", {"max-length": 5}, 3, "queues"),
    PolicyDefinition("/", "p", "", {"max-length": 9}, is_operator=True),
    ExchangeDefinition("/", "e", "topic", True, False, True, {"alternate-exchange": "f"}),
    QueueDefinition(1, "/", "orders", True, arguments={"x-queue-type": "quorum", "x-max-length": 5}),
    QueueDefinition(2, "/", "copies", True, False, True),
    QueueDefinition(
        3, "nul \x00", "Ü \x00", True, arguments={"time": Timestamp(1 << 63), "octets": LongString(b"\xff")}),
    BindingDefinition("/", "e", "queue", "orders", "a.#", {"x-match": "all"}),
]
MESSAGES = {
    1: (1, "", "orders", PERSISTENT, "grüße".encode()),
    2: (2, "e", "a.b", PERSISTENT, b"to two"),
    3: (3, "", "orders", PERSISTENT, bytes(10_000)),
    4: (4, "", "orders", b"\x90\x00\x0atext/plain\x02", b"\xff\x00"),
    5: (5, "e", "a", PERSISTENT, b""),
    6: (6, "", "nul \x00", PERSISTENT, b"odd"),
}
PLACES = {1: [1, 2, 3, 4, 5], 2: [2, 5], 3: [6]}
REDELIVERED = {1: {2, 3}, 2: {5}, 3: set()}

# What is in those of format 5 besides, by the definitions that it comes after.
LATER_DEFINITIONS = {
    PermissionDefinition: [
        TopicPermissionDefinition("ann", "/", "e", "^a", "^b"), GlobalParameterDefinition("cluster_name", "x"),
        ParameterDefinition("/", "vhost-limits", "limits", {"max-queues": 7})],
}

# What is in those of formats 3 to 5 besides: a message with a large body, and a row that several messages share.
LATER_MESSAGES = {number: (number, "e", "a.run", PERSISTENT, b"%d of a run" % number) for number in range(101, 121)}
LATER_MESSAGES[200] = (200, "", "orders", PERSISTENT, bytes(1_200_000))
LATER_PLACES = {1: [200], 2: [number for number in range(102, 121) if number != 108], 3: []}
LATER_REDELIVERED = {1: set(), 2: {103, 104}, 3: set()}


def definitions_in(format_: int) -> list[Definition]:
    """The definitions in a store of this format."""
    later = LATER_DEFINITIONS if format_ >= 5 else {}
    return [one for definition in DEFINITIONS for one in (definition, *later.get(type(definition), ()))]


def places_in(format_: int) -> dict[int, list[int]]:
    """Which messages the queues have in a store of this format."""
    return {queue: numbers + LATER_PLACES[queue] * (format_ >= 3) for queue, numbers in PLACES.items()}


def redelivered_in(format_: int) -> dict[int, set[int]]:
    """Which of them have been delivered."""
    return {queue: numbers | (LATER_REDELIVERED[queue] if format_ >= 3 else set())
            for queue, numbers in REDELIVERED.items()}


def messages_in(format_: int, queue: int) -> list[tuple[int, str, str, bytes, bytes]]:
    """The contents of these messages."""
    return [(MESSAGES | LATER_MESSAGES)[number] for number in places_in(format_)[queue]]


@pytest.fixture(params=FORMATS)
def format_(request: pytest.FixtureRequest) -> int:
    """Each of the earlier formats."""
    return request.param


@pytest.fixture
def old(directory: Path, format_: int) -> Path:
    """The directory of a store of an earlier format, stopped cleanly."""
    directory.mkdir(mode=0o700)
    return make_old(directory, format_)


@cache
def old_file(format_: int) -> bytes:
    """The file of a store of an earlier format, which is made once."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "amqpd.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(FORMATS[format_])
            connection.execute("PRAGMA journal_mode = WAL")
        return path.read_bytes()


def make_old(directory: Path, format_: int) -> Path:
    (directory / "amqpd.db").write_bytes(old_file(format_))
    return directory


def expect_all(found: Whole, format_: int) -> None:
    """See that what was in the old store is in the new one, and nothing else."""
    assert found.was_clean and not found.damaged
    assert found.definitions == definitions_in(format_)
    assert {queue: contents(run) for queue, run in found.messages.items()} == {
        queue: messages_in(format_, queue) for queue in PLACES}
    assert found.redelivered == redelivered_in(format_)
    assert found.expiries == {1: {1: 1_900_000_000_123, 2: 1_900_000_000_456}}
    assert found.deliveries == {1: {3: 3, 2: 1}}


def expect_whole_copy(copy: Path, format_: int) -> None:
    """See that it is the old store, row for row."""
    with closing(sqlite3.connect(":memory:")) as original, closing(sqlite3.connect(copy)) as copied:
        octets = old_file(format_)
        original.deserialize(octets[:18] + b"\x01\x01" + octets[20:])       # in memory there is no log
        assert copied.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for name, in original.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
            assert copied.execute(f"SELECT * FROM {name}").fetchall() == original.execute(
                f"SELECT * FROM {name}").fetchall()
        for fact in ("application_id", "user_version"):
            assert copied.execute(f"PRAGMA {fact}").fetchall() == original.execute(f"PRAGMA {fact}").fetchall()


# All of it comes over

def test_everything_comes_over_and_the_copy_is_the_old_file(old, format_, opened):
    store = opened()
    expect_all(load(store), format_)
    store.check()
    assert store.info().damaged == 1
    store.close({})
    assert query(old, "PRAGMA user_version") == [(schema.newest_format(),)]
    assert query(old, "SELECT number, body, noticed FROM damaged") == [(7, b"damaged", 1_800_000_000)]
    assert query(old, "SELECT number, delivery_watermark FROM queue_rows") == [(1, 0), (2, 0), (3, 0)]
    expect_whole_copy(old / f"amqpd.db.format-{format_}", format_)


def test_an_old_store_becomes_what_a_new_one_is(old, tmp_path, opened):
    opened().close({})
    opened(tmp_path / "new").close({})
    objects = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2"
    assert query(old, objects) == query(tmp_path / "new", objects)


def test_bodies_come_last_in_their_rows(old, opened):
    """So that all else about a message is read without the pages of its body.

    Where its parts are comes behind it: the body of a row that has any is empty, and none is known from its head.
    """
    opened().close({})
    assert [name for _, name, *_ in query(old, "PRAGMA table_info(message_rows)")] == [
        "number", "queue", "redelivered", "expires_at", "deliveries", "exchange", "routing_key", "properties",
        "checksum", "body", "body_id", "body_size"]


@pytest.mark.parametrize("format_, redelivered", [
    (1, {queue: set(numbers) for queue, numbers in PLACES.items()}),    # which had no watermarks: any may have been
    (2, {1: {1, 2, 3}, 2: {5}, 3: set()}),
    (3, {1: {1, 2, 3}, 2: {5, 103, 104}, 3: set()}),
    (4, {1: {1, 2, 3}, 2: {5, 103, 104}, 3: set()}),
    (5, {1: {1, 2, 3}, 2: {5, 103, 104}, 3: set()}),
])
def test_what_an_unclean_stop_left_stays_an_unclean_stop(old, format_, opened, redelivered):
    query(old, "UPDATE meta SET value = 0 WHERE key = 'clean'")
    if format_ > 1:
        watermark = "leased_to" if format_ < 4 else "delivery_watermark"
        query(old, f"UPDATE queue_rows SET {watermark} = 1 WHERE number = 1")
    found = load(opened())
    assert not found.was_clean
    assert found.redelivered == redelivered


# Whatever happens on the way

def acts_of(step: Callable[[object], None]) -> list[str]:
    acts: list[str] = []
    step(SimpleNamespace(execute=acts.append))
    return acts


ACTS = {number: [act for step in schema.STEPS[number:] for act in acts_of(step)] for number in FORMATS}


@pytest.mark.parametrize("format_, at", [(number, at) for number, acts in ACTS.items() for at in range(len(acts))])
def test_a_step_that_fails_at_any_statement_changes_nothing(directory, opened, format_, at):
    directory.mkdir(mode=0o700)
    make_old(directory, format_)
    left = iter(())

    def failing(step: Callable[[object], None]) -> Callable[[object], None]:
        return lambda db: step(SimpleNamespace(execute=lambda sql: db.execute(sql) if next(left, None) else fail()))

    for _ in range(2):
        left = iter([True] * at)
        with pytest.raises(StoreError, match="out of paint"):
            opened(steps=tuple(map(failing, schema.STEPS)))
    assert query(directory, "PRAGMA user_version") == [(format_,)]
    expect_whole_copy(directory / "amqpd.db", format_)
    expect_all(load(opened()), format_)


def fail() -> None:
    raise sqlite3.OperationalError("out of paint")


FILE_EVENTS = ("open", "os.rename", "os.remove", "os.truncate", "sqlite3.connect")


def kill_at(directory: Path, nth: int, steps: schema.Steps) -> bool:
    """Open the store in a process that is killed at its nth statement or act on a file; False if it got through."""
    child = os.fork()
    if not child:
        try:
            die_at(nth)
            Store.open(directory, now=NOW, steps=steps)
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0


def die_at(nth: int) -> None:
    left, plain = iter(range(nth)), sqlite3.connect

    def strike(*_: object) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    def connect(*arguments: object, **settings: object) -> sqlite3.Connection:
        connection = plain(*arguments, **settings)
        connection.set_trace_callback(strike)
        return connection

    sqlite3.connect = connect
    sys.addaudithook(lambda event, _: strike() if event in FILE_EVENTS else None)


def kill_at_points(
    root: Path, opened: Callable[..., Store], format_: int, first: int, step: int = 1,
    steps: schema.Steps = schema.STEPS,
) -> int:
    """Kill an upgrade at each of these points, and see that the next start makes it good; how many there are."""
    for nth in count(first, step):
        directory = root / f"killed-{nth}"
        directory.mkdir(mode=0o700)
        if not kill_at(make_old(directory, format_), nth, steps):
            return nth // step
        copy = directory / f"amqpd.db.format-{format_}"
        if copy.exists():
            expect_whole_copy(copy, format_)
        again = opened(directory, steps=steps)
        found = load(again)
        again.check()
        if found.was_clean:
            expect_all(found, format_)
        else:       # it had begun its run, and could have delivered
            assert contents(found.messages[1]) == messages_in(format_, 1)
        again.abandon()
        expect_whole_copy(copy, format_)
        assert {path.name for path in directory.iterdir()} == {
            "amqpd.db", copy.name, "amqpd.lock", "amqpd.log-number"}
    raise AssertionError


@pytest.mark.proof
@pytest.mark.parametrize("part", range(4))
def test_a_start_killed_at_any_point_of_the_upgrade_is_made_good_by_the_next(tmp_path, opened, format_, part):
    points = kill_at_points(tmp_path, opened, format_, part, STEP)
    print(f"\nkilled at {points} points of an upgrade, lost nothing")
    assert points > 48 // STEP


def test_an_upgrade_that_commits_halfway_would_be_caught(tmp_path, opened):
    """Teeth of the test above."""
    def halfway(db):
        schema._format_2(SimpleNamespace(execute=lambda sql: [db.execute(act) for act in (sql, "COMMIT", "BEGIN")]))

    steps = schema._format_1, halfway, *schema.STEPS[2:]
    with pytest.raises(StoreError, match="no such index"):
        kill_at_points(tmp_path, opened, 1, 20, 4, steps)


def test_a_half_made_copy_of_an_earlier_attempt_does_no_harm(old, format_, opened):
    copy = old / f"amqpd.db.format-{format_}"
    for name in (copy.name, f"{copy.name}.new"):
        (old / name).write_bytes(b"half of a page")
    expect_all(load(opened()), format_)
    expect_whole_copy(copy, format_)
    assert not (old / f"{copy.name}.new").exists()


# No room

@contextmanager
def largest_file(octets: int) -> Iterator[None]:
    """No file may become larger: a write beyond it fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def few_pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The disk is full when a copy has got eight pages."""
    plain = sqlite3.connect

    def connect(file: str, **settings: object) -> sqlite3.Connection:
        connection = plain(file, **settings)
        if ".new" in file:
            connection.execute("PRAGMA max_page_count = 8")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect)
        yield


@pytest.mark.parametrize("shortage, complaint", [
    (lambda _: largest_file(40_000), r"cannot use .*/amqpd.db.format-\d.new \(disk I/O error\): check its disk"),
    (few_pages, r"no space left for .*/amqpd.db.format-\d.new: free some on its disk"),
], ids=["a write that fails", "full"])
def test_a_copy_that_does_not_fit_is_an_error_and_changes_nothing(
    old, format_, opened, monkeypatch, shortage: Callable[[pytest.MonkeyPatch], Iterator[None]], complaint
):
    before = (old / "amqpd.db").read_bytes()
    assert len(before) > 40_000
    with shortage(monkeypatch), pytest.raises(StoreError, match=complaint):
        opened()
    assert (old / "amqpd.db").read_bytes() == before
    assert not [path.name for path in old.iterdir() if "format" in path.name]
    expect_all(load(opened()), format_)


def test_a_disk_that_is_full_while_the_rows_are_changed_changes_nothing(old, format_, opened, monkeypatch):
    plain = connecting.connect

    def connect(path: Path, **settings: object) -> sqlite3.Connection:
        connection = plain(path, **settings)
        pages, = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(connecting, "connect", connect)
        with pytest.raises(StoreError, match="no space left for .*/amqpd.db: free some"):
            opened()
    expect_whole_copy(old / "amqpd.db", format_)
    expect_all(load(opened()), format_)
