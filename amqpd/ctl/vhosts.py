"""The commands of amqpctl on vhosts, with the texts of rabbitmqctl 3.10 and, for what came later, 4.1.

RabbitMQ docs/vhosts, docs/man/rabbitmqctl.8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from amqpd.ctl.options import Command, Options, common, names
from amqpd.exit_codes import EXIT_USAGE
from amqpd.program import Failure


def commands() -> list[click.Command]:
    """Return the commands on vhosts."""
    return [
        add_vhost, delete_vhost, set_vhost_tags, update_vhost_metadata, enable_vhost_deletion_protection,
        disable_vhost_deletion_protection]


def _metadata(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say something of a vhost."""
    for decorate in (
        click.option("--default-queue-type", metavar="TYPE",
                     help="The type of queues that are declared without one: classic or quorum."),
        click.option("--tags", metavar="TAG,TAG", help="Its tags, separated by commas."),
        click.option("--description", metavar="TEXT", help="What it is for."),
    ):
        command = decorate(command)
    return command


def _tags(text: str) -> list[str]:
    return [tag for part in text.split(",") if (tag := part.strip())]


@click.command("add_vhost", cls=Command)
@click.argument("vhost_name", metavar="VHOST")
@_metadata
@common
@click.pass_obj
def add_vhost(
    options: Options, vhost_name: str, *, description: str | None, tags: str | None, default_queue_type: str | None
) -> None:
    """Add a vhost.

    A vhost that exists already is not an error, and stays as it is.
    """
    options.announce(f'Adding vhost "{vhost_name}" ...')
    options.ask(
        "add_vhost", vhost=vhost_name, description=description or "", tags=_tags(tags or ""),
        default_queue_type=default_queue_type or "")


@click.command("delete_vhost", cls=Command)
@click.argument("vhost_name", shell_complete=names("vhost"), metavar="VHOST")
@common
@click.pass_obj
def delete_vhost(options: Options, vhost_name: str) -> None:
    """Delete a vhost with everything in it.

    Its connections are closed.
    """
    options.announce(f'Deleting vhost "{vhost_name}" ...')
    options.ask("delete_vhost", vhost=vhost_name)


@click.command("set_vhost_tags", cls=Command)
@click.argument("vhost_name", shell_complete=names("vhost"), metavar="VHOST")
@click.argument("tags", nargs=-1, metavar="[TAG]...")
@common
@click.pass_obj
def set_vhost_tags(options: Options, vhost_name: str, tags: tuple[str, ...]) -> None:
    """Replace the tags of a vhost.

    Without TAG, the vhost has no tags.
    """
    options.announce(f'Setting tags for virtual host "{vhost_name}" to [{", ".join(tags)}] ...')
    options.ask("set_vhost_tags", vhost=vhost_name, tags=tags)


@click.command("update_vhost_metadata", cls=Command)
@click.argument("vhost_name", shell_complete=names("vhost"), metavar="VHOST")
@_metadata
@common
@click.pass_obj
def update_vhost_metadata(
    options: Options, vhost_name: str, *, description: str | None, tags: str | None, default_queue_type: str | None
) -> None:
    """Change the metadata of a vhost.

    An option that is not given leaves its value as it is. An empty TYPE means that there is no default:
    such queues are classic. A new default is for queues that are declared from then on.
    """
    if description is tags is default_queue_type is None:
        raise Failure("not enough arguments: give --description, --tags or --default-queue-type", EXIT_USAGE)
    options.announce(f'Updating metadata of vhost "{vhost_name}" ...')
    options.ask(
        "update_vhost_metadata", vhost=vhost_name, description=description,
        tags=None if tags is None else _tags(tags), default_queue_type=default_queue_type)


@click.command("enable_vhost_deletion_protection", cls=Command)
@click.argument("vhost_name", shell_complete=names("vhost"), metavar="VHOST")
@common
@click.pass_obj
def enable_vhost_deletion_protection(options: Options, vhost_name: str) -> None:
    """Protect a vhost from deletion.

    The protection stays until disable_vhost_deletion_protection removes it.
    """
    options.announce(f'Protecting virtual host "{vhost_name}" from removal by updating its metadata...')
    options.ask("enable_vhost_deletion_protection", vhost=vhost_name)


@click.command("disable_vhost_deletion_protection", cls=Command)
@click.argument("vhost_name", shell_complete=names("vhost"), metavar="VHOST")
@common
@click.pass_obj
def disable_vhost_deletion_protection(options: Options, vhost_name: str) -> None:
    """Allow to delete a vhost again."""
    options.announce(f'Removing deletion protection from virtual host "{vhost_name}" by updating its metadata...')
    options.ask("disable_vhost_deletion_protection", vhost=vhost_name)
