"""The commands of amqpctl on users and their permissions, with the texts of rabbitmqctl 3.10.

RabbitMQ docs/access-control, docs/man/rabbitmqctl.8.
"""

from __future__ import annotations

import sys

import click

from amqpd.ctl.options import Command, Options, common, names
from amqpd.exit_codes import EXIT_DATA
from amqpd.program import Failure


def commands() -> list[click.Command]:
    """Return the commands on users and permissions."""
    return [
        add_user, delete_user, change_password, clear_password, authenticate_user, set_user_tags, set_permissions,
        clear_permissions, list_user_permissions, set_topic_permissions, clear_topic_permissions,
        list_user_topic_permissions]


@click.command("add_user", cls=Command)
@click.argument("user")
@click.argument("password", required=False)
@common
@click.pass_obj
def add_user(options: Options, user: str, password: str | None) -> None:
    """Add a user without permissions. Without PASSWORD, the password is read from stdin."""
    options.announce(f'Adding user "{user}" ...')
    options.ask("add_user", user=user, password=read_password(password))
    options.announce(
        "Done. Don't forget to grant the user permissions to some virtual hosts! "
        f"See '{options.program} help set_permissions' to learn more.")


@click.command("delete_user", cls=Command)
@click.argument("user", shell_complete=names("user"))
@common
@click.pass_obj
def delete_user(options: Options, user: str) -> None:
    """Delete a user and close their connections."""
    options.announce(f'Deleting user "{user}" ...')
    options.ask("delete_user", user=user)


@click.command("change_password", cls=Command)
@click.argument("user", shell_complete=names("user"))
@click.argument("password", required=False)
@common
@click.pass_obj
def change_password(options: Options, user: str, password: str | None) -> None:
    """Replace the password of a user. Without PASSWORD, the password is read from stdin."""
    options.announce(f'Changing password for user "{user}" ...')
    options.ask("change_password", user=user, password=read_password(password))


@click.command("clear_password", cls=Command)
@click.argument("user", shell_complete=names("user"))
@common
@click.pass_obj
def clear_password(options: Options, user: str) -> None:
    """Remove the password of a user.

    Then the user cannot log in with a password.
    """
    options.announce(f'Clearing password for user "{user}" ...')
    options.ask("clear_password", user=user)


@click.command("authenticate_user", cls=Command)
@click.argument("user", shell_complete=names("user"))
@click.argument("password", required=False)
@common
@click.pass_obj
def authenticate_user(options: Options, user: str, password: str | None) -> None:
    """Check the password of a user. Without PASSWORD, the password is read from stdin."""
    options.announce(f'Authenticating user "{user}" ...')
    options.ask("authenticate_user", user=user, password=read_password(password))
    options.report("Success")


@click.command("set_user_tags", cls=Command)
@click.argument("user", shell_complete=names("user"))
@click.argument("tags", nargs=-1, metavar="[TAG]...")
@common
@click.pass_obj
def set_user_tags(options: Options, user: str, tags: tuple[str, ...]) -> None:
    """Replace the tags of a user.

    Without TAG, the user has no tags.
    """
    options.announce(f'Setting tags for user "{user}" to [{", ".join(tags)}] ...')
    options.ask("set_user_tags", user=user, tags=tags)


@click.command("set_permissions", cls=Command)
@click.argument("user", shell_complete=names("user"))
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


@click.command("clear_permissions", cls=Command)
@click.argument("user", shell_complete=names("user"))
@common
@click.pass_obj
def clear_permissions(options: Options, user: str) -> None:
    """Remove all permissions of a user in a vhost.

    Open connections stay open, but their requests are refused.
    """
    options.announce(f'Clearing permissions for user "{user}" in vhost "{options.vhost}" ...')
    options.ask("clear_permissions", vhost=options.vhost, user=user)


@click.command("list_user_permissions", cls=Command)
@click.argument("user", shell_complete=names("user"))
@common
@click.pass_obj
def list_user_permissions(options: Options, user: str) -> None:
    """List the permissions of a user."""
    options.announce(f'Listing permissions for user "{user}" ...')
    result = options.ask("list_user_permissions", user=user)
    options.show(result["columns"], result["rows"])


@click.command("set_topic_permissions", cls=Command)
@click.argument("user", shell_complete=names("user"))
@click.argument("exchange", shell_complete=names("exchange"))
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


@click.command("clear_topic_permissions", cls=Command)
@click.argument("user", shell_complete=names("user"))
@click.argument("exchange", shell_complete=names("exchange"), required=False)
@common
@click.pass_obj
def clear_topic_permissions(options: Options, user: str, exchange: str | None) -> None:
    """Clear the topic permissions of a user.

    Without EXCHANGE, those on all exchanges. Then the user may use any routing key.
    """
    place = f'on "{exchange}" ' if exchange is not None else ""
    options.announce(f'Clearing topic permissions {place}for user "{user}" in vhost "{options.vhost}" ...')
    options.ask("clear_topic_permissions", vhost=options.vhost, user=user, exchange=exchange)


@click.command("list_user_topic_permissions", cls=Command)
@click.argument("user", shell_complete=names("user"))
@common
@click.pass_obj
def list_user_topic_permissions(options: Options, user: str) -> None:
    """List the topic permissions of a user."""
    options.announce(f'Listing topic permissions for user "{user}" ...')
    result = options.ask("list_user_topic_permissions", user=user)
    options.show(result["columns"], result["rows"])


def read_password(given: str | None) -> str:
    """Return this password, or read one: without an echo from a terminal, otherwise a line. Raises Failure."""
    if given is not None:
        return given
    if sys.stdin.isatty():
        entered: str = click.prompt("Password", hide_input=True, default="", show_default=False, err=True)
        return entered
    line = sys.stdin.readline()
    if not line:
        raise Failure("Password is not provided via argument or stdin", EXIT_DATA)
    return line.rstrip("\r\n")
