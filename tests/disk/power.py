"""Compute what a disk may contain after a power cut, from the operations on it.

What was synced is there. A write that was not synced is there, or not, or half of it, independent of later writes; a
file may have its new size without the bytes; a created, changed or deleted name is there or not, but the operations on
one name keep their order. What was not synced before a failed sync is lost. Most disks and file systems lose less.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.support.disk import Act

SECTOR = 512
Image = dict[str, bytes]            # the files of a directory, by name
Fate = Callable[[random.Random, int, int], str]


def _each_its_own(chance: random.Random, at: int, count: int) -> str:
    return chance.choice(("kept", "dropped", "sectors", "head", "tail", "hole"))


def _mostly_kept(chance: random.Random, at: int, count: int) -> str:
    return chance.choice(("kept",) * 9 + ("dropped", "sectors", "head", "tail", "hole"))


def _first_ones(chance: random.Random, at: int, count: int) -> str:
    torn_at = int(chance.random() * count)
    return "kept" if at < torn_at else chance.choice(("sectors", "head")) if at == torn_at else "dropped"


def _last_ones(chance: random.Random, at: int, count: int) -> str:
    return "dropped" if at < count // 2 else "kept"


def everything(chance: random.Random, at: int, count: int) -> str:
    """All is there."""
    return "kept"


def nothing(chance: random.Random, at: int, count: int) -> str:
    """Nothing of what was not synced is there."""
    return "dropped"


FATES: tuple[Fate, ...] = (_each_its_own, _mostly_kept, _first_ones, _last_ones, everything, nothing)


class Platter:
    """The disk at some moment, which can be moved on: what of each file is synced, and what is not yet."""

    def __init__(self) -> None:
        self._synced: dict[int, bytearray] = {}
        self._waiting: dict[int, list[Act]] = {}
        self._names: dict[str, int] = {}
        self._waiting_names: list[Act] = []

    @property
    def has_unsynced(self) -> bool:
        """Whether anything was written that a power cut may take away."""
        return any(self._waiting.values())

    def do(self, acts: Iterable[Act]) -> None:
        """Move on by these acts."""
        for act in acts:
            if act.kind in ("write", "truncate"):
                self._waiting.setdefault(act.file, []).append(act)
            elif act.kind in ("create", "delete", "rename"):
                self._waiting_names.append(act)
            elif act.kind == "sync" and act.file:
                content = self._synced.setdefault(act.file, bytearray())
                for waiting in self._waiting.pop(act.file, ()):
                    _apply(content, waiting)
            elif act.kind == "lost":
                self._waiting.pop(act.file, None)
            elif act.kind == "sync":
                for waiting in self._waiting_names:
                    _rename(self._names, waiting)
                self._waiting_names.clear()

    def after_cut(self, chance: random.Random, fate: Fate) -> Image:
        """What may be found if the power is cut now."""
        names = dict(self._names)
        left_out: set[str] = set()
        for at, act in enumerate(self._waiting_names):
            touched = {act.value} if isinstance(act.value, str) else {*act.value}
            is_kept = fate(chance, at, len(self._waiting_names)) in ("kept", "head", "sectors")
            if is_kept and left_out.isdisjoint(touched):
                _rename(names, act)
            else:
                left_out |= touched
        return {name: self._content_after_cut(file, chance, fate) for name, file in names.items()}

    def _content_after_cut(self, file: int, chance: random.Random, fate: Fate) -> bytes:
        content = bytearray(self._synced.get(file, b""))
        waiting = self._waiting.get(file, ())
        for at, act in enumerate(waiting):
            _apply(content, act, fate(chance, at, len(waiting)), chance)
        return bytes(content)


def _rename(names: dict[str, int], act: Act) -> None:
    if act.kind == "create":
        names[act.value] = act.file
    elif act.kind == "delete":
        names.pop(act.value, None)
    else:
        old, new = act.value
        names[new] = names.pop(old)


def _apply(content: bytearray, act: Act, fate: str = "kept", chance: random.Random | None = None) -> None:
    if fate == "dropped":
        return
    if act.kind == "truncate":
        content[:] = content[: act.value].ljust(act.value, b"\0")
        return
    offset, octets = act.value
    if fate == "hole":
        content[:] = content.ljust(offset + len(octets), b"\0")
        return
    for start, end in _parts(len(octets), offset, fate, chance):
        if len(content) < offset + end:
            content[:] = content.ljust(offset + end, b"\0")
        content[offset + start : offset + end] = octets[start:end]


def _parts(size: int, offset: int, fate: str, chance: random.Random | None) -> Sequence[tuple[int, int]]:
    """Which octets of a write there are."""
    if fate == "kept" or chance is None:
        return [(0, size)]
    if fate == "head":
        return [(0, chance.randint(0, size))]
    if fate == "tail":
        return [(chance.randint(0, size), size)]
    edges = [0, *range(SECTOR - offset % SECTOR, size, SECTOR), size]
    return [part for part in zip(edges, edges[1:]) if chance.random() < 0.5]


def write_out(image: Image, directory: Path) -> Path:
    """Make a directory that holds this."""
    directory.mkdir(mode=0o700)
    for name, octets in image.items():
        (directory / name).write_bytes(octets)
    return directory


def cuts_of(acts: Sequence[Any]) -> list[int]:
    """The moments at which a cut may differ from one at any other: after each act that is not a mark."""
    return [at for at in range(1, len(acts) + 1) if acts[at - 1].kind != "mark"]
