"""How the web page writes numbers, sizes, times and names. Filters of the templates."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from amqpd.management.page.patterns import in_words

STEPS = (("day", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
NOTHING = "–"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def number(value: Any) -> str:
    """Return a number with separators; a fraction has three digits that count."""
    if value is None or isinstance(value, str):
        return value or NOTHING
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{int(value):,}"


def rate(value: Any) -> str:
    """Return a rate per second; 0 is empty, so that a list shows where something moves."""
    if not value:
        return ""
    return f"{value:,.0f}/s" if value >= 100 else f"{value:.1f}/s" if value >= 0.05 else "< 0.1/s"


def size(value: Any) -> str:
    """Return bytes as KiB, MiB and so on."""
    if value is None or isinstance(value, str):
        return value or NOTHING
    amount, unit = float(value), UNITS[0]
    for unit in UNITS:
        if abs(amount) < 1024 or unit == UNITS[-1]:
            break
        amount /= 1024
    return f"{amount:,.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.3g} {unit}"


def lasting(seconds: Any) -> str:
    """Return a duration in its two largest units."""
    if seconds is None:
        return NOTHING
    rest, parts = int(seconds), list[str]()
    for unit, step in STEPS:
        if rest >= step and len(parts) < 2:
            count, rest = divmod(rest, step)
            parts.append(f"{count:,} {unit}{'s' if unit == 'day' and count != 1 else ''}")
        elif parts:
            break
    return " ".join(parts) or "0 s"


def ago(value: Any, now: datetime | None = None) -> Markup | str:
    """Return how long ago a time was, with the exact one as a title: ms since 1970, or RabbitMQ's text in UTC."""
    if value in (None, "", 0):
        return NOTHING
    if isinstance(value, str):
        try:
            at = datetime.strptime(value, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        except ValueError:
            return value
    else:
        try:
            at = datetime.fromtimestamp(value / 1000, UTC)
        except (ValueError, OverflowError, OSError):
            return str(value)
    seconds = ((now or datetime.now(UTC)) - at).total_seconds()
    text = "now" if abs(seconds) < 1 else f"{lasting(seconds)} ago" if seconds > 0 else f"in {lasting(-seconds)}"
    exact = at.strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(at.isoformat(), exact, text)


def yes(value: Any) -> str:
    """Return a truth value in a word."""
    return "yes" if value else "no"


def counted(count: Any, noun: str, plural: str = "") -> str:
    """Return a number with its noun."""
    return f"{number(count)} {noun if count == 1 else plural or noun + 's'}"


FILTERS = {
    "allowed": in_words,
    "number": number, "rate": rate, "size": size, "lasting": lasting, "ago": ago, "yes": yes, "counted": counted}
