"""Checks of the machine: disk, file system, memory, swap, descriptors, clock, ports and permissions of files.

Each check returns what it found, also if nothing is wrong. Nothing is changed. Linux tells everything; what another
system does not tell is left out.

man proc(5), mount(8), statvfs(3).
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from amqpd.server.resources import available_bytes, descriptors_for_connections, resident_bytes
from amqpd.store.ballast import free_bytes
from amqpd.wording import counted

NETWORK = frozenset((
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "afs", "virtiofs", "vboxsf",
    "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone"))
IN_MEMORY = frozenset(("tmpfs", "ramfs"))
CARELESS = frozenset(("nobarrier", "barrier=0"))        # options with which a sync does not reach the disk
FEW_CONNECTIONS = 2_000
EARLIEST_S = 1_704_067_200      # 2024-01-01, in seconds since 1970: no broker runs before it was written
STEP_S = 60.0                   # that a clock may differ from the times of files
GROUP_AND_OTHERS, OTHERS = 0o077, 0o007
MIB = 1 << 20

Level = Literal["ok", "warning", "problem"]


class Finding(msgspec.Struct, frozen=True):
    """One finding: what was checked, how bad it is, what was found, and what to do."""

    check: str
    level: Level
    text: str
    remedy: str = ""


# The data directory

def check_disk(directory: Path, limit_bytes: int) -> Finding:
    """Check how much of the disk is free, compared with the limit of the disk alarm."""
    free = free_bytes(existing(directory))
    told = f"{free // MIB:,} MiB are free for {directory}, the disk alarm is raised below {limit_bytes // MIB:,} MiB"
    remedy = "free space, or set limits.disk_free_limit"
    if free < limit_bytes:
        return Finding("disk", "problem", f"{told}: publishers are blocked", remedy)
    if free < 2 * limit_bytes:
        return Finding("disk", "warning", told, remedy)
    return Finding("disk", "ok", told)


def existing(path: Path) -> Path:
    """Return the path, or the nearest directory above it that exists."""
    path = path.absolute()
    return next(one for one in (path, *path.parents) if one.exists())


def check_file_system(
    directory: Path, *, is_synced: bool, mounts: Path = Path("/proc/self/mounts")
) -> Iterator[Finding]:
    """Check whether a sync on this file system can be believed, as far as its type and options tell."""
    found = _mount_of(existing(directory), mounts)
    if found is None:
        return
    kind, options = found
    if kind in NETWORK:
        yield Finding("file system", "warning", f"{directory} is on a network file system ({kind}): a sync may not "
                      "reach the disk, and locks may fail", "use a directory on a local disk")
    elif kind in IN_MEMORY and is_synced:
        yield Finding("file system", "warning", f"{directory} is in memory ({kind}): nothing survives a restart of "
                      "the machine, whatever durability says", "use a directory on a disk")
    elif kind == "overlay":
        yield Finding("file system", "warning", f"{directory} is a layer of a container (overlay): it is deleted with "
                      "the container", "mount a volume there")
    elif careless := CARELESS.intersection(options):
        yield Finding("file system", "warning", f"{directory} is mounted with {', '.join(careless)}: a power loss may "
                      "lose what was synced", "mount it without that option")
    else:
        yield Finding("file system", "ok", f"{directory} is on {kind}")


def _mount_of(path: Path, mounts: Path) -> tuple[str, list[str]] | None:
    """Return type and options of the file system that has this path; None if the system does not tell."""
    best: tuple[int, str, list[str]] | None = None
    with contextlib.suppress(OSError):
        resolved = path.resolve()
        for line in mounts.read_text().splitlines():
            _, place, kind, options, *_ = line.split(" ")
            point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), place))
            if resolved.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
                best = len(point.parts), kind, options.split(",")
    return None if best is None else best[1:]


def check_permissions(data_dir: Path, secrets: Iterable[Path]) -> Iterator[Finding]:
    """Check that the data directory can be used, and that others cannot read it, or files with secrets."""
    faults = []
    if data_dir.exists():
        if not os.access(data_dir, os.R_OK | os.W_OK | os.X_OK):
            faults.append(Finding("permissions", "problem", f"{data_dir} cannot be written by this user",
                                  "run amqpd as its owner, or change the owner with chown -R"))
        faults += _usable(OTHERS, [data_dir])
        faults += _usable(GROUP_AND_OTHERS, sorted(data_dir.glob("amqpd.db*")))
        if data_dir.stat().st_uid != os.geteuid() and os.geteuid():
            faults.append(Finding("permissions", "warning", f"{data_dir} belongs to another user",
                                  "run amqpd as that user"))
    faults += _usable(OTHERS, secrets)
    yield from faults or [Finding("permissions", "ok", f"nobody else can read {data_dir} or files with secrets")]


def _usable(users: int, paths: Iterable[Path]) -> Iterator[Finding]:
    """Yield a finding for each of these paths that has any permission bit of these users."""
    for path in paths:
        with contextlib.suppress(OSError):
            if (mode := stat.S_IMODE(path.stat().st_mode)) & users:
                yield Finding(
                    "permissions", "warning", f"other users may use {path} (mode {mode:03o})", f"chmod go= {path}")


# The machine

def check_descriptors(wanted: int) -> Finding:
    """Check how many connections the limit of open files allows; the configuration allows `wanted`."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)[0], descriptors_for_connections()
    if most >= wanted or most >= FEW_CONNECTIONS:
        return Finding("descriptors", "ok", f"{counted(min(most, wanted), 'connection')} can be open")
    return Finding("descriptors", "warning", f"only {counted(most, 'connection')} can be open, since the process may "
                   f"open {counted(limit, 'file')}", "raise it: LimitNOFILE= in the unit, or ulimit -n")


def check_memory(limit_bytes: int, *, is_running: bool) -> Finding:
    """Check the limit of the memory alarm against the memory of the machine or container, and the use if it runs."""
    available = available_bytes()
    told = f"the memory alarm is raised at {limit_bytes // MIB:,} MiB of {available // MIB:,} MiB"
    if limit_bytes > available * 9 // 10:
        return Finding("memory", "warning", f"{told}: the system may end the process first",
                       "set limits.memory_high_watermark lower")
    if is_running:
        used = resident_bytes()
        told = f"{told}, and {used // MIB:,} MiB are used"
        if used > limit_bytes:
            return Finding("memory", "problem", f"{told}: publishers are blocked",
                           "let consumers take messages, or give the broker more memory")
    return Finding("memory", "ok", told)


def check_swap(status: Path = Path("/proc/self/status")) -> Iterator[Finding]:
    """Check whether memory of this process has been swapped out."""
    with contextlib.suppress(OSError):
        found = re.search(r"^VmSwap:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        swapped = int(found[1]) // 1024 if found else 0
        if swapped:
            yield Finding("swap", "warning", f"{swapped:,} MiB of the broker are swapped out, which makes it slow",
                          "give the machine more memory, or set MemorySwapMax=0 in the unit")
        else:
            yield Finding("swap", "ok", "nothing of the broker is swapped out")


def check_clock(written: Path | None, now_s: float | None = None) -> Finding:
    """Check whether the clock can be right: not in the past, and not before this file was written."""
    now = time.time() if now_s is None else now_s
    shown = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now))
    remedy = "set the clock, and have it follow a time server (timedatectl set-ntp true)"
    if now < EARLIEST_S:
        return Finding("clock", "problem", f"the clock says {shown} UTC", remedy)
    with contextlib.suppress(OSError):
        if written is not None and written.stat().st_mtime > now + STEP_S:
            return Finding("clock", "warning", f"the clock says {shown} UTC, and {written} was written later: "
                           "it has been set back", remedy)
    return Finding("clock", "ok", f"the clock says {shown} UTC")


# Ports

def holder_of(port: int, proc: Path = Path("/proc")) -> str:
    """Return who listens on a TCP port, as far as the system tells: `process 812 (beam.smp)`, else an empty text."""
    inodes = {f"socket:[{inode}]" for table in ("tcp", "tcp6") for inode in _listening(proc / "net" / table, port)}
    if not inodes:
        return ""
    for process in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):      # of another user, or gone
            if any(os.readlink(one) in inodes for one in (process / "fd").iterdir()):
                return f"process {process.name} ({(process / 'comm').read_text().strip()})"
    return ""


def _listening(table: Path, port: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]
