"""The routes of vhosts and their limits. RabbitMQ docs/http-api-reference (vhosts, vhost-limits)."""

from __future__ import annotations

from typing import Any

import msgspec

from amqpd.broker.definitions import ParameterDefinition, PermissionDefinition, VhostDefinition
from amqpd.broker.limits import LIMITS_OF_VHOSTS, limit_faults
from amqpd.broker.parameters import LIMITS, VHOST_LIMITS
from amqpd.errors import ProtectedVhost
from amqpd.identity import NODE_NAME
from amqpd.management.http.access import Access, may_see_vhost
from amqpd.management.http.answers import Answer, HttpError, bad_request, no_content, put
from amqpd.management.http.body import Body
from amqpd.management.http.lists import Source, listed, whole_list
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Route
from amqpd.management.http.statistics import STATISTICS_QUERY, ranges_of, wants_statistics
from amqpd.management.http.users import NewLimit, tags_of
from amqpd.management.statistics import Ranges

QUEUE_TYPES = frozenset({"", "undefined", "classic", "quorum"})
NO_TYPE = "undefined"
LONGEST_NAME = 255


class NewVhost(msgspec.Struct):
    """A vhost. What is not said of one that exists is reset, as on RabbitMQ, except for its default queue type."""

    description: str = ""
    tags: list[str] | str = ""
    tracing: bool = False
    default_queue_type: str = ""
    protected_from_deletion: bool = False


def record(request: Request, definition: VhostDefinition, ranges: Ranges | None) -> dict[str, Any]:
    """Return a vhost as JSON has it; without statistics if `ranges` is None."""
    said = {"description": definition.description, "tags": list(definition.tags)}
    kind = definition.default_queue_type or NO_TYPE
    found = {
        "name": definition.name,
        **said,
        "default_queue_type": kind,
        "metadata": {**said, "default_queue_type": kind} if definition.default_queue_type else said,
        "protected_from_deletion": definition.protected_from_deletion,
        "cluster_state": {NODE_NAME: "running"},
    }
    vhost = request.broker.vhosts.get(definition.name)
    found["tracing"] = vhost is not None and vhost.taps.firehose is not None
    return found if ranges is None or vhost is None else found | request.context.statistics.vhost(vhost, ranges)


def list_vhosts(request: Request) -> Any:
    """Return the vhosts that the user sees."""
    ranges = ranges_of(request) if wants_statistics(request) else None
    found = [one for one in request.broker.vhost_definitions.values() if may_see_vhost(request.user, one.name)]
    return listed(request, Source(found, lambda one: one.name, lambda one: record(request, one, ranges)))


def read_vhost(request: Request) -> Any:
    """Return one vhost. Raises HttpError: 404."""
    return record(request, request.broker.vhost_definitions[request.vhost().name], ranges_of(request))


def put_vhost(request: Request) -> Answer:
    """Add a vhost, in which the user who asks may do everything; or replace what is said of one. Raises HttpError."""
    name, body, broker = request.names["vhost"], Body(request), request.broker
    if not name or len(name.encode(errors="surrogatepass")) > LONGEST_NAME:
        raise bad_request(f"the name of a vhost has 1 to {LONGEST_NAME} bytes")
    kind = body.text("default_queue_type")
    if kind not in QUEUE_TYPES:
        raise bad_request(f"default_queue_type must be classic or quorum, actually was {kind}")
    found = broker.vhost_definitions.get(name)
    if "default_queue_type" not in body and found is not None:
        kind = found.default_queue_type
    protected = body.boolean("protected_from_deletion", found is not None and found.protected_from_deletion)
    definition = VhostDefinition(
        name, body.text("description"), tags_of(body.values.get("tags", "")), "" if kind == NO_TYPE else kind,
        protected_from_deletion=protected)
    is_traced = body.boolean("tracing")
    if found is None:
        broker.add_vhost(definition)
        broker.users.set_permissions(PermissionDefinition(request.user.name, name, ".*", ".*", ".*"))
    else:
        broker.replace_vhost(definition)
    request.context.commands.lookups["trace_on" if is_traced else "trace_off"](name)
    return put(is_new=found is None)


def delete_vhost(request: Request) -> Answer:
    """Delete a vhost with everything in it, and close its connections. Raises HttpError."""
    try:
        request.broker.delete_vhost(request.vhost().name)
    except ProtectedVhost as error:
        raise HttpError(412, "precondition_failed", error.text) from None
    return no_content()


def protect_vhost(request: Request) -> Answer:
    """Let the vhost not be deleted until this protection is removed. Raises HttpError: 404."""
    return _set_protection(request, is_protected=True)


def unprotect_vhost(request: Request) -> Answer:
    """Let the vhost be deleted again. Raises HttpError: 404."""
    return _set_protection(request, is_protected=False)


def _set_protection(request: Request, *, is_protected: bool) -> Answer:
    definition = request.broker.vhost_definitions[request.vhost().name]
    request.broker.replace_vhost(msgspec.structs.replace(definition, protected_from_deletion=is_protected))
    return no_content()


def start_vhost(request: Request) -> Answer:
    """Do nothing, since a vhost always runs. Raises HttpError."""
    if request.names["node"] != NODE_NAME:
        raise bad_request(f"Request to node {request.names['node']} failed with nodedown")
    if not request.has_vhost:
        raise bad_request(f"Request to node {NODE_NAME} failed with no_such_vhost: {request.names['vhost']}")
    return no_content()


# Limits

def list_limits(request: Request) -> Any:
    """Return the limits of the vhosts that the user sees, or of one vhost."""
    values = [(vhost.name, _limits(request, vhost.name)) for vhost in request.visible_vhosts()]
    return whole_list(request, Source(
        [one for one in values if one[1]], lambda one: one[0], lambda one: {"vhost": one[0], "value": one[1]}))


def _limits(request: Request, vhost: str) -> dict[str, Any]:
    found = request.broker.parameters.value(vhost, VHOST_LIMITS, LIMITS)
    return dict(found) if isinstance(found, dict) else {}


def put_limit(request: Request) -> Answer:
    """Set a limit of a vhost. Raises HttpError."""
    body, vhost = Body(request), request.vhost_to_change().name
    body.require("value")
    limit = {request.names["limit"]: body.values["value"]}
    if faults := list(limit_faults(limit, LIMITS_OF_VHOSTS, "limits")):
        raise bad_request("Validation failed\n\n" + "\n".join(faults) + "\n")
    request.broker.parameters.set(ParameterDefinition(
        vhost, VHOST_LIMITS, LIMITS, {**_limits(request, vhost), **limit}))
    return no_content()


def delete_limit(request: Request) -> Answer:
    """Remove a limit of a vhost; one that is not set is not an error. Raises HttpError: 404."""
    vhost = request.vhost().name
    limits = _limits(request, vhost)
    if limits.pop(request.names["limit"], None) is not None:
        if limits:
            request.broker.parameters.set(ParameterDefinition(vhost, VHOST_LIMITS, LIMITS, limits))
        else:
            request.broker.parameters.clear(vhost, VHOST_LIMITS, LIMITS)
    return no_content()


ROUTES = [
    Route(method="GET", path="/api/vhosts", handler=list_vhosts, access=Access.LOGIN, is_list=True,
          query=STATISTICS_QUERY, summary="The vhosts that the user sees"),
    Route(method="GET", path="/api/vhosts/{vhost}", handler=read_vhost, access=Access.ADMINISTRATOR,
          query=STATISTICS_QUERY, summary="A vhost"),
    Route(method="PUT", path="/api/vhosts/{vhost}", handler=put_vhost, access=Access.ADMINISTRATOR, body=NewVhost,
          summary="Add a vhost, or replace what is said of one"),
    Route(method="DELETE", path="/api/vhosts/{vhost}", handler=delete_vhost, access=Access.ADMINISTRATOR,
          summary="Delete a vhost with everything in it"),
    Route(method="POST", path="/api/vhosts/{vhost}/deletion/protection", handler=protect_vhost,
          access=Access.ADMINISTRATOR, summary="Protect a vhost from deletion"),
    Route(method="DELETE", path="/api/vhosts/{vhost}/deletion/protection", handler=unprotect_vhost,
          access=Access.ADMINISTRATOR, summary="Let a vhost be deleted again"),
    Route(method="POST", path="/api/vhosts/{vhost}/start/{node}", handler=start_vhost, access=Access.ADMINISTRATOR,
          summary="Start a vhost: accepted, since all run"),
    Route(method="GET", path="/api/vhost-limits", handler=list_limits, access=Access.LOGIN, is_list=True,
          summary="The limits of all vhosts"),
    Route(method="GET", path="/api/vhost-limits/{vhost}", handler=list_limits, access=Access.VHOST_VISIBLE,
          is_list=True, summary="The limits of a vhost"),
    Route(method="PUT", path="/api/vhost-limits/{vhost}/{limit}", handler=put_limit, access=Access.ADMINISTRATOR,
          body=NewLimit, summary="Set a limit of a vhost: max-connections or max-queues"),
    Route(method="DELETE", path="/api/vhost-limits/{vhost}/{limit}", handler=delete_limit,
          access=Access.ADMINISTRATOR, summary="Remove a limit of a vhost"),
]
