"""The program `amqpctl`, against a fake control socket."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd import ctl
from amqpd.ctl import client, commands as ctl_commands, tables
from amqpd.ctl.examples import EXAMPLES
from amqpd.ctl.refused import REASONS

ORDERS: dict[str, Any] = {
    "columns": ["name", "messages", "durable", "arguments"],
    "rows": [
        ["orders", 12, True, [["x-max-length", "signedint", 5], ["x-dead-letter-exchange", "longstr", "dlx"]]],
        ["tab\t", 0, False, []],
    ],
}


class FakeBroker:
    """Answers each connection once with `answer`, and remembers what it was asked.

    With `answer` None it ends the talk without one; with `silent` it says nothing until it is closed.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "control.sock"
        self.answer: dict[str, Any] | None = {"ok": True, "result": None}
        self.silent = False
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked: list[dict[str, Any]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def gives(self, result: Any) -> None:
        """Answer with this result."""
        self.answer = {"ok": True, "result": result}

    def close(self) -> None:
        """Listen no more."""
        self._closed.set()
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(self.path))
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._closed.is_set():
            client, _ = self._listener.accept()
            with client, client.makefile("rb") as lines:
                line = b"" if self._closed.is_set() else lines.readline()
                if line:
                    self.asked.append(json.loads(line))
                if line and self.silent:
                    lines.readline()
                elif line and self.may_answer.wait(10) and self.answer is not None:
                    client.sendall(json.dumps(self.answer).encode() + b"\n")


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBroker]:
    """A fake broker in the data directory that amqpctl looks into."""
    monkeypatch.setenv("AMQPD_DATA_DIR", str(tmp_path))
    fake = FakeBroker(tmp_path)
    yield fake
    fake.close()


# Lists

def test_a_list_is_a_heading_and_fields_between_tabs(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.gives(ORDERS)
    assert ctl.main(["list_queues", "name", "messages", "durable", "arguments"]) == 0
    assert capsys.readouterr().out == (
        "Timeout: 60.0 seconds ...\n"
        "Listing queues for vhost / ...\n"
        "name\tmessages\tdurable\targuments\n"
        'orders\t12\ttrue\t[{"x-max-length",5},{"x-dead-letter-exchange","dlx"}]\n'
        "tab\\t\t0\tfalse\t[]\n")


@pytest.mark.parametrize("command, columns, heading", [
    ("list_queues", ["name", "messages"], "Timeout: 60.0 seconds ...\nListing queues for vhost / ..."),
    ("list_exchanges", ["name", "type"], "Listing exchanges for vhost / ..."),
    ("list_bindings",
     ["source_name", "source_kind", "destination_name", "destination_kind", "routing_key", "arguments"],
     "Listing bindings for vhost /..."),
    ("list_connections", ["user", "peer_host", "peer_port", "state"], "Listing connections ..."),
    ("list_channels", ["pid", "user", "consumer_count", "messages_unacknowledged"], "Listing channels ..."),
    ("list_consumers",
     ["queue_name", "channel_pid", "consumer_tag", "ack_required", "prefetch_count", "active", "arguments"],
     "Listing consumers in vhost / ..."),
    ("list_users", ["user", "tags"], "Listing users ..."),
    ("list_vhosts", ["name"], "Listing vhosts ..."),
    ("list_permissions", ["user", "configure", "write", "read"], 'Listing permissions for vhost "/" ...'),
    ("list_policies", ["vhost", "name", "pattern", "apply-to", "definition", "priority"],
     'Listing policies for vhost "/" ...'),
    ("list_operator_policies", ["vhost", "name", "pattern", "apply-to", "definition", "priority"],
     'Listing operator policy overrides for vhost "/" ...'),
])
def test_columns_and_headings_are_those_of_rabbitmqctl(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str], command: str, columns: list[str], heading: str
) -> None:
    broker.gives({"columns": columns, "rows": []})
    assert ctl.main([command]) == 0
    assert broker.asked == [{"command": command, "arguments": {"vhost": "/", "columns": columns}}]
    assert capsys.readouterr().out == f"{heading}\n"


@pytest.mark.parametrize("command, columns", [
    ("list_queues",
     "arguments auto_delete consumer_capacity consumer_utilisation consumers disk_reads disk_writes durable exclusive "
     "exclusive_consumer_pid exclusive_consumer_tag head_message_timestamp leader members memory message_bytes "
     "message_bytes_persistent message_bytes_ram message_bytes_ready message_bytes_unacknowledged messages "
     "messages_persistent messages_ram messages_ready messages_ready_ram messages_unacknowledged "
     "messages_unacknowledged_ram name online owner_pid pid policy slave_pids state synchronised_slave_pids type"),
    ("list_exchanges", "arguments auto_delete durable internal name policy type"),
    ("list_bindings", "arguments destination_kind destination_name routing_key source_kind source_name"),
    ("list_connections",
     "auth_mechanism channel_max channels client_properties connected_at frame_max host name peer_cert_issuer "
     "peer_cert_subject peer_cert_validity peer_host peer_port pid port protocol recv_cnt recv_oct send_cnt send_oct "
     "send_pend ssl ssl_cipher ssl_hash ssl_key_exchange ssl_protocol state timeout user vhost"),
    ("list_channels",
     "acks_uncommitted confirm connection consumer_count global_prefetch_count messages_unacknowledged "
     "messages_uncommitted messages_unconfirmed name number pid prefetch_count transactional user vhost"),
    ("list_consumers",
     "ack_required active activity_status arguments channel_pid consumer_tag prefetch_count queue_name"),
    ("list_vhosts", "cluster_state default_queue_type description name tags tracing"),
    ("list_users", "user tags"),
    ("list_permissions", "user configure write read"),
])
def test_every_column_of_rabbitmqctls_is_one(broker: FakeBroker, command: str, columns: str) -> None:
    """They are those of the help texts of rabbitmqctl 3.10.8."""
    broker.gives({"columns": columns.split(), "rows": []})
    assert ctl.main([command, *columns.split()]) == 0


@pytest.mark.parametrize("arguments", [["name", "consumers"], ["name,consumers"]])
def test_columns_stand_between_spaces_or_commas(broker: FakeBroker, arguments: list[str]) -> None:
    broker.gives({"columns": ["name", "consumers"], "rows": []})
    assert ctl.main(["list_queues", *arguments]) == 0
    assert broker.asked[0]["arguments"]["columns"] == ["name", "consumers"]


def test_an_unknown_column_is_64_and_nobody_is_asked(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl.main(["list_queues", "name", "foo", "bar"]) == 64
    assert capsys.readouterr().err.startswith("amqpctl: Info key(s) foo,bar are not supported, only name, messages, ")
    assert not broker.asked


@pytest.mark.parametrize("arguments", [
    ["-p", "shop", "-q", "list_queues"],
    ["list_queues", "-p", "shop", "-q"],
    ["-p", "x", "list_queues", "--vhost=shop", "--quiet"],
])
def test_options_stand_before_or_after_the_command(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    broker.gives({"columns": ["name", "messages"], "rows": [["a", 1]]})
    assert ctl.main(arguments) == 0
    assert broker.asked[0]["arguments"]["vhost"] == "shop"
    assert capsys.readouterr().out == "name\tmessages\na\t1\n"


@pytest.mark.parametrize("options, expected", [
    (["-q"], "name\na\n"), (["-s"], "a\n"), (["-q", "--no-table-headers"], "a\n"),
])
def test_headings_and_column_names_can_be_left_out(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str], options: list[str], expected: str
) -> None:
    broker.gives({"columns": ["name"], "rows": [["a"]]})
    assert ctl.main(["list_queues", "name", *options]) == 0
    assert capsys.readouterr().out == expected


def test_json_is_a_list_of_objects_without_a_heading(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.gives(ORDERS)
    assert ctl.main(["list_queues", "--formatter", "json"]) == 0
    assert capsys.readouterr().out == (
        "[\n"
        '{"name":"orders","messages":12,"durable":true,"arguments":[["x-max-length","signedint",5],'
        '["x-dead-letter-exchange","longstr","dlx"]]}\n'
        ',{"name":"tab\\t","messages":0,"durable":false,"arguments":[]}\n'
        "]\n")


def test_an_empty_list_is_valid_json(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.gives({"columns": ["name"], "rows": []})
    assert ctl.main(["list_vhosts", "--formatter=json"]) == 0
    assert capsys.readouterr().out == "[\n]\n"


def test_csv_quotes_every_field(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.gives({"columns": ["user", "tags"], "rows": [['a "b"', ["administrator", "monitoring"]]]})
    assert ctl.main(["list_users", "--formatter", "csv"]) == 0
    assert capsys.readouterr().out == '"user","tags"\n"a ""b""","[administrator, monitoring]"\n'


def test_nested_field_tables_are_shown_as_erlang_terms() -> None:
    value = [["l", "array", [["signedint", 1], ["longstr", "2"], ["bool", True], ["void", None],
                             ["table", [["a", "signedint", 2]]]]]]
    assert tables.text("arguments", value) == '[{"l",[1,"2",true,undefined,[{"a",2}]]}]'


def test_the_state_of_nodes_is_shown_as_an_erlang_term() -> None:
    assert tables.text("cluster_state", {"a@b": "running"}) == "[{'a@b', running}]"
    assert tables.text("cluster_state", {}) == "[]"


def test_what_holds_by_policy_is_shown_as_arguments_are(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    column = "effective_policy_definition"
    broker.gives({"columns": [column], "rows": [[[["max-length", "signedint", 5]]]]})
    assert ctl.main(["list_queues", "-q", column]) == 0
    assert capsys.readouterr().out == f'{column}\n[{{"max-length",5}}]\n'


# Tables for people

def aligned(columns: list[str], rows: list[list[Any]], *, width: int = 80) -> list[str]:
    return list(tables.render_aligned(columns, rows, header=False, width=width))


def test_columns_line_up_and_numbers_to_the_right() -> None:
    assert aligned(["name", "messages"], [["a", 5], ["orders", 12]]) == ["a        5", "orders  12"]


def test_wide_characters_take_two_places() -> None:
    assert aligned(["name", "durable"], [["名前", True], ["abcd", False]]) == ["名前  true", "abcd  false"]


def test_column_names_and_states_have_a_colour() -> None:
    first, *lines = tables.render_aligned(
        ["name", "state"], [["a", "running"], ["b", "flow"], ["c", ""]], header=True, width=80)
    assert first == "\x1b[36m\x1b[1mname  state\x1b[0m"
    assert lines == ["a     \x1b[32mrunning\x1b[0m", "b     \x1b[33mflow\x1b[0m", "c"]


@pytest.mark.parametrize("is_terminal, no_color, has_colour", [
    (True, "", True), (True, "1", False), (False, "", False),
])
def test_colours_are_for_terminals_unless_they_are_not_wanted(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, is_terminal: bool,
    no_color: str, has_colour: bool,
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    broker.gives({"columns": ["name"], "rows": [["a"]]})
    assert ctl.main(["-q", "list_queues", "name"]) == 0
    assert ("\x1b" in capsys.readouterr().out) is has_colour


def test_a_pretty_table_has_every_value_in_a_box() -> None:
    assert list(tables.render_boxes(["name", "messages"], [["a", 5], ["名前", 12]], header=True)) == [
        "┌──────┬──────────┐",
        "│ name │ messages │",
        "├──────┼──────────┤",
        "│ a    │ 5        │",
        "├──────┼──────────┤",
        "│ 名前 │ 12       │",
        "└──────┴──────────┘",
    ]
    assert list(tables.render_boxes(["name"], [["a"]], header=False)) == ["┌───┐", "│ a │", "└───┘"]
    assert list(tables.render_boxes(["name"], [], header=True)) == []


def test_a_pretty_table_is_drawn_where_one_is_asked_for(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.gives({"columns": ["name"], "rows": [["q"]]})
    assert ctl.main(["list_queues", "-q", "name", "--formatter", "pretty_table"]) == 0
    assert capsys.readouterr().out == "┌──────┐\n│ name │\n├──────┤\n│ q    │\n└──────┘\n"


def test_help_shows_a_commands_own_options_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["delete_queue", "--help"]) == 0
    told = capsys.readouterr().out
    own, _, common = told.partition("Options of every command:")
    assert "--if-empty" in own and "--data-dir" not in own and "  QUEUE" not in own
    assert "--data-dir" in common and "--if-empty" not in common
    assert ctl.main(["--help"]) == 0
    told = capsys.readouterr().out
    assert told.index("--version") < told.index("Commands, lists:") < told.index("Options of every command:")


def test_the_table_of_commands_names_those_of_each_module() -> None:
    for modules in ctl_commands.SECTIONS.values():
        for module, names in modules.items():
            made = import_module(f"amqpd.ctl.{module}").commands()
            assert [command.name for command in made] == names.split()


def test_a_health_check_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", "import sys; from amqpd import ctl; ctl.main(['-q', 'ping']); print(*sys.modules)"],
        env={**os.environ, "AMQPD_DATA_DIR": str(tmp_path)}, capture_output=True, text=True, check=True).stdout
    imported = set(shown.split())
    assert {name for name in imported if name.startswith("amqpd.ctl.")} == {
        "amqpd.ctl.client", "amqpd.ctl.commands", "amqpd.ctl.node", "amqpd.ctl.options"}
    assert not imported & {"amqpd.fields", "amqpd.logs", "asyncio", "csv", "logging", "msgspec", "ssl", "http.client"}


@pytest.mark.parametrize("name, example", EXAMPLES.items())
def test_an_example_can_be_said(name: str, example: str) -> None:
    words = shlex.split(example.partition(" < ")[0].partition(" >")[0])
    with ctl_commands.amqpctl.make_context("amqpctl", words) as context:
        assert isinstance(ctl_commands.amqpctl, click.Group)
        said = [*context._protected_args, *context.args]
        found, command, rest = ctl_commands.amqpctl.resolve_command(context, said)
        assert found == name and command is not None
        command.make_context(name, rest, parent=context).close()


@pytest.mark.parametrize("command", sorted(ctl_commands.all_commands()))
def test_every_command_shows_an_example_and_the_options_of_all_apart(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl.main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Options of every command:" in shown
    assert command in REASONS or re.search(rf"^  .*\bamqpctl (.* )?{command}\b", shown, re.MULTILINE)


def test_help_says_what_each_command_does_to_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["--help"]) == 0
    sections = re.findall(r"^Commands, .*?:\n(.*?)\n\n", capsys.readouterr().out, re.MULTILINE | re.DOTALL)
    # Names that are too long for the column are on a line of their own.
    listed = re.sub(r"^(  \w+)\n +", r"\1  ", "\n".join(sections), flags=re.MULTILINE).splitlines()
    assert len(listed) == len([one for one in ctl_commands.all_commands().values() if not one.hidden])
    assert [line for line in listed if not line.endswith(".") or line.endswith("...")] == []


def test_what_is_too_wide_for_the_terminal_goes_below_each_other() -> None:
    lines = aligned(["name", "messages"], [["a" * 20, 5], ["b", 7]], width=20)
    assert [re.sub(r"\x1b\[\d+m", "", line) for line in lines] == [
        f"name      {'a' * 20}", "messages  5", "", "name      b", "messages  7"]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=2), max_leaves=4)


@given(st.lists(st.lists(anything, min_size=2, max_size=2), max_size=4), st.integers(1, 60))
def test_a_table_has_nothing_unprintable_in_it(rows: list[list[Any]], width: int) -> None:
    columns = ["name", "tags"]
    plain = list(tables.render(columns, rows, "table", header=True))
    assert len(plain) == (len(rows) + 1 if rows else 0)
    assert all(line.replace("\t", "", 1).isprintable() for line in plain)
    for line in tables.render_aligned(columns, rows, header=False, width=width):
        assert re.sub(r"\x1b\[\d+m", "", line).isprintable()


@given(st.lists(st.tuples(st.text(), st.text()), max_size=4))
def test_csv_and_json_give_back_every_text(rows: list[tuple[str, str]]) -> None:
    written = "\n".join(tables.render(["a", "b"], rows, "csv", header=True))
    assert list(csv.reader(io.StringIO(written, newline="")))[1:] == [list(row) for row in rows]
    written = "\n".join(tables.render(["a", "b"], rows, "json", header=True))
    assert json.loads(written) == [{"a": a, "b": b} for a, b in rows]


# Acts

@pytest.mark.parametrize("arguments, command, given_to_it, heading", [
    (["purge_queue", "q"], "purge_queue", {"vhost": "/", "queue": "q"}, "Purging queue 'q' in vhost '/' ..."),
    (["close_connection", "<x>", "why"], "close_connection", {"connection": "<x>", "explanation": "why"},
     "Closing connection <x>, reason: why..."),
    (["delete_user", "u"], "delete_user", {"user": "u"}, 'Deleting user "u" ...'),
    (["change_password", "u", "p"], "change_password", {"user": "u", "password": "p"},
     'Changing password for user "u" ...'),
    (["set_permissions", "-p", "v", "u", "a", "", ".*"], "set_permissions",
     {"vhost": "v", "user": "u", "configure": "a", "write": "", "read": ".*"},
     'Setting permissions for user "u" in vhost "v" ...'),
    (["clear_permissions", "-p", "v", "u"], "clear_permissions", {"vhost": "v", "user": "u"},
     'Clearing permissions for user "u" in vhost "v" ...'),
    (["set_user_tags", "u"], "set_user_tags", {"user": "u", "tags": []}, 'Setting tags for user "u" to [] ...'),
    (["set_user_tags", "u", "a", "b"], "set_user_tags", {"user": "u", "tags": ["a", "b"]},
     'Setting tags for user "u" to [a, b] ...'),
    (["add_vhost", "v"], "add_vhost", {"vhost": "v", "description": "", "tags": [], "default_queue_type": ""},
     'Adding vhost "v" ...'),
    (["add_vhost", "v", "--description", "a b", "--tags", "x, y,z", "--default-queue-type", "quorum"], "add_vhost",
     {"vhost": "v", "description": "a b", "tags": ["x", "y", "z"], "default_queue_type": "quorum"},
     'Adding vhost "v" ...'),
    (["set_vhost_tags", "v", "a", "b"], "set_vhost_tags", {"vhost": "v", "tags": ["a", "b"]},
     'Setting tags for virtual host "v" to [a, b] ...'),
    (["update_vhost_metadata", "v", "--tags", ""], "update_vhost_metadata",
     {"vhost": "v", "description": None, "tags": [], "default_queue_type": None}, 'Updating metadata of vhost "v" ...'),
    (["enable_vhost_deletion_protection", "v"], "enable_vhost_deletion_protection", {"vhost": "v"},
     'Protecting virtual host "v" from removal by updating its metadata...'),
    (["disable_vhost_deletion_protection", "v"], "disable_vhost_deletion_protection", {"vhost": "v"},
     'Removing deletion protection from virtual host "v" by updating its metadata...'),
    (["set_vhost_limits", "-p", "v", '{"max-queues": 5}'], "set_vhost_limits",
     {"vhost": "v", "definition": '{"max-queues": 5}'},
     'Setting vhost limits to "{"max-queues": 5}" for vhost "v" ...'),
    (["clear_vhost_limits"], "clear_vhost_limits", {"vhost": "/"}, 'Clearing vhost "/" limits ...'),
    (["set_user_limits", "u", "{}"], "set_user_limits", {"user": "u", "definition": "{}"},
     'Setting user limits to "{}" for user "u" ...'),
    (["clear_user_limits", "u", "max-channels"], "clear_user_limits", {"user": "u", "limit": "max-channels"},
     'Clearing "max-channels" limit for user "u" ...'),
    (["clear_user_limits", "u", "all"], "clear_user_limits", {"user": "u", "limit": "all"},
     'Clearing all limits for user "u" ...'),
    (["set_parameter", "-p", "v", "shovel", "s", "{}"], "set_parameter",
     {"vhost": "v", "component": "shovel", "name": "s", "value": "{}"},
     'Setting runtime parameter "s" for component "shovel" to "{}" in vhost "v" ...'),
    (["clear_parameter", "shovel", "s"], "clear_parameter", {"vhost": "/", "component": "shovel", "name": "s"},
     'Clearing runtime parameter "s" for component "shovel" on vhost "/" ...'),
    (["set_global_parameter", "g", "1"], "set_global_parameter", {"name": "g", "value": "1"},
     'Setting global runtime parameter "g" to "1" ...'),
    (["clear_global_parameter", "g"], "clear_global_parameter", {"name": "g"},
     'Clearing global runtime parameter "g" ...'),
    (["delete_vhost", "v"], "delete_vhost", {"vhost": "v"}, 'Deleting vhost "v" ...'),
    (["set_policy", "-p", "v", "n", "^q", "{}"], "set_policy",
     {"vhost": "v", "name": "n", "pattern": "^q", "definition": "{}", "priority": 0, "apply_to": "all"},
     'Setting policy "n" for pattern "^q" to "{}" with priority "0" for vhost "v" ...'),
    (["set_operator_policy", "n", "", "{}", "--priority", "-3", "--apply-to", "queues"], "set_operator_policy",
     {"vhost": "/", "name": "n", "pattern": "", "definition": "{}", "priority": -3, "apply_to": "queues"},
     'Setting operator policy override "n" for pattern "" to "{}" with priority "-3" for vhost "/" ...'),
    (["clear_policy", "n"], "clear_policy", {"vhost": "/", "name": "n"}, 'Clearing policy "n" on vhost "/" ...'),
    (["clear_operator_policy", "n"], "clear_operator_policy", {"vhost": "/", "name": "n"},
     'Clearing operator policy "n" on vhost "/" ...'),
])
def test_an_act_says_what_it_does(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str], arguments: list[str], command: str,
    given_to_it: dict[str, Any], heading: str
) -> None:
    assert ctl.main(arguments) == 0
    assert broker.asked == [{"command": command, "arguments": given_to_it}]
    assert capsys.readouterr().out == f"{heading}\n"


@pytest.mark.parametrize("arguments, asked, shown", [
    (["list_vhost_limits", "-p", "v"], {"vhost": "v"}, 'Listing limits for vhost "v" ...\n{"max-queues":5}\n'),
    (["list_vhost_limits", "--global"], {},
     'Listing limits for all vhosts ...\nvhost\tlimits\nv\t{"max-queues":5}\n'),
    (["list_user_limits"], {"user": "guest"}, 'Listing limits for user "guest" ...\n{"max-queues":5}\n'),
    (["list_user_limits", "--user", "u", "-q"], {"user": "u"}, '{"max-queues":5}\n'),
    (["list_user_limits", "--global"], {},
     'Listing limits for all users ...\nvhost\tlimits\nv\t{"max-queues":5}\n'),
    (["list_parameters", "-p", "v"], {"vhost": "v"},
     'Listing runtime parameters for vhost "v" ...\nvhost\tlimits\nv\t{"max-queues":5}\n'),
    (["list_global_parameters"], {},
     'Listing global runtime parameters ...\nvhost\tlimits\nv\t{"max-queues":5}\n'),
])
def test_limits_and_parameters_are_listed(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str], arguments: list[str], asked: dict[str, str], shown: str
) -> None:
    broker.gives({"columns": ["vhost", "limits"], "rows": [["v", '{"max-queues":5}']]})
    assert ctl.main(arguments) == 0
    assert broker.asked == [{"command": arguments[0], "arguments": asked}]
    assert capsys.readouterr().out == shown


def test_a_vhost_without_limits_shows_an_empty_line(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.gives({"columns": ["vhost", "limits"], "rows": []})
    assert ctl.main(["list_vhost_limits"]) == 0
    assert capsys.readouterr().out == 'Listing limits for vhost "/" ...\n\n'


def test_a_parameter_without_effect_is_warned_of(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.gives("it has no effect")
    assert ctl.main(["set_parameter", "-q", "shovel", "s", "{}"]) == 0
    assert capsys.readouterr() == ("", "it has no effect\n")


def test_to_update_nothing_of_a_vhost_is_refused(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["update_vhost_metadata", "v"]) == 64
    assert "give --description, --tags or --default-queue-type" in capsys.readouterr().err
    assert broker.asked == []


@pytest.mark.parametrize("options, conditions", [
    ([], ""), (["--if-empty"], " if queue is empty"), (["-u"], " if queue is unused"),
    (["-u", "-e"], " if queue is empty and if queue is unused"),
])
def test_a_deleted_queue_tells_its_messages(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str], options: list[str], conditions: str
) -> None:
    broker.gives(3)
    assert ctl.main(["delete_queue", "q", *options]) == 0
    assert capsys.readouterr().out == (
        f"Deleting queue 'q' on vhost '/'{conditions} ...\n"
        "Queue was successfully deleted with 3 ready messages\n")
    assert broker.asked[0]["arguments"] == {
        "vhost": "/", "queue": "q", "if_empty": "empty" in conditions, "if_unused": "unused" in conditions}


def test_a_new_user_is_told_to_need_permissions(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["add_user", "u", "p"]) == 0
    assert "Don't forget to grant the user permissions" in capsys.readouterr().out


def test_a_right_password_is_a_success(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["authenticate_user", "u", "p"]) == 0
    assert broker.asked == [{"command": "authenticate_user", "arguments": {"user": "u", "password": "p"}}]
    assert capsys.readouterr().out == 'Authenticating user "u" ...\nSuccess\n'


def test_what_a_user_may_do_is_a_table(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.gives({"columns": ["vhost", "configure", "write", "read"], "rows": [["/", ".*", "", "^a"]]})
    assert ctl.main(["list_user_permissions", "u"]) == 0
    assert broker.asked == [{"command": "list_user_permissions", "arguments": {"user": "u"}}]
    assert capsys.readouterr().out == (
        'Listing permissions for user "u" ...\nvhost\tconfigure\twrite\tread\n/\t.*\t\t^a\n')


def test_quiet_acts_print_nothing(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["-q", "add_user", "u", "p"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("typed, password", [
    ("secret\n", "secret"), ("secret", "secret"), (" s \r\n", " s "), ("\n", ""),
])
def test_a_password_is_read_from_stdin(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, typed: str, password: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed, newline=""))
    assert ctl.main(["add_user", "u"]) == 0
    assert broker.asked[0]["arguments"]["password"] == password


def test_no_password_at_all_is_65(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert ctl.main(["change_password", "u"]) == 65
    assert capsys.readouterr().err == "amqpctl: Password is not provided via argument or stdin\n"
    assert not broker.asked


# The broker itself

@pytest.mark.parametrize("options, expected", [
    (["-q"], "Ping succeeded\n"), (["--formatter", "json"], '{"message": "Ping succeeded"}\n'),
])
def test_ping_succeeds(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str], options: list[str], expected: str
) -> None:
    assert ctl.main(["ping", *options]) == 0
    assert capsys.readouterr().out == expected


STATUS = {
    "pid": 7, "os": "Linux", "uptime": 12, "product_version": "0.1.0", "rabbitmq_version": "3.10.8",
    "python_version": "3.11.2", "data_directory": "/var/lib/amqpd", "memory": {"total": {"rss": 45_600_000}},
    "file_descriptors": {"total_used": 20, "total_limit": 1024}, "disk_free": 85_000_000_000,
    "disk_free_limit": 128_000_000, "vm_memory_high_watermark_setting": {"relative": 0.6},
    "vm_memory_high_watermark_limit": 9_000_000_000, "alarms": [], "durability": "process",
    "totals": {"connection_count": 1, "queue_count": 2, "virtual_host_count": 3},
    "listeners": [{"interface": "127.0.0.1", "port": 5672, "protocol": "amqp", "purpose": "AMQP 0-9-1"}],
}


def test_status_is_told_in_sections(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.gives(STATUS)
    assert ctl.main(["status", "-q"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("Runtime\n\nOS PID: 7\nOS: Linux\nUptime (seconds): 12\n")
    assert "\n\nTotals\n\nConnection count: 1\nQueue count: 2\nVirtual host count: 3\n\n" in told
    assert "Total memory used: 0.0456 gb\n" in told
    assert "Memory high watermark setting: 0.6 of available memory, computed to: 9.0 gb\n" in told
    assert "\n\nAlarms\n\n(none)\n\n" in told
    assert "A confirmed message survives: the end of the process, not a power loss\n" in told
    assert "Interface: 127.0.0.1, port: 5672, protocol: amqp, purpose: AMQP 0-9-1\n" in told


def test_status_tells_of_alarms_as_rabbitmqctl_does(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    alarms = [{"type": "resource_limit", "resource": name, "node": "amqpd@localhost"} for name in ("disk", "memory")]
    broker.gives(STATUS | {"alarms": alarms, "vm_memory_high_watermark_setting": {"absolute": 9_000_000_000}})
    assert ctl.main(["status", "-q"]) == 0
    told = capsys.readouterr().out
    assert "Free disk space alarm on node amqpd@localhost\nMemory alarm on node amqpd@localhost\n" in told
    assert "Memory high watermark setting: 9.0 gb\n" in told


@pytest.mark.parametrize("words, command, arguments", [
    (["set_vm_memory_high_watermark", "0.4"], "set_vm_memory_high_watermark", {"fraction": 0.4}),
    (["set_vm_memory_high_watermark", "absolute", "1GB"], "set_vm_memory_high_watermark", {"absolute": 10 ** 9}),
    (["set_disk_free_limit", "50000"], "set_disk_free_limit", {"absolute": 50_000}),
    (["set_disk_free_limit", "50MiB"], "set_disk_free_limit", {"absolute": 50 << 20}),
    (["set_disk_free_limit", "mem_relative", "1.5"], "set_disk_free_limit", {"mem_relative": 1.5}),
])
def test_limits_may_be_written_as_for_rabbitmqctl(
    broker: FakeBroker, words: list[str], command: str, arguments: dict[str, Any]
) -> None:
    assert ctl.main(words) == 0
    assert broker.asked == [{"command": command, "arguments": arguments}]


@pytest.mark.parametrize("words, exit_code", [
    (["set_vm_memory_high_watermark"], 64),
    (["set_vm_memory_high_watermark", "2"], 65),
    (["set_vm_memory_high_watermark", "nan"], 65),
    (["set_vm_memory_high_watermark", "0.1", "0.2"], 64),
    (["set_vm_memory_high_watermark", "absolute"], 64),
    (["set_vm_memory_high_watermark", "absolute", "5 apples"], 65),
    (["set_disk_free_limit", "zz"], 65),
    (["set_disk_free_limit", "mem_relative", "x"], 65),
])
def test_limits_that_are_none_are_refused(broker: FakeBroker, words: list[str], exit_code: int) -> None:
    assert ctl.main(words) == exit_code
    assert not broker.asked


def test_status_tells_when_certificates_expire(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    certificate = {"setting": "tls.certificate", "file": "/etc/server.pem", "subject": "CN=mq",
                   "names": ["mq.example.org", "10.0.0.1"], "not_after": "2027-01-31", "days_left": 12}
    nameless = {**certificate, "setting": "tls.names.a.certificate", "names": [], "days_left": -1}
    broker.gives({**STATUS, "tls_certificates": [certificate, nameless]})
    assert ctl.main(["status", "-q"]) == 0
    assert capsys.readouterr().out.endswith("""TLS certificates

tls.certificate: /etc/server.pem, for mq.example.org, 10.0.0.1, valid until 2027-01-31: in 12 days
tls.names.a.certificate: /etc/server.pem, for no name, valid until 2027-01-31: it has expired

""")


def test_status_as_json_is_what_the_broker_said(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.gives(STATUS)
    assert ctl.main(["status", "--formatter", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def test_stop_returns_once_the_broker_has_closed_the_talk(broker: FakeBroker) -> None:
    assert ctl.main(["-q", "stop"]) == 0
    assert broker.asked == [{"command": "stop", "arguments": {}}]


def test_whoever_waits_for_long_may_look_on_meanwhile(broker: FakeBroker) -> None:
    broker.may_answer.clear()
    broker.gives("at last")
    assert client.ask(
        broker.path, "ping", {}, timeout_s=10, meanwhile=broker.may_answer.set, look_s=0.001) == "at last"


# What goes wrong

def test_a_refusal_is_its_text_and_exit_code(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.answer = {"ok": False, "error": 'User "u" does not exist', "exit_code": 67}
    assert ctl.main(["-q", "delete_user", "u"]) == 67
    assert capsys.readouterr() == ("", 'amqpctl: User "u" does not exist\n')


def test_without_a_broker_it_is_69_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["--data-dir", str(tmp_path), "-q", "ping"]) == 69
    assert capsys.readouterr().err == (
        f"amqpctl: no amqpd is running at {tmp_path}/control.sock; start it, or name its data "
        "directory with --data-dir\n")


def test_a_socket_that_a_crash_has_left_is_69(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "control.sock"))
    assert ctl.main(["--socket", str(tmp_path / "control.sock"), "ping"]) == 69


def test_a_path_longer_than_a_socket_may_have_is_69(capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["-q", "ping", "--socket", "/" + "x" * 200]) == 69
    assert capsys.readouterr().err.endswith("AF_UNIX path too long\n")


def test_a_broker_that_ends_before_it_answers_is_69(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.answer = None
    assert ctl.main(["-q", "ping"]) == 69
    assert capsys.readouterr().err == f"amqpctl: amqpd ended before it answered at {broker.path}\n"


def test_a_timeout_of_0_is_75_at_once(broker: FakeBroker) -> None:
    assert ctl.main(["list_queues", "-t", "0"]) == 75
    assert not broker.asked


def test_a_dry_run_asks_nobody(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["delete_user", "u", "--dry-run"]) == 0
    assert not broker.asked
    assert capsys.readouterr().out == 'Deleting user "u" ...\n'


def test_an_unknown_command_is_answered_with_one_that_is_like_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["list_que"]) == 64
    assert "Command 'list_que' not found. Did you mean 'list_queues'?" in capsys.readouterr().err


def test_a_broker_that_does_not_answer_is_75(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.silent = True
    assert ctl.main(["-q", "ping", "-t", "0.05"]) == 75
    assert capsys.readouterr().err == f"amqpctl: no answer within 0.05 s from {broker.path}\n"


@pytest.mark.parametrize("arguments", [
    [], ["bogus"], ["list_queues", "--bogus"], ["purge_queue"], ["purge_queue", "a", "b"], ["close_connection", "x"],
    ["list_queues", "-t", "x"], ["list_queues", "--formatter", "xml"],
    ["set_permissions", "u", "a", "b"], ["set_policy", "n", "p"], ["set_policy", "n", "p", "{}", "--priority", "abc"],
    ["clear_policy"], ["clear_permissions", "u", "x"], ["list_user_permissions"], ["set_user_tags"],
])
def test_wrong_usage_is_64(arguments: list[str]) -> None:
    assert ctl.main(arguments) == 64


def test_the_data_dir_option_covers_the_variable(broker: FakeBroker, tmp_path: Path) -> None:
    assert ctl.main(["--data-dir", str(tmp_path / "elsewhere"), "ping"]) == 69
    assert not broker.asked


# Queues and consumers

@pytest.mark.parametrize("words, asked", [
    (["pause_queue", "q"], {"command": "pause_queue", "arguments": {"vhost": "/", "queue": "q"}}),
    (["pause", "q"], {"command": "pause_queue", "arguments": {"vhost": "/", "queue": "q"}}),
    (["resume", "q", "-p", "v"], {"command": "resume_queue", "arguments": {"vhost": "v", "queue": "q"}}),
    (["cancel_consumer", "q", "t"], {
        "command": "cancel_consumer", "arguments": {"vhost": "/", "queue": "q", "consumer_tag": "t", "channel": None}}),
    (["set_consumer_prefetch", "q", "t", "7", "--channel", "<x.1.2.3>"], {
        "command": "set_consumer_prefetch", "arguments": {
            "vhost": "/", "queue": "q", "consumer_tag": "t", "prefetch": 7, "channel": "<x.1.2.3>"}}),
])
def test_operations_on_queues_are_asked_of_the_broker(
    broker: FakeBroker, words: list[str], asked: dict[str, Any]
) -> None:
    assert ctl.main(words) == 0
    assert broker.asked == [asked]


def test_unacked_messages_are_a_list_that_says_how_it_goes_on(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.gives({"columns": ["id", "user"], "rows": [[7, "ann"]], "total": 9, "is_complete": False})
    assert ctl.main(["list_unacked", "q", "id,user", "--offset", "2", "--count", "1"]) == 0
    assert broker.asked == [{"command": "list_unacked", "arguments": {
        "vhost": "/", "queue": "q", "columns": ["id", "user"], "offset": 2, "count": 1}}]
    assert capsys.readouterr().out == (
        "Listing unacknowledged messages of queue 'q' in vhost '/' ...\nid\tuser\n7\tann\n"
        "9 messages in all: go on with --offset 3\nthere are more unacknowledged messages than could be visited\n")


def test_options_are_heeded_if_click_does_not_tell_where_they_come_from(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMQPD_DATA_DIR", "/nonexistent")
    monkeypatch.setattr(click.Context, "get_parameter_source", lambda ctx, name: None)     # as click 8.4.0
    assert ctl.main(["--data-dir", str(broker.path.parent), "-q", "ping"]) == 0
    assert capsys.readouterr().out == "Ping succeeded\n"
    assert ctl.main(["ping", "-q", "--data-dir", str(broker.path.parent)]) == 0
