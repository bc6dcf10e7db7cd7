"""Logins with every mechanism, over several steps.

An input is a mechanism, then the client's answers, each with two bytes of length.
"""

from __future__ import annotations

from msgspec.structs import replace

from amqpd.broker.access import User
from amqpd.broker.definitions import UserDefinition
from amqpd.broker.passwords import hash_known_password, password_matches
from amqpd.broker.scram import MadeUpVerifiers, make_verifier, prepare, read_verifier
from amqpd.fields import encode_table
from amqpd.session.sasl import MECHANISMS, Circumstances, Respond, begin
from amqpd.session.sasl_steps import Challenge, LoginRequest, LoginSettings, ProvenLogin, SaslError
from amqpd.session.scram import ScramLogin, Verifiers
from amqpd.tls_facts import PeerCertificate
from tests.fuzz.targets.target import Target
from tests.support.scram_client import ScramClient

PASSWORD = "pencil"
VERIFIER = str(make_verifier(PASSWORD, salt=b"salt of a user..", iterations=1))
STORED = UserDefinition("user", *hash_known_password(PASSWORD))
USERS = {name: User(UserDefinition(name, scram_sha256=verifier)) for name, verifier in (
    ("user", VERIFIER), ("a,b=c", VERIFIER), ("none", ""), ("damaged", "SCRAM-SHA-256$1:x$y:z"))}
SETTINGS = LoginSettings(mechanisms=tuple(MECHANISMS), anonymous_user="guest")
VERIFIERS = Verifiers(USERS, MadeUpVerifiers(bytes(32)))
CERTIFICATE = PeerCertificate(subject="CN=c", issuer="CN=ca", common_name="c", not_before=0, not_after=1 << 40)
CIRCUMSTANCES = Circumstances(SETTINGS, VERIFIERS, certificate=CERTIFICATE)
NAMES = (*MECHANISMS, "OTHER")
SCRAM = "SCRAM-SHA-256"
LONGEST = 5     # answers


def run(data: bytes) -> None:
    """Log in. A refusal has a reason, and a login shows its password to nobody but the one who checks it."""
    name = NAMES[data[0] % len(NAMES)] if data else "OTHER"
    try:
        respond: Respond = begin(name, CIRCUMSTANCES)
        if name == SCRAM:       # with a nonce that a proof can be made for
            respond = ScramLogin(VERIFIERS, lambda: "nonce").respond
        for answer in answers_in(data[1:]):
            step = respond(answer)
            if isinstance(step, Challenge):
                assert step.data
                continue
            look_at(step, name)
            if name != SCRAM:
                return
    except SaslError as error:
        assert str(error).isprintable() and PASSWORD not in str(error), error


def answers_in(data: bytes) -> list[bytes]:
    """Return the answers of an input."""
    answers, at = [], 0
    while at + 2 <= len(data) and len(answers) < LONGEST:
        size = int.from_bytes(data[at:at + 2], "big")
        answers.append(data[at + 2:at + 2 + size])
        at += 2 + size
    return answers


def look_at(login: LoginRequest | ProvenLogin, name: str) -> None:
    """Check a login as the server does."""
    assert isinstance(login, LoginRequest if name in ("PLAIN", "AMQPLAIN") else ProvenLogin)
    if isinstance(login, LoginRequest):
        login.user.encode()
        prepare(login.password)
        if login.password == PASSWORD:      # any other one costs a hash that is slow on purpose
            assert password_matches(STORED, login.password)
        assert PASSWORD not in repr(replace(login, user=""))
    elif name == SCRAM:
        assert read_verifier(VERIFIER) is not None
        assert login.fault or login.user in ("user", "a,b=c")
        assert login.last_words.startswith(b"v=")


def seeds() -> list[bytes]:
    """Return logins that succeed and some that fail, with each mechanism."""
    answers: dict[str, list[list[bytes]]] = {
        "PLAIN": [[b"\0user\0pencil"], [b"\0\0"], [b"x\0user\0pencil"], [b"\0\xc3\xa4\0\xc2\xaa\xe2\x85\xa8"]],
        "AMQPLAIN": [[encode_table({"LOGIN": "user", "PASSWORD": PASSWORD})], [encode_table({"LOGIN": 1})]],
        SCRAM: [exchange(user) for user in ("user", "a,b=c", "none", "damaged", "nobody")],
        "EXTERNAL": [[b""]], "ANONYMOUS": [[b"trace"]], "OTHER": [[b""]]}
    return [bytes((NAMES.index(name),)) + b"".join(len(one).to_bytes(2, "big") + one for one in exchanged)
            for name, exchanges in answers.items() for exchanged in exchanges]


def exchange(user: str) -> list[bytes]:
    """Return what a client of SCRAM answers."""
    scram, client = ScramLogin(VERIFIERS, lambda: "nonce"), ScramClient(user, PASSWORD, "client")
    challenge = scram.respond(client.first.encode())
    assert isinstance(challenge, Challenge)
    return [client.first.encode(), client.answer(challenge.data.decode()).encode(), b""]


TARGET = Target(
    run, seeds, [b"n,,", b"y,,", b"p=tls-unique,,", b"a=x,", b"n=user", b"r=client", b",r=clientnonce", b"=2C", b"=3D",
                 b"c=biws", b",p=", b"m=ext,", b"\x05LOGINS\0\0\0", b"\x08PASSWORDS\0\0\0", b"\0user\0pencil"],
    steps=100, memory=6_000, lengths=(2, 4, 1), share=30)
