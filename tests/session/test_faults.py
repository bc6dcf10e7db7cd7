"""A bug between a change in memory and its record: afterwards both agree, or the store has failed.

An exception is raised in each step of what a client, an operator or the clock does: first at every call of a function
of the broker, with a journal in memory, then at every record, with a store on disk, which is started again. After an
error, memory may have fewer messages than the store, which restores them at the next start, but never more.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
from pamqp.commands import Basic, Channel, Connection, Exchange, Queue, Tx

from amqpd import broker as broker_package
from amqpd.broker.broker import Broker
from amqpd.broker.definitions import (
    Definition,
    GlobalParameterDefinition,
    ParameterDefinition,
    PermissionDefinition,
    PolicyDefinition,
    QueueDefinition,
    TopicPermissionDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.broker.exchange_types.topic import TopicExchange
from amqpd.broker.policy_followers import PolicyFollowers
from amqpd.broker.queue.dispatcher import Dispatcher
from amqpd.message import Message
from amqpd.properties import read_own_properties
from amqpd.session.phases import Phase
from amqpd.store.batch import Batch
from amqpd.store.journal import Journal
from amqpd.store.pending_confirms import PendingConfirms
from amqpd.store.sqlite.store import Store
from tests.support.journals import Kept, RecordingJournal, identity
from tests.support.talk import Stage

NOW = 1_800_000_000
PLACE = str(Path(broker_package.__path__[0]))
RECORDS = {RecordingJournal.changed.__code__, RecordingJournal.published.__code__, RecordingJournal.settled.__code__,
           RecordingJournal.requeued.__code__, RecordingJournal.watermark_raised.__code__}
# Nothing of these stands before their own `try`, or can raise at all: a call of them that failed would end nowhere.
SPARED = {"Worklist._work_on", "StepJob._do_next", "_Deaths.count", "_DeadLettersOfQueue.has_work"}
DEAD_LETTERING = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
QUEUES: dict[str, dict[str, Any]] = {
    "q": {}, "dead": {}, "dlx": DEAD_LETTERING, "short": {"x-max-length": 1}, "ttl": {"x-message-ttl": 500},
    "dying": DEAD_LETTERING | {"x-message-ttl": 500}, "gone": {"x-expires": 500}}
ALL, NONE = (".*", ".*", ".*"), ("", "", "")

State = tuple[dict[tuple[object, ...], Definition], dict[str, list[int]]]


class Fault(Exception):
    """The injected exception, which no code expects."""


class JournalOnDisk(Journal):
    """The journal in life, in the place of that of a stage."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.now = Kept()       # nothing, at start
        self.store = Store.open(directory, durability="process", now=NOW)
        self.store.load(read_own_properties)

    @property
    def is_empty(self) -> bool:
        """Return whether nothing waits."""
        return self.filling.is_empty

    def read(self, numbers: Sequence[int]) -> list[Message]:
        """Read messages."""
        return self.store.fetch(numbers)

    def commit(self) -> int:
        """Write what waits."""
        assert self.failure is None
        batch = self.take()
        self.store.commit(batch)
        self.pending_confirms.committed()
        return batch.number


class Scene(Stage):
    """A stage with a bit of everything, on which nothing more is committed once the journal has failed."""

    def __init__(self, journal: Any) -> None:
        super().__init__(journal=journal)
        self.kept: State = {}, {}       # memory at the last commit to a disk
        self.talk, self.other = self.client().open_channel(), self.client("bob").open_channel()
        self._fill()
        self.end_turn()
        self.talk.hear_all()

    def commit(self) -> None:
        """See `Stage`."""
        if isinstance(self.journal, JournalOnDisk):
            self.kept = definitions_of(self.broker), messages_of(self.broker)
        super().commit()

    def check(self) -> None:
        """Check nothing: after an error not all invariants hold."""

    def _fill(self) -> None:
        methods: list[Any] = [
            Exchange.Declare(exchange="x", exchange_type="topic", durable=True, nowait=True),
            Exchange.Declare(exchange="auto", exchange_type="headers", durable=True, auto_delete=True, nowait=True),
            Queue.Declare(queue="leaves", durable=True, auto_delete=True, nowait=True)]
        methods += [Queue.Declare(queue=name, durable=True, arguments=arguments, nowait=True)
                    for name, arguments in QUEUES.items()]
        methods += [Queue.Bind(queue=name, exchange="x", routing_key="a.#", nowait=True)
                    for name in ("q", "leaves", "gone")]
        methods.append(Queue.Bind(queue="q", exchange="auto", arguments={"h": 1}, nowait=True))
        self.talk.client(*methods)
        for name in "q", "dlx", "leaves":
            self.talk.publish(name, b"1", b"2", b"3", persistent=True)
        self.talk.client(Basic.Consume(queue="leaves", consumer_tag="leaves", nowait=True))
        self.broker.vhosts["/"].followers.set_policy(PolicyDefinition("/", "old", "q", {"max-length": 100}))
        self.broker.add_vhost(VhostDefinition("other"))
        self.broker.users.add(UserDefinition("eve"))
        self.broker.users.set_permissions(PermissionDefinition("eve", "other", *ALL))
        self.broker.users.set_topic_permissions(TopicPermissionDefinition("eve", "other", "x"))
        self.broker.parameters.set(ParameterDefinition("/", "shovel", "old", {}))
        self.broker.parameters.set_global(GlobalParameterDefinition("old", 1))


def definitions_of(broker: Broker) -> dict[tuple[object, ...], Definition]:
    """Return what is durable of the definitions in memory, by identity."""
    found: list[Definition] = [*broker.vhost_definitions.values(), *broker.parameters.of_broker]
    for user in broker.users.values():
        found += [user.definition, *user.permissions.values(), *user.topic_permissions.values()]
    for name in broker.vhosts:
        found += broker.parameters.of_vhost(name)
    for vhost in broker.vhosts.values():
        for is_operator in False, True:
            found += vhost.policies.listed(is_operator=is_operator)
        found += [one.definition for one in vhost.exchanges.values()
                  if one.definition.durable and not one.name.startswith("amq.") and one.name]
        found += [one.definition for one in vhost.queues.values() if one.definition.durable]
        found += vhost.bindings()       # all of them are durable here
    return {identity(one): one for one in found}


def messages_of(broker: Broker) -> dict[str, list[int]]:
    """Return the numbers of the persistent messages in memory, by durable queue."""
    runs: dict[str, list[Message]] = {
        queue.name: [*queue.ready, *queue.dead_letters.aside.values()]
        for vhost in broker.vhosts.values() for queue in vhost.queues.values() if queue.definition.durable}
    for connection in broker.connections.values():
        for queue, run in connection.unacked_runs():
            if not queue.deleted:
                runs[queue.name] += run
    return {name: sorted(one.number for one in run if one.facts.persistent) for name, run in runs.items()}


def recorded(kept: Kept) -> State:
    """Return what was recorded in the journal in memory."""
    queues = [one for one in kept.definitions.values() if isinstance(one, QueueDefinition)]
    return kept.definitions, {queue.name: sorted(kept.messages[queue.number]) for queue in queues}


# What is done

def nothing(scene: Scene) -> None:
    """Do nothing before the tested act."""


class Deed(NamedTuple):
    """An act, and its preparation; `is_on_messages` says that it changes only messages."""

    act: Callable[[Scene], Any]
    before: Callable[[Scene], Any] = nothing
    is_on_messages: bool = False


def says(*methods: Any) -> Callable[[Scene], Any]:
    return lambda scene: scene.talk.client(*methods)


def publishes(key: str, exchange: str = "") -> Callable[[Scene], Any]:
    return lambda scene: scene.talk.publish(key, b"new", exchange=exchange, persistent=True)


def consumes(queue: str, *, no_ack: bool = False) -> Callable[[Scene], Any]:
    return says(Basic.Consume(queue=queue, consumer_tag="t", no_ack=no_ack, nowait=True))


def on_broker(name: str, *arguments: Any) -> Callable[[Scene], Any]:
    return lambda scene: (attrgetter(name)(scene.broker)(*arguments), scene.end_turn())


def on_policies(name: str, *arguments: Any) -> Callable[[Scene], Any]:
    def act(scene: Scene) -> None:
        getattr(PolicyFollowers, name)(scene.broker.vhosts["/"].followers, *arguments)
        scene.end_turn()

    return act


def waits(scene: Scene) -> None:
    scene.pass_time(1)


def begins_transaction(scene: Scene) -> None:
    scene.talk.client(Tx.Select())
    publishes("q")(scene)
    scene.talk.client(Basic.Get(queue="dlx"), Basic.Ack(delivery_tag=4))


def of_messages(act: Callable[[Scene], Any], before: Callable[[Scene], Any] = nothing) -> Deed:
    return Deed(act, before, is_on_messages=True)


DEEDS = {
    "declare exchange": Deed(says(Exchange.Declare(exchange="new", exchange_type="topic", durable=True))),
    "delete exchange": Deed(says(Exchange.Delete(exchange="x"))),
    "declare queue": Deed(says(Queue.Declare(queue="new", durable=True))),
    "delete queue": Deed(says(Queue.Delete(queue="q"))),
    "queue expires": Deed(waits),
    "last consumer leaves": Deed(says(Basic.Cancel(consumer_tag="leaves"))),
    "bind": Deed(says(Queue.Bind(queue="dead", exchange="x", routing_key="a.b"))),
    "bind by headers": Deed(says(Queue.Bind(queue="dead", exchange="auto", arguments={"h": 2}))),
    "bind exchange": Deed(says(Exchange.Bind(destination="x", source="auto", arguments={"g": 1}))),
    "unbind": Deed(says(Queue.Unbind(queue="q", exchange="x", routing_key="a.#"))),
    "unbind the last": Deed(says(Queue.Unbind(queue="q", exchange="auto", arguments={"h": 1}))),
    "set policy": Deed(on_policies("set_policy", PolicyDefinition("/", "new", "^q$", {"max-length": 2}))),
    "clear policy": Deed(on_policies("clear_policy", "old")),
    "add vhost": Deed(on_broker("add_vhost", VhostDefinition("new"))),
    "delete vhost": Deed(on_broker("delete_vhost", "other")),
    "delete vhost in use": Deed(on_broker("delete_vhost", "/")),
    "add user": Deed(on_broker("users.add", UserDefinition("new"))),
    "delete user": Deed(on_broker("users.delete", "eve")),
    "change password": Deed(on_broker("users.change_password", "bob", "hash", "scrypt")),
    "set tags": Deed(on_broker("users.set_tags", "bob", ("administrator",))),
    "set permissions": Deed(on_broker("users.set_permissions", PermissionDefinition("bob", "/", *NONE))),
    "clear permissions": Deed(on_broker("users.clear_permissions", "bob", "/")),
    "set topic permissions": Deed(
        on_broker("users.set_topic_permissions", TopicPermissionDefinition("bob", "/", "x", "^a"))),
    "clear topic permissions": Deed(on_broker("users.clear_topic_permissions", "eve", "other")),
    "set parameter": Deed(on_broker("parameters.set", ParameterDefinition("/", "shovel", "new", {}))),
    "clear parameter": Deed(on_broker("parameters.clear", "/", "shovel", "old")),
    "set global parameter": Deed(on_broker("parameters.set_global", GlobalParameterDefinition("new", 1))),
    "clear global parameter": Deed(on_broker("parameters.clear_global", "old")),
    "publish": of_messages(publishes("q")),
    "publish to two": of_messages(publishes("a.b", "x")),
    "publish what expires": of_messages(publishes("ttl")),
    "publish to a consumer": of_messages(publishes("dead"), consumes("dead")),
    "publish without ack": of_messages(publishes("dead"), consumes("dead", no_ack=True)),
    "overflow": of_messages(publishes("short"), publishes("short")),
    "expire": of_messages(waits, publishes("ttl")),
    "expire to another queue": of_messages(waits, publishes("dying")),
    "consume": of_messages(consumes("q")),
    "consume without ack": of_messages(consumes("q", no_ack=True)),
    "get": of_messages(says(Basic.Get(queue="q"))),
    "get without ack": of_messages(says(Basic.Get(queue="q", no_ack=True))),
    "ack": of_messages(says(Basic.Ack(delivery_tag=5, multiple=True)), consumes("q")),
    "requeue": of_messages(says(Basic.Nack(delivery_tag=6, multiple=True)), consumes("q")),
    "reject": of_messages(says(Basic.Reject(delivery_tag=5, requeue=False)), consumes("q")),
    "reject to another queue": of_messages(says(Basic.Reject(delivery_tag=5, requeue=False)), consumes("dlx")),
    "purge": of_messages(says(Queue.Purge(queue="q"))),
    "commit": of_messages(says(Tx.Commit()), begins_transaction),
    "close channel": of_messages(says(Channel.Close(0, "", 0, 0)), consumes("q")),
    "connection lost": of_messages(lambda scene: scene.talk.lose(), consumes("q")),
}
OF_ALL = {"queue expires", "last consumer leaves", "set policy"}     # messages as well
# Those whose every call is tried, among those of messages; the others go the same ways.
TRIED = [name for name, deed in DEEDS.items() if not deed.is_on_messages and name != "delete vhost in use"] + [
    "publish to two", "overflow", "ack", "requeue", "reject to another queue", "commit"]


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """Write no log: thousands of tracebacks take long."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


# An error at every call

class Injector:
    """A trace function that raises at the `at`-th call of a function of the broker; calls of one line count once."""

    def __init__(self, at: int) -> None:
        self.where = ""
        self._left = at
        self._seen: set[tuple[object, ...]] = set()

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """Raise, if it is its turn."""
        code, caller = frame.f_code, frame.f_back
        is_record = code in RECORDS
        if event != "call" or caller is None or not (is_record or code.co_filename.startswith(PLACE)):
            return
        place = code, caller.f_code, caller.f_lineno
        if place in self._seen or code.co_qualname in SPARED:
            return
        self._seen.add(place)
        self._left -= 1
        if self._left == 0:
            sys.settrace(None)
            self.where = f"{code.co_qualname}, called by {caller.f_code.co_qualname} in line {caller.f_lineno}"
            fault = Fault(self.where)
            if is_record:       # as the journal in life does
                frame.f_locals["self"].fail(fault)
            raise fault


def with_faults(deed: Deed) -> Iterator[tuple[Scene, str]]:
    """Run this with an error at every step, each on its own scene, and yield the place of the error."""
    for at in range(1, 10_000):
        scene = Scene(RecordingJournal())
        deed.before(scene)
        assert (definitions_of(scene.broker), messages_of(scene.broker)) == recorded(scene.journal.now)
        scene.talk.hear_all()
        injector = Injector(at)
        before = sys.gettrace()
        sys.settrace(injector)
        try:
            deed.act(scene)
        except Fault:
            pass
        finally:
            sys.settrace(before)
        scene.end_turn()
        if not injector.where:
            assert at > 5, "there are no steps"
            return
        yield scene, injector.where
    raise AssertionError("this never ends")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")     # errors in what is being freed
@pytest.mark.parametrize("name", TRIED)
def test_an_error_at_any_step_leaves_memory_and_store_the_same_or_fails_the_store(name: str) -> None:
    deed = DEEDS[name]
    for scene, where in with_faults(deed):
        if scene.journal.failure is not None:
            said = {heard.said.name for heard in scene.talk.hear_all()} - {"Channel.CloseOk"}
            assert not any(one.endswith("Ok") for one in said), f"the client was told that it is done: {where}"
            continue
        definitions, messages = recorded(scene.journal.now)
        assert definitions_of(scene.broker) == definitions, where
        for queue, numbers in messages_of(scene.broker).items():
            assert {*numbers} <= {*messages[queue]}, f"{queue}, {where}"
            if not deed.is_on_messages and name not in OF_ALL:
                assert numbers == messages[queue], f"{queue}, {where}"
        assert scene.other.session.phases.current is Phase.OPEN, where


def test_a_run_for_which_no_consumer_can_be_chosen_is_neither_in_memory_nor_recorded() -> None:
    scene = Scene(RecordingJournal())
    consumes("dead")(scene)
    with patch.object(Dispatcher, "next_taker", side_effect=Fault):
        publishes("dead")(scene)
    assert messages_of(scene.broker)["dead"] == recorded(scene.journal.now)[1]["dead"] == []


def test_after_a_step_that_failed_nobody_is_told_that_it_was_taken() -> None:
    scene = Scene(RecordingJournal())
    talk = scene.client().open_channel()        # with nothing that is deleted at its end
    scene.other.client(Queue.Declare(queue="dead", durable=True)).hear(Queue.DeclareOk)     # all is on disk
    bind = Queue.Bind(queue="dead", exchange="x", routing_key="a.b")
    with patch.object(TopicExchange, "bind", side_effect=Fault):
        talk.client(bind)
    assert talk.hear(Connection.Close).reply_code == 541
    scene.other.client(bind)        # which finds it there, half added
    scene.other.nothing()
    assert isinstance(scene.journal.failure, Fault)


# An error after every record

class RecordFault:
    """Makes the `at`-th record raise after it was made, so that memory does not change after it."""

    METHODS = ((Batch, "change"), (Batch, "publish"), (Batch, "requeue"), (Batch, "watermark"), (Batch, "settle"),
               (PendingConfirms, "published"), (PendingConfirms, "answered"))

    def __init__(self, at: int) -> None:
        self.where = ""
        self._left = at

    def __enter__(self) -> RecordFault:
        """Begin."""
        self._patches = [patch.object(owner, name, self._failing(getattr(owner, name))) for owner, name in self.METHODS]
        for one in self._patches:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        for one in self._patches:
            one.stop()

    def _failing(self, record: Any) -> Any:
        def call(*arguments: Any) -> None:
            record(*arguments)
            self._left -= 1
            if self._left == 0:
                self.where = record.__qualname__
                raise Fault(self.where)

        return call


def restarted(directory: Path) -> State:
    """Return what a start finds."""
    store = Store.open(directory, durability="process", now=NOW)
    recovered = store.load(read_own_properties)
    store.abandon()
    broker = Broker(RecordingJournal())
    broker.restore(recovered.definitions)
    names = {one.number: one.name for one in recovered.definitions if isinstance(one, QueueDefinition)}
    found = {names[number]: sorted(kept.numbers) for number, kept in recovered.messages.items()}
    return definitions_of(broker), {name: found.get(name, []) for name in names.values()}


@pytest.mark.parametrize("name", DEEDS)
def test_a_record_that_raises_fails_the_store_and_a_start_finds_the_last_commit(name: str, tmp_path: Path) -> None:
    deed = DEEDS[name]
    for at in range(1, 100):
        directory = tmp_path / str(at)
        scene = Scene(journal := JournalOnDisk(directory))
        deed.before(scene)
        scene.talk.hear_all()
        with RecordFault(at) as fault:
            try:
                deed.act(scene)
            except Fault:
                pass
            scene.end_turn()
        assert (journal.failure is not None) == bool(fault.where)
        said = {heard.said.name for heard in scene.talk.hear_all()}
        journal.store.abandon()
        assert restarted(directory) == scene.kept
        if not fault.where:
            assert at > 1, "nothing was recorded"
            return
        assert not any(one.endswith("Ok") for one in said - {"Channel.CloseOk"}), "the client was told that it is done"
    raise AssertionError("this never ends")
