"""Commands of rabbitmqctl and rabbitmq-diagnostics that amqpd refuses, each with one line that says why.

They exit with 69, so that a script stops where it relies on what is not there.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from amqpd.ctl.options import Command, Options, common
from amqpd.exit_codes import EXIT_UNAVAILABLE
from amqpd.program import Failure

_CLUSTER = "there is one node, and no cluster to change"
_ERLANG = "amqpd has no Erlang runtime"
_VALUES = "the configuration has no encrypted values: put a password into a file that only amqpd's user may read"
_MIRRORS = "there are no mirrored queues"
_DRAIN = "there is no other node to take over: 'amqpctl stop' closes all clients and stops the broker"
_ATTEMPTS = "attempts to log in are in the log, with address and user"
_LOG = "the log goes to stderr, and the service manager has it, for example 'journalctl -u amqpd'"
_SYSTEM = "ask the system, for example 'ip address' or 'getent hosts'"

REASONS = {
    "join_cluster": _CLUSTER, "forget_cluster_node": _CLUSTER, "rename_cluster_node": _CLUSTER,
    "update_cluster_nodes": _CLUSTER, "change_cluster_node_type": _CLUSTER, "force_boot": _CLUSTER,
    "sync_queue": _MIRRORS, "cancel_sync_queue": _MIRRORS,
    "encode": _VALUES, "decode": _VALUES, "encrypt_conf_value": _VALUES,
    "drain": _DRAIN, "revive": _DRAIN,
    "eval": _ERLANG, "eval_file": _ERLANG, "exec": _ERLANG, "remote_shell": _ERLANG, "observer": _ERLANG,
    "runtime_thread_stats": _ERLANG, "maybe_stuck": _ERLANG, "schema_info": _ERLANG,
    "command_line_arguments": _ERLANG, "erlang_cookie_hash": _ERLANG, "erlang_cookie_sources": _ERLANG,
    "resolver_info": _SYSTEM, "resolve_hostname": _SYSTEM, "list_network_interfaces": _SYSTEM,
    "list_node_auth_attempt_stats": _ATTEMPTS, "disable_auth_attempt_source_tracking": _ATTEMPTS,
    "log_tail": _LOG, "log_tail_stream": _LOG,
}


def commands() -> Iterator[click.Command]:
    """Yield the commands that are refused."""
    for name, reason in REASONS.items():
        yield _refused(name, reason)


def _refused(name: str, reason: str) -> click.Command:
    @click.command(name, cls=Command, hidden=True, context_settings={"ignore_unknown_options": True},
                   help=f"Refused: {reason}.")
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    @common
    @click.pass_obj
    def refuse(options: Options, arguments: tuple[str, ...]) -> None:
        raise Failure(f"{name}: {reason}", EXIT_UNAVAILABLE)

    return refuse
