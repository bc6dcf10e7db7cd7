"""Tails: the messages of an exchange or a queue as they come, without changing what happens to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pamqp.commands import Basic, Exchange, Queue, Tx

from amqpd import ctl
from amqpd.broker.definitions import VhostDefinition
from amqpd.broker.feed import Feed
from amqpd.broker.taps import Seen
from amqpd.management.commands import Commands
from amqpd.management.observing_commands import ObservingCommands
from amqpd.management.refusal import Refusal
from amqpd.management.tail import Tail
from tests.management.desk import bare_node
from tests.support.talk import Stage, Talk

CLIENT = "10.0.0.1:40000 -> 10.0.0.2:5672"


@pytest.fixture
def talk(stage: Stage) -> Talk:
    """A client on channel 1, with the queue `q`, bound to the topic exchange `x` by `a.#`."""
    talk = stage.client().open_channel()
    talk.client(Exchange.Declare(exchange="x", exchange_type="topic")).hear_all()
    talk.client(Queue.Declare(queue="q")).hear_all()
    talk.client(Queue.Bind(queue="q", exchange="x", routing_key="a.#")).hear_all()
    return talk


def seen(stage: Stage, act: Callable[[], object], **followed: Any) -> list[dict[str, Any]]:
    """Return what a tail sees of an act."""
    vhost = stage.broker.vhosts["/"]

    async def follow() -> list[dict[str, Any]]:
        async with Tail(vhost, **followed) as tail:
            act()
            tail.close()
            records = []
            while (record := tail._next()) is not None:
                records.append(record)
            return records

    found = asyncio.run(follow())
    assert not vhost.taps.is_on and not vhost.taps.tails
    return found


def keys(records: list[dict[str, Any]]) -> list[str]:
    return [record["routing_key"] for record in records]


def test_a_message_is_shown_with_its_way_and_its_properties(stage: Stage, talk: Talk) -> None:
    properties = Basic.Properties(content_type="text/plain", headers={"n": 1, "t": {"x": [True]}}, delivery_mode=2)
    [record] = seen(stage, lambda: talk.publish("a.b", "grün".encode(), exchange="x", properties=properties),
                    exchange="x")
    assert record.pop("timestamp_in_ms") > 1_600_000_000_000
    assert record == {
        "vhost": "/", "exchange": "x", "routing_key": "a.b", "routing_keys": ["a.b"], "routed_queues": ["q"],
        "connection": CLIENT, "channel": 1, "user": "guest", "is_dead_letter": False, "properties": {
            "content_type": "text/plain", "headers": {"n": 1, "t": {"x": [True]}}, "delivery_mode": 2},
        "payload_bytes": 5, "payload": "grün", "payload_encoding": "string"}


def test_only_what_is_followed_is_shown(stage: Stage, talk: Talk) -> None:
    def publish() -> None:
        talk.publish("a.b", b"1", exchange="x").publish("a.b.c", b"2", exchange="x").publish("z", b"3", exchange="x")
        talk.publish("q", b"4").publish("a.b", b"5", exchange="amq.topic")

    assert keys(seen(stage, publish, exchange="x")) == ["a.b", "a.b.c", "z"]
    assert keys(seen(stage, publish, exchange="x", key="*.b")) == ["a.b"]
    assert keys(seen(stage, publish, exchange="")) == ["q"]
    assert keys(seen(stage, publish, queue="q")) == ["a.b", "a.b.c", "q"]
    assert keys(seen(stage, publish, queue="q", key="q")) == ["q"]
    assert seen(stage, publish, exchange="amq.fanout") == []


def test_an_exchange_is_followed_whichever_way_a_message_comes(stage: Stage, talk: Talk) -> None:
    talk.client(Exchange.Declare(exchange="y", exchange_type="fanout", internal=True)).hear_all()
    talk.client(Exchange.Declare(exchange="alt", exchange_type="fanout")).hear_all()
    talk.client(Exchange.Bind(source="x", destination="y", routing_key="a.#")).hear_all()
    talk.client(Exchange.Declare(
        exchange="main", exchange_type="headers", arguments={"alternate-exchange": "alt"})).hear_all()
    talk.client(Exchange.Bind(source="main", destination="y", arguments={"n": 1})).hear_all()

    def publish() -> None:
        for number in (1, 2):
            talk.publish("h", exchange="main", *[b""], properties=Basic.Properties(headers={"n": number}))
        talk.publish("a.b", b"", exchange="x")
        talk.publish("z", b"", exchange="x", properties=Basic.Properties(headers={"CC": ["a.c"]}))

    assert [(record["exchange"], record["routing_keys"]) for record in seen(stage, publish, exchange="y")] == [
        ("main", ["h"]), ("x", ["a.b"]), ("x", ["z", "a.c"])]
    assert keys(seen(stage, publish, exchange="alt")) == ["h"]
    assert keys(seen(stage, publish, exchange="x", key="a.c")) == ["z"]


def test_dead_letters_are_shown_where_they_arrive(stage: Stage, talk: Talk) -> None:
    talk.client(Queue.Declare(queue="short", arguments={
        "x-max-length": 1, "x-dead-letter-exchange": "x", "x-dead-letter-routing-key": "a.dead"})).hear_all()
    for followed in ({"exchange": "x"}, {"queue": "q"}):
        [record] = seen(stage, lambda: talk.publish("short", b"1", b"2"), **followed)
        assert (record["is_dead_letter"], record["routing_key"], record["routed_queues"]) == (True, "a.dead", ["q"])
        assert record["properties"]["headers"]["x-first-death-queue"] == "short" and record["connection"] == ""
        talk.client(Queue.Purge(queue="short")).hear_all()


def test_following_changes_nothing_of_what_happens(stage: Stage, talk: Talk) -> None:
    """No binding is added: what has no route is still returned."""
    def act() -> None:
        talk.client(Basic.Publish(exchange="x", routing_key="z", mandatory=True), content=b"lost")
        assert [heard.said.name for heard in talk.hear_all()] == ["Basic.Return"]
        talk.client(Tx.Select()).hear_all()
        talk.publish("a.b", b"held", exchange="x").client(Tx.Rollback()).hear_all()
        talk.client(Queue.Declare(queue="q", passive=True)).broker(Queue.DeclareOk("q", 0, 0))

    assert [record["payload"] for record in seen(stage, act, exchange="x")] == ["lost", "held"]


def test_publishers_are_on_their_usual_way_unless_they_are_followed(stage: Stage, talk: Talk) -> None:
    def is_plain() -> bool:
        targets = next(iter(talk.session.channels.values())).publishing.targets.by_arguments.known
        return any(found[1] is not None for found in targets.values())

    def act() -> None:
        talk.publish("q", b"")
        assert is_plain()
        talk.publish("a.b", b"", exchange="x")
        targets = next(iter(talk.session.channels.values())).publishing.targets.by_arguments.known
        assert [found[1] is not None for found in targets.values()] == [True, False]

    assert len(seen(stage, act, exchange="x")) == 1
    talk.publish("a.b", b"", exchange="x")
    assert is_plain()


def test_a_slow_reader_misses_messages_and_is_told(stage: Stage, talk: Talk) -> None:
    records = seen(
        stage, lambda: talk.publish("q", *[b"x" * 100] * 9), exchange="", feed=Feed[Seen](most=3))
    assert [record.get("dropped") for record in records] == [None] * 3 + [6]
    records = seen(
        stage, lambda: talk.publish("q", *[b"x" * 100] * 9), exchange="", feed=Feed[Seen](most_bytes=300))
    assert [record.get("dropped") for record in records] == [None] * 2 + [7]


@pytest.mark.parametrize("body, most, payload, encoding", [
    (b"", 10, "", "string"), (b"text", 10, "text", "string"), (b"text", 2, "te", "string"), (b"text", 0, "", "string"),
    (b"\xff\xfe", 10, "//4=", "base64"), ("aü".encode(), 2, "a", "string"),
    (b"a\xff\xff\xffb", 4, "Yf///w==", "base64"),
])
def test_bodies_are_text_or_base64_and_may_be_cut(
    stage: Stage, talk: Talk, body: bytes, most: int, payload: str, encoding: str
) -> None:
    [record] = seen(stage, lambda: talk.publish("q", body), queue="q", most_payload=most)
    assert (record["payload"], record["payload_encoding"], record["payload_bytes"]) == (payload, encoding, len(body))


def test_large_bodies_are_shown_from_their_begin(stage: Stage) -> None:
    talk = stage.client(frame_max=4_096).open_channel()
    talk.client(Queue.Declare(queue="q")).hear_all()
    [record] = seen(stage, lambda: talk.publish("q", b"x" * 9_000), queue="q", most_payload=5_000)
    assert (record["payload"], record["payload_bytes"]) == ("x" * 5_000, 9_000)


def test_a_deleted_vhost_ends_the_tail(stage: Stage) -> None:
    async def follow() -> list[Any]:
        stage.broker.add_vhost(VhostDefinition("v"))
        tail = Tail(stage.broker.vhosts["v"], exchange="")
        reading = asyncio.ensure_future(anext(tail, None))
        await asyncio.sleep(0)
        stage.broker.delete_vhost("v")
        return [await reading]

    assert asyncio.run(follow()) == [None]


# Commands

@pytest.mark.parametrize("asked, text", [
    ({"exchange": "none"}, "not_found: no exchange 'none' in vhost '/'"),
    ({"queue": "none"}, "not_found: no queue 'none' in vhost '/'"),
    ({}, "either an exchange or a queue can be followed"),
    ({"exchange": "", "queue": "q"}, "either an exchange or a queue can be followed"),
    ({"exchange": "", "key": "k" * 256}, "a pattern may have at most 255 characters"),
])
def test_what_cannot_be_followed_is_refused(stage: Stage, asked: dict[str, Any], text: str) -> None:
    with pytest.raises(Refusal, match=text):
        ObservingCommands(stage.broker).tail("/", **asked)
    with pytest.raises(Refusal, match="Virtual host 'none' does not exist"):
        ObservingCommands(stage.broker).tail("none", exchange="")


def test_so_many_can_follow_and_no_more(stage: Stage) -> None:
    observing = ObservingCommands(stage.broker)

    async def follow() -> None:
        streams = [observing.events() for _ in range(16)] + [observing.tail("/", exchange="") for _ in range(16)]
        for act in (observing.events, lambda: observing.tail("/", exchange="")):
            with pytest.raises(Refusal, match="32 clients follow what happens already"):
                act()
        for stream in streams:
            stream.close()
        observing.events().close()

    asyncio.run(follow())


def test_the_firehose_is_turned_on_and_off_and_listed(stage: Stage) -> None:
    lookups = Commands(stage.broker, bare_node()).lookups

    def listed() -> Any:
        return lookups["list_vhosts"]("", ["name", "tracing"])["rows"]

    for command, is_on in (("trace_on", True), ("trace_on", True), ("trace_off", False), ("trace_off", False)):
        lookups[command]("/")
        assert listed() == [["/", is_on]]
    with pytest.raises(Refusal):
        lookups["trace_on"]("none")


def test_amqpctl_shows_a_message_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Any] = []
    record = {
        "timestamp_in_ms": 1_700_000_000_007, "routing_key": "a.b", "routed_queues": ["q", "r"], "payload": "x\n" * 150,
        "payload_encoding": "string", "payload_bytes": 300}

    def answer(*asks: Any, **more: Any) -> Iterator[dict[str, Any]]:
        asked.append(asks[1:])
        yield from [record, record | {"routed_queues": [], "payload_encoding": "base64"}, {"dropped": 1}]
        raise KeyboardInterrupt

    monkeypatch.setattr("amqpd.ctl.client.follow", answer)
    assert ctl.main(["-p", "v", "tail", "x", "--key", "a.*"]) == 0
    assert asked == [("tail", {"vhost": "v", "exchange": "x", "queue": None, "key": "a.*"})]
    out, err = capsys.readouterr()
    heading, first, second = out.splitlines()
    assert heading == "Following messages to exchange 'x' in vhost 'v', until Ctrl-C ..."
    assert first.endswith(".007  a.b → q, r  " + "x\\n" * 100 + "…")
    assert second.endswith("a.b → no queue  (300 bytes)")
    assert err == "amqpctl: 1 message missing here: this program is too slow\n"
    assert ctl.main(["--formatter", "json", "tail", "--queue", "q"]) == 0
    assert capsys.readouterr().out.count('{"timestamp_in_ms"') == 2
    assert ctl.main(["tail"]) == ctl.main(["tail", "x", "--queue", "q"]) == 64


@pytest.mark.parametrize("word, texts", [
    ("trace_on", ['Starting tracing for vhost "v" ...', "Trace enabled for vhost v"]),
    ("trace_off", ['Stopping tracing for vhost "v" ...', "Trace disabled for vhost v"]),
])
def test_amqpctl_says_what_rabbitmqctl_says_of_the_firehose(
    word: str, texts: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("amqpd.ctl.client.ask", lambda path, *asks, **more: asked.append(asks))
    assert ctl.main(["-p", "v", word]) == 0
    assert capsys.readouterr().out.splitlines() == texts and asked == [(word, {"vhost": "v"})]
