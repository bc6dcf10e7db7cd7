"""Answer requests: a text comes back in capitals. `python rpc_server.py`."""

from __future__ import annotations

import os
from contextlib import suppress

import pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")

with suppress(KeyboardInterrupt), pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
    channel = connection.channel()
    channel.queue_declare("capitals")
    channel.basic_qos(prefetch_count=1)
    print("waiting", flush=True)
    for request, asked, body in channel.consume("capitals"):
        channel.basic_publish(
            exchange="",
            routing_key=asked.reply_to,
            body=body.decode().upper(),
            properties=pika.BasicProperties(correlation_id=asked.correlation_id),
        )
        channel.basic_ack(request.delivery_tag)
        print(f"answered: {body.decode()}", flush=True)
