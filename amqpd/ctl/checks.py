"""The health checks of rabbitmq-diagnostics 3.10, with its texts and exit codes.

A check exits with 0 or 69. Most of them look at what `status` tells; check_port_connectivity connects to the ports from
here.

RabbitMQ docs/man/rabbitmq-diagnostics.8, docs/monitoring.
"""

from __future__ import annotations

import socket
from typing import Any

import click

from amqpd.ctl.node import alarm_line, listener_line
from amqpd.ctl.options import Command, Options, common
from amqpd.exit_codes import EXIT_DATA, EXIT_UNAVAILABLE, EXIT_USAGE
from amqpd.program import Failure

ALL_INTERFACES = {"0.0.0.0": "127.0.0.1", "::": "::1"}
DAYS = {"days": 1, "weeks": 7, "months": 30, "years": 365}
# Other names by which a protocol may be asked for.
PROTOCOLS = {
    "amqp091": "amqp", "amqp0.9.1": "amqp", "amqp-0-9-1": "amqp", "amqps": "amqp/ssl",
    "management": "http"}


def commands() -> list[click.Command]:
    """Return the health checks, and the commands that show what they look at."""
    return [
        check_running, is_running, is_booting, check_local_alarms, check_alarms, alarms, check_port_listener,
        check_port_connectivity, check_protocol_listener, listeners, check_virtual_hosts, check_certificate_expiration,
        check_if_node_is_quorum_critical, check_if_node_is_mirror_sync_critical]


# Whether it runs

@click.command("check_running", cls=Command)
@common
@click.pass_obj
def check_running(options: Options) -> None:
    """Check that amqpd serves clients."""
    options.announce(f"Checking if RabbitMQ is running on node {options.node} ...")
    if not options.ask("is_running"):
        raise Failure(_not_running(options), EXIT_UNAVAILABLE)
    options.report(f"RabbitMQ on node {options.node} is fully booted and running")


@click.command("is_running", cls=Command)
@common
@click.pass_obj
def is_running(options: Options) -> None:
    """Say whether amqpd serves clients.

    The command fails only if no broker answers.
    """
    options.announce(f"Asking node {options.node} for its status ...")
    if options.ask("is_running"):
        options.report(f"RabbitMQ on node {options.node} is fully booted and running", result=True)
    else:
        options.report(_not_running(options), result=False)


def _not_running(options: Options) -> str:
    return f"RabbitMQ on node {options.node} is not running or has not fully booted yet (check with is_booting)"


@click.command("is_booting", cls=Command)
@common
@click.pass_obj
def is_booting(options: Options) -> None:
    """Say whether amqpd is starting.

    A broker that answers has started.
    """
    options.announce(f"Asking node {options.node} for its boot status ...")
    options.ask("ping")
    options.report(
        f"RabbitMQ on node {options.node} is fully booted (check with is_running), stopped or has not started "
        "booting yet", result=False)


@click.command("check_virtual_hosts", cls=Command)
@common
@click.pass_obj
def check_virtual_hosts(options: Options) -> None:
    """Check that all vhosts run.

    All of them run as long as amqpd runs.
    """
    options.announce(f"Checking if all vhosts are running on node {options.node} ...")
    options.ask("ping")
    options.report(f"Node {options.node} reported all vhosts as running", result="ok")


@click.command("check_if_node_is_quorum_critical", cls=Command)
@common
@click.pass_obj
def check_if_node_is_quorum_critical(options: Options) -> None:
    """Check that no quorum can be lost.

    There is one node, so this does not apply.
    """
    options.announce(f"Checking if node {options.node} is critical for quorum of any quorum queues ...")
    _report_single_node(options)


@click.command("check_if_node_is_mirror_sync_critical", cls=Command)
@common
@click.pass_obj
def check_if_node_is_mirror_sync_critical(options: Options) -> None:
    """Check that no mirrored queue can lose data.

    There is one node, so this does not apply.
    """
    options.announce(f"Checking if node {options.node} is critical for data safety of any classic mirrored queues ...")
    _report_single_node(options)


def _report_single_node(options: Options) -> None:
    options.ask("ping")
    options.report(f"Node {options.node} seems to be the only one in a single node cluster, the check does not apply",
                   result="ok")


# Alarms

@click.command("check_local_alarms", cls=Command)
@common
@click.pass_obj
def check_local_alarms(options: Options) -> None:
    """Check that there is no alarm."""
    options.announce(f"Asking node {options.node} to report any local resource alarms ...")
    _check_alarms(options, "local alarms")


@click.command("check_alarms", cls=Command)
@common
@click.pass_obj
def check_alarms(options: Options) -> None:
    """Check that there is no alarm."""
    options.announce(f"Asking node {options.node} to report any local resource alarms ...")
    _check_alarms(options, "alarms, local or clusterwide")


def _check_alarms(options: Options, which: str) -> None:
    raised = options.ask("status")["alarms"]
    if raised:
        lines = "\n".join(map(alarm_line, raised))
        raise Failure(f"Node {options.node} reported alarms:\n{lines}", EXIT_UNAVAILABLE)
    options.report(f"Node {options.node} reported no {which}", result="ok")


@click.command("alarms", cls=Command)
@common
@click.pass_obj
def alarms(options: Options) -> None:
    """List the alarms in effect."""
    options.announce(f"Asking node {options.node} to report any known resource alarms ...")
    raised = options.ask("status")["alarms"]
    options.say(
        {"result": "ok", "node": options.node, "alarms": raised},
        [alarm_line(alarm) for alarm in raised] or
        [f"Node {options.node} reported no alarms, local or clusterwide"])


# Listeners

@click.command("listeners", cls=Command)
@common
@click.pass_obj
def listeners(options: Options) -> None:
    """List the addresses where clients connect."""
    options.announce(f"Asking node {options.node} to report its protocol listeners ...")
    found = options.ask("status")["listeners"]
    options.say({"result": "ok", "node": options.node, "listeners": found}, map(listener_line, found))


@click.command("check_port_listener", cls=Command)
@click.argument("port")
@common
@click.pass_obj
def check_port_listener(options: Options, port: str) -> None:
    """Check that amqpd listens on a port."""
    if not (port.isascii() and port.isdigit() and int(port)):
        raise Failure("Bad argument: Argument must be a positive integer", EXIT_DATA)
    options.announce(f"Asking node {options.node} if there's an active listener on port {port} ...")
    ports = _ports(options.ask("status")["listeners"])
    if int(port) not in ports:
        raise Failure(
            f"No listener for port {port} is active on node {options.node}. Found listeners that use the following "
            f"ports: {', '.join(map(str, ports))}", EXIT_UNAVAILABLE)
    options.report(
        f"A listener for port {port} is running on node {options.node}.", result="ok", node=options.node, port=port)


@click.command("check_protocol_listener", cls=Command)
@click.argument("protocol")
@common
@click.pass_obj
def check_protocol_listener(options: Options, protocol: str) -> None:
    """Check that amqpd listens for a protocol.

    PROTOCOL is amqp, amqp/ssl, or another that the command listeners shows.
    """
    options.announce(f"Asking node {options.node} if there's an active listener for protocol {protocol} ...")
    protocols = list(dict.fromkeys([listener["protocol"] for listener in options.ask("status")["listeners"]]))
    if PROTOCOLS.get(protocol.lower(), protocol) not in protocols:
        raise Failure(
            f"No listener for protocol {protocol} is active on node {options.node}. Found listeners for the following "
            f"protocols: {', '.join(protocols)}", EXIT_UNAVAILABLE)
    options.report(
        f"A listener for protocol {protocol} is running on node {options.node}.", result="ok", node=options.node,
        protocol=protocol)


@click.command("check_port_connectivity", cls=Command)
@click.option("--address", metavar="HOST", help="Connect to this host.  [default: the address of each listener]")
@common
@click.pass_obj
def check_port_connectivity(options: Options, address: str | None) -> None:
    """Check that ports accept TCP connections.

    amqpctl connects to each port where amqpd listens.
    """
    options.announce(f"Testing TCP connections to all active listeners on node {options.node} ...")
    found = options.ask("status")["listeners"]
    failed = [listener for listener in found if not _connects(listener, address, options.timeout)]
    if failed:
        raise Failure(
            f"Connection to ports of the following listeners on node {options.node} failed:\n" +
            "\n".join(map(listener_line, failed)), EXIT_UNAVAILABLE)
    options.report(
        f"Successfully connected to ports {', '.join(map(str, _ports(found)))} on node {options.node}.", result="ok")


def _connects(listener: dict[str, Any], address: str | None, timeout_s: float) -> bool:
    host = address or ALL_INTERFACES.get(listener["interface"], listener["interface"])
    try:
        with socket.create_connection((host, listener["port"]), timeout=timeout_s):
            return True
    except OSError:
        return False


def _ports(found: list[dict[str, Any]]) -> list[int]:
    return list(dict.fromkeys([listener["port"] for listener in found]))


# Certificates

@click.command("check_certificate_expiration", cls=Command)
@click.option("--within", type=click.IntRange(min=1), default=4, metavar="NUMBER",
              help="So many of UNIT.  [default: 4]")
@click.option("--unit", default="weeks", metavar="UNIT", help="days, weeks, months or years.  [default: weeks]")
@common
@click.pass_obj
def check_certificate_expiration(options: Options, within: int, unit: str) -> None:
    """Check that no certificate expires soon.

    The certificates are those of the TLS listeners.
    """
    if unit not in DAYS:
        raise Failure(f"unit '{unit}' is not supported. Please use one of: {', '.join(DAYS)}", EXIT_USAGE)
    options.announce(f"Checking certificate expiration on node {options.node} ...")
    expiring = [one for one in options.ask("status")["tls_certificates"] if one["days_left"] < within * DAYS[unit]]
    if expiring:
        lines = [f"{one['setting']}: {one['file']}, valid until {one['not_after']}" for one in expiring]
        raise Failure("\n".join([f"Some certificates are expiring within {within} {unit}.", *lines]), EXIT_UNAVAILABLE)
    options.report(f"No certificates are expiring within {within} {unit}.", result="ok")
