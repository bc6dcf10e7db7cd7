"""The table at the end of a run of the conformance suite, and whole runs: separate processes, a real broker."""
from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from conformance import table

WIDTH = table.TITLE_WIDTH
EXPIRES_AT_THE_HEAD = "test_ttl.py::test_a_message_behind_one_that_lives_longer_waits_for_it_and_is_counted"

Run = Callable[..., subprocess.CompletedProcess[str]]


def report(chapter: int, reason: str = "") -> SimpleNamespace:
    """What of a report the table reads."""
    return SimpleNamespace(user_properties=[("chapter", chapter)], longrepr=("file", 1, f"Skipped: {reason}"))


def test_a_chapter_has_a_row_with_its_outcomes_and_reasons() -> None:
    stats = {
        "passed": [report(19), report(19), report(3)], "failed": [report(3)], "error": [report(3)],
        "differs": [report(19)], "": [report(19)],
        "skipped": [report(19, "needs streams"), report(3, "needs ctl (by --ctl)"), report(19, "needs streams")]}
    head, *rows = table.lines(stats)
    assert head.split() == "chapter passed failed differs skipped skipped because these are needed".split()
    assert [row[:WIDTH].rstrip() for row in rows] == ["§3  Frames", "§19 TTL", "all"]
    assert [row[WIDTH:].split(maxsplit=4) for row in rows] == [
        ["1", "2", "0", "1", "ctl (by --ctl): 1"], ["2", "0", "1", "2", "streams: 2"], ["3", "2", "1", "3"]]


def test_what_belongs_to_no_chapter_is_told_too() -> None:
    assert table.lines({"passed": [report(0)]})[1].startswith("§0  no chapter")


# Runs

@pytest.fixture(scope="module")
def amqp_url() -> Iterator[str]:
    """A broker in memory, on a free port, gone with the last test."""
    command = [sys.executable, "-m", "amqpd", "--memory", "--listen", "127.0.0.1:0", "--management", "none",
               "--log-level", "error"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as broker:
        ready = broker.stdout.readline()
        yield f"amqp://guest:guest@{ready.split('amqp=')[1].split()[0]}/"
        broker.terminate()


@pytest.fixture
def run() -> Run:
    """Runs the suite with these words, as `python -m conformance` does.

    Unless told otherwise, without the plugins that happen to be installed: they take longer than the rest.
    """
    alone = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_timeout"}

    def run(*words: str, with_plugins: bool = False) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "conformance", *words], capture_output=True, text=True,
            env=None if with_plugins else alone)
    return run


def row(output: str, chapter: str) -> list[str]:
    """The numbers of a chapter's row."""
    line = next(line for line in output.splitlines() if line.startswith(chapter))
    return line[WIDTH:].split()[:4]


def test_one_command_runs_the_suite_and_ends_with_the_table(run: Run, amqp_url: str) -> None:
    done = run(amqp_url, "test_get.py", "test_update_secret.py", "test_permissions.py", with_plugins=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "as described in brokers/amqpd.toml" in done.stdout
    assert row(done.stdout, "§16 basic.get")[1:] == ["0", "0", "0"]
    passed, failed, differs, skipped = row(done.stdout, "§29 ")
    assert (passed, failed, differs, skipped != "0") == ("0", "0", "0", True)
    assert "ctl (by --ctl)" in done.stdout


@pytest.mark.parametrize("choices, code, expected", [
    ("", 0, ["0", "0", "1", "0"]), ('"rabbitmq-choices",', 1, ["0", "1", "0", "0"])], ids=["free", "follows RabbitMQ"])
def test_a_failure_beyond_the_standard_differs_unless_the_broker_follows_rabbitmq(
        run: Run, amqp_url: str, tmp_path: Path, choices: str, code: int, expected: list[str]) -> None:
    profile = tmp_path / "mistaken.toml"
    profile.write_text(
        f'has = [{choices} "message-ttl", "dead-letters", "publisher_confirms", "expiry-at-the-head"]\n')
    done = run(amqp_url, EXPIRES_AT_THE_HEAD, "--profile", str(profile))
    assert (done.returncode, row(done.stdout, "§19 ")) == (code, expected), done.stdout + done.stderr


def test_a_broker_that_is_not_there_is_told_without_its_password(run: Run) -> None:
    done = run("amqp://guest:secret@127.0.0.1:1/", "test_get.py")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no broker at amqp://guest:***@127.0.0.1:1/" in done.stderr
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("words, code, text", [
    ((), 4, "usage:"), (("--help",), 0, "usage:"), (("test_get.py",), 4, "the first word must be the broker's url")],
    ids=["nothing", "help", "no url"])
def test_wrong_words_are_answered(run: Run, words: tuple[str, ...], code: int, text: str) -> None:
    done = run(*words)
    assert (done.returncode, text in done.stdout + done.stderr) == (code, True)


def test_a_vhost_that_is_not_there_is_told(run: Run, amqp_url: str) -> None:
    done = run(f"{amqp_url}nonesuch", "test_get.py")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "vhost nonesuch not found" in done.stderr
