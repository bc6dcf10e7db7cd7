"""The commands of amqpctl and their texts, those of rabbitmqctl 3.10.

The broker's process carries out the commands, and decides the exit codes of refusals. Unlike rabbitmqctl's, `stop`
waits until the broker has ended.

RabbitMQ docs/cli, docs/man/rabbitmqctl.8.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from amqpd import __version__
from amqpd.ctl.certificates import make_certificates
from amqpd.ctl.definitions import definitions_commands
from amqpd.ctl.limits import limit_commands
from amqpd.ctl.lists import list_commands
from amqpd.ctl.options import Group, Options, common
from amqpd.ctl.parameters import parameter_commands
from amqpd.ctl.policies import policy_commands
from amqpd.ctl.quotas import quota_commands
from amqpd.ctl.vhosts import vhost_commands
from amqpd.exit_codes import EXIT_DATA
from amqpd.logs import escape
from amqpd.program import Failure, run
from amqpd.wording import counted

SURVIVES = {
    "power": "a power loss",
    "process": "the end of the process, not a power loss",
    "none": "nothing: everything is in memory",
}
ALARMS = {"disk": "Free disk space alarm on node {}", "memory": "Memory alarm on node {}"}


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "-?", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="amqpctl", message="%(prog)s %(version)s")
@common
def amqpctl() -> None:
    """Inspect a running amqpd and change it.

    \b
    amqpctl list_queues name messages consumers
    amqpctl --data-dir /var/lib/amqpd status
    amqpctl -p shop purge_queue orders
    """


for _command in (
    *list_commands(), *policy_commands(), *limit_commands(), *vhost_commands(), *quota_commands(),
    *parameter_commands(), *definitions_commands(), make_certificates,
):
    amqpctl.add_command(_command)


# Queues and connections

@amqpctl.command("purge_queue")
@click.argument("queue")
@common
@click.pass_obj
def purge_queue(options: Options, queue: str) -> None:
    """Drop the ready messages of a queue."""
    options.announce(f"Purging queue '{queue}' in vhost '{options.vhost}' ...")
    options.ask("purge_queue", vhost=options.vhost, queue=queue)


@amqpctl.command("delete_queue")
@click.argument("queue")
@click.option("-e", "--if-empty", is_flag=True, help="Only if it has no ready messages.")
@click.option("-u", "--if-unused", is_flag=True, help="Only if it has no consumers.")
@common
@click.pass_obj
def delete_queue(options: Options, queue: str, *, if_empty: bool, if_unused: bool) -> None:
    """Delete a queue with its messages."""
    conditions = ["if queue is empty"] * if_empty + ["if queue is unused"] * if_unused
    heading = " ".join([f"Deleting queue '{queue}' on vhost '{options.vhost}'", " and ".join(conditions)]).rstrip()
    options.announce(f"{heading} ...")
    count = options.ask("delete_queue", vhost=options.vhost, queue=queue, if_empty=if_empty, if_unused=if_unused)
    options.report(f"Queue was successfully deleted with {count} ready messages")


@amqpctl.command("close_connection")
@click.argument("connection")
@click.argument("explanation")
@common
@click.pass_obj
def close_connection(options: Options, connection: str, explanation: str) -> None:
    """Close a connection.

    CONNECTION is the pid or the name that list_connections shows.
    """
    options.announce(f"Closing connection {connection}, reason: {explanation}...")
    options.ask("close_connection", connection=connection, explanation=explanation)


# Users

@amqpctl.command("add_user")
@click.argument("user")
@click.argument("password", required=False)
@common
@click.pass_obj
def add_user(options: Options, user: str, password: str | None) -> None:
    """Add a user without permissions. Without PASSWORD, the password is read from stdin."""
    options.announce(f'Adding user "{user}" ...')
    options.ask("add_user", user=user, password=_password(password))
    options.announce(
        "Done. Don't forget to grant the user permissions to some virtual hosts! "
        "See 'amqpctl set_permissions --help' to learn more.")


@amqpctl.command("delete_user")
@click.argument("user")
@common
@click.pass_obj
def delete_user(options: Options, user: str) -> None:
    """Delete a user and close their connections."""
    options.announce(f'Deleting user "{user}" ...')
    options.ask("delete_user", user=user)


@amqpctl.command("change_password")
@click.argument("user")
@click.argument("password", required=False)
@common
@click.pass_obj
def change_password(options: Options, user: str, password: str | None) -> None:
    """Replace the password of a user. Without PASSWORD, the password is read from stdin."""
    options.announce(f'Changing password for user "{user}" ...')
    options.ask("change_password", user=user, password=_password(password))


@amqpctl.command("authenticate_user")
@click.argument("user")
@click.argument("password", required=False)
@common
@click.pass_obj
def authenticate_user(options: Options, user: str, password: str | None) -> None:
    """Check the password of a user. Without PASSWORD, the password is read from stdin."""
    options.announce(f'Authenticating user "{user}" ...')
    options.ask("authenticate_user", user=user, password=_password(password))
    options.report("Success")


@amqpctl.command("set_user_tags")
@click.argument("user")
@click.argument("tags", nargs=-1, metavar="[TAG]...")
@common
@click.pass_obj
def set_user_tags(options: Options, user: str, tags: tuple[str, ...]) -> None:
    """Replace the tags of a user.

    Without TAG, the user has no tags.
    """
    options.announce(f'Setting tags for user "{user}" to [{", ".join(tags)}] ...')
    options.ask("set_user_tags", user=user, tags=tags)


@amqpctl.command("set_permissions")
@click.argument("user")
@click.argument("configure")
@click.argument("write")
@click.argument("read")
@common
@click.pass_obj
def set_permissions(options: Options, user: str, configure: str, write: str, read: str) -> None:
    """Set the permissions of a user in a vhost.

    CONFIGURE, WRITE and READ are regular expressions, searched in the names of queues and exchanges. An empty one
    allows nothing, '.*' allows everything.
    """
    options.announce(f'Setting permissions for user "{user}" in vhost "{options.vhost}" ...')
    options.ask("set_permissions", vhost=options.vhost, user=user, configure=configure, write=write, read=read)


@amqpctl.command("clear_permissions")
@click.argument("user")
@common
@click.pass_obj
def clear_permissions(options: Options, user: str) -> None:
    """Remove all permissions of a user in a vhost.

    Open connections stay open, but their requests are refused.
    """
    options.announce(f'Clearing permissions for user "{user}" in vhost "{options.vhost}" ...')
    options.ask("clear_permissions", vhost=options.vhost, user=user)


@amqpctl.command("list_user_permissions")
@click.argument("user")
@common
@click.pass_obj
def list_user_permissions(options: Options, user: str) -> None:
    """List the permissions of a user."""
    options.announce(f'Listing permissions for user "{user}" ...')
    result = options.ask("list_user_permissions", user=user)
    options.show(result["columns"], result["rows"])


@amqpctl.command("set_topic_permissions")
@click.argument("user")
@click.argument("exchange")
@click.argument("write")
@click.argument("read")
@common
@click.pass_obj
def set_topic_permissions(options: Options, user: str, exchange: str, write: str, read: str) -> None:
    """Set what routing keys a user may use.

    WRITE and READ are regular expressions, searched in the routing keys with which the user publishes to the exchange
    and binds to it. '{username}' and '{vhost}' in them stand for those names. An empty one allows nothing.
    """
    options.announce(
        f'Setting topic permissions on "{exchange}" for user "{user}" in vhost "{options.vhost}" ...')
    options.ask(
        "set_topic_permissions", vhost=options.vhost, user=user, exchange=exchange, write=write, read=read)


@amqpctl.command("clear_topic_permissions")
@click.argument("user")
@click.argument("exchange", required=False)
@common
@click.pass_obj
def clear_topic_permissions(options: Options, user: str, exchange: str | None) -> None:
    """Clear the topic permissions of a user.

    Without EXCHANGE, those on all exchanges. Then the user may use any routing key.
    """
    place = f'on "{exchange}" ' if exchange is not None else ""
    options.announce(f'Clearing topic permissions {place}for user "{user}" in vhost "{options.vhost}" ...')
    options.ask("clear_topic_permissions", vhost=options.vhost, user=user, exchange=exchange)


@amqpctl.command("list_user_topic_permissions")
@click.argument("user")
@common
@click.pass_obj
def list_user_topic_permissions(options: Options, user: str) -> None:
    """List the topic permissions of a user."""
    options.announce(f'Listing topic permissions for user "{user}" ...')
    result = options.ask("list_user_topic_permissions", user=user)
    options.show(result["columns"], result["rows"])


def _password(given: str | None) -> str:
    if given is not None:
        return given
    if sys.stdin.isatty():
        entered: str = click.prompt("Password", hide_input=True, default="", show_default=False, err=True)
        return entered
    line = sys.stdin.readline()
    if not line:
        raise Failure("Password is not provided via argument or stdin", EXIT_DATA)
    return line.rstrip("\r\n")


# The broker itself

@amqpctl.command("ping")
@common
@click.pass_obj
def ping(options: Options) -> None:
    """Check that amqpd runs and answers."""
    options.announce(f"Will ping amqpd at {options.path} ...")
    options.ask("ping")
    options.report("Ping succeeded")


@amqpctl.command("status")
@common
@click.pass_obj
def status(options: Options) -> None:
    """Show the status of amqpd.

    Prints versions, data directory, alarms, memory, files, counts and listeners.
    """
    options.announce(f"Status of amqpd at {options.path} ...")
    result = options.ask("status")
    if options.formatter == "json":
        click.echo(json.dumps(result))
        return
    for title, lines in _status_sections(result):
        click.echo(f"{click.style(title, bold=True)}\n")
        click.echo("".join(f"{escape(line)}\n" for line in lines))


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
            f"A confirmed message survives: {SURVIVES[status['durability']]}",
        ]),
        ("Alarms", [ALARMS[alarm["resource"]].format(alarm["node"]) for alarm in status["alarms"]] or ["(none)"]),
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
        ("Listeners", [
            f"Interface: {listener['interface']}, port: {listener['port']}, protocol: {listener['protocol']}, "
            f"purpose: {listener['purpose']}"
            for listener in status["listeners"]
        ]),
        *([("TLS certificates", [_certificate(one) for one in certificates])] if certificates else []),
    ]


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


@amqpctl.command("stop")
@common
@click.pass_obj
def stop(options: Options) -> None:
    """Stop amqpd, and wait until it has ended."""
    options.announce(f"Stopping and halting amqpd at {options.path} ...")
    options.ask("stop", until_gone=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program `amqpctl` and return the exit code."""
    return run(amqpctl, arguments)
