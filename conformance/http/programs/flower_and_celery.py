"""A Celery worker, its remote control, and Flower's page of brokers: `flower_and_celery.py AMQP-URL HTTP-URL VHOST`.

The worker and Flower are processes of their own, as their users run them; both are ended by their ids.
"""
from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Callable
from urllib.parse import quote, urlsplit

from celery import Celery

WORKER = ["w1@here"]      # named, so that an answer ends the wait
APP = """\
from celery import Celery
app = Celery("shop", broker={broker!r}, backend="rpc://")
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_send_task_events = True

@app.task
def add(one, other):
    return one + other
"""


def main(amqp_url: str, http_url: str, vhost: str) -> None:
    """Start a worker, have it work, control it, and ask Flower about its queue."""
    parts = urlsplit(amqp_url)
    broker = f"amqp://{parts.username or 'guest'}:{parts.password or 'guest'}@{parts.hostname}:{parts.port}/{vhost}"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "shop.py").write_text(APP.format(broker=broker))
        with running(folder, "worker", "--pool", "solo", "--loglevel", "warning", "--hostname", "w1@here"):
            app = Celery("shop", broker=broker, backend="rpc://")
            assert app.send_task("shop.add", (1, 2)).get(timeout=30) == 3
            remote_control(app)
            flower(folder, http_url, vhost)
    print("done")


def remote_control(app: Celery) -> None:
    """What `celery inspect` and `celery control` send, and the worker's answers."""
    inspect = app.control.inspect(timeout=10, destination=WORKER)
    assert inspect.ping() == {"w1@here": {"ok": "pong"}}
    assert "shop.add" in inspect.registered()["w1@here"]
    assert inspect.stats()["w1@here"]["broker"]["transport"] == "amqp"
    assert [queue["name"] for queue in inspect.active_queues()["w1@here"]] == ["celery"]
    assert "w1@here" in app.control.add_consumer("more", reply=True, timeout=10, destination=WORKER)[0]
    wait_for("the second queue", lambda: len(inspect.active_queues()["w1@here"]) == 2)
    assert "w1@here" in app.control.cancel_consumer("more", reply=True, timeout=10, destination=WORKER)[0]
    assert "w1@here" in app.control.rate_limit("shop.add", "10/s", reply=True, timeout=10, destination=WORKER)[0]


def flower(folder: str, http_url: str, vhost: str) -> None:
    """The page of brokers and the API of queues: both ask the management API."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    api = f"{http_url.rstrip('/')}/api/"
    with running(folder, "flower", f"--port={port}", "--address=127.0.0.1", f"--broker-api={api}",
                 environment={"FLOWER_UNAUTHENTICATED_API": "true"}):
        page = f"http://127.0.0.1:{port}"
        queues: list[dict[str, Any]] = []

        def has_the_queue() -> bool:
            queues[:] = json.loads(fetched(f"{page}/api/queues/length"))["active_queues"]
            return {queue["name"]: queue.get("messages") for queue in queues}.get("celery") == 0

        wait_for("the length of the queue", has_the_queue)
        wait_for("the queue on the page of brokers", lambda: "celery" in fetched(f"{page}/broker"))
        assert quote(vhost, safe="") in fetched(f"{page}/broker")


class running:
    """`celery WORDS` as a process, from its start to the end of the block."""

    def __init__(self, folder: str, *words: str, environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "celery", "-A", "shop", *words]
        self.log = open(Path(folder, f"{words[0]}.log"), "w+")
        self.process = subprocess.Popen(command, cwd=folder, stdout=self.log, stderr=self.log,
                                        env=os.environ | {"PYTHONPATH": folder} | (environment or {}))

    def __enter__(self) -> "running":
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if kind is not None:
            self.log.seek(0)
            print(self.log.read(), file=sys.stderr)
        self.log.close()


def fetched(url: str) -> str:
    """Return a page's text, or "" while nobody serves it."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()
    except OSError:
        return "{\"active_queues\": []}"


def wait_for(what: str, is_so: Callable[[], Any]) -> None:
    """Ask again until it is so."""
    deadline = time.monotonic() + 40
    while not is_so():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.5)


if __name__ == "__main__":
    main(*sys.argv[1:])
