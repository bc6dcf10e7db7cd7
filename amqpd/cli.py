"""The program `amqpd`: its commands, options and exit codes.

Owns the way from arguments to a `Config`. Nothing else of amqpd is imported until a command needs it, so that
`--version` and `check-config` answer at once. `store_commands.py` has the commands on a store.
"""

from __future__ import annotations

import functools
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
    """The group of commands; `amqpd` without a command, or with options only, means `amqpd serve`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert the default command where no command is given."""
        own = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if not args or (args[0].startswith("-") and args[0] not in own):
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the options of the default command too, since they can be given without it."""
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
    amqpd --data-dir data --listen 127.0.0.1:5673
    amqpd --memory --listen :0               for tests: a free port, nothing on disk
    amqpd --config amqpd.toml
    """


amqpd.add_command(store)


def _check_listeners(ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a wrong address as wrong usage, under the name of the option rather than of the setting."""
    from amqpd.config.reading import WORDS, is_listener
    from amqpd.config.settings import Listener

    for text in given:
        if not is_listener(text):
            raise click.BadParameter(f"{text!r}, allowed is {WORDS[Listener]}")
    return given


def _check_http(ctx: click.Context, parameter: click.Parameter, given: str | None) -> list[str] | None:
    if given is None or given == "none":
        return given if given is None else []
    return list(_check_listeners(ctx, parameter, (given,)))


def _check_cluster(ctx: click.Context, parameter: click.Parameter, given: str | None) -> list[str] | None:
    return None if given is None else list(_check_listeners(ctx, parameter, (given,)))


CONFIG = click.option(
    "--config", metavar="FILE", envvar="AMQPD_CONFIG_FILE", help="Read settings from this TOML file.")
RABBITMQ_CONF = click.option(
    "--rabbitmq-conf", metavar="FILE", multiple=True,
    help="Read settings from this rabbitmq.conf, or from all *.conf of a directory; may be repeated.")


@amqpd.command()
@CONFIG
@RABBITMQ_CONF
@click.option("--data-dir", metavar="DIR", help="Keep the store in this directory.  [default: ./amqpd-data]")
@click.option("--listen", metavar="HOST:PORT", multiple=True, callback=_check_listeners,
              help="Listen on this address; may be repeated, port 0 takes a free port.  [default: 127.0.0.1:5672]")
@click.option("--tls-listen", metavar="HOST:PORT", multiple=True, callback=_check_listeners,
              help="Listen for TLS on this address; may be repeated. The certificate is a setting.")
@click.option("--management", metavar="HOST:PORT|none", callback=_check_http,
              help="Serve the management API on this address, or not at all.  [default: 127.0.0.1:15672]")
@click.option("--metrics", metavar="HOST:PORT|none", callback=_check_http,
              help="Serve metrics for Prometheus on this address, or only by the management API.  "
                   "[default: 127.0.0.1:15692]")
@click.option("--store", metavar="URL",
              help="Keep everything in PostgreSQL, at postgresql://USER@HOST/DATABASE.  "
                   "[default: in a file of the data directory]")
@click.option("--cluster-listen", metavar="HOST:PORT", callback=_check_cluster,
              help="Share the store in PostgreSQL with nodes that reach this one here: one leads, the others pass "
                   "their clients on to it, and take over.")
@click.option("--node-name", metavar="NAME", help="The name of this node for the others.  [default: amqpd@HOST]")
@click.option("--memory", is_flag=True, default=None, help="Keep everything in memory.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]),
              help="Log messages of this level and above.  [default: info]")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Format of the log.  [default: text]")
def serve(config: str | None, rabbitmq_conf: Sequence[str], **options: Any) -> None:
    """Run the broker until SIGTERM or SIGINT.

    One line goes to stdout as soon as clients can connect; the log goes to stderr.
    """
    import logging

    from amqpd import logs
    from amqpd.config import ConfigError, examine, usable

    read = functools.partial(examine, config, os.environ, _overrides(**options), rabbitmq_conf)
    try:
        found = read()
        settings = usable(found)
    except ConfigError as error:
        raise Failure(str(error), EXIT_CONFIG) from None
    logs.configure(settings.log.level, settings.log.format)
    for warning in found.warnings:
        logging.getLogger("amqpd.config").warning("%s", warning)
    from amqpd.server import process as server

    try:
        exit_code = server.serve(settings, read)
    except server.StartError as error:
        logs.flush()
        raise Failure(str(error), error.exit_code) from None
    raise click.exceptions.Exit(exit_code)


def _overrides(
    data_dir: str | None, listen: Sequence[str], tls_listen: Sequence[str], management: list[str] | None,
    metrics: list[str] | None, store: str | None, cluster_listen: list[str] | None, node_name: str | None,
    memory: bool | None, log_level: str | None, log_format: str | None
) -> dict[str, Any]:
    given = {
        "data_dir": data_dir,
        "listeners": list(listen) or None,
        "tls.listeners": list(tls_listen) or None,
        "management.listeners": management,
        "management.metrics_listeners": metrics,
        "store": store,
        "cluster.listeners": cluster_listen,
        "node_name": node_name,
        "memory": memory,
        "log.level": log_level,
        "log.format": log_format,
    }
    return {setting: value for setting, value in given.items() if value is not None}


@amqpd.command("check-config")
@click.argument("file", required=False)
@click.option("--config", metavar="FILE", help="The same as FILE, as for 'amqpd serve'.")
@RABBITMQ_CONF
@click.pass_context
def check_config(ctx: click.Context, file: str | None, config: str | None, rabbitmq_conf: Sequence[str]) -> None:
    """Report everything that is wrong with a configuration file.

    Starts nothing. The environment counts as at a start. The store in the data directory is read but not changed.
    Warnings alone do not fail the check.
    """
    path = file or config
    if path is None and not rabbitmq_conf:
        raise click.UsageError("Missing argument 'FILE'.", ctx)
    if file is not None and config is not None:
        raise click.UsageError("FILE is given twice.", ctx)
    from amqpd.config import ConfigError, examine

    try:
        found = examine(path, os.environ, rabbitmq_conf=rabbitmq_conf)
    except ConfigError as error:
        raise Failure(str(error), EXIT_CONFIG) from None
    for warning in found.warnings:
        complain("amqpd", f"warning: {warning}")
    if found.config is None:
        raise Failure("\n".join(found.problems), EXIT_CONFIG)
    settings, problems = found.config, [*found.problems]
    declared = {kind: len(getattr(settings, kind)) for kind in DECLARED}
    # The broker takes time to load: it is imported only for declarations, open listeners, host names and files.
    has_files = bool(settings.has_tls or settings.load_definitions)
    needs_names = any(one.is_open or not one.is_address for one in settings.all_listeners)
    if any(declared.values()) or has_files or needs_names or settings.store.reveal():
        from amqpd.server import config_check

        more, remarks = config_check.check_config(
            settings, found.listener_places, found.faulty, found.unread)
        problems += more
        for remark in remarks:
            complain("amqpd", f"warning: {remark}")
    if problems:
        raise Failure("\n".join(problems), EXIT_CONFIG)
    files = ", ".join([*([path] if path else []), *rabbitmq_conf])
    loads = f"; loads the definitions in {settings.load_definitions} besides" if settings.load_definitions else ""
    click.echo(f"{files}: fine; declares {', '.join(f'{kind} {count}' for kind, count in declared.items())}{loads}")


@amqpd.command("doctor")
@CONFIG
@RABBITMQ_CONF
@click.option("--data-dir", metavar="DIR", help="The data directory.  [default: ./amqpd-data]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(config: str | None, rabbitmq_conf: Sequence[str], data_dir: str | None, *, as_json: bool) -> None:
    """Look for what would be wrong with a start.

    Checks configuration, ports, disk, file system, permissions, store, limits, certificates and clock, and names the
    remedies. Changes nothing. The exit code is 0 if there is no problem; warnings alone do not count. A running broker
    is asked by 'amqpctl doctor'.

    \b
    amqpd doctor --config /etc/amqpd/amqpd.toml
    """
    import msgspec

    from amqpd.config import ConfigError, examine
    from amqpd.program import print_findings
    from amqpd.server import doctor as examination

    try:
        found = examine(config, os.environ, {} if data_dir is None else {"data_dir": data_dir}, rabbitmq_conf)
        if found.config is None or found.unread:
            raise ConfigError(found.problems)
    except ConfigError as error:
        findings = [{"check": "configuration", "level": "problem", "text": line, "remedy": ""}
                    for line in str(error).splitlines()]
    else:
        files = [*([config] if config else []), *rabbitmq_conf]
        findings = [msgspec.structs.asdict(one) for one in examination.examine_stopped(found.config, found, files)]
    print_findings(findings, as_json=as_json)


@amqpd.command("convert-config")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
def convert_config(files: Sequence[str]) -> None:
    """Print the settings of rabbitmq.conf as TOML.

    FILE is such a file or a directory of *.conf; several are merged in order. The result, saved as amqpd.toml, has the
    same effect. It contains the passwords. Lines without an effect become comments.
    """
    from amqpd.config import ConfigError
    from amqpd.config.conversion import convert

    try:
        click.echo(convert(files, os.environ), nl=False)
    except ConfigError as error:
        raise Failure(str(error), EXIT_CONFIG) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program `amqpd` and return the exit code."""
    return run(amqpd, arguments)
