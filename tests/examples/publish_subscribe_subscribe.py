"""Print all that is published from now on: `python publish_subscribe_subscribe.py`. Every subscriber gets a copy."""

from __future__ import annotations

import os
from contextlib import suppress

import pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")

with suppress(KeyboardInterrupt), pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
    channel = connection.channel()
    channel.exchange_declare("news", exchange_type="fanout")
    queue = channel.queue_declare("", exclusive=True).method.queue      # a name of the broker's, gone when we are
    channel.queue_bind(queue, "news")
    print("waiting", flush=True)
    for _, _, body in channel.consume(queue, auto_ack=True):
        print(f"heard: {body.decode()}", flush=True)
