"""The one server that all tests of a process share, each with a database of its own; it ends with the process."""

from __future__ import annotations

import atexit
from functools import cache
from itertools import count

from tests.postgres.server import Server

_numbers = count(1)


@cache
def server() -> Server:
    found = Server().__enter__()
    atexit.register(found.__exit__)
    return found


def new_url() -> str:
    """Return the URL of a new, empty database."""
    return server().new_database(f"test-{next(_numbers)}")
