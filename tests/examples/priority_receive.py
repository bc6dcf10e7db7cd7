"""Print letters, the most urgent waiting letter first, until Ctrl-C: `python priority_receive.py`."""

from __future__ import annotations

import os
from contextlib import suppress

import pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")

with suppress(KeyboardInterrupt), pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
    channel = connection.channel()
    channel.queue_declare("letters", durable=True, arguments={"x-max-priority": 5})
    channel.basic_qos(prefetch_count=1)     # nothing can overtake what is here already
    print("waiting", flush=True)
    for delivery, _, body in channel.consume("letters"):
        print(f"read: {body.decode()}", flush=True)
        channel.basic_ack(delivery.delivery_tag)
