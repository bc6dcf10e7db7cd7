"""§28 Durability: what a clean restart keeps of TTLs, limits, dead letters, priorities and counts, §19 to §23.

Needs `--restart COMMAND`. As in `test_durability`, all preparations are made first, each on its own connection; then
the broker is restarted once, and the tests check what is left.
"""
from __future__ import annotations

import uuid
from typing import Any, Callable, Iterator

import pytest

from conformance.channel import Channel
from conformance.client import Client
from conformance.conftest import Names
from conformance.letters import counts, deaths
from conformance.methods import BASIC_CONSUME
from conformance.queues import Stopwatch, drained, fill, get, let_pass, publish_confirmed, ready, shown
from conformance.restarting import restart
from conformance.texts import Texts
from conformance.waiting import wait_until

pytestmark = pytest.mark.needs(
    "restart", "publisher_confirms", "message-ttl", "length-limits", "dead-letters", "message-priorities",
    "quorum-queues")

SHORT_MS = 1500     # long enough to be got in time by a busy machine
TTL_MS = 200
LONG_MS = 3_600_000
QUORUM = {"x-queue-type": "quorum"}

Name = Callable[[str], str]
Preparation = Callable[[Channel, Name], None]
PREPARATIONS: list[Preparation] = []
PREPARATIONS_WITH: dict[str, list[Preparation]] = {}


def before_the_restart(prepare: Preparation) -> Preparation:
    """Registers what is done before the broker is restarted, on a channel of its own."""
    PREPARATIONS.append(prepare)
    return prepare


def before_the_restart_with(capability: str) -> Callable[[Preparation], Preparation]:
    """Registers what a broker without this capability refuses."""
    def register(prepare: Preparation) -> Preparation:
        PREPARATIONS_WITH.setdefault(capability, []).append(prepare)
        return prepare
    return register


@pytest.fixture(scope="module")
def names(broker_url: str) -> Iterator[Names]:
    """The names of this module's queues, for all its tests."""
    names = Names("durability")
    yield names
    names.delete(broker_url)


@pytest.fixture(scope="module")
def name(names: Names) -> Name:
    """Makes this run's name of a label."""
    prefix = f"durability.{uuid.uuid4().hex[:8]}"

    def full_name(label: str) -> str:
        full = f"{prefix}.{label}"
        return full if full in names.queues else names.queue(full)
    return full_name


@pytest.fixture(scope="module")
def restarted(
        broker_url: str, name: Name, capabilities: frozenset[str], request: pytest.FixtureRequest) -> None:
    """All preparations are made, and the broker is restarted."""
    possible = [PREPARATIONS_WITH[capability] for capability in PREPARATIONS_WITH if capability in capabilities]
    preparations = sum(possible, PREPARATIONS)
    clients = [Client(broker_url) for _ in preparations]
    for client, prepare in zip(clients, preparations):
        prepare(client.channel(), name)
    restart(request.config.getoption("--restart"), clients)


@pytest.fixture(scope="module")
def past_short_times(restarted: None) -> None:
    """The short times are over, whether the restart took longer or not."""
    let_pass(SHORT_MS)


@pytest.fixture
def after(restarted: None, ch: Channel) -> Channel:
    """A channel on the restarted broker."""
    return ch


def declare(ch: Channel, queue: str, arguments: dict[str, Any] | None = None, *, letters: str | None = None) -> str:
    """A durable queue with these arguments, perhaps with another durable one for its dead letters; returns its name."""
    dead_letters = {}
    if letters is not None:
        ch.declare_queue(letters, durable=True)
        dead_letters = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": letters}
    ch.declare_queue(queue, durable=True, arguments={**dead_letters, **(arguments or {})})
    return queue


def keep(ch: Channel, queue: str, *bodies: str, **properties: Any) -> None:
    """Publish persistent messages to a queue and await the confirms."""
    fill(ch, queue, *bodies, delivery_mode=2, **properties)


# Time


@before_the_restart
def times(ch: Channel, name: Name) -> None:
    queue = declare(ch, name("unacked"), letters=name("letters of unacked"))
    keep(ch, queue, "short", expiration=str(SHORT_MS))
    keep(ch, queue, "long", expiration=str(LONG_MS))
    get(ch, queue, 2)
    keep(ch, declare(ch, name("by message")), "short", expiration=str(SHORT_MS))
    keep(ch, declare(ch, name("by queue"), {"x-message-ttl": SHORT_MS}), "short")
    keep(ch, declare(ch, name("later"), letters=name("letters of later")), "0", expiration="20000")
    declare(ch, name("lease"), {"x-expires": LONG_MS})


def test_the_time_of_a_message_runs_on_while_the_broker_is_down(
        past_short_times: None, after: Channel, name: Name) -> None:
    """Both were unacked until the restart, which requeued them: one is past its time by now, the other is not."""
    assert [(message.body, message.redelivered, message.properties.expiration)
            for message in get(after, name("unacked"))] == [(b"long", True, str(LONG_MS))]
    assert after.get(name("unacked")) is None
    dead, = get(after, name("letters of unacked"))
    assert counts(dead) == [(name("unacked"), "expired", 1)]


@pytest.mark.parametrize("label", ["by message", "by queue"])
def test_what_is_past_its_time_is_gone(past_short_times: None, after: Channel, name: Name, label: str) -> None:
    assert after.get(name(label)) is None
    assert ready(after, name(label)) == 0


def test_what_is_not_due_yet_is_still_there(after: Channel, name: Name) -> None:
    """Or was dead-lettered, where the restart took so long."""
    assert ready(after, name("later")) + ready(after, name("letters of later")) == 1


def test_a_lease_is_kept(after: Channel, name: Name) -> None:
    assert after.declare_queue(name("lease"), durable=True, arguments={"x-expires": LONG_MS})[1:] == (0, 0)


@before_the_restart
def times_to_come(ch: Channel, name: Name) -> None:
    declare(ch, name("ttl"), {"x-message-ttl": TTL_MS}, letters=name("letters of ttl"))


def test_a_ttl_holds_after_the_restart(after: Channel, name: Name) -> None:
    watch = Stopwatch()
    keep(after, name("ttl"), "0")
    dead, = get(after, name("letters of ttl"))
    assert watch.ms >= TTL_MS
    assert deaths(dead)[0]["reason"] == "expired"


# Length


@before_the_restart
def limits(ch: Channel, name: Name) -> None:
    keep(ch, declare(ch, name("length"), {"x-max-length": 3}, letters=name("letters of length")), *"01234")
    keep(ch, declare(ch, name("bytes"), {"x-max-length-bytes": 6}), "aaa", "bbb")
    keep(ch, declare(ch, name("rejecting"), {"x-max-length": 2, "x-overflow": "reject-publish"}), "0", "1")


def test_a_length_limit_counts_what_was_kept(after: Channel, name: Name) -> None:
    keep(after, name("length"), "5")
    assert drained(after, name("length")) == ["3", "4", "5"]
    assert shown(get(after, name("letters of length"), 3)) == ["0", "1", "2"]


def test_a_limit_of_octets_counts_what_was_kept(after: Channel, name: Name) -> None:
    keep(after, name("bytes"), "c")
    assert drained(after, name("bytes")) == ["bbb", "c"]


def test_a_full_queue_refuses_as_before(after: Channel, name: Name) -> None:
    assert publish_confirmed(after, name("rejecting"), "2", delivery_mode=2) == [False]
    assert drained(after, name("rejecting")) == ["0", "1"]


# Dead letters


@before_the_restart
def dead_letters(ch: Channel, name: Name) -> None:
    queue = declare(ch, name("dying"), letters=name("letters of dying"))
    keep(ch, queue, "persistent", headers={"a": 1}, expiration=str(LONG_MS))
    fill(ch, queue, "transient", delivery_mode=1)
    for got in get(ch, queue, 2):
        ch.reject(got.tag, requeue=False)
    wait_until(lambda: ready(ch, name("letters of dying")) == 2)
    keep(ch, queue, "later")


def test_a_dead_letter_is_as_persistent_as_the_message_was(after: Channel, name: Name) -> None:
    """With all its headers. The transient one is lost."""
    dead, = get(after, name("letters of dying"))
    assert after.get(name("letters of dying")) is None
    death, = deaths(dead)
    assert (dead.body, dead.properties.headers["a"]) == (b"persistent", 1)
    assert (death["queue"], death["reason"], death["count"]) == (name("dying"), "rejected", 1)
    assert death["original-expiration"] == str(LONG_MS)
    assert dead.properties.headers["x-first-death-queue"] == name("dying")


@before_the_restart
def large_headers(ch: Channel, name: Name) -> None:
    """Return a table with many fields, and one that becomes too large for a frame."""
    declare(ch, name("letters of large"), letters=name("died again"))
    queue = declare(ch, name("large"), {
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": name("letters of large")})
    for headers in ({f"{number:05}": True for number in range(16_000)}, {"a": "x" * 131_000}):
        keep(ch, queue, "0", headers=headers)
        ch.reject(get(ch, queue)[0].tag, requeue=False)
    wait_until(lambda: ready(ch, name("letters of large")) == 2)


def test_a_dead_letter_larger_than_a_frame_is_kept_and_dies_again(after: Channel, name: Name) -> None:
    for got in get(after, name("letters of large"), 2):
        after.reject(got.tag, requeue=False)
    for dead in get(after, name("died again"), 2):
        assert counts(dead) == [(name("letters of large"), "rejected", 1), (name("large"), "rejected", 1)]


def test_a_queue_keeps_its_dead_letter_exchange(after: Channel, name: Name) -> None:
    after.purge(name("letters of dying"))
    after.reject(get(after, name("dying"))[0].tag, requeue=False)
    assert shown(get(after, name("letters of dying"))) == ["later"]


# Priorities


@before_the_restart
def priorities(ch: Channel, name: Name) -> None:
    queue = declare(ch, name("priorities"), {"x-max-priority": 5})
    for body in ("1a", "5a", "3a", "5b", "9a", "1b"):
        keep(ch, queue, body, priority=int(body[0]))
    get(ch, queue)


def test_priorities_are_kept(after: Channel, name: Name) -> None:
    keep(after, name("priorities"), "3b", priority=3)
    assert drained(after, name("priorities")) == ["5a!", "5b", "9a", "3a", "3b", "1a", "1b"]


# Consumers


@before_the_restart
def consumers(ch: Channel, name: Name) -> None:
    declare(ch, name("single active"), {"x-single-active-consumer": True})


def test_a_queue_keeps_having_a_single_active_consumer(after: Channel, texts: Texts, name: Name) -> None:
    after.send_consume(name("single active"), exclusive=True)
    after.fails(403, texts.in_exclusive_use(name("single active")), *BASIC_CONSUME)


# Delivery counts and quorum queues


@before_the_restart
def quorum_queues(ch: Channel, name: Name) -> None:
    declare(ch, name("counted"), {**QUORUM, "x-delivery-limit": 3}, letters=name("letters of counted"))
    keep(ch, name("counted"), "0")
    for _ in range(2):
        ch.nack(get(ch, name("counted"))[0].tag)
    fill(ch, declare(ch, name("quorum"), QUORUM), "0", "1", "2", delivery_mode=1)
    ch.ack(get(ch, name("quorum"))[0].tag)
    keep(ch, name("quorum"), "3")


def test_a_delivery_count_is_kept_and_goes_on_to_its_limit(after: Channel, name: Name) -> None:
    got, = get(after, name("counted"))
    assert (got.redelivered, got.properties.headers["x-delivery-count"]) == (True, 2)
    after.nack(got.tag)
    after.nack(get(after, name("counted"))[0].tag)
    assert counts(get(after, name("letters of counted"))[0]) == [(name("counted"), "delivery_limit", 1)]


@pytest.mark.needs("quorum-keeps-transient")
def test_a_quorum_queue_keeps_messages_of_any_delivery_mode(after: Channel, name: Name) -> None:
    """In their order, and what was acked is gone."""
    assert shown(get(after, name("quorum"), 3)) == ["1", "2", "3"]


@before_the_restart_with("delivery-limit-on-classic")
def classic_counts(ch: Channel, name: Name) -> None:
    queue = declare(ch, name("classic"), {"x-delivery-limit": 10})
    keep(ch, queue, "0")
    for _ in range(2):
        ch.nack(get(ch, queue)[0].tag)
    ch.get(queue)


@pytest.mark.needs("delivery-limit-on-classic")
def test_a_delivery_count_is_kept_on_every_queue_with_a_limit(after: Channel, name: Name) -> None:
    """The restart itself, which requeued the message, counts or not."""
    assert get(after, name("classic"))[0].properties.headers["x-delivery-count"] in (2, 3)
