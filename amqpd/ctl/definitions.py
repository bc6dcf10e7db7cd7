"""The commands of amqpctl that export and import definitions: RabbitMQ's definitions.json.

The files are read and written here, by the user who runs amqpctl, and sent over the control socket: the broker may be
in a container that does not see them.

RabbitMQ docs/definitions, docs/man/rabbitmqctl.8.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path

import click

from amqpd.ctl.options import Command, Options, common
from amqpd.exit_codes import EXIT_DATA, EXIT_IO
from amqpd.program import Failure, complain
from amqpd.wording import counted

STDIO = "-"
MOST_BYTES = 20 << 20       # what a broker takes
ONLY_OWNER = stat.S_IRUSR | stat.S_IWUSR

_format = click.option("--format", "file_format", default="json", metavar="json",
                       help="The format of the file: json.  [default: json]")


def commands() -> list[click.Command]:
    """Return the two commands."""
    return [export_definitions, import_definitions]


@click.command("export_definitions", cls=Command)
@click.argument("file")
@_format
@common
@click.pass_obj
def export_definitions(options: Options, file: str, file_format: str) -> None:
    """Write all definitions to a JSON file.

    \b
    amqpctl export_definitions definitions.json
    amqpctl -p shop export_definitions -

    FILE "-" is stdout. With -p, only what is in this vhost is written. The file has the hashes of all
    passwords: only its owner may read it.
    """
    _check_format(file_format)
    path = Path(file)
    if file != STDIO:
        if not path.parent.is_dir():
            raise Failure(f"Bad argument: Directory {path.parent} does not exist", EXIT_DATA)
        options.announce(f'Exporting definitions in JSON to a file at "{file}" ...')
    exported: bytes = options.ask_for_long(
        "exporting", "export_definitions", vhost=_vhost_given(options))
    if file == STDIO:
        sys.stdout.buffer.write(exported)
        return
    try:
        write_private(path, exported)
    except OSError as error:
        raise Failure(f"{file}: cannot be written: {error.strerror}", EXIT_IO) from None


@click.command("import_definitions", cls=Command)
@click.argument("file", default=STDIO)
@_format
@click.option("--skip-if-unchanged", is_flag=True, help="Do nothing if this file was the last one imported so.")
@common
@click.pass_obj
def import_definitions(options: Options, file: str, file_format: str, *, skip_if_unchanged: bool) -> None:
    """Add or update what a JSON file defines.

    FILE "-", or none, is stdin. It is a file of amqpctl or rabbitmqctl export_definitions. With -p, everything goes
    into this vhost. Nothing is deleted; queues and exchanges that exist stay as they are. If anything is wrong with
    the file, all of it is listed, and nothing is imported.
    """
    _check_format(file_format)
    where = "standard input" if file == STDIO else f'a file at "{file}"'
    body = _read(file)
    options.announce(f"Importing definitions in JSON from {where} ...")
    result = options.ask_for_long(
        "importing", "import_definitions", body=body, skip_if_unchanged=skip_if_unchanged, vhost=_vhost_given(options))
    for warning in result["warnings"]:
        complain("amqpctl", f"warning: {warning}")
    options.report("The file is unchanged: nothing was imported" if result["is_unchanged"] else
                   f"Successfully imported {counted(result['count'], 'definition')}")


def _check_format(file_format: str) -> None:
    if file_format.lower() != "json":
        raise Failure("Bad argument: Format should be json", EXIT_DATA)


def _vhost_given(options: Options) -> str | None:
    """Return the vhost if one was named: otherwise these commands are about all vhosts."""
    return options.vhost if "vhost" in options.given else None


def _read(file: str) -> bytes:
    try:
        body = sys.stdin.buffer.read(MOST_BYTES + 1) if file == STDIO else _read_file(Path(file))
    except FileNotFoundError:
        raise Failure(f"Bad argument: File {file} does not exist", EXIT_DATA) from None
    except OSError as error:
        raise Failure(f"{file}: cannot be read: {error.strerror}", EXIT_IO) from None
    if len(body) > MOST_BYTES:
        raise Failure(f"{file}: larger than {MOST_BYTES >> 20} MiB; import it in parts", EXIT_DATA)
    return body


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read; it has its name once it is complete. Raises OSError."""
    if path.exists() and not path.is_file():        # a pipe or a device
        path.write_bytes(content)
        return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, ONLY_OWNER), "wb") as file:
            file.write(content)
        unfinished.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
