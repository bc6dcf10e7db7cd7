"""How the conformance suite identifies a broker, and what it then tests."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conformance.capabilities import ANNOUNCED, EXTENSIONS, WAYS, reason_to_skip
from conformance.target import Target, all_profiles, target_of

RABBITMQ = {
    "product": "RabbitMQ", "version": "3.10.8", "platform": "Erlang/OTP 25.2.3", "copyright": "…", "information": "…",
    "cluster_name": "rabbit@host", "capabilities": dict.fromkeys(ANNOUNCED, True)}
AMQPD = RABBITMQ | {"amqpd_product": "amqpd", "amqpd_version": "0.1.0", "amqpd_platform": "Python 3.11"}
STRANGER = {"product": "garagemq", "version": "0.1", "capabilities": {"basic.nack": True, "connection.blocked": False}}


def profile_of(properties: dict[str, Any]) -> str | None:
    """The name of the file that is taken."""
    profile = target_of(properties, set()).profile
    return profile and profile.name


@pytest.mark.parametrize("properties, expected", [
    (AMQPD, "amqpd"),
    (RABBITMQ, "rabbitmq-3.10"),
    (RABBITMQ | {"version": "4.1.0"}, "rabbitmq-3.10"),
    (RABBITMQ | {"version": "3.9.29"}, None),
    (RABBITMQ | {"product": "LavinMQ"}, None),
    (RABBITMQ | {"another_product": "a twin"}, None),
    (RABBITMQ | {"version": "unknown"}, None),
    (STRANGER, None),
    ({}, None),
], ids=["amqpd", "3.10", "later", "earlier", "another product", "one that says it is another", "no version",
        "stranger", "nothing"])
def test_a_broker_is_told_by_its_server_properties(properties: dict[str, Any], expected: str | None) -> None:
    assert profile_of(properties) == expected


def test_an_unknown_broker_has_the_standard_and_what_it_announces() -> None:
    target = target_of(STRANGER, set())
    assert target.capabilities == {"transactions", "basic.nack"}
    assert target.forgives(is_standard=False)
    assert not target.forgives(is_standard=True)
    assert str(target) == "garagemq 0.1, unknown: asked for AMQP 0-9-1 and for what it announces"


@pytest.mark.parametrize("properties", [AMQPD, RABBITMQ], ids=["amqpd", "RabbitMQ"])
def test_a_known_broker_has_what_its_file_lists(properties: dict[str, Any]) -> None:
    target = target_of(properties, {"--restart"})
    assert not target.forgives(is_standard=False)
    assert target.capabilities >= ANNOUNCED.keys() | EXTENSIONS.keys() - {"streams"} | {"restart"}
    assert target.missing({"restart", "ctl", "message-ttl"}) == ["ctl"]


def test_the_two_known_brokers_share_no_way_of_their_own() -> None:
    amqpd, rabbitmq = target_of(AMQPD, set()), target_of(RABBITMQ, set())
    ways = [target.capabilities & WAYS.keys() for target in (amqpd, rabbitmq)]
    assert not ways[0] & ways[1]
    assert ways[0] | ways[1] == WAYS.keys()


@pytest.mark.parametrize("is_path", [False, True])
def test_a_file_may_be_chosen(tmp_path: Path, is_path: bool) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('has = ["message-ttl"]\nlacks = ["transactions", "basic.nack"]\n')
    target = target_of(STRANGER, set(), str(path) if is_path else "amqpd")
    assert ("message-ttl" in target.capabilities, "transactions" in target.capabilities) == (True, not is_path)
    assert ("basic.nack" in target.capabilities) is not is_path


def test_a_file_that_is_not_there_or_names_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('has = ["message-tll"]\n')
    for profile, text in ((str(path), "message-tll"), ("nonesuch", "no file nonesuch.toml")):
        with pytest.raises(ValueError, match=text):
            target_of(STRANGER, set(), profile)


def test_a_file_without_properties_is_for_nobody_unless_chosen() -> None:
    for profile in all_profiles():
        assert profile.properties, profile.name


def test_a_reason_names_the_option_that_would_help() -> None:
    assert reason_to_skip(["restart", "streams"]) == "needs restart (by --restart), streams"


def test_a_target_says_by_which_file_it_is_known() -> None:
    assert str(target_of(RABBITMQ, set())) == "RabbitMQ 3.10.8, as described in brokers/rabbitmq-3.10.toml"
    assert isinstance(target_of({}, set()), Target)
