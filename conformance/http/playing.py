"""Scenarios on the broker under test, each played once in a run of the suite, when the first test asks for it."""
from __future__ import annotations

import pytest

from conformance.capabilities import reason_to_skip
from conformance.http.api import Api
from conformance.http.recording import played
from conformance.http.running import Outcome
from conformance.http.scenarios import SCENARIOS
from conformance.http.scenarios.scenario import Scenario
from conformance.http.steps import Request


def needs_statistics(statistics: bool) -> str:
    """Return the reason to skip a test of a broker with, or without, statistics."""
    return f"needs a broker that was started {'with' if statistics else 'without'} statistics"


class Played:
    """What the broker answered."""

    def __init__(self, api: Api, amqp_url: str, ctl: str | None) -> None:
        self.api = api
        self.amqp_url = amqp_url
        self.ctl = ctl
        self.has_statistics = api.has_statistics()
        self._answers: dict[str, list[tuple[Request, Outcome]] | Exception] = {}

    def can_play(self, scenario: Scenario) -> bool:
        """Whether this broker and the options allow a scenario."""
        return scenario.statistics == self.has_statistics and (self.ctl is not None or not scenario.ctl)

    def request(self, scenario: str, number: int) -> str:
        """Return method and path of a scenario's request."""
        return self._played(scenario)[number][0].text

    def outcome(self, scenario: str, number: int) -> Outcome:
        """Return the answer to a scenario's request."""
        return self._played(scenario)[number][1]

    def _played(self, name: str) -> list[tuple[Request, Outcome]]:
        scenario = SCENARIOS[name]
        if scenario.statistics != self.has_statistics:
            pytest.skip(needs_statistics(scenario.statistics))
        if scenario.ctl and self.ctl is None:
            pytest.skip(reason_to_skip(["ctl"]))
        if name not in self._answers:
            try:
                self._answers[name] = played(scenario, self.api, self.amqp_url, self.ctl)
            except (OSError, AssertionError, ValueError, KeyError) as error:
                self._answers[name] = error
        answers = self._answers[name]
        if isinstance(answers, Exception):
            raise AssertionError(f"the scenario {name} broke off: {answers!r}") from answers
        return answers
