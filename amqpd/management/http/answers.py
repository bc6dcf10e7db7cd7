"""The answers to requests, and the errors that handlers raise. The texts are RabbitMQ's, since programs compare them.

RabbitMQ docs/http-api-reference; `rabbit_mgmt_util`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import msgspec

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
REALM = 'Basic realm="RabbitMQ Management"'


class Answer(msgspec.Struct):
    """An answer to a request. A `body` that is not bytes is sent as JSON; None is an empty one.

    A `stream` is sent piece by piece instead of a body, and so are `pieces`, whose lengths are known.
    `on_end` is called when it has been sent, or the client has gone. Without `is_change`, a request that could change
    something has not done so.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = {}
    media_type: str = JSON
    stream: AsyncIterator[bytes] | None = None
    pieces: Sequence[bytes] = ()
    on_end: Callable[[], None] | None = None
    is_change: bool = True


class HttpError(Exception):
    """A request that is refused: the status code, and the two texts of the body."""

    def __init__(self, status: int, error: str, reason: Any) -> None:
        super().__init__(reason)
        self.status = status
        self.error = error
        self.reason = reason

    def answer(self) -> Answer:
        """Return the answer with this error."""
        return Answer(self.status, {"error": self.error, "reason": self.reason})


def created() -> Answer:
    """Return 201, for something new."""
    return Answer(201)


def no_content() -> Answer:
    """Return 204, for something that was changed or deleted."""
    return Answer(204)


def put(is_new: bool) -> Answer:
    """Return 201 for something new, 204 for something that was there."""
    return created() if is_new else no_content()


def not_found() -> HttpError:
    """Return 404: there is no such object."""
    return HttpError(404, "Object Not Found", "Not Found")


def bad_request(reason: Any) -> HttpError:
    """Return 400: the request cannot be carried out."""
    return HttpError(400, "bad_request", reason)


def not_authorised(reason: str) -> HttpError:
    """Return 401: the user is known, and may not do this."""
    return HttpError(401, "not_authorised", reason)


def not_logged_in() -> HttpError:
    """Return 401: nobody has logged in."""
    return HttpError(401, "not_authorized", "Login failed")
