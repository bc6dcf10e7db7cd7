"""The commands of amqpctl on messages, against a fake control socket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from amqpd import ctl
from tests.test_ctl import FakeBroker, broker

__all__ = ["broker"]        # a fixture

ONE: dict[str, Any] = {
    "offset": 0, "id": 7, "exchange": "", "routing_key": "q", "redelivered": False, "delivery_count": 2,
    "persistent": True, "properties": {"headers": {"a": 1}}, "payload_bytes": 2, "payload_encoding": "string",
    "payload": "hi", "truncated": False}
NO_SELECTION = {"ids": None, "filter": {}, "limit": None, "everything": False, "dry_run": False}
DONE = {"matched": 1_200, "matched_bytes": 1, "dry_run": False, "stopped": None}


def page(*records: dict[str, Any], cursor: str | None = None, ready: int = 1) -> dict[str, Any]:
    return {"messages": [*records], "offset": 0, "scanned": len(records), "next_offset": len(records),
            "cursor": cursor, "ready": ready}


def test_a_peek_is_a_table_that_says_how_it_goes_on(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.gives(page(ONE, cursor="0:7", ready=30))
    assert ctl.main(["peek", "q", "--offset", "5", "--header", "a=1", "--header", "b", "--json", "$.a=1"]) == 0
    assert broker.asked == [{"command": "peek", "arguments": {
        "vhost": "/", "queue": "q", "offset": 5, "count": 10, "truncate": 50_000, "scan": 10_000,
        "filter": {"header": ["a=1", "b"], "json": ["$.a=1"]}}}]
    assert capsys.readouterr().out == (
        "Peeking at queue 'q' in vhost '/' ...\n"
        "offset\tid\trouting_key\tdelivery_count\tpayload_bytes\tpayload\n0\t7\tq\t2\t2\thi\n"
        "30 messages in all: go on with --offset 1\n")


def test_a_peek_has_everything_in_json(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.gives(page(ONE))
    assert ctl.main(["peek", "q", "--formatter", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [ONE]
    assert ctl.main(["peek", "q", "colour"]) == 65


def test_an_export_asks_until_it_has_all(
    broker: FakeBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [page(ONE, ONE, cursor="0:8"), page(ONE | {"payload": "ü"})]
    monkeypatch.setattr(broker, "answer", None)
    monkeypatch.setattr(
        "amqpd.ctl.client.ask", lambda path, command, arguments, **_: broker.asked.append(arguments) or answers.pop(0))
    assert ctl.main(["export_messages", "q", str(tmp_path / "out"), "--text", "x"]) == 0
    lines = (tmp_path / "out").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["payload"] for line in lines] == ["hi", "hi", "ü"]
    assert [(one["cursor"], one["filter"]) for one in broker.asked] == [(None, {"text": "x"}), ("0:8", {"text": "x"})]
    assert "3 messages written to" in capsys.readouterr().out
    answers.append(page(ONE, cursor="0:7"))
    assert ctl.main(["export_messages", "q", "--limit", "1"]) == 0
    assert json.loads(capsys.readouterr().out) == ONE
    assert ctl.main(["export_messages", "q", str(tmp_path / "out")]) == 65
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize("words, command, arguments", [
    (["move", "q", "--to-queue", "r", "--all"], "move", {
        "to_queue": "r", "to_exchange": None, "routing_key": None, "everything": True}),
    (["move", "q", "--to-exchange", "e", "--routing-key", "k", "--limit", "5", "--key", "old"], "move", {
        "to_queue": None, "to_exchange": "e", "routing_key": "k", "limit": 5, "filter": {"routing_key": "old"}}),
    (["retry", "q", "--last", "--reason", "expired", "--min-deliveries", "0"], "retry", {
        "last": True, "forget_deaths": False, "filter": {"reason": "expired", "min_deliveries": 0}}),
    (["delete_messages", "q", "--id", "3", "--id", "4"], "delete_messages", {"ids": [3, 4]}),
    (["delete_messages", "q", "--property", "type=x", "--older-than", "60", "--dry-run"], "delete_messages", {
        "filter": {"property": ["type=x"], "older_than": 60.0}, "dry_run": True}),
])
def test_selections_are_asked_of_the_broker(
    broker: FakeBroker, words: list[str], command: str, arguments: dict[str, Any]
) -> None:
    broker.gives(DONE | {"moved": 1, "deleted": 1})
    assert ctl.main(words) == 0
    assert broker.asked == [{
        "command": command, "arguments": {"vhost": "/", "queue": "q"} | NO_SELECTION | arguments}]


@pytest.mark.parametrize("result, told, code", [
    ({"moved": 1_200}, "1,200 of 1,200 messages of 1 byte moved\n", 0),
    ({"moved": 0, "dry_run": True}, "1,200 messages of 1 byte would be moved\n", 0),
    ({"moved": 1_190, "full": 9, "unroutable": 1}, "1,190 of 1,200 messages of 1 byte moved\n"
     "9 messages: a target is full and refuses publishes\n1 message: no queue is bound for it\n", 0),
    ({"moved": 1_200, "gone": [5, 9]}, "1,200 of 1,200 messages of 1 byte moved\n"
     "2 ids of no message that is ready now: 5, 9\n", 0),
    ({"moved": 5, "stopped": "queue 'r' has been deleted"}, "5 of 1,200 messages of 1 byte moved\n", 69),
])
def test_what_was_done_is_told(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str], result: dict[str, Any], told: str, code: int
) -> None:
    broker.gives(DONE | result)
    assert ctl.main(["-q", "move", "q", "--to-queue", "r", "--all"]) == code
    assert capsys.readouterr().out == told
    assert ctl.main(["--formatter", "json", "move", "q", "--to-queue", "r", "--all"]) == code
    assert json.loads(capsys.readouterr().out) == DONE | result
