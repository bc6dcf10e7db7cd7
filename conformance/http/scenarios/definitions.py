"""Definitions: read, and uploaded as JSON and as a form, whole and of one vhost, rightly and wrongly."""
from __future__ import annotations

import json
from typing import Any

from conformance.http.scenarios.scenario import VHOST, Scenario, everything_deleted, user_made, vhost_made
from conformance.http.steps import Request, Step, get, post, put

V = VHOST
BOUNDARY = "shapesboundary"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}

OF_VHOST = {
    "queues": [{"name": "imported", "durable": True, "auto_delete": False, "arguments": {"x-max-length": 5}}],
    "exchanges": [{"name": "imported", "type": "topic", "durable": True, "auto_delete": False, "internal": False,
                   "arguments": {}}],
    "bindings": [{"source": "imported", "destination": "imported", "destination_type": "queue", "routing_key": "a.#",
                  "arguments": {}}],
    "policies": [{"name": "imported", "pattern": "^imp", "apply-to": "queues", "definition": {"max-length": 3},
                  "priority": 2}],
    "parameters": []}
WHOLE = {
    "rabbit_version": "3.10.8",
    "users": [{"name": "shapes-imported", "password_hash": "Y9+46hbn3Kct/8fr9B30WSJ8LcFZHvKp1kCMU0eTCKMrOX4D",
               "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ["management"], "limits": {}}],
    "permissions": [{"user": "shapes-imported", "vhost": V, "configure": "", "write": ".*", "read": ".*"}],
    "topic_permissions": [{"user": "shapes-imported", "vhost": V, "exchange": "imported", "write": "^a", "read": ""}],
    "parameters": [{"vhost": V, "component": "vhost-limits", "name": "limits", "value": {"max-queues": 50}}],
    "global_parameters": [{"name": "shapes", "value": 1}],
    **{key: [entry | {"vhost": V} for entry in entries] for key, entries in OF_VHOST.items() if key != "parameters"}}


def form(content: Any, field: str = "file", **more: str) -> bytes:
    """Return the body of a form with the definitions in this field."""
    text = content if isinstance(content, str) else json.dumps(content)
    parts = [f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{field}"; filename="d.json"\r\n'
             f"content-type: application/json\r\n\r\n{text}\r\n"]
    parts += [f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
              for name, value in more.items()]
    return ("".join(parts) + f"--{BOUNDARY}--\r\n").encode()


def upload(body: Any, path: str = "/definitions", **options: Any) -> Request:
    """Return the request that uploads definitions."""
    return post(path, body, **options)


STEPS: tuple[Step, ...] = (
    upload(OF_VHOST, f"/definitions/{V}"),
    get(f"/definitions/{V}", exact=True),
    upload(WHOLE),
    upload(WHOLE),
    get(f"/definitions/{V}", exact=True),
    get("/definitions"),
    get(f"/queues/{V}/imported?columns=name,durable,arguments", exact=True),
    get(f"/policies/{V}/imported", exact=True),
    get("/users/shapes-imported", exact=True),
    get(f"/permissions/{V}/shapes-imported", exact=True),
    get(f"/vhost-limits/{V}", exact=True),
    get("/definitions?download=definitions.json"),
    # As a form, like a browser
    upload(form(OF_VHOST), f"/definitions/{V}", headers=FORM),
    upload(form(WHOLE), headers=FORM),
    upload(form(WHOLE, field="other"), headers=FORM),
    upload(form("{"), headers=FORM),
    upload(form(WHOLE, redirect="../#/import-succeeded"), headers=FORM),
    upload(form(WHOLE, auth="Z3Vlc3Q6Z3Vlc3Q="), headers=FORM | {"authorization": "none"}),
    # Wrongly
    upload(b"{"),
    upload(b"[]"),
    upload(b""),
    upload({}),
    upload({"nonsense": 1}),
    upload({"queues": [{}]}),
    upload({"queues": [{"name": "a"}]}),
    upload({"queues": [{"name": "a", "vhost": "nothing", "durable": True, "auto_delete": False, "arguments": {}}]}),
    upload({"queues": "text"}),
    upload({"exchanges": [{"name": "imported", "vhost": V, "type": "nonsense", "durable": True, "auto_delete": False,
                           "internal": False, "arguments": {}}]}),
    upload({"exchanges": [{"name": "new", "vhost": V, "type": "nonsense", "durable": True, "auto_delete": False,
                           "internal": False, "arguments": {}}]}),
    upload({"bindings": [{"source": "nothing", "vhost": V, "destination": "nothing", "destination_type": "queue",
                          "routing_key": "", "arguments": {}}]}),
    upload({"policies": [{"vhost": V, "name": "p", "pattern": "(", "definition": {"expires": 1}}]}),
    upload({"policies": [{"vhost": V, "name": "p", "pattern": "a", "definition": {"nope": 1}}]}),
    upload({"users": [{"name": "shapes-imported"}]}),
    upload({"users": [{"name": "shapes-imported", "password": "recorded", "tags": "monitoring"}]}),
    get("/users/shapes-imported?columns=name,tags", exact=True),
    upload({"vhosts": [{"name": V}]}),
    upload({"permissions": [{"user": "nobody", "vhost": V, "configure": "", "write": "", "read": ""}]}),
    upload({}, "/definitions/nothing"),
    upload({"queues": [{"name": "a"}]}, f"/definitions/{V}"),
    upload(OF_VHOST, headers={"content-type": "text/plain"}),
    # By users of one vhost
    get("/definitions", user="shapes-manager"),
    get(f"/definitions/{V}", user="shapes-manager"),
    upload({}, f"/definitions/{V}", user="shapes-manager"),
    get(f"/definitions/{V}", user="shapes-policymaker"),
    put(f"/queues/{V}/imported", {"durable": True, "arguments": {"x-max-length": 5}}),
)

SCENARIO = Scenario(
    "definitions", "Definitions are read, and uploaded as JSON and as a form, rightly and wrongly.", STEPS,
    prepare=(*vhost_made(), *user_made("shapes-manager", "management"),
             *user_made("shapes-policymaker", "policymaker")),
    cleanup=everything_deleted("/users/shapes-manager", "/users/shapes-policymaker", "/users/shapes-imported",
                               "/global-parameters/shapes"))
