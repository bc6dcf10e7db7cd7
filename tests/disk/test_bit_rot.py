"""Bit rot: one bit of a file has changed, and the store detects it.

`FLIPS=20000 SEED=7 pytest -s tests/disk/test_bit_rot.py` flips another number of bits, each in its own copy of the
files.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from amqpd.store.errors import StoreError
from amqpd.store.sqlite import wal_scan
from amqpd.store.sqlite.store import Store
from tests.disk.power import Image, write_out
from tests.disk.workload import State, Workload, load
from tests.store.store_samples import NOW, contents, crash
from tests.support.disk import Disk
from tests.support.sizes import sized

FLIPS = sized(20, 200, "FLIPS")
SEED = int(os.environ.get("SEED") or random.SystemRandom().getrandbits(32))
NEVER = 1 << 30         # bytes of a log that is not written back but by the tests
MOST_S = 5
COMMITS, COMMITS_IN_LOG = 60, sized(60, 220)
PAGE = 4096
LEAVES, BRANCHES = (10, 13), (2, 5)     # kinds of pages in a tree
DATABASE, LOG = "amqpd.db", "amqpd.db-wal"


Content = tuple[str, str, bytes, bytes]     # names, properties and body


class Found(NamedTuple):
    """What became of a start: the refusal's text, or what was found and how many messages were set aside."""

    refusal: str
    state: State | None
    set_aside: int


class Files(NamedTuple):
    """A store as it was left, what is in it, and the contents of all messages that ever were."""

    image: Image
    state: State
    written: set[Content]


def read(directory: Path) -> Image:
    """What there is in a directory. An empty log is none: SQLite takes it away when it ends."""
    return {
        path.name: octets for path in directory.iterdir() if path.suffix != ".lock" and (octets := path.read_bytes())}


def make(root: Path, *, commits: int, commits_in_log: int = 0, is_stopped: bool = False) -> Files:
    """The files after so many commits, and so many more that are only in the log; after a kill, or a clean stop."""
    directory = root / "original"
    directory.mkdir(mode=0o700, parents=True)
    with Disk(directory).at_work():
        work = Workload(directory, SEED, largest_wal=NEVER)
        work.open()
        work.commit_some(commits)
        work.store.database.checkpoint()
        work.commit_some(commits_in_log)
        if is_stopped:
            work.close()
        image = read(crash(directory, root / "left"))
        work.store.abandon()
    return Files(image, work.state, {content[1:] for content in contents(work.published.values())})


def flip(octets: bytes, at: int, bit: int) -> bytes:
    return octets[:at] + bytes((octets[at] ^ 1 << bit,)) + octets[at + 1 :]


def start(image: Image, directory: Path, what: str) -> Found:
    """Start on these files; if the start is refused, check that it gave the reason in one line and changed nothing."""
    write_out(image, directory)
    store = None
    begun = time.perf_counter()
    with Disk(directory).at_work():
        try:
            store = Store.open(directory, now=NOW)
            state, set_aside = load(store)
        except StoreError as error:
            text = str(error)
            assert len(text.splitlines()) == 1 and str(directory) in text and "mistake" not in text, f"{what}: {text}"
            found = Found(text, None, 0)
        else:
            found = Found("", state, set_aside)
        finally:
            assert time.perf_counter() - begun < MOST_S
            if store is not None:
                store.abandon()
    if found.refusal:
        assert read(directory) == image, f"{what}: not left alone: {found.refusal}"
    shutil.rmtree(directory)
    return found


def verdict(found: Found, state: State) -> str:
    """What a flipped bit did: `refused`, `intact`, `set aside` if nothing else is missing, or `silent` damage."""
    if found.state is None:
        return "refused"
    if found.state == state and not found.set_aside:
        return "intact"
    missing = dict(state.messages).keys() - dict(found.state.messages).keys()
    is_all_else_there = dict(found.state.messages).items() <= dict(state.messages).items() and (
        found.state.definitions == state.definitions)
    return "set aside" if is_all_else_there and found.set_aside == len({one for _, one in missing}) else "silent"


@pytest.fixture
def chance() -> random.Random:
    return random.Random(SEED)


def places_in_bodies(files: Files) -> list[int]:
    """Where in the file the bodies of messages are, as far as they are in one piece."""
    octets, places = files.image[DATABASE], []
    for body in {held.message[4] for _, held in files.state.messages if held.message[4]}:
        if octets.count(body) == 1:     # else one of them is left over from when pages were rearranged
            at = octets.find(body)
            places += range(at, at + len(body))
    return sorted(places)


def make_with_bodies(root: Path, *, is_stopped: bool) -> Files:
    """Files with at least one body in the database: now and then all that is left after the commits has none."""
    tries = (make(root / f"{more} more", commits=COMMITS + more, is_stopped=is_stopped) for more in itertools.count())
    return next(filter(places_in_bodies, tries))


def places_of_structure(files: Files) -> list[int]:
    """Where in the file the header is, and heads of pages with the lists of their cells."""
    octets, places = files.image[DATABASE], [*range(100)]
    for page in range(0, len(octets), PAGE):
        head = page + 100 * (page == 0)
        kind, cells = octets[head], int.from_bytes(octets[head + 3 : head + 5], "big")
        if kind in LEAVES + BRANCHES and cells < PAGE // 4:
            places += range(head, head + (12 if kind in BRANCHES else 8) + 2 * cells)
    return places


def places_of_names(files: Files) -> list[int]:
    """Return the places in the file of the kinds and names of tables, and of their lengths."""
    names = b"message_rows|message_blocks|body_parts|entries|meta|queue_rows|bindings"
    rows = re.finditer(b"table(%s)" % names, files.image[DATABASE])
    return [at for row in rows for at in range(row.start() - 8, row.end())]


def flip_some(
    files: Files, name: str, places: Sequence[int], count: int, root: Path, chance: random.Random
) -> Counter[str]:
    """Start on files with one bit flipped in one of these octets, so many times; how often it ended how."""
    counts: Counter[str] = Counter()
    for number in range(count):
        at, bit = chance.choice(places), chance.randrange(8)
        what = f"seed {SEED}: bit {bit} of octet {at} of {name}"
        found = start({**files.image, name: flip(files.image[name], at, bit)}, root / f"{number}", what)
        if found.state is not None:
            found_contents = {held.message[1:] for _, held in found.state.messages}
            assert found_contents <= files.written, f"{what}: a message was altered"
        counts[verdict(found, files.state)] += 1
    return counts


both_ways = pytest.mark.parametrize("is_stopped", [False, True], ids=["killed", "stopped"])


@pytest.mark.proof
@pytest.mark.timeout(60 + FLIPS)
def test_a_flipped_bit_in_the_log_is_refused(tmp_path: Path, chance: random.Random) -> None:
    files = make(tmp_path, commits=5, commits_in_log=COMMITS_IN_LOG)
    log = files.image[LOG]
    counts = flip_some(files, LOG, range(len(log)), FLIPS, tmp_path, chance)
    print(f"\nbitrot: seed {SEED}, {FLIPS} flips in a log of {len(log) >> 10} KiB: {dict(counts)}")
    # What happened to the last commit cannot be known. That is one flip in 200, and some runs are unlucky.
    assert counts["silent"] + counts["set aside"] <= max(4, FLIPS // 100)


@pytest.mark.proof
@pytest.mark.timeout(60 + FLIPS)
def test_teeth_without_the_scan_the_log_ends_there_without_a_word(
    tmp_path: Path, chance: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal_scan, "check_wal", lambda path, page_size: None)
    files = make(tmp_path, commits=5, commits_in_log=COMMITS)
    flips = max(20, FLIPS // 4)
    counts = flip_some(files, LOG, range(len(files.image[LOG])), flips, tmp_path, chance)
    print(f"\nbitrot without the log scan: seed {SEED}, {flips} flips: {dict(counts)}")
    assert counts["silent"] > 0.8 * flips


@pytest.mark.proof
@pytest.mark.timeout(60 + FLIPS)
@both_ways
def test_a_flipped_bit_in_a_body_keeps_the_message_back(
    tmp_path: Path, chance: random.Random, is_stopped: bool
) -> None:
    files = make_with_bodies(tmp_path, is_stopped=is_stopped)
    counts = flip_some(files, DATABASE, places_in_bodies(files), FLIPS // 2, tmp_path, chance)
    print(f"\nbitrot: seed {SEED}, {FLIPS // 2} flips in bodies: {dict(counts)}")
    assert counts["set aside"] == FLIPS // 2


@pytest.mark.proof
@pytest.mark.timeout(60 + FLIPS)
@both_ways
def test_a_flipped_bit_in_what_holds_the_file_together_does_no_harm(
    tmp_path: Path, chance: random.Random, is_stopped: bool
) -> None:
    files = make(tmp_path, commits=COMMITS, is_stopped=is_stopped)
    counts = flip_some(files, DATABASE, places_of_structure(files), FLIPS // 2, tmp_path, chance)
    print(f"\nbitrot: seed {SEED}, {FLIPS // 2} flips in headers and lists of cells: {dict(counts)}")
    assert not counts["silent"]


@pytest.mark.proof
@pytest.mark.timeout(60 + FLIPS)
def test_names_that_are_no_text_any_more_are_refused_in_a_line(tmp_path: Path) -> None:
    """SQLite quotes them in what it says, which then is no text either."""
    files = make(tmp_path, commits=COMMITS)
    octets, refused = files.image[DATABASE], 0
    for at in (places := places_of_names(files)):
        found = start({**files.image, DATABASE: flip(octets, at, 7)}, tmp_path / f"{at}", f"bit 7 of octet {at}")
        refused += bool(found.refusal)
    print(f"\nbitrot: {len(places)} names and lengths that are no text: {refused} refused")
    assert refused > len(places) / 2


@pytest.mark.proof
@pytest.mark.timeout(60 + FLIPS)
@both_ways
def test_a_flipped_bit_anywhere_alters_no_message(tmp_path: Path, chance: random.Random, is_stopped: bool) -> None:
    """What has no checksum may change unseen: in which queue a message is, its number and marks, and definitions."""
    files = make(tmp_path, commits=COMMITS, is_stopped=is_stopped)
    counts = flip_some(files, DATABASE, range(len(files.image[DATABASE])), FLIPS // 2, tmp_path, chance)
    print(f"\nbitrot: seed {SEED}, {FLIPS // 2} flips anywhere in the file: {dict(counts)}")
    assert counts["silent"] <= max(4, 0.05 * FLIPS)
