"""The commands of amqpctl on the limits of vhosts and users, with the texts of rabbitmqctl 3.10.

The broker checks the limits. RabbitMQ docs/vhosts, docs/user-limits, docs/man/rabbitmqctl.8.
"""

from __future__ import annotations

from typing import Any

import click

from amqpd.ctl.options import Command, Options, common, names

DEFAULT_USER = "guest"


def commands() -> list[click.Command]:
    """Return the commands on limits of vhosts and users."""
    return [
        set_vhost_limits, clear_vhost_limits, list_vhost_limits, set_user_limits, clear_user_limits, list_user_limits]


@click.command("set_vhost_limits", cls=Command)
@click.argument("definition")
@common
@click.pass_obj
def set_vhost_limits(options: Options, definition: str) -> None:
    """Set the limits of a vhost.

    They replace the previous ones. DEFINITION is JSON, such as '{"max-connections": 100, "max-queues":
    500}'. -1 is no limit, 0 allows none. Connections and queues that are there already stay.
    """
    options.announce(f'Setting vhost limits to "{definition}" for vhost "{options.vhost}" ...')
    options.ask("set_vhost_limits", vhost=options.vhost, definition=definition)


@click.command("clear_vhost_limits", cls=Command)
@common
@click.pass_obj
def clear_vhost_limits(options: Options) -> None:
    """Remove the limits of a vhost."""
    options.announce(f'Clearing vhost "{options.vhost}" limits ...')
    options.ask("clear_vhost_limits", vhost=options.vhost)


@click.command("list_vhost_limits", cls=Command)
@click.option("--global", "is_global", is_flag=True, help="Show all vhosts that have limits.")
@common
@click.pass_obj
def list_vhost_limits(options: Options, *, is_global: bool) -> None:
    """Show the limits of a vhost, as JSON."""
    if is_global:
        options.announce("Listing limits for all vhosts ...")
        _show_all(options, options.ask("list_vhost_limits"))
    else:
        options.announce(f'Listing limits for vhost "{options.vhost}" ...')
        _show_one(options.ask("list_vhost_limits", vhost=options.vhost))


@click.command("set_user_limits", cls=Command)
@click.argument("user", shell_complete=names("user"))
@click.argument("definition")
@common
@click.pass_obj
def set_user_limits(options: Options, user: str, definition: str) -> None:
    """Set limits of a user.

    DEFINITION is JSON, such as '{"max-connections": 10, "max-channels": 100}'; a limit that it does not
    name stays. -1 is no limit, 0 allows none. Connections and channels that are open already stay.
    """
    options.announce(f'Setting user limits to "{definition}" for user "{user}" ...')
    options.ask("set_user_limits", user=user, definition=definition)


@click.command("clear_user_limits", cls=Command)
@click.argument("user", shell_complete=names("user"))
@click.argument("limit", metavar="LIMIT | all")
@common
@click.pass_obj
def clear_user_limits(options: Options, user: str, limit: str) -> None:
    """Remove a limit of a user, or all.

    LIMIT is max-connections or max-channels.
    """
    which = "all limits" if limit == "all" else f'"{limit}" limit'
    options.announce(f'Clearing {which} for user "{user}" ...')
    options.ask("clear_user_limits", user=user, limit=limit)


@click.command("list_user_limits", cls=Command)
@click.option("--user", metavar="USER", default=DEFAULT_USER, show_default=True, help="Show this user.")
@click.option("--global", "is_global", is_flag=True, help="Show all users that have limits.")
@common
@click.pass_obj
def list_user_limits(options: Options, *, user: str, is_global: bool) -> None:
    """Show the limits of a user, as JSON."""
    if is_global:
        options.announce("Listing limits for all users ...")
        _show_all(options, options.ask("list_user_limits"))
    else:
        options.announce(f'Listing limits for user "{user}" ...')
        _show_one(options.ask("list_user_limits", user=user))


def _show_all(options: Options, result: dict[str, Any]) -> None:
    options.show(result["columns"], result["rows"])


def _show_one(result: dict[str, Any]) -> None:
    """Print the limits alone, or an empty line if there are none."""
    click.echo(result["rows"][0][1] if result["rows"] else "")
