"""The mechanisms of authentication: how each reads the client's responses, and to whom it is offered."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pamqp.commands import Connection
from pamqp.header import ProtocolHeader

from amqpd.fields import encode_table
from amqpd.session.sasl import MECHANISMS, Circumstances, begin, name_in, offered, read_amqplain, read_plain
from amqpd.session.sasl_steps import Challenge, LoginRequest, LoginSettings, ProvenLogin, SaslError, Step
from amqpd.session.scram import Verifiers
from amqpd.tls_facts import PeerCertificate
from tests.support.talk import CAPABILITIES, SETTINGS, Stage, Talk

CERTIFICATE = PeerCertificate(
    subject="CN=bob,O=Example", issuer="CN=ca", common_name="bob", san_dns=("bob.example", "second"),
    san_email=("bob@example.org",), san_uri=("spiffe://bob",), san_ip=("10.0.0.9",), not_before=0, not_after=1 << 40)
NAMELESS = PeerCertificate(subject="", issuer="CN=ca", common_name="", not_before=0, not_after=1 << 40)
ALL = LoginSettings(mechanisms=tuple(MECHANISMS), anonymous_user="bob")
NOBODY = Verifiers({}, ALL.made_up_verifiers)


def answered(mechanism: str, *responses: bytes, **how: Any) -> Step:
    """Return the result of the last of these responses."""
    respond = begin(mechanism, Circumstances(ALL, NOBODY, certificate=CERTIFICATE, **how))
    *_, step = map(respond, responses)
    return step


# What is read

@pytest.mark.parametrize(("response", "user", "password"), [
    (b"\0guest\0guest", "guest", "guest"), (b"\0\0", "", ""), ("\0gäst\0wört".encode(), "gäst", "wört"),
])
def test_plain_is_user_and_password(response: bytes, user: str, password: str) -> None:
    assert read_plain(response) == LoginRequest(user, password) == answered("PLAIN", response)


def test_amqplain_is_a_table_in_any_order() -> None:
    table = encode_table({"PASSWORD": "p", "more": 1, "LOGIN": "u"})
    assert read_amqplain(table) == LoginRequest("u", "p") == answered("AMQPLAIN", table)


@pytest.mark.parametrize(("part", "san_type", "name"), [
    ("common_name", "dns", "bob"), ("distinguished_name", "dns", "CN=bob,O=Example"),
    ("subject_alternative_name", "dns", "bob.example"), ("subject_alternative_name", "email", "bob@example.org"),
    ("subject_alternative_name", "uri", "spiffe://bob"), ("subject_alternative_name", "ip", "10.0.0.9"),
])
def test_the_name_of_a_certificate_is_the_part_that_is_configured(part: str, san_type: str, name: str) -> None:
    assert name_in(CERTIFICATE, part, san_type) == name
    settings = replace(ALL, certificate_name=part, certificate_san_type=san_type)
    assert begin("EXTERNAL", Circumstances(settings, NOBODY, certificate=CERTIFICATE))(b"") == ProvenLogin(name)
    refused = begin("EXTERNAL", Circumstances(settings, NOBODY, certificate=NAMELESS))(b"")
    assert isinstance(refused, ProvenLogin) and not refused.user
    assert "login.certificate_name" in refused.fault and part.replace("_", " ") in refused.fault


def test_external_takes_no_name_from_the_client() -> None:
    assert answered("EXTERNAL", b"somebody else") == ProvenLogin("CN=bob,O=Example")


def test_anonymous_takes_no_name_from_the_client() -> None:
    assert answered("ANONYMOUS", b"guest") == ProvenLogin("bob")


@given(st.sampled_from(sorted(MECHANISMS)), st.lists(st.binary(max_size=100), min_size=1, max_size=4))
def test_nothing_but_a_sasl_error_comes_of_any_bytes(mechanism: str, responses: list[bytes]) -> None:
    respond = begin(mechanism, Circumstances(ALL, NOBODY, certificate=CERTIFICATE))
    for response in responses:
        try:
            step = respond(response)
        except SaslError as error:
            assert str(error)
            return
        assert isinstance(step, (LoginRequest, ProvenLogin, Challenge))
        if not isinstance(step, Challenge):
            return


@given(st.text(), st.text())
def test_plain_reads_every_user_and_password_that_can_be_sent(user: str, password: str) -> None:
    response = f"\0{user}\0{password}".encode()
    if "\0" in user + password:
        with pytest.raises(SaslError):
            read_plain(response)
    else:
        assert read_plain(response) == LoginRequest(user, password)


# To whom what is offered

@pytest.mark.parametrize(("is_private", "requires_tls", "certificate", "names"), [
    (True, False, None, ["PLAIN", "AMQPLAIN", "SCRAM-SHA-256", "ANONYMOUS"]),
    (False, False, None, ["PLAIN", "AMQPLAIN", "SCRAM-SHA-256", "ANONYMOUS"]),
    (False, True, None, ["SCRAM-SHA-256", "ANONYMOUS"]),
    (True, True, None, ["PLAIN", "AMQPLAIN", "SCRAM-SHA-256", "ANONYMOUS"]),
    (True, True, CERTIFICATE, list(MECHANISMS)),
])
def test_a_mechanism_is_offered_where_it_can_be_used(
    is_private: bool, requires_tls: bool, certificate: PeerCertificate | None, names: list[str]
) -> None:
    settings = replace(ALL, requires_tls=requires_tls)
    circumstances = Circumstances(settings, NOBODY, is_private, certificate)
    assert list(offered(circumstances)) == names
    for name in MECHANISMS:
        if name not in names:
            with pytest.raises(SaslError, match=f"^authentication mechanism '{name}' is not offered: "):
                begin(name, circumstances)


def test_the_order_is_that_of_the_settings() -> None:
    settings = LoginSettings(("ANONYMOUS", "PLAIN"))
    assert offered(Circumstances(settings, NOBODY)) == ("ANONYMOUS", "PLAIN")


@pytest.mark.parametrize(("name", "settings", "reason"), [
    ("NOPE", LoginSettings(), "unknown authentication mechanism 'NOPE'"),
    ("plain", LoginSettings(), "unknown authentication mechanism 'plain'"),
    ("ANONYMOUS", LoginSettings(), "authentication mechanism 'ANONYMOUS' is not offered: it is not in auth_mechanisms"),
    ("EXTERNAL", ALL, "authentication mechanism 'EXTERNAL' is not offered: it has sent no certificate"),
    ("PLAIN", LoginSettings(requires_tls=True), "authentication mechanism 'PLAIN' is not offered: login.require_tls is "
                                                "set, and the client does not use TLS"),
])
def test_a_mechanism_that_is_not_offered_is_refused_with_the_reason(
    name: str, settings: LoginSettings, reason: str
) -> None:
    with pytest.raises(SaslError) as caught:
        begin(name, Circumstances(settings, NOBODY))
    assert str(caught.value) == reason


# On a connection

def stage_with(**login: Any) -> Stage:
    return Stage(settings=replace(SETTINGS, login=LoginSettings(**login)))


def start_ok(mechanism: str, response: str = "") -> Connection.StartOk:
    return Connection.StartOk({"capabilities": CAPABILITIES}, mechanism, response, "en_US")


def arrived(stage: Stage, mechanisms: str) -> Talk:
    """Return a client to which these mechanisms are offered."""
    talk = stage.stranger().client(ProtocolHeader())
    assert talk.hear(Connection.Start).mechanisms == mechanisms
    return talk


def test_a_client_with_a_certificate_logs_in_by_its_name() -> None:
    stage = stage_with(mechanisms=("PLAIN", "EXTERNAL"), certificate_name="common_name")
    talk = stage.stranger()
    talk.session.state.peer_certificate = CERTIFICATE
    assert talk.client(ProtocolHeader()).hear(Connection.Start).mechanisms == "PLAIN EXTERNAL"
    talk.client(start_ok("EXTERNAL")).hear(Connection.Tune)
    talk.client(Connection.TuneOk(10, 4_096, 0), Connection.Open("/")).broker(Connection.OpenOk())
    assert (talk.session.user_name, talk.session.statistics().auth_mechanism) == ("bob", "EXTERNAL")
    arrived(stage, "PLAIN")


def test_a_certificate_of_nobody_is_refused_like_a_wrong_password() -> None:
    talk = stage_with(mechanisms=("EXTERNAL",)).stranger()
    talk.session.state.peer_certificate = CERTIFICATE
    talk.greet().client(start_ok("EXTERNAL"))
    talk.broker(Connection.Close(
        403, "ACCESS_REFUSED - Login was refused using authentication mechanism EXTERNAL. For details see the broker "
             "logfile.", 0, 0))


def test_an_anonymous_client_logs_in_as_the_configured_user() -> None:
    talk = arrived(stage_with(mechanisms=("ANONYMOUS",), anonymous_user="bob"), "ANONYMOUS")
    talk.client(start_ok("ANONYMOUS", "a trace")).hear(Connection.Tune)
    assert talk.session.user_name == "bob"


def test_a_password_that_could_be_read_on_the_way_is_not_taken() -> None:
    stage = stage_with(requires_tls=True)
    local = stage.stranger()
    local.session.state.is_local = True
    local.greet().log_in().hear(Connection.Tune)
    remote = arrived(stage, "")
    remote.client(start_ok("PLAIN", "\0guest\0secret guest")).nothing()
    stage.pass_time(1)
    assert remote.is_dropped and remote.session.user_name == ""


def test_a_user_who_is_deleted_after_the_login_cannot_open_a_vhost(stage: Stage) -> None:
    talk = stage.stranger().greet().log_in("bob")
    talk.hear(Connection.Tune)
    stage.broker.users.delete("bob")
    talk.client(Connection.TuneOk(10, 4_096, 0), Connection.Open("/"))
    talk.hung_up(530, "NOT_ALLOWED - access to vhost '/' refused for user 'bob'", 10, 40)


def test_an_answer_to_a_challenge_that_was_not_sent_ends_the_handshake(stranger: Talk) -> None:
    stranger.greet().client(Connection.SecureOk("guest")).nothing()
    stranger.stage.pass_time(1)
    assert stranger.is_dropped
