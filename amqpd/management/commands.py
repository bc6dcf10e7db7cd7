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
from amqpd.management.application_commands import ApplicationCommands
from amqpd.management.audit_commands import AuditCommands
from amqpd.management.count_commands import CountCommands
from amqpd.management.definitions_commands import DefinitionsCommands
from amqpd.management.explain_commands import ExplainCommands
from amqpd.management.list_commands import ListCommands
from amqpd.management.message_commands import MessageCommands
from amqpd.management.node_commands import Node, NodeCommands
from amqpd.management.observing_commands import ObservingCommands
from amqpd.management.parameter_commands import ParameterCommands
from amqpd.management.policy_commands import PolicyCommands
from amqpd.management.queue_commands import QueueCommands
from amqpd.management.quota_commands import QuotaCommands
from amqpd.management.runtime_commands import RuntimeCommands
from amqpd.management.streams import Stream
from amqpd.management.unacked_commands import UnackedCommands
from amqpd.management.vhost_commands import VhostCommands


class Commands:
    """The commands on one broker, by name: `lookups`, `changes` and `acts`.

    `changes` modify stored state and are on disk before they are answered. `lookups` do not modify stored state. `acts`
    names the lookups that change something until the next start, write a file, or tell secrets: they are logged as
    changes are. `with_body` names the commands whose argument `body` follows the request. `streams` are the lookups
    that return a stream (`management/streams.py`): whoever asked closes it.
    """

    with_body = frozenset({"import_definitions"})
    acts = frozenset({
        "backup_store", "export_definitions", "set_vm_memory_high_watermark", "set_disk_free_limit", "trace_on",
        "trace_off", "tail", "set_log_level",
        "stop_app", "start_app"})

    def __init__(self, broker: Broker, node: Node) -> None:
        self.audit = broker.audit
        of_node, lists = NodeCommands(broker, node), ListCommands(broker, node.most_counted)
        queues, policies = QueueCommands(broker), PolicyCommands(broker)
        access, vhosts = AccessCommands(broker, node.password_form), VhostCommands(broker)
        quotas, parameters = QuotaCommands(broker), ParameterCommands(broker, policies)
        unacked, messages = UnackedCommands(broker, node.begin), MessageCommands(broker, node)
        runtime, application = RuntimeCommands(broker, node, of_node), ApplicationCommands(broker, node)
        definitions = DefinitionsCommands(broker, node.password_form, node.begin)
        observing = ObservingCommands(broker)
        audit = AuditCommands(broker, lambda: node.read_audit_log)
        self.streams: dict[str, Callable[..., Stream[Any]]] = _by_name(observing.events, observing.tail)
        explanations, counts = ExplainCommands(broker, node.alarms), CountCommands(broker)
        self.lookups: dict[str, Callable[..., Any]] = _by_name(
            of_node.ping, of_node.status, of_node.doctor, of_node.stop, of_node.store_info, of_node.backup_store,
            of_node.set_vm_memory_high_watermark, of_node.set_disk_free_limit,
            runtime.cluster_status, runtime.environment, runtime.os_env, runtime.set_log_level,
            runtime.list_feature_flags, runtime.enable_feature_flag,
            application.is_running, application.stop_app, application.start_app,
            lists.list_queues, lists.list_exchanges, lists.list_bindings, lists.list_connections, lists.list_channels,
            lists.list_consumers, unacked.list_unacked, messages.peek,
            messages.export_messages, lists.list_users, lists.list_vhosts, lists.list_permissions,
            lists.list_user_permissions, lists.list_topic_permissions, lists.list_user_topic_permissions,
            lists.list_policies, lists.list_operator_policies, access.authenticate_user,
            quotas.list_vhost_limits, quotas.list_user_limits, parameters.list_parameters,
            parameters.list_global_parameters, definitions.export_definitions,
            explanations.explain_route, explanations.explain_queues, counts.count_queues, counts.count_connections,
            observing.trace_on, observing.trace_off,
            audit.list_audit_log)
        self.changes: dict[str, Callable[..., Any]] = _by_name(
            queues.purge_queue, queues.delete_queue, queues.close_connection, queues.pause_queue,
            queues.resume_queue, queues.cancel_consumer, queues.set_consumer_prefetch, messages.move, messages.retry,
            messages.delete_messages,
            queues.close_all_connections, queues.close_all_user_connections, runtime.set_cluster_name,
            application.reset,
            access.add_user, access.delete_user, access.change_password, access.clear_password,
            access.set_user_tags, access.set_permissions,
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
