"""§33 The management API: programs that talk to it, run for real: rabbitmqadmin, pyrabbit2, Flower and Celery."""
from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Iterator
from urllib.parse import urlsplit

import pytest

from conformance.http.admin_words import SCRIPT, Word
from conformance.http.api import Api
from conformance.http.running import Run, prepared
from conformance.http.scenarios.scenario import VHOST, everything_deleted, vhost_made

pytestmark = [pytest.mark.needs("http"), pytest.mark.timeout(300), pytest.mark.usefixtures("statistics")]

HERE = Path(__file__).parent / "programs"
PATIENCE_S, PAUSE_S = 20, 0.5
CLEANUP = everything_deleted("/users/shapes-user", "/users/shapes-hashed", "/users/shapes-pyrabbit")
FIRST_WITH_CONNECTION = "list connections"
Outputs = dict[int, tuple[int, str]]


@pytest.fixture(scope="module")
def outputs(api: Api, broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outputs]:
    """Exit code and output of each call of rabbitmqadmin, in order."""
    program = shutil.which("rabbitmqadmin")
    if program is None:
        pytest.skip("needs rabbitmqadmin (by apt-get install rabbitmq-server)")
    with prepared(api, broker_url, vhost_made(), CLEANUP) as run:
        run.names["file"] = str(tmp_path_factory.mktemp("admin") / "file")
        yield {number: called(program, word, run) for number, word in enumerate(SCRIPT)}


@pytest.mark.parametrize("number", range(len(SCRIPT)), ids=[f"{n}: {word.words[:60]}" for n, word in enumerate(SCRIPT)])
def test_rabbitmqadmin_does_each_of_its_words(outputs: Outputs, number: int) -> None:
    code, text = outputs[number]
    assert (code != 0) == SCRIPT[number].fails, text
    assert all(part in text for part in SCRIPT[number].has), text


def called(program: str, word: Word, run: Run) -> tuple[int, str]:
    """Call rabbitmqadmin, again while it waits; returns the exit code, and all output in one text."""
    if word.words == FIRST_WITH_CONNECTION:
        consume(run)
    if "{connection}" in word.words:
        run.names["connection"] = run.api.request("GET", f"/vhosts/{VHOST}/connections").json()[0]["name"]
    words = [run.filled(part) for part in shlex.split(word.words.replace('"', '\\"'))]
    url = urlsplit(run.api.url)
    login = [] if "-u" in words else ["-u", run.api.user, "-p", run.api.password]
    vhost = [] if word.vhost is None else ["-V", word.vhost]
    command = [program, "-H", str(url.hostname), "-P", str(url.port), *login, *vhost, *words]
    deadline = time.monotonic() + PATIENCE_S
    while True:
        done = subprocess.run(command, input=word.stdin, capture_output=True, text=True, timeout=PATIENCE_S)
        text = done.stdout + done.stderr
        if not word.waits or all(part in text for part in word.has) or time.monotonic() > deadline:
            return done.returncode, text
        time.sleep(PAUSE_S)


def consume(run: Run) -> None:
    """Open a connection with a consumer, to be listed."""
    run.clients.connect("admin", VHOST)
    run.clients.open("admin", "admin").consume("short", "admin-tag")


def script(request: pytest.FixtureRequest, name: str, *words: str) -> str:
    """Run a script of `programs/` with the interpreter that has its libraries; returns what it prints."""
    command = [request.config.getoption("--programs"), str(HERE / name), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.needs("programs")
@pytest.mark.parametrize("name", ["pyrabbit2_calls.py", "flower_and_celery.py"])
def test_a_library_works(
        request: pytest.FixtureRequest, api: Api, broker_url: str, name: str) -> None:
    with prepared(api, broker_url, vhost_made(), CLEANUP):
        assert "done" in script(request, name, broker_url, api.url, VHOST)
