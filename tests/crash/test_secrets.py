"""The search for secrets: a whole broker at log level debug, its tools, good and bad logins, and configs with mistakes.

Each place that can hold a password holds one of its own, so that a finding tells where it comes from. None of them, and
no hash of one, may be in any output, in the log, in a reply, in a process list, or unhashed in the data directory. Only
an export of definitions has the hashes.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from amqpd import cli, ctl
from amqpd.ctl.commands import all_commands
from conformance import methods
from conformance.client import Client, amqplain_response, frame, method_frame, plain_response
from conformance.fields import pack
from tests.crash.broker_process import BrokerProcess
from tests.support.scram_client import ScramClient

Main = Callable[[Sequence[str]], int]

SECRET = "Sesame"       # what all passwords begin with
DEFAULT, DECLARED, KEY, ADDED, CHANGED, WRONG, GUESSED, RENEWED, IMPORTED, IN_A_URI = (
    f"{SECRET}-{number}" for number in range(10))

CONFIG = f"""
default_user = "owner"
default_password = "{DEFAULT}"
auth_mechanisms = ["PLAIN", "AMQPLAIN", "SCRAM-SHA-256"]
[tls]
listeners = ["127.0.0.1:0"]
certificate = "tls/server.pem"
key = "tls/server.key"
key_password = "{KEY}"
[limits]
login_failure_delay_s = 0.0
[[users]]
name = "till"
password = "{DECLARED}"
permissions = [{{vhost = "/", configure = ".*", write = ".*", read = ".*"}}]
"""

# Configs with a mistake where a secret is, as TOML, as rabbitmq.conf, and as variables.
WRONG_TOML = [
    f'default_password = ["{WRONG}"]', f'default_pasword = "{WRONG}"', f'default_password = "{WRONG}',
    f"default_password = {WRONG}", f'users = "{WRONG}"', f'users = ["{WRONG}"]', f'tls = "{WRONG}"',
    f'users = [{{name = "till", password = ["{WRONG}"]}}]', f'users = [{{name = "till", pasword = "{WRONG}"}}]',
    f'users = [{{name = "till", password = "{WRONG}", password_hash = "{WRONG}"}}]',
    f'users = [{{name = "till", password_hash = "{WRONG}"}}]', f'users = [{{password = "{WRONG}"}}]',
    f'tls = {{key_password = ["{WRONG}"]}}', f'tls = {{key_pasword = "{WRONG}"}}',
    f'tls = {{listeners = [":0"], certificate = "tls/server.pem", key = "tls/server.key", key_password = "{WRONG}"}}',
    f'tls = {{names = [{{name = "n", certificate = "c", key = "k", key_password = ["{WRONG}"]}}]}}',
]
WRONG_CONF = [
    f"default_pas = {WRONG}", f"default_pass {WRONG}", f"default_pass = '{WRONG}", f"default_pass.x = {WRONG}",
    f"ssl_options.pasword = {WRONG}", f"ssl_options.password = {WRONG}", f"auth_ldap.other_bind.password = {WRONG}",
    f"default_pass = {WRONG}\nlisteners.tcp.default = x",
    f"anonymous_login_pass = {WRONG}", f"default_users.till.password = {WRONG}",
]
WRONG_VARIABLES = [
    {"AMQPD_DEFAULT_PASWORD": WRONG}, {"AMQPD_TLS_KEY_PASWORD": WRONG}, {"RABBITMQ_DEFAULT_PASS": WRONG},
    {"AMQPD_USERS": WRONG}, {"RABBITMQ_DEFAULT_PASSWORD": WRONG},
]

# Definitions with a mistake where a secret is.
URI = f"amqp://up:{IN_A_URI}@elsewhere"
WRONG_DEFINITIONS = [
    f'{{"users": [{{"name": "a", "password": "{IMPORTED}" "x"}}]}}', f'"{IMPORTED}"', f'{{"users": "{IMPORTED}"}}',
    f'{{"users": ["{IMPORTED}"]}}', f'{{"users": [{{"name": "a", "password": ["{IMPORTED}"]}}]}}',
    f'{{"users": [{{"name": "a", "pasword": "{IMPORTED}"}}]}}', f'{{"users": [{{"password": "{IMPORTED}"}}]}}',
    f'{{"users": [{{"name": "a", "password_hash": "{IMPORTED}", "hashing_algorithm": "rot13"}}]}}',
    f'{{"users": [{{"name": "a", "password": "{IMPORTED}", "password_hash": "{IMPORTED}", "tags": 1}}]}}',
    f'{{"users": [{{"name": "a", "scram_sha256": ["{IMPORTED}"]}}]}}',
    f'{{"users": [{{"name": "a", "password_hash": "{IMPORTED}"}}]}}',
    f'{{"parameters": [{{"component": "federation-upstream", "name": "u", "value": {{"uri": "{URI}"}}}}]}}',
    f'{{"parameters": [{{"component": "vhost-limits", "vhost": "/", "name": "u", "value": {{"uri": "{URI}"}}}}]}}',
    f'{{"global_parameters": [{{"nam": "u", "value": {{"uri": "{URI}"}}}}]}}',
]
RIGHT_DEFINITIONS = json.dumps({
    "users": [{"name": "clerk", "password": IMPORTED, "tags": "monitoring"}],
    "parameters": [{"component": "federation-upstream", "vhost": "/", "name": "up", "value": {"uri": URI}}],
    "global_parameters": [{"name": "elsewhere", "value": {"uri": URI}}]})


@dataclass
class Said:
    """All that was said, and the secrets that must not be in it."""

    texts: list[tuple[str, bytes]] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)

    def add(self, where: str, text: str | bytes) -> None:
        """Remember what was said there."""
        self.texts.append((where, text.encode() if isinstance(text, str) else text))

    def findings(self, *, of_hashes: bool = True) -> list[str]:
        """Return where a secret is in plain text, in base64, in hex or as numbers, or a hash."""
        plain = SECRET.encode()
        sought = [plain, plain.hex().encode(), ",".join(map(str, plain)).encode(), *encodings(SECRET)]
        sought += self.hashes if of_hashes else []
        return [f"{where}: {line.decode(errors='replace')}" for where, text in self.texts for line in text.split(b"\n")
                if any(one in line for one in sought)]


def encodings(text: str) -> list[bytes]:
    """Return what is in the base64 of anything that contains this text, wherever it begins."""
    encoded = [base64.b64encode(bytes(start) + text.encode()) for start in range(3)]
    return [octets[-(-start * 4 // 3):(start + len(text.encode())) * 4 // 3] for start, octets in enumerate(encoded)]


class Program:
    """Runs the tools beside the broker, in its folder, and keeps what they say."""

    def __init__(self, said: Said, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._said = said
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def run(self, main: Main, *words: str, stdin: str = "", variables: dict[str, str] | None = None) -> str:
        """Run a program with these words; return what it said."""
        with self._monkeypatch.context() as patch:
            patch.setattr("sys.stdin", io.StringIO(stdin))
            for name, value in (variables or {}).items():
                patch.setenv(name, value)
            main(words)
        said = self._capsys.readouterr()
        self._said.add(" ".join(words), said.out + said.err)
        return said.out + said.err

    def ctl(self, *words: str, stdin: str = "") -> str:
        """Run amqpctl."""
        return self.run(ctl.main, "--data-dir", "data", *words, stdin=stdin)

    def check_config(self, *words: str, variables: dict[str, str] | None = None) -> None:
        """Run `amqpd check-config` on something wrong."""
        assert self.run(cli.main, "check-config", *words, variables=variables), words


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def program(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> Program:
    """The tools, in a folder with certificates and a key that has a password."""
    monkeypatch.chdir(tmp_path)
    program = Program(said, monkeypatch, capsys)
    program.run(ctl.main, "-q", "make_certificates", "tls")
    path = tmp_path / "tls" / "server.key"
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(KEY.encode())))
    return program


@pytest.fixture
def broker(program: Program, said: Said, tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker with secrets in its config. When it has ended, its log is kept, and what is in its folder."""
    (tmp_path / "amqpd.toml").write_text(CONFIG.replace("tls/", f"{tmp_path}/tls/"))
    started = BrokerProcess(
        tmp_path / "data", tmp_path / "log", variables={"AMQPD_CONFIG_FILE": str(tmp_path / "amqpd.toml")},
        level="debug")
    with started:
        yield started.wait_until_ready()


def test_no_secret_is_said(program: Program, broker: BrokerProcess, said: Said, tmp_path: Path) -> None:
    said.add("the process list", Path(f"/proc/{broker.pid}/cmdline").read_bytes())
    change_users(program)
    log_in(broker.port, said)
    import_definitions(program, tmp_path)
    list_everything(program)
    exported = json.loads(program.ctl("-q", "export_definitions", "-"))
    said.texts.pop()        # the one answer that has the hashes, and what parameters hold
    said.hashes += [user[name].encode() for user in exported["users"] for name in ("password_hash", "scram_sha256")
                    if user.get(name)]
    assert len(said.hashes) > 5
    assert broker.stop() == 0
    said.add("the log", broker.log_path.read_bytes())
    program.run(cli.main, "store", "check", "--data-dir", "data")
    assert "login refused: user 'added'" in broker.log_path.read_text()
    assert said.findings() == []
    assert at_rest(tmp_path / "data").findings(of_hashes=False) == []


def change_users(program: Program) -> None:
    """Passwords by stdin, as operators should give them."""
    program.ctl("add_user", "added", stdin=f"{ADDED}\n")
    program.ctl("add_user", "added", stdin=f"{WRONG}\n")
    program.ctl("add_user", "", stdin=f"{WRONG}\n")
    program.ctl("change_password", "nobody", stdin=f"{WRONG}\n")
    program.ctl("change_password", "added", stdin=f"{CHANGED}\n")
    program.ctl("authenticate_user", "added", stdin=f"{CHANGED}\n")
    program.ctl("authenticate_user", "added", stdin=f"{WRONG}\n")
    program.ctl("set_permissions", "added", ".*", ".*", ".*")


def list_everything(program: Program) -> None:
    """Every command that shows something. Parameters are shown as they were set, as by rabbitmqctl."""
    lists = [name for name in all_commands()
             if name.startswith("list_") and "_user_" not in name and not name.endswith("_parameters")]
    assert len(lists) > 10
    for name in [*lists, "status", "ping"]:
        program.ctl(name)
    program.ctl("list_user_permissions", "added")
    program.ctl("list_users", "--formatter", "json")


def import_definitions(program: Program, folder: Path) -> None:
    """Good ones, and such with mistakes."""
    for text in [*WRONG_DEFINITIONS, RIGHT_DEFINITIONS]:
        (folder / "definitions.json").write_text(text)
        program.ctl("import_definitions", "definitions.json")
    value = json.dumps({"uri": URI})
    program.ctl("-q", "set_parameter", "federation-upstream", "by-hand", value)
    program.ctl("-q", "set_global_parameter", "by-hand", value)


def at_rest(folder: Path) -> Said:
    """What the files of the store hold. The URIs of parameters are kept as they are."""
    files = Said()
    for path in folder.rglob("*"):
        if path.is_file():
            files.add(path.name, path.read_bytes().replace(IN_A_URI.encode(), b""))
    return files


# Logins

def log_in(port: int, said: Said) -> None:
    """Log in with right and wrong passwords by all mechanisms, and with octets that are no login."""
    for mechanism, response in {"PLAIN": plain_response, "AMQPLAIN": amqplain_response}.items():
        for user, password in [("added", CHANGED), ("till", DECLARED), ("added", GUESSED), ("nobody", GUESSED)]:
            said.add(mechanism, start(port, mechanism, response(user, password)))
        said.add("ill-formed", start(port, mechanism, f"added{GUESSED}".encode()))
        said.add("ill-formed", start(port, mechanism, b"\0" + f"added\0{GUESSED}\0{GUESSED}".encode()))
        said.add("too long", start(port, mechanism, response("added", GUESSED * 1_000)))
    said.add("unknown", start(port, "X-SECRET", f"\0added\0{GUESSED}".encode()))
    for password in (CHANGED, GUESSED):
        said.add("scram", prove(port, password))
    with Client(f"amqp://added:{CHANGED}@127.0.0.1:{port}/") as client:
        client.send_method(0, *methods.CONNECTION_UPDATE_SECRET, pack("Ls", RENEWED, "renewed"))
        client.expect(0, *methods.CONNECTION_UPDATE_SECRET_OK)
        client.send_method(0, *methods.CONNECTION_UPDATE_SECRET, pack("L", RENEWED))
        said.add("update-secret", client.await_method(0, [methods.CONNECTION_CLOSE]).args)
    started = method_frame(0, *methods.CONNECTION_START_OK, pack(
        "TsLs", {}, "PLAIN", f"\0added\0{GUESSED}", "en_US"))
    header = b"AMQP\0\0\x09\x01"
    token = base64.b64encode(f"added:{GUESSED}".encode())
    for octets in (
        started, header + started[:-1] + b"?", header + started[:20] + b"?" + started[21:], header + started[:-8],
        header + frame(1, 0, pack("22TsL", *methods.CONNECTION_START_OK, {}, "PLAIN", GUESSED))[:-1] + b"?",
        header + method_frame(0, *methods.CONNECTION_SECURE_OK, pack("L", GUESSED))[:-1] + b"?",
        b"GET / HTTP/1.1\r\nAuthorization: Basic " + token + b"\r\n\r\n",
        method_frame(0, *methods.CONNECTION_SECURE_OK, pack("L", GUESSED)),
    ):
        said.add("stray octets", exchange(port, octets))


def start(port: int, mechanism: str, response: bytes) -> bytes:
    """Send start-ok; return what the broker answers."""
    with contextlib.closing(Client(f"amqp://127.0.0.1:{port}/", connect=False)) as client:
        client.open_socket()
        client.greet()
        client.send_start_ok(mechanism, response)
        try:
            return client.read().args
        except ConnectionError as error:
            return str(error).encode()


def prove(port: int, password: str) -> bytes:
    """Log in by SCRAM; return all that the broker says."""
    scram = ScramClient("added", password)
    with contextlib.closing(Client(f"amqp://127.0.0.1:{port}/", connect=False)) as client:
        client.open_socket()
        client.greet()
        client.send_start_ok("SCRAM-SHA-256", scram.first.encode())
        challenge, = client.expect(0, *methods.CONNECTION_SECURE).decode("L")
        client.send_method(0, *methods.CONNECTION_SECURE_OK, pack("L", scram.answer(challenge)))
        return client.read().args


def exchange(port: int, octets: bytes) -> bytes:
    """Send octets, and return what comes before the broker closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(octets)
        client.shutdown(socket.SHUT_WR)
        came = b""
        with contextlib.suppress(ConnectionError):
            while octets := client.recv(65_536):
                came += octets
        return came


# Configs with mistakes

def test_no_secret_of_a_config_with_a_mistake_is_said(program: Program, said: Said, tmp_path: Path) -> None:
    for text in WRONG_TOML:
        (tmp_path / "wrong.toml").write_text(text)
        program.check_config("wrong.toml")
    for text in WRONG_CONF:
        (tmp_path / "wrong.conf").write_text(text)
        program.check_config("--rabbitmq-conf", "wrong.conf")
    for variables in WRONG_VARIABLES:
        program.check_config(variables=variables)
    assert said.findings() == []
