"""The description of the API as an OpenAPI document, made of the table of routes.

OpenAPI 3.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec

from amqpd import __version__
from amqpd.management.http import lists
from amqpd.management.http.access import Access
from amqpd.management.http.answers import EVENT_STREAM, Answer
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Route

REFERENCES = "#/components/schemas/{name}"
TEXT = {"type": "string"}
LIST_ANSWER = {"type": "array", "items": {"type": "object"}}


def route_of(routes: Sequence[Route]) -> Route:
    """Return the route of the document itself, which describes these routes."""
    described = cache(lambda: document(routes))     # once, since anyone may ask for it, again and again

    def read_document(request: Request) -> Answer:
        return Answer(body={**described(), "servers": [{"url": request.base_url}]})

    return Route(method="GET", path="/api/openapi.json", handler=read_document, access=Access.ANYONE,
                 summary="This description of the API")


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the document, without the server."""
    bodies = sorted({route.body for route in routes if route.body is not None and route.body is not bytes},
                    key=lambda kind: kind.__name__)
    _, schemas = msgspec.json.schema_components(bodies, ref_template=REFERENCES)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "amqpd management API", "version": __version__,
                 "description": "RabbitMQ's management API, and more, served by amqpd."},
        "security": [{"basic": []}],
        "paths": paths,
        "components": {"securitySchemes": {"basic": {"type": "http", "scheme": "basic"}}, "schemas": schemas},
    }


def _operation(route: Route) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", route.path)
    query = (*lists.QUERY, *route.query) if route.is_list else route.query
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{re.sub(r'[^a-zA-Z0-9]+', '_', route.path).rstrip('_')}",
        "summary": route.summary,
        "description": f"For {route.access.value}.",
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": TEXT} for name in names),
            *({"name": one.name, "in": "query", "description": one.summary, "schema": TEXT} for one in query)],
        "responses": _responses(route),
    }
    if route.access is Access.ANYONE:
        operation["security"] = []
    if route.body is not None:
        schema = {} if route.body is bytes else {"$ref": REFERENCES.format(name=route.body.__name__)}
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return operation


def _responses(route: Route) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": LIST_ANSWER if route.is_list else {}}}
    if route.is_stream:
        content = {EVENT_STREAM: {"schema": TEXT}}
    by_method: dict[str, dict[str, Any]] = {
        "GET": {"200": {"description": "What was asked for", "content": content}},
        "PUT": {"201": {"description": "Something new"}, "204": {"description": "It was there, and is changed"}},
        "DELETE": {"204": {"description": "It is deleted"}},
    }
    found = by_method.get(route.method, {"200": {"description": "Carried out", "content": content}})
    refusals = {"400": "The request cannot be carried out", "404": "There is no such object"}
    if route.access is not Access.ANYONE:
        refusals["401"] = "Not logged in, or not allowed"
    return found | {status: {"description": text} for status, text in refusals.items()}
