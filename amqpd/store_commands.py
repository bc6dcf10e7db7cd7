"""The commands `amqpd store …`: maintenance of a data directory without a broker, and backups at any time.

Owns their output and exit codes: 0 done, 65 the store or the backup is damaged, 74 a disk or file error, 75 a running
broker has the directory, 78 configuration. The work is in `amqpd/store/tools/`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from amqpd.exit_codes import EXIT_CONFIG, EXIT_DATA, EXIT_IO, EXIT_TEMPORARY
from amqpd.identity import CONTROL_SOCKET
from amqpd.program import Failure
from amqpd.wording import counted

if TYPE_CHECKING:
    from amqpd.config import Config

_PATIENCE_S = 24 * 3600.0       # for a large backup
_ANSWER_S = 10.0
_BAR = 1_000                    # steps of a progress bar
_KINDS = {"queue_rows": "queues"}

Progress = Callable[[int, int], None]


@click.group(context_settings={"max_content_width": 100})
def store() -> None:
    """Maintain a data directory.

    The broker must be stopped, except for 'backup' and 'info'. Exit codes: 0 done, 65 damaged, 74 a disk or file error,
    75 a running broker has the directory.
    """


def _on_directory(command: Callable[..., None]) -> Callable[..., None]:
    config = click.option(
        "--config", metavar="FILE", envvar="AMQPD_CONFIG_FILE", help="Take the data directory from this TOML file.")
    data_dir = click.option("--data-dir", metavar="DIR", help="The data directory.  [default: ./amqpd-data]")
    return config(data_dir(command))


@store.command()
@_on_directory
def info(config: str | None, data_dir: str | None) -> None:
    """Show format, sizes, counts, and how the store was stopped.

    Changes nothing. If a broker runs, it is asked. With 'store' in the configuration, or with AMQPD_STORE, the database
    is asked.
    """
    settings = _settings(config, data_dir)
    if url := settings.store.reveal():
        from amqpd.store.tools.databases import facts_at

        with _complaining():
            _say(**{name.replace(" ", "_"): value for name, value in facts_at(url).items()})
        return
    from amqpd.store.errors import StoreLocked
    from amqpd.store.tools.facts import facts

    with _complaining():
        try:
            told = facts(settings.data_dir)
        except StoreLocked:
            if not _socket(settings).exists():
                raise
        else:
            state = "stopped cleanly" if told.was_clean else "not stopped cleanly: the next start checks it"
            if told.is_copy:
                state = "a copy made by 'amqpd store': every message in it counts as delivered before"
            if told.misses_wal:
                state = "its write-ahead log is missing: 'amqpd store check' says what to do"
            _say(store=told.path, state=state, format=told.format,
                 file=f"{_size(told.file_bytes)}, {_size(told.free_bytes)} of it free", wal=_size(told.wal_bytes),
                 durability=settings.durability, **_disk(settings),
                 **{_KINDS.get(table, table): count for table, count in told.counts.items()})
            return
    told = _ask(settings, "store_info", {}, _ANSWER_S)
    _say(store=told["path"], state="in use by a running broker", format=told["format"], file=_size(told["file_bytes"]),
         wal=_size(told["wal_bytes"]), durability=told["durability"], messages=told["messages"],
         damaged=told["damaged"])


def _disk(settings: Config) -> dict[str, str]:
    from amqpd.store.ballast import is_full

    return {"disk": "full: free some of it, or no broker can start here"} if is_full(settings.data_dir) else {}


@store.command()
@_on_directory
def check(config: str | None, data_dir: str | None) -> None:
    """Check the file, the definitions and all messages.

    Changes nothing. Prints one line for each problem; the exit code is 65 if there is any.
    """
    directory = _of_file(_settings(config, data_dir)).data_dir
    from amqpd.store.sqlite.statements import COUNT_MESSAGES
    from amqpd.store.tools.checking import findings
    from amqpd.store.tools.stopped import expect_wal, held, reading

    count = 0
    with _complaining(), held(directory) as path, reading(path) as (connection, _), _bar("checking") as progress:
        expect_wal(path, connection)
        for finding in findings(connection, progress):
            count += 1
            click.echo(finding)
        total = None if count else connection.execute(COUNT_MESSAGES).fetchone()[0]
        damaged = 0 if count else connection.execute("SELECT count(*) FROM damaged").fetchone()[0]
    if count:
        raise Failure(
            f"{directory} is damaged, {counted(count, 'problem')} found; save what can be read with "
            "'amqpd store salvage'", EXIT_DATA)
    click.echo(f"{directory}: fine; messages {total}" + (
        f", and {damaged} set aside in the table 'damaged'" if damaged else ""))


@store.command()
@_on_directory
@click.argument("target", type=click.Path(path_type=Path))
def backup(target: Path, config: str | None, data_dir: str | None) -> None:
    """Copy the store to a new directory.

    A broker can be started on TARGET. The broker may run meanwhile: every message confirmed before is in the backup.
    Changes nothing in the data directory. In the copy every message counts as delivered before.
    """
    settings = _of_file(_settings(config, data_dir))
    from amqpd.store.errors import StoreLocked
    from amqpd.store.sqlite.connecting import DATABASE
    from amqpd.store.tools import copies

    with _complaining(), _bar("copying") as progress:
        try:
            count = copies.backup(settings.data_dir, target, progress)
        except StoreLocked:
            if not _socket(settings).exists():
                raise
            with copies.new_directory(target) as copy:
                _ask_for_copy(settings, copy.absolute(), target, progress)
                count = copies.finish(copy, settings.data_dir / DATABASE)
    click.echo(f"{target}: fine; messages {count}")


def _ask_for_copy(settings: Config, to: Path, target: Path, progress: Progress) -> None:
    """Let the running broker make the copy. Raises Failure, with the name of the target, and StoreError."""
    from amqpd.store.errors import from_system
    from amqpd.store.files import sync_file

    total = _ask(settings, "store_info", {}, _ANSWER_S)["file_bytes"]

    def look() -> None:
        if to.exists():
            progress(min(to.stat().st_size, total), total)
            try:
                sync_file(to)       # in small portions, or the broker's next sync might wait for all of it
            except OSError as error:
                raise from_system(error, to, "write") from error

    try:
        _ask(settings, "backup_store", {"to": str(target.absolute()), "unfinished": str(to)}, _PATIENCE_S, look)
    except Failure as failure:
        raise Failure(str(failure).replace(str(to.parent), str(target)), failure.exit_code) from None


@store.command()
@_on_directory
@click.argument("backup", type=click.Path(path_type=Path))
def restore(backup: Path, config: str | None, data_dir: str | None) -> None:
    """Restore a backup into a directory without a store.

    BACKUP is checked first, and not changed. Every message counts as delivered before.
    """
    directory = _of_file(_settings(config, data_dir)).data_dir
    from amqpd.store.tools import copies

    with _complaining(), _bar("checking") as progress:
        count = copies.restore(backup, directory, progress)
    click.echo(f"{directory}: restored; messages {count}")


@store.command()
@_on_directory
@click.argument("target", type=click.Path(path_type=Path))
def salvage(target: Path, config: str | None, data_dir: str | None) -> None:
    """Save everything that can be read from a damaged store.

    TARGET is a new directory, on which a broker can be started. The damaged store is not changed. Messages with a wrong
    checksum go to the table 'damaged'; messages whose queue cannot be read go to queues named 'salvaged-…'. Every
    message counts as delivered before.
    """
    directory = _of_file(_settings(config, data_dir)).data_dir
    from amqpd.store.tools.salvaging import salvage as save

    with _complaining(), _bar("reading") as progress:
        result = save(directory, target, int(time.time()), progress)
    saved = ", ".join([f"{_KINDS.get(table, table)} {count}" for table, count in result.saved.items()])
    click.echo(f"{target}: saved {saved}")
    click.echo(f"lost: messages {result.lost}, damaged ones set aside {result.damaged}, "
               f"definitions {result.definitions_lost}; places that cannot be read {result.gaps}")


@store.command()
@_on_directory
def compact(config: str | None, data_dir: str | None) -> None:
    """Rewrite the store, as small as its contents.

    If that fails, for example because the disk is full, nothing is changed.
    """
    directory = _of_file(_settings(config, data_dir)).data_dir
    from amqpd.store.tools import compacting

    with _complaining(), _bar("writing") as progress:
        before, after = compacting.compact(directory, progress)
    click.echo(f"{directory}: {_size(before)} before, {_size(after)} now")


# What they share

def _settings(config: str | None, data_dir: str | None) -> Config:
    from amqpd.config import ConfigError, load

    try:
        return load(config, os.environ, {} if data_dir is None else {"data_dir": data_dir})
    except ConfigError as error:
        raise Failure(str(error), EXIT_CONFIG) from None


def _of_file(settings: Config) -> Config:
    """Return the settings of a store in a file. Raises Failure for one in PostgreSQL, which has tools of its own."""
    if settings.store.reveal():
        raise Failure(
            "the store is in PostgreSQL, as 'store' says: use its tools (pg_dump, pg_basebackup, pg_amcheck), or leave "
            "'store' out for a data directory", EXIT_CONFIG)
    return settings


@contextmanager
def _complaining() -> Iterator[None]:
    from amqpd.store.errors import StoreError, StoreLocked, from_system
    from amqpd.store.tools.copies import StoreDamaged

    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Failure(str(from_system(error, Path(error.filename or os.curdir))), EXIT_IO) from None
    except StoreLocked as error:
        raise Failure(str(error), EXIT_TEMPORARY) from None
    except StoreDamaged as error:
        raise Failure(str(error), EXIT_DATA) from None
    except StoreError as error:
        raise Failure(str(error), EXIT_IO) from None


@contextmanager
def _bar(label: str) -> Iterator[Progress]:
    """Yield a function that shows progress on a terminal, and does nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with click.progressbar(length=_BAR, label=label, file=sys.stderr) as bar:
        yield lambda done, total: bar.update(_BAR * done // max(total, 1) - bar.pos)


def _socket(settings: Config) -> Path:
    return settings.data_dir / CONTROL_SOCKET


def _ask(
    settings: Config, command: str, arguments: dict[str, Any], timeout_s: float,
    meanwhile: Callable[[], None] | None = None,
) -> Any:
    from amqpd.ctl.client import ask

    return ask(_socket(settings), command, arguments, timeout_s=timeout_s, meanwhile=meanwhile)


def _say(**facts: object) -> None:
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        click.echo(f"{name}:".ljust(width) + str(value))


def _size(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
