"""The commands of amqpctl that set and clear policies and operator policies, with the texts of rabbitmqctl 3.10.

The broker checks what a policy says. RabbitMQ docs/policies, docs/man/rabbitmqctl.8.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import click

from amqpd.ctl.options import Command, Options, common, names


class Kind(NamedTuple):
    """One of the two kinds of policies: its name in commands, and in the headings of setting and clearing one."""

    name: str
    when_set: str
    when_cleared: str


KINDS = (
    Kind("policy", "policy", "policy"),
    Kind("operator_policy", "operator policy override", "operator policy"),
)


def commands() -> Iterator[click.Command]:
    """Yield the commands that set and clear policies."""
    for kind in KINDS:
        yield _set_command(kind)
        yield _clear_command(kind)


def _set_command(kind: Kind) -> click.Command:
    @click.command(f"set_{kind.name}", cls=Command, help=f"""Set {_article(kind)}.

    It applies to the queues and exchanges whose names match PATTERN, a regular expression.
    DEFINITION is JSON, such as '{{"max-length": 1000}}'.""")
    @click.argument("name")
    @click.argument("pattern")
    @click.argument("definition")
    @click.option("--priority", type=int, default=0,
                  help="Of all policies that match, the highest priority applies.  [default: 0]")
    @click.option("--apply-to", metavar="KIND", default="all",
                  help="queues, classic_queues, quorum_queues, exchanges or all.  [default: all]")
    @common
    @click.pass_obj
    def set_policy(
        options: Options, name: str, pattern: str, definition: str, *, priority: int, apply_to: str
    ) -> None:
        options.announce(
            f'Setting {kind.when_set} "{name}" for pattern "{pattern}" to "{definition}" with priority "{priority}" '
            f'for vhost "{options.vhost}" ...')
        options.ask(
            f"set_{kind.name}", vhost=options.vhost, name=name, pattern=pattern, definition=definition,
            priority=priority, apply_to=apply_to)

    return set_policy


def _clear_command(kind: Kind) -> click.Command:
    @click.command(f"clear_{kind.name}", cls=Command, help=f"Clear {_article(kind)}.")
    @click.argument("name", shell_complete=names(kind.name))
    @common
    @click.pass_obj
    def clear_policy(options: Options, name: str) -> None:
        options.announce(f'Clearing {kind.when_cleared} "{name}" on vhost "{options.vhost}" ...')
        options.ask(f"clear_{kind.name}", vhost=options.vhost, name=name)

    return clear_policy


def _article(kind: Kind) -> str:
    return f"{'an' if kind.when_cleared.startswith('o') else 'a'} {kind.when_cleared}"
