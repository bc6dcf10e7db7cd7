"""The commands of amqpctl on the messages of a queue, which rabbitmqctl does not have: peek, move, retry and so on.

The broker selects the messages. What is printed as JSON has the names of RabbitMQ's HTTP API where it has them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, TypeVar

import click

from amqpd.ctl.options import Command, Options, columns_of, common
from amqpd.exit_codes import EXIT_DATA, EXIT_UNAVAILABLE
from amqpd.program import Failure, complain
from amqpd.wording import counted

PEEK_COLUMNS = (
    "offset", "id", "exchange", "routing_key", "redelivered", "delivery_count", "persistent", "properties",
    "payload_bytes", "payload_encoding", "payload", "truncated")
DEFAULT_COLUMNS = ("offset", "id", "routing_key", "delivery_count", "payload_bytes", "payload")
MOST_GONE_SHOWN = 10
LONG_S = 86_400.0       # to wait for millions of messages
STAYS = {
    "full": "a target is full and refuses publishes", "unroutable": "no queue is bound for it",
    "no_origin": "it has not died, or its queue does not exist", "failed": "an internal error, see the log"}

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


def commands() -> list[click.Command]:
    """Return these commands."""
    return [peek, move, retry, delete_messages, export_messages]


# Which messages

def _filtered(function: AnyFunction) -> AnyFunction:
    """Add the options of a filter, which reach the command as `filters`."""
    for option in reversed((
        click.option("--text", metavar="TEXT", help="Only with this text in the body."),
        click.option("--header", metavar="NAME=VALUE", multiple=True, help="Only with this header, or NAME."),
        click.option("--property", metavar="NAME=VALUE", multiple=True, help="Only with this property."),
        click.option("--json", metavar="PATH=VALUE", multiple=True,
                     help="Only with this value in a JSON body, such as $.a.b[0]=x."),
        click.option("--older-than", type=float, metavar="SECONDS", help="Only with an older timestamp."),
        click.option("--younger-than", type=float, metavar="SECONDS", help="Only with a younger timestamp."),
        click.option("--min-deliveries", type=int, metavar="N", help="Only if N deliveries or more have failed."),
        click.option("--max-deliveries", type=int, metavar="N", help="Only if N deliveries or fewer have failed."),
        click.option("--reason", metavar="REASON",
                     help="Only if its last death has this reason: rejected, expired, maxlen or delivery_limit."),
        click.option("--origin", metavar="QUEUE", help="Only if it died first in this queue."),
        click.option("--key", "routing_key", metavar="KEY", help="Only with this routing key."),
    )):
        function = option(function)
    return function


def _selected(function: AnyFunction) -> AnyFunction:
    """Add the options that select messages to act on."""
    for option in reversed((
        click.option("--id", "ids", type=int, multiple=True, metavar="ID",
                     help="Only this one, as peek shows it; may be repeated."),
        click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most so many, from the head on."),
        click.option("--all", "everything", is_flag=True, help="All that are ready."),
    )):
        function = option(function)
    return _filtered(function)


def _filter_of(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value not in (None, ())}


# Look

@click.command("peek", cls=Command)
@click.argument("queue")
@click.argument("columns", metavar="[COLUMN]...", nargs=-1)
@click.option("--offset", type=click.IntRange(min=0), default=0, show_default=True, help="Begin at this message.")
@click.option("--count", type=click.IntRange(0, 1_000), default=10, show_default=True, help="Show at most so many.")
@click.option("--truncate", type=click.IntRange(0, 1 << 20), default=50_000, show_default=True, metavar="BYTES",
              help="Show at most so much of a body.")
@click.option("--scan", type=click.IntRange(0, 100_000), default=10_000, show_default=True, metavar="N",
              help="Look at most at so many.")
@_filtered
@common
@click.pass_obj
def peek(
    options: Options, /, queue: str, columns: tuple[str, ...], offset: int, count: int, truncate: int, scan: int,
    **filters: Any,
) -> None:
    """Show ready messages of a queue.

    The queue is not changed: nothing is delivered, and no message counts as redelivered. Default columns: offset, id,
    routing_key, delivery_count, payload_bytes, payload. More columns: exchange, redelivered, persistent, properties,
    payload_encoding, truncated. --formatter json has all.

    \b
    amqpctl peek orders.dead --offset 100 --count 5
    amqpctl peek orders.dead --json '$.order.country=DE' --reason rejected
    amqpctl peek orders id properties --header x-tenant=7 --formatter json
    """
    wanted = columns_of(columns)
    if unknown := [column for column in wanted if column not in PEEK_COLUMNS]:
        raise Failure(f"Info key(s) {','.join(unknown)} are not supported, only {', '.join(PEEK_COLUMNS)}", EXIT_DATA)
    shown = wanted or (PEEK_COLUMNS if options.formatter == "json" else DEFAULT_COLUMNS)
    options.announce(f"Peeking at queue '{queue}' in vhost '{options.vhost}' ...")
    found = options.ask(
        "peek", vhost=options.vhost, queue=queue, offset=offset, count=count, truncate=truncate, scan=scan,
        filter=_filter_of(filters))
    options.show(shown, [[record[column] for column in shown] for record in found["messages"]])
    if found["cursor"] is not None and found["next_offset"] < found["ready"]:
        options.announce(f"{counted(found['ready'], 'message')} in all: go on with --offset {found['next_offset']}")


@click.command("export_messages", cls=Command)
@click.argument("queue")
@click.argument("file", default="-", metavar="[FILE]")
@click.option("--id", "ids", type=int, multiple=True, metavar="ID",
              help="Only this one, as peek shows it; may be repeated.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most so many, from the head on.")
@_filtered
@common
@click.pass_obj
def export_messages(
    options: Options, /, queue: str, file: str, ids: tuple[int, ...], limit: int | None, **filters: Any
) -> None:
    """Write ready messages of a queue as JSON lines.

    They go to FILE, or to stdout. Each line is a message, as peek shows it in JSON, with its whole body: as text, or in
    base64 if that is not UTF-8; payload_encoding tells. The messages stay in the queue.

    \b
    amqpctl export_messages orders.dead dead.jsonl
    amqpctl -q export_messages orders.dead --text customer-17 | jq .payload
    """
    count, cursor, is_first = 0, None, True
    gone = list[int]()
    with _opened(file) as out:
        while (is_first or cursor is not None) and count != limit:
            found = options.ask(
                "export_messages", vhost=options.vhost, queue=queue, cursor=cursor, ids=ids or None,
                filter=_filter_of(filters), count=1_000 if limit is None else min(1_000, limit - count))
            out.writelines([json.dumps(record, ensure_ascii=False) + "\n" for record in found["messages"]])
            count, cursor, is_first = count + len(found["messages"]), found["cursor"], False
            gone += found.get("gone", ())
    if gone:
        complain("amqpctl", _not_ready(gone))
    if file != "-":
        options.announce(f"{counted(count, 'message')} written to {file}")


@contextmanager
def _opened(file: str) -> Iterator[TextIO]:
    if file == "-":
        yield sys.stdout
        return
    try:
        with open(file, "x", encoding="utf-8") as out:
            yield out
    except OSError as error:
        raise Failure(f"cannot write {file}: {error.strerror or error}", EXIT_DATA) from None


# Act

@click.command("move", cls=Command)
@click.argument("queue")
@click.option("--to-queue", metavar="QUEUE", help="To this queue; exchange and routing key stay.")
@click.option("--to-exchange", metavar="EXCHANGE", help="To this exchange, as if published there.")
@click.option("--routing-key", "new_key", metavar="KEY", help="With this routing key, instead of each one's own.")
@_selected
@common
@click.pass_obj
def move(
    options: Options, /, queue: str, to_queue: str | None, to_exchange: str | None, new_key: str | None,
    ids: tuple[int, ...], limit: int | None, *, everything: bool, **filters: Any,
) -> None:
    """Move ready messages to a queue or an exchange.

    Each message is in its queue or in the target at every moment, also in a crash. A message that cannot arrive stays
    where it is. With --dry-run, the broker only counts the messages.

    \b
    amqpctl move orders.dead --to-queue orders --all --dry-run
    amqpctl move orders.dead --to-queue orders --header x-tenant=7
    amqpctl move orders --to-exchange events --routing-key order.again --limit 100
    """
    options.announce(f"Moving messages of queue '{queue}' in vhost '{options.vhost}' ...")
    _act(options, "move", "moved", {
        "queue": queue, "to_queue": to_queue, "to_exchange": to_exchange, "routing_key": new_key, "ids": ids or None,
        "filter": _filter_of(filters), "limit": limit, "everything": everything})


@click.command("retry", cls=Command)
@click.argument("queue")
@click.option("--last", is_flag=True, help="To the queue where it died last, instead of first.")
@click.option("--forget-deaths", is_flag=True, help="Without the headers x-death and x-…-death-….")
@_selected
@common
@click.pass_obj
def retry(
    options: Options, /, queue: str, ids: tuple[int, ...], limit: int | None, *, last: bool, forget_deaths: bool,
    everything: bool, **filters: Any,
) -> None:
    """Move dead letters back to where they died.

    Each message goes to the queue in which it died first, with the exchange and the routing key that it had there. A
    message that has not died, or whose queue does not exist, stays. With --dry-run, the broker only counts the
    messages.

    \b
    amqpctl retry orders.dead --all
    amqpctl retry orders.dead --origin orders --reason rejected --limit 10
    """
    options.announce(f"Retrying messages of queue '{queue}' in vhost '{options.vhost}' ...")
    _act(options, "retry", "moved", {
        "queue": queue, "last": last, "forget_deaths": forget_deaths, "ids": ids or None,
        "filter": _filter_of(filters), "limit": limit, "everything": everything})


@click.command("delete_messages", cls=Command)
@click.argument("queue")
@_selected
@common
@click.pass_obj
def delete_messages(
    options: Options, /, queue: str, ids: tuple[int, ...], limit: int | None, *, everything: bool,
    **filters: Any,
) -> None:
    """Delete ready messages of a queue.

    They are not dead-lettered. With --dry-run, the broker only counts them.

    \b
    amqpctl delete_messages orders --id 1099511628801 --id 1099511628805
    amqpctl delete_messages orders --text '"test": true' --dry-run
    """
    options.announce(f"Deleting messages of queue '{queue}' in vhost '{options.vhost}' ...")
    _act(options, "delete_messages", "deleted", {
        "queue": queue, "ids": ids or None, "filter": _filter_of(filters), "limit": limit, "everything": everything})


def _act(options: Options, command: str, done: str, arguments: dict[str, Any]) -> None:
    """Ask for an act and print what was done. Raises Failure if it ended before its time.

    The broker is asked with --dry-run too: it counts the messages then.
    """
    is_dry_run, options.is_dry_run = options.is_dry_run, False
    if "timeout" not in options.given:
        options.timeout = LONG_S
    result = options.ask_for_long(command, command, vhost=options.vhost, dry_run=is_dry_run, **arguments)
    matched = f"{counted(result['matched'], 'message')} of {counted(result['matched_bytes'], 'byte')}"
    lines = [f"{matched} would be {done}" if result['dry_run'] else f"{result[done]:,} of {matched} {done}"]
    lines += [f"{counted(result[name], 'message')}: {why}" for name, why in STAYS.items() if result.get(name)]
    lines += [_not_ready(result["gone"])] if result.get("gone") else []
    options.say(result, lines)
    if result["stopped"]:
        raise Failure(result["stopped"], EXIT_UNAVAILABLE)


def _not_ready(gone: list[int]) -> str:
    """Tell which ids are of no ready message, at most a few by number."""
    shown = ", ".join([str(number) for number in gone[:MOST_GONE_SHOWN]])
    more = ", …" if len(gone) > MOST_GONE_SHOWN else ""
    return f"{counted(len(gone), 'id')} of no message that is ready now: {shown}{more}"
