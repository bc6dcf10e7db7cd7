"""Where the nodes of a topology stand in a picture: in layers from left to right, with few crossings.

An arrow leads to a later layer, unless it closes a cycle, as a retry of dead letters does. Within a layer, nodes are
sorted by the mean place of their neighbours (barycentre), first from the left, then from the right, a few times. This
takes a few passes over at most 500 nodes and 2,000 arrows, and the event loop goes on after each pass.

K. Sugiyama, S. Tagawa, M. Toda: Methods for Visual Understanding of Hierarchical System Structures (1981).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

PASSES = 4
WIDTH, HEIGHT = 190, 30         # of a node
COLUMN, ROW = 252, 42           # from one node to the next
EDGE = 12

Arrows = Sequence[tuple[int, int]]


class Place(NamedTuple):
    """The upper left corner of a node."""

    x: int
    y: int


class Drawing(NamedTuple):
    """The places of nodes, paths of arrows in the words of SVG, and the size of the whole."""

    places: list[Place]
    paths: list[str]
    width: int
    height: int


async def draw(count: int, arrows: Arrows, pause: Callable[[], Awaitable[None]]) -> Drawing:
    """Return the picture of `count` nodes with these arrows."""
    forward = _without_cycles(count, arrows)
    await pause()
    layers = _in_layers(count, forward)
    await pause()
    after, before = _neighbours(count, forward)
    for number in range(PASSES):
        near = before if number % 2 == 0 else after
        ordered = layers if number % 2 == 0 else layers[::-1]
        places = {node: place for layer in layers for place, node in enumerate(layer)}
        for layer in ordered[1:]:
            layer.sort(key=lambda node: _mean(near[node], places))
            places.update((node, place) for place, node in enumerate(layer))
        await pause()
    tallest = max(map(len, layers), default=0)
    found = [Place(0, 0)] * count
    for column, layer in enumerate(layers):
        top = (tallest - len(layer)) * ROW // 2
        for row, node in enumerate(layer):
            found[node] = Place(EDGE + column * COLUMN, EDGE + top + row * ROW)
    paths = [_path(found[source], found[target]) for source, target in arrows]
    width = max(1, len(layers)) * COLUMN - COLUMN + WIDTH + 2 * EDGE + ROW
    return Drawing(found, paths, width, max(1, tallest) * ROW + 2 * EDGE)


def _neighbours(count: int, arrows: Arrows) -> tuple[list[list[int]], list[list[int]]]:
    after: list[list[int]] = [[] for _ in range(count)]
    before: list[list[int]] = [[] for _ in range(count)]
    for source, target in arrows:
        after[source].append(target)
        before[target].append(source)
    return after, before


def _without_cycles(count: int, arrows: Arrows) -> Arrows:
    """Return the arrows without those that lead back to where the search came from."""
    after, before = _neighbours(count, arrows)
    state, forward = [0] * count, list[tuple[int, int]]()      # 0 not seen, 1 on the way, 2 done
    for start in sorted(range(count), key=lambda node: bool(before[node])):
        if state[start]:
            continue
        state[start] = 1
        way = [(start, iter(after[start]))]
        while way:
            node, rest = way[-1]
            for target in rest:
                if state[target] != 1:
                    forward.append((node, target))
                if not state[target]:
                    state[target] = 1
                    way.append((target, iter(after[target])))
                    break
            else:
                state[node] = 2
                way.pop()
    return forward


def _in_layers(count: int, forward: Arrows) -> list[list[int]]:
    """Return the nodes in layers: each stands after all that lead to it."""
    after, before = _neighbours(count, forward)
    waiting = [len(one) for one in before]
    layer_of, ready = [0] * count, [node for node in range(count) if not waiting[node]]
    while ready:
        node = ready.pop()
        for target in after[node]:
            layer_of[target] = max(layer_of[target], layer_of[node] + 1)
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    layers: list[list[int]] = [[] for _ in range(max(layer_of, default=-1) + 1)]
    for node, layer in enumerate(layer_of):
        layers[layer].append(node)
    return layers


def _mean(near: Sequence[int], places: dict[int, int]) -> float:
    return sum([places[one] for one in near]) / len(near) if near else 0.0


def _path(source: Place, target: Place) -> str:
    """Return a curve from the right of one node to the left of another; one that leads back goes around above."""
    x, y, to_x, to_y = source.x + WIDTH, source.y + HEIGHT // 2, target.x - 4, target.y + HEIGHT // 2
    if to_x > x:
        bend = min(70, (to_x - x) // 2)
        return f"M{x} {y} C{x + bend} {y} {to_x - bend} {to_y} {to_x} {to_y}"
    low = max(y, to_y) + ROW // 2
    return (f"M{x} {y} C{x + 40} {y} {x + 40} {low} {x} {low} L{to_x} {low} "
            f"C{to_x - 14} {low} {to_x - 14} {to_y} {to_x} {to_y}")
