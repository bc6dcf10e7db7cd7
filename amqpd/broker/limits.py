"""The limits of vhosts, of users and of all queues: their names, how they are checked, and whether one is reached.

The parameter "limits" of the component "vhost-limits" has those of a vhost, the definition of a user has the user's.
A negative number is no limit, and 0 allows none. What is there already stays when a limit is lowered.

RabbitMQ docs/vhosts, docs/user-limits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from amqpd.erlang import json_term

MAX_CONNECTIONS = "max-connections"
MAX_CHANNELS = "max-channels"
MAX_QUEUES = "max-queues"
LIMITS_OF_VHOSTS = (MAX_CONNECTIONS, MAX_QUEUES)
LIMITS_OF_USERS = (MAX_CONNECTIONS, MAX_CHANNELS)

LARGEST = 1 << 53       # the largest number that every reader of JSON keeps exactly
UNLIMITED: Mapping[str, int] = MappingProxyType({})


def reached_limit(limits: Mapping[str, int], name: str, count: int) -> int | None:
    """Return the limit of this name if there are as many already as it allows; None if there may be more."""
    limit = limits.get(name, -1)
    return limit if 0 <= limit <= count else None


def limit_faults(limits: Mapping[str, Any], known: Collection[str], kind: str) -> Iterator[str]:
    """Yield what is wrong with limits, in RabbitMQ's words; `kind` is "limits" or "user-limits"."""
    unknown = {name: value for name, value in limits.items() if name not in known}
    for name, value in limits.items():
        if name in known and not _is_number(value):
            yield f"{name} should be a number, actually was {json_term(value)}"
        elif name in known and abs(value) > LARGEST:
            yield f"{name} should be a number up to {LARGEST}"
    if unknown:
        terms = ",".join(f"{{{json_term(name)},{json_term(value)}}}" for name, value in unknown.items())
        yield f"Unrecognised terms [{terms}] in {kind}"


def usable_limits(value: Any, known: Collection[str]) -> Mapping[str, int]:
    """Return the limits in a stored value; what is not a limit is left out."""
    if not isinstance(value, Mapping):
        return UNLIMITED
    return {name: value[name] for name in known if _is_number(value.get(name))}


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class QueueQuota:
    """The number of queues of all vhosts together, and the most that there may be; None is no limit."""

    __slots__ = ("count", "limit")

    def __init__(self, limit: int | None = None) -> None:
        self.count = 0
        self.limit = limit

    @property
    def reached(self) -> str:
        """The limit in RabbitMQ's words if no queue may be added, else an empty text."""
        if self.limit is None or self.count < self.limit:
            return ""
        return f"cluster ({self.limit}) is reached, which limits.max_queues sets"
