"""The program `amqpctl`, and the table of its commands, those of rabbitmqctl and rabbitmq-diagnostics 3.10.

The broker's process carries out the commands, and decides the exit codes of refusals.

Always true: a module of commands is imported when one of its commands, or the list of all, is asked for, since health
checks run every few seconds.

RabbitMQ docs/cli, docs/man/rabbitmqctl.8, docs/man/rabbitmq-diagnostics.8.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from amqpd import __version__
from amqpd.ctl.options import Group, common
from amqpd.program import run

# What is refused with a reason; the help does not show it.
REFUSED = (
    "join_cluster forget_cluster_node rename_cluster_node update_cluster_nodes change_cluster_node_type "
    "force_boot sync_queue cancel_sync_queue encode decode encrypt_conf_value drain revive eval eval_file "
    "exec remote_shell observer runtime_thread_stats maybe_stuck schema_info command_line_arguments "
    "erlang_cookie_hash erlang_cookie_sources resolver_info resolve_hostname list_network_interfaces "
    "list_node_auth_attempt_stats disable_auth_attempt_source_tracking log_tail log_tail_stream")
# The sections of the help; in each the modules, and the names of their commands.
SECTIONS = {
    "lists": {
        "lists":
            "list_queues list_exchanges list_bindings list_connections list_channels list_consumers list_users "
            "list_vhosts list_permissions list_topic_permissions list_policies list_operator_policies",
    },
    "queues and connections": {
        "queues":
            "purge_queue delete_queue close_connection close_all_connections close_all_user_connections",
        "queue_operations":
            "pause_queue pause resume_queue resume cancel_consumer set_consumer_prefetch list_unacked",
    },
    "messages": {
        "messages": "peek move retry delete_messages export_messages",
    },
    "explanations": {
        "explanations": "route why",
        "top": "top",
        "doctor": "doctor",
    },
    "what happens": {
        "observing": "events tail trace_on trace_off",
        "audit": "list_audit_log",
    },
    "users and permissions": {
        "users":
            "add_user delete_user change_password clear_password authenticate_user set_user_tags set_permissions "
            "clear_permissions list_user_permissions set_topic_permissions clear_topic_permissions "
            "list_user_topic_permissions",
    },
    "vhosts, limits, policies and parameters": {
        "vhosts":
            "add_vhost delete_vhost set_vhost_tags update_vhost_metadata enable_vhost_deletion_protection "
            "disable_vhost_deletion_protection",
        "quotas":
            "set_vhost_limits clear_vhost_limits list_vhost_limits set_user_limits clear_user_limits list_user_limits",
        "policies": "set_policy clear_policy set_operator_policy clear_operator_policy",
        "parameters":
            "set_parameter clear_parameter list_parameters set_global_parameter clear_global_parameter "
            "list_global_parameters",
        "definitions": "export_definitions import_definitions",
    },
    "the broker": {
        "node": "ping status server_version stop shutdown",
        "application": "stop_app start_app reset force_reset",
        "waiting": "await_startup wait await_online_nodes",
        "cluster":
            "cluster_status set_cluster_name environment report set_log_level node_health_check force_gc rotate_logs "
            "restart_vhost discover_peers",
        "limits": "set_vm_memory_high_watermark set_disk_free_limit",
        "certificates": "make_certificates",
    },
    "health checks": {
        "checks":
            "check_running is_running is_booting check_local_alarms check_alarms alarms check_port_listener "
            "check_port_connectivity check_protocol_listener listeners check_virtual_hosts "
            "check_certificate_expiration check_if_node_is_quorum_critical check_if_node_is_mirror_sync_critical",
    },
    "facts": {
        "facts":
            "list_feature_flags enable_feature_flag list_deprecated_features memory_breakdown os_env erlang_version "
            "version list_ciphers list_hashes cipher_suites tls_versions log_location certificates "
            "list_unresponsive_queues hash_password",
    },
    "help": {
        "helping": "help autocomplete completion install_aliases",
    },
    "": {
        "refused": REFUSED,
    },
}


@click.group(
    cls=Group, sections=SECTIONS, package="amqpd.ctl",
    context_settings={"help_option_names": ["-h", "-?", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="amqpctl", message="%(prog)s %(version)s")
@common
def amqpctl() -> None:
    """Inspect a running amqpd and change it.

    \b
    amqpctl list_queues name messages consumers
    amqpctl --data-dir /var/lib/amqpd status
    amqpctl -p shop purge_queue orders
    """


def all_commands() -> dict[str, click.Command]:
    """Return all commands by name."""
    assert isinstance(amqpctl, Group)
    return amqpctl.load_all()


def main(arguments: Sequence[str] | None = None, name: str = "amqpctl") -> int:
    """Run the program `amqpctl`, under this name, and return the exit code."""
    return run(amqpctl, arguments, name)
