"""amqpctl beside rabbitmqctl and rabbitmq-diagnostics 3.10.8: the same lines, the same exit codes and texts.

`conformance/ctl/recorded.json` has the answers of RabbitMQ, see `conformance/ctl/record.py`. `DIFFERS` names every line
with another answer, and why; docs/rabbitmqctl.md tells users. A text of an error may have another beginning than
rabbitmqctl's "Error:". An answer in JSON has the same keys at least, and values of the same kind.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from amqpd import ctl
from amqpd.identity import NODE_NAME
from conformance.ctl.record import HERE, lines, without_places, words_of, write_files
from tests.support.control_sockets import broker_in_thread

RECORDED = json.loads((HERE / "recorded.json").read_text())
Answer = tuple[int, str, str]

BEFORE = re.compile(r"^((Error( \(argument validation\))?:|rabbitmq(ctl|-diagnostics):)\s*)+")
USAGE = 64      # whose texts are those of the library that reads the command line
NO_CLUSTERING = "RabbitMQ has one more listener, for its cluster"
ERLANG = "amqpd has no Erlang"
NO_CLUSTER = "there is one node, and no cluster"
MORE_TOLD = "the error says more"
DIFFERS = {
    "help list_queues": "a help text of its own",
    "ping": "there is no epmd to tell of",
    "D status --formatter json": "no list of files, no memory of Erlang",
    "cluster_status": NO_CLUSTERING,
    "node_health_check": "no references to pages of RabbitMQ",
    "await_online_nodes 2 -t 1": MORE_TOLD,
    "wait -P {pid}": ERLANG,
    "wait {dir}/node.pid -t 20": ERLANG,
    "wait {dir}/none.pid -t 1": MORE_TOLD,
    "D check_port_listener 1": NO_CLUSTERING,
    "D check_port_connectivity": NO_CLUSTERING,
    "D check_protocol_listener mqtt": NO_CLUSTERING,
    "D listeners": NO_CLUSTERING,
    "D memory_breakdown --formatter json": ERLANG,
    "D os_env": "other variables",
    "D erlang_version": ERLANG,
    "D cipher_suites -q": "OpenSSL offers other ciphers than Erlang",
    "D tls_versions": "TLS 1.0 and 1.1 are not spoken",
    "D log_location": "the log goes to stderr",
    "list_feature_flags": "amqpd has no streams",
    "list_ciphers": "the configuration has no encrypted values",
    "list_hashes": "the configuration has no encrypted values",
    "list_deprecated_features": "RabbitMQ has it since 3.13",
    "hash_password secret": "RabbitMQ has it since 4.0",
    "encode '<<\"x\">>' pass": "the configuration has no encrypted values",
    "decode '{encrypted,<<\"x\">>}' pass": "the configuration has no encrypted values",
    "set_log_level bogus": "the broker refuses it, after the heading",
    "add_user ' '": "without a terminal nobody is asked",
    "set_permissions -p shop till '(' b c": "one line without an Erlang term",
    "list_user_topic_permissions till": "the table has column names, as all tables do",
    "set_policy -p shop bounds '(' '{\"max-length\": 100}'": "one line without an Erlang term",
    "set_policy -p shop bounds ^orders 'no JSON'": MORE_TOLD,
    "list_parameters -p shop": "no empty line",
    "import_definitions {dir}/definitions.json": "the import has ended, and says how much it was",
    "import_definitions {dir}/definitions.json --format xml": "definitions are not read from Erlang terms",
    "export_definitions {dir}/exported.json --format xml": "definitions are not written as Erlang terms",
    "list_queues -p import name arguments --formatter json": "a number has the type that it has on the wire",
    "purge_queue -p import nope": MORE_TOLD,
    "close_connection nope bye": MORE_TOLD,
    "set_disk_free_limit bogus": MORE_TOLD,
    "reset": "the broker refuses it, after the heading",
    "force_boot": NO_CLUSTER,
    "join_cluster rabbit@x": NO_CLUSTER,
    "forget_cluster_node rabbit@x": NO_CLUSTER,
    "sync_queue q": "there are no mirrored queues",
    "cancel_sync_queue q": "there are no mirrored queues",
    "D resolve_hostname localhost": "a tool of the system does that",
    "D list_node_auth_attempt_stats": "attempts are in the log",
    "D runtime_thread_stats --sample-interval 1": ERLANG,
}
LINES = [recorded["line"] for recorded in RECORDED]
NAMES = [f"{line}, again" if line in LINES[:number] else line for number, line in enumerate(LINES)]


class SleptTime:
    """A clock that only sleeping moves, so that a wait in vain takes no time."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Answer]]:
    """The answers of amqpctl to all lines."""
    folder = tmp_path_factory.mktemp("words")
    with broker_in_thread(folder) as (_, port), mock.patch.dict(os.environ, AMQPD_DATA_DIR=str(folder)), \
            mock.patch("amqpd.ctl.waiting.time", SleptTime()):
        places = {"dir": str(folder / "words"), "node": NODE_NAME, "port": str(port), "pid": str(os.getpid())}
        write_files(Path(places["dir"]), places["pid"])
        yield [answer_to(recorded["line"], places) for recorded in RECORDED]


def answer_to(line: str, places: dict[str, str]) -> Answer:
    """Say a line to amqpctl; return the exit code, stdout and stderr."""
    program, words = words_of(line, places)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch("sys.stdin", io.StringIO()):
        exit_code = ctl.main(words, program)
    return exit_code, without_places(out.getvalue(), places), without_places(err.getvalue(), places)


@pytest.mark.parametrize("number", range(len(RECORDED)), ids=NAMES)
def test_a_line_is_answered_as_by_rabbitmq(answers: list[Answer], number: int) -> None:
    recorded, (exit_code, out, err) = RECORDED[number], answers[number]
    same = exit_code == recorded["exit_code"] and same_output(recorded["out"], out) and \
        (exit_code == USAGE or same_error(recorded["err"], err))
    assert same is (NAMES[number] not in DIFFERS), (recorded, exit_code, out, err)


def same_output(expected: str, found: str) -> bool:
    """Whether two outputs are the same; of JSON, whether it has the same shape."""
    try:
        return has_shape(*[json.loads(re.sub(r"(?<=[ :])\{(port|pid)\}", "0", text)) for text in (expected, found)])
    except ValueError:
        return sorted(words_in(expected)) == sorted(words_in(found))      # RabbitMQ's lists have no order


def words_in(output: str) -> list[str]:
    """The lines of an output; an Erlang term, which RabbitMQ breaks where it is long, in its parts."""
    return [part for line in output.splitlines() for part in line.strip(" [],").split("],[")]


def has_shape(expected: Any, found: Any) -> bool:
    """Whether everything that is expected is there, with values of the same kind."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return all(name in found and has_shape(value, found[name]) for name, value in expected.items())
    if isinstance(expected, list) and isinstance(found, list):
        return bool(found) == bool(expected) and all(has_shape(expected[0], one) for one in found)
    return type(expected) is type(found)


def same_error(expected: str, found: str) -> bool:
    """Whether two errors say the same, apart from what is before it and whether it ends with a full stop."""
    def said(text: str) -> list[str]:
        lines = [BEFORE.sub("", line).strip() for line in text.splitlines()]
        return [line.strip('". ') for line in lines if line]

    return said(expected) == said(found)


def test_every_line_is_recorded_and_every_difference_is_one_of_them() -> None:
    assert LINES == list(lines())
    assert DIFFERS.keys() <= set(NAMES)
