"""The live line of each second, and the summary of a run as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from amqpd import __version__
from amqpd.perf.counts import Counts
from amqpd.perf.plan import Plan

BUSY = 0.9      # of a core: from there on the client may be what limits the run


def columns(plan: Plan) -> list[str]:
    """Return the numbers that this run has, in the order of a message's way."""
    if plan.is_churn:
        return ["operations"]
    wanted = {
        "published": plan.producers > 0, "confirmed": plan.producers > 0 and plan.confirm > 0,
        "delivered": plan.consumers > 0, "acked": plan.consumers > 0 and plan.ack_every > 0}
    return [name for name, is_wanted in wanted.items() if is_wanted]


def live_line(plan: Plan, second: float, took_s: float, counts: Counts, blocked: int) -> str:
    """Return the line about the last second."""
    parts = [f"{second:6.1f} s"]
    parts += [f"{name} {getattr(counts, name) / took_s:,.0f}/s" for name in columns(plan)]
    for name, histogram in (("latency", counts.latency), ("confirm", counts.confirm_latency)):
        if histogram.total:
            parts.append(f"{name} p50 {_ms(histogram.percentile_ns(50))} p99 {_ms(histogram.percentile_ns(99))}")
    parts += [f"{name} {number:,}" for name in ("refused", "returned") if (number := getattr(counts, name))]
    if blocked:
        parts.append(f"blocked by an alarm: {blocked:,} of the connections")
    return "  ".join(parts)


class Summary(msgspec.Struct, kw_only=True):
    """The whole run. `how_it_ended` is `duration`, `count`, `interrupted` or `failed`."""

    plan: Plan
    server: Mapping[str, Any]
    processes: int
    counts: Counts
    seconds: float                  # from the first publish or delivery that could be, to the last that was
    publishing_s: float
    how_it_ended: str
    failure: str
    client_cpu_s: float
    left_behind: list[str]
    intervals: list[dict[str, float]]

    def rate(self, name: str) -> float:
        """Return how many a second there were on average."""
        took_s = self.publishing_s if name in ("published", "confirmed") else self.seconds
        return round(getattr(self.counts, name) / took_s, 1) if took_s > 0 else 0.0

    def as_json(self) -> Mapping[str, Any]:
        """Return what a program reads; the names stay as they are."""
        plan, address = self.plan, self.plan.address
        found: dict[str, Any] = {
            "amqpperf": __version__,
            "broker": {
                "host": address.host, "port": address.port, "vhost": address.vhost, "tls": address.is_tls,
                "product": str(self.server.get("product", "")), "version": str(self.server.get("version", ""))},
            "workload": plan.workload,
            "options": {
                "producers": plan.producers, "consumers": plan.consumers, "queues": len(plan.queues),
                "size": plan.size, "rate": plan.rate, "count": plan.count, "persistent": plan.is_persistent,
                "confirm": plan.confirm, "prefetch": plan.prefetch, "ack_every": plan.ack_every,
                "exchange": plan.exchange, "queue_arguments": plan.queue_arguments, "processes": self.processes},
            "ended": self.how_it_ended,
            "failure": self.failure,
            "seconds": round(self.seconds, 3),
            "client_cpu_seconds": round(self.client_cpu_s, 3),
            "left_behind": self.left_behind,
        }
        for name in columns(plan):
            found[name] = getattr(self.counts, name)
            found[f"{name}_per_second"] = self.rate(name)
        found |= {"refused": self.counts.refused, "returned": self.counts.returned}
        found |= {"latency_ms": self.counts.latency.summary_ms(),
                  "confirm_latency_ms": self.counts.confirm_latency.summary_ms(), "intervals": self.intervals}
        return found

    def as_text(self) -> str:
        """Return what people read."""
        plan, counts = self.plan, self.counts
        product = " ".join(str(self.server.get(key, "")) for key in ("product", "version")).strip()
        lines = [f"{plan.workload} on {plan.address.place}{f' ({product})' if product else ''}: "
                 f"{self.seconds:.1f} s, ended by {self.how_it_ended}"]
        lines += [f"  {name:<16}{getattr(counts, name):>14,}{self.rate(name):>14,.0f}/s" for name in columns(plan)]
        lines += [f"  {name:<16}{number:>14,}" for name in ("refused", "returned") if (number := getattr(counts, name))]
        for name, histogram in (("latency", counts.latency), ("confirm latency", counts.confirm_latency)):
            if found := histogram.summary_ms():
                shown = "  ".join(f"{key} {found[key]:g}" for key in found if key != "count")
                lines.append(f"  {name:<16}{shown}  (ms)")
        busy = self.client_cpu_s / self.seconds / self.processes if self.seconds > 1 else 0.0
        lines.append(f"  {'client CPU':<16}{self.client_cpu_s:>14.1f} s in {self.processes} "
                     f"{'process' if self.processes == 1 else 'processes'}")
        if busy > BUSY:
            lines.append("  amqpperf itself was busy all the time: --processes may show more of the broker")
        if self.left_behind:
            lines.append(f"  left on the broker: {', '.join(self.left_behind)}")
        return "\n".join(lines)


def _ms(ns: int) -> str:
    return f"{ns / 1e6:.3g} ms"
