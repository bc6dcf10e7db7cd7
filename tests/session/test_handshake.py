"""From the protocol header to connection.open-ok, and every failure on the way."""

from __future__ import annotations

import struct

import pytest
from pamqp import encode
from pamqp.commands import Basic, Channel, Connection, Queue
from pamqp.header import ProtocolHeader
from pamqp.heartbeat import Heartbeat

from amqpd.broker.definitions import UserDefinition, VhostDefinition
from amqpd.session.phases import Phase
from amqpd.session.sasl_steps import LoginRequest
from amqpd.session.settings import SessionSettings
from tests.support.talk import CAPABILITIES, SETTINGS, Stage, Talk

REFUSED = (
    "ACCESS_REFUSED - Login was refused using authentication mechanism {}. For details see the broker logfile.")


def amqplain(user: str, password: str) -> str:
    """A field table without its length."""
    octets: bytes = encode.field_table({"LOGIN": user, "PASSWORD": password})[4:]
    return octets.decode()


def start_ok(mechanism: str, response: str) -> Connection.StartOk:
    return Connection.StartOk({"capabilities": CAPABILITIES}, mechanism, response, "en_US")


def assert_gone_without_a_word(talk: Talk) -> None:
    """Assert that nothing is sent, input is ignored, and the socket is closed after a pause."""
    talk.nothing()
    assert not talk.is_dropped and talk.session.phases.current is Phase.CLOSED
    talk.client(Connection.Open("/")).nothing()
    talk.stage.pass_time(1)
    assert talk.is_dropped


# The header

def test_a_connection_opens_as_the_specification_tells(stranger: Talk) -> None:
    stranger.client(ProtocolHeader())
    start = stranger.hear(Connection.Start)
    assert (start.version_major, start.version_minor) == (0, 9)
    assert start.server_properties == SETTINGS.server_properties
    assert (start.mechanisms, start.locales) == ("AMQPLAIN PLAIN", "en_US")
    stranger.client(start_ok("PLAIN", "\0guest\0secret guest"))
    stranger.broker(Connection.Tune(2_047, 131_072, 60))
    stranger.client(Connection.TuneOk(2_047, 131_072, 60), Connection.Open("/"))
    stranger.broker(Connection.OpenOk())
    assert stranger.session.phases.current is Phase.OPEN


def test_nothing_is_said_before_the_header_has_come(stranger: Talk) -> None:
    stranger.nothing()
    stranger.octets(b"AMQP\0\0\x09").nothing()


def test_the_header_of_0_9_is_served_as_0_9_1(stranger: Talk) -> None:
    stranger.octets(b"AMQP\x01\x01\x00\x09").hear(Connection.Start)


@pytest.mark.parametrize(
    "octets", [b"HTTP/1.1", b"AMQP\0\0\x09\x02", b"AMQP\x03\x01\0\0", b"AMQP\x01\x01\x08\x00", b"\x16\x03\x01\x02\0"])
def test_another_protocol_hears_ours_and_is_closed(stranger: Talk, octets: bytes) -> None:
    stranger.octets(octets).broker(ProtocolHeader()).octets(b"more of it").nothing()
    assert stranger.session.is_finished


def test_the_whole_handshake_may_be_said_at_once(stranger: Talk) -> None:
    stranger.client(
        ProtocolHeader(), start_ok("PLAIN", "\0guest\0secret guest"), Connection.TuneOk(10, 4_096, 0),
        Connection.Open("/"))
    stranger.client(Channel.Open()).hear(Connection.Start)
    stranger.hear(Connection.Tune)
    stranger.broker(Connection.OpenOk()).hear(Channel.OpenOk)


# Logging in

def test_amqplain_logs_in(stranger: Talk) -> None:
    stranger.greet().client(start_ok("AMQPLAIN", amqplain("guest", "secret guest"))).hear(Connection.Tune)
    assert stranger.session.user_name == "guest"


def test_a_second_user_logs_in_under_his_own_name(stranger: Talk) -> None:
    stranger.open("bob")
    assert stranger.session.user_name == "bob"


@pytest.mark.parametrize(("user", "password"), [("guest", "wrong"), ("nobody", "secret nobody"), ("", "secret ")])
def test_a_wrong_login_is_told_without_saying_what_was_wrong(stranger: Talk, user: str, password: str) -> None:
    stranger.greet().log_in(user, password)
    stranger.broker(Connection.Close(403, REFUSED.format("PLAIN"), 0, 0))


def test_the_log_says_who_was_refused_and_why(stranger: Talk, caplog: pytest.LogCaptureFixture) -> None:
    stranger.greet().log_in("guest", "wrong").hear(Connection.Close)
    line, = [record.getMessage() for record in caplog.records if "login refused" in record.getMessage()]
    assert line.endswith("state: starting): PLAIN login refused: user 'guest' - the password is wrong")


def test_the_refusal_of_a_login_names_its_mechanism(stranger: Talk) -> None:
    stranger.greet().client(start_ok("AMQPLAIN", amqplain("guest", "wrong")))
    stranger.broker(Connection.Close(403, REFUSED.format("AMQPLAIN"), 0, 0)).client(Connection.CloseOk())
    assert stranger.session.is_finished


def test_a_refused_client_that_does_not_answer_is_dropped(stranger: Talk) -> None:
    stranger.greet().log_in("guest", "wrong").hear(Connection.Close)
    stranger.stage.pass_time(1)
    assert stranger.is_dropped


def test_a_client_that_does_not_know_the_refusal_is_only_closed(stranger: Talk) -> None:
    stranger.greet().log_in("guest", "wrong", capabilities={"authentication_failure_close": False}).nothing()
    assert stranger.session.is_finished


@pytest.mark.parametrize("value", [1, "true", {}, None])
def test_a_capability_that_is_not_a_boolean_counts_as_missing(stranger: Talk, value: object) -> None:
    stranger.greet().log_in("guest", "wrong", capabilities={"authentication_failure_close": value}).nothing()


@pytest.mark.parametrize("mechanism", ["", "EXTERNAL", "plain", "RABBIT-CR-DEMO"])
def test_an_unknown_mechanism_ends_the_talk_without_a_word(stranger: Talk, mechanism: str) -> None:
    stranger.greet().client(start_ok(mechanism, "\0guest\0secret guest"))
    assert_gone_without_a_word(stranger)


@pytest.mark.parametrize("response", ["", "guest", "\0guest", "id\0guest\0secret guest", "\0guest\0secret guest\0"])
def test_a_malformed_plain_response_ends_the_talk_without_a_word(stranger: Talk, response: str) -> None:
    stranger.greet().client(start_ok("PLAIN", response))
    assert_gone_without_a_word(stranger)


@pytest.mark.parametrize(
    "response", ["", "nonsense", amqplain("guest", "")[:-5], encode.field_table({"LOGIN": "guest"})[4:].decode(),
                 encode.field_table({"LOGIN": "guest", "PASSWORD": 5})[4:].decode()])
def test_a_malformed_amqplain_response_ends_the_talk_without_a_word(stranger: Talk, response: str) -> None:
    stranger.greet().client(start_ok("AMQPLAIN", response))
    assert_gone_without_a_word(stranger)


def test_a_login_that_is_not_utf_8_is_malformed(stranger: Talk) -> None:
    payload = b"\x00\x0a\x00\x0b" + struct.pack(">I", 0) + b"\x05PLAIN" + struct.pack(">I", 4) + b"\0\xff\0x" + b"\x00"
    stranger.greet().octets(struct.pack(">BHI", 1, 0, len(payload)) + payload + b"\xce")
    assert_gone_without_a_word(stranger)


def test_a_login_does_not_show_its_password() -> None:
    assert "secret" not in repr(LoginRequest("guest", "secret guest"))


def test_what_is_said_while_the_password_is_looked_at_is_heard_afterwards(stage: Stage) -> None:
    stage.looks_at_passwords = False
    talk = stage.stranger().greet().log_in()
    talk.client(Connection.TuneOk(10, 4_096, 0), Connection.Open("/"), Channel.Open(), channel=0).nothing()
    stage.looks_at_passwords = True
    stage.end_turn()
    talk.hear(Connection.Tune)
    talk.broker(Connection.OpenOk())
    talk.hung_up(504, "CHANNEL_ERROR - unexpected method in connection state running", 20, 10)


def test_nothing_of_a_client_whose_password_was_wrong_is_heard_afterwards(stage: Stage) -> None:
    stage.looks_at_passwords = False
    talk = stage.stranger().greet().log_in("guest", "wrong").client(Connection.TuneOk(10, 4_096, 0))
    stage.looks_at_passwords = True
    stage.end_turn()
    talk.hear(Connection.Close)


def test_a_client_that_goes_while_its_password_is_looked_at_is_forgotten(stage: Stage) -> None:
    stage.looks_at_passwords = False
    talk = stage.stranger().greet().log_in().lose()
    stage.looks_at_passwords = True
    stage.end_turn()
    assert talk.session.phases.current is Phase.CLOSED


def test_too_much_said_before_the_password_was_looked_at_ends_the_talk(stage: Stage) -> None:
    stage.looks_at_passwords = False
    talk = stage.stranger().greet().log_in().client(*[Channel.Open()] * 101)
    assert_gone_without_a_word(talk)


@pytest.mark.parametrize("kind", ["methods", "acks", "publishes"])
def test_what_is_said_before_the_password_was_looked_at_takes_little_memory(kind: str) -> None:
    def say(talk: Talk, octets: int) -> Talk:
        """Say so much, in few commands."""
        if kind == "methods":
            return talk.client(*[Queue.Declare(queue="q" * 250)] * (octets // 300))
        if kind == "acks":
            return talk.client(*[Basic.Ack(1)] * (octets // 100))
        return talk.publish("q", *[b"x" * 100] * (octets // 150))

    for octets, is_kept in ((10_000, True), (30_000, False)):
        stage = Stage(settings=SessionSettings(server_properties={}, early_bytes=15_000))
        stage.looks_at_passwords = False
        talk = say(stage.stranger().greet().log_in(), octets)
        if is_kept:
            stage.looks_at_passwords = True
            stage.end_turn()
            talk.hear(Connection.Tune)
        else:
            assert not talk.session.handshake._early, "it is free at once"
            assert_gone_without_a_word(talk)


# Out of turn

@pytest.mark.parametrize("method", [
    Connection.Open("/"), Connection.TuneOk(10, 4_096, 0), Connection.CloseOk(), Connection.Start(),
    Connection.Close(200, "bye", 0, 0), Queue.Declare(queue="q"),
], ids=lambda method: method.name)
def test_a_method_out_of_turn_ends_the_handshake_without_a_word(stranger: Talk, method: Queue.Declare) -> None:
    stranger.greet().client(method, channel=0)
    assert_gone_without_a_word(stranger)


def test_a_method_on_a_channel_ends_the_handshake_without_a_word(stranger: Talk) -> None:
    stranger.greet().client(Channel.Open())
    assert_gone_without_a_word(stranger)


def test_content_ends_the_handshake_without_a_word(stranger: Talk) -> None:
    stranger.greet().publish("q", b"early")
    assert_gone_without_a_word(stranger)


def test_a_second_login_ends_the_handshake_without_a_word(stranger: Talk) -> None:
    stranger.greet().log_in().hear(Connection.Tune)
    stranger.log_in()
    assert_gone_without_a_word(stranger)


def test_a_heartbeat_may_come_at_any_time_of_the_handshake(stranger: Talk) -> None:
    stranger.greet().client(Heartbeat()).log_in().client(Heartbeat()).hear(Connection.Tune)
    stranger.client(Connection.TuneOk(10, 4_096, 0), Heartbeat(), Connection.Open("/")).broker(Connection.OpenOk())


def test_octets_that_are_no_frame_are_told_so_also_before_the_connection_is_open(stranger: Talk) -> None:
    stranger.greet().octets(b"\x09\0\0\0\0\0\x01x\xce")
    stranger.broker(Connection.Close(501, 'FRAME_ERROR - type 9, all octets = <<"x">>: unknown_frame', 0, 0))


def test_a_large_frame_before_tuning_is_refused(stranger: Talk) -> None:
    size = 4_097
    stranger.greet().octets(b"\x01\0\0" + struct.pack(">I", size))
    close = stranger.hear(Connection.Close)
    assert (close.reply_code, close.class_id) == (501, 0)
    assert f"frame_too_large,{size}," in close.reply_text


# Tuning

@pytest.mark.parametrize(("channel_max", "frame_max", "text"), [
    (0, 131_072, "negotiated channel_max = 0 is lower than the minimum allowed value (1)"),
    (2_048, 131_072, "negotiated channel_max = 2048 is higher than the maximum allowed value (2047)"),
    (2_047, 0, "negotiated frame_max = 0 is lower than the minimum allowed value (4096)"),
    (2_047, 4_095, "negotiated frame_max = 4095 is lower than the minimum allowed value (4096)"),
    (2_047, 131_073, "negotiated frame_max = 131073 is higher than the maximum allowed value (131072)"),
])
def test_tuning_beyond_what_was_offered_is_refused(
    stranger: Talk, channel_max: int, frame_max: int, text: str
) -> None:
    stranger.greet().log_in().hear(Connection.Tune)
    stranger.client(Connection.TuneOk(channel_max, frame_max, 0)).hung_up(530, f"NOT_ALLOWED - {text}", 10, 31)


@pytest.mark.parametrize(("channel_max", "frame_max", "heartbeat"), [(1, 4_096, 0), (2_047, 131_072, 65_535)])
def test_tuning_within_what_was_offered_holds(
    stranger: Talk, channel_max: int, frame_max: int, heartbeat: int
) -> None:
    session = stranger.open(channel_max=channel_max, frame_max=frame_max, heartbeat=heartbeat).session
    tuned = session.state.channel_max, session.state.frame_max, session.heartbeats.interval_s
    assert tuned == (channel_max, frame_max, heartbeat)


def test_frames_may_be_as_large_as_was_tuned(stranger: Talk) -> None:
    stranger.open(frame_max=4_096).open_channel()
    stranger.publish("nowhere", bytes(10_000), mandatory=True)
    stranger.broker(Basic.Return(312, "NO_ROUTE", "", "nowhere"), content=bytes(10_000))


# Opening

def test_an_unknown_vhost_is_refused(stranger: Talk) -> None:
    stranger.greet().log_in().hear(Connection.Tune)
    stranger.client(Connection.TuneOk(10, 4_096, 0), Connection.Open("/nope"))
    stranger.hung_up(530, "NOT_ALLOWED - vhost /nope not found", 10, 40)


def test_a_vhost_without_permission_is_refused(stage: Stage) -> None:
    stage.broker.add_vhost(VhostDefinition("private"))
    talk = stage.stranger().greet().log_in()
    talk.hear(Connection.Tune)
    talk.client(Connection.TuneOk(10, 4_096, 0), Connection.Open("private"))
    talk.hung_up(530, "NOT_ALLOWED - access to vhost 'private' refused for user 'guest'", 10, 40)


def test_a_user_without_any_permission_row_gets_nowhere(stage: Stage) -> None:
    stage.broker.users.add(UserDefinition("carol"))
    talk = stage.stranger().greet().log_in("carol")
    talk.hear(Connection.Tune)
    talk.client(Connection.TuneOk(10, 4_096, 0), Connection.Open("/"))
    talk.hung_up(530, "NOT_ALLOWED - access to vhost '/' refused for user 'carol'", 10, 40)


def test_one_connection_more_than_the_limit_is_refused(piece: int) -> None:
    stage = Stage(piece=piece, settings=SessionSettings(server_properties={}, connection_limit=1))
    first = stage.client()
    second = stage.stranger().greet().log_in()
    second.hear(Connection.Tune)
    second.client(Connection.TuneOk(10, 4_096, 0), Connection.Open("/"))
    second.hung_up(530, "NOT_ALLOWED - connection refused: node connection limit (1) is reached", 10, 40)
    first.lose()
    stage.client()


# Time

def test_a_handshake_that_takes_too_long_is_dropped(stranger: Talk) -> None:
    stranger.greet()
    stranger.stage.pass_time(9.75)
    assert not stranger.is_dropped
    stranger.stage.pass_time(0.25)
    assert stranger.is_dropped


def test_an_open_connection_is_not_held_to_the_time_of_the_handshake(talk: Talk) -> None:
    talk.stage.pass_time(60)
    assert not talk.is_dropped


@pytest.mark.parametrize(("said", "told"), [
    (b"", []), (b"AMQP", []),
    (b"AMQP\0\0\x09\x01", [
        "accepting AMQP connection {name}",
        "closing AMQP connection {name}: client unexpectedly closed TCP connection"]),
    (b"GET / HTTP/1.1\r\n\r\n", [
        "accepting AMQP connection {name}",
        "closing AMQP connection {name}: not an AMQP 0-9-1 client: it began with b'G"]),
])
def test_who_comes_and_goes_without_a_word_leaves_nothing_in_the_log(
    stage: Stage, caplog: pytest.LogCaptureFixture, said: bytes, told: list[str]
) -> None:
    """Health checks and storms of connections would fill it; RabbitMQ tells nothing of them either."""
    caplog.set_level("INFO")
    talk = stage.stranger()
    if said:
        talk.octets(said)
    talk.lose().hear_all()
    name = f"<0.{talk.session.number}.0> ({talk.session.name})"
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(told)
    assert all(line.startswith(text.format(name=name)) for line, text in zip(lines, told))


def test_who_is_turned_out_is_named_in_the_log_with_the_reason(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    talk = stage.stranger().greet()
    talk.session.handshake.turn_out("others wait")
    assert talk.session.phases.current is Phase.CLOSED
    record = caplog.records[-1]
    assert record.levelname == "INFO" and record.getMessage().endswith(": others wait")
    talk.hear_all()
