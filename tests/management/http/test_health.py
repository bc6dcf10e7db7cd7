"""Health checks that fail: the words and names of alarms, in the cluster and on the node."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from amqpd.identity import NODE_NAME
from amqpd.management.http import health
from tests.support.api import Api, Reply, running


def failure(reason: str, resource: str) -> dict[str, Any]:
    """The body of a check that an alarm fails."""
    return {"status": "failed", "reason": reason, "alarms": [{"node": NODE_NAME, "resource": resource}]}


def awaited(api: Api, path: str) -> Reply:
    """Ask until the check fails; a new limit is compared at once, in another task."""
    for _ in range(200):
        reply = api.ask("GET", path)
        if reply.status == 503:
            break
    return reply


def test_an_alarm_fails_the_checks_in_rabbitmqs_words() -> None:
    command = {"command": "set_vm_memory_high_watermark", "arguments": {"fraction": 0.0}}
    with running() as api:
        assert api.ask("POST", "/amqpctl", command).status == 200
        reply = awaited(api, "/health/checks/alarms")
        assert (reply.status, reply.body) == (503, failure("There are alarms in effect in the cluster", "memory"))
        local = api.ask("GET", "/health/checks/local-alarms")
        assert (local.status, local.body) == (503, failure("There are alarms in effect on the node", "memory"))
        assert api.ask("GET", "/healthchecks/node").status == 503
        assert api.get("/health/checks/virtual-hosts") == {"status": "ok"}


@pytest.mark.parametrize("check, name", [(health.check_alarms, "disk"), (health.check_local_alarms, "disk space")])
def test_the_alarm_of_the_disk_has_two_names(check: Any, name: str) -> None:
    alarms = SimpleNamespace(statistics=lambda: {"alarms": [{"node": NODE_NAME, "resource": "disk"}]})
    answer = check(SimpleNamespace(context=SimpleNamespace(node=SimpleNamespace(alarms=alarms))))
    assert answer.body["alarms"] == [{"node": NODE_NAME, "resource": name}]
