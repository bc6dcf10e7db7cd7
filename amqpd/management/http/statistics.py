"""What requests say of statistics: which samples they want, and whether they want any."""

from __future__ import annotations

from amqpd.management.http.answers import bad_request
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Query
from amqpd.management.statistics import InvalidRange, Ranges

_KINDS = (
    ("lengths", "numbers of messages"), ("msg_rates", "rates of messages"), ("data_rates", "bytes"),
    ("node_stats", "numbers of the node"))
STATISTICS_QUERY = (
    *(Query(f"{kind}_age", f"samples of {what}: of the last so many seconds") for kind, what in _KINDS),
    *(Query(f"{kind}_incr", f"samples of {what}: one in so many seconds") for kind, what in _KINDS),
    Query("disable_stats", "true: without statistics"),
    Query("enable_queue_totals", "true, beside disable_stats: with the numbers of messages"))


def ranges_of(request: Request) -> Ranges:
    """Return which samples the query asks for. Raises HttpError: 400."""
    try:
        return Ranges.parse(request.query)
    except InvalidRange as error:
        raise bad_request(str(error)) from None


def wants_statistics(request: Request) -> bool:
    """Return whether the answer should have statistics."""
    return not request.context.disable_stats and not request.flag("disable_stats")


def wants_totals(request: Request) -> bool:
    """Return whether an answer without statistics should have the numbers of messages."""
    return request.context.enable_queue_totals or request.flag("enable_queue_totals")
