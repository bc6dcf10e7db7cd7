"""What a run does: the options in the form in which the worker processes get them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from amqpd.perf.address import Address

Workload = Literal["throughput", "latency", "churn-connections", "churn-channels", "churn-queues"]
CHURN = frozenset({"churn-connections", "churn-channels", "churn-queues"})


class Plan(msgspec.Struct, kw_only=True):
    """A whole run. Rates and counts are those of each producer; 0 is no limit.

    `queues` are the names that are consumed, `keys` those that producers publish with, in turn. `confirm` is how many
    publishes may wait for their confirm, 0 uses no confirms. `ack_every` is 0 for automatic acknowledgement.
    """

    address: Address
    workload: Workload
    run_id: str
    producers: int
    consumers: int
    queues: tuple[str, ...]
    exchange: str
    keys: tuple[str, ...]
    size: int
    rate: float
    count: int
    is_persistent: bool
    is_mandatory: bool
    priority: int | None
    confirm: int
    prefetch: int
    ack_every: int
    queue_arguments: dict[str, Any]
    is_durable: bool

    @property
    def is_churn(self) -> bool:
        """Whether nothing is published, and things are opened and closed instead."""
        return self.workload in CHURN

    def keys_of(self, producer: int) -> tuple[str, ...]:
        """Return the routing keys of one producer: one, or several if there are more keys than producers."""
        return self.keys[producer :: self.producers] or (self.keys[producer % len(self.keys)],)

    def queues_of(self, consumer: int) -> tuple[str, ...]:
        """Return the queues of one consumer: one, or several if there are more queues than consumers."""
        return self.queues[consumer :: self.consumers] or (self.queues[consumer % len(self.queues)],)
