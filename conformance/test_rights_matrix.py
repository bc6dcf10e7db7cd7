"""§29 Every method of the protocol and the permissions that it needs, in one table; then each cell of it.

A cell is a way to use a method, a name in it, the permissions of the user on that name, and a tag of the user. The
other names of the method end in `.cwr`, so that they allow everything. See `guests` for how names tell permissions.
"""
from __future__ import annotations

import itertools
from typing import Callable, Iterator, NamedTuple

import pytest

from conformance import methods
from conformance.channel import Channel
from conformance.client import Client, check_close
from conformance.conftest import Names
from conformance.guests import BY_ENDING, Guest, new_guest
from conformance.methods import (
    ACCESS_REQUEST, BASIC_ACK, BASIC_CANCEL, BASIC_CANCEL_OK, BASIC_CONSUME, BASIC_DELIVER, BASIC_GET, BASIC_GET_EMPTY,
    BASIC_NACK, BASIC_PUBLISH, BASIC_QOS, BASIC_QOS_OK, BASIC_RECOVER, BASIC_RECOVER_ASYNC, BASIC_REJECT, BASIC_RETURN,
    CHANNEL_CLOSE, CHANNEL_CLOSE_OK, CHANNEL_FLOW, CHANNEL_FLOW_OK, CHANNEL_OPEN, CONFIRM_SELECT, CONNECTION_BLOCKED,
    CONNECTION_CLOSE, CONNECTION_CLOSE_OK, CONNECTION_OPEN, CONNECTION_SECURE, CONNECTION_SECURE_OK, CONNECTION_START,
    CONNECTION_START_OK, CONNECTION_TUNE, CONNECTION_TUNE_OK, CONNECTION_UNBLOCKED, CONNECTION_UPDATE_SECRET,
    EXCHANGE_BIND, EXCHANGE_DECLARE, EXCHANGE_DECLARE_OK, EXCHANGE_DELETE, EXCHANGE_DELETE_OK,
    EXCHANGE_UNBIND, EXCHANGE_UNBIND_OK, QUEUE_BIND, QUEUE_DECLARE, QUEUE_DECLARE_OK, QUEUE_DELETE, QUEUE_DELETE_OK,
    QUEUE_PURGE, QUEUE_UNBIND, QUEUE_UNBIND_OK, TX_COMMIT, TX_ROLLBACK, TX_SELECT)
from conformance.test_order_matrix import MATRIX, expect_answer, frames
from conformance.texts import Texts

pytestmark = pytest.mark.needs("ctl")

Ids = tuple[int, int]
ACCESS_REFUSED, NOT_FOUND = 403, 404
TOPICS = "rights.topics.cwr"
TAGS = ("", "administrator", "monitoring", "policymaker", "management", "impersonator", "any-other-word")
SUBSETS = ["".join(rights) for size in range(4) for rights in itertools.combinations("cwr", size)]


class On(NamedTuple):
    """What a method needs on a name: all of these permissions, or any one. A kind of `key` is a routing key."""

    kind: str
    rights: str
    is_any: bool = False

    def allows(self, rights: str) -> bool:
        """Whether these permissions on the name are enough."""
        return (any if self.is_any else all)(right in rights for right in self.rights)


class Use(NamedTuple):
    """A way to use a method: what it needs, by name, and its answer where nothing has these names.

    The answer is the ids of the -ok, the code of a close, or None for silence.
    """

    ids: Ids
    needs: tuple[On, ...]
    send: Callable[..., None]
    answer: Ids | int | None


USES: dict[str, Use] = {
    "queue.declare": Use(
        QUEUE_DECLARE, (On("queue", "c"),), lambda ch, queue: ch.send_declare_queue(queue), QUEUE_DECLARE_OK),
    "queue.declare with a dead letter exchange": Use(
        QUEUE_DECLARE, (On("queue", "cr"), On("exchange", "w")), lambda ch, queue, exchange: ch.send_declare_queue(
            queue, arguments={"x-dead-letter-exchange": exchange}), QUEUE_DECLARE_OK),
    "queue.delete": Use(
        QUEUE_DELETE, (On("queue", "c"),), lambda ch, queue: ch.send_delete_queue(queue), QUEUE_DELETE_OK),
    "queue.bind": Use(
        QUEUE_BIND, (On("queue", "w"), On("exchange", "r")),
        lambda ch, queue, exchange: ch.send_bind_queue(queue, exchange), NOT_FOUND),
    "queue.bind with a topic": Use(
        QUEUE_BIND, (On("queue", "w"), On("key", "r")),
        lambda ch, queue, key: ch.send_bind_queue(queue, TOPICS, key), NOT_FOUND),
    "queue.unbind": Use(
        QUEUE_UNBIND, (On("queue", "w"), On("exchange", "r")),
        lambda ch, queue, exchange: ch.send_unbind_queue(queue, exchange), QUEUE_UNBIND_OK),
    "queue.unbind with a topic": Use(
        QUEUE_UNBIND, (On("queue", "w"), On("key", "r")),
        lambda ch, queue, key: ch.send_unbind_queue(queue, TOPICS, key), QUEUE_UNBIND_OK),
    "queue.purge": Use(QUEUE_PURGE, (On("queue", "r"),), lambda ch, queue: ch.send_purge(queue), NOT_FOUND),
    "exchange.declare": Use(
        EXCHANGE_DECLARE, (On("exchange", "c"),), lambda ch, exchange: ch.send_declare_exchange(exchange),
        EXCHANGE_DECLARE_OK),
    "exchange.declare with an alternate exchange": Use(
        EXCHANGE_DECLARE, (On("exchange", "cr"), On("exchange", "w")),
        lambda ch, exchange, alternate: ch.send_declare_exchange(
            exchange, arguments={"alternate-exchange": alternate}), EXCHANGE_DECLARE_OK),
    "exchange.delete": Use(
        EXCHANGE_DELETE, (On("exchange", "c"),), lambda ch, exchange: ch.send_delete_exchange(exchange),
        EXCHANGE_DELETE_OK),
    "exchange.bind": Use(
        EXCHANGE_BIND, (On("exchange", "w"), On("exchange", "r")),
        lambda ch, destination, source: ch.send_bind_exchange(destination, source), NOT_FOUND),
    "exchange.bind with a topic": Use(
        EXCHANGE_BIND, (On("exchange", "w"), On("key", "r")),
        lambda ch, destination, key: ch.send_bind_exchange(destination, TOPICS, key), NOT_FOUND),
    "exchange.unbind": Use(
        EXCHANGE_UNBIND, (On("exchange", "w"), On("exchange", "r")),
        lambda ch, destination, source: ch.send_unbind_exchange(destination, source), EXCHANGE_UNBIND_OK),
    "exchange.unbind with a topic": Use(
        EXCHANGE_UNBIND, (On("exchange", "w"), On("key", "r")),
        lambda ch, destination, key: ch.send_unbind_exchange(destination, TOPICS, key), EXCHANGE_UNBIND_OK),
    "basic.publish": Use(
        BASIC_PUBLISH, (On("exchange", "w"),), lambda ch, exchange: ch.publish(exchange, "key"), NOT_FOUND),
    "basic.publish with a topic": Use(BASIC_PUBLISH, (On("key", "w"),), lambda ch, key: ch.publish(TOPICS, key), None),
    "basic.get": Use(BASIC_GET, (On("queue", "r"),), lambda ch, queue: ch.send_get(queue), NOT_FOUND),
    "basic.consume": Use(BASIC_CONSUME, (On("queue", "r"),), lambda ch, queue: ch.send_consume(queue), NOT_FOUND),
}

# Where brokers differ, by the capability.
PASSIVE_USES: dict[str, dict[str, Use]] = {
    capability: {
        "queue.declare, passive": Use(
            QUEUE_DECLARE, (On("queue", *needed),), lambda ch, queue: ch.send_declare_queue(queue, passive=True),
            NOT_FOUND),
        "exchange.declare, passive": Use(
            EXCHANGE_DECLARE, (On("exchange", *needed),),
            lambda ch, exchange: ch.send_declare_exchange(exchange, passive=True), NOT_FOUND)}
    for capability, needed in {"passive-needs-any-right": ("cwr", True), "passive-needs-no-right": ("", False)}.items()}

# These name nothing that has permissions: whoever is in the vhost may send them. `MATRIX` has their arguments.
FREE = (
    CHANNEL_OPEN, CHANNEL_FLOW, CHANNEL_FLOW_OK, CHANNEL_CLOSE, CHANNEL_CLOSE_OK, ACCESS_REQUEST, BASIC_QOS,
    BASIC_CANCEL, BASIC_CANCEL_OK, BASIC_ACK, BASIC_REJECT, BASIC_RECOVER_ASYNC, BASIC_RECOVER, BASIC_NACK,
    CONFIRM_SELECT, TX_SELECT, TX_COMMIT, TX_ROLLBACK)

# connection.open needs a row of permissions in the vhost, the others no more than a password.
OF_THE_CONNECTION = (
    CONNECTION_START_OK, CONNECTION_SECURE_OK, CONNECTION_TUNE_OK, CONNECTION_OPEN, CONNECTION_CLOSE,
    CONNECTION_CLOSE_OK, CONNECTION_UPDATE_SECRET)

# What brokers send, besides the `-ok` that answers a method.
SENT_BY_BROKERS = {
    CONNECTION_START, CONNECTION_SECURE, CONNECTION_TUNE, CONNECTION_BLOCKED, CONNECTION_UNBLOCKED, BASIC_RETURN,
    BASIC_DELIVER, BASIC_GET_EMPTY}


@pytest.fixture(scope="module", params=TAGS, ids=lambda tag: tag or "no-tag")
def guest(request: pytest.FixtureRequest, broker_url: str) -> Iterator[Guest]:
    """A user with this tag and permissions by the ends of names, and of the routing keys of one exchange."""
    guest = new_guest(broker_url, request.config.getoption("--ctl"))
    guest.ctl("set_user_tags", guest.name, *filter(None, [request.param]))
    guest.permit(*BY_ENDING)
    with Client(broker_url) as client:
        client.channel().declare_exchange(TOPICS, "topic")
        guest.ctl("set_topic_permissions", "-p", guest.vhost, guest.name, TOPICS, *BY_ENDING[1:])
        yield guest
        client.channel().delete_exchange(TOPICS)
    guest.ctl("delete_user", guest.name)


@pytest.fixture(scope="module")
def theirs(guest: Guest) -> Iterator[Client]:
    """A connection of this user."""
    with Client(guest.url) as client:
        yield client


@pytest.fixture(scope="module")
def powerless(request: pytest.FixtureRequest, broker_url: str) -> Iterator[Guest]:
    """A user who may open the vhost, and has no permission on any name."""
    guest = new_guest(broker_url, request.config.getoption("--ctl"))
    guest.permit("", "", "")
    yield guest
    guest.ctl("delete_user", guest.name)


def test_every_method_of_the_protocol_has_a_row() -> None:
    named = [use.ids for use in [*USES.values(), *PASSIVE_USES["passive-needs-no-right"].values()]]
    from_clients = {*named, *FREE, *OF_THE_CONNECTION}
    others = methods.NAMES.keys() - from_clients - SENT_BY_BROKERS
    assert {methods.name(*ids) for ids in others if not methods.name(*ids).endswith("-ok")} == set()
    assert from_clients == MATRIX.keys()


# The cells


def came_of(channel: Channel, use: Use, given: list[str], refusal: str) -> Ids | int | None:
    """Use the method with these names on a channel that is then left; return what `Use.answer` tells, or 403."""
    use.send(channel, *given)
    if use.answer is None:
        channel.send_qos(0)
    due = BASIC_QOS_OK if use.answer is None else use.answer
    method = channel.client.await_method(channel.number, (CHANNEL_CLOSE, due))
    if method.ids != CHANNEL_CLOSE:
        channel.close()
        return use.answer
    code = method.decode("2s22")[0]
    if code == ACCESS_REFUSED:
        check_close(method, code, refusal, *use.ids)
    channel.send(CHANNEL_CLOSE_OK)
    return code


def check_row(guest: Guest, theirs: Client, texts: Texts, names: Names, use: Use) -> None:
    """Use the method with each combination of permissions on each of its names."""
    expected: dict[str, Ids | int | None] = {}
    came: dict[str, Ids | int | None] = {}
    for number, on in enumerate(use.needs):
        for rights in SUBSETS:
            given = [f"{names.prefix}.{number}.{other.kind}.{rights}{place}.{rights if place == number else 'cwr'}"
                     for place, other in enumerate(use.needs)]
            name = given[number]
            expected[name] = use.answer if on.allows(rights) else ACCESS_REFUSED
            came[name] = came_of(theirs.channel(), use, given, guest.refusal(resource(texts, on.kind, name)))
            if came[name] in (QUEUE_DECLARE_OK, EXCHANGE_DECLARE_OK):
                {"queue": names.queue, "exchange": names.exchange}[use.needs[0].kind](given[0])
    assert came == expected


def resource(texts: Texts, kind: str, name: str) -> str:
    """How a refusal writes what it is about."""
    if kind == "key":
        return f"topic '{name}' in {texts.exchange(TOPICS)}"
    return texts.queue(name) if kind == "queue" else texts.exchange(name)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_method_goes_through_with_the_permissions_it_needs_and_no_others(
        guest: Guest, theirs: Client, texts: Texts, names: Names, use: Use) -> None:
    check_row(guest, theirs, texts, names, use)


@pytest.mark.parametrize("use", [
    pytest.param(use, id=f"{name}, {capability}", marks=pytest.mark.needs(capability))
    for capability, uses in PASSIVE_USES.items() for name, use in uses.items()])
def test_a_passive_declare_goes_through_with_the_permissions_it_needs_and_no_others(
        guest: Guest, theirs: Client, texts: Texts, names: Names, use: Use) -> None:
    check_row(guest, theirs, texts, names, use)


@pytest.mark.parametrize("ids", FREE, ids=lambda ids: methods.name(*ids))
def test_a_method_without_a_name_needs_no_permission(powerless: Guest, ids: Ids) -> None:
    with Client(powerless.url) as client:
        client.channel()
        client.send(frames(ids, 1))
        expect_answer(client, ids, MATRIX[ids].answer)
