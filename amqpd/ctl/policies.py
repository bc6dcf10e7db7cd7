"""The commands of amqpctl that set and clear policies, users' and the operator's, with the texts of rabbitmqctl 3.10.

What a policy may say is checked in the broker's process. RabbitMQ docs/policies, docs/man/rabbitmqctl.8.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import click

from amqpd.ctl.options import Command, Options, common


class Sort(NamedTuple):
    """One of the two sorts of policies: its name in commands, and in the headings of setting and clearing one."""

    name: str
    when_set: str
    when_cleared: str


SORTS = (
    Sort("policy", "policy", "policy"),
    Sort("operator_policy", "operator policy override", "operator policy"),
)


def policy_commands() -> Iterator[click.Command]:
    """The commands that set and clear policies."""
    for sort in SORTS:
        yield _set_command(sort)
        yield _clear_command(sort)


def _set_command(sort: Sort) -> click.Command:
    @click.command(f"set_{sort.name}", cls=Command, help=f"""Set {_article(sort)}.

    It holds for the queues and exchanges in whose names PATTERN, a regular expression, is found.
    DEFINITION is JSON, such as '{{"max-length": 1000}}'.""")
    @click.argument("name")
    @click.argument("pattern")
    @click.argument("definition")
    @click.option("--priority", type=int, default=0, help="Of those that match, the highest holds.  [default: 0]")
    @click.option("--apply-to", metavar="KIND", default="all",
                  help="queues, classic_queues, quorum_queues, exchanges or all.  [default: all]")
    @common
    @click.pass_obj
    def set_policy(
        options: Options, name: str, pattern: str, definition: str, *, priority: int, apply_to: str
    ) -> None:
        options.announce(
            f'Setting {sort.when_set} "{name}" for pattern "{pattern}" to "{definition}" with priority "{priority}" '
            f'for vhost "{options.vhost}" ...')
        options.ask(
            f"set_{sort.name}", vhost=options.vhost, name=name, pattern=pattern, definition=definition,
            priority=priority, apply_to=apply_to)

    return set_policy


def _clear_command(sort: Sort) -> click.Command:
    @click.command(f"clear_{sort.name}", cls=Command, help=f"Take {_article(sort)} away.")
    @click.argument("name")
    @common
    @click.pass_obj
    def clear_policy(options: Options, name: str) -> None:
        options.announce(f'Clearing {sort.when_cleared} "{name}" on vhost "{options.vhost}" ...')
        options.ask(f"clear_{sort.name}", vhost=options.vhost, name=name)

    return clear_policy


def _article(sort: Sort) -> str:
    return f"{'an' if sort.when_cleared.startswith('o') else 'a'} {sort.when_cleared}"
