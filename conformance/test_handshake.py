"""§1 Connection handshake: protocol header, login, vhost, and every failure on the way."""
from __future__ import annotations

import re
import struct
from concurrent.futures import Future
from typing import Any, Iterator

import pytest

from conformance.client import (
    PROTOCOL_HEADER, Client, Closed, amqplain_response, frame, method_frame, plain_response)
from conformance.conftest import Broker
from conformance.endings import Ending, played_together
from conformance.fields import Boolean, Cursor, LongString, Table, encode_table, pack
from conformance.methods import (
    CHANNEL_OPEN, CONNECTION_CLOSE, CONNECTION_OPEN, CONNECTION_OPEN_OK, CONNECTION_SECURE_OK, CONNECTION_START,
    CONNECTION_TUNE, CONNECTION_TUNE_OK)

CAPABILITIES = {
    "publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify", "connection.blocked",
    "consumer_priorities", "authentication_failure_close", "per_consumer_qos", "direct_reply_to"}

OTHER_HEADERS = {
    "AMQP 1.0": b"AMQP\x00\x01\x00\x00",
    "AMQP 1.0 with SASL": b"AMQP\x03\x01\x00\x00",
    "AMQP 0-9-2": b"AMQP\x00\x00\x09\x02",
    "AMQP 0-10": b"AMQP\x01\x01\x00\x0a",
    "AMQP of the future": b"AMQP\x00\x00\xff\xff",
    "lower case": b"amqp\x00\x00\x09\x01",
    "nothing but zeros": bytes(8),
    "a frame instead": frame(8, 0, b""),
}
OTHER_PROTOCOLS = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(192),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
}
REFUSED = "ACCESS_REFUSED - Login was refused using authentication mechanism {}. For details see the broker logfile."
# RabbitMQ ends most handshakes without a word. §37 calls that not worth copying, so a close with a code is right, too.
FRIENDLIER = (403, 501, 502, 503, 504, 505, 530, 540)


@pytest.fixture
def stranger(broker: Broker) -> Client:
    """A client with a socket and nothing said yet."""
    stranger = broker.client(connect=False)
    stranger.open_socket()
    return stranger


@pytest.fixture
def greeted(stranger: Client) -> Client:
    """A client that has read connection.start."""
    stranger.greet()
    return stranger


# The protocol header


@pytest.mark.standard
def test_start_says_version_0_9_and_the_american_locale(stranger: Client) -> None:
    major, minor, _, _, locales = stranger.greet().decode("ooTLL")
    assert (major, minor) == (0, 9)
    assert "en_US" in locales.split(" ")


def test_start_offers_plain_and_amqplain(stranger: Client) -> None:
    mechanisms = stranger.greet().decode("ooTLL")[3]
    assert {"PLAIN", "AMQPLAIN"} <= set(mechanisms.split(" "))


def test_start_names_each_mechanism_once(stranger: Client) -> None:
    mechanisms = stranger.greet().decode("ooTLL")[3].split(" ")
    assert len(set(mechanisms)) == len(mechanisms) and "" not in mechanisms


def test_the_0_9_header_gets_the_same_start(stranger: Client) -> None:
    assert stranger.greet(b"AMQP\x01\x01\x00\x09").decode("ooTLL")[:2] == (0, 9)


@pytest.mark.parametrize("header", [b"AMQP\x01\x01\x08\x00", b"AMQP\x01\x01\x09\x01"])
def test_the_0_8_headers_get_a_0_8_start_or_are_refused_like_others(stranger: Client, header: bytes) -> None:
    """RabbitMQ 3.10 speaks 0-8; from 4.0 on it does not, and a new broker need not."""
    stranger.send(header)
    answer = stranger.read_octets(8)
    if answer != PROTOCOL_HEADER:
        kind, channel, _, _ = struct.unpack(">BHIB", answer)
        assert (kind, channel) == (1, 0)


@pytest.mark.standard
@pytest.mark.parametrize("header", OTHER_HEADERS.values(), ids=OTHER_HEADERS)
def test_another_version_is_answered_with_ours_and_the_end_of_tcp(stranger: Client, header: bytes) -> None:
    stranger.send(header)
    assert stranger.read_octets(8) == PROTOCOL_HEADER
    stranger.expect_dropped()


@pytest.mark.parametrize("opening", OTHER_PROTOCOLS.values(), ids=OTHER_PROTOCOLS)
def test_another_protocol_is_answered_with_our_header_at_most(stranger: Client, opening: bytes) -> None:
    """RabbitMQ sends its header and closes; a broker may also just close (§38)."""
    stranger.send(opening)
    try:
        assert stranger.read_octets(8) == PROTOCOL_HEADER
    except Closed:
        return
    stranger.expect_dropped()


@pytest.mark.standard
def test_the_header_may_come_octet_by_octet(stranger: Client) -> None:
    for octet in PROTOCOL_HEADER:
        stranger.send(bytes([octet]))
    stranger.expect(0, *CONNECTION_START)


def test_a_whole_handshake_may_be_sent_without_waiting(stranger: Client) -> None:
    stranger.send(PROTOCOL_HEADER)
    stranger.send_start_ok()
    stranger.tune()
    stranger.send_open()
    for answer in (CONNECTION_START, CONNECTION_TUNE, CONNECTION_OPEN_OK):
        stranger.expect(0, *answer)


# Server properties


def server_properties(stranger: Client) -> dict:
    """The table of connection.start with its types."""
    cursor = Cursor(stranger.greet().args)
    cursor.take(2)
    return dict(cursor.typed_pairs())


@pytest.mark.parametrize("key", ["product", "version", "platform", "copyright", "information", "cluster_name"])
def test_server_properties_tell_with_a_long_string(stranger: Client, key: str) -> None:
    value = server_properties(stranger)[key]
    assert isinstance(value, LongString) and value.value


def test_capabilities_are_exactly_rabbitmqs_and_all_true(stranger: Client) -> None:
    capabilities = server_properties(stranger)["capabilities"]
    assert isinstance(capabilities, Table)
    assert dict(capabilities.value) == dict.fromkeys(CAPABILITIES, Boolean(True))


def test_the_product_is_rabbitmq_3_10_or_later(stranger: Client) -> None:
    """§35: kombu and Celery choose global prefetch by product and version."""
    properties = server_properties(stranger)
    major, minor, _ = (int(number) for number in properties["version"].value.split("."))
    assert properties["product"].value == "RabbitMQ"
    assert major == 3 and minor >= 10


def test_the_cluster_name_looks_like_a_node(stranger: Client) -> None:
    assert re.fullmatch(r".+@.+", server_properties(stranger)["cluster_name"].value)


# Logging in


@pytest.mark.standard
def test_plain_logs_in(greeted: Client) -> None:
    greeted.log_in("PLAIN", plain_response(greeted.url.user, greeted.url.password))


def test_amqplain_logs_in(greeted: Client) -> None:
    greeted.log_in("AMQPLAIN", amqplain_response(greeted.url.user, greeted.url.password))


def test_amqplain_fields_may_come_in_any_order_and_company(greeted: Client) -> None:
    table = {"PASSWORD": greeted.url.password, "REALM": "x", "LOGIN": greeted.url.user}
    greeted.log_in("AMQPLAIN", encode_table(table)[4:])


@pytest.mark.parametrize("properties", [
    {},
    {"connection_name": "orders", "product": "x", "version": "1"},
    {"capabilities": {"no.such.thing": True, "basic.nack": "yes"}},
    {"nested": {"deeper": [1, {"deepest": None}]}, "none": None, "float": 1.5},
], ids=["none", "a name", "odd capabilities", "nested"])
def test_client_properties_may_hold_anything(greeted: Client, properties: dict) -> None:
    greeted.log_in(properties=properties)


@pytest.mark.parametrize("locale", ["", "en_US", "tlh_QO", "x" * 255])
def test_the_locale_is_not_checked(greeted: Client, locale: str) -> None:
    greeted.log_in(locale=locale)


def test_heartbeats_may_come_between_the_steps(greeted: Client) -> None:
    for step in (greeted.log_in, greeted.tune, greeted.open_vhost):
        greeted.send_frame(8, 0, b"")
        step()


@pytest.mark.standard
def test_open_ok_carries_an_empty_string(greeted: Client) -> None:
    greeted.log_in()
    greeted.tune()
    greeted.send_open()
    assert greeted.expect(0, *CONNECTION_OPEN_OK).decode("s") == ("",)


@pytest.mark.standard
def test_the_reserved_fields_of_open_are_ignored(greeted: Client) -> None:
    greeted.log_in()
    greeted.tune()
    greeted.send_method(0, *CONNECTION_OPEN, pack("sso", greeted.url.vhost, "capabilities", 1))
    greeted.expect(0, *CONNECTION_OPEN_OK)


@pytest.mark.parametrize("vhost", ["nonesuch", "", "//", "Größe", "x" * 255])
def test_an_unknown_vhost_is_refused(greeted: Client, vhost: str) -> None:
    greeted.log_in()
    greeted.tune()
    greeted.send_open(vhost)
    text = f"NOT_ALLOWED - vhost {vhost} not found"
    greeted.expect_connection_close(530, text if len(text) <= 255 else text[:252] + "...", *CONNECTION_OPEN)


# Endings, all of which take RabbitMQ three seconds or more


def refused(user: str, password: str, mechanism: str = "PLAIN") -> Ending:
    """Return the close after a failed login, for a client with the capability for it."""
    response = {"PLAIN": plain_response, "AMQPLAIN": amqplain_response}[mechanism](user, password)

    def ending(client: Client) -> None:
        client.greet()
        client.send_start_ok(mechanism, response)
        close = client.expect(0, *CONNECTION_CLOSE)
        assert close.decode("2s22") == (403, REFUSED.format(mechanism), 0, 0)
        client.expect_dropped()
    return ending


def refused_with_close_ok(client: Client) -> None:
    """The same, and the client answers."""
    client.greet()
    client.send_start_ok("PLAIN", plain_response("guest", "wrong"))
    client.expect_connection_close(403, REFUSED.format("PLAIN"), 0, 0)
    client.expect_dropped()


def refused_in_silence(properties: dict) -> Ending:
    """Return the end of a failed login, for a client without the capability for a close."""
    def ending(client: Client) -> None:
        client.greet()
        client.send_start_ok("PLAIN", plain_response("guest", "wrong"), properties=properties)
        client.expect_dropped()
    return ending


def bad_start_ok(mechanism: str, response: bytes) -> Ending:
    """A start-ok that no login can be made of."""
    def ending(client: Client) -> None:
        client.greet()
        client.send_start_ok(mechanism, response)
        client.expect_dropped_or_closed(*FRIENDLIER)
    return ending


def instead_of_start_ok(octets: bytes) -> Ending:
    """Something else where start-ok is due."""
    def ending(client: Client) -> None:
        client.greet()
        client.send(octets)
        client.expect_dropped_or_closed(*FRIENDLIER)
    return ending


def instead_of_tune_ok(octets: bytes) -> Ending:
    """Something else where tune-ok is due."""
    def ending(client: Client) -> None:
        client.greet()
        client.log_in()
        client.send(octets)
        client.expect_dropped_or_closed(*FRIENDLIER)
    return ending


def instead_of_open(octets: bytes) -> Ending:
    """Something else where open is due."""
    def ending(client: Client) -> None:
        client.greet()
        client.log_in()
        client.tune()
        client.send(octets)
        client.expect_dropped_or_closed(*FRIENDLIER)
    return ending


def start_ok_twice(client: Client) -> None:
    """A second login on the same connection."""
    client.greet()
    client.log_in()
    client.send_start_ok()
    client.expect_dropped_or_closed(*FRIENDLIER)


def padded(size: int) -> dict[str, Any]:
    """Client properties that make the payload of a PLAIN start-ok by guest so large."""
    rest = pack("TsLs", {"much": ""}, "PLAIN", plain_response("guest", "guest"), "en_US")
    return {"much": "x" * (size - 4 - len(rest))}


def oversized_start_ok(client: Client) -> None:
    """Before tune-ok the largest payload is the smallest frame-max."""
    client.greet()
    client.send_start_ok(response=plain_response("guest", "guest"), properties=padded(4097))
    client.expect_dropped_or_closed(*FRIENDLIER)


def oversized_tune_ok(client: Client) -> None:
    """It holds until tune-ok has come."""
    client.greet()
    client.log_in()
    client.send_frame(1, 0, bytes(4097))
    client.expect_dropped_or_closed(*FRIENDLIER)


def silent_from(steps: str) -> Ending:
    """A client that stops after these steps, and is given up after ten seconds."""
    def ending(client: Client) -> None:
        for step in steps.split():
            getattr(client, step)()
        client.expect_dropped_or_closed(*FRIENDLIER, within=25)
    return ending


CLOSE = method_frame(0, *CONNECTION_CLOSE, pack("2s22", 200, "bye", 0, 0))
TUNE_OK = method_frame(0, *CONNECTION_TUNE_OK, pack("242", 2047, 131072, 0))
OPEN = method_frame(0, *CONNECTION_OPEN, pack("sso", "/", "", 0))
CHANNEL_1 = method_frame(1, *CHANNEL_OPEN, pack("s", ""))

ENDINGS = {
    "a wrong password": refused("guest", "wrong"),
    "an empty password": refused("guest", ""),
    "an unknown user": refused("nobody", "guest"),
    "an empty user": refused("", "guest"),
    "a user that differs in case": refused("Guest", "guest"),
    "a wrong password by amqplain": refused("guest", "wrong", "AMQPLAIN"),
    "a wrong password, close answered": refused_with_close_ok,
    "no capability to hear of it": refused_in_silence({}),
    "the capability set to false": refused_in_silence({"capabilities": {"authentication_failure_close": False}}),
    "the capability as a number": refused_in_silence({"capabilities": {"authentication_failure_close": 1}}),
    "capabilities as a string": refused_in_silence({"capabilities": "authentication_failure_close"}),
    "an unknown mechanism": bad_start_ok("NOPE", b"\0guest\0guest"),
    "a mechanism in lower case": bad_start_ok("plain", b"\0guest\0guest"),
    "a mechanism that was not offered": bad_start_ok("EXTERNAL", b""),
    "anonymous, which was not offered": bad_start_ok("ANONYMOUS", b""),
    "a challenge mechanism that was not offered": bad_start_ok("SCRAM-SHA-256", b"n,,n=guest,r=abcdefgh"),
    "an empty mechanism": bad_start_ok("", b"\0guest\0guest"),
    "plain without anything": bad_start_ok("PLAIN", b""),
    "plain without separators": bad_start_ok("PLAIN", b"guest"),
    "plain without a password field": bad_start_ok("PLAIN", b"\0guest"),
    "plain with an authorisation id": bad_start_ok("PLAIN", b"guest\0guest\0guest"),
    "plain with a third field": bad_start_ok("PLAIN", b"\0guest\0guest\0x"),
    "amqplain without anything": bad_start_ok("AMQPLAIN", b""),
    "amqplain without a password": bad_start_ok("AMQPLAIN", encode_table({"LOGIN": "guest"})[4:]),
    "amqplain with a number as password": bad_start_ok("AMQPLAIN", encode_table({"LOGIN": "guest", "PASSWORD": 5})[4:]),
    "amqplain that ends within a value": bad_start_ok("AMQPLAIN", b"\x05LOGINS\x00\x00\x00\xffguest"),
    "close where start-ok is due": instead_of_start_ok(CLOSE),
    "tune-ok where start-ok is due": instead_of_start_ok(TUNE_OK),
    "secure-ok where start-ok is due": instead_of_start_ok(method_frame(0, *CONNECTION_SECURE_OK, pack("L", ""))),
    "open where start-ok is due": instead_of_start_ok(OPEN),
    "a channel before start-ok": instead_of_start_ok(CHANNEL_1),
    "an unknown frame type before start-ok": instead_of_start_ok(frame(9, 0, b"")),
    "a wrong end octet before start-ok": instead_of_start_ok(frame(1, 0, b"\x00\x0a\x00\x0b")[:-1] + b"X"),
    "start-ok that cannot be decoded": instead_of_start_ok(frame(1, 0, b"\x00\x0a\x00\x0b\x00\x00\x00\x20abc")),
    "secure-ok where tune-ok is due": instead_of_tune_ok(method_frame(0, *CONNECTION_SECURE_OK, pack("L", ""))),
    "open where tune-ok is due": instead_of_tune_ok(OPEN),
    "close where tune-ok is due": instead_of_tune_ok(CLOSE),
    "a channel before tune-ok": instead_of_tune_ok(CHANNEL_1),
    "close where open is due": instead_of_open(CLOSE),
    "a channel before open": instead_of_open(CHANNEL_1),
    "tune-ok where open is due": instead_of_open(TUNE_OK),
    "start-ok twice": start_ok_twice,
    "a start-ok of more than 4 KiB": oversized_start_ok,
    "more than 4 KiB where tune-ok is due": oversized_tune_ok,
    "silence from the start": silent_from(""),
    "silence after start": silent_from("greet"),
    "silence after tune": silent_from("greet log_in"),
    "silence after tune-ok": silent_from("greet log_in tune"),
}


@pytest.fixture(scope="module")
def played(broker_url: str) -> Iterator[dict[str, Future]]:
    """All endings, under way."""
    with played_together(broker_url, ENDINGS) as played:
        yield played


@pytest.mark.parametrize("name", ENDINGS)
def test_a_handshake_ends_at(played: dict[str, Future], name: str) -> None:
    """The failure table of §1, a row or more for each name."""
    played[name].result()


def test_a_start_ok_may_have_4_kib(broker: Broker) -> None:
    client = broker.client(connect=False)
    client.open_socket()
    client.greet()
    assert client.log_in(response=plain_response("guest", "guest"), properties=padded(4096))[0] > 0
