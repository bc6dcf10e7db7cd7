"""Peek, export, move, retry and delete: on real sessions, with messages in memory and on disk."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pamqp.commands import Basic, Exchange, Queue

from amqpd.broker.queue.page_limits import PageLimits
from amqpd.broker.queue.queue import Queue as BrokerQueue
from amqpd.management.node_commands import MessageLimits
from tests.management.desk import SessionDesk
from tests.support.journals import RecordingJournal
from tests.support.talk import Stage, Talk

SMALL_PAGES = PageLimits(messages=4, bytes=1_000, fewest_messages=1, fewest_bytes=1)


@pytest.fixture(params=[False, True], ids=["in memory", "paged out"])
def desk(request: pytest.FixtureRequest) -> Iterator[SessionDesk]:
    """A broker to command; its messages are in memory, or all but the first few are on disk."""
    stage = Stage(page_limits=SMALL_PAGES)
    if request.param:
        stage.page_store.budget.limit = 1
    desk = SessionDesk(stage, MessageLimits(slice=4, answer_bytes=20_000))
    yield desk
    stage.assert_silent()


@pytest.fixture
def talk(desk: SessionDesk) -> Talk:
    """A client with the durable queues `q`, `other` and `letters`; the dead letters of `q` and `other` go there."""
    talk = desk.stage.client().open_channel()
    dying = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "letters"}
    for name, arguments in (("q", dying), ("other", dying), ("letters", {})):
        declare(talk, name, **arguments)
    return talk


def declare(talk: Talk, name: str, **arguments: Any) -> None:
    talk.client(Queue.Declare(queue=name, durable=True, arguments=arguments)).broker(Queue.DeclareOk(name, 0, 0))


def put(talk: Talk, *bodies: bytes, queue: str = "q", **properties: Any) -> Talk:
    """Publish persistent messages, and let what is too much for memory be paged out."""
    talk.publish(queue, *bodies, properties=Basic.Properties(delivery_mode=2, **properties))
    page_out(talk.stage)
    return talk


def page_out(stage: Stage) -> None:
    stage.broker._looks_again_ms = 0
    for queue in stage.broker.vhosts["/"].queues.values():
        if stage.page_store.budget.limit == 1:
            queue.pager.page_out(1 << 30)
    stage.page_store.write_spill_files()


def bodies(desk: SessionDesk, queue: str = "q") -> list[str]:
    """What is in a queue, in order."""
    return [one["payload"] for one in desk.ask("peek", queue=queue, count=1_000)["messages"]]


def kept(desk: SessionDesk, queue: str) -> list[bytes]:
    """What a crash now would leave in a queue."""
    return desk.stage.journal.safe.bodies(queue)


def state(desk: SessionDesk, queue: BrokerQueue) -> Any:
    """Everything that a look must not change."""
    ready, records, store = queue.ready, queue.records, desk.stage.page_store
    return (
        ready.numbers(), [id(message) for message in ready], ready.body_bytes, ready.cost, ready.on_disk_only,
        records.kept_on_disk, records.unacked, {*records.redelivery.numbers}, dict(records.redelivery.deliveries),
        queue.statistics(), store.budget.used, [(file.numbers, {*file.left}) for file in store.spill_files],
        {number: dict(kept) for number, kept in desk.stage.journal.now.messages.items()},
        {number: dict(kept) for number, kept in desk.stage.journal.now.expiries.items()},
        len(desk.stage.journal.changes), desk.stage.journal.batch, desk.broker.next_message_number)


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


# Peek

def test_a_peek_shows_messages_from_an_offset_on(desk: SessionDesk, talk: Talk) -> None:
    put(talk, *numbered(30))
    found = desk.ask("peek", queue="q", offset=7, count=3)
    assert [(one["offset"], one["payload"]) for one in found["messages"]] == [(7, "7"), (8, "8"), (9, "9")]
    assert (found["next_offset"], found["ready"]) == (10, 30)
    again = desk.ask("peek", queue="q", offset=10, cursor=found["cursor"], count=30)
    assert [one["payload"] for one in again["messages"]] == [f"{number}" for number in range(10, 30)]
    assert [one["offset"] for one in again["messages"]] == [*range(10, 30)]
    assert desk.ask("peek", queue="q", offset=30)["messages"] == []
    assert desk.ask("peek", queue="q", offset=10**15) == {
        "messages": [], "offset": 10**15, "scanned": 0, "next_offset": 10**15, "cursor": None, "ready": 30}


def test_a_peek_changes_nothing(desk: SessionDesk, talk: Talk) -> None:
    put(talk, *numbered(30), expiration="100000")
    talk.publish("q", b"transient")
    page_out(desk.stage)
    queue = desk.queue("q")
    before = state(desk, queue)
    for filter in ({}, {"text": "2"}, {"header": ["a=b"]}, {"json": ["$=3"]}):
        desk.ask("peek", queue="q", count=5, filter=filter)
        desk.ask("peek", queue="q", offset=12, count=100, filter=filter)
        desk.ask("export_messages", queue="q", filter=filter)
        desk.ask("delete_messages", queue="q", filter=filter, everything=True, dry_run=True)
        desk.ask("move", queue="q", to_queue="other", filter=filter, everything=True, dry_run=True)
    desk.ask("export_messages", queue="q", ids=queue.ready.numbers())
    assert state(desk, queue) == before
    queue.check()


def test_a_message_is_shown_as_it_is(desk: SessionDesk, talk: Talk) -> None:
    talk.client(Exchange.Declare(exchange="e", exchange_type="topic")).broker(Exchange.DeclareOk())
    talk.client(Queue.Bind(queue="q", exchange="e", routing_key="#")).broker(Queue.BindOk())
    talk.publish("a.b", b"\xff\x00", exchange="e", properties=Basic.Properties(
        headers={"n": 5, "t": {"x": [True, None]}}, message_id="m", priority=3))
    shown, = desk.ask("peek", queue="q")["messages"]
    assert shown.pop("id") == desk.broker.next_message_number - 1
    assert shown == {
        "offset": 0, "exchange": "e", "routing_key": "a.b", "redelivered": False, "delivery_count": 0,
        "persistent": False, "properties": {
            "headers": {"n": 5, "t": {"x": [True, None]}}, "message_id": "m", "priority": 3},
        "payload_bytes": 2, "payload_encoding": "base64", "payload": "/wA=", "truncated": False}


def test_a_long_body_is_cut_between_characters(desk: SessionDesk, talk: Talk) -> None:
    put(talk, "grüße".encode())
    shown, = desk.ask("peek", queue="q", truncate=3)["messages"]
    assert (shown["payload"], shown["payload_encoding"], shown["truncated"]) == ("gr", "string", True)


def test_a_peek_looks_at_so_many_messages_and_says_where_to_go_on(desk: SessionDesk, talk: Talk) -> None:
    put(talk, *numbered(30))
    found = desk.ask("peek", queue="q", filter={"text": "29"}, scan=12)
    assert (found["messages"], found["scanned"], found["next_offset"]) == ([], 12, 12)
    found = desk.ask("peek", queue="q", filter={"text": "29"}, scan=12, offset=12, cursor=found["cursor"])
    assert (found["messages"], found["scanned"]) == ([], 12)
    found = desk.ask("peek", queue="q", filter={"text": "29"}, scan=12, offset=24, cursor=found["cursor"])
    assert [(one["offset"], one["payload"]) for one in found["messages"]] == [(29, "29")]


def test_a_cursor_goes_on_after_the_message_although_others_have_gone(desk: SessionDesk, talk: Talk) -> None:
    put(talk, *numbered(10))
    cursor = desk.ask("peek", queue="q", count=4)["cursor"]
    talk.client(Basic.Get(queue="q", no_ack=True)).hear_all()
    assert [one["payload"] for one in desk.ask("peek", queue="q", cursor=cursor, count=2)["messages"]] == ["4", "5"]


def test_priorities_are_peeked_in_the_order_of_delivery(desk: SessionDesk, talk: Talk) -> None:
    declare(talk, "p", **{"x-max-priority": 5})
    for number, priority in enumerate((0, 5, 2, 5, 0, 9, 2)):
        put(talk, b"%d" % number, queue="p", priority=priority)
    assert bodies(desk, "p") == ["1", "3", "5", "2", "6", "0", "4"]
    pages, cursor = [], None
    while True:
        found = desk.ask("peek", queue="p", count=2, cursor=cursor)
        pages += [one["payload"] for one in found["messages"]]
        cursor = found["cursor"]
        if cursor is None:
            break
    assert pages == ["1", "3", "5", "2", "6", "0", "4"]
    assert [one["payload"] for one in desk.ask("peek", queue="p", offset=4)["messages"]] == ["6", "0", "4"]
    ids = [one["id"] for one in desk.ask("peek", queue="p")["messages"]]
    desk.ask("move", queue="p", to_queue="other", ids=[ids[0], ids[3], ids[6]])
    assert (bodies(desk, "p"), bodies(desk, "other")) == (["3", "5", "6", "0"], ["1", "2", "4"])
    desk.queue("p").check()


def test_requeued_messages_and_gaps_are_in_their_places(desk: SessionDesk, talk: Talk) -> None:
    put(talk, *numbered(12))
    talk.client(Basic.Qos(prefetch_count=8), Basic.Consume(queue="q", consumer_tag="c")).hear_all()
    talk.client(Basic.Cancel("c")).hear_all()
    ids = [one["id"] for one in desk.ask("peek", queue="q")["messages"]]
    desk.ask("delete_messages", queue="q", ids=[ids[1]])
    talk.client(Basic.Nack(7, True, True)).hear_all()
    page_out(desk.stage)
    assert bodies(desk) == ["0", "1", "2", "3", "4", "5", "6", "8", "10", "11"]
    assert [one["offset"] for one in desk.ask("peek", queue="q", offset=6, count=2)["messages"]] == [6, 7]
    found = desk.ask("peek", queue="q", offset=6, count=2)["messages"]
    assert [(one["payload"], one["redelivered"], one["delivery_count"]) for one in found] == [
        ("6", True, 1), ("8", False, 0)]
    desk.queue("q").check()
    talk.client(Basic.Ack(8))


@pytest.mark.parametrize("filter, found", [
    ({"text": "rde"}, ["order", "json"]),
    ({"header": ["n=5"]}, ["order"]), ({"header": ["n"]}, ["order", "json"]), ({"header": ["n=true"]}, []),
    ({"header": ["t=x"], "text": "o"}, ["json"]), ({"header": ["n", "t"]}, ["json"]),
    ({"property": ["message_id=m1"]}, ["order"]), ({"property": ["priority=3"]}, ["json"]),
    ({"property": ["priority"]}, ["json"]), ({"property": ["colour"]}, []),
    ({"json": ["$.a.b[0]=value"]}, ["json"]), ({"json": ["$.a.b[-1]=7"]}, ["json"]),
    ({"json": ["$.a['c d']"]}, ["json"]),
    ({"json": ["$.a.b[2]"]}, []), ({"json": ["$.a.x"]}, []), ({"json": ["$.word=order"]}, ["json"]),
    ({"older_than": 100}, ["order"]), ({"younger_than": 100}, ["json"]), ({"older_than": 5}, ["order", "json"]),
    ({"routing_key": "q", "text": "plain"}, ["plain"]), ({"min_deliveries": 1}, []),
    ({"max_deliveries": 0, "text": "plain"}, ["plain"]), ({"redelivered": True}, []),
])
def test_filters(desk: SessionDesk, talk: Talk, filter: dict[str, Any], found: list[str]) -> None:
    now = desk.broker.clock.wall_ms // 1000
    put(talk, b"an order", message_id="m1", headers={"n": 5}, timestamp=at(now - 1_000))
    put(talk, json.dumps({"a": {"b": ["value", 7], "c d": 0}, "word": "order"}).encode(), priority=3,
        headers={"n": 1, "t": "x"}, timestamp=at(now - 10))
    put(talk, b"plain \xff")
    told = {0: "order", 1: "json", 2: "plain"}
    shown = desk.ask("peek", queue="q", filter=filter)["messages"]
    assert [told[one["offset"]] for one in shown] == found
    assert desk.ask("delete_messages", queue="q", filter=filter, dry_run=True)["matched"] == len(found)


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@pytest.mark.parametrize("arguments, text", [
    ({"filter": {"colour": 1}}, "filter: Object contains unknown field `colour`"),
    ({"filter": {"header": ["=x"]}}, "not NAME=VALUE: =x"),
    ({"filter": {"text": ""}}, "a text to look for has 1 to 10,000 bytes"),
    ({"filter": {"json": ["a.b"]}}, "a JSON path begins with $ and has at most 1,000 characters: a.b"),
    ({"filter": {"json": ["$.a[*]"]}}, "not a JSON path such as $.a.b[0]=value, from '[*]' on: $.a[*]"),
    ({"filter": {"json": ["$" + ".a" * 51]}}, "a JSON path has at most 50 steps: $" + ".a" * 39 + "."),
    ({"filter": {"header": ["a"] * 51}}, "a filter has at most 50 conditions"),
    ({"cursor": "x"}, "not a cursor of an earlier answer: x"), ({"offset": -1}, "offset: not negative"),
    ({"count": 1_001}, "count: a number from 0 to 1,000"), ({"scan": 10**6}, "scan: a number from 0 to 100,000"),
])
def test_what_makes_no_sense_is_refused(arguments: dict[str, Any], text: str) -> None:
    desk = SessionDesk()
    declare(desk.stage.client().open_channel(), "q")
    assert desk.refusal("peek", queue="q", **arguments) == (text, 65)


# Export

def test_an_export_has_every_message_once_with_its_whole_body(desk: SessionDesk, talk: Talk) -> None:
    large = bytes(range(256)) * 40
    put(talk, *numbered(9), large, b"x", large, b"last")
    got, cursor, parts = [], None, 0
    while parts == 0 or cursor is not None:
        found = desk.ask("export_messages", queue="q", cursor=cursor, count=8)
        got += found["messages"]
        cursor, parts = found["cursor"], parts + 1
    assert [one["payload"] for one in got if one["payload_encoding"] == "string"] == [
        *(f"{number}" for number in range(9)), "x", "last"]
    assert [base64.b64decode(one["payload"]) for one in got if one["payload_encoding"] == "base64"] == [large, large]
    ids = [one["id"] for one in got]
    chosen = desk.ask("export_messages", queue="q", ids=[ids[12], ids[0], ids[9], 1 << 50])
    assert [one["id"] for one in chosen["messages"]] == [ids[0], ids[9], ids[12]]
    first = desk.ask("export_messages", queue="q", ids=[ids[12], ids[0], ids[9]], count=1)
    rest = desk.ask("export_messages", queue="q", ids=[ids[12], ids[0], ids[9]], cursor=first["cursor"])
    assert [one["id"] for one in (*first["messages"], *rest["messages"])] == [ids[0], ids[9], ids[12]]


# Move

def test_all_messages_move_to_a_queue_in_order(desk: SessionDesk, talk: Talk) -> None:
    put(talk, *numbered(30))
    put(talk, b"there", queue="other")
    told = desk.ask("move", queue="q", to_queue="other", everything=True)
    assert (told["matched"], told["moved"], told["stopped"]) == (30, 30, None)
    assert bodies(desk, "other") == ["there", *(f"{number}" for number in range(30))]
    assert kept(desk, "other") == [b"there", *numbered(30)] and kept(desk, "q") == []
    assert not desk.queue("q").ready and desk.queue("q").records.kept_on_disk == 0
    talk.client(Basic.Get(queue="other", no_ack=True)).hear_all()
    talk.client(Basic.Get(queue="other", no_ack=True)).broker(
        Basic.GetOk(2, False, "", "q", 29), content=b"0", properties=Basic.Properties(delivery_mode=2))


def test_those_that_match_are_moved_and_the_others_stay(desk: SessionDesk, talk: Talk) -> None:
    put(talk, *numbered(25))
    count = desk.ask("move", queue="q", to_queue="other", filter={"text": "1"}, dry_run=True)
    assert (count["matched"], count["matched_bytes"], count["moved"]) == (12, 23, 0)
    told = desk.ask("move", queue="q", to_queue="other", filter={"text": "1"})
    assert told["moved"] == 12
    expected = [f"{number}" for number in range(25)]
    assert bodies(desk, "other") == [body for body in expected if "1" in body]
    assert bodies(desk) == [body for body in expected if "1" not in body]
    told = desk.ask("move", queue="q", to_queue="other", limit=2)
    assert (told["moved"], bodies(desk)[0]) == (2, "3")
    for name in ("q", "other"):
        desk.queue(name).check()


def test_a_move_to_an_exchange_is_as_if_published_there(desk: SessionDesk, talk: Talk) -> None:
    talk.client(Exchange.Declare(exchange="e", exchange_type="topic")).broker(Exchange.DeclareOk())
    for queue in ("other", "letters"):
        talk.client(Queue.Bind(queue=queue, exchange="e", routing_key="to.two")).broker(Queue.BindOk())
    put(talk, b"1", b"2")
    assert desk.ask("move", queue="q", to_exchange="e", everything=True)["unroutable"] == 2
    assert bodies(desk) == ["1", "2"]
    assert desk.ask("move", queue="q", to_exchange="e", routing_key="to.two", everything=True)["moved"] == 2
    assert bodies(desk, "other") == bodies(desk, "letters") == ["1", "2"]
    found = desk.ask("peek", queue="other")["messages"][0]
    assert (found["exchange"], found["routing_key"]) == ("e", "to.two")
    assert kept(desk, "other") == kept(desk, "letters") == [b"1", b"2"]


def test_an_exchange_that_leads_back_moves_each_message_once(desk: SessionDesk, talk: Talk) -> None:
    put(talk, *numbered(10))
    assert desk.ask("move", queue="q", to_exchange="", everything=True)["moved"] == 10
    assert bodies(desk) == [f"{number}" for number in range(10)] and kept(desk, "q") == numbered(10)
    assert desk.refusal("move", queue="q", to_queue="q", everything=True) == (
        "queue 'q' is where the messages are", 64)


def test_what_a_consumer_gets_during_a_move_is_not_moved(desk: SessionDesk, talk: Talk) -> None:
    """An exchange that leads back: what arrives there lets the queue deliver messages that were to be moved."""
    declare(talk, "strict", **{"x-max-length": 100, "x-overflow": "reject-publish"})
    talk.client(Queue.Declare(queue="t")).broker(Queue.DeclareOk("t", 0, 0))
    talk.client(Exchange.Declare(exchange="e", exchange_type="fanout")).broker(Exchange.DeclareOk())
    for queue in ("t", "strict"):
        talk.client(Queue.Bind(queue=queue, exchange="e")).broker(Queue.BindOk())
    desk.ask("pause_queue", queue="t")
    talk.publish("t", *numbered(12))
    talk.client(Basic.Consume(queue="t", consumer_tag="c")).broker(Basic.ConsumeOk("c"))
    desk.queue("t").delivery.is_paused = False      # and yet nothing is delivered before the first one arrives
    desk.broker.effort.stop = 1 << 62       # as in a turn in which little has happened
    told = desk.ask("move", queue="t", to_exchange="e", limit=4)
    desk.queue("t").check()
    got = [heard.body for heard in talk.hear_all()]
    assert sorted(got) == sorted(numbered(12)) and got[-1] == b"0"
    assert (told["matched"], told["moved"], told["failed"]) == (4, 1, 0) and bodies(desk, "strict") == ["0"]


def test_what_a_full_queue_refuses_stays_where_it_is(desk: SessionDesk, talk: Talk) -> None:
    declare(talk, "strict", **{"x-max-length": 3, "x-overflow": "reject-publish"})
    put(talk, *numbered(8))
    told = desk.ask("move", queue="q", to_queue="strict", everything=True)
    assert (told["moved"], told["full"]) == (3, 5)
    assert (bodies(desk, "strict"), bodies(desk)) == (["0", "1", "2"], ["3", "4", "5", "6", "7"])


def test_a_moved_message_that_expires_begins_anew(desk: SessionDesk, talk: Talk) -> None:
    put(talk, *numbered(6), expiration="2000")
    desk.stage.pass_time(1)
    desk.ask("move", queue="q", to_queue="letters", everything=True)
    desk.stage.pass_time(1.5)
    assert len(bodies(desk, "letters")) == 6
    desk.stage.pass_time(1)
    assert bodies(desk, "letters") == [] and kept(desk, "letters") == []


def test_a_consumer_of_the_target_gets_what_is_moved(desk: SessionDesk, talk: Talk) -> None:
    talk.client(Basic.Consume(queue="other", consumer_tag="c", no_ack=True)).broker(Basic.ConsumeOk("c"))
    put(talk, *numbered(9))
    assert desk.ask("move", queue="q", to_queue="other", everything=True)["moved"] == 9
    assert [heard.body for heard in talk.hear_all()] == numbered(9)
    assert kept(desk, "q") == kept(desk, "other") == []


def test_a_target_that_is_deleted_meanwhile_ends_the_move(desk: SessionDesk, talk: Talk) -> None:
    put(talk, *numbered(30))

    def declare_anew() -> None:
        talk.client(Queue.Delete(queue="other")).hear_all()
        declare(talk, "other")

    desk.at_turn(3, declare_anew)
    told = desk.ask("move", queue="q", to_queue="other", everything=True)
    assert told["stopped"] == "queue 'other' has been deleted" and 0 < told["moved"] < 30
    assert len(bodies(desk)) == 30 - told["moved"] and bodies(desk, "other") == []


def test_a_queue_that_is_deleted_meanwhile_ends_the_move(desk: SessionDesk, talk: Talk) -> None:
    put(talk, *numbered(30))
    desk.at_turn(3, lambda: talk.client(Queue.Delete(queue="q")).hear_all())
    told = desk.ask("move", queue="q", to_queue="other", everything=True)
    assert told["stopped"] == "queue 'q' has been deleted"
    assert len(bodies(desk, "other")) == told["moved"] < 30


def test_an_unacked_message_is_not_moved(desk: SessionDesk, talk: Talk) -> None:
    put(talk, *numbered(3))
    talk.client(Basic.Get(queue="q")).hear_all()
    assert desk.ask("move", queue="q", to_queue="other", everything=True)["moved"] == 2
    talk.client(Basic.Ack(1)).nothing()
    assert bodies(desk, "other") == ["1", "2"]


def test_a_move_says_which_messages(desk: SessionDesk, talk: Talk) -> None:
    assert desk.refusal("move", queue="q", to_queue="other") == (
        "say which messages: ids, a filter, a limit, or all of them", 64)
    assert desk.refusal("move", queue="q", everything=True)[1] == 64
    assert desk.refusal("move", queue="q", to_queue="x", everything=True) == (
        "not_found: no queue 'x' in vhost '/'", 69)
    assert desk.refusal("move", queue="q", to_exchange="x", everything=True) == (
        "not_found: no exchange 'x' in vhost '/'", 69)
    assert desk.refusal("move", queue="q", to_queue="other", ids=["a"])[1] == 64
    assert desk.ask("move", queue="q", to_queue="other", ids=[5])["matched"] == 0


# At every moment, and in a crash, each message is somewhere exactly once

@pytest.mark.parametrize("crash_after", range(1, 18))      # it has 11 turns, and 6 ways to commit in them
def test_a_crash_during_a_move_loses_nothing_and_doubles_nothing(crash_after: int) -> None:
    """A crash leaves what was committed: here after each slice, or after those that a commit took together."""
    stage = Stage(page_limits=SMALL_PAGES)
    stage.page_store.budget.limit = 1
    desk = SessionDesk(stage, MessageLimits(slice=3, recorded_bytes=1 if crash_after % 2 else 1 << 20))
    talk = stage.client().open_channel()
    for name in ("q", "other"):
        declare(talk, name)
    put(talk, *numbered(20))
    stage.commits_at_once = bool(crash_after % 3)
    seen: list[tuple[list[bytes], list[bytes]]] = []

    def look() -> None:
        desk._begin()
        safe = stage.journal.safe
        seen.append((safe.bodies("q"), safe.bodies("other")))
        now = stage.journal.now
        assert sorted([*now.bodies("q"), *now.bodies("other")]) == sorted(numbered(20))
        if desk.turns == crash_after:
            stage.commit()

    desk.node.begin = look
    desk.ask("move", queue="q", to_queue="other", everything=True)
    assert len(seen) >= 6
    for left, moved in seen:
        assert sorted([*left, *moved]) == sorted(numbered(20))
    reborn = SessionDesk(Stage(journal=RecordingJournal(stage.journal.safe.copy()), first_number=1 << 40))
    assert sorted([*bodies(reborn), *bodies(reborn, "other")]) == sorted(body.decode() for body in numbered(20))


# Retry

def die(talk: Talk, desk: SessionDesk, *dying: bytes, **properties: Any) -> None:
    """Let messages be rejected in `q`; they are in `letters` then."""
    put(talk, *dying, **properties)
    for _ in dying:
        tag = talk.client(Basic.Get(queue="q")).hear(Basic.GetOk).delivery_tag
        talk.client(Basic.Reject(tag, False)).nothing()
    page_out(desk.stage)


def test_dead_letters_go_back_to_where_they_died(desk: SessionDesk, talk: Talk) -> None:
    talk.client(Exchange.Declare(exchange="e", exchange_type="topic")).broker(Exchange.DeclareOk())
    talk.client(Queue.Bind(queue="q", exchange="e", routing_key="#")).broker(Queue.BindOk())
    talk.publish("a.b", b"routed", exchange="e", properties=Basic.Properties(delivery_mode=2))
    die(talk, desk, *numbered(9))
    put(talk, b"not dead", queue="letters")
    assert len(bodies(desk, "letters")) == 10
    told = desk.ask("retry", queue="letters", everything=True)
    assert (told["moved"], told["no_origin"]) == (9, 1)
    assert bodies(desk, "letters") == ["not dead"]
    back = desk.ask("peek", queue="q", count=20)["messages"]
    assert len(back) == 10
    routed = [one for one in back if one["payload"] == "routed"]
    assert [(one["exchange"], one["routing_key"]) for one in routed] == [("e", "a.b")]
    deaths = back[-1]["properties"]["headers"]["x-death"]
    assert [(death["queue"], death["reason"], death["count"]) for death in deaths] == [("q", "rejected", 1)]


def test_deaths_can_be_forgotten(desk: SessionDesk, talk: Talk) -> None:
    die(talk, desk, b"1", headers={"own": 1})
    desk.ask("retry", queue="letters", everything=True, forget_deaths=True)
    back, = desk.ask("peek", queue="q")["messages"]
    assert back["properties"] == {"headers": {"own": 1}, "delivery_mode": 2}


def test_a_message_that_died_in_two_queues_goes_back_to_the_first_or_the_last(desk: SessionDesk, talk: Talk) -> None:
    declare(talk, "wait", **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "letters"})
    declare(talk, "work", **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "wait"})
    for body in (b"1", b"2"):
        put(talk, body, queue="work")
        for queue in ("work", "wait"):
            tag = talk.client(Basic.Get(queue=queue)).hear(Basic.GetOk).delivery_tag
            talk.client(Basic.Reject(tag, False)).nothing()
    found = desk.ask("peek", queue="letters", filter={"origin": "work", "reason": "rejected"})["messages"]
    assert len(found) == 2
    assert desk.ask("peek", queue="letters", filter={"origin": "wait"})["messages"] == []
    assert desk.ask("peek", queue="letters", filter={"reason": "expired"})["messages"] == []
    desk.ask("retry", queue="letters", ids=[found[0]["id"]])
    desk.ask("retry", queue="letters", ids=[found[1]["id"]], last=True)
    assert (bodies(desk, "work"), bodies(desk, "wait")) == (["1"], ["2"])


def test_what_has_lost_its_origin_stays(desk: SessionDesk, talk: Talk) -> None:
    die(talk, desk, b"1")
    talk.client(Queue.Delete(queue="q")).hear_all()
    assert desk.ask("retry", queue="letters", everything=True)["no_origin"] == 1
    assert bodies(desk, "letters") == ["1"]


@pytest.mark.parametrize("deaths", [
    5, "x", [], [5], [{}], [{"queue": 5}], [{"queue": "q", "routing-keys": 5}], [{"queue": "q", "routing-keys": [5]}],
    [{"queue": "x" * 300}],
])
def test_any_headers_may_be_retried(deaths: Any) -> None:
    desk = SessionDesk()
    talk = desk.stage.client().open_channel()
    declare(talk, "letters")
    declare(talk, "q")
    put(talk, b"1", queue="letters", headers={"x-death": deaths})
    told = desk.ask("retry", queue="letters", everything=True)
    has_origin = isinstance(deaths, list) and deaths and deaths[0] and deaths[0] != 5 and deaths[0]["queue"] == "q"
    assert (told["moved"], told["no_origin"], told["failed"]) == ((1, 0, 0) if has_origin else (0, 1, 0))
    assert len(bodies(desk, "letters")) + len(bodies(desk, "q")) == 1


# Delete

def test_messages_are_deleted_by_id_or_filter(desk: SessionDesk, talk: Talk) -> None:
    put(talk, *numbered(20))
    ids = [one["id"] for one in desk.ask("peek", queue="q", count=20)["messages"]]
    told = desk.ask("delete_messages", queue="q", ids=[ids[3], ids[19], ids[0], ids[3]])
    assert (told["matched"], told["deleted"], told["gone"]) == (3, 3, [])
    assert desk.ask("delete_messages", queue="q", filter={"text": "1"}, dry_run=True)["matched"] == 10
    assert desk.ask("delete_messages", queue="q", filter={"text": "1"})["deleted"] == 10
    assert bodies(desk) == ["2", "4", "5", "6", "7", "8", "9"]
    assert kept(desk, "q") == [b"2", b"4", b"5", b"6", b"7", b"8", b"9"]
    desk.queue("q").check()
    assert desk.ask("delete_messages", queue="q", everything=True)["deleted"] == 7
    assert kept(desk, "q") == [] == bodies(desk, "letters")


def test_ids_of_messages_that_are_not_ready_any_more_are_told(desk: SessionDesk, talk: Talk) -> None:
    put(talk, *numbered(20))
    ids = [one["id"] for one in desk.ask("peek", queue="q", count=20)["messages"]]
    talk.client(Basic.Get(queue="q")).hear_all()        # unacked now
    desk.ask("delete_messages", queue="q", ids=[ids[9]])
    nobodys = 1 << 50
    wanted = {"queue": "q", "ids": [nobodys, ids[19], ids[9], ids[5], ids[0], ids[4]]}
    for dry_run in (True, False):
        told = desk.ask("move", to_queue="other", **wanted, dry_run=dry_run)
        assert (told["matched"], told["gone"]) == (3, [ids[0], ids[9], nobodys])
    assert bodies(desk, "other") == ["4", "5", "19"]
    assert desk.ask("move", to_queue="other", **wanted)["gone"] == sorted(wanted["ids"])
    told = desk.ask("move", queue="q", to_queue="other", ids=[ids[1], ids[5]], filter={"text": "no"})
    assert (told["matched"], told["gone"]) == (0, [ids[5]])
    assert desk.ask("delete_messages", queue="q", ids=[ids[1]])["gone"] == []
    parts = [desk.ask("export_messages", queue="q", ids=ids[1:5], count=1)]
    while parts[-1]["cursor"] is not None:
        parts.append(desk.ask("export_messages", queue="q", ids=ids[1:5], count=1, cursor=parts[-1]["cursor"]))
    assert [one["payload"] for part in parts for one in part["messages"]] == ["2", "3"]
    assert [number for part in parts for number in part["gone"]] == [ids[1], ids[4]]


def test_transient_messages_are_moved_and_deleted_too(desk: SessionDesk, talk: Talk) -> None:
    talk.publish("q", *numbered(20))
    page_out(desk.stage)
    put(talk, b"kept")
    ids = [one["id"] for one in desk.ask("peek", queue="q", count=20)["messages"]]
    assert desk.ask("delete_messages", queue="q", ids=ids[5:9])["deleted"] == 4
    assert desk.ask("move", queue="q", to_queue="other", everything=True)["moved"] == 17
    assert bodies(desk, "other") == [f"{number}" for number in range(20) if number not in range(5, 9)] + ["kept"]
    assert not any([file.left for file in desk.stage.page_store.spill_files])


def test_the_disk_may_be_closed_while_a_command_waits(talk: Talk, desk: SessionDesk) -> None:
    put(talk, *numbered(20))
    store, turns = desk.stage.page_store, 0
    serve: Callable[[], None] = store.serve

    def open_at_times() -> None:
        nonlocal turns
        turns += 1
        store.is_open = turns % 3 == 0
        serve()
        store.is_open = False

    store.is_open = False
    store.serve = open_at_times     # type: ignore[method-assign]
    store_turns = desk.stage._pages.serve
    desk.stage._pages.serve = lambda: None      # type: ignore[method-assign]
    try:
        assert desk.ask("move", queue="q", to_queue="other", filter={"text": "1"})["moved"] == 11
        assert len(desk.ask("peek", queue="other", count=20)["messages"]) == 11
    finally:
        store.is_open, store.serve = True, serve      # type: ignore[method-assign]
        desk.stage._pages.serve = store_turns       # type: ignore[method-assign]
