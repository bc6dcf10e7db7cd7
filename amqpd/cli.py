"""The program `amqpd`: its commands, options and exit codes.

Owns the way from arguments to a `Config`. Nothing else of amqpd is imported until a command needs it, so that
`--version` and `check-config` answer at once. `store_commands.py` has those on a store.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import click

from amqpd import __version__
from amqpd.exit_codes import EXIT_CONFIG
from amqpd.program import Failure, complain, run
from amqpd.store_commands import store

DEFAULT_COMMAND = "serve"
DECLARED = ("vhosts", "users", "policies", "operator_policies", "exchanges", "queues", "bindings")


class AmqpdGroup(click.Group):
    """`amqpd`, and `amqpd` with options only, mean `amqpd serve`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command in front where it was left out."""
        own = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if not args or (args[0].startswith("-") and args[0] not in own):
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the options of the default command too, which may be given without it."""
        click.Command.format_options(self, ctx, formatter)
        default = self.commands[DEFAULT_COMMAND]
        records = [record for parameter in default.params if (record := parameter.get_help_record(ctx)) is not None]
        with formatter.section(f"Options of '{DEFAULT_COMMAND}', which is the default command"):
            formatter.write_dl(records)
        self.format_commands(ctx, formatter)


@click.group(cls=AmqpdGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="amqpd", message="%(prog)s %(version)s")
def amqpd() -> None:
    """An AMQP 0-9-1 message broker that keeps everything durable in one SQLite file.

    \b
    amqpd                                    loopback, port 5672, data in ./amqpd-data
    amqpd --data-dir /var/lib/amqpd --listen 0.0.0.0:5672
    amqpd --memory --listen :0               for tests: a free port, nothing on disk
    amqpd --config amqpd.toml
    """


amqpd.add_command(store)


def _check_listeners(ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """A wrong option is wrong usage, and named as it was given, not as the setting that it sets."""
    from amqpd.config.reading import WORDS, is_listener
    from amqpd.config.settings import Listener

    for text in given:
        if not is_listener(text):
            raise click.BadParameter(f"{text!r}, allowed is {WORDS[Listener]}")
    return given


@amqpd.command()
@click.option("--config", metavar="FILE", envvar="AMQPD_CONFIG_FILE", help="Read settings from this TOML file.")
@click.option("--data-dir", metavar="DIR", help="Keep the database here.  [default: ./amqpd-data]")
@click.option("--listen", metavar="HOST:PORT", multiple=True, callback=_check_listeners,
              help="Serve clients here; may be repeated, port 0 takes a free one.  [default: 127.0.0.1:5672]")
@click.option("--memory", is_flag=True, default=None, help="Keep everything in memory.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]),
              help="Log this and worse.  [default: info]")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Log so.  [default: text]")
def serve(config: str | None, **options: Any) -> None:
    """Run the broker until SIGTERM or SIGINT.

    When clients are served, one line goes to stdout; the log goes to stderr.
    """
    from amqpd import logs
    from amqpd.config import ConfigError, load

    try:
        settings = load(config, os.environ, _overrides(**options))
    except ConfigError as error:
        raise Failure(str(error), EXIT_CONFIG) from None
    logs.configure(settings.log.level, settings.log.format)
    from amqpd.server import process as server

    try:
        exit_code = server.serve(settings)
    except server.StartError as error:
        logs.flush()
        raise Failure(str(error), error.exit_code) from None
    raise click.exceptions.Exit(exit_code)


def _overrides(
    data_dir: str | None, listen: Sequence[str], memory: bool | None, log_level: str | None, log_format: str | None
) -> dict[str, Any]:
    given = {
        "data_dir": data_dir,
        "listeners": list(listen) or None,
        "memory": memory,
        "log.level": log_level,
        "log.format": log_format,
    }
    return {setting: value for setting, value in given.items() if value is not None}


@amqpd.command("check-config")
@click.argument("file")
def check_config(file: str) -> None:
    """Tell all that is wrong with a configuration.

    Starts nothing. The environment counts as it does at a start; the store in the data directory is read, and left as
    it is. A warning alone is no failure.
    """
    from amqpd.config import ConfigError, listener_places, load

    known: tuple[str, ...] = ()
    try:
        config = load(file, os.environ)
    except ConfigError as error:
        if error.config is None:
            raise Failure(str(error), EXIT_CONFIG) from None
        config, known = error.config, error.problems
    problems = [*known]
    declared = {kind: len(getattr(config, kind)) for kind in DECLARED}
    # The broker, which takes its time to load, is asked only where there is something to ask.
    if any(declared.values()) or not all(listener.is_address for listener in config.listeners):
        from amqpd.server import config_check

        places = listener_places(file, os.environ, len(config.listeners))
        problems, remarks = config_check.check_config(config, places, known)
        for remark in remarks:
            complain("amqpd", f"warning: {remark}")
    if problems:
        raise Failure("\n".join(problems), EXIT_CONFIG)
    click.echo(f"{file}: fine; declares {', '.join(f'{kind} {count}' for kind, count in declared.items())}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The program `amqpd`; returns the exit code."""
    return run(amqpd, arguments)
