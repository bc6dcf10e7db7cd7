"""amqpctl's explanations, on the control socket of a broker in another thread."""

from __future__ import annotations

import json

import click
import pytest

from amqpd import ctl
from amqpd.broker.broker import OPERATOR, Broker
from amqpd.broker.definitions import QueueDefinition
from amqpd.ctl.options import Options
from amqpd.program import print_findings
from tests.test_ctl_definitions import broker

__all__ = ["broker"]        # a fixture


def test_a_route_is_asked_for_with_headers_and_told_as_text_and_json(
    broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.vhosts["/"].declare_queue(OPERATOR, QueueDefinition(0, "/", "copy"), OPERATOR)
    assert ctl.main(["route", "", "nobody", "--header", 'CC=["copy"]', "--header", "country=de"]) == 0
    assert capsys.readouterr().out == (
        "Where a message to exchange '' with key 'nobody' goes in vhost '/' ...\n"
        "the default exchange (direct)\n"
        "└─ queue 'copy'\n"
        "        0 ready, 0 unacknowledged, no consumer\n"
        "it reaches 1 queue\n")
    assert ctl.main(["--formatter", "json", "route", "", "copy"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["queues"], answer["steps"][1]["kind"]) == (["copy"], "queue")
    assert ctl.main(["route", "", "copy", "--header", "nothing"]) == 64
    assert "a header is NAME=VALUE" in capsys.readouterr().err


def test_why_a_queue_stands_still_is_told_as_text_and_json(
    broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.vhosts["/"].declare_queue(OPERATOR, QueueDefinition(0, "/", "q"), OPERATOR)
    assert ctl.main(["why", "q", "--watch", "0"]) == 0
    assert capsys.readouterr().out == (
        "Why queue 'q' in vhost '/' stands still ...\n"
        "q: nothing has been published to it since the broker started, and it is bound to no exchange but the default "
        "one\n"
        "    remedy: amqpctl route shows where a message goes\n")
    assert ctl.main(["-q", "why", "--watch", "0"]) == 0
    assert capsys.readouterr().out == "0 queues with messages stand still, 0 move, 1 is empty\n"
    assert ctl.main(["--formatter", "json", "why", "--all", "--watch", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["queues"][0]["cause"] == "nothing_published"


@pytest.mark.parametrize(("level", "code"), [("ok", 0), ("warning", 0), ("problem", 69)])
def test_what_is_wrong_is_told_and_a_problem_is_an_exit_code(
    level: str, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = {"check": "disk", "level": level, "text": "it is full", "remedy": ""}
    monkeypatch.setattr(Options, "ask", lambda options, command: [finding] if command == "doctor" else None)
    assert ctl.main(["-q", "doctor"]) == code
    assert capsys.readouterr().out.splitlines()[0] == f"{level:<9}disk: it is full"
    assert ctl.main(["--formatter", "json", "doctor"]) == code
    assert json.loads(capsys.readouterr().out) == [finding]


@pytest.mark.parametrize("command", [["why"], ["route", "", "orders"]])
def test_an_explanation_is_an_erlang_term_if_that_is_asked_for(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Options, "ask", lambda options, name, **arguments: {"queues": [{"is_at_limit": True}]})
    assert ctl.main(["-q", "--formatter", "erlang", *command]) == 0
    assert capsys.readouterr().out == "[{queues,[[{is_at_limit,true}]]}]\n"


def test_the_worst_finding_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    findings = [{"check": "disk", "level": level, "text": level, "remedy": remedy}
                for level, remedy in (("ok", ""), ("warning", "free space"), ("problem", "more"))]
    with pytest.raises(click.exceptions.Exit):
        print_findings(findings, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "problem  disk: problem", "         remedy: more", "warning  disk: warning", "         remedy: free space",
        "ok       disk: ok", "1 problem, 1 warning"]
