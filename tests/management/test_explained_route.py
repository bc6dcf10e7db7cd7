"""Where a message would go: what `explain_route` tells is what a publish does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp.commands import Basic

from amqpd.broker.broker import OPERATOR, Broker
from amqpd.broker.definitions import (
    BindingDefinition,
    ExchangeDefinition,
    PermissionDefinition,
    PolicyDefinition,
    QueueDefinition,
    TopicPermissionDefinition,
)
from amqpd.broker.vhost import Vhost
from amqpd.ctl.explanations import route_lines
from amqpd.management.explain_commands import ExplainCommands
from amqpd.management.explaining.route import ExplainedRoute, RouteExplanation
from amqpd.management.explaining.route_steps import DeadLetterStep, ExchangeStep, QueueStep, ReplyStep
from amqpd.management.refusal import Refusal
from tests.support.talk import Stage

EXCHANGES, QUEUES = ["one", "two", "three"], ["p", "q", "r", "s"]
KEYS = ["", "a", "a.b", "b", "q"]
PATTERNS = [*KEYS, "#", "*.b", "a.#"]
headers = st.dictionaries(st.sampled_from(["h", "k", "x-y"]), st.sampled_from([1, 2, "v", True, None]), max_size=2)
matches = st.builds(
    lambda table, way: {**table, "x-match": way}, headers, st.sampled_from(["all", "any", "any-with-x"]))
ends = st.one_of(st.tuples(st.just("queue"), st.sampled_from(QUEUES)),
                 st.tuples(st.just("exchange"), st.sampled_from(EXCHANGES)))


def explain(broker: Broker, exchange: str, key: str, **asked: Any) -> ExplainedRoute:
    """What the command answers."""
    return asyncio.run(ExplainCommands(broker).explain_route("/", exchange, key, **asked))


def exchange(vhost: Vhost, name: str, kind: str = "topic", **arguments: Any) -> None:
    """Declare an exchange."""
    vhost.declare_exchange(OPERATOR, ExchangeDefinition("/", name, kind, arguments=arguments))


def queue(vhost: Vhost, name: str, **arguments: Any) -> None:
    """Declare a queue."""
    vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", name, arguments=arguments), OPERATOR)


def bind(vhost: Vhost, source: str, name: str, key: str = "", kind: Any = "queue", **arguments: Any) -> None:
    """Add a binding."""
    vhost.bind(OPERATOR, BindingDefinition("/", source, kind, name, key, arguments), OPERATOR)


@pytest.fixture
def stage() -> Stage:
    """A broker with clients."""
    return Stage()


@pytest.fixture
def vhost(stage: Stage) -> Vhost:
    """Its vhost."""
    return stage.broker.vhosts["/"]


def lines(answer: ExplainedRoute) -> list[str]:
    """The steps in short."""
    shown = []
    for step in answer.steps:
        name = step.exchange if isinstance(step, DeadLetterStep) else step.name
        bindings = [one.routing_key for one in getattr(step, "bindings", ())]
        shown.append(f"{'  ' * step.depth}{type(step).__name__.removesuffix('Step')} {name}"
                     f"{' ' + ' '.join(map(repr, bindings)) if bindings else ''}")
    return shown


# What is told is what happens

@settings(max_examples=40)
@given(st.data())
def test_the_queues_that_are_named_are_those_that_a_publish_reaches(data: st.DataObject) -> None:
    stage = Stage()
    vhost = stage.broker.vhosts["/"]
    for name in EXCHANGES:
        kind = data.draw(st.sampled_from(["direct", "fanout", "topic", "headers"]))
        alternate = data.draw(st.sampled_from([None, *EXCHANGES, "missing"]))
        exchange(vhost, name, kind, **({"alternate-exchange": alternate} if alternate else {}))
    for name in QUEUES:
        arguments: dict[str, Any] = {}
        if data.draw(st.booleans()):
            dead = data.draw(st.sampled_from(["", *EXCHANGES]))
            arguments = {"x-message-ttl": 1_000, "x-dead-letter-exchange": dead}
            if dead_key := data.draw(st.sampled_from([None, *KEYS])):
                arguments["x-dead-letter-routing-key"] = dead_key
        queue(vhost, name, **arguments)
    for _ in range(data.draw(st.integers(0, 10))):
        kind, name = data.draw(ends)
        arguments = data.draw(st.one_of(st.just({}), matches))
        source, pattern = data.draw(st.sampled_from(EXCHANGES)), data.draw(st.sampled_from(PATTERNS))
        bind(vhost, source, name, pattern, kind, **arguments)
    start, key = data.draw(st.sampled_from(["", *EXCHANGES])), data.draw(st.sampled_from(KEYS))
    table: dict[str, Any] = dict(data.draw(headers))
    if data.draw(st.booleans()):
        table[data.draw(st.sampled_from(["CC", "BCC"]))] = [data.draw(st.sampled_from(KEYS))]

    answer = explain(stage.broker, start, key, headers=table, user="guest")

    talk = stage.client().open_channel()
    talk.publish(key, b"body", exchange=start, properties=Basic.Properties(headers=table))
    reached = {name for name, one in vhost.queues.items() if len(one.ready)}
    assert set(answer.queues) == reached
    assert answer.queue_count == len(reached) and not answer.is_cut and not answer.refused
    first_deaths = [at for at, step in enumerate(answer.steps) if isinstance(step, DeadLetterStep)]
    told = {step.name for step in answer.steps[: min(first_deaths, default=len(answer.steps))]
            if isinstance(step, QueueStep)}
    assert told <= reached
    for step in answer.steps:       # whoever came by a binding came by one that matches
        if isinstance(step, (QueueStep, ExchangeStep)) and step.by == "binding":
            assert step.bindings and all(one.matched_keys for one in step.bindings)

    # After a time to live, and what follows from it, the message is only where the steps say.
    stage.pass_time(10)
    named = {step.name for step in answer.steps if isinstance(step, QueueStep)}
    assert {name for name, one in vhost.queues.items() if one.statistics().published} == named


def test_each_step_is_told_from_the_exchange_to_the_dead_letters(stage: Stage, vhost: Vhost) -> None:
    exchange(vhost, "events")
    exchange(vhost, "europe", "headers")
    exchange(vhost, "dead", "fanout")
    queue(vhost, "audit", **{"x-max-length": 1, "x-dead-letter-exchange": "dead"})
    queue(vhost, "german")
    queue(vhost, "graves")
    bind(vhost, "events", "audit", "order.#")
    bind(vhost, "events", "audit", "#.new")
    bind(vhost, "events", "audit", "other")
    bind(vhost, "events", "europe", "*.eu.*", "exchange")
    bind(vhost, "europe", "german", **{"country": "de", "x-match": "any"})
    bind(vhost, "dead", "graves")
    stage.client().open_channel().publish("audit", b"one")

    answer = explain(stage.broker, "events", "order.eu.new", headers={"country": "de", "n": 1})

    assert lines(answer) == [
        "Exchange events",
        "  Queue audit 'order.#' '#.new'",
        "    DeadLetter dead",
        "      Exchange dead",
        "        Queue graves ''",
        "  Exchange europe '*.eu.*'",
        "    Queue german ''"]
    assert answer.queues == ["audit", "german"]
    audit, dead = answer.steps[1:3]
    assert isinstance(audit, QueueStep) and isinstance(dead, DeadLetterStep)
    assert (audit.ready, audit.max_length, audit.overflow, audit.is_at_limit) == (1, 1, "drop-head", True)
    assert (dead.causes, dead.routing_keys, dead.is_own_key) == (["maxlen", "rejected"], ["order.eu.new"], True)
    german = answer.steps[-1]
    assert isinstance(german, QueueStep)
    assert german.bindings[0].arguments == {"country": "de", "x-match": "any"}


def test_an_alternate_exchange_and_the_policy_that_names_it_are_told(stage: Stage, vhost: Vhost) -> None:
    exchange(vhost, "events", "direct")
    exchange(vhost, "rest", "fanout")
    queue(vhost, "left")
    bind(vhost, "rest", "left")
    vhost.followers.set_policy(PolicyDefinition("/", "spill", "^events$", {"alternate-exchange": "rest"}))
    stage.end_turn()
    events, rest, left = explain(stage.broker, "events", "nobody").steps
    assert isinstance(events, ExchangeStep) and isinstance(rest, ExchangeStep) and isinstance(left, QueueStep)
    assert (events.policy, events.alternate_exchange, events.is_unrouted) == ("spill", "rest", True)
    assert (rest.by, left.by) == ("alternate exchange", "binding")

    vhost.delete_exchange(OPERATOR, "rest")
    events, = explain(stage.broker, "events", "nobody").steps
    assert isinstance(events, ExchangeStep) and not events.has_alternate_exchange


def test_a_cycle_of_dead_letters_is_followed_once(stage: Stage, vhost: Vhost) -> None:
    queue(vhost, "work", **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "wait"})
    queue(vhost, "wait", **{
        "x-message-ttl": 500, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "work"})
    answer = explain(stage.broker, "", "work")      # a retry: consumers reject, and the message waits
    assert [step.cycle for step in answer.steps if isinstance(step, QueueStep)] == ["", "", "goes on"]

    queue(vhost, "loop", **{
        "x-message-ttl": 500, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "loop"})
    answer = explain(stage.broker, "", "loop")      # nobody rejects, so it ends
    assert [step.cycle for step in answer.steps if isinstance(step, QueueStep)] == ["", "ends"]


def test_dead_letters_without_an_exchange_end_there(stage: Stage, vhost: Vhost) -> None:
    queue(vhost, "q", **{"x-dead-letter-exchange": "missing"})
    dead = explain(stage.broker, "", "q").steps[-1]
    assert isinstance(dead, DeadLetterStep) and not dead.exists


def test_dead_letters_are_routed_without_bcc_and_by_the_headers_of_their_death(stage: Stage, vhost: Vhost) -> None:
    exchange(vhost, "dead", "headers")
    queue(vhost, "work", **{"x-dead-letter-exchange": "dead"})
    queue(vhost, "again", **{"x-dead-letter-exchange": ""})
    queue(vhost, "copy")
    bind(vhost, "dead", "again", **{"x-first-death-queue": "work", "x-match": "any-with-x"})
    answer = explain(stage.broker, "", "work", headers={"BCC": ["copy"]})
    assert answer.queues == ["copy", "work"]
    assert lines(answer)[-7:] == [
        "  Queue work",
        "    DeadLetter dead",
        "      Exchange dead",
        "        Queue again ''",
        "          DeadLetter ",
        "            Exchange ",
        "              Queue work"]


# Rights

@pytest.mark.parametrize(("write", "topics", "refused"), [
    ("^events$", None, ""),
    ("^other$", None, "ACCESS_REFUSED - access to exchange 'events' in vhost '/' refused for user 'bob'"),
    ("^events$", "^a", ""),
    ("^events$", "^b",
     "ACCESS_REFUSED - access to topic 'a.b' in exchange 'events' in vhost '/' refused for user 'bob'"),
])
def test_the_rights_of_a_user_are_those_of_a_publish(
    stage: Stage, vhost: Vhost, write: str, topics: str | None, refused: str
) -> None:
    exchange(vhost, "events")
    queue(vhost, "q")
    bind(vhost, "events", "q", "#")
    stage.broker.users.set_permissions(PermissionDefinition("bob", "/", "", write, ""))
    if topics is not None:
        stage.broker.users.set_topic_permissions(TopicPermissionDefinition("bob", "/", "events", topics, ""))
    answer = explain(stage.broker, "events", "a.b", user="bob")
    assert answer.refused == refused and answer.queues == ([] if refused else ["q"])
    assert answer.rights is not None
    assert (answer.rights.write_pattern, answer.rights.topic_pattern) == (write, topics)
    talk = stage.client("bob").open_channel().publish("a.b", b"body", exchange="events")
    if refused:
        talk.closed(403, refused, 60, 40)
    assert len(vhost.queues["q"].ready) == (not refused)


def test_whoever_may_not_enter_and_what_nobody_may_do_is_told(stage: Stage, vhost: Vhost) -> None:
    stage.broker.users.clear_permissions("bob", "/")
    assert explain(stage.broker, "", "q", user="bob").refused == (
        "NOT_ALLOWED - access to vhost '/' refused for user 'bob'")
    assert explain(stage.broker, "missing", "q").refused == "NOT_FOUND - no exchange 'missing' in vhost '/'"
    assert explain(stage.broker, "amq.rabbitmq.trace", "q").refused.startswith("ACCESS_REFUSED - cannot publish")
    assert explain(stage.broker, "", "q", headers={"CC": "q"}).refused.startswith("PRECONDITION_FAILED - ")


@pytest.mark.parametrize(("asked", "error"), [
    ({"exchange": "", "routing_key": "k" * 256}, "this cannot be published: "),
    ({"exchange": "", "routing_key": "k", "headers": {"h": 1 << 70}}, "this cannot be published: "),
    ({"exchange": "", "routing_key": "k", "user": "nobody"}, '{:no_such_user, "nobody"}'),
    ({"exchange": "", "routing_key": "k", "most_steps": 0}, "the number of steps has to be from 1 to 500"),
])
def test_what_cannot_be_asked_is_refused(stage: Stage, asked: dict[str, Any], error: str) -> None:
    with pytest.raises(Refusal) as refusal:
        asyncio.run(ExplainCommands(stage.broker).explain_route("/", **asked))
    assert str(refusal.value).startswith(error)


def test_a_direct_reply_is_told(stage: Stage) -> None:
    talk = stage.client().open_channel()
    talk.client(Basic.Consume(queue="amq.rabbitmq.reply-to", no_ack=True)).hear(Basic.ConsumeOk)
    address, = stage.broker.vhosts["/"].reply_subscribers
    answer = explain(stage.broker, "", address)
    assert [type(step) for step in answer.steps] == [ReplyStep] and not answer.queues


# Bounds

def test_a_wide_route_is_cut_and_says_so(stage: Stage, vhost: Vhost) -> None:
    exchange(vhost, "all", "fanout")
    for number in range(20):
        queue(vhost, f"q{number}")
        bind(vhost, "all", f"q{number}")
    answer = explain(stage.broker, "all", "", most_steps=10)
    assert (len(answer.steps), answer.is_cut, answer.queue_count) == (10, True, 20)
    assert not explain(stage.broker, "all", "", most_steps=21).is_cut


def test_dead_letters_to_very_many_queues_are_followed_only_so_often(stage: Stage, vhost: Vhost) -> None:
    exchange(vhost, "all", "fanout")
    for number in range(400):
        queue(vhost, f"q{number}", **{"x-dead-letter-exchange": "all"})
        bind(vhost, "all", f"q{number}")
    found = asyncio.run(RouteExplanation(vhost, most_reached=1_000).explain("all", "", {}, None))
    assert sum(isinstance(step, DeadLetterStep) for step in found.steps) >= 3
    assert sum(isinstance(step, ExchangeStep) for step in found.steps) == 3       # each leads to 400 queues
    assert (found.is_cut, found.queue_count) == (True, 400)


def test_a_chain_of_exchanges_that_leads_back_ends(stage: Stage, vhost: Vhost) -> None:
    count = 300
    for number in range(count):
        exchange(vhost, f"x{number}", "fanout")
    for number in range(count):
        bind(vhost, f"x{number}", f"x{(number + 1) % count}", kind="exchange")
    answer = explain(stage.broker, "x0", "")
    assert len(answer.steps) == count + 1
    last = answer.steps[-1]
    assert isinstance(last, ExchangeStep) and last.is_shown_above and last.name == "x0"


def test_of_many_bindings_the_first_are_shown_and_others_are_served_meanwhile(stage: Stage, vhost: Vhost) -> None:
    exchange(vhost, "events")
    queue(vhost, "q")
    for number in range(400):
        bind(vhost, "events", "q", f"other.{number}")
    for number in range(10):
        bind(vhost, "events", "q", f"#.{'a.' * number}#")
    turns = 0

    async def ask() -> ExplainedRoute:
        nonlocal turns
        task = asyncio.ensure_future(ExplainCommands(stage.broker).explain_route("/", "events", "a" + 10 * ".a"))
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
        return task.result()

    step = asyncio.run(ask()).steps[1]
    assert isinstance(step, QueueStep)
    assert (len(step.bindings), step.has_more_bindings) == (5, True)
    assert turns >= 5


# As text

def test_a_route_is_a_tree_for_a_terminal(stage: Stage, vhost: Vhost) -> None:
    exchange(vhost, "events")
    exchange(vhost, "europe", "headers")
    exchange(vhost, "dead", "fanout")
    queue(vhost, "audit", **{"x-max-length": 1, "x-dead-letter-exchange": "dead"})
    queue(vhost, "german", **{"x-message-ttl": 90_000, "x-dead-letter-exchange": "gone"})
    queue(vhost, "graves", **{"x-expires": 840_000, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "audit"})
    bind(vhost, "events", "audit", "order.#")
    bind(vhost, "events", "audit", "#.new")
    bind(vhost, "events", "europe", "*.eu.*", "exchange")
    bind(vhost, "europe", "german", **{"country": "de", "x-match": "any"})
    bind(vhost, "dead", "graves")
    stage.client().open_channel().publish("audit", b"one")
    assert text(explain(stage.broker, "events", "order.eu.new", headers={"country": "de"}, user="guest")) == """\
user 'guest' may write to 'events': write permission '.*'
exchange 'events' (topic)
├─ binding 'order.#' and '#.new' → queue 'audit'
│  │    1 ready, 0 unacknowledged, no consumer
│  │    at most 1 message, then the oldest is dropped; it has as many now
│  └─ dead letters (over length, rejected) → exchange 'dead' with their own key 'order.eu.new'
│     └─ exchange 'dead' (fanout)
│        └─ binding '' → queue 'graves'
│           │    0 ready, 0 unacknowledged, no consumer
│           │    the queue is deleted when it has been unused for 14 min
│           └─ dead letters (rejected) → exchange '' with key 'audit'
│              └─ the default exchange (direct)
│                 └─ queue 'audit'
│                         it was here before: a cycle, which goes on for as long as consumers reject it
└─ binding '*.eu.*' → exchange 'europe' (headers)
   └─ binding '' (country="de", x-match="any") → queue 'german'
      │    0 ready, 0 unacknowledged, no consumer
      │    messages expire after 90 s
      └─ dead letters (expired, rejected) → exchange 'gone' with their own key 'order.eu.new'
              there is no such exchange: dead letters are dropped
it reaches 2 queues"""
    assert text(explain(stage.broker, "events", "x", most_steps=1)) == """\
exchange 'events' (topic)
     nothing matched, and it has no alternate exchange
it reaches no queue: it is dropped, or returned to a publisher that set 'mandatory'"""
    assert text(explain(stage.broker, "events", "order.new", most_steps=1)).endswith(
        "… this is not all: 1 step shown\nit reaches 1 queue")
    assert text(explain(stage.broker, "missing", "x")) == (
        "the publish is refused: NOT_FOUND - no exchange 'missing' in vhost '/'")


def text(answer: ExplainedRoute) -> str:
    """What amqpctl prints."""
    return "\n".join(route_lines(json.loads(msgspec.json.encode(answer))))
