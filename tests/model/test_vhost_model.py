"""A vhost with random declarations, against a model of plain sets; and the replay of its journal.

The model knows names and bindings, and the rules about what is deleted with what.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from amqpd.broker.broker import OPERATOR
from amqpd.broker.definitions import BindingDefinition, Defined, ExchangeDefinition, QueueDefinition, VhostDefinition
from amqpd.broker.departure import Departure
from amqpd.broker.queue.consumer import Consumer
from amqpd.broker.vhost import Vhost
from amqpd.errors import AmqpException
from tests.support.journals import RecordingJournal
from tests.support.samples import messages
from tests.support.subscribers import ListSubscriber

Kind = Literal["queue", "exchange"]

OWNERS = ("one connection", "another")
queue_names = st.sampled_from(["p", "q", "r"])
exchange_names = st.sampled_from(["x", "y", "z", "amq.fanout", "amq.direct"])
own_exchanges = st.sampled_from(["x", "y", "z"])
keys = st.sampled_from(["a", "b", "a.b", "#", "*.b", ""])
owners = st.sampled_from(OWNERS)


class ModelExchange(NamedTuple):
    """An exchange as the model sees it."""

    type: str
    durable: bool
    auto_delete: bool
    internal: bool
    alternate: str | None


class ModelQueue(NamedTuple):
    """A queue as the model sees it; `owner` of an exclusive one."""

    durable: bool
    auto_delete: bool
    owner: str | None


class ModelBinding(NamedTuple):
    """A binding."""

    source: str
    kind: Kind
    destination: str
    key: str


class Model:
    """The model: names, bindings, and the rules about what is deleted with what."""

    def __init__(self) -> None:
        self.exchanges = {
            "amq.fanout": ModelExchange("fanout", True, False, False, None),
            "amq.direct": ModelExchange("direct", True, False, False, None)}
        self.queues: dict[str, ModelQueue] = {}
        self.bindings: set[ModelBinding] = set()

    def remove(self, bindings: set[ModelBinding]) -> None:
        """Remove bindings, and auto-delete exchanges with their last binding, until nothing changes."""
        self.bindings -= bindings
        for source in {binding.source for binding in bindings}:
            exchange = self.exchanges.get(source)
            if exchange and exchange.auto_delete and not any(binding.source == source for binding in self.bindings):
                self.remove_exchange(source)

    def remove_exchange(self, name: str) -> None:
        del self.exchanges[name]
        self.remove({binding for binding in self.bindings if name == binding.source
                     or (binding.kind == "exchange" and binding.destination == name)})

    def remove_queue(self, name: str) -> None:
        del self.queues[name]
        self.remove({binding for binding in self.bindings if (binding.kind, binding.destination) == ("queue", name)})

    def route(self, exchange: str, key: str) -> set[str]:
        """The queues a message reaches."""
        reached, walk, seen = set(), [exchange], {exchange}
        while walk:
            name = walk.pop()
            found = {binding for binding in self.bindings if binding.source == name and self.matches(binding, key)}
            ends: set[tuple[str, str]] = {(binding.kind, binding.destination) for binding in found}
            alternate = self.exchanges[name].alternate
            if not ends and alternate in self.exchanges:
                ends = {("exchange", str(alternate))}
            reached |= {end for kind, end in ends if kind == "queue"}
            following = {end for kind, end in ends if kind == "exchange"} - seen
            seen |= following
            walk += following
        return reached

    def matches(self, binding: ModelBinding, key: str) -> bool:
        kind = self.exchanges[binding.source].type
        if kind == "fanout":
            return True
        if kind == "direct":
            return binding.key == key
        return words_match(words(binding.key), words(key))

    def durable(self) -> set[Any]:
        """What must be in the journal."""
        ends = {("queue", name): queue.durable for name, queue in self.queues.items()} | {
            ("exchange", name): exchange.durable for name, exchange in self.exchanges.items()}
        return {
            *(("queue", name) for name, queue in self.queues.items() if queue.durable),
            *(("exchange", name) for name, exchange in self.exchanges.items()
              if exchange.durable and not name.startswith("amq.")),
            *(binding for binding in self.bindings
              if ends["exchange", binding.source] and ends[binding.kind, binding.destination])}


def words(key: str) -> list[str]:
    return key.split(".") if key else []


def words_match(pattern: list[str], key: list[str]) -> bool:
    if not pattern:
        return not key
    if pattern[0] == "#":
        return any(words_match(pattern[1:], key[skipped:]) for skipped in range(len(key) + 1))
    return bool(key) and pattern[0] in ("*", key[0]) and words_match(pattern[1:], key[1:])


class VhostMachine(RuleBasedStateMachine):
    """Two connections declare, bind, publish and delete."""

    def __init__(self) -> None:
        super().__init__()
        self.journal = RecordingJournal()
        self.journal.changed(Defined(VhostDefinition("/")))
        self.next_number = 0
        self.vhost = Vhost("/", self.journal, self.number)
        self.model = Model()
        self.consumers: dict[str, list[Consumer]] = {}
        self.version = -1
        self.answers: dict[tuple[str, str], set[str]] = {}

    def number(self) -> int:
        self.next_number += 1
        return self.next_number

    def attempt(self, act: Callable[[], object], *, allowed: bool) -> None:
        """Do it, if the rules allow it; otherwise it must be refused."""
        try:
            act()
        except AmqpException:
            assert not allowed, "refused, though the rules allow it"
        else:
            assert allowed, "done, though the rules forbid it"

    def may_use(self, name: str, owner: str) -> bool:
        return name in self.model.queues and self.model.queues[name].owner in (None, owner)

    # Exchanges

    @rule(name=own_exchanges, kind=st.sampled_from(["direct", "fanout", "topic"]), durable=st.booleans(),
          auto_delete=st.booleans(), internal=st.booleans(), alternate=st.none() | exchange_names)
    def declare_exchange(
        self, name: str, kind: str, durable: bool, auto_delete: bool, internal: bool, alternate: str | None
    ) -> None:
        wanted = ModelExchange(kind, durable, auto_delete, internal, alternate)
        arguments = {} if alternate is None else {"alternate-exchange": alternate}
        definition = ExchangeDefinition("/", name, kind, durable, auto_delete, internal, arguments)
        current = self.model.exchanges.get(name, wanted)
        self.attempt(lambda: self.vhost.declare_exchange(OPERATOR, definition), allowed=current == wanted)
        self.model.exchanges.setdefault(name, wanted)

    @rule(name=exchange_names, if_unused=st.booleans())
    def delete_exchange(self, name: str, if_unused: bool) -> None:
        in_use = any(binding.source == name for binding in self.model.bindings)
        allowed = not name.startswith("amq.") and not (if_unused and in_use)
        self.attempt(lambda: self.vhost.delete_exchange(OPERATOR, name, if_unused=if_unused), allowed=allowed)
        if allowed and name in self.model.exchanges:
            self.model.remove_exchange(name)

    # Queues

    @rule(name=queue_names, owner=owners, durable=st.booleans(), exclusive=st.booleans(), auto_delete=st.booleans())
    def declare_queue(self, name: str, owner: str, durable: bool, exclusive: bool, auto_delete: bool) -> None:
        wanted = ModelQueue(durable and not exclusive, auto_delete, owner if exclusive else None)
        definition = QueueDefinition(0, "/", name, durable, exclusive, auto_delete)
        current = self.model.queues.get(name, wanted)
        self.attempt(lambda: self.vhost.declare_queue(OPERATOR, definition, owner), allowed=current == wanted)
        self.model.queues.setdefault(name, wanted)

    @rule(name=queue_names, owner=owners, if_unused=st.booleans())
    def delete_queue(self, name: str, owner: str, if_unused: bool) -> None:
        there = name in self.model.queues
        allowed = not there or (self.may_use(name, owner) and not (if_unused and self.consumers.get(name)))
        self.attempt(
            lambda: self.vhost.delete_queue(OPERATOR, name, owner, if_unused=if_unused), allowed=allowed)
        if there and allowed:
            self.model.remove_queue(name)
            self.consumers.pop(name, None)

    @rule(owner=owners)
    def end_connection(self, owner: str) -> None:
        Departure(self.vhost.topology.leave(owner), self.vhost.worklist)
        for name in [name for name, queue in self.model.queues.items() if queue.owner == owner]:
            self.model.remove_queue(name)
            self.consumers.pop(name, None)

    @precondition(lambda self: self.model.queues)
    @rule(data=st.data())
    def subscribe(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.queues)))
        consumer = Consumer("c", self.vhost.queues[name], ListSubscriber(), prefetch=1)
        self.vhost.queues[name].subscribe(consumer)
        self.vhost.queues[name].dispatch()
        self.consumers.setdefault(name, []).append(consumer)

    @precondition(lambda self: self.consumers)
    @rule(data=st.data())
    def unsubscribe(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.consumers)))
        consumer = self.consumers[name].pop()
        queue = consumer.queue
        queue.unsubscribe(consumer)
        self.vhost.topology.consumer_left(queue)
        if not self.consumers[name]:
            del self.consumers[name]
            if self.model.queues[name].auto_delete:
                self.model.remove_queue(name)

    # Bindings

    @rule(source=exchange_names, kind=st.sampled_from(["queue", "exchange"]), data=st.data(), key=keys, owner=owners)
    def bind(self, source: str, kind: Kind, data: st.DataObject, key: str, owner: str) -> None:
        binding = self.draw_binding(source, kind, data, key)
        ends = self.may_use(binding.destination, owner) if kind == "queue" else (
            binding.destination in self.model.exchanges)
        allowed = source in self.model.exchanges and ends
        self.attempt(lambda: self.vhost.bind(OPERATOR, definition_of(binding), owner), allowed=allowed)
        if allowed:
            self.model.bindings.add(binding)

    @rule(source=exchange_names, kind=st.sampled_from(["queue", "exchange"]), data=st.data(), key=keys, owner=owners)
    def unbind(self, source: str, kind: Kind, data: st.DataObject, key: str, owner: str) -> None:
        binding = self.draw_binding(source, kind, data, key)
        there = binding in self.model.bindings
        allowed = not there or kind == "exchange" or self.may_use(binding.destination, owner)
        self.attempt(lambda: self.vhost.unbind(OPERATOR, definition_of(binding), owner), allowed=allowed)
        if there and allowed:
            self.model.remove({binding})

    def draw_binding(self, source: str, kind: Kind, data: st.DataObject, key: str) -> ModelBinding:
        return ModelBinding(source, kind, data.draw(queue_names if kind == "queue" else exchange_names), key)

    # Messages

    @rule(exchange=exchange_names, key=st.sampled_from(["a", "b", "a.b", "c.b", ""]))
    def route(self, exchange: str, key: str) -> None:
        if exchange not in self.model.exchanges:
            return
        found = [queue.name for queue in self.vhost.routing.route(self.vhost.exchanges[exchange], (key,), lambda: {})]
        expected = self.model.route(exchange, key)
        assert len(found) == len(set(found)) and set(found) == expected
        self.remember(exchange, key, expected)

    def remember(self, exchange: str, key: str, answer: set[str]) -> None:
        """While the version stands, an answer holds: publishers rely on it."""
        if self.vhost.routing.version != self.version:
            self.version = self.vhost.routing.version
            self.answers.clear()
        assert self.answers.setdefault((exchange, key), answer) == answer, "a route changed, the version did not"

    @precondition(lambda self: self.model.queues)
    @rule(data=st.data(), count=st.integers(1, 3))
    def publish(self, data: st.DataObject, count: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.queues)))
        self.vhost.queues[name].publish(
            messages(*(self.number() for _ in range(count)), persistent=True))

    @rule()
    def commit(self) -> None:
        self.vhost.changes.on_commit(self.journal.commit())
        assert self.vhost.changes.awaited_batch == 0

    # What always holds

    @invariant()
    def the_vhost_holds_its_own_promises(self) -> None:
        self.vhost.check()

    @invariant()
    def the_names_are_those_of_the_model(self) -> None:
        assert set(self.vhost.queues) == set(self.model.queues)
        assert {name for name in self.vhost.exchanges if name in "xyz" and name} == {
            name for name in self.model.exchanges if name in "xyz"}
        assert {
            ModelBinding(found.source, found.destination_type, found.destination, found.routing_key)
            for found in self.vhost.bindings()} == self.model.bindings

    @invariant()
    def the_journal_has_what_must_survive(self) -> None:
        kept: set[Any] = set()
        for definition in self.journal.now.in_order():
            match definition:
                case QueueDefinition():
                    kept.add(("queue", definition.name))
                case ExchangeDefinition():
                    kept.add(("exchange", definition.name))
                case BindingDefinition():
                    kept.add(ModelBinding(
                        definition.source, definition.destination_type, definition.destination,
                        definition.routing_key))
        assert kept == self.model.durable()

    def teardown(self) -> None:
        """What is in the journal at the end can be built again, and is the same."""
        reborn = Vhost("/", RecordingJournal(self.journal.now.copy()), self.number)
        reborn.restore(self.journal.now.in_order()[1:])
        reborn.check()
        assert set(reborn.queues) == {name for name, queue in self.model.queues.items() if queue.durable}


def definition_of(binding: ModelBinding) -> BindingDefinition:
    return BindingDefinition("/", binding.source, binding.kind, binding.destination, binding.key)


TestVhostMachine = VhostMachine.TestCase
