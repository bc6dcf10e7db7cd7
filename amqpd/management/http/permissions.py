"""The routes of permissions and topic permissions. RabbitMQ docs/http-api-reference (permissions)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from amqpd.broker.access import RIGHTS, User, pattern_faults
from amqpd.broker.definitions import PermissionDefinition, TopicPermissionDefinition
from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, bad_request, no_content, not_found, put
from amqpd.management.http.body import Body
from amqpd.management.http.lists import Source, whole_list
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Route
from amqpd.management.http.users import named as named_user

TOPIC_RIGHTS = ("write", "read")


class NewPermission(msgspec.Struct):
    """What a user may do in a vhost: a regular expression for each right."""

    configure: str
    write: str
    read: str


class NewTopicPermission(msgspec.Struct):
    """With which routing keys a user may publish to an exchange, and bind to it: regular expressions."""

    exchange: str
    write: str
    read: str


class _Rows(NamedTuple):
    """The lists of permissions, or of topic permissions: `of` has those of a user, `record` returns one as JSON has it.
    """

    of: Callable[[User], Iterable[Any]]
    record: Callable[[Any], dict[str, Any]]

    def listed(self, request: Request, found: Iterable[Any]) -> Any:
        """Return these as a list."""
        return whole_list(request, Source(found, lambda one: one.user, self.record))

    def every(self, request: Request) -> Any:
        """Return those of all users."""
        return self.listed(request, self._all(request))

    def of_user(self, request: Request) -> Any:
        """Return those of a user. Raises HttpError: 404."""
        return self.listed(request, list(self.of(named_user(request))))

    def of_vhost(self, request: Request) -> Any:
        """Return those in a vhost. Raises HttpError: 404."""
        name = request.vhost().name
        return self.listed(request, [one for one in self._all(request) if one.vhost == name])

    def _all(self, request: Request) -> list[Any]:
        return [one for user in request.broker.users.values() for one in self.of(user)]


# Permissions

def record(permission: PermissionDefinition) -> dict[str, Any]:
    """Return permissions as JSON has them."""
    return {"user": permission.user, "vhost": permission.vhost, "configure": permission.configure,
            "write": permission.write, "read": permission.read}


def _named(request: Request) -> PermissionDefinition:
    user = request.broker.users.get(request.names["user"])
    found = user.permissions.get(request.names["vhost"]) if user is not None else None
    if found is None:
        raise not_found()
    return found


def read_permission(request: Request) -> Any:
    """Return the permissions of a user in a vhost. Raises HttpError: 404."""
    return record(_named(request))


def put_permission(request: Request) -> Answer:
    """Set the permissions of a user in a vhost. Raises HttpError."""
    body = Body(request)
    body.require(*RIGHTS)
    user, vhost = _user_and_vhost(request)
    permission = PermissionDefinition(user, vhost, *(_pattern(body, right) for right in RIGHTS))
    is_new = vhost not in request.broker.users[user].permissions
    _check_patterns(permission)
    request.broker.users.set_permissions(permission)
    return put(is_new)


def delete_permission(request: Request) -> Answer:
    """Remove the permissions of a user in a vhost. Raises HttpError."""
    found = _named(request)
    request.broker.users.clear_permissions(found.user, found.vhost)
    return no_content()


def _user_and_vhost(request: Request) -> tuple[str, str]:
    user, vhost = request.names["user"], request.names["vhost"]
    if user not in request.broker.users or vhost not in request.broker.vhosts:
        raise bad_request("vhost_or_user_not_found")
    return user, vhost


def _pattern(body: Body, right: str) -> str:
    found = body.values[right]
    if not isinstance(found, str):
        raise bad_request(f"{right} must be a text with a regular expression")
    return str(found)


def _check_patterns(permission: PermissionDefinition | TopicPermissionDefinition) -> None:
    for right, fault in pattern_faults(permission):
        raise bad_request(["invalid_regexp", getattr(permission, right), [fault, 0]])


# Topic permissions

def topic_record(permission: TopicPermissionDefinition) -> dict[str, Any]:
    """Return topic permissions as JSON has them."""
    return {"user": permission.user, "vhost": permission.vhost, "exchange": permission.exchange,
            "write": permission.write, "read": permission.read}


def list_topic_of_row(request: Request) -> Any:
    """Return the topic permissions of a user in a vhost; as on RabbitMQ, of all exchanges. Raises HttpError: 404."""
    return TOPIC_ROWS.listed(request, _named_topic(request))


def _named_topic(request: Request) -> list[TopicPermissionDefinition]:
    user = request.broker.users.get(request.names["user"])
    found = [one for one in (user.topic_permissions.values() if user is not None else ())
             if one.vhost == request.names["vhost"]]
    if not found:
        raise not_found()
    return found


def put_topic_permission(request: Request) -> Answer:
    """Set the topic permissions of a user on an exchange. Raises HttpError."""
    body = Body(request)
    body.require("exchange", *TOPIC_RIGHTS)
    user, vhost = _user_and_vhost(request)
    permission = TopicPermissionDefinition(
        user, vhost, body.text("exchange"), *(_pattern(body, right) for right in TOPIC_RIGHTS))
    is_new = not any(one.vhost == vhost for one in request.broker.users[user].topic_permissions.values())
    _check_patterns(permission)
    request.broker.users.set_topic_permissions(permission)
    return put(is_new)


def delete_topic_permissions(request: Request) -> Answer:
    """Remove the topic permissions of a user in a vhost, on all exchanges or on one. Raises HttpError."""
    found = _named_topic(request)[0]
    request.broker.users.clear_topic_permissions(found.user, found.vhost, request.names.get("exchange"))
    return no_content()


ROWS = _Rows(lambda user: user.permissions.values(), record)
TOPIC_ROWS = _Rows(lambda user: user.topic_permissions.values(), topic_record)
ROW, TOPIC_ROW = "/api/permissions/{vhost}/{user}", "/api/topic-permissions/{vhost}/{user}"
ROUTES = [
    Route(method="GET", path="/api/permissions", handler=ROWS.every, access=Access.ADMINISTRATOR, is_list=True,
          summary="All permissions"),
    Route(method="GET", path=ROW, handler=read_permission, access=Access.ADMINISTRATOR,
          summary="The permissions of a user in a vhost"),
    Route(method="PUT", path=ROW, handler=put_permission, access=Access.ADMINISTRATOR, body=NewPermission,
          summary="Set the permissions of a user in a vhost"),
    Route(method="DELETE", path=ROW, handler=delete_permission, access=Access.ADMINISTRATOR,
          summary="Remove the permissions of a user in a vhost"),
    Route(method="GET", path="/api/users/{user}/permissions", handler=ROWS.of_user, access=Access.ADMINISTRATOR,
          is_list=True, summary="The permissions of a user"),
    Route(method="GET", path="/api/vhosts/{vhost}/permissions", handler=ROWS.of_vhost, access=Access.ADMINISTRATOR,
          is_list=True, summary="The permissions in a vhost"),
    Route(method="GET", path="/api/topic-permissions", handler=TOPIC_ROWS.every, access=Access.ADMINISTRATOR,
          is_list=True, summary="All topic permissions"),
    *(Route(method="GET", path=path, handler=list_topic_of_row, access=Access.ADMINISTRATOR, is_list=True,
            summary="The topic permissions of a user in a vhost") for path in (TOPIC_ROW, TOPIC_ROW + "/{exchange}")),
    *(Route(method="PUT", path=path, handler=put_topic_permission, access=Access.ADMINISTRATOR,
            body=NewTopicPermission, summary="Set the topic permissions of a user on the exchange that the body names")
      for path in (TOPIC_ROW, TOPIC_ROW + "/{exchange}")),
    *(Route(method="DELETE", path=path, handler=delete_topic_permissions, access=Access.ADMINISTRATOR,
            summary="Remove topic permissions of a user") for path in (TOPIC_ROW, TOPIC_ROW + "/{exchange}")),
    Route(method="GET", path="/api/users/{user}/topic-permissions", handler=TOPIC_ROWS.of_user,
          access=Access.ADMINISTRATOR, is_list=True, summary="The topic permissions of a user"),
    Route(method="GET", path="/api/vhosts/{vhost}/topic-permissions", handler=TOPIC_ROWS.of_vhost,
          access=Access.ADMINISTRATOR, is_list=True, summary="The topic permissions in a vhost"),
]
