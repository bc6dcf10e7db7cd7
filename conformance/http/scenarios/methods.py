"""Methods that a route does not take, HEAD and OPTIONS, for every route; asked of names that do not exist."""
from __future__ import annotations

from conformance.http.routes import ROUTES, filled
from conformance.http.scenarios.scenario import Scenario, everything_deleted, vhost_made
from conformance.http.steps import Request

ALL = ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH")

STEPS = tuple(
    Request(method, filled(route.path), {} if method in ("PUT", "POST", "PATCH") else None)
    for route in ROUTES for method in ALL if method not in route.methods)

SCENARIO = Scenario("methods", "What each route answers to the methods that it does not take.", STEPS,
                    prepare=vhost_made(), cleanup=everything_deleted())
