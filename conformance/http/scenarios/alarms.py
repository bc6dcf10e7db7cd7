"""A broker with alarms: failing health checks, the node's flags, and the state of a publisher that is blocked."""
from __future__ import annotations

from conformance.http.clients import Clients
from conformance.http.scenarios.scenario import VHOST, Scenario, everything_deleted, vhost_made
from conformance.http.steps import Act, Step, get, put

V = VHOST
FLAGS = ("mem_alarm", "disk_free_alarm")
FAILED = {"status": "failed"}


def publishes(clients: Clients) -> None:
    """Publish, which an alarm blocks, with a connection that another only consumes on."""
    for name in ("publisher", "consumer"):
        clients.connect(name, V)
        clients.open(name, name)
    clients["consumer"].consume("q")
    clients.publish("publisher", "", "q")


def begin(resource: str) -> Act:
    """Return the act that raises the alarm of memory or disk."""
    return Act(f"alarm of {resource}", lambda clients: clients.alarms.begin(resource))


def end(resource: str) -> Act:
    """Return the act that ends it."""
    return Act(f"no alarm of {resource}", lambda clients: clients.alarms.end(resource))


STEPS: tuple[Step, ...] = (
    begin("memory"),
    get("/health/checks/alarms", until=FAILED, values=("status", "reason", "alarms.#", "alarms.0.resource")),
    get("/health/checks/local-alarms", until=FAILED, values=("status", "reason", "alarms.#", "alarms.0.resource")),
    get("/healthchecks/node", values=("status",)),
    get("/healthchecks/node/{node}", values=("status",)),
    get("/health/checks/virtual-hosts", exact=True),
    get("/nodes/{node}", until={"mem_alarm": True}, values=FLAGS),
    Act("a publisher and a consumer", publishes),
    get(f"/vhosts/{V}/connections?sort=user_provided_name", until={
        "#": 2, "0.user_provided_name": "consumer", "1.state": "blocked"}, values=("1.state",)),
    begin("disk"),
    get("/nodes/{node}", until={"disk_free_alarm": True}, values=FLAGS),
    get("/health/checks/alarms", values=("status", "alarms.#")),
    end("memory"),
    get("/nodes/{node}", until={"mem_alarm": False}, values=FLAGS),
    get("/health/checks/local-alarms", values=("status", "alarms.#", "alarms.0.resource")),
    end("disk"),
    get("/health/checks/alarms", until={"status": "ok"}, exact=True),
    get("/health/checks/local-alarms", exact=True),
    get("/nodes/{node}", until={"disk_free_alarm": False}, values=FLAGS),
    get(f"/vhosts/{V}/connections?sort=user_provided_name", until={"1.state": "running"}, values=("1.state",)),
    get("/healthchecks/node", exact=True),
)

SCENARIO = Scenario("alarms", "Memory and disk alarms: health checks that fail, and who is blocked.", STEPS,
                    prepare=(*vhost_made(), put(f"/queues/{V}/q", {})), cleanup=everything_deleted(), ctl=True)
