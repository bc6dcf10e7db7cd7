"""Typed calls on one channel.

Each call `x` sends a method and waits for the answer; `send_x` only sends. Deliveries, returns, confirms and cancels
that arrive in the meantime are kept, in order, for `deliveries`, `returns`, `confirms` and `cancels`.
"""
from __future__ import annotations

import re
from collections import deque
from typing import Any, NamedTuple, Protocol

from conformance.fields import Properties, bits, content_header, header_properties, pack, unpack
from conformance.methods import (
    BASIC_ACK, BASIC_CANCEL, BASIC_CANCEL_OK, BASIC_CONSUME, BASIC_CONSUME_OK, BASIC_DELIVER, BASIC_GET,
    BASIC_GET_EMPTY, BASIC_GET_OK, BASIC_NACK, BASIC_PUBLISH, BASIC_QOS, BASIC_QOS_OK, BASIC_RECOVER,
    BASIC_RECOVER_ASYNC, BASIC_RECOVER_OK, BASIC_REJECT, BASIC_RETURN, CHANNEL_CLOSE, CHANNEL_CLOSE_OK, CHANNEL_FLOW,
    CHANNEL_FLOW_OK, CHANNEL_OPEN, CHANNEL_OPEN_OK, CONFIRM_SELECT, CONFIRM_SELECT_OK, EXCHANGE_BIND, EXCHANGE_BIND_OK,
    EXCHANGE_DECLARE, EXCHANGE_DECLARE_OK, EXCHANGE_DELETE, EXCHANGE_DELETE_OK, EXCHANGE_UNBIND, EXCHANGE_UNBIND_OK,
    QUEUE_BIND, QUEUE_BIND_OK, QUEUE_DECLARE, QUEUE_DECLARE_OK, QUEUE_DELETE, QUEUE_DELETE_OK, QUEUE_PURGE,
    QUEUE_PURGE_OK, QUEUE_UNBIND, QUEUE_UNBIND_OK, TX_COMMIT, TX_COMMIT_OK, TX_ROLLBACK, TX_ROLLBACK_OK, TX_SELECT,
    TX_SELECT_OK)


class Got(NamedTuple):
    """What basic.get brought; `messages` is how many ready ones are left."""

    tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    messages: int
    properties: Properties
    header: bytes
    body: bytes


class Delivery(NamedTuple):
    """A basic.deliver with its content."""

    tag: int
    consumer_tag: str
    redelivered: bool
    exchange: str
    routing_key: str
    properties: Properties
    header: bytes
    body: bytes


class Return(NamedTuple):
    """A basic.return with its content."""

    code: int
    text: str
    exchange: str
    routing_key: str
    properties: Properties
    header: bytes
    body: bytes


class Confirm(NamedTuple):
    """The broker's answer to one publish; `acked` is false for a nack."""

    tag: int
    acked: bool


class Connection(Protocol):
    """What a channel needs of its client."""

    def send_method(self, channel: int, class_id: int, method_id: int, args: bytes = b"") -> None: ...
    def send_content(self, channel: int, header: bytes, body: bytes) -> None: ...
    def await_method(self, channel: int, wanted: Any) -> Any: ...
    def sync(self, channel: int) -> list: ...
    def take_kept(self, channel: int, ids: tuple[int, int] | None = None) -> list: ...
    def channel(self, number: int | None = None) -> Channel: ...
    def expect_channel_close(self, channel: int, code: int, text: str | re.Pattern, class_id: int | None = None,
                             method_id: int | None = None) -> None: ...


class Channel:
    """One channel of a client."""

    def __init__(self, client: Connection, number: int) -> None:
        self.client = client
        self.number = number
        self._published = 0
        self._unconfirmed: dict[int, None] | None = None
        self._confirms: deque[Confirm] = deque()

    def send(self, ids: tuple[int, int], layout: str = "", *values: Any) -> None:
        """Send a method with arguments in this layout."""
        self.client.send_method(self.number, *ids, pack(layout, *values))

    def answer(self, ids: tuple[int, int], layout: str = "") -> tuple:
        """Await this answer and return its arguments."""
        return self.client.await_method(self.number, [ids]).decode(layout)

    # The channel itself

    def open(self) -> "Channel":
        """Open it, again after a close."""
        self.send(CHANNEL_OPEN, "s", "")
        self.answer(CHANNEL_OPEN_OK, "L")
        self._published, self._unconfirmed = 0, None
        self._confirms.clear()
        return self

    def close(self) -> None:
        """Close it; unanswered deliveries are requeued."""
        self.send_close()
        self.answer(CHANNEL_CLOSE_OK)

    def send_close(self) -> None:
        """Ask for the close."""
        self.send(CHANNEL_CLOSE, "2s22", 200, "bye", 0, 0)

    def flow(self, active: bool) -> bool:
        """Ask to start or stop deliveries; returns what flow-ok repeats."""
        self.send_flow(active)
        return bool(self.answer(CHANNEL_FLOW_OK, "o")[0])

    def send_flow(self, active: bool) -> None:
        """Send channel.flow."""
        self.send(CHANNEL_FLOW, "o", bits(active))

    def sync(self) -> list:
        """Make a round trip; return the methods that arrived on this channel before it and were not read."""
        return self.client.sync(self.number)

    def fails(self, code: int, text: str | re.Pattern, class_id: int | None = None,
              method_id: int | None = None) -> None:
        """Expect that the broker closes this channel for this reason, and answer close-ok."""
        self.client.expect_channel_close(self.number, code, text, class_id, method_id)

    # Exchanges

    def declare_exchange(self, name: str, type: str = "direct", *, nowait: bool = False, **flags: Any) -> None:
        """Declare; flags as in `send_declare_exchange`."""
        self.send_declare_exchange(name, type, nowait=nowait, **flags)
        if not nowait:
            self.answer(EXCHANGE_DECLARE_OK)

    def send_declare_exchange(self, name: str, type: str = "direct", *, passive: bool = False, durable: bool = False,
                              auto_delete: bool = False, internal: bool = False, nowait: bool = False,
                              arguments: Any = ()) -> None:
        """Send exchange.declare."""
        flags = bits(passive, durable, auto_delete, internal, nowait)
        self.send(EXCHANGE_DECLARE, "2ssoT", 0, name, type, flags, arguments)

    def delete_exchange(self, name: str, if_unused: bool = False, *, nowait: bool = False) -> None:
        """Delete; a missing one is fine."""
        self.send_delete_exchange(name, if_unused, nowait=nowait)
        if not nowait:
            self.answer(EXCHANGE_DELETE_OK)

    def send_delete_exchange(self, name: str, if_unused: bool = False, *, nowait: bool = False) -> None:
        """Send exchange.delete."""
        self.send(EXCHANGE_DELETE, "2so", 0, name, bits(if_unused, nowait))

    def bind_exchange(self, destination: str, source: str, key: str = "", arguments: Any = (), *,
                      nowait: bool = False) -> None:
        """Let `destination` take part in what `source` routes."""
        self.send_bind_exchange(destination, source, key, arguments, nowait=nowait)
        if not nowait:
            self.answer(EXCHANGE_BIND_OK)

    def send_bind_exchange(self, destination: str, source: str, key: str = "", arguments: Any = (), *,
                           nowait: bool = False) -> None:
        """Send exchange.bind."""
        self.send(EXCHANGE_BIND, "2sssoT", 0, destination, source, key, bits(nowait), arguments)

    def unbind_exchange(self, destination: str, source: str, key: str = "", arguments: Any = (), *,
                        nowait: bool = False) -> None:
        """Undo `bind_exchange`."""
        self.send_unbind_exchange(destination, source, key, arguments, nowait=nowait)
        if not nowait:
            self.answer(EXCHANGE_UNBIND_OK)

    def send_unbind_exchange(self, destination: str, source: str, key: str = "", arguments: Any = (), *,
                             nowait: bool = False) -> None:
        """Send exchange.unbind."""
        self.send(EXCHANGE_UNBIND, "2sssoT", 0, destination, source, key, bits(nowait), arguments)

    # Queues

    def declare_queue(self, name: str = "", *, nowait: bool = False, **flags: Any) -> tuple[str, int, int] | None:
        """Declare; returns name, ready messages, consumers. Flags as in `send_declare_queue`."""
        self.send_declare_queue(name, nowait=nowait, **flags)
        return None if nowait else self.answer(QUEUE_DECLARE_OK, "s44")

    def send_declare_queue(self, name: str = "", *, passive: bool = False, durable: bool = False,
                           exclusive: bool = False, auto_delete: bool = False, nowait: bool = False,
                           arguments: Any = ()) -> None:
        """Send queue.declare."""
        flags = bits(passive, durable, exclusive, auto_delete, nowait)
        self.send(QUEUE_DECLARE, "2soT", 0, name, flags, arguments)

    def delete_queue(self, name: str, if_unused: bool = False, if_empty: bool = False, *,
                     nowait: bool = False) -> int | None:
        """Delete; returns how many ready messages went with it."""
        self.send_delete_queue(name, if_unused, if_empty, nowait=nowait)
        return None if nowait else self.answer(QUEUE_DELETE_OK, "4")[0]

    def send_delete_queue(self, name: str, if_unused: bool = False, if_empty: bool = False, *,
                          nowait: bool = False) -> None:
        """Send queue.delete."""
        self.send(QUEUE_DELETE, "2so", 0, name, bits(if_unused, if_empty, nowait))

    def purge(self, name: str, *, nowait: bool = False) -> int | None:
        """Remove the ready messages; returns how many."""
        self.send_purge(name, nowait=nowait)
        return None if nowait else self.answer(QUEUE_PURGE_OK, "4")[0]

    def send_purge(self, name: str, *, nowait: bool = False) -> None:
        """Send queue.purge."""
        self.send(QUEUE_PURGE, "2so", 0, name, bits(nowait))

    def bind_queue(self, queue: str, exchange: str, key: str = "", arguments: Any = (), *,
                   nowait: bool = False) -> None:
        """Bind."""
        self.send_bind_queue(queue, exchange, key, arguments, nowait=nowait)
        if not nowait:
            self.answer(QUEUE_BIND_OK)

    def send_bind_queue(self, queue: str, exchange: str, key: str = "", arguments: Any = (), *,
                        nowait: bool = False) -> None:
        """Send queue.bind."""
        self.send(QUEUE_BIND, "2sssoT", 0, queue, exchange, key, bits(nowait), arguments)

    def unbind_queue(self, queue: str, exchange: str, key: str = "", arguments: Any = ()) -> None:
        """Undo `bind_queue`."""
        self.send_unbind_queue(queue, exchange, key, arguments)
        self.answer(QUEUE_UNBIND_OK)

    def send_unbind_queue(self, queue: str, exchange: str, key: str = "", arguments: Any = ()) -> None:
        """Send queue.unbind, which has no nowait."""
        self.send(QUEUE_UNBIND, "2sssT", 0, queue, exchange, key, arguments)

    # Publishing

    def publish(self, exchange: str, key: str, body: bytes = b"", *, properties: Properties | bytes | None = None,
                mandatory: bool = False, immediate: bool = False) -> None:
        """Publish. Octets as `properties` are a whole content header, like `Delivery.header`."""
        header = properties if isinstance(properties, bytes) else content_header(len(body), properties)
        self.send(BASIC_PUBLISH, "2sso", 0, exchange, key, bits(mandatory, immediate))
        self.client.send_content(self.number, header, body)
        if self._unconfirmed is not None:
            self._published += 1
            self._unconfirmed[self._published] = None

    send_publish = publish

    def returns(self, count: int) -> list[Return]:
        """The next returns, exactly so many."""
        return [decode_return(self.client.await_method(self.number, [BASIC_RETURN])) for _ in range(count)]

    def confirm_select(self, *, nowait: bool = False) -> None:
        """Turn confirms on; from now on publishes are counted."""
        self.send_confirm_select(nowait=nowait)
        if not nowait:
            self.answer(CONFIRM_SELECT_OK)

    def send_confirm_select(self, *, nowait: bool = False) -> None:
        """Send confirm.select."""
        self.send(CONFIRM_SELECT, "o", bits(nowait))
        self._unconfirmed = {} if self._unconfirmed is None else self._unconfirmed

    def confirms(self, count: int) -> list[Confirm]:
        """The next answers to publishes, exactly so many, each publish answered once; `multiple` is taken apart."""
        while len(self._confirms) < count:
            method = self.client.await_method(self.number, [BASIC_ACK, BASIC_NACK])
            tag, flags = method.decode("8o")
            for answered in self._answered(tag, multiple=bool(flags & 1)):
                self._confirms.append(Confirm(answered, method.ids == BASIC_ACK))
        return [self._confirms.popleft() for _ in range(count)]

    def _answered(self, tag: int, *, multiple: bool) -> list[int]:
        tags = [waiting for waiting in self._unconfirmed if waiting <= tag] if multiple else [tag]
        assert tags, f"a confirm up to {tag} answers nothing"
        for answered in tags:
            assert answered in self._unconfirmed, f"publish {answered} was answered twice or never made"
            del self._unconfirmed[answered]
        return tags

    # Transactions

    def tx_select(self) -> None:
        """Make the channel transactional."""
        self.send_tx_select()
        self.answer(TX_SELECT_OK)

    def send_tx_select(self) -> None:
        """Send tx.select."""
        self.send(TX_SELECT)

    def tx_commit(self) -> None:
        """Commit."""
        self.send_tx_commit()
        self.answer(TX_COMMIT_OK)

    def send_tx_commit(self) -> None:
        """Send tx.commit."""
        self.send(TX_COMMIT)

    def tx_rollback(self) -> None:
        """Roll back."""
        self.send_tx_rollback()
        self.answer(TX_ROLLBACK_OK)

    def send_tx_rollback(self) -> None:
        """Send tx.rollback."""
        self.send(TX_ROLLBACK)

    # Receiving

    def get(self, queue: str, no_ack: bool = False) -> Got | None:
        """One message, or None from an empty queue."""
        self.send_get(queue, no_ack)
        method = self.client.await_method(self.number, [BASIC_GET_OK, BASIC_GET_EMPTY])
        if method.ids == BASIC_GET_EMPTY:
            assert method.decode("s") == ("",)
            return None
        tag, redelivered, exchange, key, messages = method.decode("8oss4")
        return Got(tag, bool(redelivered), exchange, key, messages, *content(method))

    def send_get(self, queue: str, no_ack: bool = False) -> None:
        """Send basic.get."""
        self.send(BASIC_GET, "2so", 0, queue, bits(no_ack))

    def consume(self, queue: str, tag: str = "", *, nowait: bool = False, **flags: Any) -> str:
        """Start a consumer; returns its tag. Flags as in `send_consume`."""
        self.send_consume(queue, tag, nowait=nowait, **flags)
        return tag if nowait else self.answer(BASIC_CONSUME_OK, "s")[0]

    def send_consume(self, queue: str, tag: str = "", *, no_local: bool = False, no_ack: bool = False,
                     exclusive: bool = False, nowait: bool = False, arguments: Any = ()) -> None:
        """Send basic.consume."""
        flags = bits(no_local, no_ack, exclusive, nowait)
        self.send(BASIC_CONSUME, "2ssoT", 0, queue, tag, flags, arguments)

    def cancel(self, tag: str, *, nowait: bool = False) -> None:
        """Stop a consumer."""
        self.send_cancel(tag, nowait=nowait)
        if not nowait:
            assert self.answer(BASIC_CANCEL_OK, "s") == (tag,)

    def send_cancel(self, tag: str, *, nowait: bool = False) -> None:
        """Send basic.cancel."""
        self.send(BASIC_CANCEL, "so", tag, bits(nowait))

    def cancels(self, count: int) -> list[str]:
        """The consumer tags of the next basic.cancel the broker sends by itself."""
        return [self.answer(BASIC_CANCEL, "so")[0] for _ in range(count)]

    def deliveries(self, count: int) -> list[Delivery]:
        """The next deliveries, exactly so many."""
        return [decode_delivery(self.client.await_method(self.number, [BASIC_DELIVER])) for _ in range(count)]

    def delivered(self, queue: str) -> list[Delivery]:
        """All that this queue has sent by now: a passive declare asks the queue, a second round trip the channel.

        What another channel did counts if that was answered. Leaves the prefetch count alone, unlike `sync`.
        """
        self.declare_queue(queue, passive=True)
        self.flow(True)
        return [decode_delivery(method) for method in self.client.take_kept(self.number, BASIC_DELIVER)]

    def ack(self, tag: int, multiple: bool = False) -> None:
        """Settle a delivery, or all up to it."""
        self.send(BASIC_ACK, "8o", tag, bits(multiple))

    send_ack = ack

    def nack(self, tag: int, multiple: bool = False, requeue: bool = True) -> None:
        """Refuse a delivery, or all up to it."""
        self.send(BASIC_NACK, "8o", tag, bits(multiple, requeue))

    send_nack = nack

    def reject(self, tag: int, requeue: bool = True) -> None:
        """Refuse one delivery."""
        self.send(BASIC_REJECT, "8o", tag, bits(requeue))

    send_reject = reject

    def recover(self, requeue: bool = True) -> None:
        """Requeue all that is unacked on this channel."""
        self.send_recover(requeue)
        self.answer(BASIC_RECOVER_OK)

    def send_recover(self, requeue: bool = True) -> None:
        """Send basic.recover."""
        self.send(BASIC_RECOVER, "o", bits(requeue))

    def send_recover_async(self, requeue: bool = True) -> None:
        """Send basic.recover-async, which has no answer."""
        self.send(BASIC_RECOVER_ASYNC, "o", bits(requeue))

    def qos(self, count: int, *, size: int = 0, is_global: bool = False) -> None:
        """Set the prefetch count of later consumers, or of the whole channel."""
        self.send_qos(count, size=size, is_global=is_global)
        self.answer(BASIC_QOS_OK)

    def send_qos(self, count: int, *, size: int = 0, is_global: bool = False) -> None:
        """Send basic.qos."""
        self.send(BASIC_QOS, "42o", size, count, bits(is_global))


def content(method: Any) -> tuple[Properties, bytes, bytes]:
    """Properties, raw header and body of a method that carries them."""
    return header_properties(method.header), method.header, method.body


def decode_delivery(method: Any) -> Delivery:
    """A basic.deliver's fields."""
    consumer_tag, tag, redelivered, exchange, key = unpack("s8oss", method.args)
    return Delivery(tag, consumer_tag, bool(redelivered), exchange, key, *content(method))


def decode_return(method: Any) -> Return:
    """A basic.return's fields."""
    return Return(*unpack("2sss", method.args), *content(method))
