"""The table of phases is the whole state machine: each transition is reachable, and nothing else changes the phase."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from pamqp.commands import Connection

import amqpd.session
from amqpd.broker.clock import Clock
from amqpd.session.handshake import ANSWERS
from amqpd.session.phases import LINGER_MS, TRANSITIONS, Event, Phase, Phases


def test_every_phase_has_a_row_and_can_be_reached() -> None:
    reached = {following for row in TRANSITIONS.values() for following in row.values()}
    assert set(TRANSITIONS) == set(Phase) == reached | {Phase.AWAIT_HEADER}


def test_every_phase_can_end() -> None:
    assert all(row[Event.END] is Phase.CLOSED for row in TRANSITIONS.values())


def test_after_the_end_nothing_begins() -> None:
    assert set(TRANSITIONS[Phase.CLOSED].values()) == {Phase.CLOSED}


def test_a_connection_that_closes_only_ends() -> None:
    assert set(TRANSITIONS[Phase.CLOSING].values()) == {Phase.CLOSED}


def test_every_method_in_the_table_is_answered_and_no_other() -> None:
    assert {kind for row in TRANSITIONS.values() for kind in row if not isinstance(kind, Event)} == set(ANSWERS)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in (Phase.OPEN, Phase.CLOSING)])
def test_a_client_can_close_only_what_is_open(phase: Phase) -> None:
    assert not TRANSITIONS[phase].keys() & {Connection.Close, Connection.CloseOk}


def test_nothing_but_the_table_changes_the_phase() -> None:
    """But for the phase that a connection begins with."""
    changed = []
    for path in sorted(Path(amqpd.session.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            targets = node.targets if isinstance(node, ast.Assign) else []
            if any(isinstance(target, ast.Attribute) and target.attr == "current" for target in targets):
                changed.append((path.name, ast.unparse(node)))
    assert changed == [
        ("phases.py", "self.current = Phase.AWAIT_HEADER"),
        ("phases.py", "self.current = TRANSITIONS[self.current][event]")]


def test_a_connection_begins_with_nothing_said_and_some_time_for_it() -> None:
    clock = Clock(1_000)
    phases = Phases(clock, 1_500)
    assert (phases.current, phases.is_over, phases.peer_closes) == (Phase.AWAIT_HEADER, False, False)
    assert not phases.is_overdue(1_499) and phases.is_overdue(1_500)
    phases.excuse(100)
    assert not phases.is_overdue(1_599) and phases.is_overdue(1_600)
    phases.say_no_more(peer_closes=True)
    assert (phases.is_over, phases.peer_closes, phases.drop_at_ms) == (True, True, 1_000 + LINGER_MS)
    phases.drop_at_ms = None
    phases.excuse(100)
    assert phases.drop_at_ms is None and not phases.is_overdue(1 << 60)
