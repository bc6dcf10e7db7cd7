"""The scan of the write-ahead log: what it accepts, what it refuses, and that its sums are those of SQLite."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from amqpd.store.errors import StoreError
from amqpd.store.journal import Journal
from amqpd.store.sqlite.limits import LARGEST_WAL
from amqpd.store.sqlite.store import Store
from amqpd.store.sqlite.wal_scan import check_wal
from tests.store.store_samples import crash, define, load, message, queue

PAGE = 4096
HEADER, FRAME = 32, 24 + PAGE
COMMITS = 12
MASK = 0xFFFFFFFF


def fill(store: Store, commits: int = COMMITS, size: int = 6_000) -> None:
    for number in range(commits):
        journal = Journal()
        define(journal, queue(1))
        journal.published(queue(1), [message(store.first_number + number, bytes([number % 256]) * size)])
        store.commit(journal.take())


@pytest.fixture
def log(directory: Path, store: Store) -> bytes:
    """A log of some commits, each of several frames."""
    fill(store)
    return (directory / "amqpd.db-wal").read_bytes()


@pytest.fixture
def check(tmp_path: Path) -> Callable[[bytes], None]:
    """Scans a log that is these octets."""
    path = tmp_path / "some-wal"

    def check_octets(octets: bytes) -> None:
        path.write_bytes(octets)
        check_wal(path, PAGE)

    return check_octets


def frames_of(log: bytes) -> list[bytes]:
    return [log[at : at + FRAME] for at in range(HEADER, len(log), FRAME)]


def commits_of(log: bytes) -> list[int]:
    """The numbers of the frames that end a commit, from 1."""
    return [number for number, frame in enumerate(frames_of(log), 1) if frame[4:8] != bytes(4)]


def flip(octets: bytes, at: int, bit: int = 0) -> bytes:
    return octets[:at] + bytes((octets[at] ^ 1 << bit,)) + octets[at + 1 :]


def in_frame(number: int, at: int = 0) -> int:
    return HEADER + (number - 1) * FRAME + at


def summed(octets: bytes, order: str, sums: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """The sums as SQLite's documentation defines them, a word after the other."""
    first, second = sums
    for one, other in struct.iter_unpack(order + "2I", octets):
        first = (first + one + second) & MASK
        second = (second + other + first) & MASK
    return first, second


def rewritten(log: bytes, order: str) -> bytes:
    """The same log with its sums over words in this order."""
    head = struct.pack(">I", 0x377F0682 + (order == ">")) + log[4:24]
    sums = summed(head, order)
    parts = [head, struct.pack(">2I", *sums)]
    for frame in frames_of(log):
        sums = summed(frame[:8] + frame[24:], order, sums)
        parts += (frame[:16], struct.pack(">2I", *sums), frame[24:])
    return b"".join(parts)


def test_the_log_of_these_tests_is_as_they_need_it(log):
    assert rewritten(log, "<") == log
    assert len(commits_of(log)) >= COMMITS and len(frames_of(log)) > 2 * COMMITS


# What may be

def test_no_log_is_fine(tmp_path):
    check_wal(tmp_path / "none", PAGE)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_whole_log_is_fine(log, check, order):
    check(rewritten(log, order))


def test_a_log_that_ends_anywhere_is_fine(log, check):
    for size in [*range(60), *range(HEADER, len(log), 4_321), *range(HEADER, len(log), FRAME)]:
        check(log[:size])


def test_a_last_commit_of_which_anything_is_missing_is_fine(log, check):
    last = range(commits_of(log)[-2] + 1, commits_of(log)[-1] + 1)
    assert len(last) > 1
    for number in last:
        check(log[: in_frame(number)] + bytes(FRAME) + log[in_frame(number + 1) :])
        check(flip(log, in_frame(number, 500)))


def test_frames_of_an_older_log_behind_the_end_are_fine(log, check):
    older = b"".join(frame[:8] + b"olderlog" + frame[16:] for frame in frames_of(log))
    check(log + older)


def test_an_empty_header_is_fine_where_no_frames_follow(log, check):
    check(bytes(HEADER))
    check(flip(log, 20)[:HEADER])


# What may not be

@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("at", [0, 6, 8, 13, 17, 23, 24, 2_000, FRAME - 1])
def test_a_bit_in_any_part_of_a_frame_is_found_and_the_frame_named(log, check, order, at):
    for number in (1, commits_of(log)[0], commits_of(log)[4] + 1):
        with pytest.raises(StoreError, match=rf"some-wal is damaged \(frame {number}; .*amqpd store salvage"):
            check(flip(rewritten(log, order), in_frame(number, at)))


@pytest.mark.parametrize("order", ["<", ">"])
def test_any_bit_of_the_header_is_found(log, check, order):
    log = rewritten(log[: in_frame(commits_of(log)[1] + 1)], order)
    for at in range(HEADER):
        for bit in range(8):
            with pytest.raises(StoreError, match="its header; "):
                check(flip(log, at, bit))


def test_two_whole_commits_behind_a_broken_frame_are_needed(log, check):
    *_, before, last_but_one, _ = commits_of(log)
    check(flip(log, in_frame(last_but_one + 1, 100)))
    check(flip(log, in_frame(last_but_one, 8)))
    with pytest.raises(StoreError):
        check(flip(log, in_frame(before + 1, 100)))
    # The second of them is not whole either.
    check(flip(flip(log, in_frame(before + 1, 100)), in_frame(commits_of(log)[-1], 100)))


def test_a_log_that_cannot_be_read_is_an_error_of_its_own(tmp_path):
    with pytest.raises(StoreError, match=f"cannot read {tmp_path} .*: move it away"):
        check_wal(tmp_path, PAGE)


# The store

def test_a_store_with_a_damaged_log_is_refused_and_left_alone(directory, tmp_path, opened, log):
    crashed = crash(directory, tmp_path / "crash")
    wal = crashed / "amqpd.db-wal"
    wal.write_bytes(flip(log, in_frame(3, 1_000)))
    before = {path: path.read_bytes() for path in crashed.iterdir()}
    for _ in range(2):
        with pytest.raises(StoreError, match=rf"^{wal} is damaged \(frame 3; more was committed after it\): restore"):
            opened(crashed)
    assert {path: path.read_bytes() for path in before} == before


def test_it_is_scanned_even_if_the_file_without_its_log_was_stopped_cleanly(directory, tmp_path, opened, store):
    store.close({})
    store = opened()
    load(store)
    fill(store)
    crashed = crash(directory, tmp_path / "crash")
    wal = crashed / "amqpd.db-wal"
    wal.write_bytes(flip(wal.read_bytes(), in_frame(1, 1_000)))
    with pytest.raises(StoreError, match="frame 1"):
        opened(crashed)


def test_a_store_whose_commits_were_not_synced_may_have_lost_any_of_them(directory, tmp_path, opened):
    store = opened(durability="process")
    load(store)
    fill(store)
    crashed = crash(directory, tmp_path / "crash")
    wal = crashed / "amqpd.db-wal"
    wal.write_bytes(flip(wal.read_bytes(), in_frame(commits_of(wal.read_bytes())[3], 1_000)))
    assert 0 < sum(map(len, load(opened(crashed)).messages.values())) < COMMITS


def test_a_run_does_not_go_on_with_the_log_of_another(directory, tmp_path, opened, log):
    crashed = crash(directory, tmp_path / "crash")
    opened(crashed)
    assert (crashed / "amqpd.db-wal").stat().st_size < len(log)


def test_the_largest_log_takes_a_moment(directory, store):
    wal = directory / "amqpd.db-wal"
    while wal.stat().st_size < LARGEST_WAL:
        fill(store, 20, 100_000)
        store.first_number += 1_000
    begun = time.perf_counter()
    check_wal(wal, PAGE)
    print(f"\nlog scan: {wal.stat().st_size >> 20} MiB in {time.perf_counter() - begun:.2f} s")
    assert time.perf_counter() - begun < 5
