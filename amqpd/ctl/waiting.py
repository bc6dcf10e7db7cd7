"""The commands of amqpctl that wait for a broker: what set-up scripts and containers begin with.

RabbitMQ docs/man/rabbitmqctl.8 (wait, await_startup, await_online_nodes).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import click

from amqpd.ctl.options import Command, Options, common
from amqpd.exit_codes import EXIT_BUG, EXIT_DATA, EXIT_TEMPORARY, EXIT_UNAVAILABLE
from amqpd.program import Failure

LOOK_S = 0.1
STARTUP_S = 300.0       # rabbitmqctl's limit, unless --timeout says otherwise


def commands() -> list[click.Command]:
    """Return the commands that wait."""
    return [await_startup, wait, await_online_nodes]


@click.command("await_startup", cls=Command)
@common
@click.pass_obj
def await_startup(options: Options) -> None:
    """Wait until amqpd serves clients.

    It waits for 300 seconds, or what -t says. It also waits for a broker that has not begun to start, where
    rabbitmqctl fails at once.
    """
    _wait_for_broker(options, _deadline(options, STARTUP_S))


@click.command("wait", cls=Command)
@click.argument("pidfile", required=False)
@click.option("-P", "--pid", type=int, metavar="PID", help="The broker's process; if it ends, so does the wait.")
@common
@click.pass_obj
def wait(options: Options, pidfile: str | None, pid: int | None) -> None:
    """Wait until amqpd serves clients.

    With PIDFILE, first wait for this file, which has the process id of the broker. If that process ends, the wait is
    over.
    """
    until = _deadline(options, options.timeout)
    if pidfile is not None:
        options.announce(f"Waiting for pid file '{pidfile}' to appear")
        pid = _read_pid(Path(pidfile), until)
        options.announce(f"pid is {pid}")
    process = "" if pid is None else f" while OS process '{pid}' is running"
    options.announce(f"Waiting for node '{options.node}'{process}")
    _wait_for_broker(options, until, pid)
    options.announce(f"Node '{options.node}' is running")


@click.command("await_online_nodes", cls=Command)
@click.argument("count", type=int)
@common
@click.pass_obj
def await_online_nodes(options: Options, count: int) -> None:
    """Wait until COUNT nodes run.

    There is never more than one.
    """
    limit_s = options.timeout if "timeout" in options.given else STARTUP_S
    options.announce(
        f"Will wait for at least {count} nodes to join the cluster of {options.node}. Timeout: {limit_s:g} seconds.")
    if count > 1:
        raise Failure("Error: there is only one node: a cluster of several is not possible", EXIT_BUG)
    _wait_for_broker(options, _deadline(options, STARTUP_S))


def _deadline(options: Options, default_s: float) -> float:
    return time.monotonic() + (options.timeout if "timeout" in options.given else default_s)


def _until(look: Callable[[], bool], deadline: float, missing: str) -> None:
    """Look again and again until there is what is waited for. Raises Failure on a timeout."""
    while not look():
        if time.monotonic() > deadline:
            raise Failure(f"timed out: {missing}", EXIT_TEMPORARY)
        time.sleep(LOOK_S)


def _wait_for_broker(options: Options, deadline: float, pid: int | None = None) -> None:
    def answers() -> bool:
        if pid is not None and not _is_running(pid):
            raise Failure("Error: process_not_running", EXIT_UNAVAILABLE)
        try:
            return bool(options.ask("is_running"))
        except Failure as failure:
            if failure.exit_code not in (EXIT_UNAVAILABLE, EXIT_TEMPORARY):
                raise
            return False

    _until(answers, deadline, f"no amqpd answers at {options.place}")


def _read_pid(path: Path, deadline: float) -> int:
    found: list[str] = []

    def reads() -> bool:
        try:
            found[:] = path.read_text().split()
        except FileNotFoundError:
            return False
        except (OSError, UnicodeDecodeError) as error:
            raise Failure(f"{path}: cannot be read: {error}", EXIT_DATA) from None
        return bool(found)          # an empty file is not written yet

    _until(reads, deadline, f"there is no pid file {path}")
    try:
        return int(found[0])
    except ValueError:
        raise Failure(f'Error: {{:garbage_in_pid_file, "{path}"}}', EXIT_UNAVAILABLE) from None


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:             # another user's
        return True
    return True
