"""An exchange: its definition, the type that matches keys, and the bindings that leave it.

Owns its outgoing bindings. It finds destinations and never publishes to them; `broker/routing.py` walks from exchange
to exchange.

Always true between calls: the type knows exactly the destinations that `bindings` holds.

Spec: §3.1.3; RabbitMQ docs/exchanges, docs/ae.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Union

from amqpd.broker.counts import ExchangeCounts
from amqpd.broker.definitions import BindingDefinition, ExchangeDefinition
from amqpd.broker.exchange_types import NOWHERE, exchange_type
from amqpd.broker.rules import PolicyRules, alternate_exchange
from amqpd.errors import ConnectionException, ReplyCode
from amqpd.fields import encode_table

if TYPE_CHECKING:
    from amqpd.broker.queue.queue import Queue

Destination = Union["Queue", "Exchange"]
# RabbitMQ has these words, but not as exchange types: it says "invalid" instead of "unknown".
OTHER_WORDS = frozenset(("", "classic", "quorum", "stream"))
BindingKey = tuple[str, str, str, bytes]


def binding_key(binding: BindingDefinition) -> BindingKey:
    """Return the identity of a binding of one exchange: destination, routing key, and arguments to the byte.

    Encoding many arguments takes long, so it is done once, and the result is kept at both ends of a binding.
    """
    arguments = encode_table(dict(sorted(binding.arguments.items())))
    return binding.destination_type, binding.destination, binding.routing_key, arguments


class Exchange:
    """One exchange of a vhost."""

    def __init__(self, definition: ExchangeDefinition) -> None:
        """Create the exchange. Raises ConnectionException: COMMAND_INVALID for an unknown type (RabbitMQ 3.10)."""
        kind = exchange_type(definition.type)
        if kind is None:
            fault = "invalid" if definition.type in OTHER_WORDS else "unknown"
            raise ConnectionException(ReplyCode.COMMAND_INVALID, f"{fault} exchange type '{definition.type}'")
        self.definition = definition
        self.name = definition.name
        self.alternate = alternate_exchange(definition.arguments)
        self.bindings: dict[BindingKey, tuple[BindingDefinition, Destination]] = {}
        self.bound_exchanges = 0    # number of bindings to exchanges
        self.is_remembered = False      # whether a cached walk refers to it; see broker/routing.py
        self.counts = ExchangeCounts()
        self.changes = 0        # rises when an earlier result of `route`, or the alternate exchange, may be outdated
        self._type = self._bound = kind()       # the same object until it leaves

    @property
    def reads_headers(self) -> bool:
        """Whether a route depends on the message's headers, not only on exchange and key."""
        return self._type.reads_headers

    def apply(self, policy: PolicyRules) -> None:
        """Apply this policy definition from now on, {} for none: it may set `alternate`."""
        alternate = alternate_exchange(self.definition.arguments, policy)
        if alternate != self.alternate:
            self.alternate = alternate
            self.changes += 1

    def new_key(self, binding: BindingDefinition) -> BindingKey | None:
        """Return the key of a binding to be added; None if it exists. Changes nothing.

        Raises ChannelException for arguments that the type refuses.
        """
        self._bound.check_binding(binding)
        key = binding_key(binding)
        return None if key in self.bindings else key

    def add(self, key: BindingKey, binding: BindingDefinition, destination: Destination) -> None:
        """Add a binding; its key comes from `new_key`."""
        self.bindings[key] = binding, destination
        self.bound_exchanges += binding.destination_type == "exchange"
        self.changes += 1
        self._bound.bind(binding, destination)

    def unbind(self, key: BindingKey) -> tuple[BindingDefinition, Destination]:
        """Remove an existing binding and return it."""
        binding, destination = self.bindings.pop(key)
        self.bound_exchanges -= binding.destination_type == "exchange"
        self.changes += 1
        self._bound.unbind(binding, destination)
        return binding, destination

    def leave(self) -> None:
        """Route to no destination from now on, although bindings are left."""
        self._type = type(self._bound)()
        self.alternate = None
        self.changes += 1

    def route(self, routing_key: str, headers: Mapping[str, Any]) -> Mapping[Destination, int]:
        """Return the destinations of this key by this exchange's own bindings; see broker/exchange_types."""
        return self._type.route(routing_key, headers)

    def routes(self, routing_keys: Collection[str], headers: Mapping[str, Any]) -> Iterator[Mapping[Destination, int]]:
        """Yield the destinations of these keys, in pieces; see broker/exchange_types."""
        return self._type.routes(routing_keys, headers)

    def keys_matched(
        self, binding: BindingDefinition, routing_keys: Collection[str], headers: Mapping[str, Any]
    ) -> list[str]:
        """Return those of the keys that a binding matches, if it were the only one; for explanations."""
        alone = type(self._bound)()
        alone.bind(binding, self)
        return [key for key in routing_keys if alone.route(key, headers)]

    @property
    def reads_key(self) -> bool:
        """Whether a route depends on the routing key, with the current bindings."""
        return self._type.reads_key

    @property
    def is_large(self) -> bool:
        """Whether to use `routes` even for one key; see broker/exchange_types."""
        return self._type.is_large

    @property
    def steps(self) -> int:
        """The cost of the last route beyond a look-up, in steps of broker/effort.py."""
        return self._type.steps


class DefaultExchange(Exchange):
    """The exchange without a name: every queue is bound to it by its own name, and bindings cannot be changed."""

    def __init__(self, vhost: str, queues: Mapping[str, Queue]) -> None:
        super().__init__(ExchangeDefinition(vhost, "", "direct", durable=True))
        self._queues = queues

    def apply(self, policy: PolicyRules) -> None:
        """Do nothing: the default exchange has no alternate exchange. RabbitMQ docs/ae."""

    def route(self, routing_key: str, headers: Mapping[str, Any]) -> Mapping[Destination, int]:
        """Return the queue of that name, if there is one. Spec: §3.1.3.1."""
        queue = self._queues.get(routing_key)
        return NOWHERE if queue is None else {queue: 1}

    def routes(self, routing_keys: Collection[str], headers: Mapping[str, Any]) -> Iterator[Mapping[Destination, int]]:
        """Yield the queues of those names."""
        yield {self._queues[key]: 1 for key in self._queues.keys() & routing_keys}

    @property
    def reads_key(self) -> bool:
        """Whether a route depends on the routing key: always."""
        return True
