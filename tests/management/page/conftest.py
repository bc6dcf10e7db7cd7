"""A visitor: a browser's session with the web page, without a browser."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from tests.support.api import Api, Reply

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Visitor:
    """Asks for pages as one user who has signed in; `part` is the id of an element that a script asks for."""

    def __init__(self, api: Api, name: str = "guest", password: str = "guest") -> None:
        self.api = api
        reply = self._ask("POST", "/login", urlencode({"username": name, "password": password}).encode(), FORM)
        assert reply.status == 303, reply.body
        self.cookie = reply.headers["set-cookie"].partition(";")[0]

    def _ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Reply:
        return self.api.ask(method, path, body, user=None, headers=headers, prefix="")

    def get(self, path: str, *, part: str = "") -> Reply:
        """Return a page, or a part of one."""
        return self._ask("GET", path, headers={"Cookie": self.cookie, **part_of(part)})

    def text(self, path: str) -> str:
        """Return a page with status 200."""
        reply = self.get(path)
        assert reply.status == 200, reply.body.decode()
        return str(reply.body.decode())

    def post(self, path: str, part: str = "", **fields: object) -> Reply:
        """Send a form as a script does."""
        return self._ask("POST", path, urlencode(fields, doseq=True).encode(), {
            **FORM, "Cookie": self.cookie, **part_of(part or "none")})


def part_of(part: str) -> dict[str, str]:
    """Return the headers with which a script asks for a part."""
    return {"HX-Request": "true", "HX-Target": f"form#{part}"} if part else {}


@pytest.fixture(scope="module")
def guest(api: Api) -> Visitor:
    """The administrator guest."""
    return Visitor(api)


def user_with(api: Api, name: str, tags: str, vhost: str = "/") -> Visitor:
    """Make a user with rights in one vhost, and return them signed in."""
    api.put(f"/users/{name}", {"password": name, "tags": tags})
    api.put(f"/permissions/{'%2F' if vhost == '/' else vhost}/{name}", {"configure": "", "write": "", "read": ".*"})
    return Visitor(api, name, name)
