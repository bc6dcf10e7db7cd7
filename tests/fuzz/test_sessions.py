"""Sessions of the fuzzer, 5,000 in a proof; and the fuzzer itself: its coverage, and that it detects faults."""

from __future__ import annotations

from collections import Counter

import pytest

from amqpd.broker.queue.queue import Outcome, Queue
from conformance import methods
from tests.fuzz.grammar import Session
from tests.fuzz.stage import FuzzStage, play_all
from tests.fuzz.talker import Talker
from tests.support.sizes import sized

SESSIONS = sized(96, 5_000, "SESSIONS")
PARTS = sized(12, 20)


@pytest.mark.proof
@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(PARTS))
def test_no_session_does_harm(part: int) -> None:
    size = SESSIONS // PARTS
    faults = play_all(range(part * size, (part + 1) * size), min(50, size))
    assert not faults, "\n".join(f"seed {seed}: {fault}" for seed, fault in faults.items())


def test_the_same_seed_makes_the_same_session() -> None:
    first, second = ([step for step in Session(7, "u", "p", "/").steps()] for _ in range(2))
    assert first == second and len(first) > 5


def test_sessions_go_far_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: Counter[str] = Counter()
    hear = Talker.hear

    def count(self: Talker, channel: int, ids: tuple[int, int], arguments: bytes) -> None:
        heard[methods.name(*ids)] += 1
        hear(self, channel, ids, arguments)

    monkeypatch.setattr(Talker, "hear", count)
    assert not play_all(range(25))
    few = {name: count for name, count in heard.items() if count < 10}
    for name in ("basic.deliver", "basic.get-ok", "basic.ack", "basic.return", "tx.commit-ok", "queue.bind-ok",
                 "channel.close", "connection.close", "exchange.bind-ok", "basic.consume-ok", "connection.secure",
                 "connection.tune"):
        assert heard[name] >= 10, f"only {few} were heard"


def test_an_exception_in_the_broker_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Queue, "requeue", lambda *_: 1 / 0)
    faults = next(faults for seed in range(20) if (faults := play_all([seed])))
    assert any("ZeroDivisionError" in fault for fault in faults.values()), faults


def test_a_message_that_is_lost_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = FuzzStage()
    monkeypatch.setattr(Queue, "publish", lambda *_, **__: Outcome())
    with pytest.raises(AssertionError):
        for seed in range(20):
            stage.play(seed)
