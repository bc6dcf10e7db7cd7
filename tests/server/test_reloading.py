"""The settings that SIGHUP changes: which they are, and that each of them takes effect."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from amqpd import logs
from amqpd.config import Config, Examination, File, Limits, Listener, Login, QueueDeclaration, Tls, examine
from amqpd.config.settings import SETTINGS, TlsName, value_at
from amqpd.server.reloading import (
    AT_ONCE,
    FIRST_START,
    FOR_NEW_CONNECTIONS,
    RELOADABLE,
    Reloading,
    differing,
)
from amqpd.server.runtime import Runtime
from amqpd.server.ticker import Ticker

NEXT_START = {
    "listeners", "data_dir", "store", "node_name", "cluster.listeners", "cluster.address", "cluster.secret", "memory",
    "durability", "load_definitions", "definitions.skip_if_unchanged",
    "auth_mechanisms", "login.rehash_imported", "proxy_protocol_from", "limits.message_memory", "limits.ballast_size",
    "limits.bindings_per_queue", "default_queue_type"}


class Applied:
    """What was applied, of what a file says."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "amqpd.toml"
        self.file.write_text("")
        self.calls: list[tuple[Config, frozenset[str]]] = []
        self.certificates_read = 0
        self.reloading = Reloading(
            self._read().config or Config(), self._read, lambda *call: self.calls.append(call), self._count)

    def _read(self) -> Examination:
        return examine(str(self.file), {})

    def _count(self) -> None:
        self.certificates_read += 1

    def says(self, text: str) -> None:
        """Write the file and have it read."""
        self.file.write_text(text)
        self.reloading.read_again()


@pytest.fixture
def applied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Applied:
    caplog.set_level("INFO")
    return Applied(tmp_path)


def test_of_each_setting_it_is_said_when_it_takes_effect() -> None:
    sets = [AT_ONCE, FOR_NEW_CONNECTIONS, FIRST_START]
    others = {name for name in SETTINGS if not any(name in one for one in sets)}
    assert {name for name in others if not name.startswith(("tls.", "management.", "prometheus."))} == NEXT_START
    assert sum(map(len, sets)) + len(others) == len(SETTINGS)
    page = (Path(__file__).parents[2] / "docs/operating.md").read_text()
    assert not [name for name in RELOADABLE if not name.startswith("limits.") and f"`{name}`" not in page]


def test_what_can_change_is_applied_and_the_rest_is_said(applied: Applied, caplog: pytest.LogCaptureFixture) -> None:
    applied.says("""
        listeners = ["127.0.0.1:1"]
        loopback_users = []
        default_password = "later"
        log.level = "debug"
        limits.heartbeat_s = 7
        limits.ballast_size = 1
        [[queues]]
        name = "orders"
        """)
    (config, changed), = applied.calls
    assert changed == {"loopback_users", "log.level", "limits.heartbeat_s"}
    assert (config.loopback_users, config.log.level, config.limits.heartbeat_s) == ((), "debug", 7)
    assert config.limits.ballast_size == Limits().ballast_size and config.listeners == Config().listeners
    assert caplog.messages == [
        "SIGHUP: the configuration has been read again: log.level, loopback_users now in effect; "
        "limits.heartbeat_s now in effect for new connections; "
        "limits.ballast_size, listeners, queues in effect at the next start"]
    assert applied.certificates_read == 1


def test_only_what_is_new_is_applied_again(applied: Applied, caplog: pytest.LogCaptureFixture) -> None:
    applied.says("limits.heartbeat_s = 7\nmemory = true")
    applied.says("\n\nlimits.heartbeat_s = 7\nmemory = true\n[[queues]]\nname = 'q'")
    applied.says("\n\n\nlimits.heartbeat_s = 7")
    assert len(applied.calls) == 1
    assert [line.partition("again: ")[2] for line in caplog.messages] == [
        "limits.heartbeat_s now in effect for new connections; memory in effect at the next start",
        "memory, queues in effect at the next start", "nothing has changed"]


def test_a_declaration_that_only_stands_elsewhere_has_not_changed() -> None:
    def config(where: str, name: str = "q") -> Config:
        return Config(
            queues=(QueueDeclaration(name=name, where=where),),
            tls=Tls(names=(TlsName(name="a", certificate=File("c"), key=File("k"), where=where),)))

    assert not differing(config("line 1"), config("line 2"))
    assert differing(config("line 1"), config("line 1", "p")) == {"queues"}


@pytest.mark.parametrize("text, fault", [
    ("limits.heartbeat_s = 7\nlog.level = 'loud'", "line 2: log.level"), ("limits.heartbeat_s = ", "amqpd.toml"),
    ("limits.heartbeat_s = 7\n[[queues]]\nname = 'q'\n[[queues]]\nname = 'q'", "queues"),
])
def test_a_faulty_file_changes_nothing_and_its_faults_are_told(
    applied: Applied, caplog: pytest.LogCaptureFixture, text: str, fault: str
) -> None:
    applied.says(text)
    assert not applied.calls and applied.reloading.config == Config()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "SIGHUP: the configuration stays as it was: " in caplog.text and fault in caplog.text


def test_a_file_that_is_gone_changes_nothing(applied: Applied, caplog: pytest.LogCaptureFixture) -> None:
    applied.file.unlink()
    applied.reloading.read_again()
    assert "the configuration stays as it was" in caplog.text and "amqpd.toml" in caplog.text and not applied.calls


# Of each setting, where its value can be seen in a broker, and what is seen.
EFFECTS: dict[str, tuple[Any, Callable[[Runtime], Any], Any]] = {
    "loopback_users": (("a",), lambda runtime: listeners(runtime)._logins._loopback_users, {"a"}),
    "login.anonymous_user": ("a", lambda runtime: settings(runtime).login.anonymous_user, "a"),
    "login.certificate_name": ("common_name", lambda runtime: settings(runtime).login.certificate_name, "common_name"),
    "login.certificate_san_type": ("uri", lambda runtime: settings(runtime).login.certificate_san_type, "uri"),
    "login.require_tls": (True, lambda runtime: settings(runtime).login.requires_tls, True),
    "limits.heartbeat_s": (7, lambda runtime: settings(runtime).heartbeat_s, 7),
    "limits.frame_max": (8192, lambda runtime: settings(runtime).frame_max, 8192),
    "limits.channel_max": (7, lambda runtime: settings(runtime).channel_max, 7),
    "limits.max_connections": (7, lambda runtime: settings(runtime).connection_limit, 7),
    "limits.max_channels": (7, lambda runtime: settings(runtime).channel_limit, 7),
    "limits.max_queues": (7, lambda runtime: listeners(runtime)._broker.quota.limit, 7),
    "limits.max_unauthenticated": (7, lambda runtime: listeners(runtime)._unauthenticated.limit, 7),
    "limits.max_unauthenticated_per_address": (
        7, lambda runtime: listeners(runtime)._unauthenticated.limit_per_address, 7),
    "limits.handshake_timeout_s": (7.0, lambda runtime: settings(runtime).handshake_timeout_ms, 7_000),
    "limits.tls_handshake_timeout_s": (7.0, lambda runtime: listeners(runtime)._tls_handshake_s, 7.0),
    "limits.login_failure_delay_s": (7.0, lambda runtime: listeners(runtime)._logins._failure_delay_s, 7.0),
    "limits.max_message_size": (7, lambda runtime: settings(runtime).max_body_size, 7),
    "limits.login_buffer_size": (5_000, lambda runtime: settings(runtime).early_bytes, 5_000),
    "limits.incomplete_bodies_size": (7, lambda runtime: settings(runtime).incomplete_limit, 7),
    "limits.transaction_operations": (7, lambda runtime: settings(runtime).transaction_acts, 7),
    "limits.transaction_size": (7, lambda runtime: settings(runtime).transaction_bytes, 7),
    "limits.outgoing_buffer_size": (7, lambda runtime: settings(runtime).outgoing_limit, 7),
    "limits.consumer_timeout_s": (7.0, lambda runtime: settings(runtime).consumer_timeout_ms, 7_000),
    "limits.consumers_per_channel": (7, lambda runtime: settings(runtime).consumer_limit, 7),
    "limits.unacked_per_consumer": (7, lambda runtime: settings(runtime).unacked_limit, 7),
}
ELSEWHERE = {       # seen in the log, or in the process
    "log.level", "log.format", "limits.outgoing_timeout_s", "limits.memory_high_watermark",
    "limits.memory_high_watermark_absolute", "limits.disk_free_limit", "limits.disk_free_limit_relative"}


def listeners(runtime: Runtime) -> Any:
    return runtime._listeners


def settings(runtime: Runtime) -> Any:
    return listeners(runtime).settings


def changed(config: Config, setting: str, value: Any) -> Config:
    table, _, name = setting.rpartition(".")
    return replace(config, **{table or name: replace(getattr(config, table), **{name: value}) if table else value})


def test_each_setting_that_can_change_takes_effect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    timeouts: list[float] = []
    monkeypatch.setattr(Ticker, "change_timeout", lambda ticker, seconds: timeouts.append(seconds))
    assert EFFECTS.keys() | ELSEWHERE == RELOADABLE
    config = Config(
        data_dir=tmp_path, listeners=(Listener("127.0.0.1:0"),), limits=Limits(ballast_size=0), login=Login())

    async def main() -> None:
        async with Runtime(config) as runtime:
            salts = settings(runtime).login.made_up_verifiers
            for setting, (value, seen, expected) in EFFECTS.items():
                assert seen(runtime) != expected and value != value_at(config, setting)
                runtime.change_settings(changed(config, setting, value), frozenset({setting}))
                assert seen(runtime) == expected, setting
            assert settings(runtime).login.made_up_verifiers is salts
            runtime.change_settings(
                changed(config, "limits.outgoing_timeout_s", 7.0), frozenset({"limits.outgoing_timeout_s"}))
            assert timeouts[-1] == 7.0
            caplog.clear()
            for setting, value in (
                ("limits.memory_high_watermark", 0.99), ("limits.memory_high_watermark_absolute", 1 << 40),
                ("limits.disk_free_limit", 1), ("limits.disk_free_limit_relative", 0.00001),
            ):
                runtime.change_settings(changed(config, setting, value), frozenset({setting}))
            told = [line for line in caplog.messages if " set to " in line]
            assert [line.partition(" set to ")[0] for line in told] == [
                "Memory high watermark", "Memory high watermark", "Disk free limit", "Disk free limit"]
            assert f"({1 << 40} bytes) of" in told[1] and told[2] == "Disk free limit set to 1 bytes"

    asyncio.run(main())


def test_a_limit_of_an_alarm_that_has_not_changed_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with Runtime(Config(memory=True, listeners=(Listener("127.0.0.1:0"),))) as runtime:
            caplog.set_level("INFO")
            runtime.change_settings(Config(limits=Limits(heartbeat_s=7)), frozenset({"limits.heartbeat_s"}))
            assert not caplog.messages

    asyncio.run(main())


def test_the_log_takes_another_level_and_format(capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    try:
        logs.configure("warning", "text")
        logs.change("info", "json")
        logging.getLogger("amqpd").info("changed")
        logs.flush()
        assert '"msg": "changed"' in capfd.readouterr().err
    finally:
        for handler in root.handlers:
            handler.close()
        root.setLevel(before[0])
        root.handlers[:] = before[1]
        logging.captureWarnings(False)
