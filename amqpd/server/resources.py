"""Memory and file descriptors: what this process uses, and what is available to it.

Owns no state. Linux provides all values. On other systems psutil tells the memory of the process; without it, the peak
memory is used instead. Memory is given back only with glibc.

man proc(5); the kernel's admin-guide/cgroup-v2, cgroup-v1/memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from amqpd.config.settings import Limits

STATM = Path("/proc/self/statm")
CGROUPS = Path("/proc/self/cgroup")
CGROUP_ROOT = Path("/sys/fs/cgroup")
KEPT_DESCRIPTORS = 64           # for the store, amqpctl and other files
KEPT_FROM_CONNECTIONS = 128     # some of these serve clients that are told that there are too many connections


def resident_bytes(statm: Path = STATM) -> int:
    """Return the memory of the process in bytes; where the system does not tell, the peak."""
    try:
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return _resident_elsewhere()


def _resident_elsewhere() -> int:
    try:
        psutil = importlib.import_module("psutil")      # installed where there is no /proc
    except ImportError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    return int(psutil.Process().memory_info().rss)


def available_bytes(groups: Path = CGROUPS, root: Path = CGROUP_ROOT) -> int:
    """Return the memory of the machine in bytes or, if that is less, the limit of the process's container."""
    of_machine = os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()
    return min([of_machine, *_container_limits(groups, root)])


def disk_free_limit(limits: Limits) -> int:
    """Return the limit of the disk alarm in bytes."""
    if limits.disk_free_limit_relative:
        return int(available_bytes() * limits.disk_free_limit_relative)
    return limits.disk_free_limit


def descriptors_for_clients() -> int:
    """Return how many sockets of clients may be open at a time, in any state."""
    limit = _descriptor_limit()
    return max(limit - KEPT_DESCRIPTORS, limit // 2)


def descriptors_for_connections() -> int:
    """Return how many connections may be open at a time, after their login."""
    limit = _descriptor_limit()
    return max(limit - KEPT_FROM_CONNECTIONS, limit // 2)


def _descriptor_limit() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def _container_limits(groups: Path, root: Path) -> Iterator[int]:
    """Yield the memory limits of the cgroups of this process and their parents; groups without a limit are left out."""
    for path in _limit_files(groups, root):
        with contextlib.suppress(OSError, ValueError):      # no such file; the word `max`
            yield int(path.read_text())


def _limit_files(groups: Path, root: Path) -> Iterator[Path]:
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            top, name = root, "memory.max"
        elif controllers == "memory":
            top, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        inside = top / group.lstrip("/")
        for folder in (inside, *inside.parents):
            if folder.is_relative_to(top):
                yield folder / name


def give_back_memory() -> None:
    """Return free memory of the process to the system, so that it no longer counts as used."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
