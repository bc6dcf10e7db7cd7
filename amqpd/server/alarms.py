"""The alarms of memory, disk and store: when they are raised, and when they clear.

Owns the limits, which operators may change while the broker runs, and decides when memory and disk are measured. The
effect of an alarm on a client is in `session/connection.py`.

Always true between calls: the turn has a reason exactly while an alarm is raised. The disk alarm is raised while less
than the limit is free, and while the ballast is spent: until it is rebuilt, nothing protects the store from a full
disk.

RabbitMQ docs/alarms, docs/memory, docs/disk-alarms; rabbit_alarm, vm_memory_monitor, rabbit_disk_monitor.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from amqpd.broker.events import Events
from amqpd.identity import NODE_NAME
from amqpd.server.loop import LoopTurn
from amqpd.server.resources import available_bytes, give_back_memory, resident_bytes
from amqpd.store.ballast import Ballast, free_bytes

log = logging.getLogger("amqpd.alarms")

MEMORY, DISK, STORE = "memory", "disk", "store"
ENDS_AT = 0.95                      # of the memory watermark
MEMORY_MIN_S, MEMORY_MAX_S = 0.02, 1.0      # between two measurements
FAST_MEMORY = 1_000_000_000         # bytes a second that might be published, at most
COLLECT_S = 5.0                     # between two garbage collections while memory is high, at least
COLLECT_SHARE = 50                  # times the duration of the last collection, at least
RAISED_S = 0.5                      # between two measurements during an alarm
DISK_MIN_S, DISK_MAX_S = 0.1, 10.0
FAST_DISK = 250_000_000             # bytes a second that might be written, at most
WRITTEN_SHARE = 4                   # part of the free bytes that may be written before a measurement


class Machine(msgspec.Struct, frozen=True):
    """How memory and disk are measured; sizes are in bytes."""

    available: Callable[[], int] = available_bytes     # memory of the machine or container
    used: Callable[[], int] = resident_bytes           # memory of this process
    give_back: Callable[[], None] = give_back_memory    # free memory of this process, to the system
    collect: Callable[[], object] = gc.collect          # garbage, so that it does not count as used
    free: Callable[[Path], int] = free_bytes            # on the disk that has this directory
    now_s: Callable[[], float] = time.monotonic


MACHINE = Machine()


class Alarms:
    """The alarms of one broker. `data_dir` is None without a store: then there is no disk alarm."""

    def __init__(
        self, turn: LoopTurn, *, memory_fraction: float, memory_absolute: int, disk_free_limit: int,
        data_dir: Path | None = None, ballast: Ballast | None = None, machine: Machine = MACHINE,
        events: Events | None = None,
    ) -> None:
        self._events = events
        self._machine = machine
        self._turn = turn
        self._memory_fraction: float | None = None
        self._memory_limit = 0
        self._disk_free_limit = disk_free_limit
        self._data_dir = data_dir
        self._ballast = ballast
        self._raised: set[str] = set()
        self._unreachable = ""
        self._collects_at = 0.0
        self._memory_limit_set, self._look_at_disk = asyncio.Event(), asyncio.Event()
        self._may_write = 0         # bytes, before the disk is measured again
        if memory_absolute:
            self._set_memory_limit(None, memory_absolute)
        else:
            self._set_memory_limit(memory_fraction, 0)

    # Measuring

    async def watch_memory_forever(self) -> None:
        """Measure memory, more often near the limit."""
        while True:
            await _sleep(self.check_memory(), self._memory_limit_set)

    async def watch_disk_forever(self) -> None:
        """Measure the free space, more often near the limit; rebuild the ballast when there is room."""
        while self._data_dir is not None:
            if self._ballast is not None and self._ballast.is_spent:
                await asyncio.to_thread(self._ballast.ensure)
            await _sleep(self.check_disk(), self._look_at_disk)

    def check_memory(self) -> float:
        """Measure memory now; return after how many seconds to measure again."""
        used, limit = self._machine.used(), self._memory_limit
        if MEMORY in self._raised or used > limit:
            self._collect()
            self._machine.give_back()
            used = self._machine.used()
        is_high = used > (limit * ENDS_AT if MEMORY in self._raised else limit)
        if is_high != (MEMORY in self._raised):
            log.info("vm_memory_high_watermark %s. Memory used:%d allowed:%d", "set" if is_high else "clear", used,
                     limit)
        self._change(MEMORY, is_high)
        if is_high:
            return RAISED_S
        return min(MEMORY_MAX_S, max(MEMORY_MIN_S, (limit - used) / FAST_MEMORY))

    def _collect(self) -> None:
        """Collect garbage so that it does not count as used; not often, since a collection takes time."""
        now = self._machine.now_s()
        if now >= self._collects_at:
            self._machine.collect()
            took = self._machine.now_s() - now
            self._collects_at = now + max(COLLECT_S, COLLECT_SHARE * took)

    def check_disk(self) -> float:
        """Measure the free space now; return after how many seconds to measure again."""
        if self._data_dir is None:
            return DISK_MAX_S
        try:
            free = self._machine.free(self._data_dir)
        except OSError as error:
            log.warning("free disk space of %s is not known: %s", self._data_dir, error.strerror)
            return DISK_MAX_S
        is_low = free < self._disk_free_limit or (self._ballast is not None and self._ballast.is_spent)
        if is_low != (DISK in self._raised):
            log.info("Free disk space is %s. Free bytes: %d. Limit: %d",
                     "insufficient" if is_low else "sufficient", free, self._disk_free_limit)
        self._change(DISK, is_low)
        self._may_write = max(0, free - self._disk_free_limit) // WRITTEN_SHARE
        return min(DISK_MAX_S, max(DISK_MIN_S, 2 * (free - self._disk_free_limit) / FAST_DISK))

    def on_written(self, size: int) -> None:
        """Measure the free space soon if so many bytes of contents were stored that the limit may be near.

        The time between two measurements fits a disk of an assumed speed; a faster disk might be full before the
        second.
        """
        self._may_write -= size
        if self._may_write < 0 and DISK not in self._raised:
            self._look_at_disk.set()

    def _change(self, resource: str, is_on: bool) -> None:
        if is_on == (resource in self._raised):
            return
        if is_on:
            self._raised.add(resource)
            log.warning("%s resource limit alarm set on node %s. Publishers will be blocked until this alarm clears",
                        resource, NODE_NAME)
        else:
            self._raised.discard(resource)
            log.warning("%s resource limit alarm cleared on node %s", resource, NODE_NAME)
        if self._events is not None:
            self._turn.tell_time()
            self._events.tell(f"alarm.{'set' if is_on else 'cleared'}", None, source=resource)
        low = sorted(self._raised - {STORE})
        self._turn.set_alarm(" & ".join([*(["low on " + " & ".join(low)] if low else []), *(
            [self._unreachable] if self._unreachable else [])]))

    def set_unreachable(self, reason: str) -> None:
        """Raise the alarm of the store with a reason, or clear it with an empty one."""
        self._unreachable = reason
        self._change(STORE, bool(reason))

    # Commands of operators

    def set_memory_watermark(self, fraction: float) -> None:
        """Set the limit to a fraction of the available memory, and measure at once."""
        self._set_memory_limit(fraction, 0)
        self.check_memory()

    def set_memory_watermark_absolute(self, limit_bytes: int) -> None:
        """Set the limit in bytes, and measure at once."""
        self._set_memory_limit(None, limit_bytes)
        self.check_memory()

    def set_disk_free_limit(self, limit_bytes: int) -> None:
        """Set how many bytes must be free, and measure at once."""
        self._disk_free_limit = limit_bytes
        self._look_at_disk.set()
        log.info("Disk free limit set to %d bytes", limit_bytes)
        self.check_disk()

    def set_disk_free_limit_relative(self, fraction: float) -> None:
        """Set how much must be free, as a multiple of the available memory, and measure at once."""
        self.set_disk_free_limit(int(self._machine.available() * fraction))

    def _set_memory_limit(self, fraction: float | None, limit_bytes: int) -> None:
        available = self._machine.available()
        self._memory_fraction = fraction
        self._memory_limit = limit_bytes if fraction is None else int(available * fraction)
        self._memory_limit_set.set()
        log.info("Memory high watermark set to %d MiB (%d bytes) of %d MiB (%d bytes) total",
                 self._memory_limit >> 20, self._memory_limit, available >> 20, available)

    def statistics(self) -> dict[str, Any]:
        """Return alarms, limits and use, under the names of `rabbitmqctl status --formatter json`."""
        setting: dict[str, Any] = {"absolute": self._memory_limit}
        if self._memory_fraction is not None:
            setting = {"relative": self._memory_fraction}
        return {
            "alarms": [
                {"type": "resource_limit", "resource": raised, "node": NODE_NAME} for raised in sorted(self._raised)],
            "memory": {"total": {"rss": self._machine.used()}, "connection_readers": self._turn.intake.octets},
            "vm_memory_high_watermark_setting": setting,
            "vm_memory_high_watermark_limit": self._memory_limit,
            "disk_free": self._machine.free(self._data_dir or Path.cwd()),
            "disk_free_limit": self._disk_free_limit,
        }


async def _sleep(seconds: float, limit_set: asyncio.Event) -> None:
    """Wait so long, or until the limit is changed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await limit_set.wait()
    limit_set.clear()
