"""The commands of amqpctl that explain something: where a message would go, and why queues stand still.

The broker finds the answers; here they become text. A route is a tree, as `route_steps.py` of the management describes
its steps; JSON has them as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import click

from amqpd.ctl.options import Command, Options, common, names
from amqpd.exit_codes import EXIT_USAGE
from amqpd.program import Failure
from amqpd.wording import counted, lasting

CAUSES = {
    "expired": "expired", "maxlen": "over length", "delivery_limit": "over the delivery limit", "rejected": "rejected"}
OVERFLOWS = {
    "drop-head": "then the oldest is dropped",
    "reject-publish": "then a publish is refused",
    "reject-publish-dlx": "then a publish is refused and dead-lettered",
}
CYCLES = {
    "ends": "it was here before, and no consumer rejected it since: it is dropped instead of coming here again",
    "goes on": "it was here before: a cycle, which goes on for as long as consumers reject it",
}
SHOWN_ABOVE = "see above"

Step = dict[str, Any]


def commands() -> Iterator[click.Command]:
    """Yield these commands."""
    yield route
    yield why


@click.command("route", cls=Command)
@click.argument("exchange", shell_complete=names("exchange"))
@click.argument("routing_key", metavar="KEY")
@click.option("--header", "headers", metavar="NAME=VALUE", multiple=True,
              help="A header of the message; may be repeated. VALUE is JSON, such as 1 or true, or else a text.")
@click.option("--user", metavar="USER", help="Check also whether this user may publish it.")
@click.option("--steps", type=click.IntRange(1, 500), metavar="NUMBER", default=500,
              help="Show at most so many steps.  [default: 500]")
@common
@click.pass_obj
def route(
    options: Options, exchange: str, routing_key: str, *, headers: Sequence[str], user: str | None, steps: int
) -> None:
    """Show where a message would go.

    Follows a message to EXCHANGE ('' is the default exchange) with this routing KEY through bindings, exchanges and
    alternate exchanges to queues, and tells what happens there: limits, times to live, dead letters. Nothing is
    published.

    \b
    amqpctl route events order.new
    amqpctl -p shop route '' tasks --user till
    amqpctl --formatter json route events '' --header country=de --header 'CC=["copy"]'
    """
    options.announce(f"Where a message to exchange '{exchange}' with key '{routing_key}' goes in vhost "
                     f"'{options.vhost}' ...")
    answer = options.ask(
        "explain_route", vhost=options.vhost, exchange=exchange, routing_key=routing_key,
        headers=dict(map(_header, headers)), user=user, most_steps=steps)
    options.say(answer, route_lines(answer))


@click.command("why", cls=Command)
@click.argument("queue", shell_complete=names("queue"), required=False)
@click.option("--watch", "watched_s", type=click.FloatRange(0, 30), metavar="SECONDS", default=1.0,
              help="Watch so long, to see which queues move.  [default: 1]")
@click.option("--all", "is_all", is_flag=True, help="Tell also of queues that move or are empty.")
@common
@click.pass_obj
def why(options: Options, queue: str | None, *, watched_s: float, is_all: bool) -> None:
    """Show why a queue stands still, and the remedy.

    Without QUEUE, explains all queues of the vhost that have messages and do not move. The cause is, for example, that
    there is no consumer, that a prefetch is used up (and who holds the oldest message), that a client does not read, a
    pause, or an alarm.

    \b
    amqpctl why
    amqpctl why orders
    amqpctl -p shop --formatter json why --all --watch 5
    """
    what = f"queue '{queue}'" if queue is not None else "queues"
    options.announce(f"Why {what} in vhost '{options.vhost}' {'stands' if queue is not None else 'stand'} still ...")
    answer = options.ask("explain_queues", vhost=options.vhost, queue=queue, watched_s=watched_s, is_all=is_all)
    options.say(answer, standstill_lines(answer, is_one=queue is not None))


def standstill_lines(answer: dict[str, Any], *, is_one: bool) -> Iterator[str]:
    """Yield why queues stand still as text: a sentence and a remedy for each."""
    if answer["alarm"]:
        yield (f"publishers are blocked by an alarm: {answer['alarm']}; "
               f"{counted(answer['blocked_connections'], 'connection')} "
               f"{'waits' if answer['blocked_connections'] == 1 else 'wait'}")
    for one in answer["queues"]:
        yield f"{one['queue']}: {one['sentence']}"
        if one["remedy"]:
            yield f"    remedy: {one['remedy']}"
    if answer["left_out"]:
        yield f"… and {counted(answer['left_out'], 'more queue')}"
    if not is_one:
        yield (f"{counted(answer['standing'], 'queue')} with messages {_verb(answer['standing'], 'stand')} still, "
               f"{answer['moving']:,} {_verb(answer['moving'], 'move')}, {answer['empty']:,} "
               f"{'is' if answer['empty'] == 1 else 'are'} empty")


def _verb(count: int, verb: str) -> str:
    return f"{verb}s" if count == 1 else verb


def _header(given: str) -> tuple[str, Any]:
    name, sign, text = given.partition("=")
    if not name or not sign:
        raise Failure(f"--header {given}: a header is NAME=VALUE, such as country=de", EXIT_USAGE)
    try:
        return name, json.loads(text)
    except ValueError:
        return name, text


def route_lines(answer: dict[str, Any]) -> Iterator[str]:
    """Yield a route as text."""
    if answer["rights"] is not None:
        yield _rights(answer["rights"], answer["exchange"])
    if answer["refused"]:
        yield f"the publish is refused: {answer['refused']}"
        return
    yield from _tree(answer["steps"])
    if answer["is_cut"]:
        yield f"… this is not all: {counted(len(answer['steps']), 'step')} shown"
    count = answer["queue_count"]
    if count:
        yield f"it reaches {counted(count, 'queue')}"
    elif not any(step["kind"] == "direct_reply" for step in answer["steps"]):
        yield "it reaches no queue: it is dropped, or returned to a publisher that set 'mandatory'"


def _rights(rights: dict[str, Any], exchange: str) -> str:
    user, pattern, topics = rights["user"], rights["write_pattern"], rights["topic_pattern"]
    if not rights["may_enter"]:
        return f"user '{user}' has no permissions in this vhost; amqpctl set_permissions sets them"
    verb = "may" if rights["may_write"] else "may not"
    told = f"user '{user}' {verb} write to '{exchange or 'amq.default'}': write permission '{pattern}'"
    if topics is None:
        return told
    verb = "may" if rights["may_use_key"] else "may not"
    return f"{told}; {verb} use this key: topic permission '{topics}'"


def _tree(steps: Sequence[Step]) -> Iterator[str]:
    """Yield the steps as a tree, each with what is to say of it below."""
    following: list[frozenset[int]] = []        # of each step, from the last one: the levels on which others follow
    levels: frozenset[int] = frozenset()
    for step in reversed(steps):
        levels = frozenset(level for level in levels if level <= step["depth"])
        following.append(levels)
        levels |= {step["depth"]}
    for at, (step, follows) in enumerate(zip(steps, reversed(following))):
        depth = step["depth"]
        stems = ["│  " if level in follows else "   " for level in range(1, depth + 1)]
        branch = ("├─ " if depth in follows else "└─ ") if depth else ""
        has_children = at + 1 < len(steps) and steps[at + 1]["depth"] > depth
        yield f"{''.join(stems[:-1])}{branch}{_title(step)}"
        for remark in _remarks(step):
            yield f"{''.join(stems)}{'│' if has_children else ' '}    {remark}"


def _title(step: Step) -> str:
    kind, name = step["kind"], step.get("name", "")
    if kind == "direct_reply":
        return f"a client that waits for a direct reply: '{name}'"
    if kind == "dead_letters":
        keys = ", ".join(f"'{key}'" for key in step["routing_keys"])
        causes = ", ".join(CAUSES.get(cause, cause) for cause in step["causes"])
        return (f"dead letters ({causes}) → exchange '{step['exchange']}' with "
                f"{'their own ' * step['is_own_key']}{'key' if len(step['routing_keys']) == 1 else 'keys'} {keys}")
    way = f"{_bindings(step)} → " if step["by"] == "binding" else ""
    if step["by"] == "alternate exchange":
        way = "nothing matched: alternate exchange → "
    if kind == "exchange":
        exchange = f"exchange '{name}'" if name else "the default exchange"
        return f"{way}{exchange} ({step['type']}){_policy(step)}"
    return f"{way}queue '{name}'{' (quorum)' * (step['type'] == 'quorum')}{_policy(step)}"


def _bindings(step: Step) -> str:
    told = [_binding(one) for one in step["bindings"]]
    return f"binding {' and '.join(told)}{' and perhaps more' * step['has_more_bindings']}"


def _binding(binding: dict[str, Any]) -> str:
    arguments = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}"
                          for name, value in binding["arguments"].items())
    return f"'{binding['routing_key']}'" + (f" ({arguments})" if arguments else "")


def _policy(step: Step) -> str:
    named = [f"{kind.replace('_', ' ')} '{step[kind]}'" for kind in ("policy", "operator_policy") if step.get(kind)]
    return f", {' and '.join(named)}" if named else ""


def _remarks(step: Step) -> Iterator[str]:
    if step["kind"] == "dead_letters":
        if not step["exists"]:
            yield "there is no such exchange: dead letters are dropped"
        if step["is_at_least_once"]:
            yield "at least once: each stays in the queue until its copies are on disk"
    elif step["kind"] == "exchange":
        if step["is_shown_above"]:
            yield SHOWN_ABOVE
        elif step["is_unrouted"] and step["alternate_exchange"] is None:
            yield "nothing matched, and it has no alternate exchange"
        elif step["is_unrouted"] and not step["has_alternate_exchange"]:
            yield f"nothing matched, and its alternate exchange '{step['alternate_exchange']}' does not exist"
    elif step["kind"] == "queue":
        yield from _queue_remarks(step)


def _queue_remarks(step: Step) -> Iterator[str]:
    if step["cycle"]:
        yield CYCLES[step["cycle"]]
        return
    waiting = [f"{step['ready']:,} ready", f"{step['unacked']:,} unacknowledged"]
    consumers = counted(step["consumers"], "consumer") if step["consumers"] else "no consumer"
    yield ", ".join([*waiting, consumers + ", one active" * step["single_active_consumer"]])
    limits = [counted(step["max_length"], "message")] if step["max_length"] is not None else []
    limits += [counted(step["max_length_bytes"], "byte")] if step["max_length_bytes"] is not None else []
    if limits:
        now = "; it has as many now" if step["is_at_limit"] else ""
        yield f"at most {' or '.join(limits)}, {OVERFLOWS.get(step['overflow'], step['overflow'])}{now}"
    if step["message_ttl_ms"] is not None:
        yield f"messages expire after {lasting(step['message_ttl_ms'])}"
    if step["expires_ms"] is not None:
        yield f"the queue is deleted when it has been unused for {lasting(step['expires_ms'])}"
    if step["delivery_limit"] is not None:
        yield f"a message may be returned {counted(step['delivery_limit'], 'time')}"
    if step["max_priority"]:
        yield f"priorities up to {step['max_priority']}"
    if step["is_shown_above"] and step["dead_letter_exchange"] is not None:
        yield f"dead letters go to exchange '{step['dead_letter_exchange']}': {SHOWN_ABOVE}"
