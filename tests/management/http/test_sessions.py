"""Sessions of browsers: how they begin and end, and the cookie that stands for them."""

from __future__ import annotations


import pytest

from amqpd.broker.broker import Broker
from amqpd.broker.definitions import UserDefinition
from amqpd.management.http.sessions import IDLE_MS, LONGEST_MS, Sessions, set_cookie, token_of
from tests.support.api import Api
from tests.support.journals import RecordingJournal

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_ms = 0

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def broker() -> Broker:
    broker = Broker(RecordingJournal())
    broker.users.add(UserDefinition("alice", password_hash="old"))
    return broker


def test_a_session_ends_an_hour_after_its_last_use_and_eight_hours_after_the_login(broker: Broker) -> None:
    clock = Clock()
    sessions = Sessions(broker, clock)
    token = sessions.begin(broker.users["alice"])
    for _ in range(LONGEST_MS // IDLE_MS):
        clock.now_ms += IDLE_MS - 1
        assert sessions.user_of(token) is broker.users["alice"]
    clock.now_ms += IDLE_MS - 1
    assert sessions.user_of(token) is None
    token = sessions.begin(broker.users["alice"])
    clock.now_ms += IDLE_MS
    assert sessions.user_of(token) is None


def test_a_new_password_and_the_end_of_a_user_end_the_sessions(broker: Broker) -> None:
    sessions = Sessions(broker, Clock())
    token = sessions.begin(broker.users["alice"])
    broker.users.change_password("alice", "new", "scrypt")
    assert sessions.user_of(token) is None
    token = sessions.begin(broker.users["alice"])
    broker.users.delete("alice")
    broker.users.add(UserDefinition("alice"))
    assert sessions.user_of(token) is None


def test_of_too_many_sessions_the_one_not_used_for_longest_ends(broker: Broker) -> None:
    sessions = Sessions(broker, Clock(), most=2)
    first, second = (sessions.begin(broker.users["alice"]) for _ in range(2))
    assert sessions.user_of(first) is not None
    third = sessions.begin(broker.users["alice"])
    assert [sessions.user_of(token) is not None for token in (first, second, third)] == [True, False, True]


def test_a_user_with_too_many_sessions_loses_own_ones_alone(broker: Broker) -> None:
    broker.users.add(UserDefinition("bob"))
    sessions = Sessions(broker, Clock(), most=4, most_of_user=2)
    of_bob = sessions.begin(broker.users["bob"])
    tokens = [sessions.begin(broker.users["alice"]) for _ in range(50)]
    assert [sessions.user_of(token) is not None for token in tokens] == [False] * 48 + [True] * 2
    assert sessions.user_of(of_bob) is broker.users["bob"]
    for token in (of_bob, *tokens):
        sessions.end(token)
    assert sessions.user_of(of_bob) is None and not sessions._of_user


def test_the_cookie_is_kept_from_scripts_and_from_other_sites() -> None:
    assert set_cookie("t", is_tls=False) == "amqpd=t; Path=/; HttpOnly; SameSite=Strict; Max-Age=28800"
    assert set_cookie("t", is_tls=True) == (
        "__Host-amqpd=t; Path=/; HttpOnly; SameSite=Strict; Max-Age=28800; Secure")
    assert token_of("a=b; __Host-amqpd=t", is_tls=True) == "t"
    assert token_of("a=b; __Host-amqpd=t", is_tls=False) is None


# Over HTTP

def test_a_form_begins_a_session_and_a_logout_ends_it(api: Api) -> None:
    reply = api.ask("POST", "/login", b"username=guest&password=guest", user=None, headers=FORM)
    cookie = {"Cookie": reply.headers["set-cookie"].partition(";")[0]}
    assert (reply.status, reply.body) == (200, "ok")
    assert api.get("/whoami", user=None, headers=cookie)["name"] == "guest"
    assert api.ask("POST", "/logout", user=None, headers=cookie).status == 204
    assert api.ask("GET", "/whoami", user=None, headers=cookie).status == 401


def test_a_form_with_a_wrong_password_begins_none(api: Api) -> None:
    reply = api.ask("POST", "/login", b"username=guest&password=wrong", user=None, headers=FORM)
    assert (reply.status, reply.body["reason"], "set-cookie" in reply.headers) == (401, "Login failed", False)


def test_another_site_can_neither_log_in_nor_use_a_session(api: Api) -> None:
    elsewhere = {"Origin": "http://elsewhere.example"}
    form = b"username=guest&password=guest"
    assert api.ask("POST", "/login", form, user=None, headers=FORM | elsewhere).status == 403
    reply = api.ask("POST", "/login", form, user=None, headers=FORM)
    cookie = {"Cookie": reply.headers["set-cookie"].partition(";")[0]}
    assert api.ask("DELETE", "/queues/%2F/x", user=None, headers=cookie | elsewhere).status == 403
