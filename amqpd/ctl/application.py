"""The commands of amqpctl that stop and start the service for clients, and that delete everything.

Scripts say them between tests: stop_app, reset, start_app. RabbitMQ docs/man/rabbitmqctl.8.
"""

from __future__ import annotations

import click

from amqpd.ctl.options import Command, Options, common


def commands() -> list[click.Command]:
    """Return the commands on the service."""
    return [stop_app, start_app, reset, force_reset]


@click.command("stop_app", cls=Command)
@common
@click.pass_obj
def stop_app(options: Options) -> None:
    """Turn all clients away, and let amqpd run.

    Connections are closed, and new ones are disconnected at once, until start_app or a restart. Nothing is lost.
    """
    options.announce(f"Stopping rabbit application on node {options.node} ...")
    options.ask("stop_app")


@click.command("start_app", cls=Command)
@common
@click.pass_obj
def start_app(options: Options) -> None:
    """Serve clients again after stop_app."""
    options.announce(f"Starting node {options.node} ...")
    options.ask("start_app")


@click.command("reset", cls=Command)
@common
@click.pass_obj
def reset(options: Options) -> None:
    """Delete everything, after stop_app.

    Vhosts with their queues and messages, users and parameters are deleted, protected vhosts too. Then there is
    what a new broker has: the default vhost and user, and what the configuration declares.
    """
    _reset(options)


@click.command("force_reset", cls=Command)
@common
@click.pass_obj
def force_reset(options: Options) -> None:
    """Delete everything, as reset does."""
    _reset(options)


def _reset(options: Options) -> None:
    options.announce(f"Resetting node {options.node} ...")
    options.ask("reset")
