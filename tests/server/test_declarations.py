"""Declarations of the configuration: they are made in a broker, or refused with the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from amqpd.broker.broker import Broker
from amqpd.broker.definitions import Definition, QueueDefinition, TopicPermissionDefinition, VhostDefinition
from amqpd.broker.passwords import password_matches
from amqpd.broker.scram import read_verifier
from amqpd.config import Config, load
from amqpd.server.declarations import Trial, Undeclared, declare, vhost_defaults
from tests.support.journals import RecordingJournal

Loader = Callable[[str], Config]
USER = '[[users]]\nname = "{}"\npassword = "p"\n[[users.permissions]]\nconfigure = "{}"\nwrite = ""\nread = ""\n'
TOPICS = (
    '[[users]]\nname = "{}"\npassword = "p"\n[[users.topic_permissions]]\nexchange = "e"\nwrite = "{}"\nread = ""\n')
QUEUE = 'queues = [{{name = "q", arguments = {{{}}}}}]'
BINDING = 'bindings = [{{source = "{}", destination = "{}"}}]'


@pytest.fixture
def config(tmp_path: Path) -> Loader:
    """Reads a configuration's text."""
    path = tmp_path / "amqpd.toml"

    def read(text: str) -> Config:
        path.write_text(text)
        return load(str(path), {})

    return read


@pytest.fixture
def broker() -> Broker:
    """A broker at its first start."""
    return Broker(RecordingJournal())


def refusal(config: Config, broker: Broker) -> str:
    """What is said instead of the declarations; the path's folder is left out."""
    with pytest.raises(Undeclared) as refused:
        declare(config, broker)
    return str(refused.value).rpartition("/amqpd.toml ")[2]


# At a start

def test_at_the_first_start_there_are_a_vhost_and_a_user_with_all_rights(config: Loader, broker: Broker) -> None:
    declare(config(""), broker)
    assert list(broker.vhosts) == ["/"]
    assert broker.users["guest"].may("/", "configure", "anything")


def test_the_default_user_has_the_tags_and_permissions_of_the_configuration(config: Loader, broker: Broker) -> None:
    declare(config('default_user_tags = ["monitoring", "a"]\n'
                   'default_permissions = {configure = "^c", write = "^w", read = "^r"}\n'), broker)
    guest = broker.users["guest"]
    assert guest.definition.tags == ("monitoring", "a")
    for right in ("configure", "write", "read"):
        assert [name for name in "cwr" if guest.may("/", right, name)] == [right[0]]


LIMITS = """
default_queue_type = "quorum"
[[default_vhost_limits]]
pattern = "^dev"
max_connections = 10
max_queues = 2
[[default_vhost_limits]]
max_queues = 20
[[vhosts]]
name = "device-1"
[[vhosts]]
name = "shop"
limits = { max_connections = 7 }
"""


def test_a_new_vhost_has_the_first_default_limits_whose_pattern_is_found_in_its_name(config: Loader) -> None:
    broker = Broker(RecordingJournal(), vhost_defaults=vhost_defaults(config(LIMITS)))
    declare(config(LIMITS), broker)
    broker.add_vhost(VhostDefinition("dev"))
    assert {name: vhost.limits for name, vhost in broker.vhosts.items()} == {
        "/": {"max-queues": 20}, "device-1": {"max-connections": 10, "max-queues": 2},
        "dev": {"max-connections": 10, "max-queues": 2}, "shop": {"max-connections": 7, "max-queues": -1}}


def test_default_limits_are_set_once(config: Loader) -> None:
    broker = Broker(RecordingJournal(), vhost_defaults=vhost_defaults(config(LIMITS)))
    declare(config(LIMITS), broker)
    broker.parameters.clear("device-1", "vhost-limits", "limits")
    declare(config(LIMITS), broker)
    assert broker.vhosts["device-1"].limits == {}


def test_a_durable_queue_without_a_type_has_that_of_its_vhost_or_of_all_vhosts(config: Loader) -> None:
    broker = Broker(RecordingJournal(), vhost_defaults=vhost_defaults(config(LIMITS)))
    declare(config(LIMITS), broker)
    broker.add_vhost(VhostDefinition("old", default_queue_type="classic"))
    for vhost in ("/", "old"):
        broker.ensure(QueueDefinition(0, vhost, "q", durable=True))
        broker.ensure(QueueDefinition(0, vhost, "t"))
    broker.replace_vhost(VhostDefinition("old"))
    broker.ensure(QueueDefinition(0, "old", "later", durable=True))
    assert {(vhost.name, name): queue.definition.arguments.get("x-queue-type") for vhost in broker.vhosts.values()
            for name, queue in vhost.queues.items()} == {
        ("/", "q"): "quorum", ("/", "t"): None, ("old", "q"): "classic", ("old", "t"): "classic",
        ("old", "later"): "quorum"}


VHOST = """
[[vhosts]]
name = "shop"
description = "the shop"
tags = ["web"]
default_queue_type = "quorum"
protected_from_deletion = true
limits = {max_connections = 7}

[[users]]
name = "till"
password = "p"
limits = {max_channels = 3}
"""


def test_a_vhost_and_a_user_are_declared_with_metadata_and_limits(config: Loader, broker: Broker) -> None:
    declare(config(VHOST), broker)
    assert broker.vhost_definitions["shop"] == VhostDefinition("shop", "the shop", ("web",), "quorum", True)
    assert broker.vhosts["shop"].limits == {"max-connections": 7, "max-queues": -1}
    assert broker.users["till"].definition.limits == {"max-connections": -1, "max-channels": 3}


def test_what_is_declared_of_a_vhost_is_set_at_every_start_and_the_rest_stays(config: Loader, broker: Broker) -> None:
    declare(config(VHOST), broker)
    declare(config('[[vhosts]]\nname = "shop"\n[[users]]\nname = "till"\npassword = "p"\n'), broker)
    assert broker.vhost_definitions["shop"] == VhostDefinition("shop", "the shop", ("web",), "quorum", True)
    assert broker.vhosts["shop"].limits == {"max-connections": 7, "max-queues": -1}
    assert broker.users["till"].definition.limits == {"max-connections": -1, "max-channels": 3}
    declare(config('[[vhosts]]\nname = "shop"\ntags = []\ndefault_queue_type = ""\nlimits = {max_queues = 0}\n'
                   '[[users]]\nname = "till"\npassword = "p"\nlimits = {}\n'), broker)
    assert broker.vhost_definitions["shop"] == VhostDefinition("shop", "the shop", (), "", True)
    assert broker.vhosts["shop"].limits == {"max-connections": -1, "max-queues": 0}
    assert broker.users["till"].definition.limits == {"max-connections": -1, "max-channels": -1}


def test_a_start_that_declares_what_is_stored_records_nothing(config: Loader, broker: Broker) -> None:
    declare(config(VHOST), broker)
    assert isinstance(broker.journal, RecordingJournal)
    broker.journal.commit()
    declare(config(VHOST), broker)
    assert broker.journal.is_empty


def test_a_declared_queue_has_the_default_type_and_counts_for_the_limit(config: Loader, broker: Broker) -> None:
    declare(config(VHOST + '[[queues]]\nname = "q"\nvhost = "shop"\n'), broker)
    assert broker.vhosts["shop"].queues["q"].definition.arguments == {"x-queue-type": "quorum"}
    full = VHOST.replace("max_connections = 7", "max_queues = 1") + (
        '[[queues]]\nname = "q"\nvhost = "shop"\n[[queues]]\nname = "r"\nvhost = "shop"\n')
    assert refusal(config(full), broker) == (
        "line 17: queues.r: cannot declare queue 'r': queue limit in vhost 'shop' (1) is reached; change the line")


def test_the_default_user_may_be_declared_with_another_password_and_fewer_rights(
    config: Loader, broker: Broker
) -> None:
    declare(config(USER.format("guest", "^a")), broker)
    guest = broker.users["guest"]
    assert password_matches(guest.definition, "p") and not password_matches(guest.definition, "guest")
    assert guest.may("/", "configure", "a") and not guest.may("/", "configure", "b")


def test_the_same_declarations_change_nothing_at_the_next_start(config: Loader) -> None:
    journal = RecordingJournal()
    broker = Broker(journal)
    declared = config("\n".join([
        QUEUE.format("x-max-length = 5"), BINDING.format("amq.topic", "q"), USER.format("u", "a")]))
    declare(declared, broker)
    changes = len(journal.changes)
    declare(declared, broker)
    assert len(journal.changes) == changes


SCRAM = 'auth_mechanisms = ["PLAIN", "SCRAM-SHA-256"]\n'


def test_passwords_of_the_configuration_can_be_used_with_scram_where_it_is_enabled(
    config: Loader, broker: Broker
) -> None:
    user = USER.format("u", "")
    declare(config(user), broker)
    assert not broker.users["u"].definition.scram_sha256
    before = broker.users["u"].definition.password_hash
    declare(config(SCRAM + user), broker)
    stored = broker.users["u"].definition
    assert stored.password_hash == before and read_verifier(stored.scram_sha256) is not None
    declare(config(SCRAM + user), broker)
    assert broker.users["u"].definition == stored


def test_the_default_user_can_log_in_with_scram_where_it_is_enabled(config: Loader, broker: Broker) -> None:
    declare(config(SCRAM), broker)
    assert read_verifier(broker.users["guest"].definition.scram_sha256) is not None
    assert broker.users["guest"].definition.tags == ("administrator",)


def test_hashes_of_the_configuration_become_scrypt_if_imported_ones_do(config: Loader, broker: Broker) -> None:
    declare(config(USER.format("u", "")), broker)
    assert broker.users["u"].definition.hashing_algorithm == "rabbit_password_hashing_sha256"
    declare(config("login.rehash_imported = true\n" + USER.format("u", "") + USER.format("v", "")), broker)
    for name in ("u", "v"):
        assert broker.users[name].definition.hashing_algorithm == "scrypt"
        assert password_matches(broker.users[name].definition, "p")


def test_a_queue_that_is_stored_otherwise_is_to_be_deleted_or_changed(config: Loader, broker: Broker) -> None:
    declare(config(QUEUE.format("x-max-length = 5")), broker)
    assert refusal(config(QUEUE.format("x-max-length = 6")), broker) == (
        "line 1: queues.q: inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received '6' but current is '5'"
        "; delete what is stored or change the line")


def test_a_user_who_is_stored_with_another_password_is_to_be_deleted_or_changed(
    config: Loader, broker: Broker
) -> None:
    declare(config(USER.format("u", "")), broker)
    assert refusal(config(USER.format("u", "").replace('"p"', '"other"')), broker) == (
        "line 1: users.u: user 'u' is stored with another password; delete what is stored or change the line")


@pytest.mark.parametrize("text, told", [
    (BINDING.format("amq.topic", "q"), "no queue 'q' in vhost '/'"),
    (QUEUE.format("") + "\n" + BINDING.format("nope", "q"), "no exchange 'nope' in vhost '/'"),
    ('queues = [{name = "q", vhost = "none"}]', "no vhost 'none'"),
])
def test_what_a_line_refers_to_has_to_be_there(config: Loader, broker: Broker, text: str, told: str) -> None:
    assert refusal(config(text), broker).endswith(f": {told}; declare it too or change the line")


def test_what_makes_no_sense_is_to_be_changed(config: Loader, broker: Broker) -> None:
    assert refusal(config(QUEUE.format("x-expires = 0")), broker) == (
        "line 1: queues.q: x-expires may not be 0; change the line")


TWO_BINDINGS = """
limits.bindings_per_queue = {}
queues = [{{name = "q"}}]
bindings = [{{source = "amq.topic", destination = "q"}}, {{source = "amq.direct", destination = "q"}}]
"""
ONE_TOO_MANY = (
    "line 4: bindings[1]: a queue cannot have more than 1 bindings (limits.bindings_per_queue): queue 'q' in vhost '/' "
    "has as many; change the line")


def test_the_limit_of_bindings_is_that_of_the_configuration(config: Loader) -> None:
    declare(config(TWO_BINDINGS.format(2)), Broker(RecordingJournal(), binding_limit=2))
    assert refusal(config(TWO_BINDINGS.format(1)), Broker(RecordingJournal(), binding_limit=1)) == ONE_TOO_MANY
    assert faults(config(TWO_BINDINGS.format(2)), []) == []
    assert faults(config(TWO_BINDINGS.format(1)), []) == [ONE_TOO_MANY]


# Trying them out

def faults(config: Config, stored: list[Definition] | None) -> list[str]:
    """Return the problems of a trial; the path's folder is left out."""
    trial = Trial(config, stored)
    trial.run()
    return [line.rpartition("/amqpd.toml ")[2] for line in trial.problems]


def test_every_line_that_no_broker_takes_is_told(config: Loader) -> None:
    told = faults(config(
        QUEUE.format("x-queue-type = 'stream'") + "\n" + TOPICS.format("u" * 250, "{username}" * 100)
        + '[[policies]]\nname = "p"\npattern = ""\ndefinition = {expires = 0}\n'), [])
    assert [line.partition(":")[0] for line in told] == ["line 2", "line 9", "line 1"]
    assert all(line.endswith("; change the line") for line in told)


MISSING = 'bindings = [{source = "stored", destination = "stored"}]\nqueues = [{name = "q", vhost = "stored"}]'


def test_topic_permissions_are_set_at_each_start(config: Loader, broker: Broker) -> None:
    for write in "^a", "^b":
        declare(config(TOPICS.format("u", write)), broker)
        assert broker.users["u"].topic_permissions == {
            ("/", "e"): TopicPermissionDefinition("u", "/", "e", write, "")}


def test_what_may_be_stored_is_not_asked_for_where_nobody_could_look(config: Loader) -> None:
    assert faults(config(MISSING), None) == []


def test_what_is_neither_declared_nor_stored_is_told(config: Loader) -> None:
    assert faults(config(MISSING), []) == [
        "line 2: queues.q: no vhost 'stored'; declare it too or change the line",
        "line 1: bindings[0]: no exchange 'stored' in vhost '/'; declare it too or change the line",
        "line 1: bindings[0]: no queue 'stored' in vhost '/'; declare it too or change the line"]


def test_a_binding_to_a_queue_that_is_wrong_is_not_told_of_too(config: Loader) -> None:
    told = faults(config(QUEUE.format("x-expires = 0") + "\n" + BINDING.format("amq.topic", "q")), [])
    assert told == ["line 1: queues.q: x-expires may not be 0; change the line"]


def test_a_conflict_with_what_is_stored_is_told(config: Loader) -> None:
    stored = [VhostDefinition("/"), QueueDefinition(1, "/", "q", True, False, False, {"x-max-length": 5})]
    told, = faults(config(QUEUE.format("x-max-length = 6")), stored)
    assert told.endswith("received '6' but current is '5'; delete what is stored or change the line")


def test_a_declared_default_user_is_no_contradiction(config: Loader) -> None:
    assert faults(config(USER.format("guest", ".*")), []) == []
