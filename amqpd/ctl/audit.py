"""The command of amqpctl that lists the audit log."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from amqpd.ctl.options import Command, Options, common

COLUMNS = ("time", "user", "address", "door", "action", "detail")


def commands() -> list[click.Command]:
    """Return this command."""
    return [list_audit_log]


@click.command("list_audit_log", cls=Command)
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, metavar="N",
              help="List only the newest N acts.  [default: 100]")
@click.option("--user", default="", metavar="USER", help="Only acts of this user.")
@click.option("--door", type=click.Choice(["control", "http", "config"]),
              help="Only acts by amqpctl (control), the management API (http) or the configuration (config).")
@click.option("--action", default="", metavar="PATTERN", help="Only acts whose name matches, such as 'set_*'.")
@click.option("--since", type=click.FloatRange(min=0), default=None, metavar="HOURS",
              help="Only acts of the last so many hours.")
@common
@click.pass_obj
def list_audit_log(
    options: Options, *, limit: int, user: str, door: str | None, action: str, since: float | None
) -> None:
    """List who did what: administrative acts.

    The newest is last. The log has acts by amqpctl, by the management API and by the configuration, not what clients
    declare. It has the newest 10,000 acts, or 1,000 in a broker without a store. Passwords and other secrets are
    shown as ***.

    \b
    amqpctl list_audit_log
    amqpctl list_audit_log --limit 20 --user till --action 'set_*'
    amqpctl --formatter json list_audit_log --since 24
    """
    options.announce("Listing the audit log ...")
    since_ms = 0 if since is None else int((time.time() - since * 3600) * 1000)
    entries = options.ask(
        "list_audit_log", limit=limit, user=user, door=door or "", action=action, since_ms=since_ms)
    is_json = options.formatter == "json"
    options.show(COLUMNS, [
        [_when(entry["at_ms"]), *[entry[name] for name in COLUMNS[1:5]],
         entry["detail"] if is_json else _described(entry["detail"])] for entry in entries])


def _when(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms // 1000))


def _described(detail: dict[str, Any]) -> str:
    return " ".join([
        f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in detail.items()])
