"""Commands that tell of the node as rabbitmqctl and rabbitmq-diagnostics do, and that set its log level and name.

There is one node, which is a cluster of its own. RabbitMQ docs/man/rabbitmqctl.8, docs/man/rabbitmq-diagnostics.8.
"""

from __future__ import annotations

import logging
import os
import platform
import re
from typing import Any

from amqpd import __version__
from amqpd.broker.broker import Broker
from amqpd.broker.definitions import GlobalParameterDefinition
from amqpd.exit_codes import EXIT_UNAVAILABLE, EXIT_USAGE
from amqpd.identity import NODE_NAME
from amqpd.management.feature_flags import FEATURE_FLAGS
from amqpd.management.list_commands import Table, table
from amqpd.management.node_commands import Node, NodeCommands
from amqpd.management.refusal import Refusal, check_name

CLUSTER_NAME = "cluster_name"
LEVELS = {
    "debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR,
    "critical": logging.CRITICAL, "none": logging.CRITICAL + 1}
VARIABLE = re.compile(r"(RABBITMQ|AMQPD)_")
SECRET_VARIABLE = re.compile(r"PASS|SECRET|COOKIE|KEY|TOKEN|URL|URI")


class RuntimeCommands:
    """The commands on the node of one broker."""

    def __init__(self, broker: Broker, node: Node, of_node: NodeCommands) -> None:
        self._broker = broker
        self._node = node
        self._of_node = of_node

    def cluster_status(self) -> dict[str, Any]:
        """Return the nodes that share the store, under the names of `rabbitmqctl cluster_status --formatter json`."""
        status = self._of_node.status()
        members = status["members"]
        return {
            "cluster_name": self._broker.parameters.global_value(CLUSTER_NAME) or NODE_NAME,
            "disk_nodes": [one["name"] for one in members] or [NODE_NAME],
            "ram_nodes": [],
            "running_nodes": [one["name"] for one in members if one["running"]] or [NODE_NAME],
            "members": members,
            "versions": {NODE_NAME: {
                "rabbitmq_name": "RabbitMQ",
                "rabbitmq_version": status["rabbitmq_version"],
                "erlang_version": "",
                "amqpd_version": __version__,
                "python_version": platform.python_version(),
            }},
            "maintenance_status": {NODE_NAME: "not under maintenance"},
            "alarms": status["alarms"],
            "partitions": {},
            "listeners": {NODE_NAME: status["listeners"]},
            "feature_flags": [flag.record() for flag in FEATURE_FLAGS],
        }

    def set_cluster_name(self, name: str) -> None:
        """Set the name of the cluster, a global parameter."""
        check_name("cluster name", name)
        self._broker.parameters.set_global(GlobalParameterDefinition(CLUSTER_NAME, name))

    def environment(self) -> dict[str, Any]:
        """Return the settings in effect, without secrets."""
        return {"amqpd": self._node.environment()}

    def os_env(self) -> Table:
        """Return the variables of the broker's environment that configure it, without secrets."""
        rows = [[name, "***" if SECRET_VARIABLE.search(name) else value]
                for name, value in sorted(os.environ.items()) if VARIABLE.match(name)]
        return {"columns": ["name", "value"], "rows": rows}

    def set_log_level(self, level: str) -> None:
        """Set the lowest level that is logged, until the next start."""
        if level not in LEVELS:
            raise Refusal(f"level {level} is not supported. Try one of {', '.join(LEVELS)}", EXIT_UNAVAILABLE)
        logging.getLogger().setLevel(LEVELS[level])

    def list_feature_flags(self, columns: list[str]) -> Table:
        """List RabbitMQ's feature flags: those whose behaviour amqpd has are enabled."""
        return table((flag.record() for flag in FEATURE_FLAGS), columns)

    def enable_feature_flag(self, name: str) -> None:
        """Check that a feature flag is enabled; "all" is every flag that amqpd can enable, and these always are."""
        if name == "all":
            return
        for flag in FEATURE_FLAGS:
            if flag.name == name:
                if not flag.is_enabled:
                    raise Refusal(f"amqpd does not have what the feature flag {name} is about", EXIT_UNAVAILABLE)
                return
        raise Refusal(f"This feature flag is not supported by node {NODE_NAME}", EXIT_USAGE)
