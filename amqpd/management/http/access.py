"""What the tags of a user allow at the management API.

Users without one of these tags may do nothing here. `management` sees the user's own connections, and the vhosts that
the user may enter; `policymaker` may also manage policies and parameters there; `monitoring` sees all connections and
nodes besides; `administrator` may do everything. What a user may declare, read and write is checked by the same
function as for AMQP.

RabbitMQ docs/management (permissions); `rabbit_mgmt_util`. The rights of each route were recorded on RabbitMQ 3.10.8.
"""

from __future__ import annotations

from enum import Enum

from amqpd.broker.access import User
from amqpd.management.http.answers import HttpError, not_authorised

ADMINISTRATOR, MONITORING, POLICYMAKER, MANAGEMENT = "administrator", "monitoring", "policymaker", "management"
TAGS = frozenset({ADMINISTRATOR, MONITORING, POLICYMAKER, MANAGEMENT})


class Access(Enum):
    """Who may use a route; the value says it in words."""

    ANYONE = "anyone, without a login"
    LOGIN = "a user with any of the tags management, policymaker, monitoring, administrator"
    VHOST = "such a user who may enter the vhost, and administrators"
    VHOST_VISIBLE = "such a user who may enter the vhost, and users tagged monitoring or administrator"
    POLICIES = "users tagged policymaker who may enter the vhost, and administrators"
    MONITORING = "users tagged monitoring or administrator"
    ADMINISTRATOR = "users tagged administrator"


def is_administrator(user: User) -> bool:
    """Return whether the user may do everything."""
    return ADMINISTRATOR in user.definition.tags


def may_see_all(user: User) -> bool:
    """Return whether the user sees all connections, channels and nodes."""
    return bool({ADMINISTRATOR, MONITORING} & set(user.definition.tags))


def may_make_policies(user: User) -> bool:
    """Return whether the user may manage policies and parameters, in vhosts that the user may enter."""
    return bool({ADMINISTRATOR, POLICYMAKER} & set(user.definition.tags))


def may_see_vhost(user: User, vhost: str) -> bool:
    """Return whether the user sees what is in a vhost, in lists of all vhosts."""
    return may_see_all(user) or user.may_enter(vhost)


def check_access(user: User, access: Access, vhost: str | None, *, is_known: bool = True) -> None:
    """Check that a user may use a route. Raises HttpError: 401.

    `vhost` is the one that the path names; if there is no such vhost, the handler says so to users with the right tags.
    """
    if not TAGS & set(user.definition.tags):
        raise not_authorised("Not management user")
    if is_administrator(user):
        return
    if access is Access.ADMINISTRATOR:
        raise not_authorised("Not administrator user")
    if access is Access.MONITORING and not may_see_all(user):
        raise not_authorised("Not monitor user")
    is_foreign = vhost is not None and is_known and not user.may_enter(vhost)
    if access is Access.POLICIES and (is_foreign or not may_make_policies(user)):
        raise foreign_object()
    if is_foreign and (access is Access.VHOST or access is Access.VHOST_VISIBLE and not may_see_all(user)):
        raise not_authorised("User not authorised to access virtual host")


def foreign_object() -> HttpError:
    """Return the error for an object of somebody else."""
    return not_authorised("User not authorised to access object")
