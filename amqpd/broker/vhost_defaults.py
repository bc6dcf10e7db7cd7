"""What a vhost has that nobody has given to it: the type of its queues, and limits by a pattern of its name.

The type applies to each declaration in a vhost without a type of its own. Limits are set once, when the vhost is added:
what an operator sets later stays.

RabbitMQ docs/vhosts (default queue type, default limits).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from amqpd.broker.limits import UNLIMITED
from amqpd.patterns import Pattern


@dataclass(frozen=True)
class VhostDefaults:
    """The defaults of vhosts. Of the `limits`, the first whose pattern is found in the name counts."""

    queue_type: str = ""
    limits: Iterable[tuple[Pattern, Mapping[str, int]]] = ()

    def limits_of(self, vhost: str) -> Mapping[str, int]:
        """Return the limits of a new vhost of this name."""
        return next((limits for pattern, limits in self.limits if pattern.matches(vhost)), UNLIMITED)
