"""Small messages, queues and bindings, for tests that build them by hand."""

from __future__ import annotations

from amqpd.broker.definitions import BindingDefinition, QueueDefinition
from amqpd.message import Message, MessageProperties, Route, pack_content

FRAME_MAX = 131_072
TRANSIENT, PERSISTENT = MessageProperties(), MessageProperties(persistent=True)
NO_PROPERTIES = b"\x00\x00"
PERSISTENT_PROPERTIES = b"\x10\x00\x02"     # flags, then delivery mode 2


def short_string(text: str) -> bytes:
    """A short string, made without amqpd."""
    return bytes((len(text.encode()),)) + text.encode()


def route(
    routing_key: str = "orders", exchange: str = "", *, channel: int = 1, frame_max: int = FRAME_MAX
) -> Route:
    """Where a message was published."""
    return Route(exchange, routing_key, short_string(exchange) + short_string(routing_key), channel, frame_max)


def message(number: int, body: bytes = b"hello", *, persistent: bool = False, where: Route | None = None) -> Message:
    """A message with this number."""
    where = where or route()
    properties = PERSISTENT_PROPERTIES if persistent else NO_PROPERTIES
    content = pack_content(where.channel, where.frame_max, properties, body)
    return Message(number, where, PERSISTENT if persistent else TRANSIENT, content, len(body))


def messages(*numbers: int, persistent: bool = False) -> list[Message]:
    """Messages with these numbers."""
    return [message(number, persistent=persistent) for number in numbers]


def queue_definition(name: str = "orders", *, number: int = 1, durable: bool = False) -> QueueDefinition:
    """A queue of the vhost `/`."""
    return QueueDefinition(number, "/", name, durable=durable)


def binding(source: str, queue: str, routing_key: str = "") -> BindingDefinition:
    """A binding of a queue in the vhost `/`."""
    return BindingDefinition("/", source, "queue", queue, routing_key)
