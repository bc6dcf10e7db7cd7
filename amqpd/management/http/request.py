"""A request as handlers see it: the user, the names of the path, the query and the body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from amqpd.broker.access import User
from amqpd.broker.broker import Broker
from amqpd.broker.vhost import Vhost
from amqpd.broker.worklist import nothing
from amqpd.management.http.access import may_see_vhost
from amqpd.management.http.answers import HttpError, not_found
from amqpd.management.http.context import Context

TRUE = frozenset({"true", "1", "yes"})


async def no_api(*asked: Any) -> Any:
    """Refuse to ask the API: only handlers of the web page do."""
    raise AssertionError(f"{asked}: not a request of the web page")


class Request(msgspec.Struct, kw_only=True):
    """One request, after the login. `names` are those of the path. `headers` have lower-case names.

    `user` is the one who logged in; it is None on routes for anyone. `base_url` is where the API was asked, without a
    path, `path` the one that was asked for, as it was sent. `pairs` has the query with parameters that are repeated.
    `authorize` checks once more that the user may use the route; it raises HttpError.
    `ask` is for handlers of the web page: it asks a route of the API as this user. Requests that come from there have
    `is_of_page`, and lists that RabbitMQ does not cut into pages are cut for them.
    """

    context: Context
    method: str
    names: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""
    login: User | None = None
    address: str = ""
    base_url: str = ""
    pairs: Sequence[tuple[str, str]] = ()
    path: str = ""
    authorize: Callable[[], None] = nothing
    ask: Callable[..., Awaitable[Any]] = no_api
    is_of_page: bool = False

    @property
    def user(self) -> User:
        """The user who logged in."""
        assert self.login is not None
        return self.login

    @property
    def broker(self) -> Broker:
        """The broker."""
        return self.context.broker

    @property
    def is_tls(self) -> bool:
        """Whether it came over TLS."""
        return self.base_url.startswith("https:")

    @property
    def has_vhost(self) -> bool:
        """Whether the path names a vhost that there is."""
        return self.names.get("vhost", "") in self.broker.vhosts

    def vhost(self) -> Vhost:
        """Return the vhost that the path names. Raises HttpError: 404."""
        try:
            return self.broker.vhosts[self.names["vhost"]]
        except KeyError:
            raise not_found() from None

    def vhost_to_change(self) -> Vhost:
        """Return the vhost that the path names, to change something in it. Raises HttpError: 404, with another text."""
        try:
            return self.broker.vhosts[self.names["vhost"]]
        except KeyError:
            raise HttpError(404, "not_found", "vhost_not_found") from None

    def user_may_see(self, vhost: str) -> bool:
        """Return whether the user sees what is in a vhost."""
        return may_see_vhost(self.user, vhost)

    def visible_vhosts(self) -> list[Vhost]:
        """Return the vhosts that the user sees; only the one that the path names, if it names one."""
        if "vhost" in self.names:
            return [self.vhost()]
        return [vhost for vhost in self.broker.vhosts.values() if may_see_vhost(self.user, vhost.name)]

    def every(self, name: str) -> list[str]:
        """Return all values of a parameter of the query that may be repeated."""
        return [value for key, value in self.pairs if key == name]

    def flag(self, name: str) -> bool:
        """Return whether a parameter of the query is set to true."""
        return self.query.get(name, "").lower() in TRUE
