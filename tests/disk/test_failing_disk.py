"""A disk that fails at its first write, its second, its third, …; or sync, truncation, open, deletion, or read.

`CASES=100000 SEED=7 pytest -s tests/disk/test_failing_disk.py` tests every possible failure of a small run. After each,
what was confirmed is there; after a full disk the store can be used again, after any other failure it cannot.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from amqpd.store.errors import StoreError, StoreFull
from amqpd.store.sqlite.database import Database
from amqpd.store.sqlite.store import Store
from tests.disk.power import Platter, nothing, write_out
from tests.disk.workload import State, Workload, acceptable, load
from tests.store.store_samples import NOW
from tests.support.disk import Act, Disk, Fault
from tests.support.sizes import sized

CASES = sized(40, 400, "CASES")
FULL_ONCE = sized(20, 1 << 30)
SEED = int(os.environ.get("SEED") or random.SystemRandom().getrandbits(32))
SMALL_WAL = 50_000      # bytes, so that there is a checkpoint within a few batches


class Run:
    """A store that is made, used, killed, recovered, used and stopped on a disk with a fault, until that is met."""

    def __init__(self, directory: Path, fault: Fault | None) -> None:
        directory.mkdir(mode=0o700)
        self.disk = Disk(directory, fault)
        self.work = Workload(directory, SEED, self.disk, largest_wal=SMALL_WAL)
        self.failure: StoreError | None = None
        with self.disk.at_work():
            try:
                self._go_on()
            except StoreError as failure:
                self.failure = failure
            self.is_full = isinstance(self.failure, StoreFull)
            self.was_loaded = self.work.is_loaded
            if self.failure is not None and self.work.is_open:
                self._see_that_it_is_the_end()
                # What the broker does is to end at once; what a start that failed does is to let go of the files.
                self.disk.is_off = fault is not None and fault.nth % 2 == 0
                self.work.abandon()

    def _go_on(self) -> None:
        work, disk = self.work, self.disk
        work.open()
        work.commit_some(5)
        disk.is_off = True
        work.abandon()
        disk.is_off = False
        work.open()
        work.commit_some(2)
        work.close()

    def _see_that_it_is_the_end(self) -> None:
        """Nothing is written or confirmed any more, and the text stays the same; unless the disk was only full."""
        if self.is_full or not self.work.is_loaded:
            return
        changes = self.changes()
        self.disk.fault = None          # not even if the disk were well again
        for _ in range(2):
            with pytest.raises(StoreError) as refusal:
                while self.work.journal.filling.is_empty:   # all may be settled again
                    self.work.fill()        # which writes large bodies
                self.work.commit()
            assert str(refusal.value) == str(self.failure)
        assert self.changes() == changes

    def changes(self) -> list[Act]:
        """What was done to the disk."""
        return [act for act in self.disk.acts if act.kind != "mark"]


def faults_of(counts: Mapping[str, int]) -> list[Fault]:
    """Every failure that a run with so many operations can meet."""
    ways = {"write": ("EIO", "ENOSPC", "short"), "rename": ("EIO",), "read": ("EIO",)}
    return [
        Fault(kind, nth, how, for_good)
        for kind, count in counts.items() for how in ways.get(kind, ("EIO", "ENOSPC"))
        for for_good in (False, True) for nth in range(1, count + 1)]


def chosen_faults(root: Path) -> list[Fault]:
    """As many of them as asked for."""
    sound = Run(root / "sound", None)
    assert sound.failure is None and len(acceptable(sound.disk.acts)) == 1
    faults = faults_of(sound.disk.counts)
    return random.Random(SEED).sample(faults, min(CASES, len(faults)))


def look(directory: Path) -> State:
    """What a start on a disk that is well again finds."""
    with Disk(directory).at_work():
        store = Store.open(directory, now=NOW)
        found, set_aside = load(store)
        assert not set_aside
        store.check()
        store.abandon()
    return found


def see_what_is_left(run: Run, root: Path, story: str) -> None:
    """Start on the files as they were left, and as a power cut leaves them that takes all that was not synced."""
    text = str(run.failure or "")
    assert len(text.splitlines()) <= 1 and "mistake" not in text, f"{story}: {text}"
    states = acceptable(run.disk.acts)
    assert look(run.disk.directory) in states, f"{story}: {text}"
    platter = Platter()
    platter.do(run.disk.acts)
    cut = write_out(platter.after_cut(random.Random(0), nothing), root / "cut")
    assert look(cut) in states, f"{story}, and then the power: {text}"
    shutil.rmtree(run.disk.directory)
    shutil.rmtree(cut)


@pytest.mark.proof
@pytest.mark.timeout(120 + CASES)
def test_whatever_fails_nothing_confirmed_is_lost_and_nothing_is_confirmed_after(tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()
    faults = chosen_faults(tmp_path)
    for number, fault in enumerate(faults):
        story = f"seed {SEED}: {fault} ({tmp_path / str(number)})"
        run = Run(tmp_path / f"{number}", fault)
        see_what_is_left(run, tmp_path, story)
        outcomes["full" if run.is_full else "failed" if run.failure else "went on"] += 1
    print(f"\nio-sweep: seed {SEED}, {len(faults)} failures, {dict(outcomes)}, lost 0")
    if len(faults) >= 200:      # of fewer, a kind may be missing by chance
        assert min(outcomes[outcome] for outcome in ("full", "failed", "went on")) > len(faults) / 20


@pytest.mark.proof
@pytest.mark.timeout(240)
def test_a_batch_that_found_the_disk_full_once_is_committed_again(tmp_path: Path) -> None:
    """At every write of a run, or some; those that make the store are a start that is refused."""
    sound = Run(tmp_path / "sound", None)
    went_on = 0
    writes = range(1, sound.disk.counts["write"] + 1)
    chosen = random.Random(SEED).sample(writes, min(FULL_ONCE, len(writes)))
    for nth in chosen:
        run = Run(tmp_path / f"{nth}", Fault("write", nth, "ENOSPC"))
        assert run.failure is None or run.is_full or not run.was_loaded
        went_on += run.failure is None
        see_what_is_left(run, tmp_path, f"seed {SEED}: write {nth}")
    print(f"\ndisk full once: seed {SEED}, {len(chosen)} of {len(writes)} writes, {went_on} times committed again")
    assert went_on > (len(writes) / 4 if len(chosen) == len(writes) else 0)


def test_teeth_a_store_that_goes_on_after_a_failed_sync_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = Run(tmp_path / "sound", None)
    monkeypatch.setattr(Database, "failed", lambda self, failure: failure)
    caught = 0
    for nth in range(1, sound.disk.counts["sync"] + 1):
        try:
            Run(tmp_path / f"{nth}", Fault("sync", nth))
        except (AssertionError, pytest.fail.Exception):
            caught += 1
    print(f"\nio-sweep of a sabotaged store: {caught} of {sound.disk.counts['sync']} failed syncs noticed")
    assert caught > sound.disk.counts["sync"] / 3
