"""The commands of amqpctl on queues and consumers that rabbitmqctl does not have: pause, cancel, prefetch, unacked."""

from __future__ import annotations

from copy import copy

import click

from amqpd.ctl.options import Command, Options, columns_of, common, names
from amqpd.wording import counted

DEFAULT_COLUMNS = "position id consumer_tag connection user unacked_for_ms delivery_count payload_bytes".split()


def commands() -> list[click.Command]:
    """Return these commands, two of them also under a short name."""
    return [
        pause_queue, also(pause_queue, "pause"), resume_queue, also(resume_queue, "resume"), cancel_consumer,
        set_consumer_prefetch, list_unacked]


def also(command: click.Command, name: str) -> click.Command:
    """Return this command under another name."""
    other = copy(command)
    other.name = name
    return other


@click.command("pause_queue", cls=Command)
@click.argument("queue", shell_complete=names("queue"))
@common
@click.pass_obj
def pause_queue(options: Options, queue: str) -> None:
    """Deliver nothing of a queue.

    Its consumers get nothing, and for basic.get the queue counts as empty. Publishes and acknowledgements go on,
    messages expire, and the limits of the queue hold. A durable queue is still paused after a restart.

    \b
    amqpctl pause_queue orders
    amqpctl resume_queue orders
    """
    options.announce(f"Pausing queue '{queue}' in vhost '{options.vhost}' ...")
    options.ask("pause_queue", vhost=options.vhost, queue=queue)


@click.command("resume_queue", cls=Command)
@click.argument("queue", shell_complete=names("queue"))
@common
@click.pass_obj
def resume_queue(options: Options, queue: str) -> None:
    """Deliver the messages of a paused queue again.

    \b
    amqpctl resume_queue orders
    """
    options.announce(f"Resuming queue '{queue}' in vhost '{options.vhost}' ...")
    options.ask("resume_queue", vhost=options.vhost, queue=queue)


@click.command("cancel_consumer", cls=Command)
@click.argument("queue", shell_complete=names("queue"))
@click.argument("consumer_tag")
@click.option("--channel", metavar="PID", help="Its channel, if several consumers have this tag.")
@common
@click.pass_obj
def cancel_consumer(options: Options, queue: str, consumer_tag: str, channel: str | None) -> None:
    """Cancel one consumer of a queue.

    Its client gets basic.cancel, if it supports that. Its unacknowledged messages stay with its channel.
    list_consumers shows the tags and the pids of the channels.

    \b
    amqpctl cancel_consumer orders ctag1.8f2
    """
    options.announce(f"Cancelling consumer '{consumer_tag}' of queue '{queue}' in vhost '{options.vhost}' ...")
    options.ask("cancel_consumer", vhost=options.vhost, queue=queue, consumer_tag=consumer_tag, channel=channel)


@click.command("set_consumer_prefetch", cls=Command)
@click.argument("queue", shell_complete=names("queue"))
@click.argument("consumer_tag")
@click.argument("prefetch", type=int)
@click.option("--channel", metavar="PID", help="Its channel, if several consumers have this tag.")
@common
@click.pass_obj
def set_consumer_prefetch(
    options: Options, queue: str, consumer_tag: str, prefetch: int, channel: str | None
) -> None:
    """Change the prefetch of a consumer.

    The prefetch is how many messages the consumer may leave unacknowledged; 0 is no limit. The new value holds until
    the consumer is cancelled. If more messages are unacknowledged already, the consumer gets nothing until they are
    fewer.

    \b
    amqpctl set_consumer_prefetch orders ctag1.8f2 10
    """
    options.announce(
        f"Setting prefetch {prefetch} for consumer '{consumer_tag}' of queue '{queue}' in vhost '{options.vhost}' ...")
    options.ask(
        "set_consumer_prefetch", vhost=options.vhost, queue=queue, consumer_tag=consumer_tag, prefetch=prefetch,
        channel=channel)


@click.command("list_unacked", cls=Command)
@click.argument("queue", shell_complete=names("queue"))
@click.argument("columns", metavar="[COLUMN]...", nargs=-1)
@click.option("--offset", type=click.IntRange(min=0), default=0, show_default=True, help="Begin at this one.")
@click.option("--count", type=click.IntRange(0, 10_000), default=100, show_default=True, help="List at most so many.")
@common
@click.pass_obj
def list_unacked(options: Options, queue: str, columns: tuple[str, ...], offset: int, count: int) -> None:
    """List who holds which messages.

    Lists the deliveries that are not acknowledged, in the order of the queue, and for how long. Default columns:
    position, id, consumer_tag, connection, user, unacked_for_ms, delivery_count, payload_bytes. More columns:
    channel_pid, delivery_tag, redelivered.

    \b
    amqpctl list_unacked orders
    amqpctl list_unacked orders id user unacked_for_ms --offset 100
    """
    options.announce(f"Listing unacknowledged messages of queue '{queue}' in vhost '{options.vhost}' ...")
    result = options.ask(
        "list_unacked", vhost=options.vhost, queue=queue, columns=columns_of(columns) or DEFAULT_COLUMNS, offset=offset,
        count=count)
    options.show(result["columns"], result["rows"])
    if result["total"] > offset + count:
        options.announce(f"{counted(result['total'], 'message')} in all: go on with --offset {offset + count}")
    if not result["is_complete"]:
        options.announce("there are more unacknowledged messages than could be visited")
