"""The topology of a vhost: exchanges, queues, and what leads from one to another, as nodes and arrows.

An arrow stands for all bindings between two ends, for an alternate exchange, or for a dead-letter exchange. The work is
bounded: at most `MOST_LOOKED_AT` bindings are looked at, in slices, and at most `most` nodes are told, with the number
of those that are left out. Nothing here changes the broker.

RabbitMQ docs/e2e, docs/ae, docs/dlx.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Literal, NamedTuple

import msgspec

from amqpd.broker.exchange import Exchange
from amqpd.broker.queue.queue import Queue
from amqpd.broker.vhost import Vhost

MOST_NODES = 500
MOST_ARROWS = 2_000
MOST_LOOKED_AT = 50_000     # bindings in all
MOST_DEPTH = 10
MOST_KEYS = 5               # of one arrow, that are named
MOST_LONE = 200             # queues without an arrow, that are named
LOOKED_AT_ONCE = 1_000      # bindings or queues, between two turns

Kind = Literal["exchange", "queue"]
Way = Literal["binding", "alternate", "dead letters"]


class Key(NamedTuple):
    """What identifies a node."""

    kind: Kind
    name: str


class Node(msgspec.Struct, kw_only=True):
    """An exchange or a queue. `exists` is False for an exchange that is only named. `hidden` counts what it is linked
    with, of what was looked at, and is left out.
    """

    kind: Kind
    name: str
    type: str = ""
    exists: bool = True
    hidden: int = 0


class Arrow(msgspec.Struct, kw_only=True):
    """What leads from one node to another; both are places in the list of nodes. `count` is the number of bindings, of
    which the first have their routing keys in `keys`.
    """

    source: int
    target: int
    way: Way
    count: int = 1
    keys: list[str] = []


class Topology(msgspec.Struct, kw_only=True):
    """Nodes and arrows. `found` is the number of nodes there would be, `lone` names queues without an arrow, of which
    there are `lone_count`. `is_cut`: bindings or arrows were left out, as there are too many.
    """

    nodes: list[Node] = []
    arrows: list[Arrow] = []
    found: int = 0
    lone: list[str] = []
    lone_count: int = 0
    is_cut: bool = False


class _Link:
    """The arrow between two keys, while it is being found."""

    __slots__ = ("count", "keys")

    def __init__(self) -> None:
        self.count = 0
        self.keys: list[str] = []


class TopologySurvey:
    """Finds the topology of a vhost. `pause` lets others have a turn."""

    def __init__(
        self, vhost: Vhost, pause: Callable[[], Awaitable[None]], *, most_looked_at: int = MOST_LOOKED_AT,
        most_arrows: int = MOST_ARROWS,
    ) -> None:
        self._vhost = vhost
        self._pause = pause
        self._most_looked_at = most_looked_at
        self._most_arrows = most_arrows
        self._looked_at = self._since = 0
        self._is_cut = False
        self._links: dict[tuple[Key, Key, Way], _Link] = {}
        self._near: dict[Key, dict[Key, None]] = {}     # both ways

    async def look(
        self, *, name: str = "", around: Key | None = None, depth: int = 1, most: int = MOST_NODES,
    ) -> Topology:
        """Return all that is linked; with `name`, what has it in its name, and what is linked with that; with `around`,
        what is at most `depth` arrows away from that node.
        """
        await self._find_links()
        chosen = await self._choose(name.lower(), around, depth)
        kept = dict.fromkeys(islice(chosen, most))
        answer = Topology(found=len(chosen), is_cut=self._is_cut)
        answer.nodes = [self._node(key, kept) for key in kept]
        await self._find_arrows(answer, {key: place for place, key in enumerate(kept)})
        if around is None:
            await self._find_lone(answer, name.lower())
        return answer

    # Links

    async def _find_links(self) -> None:
        vhost = self._vhost
        for exchange in [*vhost.exchanges.values()]:
            await self._spend(1)
            if exchange.name:       # the default exchange leads to every queue by its name
                await self._find_bindings(exchange)
            if exchange.alternate is not None:
                self._link(Key("exchange", exchange.name), Key("exchange", exchange.alternate), "alternate")
        for queue in [*vhost.queues.values()]:
            await self._spend(1)
            self._find_dead_letters(queue)

    async def _find_bindings(self, exchange: Exchange) -> None:
        source = Key("exchange", exchange.name)
        room = max(0, self._most_looked_at - self._looked_at)
        found = [*islice(exchange.bindings.values(), room + 1)]     # others may bind between two turns
        if len(found) > room:
            self._is_cut = True
            found.pop()
        for binding, _ in found:
            await self._spend(1)
            self._link(source, Key(binding.destination_type, binding.destination), "binding", binding.routing_key)

    def _find_dead_letters(self, queue: Queue) -> None:
        exchange, key = queue.rules.dead_letter_exchange, queue.rules.dead_letter_routing_key
        if exchange is None or queue.deleted:
            return
        source = Key("queue", queue.name)
        if exchange:
            self._link(source, Key("exchange", exchange), "dead letters", key)
        elif key is not None and key in self._vhost.queues:     # the default exchange, to one queue
            self._link(source, Key("queue", key), "dead letters")

    async def _spend(self, steps: int) -> None:
        self._looked_at += steps
        self._since += steps
        if self._since >= LOOKED_AT_ONCE:
            self._since = 0
            await self._pause()

    def _link(self, source: Key, target: Key, way: Way, routing_key: str | None = None) -> None:
        link = self._links.get((source, target, way))
        if link is None:
            link = self._links[source, target, way] = _Link()
            self._near.setdefault(source, {})[target] = None
            self._near.setdefault(target, {})[source] = None
        link.count += 1
        if routing_key is not None and len(link.keys) < MOST_KEYS:
            link.keys.append(routing_key)

    # Nodes

    async def _choose(self, name: str, around: Key | None, depth: int) -> dict[Key, None]:
        """Return the nodes in the order in which they are told: exchanges first, if nothing is searched for."""
        if around is not None:
            chosen = {around: None} if around in self._near or self._there_is(around) else {}
        else:
            chosen, depth = {}, 1 if name else 0
            for kind in ("exchange", "queue"):
                for key in self._near:
                    await self._spend(1)
                    if key.kind == kind and name in key.name.lower():
                        chosen[key] = None
        border = [*chosen]
        for _ in range(depth):
            reached: dict[Key, None] = {}
            for key in border:
                for near in self._near.get(key, ()):
                    await self._spend(1)
                    if near not in chosen:
                        reached[near] = None
            chosen |= reached
            border = [*reached]
        return chosen

    async def _find_arrows(self, answer: Topology, places: dict[Key, int]) -> None:
        for (source, target, way), link in self._links.items():
            await self._spend(1)
            if source in places and target in places:
                if len(answer.arrows) == self._most_arrows:
                    answer.is_cut = True
                    return
                answer.arrows.append(Arrow(
                    source=places[source], target=places[target], way=way, count=link.count, keys=link.keys))

    def _there_is(self, key: Key) -> bool:
        return key.name in (self._vhost.exchanges if key.kind == "exchange" else self._vhost.queues)

    def _node(self, key: Key, kept: dict[Key, None]) -> Node:
        near = self._near.get(key, {})
        node = Node(kind=key.kind, name=key.name, exists=self._there_is(key),
                    hidden=len(near) - len(near.keys() & kept.keys()))
        if key.kind == "exchange" and node.exists:
            node.type = self._vhost.exchanges[key.name].definition.type
        elif node.exists:
            node.type = self._vhost.queues[key.name].records.queue_type
        return node

    async def _find_lone(self, answer: Topology, name: str) -> None:
        for queue in [*self._vhost.queues]:
            await self._spend(1)
            if Key("queue", queue) not in self._near and name in queue.lower():
                answer.lone_count += 1
                if len(answer.lone) < MOST_LONE:
                    answer.lone.append(queue)
        answer.lone.sort()
