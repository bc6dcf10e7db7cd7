"""The commands of amqpctl by name, and the methods that carry them out on the broker.

The groups of commands own the meaning of each command, and the texts and exit codes of refusals. These are the texts of
rabbitmqctl 3.10, unchanged, since programs compare them. `control` receives requests and sends the answers.

Always true: an operator may do everything, also with exclusive queues of any connection.

RabbitMQ docs/cli, docs/man/rabbitmqctl.8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amqpd.broker.broker import Broker
from amqpd.management.access_commands import AccessCommands
from amqpd.management.definitions_commands import DefinitionsCommands
from amqpd.management.list_commands import ListCommands
from amqpd.management.node_commands import Node, NodeCommands
from amqpd.management.parameter_commands import ParameterCommands
from amqpd.management.policy_commands import PolicyCommands
from amqpd.management.queue_commands import QueueCommands
from amqpd.management.quota_commands import QuotaCommands
from amqpd.management.vhost_commands import VhostCommands


class Commands:
    """The commands on one broker, by name: `lookups`, `changes` and `acts`.

    `changes` modify stored state and are on disk before they are answered. `lookups` do not modify stored state. `acts`
    names the lookups that change something until the next start, write a file, or tell secrets: they are logged as
    changes are. `with_body` names the commands whose argument `body` follows the request.
    """

    with_body = frozenset({"import_definitions"})
    acts = frozenset({"backup_store", "export_definitions", "set_vm_memory_high_watermark", "set_disk_free_limit"})

    def __init__(self, broker: Broker, node: Node) -> None:
        of_node, lists = NodeCommands(broker, node), ListCommands(broker, node.most_counted)
        queues, policies = QueueCommands(broker), PolicyCommands(broker)
        access, vhosts = AccessCommands(broker, node.password_form), VhostCommands(broker)
        quotas, parameters = QuotaCommands(broker), ParameterCommands(broker)
        definitions = DefinitionsCommands(broker, node.password_form, node.begin)
        self.lookups: dict[str, Callable[..., Any]] = _by_name(
            of_node.ping, of_node.status, of_node.stop, of_node.store_info, of_node.backup_store,
            of_node.set_vm_memory_high_watermark, of_node.set_disk_free_limit,
            lists.list_queues, lists.list_exchanges, lists.list_bindings, lists.list_connections, lists.list_channels,
            lists.list_consumers, lists.list_users, lists.list_vhosts, lists.list_permissions,
            lists.list_user_permissions, lists.list_topic_permissions, lists.list_user_topic_permissions,
            lists.list_policies, lists.list_operator_policies, access.authenticate_user,
            quotas.list_vhost_limits, quotas.list_user_limits, parameters.list_parameters,
            parameters.list_global_parameters, definitions.export_definitions)
        self.changes: dict[str, Callable[..., Any]] = _by_name(
            queues.purge_queue, queues.delete_queue, queues.close_connection,
            access.add_user, access.delete_user, access.change_password, access.set_user_tags, access.set_permissions,
            access.clear_permissions, access.set_topic_permissions, access.clear_topic_permissions,
            vhosts.add_vhost, vhosts.delete_vhost, vhosts.set_vhost_tags, vhosts.update_vhost_metadata,
            vhosts.enable_vhost_deletion_protection, vhosts.disable_vhost_deletion_protection,
            quotas.set_vhost_limits, quotas.clear_vhost_limits, quotas.set_user_limits, quotas.clear_user_limits,
            parameters.set_parameter, parameters.clear_parameter, parameters.set_global_parameter,
            parameters.clear_global_parameter,
            policies.set_policy, policies.clear_policy, policies.set_operator_policy, policies.clear_operator_policy,
            definitions.import_definitions)


def _by_name(*methods: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    return {method.__name__: method for method in methods}
