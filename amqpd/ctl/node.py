"""The commands of amqpctl on the broker as a whole, with the texts of rabbitmqctl 3.10.

Unlike rabbitmqctl's, `stop` waits until the broker has ended.

RabbitMQ docs/cli, docs/man/rabbitmqctl.8.
"""

from __future__ import annotations

from typing import Any

import click

from amqpd.ctl.options import Command, Options, common
from amqpd.exit_codes import EXIT_UNAVAILABLE
from amqpd.program import Failure
from amqpd.wording import counted

SURVIVES = {
    "power": "a power loss",
    "process": "the end of the process, not a power loss",
    "server": "as PostgreSQL keeps it, {}",
    "none": "nothing: everything is in memory",
}
ALARMS = {"disk": "Free disk space alarm", "memory": "Memory alarm", "store": "Store alarm"}


def commands() -> list[click.Command]:
    """Return the commands on the broker."""
    return [ping, status, server_version, stop, shutdown]


@click.command("ping", cls=Command)
@common
@click.pass_obj
def ping(options: Options) -> None:
    """Check that amqpd runs and answers."""
    options.announce(f"Will ping {options.node} ...")
    options.ask("ping")
    options.report("Ping succeeded")


@click.command("status", cls=Command)
@common
@click.pass_obj
def status(options: Options) -> None:
    """Show the status of amqpd.

    Prints versions, data directory, alarms, memory, files, counts and listeners.
    """
    options.announce(f"Status of node {options.node} ...")
    result = options.ask("status")
    options.show_sections(result, _status_sections)


def _status_sections(status: dict[str, Any]) -> list[tuple[str, list[str]]]:
    files, totals, certificates = status["file_descriptors"], status["totals"], status.get("tls_certificates", [])
    return [
        ("Runtime", [
            f"OS PID: {status['pid']}",
            f"OS: {status['os']}",
            f"Uptime (seconds): {status['uptime']}",
            f"amqpd version: {status['product_version']}",
            f"RabbitMQ version: {status['rabbitmq_version']}",
            f"Python version: {status['python_version']}",
        ]),
        ("Data directory", [
            f"Node data directory: {status['data_directory']}",
            f"A confirmed message survives: {SURVIVES[status['durability']].format(status.get('confirms', ''))}",
        ]),
        ("Alarms", [alarm_line(alarm) for alarm in status["alarms"]] or ["(none)"]),
        ("Memory", [
            f"Total memory used: {_gb(status['memory']['total']['rss'])} gb",
            f"Memory high watermark setting: {_watermark(status)}",
        ]),
        ("File Descriptors", [f"Total: {files['total_used']}, limit: {files['total_limit']}"]),
        ("Free Disk Space", [
            f"Low free disk space watermark: {_gb(status['disk_free_limit'])} gb",
            f"Free disk space: {_gb(status['disk_free'])} gb",
        ]),
        ("Totals", [
            f"Connection count: {totals['connection_count']}",
            f"Queue count: {totals['queue_count']}",
            f"Virtual host count: {totals['virtual_host_count']}",
        ]),
        ("Listeners", [listener_line(listener) for listener in status["listeners"]]),
        *([("TLS certificates", [_certificate(one) for one in certificates])] if certificates else []),
    ]


def alarm_line(alarm: dict[str, Any]) -> str:
    """Describe an alarm as rabbitmqctl does."""
    return f"{ALARMS[alarm['resource']]} on node {alarm['node']}"


def listener_line(listener: dict[str, Any]) -> str:
    """Describe a listener as rabbitmqctl does."""
    return (f"Interface: {listener['interface']}, port: {listener['port']}, protocol: {listener['protocol']}, "
            f"purpose: {listener['purpose']}")


def _certificate(certificate: dict[str, Any]) -> str:
    days = certificate["days_left"]
    left = f"in {counted(days, 'day')}" if days >= 0 else "it has expired"
    names = ", ".join(certificate["names"]) or "no name"
    return (f"{certificate['setting']}: {certificate['file']}, for {names}, valid until {certificate['not_after']}: "
            f"{left}")


def _watermark(status: dict[str, Any]) -> str:
    fraction = status["vm_memory_high_watermark_setting"].get("relative")
    computed = f"{_gb(status['vm_memory_high_watermark_limit'])} gb"
    return computed if fraction is None else f"{fraction} of available memory, computed to: {computed}"


def _gb(size: int) -> float:
    return round(size / 1e9, 4)


@click.command("server_version", cls=Command)
@common
@click.pass_obj
def server_version(options: Options) -> None:
    """Show RabbitMQ's version.

    It is the version whose behaviour amqpd has.
    """
    options.announce(f"Asking node {options.node} for its RabbitMQ version...")
    options.say(options.ask("status")["rabbitmq_version"])


@click.command("stop", cls=Command)
@click.argument("pidfile", required=False)
@click.option("--idempotent", is_flag=True, help="Succeed also if no broker runs.")
@common
@click.pass_obj
def stop(options: Options, pidfile: str | None, *, idempotent: bool) -> None:
    """Stop amqpd, and wait until it has ended.

    PIDFILE is taken as rabbitmqctl takes it, and not needed.
    """
    options.announce(f"Stopping and halting node {options.node} ...")
    _stop(options, is_idempotent=idempotent)


@click.command("shutdown", cls=Command)
@click.option("--wait/--no-wait", "waits", default=True, help="Wait until it has ended.  [default: --wait]")
@common
@click.pass_obj
def shutdown(options: Options, *, waits: bool) -> None:
    """Stop amqpd, and wait until it has ended."""
    options.announce(f"Shutting down RabbitMQ node {options.node}")
    _stop(options, waits=waits)


def _stop(options: Options, *, waits: bool = True, is_idempotent: bool = False) -> None:
    try:
        options.ask("stop", until_gone=waits)
    except Failure as failure:
        if not (is_idempotent and failure.exit_code == EXIT_UNAVAILABLE):
            raise
