"""Read messages from rows of their own and from message blocks, and check their checksums."""

from __future__ import annotations

from binascii import crc32
from collections.abc import Callable, Iterable, Sequence

from amqpd.message import (
    BODY_OFFSET_IN_HEADER_FRAME,
    FRAME_OVERHEAD,
    Message,
    MessageProperties,
    Route,
    StoredBody,
    StoredMessage,
    frames_around,
    pack_content,
    route_of,
)
from amqpd.store.rows.message_blocks import SPAN, are_sizes_of, iter_heads
from amqpd.store.rows.message_rows import names_of

CHANNEL = 1
FRAME_MAX = 131_072
_ONE_FRAME = FRAME_MAX - FRAME_OVERHEAD    # bytes of a body that are not cut
REMEMBERED = 10_000         # different routes, and different properties

Parts = tuple[int, list[int]]        # the number of a body, and the checksums of its parts
# Reads the content of a message with a large body, by its number, properties, the size of the body, the checksum before
# it and the whole one. Returns also which parts the body is in, if it is in parts. Raises ValueError for damage.
ReadLarge = Callable[[int, bytes, int, int, int], "tuple[bytes, Parts | None]"]
# Number, names, properties, checksum, and the body, or its size if it is to be read by `ReadLarge`.
Row = tuple[int, bytes, bytes, bytes, int, "bytes | int"]


class Unreadable(ValueError):
    """The properties of one message cannot be read, for any reason."""


class MessageReader:
    """Reads messages. It caches the routes and properties that many messages share, up to `remembered` of each.

    `hold` is called for each message whose body is in parts, with size, number and checksums of the body; without it,
    such a message is like any other.
    """

    def __init__(
        self, read_properties: Callable[[bytes], MessageProperties], remembered: int = REMEMBERED,
        hold: Callable[[int, int, Sequence[int]], StoredBody] | None = None,
    ) -> None:
        self._hold = hold
        self._read_properties = read_properties
        self._remembered = remembered
        self._routes: dict[tuple[bytes, bytes], tuple[Route, int]] = {}
        self._block_routes: dict[bytes, Route] = {}
        self._facts: dict[bytes, MessageProperties] = {}

    def read_rows(
        self, rows: Iterable[Row], read_large: ReadLarge, fatal: type[Exception]
    ) -> tuple[list[Message], list[int]]:
        """Return the messages of rows of their own, and the numbers of damaged ones.

        `read_large` reads a large body. An error of the engine, which is `fatal`, is no damage of one message.
        """
        # Most rows are like the one before them, but for number and body: what follows from the rest is kept.
        messages: list[Message] = []
        damaged: list[int] = []
        last_exchange = last_key = last_properties = None
        last_size = -1
        for number, exchange, routing_key, properties, checksum, body in rows:
            try:
                if properties != last_properties or routing_key != last_key or exchange != last_exchange:
                    last_properties = None      # should this fail half way
                    route, names_sum = self._routes.get((exchange, routing_key)) or self._route(exchange, routing_key)
                    sum_before = crc32(properties, names_sum)
                    last_exchange, last_key, last_properties, last_size = exchange, routing_key, properties, -1
                if isinstance(body, int):
                    content, parts = read_large(number, properties, body, sum_before, checksum)
                    facts = self.facts(properties)
                    messages.append(
                        Message(number, route, facts, content, body) if parts is None or self._hold is None else
                        StoredMessage(number, route, facts, content, body, stored_body=self._hold(body, *parts)))
                    continue
                if crc32(body, sum_before) != checksum:
                    damaged.append(number)
                    continue
                size = len(body)
                if size != last_size:
                    last_size = -1
                    facts = self._facts.get(properties) or self.facts(properties)
                    before, after = frames_around(CHANNEL, properties, size)
                    last_size = size
                content = b"".join((before, body, after)) if size <= _ONE_FRAME else pack_content(
                    CHANNEL, FRAME_MAX, properties, body)
                messages.append(Message(number, route, facts, content, size))
            except (MemoryError, fatal):
                raise
            except Exception:       # a flipped bit can make another type of a value, or no text of a name
                damaged.append(number)
        return messages, damaged

    def read_block(self, first: int, heads: bytes, contents: bytes, bits: int) -> list[Message]:
        """Return the messages with these bits of the block with this first number, without damaged ones."""
        messages: list[Message] = []
        view = memoryview(contents)
        wanted = f"{bits:b}"[::-1].ljust(SPAN, "0")
        last_before = None
        for place, start, exchange_size, key_size, properties_size, size, checksum in iter_heads(heads):
            if place >= SPAN or wanted[place] == "0":
                continue
            names_end = start + exchange_size + key_size + 2
            properties_end = names_end + properties_size + BODY_OFFSET_IN_HEADER_FRAME
            end = properties_end + (1 + FRAME_OVERHEAD + size if size else 1)
            try:
                if crc32(view[start:end], place) != checksum:
                    continue
                before = contents[start:properties_end]
                if before != last_before:       # most are as the one before them
                    if not are_sizes_of(before, exchange_size, key_size, properties_size, size):
                        continue
                    route, facts = self._before(before, properties_size)
                    last_before, names_size = before, names_end - start
                messages.append(Message(first + place, route, facts, contents[start + names_size : end], size))
            except MemoryError:
                raise
            except Exception:       # of this message alone
                continue
        return messages

    def _before(self, packed: bytes, properties_size: int) -> tuple[Route, MessageProperties]:
        """Return route, header frame and properties of a message in a block."""
        header = len(packed) - properties_size - BODY_OFFSET_IN_HEADER_FRAME
        key = packed[: header + 3]      # with the channel
        route = self._block_routes.get(key)
        if route is None:
            route = route_of(packed[:header], int.from_bytes(key[-2:], "big"), FRAME_MAX)
            if len(self._block_routes) >= self._remembered:
                self._block_routes.clear()
            self._block_routes[key] = route
        return route, self.facts(packed[len(packed) - properties_size :])

    def _route(self, exchange: bytes, routing_key: bytes) -> tuple[Route, int]:
        """Return the route of these names and their checksum. Raises TypeError, ValueError for invalid names."""
        names = names_of(exchange, routing_key)
        route = route_of(names, CHANNEL, FRAME_MAX)
        if len(self._routes) >= self._remembered:
            self._routes.clear()
        self._routes[exchange, routing_key] = found = route, crc32(names)
        return found

    def facts(self, properties: bytes) -> MessageProperties:
        """Return what the broker reads from these properties. Raises Unreadable."""
        known = self._facts.get(properties)
        if known is None:
            try:
                known = self._read_properties(properties)
            except MemoryError:
                raise
            except Exception as error:
                raise Unreadable(f"{type(error).__name__}: {error}") from error
            if len(self._facts) >= self._remembered:
                self._facts.clear()
            self._facts[properties] = known
        return known

    def can_read(self, exchange: bytes, routing_key: bytes, properties: bytes) -> bool:
        """Return whether a message with these names and properties can be read."""
        try:
            self._route(exchange, routing_key)
            self.facts(properties)
        except (TypeError, ValueError):
            return False
        return True
