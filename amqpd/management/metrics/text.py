"""Prometheus' text format, version 0.0.4: families, labels and values.

Prometheus docs/instrumenting/exposition_formats.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from amqpd.broker.measures import Histogram
from amqpd.management.metrics.families import Family

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Number = int | float
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def head(prefix: str, family: Family) -> str:
    """Return the lines that begin a family. Without them its samples have no type."""
    name = prefix + family.name
    return f"# TYPE {name} {family.kind}\n# HELP {name} {family.text}\n"


def labelled(labels: Mapping[str, str]) -> str:
    """Return labels as they stand behind a name, "" for none."""
    if not labels:
        return ""
    return "{" + ",".join([f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items()]) + "}"


def single(prefix: str, family: Family, value: Number, labels: Mapping[str, str] | None = None) -> str:
    """Return a family of one series."""
    return f"{head(prefix, family)}{prefix}{family.name}{labelled(labels or {})} {value}\n"


def several(prefix: str, family: Family, series: Iterable[tuple[Mapping[str, str], Number]]) -> str:
    """Return a family with a series for each of these labels."""
    name = prefix + family.name
    return head(prefix, family) + "".join([f"{name}{labelled(labels)} {value}\n" for labels, value in series])


def column(name: str, labels: Sequence[str], values: Sequence[Number]) -> str:
    """Return the samples of many series of one name, whose labels are texts already."""
    return "".join([f"{name}{own} {value}\n" for own, value in zip(labels, values)])


def histogram(family: Family, found: Histogram) -> str:
    """Return a family with the buckets of a histogram."""
    name, buckets = family.name, found.cumulative()
    lines = "".join([f'{name}_bucket{{le="{_bound(bound)}"}} {count}\n' for bound, count in buckets])
    return f"{head('', family)}{lines}{name}_count {buckets[-1][1]}\n{name}_sum {found.sum}\n"


def _bound(bound: float) -> str:
    return "+Inf" if bound == float("inf") else str(bound)
