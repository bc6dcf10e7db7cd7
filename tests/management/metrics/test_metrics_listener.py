"""The listener for metrics alone: everything is for anyone, as on RabbitMQ's, and nothing else is there."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from amqpd.config import Management, Tls
from amqpd.config.settings import File
from amqpd.ctl.certificates import make_certificates
from tests.support.api import FREE, Api, Reply, running

NOT_FOUND = {"error": "Object Not Found", "reason": "Not Found"}


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with running(management=Management(listeners=(FREE,), metrics_listeners=(FREE,), path_prefix="/mq")) as found:
        assert found.put("/queues/%2F/a", prefix="/mq/api") == 201
        yield found


def asked(api: Api, path: str, method: str = "GET") -> Reply:
    """Ask the listener for metrics, without a login."""
    (_, port), = api.runtime.metrics_addresses
    return Api.ask(_At(api, port), method, path, prefix="", user=None)


class _At(Api):
    def __init__(self, api: Api, port: int) -> None:
        self.port = port


def test_everything_about_metrics_is_there_for_anyone_below_no_prefix(api: Api) -> None:
    sums, each = asked(api, "/metrics"), asked(api, "/metrics/per-object")
    assert (sums.status, sums.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"\nrabbitmq_queue_messages_ready 0\n" in sums.body
    assert each.status == 200 and b'\nrabbitmq_queue_messages_ready{vhost="/",queue="a"} 0\n' in each.body
    detailed = asked(api, "/metrics/detailed?family=queue_coarse_metrics&vhost=%2F")
    assert b'\nrabbitmq_detailed_queue_messages{vhost="/",queue="a"} 0\n' in detailed.body
    assert api.ask("GET", "/mq/metrics/per-object", prefix="", user=None).status == 401


@pytest.mark.parametrize("path", ["/", "/api/overview", "/mq/metrics", "/metrics/nosuch", "/api/login"])
def test_nothing_else_is_there(api: Api, path: str) -> None:
    reply = asked(api, path)
    assert (reply.status, reply.body) == (404, NOT_FOUND)
    assert asked(api, path, "POST").status == 404


def test_metrics_are_read_only(api: Api) -> None:
    reply = asked(api, "/metrics", "POST")
    assert (reply.status, reply.headers["allow"]) == (405, "HEAD, GET, OPTIONS")


def test_the_listener_is_listed_and_checked_as_rabbitmqs(api: Api) -> None:
    (host, port), = api.runtime.metrics_addresses
    listed = {one["protocol"]: one["port"] for one in api.get("/overview", prefix="/mq/api")["listeners"]}
    assert listed["http/prometheus"] == port
    for check in (f"port-listener/{port}", "protocol-listener/http%2Fprometheus"):
        assert api.get(f"/health/checks/{check}", prefix="/mq/api")["status"] == "ok"
    answer = api.ask("POST", "/amqpctl", {"command": "status"}, prefix="/mq/api").body["result"]
    assert answer["listeners"][-1] == {
        "node": answer["listeners"][0]["node"], "interface": host, "port": port, "protocol": "http/prometheus",
        "purpose": "Prometheus exporter API over HTTP"}


def test_another_path_and_a_series_for_each_object_over_tls(tmp_path: Path) -> None:
    make_certificates.main([str(tmp_path), "-q"], standalone_mode=False)
    server, key, ca = [next(tmp_path.glob(pattern)) for pattern in ("server*.pem", "server*key*", "ca*.pem")]
    settings = Management(
        listeners=(FREE,), metrics_tls_listeners=(FREE,), metrics_path="/my/metrics", metrics_per_object=True)
    with running(management=settings, tls=Tls(certificate=File(str(server)), key=File(str(key)))) as api:
        assert api.put("/queues/%2F/a") == 201
        assert b"\nrabbitmq_queue_messages_ready 0\n" in api.ask("GET", "/metrics", prefix="", user=None).body
        context = ssl.create_default_context(cafile=str(ca))
        with socket.create_connection(api.runtime.metrics_addresses[0]) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as client:
                client.sendall(b"GET /my/metrics HTTP/1.0\r\nHost: x\r\n\r\n")
                answer = b"".join(iter(lambda: client.recv(65_536), b""))
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b'\nrabbitmq_queue_messages_ready{vhost="/",queue="a"} 0\n' in answer
        assert api.get("/overview")["listeners"][-1]["protocol"] == "https/prometheus"
