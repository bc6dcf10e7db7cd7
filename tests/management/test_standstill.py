"""Why queues stand still: each cause, made by clients, and what is told of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from pamqp.commands import Basic, Queue

from amqpd.broker.definitions import PolicyDefinition
from amqpd.ctl.explanations import standstill_lines
from amqpd.exit_codes import EXIT_DATA, EXIT_UNAVAILABLE
from amqpd.management.explain_commands import ExplainCommands
from amqpd.management.explaining.standstill import Explained
from amqpd.management.explaining.survey import StandstillSurvey, Survey
from amqpd.management.refusal import Refusal
from tests.management.desk import NoAlarms
from tests.support.talk import Stage, Talk

MINUTES_14 = 14 * 60


class FakeAlarms(NoAlarms):
    """Alarms that are raised as a test wants it."""

    raised: list[dict[str, str]] = []

    def statistics(self) -> dict[str, Any]:
        return {"alarms": self.raised}


def nothing() -> None:
    """Do nothing."""


def look(
    stage: Stage, *names: str, is_all: bool = True, alarm: str = "", meanwhile: Callable[[], object] = nothing,
    most_told: int = 1_000,
) -> Survey:
    """Survey these queues, or all; `meanwhile` is done between the two readings."""
    async def sleep(seconds: float) -> None:
        if seconds:
            meanwhile()

    watch = StandstillSurvey(stage.broker, stage.broker.vhosts["/"], alarm, 1.0, sleep, most_told=most_told)
    return asyncio.run(watch.look([*names] or None, is_all=is_all))


def only(stage: Stage, name: str = "q", alarm: str = "") -> Explained:
    """Why this queue stands still."""
    found, = look(stage, name, alarm=alarm).queues
    return found


@pytest.fixture
def stage() -> Stage:
    """A broker."""
    return Stage()


@pytest.fixture
def talk(stage: Stage) -> Talk:
    """A client with a queue `q`."""
    talk = stage.client().open_channel()
    declare(talk, "q")
    return talk


def declare(talk: Talk, name: str, **arguments: object) -> None:
    """Declare a queue with these arguments."""
    table: dict[str, object] = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    talk.client(Queue.Declare(queue=name, arguments=table)).hear(Queue.DeclareOk)       # type: ignore[arg-type]


def consume(talk: Talk, name: str = "q", *, prefetch: int = 1, is_shared: bool = False, tag: str = "worker") -> Talk:
    """Start a consumer with this prefetch; it acks nothing."""
    talk.client(Basic.Qos(prefetch_count=prefetch, global_=is_shared)).hear(Basic.QosOk)
    talk.client(Basic.Consume(queue=name, consumer_tag=tag)).hear(Basic.ConsumeOk)
    return talk


# With messages

def test_a_queue_without_a_consumer(stage: Stage, talk: Talk) -> None:
    talk.publish("q", b"one", b"two")
    found = only(stage)
    assert (found.cause, found.ready, found.remedy) == ("no_consumer", 2, "start a consumer")
    assert found.sentence == (
        "2 messages are ready, and there is no consumer: nobody has consumed from it since the start")
    consume(talk, prefetch=1).client(Basic.Cancel("worker"))
    assert only(stage).sentence == (
        "1 message is ready, and there is no consumer: its last consumer has gone; the oldest is unacknowledged for "
        "0 ms, by consumer 'worker' of user 'guest' on 10.0.0.1:40000 -> 10.0.0.2:5672, channel 1")
    talk.hear_all()


def test_a_full_queue_without_a_consumer_refuses_publishes(stage: Stage, talk: Talk) -> None:
    declare(talk, "full", max_length=1, overflow="reject-publish")
    talk.publish("full", b"one")
    assert "it is full, so publishes are refused" in only(stage, "full").sentence


def test_consumers_that_have_used_their_prefetch_and_who_holds_the_oldest(stage: Stage, talk: Talk) -> None:
    consume(talk, prefetch=2).publish("q", b"one", b"two", b"three")
    stage.pass_time(MINUTES_14)
    found = only(stage)
    assert (found.cause, found.ready, found.unacked, found.consumers) == ("prefetch_used", 1, 2, 1)
    assert found.held_ms is not None and found.held_ms // 60_000 == 14
    assert found.held_by is not None
    assert (found.held_by.user, found.held_by.channel, found.held_by.consumer_tag) == ("guest", 1, "worker")
    assert found.sentence == (
        "1 message is ready, but its consumer has used its prefetch (2); the oldest is unacknowledged for 14 min, by "
        "consumer 'worker' of user 'guest' on 10.0.0.1:40000 -> 10.0.0.2:5672, channel 1")
    consume(stage.client("bob").open_channel(), prefetch=1).publish("q", b"four", b"five").hear_all()
    assert only(stage).sentence.startswith("2 messages are ready, but its 2 consumers have used their prefetch (2); ")
    talk.hear_all()


def test_a_prefetch_that_is_shared_by_a_channel(stage: Stage, talk: Talk) -> None:
    declare(talk, "other")
    consume(talk, "other", prefetch=1, is_shared=True, tag="first").publish("other", b"one")
    talk.hear_all()
    consume(talk, "q", prefetch=1, is_shared=True).publish("q", b"two")
    stage.pass_time(60)
    found = only(stage)
    assert found.cause == "channel_prefetch_used"
    assert "a channel share; the oldest is unacknowledged for 1 min, by consumer 'first' of" in found.sentence
    talk.hear_all()


def test_the_limit_of_unacked_messages_without_a_prefetch() -> None:
    plain = Stage()
    stage = Stage(settings=replace(plain.settings, unacked_limit=2))
    talk = stage.client().open_channel()
    declare(talk, "q")
    consume(talk, prefetch=0).publish("q", b"one", b"two", b"three").hear_all()
    found = only(stage)
    assert found.cause == "unacked_limit" and "has 2 unacknowledged messages" in found.sentence


def test_a_client_that_does_not_read(stage: Stage, talk: Talk) -> None:
    consume(talk, prefetch=10).stop_reading().publish("q", b"one")
    found = only(stage)
    assert found.cause == "back_pressure" and "its consumer does not read" in found.sentence
    talk.read_on().hear_all()


def test_a_single_active_consumer_that_is_elsewhere(stage: Stage, talk: Talk) -> None:
    declare(talk, "one", single_active_consumer=True)
    consume(talk, "one", prefetch=1, tag="active")
    consume(stage.client("bob").open_channel(), "one", prefetch=5, tag="idle")
    talk.publish("one", b"one", b"two").hear_all()
    found = only(stage, "one")
    assert found.cause == "single_active_consumer"
    assert found.sentence.startswith("1 message is ready, but its single active consumer 'active' has used its prefet")
    assert found.sentence.endswith("; 1 other consumer only waits")


def test_messages_that_clients_have_and_do_not_acknowledge(stage: Stage, talk: Talk) -> None:
    talk.publish("q", b"one").client(Basic.Get(queue="q")).hear(Basic.GetOk)
    found = only(stage)
    assert (found.cause, found.ready, found.unacked) == ("unacked", 0, 1)
    assert "by basic.get of user 'guest'" in found.sentence


def test_a_paused_queue(stage: Stage, talk: Talk) -> None:
    talk.publish("q", b"one")
    queue = stage.broker.vhosts["/"].queues["q"]
    queue.definition = replace(queue.definition, is_paused=True)
    assert only(stage).cause == "paused"


def test_dead_letters_that_find_no_room(stage: Stage, talk: Talk) -> None:
    declare(talk, "full", max_length=1, overflow="reject-publish")
    talk.publish("full", b"one")
    talk.client(Queue.Declare(queue="work", durable=True, arguments={
        "x-queue-type": "quorum", "x-overflow": "reject-publish", "x-message-ttl": 500,
        "x-dead-letter-strategy": "at-least-once", "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "full"})).hear(Queue.DeclareOk)
    stage.broker.vhosts["/"].followers.set_policy(
        PolicyDefinition("/", "sure", "^work$", {"dead-letter-strategy": "at-least-once"}))
    talk.publish("work", b"two", persistent=True)
    stage.pass_time(2)
    found = only(stage, "work")
    assert found.cause == "dead_letters" and "wait for room behind exchange ''" in found.sentence


# Without messages

def test_an_empty_queue_says_what_it_waits_for(stage: Stage, talk: Talk) -> None:
    assert only(stage).sentence == (
        "nothing has been published to it since the broker started, and it is bound to no exchange but the default one")
    talk.publish("q", b"one").client(Basic.Get(queue="q", no_ack=True)).hear(Basic.GetOk)
    assert only(stage).sentence == "it is empty, and nothing was published to it in 1 s"
    assert only(stage, alarm="low on disk").cause == "alarm"
    stage.broker.is_behind = True
    assert only(stage).cause == "memory"


# Which are told

def test_only_queues_with_messages_that_do_not_move_are_told(stage: Stage, talk: Talk) -> None:
    for name in ("stands", "moves", "comes"):
        declare(talk, name)
    talk.publish("stands", b"one").publish("moves", *[b"two"] * 5)

    def work() -> None:
        talk.client(Basic.Get(queue="moves", no_ack=True)).publish("stands", b"three")
        talk.publish("comes", b"four").hear_all()

    found = look(stage, is_all=False, meanwhile=work)
    assert [one.queue for one in found.queues] == ["stands", "comes"]      # nothing leaves either
    assert (found.standing, found.moving, found.empty) == (2, 1, 1)
    named = look(stage, "moves", meanwhile=work).queues[0]
    assert (named.cause, named.sentence) == ("moves", "it moves: 1 fetched by basic.get, 1 removed in all in 1 s")


def test_an_answer_has_so_many_queues_at_most(stage: Stage, talk: Talk) -> None:
    for number in range(5):
        declare(talk, f"q{number}")
        talk.publish(f"q{number}", b"one")
    found = look(stage, is_all=False, most_told=2)
    assert (len(found.queues), found.left_out, found.standing) == (2, 3, 5)


def test_a_queue_that_is_deleted_meanwhile_is_left_out(stage: Stage, talk: Talk) -> None:
    talk.publish("q", b"one")
    assert not look(stage, "q", meanwhile=lambda: talk.client(Queue.Delete(queue="q")).hear(Queue.DeleteOk)).queues


def test_the_command_refuses_what_it_cannot_do(stage: Stage, talk: Talk) -> None:
    commands = ExplainCommands(stage.broker)
    for asked, text, code in (
        ({"queue": "none"}, "not_found: no queue 'none' in vhost '/'", EXIT_UNAVAILABLE),
        ({"watched_s": 31}, "queues are watched for 0 to 30 s", EXIT_DATA),
    ):
        with pytest.raises(Refusal) as refusal:
            asyncio.run(commands.explain_queues("/", **asked))      # type: ignore[arg-type]
        assert (str(refusal.value), refusal.value.exit_code) == (text, code)
    assert asyncio.run(commands.explain_queues("/", "q", watched_s=0)).queues[0].cause == "nothing_published"


def test_an_alarm_is_told_with_the_connections_that_it_blocks(stage: Stage, talk: Talk) -> None:
    stage.set_alarm("low on disk")
    talk.publish("q", b"one")
    stage.client("bob")         # has not published
    alarms = FakeAlarms()
    commands = ExplainCommands(stage.broker, alarms)
    alarms.raised = [{"resource": "disk"}, {"resource": "memory"}]
    found = asyncio.run(commands.explain_queues("/", "q", watched_s=0))
    assert (found.alarm, found.blocked_connections) == ("low on disk & low on memory", 1)
    assert found.queues[0].cause == "alarm"
    alarms.raised = []
    assert not asyncio.run(commands.explain_queues("/", "q", watched_s=0)).alarm
    talk.hear_all()


def test_it_is_told_in_sentences(stage: Stage, talk: Talk) -> None:
    talk.publish("q", b"one")
    found = json.loads(msgspec.json.encode(look(stage, is_all=False, alarm="low on disk")))
    assert [*standstill_lines(found, is_one=False)] == [
        "publishers are blocked by an alarm: low on disk; 0 connections wait",
        "q: 1 message is ready, and there is no consumer: nobody has consumed from it since the start",
        "    remedy: start a consumer",
        "1 queue with messages stands still, 0 move, 0 are empty"]
