"""Passwords, looked at outside the session: slow hashes in threads, and a right answer remembered for a while.

Owns the memory of right answers: an HMAC of each under a key made at start, never the password. A thousand
clients that come back after a restart of theirs then cost one hash a user, not a thousand; so do a thousand that ask
the same at once.

What waits for a hash is fair between addresses, and dropped once its connection is gone. There is never more of it
than clients that have not logged in. Who fails often is answered late, and never locked out: a right password is
answered at once.

RabbitMQ docs/access-control (loopback users); the pause before a refusal slows down guessing.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from amqpd.broker.access import SCRYPT, password_matches
from amqpd.broker.broker import Broker
from amqpd.broker.definitions import UserDefinition
from amqpd.server.fair_queue import FairQueue
from amqpd.server.monotonic import now_ms
from amqpd.server.pace import Pace
from amqpd.session.connection import Session
from amqpd.session.sasl import LoginRequest

REMEMBERED_MS = 300_000
REMEMBERED = 10_000
THREADS = 2
MOST_DELAY_MS = 10_000  # of a refusal


class Attempt(NamedTuple):
    """A session that waits for an answer, and what is called when it has logged in."""

    session: Session
    request: LoginRequest
    address: str
    on_logged_in: Callable[[], None]

    @property
    def is_wanted(self) -> bool:
        """Return whether the session still waits for this answer."""
        return self.session.login is self.request


class Hash(NamedTuple):
    """A password to be hashed, and all who wait for the result."""

    digest: bytes
    definition: UserDefinition | None
    password: str
    attempts: list[Attempt]

    @property
    def is_wanted(self) -> bool:
        """Return whether anybody still waits for it."""
        return any(attempt.is_wanted for attempt in self.attempts)


class Logins:
    """Answers the login requests of sessions.

    `matches` says whether a password is right, in one of `threads` threads where its hash is slow; so many right
    answers are remembered.
    """

    def __init__(
        self, broker: Broker, loopback_users: frozenset[str], failure_delay_s: float, *,
        matches: Callable[[UserDefinition | None, str], bool] = password_matches, clock: Callable[[], int] = now_ms,
        most_remembered: int = REMEMBERED, threads: int = THREADS,
    ) -> None:
        self._broker = broker
        self._loopback_users = loopback_users
        self._failure_delay_s = failure_delay_s
        self._matches = matches
        self._now_ms = clock
        self._most_remembered = most_remembered
        self._most_computing = threads
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, int] = {}
        self._address_pace = Pace(10, 5_000, MOST_DELAY_MS)
        self._user_pace = Pace(20, 3_000, MOST_DELAY_MS)
        self._queue: FairQueue[Hash] = FairQueue(self._is_wanted)
        self._hashes: dict[bytes, Hash] = {}        # by digest, those that wait or are computed
        self._computing = 0
        self._is_closed = False
        self._threads = ThreadPoolExecutor(threads, "amqpd-login")

    def check(self, session: Session, address: str, on_logged_in: Callable[[], None]) -> None:
        """Answer the session, now or from a later pass."""
        request = session.login
        assert request is not None
        user = self._broker.users.get(request.user)
        definition = user.definition if user is not None else None
        if request.user in self._loopback_users and not is_loopback(address):
            definition = None
        attempt = Attempt(session, request, address, on_logged_in)
        digest = self._digest(definition, request)
        if definition is not None and (self._is_remembered(digest) or definition.hashing_algorithm != SCRYPT):
            matches = self._is_remembered(digest) or self._matches(definition, request.password)
            self._answer(attempt, definition, matches)
        elif digest in self._hashes:
            self._hashes[digest].attempts.append(attempt)
        else:
            self._hashes[digest] = Hash(digest, definition, request.password, [attempt])
            self._queue.put(address, request.user, self._hashes[digest])
            self._compute_next()

    def _is_wanted(self, hash_: Hash) -> bool:
        """Return whether anybody waits for it; if not, it is forgotten."""
        if not hash_.is_wanted:
            self._hashes.pop(hash_.digest, None)
            return False
        return True

    def _compute_next(self) -> None:
        """Give the threads what is next."""
        while (not self._is_closed and self._computing < self._most_computing
               and (hash_ := self._queue.take()) is not None):
            self._computing += 1
            future = asyncio.get_running_loop().run_in_executor(
                self._threads, self._matches, hash_.definition, hash_.password)
            future.add_done_callback(partial(self._computed, hash_))

    def _computed(self, hash_: Hash, future: asyncio.Future[bool]) -> None:
        self._computing -= 1
        del self._hashes[hash_.digest]
        self._compute_next()
        if not future.cancelled():
            for attempt in hash_.attempts:
                self._answer(attempt, hash_.definition, future.result())

    def _answer(self, attempt: Attempt, definition: UserDefinition | None, matches: bool) -> None:
        request = attempt.request
        user = self._broker.users.get(request.user)
        if not attempt.is_wanted:
            return
        if (not matches or definition is None or user is None
                or user.definition.password_hash != definition.password_hash):
            asyncio.get_running_loop().call_later(self._delay_s(attempt), self._refuse, attempt)
            return
        if len(self._right) >= self._most_remembered:
            self._right.clear()
        self._right[self._digest(definition, request)] = self._now_ms() + REMEMBERED_MS
        attempt.session.logged_in(user)
        attempt.on_logged_in()

    def _delay_s(self, attempt: Attempt) -> float:
        """Return how long a refusal takes: longer where one address, or for one user, has had many."""
        now = self._now_ms()
        return max(self._failure_delay_s, self._address_pace.delay_ms(attempt.address, now) / 1000,
                   self._user_pace.delay_ms(attempt.request.user, now) / 1000)

    def _refuse(self, attempt: Attempt) -> None:
        if attempt.is_wanted:
            attempt.session.login_failed(self._reason(attempt))

    def _reason(self, attempt: Attempt) -> str:
        """Return why a login is refused: for the log only, as a client must not learn which users there are."""
        name = attempt.request.user
        user = self._broker.users.get(name)
        if user is None:
            return "there is no such user"
        if name in self._loopback_users and not is_loopback(attempt.address):
            return "this user can only connect from this machine (loopback_users)"
        if not user.definition.password_hash:
            return "this user has no password"
        return "the password is wrong"

    def _is_remembered(self, digest: bytes) -> bool:
        return self._right.get(digest, 0) > self._now_ms()

    def _digest(self, definition: UserDefinition | None, request: LoginRequest) -> bytes:
        """The stored hash is part of it, so a new password makes the memory worthless."""
        stored = None if definition is None else definition.password_hash
        return hmac.digest(self._key, repr((stored, request.user, request.password)).encode(), "sha256")

    def close(self) -> None:
        """End the threads; what they are at is not waited for."""
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)


def is_loopback(host: str) -> bool:
    """Whether a peer's address is this machine's own: 127.0.0.0/8, ::1, or the first in IPv6's clothes."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
