"""One request to the management API and its answer, over a connection of its own."""
from __future__ import annotations

import base64
import http.client
import json
from dataclasses import dataclass
from typing import Any, Mapping
from urllib.parse import unquote, urlsplit

TIMEOUT_S = 30


@dataclass(frozen=True)
class Answer:
    """Status, headers with names in lower case, and the body as bytes."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def is_json(self) -> bool:
        """Whether the body says that it is JSON."""
        return self.headers.get("content-type", "").split(";")[0] == "application/json"

    def json(self) -> Any:
        """Return the body decoded; ValueError if it is not JSON."""
        return json.loads(self.content)


@dataclass(frozen=True)
class Api:
    """Where the API is, and who asks unless a request says otherwise."""

    url: str
    user: str = "guest"
    password: str = "guest"
    timeout_s: float = TIMEOUT_S

    @classmethod
    def at(cls, url: str) -> "Api":
        """Return the API at a url like http://guest:guest@127.0.0.1:15672; a path is the prefix before /api."""
        parts = urlsplit(url)
        return cls(url, unquote(parts.username or "guest"), unquote(parts.password or "guest"))

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None,
                credentials: tuple[str, str] | None = None) -> Answer:
        """Send a request to this path below /api; a body of bytes is sent as it is, all others as JSON.

        Without `credentials` the user of the url asks; the header `authorization: none` sends no credentials at all.
        """
        parts = urlsplit(self.url)
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        all_headers = {"authorization": basic(*(credentials or (self.user, self.password)))}
        if content is not None:
            all_headers["content-type"] = "application/json"
        all_headers |= headers or {}
        sent = {name: value for name, value in all_headers.items() if value != "none"}
        connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 15672,
                                                timeout=self.timeout_s)
        try:
            connection.request(method, f"{parts.path.rstrip('/')}/api{path}", content, sent)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def has_statistics(self) -> bool:
        """Ask whether the broker was started with its statistics on."""
        return not self.request("GET", "/overview").json().get("disable_stats", False)


def basic(user: str, password: str) -> str:
    """Return the value of the header `authorization` for these credentials."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
