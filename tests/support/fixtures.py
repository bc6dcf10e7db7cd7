"""Fixtures of talks. Each test that uses one runs twice: with all input at once, and octet by octet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from amqpd.session.settings import SessionSettings
from tests.support.talk import SETTINGS, Stage, Talk


@pytest.fixture(params=[0, 1], ids=["whole", "octets"])
def piece(request: pytest.FixtureRequest) -> int:
    """Return how many octets of input arrive at a time; 0 for all at once."""
    octets: int = request.param
    return octets


@pytest.fixture
def settings() -> SessionSettings:
    """The settings of the sessions; a test module overrides them where it needs others."""
    return SETTINGS


@pytest.fixture
def stage(piece: int, settings: SessionSettings, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A broker that clients can talk to."""
    stage = Stage(piece=piece, settings=settings)
    failed = request.session.testsfailed
    yield stage
    if request.session.testsfailed == failed:
        stage.assert_silent()


@pytest.fixture
def stranger(stage: Stage) -> Talk:
    """A client that has connected, and said nothing yet."""
    return stage.stranger()


@pytest.fixture
def talk(stage: Stage) -> Talk:
    """A client whose connection is open, with no channel yet."""
    return stage.client()
