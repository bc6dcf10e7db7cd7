"""What a scenario is, and how everything that scenarios make is deleted again."""
from __future__ import annotations

from dataclasses import dataclass

from conformance.http.clients import PASSWORD
from conformance.http.steps import Request, Step, delete, put

VHOST = "shapes"
OTHER_VHOST = "shapes-other"


@dataclass(frozen=True)
class Scenario:
    """Steps in order. `prepare` is done before them and not compared; `cleanup` comes before that and at the end.

    `ctl` is for scenarios that need the command of the suite's option of this name.
    """

    name: str
    about: str
    steps: tuple[Step, ...]
    prepare: tuple[Step, ...] = ()
    cleanup: tuple[Request, ...] = ()
    statistics: bool = True
    ctl: bool = False


def everything_deleted(*paths: str) -> tuple[Request, ...]:
    """Return the requests that delete the scenarios' vhosts, and what is at these paths."""
    return tuple(delete(path) for path in (f"/vhosts/{VHOST}", f"/vhosts/{OTHER_VHOST}", *paths))


def vhost_made() -> tuple[Request, ...]:
    """Return the requests that make the scenarios' vhost, with all rights for who asks."""
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    return (put(f"/vhosts/{VHOST}"), put(f"/permissions/{VHOST}/{{me}}", everything))


def user_made(name: str, tags: str = "", vhost: str | None = VHOST, configure: str = ".*", write: str = ".*",
              read: str = ".*") -> tuple[Request, ...]:
    """Return the requests that make a user with these rights."""
    made = put(f"/users/{name}", {"password": PASSWORD, "tags": tags})
    rights = {"configure": configure, "write": write, "read": read}
    return (made,) if vhost is None else (made, put(f"/permissions/{vhost}/{name}", rights))
