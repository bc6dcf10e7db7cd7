"""Look for what is wrong with a broker, or what would be wrong once it starts; each finding has a remedy.

Nothing is changed and nothing is started. `machine_checks.py` checks the machine; `config_check.py` the configuration,
certificates, users and declarations, as `amqpd check-config` does.

RabbitMQ docs/production-checklist, docs/monitoring (health checks).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from amqpd.broker.definitions import UserDefinition
from amqpd.config import Config, Examination, Listener
from amqpd.server import addresses, exposure
from amqpd.server.certificates import WARNING_DAYS, files_of
from amqpd.server.config_check import check_config, look_at_database, look_at_store
from amqpd.server.machine_checks import (
    Finding,
    Level,
    check_clock,
    check_descriptors,
    check_disk,
    check_file_system,
    check_memory,
    check_permissions,
    check_swap,
    holder_of,
)
from amqpd.server.resources import available_bytes, disk_free_limit
from amqpd.store.ballast import BALLAST
from amqpd.store.errors import StoreError, StoreLocked
from amqpd.wording import counted

LOOK_S = 0.3            # for the pages of the store
DATABASE = "amqpd.db"
DURABILITY = {
    "power": "a confirmed persistent message survives a power loss",
    "process": "a confirmed persistent message survives the end of the process, but not a power loss",
    "server": "a confirmed persistent message is where PostgreSQL's settings say; a start logs it",
    "none": "everything is in memory: nothing survives the end of the process",
}


# Before a start

def examine_stopped(config: Config, found: Examination, files: Sequence[str]) -> Iterator[Finding]:
    """Yield what a start with this configuration, which these files have, would find."""
    store, runs_as = _store(config)
    yield from _configuration(config, found)
    yield from _ports(config, runs_as)
    yield from _directory(config, files)
    yield from store
    yield check_descriptors(config.limits.max_connections)
    yield check_memory(_memory_limit(config), is_running=False)
    yield check_clock(None if config.memory else config.data_dir / DATABASE)
    yield _durability("none" if config.memory else "server" if config.store.reveal() else config.durability)


def _configuration(config: Config, found: Examination) -> Iterator[Finding]:
    more = check_config(config, found.listener_places, found.faulty)
    problems = [*found.problems, *more.problems]
    remarks = [*found.warnings, *(one for one in more.remarks if not one.startswith("a broker runs in "))]
    yield from _told("configuration", "problem", problems)
    yield from _told("configuration", "warning", remarks)
    if not problems and not remarks:
        yield Finding("configuration", "ok", "it can be used")


def _told(check: str, level: Level, lines: Iterable[str]) -> Iterator[Finding]:
    """Yield a finding for each line; what stands behind the last semicolon is its remedy."""
    for line in lines:
        text, _, remedy = line.rpartition("; ")
        yield Finding(check, level, text or remedy, remedy if text else "")


def _ports(config: Config, runs_as: str) -> Iterator[Finding]:
    """Check whether the addresses can be bound, or are those of the broker that runs with this process number."""
    for listener in config.all_listeners:
        try:
            for one in asyncio.run(addresses.bind(listener.host, listener.port)):
                one.close()
        except OSError as error:
            holder = holder_of(listener.port)
            if runs_as and holder.startswith(f"process {runs_as} "):
                yield Finding("ports", "ok", f"{listener} is in use by the broker that runs in the data directory")
                continue
            text, _, remedy = addresses.describe_failure(str(listener), listener.port, error).partition("; ")
            level: Level = "warning" if listener in config.management.optional else "problem"
            yield Finding("ports", level, f"{text}{f' by {holder}' if holder else ''}", remedy)
        else:
            yield Finding("ports", "ok", f"{listener} can be used")


def _store(config: Config) -> tuple[list[Finding], str]:
    """Return what a quick look at the store finds, and the process number of a broker that runs on it, or ""."""
    if config.memory:
        return [], ""
    if config.store.reveal():
        return [*_database(config)], ""
    try:
        look = look_at_store(config, LOOK_S)
    except StoreLocked as error:
        found = re.search(r"process (\d+)", str(error))
        told = Finding("store", "ok", f"a broker runs in {config.data_dir}; 'amqpctl doctor' asks it")
        return [told], found[1] if found else ""
    except StoreError as error:
        return [Finding("store", "problem", str(error), "amqpd store check tells more")], ""
    if look is None:
        return [Finding("store", "ok", f"there is none in {config.data_dir} yet; a start creates it")], ""
    if look.flaws:
        return [*_told_flaws(config.data_dir, look.flaws)], ""
    sound = "its pages are sound" if look.is_whole else "its pages are sound as far as there was time"
    return [Finding("store", "ok", f"{config.data_dir / DATABASE}: {sound}")], ""


def _database(config: Config) -> Iterator[Finding]:
    try:
        for text, remedy, is_problem in look_at_database(config):
            yield Finding("store", "problem" if is_problem else "warning" if remedy else "ok", text, remedy)
    except StoreError as error:
        yield Finding("store", "problem", str(error))


def _told_flaws(directory: Path, flaws: Iterable[str]) -> Iterator[Finding]:
    for flaw in flaws:
        yield Finding("store", "problem", f"{directory / DATABASE}: {flaw}",
                      "amqpd store check, then amqpd store salvage or a backup")


# Of both

def _directory(config: Config, files: Sequence[str]) -> Iterator[Finding]:
    if config.memory:
        return
    yield check_disk(config.data_dir, disk_free_limit(config.limits))
    ballast = config.data_dir / BALLAST
    if config.limits.ballast_size and (config.data_dir / DATABASE).exists() and not ballast.exists():
        yield Finding("disk", "warning", f"there is no {ballast}: a full disk would stop the broker",
                      "free space: a broker that runs makes it again")
    yield from check_file_system(config.data_dir, is_synced=config.durability == "power")
    keys = [Path(file) for setting, file in files_of(config.tls) if file and setting.endswith(".key")]
    secrets = [Path(file) for file in files if _has_secret(Path(file))]
    yield from check_permissions(config.data_dir, [*secrets, *keys])


def _has_secret(file: Path) -> bool:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return file.is_file() and any(word in file.read_text() for word in ("password", "default_pass"))
    return False


def _durability(durability: str) -> Finding:
    return Finding("durability", "ok", DURABILITY[durability])


def _memory_limit(config: Config) -> int:
    limits = config.limits
    return limits.memory_high_watermark_absolute or int(available_bytes() * limits.memory_high_watermark)


# While it runs

def examine_running(
    config: Config, status: dict[str, Any], users: Collection[UserDefinition], clock_behind_ms: int
) -> list[Finding]:
    """Return what is wrong with the broker that runs in this process.

    `status` is what `amqpctl status` shows. `clock_behind_ms` is by how much the wall clock was set since the store was
    made.
    """
    return [
        *_alarms(status), *_listeners(status), *_certificates(status),
        *_exposure(config, users, status),
        *_directory(config, ()),
        check_descriptors(config.limits.max_connections), *_open_files(status),
        check_memory(status["vm_memory_high_watermark_limit"], is_running=True), *check_swap(),
        check_clock(None), *_clock_steps(clock_behind_ms), _durability(status["durability"])]


def _alarms(status: dict[str, Any]) -> Iterator[Finding]:
    for alarm in status["alarms"]:
        yield Finding("alarms", "problem", f"the {alarm['resource']} alarm is raised: publishers are blocked",
                      "see below for disk and memory")
    if not status["alarms"]:
        yield Finding("alarms", "ok", "no alarm is raised")


def _exposure(config: Config, users: Collection[UserDefinition], status: dict[str, Any]) -> Iterator[Finding]:
    warnings = [*exposure.warnings(config, users)]
    for text, _, remedy in (warning.partition(": ") for warning in warnings):
        yield Finding("exposure", "warning", text, remedy)
    if not warnings:
        api, metrics = ("http", "https"), ("http/prometheus", "https/prometheus")
        yield Finding("exposure", "ok", exposure.describe(
            config, users, _listening(status, api), _listening(status, metrics)))


def _listening(status: dict[str, Any], protocols: Collection[str]) -> list[Listener]:
    return [Listener(addresses.describe_address((one["interface"], one["port"])))
            for one in status["listeners"] if one["protocol"] in protocols]


def _listeners(status: dict[str, Any]) -> Iterator[Finding]:
    shown = ", ".join(f"{one['interface']}:{one['port']}" for one in status["listeners"])
    yield Finding("ports", "ok", f"clients can connect to {shown}")


def _certificates(status: dict[str, Any]) -> Iterator[Finding]:
    for one in status["tls_certificates"]:
        days, file = one["days_left"], f"{one['setting']}: {one['file']}"
        if days < 0:
            yield Finding("certificates", "problem", f"{file} has expired: clients refuse it", "replace the file")
        elif days < WARNING_DAYS:
            yield Finding("certificates", "warning", f"{file} expires in {counted(days, 'day')}", "replace the file")
        else:
            yield Finding("certificates", "ok", f"{file} is valid for {counted(days, 'day')}")


def _open_files(status: dict[str, Any]) -> Iterator[Finding]:
    files = status["file_descriptors"]
    if files["total_used"] > files["total_limit"] * 9 // 10:
        yield Finding("descriptors", "problem", f"{files['total_used']:,} files are open, and {files['total_limit']:,} "
                      "may be: soon nobody can connect", "raise it: LimitNOFILE= in the unit, or ulimit -n")


def _clock_steps(behind_ms: int) -> Iterator[Finding]:
    if abs(behind_ms) >= 60_000:
        yield Finding("clock", "warning", f"the clock was set by {behind_ms / 1000:+,.0f} s in all since the store was "
                      "made; messages expire as if it had not been", "have it follow a time server")
