"""The examples as a user runs them: each in its own process, against a broker in another process.

A receiver prints `waiting` when its queue is declared and bound, so that it gets everything that is sent from then
on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pika
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
README = ROOT / "README.md"
DEFAULT_ADDRESS = "127.0.0.1:5672"
QUEUES = ("hello", "tasks", "capitals", "letters", "chores", "chores.later", "chores.failed")
MUCH_WORK = "." * 100       # seconds that no test waits for

Start = Callable[..., "Receiver"]
Run = Callable[..., str]


class Receiver:
    """An example that goes on until Ctrl-C."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert self.line() == "waiting"

    def line(self) -> str:
        """The next line it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def interrupt(self) -> int:
        """Press Ctrl-C, and say with what exit code it ended."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait()


@pytest.fixture(autouse=True)
def no_leftovers(amqp_url: str) -> Iterator[None]:
    """Deletes what outlives a test's processes."""
    yield
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        for queue in QUEUES:
            connection.channel().queue_delete(queue)


@pytest.fixture
def environment(amqp_url: str) -> dict[str, str]:
    """What leads the examples to the tests' broker."""
    return os.environ | {"AMQP_URL": amqp_url}


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """BlockIndex an example to its end and returns what it printed."""
    def run(name: str, *arguments: str) -> str:
        command = [sys.executable, str(HERE / name), *arguments]
        return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return run


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Start]:
    """Starts receivers, which end with the test."""
    with ExitStack() as running:
        def start(name: str, *arguments: str) -> Receiver:
            command = [sys.executable, str(HERE / name), *arguments]
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            running.enter_context(process)
            running.callback(process.kill)
            return Receiver(process)
        yield start


# Hello

def test_a_message_waits_for_its_receiver(run: Run, start: Start) -> None:
    run("hello_send.py", "anybody", "there?")
    assert start("hello_receive.py").line() == "received: anybody there?"


def test_a_receiver_waits_for_its_message(run: Run, start: Start) -> None:
    receiver = start("hello_receive.py")
    run("hello_send.py", "here I am")
    assert receiver.line() == "received: here I am"


def test_a_receiver_ends_at_ctrl_c_without_a_word(run: Run, start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    receiver = start("hello_receive.py")
    run("hello_send.py", "last words")
    receiver.line()
    assert receiver.interrupt() == 0
    assert (receiver.line(), capfd.readouterr().err) == ("", "")


# Work queues

def test_workers_share_the_tasks(run: Run, start: Start) -> None:
    workers = [start("work_queue_worker.py") for _ in range(2)]
    for task in ("plough", "sow"):
        run("work_queue_send.py", task + MUCH_WORK)
    assert sorted(worker.line().rstrip(".") for worker in workers) == ["begun: plough", "begun: sow"]


def test_the_task_of_a_dead_worker_goes_to_another(run: Run, start: Start) -> None:
    worker = start("work_queue_worker.py")
    run("work_queue_send.py", "reap" + MUCH_WORK)
    assert worker.line().rstrip(".") == "begun: reap"
    worker.process.kill()
    assert start("work_queue_worker.py").line().rstrip(".") == "begun again: reap"


def test_a_task_is_done_before_the_next_one(run: Run, start: Start) -> None:
    worker = start("work_queue_worker.py")
    for task in ("bake", "eat"):
        run("work_queue_send.py", task)
    assert [worker.line() for _ in range(4)] == ["begun: bake", "done: bake", "begun: eat", "done: eat"]


# Publish and subscribe

def test_every_subscriber_hears_what_is_published(run: Run, start: Start) -> None:
    subscribers = [start("publish_subscribe_subscribe.py") for _ in range(2)]
    run("publish_subscribe_publish.py", "it rains")
    assert [subscriber.line() for subscriber in subscribers] == ["heard: it rains"] * 2


def test_a_subscriber_hears_nothing_of_before(run: Run, start: Start) -> None:
    run("publish_subscribe_publish.py", "too early")
    subscriber = start("publish_subscribe_subscribe.py")
    run("publish_subscribe_publish.py", "in time")
    assert subscriber.line() == "heard: in time"


# Routing

def test_a_subscriber_gets_the_levels_it_asked_for(run: Run, start: Start) -> None:
    all_that_is_bad, errors = start("routing_subscribe.py", "warning", "error"), start("routing_subscribe.py", "error")
    for level, text in (("info", "all is well"), ("warning", "it smells"), ("error", "fire")):
        run("routing_publish.py", level, text)
    assert [all_that_is_bad.line(), all_that_is_bad.line()] == ["warning: it smells", "error: fire"]
    assert errors.line() == "error: fire"


# Topics

def test_a_subscriber_gets_the_topics_its_patterns_match(run: Run, start: Start) -> None:
    kitchen = start("topics_subscribe.py", "kitchen.*")
    temperatures = start("topics_subscribe.py", "#.temperature", "temperature.#")
    for topic in ("cellar.humidity", "cellar.north.temperature", "kitchen.stove.light", "kitchen.temperature"):
        run("topics_publish.py", topic, "20")
    assert kitchen.line() == "kitchen.temperature: 20"
    assert [temperatures.line(), temperatures.line()] == ["cellar.north.temperature: 20", "kitchen.temperature: 20"]


# Requests and answers

def test_a_request_is_answered(run: Run, start: Start) -> None:
    server = start("rpc_server.py")
    assert run("rpc_client.py", "hear, hear") == "HEAR, HEAR\n"
    assert server.line() == "answered: hear, hear"


def test_a_request_waits_for_its_server(run: Run, start: Start, environment: dict[str, str]) -> None:
    command = [sys.executable, str(HERE / "rpc_client.py"), "patience"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as client:
        start("rpc_server.py")
        assert client.communicate()[0] == "PATIENCE\n"


# Confirms

def test_a_publish_that_a_queue_took_is_confirmed(run: Run) -> None:
    run("hello_send.py", "makes the queue")
    assert run("confirms_publish.py", "hello", "sure?") == "confirmed: sure?\n"


def test_a_publish_that_no_queue_took_comes_back(environment: dict[str, str]) -> None:
    command = [sys.executable, str(HERE / "confirms_publish.py"), "nowhere", "sure?"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "returned: there is no queue 'nowhere'\n")


# Priorities

def test_the_most_urgent_letter_is_read_first(run: Run, start: Start) -> None:
    for priority, text in (("0", "a bill"), ("5", "fire"), ("2", "news"), ("5", "flood")):
        run("priority_send.py", priority, text)
    receiver = start("priority_receive.py")
    assert [receiver.line() for _ in range(4)] == ["read: fire", "read: flood", "read: news", "read: a bill"]


# Trying again

def test_a_chore_that_failed_is_tried_again_later(run: Run, start: Start) -> None:
    worker = start("retry_worker.py")
    run("confirms_publish.py", "chores", "dishes!")
    assert [worker.line(), worker.line()] == ["failed at try 1: dishes!", "done at try 2: dishes!"]


def test_a_chore_that_fails_too_often_is_put_aside(run: Run, start: Start, amqp_url: str) -> None:
    worker = start("retry_worker.py")
    run("confirms_publish.py", "chores", "taxes!!!")
    assert [worker.line() for _ in range(3)] == [
        "failed at try 1: taxes!!!", "failed at try 2: taxes!!!", "put aside: taxes!!!"]
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        assert connection.channel().basic_get("chores.failed", auto_ack=True)[2] == b"taxes!!!"


# What the README shows

def test_the_readmes_first_program_does_what_it_says(amqp_url: str) -> None:
    program = _blocks("python")[0]
    promised = program.rpartition("# ")[2]
    address = amqp_url.partition("@")[2].rstrip("/")
    assert DEFAULT_ADDRESS in program
    done = subprocess.run(
        [sys.executable, "-c", program.replace(DEFAULT_ADDRESS, address)], check=True, capture_output=True, text=True)
    assert done.stdout == promised


def test_the_readmes_fixture_is_the_one_that_is_used_here() -> None:
    _, _, fixture = (HERE / "conftest.py").read_text().partition("import subprocess")
    assert "import subprocess" + fixture in _blocks("python")


def test_the_fixture_says_why_the_broker_did_not_start(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((HERE / "conftest.py").read_text())
    (tmp_path / "test_it.py").write_text("def test_it(amqp_url: str) -> None: ...\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", tmp_path, "-c", os.devnull, tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT), "AMQPD_NO_SUCH_SETTING": "1"}, capture_output=True, text=True)
    assert "\nthe broker did not start: amqpd: AMQPD_NO_SUCH_SETTING" in done.stdout


def _blocks(language: str) -> list[str]:
    """The README's blocks of code in this language."""
    return [block.partition("```")[0] for block in README.read_text().split(f"```{language}\n")[1:]]
