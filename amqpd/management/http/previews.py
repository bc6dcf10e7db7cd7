"""The routes that tell what a pattern or a policy would match, before it is set. RabbitMQ has none.

A search goes on in short turns, and ends after half a second, as that of a list does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec

from amqpd.broker.definitions import PolicyDefinition
from amqpd.broker.policy import Applied, Policies, plain_policy_faults, precedes
from amqpd.broker.queue.queue import Queue
from amqpd.management.http.access import Access
from amqpd.management.http.answers import bad_request
from amqpd.management.http.beyond import body_as, whole
from amqpd.management.http.lists import searched
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Query, Route
from amqpd.patterns import PatternError, compile_pattern

MOST_NAMES, NAMES = 200, 20     # in an answer, at most and by default
DEFAULT_EXCHANGE = "amq.default"


class PolicyToTry(msgspec.Struct, rename={"apply_to": "apply-to"}, forbid_unknown_fields=True):
    """A policy that is not set yet; `most` is how many of the matching queues and exchanges are named."""

    pattern: str
    definition: dict[str, Any] = {}
    priority: int = 0
    apply_to: str = "all"
    name: str = ""
    is_operator: bool = False
    most: int = NAMES


async def list_matches(request: Request) -> Any:
    """Return which queues and exchanges a pattern is found in, as permissions use it. Raises HttpError: 400."""
    vhost, text, most = request.vhost(), request.query.get("pattern", ""), _most(whole(request, "most", NAMES))
    try:
        pattern = compile_pattern(text)
    except PatternError as error:
        raise bad_request(f"the pattern cannot be used: {error}") from None

    def is_found(name: str) -> bool:
        return bool(text) and pattern.matches(name or DEFAULT_EXCHANGE)     # an empty pattern allows nothing

    queues = await _search(request, list(vhost.queues), is_found)
    exchanges = await _search(request, list(vhost.exchanges), is_found)
    return {
        "queues": {"total": len(vhost.queues), "found": len(queues), "names": sorted(queues[:most])},
        "exchanges": {"total": len(vhost.exchanges), "found": len(exchanges),
                      "names": sorted(name or DEFAULT_EXCHANGE for name in exchanges[:most])},
        "is_slow": pattern.is_slow}


async def preview_policy(request: Request) -> Any:
    """Return what a policy would match, which policy each has now, and what is wrong with it. Raises HttpError: 400."""
    vhost, asked = request.vhost(), body_as(request, PolicyToTry)
    most, found, trial = _most(asked.most), list[dict[str, Any]](), Policies()
    policy = PolicyDefinition(vhost.name, asked.name, asked.pattern, asked.definition, asked.priority, asked.apply_to,
                              is_operator=asked.is_operator)
    faults = plain_policy_faults(policy)
    queues, exchanges = list[Queue](), list[str]()
    if not plain_policy_faults(PolicyDefinition(vhost.name, "", asked.pattern, {"max-length": 1}, 0, asked.apply_to)):
        trial.set(policy)
        queues = await _search(
            request, list(vhost.queues.values()), lambda one: _its(trial.of_queue(one.definition), policy) is not None)
        exchanges = await _search(
            request, list(vhost.exchanges), lambda name: _its(trial.of_exchange(name), policy) is not None)
    for queue in queues[:most]:
        found.append(_told("queue", queue.name, vhost.policies.of_queue(queue.definition), policy))
    for name in exchanges[:max(0, most - len(found))]:
        found.append(_told("exchange", name, vhost.policies.of_exchange(name), policy))
    return {
        "queues": len(queues), "exchanges": len(exchanges), "total_queues": len(vhost.queues),
        "total_exchanges": len(vhost.exchanges), "matches": found, "faults": faults,
        "is_slow": trial.has_slow_pattern}


def _most(asked: int) -> int:
    return min(max(0, asked), MOST_NAMES)


async def _search(request: Request, things: Iterable[Any], wanted: Callable[[Any], bool]) -> list[Any]:
    return await searched(things, wanted, asyncio.get_running_loop().time, partial(_next_turn, request))


async def _next_turn(request: Request) -> None:
    await request.context.turns.next()
    request.context.node.begin()


def _its(applied: Applied, policy: PolicyDefinition) -> PolicyDefinition | None:
    """Return the one of both policies that is of the same kind."""
    return applied.operator_policy if policy.is_operator else applied.policy


def _told(kind: str, name: str, applied: Applied, policy: PolicyDefinition) -> dict[str, Any]:
    """Return an object that matches, with its policy now, and whether the new one would be in force."""
    now = _its(applied, policy)
    return {
        "kind": kind, "name": name, "policy": None if now is None else now.name,
        "is_in_force": now is None or now.name == policy.name or precedes(policy, now)}


ROUTES = [
    Route(method="GET", path="/api/vhosts/{vhost}/matches", handler=list_matches, access=Access.VHOST, query=(
          Query("pattern", "a regular expression, as permissions have it"),
          Query("most", f"how many names are told of each kind, {NAMES} by default, at most {MOST_NAMES}")),
          summary="Which queues and exchanges a pattern matches"),
    Route(method="POST", path="/api/vhosts/{vhost}/policy-preview", handler=preview_policy, access=Access.POLICIES,
          body=PolicyToTry, is_audited=False,
          summary="What a policy would match, which policies are in force there, and what is wrong with it"),
]
