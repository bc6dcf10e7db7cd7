"""§33 The management API: what the programs that read it must find, on an idle broker, a busy one, and one that counts
nothing."""
from __future__ import annotations

from typing import Any, Iterator

import pytest

from conformance.http.api import Answer, Api
from conformance.http.consumers import CONSUMERS, Row
from conformance.http.playing import needs_statistics
from conformance.http.running import at, prepared
from conformance.http.scenarios import busy, empty
from conformance.http.shapes import misfits
from conformance.http.steps import Step

pytestmark = [pytest.mark.needs("http"), pytest.mark.timeout(300)]

# What is done before the programs ask, and what is deleted afterwards.
WORLDS: dict[str, tuple[tuple[Step, ...], tuple[Step, ...]]] = {
    "empty": ((*empty.SCENARIO.prepare, *empty.SETTLED), empty.SCENARIO.cleanup),
    "busy": ((*busy.PREPARE, *busy.MADE, busy.TRAFFIC, *busy.WAITED_FOR), busy.CLEANUP),
    "without_statistics": ((*busy.PREPARE, *busy.MADE, busy.TRAFFIC), busy.CLEANUP),
}
Answers = dict[tuple[str, int], Answer]


def cases() -> Iterator[Any]:
    """Every row in every world in which it can be asked."""
    for world in WORLDS:
        for consumer, rows in CONSUMERS.items():
            for number, row in enumerate(rows):
                if world in row.worlds:
                    yield pytest.param(world, consumer, number, id=f"{world}: {consumer}: {row.request.text}",
                                       marks=pytest.mark.needs(row.needs))


@pytest.fixture(scope="module")
def answers(api: Api, broker_url: str) -> dict[str, Answers]:
    """What each program is answered in each world that the broker has."""
    counts = api.has_statistics()
    return {world: asked(world, api, broker_url) for world in WORLDS if counts != (world == "without_statistics")}


@pytest.mark.parametrize("world, consumer, number", list(cases()))
def test_a_program_finds_what_it_reads(
        answers: dict[str, Answers], world: str, consumer: str, number: int) -> None:
    if world not in answers:
        pytest.skip(needs_statistics(world != "without_statistics"))
    row, answer = CONSUMERS[consumer][number], answers[world][consumer, number]
    assert answer.status == row.status, answer.content
    if row.must is None:
        assert not answer.content
        return
    assert answer.headers["content-type"].startswith("application/json")
    found = list(misfits(row.must, answer.json()))
    assert not found, "\n".join(f"{where}: {text}" for where, text in found)
    for path, value in row.values:
        assert at(answer.json(), path) == value


def asked(world: str, api: Api, broker_url: str) -> Answers:
    """Bring the broker to a state, and ask everything there."""
    before, cleanup = WORLDS[world]
    with prepared(api, broker_url, before, cleanup) as run:
        return {name: run.send(row.request) for name, row in sorted(rows_in(world), key=declares_a_queue)}


def rows_in(world: str) -> Iterator[tuple[tuple[str, int], Row]]:
    """Every row that is asked in a world, by its program and number."""
    for consumer, rows in CONSUMERS.items():
        yield from (((consumer, number), row) for number, row in enumerate(rows) if world in row.worlds)


def declares_a_queue(named: tuple[Any, Row]) -> bool:
    """Whether a row comes late: RabbitMQ has no statistics yet of the queue of its aliveness test."""
    return named[1].request.path.startswith("/aliveness-test/")
