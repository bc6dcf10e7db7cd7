"""Clients of public libraries that all do the same: connect, publish with confirms, consume, and stay until told to go.

Each is a context manager: on entry it has connected, published persistent messages, waited for their confirms, consumed
and acked them. Its value is what it received. On exit it closes the connection.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import aio_pika
import kombu
import pika
from yarl import URL

QUEUE = "orders"
AMQPLIB = Path(__file__).with_name("amqplib_client.js")


class Login(NamedTuple):
    """Whom to connect to, and as whom. Without a password, the certificate says who the client is."""

    port: int
    host: str = "localhost"
    tls: Path | None = None             # the folder of the certificates; None without TLS
    user: str = "shop"
    password: str | None = None

    def context(self) -> ssl.SSLContext:
        """What the client trusts, and its certificate if that is what it logs in with."""
        made = ssl.create_default_context(cafile=self._file("ca.pem"))
        if self.password is None:
            made.load_cert_chain(self._file("client.pem"), self._file("client.key"))
        return made

    def kombu_ssl(self) -> dict[str, object]:
        """The same in kombu's words."""
        made: dict[str, object] = {
            "ca_certs": self._file("ca.pem"), "cert_reqs": ssl.CERT_REQUIRED, "server_hostname": self.host}
        if self.password is None:
            made |= {"certfile": self._file("client.pem"), "keyfile": self._file("client.key")}
        return made

    def _file(self, name: str) -> str:
        assert self.tls is not None
        return str(self.tls / name)


UseClient = Callable[[Login, Sequence[bytes]], AbstractContextManager[list[bytes]]]


@contextlib.contextmanager
def use_pika(login: Login, bodies: Sequence[bytes]) -> Iterator[list[bytes]]:
    """pika's blocking connection."""
    parameters = pika.ConnectionParameters(
        login.host, login.port, ssl_options=pika.SSLOptions(login.context(), login.host) if login.tls else None,
        credentials=pika.credentials.ExternalCredentials() if login.password is None
        else pika.PlainCredentials(login.user, login.password))
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True)
        channel.confirm_delivery()
        for body in bodies:
            channel.basic_publish("", QUEUE, body, pika.BasicProperties(delivery_mode=2), mandatory=True)
        received: list[bytes] = []
        while len(received) < len(bodies):
            method, _, body = next(channel.consume(QUEUE))
            received.append(body)
            channel.basic_ack(method.delivery_tag)
        channel.cancel()
        yield received


@contextlib.contextmanager
def use_aio_pika(login: Login, bodies: Sequence[bytes]) -> Iterator[list[bytes]]:
    """aio-pika's plain connection."""
    async def connect() -> aio_pika.abc.AbstractConnection:
        url = URL.build(
            scheme="amqps" if login.tls else "amqp", host=login.host, port=login.port, path="/",
            user=login.user, password=login.password, query={"auth": "EXTERNAL"} if login.password is None else None)
        return await aio_pika.connect(url, ssl_context=login.context() if login.tls else None)

    async def exchange() -> list[bytes]:
        channel = await connection.channel()
        queue = await channel.declare_queue(QUEUE, durable=True)
        for body in bodies:
            await channel.default_exchange.publish(
                aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT), QUEUE)
        received: list[bytes] = []
        async with queue.iterator() as messages:
            while len(received) < len(bodies):
                async with (await anext(messages)).process() as message:
                    received.append(message.body)
        return received

    with asyncio.Runner() as runner:
        connection = runner.run(connect())
        try:
            yield runner.run(exchange())
        finally:
            runner.run(connection.close())


@contextlib.contextmanager
def use_kombu(login: Login, bodies: Sequence[bytes]) -> Iterator[list[bytes]]:
    """kombu, as Celery has it."""
    connection = kombu.Connection(
        transport="pyamqp", hostname=login.host, port=login.port, userid=login.user, password=login.password or "",
        ssl=login.kombu_ssl() if login.tls else False, login_method="EXTERNAL" if login.password is None else "PLAIN",
        transport_options={"confirm_publish": True})
    with connection:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
        queue = kombu.Queue(QUEUE, durable=True)
        received: list[bytes] = []

        def receive(message: kombu.Message) -> None:
            received.append(message.body or b"")     # an empty one is a str
            message.ack()

        with connection.Producer() as producer:
            for body in bodies:
                producer.publish(body, routing_key=QUEUE, delivery_mode=2, declare=[queue])
        with connection.Consumer([queue], on_message=receive):
            while len(received) < len(bodies):
                connection.drain_events(timeout=10)
        yield received


@contextlib.contextmanager
def use_amqplib(login: Login, bodies: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Node's amqplib, in a process of its own. Raises ConnectionError with what it printed."""
    told = login._replace(tls=None)._asdict() | {
        "tls": login.tls and str(login.tls), "bodies": [base64.b64encode(body).decode() for body in bodies]}
    with subprocess.Popen(
        ["node", AMQPLIB], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as node:
        assert node.stdin and node.stdout and node.stderr
        node.stdin.write(json.dumps(told) + "\n")
        node.stdin.flush()
        line = node.stdout.readline()
        if not line:
            raise ConnectionError(node.stderr.read())
        yield [base64.b64decode(body) for body in json.loads(line)]
        node.stdin.close()
        assert node.wait(10) == 0, node.stderr.read()


def has_amqplib() -> bool:
    """Return whether Node.js is here, and finds amqplib: in the folder that the variable NODE_PATH names."""
    node = shutil.which("node")
    return node is not None and subprocess.run(
        [node, "-e", "require('amqplib')"], env=os.environ, capture_output=True).returncode == 0


CLIENTS: dict[str, UseClient] = {
    "pika": use_pika, "aio-pika": use_aio_pika, "kombu": use_kombu, "amqplib": use_amqplib}
