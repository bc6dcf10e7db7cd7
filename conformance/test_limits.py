"""§31 Limits: of the connections and queues of a vhost, of the connections and channels of a user; and the default
queue type of a vhost, which §29 names.

All of it happens in a vhost and for a user of this module's own. A broker may count with a delay, so a test that counts
up to a limit tries again until it is refused.
"""
from __future__ import annotations

import json
import shlex
import subprocess
import uuid
from dataclasses import dataclass
from typing import Any, Iterator
from urllib.parse import quote

import pytest

from conformance.channel import Channel
from conformance.client import Client, Method, parse_url
from conformance.methods import (
    CHANNEL_CLOSE, CHANNEL_OPEN, CHANNEL_OPEN_OK, CONNECTION_CLOSE, CONNECTION_CLOSE_OK, CONNECTION_OPEN,
    CONNECTION_OPEN_OK, QUEUE_DECLARE)
from conformance.waiting import wait_until

pytestmark = pytest.mark.needs("ctl")

PASSWORD = "correct horse"
NO_METHOD = (0, 0)


@dataclass(frozen=True)
class Tenant:
    """A vhost and its only user, and the command that sets their limits."""

    vhost: str
    user: str
    url: str
    command: str

    def ctl(self, *words: str) -> None:
        """Tell the broker these words of rabbitmqctl."""
        done = subprocess.run(f"{self.command} {shlex.join(words)}", shell=True, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def limit_vhost(self, **limits: int) -> None:
        """Set the limits of the vhost."""
        self.ctl("set_vhost_limits", "-p", self.vhost, written(limits))

    def limit_user(self, **limits: int) -> None:
        """Set limits of the user."""
        self.ctl("set_user_limits", self.user, written(limits))

    def opening(self) -> tuple[Client, Method]:
        """Ask for the vhost; return the client and the answer."""
        client = Client(self.url, connect=False)
        client.open_socket()
        client.greet()
        client.log_in()
        client.tune()
        client.send_open()
        return client, client.await_method(0, [CONNECTION_OPEN_OK, CONNECTION_CLOSE])

    def refusal_of_connection(self) -> tuple[int, str, int, int] | None:
        """Open a connection and close it again; return why it was refused, or None."""
        client, answer = self.opening()
        if answer.ids == CONNECTION_OPEN_OK:
            client.close()
            return None
        client.send_method(0, *CONNECTION_CLOSE_OK)
        client.drop()
        return answer.decode("2s22")

    def expect_no_connection(self, text: str) -> None:
        """Wait until a connection is refused with this text."""
        refusals: list[tuple[int, str, int, int] | None] = []

        def is_refused() -> bool:
            refusals.append(self.refusal_of_connection())
            return refusals[-1] is not None

        wait_until(is_refused)
        assert refusals[-1] == (530, f"NOT_ALLOWED - {text}", *CONNECTION_OPEN)


def written(limits: dict[str, int]) -> str:
    """Return limits as JSON."""
    return json.dumps({name.replace("_", "-"): limit for name, limit in limits.items()})


@pytest.fixture(scope="module")
def house(request: pytest.FixtureRequest, broker_url: str) -> Iterator[Tenant]:
    """The vhost and the user."""
    parts, name = parse_url(broker_url), f"tenant {uuid.uuid4().hex[:8]}"
    url = f"amqp://{quote(name)}:{quote(PASSWORD)}@{parts.host}:{parts.port}/{quote(name, safe='')}"
    tenant = Tenant(name, name, url, request.config.getoption("--ctl"))
    tenant.ctl("add_vhost", name)
    tenant.ctl("add_user", name, PASSWORD)
    tenant.ctl("set_permissions", "-p", name, name, ".*", ".*", ".*")
    yield tenant
    tenant.ctl("delete_user", name)
    tenant.ctl("delete_vhost", name)


@pytest.fixture
def tenant(house: Tenant) -> Iterator[Tenant]:
    """The same, without limits before and after a test."""
    yield house
    house.limit_vhost(max_connections=-1, max_queues=-1)
    house.limit_user(max_connections=-1, max_channels=-1)


# Connections


def test_a_vhost_takes_no_more_connections_than_its_limit(tenant: Tenant) -> None:
    tenant.limit_vhost(max_connections=1)
    with Client(tenant.url) as client:
        tenant.expect_no_connection(
            f"access to vhost '{tenant.vhost}' refused for user '{tenant.user}': connection limit (1) is reached")
        client.channel().declare_queue("", exclusive=True)      # the first one goes on
    wait_until(lambda: tenant.refusal_of_connection() is None)


def test_a_vhost_with_the_limit_0_takes_no_connection(tenant: Tenant) -> None:
    tenant.limit_vhost(max_connections=0)
    tenant.expect_no_connection(
        f"access to vhost '{tenant.vhost}' refused for user '{tenant.user}': connection limit (0) is reached")


def test_a_user_opens_no_more_connections_than_the_limit(tenant: Tenant) -> None:
    tenant.limit_user(max_connections=1)
    with Client(tenant.url):
        tenant.expect_no_connection(
            f"connection refused for user '{tenant.user}': user connection limit (1) is reached")
    wait_until(lambda: tenant.refusal_of_connection() is None)


def test_a_user_with_the_limit_0_opens_no_connection(tenant: Tenant) -> None:
    tenant.limit_user(max_connections=0)
    tenant.expect_no_connection(f"connection refused for user '{tenant.user}': user connection limit (0) is reached")


def test_minus_1_is_no_limit(tenant: Tenant) -> None:
    tenant.limit_vhost(max_connections=-1, max_queues=-1)
    tenant.limit_user(max_connections=-1, max_channels=-1)
    with Client(tenant.url) as client:
        client.channel().declare_queue("", exclusive=True)


# Channels


@pytest.mark.parametrize("limit", [0, 2])
def test_a_user_opens_no_more_channels_than_the_limit(tenant: Tenant, limit: int) -> None:
    tenant.limit_user(max_channels=limit)

    def is_refused() -> bool:
        """Open one channel more than the limit, on two connections."""
        with Client(tenant.url) as first:
            for _ in range(limit):
                first.channel().declare_queue("", exclusive=True)
            second = Client(tenant.url)
            second.send_method(1, *CHANNEL_OPEN, b"\0")
            answer = second.read()
            if answer.ids == CHANNEL_OPEN_OK:
                second.close()
                return False
            text = (f"NOT_ALLOWED - number of channels opened for user '{tenant.user}' has reached the maximum allowed "
                    f"user limit of ({limit})")
            assert answer.decode("2s22") == (530, text, *NO_METHOD)
            second.send_method(0, *CONNECTION_CLOSE_OK)
            second.drop()
            return True

    wait_until(is_refused)


# Queues


@pytest.fixture
def ch(tenant: Tenant) -> Iterator[Channel]:
    """A channel of the tenant's."""
    with Client(tenant.url) as client:
        yield client.channel()


def too_many(tenant: Tenant, name: str, limit: int) -> str:
    """Return what a channel hears that declares one queue more than the limit."""
    return (f"PRECONDITION_FAILED - cannot declare queue '{name}': queue limit in vhost '{tenant.vhost}' ({limit}) is "
            "reached")


def test_a_vhost_has_no_more_queues_than_its_limit(tenant: Tenant, ch: Channel) -> None:
    tenant.limit_vhost(max_queues=2)
    ch.declare_queue("a", exclusive=True)
    ch.declare_queue("b", exclusive=True)
    ch.declare_queue("a", exclusive=True)       # is there already
    ch.send_declare_queue("c", exclusive=True)
    ch.fails(406, too_many(tenant, "c", 2), *QUEUE_DECLARE)
    ch.open()
    ch.delete_queue("b")
    ch.declare_queue("c", exclusive=True)


def test_a_full_vhost_is_told_before_arguments_are_checked(tenant: Tenant, ch: Channel) -> None:
    tenant.limit_vhost(max_queues=0)
    ch.send_declare_queue("q", arguments={"x-dead-letter-exchange": 1, "x-message-ttl": "x"})
    ch.fails(406, too_many(tenant, "q", 0), *QUEUE_DECLARE)


# The default queue type


@pytest.fixture(scope="module")
def quorum_url(house: Tenant) -> Iterator[str]:
    """The URL of a vhost whose default queue type is quorum."""
    name = f"quorum {uuid.uuid4().hex[:8]}"
    house.ctl("add_vhost", name, "--default-queue-type", "quorum")
    house.ctl("set_permissions", "-p", name, house.user, ".*", ".*", ".*")
    yield f"{house.url.rpartition('/')[0]}/{quote(name, safe='')}"
    house.ctl("delete_vhost", name)


@pytest.fixture
def quorum(quorum_url: str) -> Iterator[Channel]:
    """A channel to that vhost."""
    with Client(quorum_url) as client:
        yield client.channel()


QUORUM, CLASSIC = {"x-queue-type": "quorum"}, {"x-queue-type": "classic"}


@pytest.mark.needs("quorum-queues")
def test_a_durable_queue_without_a_type_has_the_default_type(quorum: Channel) -> None:
    quorum.declare_queue("q", durable=True)
    quorum.declare_queue("q", durable=True)
    quorum.declare_queue("q", durable=True, arguments=QUORUM)
    quorum.send_declare_queue("q", durable=True, arguments=CLASSIC)
    close = quorum.client.await_method(quorum.number, [CHANNEL_CLOSE])
    code, text, *ids = close.decode("2s22")
    assert (code, tuple(ids)) == (406, QUEUE_DECLARE)
    assert text.startswith("PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '")
    assert text.endswith("received 'classic' but current is 'quorum'")


@pytest.mark.needs("quorum-queues")
@pytest.mark.parametrize("flags", [
    {}, {"durable": True, "auto_delete": True}, {"durable": True, "exclusive": True}], ids=repr)
def test_a_queue_that_no_quorum_queue_can_be_is_classic(quorum: Channel, flags: dict[str, Any]) -> None:
    name = f"classic {uuid.uuid4().hex[:8]}"
    quorum.declare_queue(name, **flags)
    quorum.declare_queue(name, **flags, arguments=CLASSIC)
    quorum.declare_queue("", exclusive=True)


@pytest.mark.needs("quorum-queues")
def test_a_queue_named_by_the_broker_cannot_have_such_a_default_type(quorum: Channel) -> None:
    quorum.send_declare_queue("", durable=True)
    quorum.fails(
        406, "PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_quorum_queue", *QUEUE_DECLARE)


@pytest.mark.needs("quorum-queues")
def test_a_type_that_is_named_counts(quorum: Channel) -> None:
    quorum.declare_queue("c", durable=True, arguments=CLASSIC)
    quorum.send_declare_queue("c", durable=True, arguments=QUORUM)
    close = quorum.client.await_method(quorum.number, [CHANNEL_CLOSE])
    assert close.decode("2s22")[0] == 406
