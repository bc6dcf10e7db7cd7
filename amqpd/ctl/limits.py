"""The commands of amqpctl that set the limits of the alarms.

Owns how sizes may be written: bytes, or a number with a unit, as in rabbitmqctl. A limit holds until the next start.

RabbitMQ docs/memory, docs/disk-alarms; rabbit_resource_monitor_misc.
"""

from __future__ import annotations

import re

import click

from amqpd.ctl.options import Command, Options, common
from amqpd.exit_codes import EXIT_DATA, EXIT_USAGE
from amqpd.program import Failure

UNITS = {
    "": 1, "k": 1 << 10, "kiB": 1 << 10, "M": 1 << 20, "MiB": 1 << 20, "G": 1 << 30, "GiB": 1 << 30,
    "kB": 10 ** 3, "KB": 10 ** 3, "MB": 10 ** 6, "GB": 10 ** 9}
AMOUNT = re.compile(r"(-?[0-9]+)([a-zA-Z]*)")


def commands() -> list[click.Command]:
    """Return the two commands."""
    return [set_vm_memory_high_watermark, set_disk_free_limit]


@click.command("set_vm_memory_high_watermark", cls=Command)
@click.argument("limit", nargs=-1, metavar="FRACTION | absolute BYTES", required=True)
@common
@click.pass_obj
def set_vm_memory_high_watermark(options: Options, limit: tuple[str, ...]) -> None:
    """Set the limit of the memory alarm.

    FRACTION is a fraction of the available memory, 0 to 1. Units of BYTES are k, M, G (of 1024) and
    kB, MB, GB (of 1000). The limit holds until the next start.
    """
    if limit[0] == "absolute":
        amount = _only(limit[1:])
        options.announce(f"Setting memory threshold on {options.node} to {amount} bytes ...")
        options.ask("set_vm_memory_high_watermark", absolute=_byte_count(amount))
    else:
        fraction = _fraction(_only(limit))
        if not 0 <= fraction <= 1:
            raise Failure("Bad argument: The threshold should be a fraction between 0.0 and 1.0", EXIT_DATA)
        options.announce(f"Setting memory threshold on {options.node} to {limit[0]} ...")
        options.ask("set_vm_memory_high_watermark", fraction=fraction)


@click.command("set_disk_free_limit", cls=Command)
@click.argument("limit", nargs=-1, metavar="BYTES | mem_relative FRACTION", required=True)
@common
@click.pass_obj
def set_disk_free_limit(options: Options, limit: tuple[str, ...]) -> None:
    """Set the limit of the disk alarm.

    The alarm begins below so many free bytes, or below FRACTION times the available memory. Units of
    BYTES are k, M, G (of 1024) and kB, MB, GB (of 1000). The limit holds until the next start.
    """
    if limit[0] == "mem_relative":
        text = _only(limit[1:])
        fraction = _fraction(text)
        options.announce(f"Setting disk free limit on {options.node} to {text} times the total RAM ...")
        options.ask("set_disk_free_limit", mem_relative=fraction)
    else:
        limit_bytes = _byte_count(_only(limit))
        options.announce(f"Setting disk free limit on {options.node} to {limit[0]} bytes ...")
        options.ask("set_disk_free_limit", absolute=limit_bytes)


def _only(words: tuple[str, ...]) -> str:
    if len(words) != 1:
        raise Failure(f"{'too many' if words else 'not enough'} arguments.", EXIT_USAGE)
    return words[0]


def _byte_count(text: str) -> int:
    found = AMOUNT.fullmatch(text)
    if found is None or found[2] not in UNITS:
        raise Failure(f"Bad argument: '{text}' is not a number of bytes, such as 500000000 or 500MB", EXIT_DATA)
    return int(found[1]) * UNITS[found[2]]


def _fraction(text: str) -> float:
    try:
        fraction = float(text)
    except ValueError:
        raise Failure(f"Bad argument: '{text}' is not a number", EXIT_DATA) from None
    if fraction != fraction or fraction in (float("inf"), float("-inf")):
        raise Failure(f"Bad argument: '{text}' is not a number", EXIT_DATA)
    return fraction
