"""Send a scenario's requests in order, and keep what was answered in a form that can be compared.

An `Outcome` is the status, the headers that matter, and the body. What differs between two runs of one broker is
replaced: the node's name, ports, names of connections and Erlang's process ids. What a request waited for in vain is
named.
"""
from __future__ import annotations

import contextlib
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any, Iterable, Iterator
from urllib.parse import quote, urlsplit

from conformance.http.api import Answer, Api
from conformance.http.clients import Clients
from conformance.http.steps import ANY, Act, Request, Step

HEADERS = ("content-type", "location", "www-authenticate", "allow")
PATIENCE_S, LITTLE_PATIENCE_S = 30, 1
PAUSE_S = 0.25

CONNECTION_NAME = re.compile(r"127\.0\.0\.1:\d+ -> 127\.0\.0\.1:\d+")
PROCESS_ID = re.compile(r"<\d+\.\d+\.\d+>")

Outcome = dict[str, Any]


@dataclass
class Run:
    """One scenario on one broker."""

    api: Api
    clients: Clients
    names: dict[str, str] = field(default_factory=dict)
    answers: list[tuple[Request, Answer]] = field(default_factory=list)
    patience_s: float = PATIENCE_S

    def learn(self) -> None:
        """Find out what requests name and what answers are freed of: the node, the cluster and the ports."""
        overview = self.api.request("GET", "/overview").json()
        node, cluster = overview.get("node", "no node"), overview.get("cluster_name", "no cluster")
        self.names |= {"me": self.api.user, "node": node, "cluster": cluster,
                       "amqp_port": str(urlsplit(self.clients.url).port), "http_port": str(urlsplit(self.api.url).port)}

    def play(self, steps: Iterable[Step]) -> None:
        """Do all steps; an answer that never comes to what `until` says is kept as it is."""
        for step in steps:
            if isinstance(step, Act):
                step.work(self.clients)
            else:
                self.answers.append((step, self.ask(step)))

    def ask(self, request: Request) -> Answer:
        """Send one request, again where it waits for something; after one wait in vain the others are short."""
        deadline = time.monotonic() + self.patience_s
        while True:
            answer = self.send(request)
            if not request.until or all(is_so(answer, path, value) for path, value in request.until.items()):
                break
            if time.monotonic() > deadline:
                self.patience_s = LITTLE_PATIENCE_S
                break
            time.sleep(PAUSE_S)
        for name, path in request.save.items():
            self.names[name] = str(at(body_of(answer), path) or "")
        return answer

    def send(self, request: Request) -> Answer:
        """Send one request once."""
        path = self.filled(request.path, escape=True)
        body = request.body if isinstance(request.body, bytes) else self.filled_all(request.body)
        headers = {name: self.filled(value) for name, value in request.headers.items()}
        user = None if request.user is None else (request.user, self.clients.password)
        return self.api.request(request.method, path, body, headers, user)

    def filled(self, text: str, *, escape: bool = False) -> str:
        """Put the known names into a text."""
        for name, value in self.names.items():
            text = text.replace(f"{{{name}}}", quote(value, safe="") if escape else value)
        return text

    def filled_all(self, value: Any) -> Any:
        """Put the known names into every text of a body."""
        if isinstance(value, dict):
            return {self.filled(key): self.filled_all(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.filled_all(inner) for inner in value]
        return self.filled(value) if isinstance(value, str) else value

    def outcomes(self) -> list[Outcome]:
        """Return all answers as they are compared, in order."""
        return [self.outcome(request, answer) for request, answer in self.answers]

    def outcome(self, request: Request, answer: Answer) -> Outcome:
        """Return one answer as it is compared, and with little change recorded."""
        found: Outcome = {"status": answer.status}
        unmet = [path for path, value in request.until.items() if not is_so(answer, path, value)]
        if unmet:
            found["waited in vain for"] = unmet
        headers = {name: self.freed(answer.headers[name]) for name in HEADERS if name in answer.headers}
        if headers:
            found["headers"] = headers
        if not answer.content:
            return found
        if not answer.is_json:
            return found | {"text": self.freed(answer.content.decode(errors="replace"))[:500]}
        return found | {"json": self.freed_all(answer.json())}

    def freed(self, text: str) -> str:
        """Replace what differs between two runs."""
        text = text.replace(self.names["node"], "{node}").replace(self.names["cluster"], "{cluster}")
        text = text.replace(self.names["http_port"], "{http_port}").replace(self.names["amqp_port"], "{amqp_port}")
        return PROCESS_ID.sub("<pid>", CONNECTION_NAME.sub("{connection}", text))

    def freed_all(self, value: Any) -> Any:
        """Replace what differs between two runs in each text and key of a body."""
        if isinstance(value, dict):
            return {self.freed(key): self.freed_all(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.freed_all(inner) for inner in value]
        return self.freed(value) if isinstance(value, str) else value


@contextlib.contextmanager
def prepared(api: Api, amqp_url: str, prepare: Iterable[Step], cleanup: Iterable[Step],
             ctl: str | None = None) -> Iterator[Run]:
    """Yield a run in which `prepare` has been done; `cleanup` is done before it and at the end."""
    run = Run(api, Clients(amqp_url, ctl))
    run.learn()
    try:
        run.play(cleanup)
        run.play(prepare)
        run.answers.clear()
        yield run
    finally:
        run.clients.close()
        run.play(cleanup)


def body_of(answer: Answer) -> Any:
    """Return the body decoded, None if it is not JSON."""
    try:
        return answer.json()
    except ValueError:
        return None


def at(value: Any, path: str) -> Any:
    """Return what is at a path like `items.0.name`, None if nothing is; `#` is a list's length."""
    for word in path.split(".") if path else ():
        if word == "#":
            value = len(value) if isinstance(value, list) else None
        elif isinstance(value, list) and word.isdigit() and int(word) < len(value):
            value = value[int(word)]
        elif isinstance(value, dict):
            value = value.get(word)
        else:
            return None
    return value


def is_so(answer: Answer, path: str, wanted: Any) -> bool:
    """Whether an answer has this at a path."""
    found = at(body_of(answer), path)
    return found is not None if wanted is ANY else bool(found == wanted and type(found) is type(wanted))


def pretty(value: Any) -> str:
    """Return JSON in few lines, for messages."""
    return json.dumps(value, ensure_ascii=False)
