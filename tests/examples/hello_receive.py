"""Print what arrives in a queue, until Ctrl-C: `python hello_receive.py`."""

from __future__ import annotations

import os
from contextlib import suppress

import pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")

with suppress(KeyboardInterrupt), pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
    channel = connection.channel()
    channel.queue_declare("hello")
    print("waiting", flush=True)
    for _, _, body in channel.consume("hello", auto_ack=True):
        print(f"received: {body.decode()}", flush=True)
