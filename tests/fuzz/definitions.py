"""Definitions files made by chance: samples whose values or bytes are changed.

`python -m tests.fuzz.definitions` tries as many as asked for and prints each fault with its seed. `harmless` takes any
bytes, so a coverage-guided fuzzer can call it too.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

from amqpd.broker.broker import Broker
from amqpd.management.definitions_json.applying import carry_out_at_once
from amqpd.management.definitions_json.checking import check
from amqpd.management.definitions_json.exporting import Snapshot
from amqpd.management.definitions_json.plan import Plan
from tests.support.journals import RecordingJournal

SAMPLES = [json.loads(path.read_bytes()) for path in sorted(
    (Path(__file__).parents[1] / "management" / "definitions").glob("*.json"))]
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 255, 1 << 31, -(1 << 63), (1 << 64) - 1, 1 << 64, 0.5, 1e308, "", "/", "shop", "till",
    "amq.topic", "amq.gen-x", "x" * 256, "\u00e9" * 128, "\ud800", "nul\0", "(", "(a+)+$", "^(?!x).*", "stream",
    "quorum", "x-delayed-message", "operator_policy", "vhost-limits", "limits", "amqpd-kept-queues", "AAAA", "***", [],
    {}, [[]],
    [["max-queues", 1]], {"x-queue-type": "stream"}, {"x-max-length": "1"}, {"a": {"b": [{"c": None}]}},
    {"x-match": "any", "n": 1}]
KEYS = ["name", "vhost", "type", "arguments", "definition", "value", "component", "source", "destination", "pattern",
        "tags", "limits", "metadata", "password", "password_hash", "durable", "x-queue-type", "rabbitmq_version",
        "rabbitmq_definition_format"]


def made(seed: int) -> bytes:
    """Return the file of this seed."""
    random = Random(seed)
    sample = copy.deepcopy(random.choice(SAMPLES))
    for _ in range(random.choice([1, 1, 2, 5, 20])):
        _change(random, sample)
    body = json.dumps(sample).encode()
    if random.random() < 0.2:
        at = random.randrange(len(body))
        body = body[:at] + random.randbytes(random.randrange(4)) + body[at + random.randrange(4):]
    return body


def _change(random: Random, sample: dict[str, Any]) -> None:
    """Change one value somewhere: replace it, delete it, take one from elsewhere, or add one."""
    holder: Any = sample
    while True:
        key: Any = random.choice([*holder]) if isinstance(holder, dict) else random.randrange(len(holder))
        inner = holder[key]
        if not isinstance(inner, (dict, list)) or not inner or random.random() < 0.15:
            break
        holder = inner
    match random.randrange(5):
        case 0 if isinstance(holder, dict):
            holder[random.choice(KEYS)] = copy.deepcopy(random.choice(VALUES))
        case 1 if isinstance(holder, list):
            holder.insert(random.randrange(len(holder) + 1), copy.deepcopy(random.choice(holder)))
        case 2 if len(holder) > 1:
            del holder[key]
        case 3:
            holder[key] = copy.deepcopy(random.choice(random.choice(SAMPLES)[random.choice(["queues", "bindings"])]))
        case _:
            holder[key] = copy.deepcopy(random.choice(VALUES))


def harmless(body: bytes) -> Plan:
    """Check a file, and import it if it has no problems: then nothing is refused, and the export has all of it.

    Whatever the bytes are, nothing but a list of problems comes of them. Raises AssertionError if not.
    """
    broker = Broker(RecordingJournal())
    plan = check(body, broker)
    assert all(problem.startswith("$") for problem in plan.problems)
    "\n".join([*plan.problems, *plan.warnings]).encode()
    if plan.problems:
        assert not broker.vhosts and not broker.users
        return plan
    plan.passwords.clear()
    _carry_out(plan, broker)
    exported = b"".join(Snapshot(broker).write())
    other = Broker(RecordingJournal())
    again = check(exported, other)
    assert not again.problems, again.problems
    _carry_out(again, other)
    assert b"".join(Snapshot(other).write()) == exported
    return plan


def _carry_out(plan: Plan, broker: Broker) -> None:
    told = len(plan.warnings)
    carry_out_at_once(plan, broker)
    assert len(plan.warnings) == told, plan.warnings[told:]
    for vhost in broker.vhosts.values():
        vhost.check()


def try_all(seeds: Iterable[int]) -> dict[int, str]:
    """Try the files of these seeds; return what went wrong, by seed."""
    faults = {}
    for seed in seeds:
        try:
            harmless(made(seed))
        except Exception as error:
            faults[seed] = f"{type(error).__name__}: {error}"
    return faults


def main() -> int:
    """Try as many as asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.definitions", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, help="of the first file (default: by chance); the next has the next")
    options = parser.parse_args()
    first = SystemRandom().randrange(10 ** 9) if options.seed is None else options.seed
    print(f"files {first} to {first + options.inputs - 1}", flush=True)
    faults = try_all(range(first, first + options.inputs))
    for seed, fault in faults.items():
        print(f"seed {seed}: {fault[:1_000]}")
    print(f"{options.inputs} files, {len(faults)} faults")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
