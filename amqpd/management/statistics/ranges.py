"""Which samples of a history a request asks for: RabbitMQ's query parameters `lengths_age`, `lengths_incr` and so on.

RabbitMQ docs/management (API documentation, "Management HTTP API Statistics").
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

MOST_SAMPLES = 500      # RabbitMQ's limit


class InvalidRange(Exception):
    """A range that RabbitMQ refuses with 400 bad_request and this text."""


class Range(msgspec.Struct, frozen=True):
    """Samples of the last `age_s` seconds, every `incr_s` seconds."""

    age_s: int
    incr_s: int


class Ranges(msgspec.Struct, frozen=True, kw_only=True):
    """The ranges of one request, by kind of statistics. None: no samples, only the current rate."""

    lengths: Range | None = None        # messages in queues
    msg_rates: Range | None = None      # message_stats, churn_rates
    data_rates: Range | None = None     # bytes of connections
    node_stats: Range | None = None

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> Ranges:
        """Read the parameters of a request. Raises InvalidRange.

        As on RabbitMQ, a range counts only if age and increment are both there and whole numbers.
        """
        return cls(**{kind: _range(query.get(f"{kind}_age"), query.get(f"{kind}_incr"))
                      for kind in cls.__struct_fields__})


NO_RANGES = Ranges()


def _range(age: str | None, incr: str | None) -> Range | None:
    try:
        age_s, incr_s = int(age or ""), int(incr or "")
    except ValueError:
        return None
    if age_s <= 0 or incr_s <= 0 or age_s // incr_s > MOST_SAMPLES:
        raise InvalidRange(f"Invalid range parameters: age {age_s}, incr {incr_s}")
    return Range(age_s, incr_s)
