"""The commands that export and import definitions, and their bodies on the control socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from amqpd.broker.broker import Broker
from amqpd.broker.definitions import VhostDefinition
from amqpd.broker.parameters import BEGUN_IMPORT
from amqpd.broker.passwords import password_matches
from amqpd.identity import CONTROL_SOCKET
from amqpd.management.commands import Commands
from amqpd.management.control import Control
from amqpd.management.definitions_commands import DefinitionsCommands, listed
from amqpd.management.definitions_json.applying import SLICE
from amqpd.management.definitions_json.begun import finish_import
from amqpd.management.definitions_json.exporting import LOADED_HASH
from amqpd.management.definitions_json.parsing import MOST_BYTES
from amqpd.management.node_commands import Node
from amqpd.management.refusal import Refusal
from amqpd.store.journal import MemoryJournal
from amqpd.store.restoring import restore
from tests.support.journals import Kept, RecordingJournal

SAMPLE = (Path(__file__).parent / "definitions" / "rabbitmq-3.10.8.json").read_bytes()


@pytest.fixture
def broker() -> Broker:
    """A broker with vhost "/"."""
    made = Broker(MemoryJournal())
    made.add_vhost(VhostDefinition("/"))
    return made


@pytest.fixture
def commands(broker: Broker) -> DefinitionsCommands:
    return DefinitionsCommands(broker)


def exported(broker: Broker) -> bytes:
    """Return all definitions of a broker."""
    return asyncio.run(DefinitionsCommands(broker).export_definitions())


def queues(count: int) -> bytes:
    return json.dumps({"queues": [{"vhost": "/", "name": f"q{number}"} for number in range(count)]}).encode()


# The commands

def test_a_crash_leaves_all_of_an_import_or_nothing() -> None:
    journal = RecordingJournal()
    broker = Broker(journal)
    broker.add_vhost(VhostDefinition("/"))
    states: list[Kept] = []
    commands = DefinitionsCommands(broker, begin=lambda: states.append(journal.now.copy()))
    file = json.loads(SAMPLE)
    for kind in ("exchanges", "queues"):        # what is not durable is gone after a crash in any case
        file[kind] = [one for one in file[kind] if one["durable"]]
    file["bindings"] = [one for one in file["bindings"] if one["source"] != "fleeting"]
    file["queues"] += json.loads(queues(3 * SLICE))["queues"]
    file["users"].append({"name": "clear", "password": "a password", "tags": []})
    before = exported(broker)
    asyncio.run(commands.import_definitions(json.dumps(file).encode()))
    after = exported(broker)
    states.append(journal.now)
    found = []
    for state in states:
        reborn = Broker(RecordingJournal(state.copy()), first_number=10_000)
        assert not list(restore(reborn, state.in_order()))
        is_whole = exported(reborn) == after
        finish_import(reborn)
        found.append((is_whole, exported(reborn) == after))
        assert exported(reborn) == (after if found[-1][1] else before)
        assert reborn.parameters.begun_import is None
        assert "a password" not in repr(list(state.definitions.values()))
    # Nothing at first, then some of it, which the start completes, then all.
    assert list(dict.fromkeys(found)) == [(False, False), (False, True), (True, True)]


def test_an_import_goes_on_without_the_client_that_asked_for_it(
    commands: DefinitionsCommands, broker: Broker
) -> None:
    async def disconnect() -> None:
        asked = asyncio.create_task(commands.import_definitions(queues(5 * SLICE)))
        while not broker.vhosts["/"].queues:
            await asyncio.sleep(0)
        asked.cancel()
        while broker.parameters.begun_import is not None:
            await asyncio.sleep(0)

    asyncio.run(disconnect())
    assert len(broker.vhosts["/"].queues) == 5 * SLICE


def test_a_begun_import_is_no_parameter(commands: DefinitionsCommands, broker: Broker) -> None:
    broker.parameters.begin_import("[]")
    assert not list(broker.parameters.of_broker)
    assert BEGUN_IMPORT not in asyncio.run(commands.export_definitions()).decode()
    asyncio.run(commands.import_definitions(json.dumps(
        {"global_parameters": [{"name": BEGUN_IMPORT, "value": "[]"}]}).encode()))
    assert broker.parameters.begun_import is None


def test_an_import_tells_how_many_definitions_there_were(commands: DefinitionsCommands, broker: Broker) -> None:
    imported = asyncio.run(commands.import_definitions(SAMPLE))
    assert imported.count == 37 and len(imported.warnings) == 9
    assert "till.1" in broker.vhosts["shop"].queues
    assert json.loads(asyncio.run(commands.export_definitions()))["users"] == sorted(
        json.loads(SAMPLE)["users"], key=lambda user: user["name"])


def test_a_wrong_file_is_refused_with_all_its_problems(commands: DefinitionsCommands, broker: Broker) -> None:
    with pytest.raises(Refusal) as refused:
        asyncio.run(commands.import_definitions(b'{"vhosts": [{"name": "new"}], "queues": [{}], "users": [{}]}'))
    assert str(refused.value) == "$.users[0]: has no name\n$.queues[0]: has no vhost\n$.queues[0]: has no name"
    assert refused.value.exit_code == 65
    assert list(broker.vhosts) == ["/"]


def test_an_unknown_key_is_told_of_a_refused_file_too(commands: DefinitionsCommands) -> None:
    with pytest.raises(Refusal) as refused:
        asyncio.run(commands.import_definitions(b'{"users": [{}], "bindngs": [], "vhosts": [{"name": "/", "nam": 1}]}'))
    assert str(refused.value).splitlines() == [
        "warning: $.bindngs: the key is not known and has no effect; is it bindings?",
        "warning: $.vhosts[0].nam: the key is not known and has no effect; is it name?", "$.users[0]: has no name"]


@pytest.mark.parametrize("command", ["export_definitions", "import_definitions"])
def test_a_vhost_that_is_named_has_to_exist(commands: DefinitionsCommands, command: str) -> None:
    call: Callable[..., Awaitable[Any]] = getattr(commands, command)
    with pytest.raises(Refusal, match="Virtual host 'nope' does not exist"):
        asyncio.run(call(*[b"{}"] * command.startswith("import"), vhost="nope"))


def test_an_unchanged_file_is_imported_once_if_that_is_asked_for(
    commands: DefinitionsCommands, broker: Broker
) -> None:
    async def load(body: bytes, *, skips: bool = True) -> bool:
        return (await commands.import_definitions(body, skip_if_unchanged=skips)).is_unchanged

    assert [asyncio.run(load(body)) for body in (queues(1), queues(1), queues(2), queues(2))] == [
        False, True, False, True]
    assert not asyncio.run(load(queues(2), skips=False))
    assert LOADED_HASH not in asyncio.run(commands.export_definitions()).decode()
    broker.parameters.clear_global(LOADED_HASH)
    assert not asyncio.run(load(queues(2)))


def test_others_have_their_turn_during_an_import(broker: Broker) -> None:
    begun = 0

    def begin() -> None:
        nonlocal begun
        begun += 1

    async def count_turns() -> list[int]:
        commands, seen = DefinitionsCommands(broker, begin=begin), []
        importing = asyncio.create_task(commands.import_definitions(queues(1_000)))
        while not importing.done():
            seen.append(len(broker.vhosts["/"].queues))
            await asyncio.sleep(0)
        return seen

    counts = asyncio.run(count_turns())
    assert len({*counts}) > 15 and begun > 20


def test_a_password_is_hashed_beside_the_event_loop(commands: DefinitionsCommands, broker: Broker) -> None:
    asyncio.run(commands.import_definitions(b'{"users": [{"name": "u", "password": "secret"}]}'))
    assert password_matches(broker.users["u"].definition, "secret")


def test_very_many_lines_are_cut() -> None:
    assert listed(["a"] * 3, 3) == ["a"] * 3
    assert listed(["a"] * 1_004, 3) == ["a", "a", "a", "… and 1,001 more"]


# The socket

class Desk:
    """A control socket of a broker."""

    def __init__(self, broker: Broker, folder: Path, answer_limit_s: float = 30.0) -> None:
        node = Node(rabbitmq_version="3.10.8", data_dir=None, durability="none", alarms=None, listeners=[],
                    stop=lambda: None)
        self.path = folder / CONTROL_SOCKET
        self.control = Control(Commands(broker, node), self._nothing, answer_limit_s=answer_limit_s)

    async def _nothing(self) -> None:
        pass

    def talk(self, request: bytes, *, closes: bool = True) -> bytes:
        """Send bytes, and return all that is answered."""
        async def send() -> bytes:
            async with self.control.listening(self.path):
                reader, writer = await asyncio.open_unix_connection(self.path)
                writer.write(request)
                if closes:
                    writer.write_eof()
                answer = await asyncio.wait_for(reader.read(), 20)
                writer.close()
                return answer

        return asyncio.run(send())


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a path short enough for sockets."""
    return tmp_path_factory.mktemp("s")


def request(command: str, size: int | None = None, **arguments: Any) -> bytes:
    sized = {} if size is None else {"size": size}
    return json.dumps({"command": command, "arguments": arguments, **sized}).encode() + b"\n"


def test_a_body_follows_its_request_and_a_long_result_its_answer(broker: Broker, folder: Path) -> None:
    body = queues(5_000)
    answer = Desk(broker, folder).talk(
        request("import_definitions", len(body)) + body + request("export_definitions", vhost="/"))
    first, second, rest = answer.split(b"\n", 2)
    assert json.loads(first) == {"ok": True, "result": {"count": 5_000, "warnings": [], "is_unchanged": False}}
    assert json.loads(second) == {"ok": True, "size": len(rest)}
    assert len(json.loads(rest)["queues"]) == 5_000


def test_a_body_that_is_too_long_is_not_taken(broker: Broker, folder: Path) -> None:
    answer = Desk(broker, folder).talk(request("import_definitions", MOST_BYTES + 1) + b"x" * 100_000)
    assert json.loads(answer) == {"ok": False, "error": "a file may have at most 20 MiB", "exit_code": 65}


def test_a_body_that_ends_too_early_is_nothing(broker: Broker, folder: Path) -> None:
    assert Desk(broker, folder).talk(request("import_definitions", 1_000) + queues(1)) == b""
    assert not broker.vhosts["/"].queues


def test_a_body_that_does_not_come_is_not_awaited_for_ever(
    broker: Broker, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(broker, folder, answer_limit_s=0.1)
    assert desk.talk(request("import_definitions", 1_000) + b"{", closes=False) == b""
    assert "or send all of its request" in caplog.text


def test_a_command_without_a_body_ignores_one(broker: Broker, folder: Path) -> None:
    first, second = Desk(broker, folder).talk(request("ping", 3) + b"xyz" + request("ping")).splitlines()
    assert json.loads(first)["ok"] and json.loads(second)["ok"]


def test_exports_and_imports_are_logged(broker: Broker, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "amqpd.control")
    Desk(broker, folder).talk(request("import_definitions", 2, vhost=None) + b"{}" + request("export_definitions"))
    assert [message.partition(", by")[0] for message in caplog.messages] == [
        "amqpctl import_definitions", "amqpctl export_definitions"]
