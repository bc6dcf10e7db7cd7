"""Sessions of browsers: a cookie after a login with a form, so that no page has to keep a password.

Owns the sessions; only a hash of each cookie is kept. A session ends an hour after its last use, eight hours after the
login, at a logout, when the user is changed or deleted, and with the broker.

Always true: a user has at most `MOST_OF_USER` sessions, and all users together `MOST`. A new one takes the place of the
user's own session that has not been used for longest, and only if there are too many of all users, of any other.

OWASP Session Management Cheat Sheet; RFC 6265bis (cookie prefixes, SameSite).
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from amqpd.broker.access import User
from amqpd.broker.broker import Broker
from amqpd.broker.definitions import UserDefinition

COOKIE, SECURE_COOKIE = "amqpd", "__Host-amqpd"
TOKEN_BYTES = 16
IDLE_MS, LONGEST_MS = 3_600_000, 8 * 3_600_000
MOST, MOST_OF_USER = 10_000, 100


class _Session(msgspec.Struct):
    user: UserDefinition
    begun_ms: int
    used_ms: int


class Sessions:
    """The sessions of one broker; `now_ms` is a monotonic clock."""

    def __init__(
        self, broker: Broker, now_ms: Callable[[], int], *, most: int = MOST, most_of_user: int = MOST_OF_USER
    ) -> None:
        self._broker = broker
        self._now_ms = now_ms
        self._most = most
        self._most_of_user = most_of_user
        self._by_hash: OrderedDict[bytes, _Session] = OrderedDict()     # least recently used first
        self._of_user: dict[str, OrderedDict[bytes, None]] = {}         # so are these

    def begin(self, user: User) -> str:
        """Return the token of a new session."""
        token, now = secrets.token_urlsafe(TOKEN_BYTES), self._now_ms()
        own = self._of_user.get(user.name, ())
        if len(own) >= self._most_of_user:
            self._forget(next(iter(own)))
        elif len(self._by_hash) >= self._most:
            self._forget(next(iter(self._by_hash)))
        key = _hash(token)
        self._by_hash[key] = _Session(user.definition, now, now)
        self._of_user.setdefault(user.name, OrderedDict())[key] = None
        return token

    def user_of(self, token: str) -> User | None:
        """Return the user of a session, which has been used now; None if it has ended."""
        key, now = _hash(token), self._now_ms()
        session = self._by_hash.get(key)
        if session is None:
            return None
        user = self._broker.users.get(session.user.name)
        is_same = user is not None and user.definition.password_hash == session.user.password_hash
        if not is_same or now - session.used_ms >= IDLE_MS or now - session.begun_ms >= LONGEST_MS:
            self._forget(key)
            return None
        session.used_ms = now
        self._by_hash.move_to_end(key)
        self._of_user[session.user.name].move_to_end(key)
        return user

    def end(self, token: str) -> None:
        """End a session, if there is one."""
        if (key := _hash(token)) in self._by_hash:
            self._forget(key)

    def _forget(self, key: bytes) -> None:
        name = self._by_hash.pop(key).user.name
        own = self._of_user[name]
        del own[key]
        if not own:
            del self._of_user[name]


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def cookie_name(*, is_tls: bool) -> str:
    """Return the name of the cookie; over TLS, one that no other host can set."""
    return SECURE_COOKIE if is_tls else COOKIE


def set_cookie(token: str, *, is_tls: bool) -> str:
    """Return the header that gives a browser its token; an empty token takes it away."""
    secure = "; Secure" if is_tls else ""
    age = f"; Max-Age={LONGEST_MS // 1000 if token else 0}"
    return f"{cookie_name(is_tls=is_tls)}={token}; Path=/; HttpOnly; SameSite=Strict{age}{secure}"


def token_of(cookies: str, *, is_tls: bool) -> str | None:
    """Return the token that a Cookie header has, if any."""
    for cookie in cookies.split(";"):
        name, separator, value = cookie.strip().partition("=")
        if separator and name == cookie_name(is_tls=is_tls):
            return value
    return None
