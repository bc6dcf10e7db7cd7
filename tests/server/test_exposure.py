"""Who can reach the broker: guest's password alone opens nothing to the network, and the log tells what is open."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from amqpd.broker.definitions import UserDefinition
from amqpd.broker.passwords import hash_known_password
from amqpd.cli import main
from amqpd.config import Config, load
from amqpd.config.settings import Listener
from amqpd.server.config_check import check_config
from amqpd.server.exposure import begins_with_guest_alone, describe, has_guest_alone, refusal, warnings
from amqpd.server.runtime import Runtime
from amqpd.server.startup import StartError

Loader = Callable[[str], Config]
FAULT = (
    "0.0.0.0:1 would be open to the network, but the only user is guest with the password guest, who may connect from "
    "this machine only: {}, or set loopback_users = [] to let guest in from everywhere")
AT_FIRST = FAULT.format("set default_user and default_password (AMQPD_DEFAULT_USER, AMQPD_DEFAULT_PASSWORD)")
LATER = FAULT.format(
    "add a user with [[users]], or with 'amqpctl add_user' while the broker listens to this machine only")


@pytest.fixture
def config(tmp_path: Path) -> Loader:
    """Read the text of a configuration file, with a data directory of its own."""
    def read(text: str) -> Config:
        path = tmp_path / "amqpd.toml"
        path.write_text(f'data_dir = "{tmp_path}/data"\n{text}')
        return load(str(path), {})

    return read


def user(name: str, password: str) -> UserDefinition:
    return UserDefinition(name, *hash_known_password(password))


@pytest.mark.parametrize(("listener", "open_"), [
    ("127.0.0.1:1", False), ("127.9.9.9:1", False), ("[::1]:1", False), ("localhost:1", False), (":1", False),
    ("0.0.0.0:1", True), ("[::]:1", True), ("10.0.0.1:1", True), ("broker.example.org:1", True),
])
def test_a_listener_is_open_unless_its_address_is_a_loopback_one(listener: str, open_: bool) -> None:
    assert Listener(listener).is_open is open_


def test_guest_is_alone_without_another_user_or_password() -> None:
    assert has_guest_alone([user("guest", "guest")]) and has_guest_alone([])
    assert not has_guest_alone([user("guest", "secret")])
    assert not has_guest_alone([user("guest", "guest"), user("till", "secret")])
    assert not has_guest_alone([user("till", "guest")])


@pytest.mark.parametrize(("text", "alone"), [
    ("", True), ('default_user = "till"', False), ('default_password = "secret"', False),
    ('users = [{name = "till", password = "secret"}]', False), ('load_definitions = "file.json"', False),
])
def test_a_first_start_begins_with_guest_unless_told_otherwise(config: Loader, text: str, alone: bool) -> None:
    assert begins_with_guest_alone(config(text)) is alone


@pytest.mark.parametrize(("text", "is_refused"), [
    ('listeners = ["127.0.0.1:1"]', False), ('listeners = ["127.0.0.1:1", "0.0.0.0:1"]', True),
    ('listeners = ["0.0.0.0:1"]\nloopback_users = []', False),
    ('listeners = ["0.0.0.0:1"]\nloopback_users = ["till"]', False),
    ('listeners = []\ntls = {listeners = ["0.0.0.0:1"], certificate = "c", key = "k"}', True),
])
def test_guest_s_password_alone_opens_nothing_to_the_network(config: Loader, text: str, is_refused: bool) -> None:
    for is_first_start, fault in ((True, AT_FIRST), (False, LATER)):
        told = refusal(config(text), lambda: True, is_first_start=is_first_start)
        assert told == (fault if is_refused else None)
        assert refusal(config(text), lambda: False, is_first_start=is_first_start) is None


def started(config: Config) -> None:
    async def run() -> None:
        async with Runtime(config):
            pass

    anyio.run(run)


@pytest.mark.parametrize("memory", ["true", "false"])
def test_a_first_start_that_is_refused_leaves_no_directory(config: Loader, tmp_path: Path, memory: str) -> None:
    with pytest.raises(StartError, match="0.0.0.0:0 would be open to the network") as refused:
        started(config(f'listeners = ["0.0.0.0:0"]\nmemory = {memory}'))
    assert refused.value.exit_code == 78
    assert not (tmp_path / "data").exists()


def test_a_later_start_looks_at_the_stored_users(config: Loader, caplog: pytest.LogCaptureFixture) -> None:
    started(config(""))
    with pytest.raises(StartError, match="0.0.0.0:0 would be open to the network"):
        started(config('listeners = ["0.0.0.0:0"]'))
    started(config('users = [{name = "till", password = "secret"}]'))
    with caplog.at_level(logging.INFO):
        started(config('listeners = ["0.0.0.0:0"]'))
    assert "open to the network: 0.0.0.0:0; 2 users; from this machine only: guest" in caplog.messages


@pytest.mark.parametrize("is_clean", [True, False])
def test_a_start_that_is_refused_leaves_the_store_as_it_was_stopped(
    config: Loader, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, is_clean: bool
) -> None:
    caplog.set_level(logging.INFO)
    started(config(""))
    meta = {"clean": is_clean}
    with closing(sqlite3.connect(tmp_path / "data/amqpd.db")) as stored:
        stored.execute("UPDATE meta SET value = ? WHERE key = 'clean'", (is_clean,))
        stored.execute("INSERT INTO queue_rows (number, vhost, name, auto_delete, arguments, delivery_watermark) "
                       "VALUES (1, '/', 'q', 0, '{}', 7)")
        stored.commit()
    for refused in ('listeners = ["0.0.0.0:0"]', 'bindings = [{source = "none", destination = "none"}]'):
        with pytest.raises(StartError):
            started(config(refused))
    caplog.clear()
    with closing(sqlite3.connect(tmp_path / "data/amqpd.db")) as stored:
        assert dict(stored.execute("SELECT key, value FROM meta WHERE key = 'clean'")) == meta
        assert stored.execute("SELECT number, delivery_watermark FROM queue_rows").fetchall() == [(1, 7)]
    started(config(""))
    assert ("the last run was not stopped cleanly" not in caplog.text) is is_clean


def test_check_config_tells_of_it(config: Loader) -> None:
    found = check_config(config('listeners = ["0.0.0.0:1"]'), ["line 1"])
    assert found.problems == [AT_FIRST]


def test_check_config_tells_of_it_without_any_declaration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "amqpd.toml"
    path.write_text(f'data_dir = "{tmp_path}/data"\nlisteners = ["0.0.0.0:1"]\n')
    assert main(["check-config", str(path)]) == 78
    assert AT_FIRST in capsys.readouterr().err


def test_definitions_that_a_start_loads_may_have_the_users(config: Loader, tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text(
        '{"users": [{"name": "app", "password": "secret", "tags": []}], "vhosts": [{"name": "/"}]}')
    open_config = config(f'listeners = ["0.0.0.0:0"]\nload_definitions = "{tmp_path}/file.json"')
    assert check_config(open_config, ["line 1"]).problems == []
    started(open_config)


GUEST, TILL = user("guest", "guest"), user("till", "secret")
SAFE_GUEST = user("guest", "secret")
TLS = 'listeners = []\ntls = {listeners = ["0.0.0.0:3"], certificate = "c", key = "k"}'
ANONYMOUS = 'auth_mechanisms = ["PLAIN", "ANONYMOUS"]\nlogin = {anonymous_user = "till"}'


@pytest.mark.parametrize(("text", "users", "line"), [
    ("", [GUEST], "open to this machine: 127.0.0.1:5672; 1 user"),
    ('listeners = ["127.0.0.1:1", "0.0.0.0:2"]\nloopback_users = []', [GUEST],
     "open to the network: 0.0.0.0:2; open to this machine: 127.0.0.1:1; 1 user"),
    (TLS, [GUEST, TILL], "open to the network: 0.0.0.0:3 with TLS; 2 users; from this machine only: guest"),
    (TLS, [TILL], "open to the network: 0.0.0.0:3 with TLS; 1 user"),
    (TLS.replace('"k"', '"k", ca = "a", client_certificates = "required"'), [TILL],
     "open to the network: 0.0.0.0:3 with TLS and a client certificate; 1 user"),
    (ANONYMOUS, [TILL],
     "open to this machine: 127.0.0.1:5672; 1 user; without a password, as till: everyone who can connect"),
    (ANONYMOUS, [GUEST], "open to this machine: 127.0.0.1:5672; 1 user"),
])
def test_the_log_tells_what_is_open_to_whom(
    config: Loader, text: str, users: list[UserDefinition], line: str
) -> None:
    assert describe(config(text), users) == line


@pytest.mark.parametrize(("text", "users", "begin"), [
    ("", [GUEST], None), ("listeners = ['0.0.0.0:1']", [GUEST, TILL], None),
    ("listeners = ['0.0.0.0:1']", [SAFE_GUEST], "nobody can log in from the network: loopback_users has all users"),
    ("listeners = ['0.0.0.0:1']\nloopback_users = ['gest']", [GUEST, TILL],
     "guest can log in from the network with the password guest"),
    ("listeners = ['0.0.0.0:1']\nloopback_users = []", [SAFE_GUEST], None),
    (ANONYMOUS, [TILL], None),
    (ANONYMOUS, [GUEST], "nobody can log in with ANONYMOUS: login.anonymous_user is 'till', and there is no such user"),
])
def test_what_is_open_or_closed_by_mistake_is_warned_of(
    config: Loader, text: str, users: list[UserDefinition], begin: str | None
) -> None:
    found = [*warnings(config(text), users)]
    assert [one.partition(";")[0] if one.count(";") else one.partition(": change")[0] for one in found] == (
        [begin] if begin else [])


def test_the_log_tells_where_the_management_api_is() -> None:
    http = [Listener("127.0.0.1:15672"), Listener("0.0.0.0:15671")]
    assert describe(Config(), [], http, [Listener("0.0.0.0:15692")]) == (
        "open to the network: the management API on 0.0.0.0:15671, metrics, without a login, on 0.0.0.0:15692; "
        "open to this machine: 127.0.0.1:5672, the management API on 127.0.0.1:15672; 0 users")


def test_metrics_on_the_network_need_no_other_user_than_guest(config: Loader) -> None:
    open_metrics = config('management = {metrics_listeners = ["0.0.0.0:15692"]}')
    assert refusal(open_metrics, lambda: True, is_first_start=True) is None
    assert not [*warnings(open_metrics, [GUEST])]
