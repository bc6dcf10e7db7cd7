"""SCRAM-SHA-256: the whole exchange, every way to miss it, and that a challenge does not tell who exists."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pamqp.commands import Connection

from amqpd.broker.access import User
from amqpd.broker.definitions import UserDefinition
from amqpd.broker.scram import MadeUpVerifiers, make_verifier
from amqpd.session.sasl_steps import Challenge, LoginSettings, ProvenLogin, SaslError
from amqpd.session.scram import ScramLogin, Verifiers, random_nonce
from tests.support.scram_client import ScramClient
from tests.support.talk import CAPABILITIES, SETTINGS, Stage, Talk

MADE_UP = MadeUpVerifiers(b"key")
PENCIL = str(make_verifier("pencil", salt=base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), iterations=4_096))


@pytest.fixture(scope="module")
def users() -> dict[str, User]:
    """Users with a verifier, and one without."""
    definitions = [
        UserDefinition("user", scram_sha256=PENCIL), UserDefinition("a,b=c", scram_sha256=PENCIL),
        UserDefinition("imported", "hash", "rabbit_password_hashing_sha256"),
        UserDefinition("damaged", scram_sha256="SCRAM-SHA-256$1:x$y:z")]
    return {definition.name: User(definition) for definition in definitions}


def login(users: dict[str, User], nonce: str = "3rfcNHYJY1ZVvWVs7j") -> ScramLogin:
    return ScramLogin(Verifiers(users, MADE_UP), lambda: nonce)


def challenged(scram: ScramLogin, message: str) -> str:
    step = scram.respond(message.encode())
    assert isinstance(step, Challenge)
    return step.data.decode()


def proven(scram: ScramLogin, client: ScramClient) -> ProvenLogin:
    """What comes of a client that does everything right but, perhaps, its password."""
    step = scram.respond(client.answer(challenged(scram, client.first)).encode())
    assert isinstance(step, ProvenLogin)
    return step


def test_the_example_of_the_specification_logs_in(users: dict[str, User]) -> None:
    scram = login(users, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    assert challenged(scram, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == (
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
    assert scram.respond(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    ) == ProvenLogin("user", "", b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


@pytest.mark.parametrize("header", ["n,,", "y,,"])
@pytest.mark.parametrize("user", ["user", "a,b=c"])
def test_the_right_password_is_proven_and_signed(users: dict[str, User], header: str, user: str) -> None:
    client = ScramClient(user, "pencil", header=header)
    step = proven(login(users), client)
    assert (step.user, step.fault) == (user, "")
    assert client.is_satisfied_by(step.last_words.decode())


@pytest.mark.parametrize(("user", "password", "fault"), [
    ("user", "Pencil", "the password is wrong"),
    ("user", "", "the password is wrong"),
    ("nobody", "pencil", "the password is wrong"),
    ("imported", "pencil",
     "no SCRAM verifier is stored: set the password again, or let the user log in once with PLAIN"),
    ("damaged", "pencil",
     "no SCRAM verifier is stored: set the password again, or let the user log in once with PLAIN"),
])
def test_a_wrong_proof_has_a_fault(users: dict[str, User], user: str, password: str, fault: str) -> None:
    step = proven(login(users), ScramClient(user, password))
    assert (step.user, step.fault) == (user, fault)


def test_a_password_that_changes_between_challenge_and_proof_is_noticed(users: dict[str, User]) -> None:
    changing = {"user": User(users["user"].definition)}
    scram, client = login(changing), ScramClient("user", "pencil")
    answer = client.answer(challenged(scram, client.first))
    changing["user"].definition = replace(changing["user"].definition, scram_sha256=str(make_verifier("new")))
    step = scram.respond(answer.encode())
    assert isinstance(step, ProvenLogin) and step.fault == "the password has changed meanwhile"


def test_a_challenge_does_not_tell_who_exists(users: dict[str, User]) -> None:
    new = {**users, "user": User(UserDefinition("user", scram_sha256=str(make_verifier("pencil"))))}
    shapes = set()
    for name in ("user", "imported", "nobody", "damaged"):
        first, second = (challenged(login(new), ScramClient(name, "x").first) for _ in range(2))
        assert first == second, "the salt of a name does not change"
        salt, iterations = first.split(",")[1:]
        shapes.add((len(salt), iterations))
    assert shapes == {(26, "i=10000")}


def test_the_nonce_is_another_one_each_time() -> None:
    nonces = {random_nonce() for _ in range(100)}
    assert len(nonces) == 100 and {len(nonce) for nonce in nonces} == {24}


@pytest.mark.parametrize("message", [
    b"", b"n", b"n,", b"n,,", b"n,,n=user", b"n,,n=user,", b"n,,n=user,r=", b"n,,r=abc,n=user", b"n,,n=,r=abc",
    b"p=tls-unique,,n=user,r=abc", b"p=tls-exporter,,n=user,r=abc", b"x,,n=user,r=abc", b"n,a=admin,n=user,r=abc",
    b"n,,m=ext,n=user,r=abc", b"n,,n=us=er,r=abc", b"n,,n=us=2cer,r=abc", b"n,,n=us=,r=abc", b"n,,n=user=3,r=abc",
    b"n,,n=user,r=a b", b"n,,n=user,r=a\x7f", b"n,,n=user,r=\xc3\xa9", b"n,,n=\xff,r=abc",
    b"n,,n=user,r=" + b"x" * 513, b"\0user\0pencil", b"N,,n=user,r=abc", b"n,,N=user,r=abc",
])
def test_a_malformed_first_message_ends_the_login(users: dict[str, User], message: bytes) -> None:
    with pytest.raises(SaslError, match="^malformed SCRAM-SHA-256 response: "):
        login(users).respond(message)


def test_the_client_has_to_prove_how_it_binds_the_channel(users: dict[str, User]) -> None:
    # Somebody on the way has changed "y" to "n", or the reverse.
    scram, client = login(users), ScramClient("user", "pencil", header="y,,")
    answer = client.answer(challenged(scram, client.first.replace("y,,", "n,,", 1)))
    with pytest.raises(SaslError, match="channel binding and proof do not fit"):
        scram.respond(answer.encode())


@pytest.mark.parametrize("message", [b"p=tls-unique,,n=user,r=abc", b"p=tls-exporter,,n=user,r=abc"])
def test_a_client_that_wants_to_bind_the_channel_is_refused_for_that(users: dict[str, User], message: bytes) -> None:
    with pytest.raises(SaslError, match="channel binding is not supported"):
        login(users).respond(message)


@pytest.mark.parametrize("message", [
    b"n,,n=user,r=" + b"x" * 512, b"n,,n=user,r=x", b"n,,n=user,r=abc,x=extension,y=more"])
def test_nonces_of_any_length_and_extensions_are_taken(users: dict[str, User], message: bytes) -> None:
    assert isinstance(login(users).respond(message), Challenge)


@pytest.mark.parametrize("change", [
    lambda answer: "", lambda answer: answer.partition(",p=")[0], lambda answer: answer.partition("p=")[0] + "p=",
    lambda answer: answer + "!", lambda answer: answer.replace("c=biws", "c=eSws"),
    lambda answer: answer.replace("c=biws", "c="), lambda answer: answer.replace("r=", "r=x"),
    lambda answer: answer.replace("c=biws,", ""), lambda answer: "x=1," + answer,
    lambda answer: answer.replace(",r=", ",s="), lambda answer: answer + ",x=1",
])
def test_a_malformed_proof_ends_the_login_or_proves_nothing(
    users: dict[str, User], change: Callable[[str], str]
) -> None:
    scram, client = login(users), ScramClient("user", "pencil")
    answer = change(client.answer(challenged(scram, client.first)))
    try:
        step = scram.respond(answer.encode())
    except SaslError as error:
        assert str(error).startswith("malformed SCRAM-SHA-256 response: ")
    else:
        assert isinstance(step, ProvenLogin) and step.fault == "the password is wrong"


def test_an_extension_in_the_proof_is_signed_too(users: dict[str, User]) -> None:
    scram, client = login(users), ScramClient("user", "pencil")
    signed, _, proof = client.answer(challenged(scram, client.first)).partition(",p=")
    step = scram.respond(f"{signed},x=1,p={proof}".encode())
    assert isinstance(step, ProvenLogin) and step.fault == "the password is wrong"


def test_a_proof_cannot_be_given_twice(users: dict[str, User]) -> None:
    scram, client = login(users), ScramClient("user", "pencil")
    answer = client.answer(challenged(scram, client.first)).encode()
    scram.respond(answer)
    with pytest.raises(SaslError):
        scram.respond(answer)


def test_a_proof_of_one_login_is_worth_nothing_in_another(users: dict[str, User]) -> None:
    one, other, client = login(users, "first"), login(users, "second"), ScramClient("user", "pencil")
    answer = client.answer(challenged(one, client.first)).encode()
    challenged(other, client.first)
    with pytest.raises(SaslError, match="the nonce is another one"):
        other.respond(answer)


PIECES = st.sampled_from([
    b"n,,", b"y,,", b"n=user", b"r=abc", b"c=biws", b"r=abcserver", b"p=", b"p=AAAA", b",", b"=2C", b"=", b"\xff",
    b"a=x", b"p=" + base64.b64encode(bytes(32))])


@given(st.lists(st.binary(max_size=60) | st.lists(PIECES, max_size=8).map(b",".join), max_size=4))
def test_nothing_but_a_sasl_error_comes_of_any_messages(messages: list[bytes]) -> None:
    scram = login({"user": User(UserDefinition("user", scram_sha256=PENCIL))}, "server")
    for message in [*messages, b"n,,n=user,r=abc", *messages]:
        try:
            step = scram.respond(message)
        except SaslError as error:
            assert str(error)
            continue
        assert isinstance(step, Challenge) or step.fault


# On a connection

@pytest.fixture
def stage() -> Stage:
    stage = Stage(settings=replace(SETTINGS, login=LoginSettings(("SCRAM-SHA-256",))))
    user = stage.broker.users["guest"]
    user.definition = replace(user.definition, scram_sha256=PENCIL)
    return stage


def begun(stage: Stage, client: ScramClient, **properties: Any) -> Talk:
    """A client that has sent its first message."""
    known: Any = {"capabilities": CAPABILITIES, **properties}
    return stage.stranger().greet().client(
        Connection.StartOk(known, "SCRAM-SHA-256", client.first, "en_US"))


def test_a_client_logs_in_with_three_messages_and_checks_the_broker(stage: Stage) -> None:
    client = ScramClient("guest", "pencil")
    talk = begun(stage, client)
    talk.client(Connection.SecureOk(client.answer(talk.hear(Connection.Secure).challenge)))
    assert client.is_satisfied_by(talk.hear(Connection.Secure).challenge)
    assert talk.session.user_name == ""
    talk.client(Connection.SecureOk("")).hear(Connection.Tune)
    talk.client(Connection.TuneOk(10, 4_096, 0), Connection.Open("/")).broker(Connection.OpenOk())
    assert (talk.session.user_name, talk.session.statistics().auth_mechanism) == ("guest", "SCRAM-SHA-256")


def test_the_client_need_not_wait_for_our_last_words(stage: Stage) -> None:
    client = ScramClient("guest", "pencil")
    talk = begun(stage, client)
    stage.looks_at_passwords = False
    talk.client(Connection.SecureOk(client.answer(talk.hear(Connection.Secure).challenge)))
    talk.client(Connection.SecureOk(""), Connection.TuneOk(10, 4_096, 0), Connection.Open("/")).nothing()
    stage.looks_at_passwords = True
    stage.end_turn()
    talk.hear(Connection.Secure)
    talk.hear(Connection.Tune)
    talk.broker(Connection.OpenOk())


@pytest.mark.parametrize(("user", "password"), [("guest", "wrong"), ("nobody", "pencil"), ("bob", "secret bob")])
def test_a_wrong_proof_is_refused_like_a_wrong_password(stage: Stage, user: str, password: str) -> None:
    client = ScramClient(user, password)
    talk = begun(stage, client)
    talk.client(Connection.SecureOk(client.answer(talk.hear(Connection.Secure).challenge)))
    talk.broker(Connection.Close(
        403, "ACCESS_REFUSED - Login was refused using authentication mechanism SCRAM-SHA-256. For details see the "
             "broker logfile.", 0, 0))


def assert_ends_without_a_word(talk: Talk) -> None:
    talk.nothing()
    talk.stage.pass_time(1)
    assert talk.is_dropped and talk.session.user_name == ""


@pytest.mark.parametrize("answer", ["", "nonsense", "c=biws,r=x,p=AAAA"])
def test_a_malformed_answer_ends_the_handshake_without_a_word(stage: Stage, answer: str) -> None:
    talk = begun(stage, ScramClient("guest", "pencil"))
    talk.hear(Connection.Secure)
    assert_ends_without_a_word(talk.client(Connection.SecureOk(answer)))


@pytest.mark.parametrize("method", [
    Connection.TuneOk(10, 4_096, 0), Connection.Open("/"), Connection.StartOk({}, "SCRAM-SHA-256", "", "")],
    ids=lambda method: method.name)
def test_another_method_in_place_of_the_answer_ends_the_handshake(stage: Stage, method: Any) -> None:
    talk = begun(stage, ScramClient("guest", "pencil"))
    talk.hear(Connection.Secure)
    assert_ends_without_a_word(talk.client(method))


def test_more_than_an_empty_answer_to_our_last_words_ends_the_handshake(stage: Stage) -> None:
    client = ScramClient("guest", "pencil")
    talk = begun(stage, client)
    talk.client(Connection.SecureOk(client.answer(talk.hear(Connection.Secure).challenge))).hear(Connection.Secure)
    assert_ends_without_a_word(talk.client(Connection.SecureOk("more")))


def test_an_answer_larger_than_the_smallest_frame_is_refused_as_a_start_ok_is(stage: Stage) -> None:
    large = begun(stage, ScramClient("guest", "pencil"))
    large.hear(Connection.Secure)
    large.client(Connection.SecureOk("x" * 4_096))
    close = large.hear(Connection.Close)
    assert close.reply_code == 501 and close.reply_text.startswith("FRAME_ERROR")


def test_a_client_that_does_not_answer_a_challenge_has_the_time_of_a_handshake(stage: Stage) -> None:
    talk = begun(stage, ScramClient("guest", "pencil"))
    talk.hear(Connection.Secure)
    stage.pass_time(9)
    assert not talk.is_dropped
    stage.pass_time(1)
    assert talk.is_dropped
