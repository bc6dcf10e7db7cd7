"""The routes of users. RabbitMQ docs/http-api-reference (users); `rabbit_mgmt_wm_user`."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Any

import msgspec

from amqpd.broker.access import User
from amqpd.broker.definitions import UserDefinition
from amqpd.broker.limits import LIMITS_OF_USERS, limit_faults
from amqpd.broker.passwords import SALTED_HASHES, SCRYPT, SHA256
from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, bad_request, no_content, not_found, put
from amqpd.management.http.body import Body
from amqpd.management.http.lists import Source, whole_list
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Route

# Those of RabbitMQ, and the one of the broker, so that what was read of a user can be set again.
DEFAULT_ALGORITHM = SHA256
ALGORITHMS = frozenset({*SALTED_HASHES, SCRYPT})
LONGEST_NAME = 255


class NewUser(msgspec.Struct):
    """A user: a password, or the hash of one, or neither; `tags` is a list, or a text with commas."""

    tags: list[str] | str
    password: str = ""
    password_hash: str = ""
    hashing_algorithm: str = DEFAULT_ALGORITHM

    def __repr__(self) -> str:
        return f"NewUser(tags={self.tags!r}, password=***, password_hash=***)"


class Names(msgspec.Struct):
    """Names of users."""

    users: list[str]


class NewLimit(msgspec.Struct):
    """The value of a limit; a negative number is none."""

    value: int


def record(user: User) -> dict[str, Any]:
    """Return a user as JSON has it; only administrators see it."""
    definition = user.definition
    return {
        "name": definition.name,
        "password_hash": definition.password_hash,
        "hashing_algorithm": definition.hashing_algorithm,
        "tags": list(definition.tags),
        "limits": dict(definition.limits),
    }


def list_users(request: Request) -> Any:
    """Return all users."""
    return whole_list(request, Source(list(request.broker.users.values()), lambda user: user.name, record))


def list_users_without_permissions(request: Request) -> Any:
    """Return the users who may not enter any vhost."""
    found = [user for user in request.broker.users.values() if not user.permissions]
    return whole_list(request, Source(found, lambda user: user.name, record))


def named(request: Request) -> User:
    """Return the user that a path names. Raises HttpError: 404."""
    user = request.broker.users.get(request.names["user"])
    if user is None:
        raise not_found()
    return user


def read_user(request: Request) -> Any:
    """Return one user. Raises HttpError: 404."""
    return record(named(request))


async def put_user(request: Request) -> Answer:
    """Add a user, or replace password and tags of one. Raises HttpError."""
    name, body, users = request.names["user"], Body(request), request.broker.users
    if "tags" not in body:
        raise bad_request("tags_not_present")
    if not name or len(name.encode(errors="surrogatepass")) > LONGEST_NAME:
        raise bad_request(f"the name of a user has 1 to {LONGEST_NAME} bytes")
    if body.values.get("password") and body.values.get("password_hash"):
        raise bad_request("both_password_and_password_hash_are_provided")
    tags = tags_of(body.values["tags"])
    if body.values.get("password"):
        if not isinstance(body.values["password"], str):
            raise bad_request("password must be a text")
        stored = await asyncio.to_thread(request.context.node.password_form.store, body.values["password"])
        definition = UserDefinition(
            name, stored.password_hash, stored.hashing_algorithm, tags, scram_sha256=stored.scram_sha256)
    else:
        definition = UserDefinition(name, _hash(body), _algorithm(body), tags)
    request.context.node.begin()
    found = users.get(name)
    users.put(msgspec.structs.replace(definition, limits={} if found is None else found.definition.limits))
    return put(is_new=found is None)


def _hash(body: Body) -> str:
    found = body.text("password_hash")
    try:
        base64.b64decode(found, validate=True)
    except (binascii.Error, ValueError):
        raise bad_request(["not_base64", found]) from None
    return found


def _algorithm(body: Body) -> str:
    found = body.text("hashing_algorithm", DEFAULT_ALGORITHM)
    if found not in ALGORITHMS:
        raise bad_request(f"hashing_algorithm must be one of {', '.join(sorted(ALGORITHMS))}")
    return found


def tags_of(found: Any) -> tuple[str, ...]:
    """Return the tags of a user or a vhost: a list, or a text with commas. Raises HttpError: 400."""
    if isinstance(found, str):
        return tuple(tag.strip() for tag in found.split(",")) if found.strip() else ()
    if isinstance(found, list) and all(isinstance(tag, str) for tag in found):
        return tuple(found)
    raise bad_request("tags must be a list of texts, or a text with commas")


def delete_user(request: Request) -> Answer:
    """Delete a user, and close the user's connections. Raises HttpError."""
    request.broker.users.delete(named(request).name)
    return no_content()


def delete_users(request: Request) -> Answer:
    """Delete several users; if one of them does not exist, none. Raises HttpError."""
    body = Body(request)
    body.require("users")
    names = body.values["users"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise bad_request("users must be a list of texts")
    for name in names:
        if name not in request.broker.users:
            raise bad_request(["no_such_user", name])
    for name in dict.fromkeys(names):
        request.broker.users.delete(name)
    return no_content()


# Limits

def list_limits(request: Request) -> Any:
    """Return the limits of all users who have some, or of one user. Raises HttpError: 404."""
    names = [named(request).name] if "user" in request.names else list(request.broker.users)
    found = [(name, user.definition.limits) for name in names
             if (user := request.broker.users.get(name)) is not None and user.definition.limits]
    return whole_list(request, Source(
        found, lambda one: one[0], lambda one: {"user": one[0], "value": dict(one[1])}))


def put_limit(request: Request) -> Answer:
    """Set a limit of a user. Raises HttpError."""
    body, user = Body(request), _limited(request)
    body.require("value")
    limits = {request.names["limit"]: body.values["value"]}
    if faults := list(limit_faults(limits, LIMITS_OF_USERS, "user-limits")):
        raise bad_request("\n".join(faults))
    request.broker.users.set_limits(user.name, {**user.definition.limits, **limits})
    return no_content()


def delete_limit(request: Request) -> Answer:
    """Remove a limit of a user; one that is not set is not an error. Raises HttpError."""
    user = _limited(request)
    request.broker.users.set_limits(user.name, {
        name: value for name, value in user.definition.limits.items() if name != request.names["limit"]})
    return no_content()


def _limited(request: Request) -> User:
    user = request.broker.users.get(request.names["user"])
    if user is None:
        raise bad_request(["no_such_user", request.names["user"]])
    return user


ROUTES = [
    Route(method="GET", path="/api/users", handler=list_users, access=Access.ADMINISTRATOR, is_list=True,
          summary="All users"),
    Route(method="GET", path="/api/users/without-permissions", handler=list_users_without_permissions,
          access=Access.ADMINISTRATOR, is_list=True, summary="The users who may not enter any vhost"),
    Route(method="POST", path="/api/users/bulk-delete", handler=delete_users, access=Access.ADMINISTRATOR, body=Names,
          summary="Delete several users"),
    Route(method="GET", path="/api/users/{user}", handler=read_user, access=Access.ADMINISTRATOR, summary="A user"),
    Route(method="PUT", path="/api/users/{user}", handler=put_user, access=Access.ADMINISTRATOR, body=NewUser,
          summary="Add a user, or replace password and tags of one"),
    Route(method="DELETE", path="/api/users/{user}", handler=delete_user, access=Access.ADMINISTRATOR,
          summary="Delete a user, and close the user's connections"),
    Route(method="GET", path="/api/user-limits", handler=list_limits, access=Access.LOGIN, is_list=True,
          summary="The limits of all users"),
    Route(method="GET", path="/api/user-limits/{user}", handler=list_limits, access=Access.LOGIN, is_list=True,
          summary="The limits of a user"),
    Route(method="PUT", path="/api/user-limits/{user}/{limit}", handler=put_limit, access=Access.ADMINISTRATOR,
          body=NewLimit, summary="Set a limit of a user: max-connections or max-channels"),
    Route(method="DELETE", path="/api/user-limits/{user}/{limit}", handler=delete_limit, access=Access.ADMINISTRATOR,
          summary="Remove a limit of a user"),
]
