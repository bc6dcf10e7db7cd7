"""Connections are closed over HTTP: one by name, with and without a reason, and all of a user."""
from __future__ import annotations

from conformance.http.clients import Clients
from conformance.http.scenarios.scenario import VHOST, Scenario, everything_deleted, user_made, vhost_made
from conformance.http.steps import Act, Step, delete, get

V = VHOST


def three(clients: Clients) -> None:
    """Open three connections, two of them of one user."""
    for name, user in (("first", None), ("second", "shapes-worker"), ("third", "shapes-worker")):
        clients.connect(name, V, user=user)
        clients.open(name, name)


def closed(name: str, reason: str) -> Act:
    """Return the act that awaits connection.close with this reason."""
    def work(clients: Clients) -> None:
        clients.expect_close(name, 320, f"CONNECTION_FORCED - {reason}")
    return Act(f"{name} is closed: {reason}", work)


STEPS: tuple[Step, ...] = (
    Act("three connections", three),
    get(f"/vhosts/{V}/connections?sort=user_provided_name", until={
        "#": 3, "0.user_provided_name": "first", "1.channels": 1, "2.channels": 1, "0.channels": 1},
        save={"connection": "0.name"}),
    get("/connections/{connection}"),
    get("/connections/{connection}/channels", until={"#": 1}, save={"channel": "0.name"}),
    get("/channels/{channel}"),
    get("/connections/username/shapes-worker", until={"#": 2}),
    delete("/connections/{connection}", headers={"X-Reason": "because of a test"}),
    closed("first", "because of a test"),
    get("/connections/{connection}", until={"error": "Object Not Found"}),
    delete("/connections/{connection}"),
    delete("/connections/nothing"),
    get(f"/vhosts/{V}/connections?sort=user_provided_name", until={"#": 2}, save={"connection": "0.name"}),
    delete("/connections/{connection}"),
    closed("second", "Closed via management plugin"),
    get(f"/vhosts/{V}/connections?sort=user_provided_name", until={"#": 1}),
    delete("/connections/username/shapes-worker", headers={"X-Reason": "all of them"}),
    closed("third", "all of them"),
    delete("/connections/username/shapes-worker"),
    delete("/connections/username/nothing"),
    get("/connections/username/shapes-worker", until={"#": 0}, exact=True),
)

SCENARIO = Scenario("connections", "Connections are closed over HTTP, with and without a reason.", STEPS,
                    prepare=(*vhost_made(), *user_made("shapes-worker")),
                    cleanup=everything_deleted("/users/shapes-worker"))
