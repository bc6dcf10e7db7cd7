"""The file of definitions that a start loads, and what a check of the configuration tells of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amqpd import cli
from amqpd.broker.broker import OPERATOR, Broker
from amqpd.broker.definitions import UserDefinition, VhostDefinition
from amqpd.broker.passwords import password_matches
from amqpd.config import Config, load
from amqpd.management.definitions_json.exporting import LOADED_HASH, Snapshot
from amqpd.server.config_check import check_config
from amqpd.server.declarations import declare
from amqpd.server.definitions_file import NotLoaded
from amqpd.server.runtime import Runtime
from amqpd.server.startup import StartError
from amqpd.store.tools.stopped import stored_definitions
from tests.support.journals import RecordingJournal

Loader = Callable[..., Config]
SAMPLE = Path(__file__).parents[1] / "management" / "definitions" / "rabbitmq-3.10.8.json"
SHOP = {"vhosts": [{"name": "shop"}], "users": [{"name": "till", "password": "secret"}],
        "queues": [{"vhost": "shop", "name": "orders"}],
        "policies": [{"vhost": "shop", "name": "bounds", "pattern": "", "definition": {"max-length": 5}}]}
WRONG = {"queues": [{"vhost": "shop", "name": "orders"}], "users": [{}]}


@pytest.fixture
def config(tmp_path: Path) -> Loader:
    """Makes a configuration that loads this file, with this text besides."""
    def make(definitions: dict[str, Any] | Path, text: str = "", *, memory: bool = True) -> Config:
        file = tmp_path / "definitions.json"
        if isinstance(definitions, dict):
            file.write_text(json.dumps(definitions))
        else:
            file = definitions
        path = tmp_path / "amqpd.toml"
        path.write_text(f'load_definitions = "{file}"\n{text}')
        return load(str(path), {}, {"data_dir": str(tmp_path / "data"), "memory": memory, "listeners": [":0"]})

    return make


@pytest.fixture
def broker() -> Broker:
    """A broker at its first start."""
    return Broker(RecordingJournal())


def refusal(config: Config, broker: Broker) -> list[str]:
    """What is wrong with the file, without its folder."""
    with pytest.raises(NotLoaded) as refused:
        declare(config, broker)
    return [problem.rpartition("/definitions.json: ")[2] for problem in refused.value.problems]


# At a start

def test_a_first_start_has_what_the_file_has_and_no_default_user(config: Loader, broker: Broker) -> None:
    declare(config(SHOP), broker)
    assert list(broker.vhosts) == ["shop"] and list(broker.users) == ["till"]
    assert password_matches(broker.users["till"].definition, "secret")
    assert broker.vhosts["shop"].queues["orders"].rules.max_length == 5


def test_a_file_without_users_brings_no_default_user_either(config: Loader, broker: Broker) -> None:
    declare(config({}), broker)
    assert not broker.vhosts and not broker.users


def test_what_is_declared_comes_after_the_file(config: Loader, broker: Broker) -> None:
    declare(config(SHOP, '''
policies = [{name = "bounds", vhost = "shop", pattern = "", definition = {max-length = 7}}]
bindings = [{source = "amq.topic", vhost = "shop", destination = "orders"}]
'''), broker)
    assert broker.vhosts["shop"].queues["orders"].rules.max_length == 7
    assert len(list(broker.vhosts["shop"].bindings())) == 1


def test_each_start_overwrites_users_and_leaves_queues(config: Loader, broker: Broker) -> None:
    declare(config(SHOP), broker)
    broker.users.set_tags("till", ("administrator",))
    queue = broker.vhosts["shop"].queues["orders"]
    declare(config(SHOP), broker)
    assert broker.users["till"].definition.tags == ()
    assert broker.vhosts["shop"].queues["orders"] is queue


def test_an_unchanged_file_is_loaded_once_if_that_is_set(
    config: Loader, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    setting = "[definitions]\nskip_if_unchanged = true\n"
    declare(config(SHOP, setting), broker)
    broker.users.set_tags("till", ("administrator",))
    declare(config(SHOP, setting), broker)
    assert broker.users["till"].definition.tags == ("administrator",)
    assert "is unchanged: its definitions were not loaded again" in caplog.text
    declare(config({**SHOP, "parameters": []}, setting), broker)
    assert broker.users["till"].definition.tags == ()


def test_what_is_kept_or_left_out_is_logged(
    config: Loader, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    declare(config(SAMPLE), broker)
    assert f"{SAMPLE}: $.queues[2]: amqpd has no streams; kept for the next export" in caplog.messages
    assert f"loaded 37 definitions from {SAMPLE}" in caplog.messages


def test_a_file_with_problems_stops_the_start_with_all_of_them(config: Loader, broker: Broker) -> None:
    assert refusal(config(WRONG), broker) == [
        "$.users[0]: has no name; change the file",
        "$.queues[0].vhost: there is no vhost 'shop', neither in the file nor in the broker; change the file"]
    assert not broker.vhosts


def test_an_unknown_key_of_a_refused_file_is_logged(
    config: Loader, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    refusal(config({**WRONG, "bindngs": []}), broker)
    assert "$.bindngs: the key is not known and has no effect; is it bindings?" in caplog.text


def test_an_export_of_one_vhost_is_refused_with_the_way_to_import_it(config: Loader, broker: Broker) -> None:
    broker.add_vhost(VhostDefinition("shop"))
    one_vhost = json.loads(b"".join(Snapshot(broker, "shop").write()))
    assert refusal(config(one_vhost), broker) == [
        "$: has the definitions of one vhost: import it with 'amqpctl -p VHOST import_definitions'; load_definitions "
        "takes an export of the whole broker"]


def test_a_file_that_cannot_be_read_stops_the_start(config: Loader, broker: Broker, tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.json", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(NotLoaded) as refused:
            declare(config(path), broker)
        assert str(refused.value) == (
            f"{path}: cannot be read: {reason}; name a file of definitions in load_definitions")


def test_an_object_that_is_still_being_deleted_stops_the_start(config: Loader, broker: Broker) -> None:
    declare(config({**SHOP, "bindings": [
        {"vhost": "shop", "source": "amq.topic", "destination": "orders", "routing_key": str(number)}
        for number in range(2_000)]}), broker)
    broker.vhosts["shop"].delete_queue(OPERATOR, "orders", OPERATOR)
    assert refusal(config(SHOP), broker) == ["objects of the store are still being deleted; start again"]


def test_what_was_loaded_is_stored(config: Loader) -> None:
    async def run(configuration: Config) -> None:
        async with Runtime(configuration):
            pass

    configuration = config(SAMPLE, memory=False)
    asyncio.run(run(configuration))
    stored = stored_definitions(configuration.data_dir)
    assert {one.name for one in stored if isinstance(one, UserDefinition)} == {"till", "boss", "old", "cert", "guest"}
    restored = Broker(RecordingJournal())
    restored.restore(stored)
    assert restored.parameters.global_value(LOADED_HASH)
    before = b"".join(Snapshot(restored).write())
    asyncio.run(run(configuration))
    again = Broker(RecordingJournal())
    again.restore(stored_definitions(configuration.data_dir))
    assert b"".join(Snapshot(again).write()) == before


def test_a_start_that_is_refused_has_stored_nothing(config: Loader) -> None:
    async def run(configuration: Config) -> None:
        async with Runtime(configuration):
            pass

    with pytest.raises(StartError) as refused:
        asyncio.run(run(config(WRONG, memory=False)))
    assert refused.value.exit_code == 78 and len(str(refused.value).splitlines()) == 2
    broken = config(SHOP, 'queues = [{name = "orders", vhost = "shop", auto_delete = true}]', memory=False)
    with pytest.raises(StartError, match="inequivalent arg 'auto_delete'"):
        asyncio.run(run(broken))
    assert stored_definitions(broken.data_dir) == []


# In a check of the configuration

def findings(config: Config) -> tuple[list[str], list[str]]:
    problems, remarks = check_config(config, ["here"])
    return ([problem.rpartition("/definitions.json: ")[2] for problem in problems],
            [remark.rpartition("/definitions.json: ")[2] for remark in remarks])


def test_the_check_tells_all_problems_of_the_file(config: Loader) -> None:
    problems, _ = findings(config(WRONG, 'queues = [{name = "q", vhost = "elsewhere"}]'))
    assert problems == [
        "$.users[0]: has no name; change the file",
        "$.queues[0].vhost: there is no vhost 'shop', neither in the file nor in the broker; change the file"]


def test_the_check_knows_what_the_file_brings(config: Loader) -> None:
    binding = 'bindings = [{{source = "amq.topic", vhost = "shop", destination = "{}"}}]'
    assert findings(config(SHOP, binding.format("orders"))) == ([], [])
    problems, _ = findings(config(SHOP, binding.format("other")))
    assert len(problems) == 1 and "no queue 'other' in vhost 'shop'" in problems[0]


def test_the_check_tells_what_is_kept(config: Loader, tmp_path: Path) -> None:
    (tmp_path / "definitions.json").write_bytes(SAMPLE.read_bytes())
    _, remarks = findings(config(tmp_path / "definitions.json"))
    assert "$.queues[2]: amqpd has no streams; kept for the next export" in remarks


def test_the_check_tells_that_the_file_is_missing(config: Loader, tmp_path: Path) -> None:
    problems, _ = findings(config(tmp_path / "none.json"))
    assert problems == [f"{tmp_path}/none.json: cannot be read: No such file or directory; name a file of definitions "
                        "in load_definitions"]


def test_beside_a_running_broker_the_file_may_name_what_is_stored(config: Loader) -> None:
    async def run() -> list[str]:
        async with Runtime(config(SHOP, memory=False)):
            return findings(config({
                "queues": [{"vhost": "elsewhere", "name": "q"}], "permissions": [
                    {"vhost": "shop", "user": "till", "configure": "", "write": "", "read": "("}],
                "bindings": [{"vhost": "shop", "source": "x", "destination": "q", "destination_type": "queue"}],
            }, memory=False))[0]

    [problem] = asyncio.run(run())
    assert problem.startswith("$.permissions[0].read: should be regular expression")


def test_the_program_checks_the_file(config: Loader, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config(WRONG)
    assert cli.main(["check-config", str(tmp_path / "amqpd.toml")]) == 78
    assert "definitions.json: $.users[0]: has no name; change the file\n" in capsys.readouterr().err


def test_a_vhost_of_the_store_need_not_be_in_the_file(config: Loader, broker: Broker) -> None:
    broker.add_vhost(VhostDefinition("/"))
    declare(config({"queues": [{"vhost": "/", "name": "q"}]}), broker)
    assert list(broker.vhosts["/"].queues) == ["q"]
