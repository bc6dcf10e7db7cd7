"""What an operator can have done by name: the commands of amqpctl, carried out on the broker.

The groups own the commands' meaning, and the texts and exit codes of their refusals: those of rabbitmqctl 3.10, its odd
ones too, since programs know them. Where a request comes from and how it is answered is `control`'s matter.

Always true: whoever asks may do everything, exclusive queues of others included.

RabbitMQ docs/cli, docs/man/rabbitmqctl.8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amqpd.broker.broker import Broker
from amqpd.management.access_commands import AccessCommands
from amqpd.management.list_commands import ListCommands
from amqpd.management.node_commands import Node, NodeCommands
from amqpd.management.policy_commands import PolicyCommands
from amqpd.management.queue_commands import QueueCommands


class Commands:
    """The commands on one broker. `lookups` change nothing that is kept; `changes` are to be on disk once answered.

    `acts` are the lookups that change something until the next start, or make a file: they are logged as changes are.
    """

    acts = frozenset({"backup_store", "set_vm_memory_high_watermark", "set_disk_free_limit"})

    def __init__(self, broker: Broker, node: Node) -> None:
        of_node, lists = NodeCommands(broker, node), ListCommands(broker)
        queues, access, policies = QueueCommands(broker), AccessCommands(broker), PolicyCommands(broker)
        self.lookups: dict[str, Callable[..., Any]] = _by_name(
            of_node.ping, of_node.status, of_node.stop, of_node.store_info, of_node.backup_store,
            of_node.set_vm_memory_high_watermark, of_node.set_disk_free_limit,
            lists.list_queues, lists.list_exchanges, lists.list_bindings, lists.list_connections, lists.list_channels,
            lists.list_consumers, lists.list_users, lists.list_vhosts, lists.list_permissions,
            lists.list_user_permissions, lists.list_policies, lists.list_operator_policies, access.authenticate_user)
        self.changes: dict[str, Callable[..., Any]] = _by_name(
            queues.purge_queue, queues.delete_queue, queues.close_connection,
            access.add_user, access.delete_user, access.change_password, access.set_user_tags, access.set_permissions,
            access.clear_permissions, access.add_vhost, access.delete_vhost,
            policies.set_policy, policies.clear_policy, policies.set_operator_policy, policies.clear_operator_policy)


def _by_name(*methods: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    return {method.__name__: method for method in methods}
