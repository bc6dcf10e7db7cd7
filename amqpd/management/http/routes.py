"""The table of routes, and how a path finds its route.

A path is matched segment by segment before it is decoded, since a name may have a slash: the vhost `/` is `%2F`. A
fixed segment goes before a name, so `/queues/detailed` is not the vhost `detailed`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from amqpd.management.http.access import Access
from amqpd.management.http.request import Request

FORM = "application/x-www-form-urlencoded"

Handler = Callable[[Request], Any | Awaitable[Any]]


class Query(NamedTuple):
    """A parameter of a query string, and what it does."""

    name: str
    summary: str


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A method of a path. `path` has names in braces; `{vhost}` is a vhost, which must exist.

    `handler` returns an `Answer`, or what is sent as JSON with status 200. `body` is the type of the request's body;
    bytes may be an uploaded file, and `takes_forms` is for a form. `most_body` is how many bytes a body may have.
    `is_list` tells that the answer is a list, which can be paged, sorted and filtered. `is_stream` tells that the
    answer is a stream of server-sent events, `is_text` that it is plain text. Changes are in the audit log, unless they
    are not `is_audited`.
    """

    method: str
    path: str
    handler: Handler
    access: Access
    summary: str
    body: type[msgspec.Struct] | type[bytes] | None = None
    most_body: int = 1 << 20
    query: tuple[Query, ...] = ()
    is_list: bool = False
    takes_forms: bool = False
    is_stream: bool = False
    is_audited: bool = True
    is_text: bool = False

    @property
    def forms(self) -> tuple[str, ...]:
        """The types of bodies that it takes besides JSON."""
        return ("multipart/form-data",) if self.body is bytes else (FORM,) if self.takes_forms else ()

    @property
    def is_change(self) -> bool:
        """Whether the route may change something, so that other sites' pages must not cause it."""
        return self.method not in ("GET", "HEAD")


class Match(NamedTuple):
    """What a path leads to: its routes by method, and the names in it, decoded."""

    routes: Mapping[str, Route]
    names: Mapping[str, str]


class _Node:
    """The routes that go on from one segment."""

    def __init__(self) -> None:
        self.fixed: dict[str, _Node] = {}
        self.named: dict[str, _Node] = {}       # by the name in braces
        self.routes: dict[str, Route] = {}


class Routes:
    """All routes. Raises ValueError for two of the same method and path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.all: Sequence[Route] = tuple(routes)
        self._root = _Node()
        for route in self.all:
            self._add(route)

    def _add(self, route: Route) -> None:
        node = self._root
        for segment in route.path.strip("/").split("/"):
            if segment.startswith("{"):
                node = node.named.setdefault(segment.strip("{}"), _Node())
            else:
                node = node.fixed.setdefault(segment, _Node())
        if route.method in node.routes:
            raise ValueError(f"two routes for {route.method} {route.path}")
        node.routes[route.method] = route

    def find(self, raw_path: str) -> Match | None:
        """Return what a path leads to, or None. A slash at its end does not matter."""
        segments = raw_path.removeprefix("/").removesuffix("/").split("/")
        return next(_walk(self._root, segments, {}), None)


def _walk(node: _Node, segments: list[str], names: dict[str, str]) -> Iterator[Match]:
    if not segments:
        if node.routes:
            yield Match(node.routes, names)
        return
    first, *rest = segments
    if (fixed := node.fixed.get(first)) is not None:
        yield from _walk(fixed, rest, names)
    for name, named in node.named.items():
        yield from _walk(named, rest, names | {name: unquote(first)})
