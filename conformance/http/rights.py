"""Which tag may do what: every route and method, asked by a user of each tag, about a vhost of their own and another's.

A cell is the status, and for a refusal its reason. Requests are such that they change nothing that matters: what they
set is set already, and what they delete does not exist; so 204, 200, 404 and 400 say that the user may, 401 that not.
"""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conformance.http.api import Answer, Api
from conformance.http.clients import PASSWORD
from conformance.http.routes import ROUTES, filled
from conformance.http.running import Run, prepared
from conformance.http.scenarios.scenario import OTHER_VHOST, VHOST, everything_deleted, user_made
from conformance.http.steps import ANY, Request, delete, get, put

TAGS = ("none", "management", "policymaker", "monitoring", "administrator")
VHOSTS = {"own": VHOST, "foreign": OTHER_VHOST}
RECORD = Path(__file__).parent / "recorded" / "rights.json"
REFUSED = 401
ALL_RIGHTS = {"configure": ".*", "write": ".*", "read": ".*"}
TOPIC_RIGHTS = {"exchange": "amq.topic", "write": ".*", "read": ".*"}
EXPIRES = {"pattern": "^nothing$", "definition": {"expires": 1000}}
FETCH = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
MESSAGE = {"properties": {}, "routing_key": "nowhere", "payload": "", "payload_encoding": "string"}

BODIES: dict[tuple[str, str], Any] = {
    ("PUT", "/cluster-name"): {"name": "{cluster}"},
    ("PUT", "/parameters/:component/:vhost/:name"): {"value": {"max-queues": 100}},
    ("PUT", "/global-parameters/:name"): {"value": 1},
    ("PUT", "/policies/:vhost/:name"): EXPIRES,
    ("PUT", "/operator-policies/:vhost/:name"): EXPIRES,
    ("PUT", "/vhost-limits/:vhost/:limit"): {"value": 100},
    ("PUT", "/exchanges/:vhost/:exchange"): {"type": "direct", "durable": True},
    ("POST", "/exchanges/:vhost/:exchange/publish"): MESSAGE,
    ("PUT", "/queues/:vhost/:queue"): {"durable": True},
    ("POST", "/queues/:vhost/:queue/get"): FETCH,
    ("POST", "/queues/:vhost/:queue/actions"): {"action": "sync"},
    ("POST", "/bindings/:vhost/e/:exchange/q/:queue"): {"routing_key": "k"},
    ("POST", "/bindings/:vhost/e/:exchange/e/:target"): {"routing_key": "k"},
    ("PUT", "/users/:user"): {"password": PASSWORD, "tags": ""},
    ("POST", "/users/bulk-delete"): {"users": []},
    ("PUT", "/user-limits/:user/:limit"): {"value": 100},
    ("PUT", "/permissions/:vhost/:user"): ALL_RIGHTS,
    ("PUT", "/topic-permissions/:vhost/:user"): TOPIC_RIGHTS,
    ("PUT", "/topic-permissions/:vhost/:user/:exchange"): TOPIC_RIGHTS,
}
# What a DELETE names does not exist, and what a GET or PUT names does.
MISSING = {"name": "missing", "exchange": "missing", "queue": "missing", "target": "missing", "user": "shapes-missing",
           "vhost": "{vhost}", "props": "missing"}
PRESENT = {"name": "present", "exchange": "amq.direct", "queue": "q", "user": "shapes-nobody", "vhost": "{vhost}",
           "connection": "{connection}", "channel": "{channel}"}
NAMES = {("PUT", "/parameters/:component/:vhost/:name"): {"name": "limits"},
         ("GET", "/parameters/:component/:vhost/:name"): {"name": "limits"},
         ("DELETE", "/queues/:vhost/:queue/contents"): {"queue": "q"},
         ("DELETE", "/vhosts/:vhost"): {"vhost": "shapes-missing"},
         ("DELETE", "/reset/:node"): {"node": "missing"},
         ("DELETE", "/connections/:connection"): {"connection": "{connection}"}}
LEFT_OUT = {("DELETE", "/reset"), ("POST", "/login")}


def rows() -> list[Request]:
    """Return one request for each route and method; those that end a connection come last."""
    found = []
    for route in ROUTES:
        for method in route.methods:
            which = (method, route.path)
            if which not in LEFT_OUT:
                names = (MISSING if method == "DELETE" else PRESENT) | NAMES.get(which, {})
                body = BODIES.get(which, {} if method in ("PUT", "POST") else None)
                found.append(Request(method, filled(route.path, **names), body))
    return sorted(found, key=lambda request: request.text == "DELETE /connections/{connection}")


def table(api: Api, amqp_url: str) -> dict[str, dict[str, dict[str, str]]]:
    """Ask everything; returns by request and by own or foreign what each tag is answered."""
    found: dict[str, dict[str, dict[str, str]]] = {request.text: {} for request in rows()}
    with prepared(api, amqp_url, made(), cleanup()) as run:
        for tag in TAGS:
            ask_all(run, tag, found)
    return found


def ask_all(run: Run, tag: str, found: dict[str, dict[str, dict[str, str]]]) -> None:
    """Ask all rows as the user of one tag, with a connection of that user and one of somebody else's."""
    user = f"shapes-{tag}"
    connections = {"own": (f"{tag}-own", VHOST, user), "foreign": (f"{tag}-foreign", OTHER_VHOST, None)}
    for whose, (name, vhost, owner) in connections.items():
        run.clients.connect(name, vhost, user=owner)
        run.clients.open(name, name)
    for whose, (name, vhost, owner) in connections.items():
        run.ask(get(f"/vhosts/{vhost}/channels", until={"#": 1, "0.connection_details.name": ANY},
                    save={"channel": "0.name", "connection": "0.connection_details.name"}))
        run.names["vhost"] = vhost
        for request in rows():
            if whose == "own" or is_of_somebody(request):
                answer = run.send(Request(request.method, request.path, request.body, user=user))
                found[request.text].setdefault(whose, {})[tag] = cell(answer)
        run.clients.drop(name)


def is_of_somebody(request: Request) -> bool:
    """Whether a request names a vhost, a connection or a channel, which can be another's."""
    return any(f"{{{name}}}" in request.path for name in ("vhost", "connection", "channel"))


def cell(answer: Answer) -> str:
    """Return the status, and the reason of a refusal."""
    if answer.status != REFUSED or not answer.content:
        return str(answer.status)
    return f"{answer.status} {answer.json().get('reason')}"


def is_as_recorded(recorded: str, found: str, *, may_crash: bool) -> bool:
    """Whether a cell is as RabbitMQ's; where that crashes with 500, a broker that does not must refuse."""
    return found.startswith("4") if recorded == "500" and not may_crash else found == recorded


def made() -> list[Request]:
    """Return the requests that make what the rows name."""
    found = [*user_made("shapes-nobody", vhost=None)]
    for tag in TAGS:
        found += user_made(f"shapes-{tag}", "" if tag == "none" else tag, vhost=None)
    for vhost in VHOSTS.values():
        found += [put(f"/vhosts/{vhost}"), put(f"/permissions/{vhost}/{{me}}", ALL_RIGHTS),
                  put(f"/permissions/{vhost}/shapes-nobody", ALL_RIGHTS),
                  put(f"/topic-permissions/{vhost}/shapes-nobody", TOPIC_RIGHTS),
                  put(f"/queues/{vhost}/q", {"durable": True}), put(f"/policies/{vhost}/present", EXPIRES),
                  put(f"/operator-policies/{vhost}/present", EXPIRES),
                  put(f"/vhost-limits/{vhost}/max-queues", {"value": 100})]
    found += [put(f"/permissions/{VHOST}/shapes-{tag}", ALL_RIGHTS) for tag in TAGS]
    return [*found, put("/global-parameters/present", {"value": 1}),
            put("/user-limits/shapes-nobody/max-channels", {"value": 100})]


def cleanup() -> tuple[Request, ...]:
    """Return the requests that delete all of it."""
    users = (f"/users/shapes-{name}" for name in (*TAGS, "nobody"))
    return (*everything_deleted(*users), delete("/global-parameters/present"))


def read() -> dict[str, dict[str, dict[str, str]]]:
    """Read the record."""
    return json.loads(RECORD.read_text())["rights"] if RECORD.exists() else {}


def write(found: dict[str, dict[str, dict[str, str]]], broker: str) -> None:
    """Write the record, a line a request."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(found.items()))
    RECORD.write_text(f'{{"broker": "{broker}", "tags": {json.dumps(TAGS)},\n"rights": {{\n{lines}\n}}}}\n')
