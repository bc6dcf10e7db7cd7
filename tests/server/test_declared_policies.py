"""Policies of the configuration, which the server sets at each start."""

from __future__ import annotations

from pathlib import Path

import pytest

from amqpd.broker.broker import Broker
from amqpd.broker.rules import QueueRules
from amqpd.config import load
from amqpd.server.startup import EXIT_CONFIG, StartError, declare_configuration
from tests.support.journals import RecordingJournal

TEXT = """
queues = [{name = "q"}]

[[policies]]
name = "p"
pattern = "^q$"
definition = {max-length = 5, expires = 1000}

[[operator_policies]]
name = "p"
pattern = ""
definition = {max-length = 3}
apply_to = "queues"
"""


def start(broker: Broker, path: Path, text: str) -> None:
    """Declare what this configuration has, as a start does."""
    path.write_text(text)
    declare_configuration(load(str(path), {}), broker)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the configuration is."""
    return tmp_path / "amqpd.toml"


@pytest.fixture
def journal() -> RecordingJournal:
    """What would be on disk."""
    return RecordingJournal()


@pytest.fixture
def broker(journal: RecordingJournal) -> Broker:
    """A broker at its first start."""
    return Broker(journal)


def test_a_declared_policy_holds_from_the_start(broker: Broker, path: Path) -> None:
    start(broker, path, TEXT)
    assert broker.vhosts["/"].queues["q"].rules == QueueRules(max_length=3, expires_ms=1_000)


def test_a_policy_that_is_stored_as_declared_is_not_written_again(
    broker: Broker, path: Path, journal: RecordingJournal
) -> None:
    start(broker, path, TEXT)
    changes = len(journal.changes)
    start(broker, path, TEXT)
    assert len(journal.changes) == changes


def test_a_policy_that_is_stored_otherwise_is_set_as_declared(broker: Broker, path: Path) -> None:
    start(broker, path, TEXT)
    start(broker, path, TEXT.replace("max-length = 3", "max-length = 2"))
    assert broker.vhosts["/"].queues["q"].rules.max_length == 2


@pytest.mark.parametrize("wrong, told", [
    (TEXT.replace("max-length = 5", "max-length = -5"),
     "line 4: policies.p: max-length: -5 is not a valid maximum length;"),
    (TEXT.replace("max-length = 3", 'overflow = "x"'),
     "line 9: operator_policies.p: overflow: 'x' is not a valid overflow"),
    (TEXT.replace('name = "p"', 'name = "p"\nvhost = "none"'), "line 4: policies.p: no vhost 'none';"),
])
def test_a_policy_that_makes_no_sense_stops_the_start(broker: Broker, path: Path, wrong: str, told: str) -> None:
    with pytest.raises(StartError) as refused:
        start(broker, path, wrong)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == EXIT_CONFIG
