"""The routes of parameters of vhosts, and of the broker. RabbitMQ docs/http-api-reference (parameters).

Policies and operator policies are listed as parameters too, as on RabbitMQ.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from amqpd.broker.definitions import GlobalParameterDefinition, ParameterDefinition
from amqpd.broker.limits import LIMITS_OF_VHOSTS, limit_faults
from amqpd.broker.parameters import BEGUN_IMPORT, LIMITS, VHOST_LIMITS
from amqpd.broker.vhost import Vhost
from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, bad_request, no_content, not_found, put
from amqpd.management.http.body import Body
from amqpd.management.http.lists import Source, whole_list
from amqpd.management.http.policies import record as policy_record
from amqpd.management.http.policies import validation_failed
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Route
from amqpd.management.parameter_commands import OF_PLUGINS, POLICIES

OF_POLICY = ("pattern", "definition", "priority", "apply-to")
IN_PATH = "/api/parameters/{component}/{vhost}/{name}"


class NewParameter(msgspec.Struct):
    """The value of a parameter: any JSON."""

    value: Any


class _Parameter(NamedTuple):
    vhost: str
    component: str
    name: str
    value: Any


def _of_vhost(request: Request, vhost: Vhost) -> Iterator[_Parameter]:
    for one in request.broker.parameters.of_vhost(vhost.name):
        yield _Parameter(one.vhost, one.component, one.name, one.value)
    for component, is_operator in zip(POLICIES, (False, True)):
        for policy in vhost.policies.listed(is_operator=is_operator):
            found = policy_record(policy)
            yield _Parameter(vhost.name, component, policy.name, {key: found[key] for key in OF_POLICY})


def _record(one: _Parameter) -> dict[str, Any]:
    return {"value": one.value, "vhost": one.vhost, "component": one.component, "name": one.name}


def list_parameters(request: Request) -> Any:
    """Return the parameters of the vhosts that the user sees, or of one component, or of one vhost."""
    component = request.names.get("component")
    found = [one for vhost in request.visible_vhosts() for one in _of_vhost(request, vhost)
             if component in (None, one.component)]
    return whole_list(request, Source(found, lambda one: one.name, _record))


def _named(request: Request) -> _Parameter:
    names = request.names
    for one in _of_vhost(request, request.vhost()):
        if (one.component, one.name) == (names["component"], names["name"]):
            return one
    raise not_found()


def read_parameter(request: Request) -> Any:
    """Return one parameter. Raises HttpError: 404."""
    return _record(_named(request))


def put_parameter(request: Request) -> Answer:
    """Set a parameter of a vhost. Raises HttpError."""
    vhost, body = request.vhost_to_change().name, Body(request)
    component, name = request.names["component"], request.names["name"]
    body.require("value")
    value = body.values["value"]
    if component in POLICIES:
        raise bad_request("policies may not be set using this method")
    if component == VHOST_LIMITS:
        if not isinstance(value, dict) or name != LIMITS:
            raise validation_failed(f"the parameter of {VHOST_LIMITS} is an object with the name {LIMITS}")
        if faults := list(limit_faults(value, LIMITS_OF_VHOSTS, "limits")):
            raise validation_failed("\n".join(faults))
    elif component not in OF_PLUGINS:
        raise validation_failed(f"component {component} not found")
    is_new = request.broker.parameters.value(vhost, component, name) is None
    request.broker.parameters.set(ParameterDefinition(vhost, component, name, value))
    return put(is_new)


def delete_parameter(request: Request) -> Answer:
    """Remove a parameter of a vhost. Raises HttpError: 404."""
    found = _named(request)
    if found.component in POLICIES:
        raise bad_request("policies may not be deleted using this method")
    request.broker.parameters.clear(found.vhost, found.component, found.name)
    return no_content()


# Of the broker

def list_global_parameters(request: Request) -> Any:
    """Return the parameters of the broker."""
    return whole_list(request, Source(
        list(request.broker.parameters.of_broker), lambda one: one.name,
        lambda one: {"name": one.name, "value": one.value}))


def read_global_parameter(request: Request) -> Any:
    """Return a parameter of the broker. Raises HttpError: 404."""
    found = _named_global(request)
    return {"value": found.value, "name": found.name}


def _named_global(request: Request) -> GlobalParameterDefinition:
    for one in request.broker.parameters.of_broker:
        if one.name == request.names["name"]:
            return one
    raise not_found()


def put_global_parameter(request: Request) -> Answer:
    """Set a parameter of the broker. Raises HttpError."""
    name, body, parameters = request.names["name"], Body(request), request.broker.parameters
    body.require("value")
    if name == BEGUN_IMPORT:
        raise bad_request(f"the name {BEGUN_IMPORT} is reserved")
    is_new = all(one.name != name for one in parameters.of_broker)
    parameters.set_global(GlobalParameterDefinition(name, body.values["value"]))
    return put(is_new)


def delete_global_parameter(request: Request) -> Answer:
    """Remove a parameter of the broker. Raises HttpError: 404."""
    request.broker.parameters.clear_global(_named_global(request).name)
    return no_content()


GLOBAL = "/api/global-parameters/{name}"
ROUTES = [
    *(Route(method="GET", path=path, handler=list_parameters, access=Access.POLICIES, is_list=True,
            summary="Parameters of vhosts")
      for path in ("/api/parameters", "/api/parameters/{component}", "/api/parameters/{component}/{vhost}")),
    Route(method="GET", path=IN_PATH, handler=read_parameter, access=Access.POLICIES, summary="A parameter of a vhost"),
    Route(method="PUT", path=IN_PATH, handler=put_parameter, access=Access.POLICIES, body=NewParameter,
          summary="Set a parameter of a vhost"),
    Route(method="DELETE", path=IN_PATH, handler=delete_parameter, access=Access.POLICIES,
          summary="Remove a parameter of a vhost"),
    Route(method="GET", path="/api/global-parameters", handler=list_global_parameters, access=Access.POLICIES,
          is_list=True, summary="The parameters of the broker"),
    Route(method="GET", path=GLOBAL, handler=read_global_parameter, access=Access.POLICIES,
          summary="A parameter of the broker"),
    Route(method="PUT", path=GLOBAL, handler=put_global_parameter, access=Access.POLICIES, body=NewParameter,
          summary="Set a parameter of the broker"),
    Route(method="DELETE", path=GLOBAL, handler=delete_global_parameter, access=Access.POLICIES,
          summary="Remove a parameter of the broker"),
]
