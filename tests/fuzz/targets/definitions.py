"""Files of definitions: checked, imported into an empty broker, exported, and imported again without a loss.

An input that begins with `v` is imported into one vhost.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from amqpd.broker.broker import Broker
from amqpd.broker.definitions import UserDefinition, VhostDefinition
from amqpd.broker.passwords import PasswordForm, StoredPassword
from amqpd.management.definitions_json.applying import carry_out_at_once, hash_passwords
from amqpd.management.definitions_json.checking import check
from amqpd.management.definitions_json.exporting import Snapshot
from amqpd.management.definitions_json.plan import Plan
from tests.fuzz.targets.target import Target
from tests.support.journals import RecordingJournal

SAMPLES = Path(__file__).parents[2] / "management" / "definitions"
PASSWORD = "secret-of-a-user"
AS_PASSWORD = f'"password": "{PASSWORD}"'.encode()


class QuickForm(PasswordForm, frozen=True):
    """Stores passwords without a hash that is slow on purpose."""

    def store(self, password: str) -> StoredPassword:
        """Return a fast hash."""
        return self.store_known(password)


def run(data: bytes) -> None:
    """Import a file; a file with problems changes nothing, any other one comes back as it is exported."""
    vhost = "v" if data[:1] == b"v" else None
    broker = new_broker(vhost)
    before = exported(broker, vhost)
    plan = check(data[1:] if vhost else data, broker, vhost)
    is_secret = data.count(PASSWORD.encode()) == data.count(AS_PASSWORD)
    for line in (*plan.problems, *plan.warnings):
        assert line.startswith("$")
        assert not is_secret or PASSWORD not in line, line
    if plan.problems:
        assert exported(broker, vhost) == before
        return
    carry_out(plan, broker)
    once = exported(broker, vhost)
    other = new_broker(vhost)
    again = check(once, other, vhost)
    assert not again.problems, again.problems
    carry_out(again, other)
    assert exported(other, vhost) == once


def new_broker(vhost: str | None) -> Broker:
    """Return a broker with a user, and perhaps a vhost."""
    broker = Broker(RecordingJournal())
    broker.users.put(UserDefinition("guest"))
    if vhost is not None:
        broker.add_vhost(VhostDefinition(vhost))
    return broker


def carry_out(plan: Plan, broker: Broker) -> None:
    """Import everything, and check what always holds."""
    hash_passwords(plan, broker, QuickForm())
    carry_out_at_once(plan, broker)
    assert not any("has changed during the import" in line for line in plan.warnings), plan.warnings
    for vhost in broker.vhosts.values():
        vhost.check()


def exported(broker: Broker, vhost: str | None) -> bytes:
    """Return what is exported."""
    return b"".join(Snapshot(broker, vhost).write())


# Mutations of what the JSON says

WORDS: tuple[Any, ...] = (
    None, True, 0, -1, 1 << 63, 1 << 64, 0.5, 1e400, "", "all", "queues", "exchanges", "queue", "exchange",
    "x" * 256, "\u00e9\ud800", "amq.own", "amq.topic", "guest", "/", "v", "q", "x", "direct", "headers", "quorum",
    "stream", "classic", ".*", "(", "(a{99}){102}", {}, [], [1], {"a": 1}, "x-message-ttl", "x-queue-type",
    "x-dead-letter-exchange", "x-max-priority", "x-match", "max-length", "alternate-exchange",
    "dead-letter-exchange", "ha-mode", "x-arguments", "operator_policy", "vhost-limits", "limits", "max-queues",
    "policy", "amqpd-kept-queues")
SECTIONS: dict[str, dict[str, Any]] = {
    "vhosts": {"name": "v", "limits": {"max-queues": 1}, "metadata": {"tags": []}, "default_queue_type": "quorum"},
    "users": {"name": "u", "password": PASSWORD, "tags": ["administrator"], "limits": {}},
    "permissions": {"user": "guest", "vhost": "v", "configure": "", "write": ".*", "read": "^q"},
    "topic_permissions": {"user": "guest", "vhost": "v", "exchange": "x", "write": ".*", "read": "{username}"},
    "parameters": {"vhost": "v", "component": "vhost-limits", "name": "limits", "value": {"max-queues": 5}},
    "global_parameters": {"name": "cluster_name", "value": "rabbit"},
    "policies": {"vhost": "v", "name": "p", "pattern": "^q", "apply-to": "queues", "priority": 1,
                 "definition": {"max-length": 5, "overflow": "reject-publish"}},
    "exchanges": {"vhost": "v", "name": "x", "type": "topic", "durable": True, "auto_delete": False, "internal": False,
                  "arguments": {"alternate-exchange": "amq.fanout"}},
    "queues": {"vhost": "v", "name": "q", "durable": True, "auto_delete": False, "arguments": {"x-max-length": 5}},
    "bindings": {"vhost": "v", "source": "x", "destination": "q", "destination_type": "queue", "routing_key": "k",
                 "arguments": {}}}


def mutate(random: Random, data: bytes) -> bytes | None:
    """Change one to three places of a JSON text: put another value there, a copy of one, another key, or nothing."""
    prefix = b"v" if data[:1] == b"v" else b""
    try:
        root = json.loads(data[len(prefix):])
    except (ValueError, RecursionError):
        return None
    if random.random() < 0.05:
        prefix = b"" if prefix else b"v"
    for _ in range(random.choice((1, 1, 2, 3))):
        if not isinstance(root, dict):
            return None
        _change(random, root)
    return prefix + json.dumps(root).encode(errors="surrogatepass")


def _change(random: Random, root: dict[str, Any]) -> None:
    if random.random() < 0.2:
        section = random.choice(list(SECTIONS))
        entries = root.get(section)
        root[section] = [*(entries if isinstance(entries, list) else ()), json.loads(json.dumps(SECTIONS[section]))]
        return
    home: Any = root
    while True:
        keys = list(home) if isinstance(home, dict) else list(range(len(home)))
        if not keys:
            break
        key = random.choice(keys)
        inner = home[key]
        if isinstance(inner, (dict, list)) and inner and random.random() < 0.85:
            home = inner
            continue
        if random.random() < 0.2:
            del home[key]
        elif isinstance(home, dict) and random.random() < 0.3:
            home[_word(random)] = home.pop(key)
        elif isinstance(home, list) and random.random() < 0.5:
            home.append(json.loads(json.dumps(inner)))
        else:
            home[key] = random.choice(WORDS)
        return
    if isinstance(home, dict):
        home[_word(random)] = random.choice(WORDS)
    elif isinstance(home, list):
        home.append(random.choice(WORDS))


def _word(random: Random) -> str:
    return random.choice([word for word in WORDS if isinstance(word, str)])


def seeds() -> list[bytes]:
    """Return exports of RabbitMQ, and each kind of object by itself and with all others."""
    whole = {section: [entry] for section, entry in SECTIONS.items()}
    of_vhost = {section: whole[section] for section in ("policies", "exchanges", "queues", "bindings", "parameters")}
    singles = [{"vhosts": whole["vhosts"], section: [entry]} for section, entry in SECTIONS.items()]
    return [b"{}", b"[]", b"\xff", b"{", *(path.read_bytes() for path in sorted(SAMPLES.glob("*.json"))),
            *(json.dumps(one).encode() for one in (whole, *singles, {"rabbitmq_version": "3.10.8", **whole})),
            b"v" + json.dumps(of_vhost).encode()]


TARGET = Target(
    run, seeds, [b'{"', b'":', b"[", b"]", b"}", b",", b"null", b"1e999", b"-1", b'"\\ud800"', b'"vhosts":[',
                 b"\xef\xbb\xbf"],
    longest=6_000, mutate=mutate, steps=2_000, memory=40_000, lengths=(), share=9)
