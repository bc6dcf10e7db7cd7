"""Files of definitions: RabbitMQ's are imported and exported without a loss, and a wrong one changes nothing.

`definitions/rabbitmq-3.10.8.json` was written by rabbitmqctl of that version; `definitions/rabbitmq-4.1.2.json` has the
form that the management plugin of RabbitMQ 4 writes.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from amqpd.broker.broker import OPERATOR, Broker
from amqpd.broker.definitions import BindingDefinition, QueueDefinition, UserDefinition, VhostDefinition
from amqpd.broker.passwords import SHA256, PasswordForm, hash_known_password, password_matches
from amqpd.fields import Byte, Float, LongString, Timestamp
from amqpd.management.definitions_json.applying import carry_out, carry_out_at_once, hash_passwords
from amqpd.management.definitions_json.checking import check
from amqpd.management.definitions_json.exporting import SORTED_AT_ONCE, Snapshot
from amqpd.management.definitions_json.parsing import DEEPEST, MOST_BYTES
from amqpd.management.definitions_json.plan import Plan
from tests.fuzz.definitions import harmless
from tests.support.journals import RecordingJournal

Json = dict[str, Any]
FOLDER = Path(__file__).parent / "definitions"
SAMPLES = sorted(FOLDER.glob("*.json"))
NAMES = {"bindings": ("vhost", "source", "destination_type", "destination", "routing_key"),
         "permissions": ("user", "vhost"), "topic_permissions": ("user", "vhost", "exchange"),
         "parameters": ("vhost", "component", "name")}
every_sample = pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)


@pytest.fixture
def broker() -> Broker:
    """A broker without a vhost."""
    return Broker(RecordingJournal())


def load(broker: Broker, body: Json | bytes, vhost: str | None = None) -> Plan:
    """Import a file without problems; return what was imported."""
    plan = check(body if isinstance(body, bytes) else json.dumps(body).encode(), broker, vhost)
    assert not plan.problems
    hash_passwords(plan, broker, PasswordForm())
    carry_out_at_once(plan, broker)
    for home in broker.vhosts.values():
        home.check()
    return plan


def problems(body: Json | bytes, broker: Broker | None = None, vhost: str | None = None) -> list[str]:
    """What is wrong with a file."""
    return check(
        body if isinstance(body, bytes) else json.dumps(body).encode(), broker or Broker(RecordingJournal()),
        vhost).problems


def export(broker: Broker, vhost: str | None = None) -> bytes:
    return b"".join(Snapshot(broker, vhost).write())


def exported(broker: Broker, vhost: str | None = None) -> Json:
    found: Json = json.loads(export(broker, vhost))
    return found


def by_name(entries: list[Json], section: str) -> dict[tuple[str, ...], Json]:
    keys = NAMES.get(section, ("vhost", "name") if section in ("queues", "exchanges", "policies") else ("name",))
    return {tuple(entry[key] for key in keys): entry for entry in entries}


# Round trips

@every_sample
def test_an_export_of_rabbitmq_is_exported_again_without_a_loss(broker: Broker, path: Path) -> None:
    body = path.read_bytes()
    load(broker, body)
    sample, again = json.loads(body), exported(broker)
    for section, entries in sample.items():
        if not isinstance(entries, list):
            continue
        found = by_name(again[section], section)
        assert found.keys() == by_name(entries, section).keys()
        for name, entry in by_name(entries, section).items():
            assert {key: found[name].get(key) for key in entry} == entry, f"{section} {name}"


@every_sample
def test_an_export_imported_elsewhere_is_exported_with_the_same_bytes(broker: Broker, path: Path) -> None:
    load(broker, path.read_bytes())
    other = Broker(RecordingJournal())
    load(other, export(broker))
    assert export(other) == export(broker)


@every_sample
def test_one_vhost_is_exported_and_imported_into_another_one(broker: Broker, path: Path) -> None:
    load(broker, path.read_bytes())
    one = export(broker, "shop")
    assert b'"vhost"' not in one
    broker.add_vhost(VhostDefinition("branch"))
    load(broker, one, "branch")
    assert {**exported(broker, "branch"), "original_vhost_name": "shop"} == json.loads(one)


@every_sample
def test_what_was_imported_is_there_after_a_restart(path: Path) -> None:
    journal = RecordingJournal()
    broker = Broker(journal)
    load(broker, path.read_bytes())
    restarted = Broker(RecordingJournal())
    restarted.restore(journal.now.in_order())
    before, after = exported(broker), exported(restarted)
    transient = [entry["name"] for section in ("queues", "exchanges") for entry in before[section]
                 if not entry["durable"]]
    for section, entries in before.items():
        if isinstance(entries, list):
            assert after[section] == [entry for entry in entries if entry.get("name") not in transient
                                      and entry.get("destination") not in transient]


@every_sample
def test_an_import_again_changes_nothing(path: Path) -> None:
    journal = RecordingJournal()
    broker = Broker(journal)
    load(broker, path.read_bytes())
    before = export(broker)
    journal.is_empty = True
    load(broker, path.read_bytes())
    assert journal.is_empty and export(broker) == before


def test_equal_definitions_have_equal_bytes_whatever_their_order(broker: Broker) -> None:
    sample = json.loads(SAMPLES[0].read_bytes())
    other = {key: value[::-1] if isinstance(value, list) else value for key, value in reversed(sample.items())}
    load(broker, sample)
    turned = Broker(RecordingJournal())
    load(turned, other)
    assert export(turned) == export(broker)


def test_many_are_sorted_in_runs(broker: Broker) -> None:
    names = [f"q{number}" for number in range(2 * SORTED_AT_ONCE + 5)]
    load(broker, {"vhosts": [{"name": "/"}], "queues": [{"vhost": "/", "name": name} for name in names[::-1]]})
    assert [queue["name"] for queue in exported(broker)["queues"]] == sorted(names)


# What an import does

def test_what_was_imported_holds(broker: Broker) -> None:
    load(broker, SAMPLES[0].read_bytes())
    users, shop = broker.users, broker.vhosts["shop"]
    for name in ("till", "boss", "old"):
        assert password_matches(users[name].definition, f"{name} pass")
    assert users["till"].definition.limits == {"max-connections": 20, "max-channels": 200}
    assert users["old"].definition.tags == ("monitoring", "policymaker")
    assert users["till"].may("shop", "write", "orders") and not users["till"].may("shop", "write", "receipts")
    assert users["till"].topic_permissions["shop", "events"].write == "^{username}\\."
    assert broker.vhost_definitions["shop"].tags == ("production", "eu")
    assert shop.queues["till.1"].rules.max_length == 50_000
    assert shop.queues["receipts"].rules.delivery_limit == 5
    assert shop.queues["receipts"].rules.message_ttl_ms == 86_400_000        # of the operator policy
    assert broker.parameters.value("shop", "vhost-limits", "limits") == {"max-connections": 500, "max-queues": 1000}
    assert broker.parameters.global_value("cluster_name") == "rabbit@shop"
    assert "journal" not in shop.queues


def test_what_has_no_effect_is_kept_and_told(broker: Broker) -> None:
    plan = load(broker, SAMPLES[1].read_bytes())
    plan.warnings += load(Broker(RecordingJournal()), SAMPLES[0].read_bytes()).warnings
    told = {path: text for path, _, text in [warning.partition(": ") for warning in plan.warnings]}
    assert told["$.queues[1]"] == "amqpd has no streams; kept for the next export"
    assert told["$.exchanges[3]"] == "amqpd has no exchanges of type 'x-consistent-hash'; kept for the next export"
    assert told["$.policies[2].definition"].endswith("no effect in amqpd; kept")
    assert told["$.parameters[0]"] == "parameters of the component 'shovel' have no effect in amqpd; it is kept"
    assert "internal ones are not in RabbitMQ's exports" in told["$.bindings[5]"]


def test_users_permissions_and_policies_are_overwritten_and_queues_are_not(broker: Broker) -> None:
    load(broker, {
        "vhosts": [{"name": "/"}], "users": [{"name": "u", "tags": "management", "password_hash": ""}],
        "permissions": [{"user": "u", "vhost": "/", "configure": "", "write": "", "read": ""}],
        "policies": [{"vhost": "/", "name": "p", "pattern": "", "definition": {"max-length": 1}}],
        "exchanges": [{"vhost": "/", "name": "x", "type": "fanout"}],
        "queues": [{"vhost": "/", "name": "q", "arguments": {"x-max-length": 1}}]})
    plan = load(broker, {
        "vhosts": [{"name": "/", "description": "all"}],
        "users": [{"name": "u", "tags": ["administrator"], "password_hash": ""}],
        "permissions": [{"user": "u", "vhost": "/", "configure": ".*", "write": "", "read": ""}],
        "policies": [{"vhost": "/", "name": "p", "pattern": "", "definition": {"max-length": 2}}],
        "exchanges": [{"vhost": "/", "name": "x", "type": "topic"}],
        "queues": [{"vhost": "/", "name": "q", "arguments": {"x-max-length": 2}}]})
    assert plan.warnings == [
        "$.exchanges[0]: exists and stays as it is, although it differs: inequivalent arg 'type' for exchange 'x' in "
        "vhost '/': received 'topic' but current is 'fanout'",
        "$.queues[0]: exists and stays as it is, although it differs: inequivalent arg 'x-max-length' for queue 'q' in "
        "vhost '/': received '2' but current is '1'"]
    assert broker.vhost_definitions["/"].description == "all"
    assert broker.users["u"].definition.tags == ("administrator",)
    assert broker.users["u"].may("/", "configure", "x")
    assert broker.vhosts["/"].queues["q"].definition.arguments == {"x-max-length": 1}
    [policy] = broker.vhosts["/"].policies.listed(is_operator=False)
    assert policy.definition == {"max-length": 2}


def test_what_a_file_does_not_say_of_a_vhost_stays(broker: Broker) -> None:
    known = VhostDefinition("/", "all", ("a",), "quorum", protected_from_deletion=True)
    broker.add_vhost(known)
    load(broker, {"vhosts": [{"name": "/", "metadata": {"tags": ["b"]}}]})
    assert broker.vhost_definitions["/"] == VhostDefinition("/", "all", ("b",), "quorum", protected_from_deletion=True)


def test_limits_of_a_vhost_may_stand_with_it(broker: Broker) -> None:
    for limits in ([["max-queues", 3]], {"max-queues": 3}):
        load(broker, {"vhosts": [{"name": "/", "limits": limits}]})
        assert broker.parameters.value("/", "vhost-limits", "limits") == {"max-queues": 3}


def test_a_plain_password_is_hashed_once(broker: Broker) -> None:
    body = {"users": [{"name": "u", "password": "secret"}]}
    load(broker, body)
    first = broker.users["u"].definition
    assert password_matches(first, "secret") and first.hashing_algorithm == "scrypt"
    load(broker, body)
    assert broker.users["u"].definition == first
    load(broker, {"users": [{"name": "u", "password": "other"}]})
    assert password_matches(broker.users["u"].definition, "other")


def test_no_password_is_shown(broker: Broker) -> None:
    password_hash, _ = hash_known_password("secret")
    plan = check(json.dumps({"users": [
        {"name": "u", "password": "secret"}, {"name": "v", "password_hash": password_hash}]}).encode(), broker)
    assert repr(plan) == "Plan(2 definitions, 0 problems)"
    assert problems({"users": [{"name": "u", "password": [1234]}]}) == [
        "$.users[0].password: is ***, it has to be a text"]


def test_the_verifier_for_scram_stays_as_long_as_the_password(broker: Broker) -> None:
    password_hash, algorithm = hash_known_password("secret")
    broker.users.add(UserDefinition("u", password_hash, algorithm, (), "verifier"))
    entry = {"name": "u", "password_hash": password_hash, "hashing_algorithm": algorithm, "tags": ["a"]}
    load(broker, {"users": [entry]})
    assert broker.users["u"].definition.scram_sha256 == "verifier"
    load(broker, {"users": [{**entry, "password_hash": hash_known_password("other")[0]}]})
    assert broker.users["u"].definition.scram_sha256 == ""


def test_a_plain_password_is_stored_in_the_form_that_is_set(broker: Broker) -> None:
    password_hash, algorithm = hash_known_password("secret")
    broker.users.add(UserDefinition("u", password_hash, algorithm))
    plan = check(b'{"users": [{"name": "u", "password": "secret"}]}', broker)
    hash_passwords(plan, broker, PasswordForm(with_scram=True))
    assert plan.users["u"].password_hash == password_hash and plan.users["u"].scram_sha256
    hash_passwords(plan, broker, PasswordForm(rehashes=True))
    assert plan.users["u"].hashing_algorithm == "scrypt" and password_matches(plan.users["u"], "secret")


def test_a_hash_without_an_algorithm_is_sha_256(broker: Broker) -> None:
    password_hash, _ = hash_known_password("secret")
    load(broker, {"users": [{"name": "u", "password_hash": password_hash}]})
    assert broker.users["u"].definition.hashing_algorithm == SHA256
    assert password_matches(broker.users["u"].definition, "secret")


def test_everything_about_a_user_is_exported(broker: Broker) -> None:
    broker.users.add(UserDefinition("u", "aGFzaA==", "scrypt", ("a",), "verifier", {"max-channels": 3}))
    assert exported(broker)["users"] == [{
        "name": "u", "password_hash": "aGFzaA==", "hashing_algorithm": "scrypt", "tags": ["a"],
        "scram_sha256": "verifier", "limits": {"max-channels": 3}}]


@pytest.mark.parametrize("queue, arguments", [
    ({"type": "quorum"}, {"x-queue-type": "quorum"}),
    ({"type": "classic"}, {}),
    ({}, {"x-queue-type": "quorum"}),
    ({"auto_delete": True}, {}),
    ({"durable": False}, {}),
    ({"arguments": {"x-queue-type": "classic"}}, {"x-queue-type": "classic"}),
])
def test_the_type_of_a_queue_is_its_argument_or_beside_it_or_the_default(
    broker: Broker, queue: Json, arguments: Json
) -> None:
    load(broker, {"vhosts": [{"name": "/", "default_queue_type": "quorum"}],
                  "queues": [{"vhost": "/", "name": "q", **queue}]})
    assert broker.vhosts["/"].queues["q"].definition.arguments == arguments


def test_names_of_the_broker_are_left_out(broker: Broker) -> None:
    plan = load(broker, {
        "rabbitmq_version": "3.10.8", "vhosts": [{"name": "/"}],
        "queues": [{"vhost": "/", "name": "amq.gen-1"}],
        "exchanges": [{"vhost": "/", "name": name, "type": "fanout"} for name in ("amq.own", "")],
        "bindings": [{"vhost": "/", "source": "amq.fanout", "destination": "amq.gen-1", "destination_type": "queue"},
                     {"vhost": "/", "source": "", "destination": "q", "destination_type": "queue"}]})
    assert len(plan.warnings) == 5 and all("left out" in warning for warning in plan.warnings)
    assert not broker.vhosts["/"].queues and not list(broker.vhosts["/"].bindings())


def test_values_that_json_does_not_have_are_exported_as_the_nearest(broker: Broker) -> None:
    broker.add_vhost(VhostDefinition("/"))
    arguments = {"byte": Byte(1), "time": Timestamp(2), "float": Float(0.5), "text": LongString(b"\xff"), "none": None,
                 "list": [b"x", {"deep": Byte(3)}]}
    broker.ensure(QueueDefinition(0, "/", "q", durable=True, arguments=arguments))
    assert exported(broker)["queues"][0]["arguments"] == {
        "byte": 1, "time": 2, "float": 0.5, "text": "\\xff", "none": None, "list": ["x", {"deep": 3}]}


def test_exclusive_queues_and_their_bindings_are_not_exported(broker: Broker) -> None:
    broker.add_vhost(VhostDefinition("/"))
    vhost, owner = broker.vhosts["/"], object()
    for name in ("mine", ""):
        queue = vhost.declare_queue(OPERATOR, QueueDefinition(0, "/", name, exclusive=bool(name)), owner)
        vhost.bind(OPERATOR, binding_to(queue.name), owner)
    found = exported(broker)
    assert not found["queues"] and not found["bindings"]


def binding_to(queue: str) -> BindingDefinition:
    return BindingDefinition("/", "amq.topic", "queue", queue)


# What is kept

STREAM = {"vhost": "/", "name": "s", "durable": True, "auto_delete": False, "type": "stream", "arguments": {}}


def test_a_kept_stream_is_hidden_by_a_queue_of_its_name(broker: Broker) -> None:
    load(broker, {"vhosts": [{"name": "/"}], "queues": [STREAM]})
    assert exported(broker)["queues"] == [STREAM]
    queue = broker.vhosts["/"].declare_queue(OPERATOR, QueueDefinition(0, "/", "s"), OPERATOR)
    assert [one["type"] for one in exported(broker)["queues"]] == ["classic"]
    broker.vhosts["/"].delete_queue(OPERATOR, queue.name, OPERATOR)
    assert exported(broker)["queues"] == [STREAM]


def test_a_binding_to_a_stream_that_was_kept_before_is_kept(broker: Broker) -> None:
    load(broker, {"vhosts": [{"name": "/"}], "queues": [STREAM]})
    binding = {"vhost": "/", "source": "amq.topic", "destination": "s", "destination_type": "queue",
               "routing_key": "k", "arguments": {}}
    load(broker, {"bindings": [binding]})
    assert exported(broker)["bindings"] == [binding]
    assert not list(broker.vhosts["/"].bindings())


def test_what_is_kept_is_deleted_with_its_vhost_or_as_a_parameter(broker: Broker) -> None:
    load(broker, {"vhosts": [{"name": "/"}], "queues": [STREAM]})
    broker.parameters.clear("/", "amqpd-kept-queues", "s")
    assert not exported(broker)["queues"]
    load(broker, {"queues": [STREAM]})
    broker.delete_vhost("/")
    broker.add_vhost(VhostDefinition("/"))
    assert not exported(broker)["queues"]


# What is wrong

GOOD: Json = {
    "vhosts": [{"name": "/"}],
    "users": [{"name": "u", "password_hash": ""}],
    "permissions": [{"user": "u", "vhost": "/", "configure": "", "write": "", "read": ""}],
    "topic_permissions": [{"user": "u", "vhost": "/", "exchange": "", "write": "", "read": ""}],
    "parameters": [{"vhost": "/", "component": "c", "name": "n", "value": 1}],
    "global_parameters": [{"name": "n", "value": 1}],
    "policies": [{"vhost": "/", "name": "p", "pattern": "", "definition": {"max-length": 1}}],
    "exchanges": [{"vhost": "/", "name": "x", "type": "headers"}],
    "queues": [{"vhost": "/", "name": "q"}],
    "bindings": [{"vhost": "/", "source": "x", "destination": "q", "destination_type": "queue"}]}


@pytest.mark.parametrize("section, changes, expected", [
    ("vhosts", {"name": ""}, "$.vhosts[0].name: is empty"),
    ("vhosts", {"name": 3}, "$.vhosts[0].name: is 3, it has to be a text"),
    ("vhosts", {"name": "\u00e9" * 128}, "$.vhosts[0].name: longer than 255 bytes"),
    ("vhosts", {"metadata": {"tags": [3]}}, "$.vhosts[0].metadata.tags[0]: is 3, it has to be a name"),
    ("vhosts", {"limits": {"max-fun": 3}},
     "$.vhosts[0].limits.max-fun: is not a limit; there are max-connections and max-queues"),
    ("vhosts", {"default_queue_type": "odd"},
     "$.vhosts[0].default_queue_type: is 'odd', it has to be one of classic, quorum, stream"),
    ("users", {"password_hash": 7}, "$.users[0].password_hash: is ***, it has to be a text"),
    ("users", {"password_hash": "***"}, "$.users[0].password_hash: is not base64"),
    ("users", {"password": "p", "password_hash": "aaaa"},
     "$.users[0]: has both password and password_hash, allowed is one of them"),
    ("users", {"scram_sha256": "SCRAM-SHA-256$4096:c2FsdA==$a2V5:a2V5"},
     "$.users[0].scram_sha256: is not a verifier of the form SCRAM-SHA-256$iterations:salt$stored key:server key, each "
     "of them base64"),
    ("users", {"hashing_algorithm": "rot13"},
     "$.users[0].hashing_algorithm: 'rot13' is not known; there are rabbit_password_hashing_sha256, "
     "rabbit_password_hashing_sha512, rabbit_password_hashing_md5 and scrypt"),
    ("users", {"limits": {"max-channels": True}},
     "$.users[0].limits.max-channels: is true, it has to be a whole number up to 9007199254740992"),
    ("vhosts", {"limits": [["max-queues", 1 << 54]]}, "$.vhosts[0].limits.max-queues: is 18014398509481984, it has to "
     "be a whole number up to 9007199254740992"),
    ("permissions", {"user": "v"},
     "$.permissions[0].user: there is no user 'v', neither in the file nor in the broker"),
    ("permissions", {"vhost": "v"},
     "$.permissions[0].vhost: there is no vhost 'v', neither in the file nor in the broker"),
    ("permissions", {"read": None}, "$.permissions[0]: has no read"),
    ("permissions", {"write": "("},
     "$.permissions[0].write: should be regular expression but is invalid: missing ) at position 1"),
    ("topic_permissions", {"read": "(?<"},
     "$.topic_permissions[0].read: should be regular expression but is invalid: missing group name at position 3"),
    ("topic_permissions", {"exchange": None}, "$.topic_permissions[0]: has no exchange"),
    ("parameters", {"component": "amqpd-kept-queues"},
     "$.parameters[0].component: is reserved for what amqpd keeps of other brokers"),
    ("parameters", {"component": "vhost-limits", "value": 3}, "$.parameters[0].value: is 3, it has to be an object"),
    ("parameters", {"component": "operator_policy", "value": {"pattern": "", "definition": {"ha-mode": "all"}}},
     "$.parameters[0].value: 'ha-mode' is not a key of operator policies"),
    ("policies", {"definition": {"max-length": -1}}, "$.policies[0]: max-length: -1 is not a valid maximum length"),
    ("policies", {"definition": "x"}, "$.policies[0].definition: is 'x', it has to be an object"),
    ("policies", {"priority": "high"}, "$.policies[0].priority: is 'high', it has to be a whole number"),
    ("exchanges", {"type": "odd"}, "$.exchanges[0].type: unknown exchange type 'odd'"),
    ("exchanges", {"type": ""}, "$.exchanges[0].type: invalid exchange type ''"),
    ("exchanges", {"arguments": {"alternate-exchange": 3}},
     "$.exchanges[0].arguments: alternate-exchange has to be a text"),
    ("queues", {"arguments": {"x-max-length": "many"}},
     "$.queues[0].arguments.x-max-length: x-max-length has to be a whole number"),
    ("queues", {"arguments": {"own": 1 << 63}}, "$.queues[0].arguments: integer beyond 64 bits"),
    ("queues", {"arguments": {"x" * 256: 1}}, "$.queues[0].arguments: field name of more than 255 bytes"),
    ("queues", {"type": "odd"}, "$.queues[0].type: is 'odd', it has to be one of classic, quorum, stream"),
    ("queues", {"type": "quorum", "durable": False},
     "$.queues[0]: invalid property 'non-durable' for queue 'q' in vhost '/'"),
    ("queues", {"durable": "yes"}, "$.queues[0].durable: is 'yes', it has to be true or false"),
    ("bindings", {"source": "y"},
     "$.bindings[0].source: there is no exchange 'y' in vhost '/', neither in the file nor in the broker"),
    ("bindings", {"destination": "r"},
     "$.bindings[0].destination: there is no queue 'r' in vhost '/', neither in the file nor in the broker"),
    ("bindings", {"destination_type": "topic"},
     "$.bindings[0].destination_type: is 'topic', it has to be queue or exchange"),
    ("bindings", {"arguments": {"x-match": "some"}}, "$.bindings[0].arguments: Invalid x-match field value "
     '<<"some">>; expected all, any, all-with-x, or any-with-x'),
    ("bindings", {"arguments": {f"a{number}": 1 for number in range(257)}},
     "$.bindings[0].arguments: a binding cannot have more than 256 arguments: this one, from exchange 'x' in vhost "
     "'/', has 257"),
])
def test_a_problem_is_told_with_its_place(section: str, changes: Json, expected: str) -> None:
    body = copy.deepcopy(GOOD)
    assert not problems(body)
    body[section][0] |= changes
    assert expected in problems(body)


def test_a_name_may_have_255_bytes(broker: Broker) -> None:
    load(broker, {"vhosts": [{"name": "v" * 255}], "queues": [{"vhost": "v" * 255, "name": "q" * 255}]})
    assert list(broker.vhosts["v" * 255].queues) == ["q" * 255]


def test_all_problems_are_told_at_once() -> None:
    body = copy.deepcopy(GOOD)
    for entries in body.values():
        entries.append({})
    told = problems(body)
    for section in GOOD:
        assert any(problem.startswith(f"$.{section}[1]: has no ") for problem in told)


def test_the_consequences_of_a_problem_are_not_told(broker: Broker) -> None:
    body = copy.deepcopy(GOOD)
    body["queues"][0]["arguments"] = {"x-max-length": "many"}
    body["users"][0]["limits"] = {"max-channels": "many"}
    assert [problem.partition(":")[0] for problem in problems(body)] == [
        "$.users[0].limits.max-channels", "$.queues[0].arguments.x-max-length"]


@pytest.mark.parametrize("section", [*GOOD])
def test_the_same_object_twice_is_a_problem(section: str) -> None:
    body = copy.deepcopy(GOOD)
    body[section] *= 2
    assert problems(body) == ([] if section == "bindings" else [
        f"$.{section}[1]: is there twice: $.{section}[0]"])


@pytest.mark.parametrize("section", [*GOOD])
def test_lists_are_lists_of_objects(section: str) -> None:
    assert problems({section: {"name": 1}}) == [f"$.{section}: has to be a list"]
    assert problems({section: ["text"]}) == [f"$.{section}[0]: has to be an object"]
    assert not problems({section: None})


def test_a_file_with_a_problem_changes_nothing(broker: Broker) -> None:
    body = copy.deepcopy(GOOD)
    body["bindings"].append({})
    broker.add_vhost(VhostDefinition("/"))
    before = export(broker)
    assert problems(body, broker)
    assert export(broker) == before


def test_unknown_keys_are_told(broker: Broker) -> None:
    body = {"vhosts": [{"name": "/"}], "queues": [{"vhost": "/", "name": "q", "argument": {}}], "more": 1}
    assert load(broker, body).warnings == [
        "$.more: the key is not known and has no effect",
        "$.queues[0].argument: the key is not known and has no effect; is it arguments?"]


def test_a_file_of_one_vhost_needs_to_be_told_which(broker: Broker) -> None:
    broker.add_vhost(VhostDefinition("/"))
    assert problems(export(broker, "/")) == [
        "$: has the definitions of one vhost: import it with 'amqpctl -p VHOST import_definitions'"]


def test_a_user_without_a_password_is_told(broker: Broker) -> None:
    hashed = {"name": "b", "password_hash": "AAAA"}
    body = {"users": [
        {"name": "a"}, {"name": "by-certificate", "password_hash": ""}, hashed, {"name": "c", "password": "secret"}]}
    assert load(broker, body).warnings == [
        "$.users[0]: 'a' has neither password nor password_hash and cannot log in with a password"]


def test_of_a_whole_file_one_vhost_takes_what_belongs_to_vhosts(broker: Broker) -> None:
    broker.add_vhost(VhostDefinition("shop"))
    plan = load(broker, {**GOOD, "parameters": [], "global_parameters": []}, "shop")
    assert [warning.partition(":")[0] for warning in plan.warnings] == [
        "$.vhosts", "$.users", "$.permissions", "$.topic_permissions"]
    assert list(broker.vhosts["shop"].queues) == ["q"] and not broker.users


def test_no_more_queues_than_the_vhost_may_have(broker: Broker) -> None:
    load(broker, {"vhosts": [{"name": "/", "limits": {"max-queues": 2}}], "queues": [
        {"vhost": "/", "name": name} for name in "abc"]})       # the limit counts from then on, as on RabbitMQ
    assert problems({"queues": [{"vhost": "/", "name": name} for name in "cd"]}, broker) == [
        '$.queues: Adding 1 queue(s) to virtual host "/" would exceed the limit of 2 queue(s). This virtual host '
        "currently has 3 queue(s) defined."]
    assert not problems({"queues": [{"vhost": "/", "name": name} for name in "abc"]}, broker)


def test_no_more_queues_than_the_broker_may_have() -> None:
    broker = Broker(RecordingJournal(), queue_limit=2)
    load(broker, {"vhosts": [{"name": "/"}], "queues": [{"vhost": "/", "name": name} for name in "ab"]})
    load(broker, {"queues": [{"vhost": "/", "name": name} for name in "ab"]})
    assert problems({"queues": [{"vhost": "/", "name": name} for name in "bc"]}, broker) == [
        "$.queues: with 1 more there would be 3 queues, allowed are 2 (limits.max_queues)"]


def test_limits_of_a_file_count_once_everything_is_imported(broker: Broker) -> None:
    load(broker, {
        "vhosts": [{"name": "/"}], "queues": [{"vhost": "/", "name": name} for name in "ab"],
        "parameters": [{"vhost": "/", "component": "vhost-limits", "name": "limits", "value": {"max-queues": 1}}]})
    assert len(broker.vhosts["/"].queues) == 2 and broker.vhosts["/"].limits == {"max-queues": 1}


@pytest.mark.parametrize("default", ["classic", "quorum"])
def test_a_queue_that_is_older_than_the_default_type_stays_without_a_type(broker: Broker, default: str) -> None:
    load(broker, {"vhosts": [{"name": "/"}], "queues": [{"vhost": "/", "name": "q"}]})
    broker.replace_vhost(VhostDefinition("/", default_queue_type=default))
    other = Broker(RecordingJournal())
    load(other, export(broker))
    assert export(other) == export(broker)
    assert other.vhosts["/"].queues["q"].definition.arguments == {}


def test_no_more_bindings_than_a_queue_may_have() -> None:
    broker = Broker(RecordingJournal(), binding_limit=2)
    binding = {"vhost": "/", "source": "amq.topic", "destination": "q", "destination_type": "queue"}
    body = {"vhosts": [{"name": "/"}], "queues": [{"vhost": "/", "name": "q"}],
            "bindings": [{**binding, "routing_key": key} for key in "aabb"]}
    load(broker, body)
    assert problems({"bindings": [{**binding, "routing_key": key} for key in "abc"]}, broker) == [
        "$.bindings: queue 'q' in vhost '/' would have 3 bindings, allowed are 2 (limits.bindings_per_queue)"]


# In slices

def test_an_import_is_carried_out_in_slices_in_order(broker: Broker) -> None:
    body = {"vhosts": [{"name": "/"}], "queues": [{"vhost": "/", "name": f"q{number}"} for number in range(500)]}
    plan = check(json.dumps(body).encode(), broker)
    sizes = [len(broker.vhosts["/"].queues) for _ in carry_out(plan, broker)]
    assert len(sizes) == 10 and sizes == sorted(sizes) and max(
        after - before for before, after in zip([0, *sizes], sizes)) <= 50


def test_what_changes_meanwhile_is_told(broker: Broker) -> None:
    plan = check(json.dumps({"vhosts": [{"name": "/"}], **{key: GOOD[key] for key in ("users", "permissions")},
                             "queues": [{"vhost": "/", "name": f"q{number}"} for number in range(100)]}).encode(),
                 broker)
    for number, _ in enumerate(carry_out(plan, broker)):
        if number == 0:
            broker.delete_vhost("/")
    assert len(plan.warnings) == 53
    assert plan.warnings[0] == (
        "the broker has changed during the import: no vhost '/'; import the file again")


def test_an_object_that_is_being_deleted_is_waited_for(broker: Broker) -> None:
    body = {**GOOD, "parameters": [], "global_parameters": []}
    load(broker, body)
    vhost = broker.vhosts["/"]
    for number in range(2_000):
        vhost.bind(OPERATOR, replace(binding_to("q"), routing_key=str(number)), OPERATOR)
    vhost.delete_queue(OPERATOR, "q", OPERATOR)
    assert "q" in vhost.leaving.queues
    plan = check(json.dumps(body).encode(), broker)
    waits = 0
    for wait in carry_out(plan, broker):
        if wait is not None:
            waits += 1
            called: list[bool] = []
            wait(lambda called=called: called.append(True))
            while not called:
                broker.effort.begin_turn()
                broker.worklist.work()
    assert waits and not plan.warnings and "q" in vhost.queues


# JSON

@pytest.mark.parametrize("body, expected", [
    (b"", "$: not JSON, line 1 column 1: an object was expected"),
    (b"[]", "$: not JSON, line 1 column 1: an object was expected"),
    (b'{"users"', "$: not JSON, line 1 column 9: ':' was expected"),
    (b'{"users":\n [1,', "$: not JSON, line 2 column 5: Expecting value"),
    (b'{"users": [1 2]}', "$: not JSON, line 1 column 14: ',' or ']' was expected"),
    (b'{"users": [1], }', "$: not JSON, line 1 column 16: Expecting value"),
    (b'{"users": [1]} {}', "$: not JSON, line 1 column 16: nothing more was expected"),
    (b'{"a": 1, "a": 2}', "$: not JSON, line 1 column 13: the key 'a' is there twice"),
    (b'{3: 1}', "$: not JSON, line 1 column 3: a key in quotes was expected"),
    (b'{"a": NaN}', "$: not JSON, line 1 column 7: NaN is not a number of JSON"),
    (b'{"a": 1e999}', "$.a: the number is too large"),
    (b'{"a": 99999999999999999999}', "$.a: the number is beyond 64 bits"),
    (b'{"a": [{"b c": "\\ud800"}]}', '$.a[0]["b c"]: has half of a surrogate pair, which is not a character'),
    (b'{"a": [{"\\ud800": 1}]}', r"$.a[0]: the key '\ud800' is not a text that can be stored"),
    (b'{"\\ud800": 1}', r"$: the key '\ud800' is not a text that can be stored"),
    (b'{"a": "\xff"}', "$: byte 7 is not UTF-8"),
    (b'{"a": ' + b"[" * 100_000, f"$: not JSON, line 1 column 8: nested deeper than {DEEPEST} levels"),
    (b" " * (MOST_BYTES + 1), "$: larger than 20 MiB"),
])
def test_what_is_not_json_is_told_with_its_place(body: bytes, expected: str) -> None:
    assert problems(body) == [expected]


def test_nesting_has_a_limit() -> None:
    def nested(levels: int) -> bytes:
        value = '{"a":' * (levels - 3) + "1" + "}" * (levels - 3)
        return b'{"global_parameters":[{"name":"n","value":%s}]}' % value.encode()

    assert not problems(nested(DEEPEST))
    [problem] = problems(nested(DEEPEST + 1))
    assert problem.endswith(f"nested deeper than {DEEPEST} levels")


def test_a_byte_order_mark_is_ignored() -> None:
    assert not problems(b"\xef\xbb\xbf{}")


# Whatever comes

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(
        ["/", "q", "x", "u", "topic", "x-queue-type", "stream", "max-length", "amq.topic"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from([*GOOD, "name", "vhost", "user", "arguments", "type", "definition", "value", "limits", "tags"]),
        inner, max_size=4),
    max_leaves=20)


@given(json_values)
def test_any_json_is_imported_or_its_problems_are_told(value: Any) -> None:
    harmless(json.dumps(value).encode())


@given(st.dictionaries(st.sampled_from([*GOOD]), st.lists(json_values, max_size=3)))
def test_any_lists_are_imported_or_their_problems_are_told(value: Any) -> None:
    harmless(json.dumps(value).encode())


@given(st.sampled_from(SAMPLES), st.data())
def test_a_changed_sample_is_imported_or_its_problems_are_told(path: Path, data: st.DataObject) -> None:
    sample = json.loads(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        section = data.draw(st.sampled_from([key for key in GOOD if sample[key]]))
        place: Any = sample[section]
        key: Any = data.draw(st.integers(0, len(place) - 1))
        while isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans()):
            place = place[key]
            key = data.draw(st.sampled_from([*place] if isinstance(place, dict) else range(len(place))))
        place[key] = data.draw(json_values)
    harmless(json.dumps(sample).encode())


@given(st.binary(max_size=50))
def test_any_bytes_are_not_json(body: bytes) -> None:
    harmless(body)
