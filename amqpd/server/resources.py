"""Memory as the system tells of it: what this process has, and what there is for it.

Owns no state. Linux tells all of it; elsewhere what it had at most stands for what it has, and nothing is given back.

man proc(5); the kernel's admin-guide/cgroup-v2, cgroup-v1/memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

STATM = Path("/proc/self/statm")
CGROUPS = Path("/proc/self/cgroup")
CGROUP_ROOT = Path("/sys/fs/cgroup")


def resident_octets() -> int:
    """How much memory the process has; where the system does not tell, how much it had at most."""
    try:
        return int(STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def available_octets() -> int:
    """The memory of the machine or, if that is less, what the process's container may have."""
    of_machine = os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()
    return min([of_machine, *_container_limits()])


def _container_limits() -> Iterator[int]:
    """What the groups of this process may have, those above them too; a group without a limit is left out."""
    for path in _limit_files():
        with contextlib.suppress(OSError, ValueError):      # no such file; the word `max`
            yield int(path.read_text())


def _limit_files() -> Iterator[Path]:
    try:
        lines = CGROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            root, name = CGROUP_ROOT, "memory.max"
        elif controllers == "memory":
            root, name = CGROUP_ROOT / "memory", "memory.limit_in_bytes"
        else:
            continue
        inside = root / group.lstrip("/")
        for folder in (inside, *inside.parents):
            if folder.is_relative_to(root):
                yield folder / name


def give_back_memory() -> None:
    """Give what is free inside the process back to the system, so that it does not count any more."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
