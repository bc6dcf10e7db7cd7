"""The options that all commands of amqpctl share: they say which broker is asked and how the result is printed.

The options may stand before or after the command, as in rabbitmqctl; the later one counts. Headings and lists go to
stdout; csv and json have no heading.
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
from amqpd.identity import CONTROL_SOCKET
from amqpd.logs import escape

COMMON_OPTIONS = "Options of every command"
LONGEST_NAME = 28               # of a command that has its help beside it

AnyCommand = TypeVar("AnyCommand", bound=Callable[..., Any])


class CommonOption(click.Option):
    """An option that every command has."""


class Command(click.Command):
    """A command whose help shows its own options first, then the options of every command."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write both sections."""
        write_options(self, ctx, formatter, "Options", is_common=False)
        write_options(self, ctx, formatter, COMMON_OPTIONS, is_common=True)


class Group(click.Group):
    """The program itself, whose help shows the commands before the options of every command."""

    command_class = Command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections."""
        write_options(self, ctx, formatter, "Options", is_common=False)
        self.format_commands(ctx, formatter)
        write_options(self, ctx, formatter, COMMON_OPTIONS, is_common=True)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command with the first line of its help; that of a very long name is below it."""
        room = formatter.width - 2 - LONGEST_NAME - 2
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, self.commands[name].get_short_help_str(room)) for name in self.list_commands(ctx)],
                col_max=LONGEST_NAME)


def write_options(
    command: click.Command, ctx: click.Context, formatter: click.HelpFormatter, title: str, *, is_common: bool
) -> None:
    """Write a section of the help: either the options of every command, or the others."""
    records = [
        record for parameter in command.get_params(ctx)
        if isinstance(parameter, click.Option) and isinstance(parameter, CommonOption) is is_common
        and (record := parameter.get_help_record(ctx)) is not None]
    if records:
        with formatter.section(title):
            formatter.write_dl(records)


class Options:
    """The values of the options of every command."""

    def __init__(self) -> None:
        self.data_dir = os.environ.get("AMQPD_DATA_DIR") or "amqpd-data"
        self.socket: str | None = None
        self.vhost = "/"
        self.given: set[str] = set()        # the names of the options that were given
        self.quiet = False
        self.silent = False
        self.timeout = 60.0
        self.formatter: tables.Formatter = "table"
        self.no_table_headers = False

    @property
    def path(self) -> Path:
        """The control socket."""
        return Path(self.socket) if self.socket else Path(self.data_dir).expanduser() / CONTROL_SOCKET

    def ask(self, command: str, *, until_gone: bool = False, body: bytes = b"", **arguments: Any) -> Any:
        """Send a command to the broker and return its result. Raises Failure."""
        return client.ask(
            self.path, command, arguments, timeout_s=self.timeout, until_gone=until_gone, body=body)

    def announce(self, text: str) -> None:
        """Print the heading of a command."""
        if not (self.quiet or self.silent or self.formatter in ("csv", "json")):
            click.echo(escape(text))

    def report(self, text: str) -> None:
        """Print the result of a command, as a text or as JSON."""
        click.echo(json.dumps({"message": text}) if self.formatter == "json" else text)

    def show(self, columns: Sequence[str], rows: Sequence[tables.Row]) -> None:
        """Print a list: aligned on a terminal, separated by tabs elsewhere, or as `--formatter` says."""
        header = not (self.silent or self.no_table_headers)
        if self.formatter == "table" and sys.stdout.isatty():
            width = shutil.get_terminal_size().columns
            lines = tables.render_aligned(columns, rows, header=header, width=width)
        elif self.formatter == "pretty_table":
            lines = tables.render_boxes(columns, rows, header=header)
        else:
            lines = tables.render(columns, rows, self.formatter, header=header)
        for line in lines:
            click.echo(line)


def _note(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    options, name = ctx.ensure_object(Options), parameter.name or ""
    if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
        setattr(options, name, value)
        options.given.add(name)


def common(command: AnyCommand) -> AnyCommand:
    """Add the options of every command to a command or group."""
    option = partial(click.option, cls=CommonOption, expose_value=False, callback=_note)
    for decorate in reversed([
        option("--data-dir", metavar="DIR", help="The broker's data directory.  [default: ./amqpd-data]"),
        option("--socket", metavar="PATH", help="Its control socket.  [default: DIR/control.sock]"),
        option("-p", "--vhost", metavar="VHOST", help="The vhost.  [default: /]"),
        option("-q", "--quiet", is_flag=True, help="Print no heading."),
        option("-s", "--silent", is_flag=True, help="Print neither heading nor column names."),
        option("-t", "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
               help="Wait at most so long for an answer.  [default: 60]"),
        option("--formatter", type=click.Choice(["table", "pretty_table", "csv", "json"]),
               help="Print lists in this format.  [default: table]"),
        option("--no-table-headers", is_flag=True, help="Print no column names in tables."),
    ]):
        command = decorate(command)
    return command
