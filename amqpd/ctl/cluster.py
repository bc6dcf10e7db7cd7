"""The commands of amqpctl that describe the node and its settings, with the texts of rabbitmqctl 3.10.

RabbitMQ docs/man/rabbitmqctl.8 (cluster_status, environment, report, set_log_level).
"""

from __future__ import annotations

from typing import Any

import click

from amqpd.ctl.node import alarm_line, listener_line
from amqpd.ctl.options import Command, Options, Sections, common
from amqpd.exit_codes import EXIT_UNAVAILABLE
from amqpd.program import Failure

# What a report shows: of the broker, and of each vhost.
REPORTED = ("status", "cluster_status", "environment", "list_connections", "list_channels", "list_users")
REPORTED_OF_VHOSTS = (
    "list_queues", "list_exchanges", "list_bindings", "list_consumers", "list_permissions", "list_policies",
    "list_parameters")


def commands() -> list[click.Command]:
    """Return the commands on the node and its cluster."""
    return [
        cluster_status, set_cluster_name, environment, report, set_log_level, node_health_check, force_gc, rotate_logs,
        restart_vhost, discover_peers]


@click.command("cluster_status", cls=Command)
@common
@click.pass_obj
def cluster_status(options: Options) -> None:
    """Show the nodes that share the store.

    One leads, the others stand by. Without a cluster that is this node.
    """
    options.announce(f"Cluster status of node {options.node} ...")
    options.show_sections(options.ask("cluster_status"), _cluster_sections)


def _cluster_sections(status: dict[str, Any]) -> Sections:
    yield "Basics", [f"Cluster name: {status['cluster_name']}"]
    yield "Disk Nodes", status["disk_nodes"]
    yield "Running Nodes", status["running_nodes"]
    if members := status.get("members"):
        yield "Leader", [f"{one['name']}, reached at {one['address']}" for one in members if one["leads"]] or ["(none)"]
        yield "Standbys", [f"{one['name']}, {'up' if one['running'] else 'gone'}"
                           for one in members if not one["leads"]] or ["(none)"]
    yield "Versions", [
        f"{node}: RabbitMQ {versions['rabbitmq_version']}, as amqpd {versions['amqpd_version']} on Python "
        f"{versions['python_version']}" for node, versions in status["versions"].items()]
    yield "Maintenance status", [
        f"Node: {node}, status: {state}" for node, state in status["maintenance_status"].items()]
    yield "Alarms", [alarm_line(alarm) for alarm in status["alarms"]] or ["(none)"]
    yield "Network Partitions", ["(none)"]
    yield "Listeners", [
        f"Node: {node}, {listener_line(listener).replace('Interface', 'interface', 1)}"
        for node, listeners in status["listeners"].items() for listener in listeners]
    yield "Feature flags", [f"Flag: {flag['name']}, state: {flag['state']}" for flag in status["feature_flags"]]


@click.command("set_cluster_name", cls=Command)
@click.argument("name")
@common
@click.pass_obj
def set_cluster_name(options: Options, name: str) -> None:
    """Set the name of the cluster.

    cluster_status shows it.
    """
    options.announce(f"Setting cluster name to {name} ...")
    options.ask("set_cluster_name", name=name)


@click.command("environment", cls=Command)
@common
@click.pass_obj
def environment(options: Options) -> None:
    """Show the settings in effect.

    Passwords are shown as ***.
    """
    options.announce(f"Application environment of node {options.node} ...")
    settings = options.ask("environment")
    options.say(settings, _setting_lines(settings))


def _setting_lines(settings: dict[str, Any]) -> list[str]:
    from amqpd.ctl.tables import erlang_term
    lines = []
    for application, values in settings.items():
        entries = [erlang_term({name: value})[1:-1] for name, value in values.items()]
        lines.append(f"[{{{application},")
        lines += [f"     {'[' if not number else ' '}{entry}{',' if number < len(entries) - 1 else ']}]'}"
                  for number, entry in enumerate(entries)]
    return lines


@click.command("report", cls=Command)
@common
@click.pass_context
def report(context: click.Context) -> None:
    """Show everything at once, for a bug report.

    It has the names of queues, users and clients, and no passwords and no messages.
    """
    options = context.ensure_object(Options)
    program = context.find_root().command
    assert isinstance(program, click.Group)
    options.announce(f"Reporting server status of node {options.node} ...")
    options.announce("")
    parts = [(name, None) for name in REPORTED] + [
        (name, row[0]) for row in options.ask("list_vhosts", vhost="/", columns=["name"])["rows"]
        for name in REPORTED_OF_VHOSTS]
    for name, vhost in parts:
        command = program.get_command(context, name)
        assert command is not None
        if vhost is not None:
            options.vhost = vhost
        context.invoke(command, **({"columns": ()} if "columns" in [one.name for one in command.params] else {}))
        click.echo()


@click.command("set_log_level", cls=Command)
@click.argument("level", metavar="LEVEL")
@common
@click.pass_obj
def set_log_level(options: Options, level: str) -> None:
    """Set what is logged.

    LEVEL is debug, info, warning, error, critical or none. It holds until the next start.
    """
    options.announce(f'Setting log level to "{level}" ...')
    options.ask("set_log_level", level=level)


@click.command("node_health_check", cls=Command)
@common
@click.pass_obj
def node_health_check(options: Options) -> None:
    """Check that amqpd answers and has no alarm. Deprecated: use check_running and check_local_alarms."""
    options.announce("This command is DEPRECATED and will be removed in a future version.")
    options.announce("Use check_running, check_local_alarms or check_port_connectivity instead.")
    options.announce(f"Checking health of node {options.node} ...")
    alarms = options.ask("status")["alarms"]
    if alarms:
        named = ", ".join([alarm["resource"] for alarm in alarms])
        raise Failure(f"Error: health check failed. Message: resource alarm(s) in effect: [{named}]", EXIT_UNAVAILABLE)
    options.report("Health check passed")


@click.command("force_gc", cls=Command)
@common
@click.pass_obj
def force_gc(options: Options) -> None:
    """Do nothing: Python frees memory by itself. For scripts that say it."""
    options.announce(f"Will ask all processes on node {options.node} to schedule a full sweep GC")
    options.ask("ping")


@click.command("rotate_logs", cls=Command)
@common
@click.pass_obj
def rotate_logs(options: Options) -> None:
    """Fail, as rabbitmqctl does.

    The log goes to stderr, and the service manager rotates it.
    """
    raise Failure("This command does not rotate logs anymore [deprecated]", EXIT_UNAVAILABLE)


@click.command("restart_vhost", cls=Command)
@common
@click.pass_obj
def restart_vhost(options: Options) -> None:
    """Say that a vhost runs.

    Vhosts of amqpd do not fail one by one.
    """
    options.announce(f"Trying to restart vhost '{options.vhost}' on node '{options.node}' ...")
    options.ask("list_queues", vhost=options.vhost, columns=["name"])
    options.report(f"Vhost '{options.vhost}' is already running on node '{options.node}'")


@click.command("discover_peers", cls=Command)
@common
@click.pass_obj
def discover_peers(options: Options) -> None:
    """Look for other nodes: there are none."""
    options.announce("Discovering peers nodes ...")
    options.ask("ping")
    options.report("No peers discovered")
