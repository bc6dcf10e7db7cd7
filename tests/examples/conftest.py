"""A fixture that starts a broker for the tests. The README shows this file, word for word, as one to copy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def amqp_url() -> Iterator[str]:
    """Run a broker in memory, on a free port, until the last test has ended."""
    command = [sys.executable, "-m", "amqpd", "--memory", "--listen", "127.0.0.1:0", "--management", "none",
               "--log-level", "error"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as broker:
        assert broker.stdout and broker.stderr
        ready = broker.stdout.readline()        # amqpd 0.1.0 ready amqp=127.0.0.1:40619 data=memory
        if not ready:
            pytest.fail(f"the broker did not start: {broker.stderr.read()}", pytrace=False)
        yield f"amqp://guest:guest@{ready.split('amqp=')[1].split()[0]}/"
        broker.terminate()
