"""kill -9 during imports of definitions: the next start has all of the file, or nothing of it."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

from amqpd.ctl import client as control
from amqpd.identity import CONTROL_SOCKET
from amqpd.program import Failure
from tests.crash.broker_process import BrokerProcess

KILLS = int(os.environ.get("KILLS", 5))
SEED = int(os.environ.get("SEED") or random.SystemRandom().getrandbits(32))
QUEUES = 600


def file(life: int) -> bytes:
    """Return a file of definitions in a vhost of its own."""
    vhost = f"v{life}"
    return json.dumps({
        "vhosts": [{"name": vhost}],
        "users": [{"name": f"u{life}", "password_hash": "", "tags": ""}],
        "permissions": [{"user": f"u{life}", "vhost": vhost, "configure": "", "write": ".*", "read": ""}],
        "exchanges": [{"vhost": vhost, "name": "e", "type": "topic"}],
        "queues": [{"vhost": vhost, "name": f"q{number}"} for number in range(QUEUES)],
        "bindings": [{"vhost": vhost, "source": "e", "destination": f"q{number}", "routing_key": "k"}
                     for number in range(QUEUES)],
        "policies": [{"vhost": vhost, "name": "p", "pattern": "", "definition": {"max-length": 9}}],
        "parameters": [{"vhost": vhost, "component": "shovel", "name": "s", "value": {}}],
    }).encode()


def counts(path: Path, life: int) -> list[int]:
    """Return how many objects of each kind there are of the file of this life."""
    found: Any = json.loads(control.ask(path, "export_definitions", {}, timeout_s=60))
    own = [one for one in found["users"] if one["name"] == f"u{life}"]
    return [len(own), *(
        sum(one.get("vhost", one.get("name")) == f"v{life}" for one in found[kind])
        for kind in ("vhosts", "permissions", "exchanges", "queues", "bindings", "policies", "parameters"))]


WHOLE = [1, 1, 1, 1, QUEUES, QUEUES, 1, 1]


def test_a_killed_import_leaves_all_or_nothing(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    path, log = tmp_path / "data" / CONTROL_SOCKET, tmp_path / "log"
    kept = []
    for life in range(KILLS):
        with BrokerProcess(tmp_path / "data", log) as broker:
            broker.wait_until_ready()

            def load(body: bytes = file(life)) -> None:
                try:
                    control.ask(path, "import_definitions", {}, body=body, timeout_s=60)
                except Failure:
                    pass        # the broker has been killed

            loading = threading.Thread(target=load)
            loading.start()
            time.sleep(rng.uniform(0.02, 0.4))
            broker.kill()
            loading.join()
        with BrokerProcess(tmp_path / "data", log) as broker:
            broker.wait_until_ready()
            found = counts(path, life)
            assert found in (WHOLE, [0] * len(WHOLE)), f"seed {SEED}, life {life}: {found}"
            kept.append(found == WHOLE)
            broker.kill()
    print(f"seed {SEED}: {sum(kept)} of {KILLS} imports were kept")
