"""A client that writes all it sends and receives as events of a history.

A request is noted before it is sent, an answer after it was read. A message is identified by connection, number of the
channel's opening, and sequence: this is its message id, and the beginning of its body if that is long enough.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from typing import Any

from pamqp.base import Frame
from pamqp.commands import Basic, Channel, Confirm, Exchange, Queue
from pamqp.header import ContentHeader

from tests.crash.crash_client import Arrived, Client, Refused, exists, pack_content
from tests.history.events import Death, Event, History, Rules, Type

PERSISTENT, TRANSIENT = 2, 1
TAKEN_WITHIN_S = 20.0
DELIVERY_COUNT = "x-delivery-count"
OF_THE_DEAD = ("x-death", *(
    f"x-{end}-death-{what}" for end in ("first", "last") for what in ("queue", "reason", "exchange")))


class Witness:
    """A connection with one channel in confirm mode. Raises what its `client` does, which is open and all its own."""

    def __init__(self, history: History, name: str, client: Client, *, heartbeat_s: int = 0) -> None:
        self.name = name
        self.client = client
        self.unconfirmed: dict[int, None] = {}
        self._history = history
        self._heard_before: deque[Event] = deque()      # while an answer was awaited
        self._openings = 0
        self._sequence = 0
        self._subscriptions: dict[str, str] = {}        # consumer, queue
        history.note("ok", "connection", connection=name, heartbeat_s=float(heartbeat_s))
        try:
            self._opened()
        except BaseException:
            self.client.drop()
            raise

    @classmethod
    def connect(
        cls, history: History, name: str, port: int, *, heartbeat_s: int = 0, timeout_s: float = 10
    ) -> Witness:
        """A new connection to a broker on this port."""
        client = Client(port, heartbeat_s=heartbeat_s, timeout_s=timeout_s)
        return cls(history, name, client, heartbeat_s=heartbeat_s)

    def note(self, type: Type, act: str, **what: object) -> Event:
        """One more event of this channel."""
        return self._history.note(type, act, connection=self.name, channel=self._openings, **what)

    def lost(self, error: Exception) -> None:
        """The connection has ended by itself."""
        code = error.code if isinstance(error, Refused) else 0
        self._history.note("fail", "connection", connection=self.name, code=code)
        self.client.drop()

    def _opened(self) -> None:
        self._openings += 1
        self._sequence = 0
        self._heard_before.clear()
        self.unconfirmed.clear()
        self._subscriptions.clear()
        self.note("ok", "channel")
        self.client.call(Confirm.Select())
        self.note("ok", "select", kind="confirm")

    def close_channel(self) -> None:
        """Close the channel, read what was under way, and open another one."""
        self.note("invoke", "channel")
        self.client.call(Channel.Close(200, "", 0, 0))
        for arrived in self.client.left():
            self._heard(arrived)
        self.note("ok", "channel")
        self.client.open_channel()
        self._opened()

    def close(self) -> None:
        """Close the connection."""
        self._history.note("invoke", "connection", connection=self.name)
        if self.client.close():
            self._history.note("ok", "connection", connection=self.name)

    # Asking

    def change(self, act: str, method: Frame, kind: str, name: str, **what: object) -> None:
        """Declare, bind or delete something durable, and wait for the answer."""
        self.note("invoke", act, kind=kind, name=name, **what)
        self.client.call(method)
        self.note("ok", act, kind=kind, name=name, **what)

    def sees(self, kind: str, name: str) -> bool:
        """Whether there is such a queue or exchange."""
        declare = Queue.Declare if kind == "queue" else Exchange.Declare
        if exists(self.client, declare(0, name, passive=True)):
            self.note("ok", "see", kind=kind, name=name)
            return True
        self.note("fail", "see", kind=kind, name=name)
        self.note("fail", "channel")
        self._opened()
        return False

    def ask(self) -> None:
        """Have the broker read all that was sent before."""
        self.note("invoke", "ask")
        self.client.call(Basic.Qos(0, 0))
        self.note("ok", "ask")

    def count(self, queue: str, *, is_at_rest: bool) -> int:
        """How many messages are ready in a queue."""
        count: int = self.client.call(Queue.Declare(0, queue, passive=True)).message_count
        self.note("ok", "count", queue=queue, count=count, is_at_rest=is_at_rest)
        return count

    # Publishing

    def publish(
        self, exchange: str, routing_key: str, to: tuple[str, ...], body: bytes = b"", *, persistent: bool = True,
        priority: int | None = None, ttl_ms: int | None = None, mandatory: bool = False,
    ) -> str:
        """Send a message that has to reach these queues; its id."""
        self._sequence += 1
        id = f"{self.name}/{self._openings}/{self._sequence}"
        body = id.encode() + body[len(id):] if len(body) > len(id) else body
        properties = Basic.Properties(
            message_id=id, delivery_mode=PERSISTENT if persistent else TRANSIENT, priority=priority,
            content_type="application/octet-stream", expiration=None if ttl_ms is None else str(ttl_ms),
            headers={"size": len(body), "table": {"deep": [1, None, True, "ä"]}})
        content, header = pack_content(properties, body)
        bare = ""
        if ttl_ms is not None:
            properties.expiration = None
            bare = digest(ContentHeader(0, len(body), properties).marshal())
        self.unconfirmed[self._sequence] = None
        self.note("invoke", "publish", id=id, name=exchange, to=to, sha=digest(body), head=digest(header), bare=bare,
                  persistent=persistent, priority=priority or 0, ttl_ms=ttl_ms, mandatory=mandatory)
        self.client.publish(exchange, routing_key, content, mandatory=mandatory)
        return id

    # Consuming

    def consume(self, queue: str, *, prefetch: int = 0) -> str:
        """Become a consumer of a queue; its name."""
        consumer = f"{queue} of {self.name}"
        self._subscriptions[consumer] = queue
        self.note("invoke", "consume", queue=queue, consumer=consumer, prefetch=prefetch)
        self.client.call(Basic.Qos(0, prefetch))
        self.client.call(Basic.Consume(0, queue, consumer))
        self.note("ok", "consume", queue=queue, consumer=consumer)
        return consumer

    def cancel(self, consumer: str) -> None:
        """Be none any more."""
        self.note("invoke", "cancel", consumer=consumer)
        self.client.call(Basic.Cancel(consumer))
        self.note("ok", "cancel", consumer=consumer)

    def get(self, queue: str) -> Event | None:
        """Get one message, which is unacked then; None if the queue is empty."""
        self.note("invoke", "get", queue=queue)
        arrived = self.client.get(queue)
        self._heard_before.extend(self._heard(one) for one in self.client.left())
        if arrived is None:
            self.note("fail", "get", queue=queue)
            return None
        return self._delivered("ok", "get", queue, "", arrived)

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        """Answer with an ack."""
        self.note("invoke", "ack", tag=tag, multiple=multiple)
        self.client.send(Basic.Ack(tag, multiple))

    def nack(self, tag: int, *, multiple: bool = False, requeue: bool = False) -> None:
        """Answer with a nack."""
        self.note("invoke", "nack", tag=tag, multiple=multiple, requeue=requeue)
        self.client.send(Basic.Nack(tag, multiple, requeue))

    def reject(self, tag: int, *, requeue: bool = False) -> None:
        """Answer with a reject."""
        self.note("invoke", "reject", tag=tag, requeue=requeue)
        self.client.send(Basic.Reject(tag, requeue))

    # Everything

    def take_all(
        self, queue: str, *, settles: bool = False, is_mortal: bool = False, within_s: float = TAKEN_WITHIN_S
    ) -> None:
        """Get every message of a queue while no other client works; requeue all, unless they are to be settled.

        With `is_mortal` some may expire meanwhile. Afterwards a new channel is open.
        """
        expected = self.count(queue, is_at_rest=True)
        self.consume(queue)
        last, taken = 0, 0
        deadline = time.monotonic() + within_s
        while taken < expected and time.monotonic() < deadline:
            event = self.take(0.1 if is_mortal and taken else 1)     # the first one may wait for a commit
            if not event and is_mortal and self.count(queue, is_at_rest=False):
                event = self.take(1)        # so may the next ones
            if event:
                last, taken = event.tag, taken + 1
            elif is_mortal:
                break
        while event := self.take(0.02):
            last = event.tag
        if settles and last:
            self.ack(last, multiple=True)
            self.ask()
        self.close_channel()

    def drain(self, queue: str, *, is_mortal: bool = False, within_s: float = TAKEN_WITHIN_S) -> None:
        """Empty a queue for good."""
        self._history.note("invoke", "drain", queue=queue)
        self.take_all(queue, settles=True, is_mortal=is_mortal, within_s=within_s)
        if not self.count(queue, is_at_rest=False):
            self._history.note("ok", "drain", queue=queue)

    # Hearing

    def take(self, timeout_s: float = 0.0) -> Event | None:
        """What comes next, if it comes in time."""
        if self._heard_before:
            return self._heard_before.popleft()
        arrived = self.client.take(timeout_s)
        return self._heard(arrived) if arrived else None

    def _heard(self, arrived: Arrived) -> Event:
        method = arrived.method
        if isinstance(method, Basic.Deliver):
            consumer = method.consumer_tag or ""
            return self._delivered("info", "deliver", self._subscriptions[consumer], consumer, arrived)
        if isinstance(method, Basic.Return):
            return self.note("info", "return", id=content_of(arrived)["id"])
        assert isinstance(method, (Basic.Ack, Basic.Nack)), f"nobody expected {method!r}"
        tag, multiple = method.delivery_tag or 0, bool(method.multiple)
        for seq in [seq for seq in self.unconfirmed if seq <= tag] if multiple else [tag]:
            self.unconfirmed.pop(seq, None)
        return self.note("ok" if isinstance(method, Basic.Ack) else "fail", "publish", tag=tag, multiple=multiple)

    def _delivered(self, type: Type, act: str, queue: str, consumer: str, arrived: Arrived) -> Event:
        method = arrived.method
        return self.note(type, act, queue=queue, consumer=consumer, tag=method.delivery_tag,
                         redelivered=bool(method.redelivered), **content_of(arrived))


def digest(octets: bytes) -> str:
    """What stands for octets."""
    return hashlib.sha256(octets).hexdigest()


def content_of(arrived: Arrived) -> dict[str, Any]:
    """Return the id of a message, and digests of its content without what a broker adds."""
    content_header, octets = ContentHeader(), arrived.header
    content_header.unmarshal(octets)
    properties = content_header.properties
    headers: Any = properties.headers or {}
    deaths = tuple(Death(death["queue"], death["reason"], death["count"]) for death in headers.get("x-death", ()))
    added = [name for name in (DELIVERY_COUNT, *OF_THE_DEAD) if headers.pop(name, None) is not None]
    if added:
        octets = content_header.marshal()
    return {"id": properties.message_id or "", "deaths": deaths, "head": digest(octets), "sha": digest(arrived.body)}


def rules_of(method: Queue.Declare) -> Rules:
    """Return the rules of a queue from its declaration."""
    arguments: dict[str, Any] = method.arguments or {}
    return Rules(
        durable=method.durable, exclusive=method.exclusive, ttl_ms=arguments.get("x-message-ttl"),
        max_length=arguments.get("x-max-length"), overflow=arguments.get("x-overflow", "drop-head"),
        max_priority=arguments.get("x-max-priority", 0), delivery_limit=arguments.get("x-delivery-limit"),
        single_active=arguments.get("x-single-active-consumer", False))
