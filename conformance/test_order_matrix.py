"""§5, §1, §6 Every method that a client can send, in every state of a connection and a channel, and the answer.

The states: before start-ok, before tune-ok, before open; then, with an open connection, on channel 0, on a channel that
was never opened, on an open channel, after the client's channel.close, and after the broker's.
"""
from __future__ import annotations

import contextlib
from concurrent.futures import Future
from typing import Iterator, NamedTuple

import pytest

from conformance import methods
from conformance.channel import Channel
from conformance.client import Client, Method, content_frames, method_frame, plain_response
from conformance.conftest import Broker
from conformance.endings import Ending, played_together
from conformance.fields import content_header, pack
from conformance.methods import (
    ACCESS_REQUEST, ACCESS_REQUEST_OK, BASIC_ACK, BASIC_CANCEL, BASIC_CANCEL_OK, BASIC_CONSUME, BASIC_CONSUME_OK,
    BASIC_GET, BASIC_GET_EMPTY, BASIC_NACK, BASIC_PUBLISH, BASIC_QOS, BASIC_QOS_OK, BASIC_RECOVER,
    BASIC_RECOVER_ASYNC, BASIC_RECOVER_OK, BASIC_REJECT, BASIC_RETURN, CHANNEL_CLOSE, CHANNEL_CLOSE_OK, CHANNEL_FLOW,
    CHANNEL_FLOW_OK, CHANNEL_OPEN, CHANNEL_OPEN_OK, CONFIRM_SELECT, CONFIRM_SELECT_OK, CONNECTION_CLOSE,
    CONNECTION_CLOSE_OK, CONNECTION_OPEN, CONNECTION_SECURE_OK, CONNECTION_START_OK, CONNECTION_TUNE_OK,
    CONNECTION_UPDATE_SECRET, CONNECTION_UPDATE_SECRET_OK, EXCHANGE_BIND,
    EXCHANGE_DECLARE, EXCHANGE_DECLARE_OK, EXCHANGE_DELETE, EXCHANGE_DELETE_OK, EXCHANGE_UNBIND,
    EXCHANGE_UNBIND_OK, QUEUE_BIND, QUEUE_BIND_OK, QUEUE_DECLARE, QUEUE_DECLARE_OK, QUEUE_DELETE, QUEUE_DELETE_OK,
    QUEUE_PURGE, QUEUE_PURGE_OK, QUEUE_UNBIND, QUEUE_UNBIND_OK, TX_COMMIT, TX_ROLLBACK, TX_SELECT, TX_SELECT_OK)
from conformance.texts import NO_PREVIOUS_QUEUE

Ids = tuple[int, int]


class Refusal(NamedTuple):
    """A close by the broker, with the method's own ids."""

    code: int
    text: str


CLOSE = pack("2s22", 200, "bye", 0, 0)
KEY = "order.matrix"
UNIMPLEMENTED = Refusal(503, "COMMAND_INVALID - unimplemented method")
UNEXPECTED = Refusal(504, "CHANNEL_ERROR - unexpected method in connection state running")
NOT_OPEN = Refusal(504, "CHANNEL_ERROR - expected 'channel.open'")
SECOND_OPEN = Refusal(504, "CHANNEL_ERROR - second 'channel.open' seen")
NO_QUEUE = Refusal(404, "NOT_FOUND - no queue 'nonesuch' in vhost '{vhost}'")
NO_EXCHANGE = Refusal(404, "NOT_FOUND - no exchange 'nonesuch' in vhost '{vhost}'")
UNKNOWN_TAG = Refusal(406, "PRECONDITION_FAILED - unknown delivery tag 1")
NOT_TRANSACTIONAL = Refusal(406, "PRECONDITION_FAILED - channel is not transactional")

# RabbitMQ drops TCP in the handshake; any of these codes before it is friendlier (§37).
FRIENDLIER = (403, 501, 502, 503, 504, 505, 530, 540)


class Sent(NamedTuple):
    """A method's arguments, and its answer on an open channel: the ids of its -ok, a refusal, or None for silence."""

    args: bytes
    answer: Ids | Refusal | None


MATRIX: dict[Ids, Sent] = {
    CONNECTION_START_OK: Sent(pack("TsLs", {}, "PLAIN", "\0guest\0guest", "en_US"), UNIMPLEMENTED),
    CONNECTION_SECURE_OK: Sent(pack("L", "response"), UNIMPLEMENTED),
    CONNECTION_TUNE_OK: Sent(pack("242", 2047, 131072, 0), UNIMPLEMENTED),
    CONNECTION_OPEN: Sent(pack("sso", "/", "", 0), UNIMPLEMENTED),
    CONNECTION_CLOSE: Sent(CLOSE, UNIMPLEMENTED),
    CONNECTION_CLOSE_OK: Sent(b"", UNIMPLEMENTED),
    CONNECTION_UPDATE_SECRET: Sent(pack("Ls", "secret", "renewed"), UNIMPLEMENTED),
    CHANNEL_OPEN: Sent(pack("s", ""), SECOND_OPEN),
    CHANNEL_FLOW: Sent(b"\x01", CHANNEL_FLOW_OK),
    CHANNEL_FLOW_OK: Sent(b"\x01", UNIMPLEMENTED),
    CHANNEL_CLOSE: Sent(CLOSE, CHANNEL_CLOSE_OK),
    CHANNEL_CLOSE_OK: Sent(b"", UNIMPLEMENTED),
    ACCESS_REQUEST: Sent(pack("so", "/data", 0), ACCESS_REQUEST_OK),
    EXCHANGE_DECLARE: Sent(pack("2ssoT", 0, "amq.direct", "direct", 0b00010, {}), EXCHANGE_DECLARE_OK),
    EXCHANGE_DELETE: Sent(pack("2so", 0, "nonesuch", 0), EXCHANGE_DELETE_OK),
    EXCHANGE_BIND: Sent(pack("2sssoT", 0, "amq.direct", "nonesuch", KEY, 0, {}), NO_EXCHANGE),
    EXCHANGE_UNBIND: Sent(pack("2sssoT", 0, "amq.direct", "amq.fanout", KEY, 0, {}), EXCHANGE_UNBIND_OK),
    QUEUE_DECLARE: Sent(pack("2soT", 0, "", 0b00100, {}), QUEUE_DECLARE_OK),
    QUEUE_BIND: Sent(pack("2sssoT", 0, "nonesuch", "amq.direct", KEY, 0, {}), NO_QUEUE),
    QUEUE_PURGE: Sent(pack("2so", 0, "nonesuch", 0), NO_QUEUE),
    QUEUE_DELETE: Sent(pack("2so", 0, "nonesuch", 0), QUEUE_DELETE_OK),
    QUEUE_UNBIND: Sent(pack("2sssT", 0, "nonesuch", "amq.direct", KEY, {}), QUEUE_UNBIND_OK),
    BASIC_QOS: Sent(pack("42o", 0, 0, 0), BASIC_QOS_OK),
    BASIC_CONSUME: Sent(pack("2ssoT", 0, "nonesuch", "tag", 0, {}), NO_QUEUE),
    BASIC_CANCEL: Sent(pack("so", "tag", 0), BASIC_CANCEL_OK),
    BASIC_CANCEL_OK: Sent(pack("s", "tag"), UNIMPLEMENTED),
    BASIC_PUBLISH: Sent(pack("2sso", 0, "", KEY, 1), BASIC_RETURN),
    BASIC_GET: Sent(pack("2so", 0, "nonesuch", 0), NO_QUEUE),
    BASIC_ACK: Sent(pack("8o", 0, 1), None),
    BASIC_REJECT: Sent(pack("8o", 1, 0), UNKNOWN_TAG),
    BASIC_RECOVER_ASYNC: Sent(b"\x01", None),
    BASIC_RECOVER: Sent(b"\x01", BASIC_RECOVER_OK),
    BASIC_NACK: Sent(pack("8o", 0, 1), None),
    CONFIRM_SELECT: Sent(b"\x00", CONFIRM_SELECT_OK),
    TX_SELECT: Sent(b"", TX_SELECT_OK),
    TX_COMMIT: Sent(b"", NOT_TRANSACTIONAL),
    TX_ROLLBACK: Sent(b"", NOT_TRANSACTIONAL),
}

# The same methods about a queue that was declared before them, so that none of them fails.
ABOUT_LAST_QUEUE: dict[Ids, Sent] = {
    QUEUE_BIND: Sent(pack("2sssoT", 0, "", "amq.direct", KEY, 0, {}), QUEUE_BIND_OK),
    QUEUE_PURGE: Sent(pack("2so", 0, "", 0), QUEUE_PURGE_OK),
    BASIC_CONSUME: Sent(pack("2ssoT", 0, "", "tag", 0, {}), BASIC_CONSUME_OK),
    BASIC_GET: Sent(pack("2so", 0, "", 0), BASIC_GET_EMPTY),
}


def by_name(ids: Ids) -> str:
    """A test id."""
    return methods.name(*ids)


def every_method(*left_out: Ids) -> pytest.MarkDecorator:
    """Parametrizes `ids` with all methods but these."""
    return pytest.mark.parametrize("ids", [ids for ids in MATRIX if ids not in left_out], ids=by_name)


def frames(ids: Ids, channel: int, sent: Sent | None = None) -> bytes:
    """A method's frames, with a small content where it carries one."""
    octets = method_frame(channel, *ids, (sent or MATRIX[ids]).args)
    if ids == BASIC_PUBLISH:
        octets += content_frames(channel, content_header(4), b"body", 4096)
    return octets


def expect_answer(client: Client, ids: Ids, answer: Ids | Refusal | None) -> None:
    """On channel 1, and then the channel still serves, unless the answer is a close."""
    if isinstance(answer, Refusal):
        expect_refusal(client, ids, answer)
        return
    if answer is not None:
        client.expect(1, *answer)
    if answer != CHANNEL_CLOSE_OK:
        assert client.sync(1) == []


def expect_refusal(client: Client, ids: Ids, refusal: Refusal) -> None:
    """Of the channel or of the connection, as the code decides."""
    text = refusal.text.format(vhost=client.url.vhost)
    if refusal.code in (403, 404, 405, 406):
        client.expect_channel_close(1, refusal.code, text, *ids)
    else:
        client.expect_connection_close(refusal.code, text, *ids)


# The handshake

STEPS = {CONNECTION_START_OK: (), CONNECTION_TUNE_OK: ("log_in",), CONNECTION_OPEN: ("log_in", "tune")}


def instead_of(due: Ids, ids: Ids) -> Ending:
    """A method where another one is due: the connection is over."""
    def ending(client: Client) -> None:
        client.greet()
        for step in STEPS[due]:
            getattr(client, step)()
        client.send(frames(ids, 0 if ids[0] == CONNECTION_OPEN[0] else 1))
        client.expect_dropped_or_closed(*FRIENDLIER)
    return ending


ENDINGS = {f"{by_name(ids)} before {by_name(due)}": instead_of(due, ids)
           for due in STEPS for ids in MATRIX if ids != due}


@pytest.fixture(scope="module")
def played(broker_url: str) -> Iterator[dict[str, Future]]:
    """All endings, under way."""
    with played_together(broker_url, ENDINGS) as played:
        yield played


@pytest.mark.parametrize("name", ENDINGS)
def test_the_connection_ends_at(played: dict[str, Future], name: str) -> None:
    """RabbitMQ waits three seconds and drops TCP; see `FRIENDLIER`."""
    played[name].result()


def test_the_methods_that_are_due_are_answered(broker: Broker) -> None:
    client = broker.client(connect=False)
    client.open_socket()
    client.greet()
    client.log_in("PLAIN", plain_response(client.url.user, client.url.password))
    client.tune()
    client.open_vhost()


# An open connection


@every_method(CONNECTION_CLOSE, CONNECTION_UPDATE_SECRET)
def test_on_channel_0_it_is_unexpected(client: Client, ids: Ids) -> None:
    client.send(frames(ids, 0))
    expect_refusal(client, ids, UNEXPECTED)


@pytest.mark.parametrize("ids, answer", [
    (CONNECTION_CLOSE, CONNECTION_CLOSE_OK), (CONNECTION_UPDATE_SECRET, CONNECTION_UPDATE_SECRET_OK)],
    ids=["connection.close", "connection.update-secret"])
def test_on_channel_0_it_is_answered(client: Client, ids: Ids, answer: Ids) -> None:
    client.send(frames(ids, 0))
    client.expect(0, *answer)


@every_method(CHANNEL_OPEN)
def test_on_a_channel_never_opened_it_closes_the_connection(client: Client, ids: Ids) -> None:
    client.send(frames(ids, 1))
    expect_refusal(client, ids, NOT_OPEN)


def test_on_a_channel_never_opened_channel_open_is_answered(client: Client) -> None:
    client.send(frames(CHANNEL_OPEN, 1))
    expect_answer(client, CHANNEL_OPEN, CHANNEL_OPEN_OK)


# An open channel


@every_method()
def test_on_an_open_channel_it_has_its_answer(client: Client, ch: Channel, ids: Ids) -> None:
    client.send(frames(ids, 1))
    expect_answer(client, ids, MATRIX[ids].answer)


@pytest.mark.parametrize("ids", ABOUT_LAST_QUEUE, ids=by_name)
def test_on_an_open_channel_it_has_its_answer_once_a_queue_was_declared(
        client: Client, ch: Channel, ids: Ids) -> None:
    ch.declare_queue(exclusive=True)
    client.send(frames(ids, 1, ABOUT_LAST_QUEUE[ids]))
    expect_answer(client, ids, ABOUT_LAST_QUEUE[ids].answer)


@pytest.mark.parametrize("ids", ABOUT_LAST_QUEUE, ids=by_name)
def test_on_an_open_channel_it_is_not_found_before_a_queue_was_declared(
        client: Client, ch: Channel, ids: Ids) -> None:
    client.send(frames(ids, 1, ABOUT_LAST_QUEUE[ids]))
    expect_refusal(client, ids, Refusal(404, NO_PREVIOUS_QUEUE))


# After channel.close


@every_method()
def test_after_our_close_it_is_ignored_or_finds_the_channel_closed(client: Client, ch: Channel, ids: Ids) -> None:
    """Sent with the close, it may come before or after the channel's end; no broker can be held to either."""
    client.send(frames(CHANNEL_CLOSE, 1) + frames(ids, 1))
    came = list(answers_until_open(client, 2))
    allowed = {CHANNEL_CLOSE_OK, CHANNEL_OPEN_OK} if ids == CHANNEL_OPEN else {CHANNEL_CLOSE_OK}
    for method in came:
        if method.ids == CONNECTION_CLOSE:
            code, text, *blamed = method.decode("2s22")
            assert Refusal(code, text) in (NOT_OPEN, SECOND_OPEN) and tuple(blamed) == ids
        else:
            assert method.channel == 1 and method.ids in allowed


def answers_until_open(client: Client, number: int) -> Iterator[Method]:
    """What arrives before another channel is open, or the connection is closed."""
    client.send(frames(CHANNEL_OPEN, number))
    while True:
        method = client.read()
        if method.channel == number:
            return
        yield method
        if method.ids == CONNECTION_CLOSE:
            return


@pytest.fixture
def closed_by_the_broker(client: Client, ch: Channel) -> Client:
    """Return a connection whose channel 1 the broker has closed, before close-ok."""
    client.send(frames(BASIC_REJECT, 1))
    client.expect(1, *CHANNEL_CLOSE)
    return client


@every_method(CHANNEL_CLOSE, CHANNEL_CLOSE_OK, CHANNEL_OPEN)
def test_after_the_brokers_close_it_is_ignored(closed_by_the_broker: Client, ids: Ids) -> None:
    closed_by_the_broker.send(frames(ids, 1) + frames(CHANNEL_CLOSE_OK, 1) + frames(CHANNEL_OPEN, 1))
    expect_answer(closed_by_the_broker, CHANNEL_OPEN, CHANNEL_OPEN_OK)


def test_after_the_brokers_close_ours_is_answered(closed_by_the_broker: Client) -> None:
    closed_by_the_broker.send(frames(CHANNEL_CLOSE, 1))
    closed_by_the_broker.expect(1, *CHANNEL_CLOSE_OK)


def test_after_the_brokers_close_and_close_ok_the_channel_may_be_opened(closed_by_the_broker: Client) -> None:
    closed_by_the_broker.send(frames(CHANNEL_CLOSE_OK, 1) + frames(CHANNEL_OPEN, 1))
    expect_answer(closed_by_the_broker, CHANNEL_OPEN, CHANNEL_OPEN_OK)


def test_after_the_brokers_close_an_open_is_ignored_or_one_too_many(closed_by_the_broker: Client) -> None:
    """RabbitMQ says 504; a broker may drop it unread like everything else."""
    closed_by_the_broker.send(frames(CHANNEL_OPEN, 1))
    with contextlib.suppress(ConnectionError):
        closed_by_the_broker.send(frames(CHANNEL_CLOSE_OK, 1))
    came = list(answers_until_open(closed_by_the_broker, 2))
    assert not came or came[0].decode("2s22") == (*SECOND_OPEN, *CHANNEL_OPEN)
