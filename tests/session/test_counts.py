"""Each reason for which a message leaves its queue has its own counter."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp.commands import Basic, Queue

from amqpd.broker.definitions import PolicyDefinition
from tests.support.talk import Stage, Talk

CAUSES = ("acked", "purged", "expired", "rejected", "over_length", "over_delivery_limit", "dead_lettered", "settled")


def counts(stage: Stage) -> dict[str, int]:
    """Those of queue `q` that are not 0."""
    statistics = stage.broker.vhosts["/"].queues["q"].statistics()
    return {cause: getattr(statistics, cause) for cause in CAUSES if getattr(statistics, cause)}


def get(talk: Talk, count: int) -> list[int]:
    tags = []
    for _ in range(count):
        talk.client(Basic.Get(queue="q"))
        tags.append(talk.hear(Basic.GetOk).delivery_tag)
    return tags


def ack(talk: Talk) -> None:
    talk.client(Basic.Ack(get(talk, 2)[-1], multiple=True))


def reject(talk: Talk) -> None:
    talk.client(Basic.Nack(get(talk, 2)[-1], multiple=True, requeue=False))


def purge(talk: Talk) -> None:
    talk.client(Queue.Purge(queue="q")).broker(Queue.PurgeOk(3))


def wait(talk: Talk) -> None:
    talk.stage.pass_time(10)


def fail(talk: Talk) -> None:
    for _ in range(2):
        talk.client(Basic.Nack(get(talk, 1)[-1], requeue=True))


def shorten(talk: Talk) -> None:
    talk.stage.broker.vhosts["/"].followers.set_policy(PolicyDefinition("/", "short", "^q$", {"max-length": 1}))
    talk.stage.end_turn()


@pytest.mark.parametrize("is_wanted", [False, True], ids=["dropped", "dead-lettered"])
@pytest.mark.parametrize("arguments, act, cause, count", [
    ({}, ack, "acked", 2),
    ({}, reject, "rejected", 2),
    ({}, purge, "purged", 3),
    ({"x-message-ttl": 5_000}, wait, "expired", 3),
    ({"x-delivery-limit": 1}, fail, "over_delivery_limit", 1),
    ({}, shorten, "over_length", 2),
])
def test_each_cause_is_counted(
    stage: Stage, arguments: dict[str, Any], act: Any, cause: str, count: int, *, is_wanted: bool
) -> None:
    talk = stage.client().open_channel()
    if is_wanted:
        arguments = {**arguments, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    talk.client(Queue.Declare(queue="q", arguments=arguments)).broker(Queue.DeclareOk("q", 0, 0))
    talk.client(Queue.Declare(queue="dead")).broker(Queue.DeclareOk("dead", 0, 0))
    talk.publish("q", b"a", b"b", b"c")
    act(talk)
    expected = {cause: count, "settled": count}
    if is_wanted and cause not in ("acked", "purged"):
        expected["dead_lettered"] = count
    assert counts(stage) == expected
