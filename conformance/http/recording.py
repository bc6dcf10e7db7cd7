"""What RabbitMQ answered, as JSON in `recorded/`: one file a scenario, one line a request.

A record is made once and merged with further runs: a key that was not always there becomes optional, a type that was
another once becomes one of two. Of an error, and where a request says `exact`, the whole body is recorded; of all
others the shape, and some values. What else differs between two runs is told, and not recorded.
"""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conformance.http.api import Api
from conformance.http.running import Outcome, at, prepared
from conformance.http.scenarios.scenario import Scenario
from conformance.http.shapes import merged, shape_of
from conformance.http.steps import Request

ERROR = 400
RECORDED = Path(__file__).parent / "recorded"


def played(scenario: Scenario, api: Api, amqp_url: str, ctl: str | None = None) -> list[tuple[Request, Outcome]]:
    """Play a scenario on a broker; returns each request with its outcome."""
    with prepared(api, amqp_url, scenario.prepare, scenario.cleanup, ctl) as run:
        run.play(scenario.steps)
        return list(zip((request for request, _ in run.answers), run.outcomes()))


def entry_of(request: Request, outcome: Outcome) -> dict[str, Any]:
    """Return one line of a record: what was asked, and what was answered."""
    asked: dict[str, Any] = {"request": request.text}
    if request.headers:
        asked["sent_headers"] = dict(request.headers)
    if request.body is not None:
        is_raw = isinstance(request.body, bytes)
        asked["sent"] = request.body.decode("latin-1") if is_raw else request.body
    found = {key: value for key, value in outcome.items() if key != "json"}
    if "json" not in outcome:
        return asked | found
    body = without_crash(outcome["json"])
    if request.exact or outcome["status"] >= ERROR and "error" in body:
        return asked | found | {"body": body}
    found["shape"] = shape_of(body)
    if request.values:
        found["values"] = {path: at(body, path) for path in request.values}
    return asked | found


def without_crash(body: Any) -> Any:
    """Return an error without the insides of Erlang that RabbitMQ shows in some; its reason is then null."""
    if isinstance(body, dict) and str(body.get("reason")).startswith("Request to node"):
        return body | {"reason": None}
    return body


def asked_of(entry: dict[str, Any]) -> tuple[str, str]:
    """Return what tells an entry from others: the request with all that it sends."""
    return entry["request"], json.dumps([entry.get("sent_headers"), entry.get("sent")], sort_keys=True)


def requests_of(scenario: Scenario) -> list[tuple[str, str]]:
    """Return what tells a scenario's requests from each other, in order, as `asked_of` does for a record."""
    return [asked_of(entry_of(step, {"status": 0})) for step in scenario.steps if isinstance(step, Request)]


def merged_entry(one: dict[str, Any], other: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return two runs' entries for one request as one, and what cannot be merged."""
    found = dict(one)
    problems = [f"{one['request']}: {key} was {one.get(key)!r}, is {other.get(key)!r}"
                for key in sorted((one.keys() | other.keys()) - {"shape"}) if one.get(key) != other.get(key)]
    if "shape" in one and "shape" in other:
        found["shape"] = merged(one["shape"], other["shape"])
    return found, problems


def write(scenario: Scenario, entries: list[dict[str, Any]], broker: str) -> None:
    """Write a scenario's record."""
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    head = json.dumps({"scenario": scenario.name, "about": scenario.about, "broker": broker}, ensure_ascii=False)
    text = f"{head[:-1]},\n\"answers\": [\n{lines}\n]}}\n"
    path_of(scenario).write_text(text)


def read(scenario: Scenario) -> list[dict[str, Any]]:
    """Return the entries of a scenario's record, [] if there is none."""
    path = path_of(scenario)
    return json.loads(path.read_text())["answers"] if path.exists() else []


def path_of(scenario: Scenario) -> Path:
    """Return the file of a scenario's record."""
    return RECORDED / f"{scenario.name}.json"


def record(scenario: Scenario, api: Api, amqp_url: str, ctl: str | None, *, fresh: bool) -> list[str]:
    """Play a scenario on RabbitMQ and write or extend its record; returns what differs from earlier runs."""
    new = [entry_of(request, outcome) for request, outcome in played(scenario, api, amqp_url, ctl)]
    old = [] if fresh else read(scenario)
    problems = [f"{entry['request']} waited in vain for {entry['waited in vain for']}"
                for entry in new if "waited in vain for" in entry]
    if [asked_of(entry) for entry in old] == [asked_of(entry) for entry in new]:
        for index, (before, now) in enumerate(zip(old, new)):
            new[index], found = merged_entry(before, now)
            problems += found
    elif old:
        problems.append(f"{scenario.name} has other requests than its record, which was made anew")
    write(scenario, new, product_of(api))
    return problems


def product_of(api: Api) -> str:
    """Return name and version of a broker."""
    overview = api.request("GET", "/overview").json()
    return f"{overview['product_name']} {overview['product_version']}"
