"""All scenarios by name. Each begins on a broker without queues, users and vhosts of its own, and leaves none."""
from __future__ import annotations

from conformance.http.scenarios.scenario import Scenario
from conformance.http.scenarios import (
    administration, alarms, busy, connections, declaring, definitions, empty, health, lists, logins, messages, methods,
    policies)

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in (
    empty.SCENARIO, busy.SCENARIO, busy.WITHOUT_STATISTICS, lists.SCENARIO, declaring.SCENARIO, messages.SCENARIO,
    policies.SCENARIO, administration.SCENARIO, definitions.SCENARIO, connections.SCENARIO, health.SCENARIO,
    alarms.SCENARIO, logins.SCENARIO, methods.SCENARIO)}
