"""Commands on the limits of vhosts and users. RabbitMQ docs/vhosts, docs/user-limits."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from amqpd.broker.broker import Broker
from amqpd.broker.definitions import ParameterDefinition
from amqpd.broker.limits import LIMITS_OF_USERS, LIMITS_OF_VHOSTS, limit_faults
from amqpd.broker.parameters import LIMITS, VHOST_LIMITS
from amqpd.errors import NoSuchThing
from amqpd.exit_codes import EXIT_DATA, EXIT_UNAVAILABLE
from amqpd.management.json_values import parsed, shown
from amqpd.management.refusal import Refusal, user_of, vhost_of

Table = dict[str, Any]
ALL = "all"


class QuotaCommands:
    """The commands on the limits of one broker's vhosts and users."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    # Of vhosts

    def set_vhost_limits(self, vhost: str, definition: str) -> None:
        """Replace the limits of a vhost; `definition` is JSON. What is there already stays."""
        limits = checked_vhost_limits(parsed(definition))
        vhost_of(self._broker, vhost)
        self._broker.parameters.set(ParameterDefinition(vhost, VHOST_LIMITS, LIMITS, limits))

    def clear_vhost_limits(self, vhost: str) -> None:
        """Remove the limits of a vhost."""
        try:
            self._broker.parameters.clear(vhost, VHOST_LIMITS, LIMITS)
        except NoSuchThing:
            raise Refusal("Parameter does not exist", EXIT_UNAVAILABLE) from None

    def list_vhost_limits(self, vhost: str | None = None) -> Table:
        """List the limits of a vhost, or of every vhost that has some."""
        if vhost is not None:
            vhost_of(self._broker, vhost)
        names = [*self._broker.vhosts] if vhost is None else [vhost]
        values = [(name, self._broker.parameters.value(name, VHOST_LIMITS, LIMITS)) for name in names]
        return _table("vhost", [[name, shown(value)] for name, value in values if value is not None])

    # Of users

    def set_user_limits(self, user: str, definition: str) -> None:
        """Set limits of a user; `definition` is JSON, and limits that it does not name stay."""
        limits = _checked(parsed(definition), LIMITS_OF_USERS, "user-limits", "")
        found = user_of(self._broker, user)
        self._broker.users.set_limits(user, {**found.definition.limits, **limits})

    def clear_user_limits(self, user: str, limit: str) -> None:
        """Remove one limit of a user, or "all"."""
        found = user_of(self._broker, user)
        if limit not in (*LIMITS_OF_USERS, ALL):
            raise Refusal(f"Bad argument: limit must be one of {', '.join((*LIMITS_OF_USERS, ALL))}", EXIT_DATA)
        left = {} if limit == ALL else {
            name: value for name, value in found.definition.limits.items() if name != limit}
        self._broker.users.set_limits(user, left)

    def list_user_limits(self, user: str | None = None) -> Table:
        """List the limits of a user, or of every user that has some."""
        if user is not None:
            return _table("user", [[user, shown(dict(user_of(self._broker, user).definition.limits))]])
        return _table("user", [
            [name, shown(dict(one.definition.limits))] for name, one in self._broker.users.items()
            if one.definition.limits])


def checked_vhost_limits(value: Any) -> dict[str, int]:
    """Return the limits of a vhost in a value of JSON. Raises Refusal."""
    return _checked(value, LIMITS_OF_VHOSTS, "limits", "Validation failed\n\n")


def _checked(value: Any, known: Collection[str], kind: str, heading: str) -> dict[str, int]:
    if not isinstance(value, dict):
        raise Refusal(f"{heading}limits must be a JSON object, such as {{\"max-connections\": 10}}", EXIT_UNAVAILABLE)
    if faults := [*limit_faults(value, known, kind)]:
        raise Refusal(heading + "\n".join(faults), EXIT_UNAVAILABLE)
    return value


def _table(first: str, rows: list[list[str]]) -> Table:
    return {"columns": [first, "limits"], "rows": rows}
