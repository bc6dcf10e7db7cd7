"""Compare an outcome with what was recorded: every misfit is a place in the answer and a text.

The status must be the same, but where RabbitMQ crashes with 500 a broker that does not must refuse, with any status
from 400 to 499. Headers must be the same, and may be more. An error's body must be the same word for word; a reason
that is null in the record shows RabbitMQ's insides, and any text will do. Of a body that was recorded whole, every key
and value must be there, and more keys may be; of all others the shape must fit.
"""
from __future__ import annotations

from typing import Any, Iterator

from conformance.http.running import Outcome, at, pretty
from conformance.http.shapes import joined, misfits, type_name

CRASHED, REFUSED, ERROR = 500, range(400, 500), 400
TOPIC_PERMISSION = {"vhost", "user", "exchange", "write", "read"}

Misfit = tuple[str, str]


def compared(recorded: Outcome, outcome: Outcome, *, may_crash: bool) -> list[Misfit]:
    """Return where an outcome does not fit the record, and how; `may_crash` is true for RabbitMQ itself."""
    found = list(waits(outcome))
    status = outcome["status"]
    if recorded["status"] == CRASHED and not may_crash:
        return found if status in REFUSED else [*found, ("status", f"must be a refusal, is {status}")]
    if status != recorded["status"]:
        return [*found, ("status", f"must be {recorded['status']}, is {status}{with_body(outcome)}")]
    found += compared_headers(recorded.get("headers", {}), outcome.get("headers", {}))
    return found + list(compared_body(recorded, outcome))


def waits(outcome: Outcome) -> Iterator[Misfit]:
    """Yield what a request waited for in vain."""
    for path in outcome.get("waited in vain for", ()):
        yield f"body.{path}", "has not come to what was waited for"


def compared_headers(recorded: dict[str, str], headers: dict[str, str]) -> list[Misfit]:
    """Return the headers that are missing or have another value."""
    return [(f"headers.{name}", f"must be {value!r}, is {headers.get(name)!r}")
            for name, value in recorded.items() if not is_same_header(name, value, headers.get(name))]


def is_same_header(name: str, recorded: str, value: str | None) -> bool:
    """Whether a header's value is the same; the methods of `allow` may come in any order."""
    if name == "allow" and value is not None:
        return set(recorded.split(", ")) <= set(value.replace(" ", "").split(","))
    return value == recorded


def compared_body(recorded: Outcome, outcome: Outcome) -> Iterator[Misfit]:
    """Yield the misfits of the body."""
    if "text" in recorded:
        if recorded["text"] != outcome.get("text"):
            yield "body", f"must be {recorded['text']!r}, is{with_body(outcome)}"
    elif not recorded.keys() & {"body", "shape"}:
        if outcome.keys() & {"json", "text"}:
            yield "body", f"must be empty, is{with_body(outcome)}"
    elif "json" not in outcome:
        yield "body", f"must be JSON, is{with_body(outcome)}"
    elif "body" in recorded:
        yield from compared_values(
            ordered(recorded["body"]), ordered(outcome["json"]), "body", recorded["status"] >= ERROR)
    else:
        yield from misfits(recorded["shape"], outcome["json"], "body")
        for path, value in recorded.get("values", {}).items():
            yield from compared_values(value, at(outcome["json"], path), f"body.{path}", is_error=False)


def ordered(body: Any) -> Any:
    """Return a list of topic permissions sorted; anything else as it is.

    RabbitMQ lists them in an order that differs from node to node, and sorts them only as far as it is asked to.
    """
    if isinstance(body, list) and all(isinstance(one, dict) and TOPIC_PERMISSION <= one.keys() for one in body):
        return sorted(body, key=lambda one: (one["vhost"], one["user"], one["exchange"]))
    return body


def compared_values(recorded: Any, value: Any, where: str, is_error: bool) -> Iterator[Misfit]:
    """Yield where a value differs from a recorded one; objects may have more keys, unless they are errors."""
    if is_error and where == "body.reason" and recorded is None:
        if not isinstance(value, str):
            yield where, "must be a text"
    elif isinstance(recorded, dict) and isinstance(value, dict):
        for key, inner in recorded.items():
            if key in value:
                yield from compared_values(inner, value[key], joined(where, key), is_error)
            else:
                yield joined(where, key), "is missing"
        if is_error and value.keys() - recorded.keys():
            yield where, f"has {sorted(value.keys() - recorded.keys())} more than RabbitMQ's error"
    elif isinstance(recorded, list) and isinstance(value, list) and len(recorded) == len(value):
        for index, (inner, other) in enumerate(zip(recorded, value)):
            yield from compared_values(inner, other, joined(where, str(index)), is_error)
    elif type_name(recorded) != type_name(value) or recorded != value:
        yield where, f"must be {pretty(recorded)}, is {pretty(value)}"


def with_body(outcome: Outcome) -> str:
    """Return the beginning of the body for a message."""
    return f" {pretty(outcome.get('json', outcome.get('text', '')))[:300]}"
