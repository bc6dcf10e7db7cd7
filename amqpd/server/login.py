"""Passwords, looked at outside the session: slow hashes in a thread, and a right answer remembered for a while.

Owns the memory of right answers: an HMAC of each under a key made at start, never the password. A thousand
clients that come back after a restart of theirs then cost one hash a user, not a thousand.

RabbitMQ docs/access-control (loopback users); the pause before a refusal slows down guessing.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
from concurrent.futures import ThreadPoolExecutor

from amqpd.broker.access import SCRYPT, password_matches
from amqpd.broker.broker import Broker
from amqpd.broker.definitions import UserDefinition
from amqpd.server.loop import now_ms
from amqpd.session.connection import Session
from amqpd.session.credentials import LoginRequest

REMEMBERED_MS = 300_000
REMEMBERED = 10_000


class Logins:
    """Answers the login requests of sessions."""

    def __init__(self, broker: Broker, loopback_users: frozenset[str], failure_delay_s: float) -> None:
        self._broker = broker
        self._loopback_users = loopback_users
        self._failure_delay_s = failure_delay_s
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, int] = {}
        self._threads = ThreadPoolExecutor(2, "amqpd-login")

    def check(self, session: Session, peer_host: str) -> None:
        """Answer the session, now or from a later pass."""
        request = session.login
        assert request is not None
        user = self._broker.users.get(request.user)
        definition = user.definition if user is not None else None
        if request.user in self._loopback_users and not is_loopback(peer_host):
            definition = None
        if definition is not None and (self._is_remembered(definition, request)
                                       or definition.hashing_algorithm != SCRYPT):
            matches = self._is_remembered(definition, request) or password_matches(definition, request.password)
            self._answer(session, request, definition, matches)
            return
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads, password_matches, definition, request.password)
        future.add_done_callback(lambda done: self._answer(session, request, definition, done.result()))

    def _answer(
        self, session: Session, request: LoginRequest, definition: UserDefinition | None, matches: bool
    ) -> None:
        user = self._broker.users.get(request.user)
        if session.login is not request:
            return
        if (not matches or definition is None or user is None
                or user.definition.password_hash != definition.password_hash):
            asyncio.get_running_loop().call_later(self._failure_delay_s, self._refuse, session, request)
            return
        if len(self._right) >= REMEMBERED:
            self._right.clear()
        self._right[self._digest(definition, request)] = now_ms() + REMEMBERED_MS
        session.logged_in(user)

    def _refuse(self, session: Session, request: LoginRequest) -> None:
        if session.login is request:
            session.login_failed()

    def _is_remembered(self, definition: UserDefinition, request: LoginRequest) -> bool:
        return self._right.get(self._digest(definition, request), 0) > now_ms()

    def _digest(self, definition: UserDefinition, request: LoginRequest) -> bytes:
        """The stored hash is part of it, so a new password makes the memory worthless."""
        known = "\0".join((definition.name, definition.password_hash, request.password))
        return hmac.digest(self._key, known.encode(), "sha256")

    def close(self) -> None:
        """End the threads; what they are at is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def is_loopback(host: str) -> bool:
    """Whether a peer's address is this machine's own: 127.0.0.0/8, ::1, or the first in IPv6's clothes."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
