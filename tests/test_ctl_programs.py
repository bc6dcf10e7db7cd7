"""amqpctl under other names, over HTTP, waiting for a broker, and completed by a shell."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from amqpd import ctl
from amqpd.broker.broker import OPERATOR
from amqpd.broker.definitions import QueueDefinition, VhostDefinition
from amqpd.ctl import web
from amqpd.ctl.refused import REASONS
from tests.support.control_sockets import broker_in_thread


class FakeRoute(HTTPServer):
    """Answers POST /api/amqpctl with `status` and `answer`, and keeps the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FakeHandler)
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.status = 200
        self.answer: Any = {"ok": True, "result": None}

    @property
    def url(self) -> str:
        """The address, with a user whose name needs an escape."""
        return f"http://till%40shop@127.0.0.1:{self.server_port}/prefix"


class FakeHandler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: FakeRoute

    def do_POST(self) -> None:
        """Note the request and answer it."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers["Authorization"], json.loads(body)))
        content = json.dumps(self.server.answer).encode() if not isinstance(self.server.answer, bytes) else \
            self.server.answer
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def route(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRoute]:
    """A fake management listener, and a password in the environment."""
    monkeypatch.setenv("AMQPCTL_PASSWORD", "open sesame")
    with FakeRoute() as fake:
        thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield fake
        fake.shutdown()
        thread.join()


# Over HTTP

def test_a_command_is_asked_over_http(route: FakeRoute, capsys: pytest.CaptureFixture[str]) -> None:
    route.answer = {"ok": True, "result": {"columns": ["name"], "rows": [["orders"]]}}
    assert ctl.main(["--url", route.url, "-q", "list_queues", "name"]) == 0
    (path, login, request), = route.asked
    assert path == "/prefix/api/amqpctl"
    assert base64.b64decode(login.removeprefix("Basic ")) == b"till@shop:open sesame"
    assert request == {"command": "list_queues", "arguments": {"vhost": "/", "columns": ["name"]}}
    assert capsys.readouterr().out == "name\norders\n"


def test_a_refusal_over_http_has_its_text_and_exit_code(route: FakeRoute, capsys: pytest.CaptureFixture[str]) -> None:
    route.answer = {"ok": False, "error": "Queue not found", "exit_code": 64}
    assert ctl.main(["--url", route.url, "-q", "delete_queue", "orders"]) == 64
    assert capsys.readouterr().err == "amqpctl: Queue not found\n"


def test_files_go_over_http_in_base64(
    route: FakeRoute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMQPCTL_URL", route.url)
    file = tmp_path / "definitions.json"
    file.write_bytes(b"{}\xff")
    route.answer = {"ok": True, "result": {"count": 0, "warnings": [], "is_unchanged": False}}
    assert ctl.main(["import_definitions", str(file)]) == 0
    assert base64.b64decode(route.asked[0][2]["body"]) == b"{}\xff"
    route.answer = {"ok": True, "body": base64.b64encode(b"\xfeexported").decode()}
    assert ctl.main(["export_definitions", str(file)]) == 0
    assert file.read_bytes() == b"\xfeexported"


@pytest.mark.parametrize("status, answer, exit_code, told", [
    (401, {"error": "not_authorized", "reason": "Login failed"}, 77, "wrong user or password for http://till%40shop@"),
    (401, b"", 77, "give the user in the URL, and the password in AMQPCTL_PASSWORD"),
    (401, {"error": "not_authorised", "reason": "Not administrator user"}, 77, "may not do this at "),
    (403, b"", 77, "the login was refused"),
    (404, {"error": "Object Not Found"}, 69, "it is not amqpd's management listener"),
    (502, b"<html>", 69, "answered with status 502: <html>"),
    (502, b"a\x1b[31mb", 69, "answered with status 502: a\\x1b[31mb"),
])
def test_what_is_not_an_answer_of_amqpd_is_an_error(
    route: FakeRoute, capsys: pytest.CaptureFixture[str], status: int, answer: Any, exit_code: int, told: str
) -> None:
    route.status, route.answer = status, answer
    assert ctl.main(["--url", route.url, "-q", "ping"]) == exit_code
    shown = capsys.readouterr().err
    assert told in shown and "sesame" not in shown


def test_a_listener_that_does_not_speak_http_is_an_error(
    route: FakeRoute, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer_as_amqp(handler: FakeHandler) -> None:
        handler.wfile.write(b"AMQP\x00\x00\x09\x01")

    monkeypatch.setattr(FakeHandler, "do_POST", answer_as_amqp)
    assert ctl.main(["--url", route.url, "-q", "ping"]) == 69
    assert capsys.readouterr().err.endswith("/prefix does not answer as HTTP: it is not amqpd's management listener\n")


def test_a_place_on_the_command_line_counts_before_a_url_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMQPCTL_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AMQPCTL_PASSWORD", "")
    assert ctl.main(["--data-dir", str(tmp_path), "-q", "ping"]) == 69
    assert "no amqpd is running" in capsys.readouterr().err
    assert ctl.main(["-q", "ping"]) == 69
    assert "cannot reach amqpd at http://guest@127.0.0.1:1: Connection refused" in capsys.readouterr().err


@pytest.mark.parametrize("url, told", [
    ("http://till:sesame@host", "a password on the command line can be read by others"),
    ("ftp://host", "give http://USER@HOST:PORT"), ("host:15672", "give http"), ("http://", "give http"),
    ("http://host:99999", "--url: "), ("http://host/?a=b", "give http"),
])
def test_a_url_that_cannot_be_used_is_64(capsys: pytest.CaptureFixture[str], url: str, told: str) -> None:
    assert ctl.main(["--url", url, "-q", "ping"]) == 64
    shown = capsys.readouterr().err
    assert told in shown and "sesame" not in shown


def test_an_address_has_defaults() -> None:
    assert str(web.address_of("http://host")) == "http://guest@host:15672"
    assert str(web.address_of("https://till@[::1]/mq/")) == "https://till@[::1]:15671/mq"


def test_a_password_is_kept_in_a_file_that_only_its_owner_may_read(
    route: FakeRoute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AMQPCTL_PASSWORD")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ctl.main(["--url", route.url, "-q", "ping"]) == 77
    assert "no password for " in capsys.readouterr().err
    file = tmp_path / ".config" / "amqpd" / "passwords"
    file.parent.mkdir(parents=True)
    file.write_text(f"# mine\nhttp://guest@127.0.0.1:1 wrong\n{route.url} a secret\n")
    file.chmod(0o640)
    assert ctl.main(["--url", route.url, "-q", "ping"]) == 78
    assert "others may read the passwords in it; change that: chmod 600 " in capsys.readouterr().err
    file.chmod(0o600)
    assert ctl.main(["--url", route.url, "-q", "ping"]) == 0
    assert base64.b64decode(route.asked[0][1].removeprefix("Basic ")) == b"till@shop:a secret"


def test_a_stop_over_http_waits_until_nobody_listens(route: FakeRoute, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([contextlib.nullcontext(), ConnectionRefusedError()])

    def look(*_: Any, **__: Any) -> Any:
        found = next(looks)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(web.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(web.socket, "create_connection", look)
    monkeypatch.setattr(web, "_post", lambda *_: {"ok": True, "result": None})
    assert ctl.main(["--url", route.url, "-q", "stop"]) == 0
    assert next(looks, None) is None


# Long work

def test_a_long_import_shows_on_a_terminal_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[Any] = []

    def ask(*_: Any, meanwhile: Any = None, **__: Any) -> Any:
        given.append(meanwhile)
        for _ in range(2 if meanwhile else 0):
            meanwhile()
        return {"count": 2, "warnings": [], "is_unchanged": False}

    monkeypatch.setattr("amqpd.ctl.client.ask", ask)
    file = tmp_path / "definitions.json"
    file.write_text("{}")
    assert ctl.main(["-q", "import_definitions", str(file)]) == 0
    assert given == [None] and capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert ctl.main(["-q", "import_definitions", str(file)]) == 0
    assert capsys.readouterr().err.count("importing") >= 1


# Waiting for a broker

def test_a_broker_that_is_not_there_yet_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.ExitStack() as stack:
        begun: list[float] = []

        def start_instead_of_sleeping(seconds: float) -> None:
            if not begun:
                stack.enter_context(broker_in_thread(tmp_path))
            begun.append(seconds)

        monkeypatch.setattr("amqpd.ctl.waiting.time.sleep", start_instead_of_sleeping)
        for command in (["await_startup"], ["wait"], ["await_online_nodes", "1"]):
            assert ctl.main(["--data-dir", str(tmp_path), "-q", *command]) == 0
        assert len(begun) == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("words, exit_code", [
    (["await_startup", "-t", "0.01"], 75), (["wait", "-t", "0.01"], 75), (["wait", "-P", "{ended}"], 69),
    (["wait", "{file}"], 69), (["wait", "no-file", "-t", "0.01"], 75),
])
def test_a_wait_ends_with_the_time_or_the_process(tmp_path: Path, words: list[str], exit_code: int) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    file = tmp_path / "node.pid"
    file.write_text(f"{ended.pid}\n")
    said = [word.format(ended=ended.pid, file=file) for word in words]
    assert ctl.main(["--data-dir", str(tmp_path), "-q", *said]) == exit_code


def test_a_stop_may_find_no_broker(tmp_path: Path) -> None:
    assert ctl.main(["--data-dir", str(tmp_path), "-q", "stop"]) == 69
    assert ctl.main(["--data-dir", str(tmp_path), "-q", "stop", "--idempotent"]) == 0


# Checks that fail, and commands that are refused

ALARM = {"resource": "disk", "node": "amqpd@localhost"}
CERTIFICATE = {"setting": "tls.certificate", "file": "/etc/a.pem", "names": ["a"], "not_after": "2027-01-31",
               "days_left": 20}
CLOSED_PORT = {"interface": "127.0.0.1", "port": 1, "protocol": "amqp", "purpose": "AMQP 0-9-1"}


@pytest.mark.parametrize("words, told", [
    (["check_local_alarms"], "Free disk space alarm on node amqpd@localhost"),
    (["check_alarms"], "Free disk space alarm on node amqpd@localhost"),
    (["node_health_check"], "resource alarm(s) in effect: [disk]"),
    (["check_certificate_expiration"], "/etc/a.pem, valid until 2027-01-31"),
    (["check_certificate_expiration", "--within", "21", "--unit", "days"], "within 21 days"),
    (["check_port_connectivity"], "Interface: 127.0.0.1, port: 1, protocol: amqp"),
    (["check_protocol_listener", "amqps"], "Found listeners for the following protocols: amqp"),
])
def test_a_check_that_fails_is_69(
    route: FakeRoute, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    route.answer = {"ok": True, "result": {
        "alarms": [ALARM], "tls_certificates": [CERTIFICATE], "listeners": [CLOSED_PORT]}}
    assert ctl.main(["--url", route.url, "-q", *words]) == 69
    assert told in capsys.readouterr().err


def test_a_certificate_may_still_be_valid_for_long_enough(route: FakeRoute) -> None:
    route.answer = {"ok": True, "result": {"tls_certificates": [CERTIFICATE]}}
    assert ctl.main(["--url", route.url, "-q", "check_certificate_expiration", "--within", "2"]) == 0


@pytest.mark.parametrize("name", REASONS)
def test_a_command_of_rabbitmqctls_that_is_refused_says_why_in_a_line(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl.main([name, "some", "--argument", "-x"]) == 69
    assert capsys.readouterr().err == f"amqpctl: {name}: {REASONS[name]}\n"


# What is shown of all

def test_a_report_has_everything_and_no_password(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with broker_in_thread(tmp_path):
        assert ctl.main(["--data-dir", str(tmp_path), "report"]) == 0
    shown = capsys.readouterr().out
    for heading in ("Status of node", "Cluster status of node", "Application environment of node", "Listing users",
                    "Listing queues for vhost /", "Listing exchanges for vhost /", 'Listing policies for vhost "/"'):
        assert heading in shown
    assert "amq.topic\ttopic" in shown


def test_a_hashed_password_can_be_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["-q", "hash_password", "secret"]) == 0
    hashed = base64.b64decode(capsys.readouterr().out)
    assert hashed[4:] == sha256(hashed[:4] + b"secret").digest()
    assert ctl.main(["-q", "hash_password", ""]) == 69


# Other names, and shells

def test_alias_programs_are_amqpctl_and_replace_no_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for _ in range(2):      # its own are replaced
        assert ctl.main(["install_aliases", str(programs)]) == 0
    told = subprocess.run(
        [programs / "rabbitmq-diagnostics", "-q", "check_running", "--data-dir", tmp_path], capture_output=True,
        text=True, env={**os.environ, "PYTHONPATH": str(Path(ctl.__file__).parents[2])})
    assert (told.returncode, told.stderr.partition(":")[0]) == (69, "rabbitmq-diagnostics")
    (programs / "rabbitmqctl").write_text("#!/bin/sh\n")
    capsys.readouterr()
    assert ctl.main(["install_aliases", str(programs)]) == 74
    assert "exists already, and is not amqpd's" in capsys.readouterr().err
    assert (programs / "rabbitmqctl").read_text() == "#!/bin/sh\n"
    assert ctl.main(["install_aliases", str(programs), "--force"]) == 0
    assert ctl.main(["install_aliases", str(tmp_path / "none")]) == 74


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["completion", shell]) == 0
    assert "_AMQPCTL_COMPLETE" in capsys.readouterr().out


def test_a_shell_completes_commands() -> None:
    assert completions("amqpctl list_q") == ["list_queues"]


def test_a_shell_completes_names_of_the_running_broker(tmp_path: Path) -> None:
    with broker_in_thread(tmp_path) as (broker, _):
        variables = {"AMQPD_DATA_DIR": str(tmp_path)}
        assert completions("amqpctl delete_user g", **variables) == ["guest"]
        broker.add_vhost(VhostDefinition("shop"))
        broker.vhosts["shop"].declare_queue(OPERATOR, QueueDefinition(0, "shop", "orders"), OPERATOR)
        assert completions("amqpctl -p shop purge_queue ", **variables) == ["orders"]
        assert completions("amqpctl purge_queue ", **variables) == []
        assert completions("amqpctl list_queues -p s", **variables) == ["shop"]
        assert completions("amqpctl list_queues message_bytes_p", **variables) == [
            "message_bytes_persistent", "message_bytes_paged_out"]
    assert completions("amqpctl purge_queue ", **variables) == []       # nobody answers


def completions(line: str, **variables: str) -> list[str]:
    """Return what bash would offer for the last word of a line."""
    words = line.split(" ")
    shown = subprocess.run(
        [sys.executable, "-c", "from amqpd import ctl; ctl.main([])"],
        env={**os.environ, **variables, "_AMQPCTL_COMPLETE": "bash_complete", "COMP_WORDS": line,
             "COMP_CWORD": str(len(words) - 1)}, capture_output=True, text=True).stdout
    return [answer.partition(",")[2] for answer in shown.splitlines() if answer]
