"""The routes of policies and operator policies. RabbitMQ docs/http-api-reference (policies), docs/policies."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from amqpd.broker.definitions import PolicyDefinition
from amqpd.broker.policy import InvalidPolicy
from amqpd.broker.vhost import Vhost
from amqpd.erlang import json_term
from amqpd.management.http.access import Access
from amqpd.management.http.answers import Answer, bad_request, no_content, not_found, put
from amqpd.management.http.body import Body
from amqpd.management.http.lists import Source, whole_list
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Route
from amqpd.management.waiting import until_called


class NewPolicy(msgspec.Struct, rename={"apply_to": "apply-to"}):
    """A policy."""

    pattern: str
    definition: dict[str, Any]
    priority: int = 0
    apply_to: str = "all"


def record(policy: PolicyDefinition) -> dict[str, Any]:
    """Return a policy as JSON has it."""
    return {
        "vhost": policy.vhost,
        "name": policy.name,
        "pattern": policy.pattern,
        "apply-to": policy.apply_to,
        "definition": policy.definition,
        "priority": policy.priority,
    }


def validation_failed(faults: str, *, is_escaped: bool = True) -> Exception:
    """Return the error for a value that cannot be used. As RabbitMQ, with angle brackets escaped, or not."""
    text = f"Validation failed\n\n{faults}\n"
    if is_escaped:
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return bad_request(text)


class _Policies:
    """The handlers for policies, or for operator policies."""

    def __init__(self, *, is_operator: bool) -> None:
        self._is_operator = is_operator

    def listed(self, request: Request) -> Any:
        """Return the policies of the vhosts that the user sees."""
        found = [policy for vhost in request.visible_vhosts() for policy in self._of(vhost)]
        return whole_list(request, Source(found, lambda one: one.name, record))

    def _of(self, vhost: Vhost) -> list[PolicyDefinition]:
        return list(vhost.policies.listed(is_operator=self._is_operator))

    def read(self, request: Request) -> Any:
        """Return one policy. Raises HttpError: 404."""
        return record(self._named(request))

    def _named(self, request: Request) -> PolicyDefinition:
        found = next((one for one in self._of(request.vhost()) if one.name == request.names["name"]), None)
        if found is None:
            raise not_found()
        return found

    async def put(self, request: Request) -> Answer:
        """Set a policy; it is in force for all queues and exchanges when this is answered. Raises HttpError."""
        vhost, name, body = request.vhost_to_change(), request.names["name"], Body(request)
        body.require("pattern", "definition")
        is_new = all(one.name != name for one in self._of(vhost))
        policy = self._policy(vhost.name, name, body)
        try:
            vhost.followers.set_policy(policy)
        except InvalidPolicy as error:
            raise validation_failed("\n".join(error.faults), is_escaped=not self._is_operator) from None
        await _followed(vhost)
        return put(is_new)

    def _policy(self, vhost: str, name: str, body: Body) -> PolicyDefinition:
        pattern, definition = body.values["pattern"], body.values["definition"]
        priority, apply_to = body.values.get("priority", 0), body.values.get("apply-to", "all")
        is_escaped = not self._is_operator
        if not isinstance(pattern, str):
            raise validation_failed(f"pattern should be a binary but was {json_term(pattern)}", is_escaped=is_escaped)
        if not isinstance(definition, dict):
            raise bad_request("definition must be an object")
        if not isinstance(priority, int) or isinstance(priority, bool):
            raise validation_failed(f"priority should be a number, actually was {json_term(priority)}",
                                    is_escaped=is_escaped)
        if not isinstance(apply_to, str):
            raise bad_request("apply-to must be a text")
        return PolicyDefinition(vhost, name, pattern, definition, priority, apply_to, is_operator=self._is_operator)

    async def delete(self, request: Request) -> Answer:
        """Delete a policy. Raises HttpError: 404."""
        vhost, policy = request.vhost(), self._named(request)
        vhost.followers.clear_policy(policy.name, is_operator=self._is_operator)
        await _followed(vhost)
        return no_content()


async def _followed(vhost: Vhost) -> None:
    """Return once the policies are in force for all exchanges and queues."""
    if vhost.followers.has_work:
        await until_called(vhost.followers.call)


def _routes(kind: str, what: str, handlers: _Policies, access: Access) -> list[Route]:
    path = f"/api/{kind}/{{vhost}}/{{name}}"
    route = partial(Route, path=path, access=access)
    return [
        Route(method="GET", path=f"/api/{kind}", handler=handlers.listed, access=Access.LOGIN, is_list=True,
              summary=f"All {what}"),
        Route(method="GET", path=f"/api/{kind}/{{vhost}}", handler=handlers.listed, access=Access.VHOST, is_list=True,
              summary=f"The {what} of a vhost"),
        route(method="GET", handler=handlers.read, summary=f"One of the {what}"),
        route(method="PUT", handler=handlers.put, body=NewPolicy, summary=f"Set one of the {what}"),
        route(method="DELETE", handler=handlers.delete, summary=f"Delete one of the {what}"),
    ]


ROUTES = [
    *_routes("policies", "policies", _Policies(is_operator=False), Access.POLICIES),
    *_routes("operator-policies", "operator policies", _Policies(is_operator=True), Access.ADMINISTRATOR),
]
