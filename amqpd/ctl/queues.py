"""The commands of amqpctl on queues and connections, with the texts of rabbitmqctl 3.10.

RabbitMQ docs/man/rabbitmqctl.8.
"""

from __future__ import annotations

import click

from amqpd.ctl.options import Command, Options, common, names


def commands() -> list[click.Command]:
    """Return the commands on queues and connections."""
    return [
        purge_queue, delete_queue, close_connection, close_all_connections, close_all_user_connections]


@click.command("purge_queue", cls=Command)
@click.argument("queue", shell_complete=names("queue"))
@common
@click.pass_obj
def purge_queue(options: Options, queue: str) -> None:
    """Drop the ready messages of a queue."""
    options.announce(f"Purging queue '{queue}' in vhost '{options.vhost}' ...")
    options.ask("purge_queue", vhost=options.vhost, queue=queue)


@click.command("delete_queue", cls=Command)
@click.argument("queue", shell_complete=names("queue"))
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


@click.command("close_connection", cls=Command)
@click.argument("connection", shell_complete=names("connection"))
@click.argument("explanation")
@common
@click.pass_obj
def close_connection(options: Options, connection: str, explanation: str) -> None:
    """Close a connection.

    CONNECTION is the pid or the name that list_connections shows.
    """
    options.announce(f"Closing connection {connection}, reason: {explanation}...")
    options.ask("close_connection", connection=connection, explanation=explanation)


@click.command("close_all_connections", cls=Command)
@click.argument("explanation")
@click.option("--global", "is_global", is_flag=True, help="Close the connections to all vhosts.")
@click.option("--limit", type=click.IntRange(min=0), default=0, metavar="NUMBER",
              help="Close at most so many.  [default: all]")
@click.option("--per-connection-delay", type=click.IntRange(min=0), default=0, metavar="MS",
              help="Wait so long after each one.  [default: 0]")
@common
@click.pass_obj
def close_all_connections(
    options: Options, explanation: str, *, is_global: bool, limit: int, per_connection_delay: int
) -> None:
    """Close the connections to a vhost, or all.

    Clients are told EXPLANATION.
    """
    count = limit or "all"
    where = f"to node {options.node} (across all vhosts)" if is_global else f"in vhost {options.vhost}"
    options.announce(f"Closing {count} connections {where}, reason: {explanation}...")
    closed = options.ask(
        "close_all_connections", vhost=None if is_global else options.vhost, explanation=explanation, limit=limit,
        per_connection_delay_ms=per_connection_delay)
    options.report(f"Closed {closed} connections")


@click.command("close_all_user_connections", cls=Command)
@click.argument("user", shell_complete=names("user"))
@click.argument("explanation")
@common
@click.pass_obj
def close_all_user_connections(options: Options, user: str, explanation: str) -> None:
    """Close all connections of a user.

    Clients are told EXPLANATION.
    """
    options.announce(f"Closing connections of user {user}, reason: {explanation}...")
    options.ask("close_all_user_connections", user=user, explanation=explanation)
