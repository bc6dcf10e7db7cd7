"""The commands of amqpctl on the parameters of vhosts and of the broker, with the texts of rabbitmqctl 3.10.

The broker checks the values. RabbitMQ docs/parameters, docs/man/rabbitmqctl.8.
"""

from __future__ import annotations

import click

from amqpd.ctl.options import Command, Options, common
from amqpd.wording import escape


def commands() -> list[click.Command]:
    """Return the commands on parameters."""
    return [
        set_parameter, clear_parameter, list_parameters, set_global_parameter, clear_global_parameter,
        list_global_parameters]


@click.command("set_parameter", cls=Command)
@click.argument("component")
@click.argument("name")
@click.argument("value")
@common
@click.pass_obj
def set_parameter(options: Options, component: str, name: str, value: str) -> None:
    """Set a parameter of a vhost.

    VALUE is JSON. COMPONENT is vhost-limits, operator_policy, or one of RabbitMQ's plugins such as shovel: amqpd
    keeps and exports those, and they have no effect.
    """
    options.announce(
        f'Setting runtime parameter "{name}" for component "{component}" to "{value}" in vhost "{options.vhost}" ...')
    note = options.ask("set_parameter", vhost=options.vhost, component=component, name=name, value=value)
    if note:
        click.echo(escape(note), err=True)


@click.command("clear_parameter", cls=Command)
@click.argument("component")
@click.argument("name")
@common
@click.pass_obj
def clear_parameter(options: Options, component: str, name: str) -> None:
    """Remove a parameter of a vhost."""
    options.announce(f'Clearing runtime parameter "{name}" for component "{component}" on vhost "{options.vhost}" ...')
    options.ask("clear_parameter", vhost=options.vhost, component=component, name=name)


@click.command("list_parameters", cls=Command)
@common
@click.pass_obj
def list_parameters(options: Options) -> None:
    """List the parameters of a vhost."""
    options.announce(f'Listing runtime parameters for vhost "{options.vhost}" ...')
    result = options.ask("list_parameters", vhost=options.vhost)
    options.show(result["columns"], result["rows"])


@click.command("set_global_parameter", cls=Command)
@click.argument("name")
@click.argument("value")
@common
@click.pass_obj
def set_global_parameter(options: Options, name: str, value: str) -> None:
    """Set a parameter of the whole broker.

    VALUE is JSON. It is kept and exported, and has no effect.
    """
    options.announce(f'Setting global runtime parameter "{name}" to "{value}" ...')
    options.ask("set_global_parameter", name=name, value=value)


@click.command("clear_global_parameter", cls=Command)
@click.argument("name")
@common
@click.pass_obj
def clear_global_parameter(options: Options, name: str) -> None:
    """Remove a parameter of the whole broker."""
    options.announce(f'Clearing global runtime parameter "{name}" ...')
    options.ask("clear_global_parameter", name=name)


@click.command("list_global_parameters", cls=Command)
@common
@click.pass_obj
def list_global_parameters(options: Options) -> None:
    """List the parameters of the whole broker."""
    options.announce("Listing global runtime parameters ...")
    result = options.ask("list_global_parameters")
    options.show(result["columns"], result["rows"])
