"""What the navigation of the web page names, and the keys that lead there."""

from __future__ import annotations

from typing import NamedTuple

from amqpd.broker.access import User
from amqpd.management.http.access import is_administrator, may_make_policies, may_see_all
from amqpd.management.http.answers import not_authorised
from amqpd.management.http.request import Request


class Entry(NamedTuple):
    """A page of the navigation. `key` follows `g` on the keyboard. `tags` are needed by its users: one of them."""

    section: str
    path: str
    title: str
    icon: str
    key: str
    tags: frozenset[str] = frozenset()


ALL = frozenset[str]()
SEEING, ADMIN = frozenset({"monitoring", "administrator"}), frozenset({"administrator"})
POLICIES = frozenset({"policymaker", "administrator"})
# An entry is shown once there is a route for its path.
GROUPS: tuple[tuple[str, tuple[Entry, ...]], ...] = (
    ("", (
        Entry("overview", "/", "Overview", "overview", "o"),
        Entry("queues", "/queues", "Queues", "queue", "q"),
        Entry("exchanges", "/exchanges", "Exchanges", "exchange", "e"),
        Entry("streams", "/streams", "Streams", "stream", "s"),
        Entry("topology", "/topology", "Topology", "topology", "t"),
        Entry("dead-letters", "/dead-letters", "Dead letters", "dead", "d"))),
    ("Clients", (
        Entry("connections", "/connections", "Connections", "connection", "c"),
        Entry("channels", "/channels", "Channels", "channel", "h"),
        Entry("consumers", "/consumers", "Consumers", "consumer", "n"))),
    ("Administration", (
        Entry("users", "/users", "Users", "user", "u", ADMIN),
        Entry("vhosts", "/vhosts", "Vhosts", "vhost", "v"),
        Entry("policies", "/policies", "Policies", "policy", "p"),
        Entry("limits", "/limits", "Limits", "limit", "l"),
        Entry("definitions", "/definitions", "Definitions", "definitions", "f", ADMIN),
        Entry("node", "/node", "Node", "node", "m", SEEING),
        Entry("log", "/log", "Log", "log", "i", ADMIN),
        Entry("audit", "/audit", "Audit log", "audit", "a", ADMIN))),
)


def shown_groups(user: User, paths: frozenset[str]) -> list[tuple[str, list[Entry]]]:
    """Return the groups with the entries that have a page which the user may see."""
    tags = set(user.definition.tags)
    found = [(title, [one for one in entries if one.path in paths and (not one.tags or one.tags & tags)])
             for title, entries in GROUPS]
    return [(title, entries) for title, entries in found if entries]


class Rights(NamedTuple):
    """What templates may offer to a user; whatever is offered is checked again."""

    sees_all: bool
    makes_policies: bool
    administrates: bool

    @property
    def changes(self) -> bool:
        """Whether pages offer changes: not to users who only watch. What each of them may do is a matter of rights."""
        return self.administrates or self.makes_policies or not self.sees_all


def require_changes(request: Request) -> None:
    """Refuse a form from a user who may only watch. Raises HttpError: 401."""
    if not rights_of(request.user).changes:
        raise not_authorised("Your tags let you watch, and change nothing here.")


def rights_of(user: User) -> Rights:
    """Return what a user may be offered."""
    return Rights(may_see_all(user), may_make_policies(user), is_administrator(user))
