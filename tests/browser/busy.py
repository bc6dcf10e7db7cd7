"""Make a broker busy: queues with messages of many kinds, dead letters, consumers, unacked messages, policies, users.

    python -m tests.browser.busy 127.0.0.1:5672 127.0.0.1:15672
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import threading
import time
import urllib.request
from typing import Any, Self
from urllib.parse import quote

import pika
from pika.adapters.blocking_connection import BlockingChannel

SHOP = (
    # name, key, arguments, messages
    ("orders.created", "order.created", {"x-dead-letter-exchange": "shop.dead"}, 1_240),
    ("orders.paid", "order.paid", {"x-dead-letter-exchange": "shop.dead", "x-message-ttl": 3_600_000}, 312),
    ("orders.shipped", "order.shipped", {"x-queue-type": "quorum"}, 0),
    ("invoices", "invoice.#", {"x-max-length": 50_000, "x-overflow": "reject-publish"}, 88),
    ("emails.transactional", "mail.now", {"x-max-priority": 5}, 17),
    ("emails.newsletter", "mail.bulk", {"x-queue-mode": "lazy"}, 24_500),
    ("search.index", "product.*", {}, 0),
    ("thumbnails", "image.*", {"x-single-active-consumer": True}, 63),
    ("audit.trail", "#", {}, 4_012),
    ("payments.retry", "payment.retry", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "payments.failed",
                                         "x-message-ttl": 500}, 9),
    ("payments.failed", "payment.failed", {}, 3),
    ("dead.letters", "#", {}, 0),
)
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAYAAAAf8/9hAAAAHUlEQVR42mNk+M9QzzCKRgMgGg2AaDQAogEQDYAGAKurEAHc2vSNAAAA"
    "AElFTkSuQmCC")
HOSTILE = "<img src=x onerror=alert(1)>"
HIDDEN = ("warehouse/eu west", "π-metrics", HOSTILE)


class Busy:
    """Keeps a broker busy until the block ends."""

    def __init__(self, amqp_port: int, http_port: int, host: str = "127.0.0.1") -> None:
        self._host = host
        self._amqp_port = amqp_port
        self._http = f"http://{host}:{http_port}/api"
        self._is_over = threading.Event()
        self._random = random.Random(7)
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._define()
        self._fill()
        for name, prefetch, pause_s in (
                ("orders.created", 20, 0.02), ("orders.created", 20, 0.03), ("orders.shipped", 5, 0.0),
                ("search.index", 0, 0.0), ("invoices", 1, 3_600.0), ("thumbnails", 3, 0.5), ("thumbnails", 3, 0.5)):
            self._start(self._consume, name, prefetch, pause_s)
        self._start(self._publish)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(10)

    def _start(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments)
        thread.start()
        self._threads.append(thread)

    def _open(self, name: str) -> pika.BlockingConnection:
        return pika.BlockingConnection(pika.ConnectionParameters(
            self._host, self._amqp_port, client_properties={"connection_name": name}))

    def _api(self, method: str, path: str, body: Any = None) -> None:
        request = urllib.request.Request(
            self._http + path, None if body is None else json.dumps(body).encode(), method=method, headers={
                "Content-Type": "application/json",
                "Authorization": "Basic " + base64.b64encode(b"guest:guest").decode()})
        with urllib.request.urlopen(request) as answer:
            answer.read()

    def _define(self) -> None:
        """Make vhosts, users and policies."""
        for vhost in ("staging", *HIDDEN):
            self._api("PUT", f"/vhosts/{quote(vhost, safe='')}", {"description": "Made by busy.py", "tags": "test"})
        for name, tags in (("alice", "administrator"), ("bob", "management"), ("grafana", "monitoring"),
                           ("deploy", "policymaker"), ("shop-backend", ""), (HOSTILE, "management")):
            encoded = quote(name, safe="")
            self._api("PUT", f"/users/{encoded}", {"password": "secret", "tags": tags})
            self._api("PUT", f"/permissions/%2F/{encoded}", {"configure": "^shop", "write": ".*", "read": ".*"})
        self._api("PUT", "/policies/%2F/orders-limit", {
            "pattern": "^orders\\.", "apply-to": "queues", "priority": 5,
            "definition": {"max-length": 100_000, "dead-letter-exchange": "shop.dead"}})
        self._api("PUT", "/policies/%2F/mail-ttl", {
            "pattern": "^emails\\.", "apply-to": "queues", "definition": {"message-ttl": 86_400_000}})
        self._api("PUT", "/operator-policies/%2F/nothing-endless", {
            "pattern": ".*", "apply-to": "queues", "definition": {"max-length": 1_000_000}})
        self._api("PUT", "/vhost-limits/staging/max-connections", {"value": 50})
        self._api("PUT", "/user-limits/bob/max-channels", {"value": 100})

    def _fill(self) -> None:
        """Declare exchanges and queues, and publish."""
        with self._open("setup") as connection:
            channel = connection.channel()
            for exchange, kind in (("shop", "topic"), ("shop.dead", "fanout"), ("broadcast", "fanout"),
                                   ("by-header", "headers"), (HOSTILE, "direct"), ("unrouted", "fanout")):
                arguments = {"alternate-exchange": "unrouted"} if exchange == "shop" else {}
                channel.exchange_declare(exchange, kind, durable=True, arguments=arguments)
            for name, key, arguments, count in SHOP:
                channel.queue_declare(name, durable=True, arguments=arguments)
                channel.queue_bind(name, "shop.dead" if name == "dead.letters" else "shop", key)
                for number in range(count):
                    self._send(channel, "", name, number)
            channel.queue_declare("no.route", durable=True)
            channel.queue_bind("no.route", "unrouted")
            channel.exchange_bind("shop", "broadcast", "order.created")
            channel.queue_declare(HOSTILE, durable=True)
            channel.queue_bind(HOSTILE, HOSTILE, "<b>&\"'")
            channel.queue_declare("x" * 200, durable=True)
            channel.basic_publish("", HOSTILE, b"<script>alert(1)</script>", pika.BasicProperties(
                headers={HOSTILE: HOSTILE}, content_type="text/html", app_id=HOSTILE))
            for number in range(40):        # dead letters: rejected by a consumer
                method, _, _ = channel.basic_get("orders.created")
                channel.basic_reject(method.delivery_tag, requeue=False)

    def _send(self, channel: BlockingChannel, exchange: str, key: str, number: int) -> None:
        kind = number % 11
        kinds = {
            8: (b"plain text, message %d" % number, "text/plain"),
            9: (PNG, "image/png"),
            10: (b"\x83\xa2id\xcd\x04\xd2\xa4name\xa5table\xa3tag\xc3", "application/msgpack"),
        }
        order = {"order": {"id": number, "customer": f"C-{number * 7919 % 10_000:04}",
                           "lines": [{"sku": f"SKU-{number % 37}", "count": 1 + number % 4}]}, "total": number * 1.25}
        body, content_type = kinds.get(kind, (json.dumps(order).encode(), "application/json"))
        channel.basic_publish(exchange, key, body, pika.BasicProperties(
            content_type=content_type, delivery_mode=2, message_id=f"m-{number}", timestamp=int(time.time()) - number,
            priority=number % 5, app_id="shop-backend", headers={"attempt": number % 3, "region": "eu-west"}))

    def _publish(self) -> None:
        with self._open("shop-backend publisher") as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            number = 0
            while not self._is_over.wait(0.05):
                for key in ("order.created", "order.shipped", "product.changed", "image.new", "nowhere"):
                    for _ in range(self._random.randrange(5)):
                        self._send(channel, "shop", key, number := number + 1)
                connection.process_data_events(0)

    def _consume(self, queue: str, prefetch: int, pause_s: float) -> None:
        with self._open(f"worker of {queue}") as connection:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=prefetch)

            def take(_: Any, method: Any, properties: Any, body: bytes) -> None:
                if pause_s < 1_000:
                    self._is_over.wait(pause_s)
                    channel.basic_ack(method.delivery_tag)

            channel.basic_consume(queue, take)
            while not self._is_over.is_set():
                connection.process_data_events(0.2)


def main() -> None:
    """Make a broker busy until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("amqp")
    parser.add_argument("http")
    arguments = parser.parse_args()
    host, _, port = arguments.amqp.rpartition(":")
    with Busy(int(port), int(arguments.http.rpartition(":")[2]), host):
        print("busy; Ctrl-C ends it", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
