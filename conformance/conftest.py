"""Fixtures: the broker under test, its capabilities, connections to it, and names that are deleted afterwards."""
from __future__ import annotations

import itertools
import re
import uuid
from typing import Any, Iterator

import pytest

from conformance import chapters, table
from conformance.capabilities import BY_OPTION, MEANINGS, reason_to_skip
from conformance.channel import Channel
from conformance.client import BrokerUrl, Client, parse_url, without_password
from conformance.letters import Letters
from conformance.methods import CHANNEL_CLOSE, CHANNEL_CLOSE_OK, EXCHANGE_DELETE_OK, QUEUE_DECLARE_OK, QUEUE_DELETE_OK
from conformance.policies import Policies
from conformance.routes import Routes
from conformance.target import Target, target_of
from conformance.texts import Texts

DEFAULT_BROKER = "amqp://guest:guest@127.0.0.1:5672/"
NOT_FOUND = 404
TARGET = pytest.StashKey[Target]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options for the broker, its restart and its control command."""
    parser.addoption("--broker", default=DEFAULT_BROKER, help=f"amqp url of the broker (default {DEFAULT_BROKER})")
    parser.addoption("--restart", metavar="COMMAND",
                     help="shell command that stops the broker cleanly, starts it on the same data and port, and "
                     "returns when it serves clients; without it the tests of restarts are skipped")
    parser.addoption("--ctl", metavar="COMMAND",
                     help="shell command that takes rabbitmqctl's words, such as `set_policy …`; without it the tests "
                     "of policies, permissions and alarms are skipped")
    parser.addoption("--consumer-timeout", metavar="MS", type=int,
                     help="the consumer timeout that the broker was started with, some seconds; without it the tests "
                     "of that timeout are skipped")
    parser.addoption("--http", metavar="URL",
                     help="http url of the broker's management API, with user and password; without it the tests of "
                     "that API are skipped")
    parser.addoption("--programs", metavar="PYTHON",
                     help="a Python that has pyrabbit2, flower and celery; without it they are not run")
    parser.addoption("--profile", metavar="NAME",
                     help="a file that says what the broker can do: a name in conformance/brokers, or a path; without "
                     "it the broker's server properties decide")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the suite's markers."""
    config.addinivalue_line("markers", "needs(*capabilities): skipped on a broker that lacks one of these")
    config.addinivalue_line("markers", "standard: demanded by AMQP 0-9-1 itself, so of brokers that are not known too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Ask the broker who it is, and skip the tests that need more than it has."""
    for item in items:
        item.user_properties.append(("chapter", chapters.of(item)))
    if config.option.collectonly:
        return
    target = config.stash[TARGET] = probed(config)
    Client.compares_texts = "reply-texts" in target.capabilities
    for item in items:
        if missing := target.missing(needs_of(item)):
            item.add_marker(pytest.mark.skip(reason=reason_to_skip(missing)))


def needs_of(item: pytest.Item) -> set[str]:
    """Return all capabilities that a test needs, by its own markers and its module's."""
    needed = {name for marker in item.iter_markers("needs") for name in marker.args}
    unknown = needed - MEANINGS.keys()
    assert not unknown, f"{item.nodeid} needs {unknown}, which no capability is called"
    return needed


def probed(config: pytest.Config) -> Target:
    """Connect, and return what the broker can do."""
    url, profile = config.getoption("--broker"), config.getoption("--profile")
    try:
        with Client(url) as client:
            options = {option for option in BY_OPTION.values() if config.getoption(option)}
            return target_of(client.server_properties, options, profile)
    except (OSError, AssertionError) as error:
        raise pytest.UsageError(f"no broker at {without_password(url)}: {error}") from error
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Count a failure beyond the standard as `differs`, unless the broker is said to follow RabbitMQ."""
    report = yield
    is_standard = item.get_closest_marker("standard") is not None
    if report.failed and item.config.stash[TARGET].forgives(is_standard=is_standard):
        report.outcome, report.wasxfail = "skipped", "differs from RabbitMQ"
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Show what differs under its own name."""
    return ("differs", "d", "DIFFERS") if hasattr(report, "wasxfail") else None


def pytest_report_header(config: pytest.Config) -> str:
    """Print which broker is tested, before the tests are collected."""
    return f"broker: {without_password(config.getoption('--broker'))}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table by chapter."""
    if TARGET in config.stash:
        terminalreporter.section(str(config.stash[TARGET]))
        for line in table.lines(terminalreporter.stats):
            terminalreporter.write_line(line)


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
                channel.send_delete_queue(queue)
                channel = deleted(channel, QUEUE_DELETE_OK)
            for exchange in self.exchanges:
                channel.send_delete_exchange(exchange)
                channel = deleted(channel, EXCHANGE_DELETE_OK)


def deleted(channel: Channel, done: tuple[int, int]) -> Channel:
    """Await the answer to a delete; returns the channel for the next one.

    By AMQP 0-9-1 a broker closes the channel where there is nothing to delete, RabbitMQ does not.
    """
    answer = channel.client.await_method(channel.number, [done, CHANNEL_CLOSE])
    if answer.ids == done:
        return channel
    code, text, *_ = answer.decode("2s22")
    assert code == NOT_FOUND, f"what a test left cannot be deleted: {code} {text}"
    channel.send(CHANNEL_CLOSE_OK)
    return channel.client.channel()


@pytest.fixture(scope="session")
def broker_url(request: pytest.FixtureRequest) -> str:
    """The broker's url."""
    return request.config.getoption("broker")


@pytest.fixture(scope="session")
def capabilities(request: pytest.FixtureRequest) -> frozenset[str]:
    """What the broker can do."""
    return request.config.stash[TARGET].capabilities


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
