"""§29 and the 403 of §6: which permission each method needs, on which name; the error; access to vhosts.

One user does everything. The end of each name tells the permissions on it: after the last point come `c`, `w` and `r`,
for configure, write and read.
"""
from __future__ import annotations

import shlex
import subprocess
import uuid
from dataclasses import dataclass
from typing import Callable, Iterator
from urllib.parse import quote

import pytest

from conformance.channel import Channel
from conformance.client import Client, parse_url
from conformance.conftest import Broker, Names
from conformance.methods import (
    BASIC_CONSUME, BASIC_GET, BASIC_PUBLISH, CHANNEL_CLOSE, CONNECTION_CLOSE, CONNECTION_CLOSE_OK, EXCHANGE_BIND,
    EXCHANGE_DECLARE, EXCHANGE_DELETE, EXCHANGE_UNBIND, QUEUE_BIND, QUEUE_DECLARE, QUEUE_DELETE, QUEUE_PURGE,
    QUEUE_UNBIND)
from conformance.texts import Texts

pytestmark = pytest.mark.needs("ctl")

PASSWORD = "correct horse"
Send = Callable[[Channel, str, str], None]
Ids = tuple[int, int]


@dataclass(frozen=True)
class Guest:
    """A user made for this module, and the command that makes and changes users."""

    name: str
    vhost: str
    url: str
    command: str

    def ctl(self, *words: str) -> None:
        """Run rabbitmqctl with these arguments."""
        done = subprocess.run(f"{self.command} {shlex.join(words)}", shell=True, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def permit(self, configure: str, write: str, read: str) -> None:
        """Set what he may do."""
        self.ctl("set_permissions", "-p", self.vhost, self.name, configure, write, read)

    def refusal(self, resource: str) -> str:
        """Return the text of the refusal; the resource is written as in `Texts`."""
        return f"ACCESS_REFUSED - access to {resource} refused for user '{self.name}'"


@pytest.fixture(scope="module")
def stranger(request: pytest.FixtureRequest, broker_url: str) -> Iterator[Guest]:
    """A user with a password, and no permissions anywhere yet."""
    parts, name = parse_url(broker_url), f"guest {uuid.uuid4().hex[:8]}"
    url = f"amqp://{quote(name)}:{quote(PASSWORD)}@{parts.host}:{parts.port}/{quote(parts.vhost, safe='')}"
    guest = Guest(name, parts.vhost, url, request.config.getoption("--ctl"))
    guest.ctl("add_user", name, PASSWORD)
    yield guest
    guest.ctl("delete_user", name)


@pytest.fixture(scope="module")
def guest(stranger: Guest) -> Guest:
    """Return a connection of the user, after the permissions are set."""
    stranger.permit(r"\.[wr]*c[wr]*$", r"\.[cr]*w[cr]*$", r"\.[cw]*r[cw]*$")
    return stranger


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


# What each method needs. The first name is one that he may do all but this with, the second one that he may do all
# with; neither exists, so that 403 is seen to come before 404.

ON_QUEUE: dict[str, tuple[str, Send, Ids]] = {
    "queue.declare": ("c", lambda ch, no, _: ch.send_declare_queue(no), QUEUE_DECLARE),
    "queue.delete": ("c", lambda ch, no, _: ch.send_delete_queue(no), QUEUE_DELETE),
    "queue.bind": ("w", lambda ch, no, yes: ch.send_bind_queue(no, yes), QUEUE_BIND),
    "queue.unbind": ("w", lambda ch, no, yes: ch.send_unbind_queue(no, yes), QUEUE_UNBIND),
    "queue.purge": ("r", lambda ch, no, _: ch.send_purge(no), QUEUE_PURGE),
    "basic.get": ("r", lambda ch, no, _: ch.send_get(no), BASIC_GET),
    "basic.consume": ("r", lambda ch, no, _: ch.send_consume(no), BASIC_CONSUME),
    "queue.declare with a dead letter exchange": ("r", lambda ch, no, yes: ch.send_declare_queue(
        no, arguments={"x-dead-letter-exchange": yes}), QUEUE_DECLARE),
}
ON_EXCHANGE: dict[str, tuple[str, Send, Ids]] = {
    "exchange.declare": ("c", lambda ch, no, _: ch.send_declare_exchange(no), EXCHANGE_DECLARE),
    "exchange.delete": ("c", lambda ch, no, _: ch.send_delete_exchange(no), EXCHANGE_DELETE),
    "exchange.bind to": ("w", lambda ch, no, yes: ch.send_bind_exchange(no, yes), EXCHANGE_BIND),
    "exchange.bind from": ("r", lambda ch, no, yes: ch.send_bind_exchange(yes, no), EXCHANGE_BIND),
    "exchange.unbind to": ("w", lambda ch, no, yes: ch.send_unbind_exchange(no, yes), EXCHANGE_UNBIND),
    "exchange.unbind from": ("r", lambda ch, no, yes: ch.send_unbind_exchange(yes, no), EXCHANGE_UNBIND),
    "queue.bind from": ("r", lambda ch, no, yes: ch.send_bind_queue(yes, no), QUEUE_BIND),
    "queue.unbind from": ("r", lambda ch, no, yes: ch.send_unbind_queue(yes, no), QUEUE_UNBIND),
    "basic.publish": ("w", lambda ch, no, _: ch.publish(no, "key"), BASIC_PUBLISH),
    "a dead letter exchange": ("w", lambda ch, no, yes: ch.send_declare_queue(
        yes, arguments={"x-dead-letter-exchange": no}), QUEUE_DECLARE),
    "an alternate exchange": ("w", lambda ch, no, yes: ch.send_declare_exchange(
        yes, arguments={"alternate-exchange": no}), EXCHANGE_DECLARE),
    "exchange.declare with an alternate exchange": ("r", lambda ch, no, yes: ch.send_declare_exchange(
        no, arguments={"alternate-exchange": yes}), EXCHANGE_DECLARE),
}


def all_but(right: str) -> str:
    """How a name ends that allows all rights but this one."""
    return "cwr".replace(right, "")


@pytest.mark.parametrize("right, send, ids", ON_QUEUE.values(), ids=ON_QUEUE)
def test_a_queue_without_the_right_is_refused_before_it_is_looked_for(
        guest: Guest, theirs: Channel, texts: Texts, names: Names, right: str, send: Send, ids: Ids) -> None:
    name = f"{names.prefix}.{all_but(right)}"
    send(theirs, name, f"{names.prefix}.other.cwr")
    theirs.fails(403, guest.refusal(texts.queue(name)), *ids)


@pytest.mark.parametrize("right, send, ids", ON_EXCHANGE.values(), ids=ON_EXCHANGE)
def test_an_exchange_without_the_right_is_refused_before_it_is_looked_for(
        guest: Guest, theirs: Channel, texts: Texts, names: Names, right: str, send: Send, ids: Ids) -> None:
    name = f"{names.prefix}.{all_but(right)}"
    send(theirs, name, f"{names.prefix}.other.cwr")
    theirs.fails(403, guest.refusal(texts.exchange(name)), *ids)


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

TOPIC_METHODS: dict[str, tuple[str, Callable[[Channel, str, str, str], None], Ids]] = {
    "basic.publish": ("write", lambda ch, exchange, name, key: ch.publish(exchange, key), BASIC_PUBLISH),
    "queue.bind": ("read", lambda ch, exchange, name, key: ch.send_bind_queue(name, exchange, key), QUEUE_BIND),
    "queue.unbind": ("read", lambda ch, exchange, name, key: ch.send_unbind_queue(name, exchange, key), QUEUE_UNBIND),
    "exchange.bind": (
        "read", lambda ch, exchange, name, key: ch.send_bind_exchange(name, exchange, key), EXCHANGE_BIND),
    "exchange.unbind": (
        "read", lambda ch, exchange, name, key: ch.send_unbind_exchange(name, exchange, key), EXCHANGE_UNBIND),
}


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


@pytest.mark.parametrize("right, send, ids", TOPIC_METHODS.values(), ids=TOPIC_METHODS)
def test_a_routing_key_without_the_right_is_refused(
        guest: Guest, theirs: Channel, texts: Texts, names: Names, topics: str, right: str,
        send: Callable[[Channel, str, str, str], None], ids: Ids) -> None:
    key = {"write": "rw.x", "read": f"w.{guest.name}"}[right]
    send(theirs, topics, f"{names.prefix}.nonesuch.cwr", key)
    theirs.fails(403, guest.refusal(f"topic '{key}' in {texts.exchange(topics)}"), *ids)


def test_a_routing_key_with_the_right_is_taken(
        guest: Guest, ch: Channel, theirs: Channel, names: Names, topics: str) -> None:
    queue = names.queue(f"{names.prefix}.q.cwr")
    theirs.declare_queue(queue)
    theirs.bind_queue(queue, topics, "r.#")
    ch.bind_queue(queue, topics, f"w.{guest.name}")
    assert arrives(theirs, ch, queue, topics, f"w.{guest.name}")


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
        guest.permit(r"\.[wr]*c[wr]*$", r"\.[cr]*w[cr]*$", "")
        theirs.fails(403, guest.refusal(texts.queue(queue)), *BASIC_CONSUME)
    finally:
        guest.permit(r"\.[wr]*c[wr]*$", r"\.[cr]*w[cr]*$", r"\.[cw]*r[cw]*$")


# Last, for it ends what the others need


def test_deleting_a_user_closes_the_connections(guest: Guest) -> None:
    with Client(guest.url, timeout=30) as client:
        guest.ctl("delete_user", guest.name)
        text = f"CONNECTION_FORCED - user '{guest.name}' is deleted"
        assert client.expect(0, *CONNECTION_CLOSE).decode("2s22") == (320, text, 0, 0)
        client.send_method(0, *CONNECTION_CLOSE_OK)
    guest.ctl("add_user", guest.name, PASSWORD)     # for the fixture to delete
