"""The options that all commands of amqpctl share: they say which broker is asked and how the result is printed.

The options may stand before or after the command, as in rabbitmqctl; the later one counts. Headings and lists go to
stdout; csv and json have no heading.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from amqpd.ctl import client
from amqpd.exit_codes import EXIT_OK, EXIT_TEMPORARY
from amqpd.identity import CONTROL_SOCKET, NODE_NAME
from amqpd.program import Failure
from amqpd.wording import escape

if TYPE_CHECKING:
    from amqpd.ctl import tables

COMMON_OPTIONS = "Options of every command"
LONGEST_NAME = 28               # of a command that has its help beside it

# The lists that complete a name, and their columns.
COMPLETED = {
    "queue": ("list_queues", "name"), "exchange": ("list_exchanges", "name"), "user": ("list_users", "user"),
    "vhost": ("list_vhosts", "name"), "policy": ("list_policies", "name"),
    "operator_policy": ("list_operator_policies", "name"), "connection": ("list_connections", "name")}
COMPLETION_S, MOST_COMPLETED = 2.0, 1_000
Completion = Callable[[click.Context, click.Parameter, str], list[str]]
Sections = Iterable[tuple[str, Iterable[str]]]
AnyCommand = TypeVar("AnyCommand", bound=Callable[..., Any])


class CommonOption(click.Option):
    """An option that every command has."""


class Command(click.Command):
    """A command whose help shows an example, its own options, then the options of every command."""

    def invoke(self, ctx: click.Context) -> Any:
        """Carry the command out; in JSON, a success without a result is told too, as by rabbitmqctl."""
        result = super().invoke(ctx)
        options = ctx.find_object(Options)
        if options is not None and options.has_plain_answer and options.formatter == "json":
            options.say({"result": "ok", "node": options.node})
        return result

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what the command does, and an example if the text has none."""
        from amqpd.ctl.examples import EXAMPLES
        super().format_help_text(ctx, formatter)
        if self.name in EXAMPLES:
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write(f"{' ' * formatter.current_indent}amqpctl {EXAMPLES[self.name]}\n")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write both sections."""
        write_options(self, ctx, formatter, "Options", is_common=False)
        write_options(self, ctx, formatter, COMMON_OPTIONS, is_common=True)


class Group(click.Group):
    """The program itself: it imports a module of commands when one of them is asked for.

    `sections` has the sections of the help, and in each the modules of `package` with the names of their commands,
    between spaces. A module has the function `commands`, which returns or yields them. Commands in the section "" are
    not shown.
    """

    command_class = Command

    def __init__(
        self, *arguments: Any, sections: Mapping[str, Mapping[str, str]], package: str, **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self._sections = {
            title: [name for names in modules.values() for name in names.split()]
            for title, modules in sections.items()}
        self._module_of = {
            name: f"{package}.{module}" for modules in sections.values() for module, names in modules.items()
            for name in names.split()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*self._module_of, *self.commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, from its module."""
        if cmd_name not in self.commands and cmd_name in self._module_of:
            for command in import_module(self._module_of[cmd_name]).commands():
                self.add_command(command)
        return self.commands.get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is named first. Raises UsageError with a name that is like it."""
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            from difflib import get_close_matches
            like = get_close_matches(name, self.list_commands(ctx), 1)
            question = f". Did you mean '{like[0]}'?" if like else ""
            ctx.fail(f"Command '{name}' not found{question}")
        return super().resolve_command(ctx, args)

    def load_all(self) -> dict[str, click.Command]:
        """Return all commands by name."""
        for name in self._module_of:
            self.get_command(click.Context(self), name)
        return dict(self.commands)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections."""
        write_options(self, ctx, formatter, "Options", is_common=False)
        self.format_commands(ctx, formatter)
        write_options(self, ctx, formatter, COMMON_OPTIONS, is_common=True)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command with the first line of its help; that of a very long name is below it."""
        self.load_all()
        room = formatter.width - 2 - LONGEST_NAME - 2
        others = [name for name in self.commands if name not in self._module_of]
        for title, names in {**self._sections, "others": others}.items():
            if title and names:
                with formatter.section(f"Commands, {title}"):
                    formatter.write_dl(
                        [(name, self.commands[name].get_short_help_str(room)) for name in names],
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
        self.url: str | None = os.environ.get("AMQPCTL_URL") or None
        self.node = NODE_NAME
        self.vhost = "/"
        self.given: set[str] = set()        # the names of the options that were given
        self.quiet = False
        self.silent = False
        self.timeout = 60.0
        self.is_dry_run = False
        self.has_plain_answer = False       # the broker answered only that it did it, and nothing was printed
        self.formatter: tables.Formatter = "table"
        self.no_table_headers = False

    @property
    def path(self) -> Path:
        """The control socket."""
        return Path(self.socket) if self.socket else Path(self.data_dir).expanduser() / CONTROL_SOCKET

    @property
    def program(self) -> str:
        """The name under which the program was called."""
        return click.get_current_context().find_root().info_name or ""

    @property
    def place(self) -> str:
        """Where the broker is asked."""
        return self.url if self.is_remote and self.url else str(self.path)

    @property
    def is_remote(self) -> bool:
        """Whether the broker is asked over HTTP: a place on the command line counts before AMQPCTL_URL."""
        return self.url is not None and ("url" in self.given or not self.given & {"data_dir", "socket"})

    def ask_for_long(self, label: str, command: str, *, body: bytes = b"", **arguments: Any) -> Any:
        """Send a command that may take long; on a terminal, show for how long it has been going on. Raises Failure."""
        if self.is_remote or not sys.stderr.isatty():
            return self.ask(command, body=body, **arguments)
        began, shown = time.monotonic(), [""]

        def show() -> None:
            shown[0] = f"{label} … {time.monotonic() - began:.0f} s"
            click.echo(f"\r{shown[0]}", nl=False, err=True)

        try:
            return self.ask(command, body=body, meanwhile=show, **arguments)
        finally:
            click.echo(f"\r{' ' * len(shown[0])}\r", nl=False, err=True)

    def ask(
        self, command: str, *, until_gone: bool = False, body: bytes = b"",
        meanwhile: Callable[[], None] | None = None, **arguments: Any,
    ) -> Any:
        """Send a command to the broker and return its result; for `meanwhile`, see `client.ask`. Raises Failure."""
        if self.is_dry_run:
            raise click.exceptions.Exit(EXIT_OK)
        if self.timeout == 0:
            raise Failure("timed out: the timeout is 0", EXIT_TEMPORARY)
        if self.is_remote and self.url is not None:
            from amqpd.ctl import web
            result = web.ask(
                self.url, command, arguments, timeout_s=self.timeout, until_gone=until_gone, body=body)
        else:
            result = client.ask(
                self.path, command, arguments, timeout_s=self.timeout, until_gone=until_gone, body=body,
                meanwhile=meanwhile)
        self.has_plain_answer = result is None
        return result

    def follow(self, command: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """Send a command that follows what happens, and yield its records as they come. Raises Failure."""
        if self.is_remote and self.url is not None:
            from amqpd.ctl import web
            return web.follow(self.url, command, arguments, timeout_s=self.timeout)
        return client.follow(self.path, command, arguments, timeout_s=self.timeout)

    def announce(self, text: str) -> None:
        """Print the heading of a command."""
        if not (self.quiet or self.silent or self.formatter in ("csv", "json")):
            click.echo(text if text.isprintable() else escape(text))

    def report(self, text: str, **facts: Any) -> None:
        """Print the result of a command, as a text or as JSON with these facts."""
        self.has_plain_answer = False
        click.echo(json.dumps({"message": text, **facts}) if self.formatter == "json" else text)

    def say(self, value: Any, lines: Iterable[str] | None = None) -> None:
        """Print a value of JSON: as `--formatter` says, or these lines, which are otherwise the value itself."""
        self.has_plain_answer = False
        if self.formatter == "json":
            click.echo(json.dumps(value, ensure_ascii=False))
        elif self.formatter == "erlang":
            from amqpd.ctl.tables import erlang_term
            click.echo(erlang_term(value))
        else:
            for line in [value] if lines is None else lines:
                click.echo(escape(line))

    def show_sections(self, result: Any, sections: Callable[[Any], Sections]) -> None:
        """Print a result as `--formatter` says, or its sections, each with a title and lines."""
        if self.formatter in ("json", "erlang"):
            self.say(result)
            return
        for title, lines in sections(result):
            click.echo(f"{click.style(title, bold=True)}\n")
            click.echo("".join([f"{escape(line)}\n" for line in lines]))

    def show(self, columns: Sequence[str], rows: Sequence[tables.Row]) -> None:
        """Print a list: aligned on a terminal, separated by tabs elsewhere, or as `--formatter` says."""
        self.has_plain_answer = False
        from amqpd.ctl import tables

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


def names(kind: str) -> Completion:
    """Return the function that completes a name in a shell: those of the running broker, over the control socket.

    `kind` is a column of `COMPLETED`. Without a broker there are none.
    """
    command, column = COMPLETED[kind]

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        options = ctx.ensure_object(Options)
        if options.is_remote:       # it might have to ask for a password
            return []
        options.timeout = COMPLETION_S
        try:
            rows = options.ask(command, vhost=options.vhost, columns=[column])["rows"]
        except Failure:
            return []
        return [row[0] for row in rows if row[0].startswith(incomplete)][:MOST_COMPLETED]

    return complete


def columns_of(given: Iterable[str]) -> list[str]:
    """Return the columns that were asked for, which are separated by spaces or commas."""
    return [column for text in given for column in text.split(",") if column]


def _note(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    options, name = ctx.ensure_object(Options), parameter.name or ""
    source = ctx.get_parameter_source(name)
    # click 8.4.0 does not know the source here; an option that is not given is None or False.
    if source is ParameterSource.COMMANDLINE or (source is None and value is not None and value is not False):
        setattr(options, name, value)
        options.given.add(name)


def common(command: AnyCommand) -> AnyCommand:
    """Add the options of every command to a command or group."""
    option = partial(click.option, cls=CommonOption, expose_value=False, callback=_note)
    for decorate in reversed([
        option("--data-dir", metavar="DIR", help="The broker's data directory.  [default: ./amqpd-data]"),
        option("--socket", metavar="PATH", help="Its control socket.  [default: DIR/control.sock]"),
        option("--url", metavar="URL",
               help="Ask over HTTP, such as http://USER@HOST:15672.  [default: AMQPCTL_URL, or the socket]"),
        option("-p", "--vhost", metavar="VHOST", shell_complete=names("vhost"), help="The vhost.  [default: /]"),
        option("-q", "--quiet", is_flag=True, help="Print no heading."),
        option("-s", "--silent", is_flag=True, help="Print neither heading nor column names."),
        option("-t", "--timeout", type=click.FloatRange(min=0), metavar="SECONDS",
               help="Wait at most so long for an answer.  [default: 60]"),
        option("--formatter", type=click.Choice(["table", "pretty_table", "csv", "json", "erlang"]),
               help="Print lists in this format.  [default: table]"),
        option("--no-table-headers", is_flag=True, help="Print no column names in tables."),
        option("-n", "--node", metavar="NODE", help="The node's name in headings; it chooses no broker."),
        option("--dry-run", "is_dry_run", is_flag=True, help="Check the arguments, and ask no broker."),
        # What scripts for rabbitmqctl may say, and what has no meaning here.
        option("-l", "--longnames", is_flag=True, hidden=True),
        option("--print-stacktrace", is_flag=True, hidden=True),
        option("--script-mode", is_flag=True, hidden=True),
        option("--erlang-cookie", metavar="TEXT", hidden=True),
    ]):
        command = decorate(command)
    return command
