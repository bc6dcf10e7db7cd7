"""The feature flags of RabbitMQ 3.10. Those whose behaviour amqpd has are enabled, and cannot be disabled."""

from __future__ import annotations

from typing import Any

import msgspec


class FeatureFlag(msgspec.Struct, frozen=True):
    """One feature flag."""

    name: str
    description: str
    is_enabled: bool = True
    doc_url: str = ""

    def record(self) -> dict[str, Any]:
        """Return the flag under RabbitMQ's names."""
        return {
            "name": self.name,
            "state": "enabled" if self.is_enabled else "unavailable",
            "stability": "stable",
            "provided_by": "rabbit",
            "desc": self.description,
            "doc_url": self.doc_url,
        }


FEATURE_FLAGS = (
    FeatureFlag("classic_mirrored_queue_version", "Support setting version for classic mirrored queues"),
    FeatureFlag("implicit_default_bindings",
                "Default bindings are now implicit, instead of being stored in the database"),
    FeatureFlag("maintenance_mode_status", "Maintenance mode status"),
    FeatureFlag("quorum_queue", "Support queues of type `quorum`", True,
                "https://www.rabbitmq.com/quorum-queues.html"),
    FeatureFlag("stream_queue", "Support queues of type `stream`", False, "https://www.rabbitmq.com/stream.html"),
    FeatureFlag("user_limits", "Configure connection and channel limits for a user"),
    FeatureFlag("virtual_host_metadata", "Virtual host metadata (description, tags, etc)"),
)
