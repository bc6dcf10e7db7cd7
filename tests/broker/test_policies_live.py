"""Policies in a running vhost: they apply to queues and exchanges at once, at declaration, and after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from amqpd.broker.broker import OPERATOR, Broker
from amqpd.broker.clock import Clock
from amqpd.broker.definitions import (
    BindingDefinition,
    Defined,
    Deleted,
    ExchangeDefinition,
    PolicyDefinition,
    QueueDefinition,
    VhostDefinition,
)
from amqpd.broker.policy import InvalidPolicy, NoSuchPolicy
from amqpd.broker.queue.queue import Queue
from amqpd.broker.routing import LONG_WALK
from amqpd.broker.rules import QueueRules
from amqpd.broker.policy_followers import LOOK_STEPS
from amqpd.broker.vhost import Vhost
from amqpd.broker.worklist import PIECE
from amqpd.management import listings
from tests.support.journals import RecordingJournal
from tests.support.samples import messages


@pytest.fixture
def journal() -> RecordingJournal:
    """A journal that knows nothing yet."""
    return RecordingJournal()


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def broker(journal: RecordingJournal, clock: Clock) -> Broker:
    """A broker with one vhost."""
    broker = Broker(journal, first_number=1_000, clock=clock)
    broker.add_vhost(VhostDefinition("/"))
    return broker


@pytest.fixture
def vhost(broker: Broker) -> Iterator[Vhost]:
    """That vhost."""
    yield broker.vhosts["/"]
    broker.vhosts["/"].check()


def queue(vhost: Vhost, name: str = "q", **properties: Any) -> Queue:
    return vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", name, **properties), "me")


def set_policy(
    vhost: Vhost, name: str = "p", pattern: str = "", priority: int = 0, *, is_operator: bool = False, **said: Any
) -> PolicyDefinition:
    """Keys are written with _ for the hyphens."""
    definition = {key.replace("_", "-"): value for key, value in said.items()}
    policy = PolicyDefinition("/", name, pattern, definition, priority, is_operator=is_operator)
    vhost.followers.set_policy(policy)
    return policy


def ready(queue: Queue) -> list[int]:
    return [message.number for message in queue.ready]


def routed(vhost: Vhost, exchange: str, key: str = "k") -> list[str]:
    return [found.name for found in vhost.routing.route(vhost.exchanges[exchange], [key], lambda: {})]


# Queues

def test_a_queue_follows_when_a_policy_is_set_changed_and_cleared(vhost: Vhost) -> None:
    found = queue(vhost)
    set_policy(vhost, max_length=5)
    assert found.rules == QueueRules(max_length=5)
    set_policy(vhost, expires=1_000)
    assert found.rules == QueueRules(expires_ms=1_000)
    vhost.followers.clear_policy("p")
    assert found.rules == QueueRules()


def test_a_queue_declared_later_follows_too(vhost: Vhost) -> None:
    set_policy(vhost, max_length=5)
    assert queue(vhost).rules.max_length == 5
    assert queue(vhost, "exclusive", exclusive=True).rules.max_length == 5


def test_the_next_policy_takes_over_when_the_highest_goes(vhost: Vhost) -> None:
    found = queue(vhost)
    set_policy(vhost, "low", priority=1, max_length=1)
    set_policy(vhost, "high", priority=2, max_length=2)
    assert found.rules.max_length == 2
    vhost.followers.clear_policy("high")
    assert found.rules.max_length == 1


def test_an_operators_policy_comes_on_top(vhost: Vhost) -> None:
    found = queue(vhost, arguments={"x-max-length": 9})
    set_policy(vhost, max_length=5)
    set_policy(vhost, max_length=3, is_operator=True)
    assert found.rules.max_length == 3
    vhost.followers.clear_policy("p")
    assert found.rules.max_length == 3
    vhost.followers.clear_policy("p", is_operator=True)
    assert found.rules.max_length == 9


def test_a_queue_is_cut_to_a_new_limit_at_once_and_dead_letters_are_moved(vhost: Vhost) -> None:
    dead = queue(vhost, "dead")
    found = queue(vhost, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    found.publish(messages(1, 2, 3, 4))
    set_policy(vhost, pattern="^q$", max_length=1)
    assert ready(found) == [4]
    vhost.worklist.work_off()
    assert len(dead.ready) == 3
    assert not vhost.dead_letters.has_work


def test_the_dead_follow_the_policys_exchange(vhost: Vhost) -> None:
    dead, found = queue(vhost, "dead"), queue(vhost, arguments={"x-max-length": 1})
    set_policy(vhost, pattern="^q$", dead_letter_exchange="", dead_letter_routing_key="dead")
    found.publish(messages(1, 2))
    vhost.worklist.work_off()
    assert (len(dead.ready), ready(found)) == (1, [2])


def test_an_unused_queue_expires_by_policy(vhost: Vhost, clock: Clock) -> None:
    queue(vhost)
    clock.advance(10_000)
    set_policy(vhost, expires=1_000)
    clock.advance(10_999)
    assert "q" in vhost.queues
    clock.advance(11_000)
    assert "q" not in vhost.queues


def test_a_policy_that_changes_nothing_for_a_queue_leaves_its_time_running(vhost: Vhost, clock: Clock) -> None:
    queue(vhost)
    set_policy(vhost, expires=1_000)
    clock.advance(900)
    set_policy(vhost, "other", pattern="^x$", max_length=5)
    clock.advance(1_000)
    assert "q" not in vhost.queues


# Exchanges

@pytest.fixture
def lost(vhost: Vhost) -> str:
    """The name of a queue that gets all that is published to amq.fanout."""
    queue(vhost, "lost")
    vhost.bind(OPERATOR, BindingDefinition("/", "amq.fanout", "queue", "lost"), "me")
    return "lost"


def test_an_exchange_gets_and_loses_its_alternate_at_once(vhost: Vhost, lost: str) -> None:
    before = vhost.routing.version
    set_policy(vhost, pattern=r"^amq\.direct$", alternate_exchange="amq.fanout")
    assert routed(vhost, "amq.direct") == [lost]
    assert vhost.routing.version > before
    before = vhost.routing.version
    vhost.followers.clear_policy("p")
    assert routed(vhost, "amq.direct") == []
    assert vhost.routing.version > before


def test_a_long_route_by_way_of_an_alternate_is_not_remembered_for_longer_than_that(vhost: Vhost) -> None:
    for number in range(LONG_WALK):
        queue(vhost, f"q{number}")
        vhost.bind(OPERATOR, BindingDefinition("/", "amq.fanout", "queue", f"q{number}"), "me")
    set_policy(vhost, pattern=r"^amq\.direct$", alternate_exchange="amq.fanout")
    assert len(routed(vhost, "amq.direct")) == LONG_WALK
    vhost.followers.clear_policy("p")
    assert routed(vhost, "amq.direct") == []


def test_an_exchange_declared_later_has_its_alternate(vhost: Vhost, lost: str) -> None:
    set_policy(vhost, pattern="^x$", alternate_exchange="amq.fanout")
    vhost.declare_exchange(OPERATOR, ExchangeDefinition("/", "x", "direct"))
    assert routed(vhost, "x") == [lost]


def test_the_argument_of_an_exchange_goes_first(vhost: Vhost, lost: str) -> None:
    vhost.declare_exchange(
        OPERATOR, ExchangeDefinition("/", "x", "direct", arguments={"alternate-exchange": "amq.direct"}))
    set_policy(vhost, pattern="^x$", alternate_exchange="amq.fanout")
    assert routed(vhost, "x") == []


def test_the_default_exchange_never_has_an_alternate(vhost: Vhost, lost: str) -> None:
    set_policy(vhost, alternate_exchange="amq.fanout")
    assert routed(vhost, "", "nowhere") == []
    policy = vhost.policies.of_exchange("").policy
    assert policy is not None and policy.name == "p"        # though it is listed with the policy, as in RabbitMQ


# Refusals, and what is recorded

def test_a_policy_that_makes_no_sense_changes_nothing(vhost: Vhost, journal: RecordingJournal) -> None:
    found, changes = queue(vhost), len(journal.changes)
    set_policy(vhost, max_length=5)
    with pytest.raises(InvalidPolicy):
        set_policy(vhost, max_length=-1)
    assert found.rules.max_length == 5
    assert len(journal.changes) == changes + 1


@pytest.mark.parametrize("name, is_operator", [("none", False), ("p", True)])
def test_a_policy_that_does_not_exist_cannot_be_cleared(vhost: Vhost, name: str, is_operator: bool) -> None:
    set_policy(vhost, max_length=5)
    with pytest.raises(NoSuchPolicy, match=f"NOT_FOUND - no policy '{name}' in vhost '/'"):
        vhost.followers.clear_policy(name, is_operator=is_operator)


def test_a_policy_is_recorded_and_its_end_too(vhost: Vhost, journal: RecordingJournal) -> None:
    policy = set_policy(vhost, max_length=5)
    assert vhost.changes.awaited_batch == journal.batch
    vhost.followers.clear_policy("p")
    assert journal.changes[-2:] == [Defined(policy), Deleted(policy)]


def test_policies_hold_after_a_restart(vhost: Vhost, journal: RecordingJournal, lost: str) -> None:
    queue(vhost, "orders", durable=True)
    vhost.declare_exchange(OPERATOR, ExchangeDefinition("/", "x", "direct", durable=True))
    set_policy(vhost, max_length=5, alternate_exchange="amq.fanout")
    set_policy(vhost, "ceiling", max_length=3, is_operator=True)
    set_policy(vhost, "gone", priority=9, max_length=1)
    vhost.followers.clear_policy("gone")
    restarted = Broker(journal)
    restarted.restore(journal.now.in_order())
    again = restarted.vhosts["/"]
    assert again.queues["orders"].rules.max_length == 3
    assert again.exchanges["x"].alternate == "amq.fanout"
    assert again.exchanges["amq.direct"].alternate == "amq.fanout"


# Very many queues

MANY = 300


def following(vhost: Vhost, rules: QueueRules) -> int:
    return sum(found.rules == rules for found in vhost.queues.values())


@pytest.fixture
def many(vhost: Vhost) -> Vhost:
    """The vhost with many queues."""
    for n in range(MANY):
        queue(vhost, f"q{n}")
    return vhost


def test_very_many_queues_follow_in_pieces_and_who_waits_is_called_at_the_end(many: Vhost) -> None:
    worklist, called = many.worklist, []
    set_policy(many, max_length=5)
    many.followers.call(lambda: called.append(following(many, QueueRules(max_length=5))))
    assert 0 < following(many, QueueRules(max_length=5)) < MANY // 2
    while many.followers.has_work:
        before = worklist.effort.total
        assert many.followers._job is not None
        many.followers._job.work()
        assert worklist.effort.total - before < PIECE + 20
        assert not called
    worklist.work_off()
    assert called == [MANY]


def test_very_many_queues_have_followed_when_a_start_is_complete(many: Vhost) -> None:
    set_policy(many, max_length=5)
    assert many.followers.has_work
    many.followers.finish()
    assert following(many, QueueRules(max_length=5)) == MANY and not many.followers.has_work


def test_only_what_a_changed_policy_matches_is_held_against_all_policies(vhost: Vhost) -> None:
    queue(vhost, "q")
    effort, followers = vhost.worklist.effort, len(vhost.queues) + len(vhost.exchanges)

    def steps(number: int, pattern: str) -> int:
        before = effort.total
        vhost.followers.set_policy(PolicyDefinition("/", f"p{number}", pattern, {"max-length": 5}, priority=number))
        vhost.worklist.work_off()
        return effort.total - before

    assert steps(1, "^nothing$") == followers * (1 + LOOK_STEPS + 1)      # the only one: it is all of them
    assert steps(2, "^nothing$") == followers * 2
    assert steps(3, "^q$") == followers * 2 + LOOK_STEPS + 3
    assert steps(2, "^nothing else$") == followers * 3                      # the one before, and the new one


def test_policies_that_change_while_queues_follow_others_are_followed_as_well(many: Vhost) -> None:
    for number in range(3):
        many.followers.set_policy(PolicyDefinition("/", f"other {number}", "^nothing$", {"max-length": 1}))
    many.worklist.work_off()
    set_policy(many, max_length=5)
    assert many.followers.has_work
    many.followers.set_policy(PolicyDefinition("/", "last", "^nothing$", {"max-length": 1}))
    many.worklist.work_off()
    assert following(many, QueueRules(max_length=5)) == MANY
    many.followers.clear_policy("p")
    many.followers.set_policy(PolicyDefinition("/", "last", "^none$", {"max-length": 1}))
    many.worklist.work_off()
    assert following(many, QueueRules()) == MANY


def test_what_queues_drop_as_they_follow_is_counted(vhost: Vhost) -> None:
    for n in range(20):
        queue(vhost, f"q{n}").publish(messages(*range(1, 101)))
    set_policy(vhost, max_length=1)
    assert following(vhost, QueueRules(max_length=1)) < 10
    vhost.worklist.work_off()
    assert all(len(found.ready) == 1 for found in vhost.queues.values())


def test_what_is_declared_while_others_have_not_followed_has_the_new_policy_at_once(many: Vhost) -> None:
    set_policy(many, max_length=5)
    assert many.followers.has_work
    assert queue(many, "new").rules == QueueRules(max_length=5)
    first = next(iter(many.queues.values()))
    many.topology.remove_queue(first)
    many.worklist.work_off()
    assert following(many, QueueRules(max_length=5)) == len(many.queues) == MANY


def test_policies_that_change_again_before_all_have_followed(many: Vhost) -> None:
    set_policy(many, max_length=5)
    set_policy(many, max_length=6)
    queue(many, "new")
    many.followers.clear_policy("p")
    many.worklist.work_off()
    assert following(many, QueueRules()) == MANY + 1


def test_a_queue_that_cannot_follow_does_not_keep_the_others_from_it(
    many: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = Queue.apply

    def fail(found: Queue, rules: QueueRules) -> None:
        if found.name == "q7":
            raise ValueError
        apply(found, rules)

    monkeypatch.setattr(Queue, "apply", fail)
    set_policy(many, max_length=5)
    many.worklist.work_off()
    assert following(many, QueueRules(max_length=5)) == MANY - 1


def test_listings_show_the_new_policy_while_queues_still_follow(broker: Broker, many: Vhost) -> None:
    set_policy(many, max_length=5)
    assert many.followers.has_work
    assert {record["policy"] for record in listings.queues(broker, many, ())} == {"p"}
    many.worklist.work_off()
