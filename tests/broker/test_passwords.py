"""Password hashes: verification, and its cost."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from amqpd.broker import passwords
from amqpd.broker.definitions import UserDefinition
from amqpd.broker.passwords import (
    SALTED_HASHES,
    PasswordForm,
    StoredPassword,
    hash_known_password,
    hash_password,
    matches_at_once,
    password_matches,
)
from amqpd.broker.scram import MadeUpVerifiers, make_verifier, read_verifier
from tests.support import quick_scrypt

ALGORITHMS = ["scrypt", *SALTED_HASHES]


def known(password: str) -> UserDefinition:
    return UserDefinition("somebody", *hash_known_password(password))


def salted(algorithm: str, password: str) -> UserDefinition:
    salt = b"\x90\x8d\xc6\x0a"
    digest = hashlib.new(algorithm, salt + password.encode()).digest()
    return UserDefinition("u", base64.b64encode(salt + digest).decode(), f"rabbit_password_hashing_{algorithm}")


@pytest.fixture
def scrypts(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The passwords that scrypt was computed for, by a fast hash in its place."""
    computed: list[bytes] = []

    def scrypt(password: bytes, **how: Any) -> bytes:
        assert (how["n"], how["r"], how["p"], len(how["salt"])) == (2**14, 8, 5, 16)
        computed.append(password)
        return hashlib.sha256(how["salt"] + password).digest()

    monkeypatch.setattr(passwords.hashlib, "scrypt", scrypt)
    return computed


def test_a_slow_hash_matches_its_password_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords.hashlib, "scrypt", quick_scrypt.WITH_FULL_COST)
    definition = UserDefinition("somebody", *hash_password("pässword"))
    assert definition.hashing_algorithm == "scrypt"
    assert password_matches(definition, "pässword")
    assert not password_matches(definition, "password")


def test_a_quick_hash_matches_its_password_and_no_other() -> None:
    assert password_matches(known("guest"), "guest")
    assert not password_matches(known("guest"), "Guest")
    assert not password_matches(known("guest"), "")


@pytest.mark.parametrize("make", [hash_password, hash_known_password])
def test_equal_passwords_have_different_hashes(make: Callable[[str], tuple[str, str]], scrypts: list[bytes]) -> None:
    assert make("guest") != make("guest")


@pytest.mark.parametrize("name", ["sha256", "sha512", "md5"])
def test_the_hashes_of_rabbitmq_match(name: str) -> None:
    assert password_matches(salted(name, "test12"), "test12")
    assert not password_matches(salted(name, "test12"), "test13")


def test_a_hash_that_rabbitmq_made_matches() -> None:
    # RabbitMQ docs/passwords, the worked example.
    definition = UserDefinition(
        "u", "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR", "rabbit_password_hashing_sha256")
    assert password_matches(definition, "test12")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("stored", [
    "", "=", "====", "kI3G", "kI3GCg==", "kI3GCqW5JLMJ", "not base64!", "pässword", "kI3G\nCg==", "\0",
    "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2PO"])
def test_a_malformed_hash_matches_nothing(algorithm: str, stored: str, scrypts: list[bytes]) -> None:
    assert not password_matches(UserDefinition("u", stored, algorithm), "test12")
    assert not password_matches(UserDefinition("u", stored, algorithm), "")


@given(st.text(), st.sampled_from([*ALGORITHMS, "", "rot13"]), st.text())
def test_no_stored_hash_makes_a_check_fail_with_an_exception(stored: str, algorithm: str, password: str) -> None:
    assert not matches_at_once(UserDefinition("u", stored, algorithm), password)


@pytest.mark.parametrize("name", ["sha256", "sha512", "md5"])
def test_a_hash_of_the_empty_password_matches_nothing(name: str, scrypts: list[bytes]) -> None:
    # RabbitMQ refuses a blank password, even if an imported hash is one of it.
    assert not password_matches(salted(name, ""), "")


def test_a_slow_hash_of_the_empty_password_matches_nothing(scrypts: list[bytes]) -> None:
    assert not password_matches(UserDefinition("u", *hash_password("")), "")


def test_half_a_surrogate_pair_is_a_password_like_any_other(scrypts: list[bytes]) -> None:
    definition = UserDefinition("u", *hash_password("\ud800"))
    assert password_matches(definition, "\ud800") and not password_matches(definition, "?")
    assert not password_matches(known("guest"), "\ud800")


@pytest.mark.parametrize("user", [
    None, known("guest"), salted("sha512", "guest"), salted("md5", "guest"), UserDefinition("u"),
    UserDefinition("u", "", "rabbit_password_hashing_sha256"), UserDefinition("u", "malformed!", "scrypt"),
    UserDefinition("u", known("guest").password_hash, "rot13"), UserDefinition("u", known("wrong").password_hash),
], ids=["missing", "sha256", "sha512", "md5", "without a password", "without a hash", "malformed", "unknown", "scrypt"])
def test_every_refusal_costs_one_slow_hash(user: UserDefinition | None, scrypts: list[bytes]) -> None:
    assert not password_matches(user, "wrong")
    assert scrypts == [b"wrong"]


def test_a_quick_hash_that_matches_costs_no_slow_one(scrypts: list[bytes]) -> None:
    assert matches_at_once(known("guest"), "guest") and password_matches(known("guest"), "guest")
    assert not scrypts


def test_an_unknown_algorithm_matches_nothing(scrypts: list[bytes]) -> None:
    assert not password_matches(UserDefinition("u", known("guest").password_hash, "rot13"), "guest")


def test_a_user_does_not_show_his_hash() -> None:
    assert known("guest").password_hash not in repr(known("guest"))


# The form in which they are stored

@pytest.fixture(scope="module")
def imported() -> UserDefinition:
    return known("guest")


@pytest.mark.parametrize(("form", "is_kept"), [
    (PasswordForm(), True), (PasswordForm(with_scram=True), False), (PasswordForm(rehashes=True), False)])
def test_a_password_is_stored_anew_if_the_form_asks_for_more(
    imported: UserDefinition, form: PasswordForm, is_kept: bool, scrypts: list[bytes]
) -> None:
    assert form.is_kept_by(imported) is is_kept
    stored = form.stored_anew(imported, "guest")
    anew = UserDefinition("somebody", stored.password_hash, stored.hashing_algorithm, scram_sha256=stored.scram_sha256)
    assert form.is_kept_by(anew) and password_matches(anew, "guest")
    assert (anew == imported) is is_kept


def test_a_verifier_that_is_added_keeps_the_salt_that_was_made_up(imported: UserDefinition) -> None:
    made_up = MadeUpVerifiers(b"key")
    stored = PasswordForm(with_scram=True, made_up=made_up).stored_anew(imported, "guest")
    verifier = read_verifier(stored.scram_sha256)
    assert verifier is not None and verifier.salt == made_up.of(imported.name).salt
    assert verifier == make_verifier("guest", salt=verifier.salt) != made_up.of(imported.name)


def test_a_password_that_is_set_has_a_verifier_with_a_salt_of_its_own(scrypts: list[bytes]) -> None:
    form = PasswordForm(with_scram=True, made_up=MadeUpVerifiers(b"key"))
    verifiers = [read_verifier(form.store("guest").scram_sha256) for _ in range(2)]
    assert verifiers[0] is not None and verifiers[1] is not None
    assert verifiers[0].salt != verifiers[1].salt


def test_a_verifier_stays_when_the_hash_is_replaced_or_scram_is_not_enabled(
    imported: UserDefinition, scrypts: list[bytes]
) -> None:
    user = replace(imported, scram_sha256=str(make_verifier("guest")))
    for form in (PasswordForm(rehashes=True), PasswordForm(with_scram=True, rehashes=True)):
        assert form.stored_anew(user, "guest").scram_sha256 == user.scram_sha256


def test_nothing_is_stored_of_an_empty_password(scrypts: list[bytes]) -> None:
    assert PasswordForm(with_scram=True).store("") == StoredPassword("", "scrypt", "")
    assert not scrypts


def test_what_is_stored_is_not_shown(scrypts: list[bytes]) -> None:
    stored = PasswordForm(with_scram=True).store("guest")
    assert stored.password_hash not in repr(stored) and stored.scram_sha256 not in repr(stored)
