"""Verifiers of SCRAM-SHA-256: what they accept, how they are written, and what is made up for nobody."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd.broker.scram import ITERATIONS, MadeUpVerifiers, Verifier, make_verifier, prepare, read_verifier

# The example of RFC 7677, section 3.
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
MESSAGE = (
    b"n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,"
    b"i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
PROOF = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
SIGNATURE = base64.b64decode("6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
PENCIL = make_verifier("pencil", salt=SALT, iterations=4_096)


def proof_of(password: str, verifier: Verifier, message: bytes) -> bytes:
    """What a client proves itself with."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), verifier.salt, verifier.iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
    return bytes(a ^ b for a, b in zip(client_key, signature))


def test_the_example_of_the_specification_is_accepted_and_signed() -> None:
    assert PENCIL.accepts(PROOF, MESSAGE)
    assert PENCIL.sign(MESSAGE) == SIGNATURE


@pytest.mark.parametrize("proof", [b"", PROOF[:-1], PROOF + b"\0", bytes(32), bytes([PROOF[0] ^ 1]) + PROOF[1:]])
def test_another_proof_is_not_accepted(proof: bytes) -> None:
    assert not PENCIL.accepts(proof, MESSAGE)


def test_a_proof_holds_for_one_message_only() -> None:
    assert not PENCIL.accepts(PROOF, MESSAGE + b" ")


def test_a_new_verifier_has_a_salt_of_its_own_and_enough_iterations() -> None:
    first, second = make_verifier("secret"), make_verifier("secret")
    assert first.salt != second.salt and len(first.salt) == 16
    assert first.iterations == ITERATIONS >= 4_096
    assert first.accepts(proof_of("secret", first, b"m"), b"m")
    assert not first.accepts(proof_of("Secret", first, b"m"), b"m")


def test_a_verifier_is_written_as_postgresql_writes_it() -> None:
    text = str(PENCIL)
    assert text.startswith("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$") and text.count(":") == 2
    assert read_verifier(text) == PENCIL
    assert read_verifier(text) != make_verifier("pencil")


@pytest.mark.parametrize("text", [
    "", "SCRAM-SHA-256", str(PENCIL)[:-1], str(PENCIL) + "=", str(PENCIL) + "\n", " " + str(PENCIL),
    str(PENCIL).replace("4096", "0"), str(PENCIL).replace("4096", "99999999"), str(PENCIL).replace("4096", "-1"),
    str(PENCIL).replace("256", "1"), "SCRAM-SHA-256$4096:AAAA$AAAA:AAAA", "SCRAM-SHA-256$4096:A$A:A"])
def test_a_malformed_verifier_is_none(text: str) -> None:
    assert read_verifier(text) is None


@given(st.text() | st.from_regex(r"SCRAM-SHA-256\$\d+:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+"))
def test_no_text_of_a_verifier_makes_an_exception(text: str) -> None:
    assert read_verifier(text) is None or str(read_verifier(text)) == text or "=" in text


def test_a_verifier_shows_none_of_its_keys() -> None:
    shown = repr(PENCIL)
    for secret in (PENCIL.salt, PENCIL.stored_key, PENCIL.server_key):
        assert repr(secret) not in shown and base64.b64encode(secret).decode() not in shown


def test_a_name_always_has_the_same_made_up_verifier() -> None:
    made_up = MadeUpVerifiers(b"key")
    assert made_up.of("nobody") == MadeUpVerifiers(b"key").of("nobody")
    assert made_up.of("nobody") != made_up.of("nobody else")
    assert made_up.of("nobody") != MadeUpVerifiers(b"another key").of("nobody")
    assert MadeUpVerifiers().of("nobody") != MadeUpVerifiers().of("nobody")
    assert b"key" not in repr(made_up).encode()


def test_a_made_up_verifier_looks_like_a_new_one_to_the_client() -> None:
    made_up, new = MadeUpVerifiers(b"key").of("nobody"), make_verifier("secret")
    assert (made_up.iterations, len(made_up.salt)) == (new.iterations, len(new.salt))
    assert not made_up.accepts(PROOF, MESSAGE)


@pytest.mark.parametrize(("password", "prepared"), [
    ("user", "user"), ("USER", "USER"), ("", ""), ("two\u00a0words", "two words"),     # RFC 4013, section 3
    ("I\u00adX", "IX"), ("\u00aa", "a"), ("\u2168", "IX"),
    ("a\u0301", "\u00e1"),
    ("\u0627\u0031", "\u0627\u0031"),               # refused for its direction: as it is
    ("\u0627\u00ad\u0628", "\u0627\u0628"),         # from right to left only: prepared
    ("\u0627\u00ad1", "\u0627\u00ad1"), ("1\u00ad\u0627", "1\u00ad\u0627"),
    ("\u0627\u00ada\u0628", "\u0627\u00ada\u0628"),
    ("\u00e9\u0007", "\u00e9\u0007"),               # refused for a control character: as it is
    ("\u00ad", "\u00ad"),                           # nothing would be left
])
def test_a_password_is_prepared_as_clients_prepare_it(password: str, prepared: str) -> None:
    assert prepare(password) == prepared.encode()


@given(st.text())
def test_every_password_can_be_prepared(password: str) -> None:
    assert prepare(password) or not password


def test_half_a_surrogate_pair_can_be_prepared() -> None:
    assert prepare("\ud800")
