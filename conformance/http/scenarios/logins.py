"""Who asks: without credentials, with wrong ones, without a tag, with too low a tag, and by the login form."""
from __future__ import annotations

from conformance.http.api import basic
from conformance.http.scenarios.scenario import VHOST, Scenario, everything_deleted, user_made, vhost_made
from conformance.http.steps import Step, get, post, put

V = VHOST
FORM = {"content-type": "application/x-www-form-urlencoded", "authorization": "none"}


def authorization(value: str) -> dict[str, str]:
    """Return the header."""
    return {"authorization": value}


STEPS: tuple[Step, ...] = (
    get("/whoami", headers=authorization("none")),
    get("/whoami", headers=authorization("Basic")),
    get("/whoami", headers=authorization("Basic not-base64!")),
    get("/whoami", headers=authorization("Basic bm9jb2xvbg==")),
    get("/whoami", headers=authorization(basic("shapes-manager", "wrong"))),
    get("/whoami", headers=authorization(basic("nobody", "wrong"))),
    get("/whoami", headers=authorization(basic("", ""))),
    get("/whoami", headers=authorization("Bearer token")),
    get("/whoami", headers=authorization(basic("shapes-colon", "a:b:c")), exact=True),
    get("/whoami", user="shapes-none"),
    get("/overview", user="shapes-none"),
    get("/whoami", user="shapes-manager", exact=True),
    get("/whoami", user="shapes-monitor", exact=True),
    get("/overview", user="shapes-manager"),
    get("/overview", user="shapes-monitor"),
    get("/nodes", user="shapes-manager"),
    get("/users", user="shapes-manager"),
    get("/users/shapes-manager", user="shapes-manager"),
    get("/users", user="shapes-monitor"),
    get("/users/shapes-monitor/permissions", user="shapes-monitor"),
    get("/vhosts?columns=name", user="shapes-manager", exact=True),
    get("/vhosts?columns=name&sort=name", user="shapes-monitor"),
    get("/queues?columns=name,vhost", user="shapes-manager", exact=True),
    get("/queues?columns=name,vhost", user="shapes-elsewhere", exact=True),
    get(f"/queues/{V}", user="shapes-elsewhere"),
    get(f"/queues/{V}/q", user="shapes-elsewhere"),
    get("/exchanges", user="shapes-elsewhere", exact=True),
    get("/permissions", user="shapes-manager"),
    put(f"/queues/{V}/allowed", {}, user="shapes-limited"),
    put(f"/queues/{V}/refused", {}, user="shapes-limited"),
    put(f"/exchanges/{V}/refused", {"type": "fanout"}, user="shapes-limited"),
    post(f"/bindings/{V}/e/amq.direct/q/q", {}, user="shapes-limited"),
    post(f"/queues/{V}/q/get", {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}, user="shapes-limited"),
    post(f"/exchanges/{V}/amq.direct/publish", {"properties": {}, "routing_key": "", "payload": "", "payload_encoding":
         "string"}, user="shapes-limited"),
    put(f"/queues/{V}/elsewhere", {}, user="shapes-elsewhere"),
    put(f"/policies/{V}/p", {"pattern": "a", "definition": {"expires": 1000}}, user="shapes-manager"),
    put(f"/vhosts/{V}", {}, user="shapes-manager"),
    post("/login", b"username=shapes-manager&password=recorded", headers=FORM),
    post("/login", b"username=shapes-manager&password=wrong", headers=FORM),
    post("/login", b"username=shapes-manager", headers=FORM),
    post("/login", b"", headers=FORM),
    post("/login", b"nonsense", headers=FORM),
    get("/whoami", headers={"accept": "text/html"}),
    get("/whoami", headers={"accept": "application/json"}, exact=True),
    get("/whoami", headers={"accept": "application/bert, application/json;q=0.1"}),
    get("/whoami", headers={"accept": "*/*"}, exact=True),
    get("/whoami", headers={"accept": "none"}, exact=True),
    get("/whoami/", exact=True),
    get("//whoami"),
    get("/whoami?nonsense=1", exact=True),
)

SCENARIO = Scenario(
    "logins", "Who asks: without credentials, with wrong ones, with too low a tag, and by the login form.", STEPS,
    prepare=(*vhost_made(), put(f"/queues/{V}/q", {}), *user_made("shapes-none"),
             *user_made("shapes-manager", "management"), *user_made("shapes-monitor", "monitoring"),
             *user_made("shapes-elsewhere", "management", vhost=None),
             *user_made("shapes-limited", "management", configure="^allowed$", write="^$", read="^$"),
             put("/users/shapes-colon", {"password": "a:b:c", "tags": "management"})),
    cleanup=everything_deleted(*(f"/users/shapes-{name}" for name in (
        "none", "manager", "monitor", "elsewhere", "limited", "colon"))))
