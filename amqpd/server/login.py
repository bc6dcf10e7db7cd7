"""Check logins outside the session: slow hashes run in threads, and correct answers are cached for a while.

Owns the cache of correct answers: an HMAC of each under a random key, never the password. When a thousand clients
reconnect at once, each user costs one hash, not a thousand; equal requests at the same time share one hash.

Pending hashes are fair between addresses, and dropped once the connection is gone. There are never more of them than
clients that have not logged in. After many failures a refusal is delayed, but no user is locked out: a correct password
is answered at once. Every refusal has cost one hash, so that its time does not tell which users exist.

RabbitMQ docs/access-control (loopback users); the pause before a refusal slows down guessing.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, Protocol

from amqpd.broker.access import User
from amqpd.broker.broker import Broker
from amqpd.broker.definitions import UserDefinition
from amqpd.broker.passwords import PasswordForm, StoredPassword, matches_at_once, password_matches
from amqpd.broker.worklist import nothing
from amqpd.server.fair_queue import FairQueue
from amqpd.server.monotonic import now_ms
from amqpd.server.pace import Pace
from amqpd.server.sparing_log import SparingLog
from amqpd.session.sasl_steps import Login, LoginRequest, ProvenLogin

REMEMBERED_MS = 300_000
REMEMBERED = 10_000
THREADS = 2
MOST_DELAY_MS = 10_000  # of a refusal
MOST_TO_STORE = 256     # passwords that wait to be stored in another form; others are stored after a later login
CLEAR_TEXT_INTERVAL_S = 3_600.0     # between two warnings of passwords that can be read on the way
AMQP, HTTP = "amqp091", "http"      # RabbitMQ's names of the protocols, in its counts of logins

log = logging.getLogger("amqpd.connection")


class Origin(Protocol):
    """Where a client is, and whether its password can be read on the way."""

    @property
    def is_local(self) -> bool:
        """Whether the client is on this machine."""

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can read what the client sends."""


class Applicant(Protocol):
    """A client that logs in: a session, or a request to the management API."""

    @property
    def login(self) -> Login | None:
        """The login to check; None once it is no longer wanted."""

    @property
    def state(self) -> Origin:
        """Where the client is."""

    def logged_in(self, user: User) -> object:
        """Note that the login was right."""

    def login_failed(self, reason: str) -> None:
        """Note that the login is refused; the reason is for the log."""


class Attempt(NamedTuple):
    """A client that waits for an answer, and the callback for a successful login.

    `counts` has how many logins of its protocol succeeded and failed.
    """

    session: Applicant
    request: Login
    address: str
    on_logged_in: Callable[[], None]
    counts: list[int]

    @property
    def is_wanted(self) -> bool:
        """Return whether the session still waits for this answer."""
        return self.session.login is self.request


class Hash(NamedTuple):
    """A password to be hashed, and the attempts that wait for the result."""

    digest: bytes
    definition: UserDefinition | None
    request: LoginRequest
    attempts: list[Attempt]

    @property
    def is_wanted(self) -> bool:
        """Whether an attempt still waits for the result."""
        return any(attempt.is_wanted for attempt in self.attempts)


class Logins:
    """Answers the login requests of sessions. A callback holds a request, not a password: `repr` shows what it holds.

    `matches` checks a password, slowly, in one of `threads` threads. `most_remembered` correct answers are cached.
    Passwords that were right are stored in this `form`, if they are not yet; then `on_change` is called.
    """

    def __init__(
        self, broker: Broker, loopback_users: frozenset[str], failure_delay_s: float, *,
        form: PasswordForm = PasswordForm(), on_change: Callable[[], None] = nothing,
        matches: Callable[[UserDefinition | None, str], bool] = password_matches, clock: Callable[[], int] = now_ms,
        most_remembered: int = REMEMBERED, threads: int = THREADS, most_to_store: int = MOST_TO_STORE,
    ) -> None:
        self._broker = broker
        self._loopback_users = loopback_users
        self._failure_delay_s = failure_delay_s
        self._form = form
        self._on_change = on_change
        self._matches = matches
        self._now_ms = clock
        self._most_remembered = most_remembered
        self._most_to_store = most_to_store
        self._most_computing = threads
        self.attempts = {AMQP: [0, 0], HTTP: [0, 0]}        # by protocol, how many logins succeeded and failed
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, int] = {}
        self._address_pace = Pace(10, 5_000, MOST_DELAY_MS)
        self._user_pace = Pace(20, 3_000, MOST_DELAY_MS)
        self._queue: FairQueue[Hash] = FairQueue(self._is_wanted)
        self._hashes: dict[bytes, Hash] = {}        # by digest, pending or running
        self._to_store: dict[str, tuple[UserDefinition, LoginRequest]] = {}      # by user, passwords that were right
        self._storing: set[str] = set()     # users whose passwords are hashed for that
        self._computing = 0
        self._is_closed = False
        self._threads = ThreadPoolExecutor(threads, "amqpd-login")
        self._sparing_log = SparingLog(log, CLEAR_TEXT_INTERVAL_S)

    def change_rules(self, loopback_users: frozenset[str], failure_delay_s: float) -> None:
        """Use these for logins from now on."""
        self._loopback_users = loopback_users
        self._failure_delay_s = failure_delay_s

    def check(
        self, session: Applicant, address: str, on_logged_in: Callable[[], None], protocol: str = AMQP
    ) -> None:
        """Answer the session, now or in a later turn; the answer counts among those of its protocol."""
        request = session.login
        assert request is not None
        user = self._broker.users.get(request.user)
        definition = user.definition if user is not None else None
        attempt = Attempt(session, request, address, on_logged_in, self.attempts[protocol])
        if self._must_be_local(attempt):
            definition = None
        if isinstance(request, ProvenLogin):
            self._answer(attempt, definition, not request.fault)
        else:
            self._check_password(attempt, request, definition)

    def _must_be_local(self, attempt: Attempt) -> bool:
        """Return whether the user may only log in from this machine, and the client is not on it."""
        return attempt.request.user in self._loopback_users and not attempt.session.state.is_local

    def _check_password(self, attempt: Attempt, request: LoginRequest, definition: UserDefinition | None) -> None:
        digest = self._digest(definition, request)
        if definition is not None and (self._is_remembered(digest) or matches_at_once(definition, request.password)):
            self._answer(attempt, definition, True)
        elif digest in self._hashes:
            self._hashes[digest].attempts.append(attempt)
        else:
            self._hashes[digest] = Hash(digest, definition, request, [attempt])
            self._queue.put(attempt.address, request.user, self._hashes[digest])
            self._compute_next()

    def _is_wanted(self, hash_: Hash) -> bool:
        """Return whether an attempt waits for this hash; if not, drop it."""
        if not hash_.is_wanted:
            self._hashes.pop(hash_.digest, None)
            return False
        return True

    def _compute_next(self) -> None:
        """Give the free threads the next hashes: first those that somebody waits for."""
        while not self._is_closed and self._computing < self._most_computing:
            hash_ = self._queue.take()
            if hash_ is not None:
                self._compute(partial(self._computed, hash_), self._matches, hash_.definition, hash_.request.password)
            elif self._to_store:
                name = next(iter(self._to_store))
                definition, request = self._to_store.pop(name)
                self._storing.add(name)
                self._compute(
                    partial(self._store, definition, request), self._form.stored_anew, definition, request.password)
            else:
                return

    def _compute(
        self, on_done: Callable[[asyncio.Future[Any]], None], compute: Callable[..., Any], *given: Any
    ) -> None:
        self._computing += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, compute, *given)
        future.add_done_callback(on_done)

    def _computed(self, hash_: Hash, future: asyncio.Future[bool]) -> None:
        self._computing -= 1
        del self._hashes[hash_.digest]
        self._compute_next()
        if not future.cancelled():
            for attempt in hash_.attempts:
                self._answer(attempt, hash_.definition, future.result())

    def _store_anew(self, definition: UserDefinition, request: LoginRequest) -> None:
        """Have a password that was right stored in another form, once no login waits for a thread."""
        if definition.name not in self._storing and len(self._to_store) < self._most_to_store:
            self._to_store[definition.name] = definition, request
            self._compute_next()

    def _store(
        self, definition: UserDefinition, request: LoginRequest, future: asyncio.Future[StoredPassword]
    ) -> None:
        """Store a password in another form, unless it has been changed meanwhile."""
        self._computing -= 1
        user = self._broker.users.get(definition.name)
        self._storing.discard(definition.name)
        if (not (future.cancelled() or self._is_closed) and user is not None
                and user.definition.password_hash == definition.password_hash):
            stored = future.result()
            self._on_change()
            self._broker.users.change_password(
                definition.name, stored.password_hash, stored.hashing_algorithm, stored.scram_sha256)
            self._remember(user.definition, request)
        self._compute_next()

    def _answer(self, attempt: Attempt, definition: UserDefinition | None, matches: bool) -> None:
        request = attempt.request
        user = self._broker.users.get(request.user)
        if not attempt.is_wanted:
            return
        if (not matches or definition is None or user is None
                or user.definition.password_hash != definition.password_hash):
            asyncio.get_running_loop().call_later(self._delay_s(attempt), self._refuse, attempt)
            return
        if isinstance(request, LoginRequest):
            self._remember(user.definition, request)
            self._warn_of_clear_text(attempt)
            if not self._form.is_kept_by(user.definition):
                self._store_anew(user.definition, request)
        attempt.counts[0] += 1
        attempt.session.logged_in(user)
        attempt.on_logged_in()

    def _remember(self, definition: UserDefinition, request: LoginRequest) -> None:
        if len(self._right) >= self._most_remembered:
            self._right.clear()
        self._right[self._digest(definition, request)] = self._now_ms() + REMEMBERED_MS

    def _warn_of_clear_text(self, attempt: Attempt) -> None:
        if not attempt.session.state.is_private:
            self._sparing_log.warning(
                "user '%s' sent the password from %s without TLS, readable on the way: use TLS, and set "
                "login.require_tls so that such logins are refused", attempt.request.user, attempt.address)

    def _delay_s(self, attempt: Attempt) -> float:
        """Return the delay of a refusal: longer after many refusals for the address or the user."""
        now = self._now_ms()
        return max(self._failure_delay_s, self._address_pace.delay_ms(attempt.address, now) / 1000,
                   self._user_pace.delay_ms(attempt.request.user, now) / 1000)

    def _refuse(self, attempt: Attempt) -> None:
        if attempt.is_wanted:
            attempt.counts[1] += 1
            attempt.session.login_failed(self._reason(attempt))

    def _reason(self, attempt: Attempt) -> str:
        """Return why a login is refused: for the log only, as clients must not learn which users exist."""
        request = attempt.request
        user = self._broker.users.get(request.user)
        if isinstance(request, ProvenLogin) and not request.user:
            return request.fault
        if user is None:
            return "no such user"
        if self._must_be_local(attempt):
            return "this user may only connect from this machine (loopback_users)"
        if isinstance(request, ProvenLogin):
            return request.fault or "the user has changed meanwhile"
        if not user.definition.password_hash:
            return "this user has no password"
        return "the password is wrong"

    def _is_remembered(self, digest: bytes) -> bool:
        return self._right.get(digest, 0) > self._now_ms()

    def _digest(self, definition: UserDefinition | None, request: LoginRequest) -> bytes:
        """Return the key of the cache. It includes the stored hash, so that a new password invalidates the entry."""
        stored = None if definition is None else definition.password_hash
        return hmac.digest(self._key, repr((stored, request.user, request.password)).encode(), "sha256")

    def close(self) -> None:
        """End the threads without waiting for running hashes."""
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
