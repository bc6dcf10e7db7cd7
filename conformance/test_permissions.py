"""§29 and the 403 of §6: access to vhosts, names of the broker, patterns, routing keys, and permissions that end.

One user does everything; see `guests` for how names tell the permissions on them. What each method needs, and on which
name, is in test_rights_matrix.
"""
from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import Iterator

import pytest

from conformance.channel import Channel
from conformance.client import Client
from conformance.conftest import Broker, Names
from conformance.guests import BY_ENDING, PASSWORD, Guest, new_guest
from conformance.methods import (
    BASIC_CONSUME, BASIC_PUBLISH, CHANNEL_CLOSE, CONNECTION_CLOSE, CONNECTION_CLOSE_OK, EXCHANGE_DECLARE, QUEUE_DECLARE,
    QUEUE_DECLARE_OK)
from conformance.texts import Texts

pytestmark = pytest.mark.needs("ctl")


@pytest.fixture(scope="module")
def stranger(request: pytest.FixtureRequest, broker_url: str) -> Iterator[Guest]:
    """A user with a password, and no permissions anywhere yet."""
    guest = new_guest(broker_url, request.config.getoption("--ctl"))
    yield guest
    guest.ctl("delete_user", guest.name)


@pytest.fixture(scope="module")
def guest(stranger: Guest) -> Guest:
    """Return a connection of the user, after the permissions are set."""
    stranger.permit(*BY_ENDING)
    return stranger


@contextmanager
def permitted(guest: Guest, configure: str, write: str, read: str) -> Iterator[Channel]:
    """A channel of this user's, who has these permissions meanwhile."""
    guest.permit(configure, write, read)
    try:
        with Client(guest.url) as client:
            yield client.channel()
    finally:
        guest.permit(*BY_ENDING)


@pytest.fixture
def theirs(guest: Guest, broker: Broker) -> Iterator[Channel]:
    """A channel of this user's."""
    with Client(guest.url) as client:
        yield client.channel()


# The door of the vhost; first, while he may not even enter


def test_without_a_row_of_permissions_a_user_does_not_enter_the_vhost(stranger: Guest) -> None:
    client = Client(stranger.url, connect=False)
    client.open_socket()
    client.greet()
    client.log_in()
    client.tune()
    client.send_open()
    close = client.expect(0, *CONNECTION_CLOSE)
    text = f"NOT_ALLOWED - access to vhost '{stranger.vhost}' refused for user '{stranger.name}'"
    assert close.decode("2s22") == (530, text, 10, 40)
    client.send_method(0, *CONNECTION_CLOSE_OK)
    client.drop()


def test_a_row_that_allows_nothing_opens_the_door(stranger: Guest, texts: Texts) -> None:
    stranger.permit("", "", "")
    with Client(stranger.url) as client:
        ch = client.channel()
        ch.publish("", "anywhere")
        ch.fails(403, stranger.refusal(texts.exchange("amq.default")), *BASIC_PUBLISH)


# Names that exist, and names of the broker


def test_with_one_right_a_method_that_needs_no_other_goes_through(theirs: Channel, names: Names) -> None:
    queue, exchange = names.queue(f"{names.prefix}.cr"), names.exchange(f"{names.prefix}.c")
    theirs.declare_queue(queue)
    theirs.declare_exchange(exchange)
    theirs.consume(queue)
    assert theirs.purge(queue) == 0
    theirs.delete_queue(queue)
    theirs.delete_exchange(exchange)


@pytest.mark.needs("passive-needs-no-right")
def test_passive_declares_need_no_right(ch: Channel, theirs: Channel, queue_name: str, exchange_name: str) -> None:
    ch.declare_queue(queue_name)
    ch.declare_exchange(exchange_name)
    assert theirs.declare_queue(queue_name, passive=True) == (queue_name, 0, 0)
    theirs.declare_exchange(exchange_name, passive=True)


@pytest.mark.needs("passive-needs-no-right")
def test_a_missing_queue_is_missing_to_a_passive_declare_without_rights(theirs: Channel, texts: Texts) -> None:
    theirs.send_declare_queue("nonesuch", passive=True)
    theirs.fails(404, texts.no_queue("nonesuch"), *QUEUE_DECLARE)


@pytest.mark.needs("passive-needs-any-right")
@pytest.mark.parametrize("right", "cwr")
def test_a_passive_declare_needs_any_right(
        ch: Channel, theirs: Channel, names: Names, right: str) -> None:
    queue, exchange = names.queue(f"{names.prefix}.q.{right}"), names.exchange(f"{names.prefix}.x.{right}")
    ch.declare_queue(queue)
    ch.declare_exchange(exchange)
    assert theirs.declare_queue(queue, passive=True) == (queue, 0, 0)
    theirs.declare_exchange(exchange, passive=True)


@pytest.mark.needs("passive-needs-any-right")
@pytest.mark.parametrize("is_there", [True, False])
def test_without_a_right_a_passive_declare_does_not_tell_whether_a_name_is_there(
        ch: Channel, guest: Guest, theirs: Channel, texts: Texts, names: Names, is_there: bool) -> None:
    queue, exchange = names.queue(f"{names.prefix}.q"), names.exchange(f"{names.prefix}.x")
    if is_there:
        ch.declare_queue(queue)
        ch.declare_exchange(exchange)
    with Client(guest.url) as client:
        other = client.channel()
        other.send_declare_exchange(exchange, passive=True)
        other.fails(403, guest.refusal(texts.exchange(exchange)), *EXCHANGE_DECLARE)
    theirs.send_declare_queue(queue, passive=True)
    theirs.fails(403, guest.refusal(texts.queue(queue)), *QUEUE_DECLARE)


def test_a_queue_named_by_the_broker_needs_the_right_too(guest: Guest, theirs: Channel) -> None:
    theirs.send_declare_queue("")
    close = theirs.client.await_method(theirs.number, [CHANNEL_CLOSE])
    code, text, *ids = close.decode("2s22")
    assert (code, tuple(ids)) == (403, QUEUE_DECLARE)
    assert text.startswith("ACCESS_REFUSED - access to queue 'amq.gen-")
    assert text.endswith(f"' in vhost '{guest.vhost}' refused for user '{guest.name}'")


def test_publishing_to_a_queue_by_name_needs_the_right_on_the_default_exchange(
        guest: Guest, theirs: Channel, texts: Texts, names: Names) -> None:
    theirs.publish("", f"{names.prefix}.cwr")
    theirs.fails(403, guest.refusal(texts.exchange("amq.default")), *BASIC_PUBLISH)


def test_names_of_the_broker_are_matched_as_they_are_written(guest: Guest, names: Names) -> None:
    """`amq.default` for the default exchange, and the whole of a generated name."""
    with permitted(guest, r"^amq\.gen", r"^amq\.default$", r"^amq\.gen") as channel:
        channel.confirm_select()
        queue, _, _ = channel.declare_queue("", exclusive=True)
        channel.publish("", queue, b"allowed")
        channel.confirms(1)
        assert channel.get(queue).body == b"allowed"


@pytest.mark.parametrize("pattern, is_allowed", [
    ("orders", True), ("^orders$", False), (r"\.orders\.", True), ("ORDERS", False), ("(?i)ORDERS", True),
    (".*", True), ("", False), ("^$", False), (r"^(?!amq\.).*", True), (r"^(?!names)", False),
    (r"^([^.]+\.)*new$", True), ("^names.*(?<!old)$", True), ("^names.*(?<!new)$", False),
    ("ord(er)+s", True), ("/orders/", False)])
def test_a_pattern_is_looked_for_anywhere_in_a_name(
        guest: Guest, texts: Texts, names: Names, pattern: str, is_allowed: bool) -> None:
    name = names.queue(f"names.{names.prefix}.orders.new")
    with permitted(guest, pattern, "", "") as channel:
        channel.send_declare_queue(name)
        if is_allowed:
            assert channel.answer(QUEUE_DECLARE_OK, "s44") == (name, 0, 0)
        else:
            channel.fails(403, guest.refusal(texts.queue(name)), *QUEUE_DECLARE)


def test_a_reserved_name_is_refused_before_rights_are_looked_at(theirs: Channel) -> None:
    theirs.send_declare_queue("amq.mine")
    theirs.fails(403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'", *QUEUE_DECLARE)


def test_direct_reply_needs_no_right_on_its_queue(theirs: Channel) -> None:
    theirs.consume("amq.rabbitmq.reply-to", no_ack=True)


def test_publishes_after_the_refused_one_are_lost(
        ch: Channel, theirs: Channel, guest: Guest, texts: Texts, names: Names) -> None:
    queue, exchange = names.queue(f"{names.prefix}.q.cwr"), names.exchange(f"{names.prefix}.x.w")
    ch.declare_queue(queue)
    ch.declare_exchange(exchange, "fanout")
    ch.bind_queue(queue, exchange)
    theirs.confirm_select()
    theirs.publish(exchange, "", b"allowed")
    theirs.publish("amq.fanout", "", b"refused")
    theirs.publish(exchange, "", b"lost")
    theirs.fails(403, guest.refusal(texts.exchange("amq.fanout")), *BASIC_PUBLISH)
    assert ch.get(queue).body == b"allowed"
    assert ch.get(queue) is None


# Routing keys of topic exchanges


@pytest.fixture
def topics(guest: Guest, ch: Channel, names: Names) -> Iterator[str]:
    """A topic exchange with topic permissions: to write keys of `w` and the user's name, to read those of `r`."""
    exchange = names.exchange(f"{names.prefix}.topics.cwr")
    ch.declare_exchange(exchange, "topic")
    guest.ctl("set_topic_permissions", "-p", guest.vhost, guest.name, exchange, "^w[.]{username}$", "^r")
    yield exchange
    guest.ctl("clear_topic_permissions", "-p", guest.vhost, guest.name, exchange)


def arrives(publisher: Channel, getter: Channel, queue: str, exchange: str, key: str) -> bool:
    """Publish a message, and return whether it is in the queue once it is confirmed."""
    publisher.confirm_select()
    publisher.publish(exchange, key, b"allowed")
    publisher.confirms(1)
    got = getter.get(queue)
    return got is not None and got.body == b"allowed"


def test_a_routing_key_with_the_right_is_taken(
        guest: Guest, ch: Channel, theirs: Channel, names: Names, topics: str) -> None:
    queue = names.queue(f"{names.prefix}.q.cwr")
    theirs.declare_queue(queue)
    theirs.bind_queue(queue, topics, "r.#")
    ch.bind_queue(queue, topics, f"w.{guest.name}")
    assert arrives(theirs, ch, queue, topics, f"w.{guest.name}")


def test_a_routing_key_with_the_name_of_another_user_is_refused(
        guest: Guest, theirs: Channel, texts: Texts, topics: str) -> None:
    theirs.publish(topics, "w.another")
    theirs.fails(403, guest.refusal(f"topic 'w.another' in {texts.exchange(topics)}"), *BASIC_PUBLISH)


def test_topic_permissions_mean_nothing_for_other_exchanges(
        guest: Guest, theirs: Channel, names: Names, ch: Channel) -> None:
    queue, exchange = names.queue(f"{names.prefix}.q.cwr"), names.exchange(f"{names.prefix}.direct.cwr")
    ch.declare_exchange(exchange, "direct")
    ch.declare_queue(queue)
    guest.ctl("set_topic_permissions", "-p", guest.vhost, guest.name, exchange, "", "")
    theirs.bind_queue(queue, exchange, "key")
    assert arrives(theirs, ch, queue, exchange, "key")


def test_cleared_topic_permissions_allow_any_key(
        guest: Guest, ch: Channel, theirs: Channel, names: Names, topics: str) -> None:
    queue = names.queue(f"{names.prefix}.q.cwr")
    ch.declare_queue(queue)
    ch.bind_queue(queue, topics, "any")
    guest.ctl("clear_topic_permissions", "-p", guest.vhost, guest.name)
    assert arrives(theirs, ch, queue, topics, "any")


# Rights that are taken away


@pytest.mark.needs("revoked-consumers-are-closed")
def test_a_running_consumer_ends_when_its_user_may_not_read_any_more(
        guest: Guest, ch: Channel, theirs: Channel, texts: Texts, names: Names) -> None:
    queue = names.queue(f"{names.prefix}.q.r")
    ch.declare_queue(queue)
    theirs.consume(queue)
    try:
        guest.permit(*BY_ENDING[:2], "")
        theirs.fails(403, guest.refusal(texts.queue(queue)), *BASIC_CONSUME)
    finally:
        guest.permit(*BY_ENDING)


@pytest.mark.needs("revoked-publishers-are-refused")
def test_a_running_publisher_is_refused_when_its_user_may_not_write_any_more(
        guest: Guest, ch: Channel, theirs: Channel, texts: Texts, names: Names) -> None:
    queue, exchange = names.queue(), names.exchange(f"{names.prefix}.x.w")
    ch.declare_queue(queue)
    ch.declare_exchange(exchange, "fanout")
    ch.bind_queue(queue, exchange)
    assert arrives(theirs, ch, queue, exchange, "")
    try:
        guest.permit(BY_ENDING[0], "", BY_ENDING[2])
        theirs.publish(exchange, "", b"revoked")
        theirs.fails(403, guest.refusal(texts.exchange(exchange)), *BASIC_PUBLISH)
        assert ch.get(queue) is None
    finally:
        guest.permit(*BY_ENDING)


# Last, for it ends what the others need


def test_deleting_a_user_closes_all_its_connections_and_no_others(
        guest: Guest, ch: Channel, names: Names) -> None:
    queue = names.queue(f"{names.prefix}.q.cwr")
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(guest.url, timeout=30)) for _ in range(40)]
        channels = [client.channel() for client in clients]
        channels[0].declare_queue(queue)
        for channel in channels[:20]:
            channel.consume(queue)
        guest.ctl("delete_user", guest.name)
        text = f"CONNECTION_FORCED - user '{guest.name}' is deleted"
        for client in clients:
            assert client.expect(0, *CONNECTION_CLOSE).decode("2s22") == (320, text, 0, 0)
            client.send_method(0, *CONNECTION_CLOSE_OK)
    assert ch.sync() == []
    refused = Client(guest.url, connect=False)
    refused.open_socket()
    refused.greet()
    refused.send_start_ok()
    assert refused.expect(0, *CONNECTION_CLOSE).decode("2s22")[0] == 403
    refused.drop()
    guest.ctl("add_user", guest.name, PASSWORD)     # for the fixture to delete
