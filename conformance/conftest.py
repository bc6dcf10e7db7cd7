"""The broker under test, connections to it, names that are deleted afterwards, and tests for one broker only."""
from __future__ import annotations

import itertools
import re
import uuid
from pathlib import Path
from typing import Any, Iterator

import pytest

from conformance.channel import Channel
from conformance.client import BrokerUrl, Client, parse_url
from conformance.letters import Letters
from conformance.methods import CHANNEL_CLOSE, QUEUE_DECLARE_OK
from conformance.policies import Policies
from conformance.routes import Routes
from conformance.texts import Texts

DEFAULT_BROKER = "amqp://guest:guest@127.0.0.1:5672/"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the command line say which broker, and how it is restarted."""
    parser.addoption("--broker", default=DEFAULT_BROKER, help=f"amqp url of the broker (default {DEFAULT_BROKER})")
    parser.addoption("--restart", metavar="COMMAND",
                     help="shell command that stops the broker cleanly, starts it on the same data and port, and "
                     "returns when it serves clients; without it the tests of restarts are left out")
    parser.addoption("--ctl", metavar="COMMAND",
                     help="shell command that takes rabbitmqctl's words, such as `set_policy …`; without it the tests "
                     "of policies, permissions and alarms are left out")
    parser.addoption("--consumer-timeout", metavar="MS", type=int,
                     help="the consumer timeout that the broker was started with, some seconds; without it the tests "
                     "of that timeout are left out")


NEEDED_OPTIONS: dict[str, list[str]] = {
    "test_durability.py": ["--restart"],
    "test_durability_of_queue_features.py": ["--restart"],
    "test_alarms.py": ["--ctl"],
    "test_permissions.py": ["--ctl"],
    "test_policy.py": ["--ctl"],
    "test_policy_queues.py": ["--ctl"],
    "test_policy_durability.py": ["--ctl", "--restart"],
    "test_consumer_timeout.py": ["--consumer-timeout"],
}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the tests for which nobody said how to restart the broker, how to tell it something, or how it is."""
    needed = NEEDED_OPTIONS.get(collection_path.name, [])
    return None if all(config.getoption(option) for option in needed) else True


def pytest_configure(config: pytest.Config) -> None:
    """Declare the suite's marker."""
    config.addinivalue_line("markers", "only(product, reason=…): for `rabbitmq` or `amqpd` alone; left out elsewhere")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that are marked for the other broker."""
    if not any(item.get_closest_marker("only") for item in items):
        return
    product = product_of(config.getoption("broker"))
    left_out = [item for item in items if is_for_another(item, product)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def is_for_another(item: pytest.Item, product: str) -> bool:
    """Whether a marker keeps this test from this product."""
    marker = item.get_closest_marker("only")
    assert marker is None or marker.kwargs.get("reason"), f"{item.nodeid}: `only` needs a reason"
    return marker is not None and marker.args != (product,)


def product_of(url: str) -> str:
    """`rabbitmq` or `amqpd`; the latter calls itself RabbitMQ too, for its clients, and adds a key of its own."""
    try:
        with Client(url) as client:
            return "amqpd" if "amqpd_version" in client.server_properties else "rabbitmq"
    except OSError as error:
        raise pytest.UsageError(f"no broker at {url}: {error}") from error


class Broker:
    """Where the broker is, and the clients a test has opened to it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.parts: BrokerUrl = parse_url(url)
        self._clients: list[Client] = []

    def client(self, **options: Any) -> Client:
        """A client with these options of `Client`, closed when the test ends."""
        self._clients.append(Client(self.url, connect=False, **without_connect(options)))
        if options.get("connect", True):
            self._clients[-1].handshake()
        return self._clients[-1]

    def channel(self, **options: Any) -> Channel:
        """A channel on a connection of its own."""
        return self.client(**options).channel()

    def has_queue(self, name: str) -> bool:
        """Whether this queue exists, be it locked; asked on a connection of its own."""
        with Client(self.url) as client:
            channel = client.channel()
            channel.send_declare_queue(name, passive=True)
            answer = client.await_method(channel.number, [QUEUE_DECLARE_OK, CHANNEL_CLOSE])
            return answer.ids == QUEUE_DECLARE_OK or answer.decode("2s22")[0] == 405

    def close(self) -> None:
        """Close every client."""
        while self._clients:
            self._clients.pop().close()


def without_connect(options: dict[str, Any]) -> dict[str, Any]:
    """Options but `connect`, so that a failed handshake leaves no open socket behind."""
    return {name: value for name, value in options.items() if name != "connect"}


class Names:
    """Unique names for one test's queues and exchanges."""

    def __init__(self, test: str) -> None:
        self.prefix = f"{re.sub(r'[^a-z_]', '', test.partition('[')[0])[:40]}.{uuid.uuid4().hex[:8]}"
        self._numbers = itertools.count(1)
        self.queues: list[str] = []
        self.exchanges: list[str] = []

    def queue(self, name: str | None = None) -> str:
        """A queue's name, to be deleted when the test ends; made up unless given."""
        self.queues.append(name or f"{self.prefix}.q{next(self._numbers)}")
        return self.queues[-1]

    def exchange(self, name: str | None = None) -> str:
        """An exchange's name, to be deleted when the test ends; made up unless given."""
        self.exchanges.append(name or f"{self.prefix}.x{next(self._numbers)}")
        return self.exchanges[-1]

    def delete(self, url: str) -> None:
        """Delete all of them."""
        if not self.queues and not self.exchanges:
            return
        with Client(url) as client:
            channel = client.channel()
            for queue in self.queues:
                channel.delete_queue(queue)
            for exchange in self.exchanges:
                channel.delete_exchange(exchange)


@pytest.fixture(scope="session")
def broker_url(request: pytest.FixtureRequest) -> str:
    """The broker's url."""
    return request.config.getoption("broker")


@pytest.fixture(scope="session")
def product(broker_url: str) -> str:
    """`rabbitmq` or `amqpd`."""
    return product_of(broker_url)


@pytest.fixture(scope="session")
def is_rabbitmq(product: str) -> bool:
    """Whether this is RabbitMQ itself."""
    return product == "rabbitmq"


@pytest.fixture
def names(request: pytest.FixtureRequest, broker_url: str) -> Iterator[Names]:
    """Names that are deleted after the test's clients have gone."""
    names = Names(request.node.name)
    yield names
    names.delete(broker_url)


@pytest.fixture
def broker(broker_url: str, names: Names) -> Iterator[Broker]:
    """The broker under test; it closes the test's clients. Asks for `names` so that they are deleted later."""
    broker = Broker(broker_url)
    yield broker
    broker.close()


@pytest.fixture
def vhost(broker: Broker) -> str:
    """The vhost of the url."""
    return broker.parts.vhost


@pytest.fixture
def texts(vhost: str) -> Texts:
    """Reply texts about the url's vhost."""
    return Texts(vhost)


@pytest.fixture
def client(broker: Broker) -> Client:
    """An open connection."""
    return broker.client()


@pytest.fixture
def ch(client: Client) -> Channel:
    """A channel on a fresh connection."""
    return client.channel()


@pytest.fixture
def queue_name(names: Names) -> str:
    """The name of a queue that does not exist yet."""
    return names.queue()


@pytest.fixture
def exchange_name(names: Names) -> str:
    """The name of an exchange that does not exist yet."""
    return names.exchange()


@pytest.fixture
def routes(ch: Channel) -> Routes:
    """Bound queues, and which of them a publish reaches."""
    return Routes(ch)


@pytest.fixture
def letters(broker: Broker, names: Names) -> Letters:
    """A queue for dead letters, consumed on a connection of its own."""
    return Letters(broker.channel(), names.queue())


@pytest.fixture
def policies(request: pytest.FixtureRequest, names: Names, vhost: str) -> Iterator[Policies]:
    """Policies for this test's queues and exchanges, cleared when it ends."""
    policies = Policies(request.config.getoption("--ctl"), vhost, names.prefix)
    yield policies
    policies.clear_all()
