"""Tells open pages when to ask again, as server-sent events: `changed` soon after something was declared, deleted,
opened or closed, and `tick` every 5 s, as often as numbers are sampled. An event says nothing more than that.

Always true: at most `most` pages follow, and `most_of_user` of one user; all of them share one listener of the broker's
events, which keeps one event; a page is told at most once in `least_s`. A page that may not follow asks every 5 s by
itself, and scripts close the stream while a tab is hidden.

HTML standard, 9.2 (server-sent events).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial

from amqpd.broker.broker import Broker
from amqpd.broker.events import Event
from amqpd.broker.feed import Feed
from amqpd.management.http.access import Access
from amqpd.management.http.answers import EVENT_STREAM, Answer, HttpError
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Route

MOST, MOST_OF_USER = 200, 20
TICK_S, LEAST_S = 5.0, 2.0
LONGEST_S = 3_600.0         # then the browser asks again
RETRY_MS = 5_000


class Live:
    """The pages that follow one broker."""

    def __init__(
        self, *, most: int = MOST, most_of_user: int = MOST_OF_USER, tick_s: float = TICK_S, least_s: float = LEAST_S
    ) -> None:
        self._most = most
        self._most_of_user = most_of_user
        self._tick_s = tick_s
        self._least_s = least_s
        self._users: Counter[str] = Counter()       # who follow, with how many pages
        self._feed: Feed[Event] = Feed(most=1)
        self._feed.on_first = self._has_changed
        self._changed = asyncio.Event()

    def follow(self, request: Request) -> Answer:
        """Return the stream for one page. Raises HttpError: 503 if there are too many."""
        name, broker = request.user.name, request.broker
        if request.method == "HEAD":
            return Answer(media_type=EVENT_STREAM)
        if self._users.total() >= self._most or self._users[name] >= self._most_of_user:
            raise HttpError(503, "unavailable", "too many pages are live already")
        if not self._users:
            broker.events.listen(self._feed, _is_shown)
        self._users[name] += 1
        return Answer(media_type=EVENT_STREAM, stream=self._events(request), on_end=partial(self._leave, broker, name))

    def _leave(self, broker: Broker, name: str) -> None:
        self._users[name] -= 1
        self._users += Counter()        # without those who follow no more
        if not self._users:
            broker.events.leave(self._feed)

    def _has_changed(self) -> None:
        self._feed.take()
        self._changed.set()
        self._changed = asyncio.Event()

    async def _events(self, request: Request) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        now = loop.time()
        end, tick = now + LONGEST_S, now + self._tick_s
        yield b"retry: %d\n\n" % RETRY_MS
        while loop.time() < end:
            changed = self._changed
            await asyncio.sleep(min(self._least_s, max(0.0, tick - loop.time())))
            try:
                async with asyncio.timeout_at(tick):
                    await changed.wait()
            except TimeoutError:
                pass
            try:
                request.authorize()
            except HttpError:       # the user has been deleted
                return
            is_tick = loop.time() >= tick
            if is_tick:
                tick = loop.time() + self._tick_s
            yield b"data: tick\n\n" if is_tick else b"data: changed\n\n"

    def route(self) -> Route:
        """Return the route of the stream."""
        return Route(method="GET", path="/live", handler=self.follow, access=Access.LOGIN, is_stream=True,
                     summary="When to ask for a page again")


def _is_shown(name: str) -> bool:
    """Return whether an event changes what pages show; channels come with their connections."""
    return not name.startswith("channel.")
