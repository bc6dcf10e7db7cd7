"""amqpctl doctor: what is wrong with the running broker, and the remedy. The broker's process looks.

RabbitMQ docs/monitoring (health checks).
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from amqpd.ctl.options import Command, Options, common
from amqpd.program import print_findings


def commands() -> Iterator[click.Command]:
    """Yield this command."""
    yield doctor


@click.command("doctor", cls=Command)
@common
@click.pass_obj
def doctor(options: Options) -> None:
    """Look for what is wrong, and name the remedy.

    Checks alarms, ports, disk, file system, permissions, open files, memory, swap, certificates, users and the clock.
    Changes nothing. The exit code is 0 if there is no problem, else 69; warnings alone do not count. 'amqpd doctor'
    checks the configuration before a start.

    \b
    amqpctl doctor
    amqpctl --formatter json doctor
    """
    options.announce(f"What is wrong with {options.node} ...")
    findings = options.ask("doctor")
    print_findings(findings, as_json=options.formatter == "json")
