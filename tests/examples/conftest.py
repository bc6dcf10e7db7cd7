"""A broker for the tests alone. The README shows this fixture as one to copy, word for word."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def amqp_url() -> Iterator[str]:
    """A broker in memory, on a free port, gone with the last test."""
    command = [sys.executable, "-m", "amqpd", "--memory", "--listen", "127.0.0.1:0", "--log-level", "error"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as broker:
        ready = broker.stdout.readline()        # amqpd 0.1.0 ready amqp=127.0.0.1:40619 data=memory
        yield f"amqp://guest:guest@{ready.split('amqp=')[1].split()[0]}/"
        broker.terminate()
