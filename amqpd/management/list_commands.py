"""The list commands: each selects the records and the columns. The columns are in `listings.py`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from amqpd.broker.access import RIGHTS
from amqpd.broker.broker import Broker
from amqpd.exit_codes import EXIT_USAGE
from amqpd.management import listings
from amqpd.management.refusal import Refusal, user_of, vhost_of

Table = dict[str, Any]


class ListCommands:
    """The list commands on one broker. A column that does not exist is a Refusal. `most_counted`: see `Node`."""

    def __init__(self, broker: Broker, most_counted: int) -> None:
        self._broker = broker
        self._most_counted = most_counted

    def list_queues(self, vhost: str, columns: list[str]) -> Table:
        """List the queues of a vhost."""
        return table(listings.queues(
            self._broker, vhost_of(self._broker, vhost), columns, self._most_counted), columns)

    def list_exchanges(self, vhost: str, columns: list[str]) -> Table:
        """List the exchanges of a vhost."""
        return table(listings.exchanges(vhost_of(self._broker, vhost)), columns)

    def list_bindings(self, vhost: str, columns: list[str]) -> Table:
        """List the bindings of a vhost."""
        return table(listings.bindings(vhost_of(self._broker, vhost)), columns)

    def list_consumers(self, vhost: str, columns: list[str]) -> Table:
        """List the consumers of a vhost."""
        return table(listings.consumers(vhost_of(self._broker, vhost)), columns)

    def list_permissions(self, vhost: str, columns: list[str]) -> Table:
        """List the permissions in a vhost."""
        return table(listings.permissions(self._broker, vhost_of(self._broker, vhost)), columns)

    def list_user_permissions(self, user: str) -> Table:
        """List the permissions of a user in every vhost."""
        return table(listings.user_permissions(user_of(self._broker, user)), ["vhost", *RIGHTS])

    def list_topic_permissions(self, vhost: str, columns: list[str]) -> Table:
        """List the topic permissions in a vhost."""
        return table(listings.topic_permissions(self._broker, vhost_of(self._broker, vhost)), columns)

    def list_user_topic_permissions(self, user: str) -> Table:
        """List the topic permissions of a user in every vhost."""
        return table(
            listings.user_topic_permissions(user_of(self._broker, user)), ["vhost", "exchange", "write", "read"])

    def list_policies(self, vhost: str, columns: list[str]) -> Table:
        """List the policies of a vhost."""
        return table(listings.policies(vhost_of(self._broker, vhost), is_operator=False), columns)

    def list_operator_policies(self, vhost: str, columns: list[str]) -> Table:
        """List the operator policies of a vhost."""
        return table(listings.policies(vhost_of(self._broker, vhost), is_operator=True), columns)

    def list_connections(self, vhost: str, columns: list[str]) -> Table:
        """List the connections to all vhosts."""
        return table(listings.connections(self._broker), columns)

    def list_channels(self, vhost: str, columns: list[str]) -> Table:
        """List the channels of all vhosts."""
        return table(listings.channels(self._broker), columns)

    def list_users(self, vhost: str, columns: list[str]) -> Table:
        """List all users."""
        return table(listings.users(self._broker), columns)

    def list_vhosts(self, vhost: str, columns: list[str]) -> Table:
        """List all vhosts."""
        return table(listings.vhosts(self._broker), columns)


def table(records: Iterable[listings.Record], columns: list[str]) -> Table:
    """Return these columns of the records. Raises Refusal for one that does not exist."""
    try:
        return {"columns": columns, "rows": [[record[column] for column in columns] for record in records]}
    except KeyError as error:
        raise Refusal(f"Info key(s) {error.args[0]} are not supported", EXIT_USAGE) from None
