"""Print the lines of some levels only: `python routing_subscribe.py LEVEL...`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")

levels = sys.argv[1:]
if not levels:
    sys.exit("usage: routing_subscribe.py LEVEL...")
with suppress(KeyboardInterrupt), pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
    channel = connection.channel()
    channel.exchange_declare("log", exchange_type="direct")
    queue = channel.queue_declare("", exclusive=True).method.queue
    for level in levels:
        channel.queue_bind(queue, "log", routing_key=level)
    print("waiting", flush=True)
    for delivery, _, body in channel.consume(queue, auto_ack=True):
        print(f"{delivery.routing_key}: {body.decode()}", flush=True)
