"""What a scenario consists of: requests as data, and what clients do over AMQP in between.

A path is one below /api. `{name}` in a path, in a text of the body or in a header stands for what an earlier answer
had there (`save`), or for `{node}`, `{amqp_port}`, `{http_port}`; in a path it is percent-encoded.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Mapping

ANY = object()


@dataclass(frozen=True)
class Request:
    """One request, and what of its answer is compared.

    `exact` compares the whole body, not only its shape; `values` the values at these paths. With `until` the request
    is repeated until the values at these paths are so (ANY: are there). `save` keeps values for later requests, by
    name and path. Paths are like `0.message_stats.publish`.
    """

    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    exact: bool = False
    values: tuple[str, ...] = ()
    until: Mapping[str, Any] = field(default_factory=dict)
    save: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Method, path and who asks, as the record and the tests name it."""
        return f"{self.method} {self.path}" + (f" as {self.user}" if self.user else "")


@dataclass(frozen=True)
class Act:
    """What is done over AMQP; `work` gets the scenario's clients."""

    text: str
    work: Callable[[Any], None]


Step = Request | Act


def get(path: str, **options: Any) -> Request:
    """Return a GET."""
    return Request("GET", path, **options)


def put(path: str, body: Any = None, **options: Any) -> Request:
    """Return a PUT."""
    return Request("PUT", path, body, **options)


def post(path: str, body: Any = None, **options: Any) -> Request:
    """Return a POST."""
    return Request("POST", path, body, **options)


def delete(path: str, body: Any = None, **options: Any) -> Request:
    """Return a DELETE."""
    return Request("DELETE", path, body, **options)
