"""Logins over TLS of whole brokers: by a certificate, by SCRAM, and with a password where TLS is required."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from msgspec.structs import replace
from pamqp import frame
from pamqp.commands import Connection
from pamqp.header import ProtocolHeader

from amqpd.broker.definitions import UserDefinition
from amqpd.config import Config, Login
from amqpd.server.runtime import Runtime
from tests.crash.crash_client import Client, Refused
from tests.server.test_tls import CA, ECDSA, OTHER_CA, Files, context, port_of, serve
from tests.support.scram_client import ScramClient


class Stranger(Client):
    """A client that has heard which mechanisms it may use, and begins to log in."""

    mechanisms: str

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        super().__init__(port)

    def _shake_hands(self) -> None:
        if self._tls is not None:
            self._socket = self._tls.wrap_socket(self._socket, server_hostname="localhost")
        self._write(frame.marshal(ProtocolHeader(), 0))
        self.mechanisms = self._expect("Connection.Start").method.mechanisms

    def begin(self, mechanism: str, response: str, expected: str) -> Any:
        """Send start-ok, and return the method of this name that comes of it."""
        properties = {"capabilities": {"authentication_failure_close": True}}
        self._send(0, Connection.StartOk(properties, mechanism, response, "en_US"))
        return self._expect(expected).method

    def answer(self, response: str, expected: str) -> Any:
        """Answer a challenge, and return the method of this name that comes of it."""
        self._send(0, Connection.SecureOk(response))
        return self._expect(expected).method


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def config(files: Files, *mechanisms: str, **login: Any) -> Config:
    """A broker that asks clients for a certificate, and does not insist."""
    return replace(
        files.config(client_certificates="optional"), auth_mechanisms=mechanisms, login=Login(**login))


def certified(ca: trustme.CA = CA, *names: str, common_name: str | None = None) -> ssl.SSLContext:
    return context(ca.issue_cert(*names, common_name=common_name, key_type=ECDSA))


def users_of(runtime: Runtime) -> Any:
    assert runtime._listeners is not None
    return runtime._listeners._broker.users


@pytest.mark.parametrize(("part", "san_type", "user"), [
    ("common_name", "dns", "shop"), ("subject_alternative_name", "dns", "shop.example"),
    ("subject_alternative_name", "email", "shop@example.org"),
])
def test_a_certificate_logs_in_as_the_user_that_it_names(files: Files, part: str, san_type: str, user: str) -> None:
    def talk(runtime: Runtime) -> None:
        users_of(runtime).add(UserDefinition(user))
        tls = certified(CA, "shop.example", "shop@example.org", common_name="shop")
        client = Stranger(port_of(runtime), tls)
        assert client.mechanisms == "PLAIN EXTERNAL"
        client.begin("EXTERNAL", "", "Connection.Tune")
        client.drop()
        without = Stranger(port_of(runtime), context())
        assert without.mechanisms == "PLAIN"
        without.drop()

    serve(config(files, "PLAIN", "EXTERNAL", certificate_name=part, certificate_san_type=san_type), talk)


def test_a_certificate_of_nobody_is_refused_like_a_wrong_password(files: Files) -> None:
    def talk(runtime: Runtime) -> None:
        client = Stranger(port_of(runtime), certified(CA, "x.example", common_name="nobody"))
        with pytest.raises(Refused, match="403 ACCESS_REFUSED - Login was refused using .* mechanism EXTERNAL"):
            client.begin("EXTERNAL", "", "Connection.Tune")
        client.drop()

    serve(config(files, "EXTERNAL", certificate_name="common_name"), talk)


def test_a_certificate_of_another_authority_logs_in_nobody(files: Files) -> None:
    def talk(runtime: Runtime) -> None:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            Stranger(port_of(runtime), certified(OTHER_CA, "x.example", common_name="guest"))

    serve(config(files, "EXTERNAL", certificate_name="common_name"), talk)


def test_scram_logs_in_over_tls_and_without_it(files: Files) -> None:
    def talk(runtime: Runtime) -> None:
        for stranger in (Stranger(port_of(runtime), context()), Stranger(runtime.addresses[0][1])):
            client = ScramClient("guest", "guest")
            challenge = stranger.begin("SCRAM-SHA-256", client.first, "Connection.Secure").challenge
            last_words = stranger.answer(client.answer(challenge), "Connection.Secure").challenge
            assert client.is_satisfied_by(last_words)
            stranger.answer("", "Connection.Tune")
            stranger.drop()

    serve(config(files, "SCRAM-SHA-256"), talk)


def test_a_login_with_plain_makes_a_later_one_with_scram_possible_and_the_challenge_does_not_tell(
    files: Files
) -> None:
    def talk(runtime: Runtime) -> None:
        users = users_of(runtime)
        users.change_password("guest", users["guest"].definition.password_hash, "rabbit_password_hashing_sha256")
        stranger = Stranger(port_of(runtime), context())
        before = stranger.begin("SCRAM-SHA-256", ScramClient("guest", "").first, "Connection.Secure").challenge
        stranger.drop()
        stranger = Stranger(port_of(runtime), context())
        stranger.begin("PLAIN", "\0guest\0guest", "Connection.Tune")
        stranger.drop()
        while not users["guest"].definition.scram_sha256:
            Stranger(port_of(runtime), context()).drop()    # a turn, as the hash is computed in a thread
        client, stranger = ScramClient("guest", "guest"), Stranger(port_of(runtime), context())
        challenge = stranger.begin("SCRAM-SHA-256", client.first, "Connection.Secure").challenge
        assert challenge.split(",")[1:] == before.split(",")[1:], "salt and iterations stay the same"
        assert client.is_satisfied_by(stranger.answer(client.answer(challenge), "Connection.Secure").challenge)
        stranger.drop()

    serve(config(files, "PLAIN", "SCRAM-SHA-256"), talk)


def test_a_password_is_taken_over_tls_and_from_this_machine_where_tls_is_required(files: Files) -> None:
    def talk(runtime: Runtime) -> None:
        for stranger in (Stranger(port_of(runtime), context()), Stranger(runtime.addresses[0][1])):
            assert stranger.mechanisms == "PLAIN"
            stranger.begin("PLAIN", "\0guest\0guest", "Connection.Tune")
            stranger.drop()

    serve(config(files, "PLAIN", require_tls=True), talk)
