"""Commands on vhosts: their metadata, their protection from deletion, and their end."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from amqpd.broker.arguments import CLASSIC, QUORUM
from amqpd.broker.broker import Broker
from amqpd.broker.definitions import VhostDefinition
from amqpd.errors import ProtectedVhost
from amqpd.exit_codes import EXIT_DATA, EXIT_UNAVAILABLE
from amqpd.management.refusal import Refusal, check_name, vhost_of

QUEUE_TYPES = (CLASSIC, QUORUM)
# Of rabbitmqctl 4; the management API has another text.
PROTECTED = ("Cannot delete this virtual host: it is protected from deletion. To lift the protection, inspect and "
             "update its metadata")


class VhostCommands:
    """The commands on the vhosts of one broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def add_vhost(
        self, vhost: str, description: str = "", tags: list[str] | None = None, default_queue_type: str = ""
    ) -> None:
        """Add a vhost; a vhost that exists already is not an error, and stays as it is."""
        check_name("vhost", vhost)
        _check_queue_type(default_queue_type)
        if vhost not in self._broker.vhosts:
            self._broker.add_vhost(VhostDefinition(vhost, description, tuple(tags or ()), default_queue_type))

    def delete_vhost(self, vhost: str) -> None:
        """Delete a vhost with everything in it, and close its connections."""
        vhost_of(self._broker, vhost)
        try:
            self._broker.delete_vhost(vhost)
        except ProtectedVhost:
            raise Refusal(PROTECTED, EXIT_UNAVAILABLE) from None

    def set_vhost_tags(self, vhost: str, tags: list[str]) -> None:
        """Replace the tags of a vhost."""
        self._update(vhost, tags=tuple(tags))

    def update_vhost_metadata(
        self, vhost: str, description: str | None = None, tags: list[str] | None = None,
        default_queue_type: str | None = None,
    ) -> None:
        """Replace some of what is said of a vhost; the rest stays. An empty type is no default."""
        changes: dict[str, Any] = {"description": description, "default_queue_type": default_queue_type}
        if default_queue_type:
            _check_queue_type(default_queue_type)
        if tags is not None:
            changes["tags"] = tuple(tags)
        self._update(vhost, **{key: value for key, value in changes.items() if value is not None})

    def enable_vhost_deletion_protection(self, vhost: str) -> None:
        """Let the vhost not be deleted until this protection is removed."""
        self._update(vhost, protected_from_deletion=True)

    def disable_vhost_deletion_protection(self, vhost: str) -> None:
        """Let the vhost be deleted again."""
        self._update(vhost, protected_from_deletion=False)

    def _update(self, vhost: str, **changes: Any) -> None:
        vhost_of(self._broker, vhost)
        self._broker.replace_vhost(replace(self._broker.vhost_definitions[vhost], **changes))


def _check_queue_type(kind: str) -> None:
    if kind and kind not in QUEUE_TYPES:
        raise Refusal(
            f"Default queue type must be one of: {', '.join(QUEUE_TYPES)}. Provided: {kind}", EXIT_DATA)
