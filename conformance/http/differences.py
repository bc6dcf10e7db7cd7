"""Where a broker answers otherwise than RabbitMQ 3.10.8 on purpose, each with a reason. Empty is best.

A line says for which brokers it holds (a capability that they have), for which requests (a pattern of `METHOD path`,
from its beginning), where in the answer (a path as the failures name it: `status`, `body.0.name`, `body.*.memory`;
`*` is any element of a list, and a last `.*` all that follows), why, and for some lines a text that the failure has in
it, so that the line covers nothing else there. A line that no answer needs fails its test, unless it depends on what
other tests have set before, so that the difference is there `sometimes`.
"""
from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One line of the table."""

    capability: str
    request: str
    where: str
    reason: str
    text: str = ""
    sometimes: bool = False

    def covers(self, request: str, where: str, text: str = "") -> bool:
        """Whether it speaks of this place in the answer to this request, and of this failure there."""
        start, is_open = (self.where[:-1], ".+") if self.where.endswith(".*") else (self.where, "")
        words = "".join(r"[^.]+" if part == "*" else re.escape(part) for part in re.split(r"(\*)", start)) + is_open
        return self.text in text and all((re.match(self.request, request), re.fullmatch(words, where)))


OWN, TYPED, JSON_ONLY = "http-own-answers", "http-needs-content-type", "http-json-only"
PATTERN = "a pattern's fault is told in words, and with its position"
DEFAULT_TYPE = "a vhost's default queue type works; RabbitMQ 3.10 takes any text and forgets it"
FILE = "a file is checked as a whole before anything of it is taken, and all faults are told with their JSON paths"
DIFFERENCES: tuple[Difference, ...] = (
    # Security
    Difference(TYPED, r"PUT /exchanges/shapes/plain$", "status",
               "another site's page can cause a change with this type", "Content-Type"),
    Difference(TYPED, r"POST /definitions$", "status", "the same, and RabbitMQ refuses here too", "Content-Type"),
    Difference(OWN, r"PUT /feature-flags/quorum_queue/enable$", "status",
               "an empty body needs no type", "must be 415, is 204"),
    Difference(OWN, r"GET /users/shapes-user\?", "body.hashing_algorithm",
               "passwords are hashed by scrypt; a hash under a wrong name would lock its user out elsewhere"),
    Difference(OWN, r"PUT /users/shapes-user$", "status", "a user with such a hash could not log in",
               "hashing_algorithm must be one of"),
    Difference(OWN, r"GET /users\?columns=name&sort=name", "body",
               "if one of the users to delete does not exist, none is deleted", "shapes a/b"),
    # What only Erlang has, or its page
    Difference(OWN, r"GET /nodes/\{node\}/memory/ets", "body.ets_tables_memory.*", "there are no such tables"),
    Difference(OWN, r"GET /extensions$", "body", "there is no page to extend"),
    Difference(OWN, r"GET /?$", "headers.location", "the description of the routes is openapi.json"),
    Difference(OWN, r"GET /(definitions|all-configuration)$", "body.global_parameters",
               "the broker sets no parameter by itself", sometimes=True),
    Difference(OWN, r"GET /global-parameters$", "body", "the broker sets no parameter by itself",
               sometimes=True),
    Difference(OWN, r"POST /bindings/shapes/", "headers.location",
               "the hash of a binding's arguments is Erlang's there; clients take it from here", "~"),
    Difference(JSON_ONLY, r"GET /whoami$", "headers.content-type", "Erlang's format", "application/bert"),
    Difference(JSON_ONLY, r"GET /whoami$", "body", "Erlang's format", "tagsl"),
    # Oddities
    Difference(OWN, r"GET /queues/shapes/nothing/bindings$", "body", "a queue that does not exist has no bindings"),
    Difference(OWN, r"GET /queues/shapes\?disable_stats", "body.*.exclusive",
               "no quorum queue is exclusive, and null is for what is not known", "must be null, is false"),
    Difference(OWN, r"GET /(channels|consumers)\?disable_stats", "status",
               "all but the statistics is known without statistics", "must be 400, is 200"),
    Difference(OWN, r"GET /(channels(\?page=1.+)?|vhosts/shapes/channels|consumers(/shapes)?(\?columns.+)?)$",
               "status", "the same, on a broker that was started without statistics", "must be 400, is 200",
               sometimes=True),
    Difference(OWN, r"GET /queues/shapes/alpha\?lengths_age", "body", "a queue has samples from the beginning"),
    Difference(OWN, r"GET /(bindings/shapes/e/x/q/bound|queues/shapes/bound/bindings)\?", "body.*.routing_key",
               "a number as a routing key is shown as what AMQP clients see, a text"),
    Difference(OWN, r"POST /queues/shapes/q/get$", "body.*.properties.headers.none", "a header without value is null"),
    Difference("first-delivery-without-count", r"POST /queues/shapes/jobs/get$", "body.*.properties",
               "a first delivery has no x-delivery-count, as on RabbitMQ 4"),
    Difference(OWN, r"HEAD /(vhost|user)-limits", "status", "what can be read has a head", "must be 405, is "),
    # What is set
    Difference(OWN, r"PUT /policies/shapes/half-priority$", "status", "a priority is a whole number", "priority"),
    Difference(OWN, r"GET /policies/shapes\?sort=name", "body", "that policy was refused", "half-priority"),
    Difference(OWN, r"GET /parameters/policy$", "body", "that policy was refused", "empty list"),
    Difference(OWN, r"PUT /policies/shapes/wrong$", "body.reason", PATTERN, "missing ) at position"),
    Difference(OWN, r"PUT /policies/shapes/wrong$", "body.reason",
               "policies can apply to what RabbitMQ 4 lets them apply to", "apply-to 'nonsense'"),
    Difference(OWN, r"PUT /(topic-)?permissions/", "body.reason.*", PATTERN),
    Difference(OWN, r"PUT /parameters/operator_policy/", "body.reason",
               "the path for operator policies is told, as for policies; RabbitMQ asks for a priority", "priority"),
    Difference(OWN, r"GET /(vhosts/shapes-other\?|queues/shapes-other/typeless)", "body.*", DEFAULT_TYPE, "quorum"),
    Difference(OWN, r"PUT /vhosts/shapes-other$", "status", DEFAULT_TYPE, "default_queue_type must be"),
    # Uploads
    Difference(OWN, r"POST /definitions$", "body.reason", FILE, "$"),
    Difference(OWN, r"POST /definitions$", "status", FILE, "must be 204, is 400"),
    Difference(OWN, r"POST /definitions", "status", "what a file does not say has a default", "must be 400, is 204"),
)
