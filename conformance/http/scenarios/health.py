"""Health checks, old and new, on a broker in good health: those that pass, and those that cannot."""
from __future__ import annotations

from conformance.http.scenarios.scenario import VHOST, Scenario, everything_deleted, vhost_made
from conformance.http.steps import Step, get

CHECKS = "/health/checks"

STEPS: tuple[Step, ...] = (
    get(f"/aliveness-test/{VHOST}", exact=True),
    get(f"/queues/{VHOST}/aliveness-test"),
    get("/aliveness-test/nothing"),
    get("/healthchecks/node", exact=True),
    get("/healthchecks/node/{node}", exact=True),
    get("/healthchecks/node/nothing"),
    get(f"{CHECKS}/alarms", exact=True),
    get(f"{CHECKS}/local-alarms", exact=True),
    get(f"{CHECKS}/virtual-hosts", exact=True),
    get(f"{CHECKS}/node-is-mirror-sync-critical", exact=True),
    get(f"{CHECKS}/node-is-quorum-critical", exact=True),
    get(f"{CHECKS}/port-listener/{{amqp_port}}"),
    get(f"{CHECKS}/port-listener/1", values=("status", "reason", "missing")),
    get(f"{CHECKS}/port-listener/x"),
    get(f"{CHECKS}/port-listener/99999", values=("status", "reason", "missing")),
    get(f"{CHECKS}/protocol-listener/amqp091", exact=True),
    get(f"{CHECKS}/protocol-listener/amqp", exact=True),
    get(f"{CHECKS}/protocol-listener/http", exact=True),
    get(f"{CHECKS}/protocol-listener/mqtt", values=("status", "reason", "missing")),
    get(f"{CHECKS}/protocol-listener/nonsense", values=("status", "reason", "missing")),
    get(f"{CHECKS}/certificate-expiration/1/days", exact=True),
    get(f"{CHECKS}/certificate-expiration/1/weeks", exact=True),
    get(f"{CHECKS}/certificate-expiration/1/months", exact=True),
    get(f"{CHECKS}/certificate-expiration/1/years", exact=True),
    get(f"{CHECKS}/certificate-expiration/1/nonsense"),
    get(f"{CHECKS}/certificate-expiration/x/days"),
    get(f"{CHECKS}/certificate-expiration/-1/days"),
    get(f"{CHECKS}/nonsense"),
    get(CHECKS),
    get("/health"),
)

SCENARIO = Scenario("health", "Health checks, old and new, on a broker in good health.", STEPS, prepare=vhost_made(),
                    cleanup=everything_deleted())
