"""The commands of amqpctl that list something: their columns and headings, those of rabbitmqctl 3.10.

All of rabbitmqctl's columns are there; columns without a meaning in amqpd, such as `slave_pids`, are empty. From
later versions there are `protected_from_deletion`, `operator_policy`, `effective_policy_definition`,
`single_active_consumer_tag`, `…_paged_out`, and for connections `user_provided_name`. Columns are separated by spaces
or commas. A vhost that does not exist is an error; rabbitmqctl shows an empty list in most commands.

RabbitMQ docs/man/rabbitmqctl.8.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import click

from amqpd.ctl.options import Command, Completion, Options, columns_of, common
from amqpd.exit_codes import EXIT_USAGE
from amqpd.program import Failure


class Listing(NamedTuple):
    """A list command: its heading, the default columns, and the other columns."""

    heading: str
    default: str
    others: str = ""

    @property
    def columns(self) -> list[str]:
        """All columns."""
        return [*self.default.split(), *self.others.split()]


POLICY_COLUMNS = "vhost name pattern apply-to definition priority"

LISTINGS = {
    "list_queues": Listing(
        "Listing queues for vhost {vhost} ...", "name messages",
        "type state durable auto_delete exclusive arguments policy operator_policy effective_policy_definition pid "
        "owner_pid exclusive_consumer_pid exclusive_consumer_tag single_active_consumer_tag consumers "
        "consumer_capacity consumer_utilisation messages_ready messages_unacknowledged messages_ram "
        "messages_ready_ram messages_unacknowledged_ram messages_persistent messages_paged_out message_bytes "
        "message_bytes_ready message_bytes_unacknowledged message_bytes_ram message_bytes_persistent "
        "message_bytes_paged_out messages_set_aside published delivered got redelivered settled acked purged expired "
        "rejected over_length over_delivery_limit dead_lettered head_message_timestamp disk_reads disk_writes memory "
        "leader members online slave_pids synchronised_slave_pids"),
    "list_exchanges": Listing(
        "Listing exchanges for vhost {vhost} ...", "name type", "durable auto_delete internal arguments policy"),
    "list_bindings": Listing(
        "Listing bindings for vhost {vhost}...",
        "source_name source_kind destination_name destination_kind routing_key arguments"),
    "list_connections": Listing(
        "Listing connections ...", "user peer_host peer_port state",
        "pid name host port vhost protocol auth_mechanism ssl channels channel_max frame_max timeout connected_at "
        "client_properties user_provided_name recv_oct recv_cnt send_oct send_cnt send_pend ssl_protocol "
        "ssl_key_exchange ssl_cipher ssl_hash peer_cert_issuer peer_cert_subject peer_cert_validity"),
    "list_channels": Listing(
        "Listing channels ...", "pid user consumer_count messages_unacknowledged",
        "name number connection vhost confirm transactional prefetch_count global_prefetch_count "
        "messages_unconfirmed messages_uncommitted acks_uncommitted"),
    "list_consumers": Listing(
        "Listing consumers in vhost {vhost} ...",
        "queue_name channel_pid consumer_tag ack_required prefetch_count active arguments",
        "activity_status messages_unacknowledged unacked_limit_reached"),
    "list_users": Listing("Listing users ...", "user tags"),
    "list_vhosts": Listing(
        "Listing vhosts ...", "name",
        "description tags default_queue_type protected_from_deletion tracing cluster_state"),
    "list_permissions": Listing('Listing permissions for vhost "{vhost}" ...', "user configure write read"),
    "list_topic_permissions": Listing(
        'Listing topic permissions for vhost "{vhost}" ...', "user exchange write read"),
    "list_policies": Listing('Listing policies for vhost "{vhost}" ...', POLICY_COLUMNS),
    "list_operator_policies": Listing(
        'Listing operator policy overrides for vhost "{vhost}" ...', POLICY_COLUMNS),
}


def commands() -> Iterator[click.Command]:
    """Yield the list commands."""
    for name, listing in LISTINGS.items():
        yield _list_command(name, listing)


def _list_command(name: str, listing: Listing) -> click.Command:
    more = f" More columns: {', '.join(listing.others.split())}." if listing.others else ""

    @click.command(name, cls=Command, help=f"""List {name.removeprefix('list_').replace('_', ' ')}.

    Default columns: {', '.join(listing.default.split())}.{more}""")
    @click.argument("columns", metavar="[COLUMN]...", nargs=-1, shell_complete=of_columns(listing))
    @common
    @click.pass_obj
    def show(
        options: Options, columns: tuple[str, ...], *, is_local: bool = False, is_online: bool = False,
        is_offline: bool = False
    ) -> None:
        wanted = columns_of(columns) or listing.default.split()
        unknown = [column for column in wanted if column not in listing.columns]
        if unknown:
            raise Failure(
                f"Info key(s) {','.join(unknown)} are not supported, only {', '.join(listing.columns)}", EXIT_USAGE)
        if name == "list_queues":
            options.announce(f"Timeout: {float(options.timeout)} seconds ...")
        options.announce(listing.heading.format(vhost=options.vhost))
        result = options.ask(name, vhost=options.vhost, columns=wanted)
        options.show(result["columns"], result["rows"] if is_local or is_online or not is_offline else [])

    return of_nodes(show) if name == "list_queues" else show


def of_columns(listing: Listing) -> Completion:
    """Return the function that completes a column in a shell."""
    return lambda ctx, parameter, incomplete: [
        column for column in listing.columns if column.startswith(incomplete)]


def of_nodes(command: click.Command) -> click.Command:
    """Add the options that choose queues by their node, of which there is one, and it is online."""
    command.params[:0] = [
        click.Option(["--online", "is_online"], is_flag=True, help="Only queues of running nodes: all."),
        click.Option(["--offline", "is_offline"], is_flag=True, help="Only queues of stopped nodes: none."),
        click.Option(["--local", "is_local"], is_flag=True, help="Only queues of this node: all."),
    ]
    return command
