"""Logins as the server looks at them: whose password, from where, how often it is computed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from amqpd.broker.access import User, hash_known_password
from amqpd.broker.broker import Broker
from amqpd.broker.definitions import UserDefinition, VhostDefinition
from amqpd.broker import access
from amqpd.server import login as login_module
from amqpd.server.login import Logins, is_loopback
from amqpd.session.credentials import LoginRequest
from amqpd.store.journal import MemoryJournal

SLOW = "scrypt"


class FakeSession:
    """A session that waits for an answer to its login."""

    def __init__(self, user: str, password: str) -> None:
        self.login: LoginRequest | None = LoginRequest(user, password)
        self.answer = asyncio.get_running_loop().create_future()

    def logged_in(self, user: User) -> None:
        self.login = None
        self.answer.set_result(user.name)

    def login_failed(self) -> None:
        self.login = None
        self.answer.set_result(None)


@pytest.fixture
def broker() -> Broker:
    """Users with a quick hash, with a slow one, and with none."""
    broker = Broker(MemoryJournal())
    broker.add_vhost(VhostDefinition("/"))
    broker.add_user(UserDefinition("quick", *hash_known_password("right")))
    broker.add_user(UserDefinition("slow", "hash of right", SLOW))
    broker.add_user(UserDefinition("nobody", ""))
    return broker


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The users whose passwords were looked at; a slow hash is compared as text, to be quick."""
    users: list[str] = []
    real = access.password_matches

    def password_matches(definition: UserDefinition | None, password: str) -> bool:
        users.append(definition.name if definition else "")
        if definition is None or definition.hashing_algorithm == SLOW:
            return definition is not None and definition.password_hash == f"hash of {password}"
        return real(definition, password)

    monkeypatch.setattr(login_module, "password_matches", password_matches)
    return users


def run(broker: Broker, talk: Callable[[Logins], Awaitable[Any]], *, delay_s: float = 0.0) -> Any:
    async def main() -> Any:
        logins = Logins(broker, frozenset({"quick"}), delay_s)
        try:
            return await talk(logins)
        finally:
            logins.close()

    return asyncio.run(main())


async def log_in(logins: Logins, user: str, password: str, host: str = "127.0.0.1") -> Any:
    session = FakeSession(user, password)
    logins.check(session, host)  # type: ignore[arg-type]  # it is all that a login needs of a session
    return await session.answer


@pytest.mark.parametrize(("user", "password", "expected"), [
    ("quick", "right", "quick"), ("quick", "wrong", None), ("slow", "right", "slow"), ("slow", "wrong", None),
    ("nobody", "", None), ("unknown", "right", None), ("", "", None),
])
def test_the_right_password_logs_in_and_nothing_else(
    broker: Broker, computed: list[str], user: str, password: str, expected: str | None
) -> None:
    assert run(broker, lambda logins: log_in(logins, user, password)) == expected
    assert len(computed) == 1, "an unknown user takes as long as a wrong password"


@pytest.mark.parametrize("host", ["10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1"])
def test_a_loopback_user_logs_in_from_this_machine_only(broker: Broker, computed: list[str], host: str) -> None:
    assert run(broker, lambda logins: log_in(logins, "quick", "right", host)) is None
    assert run(broker, lambda logins: log_in(logins, "slow", "right", host)) == "slow"
    assert computed == ["", "slow"]


def test_a_right_answer_is_remembered(broker: Broker, computed: list[str]) -> None:
    async def talk(logins: Logins) -> list[Any]:
        return [await log_in(logins, "slow", password) for password in ("right", "right", "wrong", "right")]

    assert run(broker, talk) == ["slow", "slow", None, "slow"]
    assert computed == ["slow", "slow"]


def test_a_right_answer_is_remembered_for_five_minutes(
    broker: Broker, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000
    monkeypatch.setattr(login_module, "now_ms", lambda: now)

    async def talk(logins: Logins) -> None:
        nonlocal now
        await log_in(logins, "slow", "right")
        now += login_module.REMEMBERED_MS - 1
        await log_in(logins, "slow", "right")
        assert computed == ["slow"]
        now += login_module.REMEMBERED_MS
        await log_in(logins, "slow", "right")

    run(broker, talk)
    assert computed == ["slow", "slow"]


def test_a_new_password_makes_the_memory_worthless(broker: Broker, computed: list[str]) -> None:
    async def talk(logins: Logins) -> Any:
        await log_in(logins, "slow", "right")
        broker.change_password("slow", "hash of new", SLOW)
        return await log_in(logins, "slow", "right"), await log_in(logins, "slow", "new")

    assert run(broker, talk) == (None, "slow")


def test_only_so_many_answers_are_remembered(
    broker: Broker, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_module, "REMEMBERED", 1)
    broker.add_user(UserDefinition("also slow", "hash of right", SLOW))

    async def talk(logins: Logins) -> None:
        for user in ("slow", "also slow", "also slow", "slow"):
            assert await log_in(logins, user, "right") == user
        assert len(logins._right) == 1

    run(broker, talk)
    assert computed == ["slow", "also slow", "slow"]


def test_a_user_deleted_meanwhile_is_refused(broker: Broker, computed: list[str]) -> None:
    async def talk(logins: Logins) -> Any:
        session = FakeSession("slow", "right")
        logins.check(session, "127.0.0.1")  # type: ignore[arg-type]  # it is all that a login needs of a session
        broker.delete_user("slow")
        return await session.answer

    assert run(broker, talk) is None


@pytest.mark.parametrize(("change", "expected"), [
    (lambda broker: broker.change_password("slow", "hash of new", SLOW), None),
    (lambda broker: broker.set_user_tags("slow", ("monitoring",)), "slow"),
], ids=["a new password", "new tags"])
def test_only_another_password_makes_an_answer_worthless_that_comes_later(
    broker: Broker, computed: list[str], change: Callable[[Broker], None], expected: str | None
) -> None:
    async def talk(logins: Logins) -> Any:
        session = FakeSession("slow", "right")
        logins.check(session, "127.0.0.1")  # type: ignore[arg-type]  # it is all that a login needs of a session
        change(broker)
        return await session.answer

    assert run(broker, talk) == expected


def test_a_refusal_takes_its_time(broker: Broker, computed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk(logins: Logins) -> list[float]:
        loop = asyncio.get_running_loop()
        delays: list[float] = []

        def call_later(delay_s: float, *call: Any) -> Any:
            delays.append(delay_s)
            return loop.call_soon(*call)

        monkeypatch.setattr(loop, "call_later", call_later)
        await log_in(logins, "quick", "wrong")
        await log_in(logins, "quick", "right")
        return delays

    assert run(broker, talk, delay_s=3.5) == [3.5]


def test_a_session_that_is_gone_is_not_answered(broker: Broker, computed: list[str]) -> None:
    async def talk(logins: Logins) -> None:
        session = FakeSession("slow", "right")
        logins.check(session, "127.0.0.1")  # type: ignore[arg-type]  # it is all that a login needs of a session
        session.login = None
        await log_in(logins, "slow", "right")
        assert not session.answer.done()

    run(broker, talk)


@pytest.mark.parametrize(("host", "expected"), [
    ("127.0.0.1", True), ("127.8.9.10", True), ("::1", True), ("::ffff:127.0.0.1", True), ("10.0.0.1", False),
    ("::", False), ("fe80::1%eth0", False), ("::ffff:10.0.0.1", False), ("0.0.0.0", False),
])
def test_which_addresses_are_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
