"""Make histories by hand: a function for each act of a client or broker. Every event takes a millisecond."""

from __future__ import annotations

from typing import Any

from tests.history.events import US, Death, Event, Rules, Type

MOMENT_US = 1_000


class Story:
    """A history that grows. It starts with a broker that is ready."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.published: dict[str, Event] = {}
        self._time = US
        self._names = 0
        self.start()

    def note(self, type: Type, act: str, **what: Any) -> Event:
        """One more event, a moment later."""
        self._time += MOMENT_US
        event = Event(time=self._time, type=type, act=act, **what)
        self.events.append(event)
        return event

    def wait(self, seconds: float) -> None:
        """Nothing happens for a while."""
        self._time += int(seconds * US)

    @property
    def now(self) -> int:
        """The time of the last event."""
        return self._time

    # The broker

    def start(self, shift_ms: int = 0) -> None:
        """A broker is started and is ready."""
        self.note("invoke", "start", shift_ms=shift_ms)
        self.note("ok", "start")

    def kill(self) -> None:
        """The end of it."""
        self.note("invoke", "kill")

    def restart(self, shift_ms: int = 0) -> None:
        """It is killed and started again."""
        self.kill()
        self.start(shift_ms)

    def stop(self) -> None:
        """It is stopped, and has written everything."""
        self.note("invoke", "stop")
        self.note("ok", "stop")

    def connect(self, **what: Any) -> Talk:
        """A new connection with a channel in confirm mode."""
        self._names += 1
        return Talk(self, f"client {self._names}", **what)

    def declare(self, name: str, *dead_to: str, **rules: Any) -> None:
        """A queue is declared; the queues that its dead go to, and its rules."""
        for type in ("invoke", "ok"):
            self.note(type, "declare", kind="queue", name=name, rules=Rules(**rules), dead_to=dead_to)

    def drain(self, queue: str) -> None:
        """The queue is emptied."""
        for type in ("invoke", "ok"):
            self.note(type, "drain", queue=queue)


class Talk:
    """One channel of a client."""

    def __init__(self, story: Story, name: str, **what: Any) -> None:
        self.key: dict[str, Any] = {"connection": name, "channel": 1}
        self.published = 0
        self.tag = 0
        self._story = story
        self._tags: dict[str, int] = {}
        story.note("ok", "connection", connection=name, **what)
        story.note("ok", "channel", **self.key)
        story.note("ok", "select", kind="confirm", **self.key)

    def note(self, type: Type, act: str, **what: Any) -> Event:
        """One more event on this channel."""
        return self._story.note(type, act, **self.key, **what)

    # Publishing

    def publish(self, *to: str, confirmed: bool = True, **what: Any) -> str:
        """A message for these queues, and its confirm."""
        self.published += 1
        id = f"{self.key['connection']}/1/{self.published}"
        facts = {"sha": f"body of {id}", "head": f"head of {id}"} | what
        self._story.published[id] = self.note("invoke", "publish", id=id, to=to, **facts)
        if confirmed:
            self.confirm(self.published)
        return id

    def confirm(self, tag: int, **what: Any) -> None:
        """An ack of the broker."""
        self.note("ok", "publish", tag=tag, **what)

    def refuse(self, tag: int) -> None:
        """A nack of the broker."""
        self.note("fail", "publish", tag=tag)

    # Consuming

    def consume(self, queue: str, **what: Any) -> None:
        """A consumer, named as the queue."""
        for type in ("invoke", "ok"):
            self.note(type, "consume", queue=queue, consumer=queue, **what)

    def deliver(self, id: str, queue: str, *deaths: Death, **what: Any) -> None:
        """A delivery to the queue's consumer, as it was published."""
        self.tag += 1
        self._tags[id] = self.tag
        published = self._story.published.get(id)
        facts = {"tag": self.tag, "deaths": deaths} | (
            {"sha": published.sha, "head": published.head} if published else {}) | what
        self.note("info", "deliver", id=id, queue=queue, consumer=queue, **facts)

    def ack(self, id: str, **what: Any) -> None:
        """An ack of the last delivery of a message."""
        self.note("invoke", "ack", tag=self._tags[id], **what)

    def nack(self, id: str, *, requeue: bool = False) -> None:
        """A nack of the last delivery of a message."""
        self.note("invoke", "nack", tag=self._tags[id], requeue=requeue)

    def take(self, id: str, queue: str, *deaths: Death, **what: Any) -> None:
        """A delivery and its ack."""
        self.deliver(id, queue, *deaths, **what)
        self.ack(id)

    def ask(self) -> None:
        """Some request and its answer, by which the broker has read all before."""
        for type in ("invoke", "ok"):
            self.note(type, "ask")

    def close(self) -> None:
        """The channel is closed by the client."""
        for type in ("invoke", "ok"):
            self.note(type, "channel")

    def lose(self) -> None:
        """The connection ends by itself."""
        self.note("fail", "connection")
