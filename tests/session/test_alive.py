"""Heartbeats in both directions, and the statistics of a session."""

from __future__ import annotations

import pytest
from pamqp import frame
from pamqp.commands import Basic, Channel, Connection, Queue
from pamqp.heartbeat import Heartbeat

from amqpd.session.heartbeats import Heartbeats
from tests.support.talk import Stage, Talk, content_frames


# Heartbeats

def test_a_heartbeat_goes_out_after_half_the_interval_of_silence(stage: Stage) -> None:
    talk = stage.client(heartbeat=10)
    stage.pass_time(4.75)
    talk.nothing()
    stage.pass_time(0.25)
    talk.broker(Heartbeat())
    stage.pass_time(5)
    talk.broker(Heartbeat())


def test_the_shortest_interval_has_two_heartbeats_a_second(stage: Stage) -> None:
    talk = stage.client(heartbeat=1)
    stage.pass_time(1)
    talk.broker(Heartbeat(), Heartbeat())


def test_whatever_is_said_counts_as_a_heartbeat(stage: Stage) -> None:
    talk = stage.client(heartbeat=10)
    stage.pass_time(4)
    talk.open_channel()
    stage.pass_time(4.75)
    talk.nothing()
    stage.pass_time(0.25)
    talk.broker(Heartbeat())


def test_a_client_that_is_silent_for_two_intervals_is_dropped(stage: Stage) -> None:
    talk = stage.client(heartbeat=10)
    stage.pass_time(20)
    assert not talk.is_dropped
    stage.pass_time(0.25)
    assert talk.is_dropped
    assert {type(heard.said) for heard in talk.hear_all()} == {Heartbeat}


def test_what_a_dropped_client_held_goes_to_others(stage: Stage) -> None:
    talk, other = stage.client(heartbeat=2).open_channel(), stage.client().open_channel()
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0)).publish("q", b"a")
    talk.client(Basic.Get(queue="q")).broker(Basic.GetOk(1, False, "", "q", 0), content=b"a")
    stage.pass_time(5)
    talk.hear_all()
    other.client(Basic.Get(queue="q")).broker(Basic.GetOk(1, True, "", "q", 0), content=b"a")


def test_heartbeats_keep_a_client_alive(stage: Stage) -> None:
    talk = stage.client(heartbeat=10)
    for _ in range(10):
        stage.pass_time(15)
        talk.client(Heartbeat())
    assert not talk.is_dropped and {type(heard.said) for heard in talk.hear_all()} == {Heartbeat}


def test_half_a_frame_keeps_a_client_alive(stage: Stage) -> None:
    talk = stage.client(heartbeat=10)
    for octet in b"\x08\0\0\0\0\0\0":
        stage.pass_time(15)
        talk.octets(bytes((octet,)))
    assert not talk.is_dropped
    talk.hear_all()


def test_without_heartbeats_nothing_is_sent_and_nobody_dropped(stage: Stage) -> None:
    talk = stage.client(heartbeat=0)
    stage.pass_time(600)
    assert not talk.nothing().is_dropped


def test_a_client_that_is_not_read_is_not_held_to_its_heartbeats(stage: Stage) -> None:
    talk = stage.client(heartbeat=10)
    talk.session.is_read = False
    stage.pass_time(60)
    assert not talk.is_dropped and len(talk.hear_all()) == 12


def test_no_heartbeat_follows_the_last_words(stage: Stage) -> None:
    talk = stage.client(heartbeat=1)
    talk.client(Connection.Close(200, "bye", 0, 0)).broker(Connection.CloseOk())
    stage.pass_time(1)
    assert talk.nothing().is_dropped


def test_heartbeats_go_on_while_a_close_is_not_answered(stage: Stage) -> None:
    talk = stage.client(heartbeat=1)
    talk.session.force_close("enough")
    stage.end_turn()
    stage.pass_time(1)
    talk.broker(Connection.Close(320, "CONNECTION_FORCED - enough", 0, 0), Heartbeat(), Heartbeat())


# Time in which nothing could be read

def gap(stage: Stage, seconds: float) -> None:
    """Let time pass in which the server does nothing, and excuse it."""
    stage.now_ms += round(seconds * 1000)
    stage.broker.clock.advance(stage.now_ms)
    for session in stage.talks:
        session.excuse(round(seconds * 1000), stage.now_ms)


def test_a_gap_is_not_counted_as_silence(stage: Stage) -> None:
    talk = stage.client(heartbeat=10)
    stage.pass_time(15)
    gap(stage, 40)
    stage.pass_time(5)
    assert not talk.is_dropped
    stage.pass_time(0.25)
    assert talk.is_dropped
    talk.hear_all()


def test_a_heartbeat_is_due_after_a_gap(stage: Stage) -> None:
    talk = stage.client(heartbeat=10)
    gap(stage, 40)
    stage.pass_time(0.25)
    talk.broker(Heartbeat())


def test_what_was_heard_before_a_gap_does_not_count_as_heard_later_than_now(stage: Stage) -> None:
    talk = stage.client(heartbeat=10)
    gap(stage, 5)
    gap(stage, 5)
    for session in stage.talks:
        session.excuse(60_000, stage.now_ms)
    stage.pass_time(20.25)
    assert talk.is_dropped
    talk.hear_all()


def test_a_gap_does_not_count_for_a_handshake(stage: Stage) -> None:
    talk = stage.stranger().greet()
    stage.pass_time(6)
    gap(stage, 40)
    stage.pass_time(3.75)
    assert not talk.is_dropped
    stage.pass_time(0.25)
    assert talk.is_dropped


def test_a_gap_does_not_count_for_the_answer_to_a_delivery(stage: Stage) -> None:
    talk = stage.client().open_channel()
    talk.client(Queue.Declare(queue="q")).broker(Queue.DeclareOk("q", 0, 0)).publish("q", b"a")
    talk.client(Basic.Get(queue="q")).broker(Basic.GetOk(1, False, "", "q", 0), content=b"a")
    gap(stage, 3_600)
    stage.pass_time(1_800)
    talk.nothing()
    stage.pass_time(0.25)
    talk.hear(Channel.Close)
    talk.client(Channel.CloseOk())


def test_who_is_heard_after_the_first_look_is_not_overdue_any_more(stage: Stage) -> None:
    talk = stage.client(heartbeat=10)
    stage.now_ms += 21_000
    assert not talk.session.tick(stage.now_ms) and talk.session.is_overdue(stage.now_ms)
    talk.client(Heartbeat())
    assert talk.session.tick(stage.now_ms) and not talk.session.is_overdue(stage.now_ms)
    talk.hear_all()


# What else goes over channel 0

def test_a_new_secret_is_accepted(talk: Talk) -> None:
    payload = b"\0\x0a\0\x46" + b"\0\0\0\x05token" + b"\x05later"
    talk.octets(b"\x01\0\0\0\0\0" + bytes((len(payload),)) + payload + b"\xce")
    talk.broker(Connection.UpdateSecretOk())


# Outlook

def test_a_session_tells_of_itself(stage: Stage) -> None:
    talk = stage.client("bob", channel_max=7, frame_max=8_192, heartbeat=30).open_channel(3)
    statistics = talk.session.statistics()
    assert {name: getattr(statistics, name) for name in (
        "name", "user", "vhost", "peer_host", "peer_port", "host", "port", "auth_mechanism", "state", "channels",
        "channel_max", "frame_max", "heartbeat_s",
    )} == {
        "name": "10.0.0.1:40000 -> 10.0.0.2:5672", "user": "bob", "vhost": "/", "peer_host": "10.0.0.1",
        "peer_port": 40_000, "host": "10.0.0.2", "port": 5_672, "auth_mechanism": "PLAIN", "state": "running",
        "channels": 1, "channel_max": 7, "frame_max": 8_192, "heartbeat_s": 30,
    }
    channel, = talk.session.channel_statistics()
    assert (channel.name, channel.number, channel.user) == ("10.0.0.1:40000 -> 10.0.0.2:5672 (3)", 3, "bob")


def test_a_session_counts_each_read_once(talk: Talk) -> None:
    talk.open_channel()
    talk.client(Queue.Declare(queue="q")).hear(Queue.DeclareOk)
    octets = b"".join((
        frame.marshal(Basic.Publish(routing_key="q"), 1),
        content_frames(1, bytes(500_000), None, talk.session.state.frame_max)))
    before = talk.session.traffic.received_count, talk.session.traffic.received_bytes
    at = reads = in_place = 0
    while at < len(octets):
        room = talk.session.direct_room()
        size = min(50_000, len(octets) - at)
        if room is None:
            talk.session.receive(octets[at : at + size], talk.stage.now_ms)
        else:
            size = min(size, len(room))
            room[:size] = octets[at : at + size]
            talk.session.receive_direct(size, talk.stage.now_ms)
            in_place += 1
        at += size
        reads += 1
    assert in_place and before == (
        talk.session.traffic.received_count - reads, talk.session.traffic.received_bytes - len(octets))
    talk.stage.end_turn()


@pytest.mark.parametrize("piece", [0])
def test_a_session_counts_the_octets_it_takes(stranger: Talk) -> None:
    stranger.greet()
    statistics = stranger.session.statistics()
    assert (statistics.received_bytes, statistics.received_count, statistics.unsent_bytes) == (8, 1, 0)


def test_a_connection_that_has_said_nothing_yet_is_alive_since_it_began() -> None:
    heartbeats = Heartbeats(1_000)
    assert not heartbeats.is_due(1 << 40) and not heartbeats.is_missed(1 << 40), "no interval has been agreed on"
    heartbeats.interval_s = 2
    assert not heartbeats.is_due(1_949) and heartbeats.is_due(1_950)
    assert not heartbeats.is_missed(5_050) and heartbeats.is_missed(5_051)
    heartbeats.peer_is_alive(500)
    assert heartbeats.heard_ms == 1_000
