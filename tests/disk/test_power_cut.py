"""Power cuts: whatever the disk contains afterwards, everything that was confirmed is there, and nothing else.

`STATES=50000 SEED=7 pytest -s tests/disk/test_power_cut.py`, or `make powercut N=50000`, tests another number of
states. Cuts come at any moment: during the creation of a store, during commits, checkpoints and clean stops, and during
the recovery after a kill or another power cut.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from amqpd.store.errors import StoreError
from amqpd.store.sqlite.store import Durability, Store
from tests.disk.power import FATES, Fate, Image, Platter, cuts_of, everything, write_out
from tests.disk.workload import EMPTY, Confirmed, State, Workload, acceptable, load
from tests.store.store_samples import NOW
from tests.support.disk import Act, Disk, Fault
from tests.support.sizes import sized

STATES = sized(40, 1_000, "STATES")
KILLS = sized(40, 1 << 30)
SEED = int(os.environ.get("SEED") or random.SystemRandom().getrandbits(32))
SMALL_WAL = 100_000         # bytes, so that there are checkpoints every few batches
STATES_A_RECORDING = 250
CUTS_IN_A_ROW = 3           # at most


def record(directory: Path, seed: object, durability: Durability = "power") -> list[Act]:
    """What a disk sees of a store that is made, used, stopped, killed within a commit, and used again."""
    directory.mkdir(mode=0o700)
    disk = Disk(directory)
    work = Workload(directory, seed, disk, largest_wal=SMALL_WAL)
    with disk.at_work():
        work.open(durability)
        work.commit_some(10)
        work.close()
        work.open(durability)
        work.commit_some(15)
        disk.fault = Fault("sync", disk.counts["sync"] + 1)
        if durability == "power":
            with pytest.raises(StoreError):
                work.commit_some(5)     # in a batch all may be settled again, so that there is nothing to write
        disk.is_off, disk.fault = True, None
        work.store.abandon()
        disk.is_off = False
        work.open(durability)
        work.commit_some(5)
        work.close()
    return disk.acts


class Cutter:
    """Cuts the power of recorded disks, starts from what is left, and counts what came of it."""

    def __init__(self, root: Path, seed: object, durability: Durability = "power") -> None:
        self.root = root
        self.seed = seed
        self.durability: Durability = durability
        self.counts: Counter[str] = Counter()
        self._chance = random.Random(repr(seed))
        self._directories = iter(range(1 << 30))

    def images(
        self, acts: Sequence[Act], cuts: Sequence[int], fates: Sequence[Fate] = FATES
    ) -> Iterator[tuple[str, int, Image]]:
        """A state of the disk for each of these moments, which rise, and what it was called."""
        platter, done = Platter(), 0
        for number, cut in enumerate(cuts):
            platter.do(acts[done:cut])
            done = cut
            fate = fates[number % len(fates)]
            yield f"cut at {cut}, {fate.__name__}", cut, platter.after_cut(self._chance, fate)

    def cut(
        self, acts: Sequence[Act], count: int, *, first: int = 0, before: State = EMPTY, in_a_row: int = CUTS_IN_A_ROW,
        story: str = "",
    ) -> None:
        """Look at so many states that these acts, from the `first` one, may leave of a store that was as `before`.

        After a part of them, go on, and cut again.
        """
        cuts = sorted(self._chance.choices([cut for cut in cuts_of(acts) if cut >= first], k=count))
        for what, cut, image in self.images(acts, cuts):
            told = f"{story}{what}"
            directory = write_out(image, self.root / f"{next(self._directories)}")
            disk = Disk(directory)
            work = Workload(directory, (self.seed, told), disk, largest_wal=SMALL_WAL)
            at_start = len(disk.acts)
            with disk.at_work():
                found = self.look(
                    work, acceptable(acts[first:cut], before), f"seed {self.seed}: {told} ({directory})")
                goes_on = in_a_row > 1 and self._chance.random() < 0.2
                if goes_on:
                    work.commit_some(2)
                disk.is_off = True
                work.store.abandon()
            if goes_on:
                self.cut(
                    disk.acts, 1, first=at_start, before=found, in_a_row=in_a_row - 1, story=f"{told}, then ")
            shutil.rmtree(directory)

    def look(self, work: Workload, states: list[State], story: str) -> State:
        """Start, and see what is there. AssertionError where it is none of these states."""
        try:
            found = work.open(self.durability)
        except StoreError as error:
            raise AssertionError(f"{story}: refused: {error}") from error
        assert work.store.database.connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], story
        work.store.check()
        assert found in states, f"{story}: {difference(found, states)}"
        self.counts["states"] += 1
        self.counts["messages"] += len(found.messages)
        self.counts["of a batch in flight"] += len(states) > 1 and found == states[-1] != states[0]
        return found


def difference(found: State, states: list[State]) -> str:
    """In which way none of these is what was found."""
    parts = []
    for state in states:
        places, there = dict(state.messages), dict(found.messages)
        parts.append(
            f"lost {sorted(places.keys() - there.keys())}, not expected {sorted(there.keys() - places.keys())}, "
            f"altered {[place for place in places.keys() & there.keys() if places[place] != there[place]]}, "
            f"definitions {'equal' if state.definitions == found.definitions else 'not equal'}, "
            f"redelivered {'equal' if state.redelivered == found.redelivered else 'not equal'}")
    return " / ".join(parts)


@pytest.mark.proof
@pytest.mark.timeout(60 + STATES)
def test_a_power_cut_loses_nothing_that_was_confirmed_and_nothing_else_appears(tmp_path: Path) -> None:
    cutter = Cutter(tmp_path, SEED)
    recordings = 0
    while cutter.counts["states"] < STATES:
        directory = tmp_path / f"recording-{recordings}"
        acts = record(directory, (SEED, recordings))
        shutil.rmtree(directory)
        cutter.cut(acts, min(STATES_A_RECORDING, STATES - cutter.counts["states"]))
        recordings += 1
    print(f"\npowercut: seed {SEED}, {recordings} recordings, {dict(cutter.counts)}, lost 0, refused 0")
    assert cutter.counts["of a batch in flight"] > (STATES / 100 if STATES >= 500 else -1)


@pytest.mark.proof
@pytest.mark.timeout(180)
def test_a_kill_between_any_two_writes_does_no_harm_either(tmp_path: Path) -> None:
    """As after a power cut on a disk that kept everything; here at every moment there is, or some."""
    cutter = Cutter(tmp_path, "kill")
    acts = record(tmp_path / "recording", "kill")
    cuts = cuts_of(acts)
    chosen = sorted(random.Random(SEED).sample(cuts, min(KILLS, len(cuts))))
    for story, cut, image in cutter.images(acts, chosen, (everything,)):
        directory = write_out(image, tmp_path / f"{cut}")
        work = Workload(directory, story, largest_wal=SMALL_WAL)
        with Disk(directory).at_work():
            cutter.look(work, acceptable(acts[:cut]), story)
            work.store.abandon()
        shutil.rmtree(directory)
    print(f"\nkilled between writes: seed {SEED}, {len(chosen)} of {len(cuts)} moments, {dict(cutter.counts)}, lost 0")


def unsynced_confirms(acts: Sequence[Act]) -> list[int]:
    """The moments after which something is confirmed and not everything of it is synced."""
    platter, moments = Platter(), []
    for at, act in enumerate(acts, 1):
        platter.do([act])
        is_confirm = act.kind == "mark" and isinstance(act.value, Confirmed)
        if is_confirm and platter.has_unsynced:
            moments.append(at)
    return moments


def test_with_power_there_is_no_such_moment(tmp_path: Path) -> None:
    """Every confirm comes after a sync of all that was written until then."""
    acts = record(tmp_path / "store", SEED)
    confirms = [act for act in acts if act.kind == "mark" and isinstance(act.value, Confirmed)]
    assert len(confirms) > 30 and not unsynced_confirms(acts)


@pytest.mark.timeout(120)
def test_teeth_a_store_that_does_not_sync_its_commits_is_caught_and_still_not_in_disorder(tmp_path: Path) -> None:
    """With `durability = "process"` confirmed batches are lost, the last ones first, and no start is refused."""
    acts = record(tmp_path / "store", SEED, "process")
    cuts = unsynced_confirms(acts)
    assert len(cuts) > 20
    cutter = Cutter(tmp_path, SEED, "process")
    lost = 0
    for story, cut, image in cutter.images(acts, cuts):
        directory = write_out(image, tmp_path / f"{cut}")
        with Disk(directory).at_work():
            store = Store.open(directory, durability="process", now=NOW)
            found, _ = load(store)
            store.abandon()
        once = [act.value.state for act in acts[:cut] if act.kind == "mark" and act.value.state]
        assert found in once, f"seed {SEED}: {story}"
        lost += found not in acceptable(acts[:cut])
    print(f"\npowercut without sync: seed {SEED}, {len(cuts)} cuts after a confirm, {lost} lost something confirmed")
    assert lost > len(cuts) / 2
