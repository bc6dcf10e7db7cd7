"""The commands of amqpctl that show what happens as it happens, until Ctrl-C, and the two of the firehose."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from amqpd.ctl.options import Command, Options, common, names
from amqpd.exit_codes import EXIT_USAGE
from amqpd.program import Failure
from amqpd.wording import counted, escape

LONGEST_SHOWN = 200     # characters of a body, on one line


def commands() -> list[click.Command]:
    """Return these commands."""
    return [events, tail, trace_on, trace_off]


@click.command("events", cls=Command)
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1)
@common
@click.pass_obj
def events(options: Options, patterns: tuple[str, ...]) -> None:
    """Print events as they happen, until Ctrl-C.

    One JSON object a line, with the names of RabbitMQ's event exchange: connections, channels and consumers, logins,
    queues, exchanges and bindings, vhosts, users, permissions, policies, parameters, alarms. PATTERN chooses among
    the names: '*' is one word, '#' any number of them. Events of all vhosts are printed. If this program is too slow
    for them, {"dropped": 3} says how many are missing.

    \b
    amqpctl events
    amqpctl events 'queue.*' user.authentication.failure
    """
    try:
        for record in options.follow("events", patterns=list(patterns)):
            click.echo(json.dumps(record, ensure_ascii=False))
    except KeyboardInterrupt:
        return


@click.command("tail", cls=Command)
@click.argument("exchange", shell_complete=names("exchange"), required=False)
@click.option("--key", default="#", metavar="PATTERN",
              help="Only routing keys that match: '*' is one word, '#' any number of them.")
@click.option("--queue", metavar="QUEUE", help="Follow what comes to this queue instead of an exchange.")
@common
@click.pass_obj
def tail(options: Options, exchange: str | None, *, key: str, queue: str | None) -> None:
    """Print messages as they come to an exchange.

    It goes on until Ctrl-C. Messages come from clients, through bindings, as an alternate exchange, or as dead
    letters; "" is the default exchange. One line each: time, routing key, the queues it goes to, and the beginning
    of the body. With --formatter json, one object a line, with properties and more of the body. What happens to the
    messages stays the same, and publishers do not wait: if this program is too slow for them, it says how many are
    missing.

    \b
    amqpctl tail events
    amqpctl -p shop tail events --key 'order.#'
    amqpctl --formatter json tail --queue invoices
    """
    if (exchange is None) == (queue is None):
        raise Failure("give an exchange, or a queue with --queue", EXIT_USAGE)
    followed = f"exchange '{exchange}'" if queue is None else f"queue '{queue}'"
    options.announce(f"Following messages to {followed} in vhost '{options.vhost}', until Ctrl-C ...")
    try:
        for record in options.follow("tail", vhost=options.vhost, exchange=exchange, queue=queue, key=key):
            if options.formatter == "json":
                click.echo(json.dumps(record, ensure_ascii=False))
            elif "dropped" in record:
                missing = counted(record["dropped"], "message")
                click.echo(f"amqpctl: {missing} missing here: this program is too slow", err=True)
            else:
                click.echo(_line(record))
    except KeyboardInterrupt:
        return


def _line(record: dict[str, Any]) -> str:
    """Return a message as one line."""
    seconds, milliseconds = divmod(record["timestamp_in_ms"], 1000)
    when = f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{milliseconds:03}"
    queues = ", ".join(record["routed_queues"]) or "no queue"
    body = record["payload"]
    if record["payload_encoding"] != "string":
        body = f"({counted(record['payload_bytes'], 'byte')})"
    elif len(body) > LONGEST_SHOWN:
        body = f"{body[:LONGEST_SHOWN]}…"
    return escape(f"{when}  {record['routing_key']} → {queues}  {body}")


@click.command("trace_on", cls=Command)
@common
@click.pass_obj
def trace_on(options: Options) -> None:
    """Turn the firehose of a vhost on.

    Then a copy of every message that is published or delivered in the vhost goes to the exchange amq.rabbitmq.trace,
    with the routing key publish.EXCHANGE or deliver.QUEUE. It is off after a start.

    \b
    amqpctl -p shop trace_on
    """
    options.announce(f'Starting tracing for vhost "{options.vhost}" ...')
    options.ask("trace_on", vhost=options.vhost)
    options.report(f"Trace enabled for vhost {options.vhost}")


@click.command("trace_off", cls=Command)
@common
@click.pass_obj
def trace_off(options: Options) -> None:
    """Turn the firehose of a vhost off.

    \b
    amqpctl -p shop trace_off
    """
    options.announce(f'Stopping tracing for vhost "{options.vhost}" ...')
    options.ask("trace_off", vhost=options.vhost)
    options.report(f"Trace disabled for vhost {options.vhost}")
