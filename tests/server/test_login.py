"""Logins in the server: which password is checked, from which address, and how often a hash is computed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from amqpd.broker.access import User
from amqpd.broker.broker import Broker
from amqpd.broker.definitions import UserDefinition, VhostDefinition
from amqpd.broker.passwords import PasswordForm, StoredPassword, hash_known_password, password_matches
from amqpd.config.settings import is_loopback
from amqpd.server import login as login_module
from amqpd.server.login import Logins
from amqpd.session.sasl_steps import Login, LoginRequest, ProvenLogin
from amqpd.store.journal import MemoryJournal

SLOW = "scrypt"
HOW: dict[str, Any] = {}        # see the fixture `how`


class FakeSession:
    """A session that waits for an answer to its login."""

    def __init__(self, login: Login, host: str, *, has_tls: bool = False) -> None:
        self.login: Login | None = login
        is_local = is_loopback(host)
        self.state = SimpleNamespace(is_local=is_local, is_private=is_local or has_tls)
        self.answer = asyncio.get_running_loop().create_future()
        self.reason = ""

    def logged_in(self, user: User) -> None:
        self.login = None
        self.answer.set_result(user.name)

    def login_failed(self, reason: str) -> None:
        self.login = None
        self.reason = reason
        self.answer.set_result(None)


@pytest.fixture
def broker() -> Broker:
    """Users with a quick hash, with a slow one, and with none."""
    broker = Broker(MemoryJournal())
    broker.add_vhost(VhostDefinition("/"))
    broker.users.add(UserDefinition("quick", *hash_known_password("right")))
    broker.users.add(UserDefinition("slow", "hash of right", SLOW))
    broker.users.add(UserDefinition("nobody", ""))
    return broker


@pytest.fixture(autouse=True)
def how() -> Iterator[dict[str, Any]]:
    """How logins are looked at, beside what `Logins` does by itself."""
    yield HOW
    HOW.clear()


@pytest.fixture
def computed(how: dict[str, Any]) -> list[str]:
    """The users for whom a slow hash was computed; it is compared as text, to be quick."""
    users: list[str] = []

    def password_matches(definition: UserDefinition | None, password: str) -> bool:
        users.append(definition.name if definition else "")
        return definition is not None and definition.password_hash == f"hash of {password}"

    how["matches"] = password_matches
    return users


def run(broker: Broker, talk: Callable[[Logins], Awaitable[Any]], *, delay_s: float = 0.0) -> Any:
    async def main() -> Any:
        logins = Logins(broker, frozenset({"quick"}), delay_s, **HOW)
        try:
            return await talk(logins)
        finally:
            logins.close()

    return asyncio.run(main())


def begin(logins: Logins, session: FakeSession, host: str = "127.0.0.1") -> None:
    """Have the password of this session looked at."""
    logins.check(session, host, lambda: None)  # type: ignore[arg-type]  # it is all that a login needs of a session


async def log_in(logins: Logins, user: str, password: str, host: str = "127.0.0.1") -> Any:
    session = FakeSession(LoginRequest(user, password), host)
    begin(logins, session, host)
    return await session.answer


@pytest.mark.parametrize(("user", "password", "expected"), [
    ("quick", "right", "quick"), ("quick", "wrong", None), ("slow", "right", "slow"), ("slow", "wrong", None),
    ("nobody", "", None), ("unknown", "right", None), ("", "", None),
])
def test_the_right_password_logs_in_and_nothing_else(
    broker: Broker, computed: list[str], user: str, password: str, expected: str | None
) -> None:
    assert run(broker, lambda logins: log_in(logins, user, password)) == expected
    assert len(computed) == (0 if expected == "quick" else 1), "each refusal costs one slow hash, whatever its reason"


@pytest.mark.parametrize("host", ["10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1"])
def test_a_loopback_user_logs_in_from_this_machine_only(broker: Broker, computed: list[str], host: str) -> None:
    assert run(broker, lambda logins: log_in(logins, "quick", "right", host)) is None
    assert run(broker, lambda logins: log_in(logins, "slow", "right", host)) == "slow"
    assert computed == ["", "slow"]


@pytest.mark.parametrize(("login", "host", "expected", "reason"), [
    (ProvenLogin("slow"), "10.0.0.1", "slow", ""),
    (ProvenLogin("nobody"), "10.0.0.1", "nobody", ""),
    (ProvenLogin("quick"), "127.0.0.1", "quick", ""),
    (ProvenLogin("quick"), "10.0.0.1", None, "this user may only connect from this machine (loopback_users)"),
    (ProvenLogin("CN=nobody"), "127.0.0.1", None, "no such user"),
    (ProvenLogin("", "the certificate has no name"), "127.0.0.1", None, "the certificate has no name"),
    (ProvenLogin("slow", "the password is wrong"), "127.0.0.1", None, "the password is wrong"),
])
def test_a_login_without_a_password_to_check_needs_a_user_who_may_come_from_there(
    broker: Broker, computed: list[str], login: Login, host: str, expected: str | None, reason: str
) -> None:
    async def talk(logins: Logins) -> Any:
        session = FakeSession(login, host)
        begin(logins, session, host)
        return await session.answer, session.reason

    assert run(broker, talk) == (expected, reason)
    assert not computed


def test_a_refused_login_without_a_password_is_delayed_like_any_other(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[tuple[Login, str]] = [(ProvenLogin("slow", "wrong"), "10.0.0.1")] * 12
    assert refusals(broker, monkeypatch, attempts) == [1.0] * 10 + [5.0, 10.0]


@pytest.mark.parametrize(("login", "host", "has_tls", "lines"), [
    (LoginRequest("slow", "right"), "10.0.0.1", False, 1),
    (LoginRequest("slow", "wrong"), "10.0.0.1", False, 0),
    (LoginRequest("slow", "right"), "10.0.0.1", True, 0),
    (LoginRequest("slow", "right"), "127.0.0.1", False, 0),
    (ProvenLogin("slow"), "10.0.0.1", False, 0),
])
def test_a_password_that_can_be_read_on_the_way_is_logged_seldom(
    broker: Broker, computed: list[str], caplog: pytest.LogCaptureFixture, login: Login, host: str, has_tls: bool,
    lines: int,
) -> None:
    async def talk(logins: Logins) -> None:
        for _ in range(3):
            session = FakeSession(login, host, has_tls=has_tls)
            begin(logins, session, host)
            await session.answer

    run(broker, talk)
    assert [record.getMessage() for record in caplog.records] == [
        "user 'slow' sent the password from 10.0.0.1 without TLS, readable on the way: use TLS, and set "
        "login.require_tls so that such logins are refused"] * lines


@pytest.mark.parametrize(("user", "host", "reason"), [
    ("unknown", "127.0.0.1", "no such user"),
    ("slow", "127.0.0.1", "the password is wrong"),
    ("nobody", "127.0.0.1", "this user has no password"),
    ("quick", "10.0.0.1", "this user may only connect from this machine (loopback_users)"),
])
def test_the_reason_of_a_refusal_is_told_to_the_log(
    broker: Broker, computed: list[str], user: str, host: str, reason: str
) -> None:
    async def talk(logins: Logins) -> str:
        session = FakeSession(LoginRequest(user, "wrong"), host)
        begin(logins, session, host)
        await session.answer
        return session.reason

    assert run(broker, talk) == reason


def test_a_right_answer_is_remembered(broker: Broker, computed: list[str]) -> None:
    async def talk(logins: Logins) -> list[Any]:
        return [await log_in(logins, "slow", password) for password in ("right", "right", "wrong", "right")]

    assert run(broker, talk) == ["slow", "slow", None, "slow"]
    assert computed == ["slow", "slow"]


def test_a_right_answer_is_remembered_for_five_minutes(
    broker: Broker, computed: list[str], how: dict[str, Any]
) -> None:
    now = 1_000
    how["clock"] = lambda: now

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
        broker.users.change_password("slow", "hash of new", SLOW)
        return await log_in(logins, "slow", "right"), await log_in(logins, "slow", "new")

    assert run(broker, talk) == (None, "slow")


def test_only_so_many_answers_are_remembered(
    broker: Broker, computed: list[str], how: dict[str, Any]
) -> None:
    how["most_remembered"] = 1
    broker.users.add(UserDefinition("also slow", "hash of right", SLOW))

    async def talk(logins: Logins) -> None:
        for user in ("slow", "also slow", "also slow", "slow"):
            assert await log_in(logins, user, "right") == user
        assert len(logins._right) == 1

    run(broker, talk)
    assert computed == ["slow", "also slow", "slow"]


def test_a_user_deleted_meanwhile_is_refused(broker: Broker, computed: list[str]) -> None:
    async def talk(logins: Logins) -> Any:
        session = FakeSession(LoginRequest("slow", "right"), "127.0.0.1")
        begin(logins, session)
        broker.users.delete("slow")
        return await session.answer

    assert run(broker, talk) is None


@pytest.mark.parametrize(("change", "expected"), [
    (lambda broker: broker.users.change_password("slow", "hash of new", SLOW), None),
    (lambda broker: broker.users.set_tags("slow", ("monitoring",)), "slow"),
], ids=["a new password", "new tags"])
def test_only_another_password_makes_an_answer_worthless_that_comes_later(
    broker: Broker, computed: list[str], change: Callable[[Broker], None], expected: str | None
) -> None:
    async def talk(logins: Logins) -> Any:
        session = FakeSession(LoginRequest("slow", "right"), "127.0.0.1")
        begin(logins, session)
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
        session = FakeSession(LoginRequest("slow", "right"), "127.0.0.1")
        begin(logins, session)
        session.login = None
        await log_in(logins, "slow", "right")
        assert not session.answer.done()

    run(broker, talk)


# Many at once

@pytest.fixture
def held(computed: list[str], how: dict[str, Any]) -> threading.Event:
    """Hashes are computed one at a time, and the first is not done before this is set."""
    held = threading.Event()
    compute = how["matches"]

    def wait_and_compute(definition: UserDefinition | None, password: str) -> bool:
        assert definition is not None
        if definition.hashing_algorithm == SLOW:
            assert held.wait(10), "the test never let go"
        return compute(definition, password)

    how.update(matches=wait_and_compute, threads=1)
    return held


def ask(logins: Logins, user: str, password: str, host: str = "127.0.0.1") -> FakeSession:
    """A session whose password waits to be looked at."""
    session = FakeSession(LoginRequest(user, password), host)
    begin(logins, session, host)
    return session


def test_a_thousand_that_ask_the_same_at_once_cost_one_hash(
    broker: Broker, computed: list[str], held: threading.Event
) -> None:
    async def talk(logins: Logins) -> set[Any]:
        sessions = [ask(logins, "slow", "right", f"10.0.0.{number % 7}") for number in range(1_000)]
        held.set()
        return set(await asyncio.gather(*[session.answer for session in sessions]))

    assert run(broker, talk) == {"slow"}
    assert computed == ["slow"]


def test_what_nobody_waits_for_any_more_is_not_computed(
    broker: Broker, computed: list[str], held: threading.Event
) -> None:
    async def talk(logins: Logins) -> Any:
        sessions = [ask(logins, "slow", f"guess {number}") for number in range(1_000)]
        honest = ask(logins, "slow", "right")
        for session in sessions:
            session.login = None        # its socket is gone
        held.set()
        answer = await honest.answer
        assert not logins._hashes and not len(logins._queue)
        return answer

    assert run(broker, talk) == "slow"
    assert computed == ["slow", "slow"], "the one that was being computed, and the one that somebody waits for"


def test_addresses_take_turns_and_so_do_the_users_of_one(
    broker: Broker, computed: list[str], held: threading.Event
) -> None:
    for name in ("other", "third"):
        broker.users.add(UserDefinition(name, "hash of right", SLOW))

    async def talk(logins: Logins) -> list[Any]:
        guesses = [ask(logins, "slow", f"guess {number}", "10.0.0.1") for number in range(50)]
        honest = [ask(logins, "other", "right", "10.0.0.1"), ask(logins, "third", "right", "10.0.0.2")]
        held.set()
        answers = await asyncio.gather(*[session.answer for session in honest])
        for guess in guesses:
            guess.login = None
        return answers

    assert run(broker, talk) == ["other", "third"]
    assert len(computed) <= 6


def test_a_wrong_and_a_right_password_do_not_share_an_answer(broker: Broker, held: threading.Event) -> None:
    async def talk(logins: Logins) -> list[Any]:
        sessions = [ask(logins, "slow", password) for password in ("wrong", "right", "wrong", "right")]
        held.set()
        return await asyncio.gather(*[session.answer for session in sessions])

    assert run(broker, talk) == [None, "slow", None, "slow"]


def refusals(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, attempts: list[tuple[Login, str]]
) -> list[float]:
    """How late the refusals of these attempts come (login, address), in the order in which they are made."""
    async def talk(logins: Logins) -> list[float]:
        loop = asyncio.get_running_loop()
        delays: list[float] = []

        def call_later(delay_s: float, *call: Any) -> Any:
            delays.append(delay_s)
            return loop.call_soon(*call)

        monkeypatch.setattr(loop, "call_later", call_later)
        for login, host in attempts:
            session = FakeSession(login, host)
            begin(logins, session, host)
            await session.answer
        return delays

    HOW["clock"] = lambda: 1_000
    return run(broker, talk, delay_s=1.0)   # type: ignore[no-any-return]  # what the talk returns


def test_the_refusals_of_an_address_come_later_after_ten(
    broker: Broker, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[tuple[Login, str]] = [
        (LoginRequest(f"user {number}", "wrong"), "10.0.0.1") for number in range(13)]
    assert refusals(broker, monkeypatch, attempts) == [1.0] * 10 + [5.0, 10.0, 10.0]


def test_the_refusals_of_a_user_come_later_after_twenty(
    broker: Broker, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[tuple[Login, str]] = [
        (LoginRequest("slow", "wrong"), f"10.0.0.{number}") for number in range(24)]
    assert refusals(broker, monkeypatch, attempts) == [1.0] * 20 + [3.0, 6.0, 9.0, 10.0]


def test_nobody_is_locked_out_by_failures_of_others(
    broker: Broker, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[tuple[Login, str]] = [
        *[(LoginRequest("slow", "wrong"), "10.0.0.1")] * 30, (LoginRequest("slow", "right"), "10.0.0.1")]
    assert len(refusals(broker, monkeypatch, attempts)) == 30
    assert computed == ["slow"] * 31


@pytest.mark.parametrize(("host", "expected"), [
    ("127.0.0.1", True), ("127.8.9.10", True), ("::1", True), ("::ffff:127.0.0.1", True), ("10.0.0.1", False),
    ("::", False), ("fe80::1%eth0", False), ("::ffff:10.0.0.1", False), ("0.0.0.0", False),
])
def test_which_addresses_are_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# Passwords that are stored in another form

BOTH = PasswordForm(with_scram=True, rehashes=True)


async def at_rest(logins: Logins) -> None:
    """No password waits to be stored, nor is one being hashed."""
    while logins._to_store or logins._computing:
        await asyncio.sleep(0)


@pytest.mark.parametrize(("form", "algorithm", "has_verifier"), [
    (PasswordForm(), "rabbit_password_hashing_sha256", False),
    (PasswordForm(with_scram=True), "rabbit_password_hashing_sha256", True),
    (PasswordForm(rehashes=True), "scrypt", False),
    (BOTH, "scrypt", True),
])
def test_a_right_password_is_stored_in_the_form_of_today(
    broker: Broker, how: dict[str, Any], form: PasswordForm, algorithm: str, has_verifier: bool
) -> None:
    before = broker.users["quick"].definition
    changes: list[bool] = []
    how.update(form=form, on_change=lambda: changes.append(True))

    async def talk(logins: Logins) -> None:
        await log_in(logins, "quick", "wrong")
        await at_rest(logins)
        assert broker.users["quick"].definition == before, "only a right password is stored"
        await log_in(logins, "quick", "right")
        await at_rest(logins)
        after = broker.users["quick"].definition
        assert (after.hashing_algorithm, bool(after.scram_sha256)) == (algorithm, has_verifier)
        assert password_matches(after, "right") and not password_matches(after, "wrong")
        assert bool(changes) == (after != before)
        assert await log_in(logins, "quick", "right") == "quick"
        await at_rest(logins)
        assert broker.users["quick"].definition == after

    run(broker, talk)


def test_a_second_password_is_stored_in_the_form_of_today_too(broker: Broker, how: dict[str, Any]) -> None:
    how["form"] = PasswordForm(with_scram=True)

    async def talk(logins: Logins) -> None:
        for password in ("right", "new"):
            broker.users.change_password("quick", *hash_known_password(password))
            assert await log_in(logins, "quick", password) == "quick"
            await at_rest(logins)
            assert broker.users["quick"].definition.scram_sha256

    run(broker, talk)


def test_the_memory_holds_for_a_password_that_is_stored_anew(
    broker: Broker, computed: list[str], how: dict[str, Any]
) -> None:
    how["form"] = BOTH

    async def talk(logins: Logins) -> None:
        await log_in(logins, "quick", "right")
        await at_rest(logins)
        assert broker.users["quick"].definition.hashing_algorithm == "scrypt"
        assert await log_in(logins, "quick", "right") == "quick"

    run(broker, talk)
    assert not computed


def test_a_storm_of_logins_stores_a_password_once(
    broker: Broker, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[str] = []
    real = PasswordForm.stored_anew

    def stored_anew(form: PasswordForm, user: UserDefinition, password: str) -> StoredPassword:
        stored.append(user.name)
        return real(form, user, password)

    monkeypatch.setattr(PasswordForm, "stored_anew", stored_anew)
    how["form"] = BOTH

    async def talk(logins: Logins) -> None:
        assert set(await asyncio.gather(*[log_in(logins, "quick", "right") for _ in range(1_000)])) == {"quick"}
        await at_rest(logins)

    run(broker, talk)
    assert stored == ["quick"]


@pytest.mark.parametrize("change", [
    lambda broker: broker.users.change_password("quick", *hash_known_password("new")),
    lambda broker: broker.users.delete("quick"),
], ids=["changed", "deleted"])
def test_a_password_that_is_changed_meanwhile_is_not_stored(
    broker: Broker, how: dict[str, Any], change: Callable[[Broker], None]
) -> None:
    how["form"] = BOTH

    async def talk(logins: Logins) -> None:
        await log_in(logins, "quick", "right")
        change(broker)
        after = broker.users.get("quick")
        kept = after.definition if after is not None else None
        await at_rest(logins)
        assert broker.users.get("quick") is after and (after is None or after.definition == kept)

    run(broker, talk)


def test_those_who_wait_for_their_login_come_before_passwords_to_be_stored(
    broker: Broker, computed: list[str], held: threading.Event, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    how["form"] = BOTH
    for name in ("other", "third"):
        broker.users.add(UserDefinition(name, "hash of right", SLOW))
    monkeypatch.setattr(
        PasswordForm, "stored_anew", lambda form, user, password: computed.append("anew") or StoredPassword("h", SLOW))

    async def talk(logins: Logins) -> None:
        waiting = [ask(logins, "slow", "right")]
        await log_in(logins, "quick", "right")
        waiting += [ask(logins, name, "right") for name in ("other", "third")]
        held.set()
        await asyncio.gather(*[session.answer for session in waiting])
        await at_rest(logins)

    run(broker, talk)
    assert computed[:3] == ["slow", "other", "third"] and computed[3:] == ["anew"] * 4


def test_only_so_many_passwords_wait_to_be_stored(
    broker: Broker, computed: list[str], held: threading.Event, how: dict[str, Any]
) -> None:
    how.update(form=BOTH, most_to_store=2)
    for number in range(4):
        broker.users.add(UserDefinition(f"user {number}", *hash_known_password("right")))

    async def talk(logins: Logins) -> int:
        ask(logins, "slow", "right")
        for number in range(4):
            await log_in(logins, f"user {number}", "right")
        held.set()
        return len(logins._to_store)

    assert run(broker, talk) == 2
