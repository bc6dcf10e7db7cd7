"""The options that all commands of amqpctl have, and what follows from them: whom to ask and how to print.

They may stand before or after the command, as rabbitmqctl's do; the later one counts. Headings and lists are for
stdout; csv and json come without a heading.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from amqpd.ctl import client, tables
from amqpd.logs import escape

SOCKET_NAME = "control.sock"

Command = TypeVar("Command", bound=Callable[..., Any])


class Options:
    """What may stand before and after a command."""

    def __init__(self) -> None:
        self.data_dir = os.environ.get("AMQPD_DATA_DIR") or "amqpd-data"
        self.socket: str | None = None
        self.vhost = "/"
        self.quiet = False
        self.silent = False
        self.timeout = 60.0
        self.formatter: tables.Formatter = "table"
        self.no_table_headers = False

    @property
    def path(self) -> Path:
        """The control socket."""
        return Path(self.socket) if self.socket else Path(self.data_dir).expanduser() / SOCKET_NAME

    def ask(self, command: str, *, until_gone: bool = False, **arguments: Any) -> Any:
        """Have the broker carry out a command. Raises Failure."""
        return client.ask(self.path, command, arguments, timeout_s=self.timeout, until_gone=until_gone)

    def announce(self, text: str) -> None:
        """Say what is about to be done."""
        if not (self.quiet or self.silent or self.formatter in ("csv", "json")):
            click.echo(escape(text))

    def report(self, text: str) -> None:
        """Say what came of it."""
        click.echo(json.dumps({"message": text}) if self.formatter == "json" else text)

    def show(self, columns: Sequence[str], rows: Sequence[tables.Row]) -> None:
        """Print a list: for people at a terminal, for programs elsewhere."""
        header = not (self.silent or self.no_table_headers)
        is_seen = self.formatter == "table" and sys.stdout.isatty()
        if is_seen or self.formatter == "pretty_table":
            width = shutil.get_terminal_size().columns if is_seen else sys.maxsize
            lines = tables.render_aligned(columns, rows, header=header, width=width)
        else:
            lines = tables.render(columns, rows, self.formatter, header=header)
        for line in lines:
            click.echo(line)


def _note(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    options, name = ctx.ensure_object(Options), parameter.name or ""
    if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
        setattr(options, name, value)


def common(command: Command) -> Command:
    """Give a command, or the group of them, the options that all have."""
    option = partial(click.option, expose_value=False, callback=_note)
    for decorate in reversed([
        option("--data-dir", metavar="DIR", help="The broker's data directory.  [default: ./amqpd-data]"),
        option("--socket", metavar="PATH", help="Its control socket.  [default: DIR/control.sock]"),
        option("-p", "--vhost", metavar="VHOST", help="The vhost to look into.  [default: /]"),
        option("-q", "--quiet", is_flag=True, help="Print no heading."),
        option("-s", "--silent", is_flag=True, help="Print neither heading nor column names."),
        option("-t", "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
               help="Wait so long for an answer.  [default: 60]"),
        option("--formatter", type=click.Choice(["table", "pretty_table", "csv", "json"]), help="[default: table]"),
        option("--no-table-headers", is_flag=True, help="Print no column names in tables."),
    ]):
        command = decorate(command)
    return command
