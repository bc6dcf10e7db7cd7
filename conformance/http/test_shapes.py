"""§33 The management API: each recorded request gets an answer of the shape that RabbitMQ 3.10.8 gave it.

`scenarios/` has the requests, `recorded/` the answers, `comparing` the rules, `differences` what may differ and why.
"""
from __future__ import annotations

from functools import cache
from itertools import count
from typing import Any, Iterator

import pytest

from conformance.http import recording
from conformance.http.comparing import Misfit, compared
from conformance.http.differences import DIFFERENCES
from conformance.http.playing import Played
from conformance.http.scenarios import SCENARIOS
from conformance.http.steps import Request

CRASHES = "http-crashes"
pytestmark = [pytest.mark.needs("http"), pytest.mark.timeout(300)]


def cases() -> Iterator[Any]:
    """Every request of every scenario, by name and number; one that comes again has its number in its name."""
    for scenario in SCENARIOS.values():
        seen: dict[str, count] = {}
        requests = [step for step in scenario.steps if isinstance(step, Request)]
        for number, request in enumerate(requests):
            again = next(seen.setdefault(request.text, count(1)))
            name = f"{scenario.name}: {request.text[:120]}" + (f" #{again}" if again > 1 else "")
            yield pytest.param(scenario.name, number, id=name)


@pytest.mark.parametrize("scenario, number", list(cases()))
def test_the_answer_is_as_rabbitmqs(played: Played, capabilities: frozenset[str], scenario: str, number: int) -> None:
    found = [misfit for misfit in misfits(played, scenario, number, capabilities)
             if not is_covered(played.request(scenario, number), misfit, capabilities)]
    assert not found, "\n".join(f"{where}: {text}" for where, text in found)


def test_every_difference_is_one(played: Played, capabilities: frozenset[str], statistics: None) -> None:
    found = [(played.request(name, number), misfit)
             for name, scenario in SCENARIOS.items() if played.can_play(scenario)
             for number in range(len(recorded(name)))
             for misfit in misfits(played, name, number, capabilities)]
    for line in DIFFERENCES:
        if line.capability in capabilities and not line.sometimes:
            assert any(line.covers(request, *misfit) for request, misfit in found), f"nothing differs so: {line}"


@cache
def recorded(scenario: str) -> list[dict[str, Any]]:
    """The record of a scenario."""
    return recording.read(SCENARIOS[scenario])


def misfits(played: Played, scenario: str, number: int, capabilities: frozenset[str]) -> list[Misfit]:
    """Where the answer to a request does not fit its record."""
    return compared(recorded(scenario)[number], played.outcome(scenario, number), may_crash=CRASHES in capabilities)


def is_covered(request: str, misfit: Misfit, capabilities: frozenset[str]) -> bool:
    """Whether the table of differences names this one."""
    return any(line.covers(request, *misfit) for line in DIFFERENCES if line.capability in capabilities)
