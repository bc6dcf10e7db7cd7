"""Where the broker is, and how to log in: an AMQP URL taken apart.

RabbitMQ docs/uri-spec.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import msgspec

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"
_PORTS = {"amqp": 5672, "amqps": 5671}


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A broker, a vhost and a login. `ca`, `certificate` and `key` are PEM files for TLS; "" is none."""

    host: str
    port: int
    vhost: str
    user: str
    password: str
    is_tls: bool = False
    ca: str = ""
    certificate: str = ""
    key: str = ""
    is_verified: bool = True

    @property
    def place(self) -> str:
        """Host and port, for people."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"<{self.user}@{self.place} vhost {self.vhost!r}>"


def read_url(url: str) -> Address:
    """Return the address in an `amqp://` or `amqps://` URL. Raises ValueError, whose text has no password."""
    parts = urlsplit(url if "://" in url else f"amqp://{url}")
    default_port = _PORTS.get(parts.scheme)
    if default_port is None:
        raise ValueError(f"a URL begins with amqp:// or amqps://, not with {parts.scheme}://")
    try:
        port = parts.port or default_port
    except ValueError:
        raise ValueError("the port in the URL is not a number from 1 to 65535") from None
    path = "/%2F" if parts.path == "//" else parts.path         # as Celery's URLs have it
    if parts.query or parts.fragment or "/" in path[1:]:
        raise ValueError("a / in the name of a vhost is written %2F, and what follows ? or # has no meaning here")
    # A URL without a path names no vhost; in "amqp://host/" the name would be empty, but everybody means "/".
    return Address(
        host=parts.hostname or "127.0.0.1", port=port, vhost=unquote(path[1:]) or "/",
        user=unquote(parts.username or "guest"), password=unquote(parts.password or "guest"),
        is_tls=parts.scheme == "amqps")
